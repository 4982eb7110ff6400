"""Outgoing frames as websockets' own client reads them; incoming ones as its own parser judges them."""

from __future__ import annotations

import random
import tracemalloc
import zlib
from collections.abc import Iterable, Iterator
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame as ReadFrame
from websockets.frames import Opcode
from websockets.protocol import CLIENT, SERVER, Protocol
from websockets.speedups import apply_mask

from realtime.wire.deframer import Deframer, Farewell, ViolationError
from realtime.wire.frames import BINARY, CLOSE, CONT, EMPTY_BLOCK, PING, PONG, TEXT, Answer, Frame, Joined, server_frame

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
    data = frame.encoded(window_bits)
    read = read_by_client(data, window_bits)
    assert (read.opcode, bytes(read.data)) == (opcode, payload)
    assert len(data) <= len(frame.plain)
    assert frame.by_encoding[window_bits] is data is frame.encoded(window_bits)


@pytest.mark.parametrize("window_bits", WINDOWS)
def test_a_deflated_frame_refers_to_nothing_outside_its_window(window_bits: int) -> None:
    draw = random.Random(window_bits)
    # Something to find again at distances around every size of window.
    payload = b"".join(draw.randbytes(distance) * 2 for distance in (200, 400, 800, 1600, 3200, 6400, 12800, 25600))
    data = Frame(payload).encoded(window_bits)
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
    assert len({id(frame.encoded(window)) for window in WINDOWS}) == 1
    large = Frame(b"".join(b"%d," % (number * 7919 % 5000) for number in range(3000)))
    assert len({id(large.encoded(window)) for window in WINDOWS}) > 1


def test_tiny_and_incompressible_sent_payloads_go_plain() -> None:
    for payload in (b"{}", b"a" * 40, random.Random(1).randbytes(500)):
        frame = Frame(payload)
        assert frame.encoded(15) is frame.plain


def test_an_answer_goes_plain_to_every_window() -> None:
    answer = Answer(b"x" * 500)
    assert {answer.encoded(window) for window in (0, *range(9, 16))} == {Frame(b"x" * 500).plain}


def test_joined_frames_are_written_as_each_would_be() -> None:
    one, other = Answer(b"x" * 500), Frame(b"y" * 500)
    for window in (0, *range(9, 16)):
        assert Joined(one, other).encoded(window) == one.plain + (other.encoded(window) if window else other.plain)


@pytest.mark.parametrize("opcode", [PING, CLOSE])
def test_control_frames_are_never_compressed(opcode: int) -> None:
    frame = Frame(b"a" * 125, opcode)
    assert frame.encoded(15) is frame.plain


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


def fragmented(body: bytes, cuts: list[int], *, rsv: int = 0, between: bytes = b"", opcode: int = TEXT) -> bytes:
    """A message cut at these places, each as often as it is named, with other frames between its fragments."""
    edges = [0, *sorted(cut for cut in cuts if cut <= len(body)), len(body)]
    parts = [body[start:stop] for start, stop in pairwise(edges)]
    frames = [
        client_frame(CONT if number else opcode, part, fin=number == len(parts) - 1, rsv=0 if number else rsv)
        for number, part in enumerate(parts)
    ]
    return between.join(frames)


def finished(payload: bytes) -> bytes:
    """A DEFLATE stream that ends (BFINAL)."""
    encoder = zlib.compressobj(wbits=-15)
    return encoder.compress(payload) + encoder.flush()


def deflated(payload: bytes) -> bytes:
    encoder = zlib.compressobj(wbits=-15)
    return (encoder.compress(payload) + encoder.flush(zlib.Z_SYNC_FLUSH))[: -len(EMPTY_BLOCK)]


class OneStream(PerMessageDeflate):
    """The library's extension, less what it forgives: data behind the end of a message's DEFLATE stream."""

    sent = b""
    room = MAX_SIZE  # what this message may still grow by, decompressed

    def decode(self, frame: ReadFrame, *, max_size: int | None = None) -> ReadFrame:
        compressed = frame.rsv1 if frame.opcode in (TEXT, BINARY) else frame.opcode == CONT and self.decode_cont_data
        if compressed and frame.opcode != CONT:
            self.sent = b""
        decoded = super().decode(frame, max_size=self.room or None)
        if compressed and len(decoded.data) > self.room:
            raise PayloadTooBig(None, self.room)
        if compressed:
            self.sent += bytes(frame.data)
            again = zlib.decompressobj(wbits=-15)
            again.decompress(self.sent + (EMPTY_BLOCK if frame.fin else b""))
            behind = again.unused_data[: -len(EMPTY_BLOCK)] if frame.fin else again.unused_data
            if behind not in (b"", b"\0"):
                raise ProtocolError("data behind the end")
        return decoded


