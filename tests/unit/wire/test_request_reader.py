"""Requests out of bytes: however they are cut up, each has its own body, and no other."""

from __future__ import annotations

import time

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.wire import heads, request_reader
from realtime.wire.heads import BadRequestError, Request
from realtime.wire.request_reader import END, RequestReader

GET = b"GET /one HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /two HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"POST /three HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
BODY = b"2;a=b\r\nhe\r\n3\r\nllo\r\n"
H2C = b"POST /four HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 26\r\n\r\n" + GET[:26]
LATIN = b"PUT /five HTTP/1.1\r\nHost: x\r\nx: \xe9\r\nContent-Length: 2\r\n\r\nhi"
WHAT = {
    GET: ("/one", b""),
    POST: ("/two", b"hello"),
    CHUNKED + b"\r\n" + BODY + b"0\r\n\r\n": ("/three", b"hello"),
    CHUNKED + b"\r\n" + BODY + b"0\r\nAuthorization: Bearer x\r\nContent-Length: 9\r\n\r\n": ("/three", b"hello"),
    H2C: ("/four", GET[:26]),
    LATIN: ("/five", b"hi"),
    b"\r\n" + GET: ("/one", b""),
}


def everything(reader: RequestReader) -> list[Request | bytes]:
    """What there is, one after another: requests, and the parts of their bodies."""
    found: list[Request | bytes] = []
    while (event := reader.next()) is not None:
        if event is not END:
            assert isinstance(event, Request) or (isinstance(event, bytes) and event)
            found.append(event)
    return found


@given(st.lists(st.sampled_from(list(WHAT)), max_size=6), st.data())
def test_however_requests_are_cut_up_they_are_the_same(asked: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(asked)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    reader, events = RequestReader(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        if part := stream[start:end]:
            reader.feed(part)
            events += everything(reader)
    found: list[tuple[str, bytes]] = []
    for event in events:
        if isinstance(event, Request):
            assert b"authorization" not in dict(event.fields)
            found.append((event.target.decode(), b""))
        else:
            target, body = found[-1]
            found[-1] = target, body + event
    assert found == [WHAT[each] for each in asked]
    assert reader.waiting_bytes == 0


@pytest.mark.parametrize("asked", list(WHAT))
def test_a_byte_at_a_time(asked: bytes) -> None:
    reader, found = RequestReader(), []
    for byte in asked + GET:
        reader.feed(bytes([byte]))
        found += everything(reader)
    requests = [event for event in found if isinstance(event, Request)]
    assert [request.target.decode() for request in requests] == [WHAT[asked][0], "/one"]
    assert b"".join(event for event in found if isinstance(event, bytes)) == WHAT[asked][1]


@pytest.mark.parametrize(
    "body",
    [
        b"5\nhello\r\n0\r\n\r\n", b"0x5\r\nhello\r\n0\r\n\r\n", b"+5\r\nhello\r\n0\r\n\r\n",
        b" 5\r\nhello\r\n0\r\n\r\n", b"5\r\nhello0\r\n\r\n", b"5\r\nhelloX\r\n0\r\n\r\n",
        b"5\r\nhello\r\n0\n\n", b"0\r\n\n", b"0\r\nx: y\n\n", b"0\r\nx: y\r\n\n", b"\r\n0\r\n\r\n",
        b"fffffffffffffffff\r\n", b"0\r\nno colon\r\n\r\n", b"0;a\rb\r\n\r\n", b"0;\x00\r\n\r\n",
        b"0\r\nx: y\r\n z\r\n\r\n",
        b"0\r\nx : y\r\n\r\n", b"0\r\nx: y\nz: a\r\n\r\n", b"0\r\nx: \x00\r\n\r\n", b";a\r\n\r\n",
        b"5 5\r\nhello\r\n0\r\n\r\n",
    ],
)  # fmt: skip
@pytest.mark.parametrize("at_once", [True, False])
def test_chunks_that_others_might_read_differently_are_refused(body: bytes, at_once: bool) -> None:
    reader = RequestReader()
    with pytest.raises(BadRequestError) as refused:
        stream = CHUNKED + b"\r\n" + body + GET
        for part in [stream] if at_once else [bytes([byte]) for byte in stream]:
            reader.feed(part)
            everything(reader)
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("begin", "piece", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\nx: ", b"a" * 1000, 431),
        (b"GET /", b"a" * 1000, 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\n", b"x: y\r\n", 431),
        (CHUNKED + b"\r\n0\r\nx: ", b"a" * 1000, 431),
        (CHUNKED + b"\r\n0\r\n", b"x: y\r\n", 431),
        (CHUNKED + b"\r\n1;x=", b"a" * 1000, 431),
        (CHUNKED + b"\r\n", b"1\r\nx\r\n", 413),
    ],
)
def test_nothing_without_end_is_kept(begin: bytes, piece: bytes, status: int) -> None:
    reader = RequestReader()
    reader.feed(begin)
    with pytest.raises(BadRequestError) as refused:
        for _ in range(request_reader.CHUNKS + 2):
            everything(reader)
            reader.feed(piece)
            assert reader.waiting_bytes <= heads.BYTES + len(piece)
    assert refused.value.status == status


PIECES = [
    b"0", b"1", b"5", b"a", b"hello", b"\r\n", b"\r", b"\n", b"5\r\nhello\r\n", b"0\r\n", b";a=b", b" ", b"\t",
    b"x: y\r\n",
    b":", b"\x00", b"\xff", b"-", b"+", b"_", b"0\r\n\r\n",
]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES) | st.binary(max_size=2), max_size=9).map(b"".join))
def test_a_body_in_chunks_is_what_h11_reads_in_it(stream: bytes) -> None:
    reader, theirs = RequestReader(), h11.Connection(h11.SERVER)
    reader.feed(CHUNKED + b"\r\n" + stream + GET)
    theirs.receive_data(CHUNKED + b"\r\n" + stream + GET)
    assert isinstance(reader.next(), Request) and isinstance(theirs.next_event(), h11.Request)
    ours = body = b""
    try:
        while isinstance(part := reader.next(), bytes):
            ours += part
    except BadRequestError:
        return
    while isinstance(event := theirs.next_event(), h11.Data):
        body += event.data
    assert ours == body
    assert (part is END) == isinstance(event, h11.EndOfMessage)
    if part is END:
        assert reader.rest() == theirs.trailing_data[0]


