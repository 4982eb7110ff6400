"""Submissions: what may be asked of the ledger, and nothing that it could choke on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from realtime.boards.catalogue import PUBLISHED, Catalogue
from realtime.boards.definitions import Definition, Season
from realtime.boards.leaderboard import Leaderboard
from realtime.boards.submissions import Rejected, Span, Submission, parse_submission, submission_id_of
from realtime.errors import STATUS, RealtimeError
from realtime.validation import ID_MAX, INT_MAX, INT_MIN, parse_moment, whole_number, written_number

GOOD = {"submission_id": "m-81-p7", "score_added": 100, "reason": "win", "user_id": 7}

any_text = st.text(st.characters(codec=None, categories=None), max_size=80)
anything = st.none() | st.booleans() | st.integers() | st.floats() | any_text | st.lists(st.integers(), max_size=2)


def refusal(fields: dict[str, Any], own: int | None = None) -> RealtimeError:
    with pytest.raises(RealtimeError) as caught:
        parse_submission(fields, own)
    return caught.value


def test_a_submission_is_read() -> None:
    assert parse_submission(GOOD, None) == Submission(7, "m-81-p7", 100, "win", None)
    assert parse_submission({"submission_id": "a", "score_added": -1}, 9) == Submission(9, "a", -1, None, None)
    at = datetime(2026, 11, 23, 10, tzinfo=UTC)
    assert parse_submission({**GOOD, "created_at": "2026-11-23T11:00:00+01:00"}, None).created_at == at


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        ({"submission_id": None}, "bad_message", "submission_id"),
        ({"submission_id": 5}, "bad_message", "submission_id"),
        ({"submission_id": ""}, "out_of_range", "1 to 64"),
        ({"submission_id": "x" * 65}, "out_of_range", "1 to 64"),
        ({"submission_id": "a\x00b"}, "bad_message", "NUL"),
        ({"submission_id": "a\ud800"}, "bad_message", "surrogate"),
        ({"score_added": None}, "bad_message", "score_added"),
        ({"score_added": "5"}, "bad_message", "whole number"),
        ({"score_added": True}, "bad_message", "whole number"),
        ({"score_added": 1.5}, "bad_message", "whole number"),
        ({"score_added": float("inf")}, "out_of_range", str(INT_MAX)),  # what a parser makes of 1e400
        ({"score_added": float("-inf")}, "out_of_range", str(INT_MIN)),
        ({"score_added": float("nan")}, "bad_message", "whole number"),
        ({"score_added": INT_MAX + 1}, "out_of_range", str(INT_MAX)),
        ({"score_added": INT_MIN - 1}, "out_of_range", str(INT_MIN)),
        ({"score_added": 2**70}, "out_of_range", str(INT_MAX)),
        ({"score_added": 1e300}, "out_of_range", str(INT_MAX)),  # what a parser makes of 1 with 300 zeros
        ({"reason": 5}, "bad_message", "reason"),
        ({"reason": "x" * 256}, "out_of_range", "255"),
        ({"reason": "\x00"}, "bad_message", "NUL"),
        ({"reason": "\udfff"}, "bad_message", "surrogate"),
        ({"user_id": "7"}, "bad_message", "user_id"),
        ({"user_id": False}, "bad_message", "user_id"),
        ({"user_id": 0}, "out_of_range", "user_id"),
        ({"user_id": 7.5}, "bad_message", "whole number"),
        ({"user_id": 9007199254740993.0}, "out_of_range", "user_id"),
        ({"score_added": 2147483648.0}, "out_of_range", str(INT_MAX)),
        ({"user_id": -7}, "out_of_range", "user_id"),
        ({"user_id": ID_MAX + 1}, "out_of_range", "user_id"),
        ({"user_id": None}, "bad_message", "names no user"),
        ({"created_at": 5}, "bad_message", "2026-11-23T10:00:00Z"),
        ({"created_at": "2026-11-23T10:00:61Z"}, "bad_message", "2026-11-23T10:00:00Z"),
        ({"created_at": "yesterday"}, "bad_message", "2026-11-23T10:00:00Z"),
        ({"created_at": "2026-11-23T10:00:00"}, "bad_message", "zone"),
        ({"created_at": "1969-12-31T23:59:59Z"}, "out_of_range", "1970"),
        ({"created_at": "0001-01-01T00:00:00+14:00"}, "out_of_range", "calendar"),
        ({"created_at": "9999-12-31T23:59:59-14:00"}, "out_of_range", "calendar"),
    ],
)
def test_each_field_is_refused_by_name(change: dict[str, Any], code: str, says: str) -> None:
    error = refusal({**GOOD, **change})
    assert error.code == code
    assert says in error.message


@pytest.mark.parametrize("length", [1, 64])
def test_ids_of_every_allowed_length_pass(length: int) -> None:
    assert parse_submission({**GOOD, "submission_id": "Ω" * length}, None).submission_id == "Ω" * length


def test_lengths_are_characters_as_postgresql_counts_them() -> None:
    assert parse_submission({**GOOD, "reason": "👍" * 255}, None).reason == "👍" * 255


def test_an_empty_reason_is_none() -> None:
    assert parse_submission({**GOOD, "reason": ""}, None) == parse_submission({**GOOD, "reason": None}, None)


@pytest.mark.parametrize(("value", "whole"), [(5.0, 5), (1e2, 100), (-0.0, 0), (-3.0, -3), (float(INT_MAX), INT_MAX)])
def test_a_whole_number_may_come_as_a_double(value: float, whole: int) -> None:
    submission = parse_submission({**GOOD, "score_added": value, "user_id": 7.0}, None)
    assert (submission.score_added, submission.user_id) == (whole, 7)
    assert type(submission.score_added) is type(submission.user_id) is int, "it goes on as what it is"


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("5", 5), ("+5", 5), ("-5", -5), ("007", 7), ("5.0", 5), ("5.000", 5), ("1e2", 100), ("1.5E1", 15),
        ("100e-2", 1), ("-0.0", 0), ("0e9999", 0), ("9007199254740991", ID_MAX), ("9007199254740991.0", ID_MAX),
    ],
)  # fmt: skip
def test_a_written_number_is_taken_for_what_it_says(text: str, whole: int) -> None:
    assert written_number(text, "n", -ID_MAX, ID_MAX) == whole


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "bad_message"), ("5.5", "bad_message"), ("1e-1", "bad_message"), ("5.", "bad_message"),
        (".5", "bad_message"), ("5.00000000000000000000001", "bad_message"), ("1e-9999", "bad_message"),
        ("nan", "bad_message"), ("inf", "bad_message"), ("1_0", "bad_message"), ("\u0661", "bad_message"),
        (" 5", "bad_message"), ("5\n", "bad_message"), ("0x5", "bad_message"), ("1,0", "bad_message"),
        ("--5", "bad_message"), ("1e99999999999", "bad_message"), ("9" * 5_000, "bad_message"),
        ("9007199254740992", "out_of_range"), ("9007199254740993.0", "out_of_range"),
        ("1e400", "out_of_range"), ("-1e9999", "out_of_range"), ("9" * 400, "out_of_range"),
    ],
)  # fmt: skip
def test_what_is_written_and_no_whole_number_within_bounds_is_refused(text: str, code: str) -> None:
    with pytest.raises(RealtimeError) as caught:
        written_number(text, "n", -ID_MAX, ID_MAX)
    assert caught.value.code == code


@given(st.integers(-(2**60), 2**60), st.integers(0, 30), st.integers(0, 30))
def test_however_a_whole_number_is_written_it_is_that_number(value: int, zeros: int, power: int) -> None:
    for text in (f"{value}.{'0' * (zeros + 1)}", f"{value}{'0' * power}e-{power}", f"{value}e0"):
        assert written_number(text, "n", -(2**60), 2**60) == value


def test_bounds_themselves_pass() -> None:
    for score in (INT_MIN, 0, INT_MAX):
        assert parse_submission({**GOOD, "score_added": score}, None).score_added == score
    assert parse_submission({**GOOD, "user_id": ID_MAX}, None).user_id == ID_MAX


@given(
    st.fixed_dictionaries(
        {},
        optional={
            name: anything for name in ("submission_id", "score_added", "reason", "user_id", "created_at", "other")
        },
    ),
    st.none() | st.integers(1, ID_MAX),
)
@example({**GOOD, "created_at": "2026-11-23\ud80010:00:00Z"}, None)
def test_no_fields_raise_anything_else_and_what_passes_fits_the_tables(fields: dict[str, Any], own: int | None) -> None:
    try:
        submission = parse_submission(fields, own)
    except RealtimeError as error:
        assert error.code in STATUS
        return
    assert 1 <= submission.user_id <= ID_MAX
    assert 1 <= len(submission.submission_id) <= 64
    assert INT_MIN <= submission.score_added <= INT_MAX
    for text in (submission.submission_id, submission.reason or ""):
        assert "\x00" not in text
        text.encode()


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2026-11-23t10:00:00z", datetime(2026, 11, 23, 10, tzinfo=UTC)),
        ("2026-11-23 10:00:00z", datetime(2026, 11, 23, 10, tzinfo=UTC)),
        ("2026-11-23T10:00:00.5Z", datetime(2026, 11, 23, 10, 0, 0, 500_000, tzinfo=UTC)),
        ("2026-11-23T10:00:00.123456789Z", datetime(2026, 11, 23, 10, 0, 0, 123_456, tzinfo=UTC)),
        ("2026-11-23T10:00:00-00:00", datetime(2026, 11, 23, 10, tzinfo=UTC)),
        ("2016-12-31T23:59:60Z", datetime(2016, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)),
        ("2016-12-31t18:59:60.25-05:00", datetime(2016, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)),
    ],
)
def test_moments_are_read_as_rfc_3339_allows_them(text: str, at: datetime) -> None:
    assert parse_moment(text, "created_at") == at


@given(anything | st.datetimes().map(datetime.isoformat) | st.from_regex(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}Z"))
def test_no_moment_raises_anything_else(value: Any) -> None:
    try:
        moment = parse_moment(value, "created_at")
    except RealtimeError as error:
        assert error.code in ("bad_message", "out_of_range")
    else:
        assert moment.tzinfo is UTC


@given(
    st.datetimes(min_value=datetime(1970, 1, 2), max_value=datetime(9999, 12, 30)),
    st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes))),
)
def test_a_moment_keeps_its_microsecond_in_every_zone(naive: datetime, zone: timezone) -> None:
    moment = naive.replace(tzinfo=zone)
    assert parse_moment(moment.isoformat(), "created_at") == moment


def test_the_id_to_answer_with_is_one_that_can_be_said() -> None:
    assert submission_id_of(GOOD) == "m-81-p7"
    for bad in (None, 5, "", "x" * 65, "\x00", "\ud800"):
        assert submission_id_of({"submission_id": bad}) is None
    assert submission_id_of({}) is None


def test_a_refusal_says_what_the_error_says() -> None:
    error = RealtimeError("overloaded", "Later.", retry_after_ms=250)
    assert Rejected.of("a", error) == Rejected("a", "overloaded", "Later.", 250)


@given(st.integers(), st.integers(), st.integers())
def test_a_whole_number_is_within_its_bounds(value: int, low: int, high: int) -> None:
    if low <= value <= high:
        assert whole_number(value, "n", low, high) == value
    else:
        with pytest.raises(RealtimeError, match="n must be from"):
            whole_number(value, "n", low, high)


@pytest.mark.parametrize(
    "metadata",
    [
        5,
        "x",
        [1],
        {"a": float("inf")},
        {"a": float("nan")},
        {"a": 1e300},
        {"a": [{"b": 1e-300}]},
        {"a": "x" * 300},
        {"a": "\x00"},
    ],
)
def test_metadata_that_would_be_changed_or_is_too_large_is_refused(metadata: Any) -> None:
    assert refusal({**GOOD, "metadata": metadata}).code == "bad_metadata"


def test_metadata_is_kept_as_short_as_it_can_be_written() -> None:
    assert (
        parse_submission({**GOOD, "metadata": {"b": 1.5, "a": [None, True]}}, None).metadata
        == '{"a":[null,true],"b":1.5}'
    )
    assert refusal({**GOOD, "with": "some"}).code == "bad_message"
    assert parse_submission({**GOOD, "with": "all"}, None).with_all


def test_a_season_as_a_guard_is_what_the_definition_says_of_it_whether_it_is_at_hand_or_not() -> None:
    def season(name: str, year: int) -> Season:
        return Season(name, datetime(year, 1, 1, tzinfo=UTC), datetime(year, 6, 1, tzinfo=UTC))

    seasons = season("old", 2001), season("far", 2090)
    cup = Leaderboard("cup", Definition("cup", "Cup", windows=("season",), seasons=seasons), 2, 2, 2, "cup", "p01")
    catalogue = Catalogue(leaderboards={**PUBLISHED.leaderboards, "cup": cup})

    def within(board: str) -> Span | None:
        fields = {"submission_id": "a", "user_id": 1, "leaderboard": "cup", "score_added": 1, "board": board}
        return parse_submission(fields, None, catalogue).within

    for one in seasons:
        assert within(f"cup:season_{one.id}") == Span(one.starts, one.ends)
    with pytest.raises(RealtimeError, match=r"no such season\. Its last ones are: old, far") as refused:
        within("cup:season_none")
    assert refused.value.code == "unknown_board"
    with pytest.raises(RealtimeError) as wrong:
        within("cup:day_of_2026_11_30")
    assert wrong.value.code == "wrong_board"
