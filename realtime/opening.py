"""The opening handshake of a WebSocket (RFC 6455, section 4), as pure bytes.

Owns what an application is told of the request, and what is answered to it. Must never know a socket or a connection.
Assumes that uvicorn has parsed the request and wrote it down again, a header a line, names in small letters.

Ordinary requests are taken apart here; everything else, and whether a request may become a WebSocket, is left to the
`websockets` library, whose judgement stands.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from email.utils import formatdate
from http.client import responses as PHRASES
from typing import Any, Final
from urllib.parse import unquote

from websockets.datastructures import Headers
from websockets.exceptions import InvalidHandshake
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

__all__ = ["Opening", "RefusedError", "response"]

RawHeaders = Iterable[tuple[bytes, bytes]]

# More than an ordinary request has.
_ORDINARY_BYTES, _ORDINARY_HEADERS = 4096, 64

# websockets tells this one of every handshake. It is in no registry: a logging configuration would set its level back.
_quiet = logging.Logger("uvicorn.error", logging.WARNING)
_quiet.parent = logging.getLogger("uvicorn.error")

# Without context takeover a compressed frame suits every connection, and none keeps a window.
_DEFLATE = ServerPerMessageDeflateFactory(server_no_context_takeover=True, client_no_context_takeover=True)


def _judge(*, deflate: bool) -> ServerProtocol:
    return ServerProtocol(extensions=[_DEFLATE] if deflate else [], logger=_quiet)


# By whether compression may be negotiated. What they say of a request depends on nothing but that request.
_JUDGES: Final = {deflate: _judge(deflate=deflate) for deflate in (False, True)}


class RefusedError(Exception):
    """The request cannot become a WebSocket: `response` is the answer, after which the connection ends."""

    def __init__(self, response: bytes) -> None:
        super().__init__()
        self.response = response


class Opening:
    """A request that may become a WebSocket. Raises RefusedError where it may not."""

    __slots__ = ("_accept", "_extensions", "_request", "window")

    def __init__(self, data: bytes, *, deflate: bool) -> None:
        self._request = request = _ordinary(data) or _unusual(data)
        judge = _JUDGES[deflate]
        try:
            self._accept, self._extensions, _ = judge.process_request(request)
        except InvalidHandshake:
            # A judge remembers why it refused, and with the error all that led there: not the one that stays.
            raise RefusedError(_judge(deflate=deflate).accept(request).serialize()) from None
        extension = next(iter(judge.extensions), None)
        # Bits of the negotiated compression window, 9 to 15; 0 without compression.
        self.window = extension.local_max_window_bits if isinstance(extension, PerMessageDeflate) else 0

    def scope(self, root_path: str) -> dict[str, Any]:
        """What ASGI's scope says of the request."""
        request = self._request
        raw_path, _, query = request.path.partition("?")
        offers = request.headers.get_all("sec-websocket-protocol")
        return {
            "root_path": root_path,
            "path": root_path + unquote(raw_path),
            "raw_path": (root_path + raw_path).encode("ascii"),
            "query_string": query.encode("ascii"),
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in request.headers.raw_items()],
            "subprotocols": [name.strip() for offer in offers for name in offer.split(",")],
        }

    def accepted(self, default: RawHeaders, headers: RawHeaders = (), subprotocol: str | None = None) -> bytes:
        """The response that makes it one, with `headers`, which are checked, after the server's `default` ones."""
        lines = [
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ",
            self._accept.encode(),
            b"\r\n",
        ]
        if self._extensions is not None:
            lines.append(b"Sec-WebSocket-Extensions: %b\r\n" % self._extensions.encode())
        lines += [b"%b: %b\r\n" % header for header in default]
        own = _checked((name.lower(), value) for name, value in headers)
        if subprotocol:
            own["Sec-WebSocket-Protocol"] = subprotocol
        return b"".join(lines) + own.serialize()


def response(status: int, body: bytes = b"", headers: RawHeaders = ()) -> bytes:
    """The response to a request that becomes none; where `headers` do not say how it is to be read, it is text."""
    own = _checked(headers)
    own.setdefault("Date", formatdate(usegmt=True))
    own.setdefault("Connection", "close")
    own.setdefault("Content-Length", str(len(body)))
    own.setdefault("Content-Type", "text/plain; charset=utf-8")
    return Response(status, PHRASES.get(status, ""), own, body).serialize()


def _checked(headers: RawHeaders) -> Headers:
    """An application's headers: nothing in them can end a line."""
    return Headers((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers)


def _ordinary(data: bytes) -> Request | None:
    """An ordinary request: of a moderate size, in visible ASCII, without a body. None for any other."""
    if len(data) > _ORDINARY_BYTES or not data.isascii() or not data.endswith(b"\r\n\r\n"):
        return None
    first, *lines = data[:-4].decode("ascii").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or len(lines) > _ORDINARY_HEADERS or not "".join([first, *lines]).isprintable():
        return None
    headers = Headers()
    for line in lines:
        name, _, value = line.partition(": ")
        headers.set_insecure(name, value.strip())
    if "content-length" in headers or "transfer-encoding" in headers:
        return None
    method, path, protocol = words
    return Request(path, headers, method, protocol)


def _unusual(data: bytes) -> Request:
    """Any request, as `websockets` reads it."""
    judge = _judge(deflate=False)
    judge.receive_data(data)
    for request in judge.events_received():
        if isinstance(request, Request):
            return request
    answer = b"".join(judge.data_to_send())  # none where there is a body
    raise RefusedError(answer or response(400, b"Failed to open a WebSocket connection: the request cannot be read.\n"))
