"""Wire: whatever comes in is a message or a RealtimeError; whatever goes out is what the protocol says."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from realtime.boards.board import ALL_TIME, week_of
from realtime.boards.standings import Diff, Snapshot, Upsert
from realtime.boards.submissions import Accepted, Rejected
from realtime.errors import STATUS, RealtimeError
from realtime.wire import close_codes, messages

WEEK = week_of(date(2026, 11, 23))
KINDS = ["subscribe", "unsubscribe", "auth", "submit", "watch", "unwatch", "ping"]

# Text with what breaks things: NUL, lone surrogates, bidi overrides.
wild_text = st.text(st.characters(codec=None, categories=None), max_size=20) | st.sampled_from(
    ["\x00", "\ud800", "all_time", "current_week", "\u202e"]
)
wild_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | wild_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(wild_text, inner, max_size=4),
    max_leaves=8,
)
fields = st.fixed_dictionaries(
    {"type": st.sampled_from(KINDS) | wild_json},
    optional={
        name: wild_json for name in ("board", "since", "token", "user_id", "submission_id", "score_added", "reason")
    },
)


def parse_or_refuse(raw: bytes) -> messages.Message | None:
    """The message, or None where it is refused; anything else than RealtimeError fails the test."""
    try:
        return messages.parse(raw)
    except RealtimeError as error:
        assert error.code in STATUS and error.message.endswith(".")
        # What is told must fit into a message itself.
        json.loads(messages.error(error))
        return None


@given(st.binary(max_size=200))
@example(b"")
@example(b"\xff\xfe{\x00}\x00")
@example(b"{" * 2_000)
@example(b"[" * 200_000)
@example(b'{"type":' * 100_000)
@example(b"1" * 10_000)
@example(b'{"a":' + b"9" * 5_000 + b"}")
@example(b'{"type":"ping"}\x00')
@example(b"NaN")
@example(b'{"type":NaN}')
@example(b'{"type":Infinity}')
@example(b'{"type":"\\ud800"}')
@example(b"\xef\xbb\xbf{}")
def test_no_bytes_raise_anything_else(raw: bytes) -> None:
    parse_or_refuse(raw)


@given(fields | wild_json)
def test_no_json_raises_anything_else(value: Any) -> None:
    parse_or_refuse(json.dumps(value).encode())


@given(fields)
@example({"type": "subscribe", "board": "\ud800"})
@example({"type": "unsubscribe", "board": "\x00"})
def test_whatever_is_parsed_can_be_answered(value: Any) -> None:
    """An answer names the board it is about: no text may get in that cannot get out again."""
    message = parse_or_refuse(json.dumps(value).encode())
    board = getattr(message, "board", None)
    if board is not None:
        answer = json.loads(messages.error(RealtimeError("unknown_board", "There is no such board."), board))
        assert answer["board"] == board


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"type":"subscribe","board":"all_time"}', messages.Subscribe("all_time", None)),
        (
            '{"type":"subscribe","board":"all_time","since":{"epoch":"x","version":12}}',
            messages.Subscribe("all_time", messages.Since("x", 12)),
        ),
        ('{"type":"subscribe","board":"all_time","since":null}', messages.Subscribe("all_time", None)),
        ('{"type":"unsubscribe","board":"all_time"}', messages.Unsubscribe("all_time")),
        ('{"type":"auth","token":"a.b.c"}', messages.Auth("a.b.c")),
        ('{"type":"watch","board":"all_time","user_id":7}', messages.Watch("all_time", 7)),
        ('{"type":"unwatch","board":"all_time","user_id":7}', messages.Unwatch("all_time", 7)),
        (
            '{"type":"subscribe","board":"all_time","since":{"epoch":"x","version":12.0}}',
            messages.Subscribe("all_time", messages.Since("x", 12)),
        ),
        ('{"type":"watch","board":"all_time","user_id":7.0}', messages.Watch("all_time", 7)),
        ('{"type":"unwatch","board":"all_time","user_id":7E0}', messages.Unwatch("all_time", 7)),
        ('{"type":"ping"}', messages.Ping()),
        ('{"type":"ping","later":"fields are ignored"}', messages.Ping()),
        ('{"type":"submit","score_added":1}', messages.Submit({"type": "submit", "score_added": 1})),
    ],
)
def test_messages_are_read(text: str, message: messages.Message) -> None:
    assert messages.parse(text.encode()) == message


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("nonsense", "bad_message", "JSON object"),
        ("", "bad_message", "JSON object"),
        ("[]", "bad_message", "JSON object"),
        ('"ping"', "bad_message", "JSON object"),
        ("null", "bad_message", "JSON object"),
        ("{}", "bad_message", '"type"'),
        ('{"type":5}', "bad_message", '"type"'),
        ('{"type":null}', "bad_message", '"type"'),
        ('{"type":"dance"}', "unknown_type", "subscribe"),
        ('{"type":"subscribe"}', "bad_message", '"board"'),
        ('{"type":"subscribe","board":7}', "bad_message", '"board"'),
        ('{"type":"subscribe","board":"\\ud800"}', "unknown_board", "all_time"),
        ('{"type":"unsubscribe","board":"\\udfff"}', "unknown_board", "all_time"),
        ('{"type":"watch","board":"Ω","user_id":7}', "unknown_board", "all_time"),
        ('{"type":"subscribe","board":"all_time","since":5}', "bad_message", "since"),
        ('{"type":"subscribe","board":"all_time","since":{"epoch":"x","version":1,"board":5}}', "bad_message", "since"),
        ('{"type":"subscribe","board":"all_time","since":{"epoch":"x"}}', "bad_message", "since"),
        ('{"type":"subscribe","board":"all_time","since":{"epoch":"x","version":"1"}}', "bad_message", "since"),
        ('{"type":"subscribe","board":"all_time","since":{"epoch":"x","version":true}}', "bad_message", "since"),
        ('{"type":"subscribe","board":"all_time","since":{"epoch":"x","version":1.5}}', "bad_message", "since.version"),
        ('{"type":"subscribe","board":"all_time","since":{"epoch":"x","version":-1}}', "out_of_range", "since.version"),
        (
            '{"type":"subscribe","board":"all_time","since":{"epoch":"x","version":9007199254740993.0}}',
            "out_of_range",
            "since.version",
        ),
        ('{"type":"watch","board":"all_time","user_id":7.5}', "bad_message", "user_id"),
        ('{"type":"watch","board":"all_time","user_id":1e400}', "out_of_range", "user_id"),
        ('{"type":"watch","board":"all_time","user_id":9007199254740993.0}', "out_of_range", "user_id"),
        ('{"type":"watch","board":"all_time","user_id":NaN}', "bad_message", "JSON"),
        ('{"type":"auth"}', "bad_message", "token"),
        ('{"type":"auth","token":5}', "bad_message", "token"),
        ('{"type":"watch","board":"all_time"}', "bad_message", "user_id"),
        ('{"type":"watch","board":"all_time","user_id":"7"}', "bad_message", "user_id"),
        ('{"type":"watch","board":"all_time","user_id":true}', "bad_message", "user_id"),
        ('{"type":"watch","board":"all_time","user_id":0}', "out_of_range", "user_id"),
        ('{"type":"watch","board":"all_time","user_id":9007199254740992}', "out_of_range", "user_id"),
    ],
)
def test_what_is_wrong_is_named(text: str, code: str, says: str) -> None:
    with pytest.raises(RealtimeError) as caught:
        messages.parse(text.encode())
    assert caught.value.code == code
    assert says in caught.value.message


def test_a_board_name_that_cannot_be_one_is_not_carried_around() -> None:
    with pytest.raises(RealtimeError) as caught:
        messages.parse(json.dumps({"type": "subscribe", "board": "x" * 50_000}).encode())
    assert caught.value.code == "unknown_board"
    assert len(caught.value.message) < 200


def test_a_lone_surrogate_costs_its_own_field_alone() -> None:
    rows = messages.loads(b'[{"reason":"\\ud800"},{"reason":"fine"}]')
    assert rows[1] == {"reason": "fine"}


@pytest.mark.parametrize("text", [b"NaN", b"[Infinity]", b'{"a":-Infinity}', b'{"a":"\\ud800","b":NaN}'])
def test_numbers_that_json_does_not_have_are_refused(text: bytes) -> None:
    with pytest.raises(RealtimeError, match="not JSON"):
        messages.loads(text)


def test_the_largest_and_smallest_numbers_come_through_exactly() -> None:
    for number in (2**53 - 1, -(2**31), 2**63 - 1, 2**64 - 1):
        assert messages.loads(b'{"n":%d}' % number) == {"n": number}


# Going out -------------------------------------------------------------------------------------------------------


def test_messages_are_as_the_protocol_says() -> None:
    at = datetime(2026, 11, 23, 10, 0, 0, 1999, UTC)
    board = Snapshot("all_time", "x", 12, {1: 1000}, {1: "dev-0001"})
    change = Diff("all_time", "x", 12, 15, [Upsert(7, None, 1100), Upsert(8, "new", 9)], [3])
    error = RealtimeError("overloaded", "Later.", retry_after_ms=250)
    shown = {
        messages.hello(at): '{"type":"hello","protocol":1,"now":"2026-11-23T10:00:00.001Z"}',
        messages.subscribed(WEEK, "current_week", False): (
            '{"type":"subscribed","board":"week_of_2026_11_23","as":"current_week","resumed":false}'
        ),
        messages.unsubscribed(WEEK.id, "current_week"): (
            '{"type":"unsubscribed","board":"week_of_2026_11_23","as":"current_week"}'
        ),
        messages.snapshot(board): (
            '{"type":"snapshot","board":"all_time","epoch":"x","version":12,'
            '"entries":[{"user_id":1,"username":"dev-0001","score":1000}]}'
        ),
        messages.diff(change): (
            '{"type":"diff","board":"all_time","epoch":"x","from":12,"version":15,'
            '"upsert":[{"user_id":7,"score":1100},{"user_id":8,"username":"new","score":9}],"remove":[3]}'
        ),
        messages.outcome(Accepted("m-81-p7", 7, 1100, 300, False), True): (
            '{"type":"accepted","submission_id":"m-81-p7","user_id":7,"total_score":1100,"week_score":300,"duplicate":false}'
        ),
        messages.outcome(Accepted("m-81-p7", 7, 1100, 300, True), False): (
            '{"type":"accepted","submission_id":"m-81-p7","user_id":7,"total_score":1100,"week_score":300,'
            '"duplicate":true,"live":false}'
        ),
        messages.outcome(Rejected("m-81-p7", "unknown_user", "There is none."), True): (
            '{"type":"rejected","submission_id":"m-81-p7","code":"unknown_user","message":"There is none.",'
            '"retry_after_ms":null}'
        ),
        messages.rejected(None, error): (
            '{"type":"rejected","submission_id":null,"code":"overloaded","message":"Later.","retry_after_ms":250}'
        ),
        messages.error(error, "all_time"): (
            '{"type":"error","code":"overloaded","message":"Later.","board":"all_time","retry_after_ms":250}'
        ),
        messages.error(RealtimeError("bad_message", "No.")): '{"type":"error","code":"bad_message","message":"No."}',
        messages.authenticated(7, at): ('{"type":"authenticated","user_id":7,"expires_at":"2026-11-23T10:00:00.001Z"}'),
        messages.status(False): '{"type":"status","live":false}',
        messages.rollover("current_week", week_of(date(2026, 11, 16)), WEEK): (
            '{"type":"rollover","as":"current_week","from":"week_of_2026_11_16","to":"week_of_2026_11_23"}'
        ),
        messages.reconnect(1800): '{"type":"reconnect","after_ms":1800}',
        messages.rank(ALL_TIME, 7, 1203, 40, 90210, 3): (
            '{"type":"rank","board":"all_time","user_id":7,"rank":1203,"score":40,"players":90210,"to_next":3}'
        ),
        messages.unwatched(ALL_TIME, 7): '{"type":"unwatched","board":"all_time","user_id":7}',
        messages.pong(datetime(2026, 11, 23, 10, tzinfo=UTC)): '{"type":"pong","now":"2026-11-23T10:00:00.000Z"}',
    }
    for payload, expected in shown.items():
        assert payload.decode() == expected


def test_close_codes_are_those_clients_know() -> None:
    assert {code.name: int(code) for code in close_codes.CloseCode} == {
        "BROKEN": 1002,
        "NOT_TEXT": 1003,
        "NOT_UTF8": 1007,
        "IDLE_FLOOD": 1008,
        "TOO_LARGE": 1009,
        "FAILED": 1011,
        "RESTART": 1012,
        "AUTHENTICATION": 4401,
        "TOO_SLOW": 4408,
        "LIMITS": 4429,
    }


@given(st.datetimes(min_value=datetime(1970, 1, 1), timezones=st.just(UTC)))
def test_a_moment_is_read_back_to_the_millisecond(at: datetime) -> None:
    text = messages.moment(at)
    assert text.endswith("Z") and len(text) == 24
    assert datetime.fromisoformat(text) == at.replace(microsecond=at.microsecond // 1000 * 1000)
