"""Events as a browser reads them, and a compressed stream as zlib does, wherever an event stands in it."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.boards.board import ALL_TIME
from realtime.validation import ID_MAX
from realtime.wire import positions, sse
from realtime.wire.frames import Answer, Burst, Frame, Joined
from realtime.wire.messages import Since

EVENTS = (sse.PLAIN, sse.GZIP, sse.OWN, sse.OWN_GZIP)
payloads = st.one_of(
    st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), min_size=1).map(str.encode),
    st.lists(st.integers(0, 9999), min_size=1, max_size=8_000).map(lambda scores: str(scores).encode()),
)


def read(encoding: int, data: bytes) -> bytes:
    """What a client has of a stream that began with it."""
    return zlib.decompressobj(wbits=31).decompress(sse.GZIP_HEAD + data) if sse.is_gzip(encoding) else data


@given(st.lists(payloads, min_size=1, max_size=4), st.sampled_from(EVENTS))
def test_events_are_read_one_after_another_in_any_order(several: list[bytes], encoding: int) -> None:
    frames = [Frame(payload, position=b"x-1:%d" % number) for number, payload in enumerate(several)]
    own = encoding in (sse.OWN, sse.OWN_GZIP)
    expected = [
        (b"" if own else b"id: x-1:%d\n" % number) + b"data: " + payload + b"\n\n"
        for number, payload in enumerate(several)
    ]
    joined = b"".join(frame.encoded(encoding) for frame in frames)
    assert read(encoding, joined) == b"".join(expected)
    backwards = b"".join(frame.encoded(encoding) for frame in reversed(frames))
    assert read(encoding, backwards) == b"".join(reversed(expected)), "no event needs another"
    assert all(frame.encoded(encoding) is frame.by_encoding[encoding] for frame in frames), "made once"


@given(payloads)
def test_a_socket_s_compression_serves_events_too(payload: bytes) -> None:
    frame = Frame(payload)
    event = frame.encoded(sse.GZIP)
    assert frame.by_encoding[15] is not None and len(event) <= len(payload) + 32 + 5 * (len(payload) // 65_535 + 1)
    if frame.encoded(15) is not frame.plain:
        body = frame.encoded(15)
        assert body[-20:] in event or body[2:] in event, "the same bytes, not compressed again"


@pytest.mark.parametrize("encoding", EVENTS)
def test_every_kind_of_frame_is_an_event(encoding: int) -> None:
    answer, burst = Answer(b'{"a":1}'), Burst([b'{"b":1}', b'{"c":1}'])
    frame = Frame(b'{"d":"%b"}' % (b"x" * 100), position=b"x-1:5")
    data = Joined(answer, frame).encoded(encoding) + burst.encoded(encoding) + sse.comment(encoding)
    own = b"" if encoding in (sse.OWN, sse.OWN_GZIP) else b"id: x-1:5\n"
    assert read(encoding, data) == (
        b'data: {"a":1}\n\n' + own + b'data: {"d":"' + b"x" * 100 + b'"}\n\n'
        b'data: {"b":1}\n\ndata: {"c":1}\n\n:\n\n'
    )  # fmt: skip


@given(st.binary(max_size=200_000))
def test_what_is_stored_is_read_back(data: bytes) -> None:
    assert zlib.decompressobj(wbits=-15).decompress(sse.stored(data)) == data


# Positions --------------------------------------------------------------------------------------------------------

boards = st.sampled_from(["all_time", "week_of_2026_11_23", "lap:all_time", "lap:day_of_2026_03_04", "x-1:current_day"])
held = st.dictionaries(boards, st.tuples(st.sampled_from(["d50b7c10-1", "closed", "x-12"]), st.integers(0, ID_MAX)))


@given(held)
def test_positions_are_read_as_they_were_written(states: dict[str, tuple[str, int]]) -> None:
    text = positions.joined([positions.written(board, *state) for board, state in states.items()]).decode()
    assert positions.read(text) == {board: Since(*state, board) for board, state in states.items()}


def test_a_position_of_all_time_is_epoch_and_version() -> None:
    assert positions.written(ALL_TIME.id, "d50b7c10-1", 12) == b"d50b7c10-1:12"
    assert positions.read("d50b7c10-1:12", "lap:all_time") == {"lap:all_time": Since("d50b7c10-1", 12, "lap:all_time")}


@given(st.text())
def test_what_is_no_position_is_none_and_nothing_is_raised(text: str) -> None:
    for board, since in positions.read(text).items():
        assert since.board == board and 0 <= since.version <= ID_MAX


@pytest.mark.parametrize(
    "text",
    ["", "x", "x:", ":1", "x:1:", "x:-1", "x:1.5", "x:1e3", "x:9007199254740993", "x:1\n", "x:\u0661", "é:1", " , "],
)
def test_positions_that_are_none(text: str) -> None:
    assert positions.read(text) == ({"all_time": Since("x", 1, "all_time")} if text == "x:1\n" else {})
