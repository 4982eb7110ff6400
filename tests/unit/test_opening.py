"""Requests for a WebSocket, read and answered as `websockets` itself does."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from websockets.http11 import Request
from websockets.server import ServerProtocol

from realtime import opening
from realtime.opening import Opening, RefusedError, response

KEY = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
ASKED = [("host", "x"), ("connection", "Upgrade"), ("upgrade", "websocket"), KEY, ("sec-websocket-version", "13")]
PLAIN = b"Content-Type: text/plain; charset=utf-8"

Headers = Iterable[tuple[str, str]]


def written(headers: Headers, *, method: str = "GET", path: str = "/ws") -> bytes:
    """As uvicorn writes a request down."""
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def read_by_websockets(data: bytes) -> tuple[ServerProtocol, Request | None]:
    judge = ServerProtocol(extensions=[opening._DEFLATE])
    judge.receive_data(data)
    (request,) = judge.events_received() or [None]
    assert request is None or isinstance(request, Request)
    return judge, request


names = st.sampled_from(["x-one", "cookie", "content-length", "transfer-encoding", "origin", *dict(ASKED)])
values = st.text(st.characters(max_codepoint=0xFF, exclude_characters="\r\n"), max_size=20)


@given(st.lists(st.tuples(names, st.one_of(values, st.just("0"))), max_size=70), st.sampled_from(["GET", "POST"]))
@example([("x-long", "y" * 9_000)], "GET")
@example([("x-tab", "\ta\t ")], "GET")
def test_what_is_read_here_is_read_alike_there(headers: list[tuple[str, str]], method: str) -> None:
    data = written(headers, method=method, path="/a%20b?token=c")
    here, (_, there) = opening._ordinary(data), read_by_websockets(data)
    if here is not None:
        assert there is not None
        assert (here.method, here.path, here.protocol) == (there.method, there.path, there.protocol)
        assert list(here.headers.raw_items()) == list(there.headers.raw_items())


def test_what_a_browser_sends_is_ordinary() -> None:
    browsers = [*ASKED, ("origin", "https://x"), ("user-agent", "Mozilla/5.0 (X11)"), ("cookie", "a=b; c=d")]
    assert opening._ordinary(written(browsers))


OFFER = "sec-websocket-extensions"


@pytest.mark.parametrize(
    "headers",
    [
        ASKED,
        [*ASKED, (OFFER, "permessage-deflate; client_max_window_bits")],
        [*ASKED, (OFFER, "permessage-deflate; server_max_window_bits=10, permessage-deflate")],
        [*ASKED, (OFFER, "permessage-deflate; server_max_window_bits=99")],
        [*ASKED, ("cookie", "\xff\xfe")],
        [*ASKED, ("content-length", "0")],
    ],
)
def test_it_is_accepted_in_the_same_words(headers: Headers) -> None:
    data = written(headers)
    judge, request = read_by_websockets(data)
    assert request is not None
    theirs = judge.accept(request)
    del theirs.headers["Date"]
    theirs.headers["x-one"] = "1"
    theirs.headers["x-two"] = "2"
    theirs.headers["Sec-WebSocket-Protocol"] = "chat"
    ours = Opening(data, deflate=True)
    assert ours.accepted([(b"x-one", b"1")], [(b"X-Two", b"2")], "chat") == theirs.serialize()
    assert bool(ours.window) == bool(judge.extensions)


@pytest.mark.parametrize(
    "data",
    [
        written(ASKED, method="POST"),
        written(ASKED[:-1]),
        written([*ASKED, KEY]),
        written([("upgrade", "h2c"), *ASKED]),
        written([*ASKED[:-1], ("sec-websocket-version", "99")]),
        written([*ASKED, ("origin", "a"), ("origin", "b")]),
    ],
)
def test_it_is_refused_in_the_same_words(data: bytes) -> None:
    judge, request = read_by_websockets(data)
    assert request is not None
    theirs = judge.accept(request)
    with pytest.raises(RefusedError) as refused:
        Opening(data, deflate=True)
    ours = refused.value.response
    assert ours.startswith(b"HTTP/1.1 %d " % theirs.status_code) and ours.endswith(theirs.body)


@pytest.mark.parametrize("headers", [[("x-long", "y" * 9_000)], [("x", "y")] * 200, [("content-length", "5")]])
def test_what_cannot_be_read_is_refused_in_the_same_words(headers: Headers) -> None:
    data = written([*ASKED, *headers])
    judge, request = read_by_websockets(data)
    assert request is None
    theirs = b"".join(judge.data_to_send()) or b"HTTP/1.1 400 Bad Request\r\n"
    with pytest.raises(RefusedError) as refused:
        Opening(data, deflate=True)
    assert refused.value.response.split(b"\r\n")[0] == theirs.split(b"\r\n")[0]


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
        Opening(written(ASKED), deflate=True).accepted([], [(b"x-one", value)])
