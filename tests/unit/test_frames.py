"""Outgoing frames as websockets' own client reads them; incoming ones as its own parser judges them."""

from __future__ import annotations

import random
import tracemalloc
import zlib
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame as ReadFrame
from websockets.frames import Opcode
from websockets.protocol import CLIENT, SERVER, Protocol
from websockets.speedups import apply_mask

from realtime.frames import (
    BINARY,
    CLOSE,
    CONT,
    EMPTY_BLOCK,
    PING,
    PONG,
    TEXT,
    Answer,
    Deframer,
    Frame,
    Joined,
    ViolationError,
    server_frame,
)

WINDOWS = range(9, 16)

# Text as boards are: much repetition, so that compression has something to find at every distance.
rows = st.lists(st.integers(0, 9999), max_size=400).map(
    lambda scores: b"".join(b'{"user_id":%d,"score":%d},' % (score // 3, score) for score in scores)
)
sent_payloads = st.one_of(st.text(max_size=300).map(str.encode), rows)


def read_by_client(data: bytes, window_bits: int | None = None) -> ReadFrame:
    """The only frame in data, as a client reads it; a window means that compression was negotiated."""
    client = Protocol(CLIENT, max_size=None)
    if window_bits is not None:
        client.extensions = [PerMessageDeflate(True, True, window_bits, 15)]
    client.receive_data(data)
    (frame,) = client.events_received()
    assert client.parser_exc is None
    assert isinstance(frame, ReadFrame)
    return frame


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 65535, 65536, 70000])
def test_a_frame_of_every_length_form_is_read_back(length: int) -> None:
    payload = bytes(random.Random(length).randbytes(length))
    frame = read_by_client(server_frame(BINARY, payload))
    assert (frame.opcode, bytes(frame.data), frame.fin) == (Opcode.BINARY, payload, True)


@given(sent_payloads)
def test_the_plain_frame_carries_the_payload(payload: bytes) -> None:
    read = read_by_client(Frame(payload).plain)
    assert (read.opcode, bytes(read.data)) == (Opcode.TEXT, payload)


@given(sent_payloads, st.sampled_from(WINDOWS), st.sampled_from([TEXT, BINARY]))
def test_the_deflated_frame_carries_the_payload_and_is_never_larger(
    payload: bytes, window_bits: int, opcode: int
) -> None:
    frame = Frame(payload, opcode)
    data = frame.deflated(window_bits)
    read = read_by_client(data, window_bits)
    assert (read.opcode, bytes(read.data)) == (opcode, payload)
    assert len(data) <= len(frame.plain)
    assert frame.by_window[window_bits] is data is frame.deflated(window_bits)


@pytest.mark.parametrize("window_bits", WINDOWS)
def test_a_deflated_frame_refers_to_nothing_outside_its_window(window_bits: int) -> None:
    draw = random.Random(window_bits)
    # Something to find again at distances around every size of window.
    payload = b"".join(draw.randbytes(distance) * 2 for distance in (200, 400, 800, 1600, 3200, 6400, 12800, 25600))
    data = Frame(payload).deflated(window_bits)
    assert data[0] == 0xC1, "compressed"
    body = data[{126: 4, 127: 10}[data[1]] :] + EMPTY_BLOCK
    decoder = zlib.decompressobj(wbits=-window_bits)
    # Byte by byte, what is already out can only be looked up in the decoder's window.
    read = decoder.decompress(body, 1)
    while decoder.unconsumed_tail:
        read += decoder.decompress(decoder.unconsumed_tail, 1)
    assert read + decoder.flush() == payload


def test_windows_that_find_nothing_more_share_their_bytes() -> None:
    frame = Frame(b'{"score":1},' * 20)
    assert len({id(frame.deflated(window)) for window in WINDOWS}) == 1
    large = Frame(b"".join(b"%d," % (number * 7919 % 5000) for number in range(3000)))
    assert len({id(large.deflated(window)) for window in WINDOWS}) > 1


def test_tiny_and_incompressible_sent_payloads_go_plain() -> None:
    for payload in (b"{}", b"a" * 40, random.Random(1).randbytes(500)):
        frame = Frame(payload)
        assert frame.deflated(15) is frame.plain


def test_an_answer_goes_plain_to_every_window() -> None:
    answer = Answer(b"x" * 500)
    assert {answer.deflated(window) for window in (0, *range(9, 16))} == {Frame(b"x" * 500).plain}


def test_joined_frames_are_written_as_each_would_be() -> None:
    one, other = Answer(b"x" * 500), Frame(b"y" * 500)
    for window in (0, *range(9, 16)):
        assert Joined(one, other).deflated(window) == one.plain + (other.deflated(window) if window else other.plain)


