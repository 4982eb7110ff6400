"""An exchange: one request and its answer, as ASGI has them.

Owns what the application has of the request's body, and that it is answered once. Must never outlive its answer, nor
write where the connection is gone. Assumes that its connection gives it a body in parts, and takes its bytes in order.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final, Protocol

from realtime.wire.answers import Answer
from realtime.wire.event_stream import EventStream
from realtime.wire.heads import Request

__all__ = ["BODY_AHEAD", "HttpExchange", "whole_server"]

Message = MutableMapping[str, Any]
Application = Callable[[Any, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[Any]]

BODY_AHEAD: Final = 64 * 1024
"""Bytes of a body that may wait for the application."""

_log = logging.getLogger("uvicorn.error")
_METHODS: Final = b"GET, HEAD, POST, PATCH, DELETE, OPTIONS"
_DISCONNECT: Final = {"type": "http.disconnect"}
_BROKEN: Final = (b"Internal Server Error", [(b"content-type", b"text/plain; charset=utf-8")])


class Line(Protocol):
    """What an exchange needs of its connection."""

    is_blocked: bool
    """Something waits to be sent."""

    def write(self, parts: list[bytes]) -> None:
        """Sends these bytes."""

    async def drain(self) -> None:
        """Returns when nothing waits to be sent."""

    def read_on(self) -> None:
        """There is room for more of the body."""

    def answered(self) -> None:
        """The answer is complete."""

    def become_stream(self) -> EventStream | None:
        """Gives the transport to a stream of events."""

    def abort(self) -> None:
        """Ends at once."""


class Waiter(Protocol):
    """Who answers a request after the application has returned."""

    def wake(self) -> None:
        """Answer now: the client asks for nothing more, or the server stops."""

    def leave(self) -> None:
        """Nobody is there to read an answer."""


class HttpExchange:
    """One request, the application's run for it, and the answer."""

    __slots__ = ("_body", "_hesitates", "_line", "_told", "_waiter", "answer", "gone", "request", "waiter", "whole")

    def __init__(self, line: Line, request: Request, defaults: Iterable[tuple[bytes, bytes]]) -> None:
        self._line = line
        self.request = request
        self.answer = Answer(request, defaults)
        self._body = bytearray()
        self._hesitates = request.waits  # the client waits to hear that it may send the body
        self._told = False  # the application has the end of the body
        self._waiter: asyncio.Event | None = None  # where the application waits for more of the request
        self.whole = request.length == 0
        """Nothing more of the request is to come."""
        self.gone = False
        """Nobody is there to read the answer."""
        self.waiter: Waiter | None = None
        """Set by an application that returns before it has answered: an answer that is awaited needs no task."""

    @property
    def is_full(self) -> bool:
        """Whether no more of the body should be read before the application has taken some."""
        return len(self._body) >= BODY_AHEAD

    @property
    def _is_small(self) -> bool:
        """Whether what is still to come of the body is read past when nobody wants it."""
        return not self._hesitates and self.request.length is not None and self.request.length <= BODY_AHEAD

    def take(self, part: bytes) -> None:
        """Another part of the body; after the answer it has no reader."""
        if not self.answer.complete:
            self._body += part
            self._wake()

    def end(self) -> None:
        """The request is whole."""
        self.whole = True
        self._wake()

    def disconnect(self) -> None:
        """The client is gone, or has had another answer."""
        self.gone = True
        self._wake()
        waiter, self.waiter = self.waiter, None
        if waiter is not None:
            waiter.leave()

    def _wake(self) -> None:
        if self._waiter is not None:
            self._waiter.set()

    async def run(self, application: Application, scope: dict[str, Any]) -> None:
        """Runs the application. An answer that it leaves unfinished ends the connection."""
        try:
            await application(scope, self.receive, self.send)
        except Exception:
            _log.exception("Exception in ASGI application\n")
        except BaseException:
            self._line.abort()
            raise
        if not (self.answer.complete or self.gone or self.waiter):
            if self.answer.started:
                self._line.abort()
            else:
                body, fields = _BROKEN
                self.answer.start(500, fields)
                self._write(body, more=False)

    async def receive(self) -> Message:
        """ASGI: the next part of the body, or that nothing follows any more."""
        if self._hesitates and not (self.whole or self._body or self.answer.started or self.gone):
            self._line.write([b"HTTP/1.1 100 Continue\r\n\r\n"])
        self._hesitates = False
        while not (self.gone or self.answer.complete):
            if self._body or (self.whole and not self._told):
                body = bytes(self._body)
                was_full = self.is_full
                self._body.clear()
                self._told = self.whole
                if was_full:
                    self._line.read_on()
                return {"type": "http.request", "body": body, "more_body": not self.whole}
            if self._waiter is None:
                self._waiter = asyncio.Event()
            self._waiter.clear()
            await self._waiter.wait()
        return dict(_DISCONNECT)

    async def send(self, message: Message) -> None:
        """ASGI: returns when everything before this message has gone to the kernel."""
        if self._line.is_blocked:
            await self._line.drain()
        if self.gone:
            return
        if message["type"] == "http.response.start":
            self.answer.start(message["status"], message.get("headers", ()))
        elif message["type"] == "http.response.body":
            self._write(message.get("body", b""), more=message.get("more_body", False))
        else:
            raise RuntimeError(f"Unexpected ASGI message '{message['type']}'.")

    def become_stream(self) -> tuple[EventStream, bytes] | None:
        """Gives the connection to a stream of events, after the answer was started: the stream, and the answer's head,
        which is to be the first that it writes. None where nobody is there any more."""
        if self.gone or not self.whole:
            return None
        head = self.answer.endless()
        stream = self._line.become_stream()
        return None if stream is None else (stream, head)

    def _write(self, body: bytes, *, more: bool) -> None:
        if not (self.whole or self._is_small):
            self.answer.keeps = False
        parts = self.answer.part(body, more)
        if parts:
            self._line.write(parts)
        if self.answer.complete:
            self._body.clear()
            self.waiter = None
            self._wake()
            self._line.answered()


async def whole_server(scope: Any, receive: Any, send: Any) -> None:
    """The application that answers `OPTIONS *` (RFC 9110, section 9.3.7)."""
    await send({"type": "http.response.start", "status": 204, "headers": [(b"allow", _METHODS)]})
    await send({"type": "http.response.body"})