LONG = heads.BYTES - 200


@pytest.mark.parametrize(
    "body",
    [
        b"1;" + b" " * LONG + b"\nx\r\n", b"1" + b" " * LONG + b"\x00\r\n", b"0\r\nx:" + b" " * LONG + b"\x00\r\n\r\n",
        b"0\r\nx:" + b" y" * (LONG // 2) + b"\x00\r\n\r\n", b"0\r\n" + b"x:\r\n" * (LONG // 4) + b"\r\n",
    ],
)  # fmt: skip
def test_no_line_is_tried_again_and_again(body: bytes) -> None:
    reader, began = RequestReader(), time.process_time()
    reader.feed(CHUNKED + b"\r\n" + body)
    with pytest.raises(BadRequestError):
        everything(reader)
    assert time.process_time() - began < 0.05


@pytest.mark.parametrize("field", [b"x:\r\n", b"x:\xff\r\n"])
def test_too_many_fields_are_refused_before_they_cost_anything(field: bytes) -> None:
    began = time.process_time()
    for _ in range(20):
        reader = RequestReader()
        reader.feed(GET[:-2] + field * (LONG // len(field)) + b"\r\n")
        with pytest.raises(BadRequestError) as refused:
            reader.next()
        assert refused.value.status == 431
    assert (time.process_time() - began) / 20 < 0.002


def test_a_head_is_as_large_as_it_may_be() -> None:
    room = heads.BYTES - len(b"GET / HTTP/1.1\r\nHost: x\r\nx: \r\n\r\n")
    for size, fits in ((room, True), (room + 1, False)):
        reader = RequestReader()
        reader.feed(b"GET / HTTP/1.1\r\nHost: x\r\nx: " + b"y" * size + b"\r\n\r\n")
        if fits:
            assert isinstance(reader.next(), Request)
        else:
            with pytest.raises(BadRequestError):
                reader.next()


@pytest.mark.parametrize("first", [b"\x16\x03\x01", b" GET", b"\n", b"\rG", b"{", b"\x00"])
def test_what_cannot_become_a_request_is_not_waited_for(first: bytes) -> None:
    reader = RequestReader()
    reader.feed(first)
    with pytest.raises(BadRequestError):
        reader.next()


def test_what_follows_a_request_for_a_websocket_is_left_alone() -> None:
    reader = RequestReader()
    ask = b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    reader.feed(ask + b"\x81\x80\x00\x00\x00\x00" + GET)
    request = reader.next()
    assert isinstance(request, Request) and request.to_websocket
    assert reader.rest() == b"\x81\x80\x00\x00\x00\x00" + GET
    assert reader.waiting_bytes == 0