def frames_in(data: bytes) -> Iterator[bytes]:
    """A client's stream, cut into its frames; the last may be only a part of one."""
    while data:
        length, size = data[1] & 0x7F if len(data) > 1 else 0, 2
        if length >= 126:
            size = 4 if length == 126 else 10
            length = int.from_bytes(data[2:size], "big")
        size += length + (4 if len(data) > 1 and data[1] & 0x80 else 0)
        yield data[:size]
        data = data[size:]


def compressed_at_most(size: int) -> int:
    return size + size // 8 + size // 128 + 64


def room_for(frame: bytes, judge: Protocol, inflating: bool) -> int:
    """How long the payload of that frame may be."""
    opcode, taken = frame[0] & 0x0F, judge.current_size or 0
    if opcode in (CLOSE, PING, PONG):
        return MAX_SIZE
    if inflating and (judge.extensions[0].decode_cont_data if opcode == CONT else frame[0] & 0x40):  # type: ignore[attr-defined]
        return compressed_at_most(MAX_SIZE - taken)
    return MAX_SIZE - taken


def by_websockets(data: bytes, inflating: bool) -> list[Event]:
    """What the library says, its fragments put together and its texts decoded as uvicorn does.

    Each frame is judged with the room that there is for it: the library has one for all.
    """
    judge = Protocol(SERVER)
    if inflating:
        judge.extensions = [OneStream(True, True, 15, 15)]
    events: list[Event] = []
    opcode, message = TEXT, b""
    for part in frames_in(data):
        if inflating:
            judge.extensions[0].room = MAX_SIZE - (judge.current_size or 0)  # type: ignore[attr-defined]
        judge.max_message_size = room_for(part, judge, inflating) + (judge.current_size or 0)
        judge.receive_data(part)
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
            return [*events, ("violation", int(judge.close_sent.code))]
        if events and events[-1][0] == CLOSE:
            break
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
            assert deframer.waiting_bytes <= compressed_at_most(MAX_SIZE) + 14
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
    payloads.map(deflated),
    st.integers(900, 1100).map(lambda size: deflated(b"z" * size)),
    st.integers(900, 1200).map(lambda size: deflated(random.Random(size).randbytes(size))),
    st.binary(max_size=20),
    # Several blocks, some of which end the stream.
    st.lists(
        st.one_of(payloads.map(deflated), payloads.map(finished), st.sampled_from([b"\0", EMPTY_BLOCK])), max_size=3
    ).map(b"".join),
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
    st.builds(
        lambda body, cuts, ping: fragmented(body, cuts, rsv=4, between=client_frame(PING, ping)),
        compressed, st.lists(st.integers(0, 1200), max_size=6), st.binary(max_size=125),
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
    assert deframer.is_between
    deframer.feed(client_frame(TEXT, deflated(b"e" * 99)[:4], fin=False, rsv=4))
    deframer.next()
    assert not deframer.is_between
    deframer.feed(client_frame(CONT, deflated(b"e" * 99)[4:]))
    assert deframer.next() == (TEXT, b"e" * 99)
    assert deframer.next() is None
    assert deframer.is_between
    assert (deframer._bytes, deframer._decoder, deframer._message) == (b"", None, b"")


def test_after_its_end_it_listens_to_nothing() -> None:
    deframer = Deframer(MAX_SIZE, inflating=False)
    deframer.feed(client_frame(TEXT, b"a") * 3)
    assert deframer.next() == (TEXT, b"a")
    deframer.end()
    deframer.feed(client_frame(TEXT, b"b"))
    assert deframer.next() is None
    assert deframer.waiting_bytes == 0


# What follows the end of a DEFLATE stream


WORDS = b'{"type":"ping"}'
EDGE_FRAGMENTS = {
    # A message's compressed form, in fragments: what the client meant, or None where there is data behind the end.
    "one block that ends": ([finished(WORDS)], WORDS),
    "with the empty block that RFC 7692 has there": ([finished(WORDS) + b"\0"], WORDS),
    "that in a fragment of its own": ([finished(WORDS), b"\0"], WORDS),
    "that behind empty fragments": ([finished(WORDS), b"", b"\0", b""], WORDS),
    "the end on a fragment's edge": ([finished(WORDS), b""], WORDS),
    "the end in the middle of a fragment": ([finished(WORDS)[:5], finished(WORDS)[5:], b""], WORDS),
    "blocks, the last of which ends": ([deflated(WORDS[:5]) + EMPTY_BLOCK + finished(WORDS[5:])], WORDS),
    "blocks that do not end": ([deflated(WORDS[:5]) + EMPTY_BLOCK, deflated(WORDS[5:])], WORDS),
    "nothing at all": ([b"\3\0"], b""),
    "another block": ([finished(WORDS[:5]) + deflated(WORDS[5:])], None),
    "another block, in another fragment": ([finished(WORDS[:5]), deflated(WORDS[5:])], None),
    "another block that ends": ([finished(WORDS[:5]) + finished(WORDS[5:])], None),
    "another block that ends, in another fragment": ([finished(WORDS[:5]), finished(WORDS[5:])], None),
    "a whole empty block": ([finished(WORDS) + b"\0" + EMPTY_BLOCK], None),
    "an empty block and one that ends": ([finished(WORDS) + b"\0" + EMPTY_BLOCK, finished(b"x")], None),
    "two beginnings of empty blocks": ([finished(WORDS) + b"\0\0"], None),
    "two beginnings of empty blocks, in fragments": ([finished(WORDS), b"\0", b"\0"], None),
    "what is left away of empty blocks": ([finished(WORDS) + EMPTY_BLOCK], None),
    "a byte": ([finished(WORDS) + b"\1"], None),
    "a byte, in another fragment": ([finished(WORDS), b"\1"], None),
    "a byte behind empty fragments": ([finished(WORDS), b"", b"", b"\1"], None),
    "much": ([finished(b"{") + b"\xaa" * 900], None),
    "much, in fragments": ([finished(b"{")] + [b"\xaa" * 900] * 3, None),
}


@pytest.mark.parametrize("name", EDGE_FRAGMENTS)
def test_behind_the_end_of_a_stream_there_may_be_an_empty_block_and_nothing_else(name: str) -> None:
    fragments, meant = EDGE_FRAGMENTS[name]
    deframer = Deframer(MAX_SIZE, inflating=True)
    events: list[Event] = []
    try:
        for number, part in enumerate(fragments):
            last = number == len(fragments) - 1
            deframer.feed(client_frame(CONT if number else TEXT, part, fin=last, rsv=0 if number else 4))
            event = deframer.next()
            assert event is not None, "each frame is judged when it has come"
            events.append(tuple(event))
    except ViolationError as violation:
        events.append(("violation", violation.code))
    assert events[-1] == (("violation", 1002) if meant is None else (TEXT, meant))


def test_nothing_is_kept_of_what_follows_the_end_of_a_stream() -> None:
    deframer = Deframer(65536, inflating=True)
    deframer.feed(client_frame(TEXT, finished(b"{"), fin=False, rsv=4))
    assert deframer.next() == (CONT, b"{")
    deframer.feed(client_frame(CONT, b"\xaa" * 65000, fin=False))
    with pytest.raises(ViolationError) as refused:
        deframer.next()
    assert refused.value.code == 1002


# Sizes at the limit


def incompressible(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def forms_of(payload: bytes) -> Iterator[bytes]:
    """A message in compressed forms that swell it: stored, in codes that do not suit it, in many blocks."""
    yield deflated(payload)
    for level, strategy in ((0, zlib.Z_DEFAULT_STRATEGY), (6, zlib.Z_FIXED), (6, zlib.Z_HUFFMAN_ONLY)):
        encoder = zlib.compressobj(level, wbits=-15, memLevel=1, strategy=strategy)
        yield (encoder.compress(payload) + encoder.flush(zlib.Z_SYNC_FLUSH))[: -len(EMPTY_BLOCK)]
        encoder = zlib.compressobj(level, wbits=-15, memLevel=1, strategy=strategy)
        yield encoder.compress(payload) + encoder.flush()


@pytest.mark.parametrize("size", [1000, 65536, 100_000])
def test_a_message_of_the_largest_size_may_be_larger_while_it_is_compressed(size: int) -> None:
    swollen = 0
    for payload in (incompressible(size), b"\xc8" * size, bytes(range(200, 256)) * (size // 56 + 1)):
        payload = payload[:size]
        for body in forms_of(payload):
            swollen += len(body) > size
            for cuts in ([], [len(body) // 3] * 2, [1, size], [size]):
                deframer = Deframer(size, inflating=True)
                deframer.feed(fragmented(body, cuts, rsv=4, opcode=BINARY))
                while (event := deframer.next()) and event.opcode == CONT:
                    pass
                assert event == (BINARY, payload)
                assert not deframer.idle_bytes or cuts
    assert swollen > 5


@pytest.mark.parametrize("size", [1000, 65536])
def test_a_byte_more_is_too_much_in_every_form(size: int) -> None:
    payload = incompressible(size + 1)
    for body in (payload, *forms_of(payload)):
        for cuts in ([], [len(body) // 3] * 2, [1, size], [size]):
            deframer = Deframer(size, inflating=True)
            deframer.feed(fragmented(body, cuts, rsv=0 if body is payload else 4, opcode=BINARY))
            with pytest.raises(ViolationError) as refused:
                while deframer.next():
                    pass
            assert refused.value.code == 1009


def test_a_compressed_frame_that_cannot_be_within_the_limit_is_refused_for_its_header() -> None:
    deframer = Deframer(65536, inflating=True)
    deframer.feed(client_frame(TEXT, bytes(compressed_at_most(65536) + 1), rsv=4)[:14])
    with pytest.raises(ViolationError) as refused:
        deframer.next()
    assert refused.value.code == 1009


@pytest.mark.parametrize("rsv", [0, 4])
def test_a_message_in_fragments_that_is_full_takes_no_further_byte(rsv: int) -> None:
    deframer = Deframer(MAX_SIZE, inflating=True)
    pieces = [incompressible(MAX_SIZE), b"x"]
    if rsv:
        pieces = [deflated(pieces[0]) + EMPTY_BLOCK, deflated(b"\0" * 60_000)]  # nothing left of the limit is no limit
    deframer.feed(client_frame(BINARY, pieces[0], fin=False, rsv=rsv) + client_frame(CONT, b"", fin=False))
    assert deframer.next() == (CONT, incompressible(MAX_SIZE))
    assert deframer.next() == (CONT, b"")
    deframer.feed(client_frame(CONT, pieces[1]))
    with pytest.raises(ViolationError) as refused:
        deframer.next()
    assert refused.value.code == 1009


@pytest.mark.parametrize("taken", [MAX_SIZE, MAX_SIZE - 3])
def test_pings_beside_a_message_in_fragments_take_nothing_of_its_room(taken: int) -> None:
    deframer = Deframer(MAX_SIZE, inflating=False)
    deframer.feed(
        client_frame(TEXT, b"a" * taken, fin=False)
        + client_frame(PING, b"p" * 125)
        + client_frame(PONG, b"q" * 125)
        + client_frame(CONT, b"a" * (MAX_SIZE - taken))
    )
    assert [deframer.next() for _ in range(4)] == [
        (CONT, b"a" * taken),
        (PING, b"p" * 125),
        (PONG, b"q" * 125),
        (TEXT, b"a" * MAX_SIZE),
    ]


def test_a_close_beside_a_large_message_in_fragments_is_as_beside_a_small_one() -> None:
    said = []
    for taken in (1, MAX_SIZE):
        deframer = Deframer(MAX_SIZE, inflating=False)
        deframer.feed(client_frame(TEXT, b"a" * taken, fin=False) + client_frame(CLOSE, b"\x03\xe8bye"))
        deframer.next()
        with pytest.raises(ViolationError) as refused:
            deframer.next()
        said.append((refused.value.code, refused.value.reason))
    assert said == [(1002, "incomplete fragmented message")] * 2


# What brings nothing is accounted for


def idle_bytes(data: bytes, *, inflating: bool = True, step: int = 0) -> int:
    """What is counted of these frames, when they come in pieces of `step` bytes, or at once."""
    deframer = Deframer(65536, inflating)
    for start in range(0, len(data), step or len(data)):
        deframer.feed(data[start : start + (step or len(data))])
        while deframer.next() is not None:
            pass
    return deframer.idle_bytes


def test_ordinary_traffic_costs_nothing_of_what_is_allowed() -> None:
    message = b'{"type":"submit","submission_id":"m-81-p7","score_added":100,"user_id":7}'
    whole = [client_frame(TEXT, WORDS), client_frame(TEXT, b""), client_frame(TEXT, message)]
    whole += [client_frame(TEXT, deflated(text), rsv=4) for text in (b"", WORDS, message, message * 500)]
    whole += [client_frame(BINARY, deflated(incompressible(60_000)), rsv=4)]
    for frame in whole:
        assert idle_bytes(frame * 50) == 0
        assert idle_bytes(frame * 5, step=1400) == 0, "as a network brings it"
        assert idle_bytes(frame * 5, step=64) == 0
    # In fragments of 64 bytes and more, compressed or not.
    for payload in (message * 500, incompressible(30_000)):
        for size in (64, 256, 1300):
            for body, rsv in ((payload, 0), (deflated(payload), 4)):
                data = fragmented(body, list(range(size, len(body), size)), rsv=rsv, opcode=BINARY)
                # The codes at the beginning of a block bring nothing yet.
                assert idle_bytes(data) <= (400 if rsv else 0), (size, rsv)


@pytest.mark.parametrize(
    ("frame", "least"),
    [
        (client_frame(PING, b""), 64),
        (client_frame(PONG, b"x" * 20), 64),
        (client_frame(PING, b"x" * 125), 100),
        (client_frame(CONT, b"", fin=False), 64),
        (client_frame(CONT, b"x", fin=False), 63),
        (client_frame(CONT, b"x" * 32, fin=False), 32),
    ],
)
def test_pings_and_crumbs_are_counted(frame: bytes, least: int) -> None:
    begun = client_frame(TEXT, b"x" * 64, fin=False)
    assert idle_bytes(begun + frame * 100) >= 100 * least


def test_a_compressed_form_that_says_nothing_is_counted() -> None:
    blocks = (b"\0" + EMPTY_BLOCK) * 2000
    assert idle_bytes(client_frame(TEXT, blocks[: -len(EMPTY_BLOCK)], rsv=4)) > 8000
    begun = client_frame(TEXT, deflated(b"x" * 64) + EMPTY_BLOCK, fin=False, rsv=4)
    assert idle_bytes(begun + client_frame(CONT, blocks, fin=False)) > 8000
    assert idle_bytes(begun + client_frame(CONT, blocks[: -len(EMPTY_BLOCK)])) > 8000
    crumbs = b"".join(client_frame(CONT, blocks[start : start + 1], fin=False) for start in range(200))
    assert idle_bytes(begun + crumbs) >= 200 * 64


def test_a_frame_in_pieces_of_a_byte_is_counted() -> None:
    assert idle_bytes(client_frame(TEXT, b"x" * 1000), step=1) > 1000 * 60
    # Header and payload apart: as some clients write them.
    deframer = Deframer(65536, inflating=False)
    for _ in range(100):
        frame = client_frame(TEXT, WORDS)
        for part in (frame[:6], frame[6:]):
            deframer.feed(part)
            while deframer.next() is not None:
                pass
    assert deframer.messages == 100
    assert deframer.idle_bytes == 0


# After the last word


@given(
    st.lists(
        st.one_of(
            st.builds(client_frame, st.sampled_from([TEXT, BINARY, CONT, PING, PONG]), payloads, fin=st.booleans()),
            st.builds(client_frame, st.just(TEXT), st.sampled_from([b"", b"x" * 300, b"y" * 70_000])),
        ),
        max_size=8,
    ),
    st.sampled_from([None, b"", b"\x03\xe8", b"\x0f\xa1" + b"why" * 41]),
    st.lists(st.integers(0, 2000)),
)
def test_a_farewell_finds_the_close_frame_and_only_that(
    before: list[bytes], close: bytes | None, cuts: list[int]
) -> None:
    farewell = Farewell()
    stream = b"".join(before) + (b"" if close is None else client_frame(CLOSE, close))
    edges = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    found = [farewell.feed(stream[start:stop], 2**40) for start, stop in pairwise(edges)]
    assert found == [False] * (len(found) - 1) + [close is not None]
    assert len(stream) <= farewell.spent_bytes <= len(stream) + 64 * len(before)


def test_a_farewell_keeps_nothing_and_reads_no_further_than_it_may() -> None:
    farewell = Farewell()
    large = client_frame(BINARY, b"x" * 70_000)
    assert not farewell.feed(large[:30_000], 2**40)
    assert len(farewell._header) == 0
    assert not farewell.feed(large[30_000:] + client_frame(CLOSE, b"\x03\xe8")[:-1], 2**40)
    assert farewell.feed(client_frame(CLOSE, b"\x03\xe8")[-1:], 2**40)
    spent = Farewell()
    crumbs = client_frame(PING, b"") * 10_000
    assert not spent.feed(crumbs + client_frame(CLOSE, b""), 100_000)
    assert spent.spent_bytes <= 100_000 + 64
    deaf = Farewell(is_listening=False)
    assert not deaf.feed(client_frame(CLOSE, b"\x03\xe8"), 2**40)
    assert deaf.spent_bytes == 8
