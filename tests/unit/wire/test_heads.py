"""Heads of requests: whatever is read here means what h11 and `websockets` read in it, and nothing else is read."""

from __future__ import annotations

from typing import Any

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from websockets.http11 import Request as JudgedRequest
from websockets.server import ServerProtocol

from realtime.wire import heads
from realtime.wire.heads import BadRequestError, Request, ordinary, understood, unusual

HOST = b"Host: x\r\n"


def read(data: bytes) -> Request:
    head = ordinary(data)
    return understood(unusual(data) if head is None else head)


def refused(data: bytes) -> int:
    with pytest.raises(BadRequestError) as error:
        read(data)
    return error.value.status


def get(*lines: bytes, method: bytes = b"GET", target: bytes = b"/", version: bytes = b"1.1") -> bytes:
    fields = b"".join(line + b"\r\n" for line in lines)
    return method + b" " + target + b" HTTP/" + version + b"\r\n" + HOST + fields + b"\r\n"


# What servers and proxies have read differently, beside what everybody sends.
NAMES = [
    b"x-one", b"Cookie", b"host", b"Content-Length", b"content-length", b"Transfer-Encoding", b"Connection", b"Upgrade",
    b"Expect", b"a b", b"", b"x:", b" folded", b"Content-Length ", b"Transfer_Encoding", b"\xe9",
]  # fmt: skip
VALUES = [
    b"", b"0", b"5", b"05", b"+5", b"-5", b"5, 5", b"5 ", b"\t5", b"5\x00", b"0x5", b"99999999999999999999", b"chunked",
    b"Chunked", b"gzip, chunked", b"\x0bchunked", b"identity", b"close", b"keep-alive, Upgrade", b"websocket", b"h2c",
    b"websocket, foo", b"100-continue", b"a\tb", b"\xff\xfe", b"a\rb", b"a\nX: y", b"y" * 9_000, b"\x01", b"\x7f",
]  # fmt: skip
LINES = st.builds(
    lambda name, colon, value, end: name + colon + value + end,
    st.sampled_from(NAMES) | st.binary(max_size=6),
    st.sampled_from([b": ", b":", b" : "]),
    st.sampled_from(VALUES) | st.binary(max_size=12),
    st.sampled_from([b"\r\n"] * 12 + [b"\n", b"\r", b"\r\n ", b"\r\n\t"]),
)
FIRST = st.builds(
    lambda method, target, version, end: method + b" " + target + b" " + version + end,
    st.sampled_from([b"GET", b"POST", b"get", b"PRI", b"CONNECT", b"G\xe9T", b""]),
    st.sampled_from([b"/", b"/a%20b?token=c", b"*", b"http://y/z", b"/#a", b"/\xff", b"", b"x:1", b"/ /"])
    | st.binary(max_size=8),
    st.sampled_from([b"HTTP/1.1"] * 6 + [b"HTTP/1.0", b"HTTP/2.0", b"HTTP/1.10", b"http/1.1", b""]),
    st.sampled_from([b"\r\n"] * 6 + [b"\n", b"\r\n "]),
)
WHOLE = st.builds(lambda first, lines: first + HOST + b"".join(lines) + b"\r\n", FIRST, st.lists(LINES, max_size=5))


def by_h11(data: bytes) -> Any:
    reader = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    reader.receive_data(data)
    try:
        return reader.next_event()
    except h11.RemoteProtocolError:
        return None


@given(WHOLE)
@example(get(b"Content-Length: 5"))
@example(get(b"Content-Length: 5, 5"))
@example(get(b"x-tab: \ta\t "))
@example(get(b"Upgrade: websocket", b"Connection: Upgrade", target=b"/ws?token=c"))
def test_an_ordinary_head_is_what_h11_reads_in_it(data: bytes) -> None:
    head = ordinary(data)
    if head is not None:
        theirs = by_h11(data)
        assert isinstance(theirs, h11.Request) or data.lower().count(b"host:") > 1
        if isinstance(theirs, h11.Request):
            assert (head.method, head.target, head.version) == (theirs.method, theirs.target, theirs.http_version)
            assert head.fields == list(theirs.headers)


@given(WHOLE)
@example(get(b"Content-Length: 5", b"Transfer-Encoding: chunked"))
@example(get(b"x: a\n b"))
def test_what_is_understood_is_what_h11_reads(data: bytes) -> None:
    try:
        request = read(data)
    except BadRequestError:
        return
    theirs = by_h11(data)
    assert isinstance(theirs, h11.Request)
    fields = dict(theirs.headers)
    if request.length is None:
        assert fields[b"transfer-encoding"] == b"chunked" and b"content-length" not in fields
    else:
        assert request.length == int(fields.get(b"content-length", 0)) and b"transfer-encoding" not in fields
    assert request.keeps == h11._connection._keep_alive(theirs)
    # Nothing that another reader might take for the end of a line, or for a line of its own.
    lines = data.removesuffix(b"\r\n\r\n").split(b"\r\n")
    assert not any(line[:1] in (b"", b" ", b"\t") or set(line) & {0, 10, 13} for line in lines)


@given(WHOLE.filter(lambda data: max(map(len, data.split(b"\r\n"))) < 8_000))
def test_an_ordinary_head_is_what_websockets_reads_in_it(data: bytes) -> None:
    head = ordinary(data)
    if head is None or any(name == b"content-length" for name, _ in head.fields):
        return
    judge = ServerProtocol()
    judge.receive_data(data)
    (theirs,) = judge.events_received()
    assert isinstance(theirs, JudgedRequest)
    assert (head.method.decode(), head.target.decode()) == (theirs.method, theirs.path)
    ours = [(name.decode(), value.decode()) for name, value in head.fields]
    assert ours == [(name.lower(), value) for name, value in theirs.headers.raw_items()]


