"""The opening handshake of a WebSocket (RFC 6455, section 4), as pure bytes.

Owns what an application is told of the request, and what is answered to it. Must never know a socket or a connection.
Assumes that the `websockets` library judges rightly whether a request may become a WebSocket. The library is shown the
fields that it judges; where a client would change to several protocols, it is shown the one that we take.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from email.utils import formatdate
from http.client import responses as PHRASES
from typing import Any, Final
from urllib.parse import unquote

from websockets.datastructures import Headers
from websockets.exceptions import InvalidHandshake, InvalidHeader
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.http11 import Request as JudgedRequest
from websockets.http11 import Response
from websockets.server import ServerProtocol

from realtime.wire import heads
from realtime.wire.heads import WEBSOCKET, BadRequestError, Request

__all__ = ["Opening", "RefusedError", "read", "response"]

RawHeaders = Iterable[tuple[bytes, bytes]]

_VERSION: Final = "Sec-WebSocket-Version"

# What decides whether, and how, a request becomes a WebSocket.
_JUDGED: Final = {
    name.encode(): name
    for name in (
        "connection", "origin", "sec-websocket-extensions", "sec-websocket-key", "sec-websocket-protocol",
        "sec-websocket-version",
    )
}  # fmt: skip

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
    """A request that asks for a WebSocket. Raises RefusedError where it may not become one."""

    __slots__ = ("_accept", "_extensions", "_request", "window")

    def __init__(self, request: Request, *, deflate: bool) -> None:
        self._request = request
        judged = _judged(request)
        judge = _JUDGES[deflate]
        try:
            self._accept, self._extensions, _ = judge.process_request(judged)
        except InvalidHandshake as refused:
            raise RefusedError(_refusal(judged, refused, deflate=deflate)) from None
        extension = next(iter(judge.extensions), None)
        # Bits of the negotiated compression window, 9 to 15; 0 without compression.
        self.window = extension.local_max_window_bits if isinstance(extension, PerMessageDeflate) else 0

    def scope(self, root_path: str) -> dict[str, Any]:
        """What ASGI's scope says of the request."""
        fields = self._request.fields
        raw_path, _, query = self._request.target.partition(b"?")
        path = raw_path.decode("ascii")
        offers = [value.decode("latin-1") for name, value in fields if name == b"sec-websocket-protocol"]
        return {
            "root_path": root_path,
            "path": root_path + (unquote(path) if "%" in path else path),
            "raw_path": root_path.encode("ascii") + raw_path,
            "query_string": query,
            "headers": fields,
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


def read(data: bytes) -> Request:
    """A request that uvicorn has parsed and written down again. Raises RefusedError where it is none."""
    try:
        if len(data) > heads.BYTES:
            raise BadRequestError(431, f"A request's head may have at most {heads.BYTES} bytes.")
        head = heads.ordinary(data)
        request = heads.understood(heads.unusual(data) if head is None else head)
        if request.length != 0:
            raise BadRequestError(400, "A request for a WebSocket has no body.")
        return request
    except BadRequestError as refused:
        raise RefusedError(response(refused.status, f"{refused}\n".encode())) from None


def _judged(request: Request) -> JudgedRequest:
    """The request as `websockets` is asked about it."""
    headers = Headers()
    for name, value in request.fields:
        if name in _JUDGED:
            headers.set_insecure(_JUDGED[name], value.decode("latin-1"))
        elif name == b"upgrade" and "upgrade" not in headers:
            wanted = WEBSOCKET if request.to_websocket else value
            headers.set_insecure("upgrade", wanted.decode("latin-1"))
    return JudgedRequest(request.target.decode("ascii"), headers, request.method, "HTTP/1.1")


def _refusal(judged: JudgedRequest, refused: InvalidHandshake, *, deflate: bool) -> bytes:
    """The answer to a request that may not become a WebSocket."""
    # A judge remembers why it refused, and with the error all that led there: not the one that stays.
    answer = _judge(deflate=deflate).accept(judged)
    if isinstance(refused, InvalidHeader) and refused.name == _VERSION:
        # RFC 6455, section 4.4: the version that is spoken here; RFC 9110, section 15.5.22: and the protocol.
        answer.status_code, answer.reason_phrase = 426, "Upgrade Required"
        answer.headers[_VERSION] = "13"
        answer.headers["Upgrade"] = "websocket"
        del answer.headers["Connection"]
        answer.headers["Connection"] = "Upgrade, close"
    return answer.serialize()