@pytest.mark.parametrize("opcode", [PING, CLOSE])
def test_control_frames_are_never_compressed(opcode: int) -> None:
    frame = Frame(b"a" * 125, opcode)
    assert frame.deflated(15) is frame.plain


MAX_SIZE = 1000
Event = tuple[int, bytes] | tuple[str, int]


def client_frame(
    opcode: int, payload: bytes, *, fin: bool = True, rsv: int = 0, masked: bool = True, form: int = 0
) -> bytes:
    """A client's frame; `form` asks for a longer form of the length than it needs."""
    head = (0x80 if fin else 0) | rsv << 4 | opcode
    mask_bit = 0x80 if masked else 0
    length = len(payload)
    if length < 126 and form == 0:
        header = bytes((head, mask_bit | length))
    elif length < 65536 and form < 2:
        header = bytes((head, mask_bit | 126)) + length.to_bytes(2, "big")
    else:
        header = bytes((head, mask_bit | 127)) + length.to_bytes(8, "big")
    mask = b"\x37\xfa\x21\x3d"
    return header + (mask + apply_mask(payload, mask) if masked else payload)


def deflated(payload: bytes) -> bytes:
    encoder = zlib.compressobj(wbits=-15)
    return (encoder.compress(payload) + encoder.flush(zlib.Z_SYNC_FLUSH))[: -len(EMPTY_BLOCK)]


def by_websockets(data: bytes, inflating: bool) -> list[Event]:
    """What the library says, its fragments put together and its texts decoded as uvicorn does."""
    judge = Protocol(SERVER, max_size=MAX_SIZE)
    if inflating:
        judge.extensions = [PerMessageDeflate(True, True, 15, 15)]
    judge.receive_data(data)
    events: list[Event] = []
    opcode, message = TEXT, b""
    for frame in judge.events_received():
        assert isinstance(frame, ReadFrame)
        if frame.opcode in (CLOSE, PING, PONG):
            events.append((int(frame.opcode), bytes(frame.data)))
            continue
        if frame.opcode != CONT:
            opcode = int(frame.opcode)
        message += frame.data
        if frame.fin:
            try:
                if opcode == TEXT:
                    message.decode()
            except UnicodeDecodeError:
                return [*events, ("violation", 1007)]
            events.append((opcode, message))
            message = b""
    if judge.parser_exc is not None:
        assert judge.close_sent is not None
        events.append(("violation", int(judge.close_sent.code)))
    return events


def by_deframer(pieces: Iterable[bytes], inflating: bool) -> list[Event]:
    deframer = Deframer(MAX_SIZE, inflating)
    events: list[Event] = []
    try:
        for piece in pieces:
            deframer.feed(piece)
            while (incoming := deframer.next()) is not None:
                if incoming.opcode != CONT:
                    events.append(tuple(incoming))
                if incoming.opcode == CLOSE:
                    return events
            assert deframer.waiting_bytes <= MAX_SIZE + 14
    except ViolationError as violation:
        events.append(("violation", violation.code))
    return events


payloads = st.one_of(
    st.text(max_size=60).map(str.encode),
    st.binary(max_size=200),
    st.sampled_from([b"", b"\xff", b"\xc3\xa9"[:1], b"a" * 125, b"b" * 126, b"c" * MAX_SIZE, b"d" * (MAX_SIZE + 1)]),
    st.sampled_from([b"", b"\x03\xe8", b"\x03\xe8bye", b"\x03\xe8\xff", b"\x03\xed", b"\x00"]),
)
compressed = st.one_of(
    payloads.map(deflated), st.integers(900, 1100).map(lambda size: deflated(b"z" * size)), st.binary(max_size=20)
)
good_frames = st.one_of(
    st.builds(client_frame, st.sampled_from([TEXT, BINARY, PING, PONG]), payloads, form=st.integers(0, 2)),
    st.builds(lambda text: client_frame(TEXT, text.encode()), st.text(max_size=80)),
    st.builds(client_frame, st.sampled_from([TEXT, BINARY]), compressed, rsv=st.just(4)),
    st.builds(
        lambda opcode, first, middle, last, rsv: (
            client_frame(opcode, first, fin=False, rsv=rsv)
            + client_frame(PING, b"between")
            + client_frame(CONT, middle, fin=False)
            + client_frame(CONT, last)
        ),
        st.sampled_from([TEXT, BINARY]), payloads, payloads, payloads, st.sampled_from([0, 4]),
    ),
    st.builds(
        lambda payload, cut: (
            client_frame(TEXT, deflated(payload)[:cut], fin=False, rsv=4) + client_frame(CONT, deflated(payload)[cut:])
        ),
        payloads, st.integers(0, 20),
    ),
)  # fmt: skip
any_frame = st.builds(
    client_frame,
    st.integers(0, 15),
    st.one_of(payloads, compressed),
    fin=st.booleans(),
    rsv=st.sampled_from([0, 0, 0, 4, 4, 2, 1]),
    masked=st.sampled_from([True, True, True, True, False]),
    form=st.integers(0, 2),
)
streams = st.lists(
    st.one_of(good_frames, good_frames, good_frames, any_frame, st.binary(max_size=12)), max_size=12
).map(b"".join)