def test_what_browsers_and_libraries_send_is_ordinary() -> None:
    browser = get(
        b"Connection: keep-alive, Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13",
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", b"Origin: https://x", b"Cookie: a=b; c=d",
        b"User-Agent: Mozilla/5.0 (X11; Linux x86_64)", b'sec-ch-ua: "Chromium";v="146"', target=b"/ws?token=a.b-c_d",
    )  # fmt: skip
    assert ordinary(browser)
    assert ordinary(get(b"Content-Type: application/json", b"Content-Length: 93", method=b"POST", target=b"/scores"))


@pytest.mark.parametrize(
    "lines",
    [
        [b"Content-Length: 5", b"Content-Length: 6"],
        [b"Content-Length: 5", b"Transfer-Encoding: chunked"],
        [b"Content-Length: 0", b"Transfer-Encoding: chunked"],
        [b"Content-Length: +5"],
        [b"Content-Length: "],
        [b"Content-Length: 1000000000000000000"],
        [b"Content-Length : 5"],
        [b"Host: y"],
        [b"x: a\x00b"],
        [b"x: a\x01b"],
        [b"x: a\rb"],
        [b"x: a\nTransfer-Encoding: chunked"],
        [b"x: a", b" folded"],
        [b"\tx: a"],
        [b"no colon"],
    ],
)
def test_what_means_nothing_or_two_things_is_refused(lines: list[bytes]) -> None:
    assert refused(get(*lines, method=b"POST")) == 400


@pytest.mark.parametrize("coding", [b"gzip, chunked", b"chunked, chunked", b"identity", b"chunked;q=1", b"", b"chunk"])
def test_other_transfer_encodings_are_not_implemented(coding: bytes) -> None:
    assert refused(get(b"Transfer-Encoding: " + coding)) == 501


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a/b?c\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: x\n\n", 400),
        (b"GET /\r\n\r\n", 400),
        (get(target=b"/a#b"), 400),
        (get(target=b"a/b"), 400),
        (get(target=b"*"), 400),
        (get(target=b"http://u@y/"), 400),
        (get(target=b"/\xe9"), 400),
        (get(version=b"2.0"), 505),
        (get(version=b"0.9"), 505),
        (b"PRI * HTTP/2.0\r\n\r\n", 505),
        (get(b"Transfer-Encoding: chunked", version=b"1.0"), 400),
        (get(method=b"CONNECT", target=b"y:80"), 501),
        (get(method=b"CONNECT"), 501),
        (get(*[b"x: y"] * heads.FIELDS), 431),
    ],
)
def test_what_is_refused_and_how(data: bytes, status: int) -> None:
    assert refused(data) == status


def test_an_absolute_address_names_the_host() -> None:
    for target, path in ((b"http://y:8000/z?q=1", b"/z?q=1"), (b"ws://y:8000?q", b"/?q"), (b"http://y:8000", b"/")):
        request = read(get(target=target))
        assert (request.target, request.fields) == (path, [(b"host", b"y:8000")])
    assert read(get(method=b"OPTIONS", target=b"*")).target == b"*"
    assert read(get(method=b"OPTIONS", target=b"http://y")).target == b"*"


def test_hosts_are_names_addresses_and_ports() -> None:
    for host in (b"x", b"x:80", b"a-b.example.", b"127.0.0.1:8000", b"[::1]", b"[fe80::1]:8000", b"xn--a", b""):
        assert read(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n").fields == [(b"host", host)]
    assert read(b"GET / HTTP/1.0\r\n\r\n").fields == []


UPGRADE = (b"Connection: Upgrade", b"Upgrade: websocket")


def test_who_asks_for_a_websocket_and_who_does_not() -> None:
    for lines in (
        UPGRADE,
        (b"Connection: keep-alive", b"connection: UPGRADE ", b"Upgrade: foo", b"Upgrade: WebSocket\t"),
        (b"Connection: Upgrade", b"Upgrade: h2c, websocket"),
        (*UPGRADE, b"Content-Length: 0"),
        (*UPGRADE, b"x: \xff"),
    ):
        assert read(get(*lines)).to_websocket
    for data in (
        get(*UPGRADE, version=b"1.0"),
        get(*UPGRADE, method=b"POST"),
        get(*UPGRADE, b"Content-Length: 5"),
        get(*UPGRADE, b"Transfer-Encoding: chunked"),
        get(b"Connection: Upgrade", b"Upgrade: h2c"),
        get(b"Connection: Upgrade", b"Upgrade: TLS/1.0, websockets"),
        get(b"Connection: Upgrade", b"Upgrade: "),
        get(b"Upgrade: websocket"),
        get(b"Connection: keep-alive", b"Upgrade: websocket"),
    ):
        assert not read(data).to_websocket


def test_what_becomes_of_the_connection() -> None:
    assert read(get()).keeps and read(get(b"Connection: keep-alive")).keeps
    assert not read(get(b"Connection: foo, Close")).keeps
    assert not read(get(b"Connection: keep-alive", version=b"1.0")).keeps
    assert read(get(b"Expect: 100-Continue", b"Content-Length: 5")).waits
    assert not read(get(b"Expect: foo", b"Content-Length: 5")).waits
    assert not read(get(b"Expect: 100-continue", version=b"1.0")).waits
