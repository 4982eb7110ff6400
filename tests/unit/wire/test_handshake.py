"""Requests for a WebSocket, read and answered as `websockets` itself does."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from websockets.http11 import Request
from websockets.server import ServerProtocol

from realtime.wire import handshake
from realtime.wire.handshake import Opening, RefusedError, read, response

KEY = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
ASKED = [("host", "x"), ("connection", "Upgrade"), ("upgrade", "websocket"), KEY, ("sec-websocket-version", "13")]
PLAIN = b"Content-Type: text/plain; charset=utf-8"

Headers = Iterable[tuple[str, str]]


def written(headers: Headers, *, method: str = "GET", path: str = "/ws") -> bytes:
    """As uvicorn writes a request down."""
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def read_by_websockets(data: bytes) -> tuple[ServerProtocol, Request | None]:
    judge = ServerProtocol(extensions=[handshake._DEFLATE])
    judge.receive_data(data)
    (request,) = judge.events_received() or [None]
    assert request is None or isinstance(request, Request)
    return judge, request


OFFER = "sec-websocket-extensions"


@pytest.mark.parametrize(
    "headers",
    [
        ASKED,
        [*ASKED, (OFFER, "permessage-deflate; client_max_window_bits")],
        [*ASKED, (OFFER, "permessage-deflate; server_max_window_bits=10, permessage-deflate")],
        [*ASKED, (OFFER, "permessage-deflate; server_max_window_bits=99")],
        [*ASKED, (OFFER, "foo"), (OFFER, "permessage-deflate")],
        [*ASKED, ("connection", "keep-alive")],
        [*ASKED, ("cookie", "\xff\xfe")],
        [*ASKED, ("content-length", "0")],
    ],
)
def test_a_request_is_accepted_in_the_same_words(headers: Headers) -> None:
    data = written(headers)
    judge, request = read_by_websockets(data)
    assert request is not None
    theirs = judge.accept(request)
    del theirs.headers["Date"]
    theirs.headers["x-one"] = "1"
    theirs.headers["x-two"] = "2"
    theirs.headers["Sec-WebSocket-Protocol"] = "chat"
    ours = Opening(read(data), deflate=True)
    assert ours.accepted([(b"x-one", b"1")], [(b"X-Two", b"2")], "chat") == theirs.serialize()
    assert bool(ours.window) == bool(judge.extensions)


@pytest.mark.parametrize(
    "data",
    [
        written(ASKED, method="POST"),
        written(ASKED[:3] + ASKED[4:]),
        written([*ASKED, KEY]),
        written([("host", "x"), ("connection", "Upgrade"), ("upgrade", "h2c"), *ASKED[3:]]),
        written([*ASKED, ("origin", "a"), ("origin", "b")]),
        written([*ASKED, (OFFER, ";")]),
    ],
)
def test_a_request_is_refused_in_the_same_words(data: bytes) -> None:
    judge, request = read_by_websockets(data)
    assert request is not None
    theirs = judge.accept(request)
    with pytest.raises(RefusedError) as refused:
        Opening(read(data), deflate=True)
    ours = refused.value.response
    assert ours.startswith(b"HTTP/1.1 %d " % theirs.status_code) and ours.endswith(theirs.body)


@pytest.mark.parametrize("versions", [[], ["8"], ["14"], ["13, 8"], [""], ["13", "13"]])
def test_another_version_is_told_which_one_is_spoken_here(versions: list[str]) -> None:
    headers = [*ASKED[:-1], *(("sec-websocket-version", version) for version in versions)]
    with pytest.raises(RefusedError) as refused:
        Opening(read(written(headers)), deflate=True)
    head, _, _ = refused.value.response.lower().partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    assert first == b"http/1.1 426 upgrade required"
    assert {b"sec-websocket-version: 13", b"upgrade: websocket", b"connection: upgrade, close"} <= set(lines)


@pytest.mark.parametrize("wanted", [["websocket, foo"], ["foo, WebSocket"], ["foo", "websocket"], [" websocket\t"]])
def test_of_several_protocols_the_one_that_is_spoken_here_is_taken(wanted: list[str]) -> None:
    headers = [*(field for field in ASKED if field[0] != "upgrade"), *(("upgrade", value) for value in wanted)]
    handshake = Opening(read(written(headers)), deflate=True)
    assert b"\r\nUpgrade: websocket\r\n" in handshake.accepted([])
    asked = [value for name, value in handshake.scope("")["headers"] if name == b"upgrade"]
    assert asked == [value.strip().encode() for value in wanted], "the application hears what was asked"


@pytest.mark.parametrize("headers", [[("content-length", "5")], [("transfer-encoding", "chunked")], [("host", "y")]])
def test_what_is_no_request_for_a_websocket_is_refused(headers: Headers) -> None:
    with pytest.raises(RefusedError) as refused:
        read(written([*ASKED, *headers]))
    assert refused.value.response.startswith(b"HTTP/1.1 400 ")


def test_a_refusal_is_in_plain_words_or_in_the_application_s() -> None:
    plain = response(403)
    assert plain.startswith(b"HTTP/1.1 403 Forbidden\r\n") and PLAIN in plain and plain.endswith(b"\r\n\r\n")
    own = response(599, b"{}", [(b"content-type", b"application/json")])
    assert own.startswith(b"HTTP/1.1 599 \r\n") and PLAIN not in own and own.endswith(b"Length: 2\r\n\r\n{}")


@pytest.mark.parametrize("value", [b"a\r\nset-cookie: b", b"\0"])
def test_an_application_s_header_cannot_end_a_line(value: bytes) -> None:
    with pytest.raises(Exception, match="invalid"):
        response(403, b"", [(b"x-one", value)])
    with pytest.raises(Exception, match="invalid"):
        Opening(read(written(ASKED)), deflate=True).accepted([], [(b"x-one", value)])