@given(streams, st.lists(st.integers(0, 4000)), st.booleans())
@example(client_frame(TEXT, deflated(b"y" * MAX_SIZE), rsv=4), [], True)
@example(client_frame(TEXT, deflated(b"y" * (MAX_SIZE + 1)), rsv=4), [], True)
@example(client_frame(TEXT, b"a", fin=False) + client_frame(CLOSE, b"\x03\xe8"), [3], False)
@example(client_frame(TEXT, b"a", fin=False) + client_frame(TEXT, b"b"), [3], True)
@example(client_frame(PING, b"p" * 126), [], False)
@example(bytes((0x89, 0x00)), [], False)
def test_any_stream_cut_anywhere_gives_what_websockets_gives(stream: bytes, cuts: list[int], inflating: bool) -> None:
    edges = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    pieces = [stream[start:stop] for start, stop in pairwise(edges)]
    assert by_deframer(pieces, inflating) == by_websockets(stream, inflating)


@given(streams, st.booleans())
def test_byte_by_byte_too(stream: bytes, inflating: bool) -> None:
    assert by_deframer((bytes((byte,)) for byte in stream), inflating) == by_websockets(stream, inflating)


@pytest.mark.parametrize("announced", [MAX_SIZE + 1, 2**16, 2**62, 2**64 - 1])
def test_a_frame_too_large_is_refused_for_its_header(announced: int) -> None:
    deframer = Deframer(MAX_SIZE, inflating=False)
    deframer.feed(bytes((0x81, 0xFF)) + announced.to_bytes(8, "big"))
    with pytest.raises(ViolationError) as refused:
        deframer.next()
    assert refused.value.code == 1009


def test_without_a_limit_only_impossible_lengths_are_refused() -> None:
    deframer = Deframer(None, inflating=False)
    deframer.feed(client_frame(BINARY, b"x" * 100_000))
    assert deframer.next() == (BINARY, b"x" * 100_000)
    deframer.feed(bytes((0x81, 0xFF)) + b"\xff" * 8)
    with pytest.raises(ViolationError):
        deframer.next()


def test_fragments_without_end_are_refused_at_the_limit() -> None:
    deframer = Deframer(MAX_SIZE, inflating=False)
    deframer.feed(client_frame(TEXT, b"a" * 10, fin=False))
    with pytest.raises(ViolationError) as refused:
        for _ in range(MAX_SIZE):
            while (incoming := deframer.next()) is not None:
                assert incoming.opcode == CONT
            deframer.feed(client_frame(CONT, b"a" * 10, fin=False))
    assert refused.value.code == 1009


@pytest.mark.parametrize("fragments", [1, 3])
def test_a_bomb_is_refused_without_being_inflated(fragments: int) -> None:
    bomb = deflated(b"\0" * 50_000_000)
    size = len(bomb) // fragments + 1
    parts = [bomb[start : start + size] for start in range(0, len(bomb), size)]
    deframer = Deframer(65536, inflating=True)
    tracemalloc.start()
    with pytest.raises(ViolationError) as refused:
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            deframer.feed(client_frame(CONT if number else TEXT, part, fin=last, rsv=0 if number else 4))
            while deframer.next() is not None:
                pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert refused.value.code == 1009
    assert peak < 1_000_000


def test_nothing_is_kept_between_messages() -> None:
    deframer = Deframer(65536, inflating=True)
    deframer.feed(client_frame(TEXT, b"a" * 60_000) + client_frame(TEXT, b"b")[:-1])
    while deframer.next() is not None:
        pass
    assert deframer.waiting_bytes == 6
    assert len(deframer._bytes) == 6
    deframer.feed(client_frame(TEXT, b"b")[-1:])
    assert deframer.next() == (TEXT, b"b")
    deframer.feed(client_frame(TEXT, b"c", fin=False) + client_frame(CONT, b"d"))
    assert [deframer.next(), deframer.next(), deframer.next()] == [(CONT, b"c"), (TEXT, b"cd"), None]
    assert (deframer._bytes, deframer._judge, deframer._message) == (b"", None, b"")


def test_after_its_end_it_listens_to_nothing() -> None:
    deframer = Deframer(MAX_SIZE, inflating=False)
    deframer.feed(client_frame(TEXT, b"a") * 3)
    assert deframer.next() == (TEXT, b"a")
    deframer.end()
    deframer.feed(client_frame(TEXT, b"b"))
    assert deframer.next() is None
    assert deframer.waiting_bytes == 0
