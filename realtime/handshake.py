"""The handshake: HTTP before a request is whole.

Owns how long and how large a request may be until the application has it, and how many connections one address may keep
in that state. Must never answer a request, nor touch a connection that has become a WebSocket. Assumes uvicorn's
httptools protocol, which bounds none of this: a client that sends its headers a byte a minute, or without end, would
keep its connection, and memory, for ever.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any, ClassVar, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_SECONDS: Final = 10.0
"""From the connection, or a request's first byte, to the end of its headers."""

BODY_SECONDS: Final = 30.0
"""From there to the end of its body."""

HEAD_BYTES: Final = 32 * 1024
"""Request line and headers; what one read of the socket brings may be more."""

HEADERS: Final = 100

# What clients do wrong is no news: not one line of log for each of their requests.
_quiet = logging.Logger("uvicorn.error", logging.ERROR)
_quiet.parent = logging.getLogger("uvicorn.error")


class _TooLargeError(Exception):
    """The request's head is too large. The parser makes a refusal of it."""


class Doors:
    """Counts connections that have not become a WebSocket, by address."""

    def __init__(self, most_an_address: int, is_proxy: Callable[[str], bool]) -> None:
        self._most_an_address = most_an_address
        self._is_proxy = is_proxy
        self._open: Counter[str] = Counter()

    def enter(self, address: str) -> bool:
        """Whether one more of `address` may come in; it is counted then."""
        if 0 < self._most_an_address <= self._open[address] and not self._is_proxy(address):
            return False
        self._open[address] += 1
        return True

    def leave(self, address: str) -> None:
        """One of `address` is gone, or a WebSocket."""
        self._open[address] -= 1
        if not self._open[address]:
            del self._open[address]


class Handshake(HttpToolsProtocol):
    """uvicorn's protocol within bounds. `bounded` makes one for a server."""

    doors: ClassVar[Doors]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.logger = _quiet
        self.access_log = False  # whatever logging is set up: an address may carry a token
        self._deadline: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._in_head = True
        self._address: str | None = None  # while it counts

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        address = self.client[0] if self.client else ""
        if not self.doors.enter(address):
            transport.abort()
            return
        self._address = address
        self._due_in(HEAD_SECONDS)

    def data_received(self, data: bytes) -> None:
        if self._deadline is None:
            self._due_in(HEAD_SECONDS)  # also for what begins no request, such as empty lines
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > HEAD_BYTES:
            self._refuse(b"431 Request Header Fields Too Large")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        if self._deadline is None:
            self._due_in(HEAD_SECONDS)

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self.headers) >= HEADERS:
            raise _TooLargeError
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head, self._head_bytes = False, 0
        self._due_in(BODY_SECONDS)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_head = True
        self._due_in(None)
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self.transport.abort()  # an answer is under way: nothing else may write to what is a WebSocket
            return
        self._leave()
        super().handle_websocket_upgrade()
        del self.parser  # it holds on to this, as this to it: together they would wait for the collector

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        super().connection_lost(exc)

    def _leave(self) -> None:
        """It is no longer a connection that waits for a request."""
        self._due_in(None)
        if self._address is not None:
            self.doors.leave(self._address)
            self._address = None

    def _due_in(self, seconds: float | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        late = b"408 Request Timeout"
        self._deadline = None if seconds is None else self.loop.call_later(seconds, self._refuse, late)

    def _refuse(self, status: bytes) -> None:
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            self.transport.close()
        else:  # an answer may be under way: nothing can be put into it
            self.transport.abort()


def bounded(most_an_address: int, is_proxy: Callable[[str], bool]) -> type[Handshake]:
    """A protocol class that keeps at most so many connections of one address in this state (0: any number).

    `is_proxy` says which addresses are of trusted proxies, through which everybody comes.
    """
    return type("Handshake", (Handshake,), {"doors": Doors(most_an_address, is_proxy)})
