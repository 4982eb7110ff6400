"""An HTTP connection: requests in, answers out, one at a time, in order, until it ends or is a WebSocket or a stream.

Owns how long a client may take for each step, and how much of what it sends is kept. Must never hold more than one read
of the socket and one answer, do more than one client's share of work in a turn of the loop, or touch a connection that
has become another. Assumes uvicorn's server around it, whose own protocols it stands in for, and
`wire.connection.Connection` as its WebSocket.

SECURITY.md has a row for each bound. `heads` and `request_reader` decide what a request is, `http_exchange` runs the
application for it, and an AddressCounter decides how many connections an address may have.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any, ClassVar, Final, Protocol, cast

from uvicorn.config import Config
from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl
from uvicorn.server import ServerState

from realtime.wire.answers import refusal
from realtime.wire.asgi import http_scope
from realtime.wire.connection import Connection
from realtime.wire.event_stream import EventStream
from realtime.wire.heads import BadRequestError, Request
from realtime.wire.http_exchange import HttpExchange, whole_server
from realtime.wire.reading_pace import ReadingPace
from realtime.wire.request_reader import END, RequestReader
from realtime.wire.unsent import bound_unsent

__all__ = ["HttpConnection", "bounded"]

HEAD_SECONDS: Final = 10.0
"""From the connection, or a request's first byte, to the end of its head."""

BODY_SECONDS: Final = 30.0
"""From there to the end of its body."""

LINGER_SECONDS: Final = 2.0
"""How long a connection that ends listens on, so that its last answer is not lost with what nobody reads any more."""

LINGER_BYTES: Final = 16 * 1024 * 1024
"""What it takes in meanwhile, and forgets."""

UNSENT_BYTES: Final = 64 * 1024
"""Bytes that may wait in the kernel until the client's window opens."""

JOINED_BYTES: Final = 32 * 1024
"""Up to which an answer's parts are copied together: cheaper than handing them over one by one."""

TURN_EVENTS: Final = 64
"""Requests and parts of bodies taken from one connection before others have their turn."""

_AT_ONCE: Final = struct.pack("ii", 1, 0)

# What a client is waited for.
HEAD, BODY, NEXT, LINGER = "head", "body", "next request", "end"


class AddressCounter(Protocol):
    """What counts the connections that have not become a WebSocket, by address."""

    def enter(self, address: str) -> bool:
        """Whether one more of `address` may come in; it is counted then."""

    def leave(self, address: str) -> None:
        """One of `address` is gone, or a WebSocket."""


class HttpConnection(asyncio.Protocol):
    """One client's connection, and the request that is under way on it. `bounded` makes a class of it for a server."""

    addresses: ClassVar[AddressCounter]

    __slots__ = (
        "_address", "_app_state", "_at_end", "_awaited", "_client", "_config", "_deadline", "_drained", "_exchange",
        "_is_ending", "_is_paused", "_is_secure", "_pace", "_reader", "_server", "_server_state", "_spare",
        "is_blocked", "loop", "transport",
    )  # fmt: skip

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.loop = _loop or asyncio.get_running_loop()
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # until connection_made
        self._config = config
        self._server_state = server_state
        self._app_state = app_state
        self._client: tuple[str, int] | None = None
        self._server: tuple[str, int | None] | None = None  # until the first request
        self._is_secure = False
        self._address: str | None = None  # while it counts
        self._reader = RequestReader()
        self._exchange: HttpExchange | None = None
        # What the client must do next, and until when; None while it is not the client who is waited for.
        self._awaited: str | None = None
        self._deadline: asyncio.TimerHandle | None = None
        # The client sends nothing more; this side takes nothing more in, and forgets what comes: `_spare` bytes yet.
        self._at_end = False
        self._is_ending = False
        self._spare = LINGER_BYTES
        self._is_paused = False
        # While bytes wait to be sent, the client has to read.
        self.is_blocked = False
        self._pace: ReadingPace | None = None
        self._drained: asyncio.Event | None = None

    # The transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._client = get_remote_addr(self.transport)
        address = self._client[0] if self._client else ""
        self._server_state.connections.add(self)  # type: ignore[arg-type]  # uvicorn names its own alone
        if not self.addresses.enter(address):
            return self.abort()
        self._address = address
        # It tells when its buffer is no longer empty, and when it is empty again: one answer at a time waits, no more.
        # (A TLS transport compares with "at least", so that 0 would mean "always".)
        self._is_secure = is_ssl(self.transport)
        self.transport.set_write_buffer_limits(high=1 if self._is_secure else 0, low=0)
        self._await(HEAD)

    def data_received(self, data: bytes) -> None:
        if self._is_ending:
            self._spare -= len(data)
            if self._spare < 0:
                self.abort()
            return
        self._reader.feed(data)
        self._read_on()

    def eof_received(self) -> bool:
        """The client sends nothing more. What it asked for before is still answered."""
        self._at_end = True
        exchange = self._exchange
        if self._is_ending:
            self.transport.close()
        elif exchange is None and not self._reader.waiting_bytes:
            self._end()
        elif exchange is None or not exchange.whole:
            self._refuse(BadRequestError(400, "The request ended early."))
        elif exchange.waiter is not None:
            exchange.waiter.wake()
        return not self._is_secure

    def pause_writing(self) -> None:
        self.is_blocked = True
        self._pace = ReadingPace(self.loop, self.transport.get_write_buffer_size, self.abort)

    def resume_writing(self) -> None:
        self._unblock()
        if self._is_ending:
            self._linger()
        elif self._exchange is not None and self._exchange.answer.complete:
            self._go_on()

    def _unblock(self) -> None:
        self.is_blocked = False
        if self._pace is not None:
            self._pace.stop()
            self._pace = None
        if self._drained is not None:
            self._drained.set()
            self._drained = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_ending = True
        self._leave()
        self._forget()
        self._unblock()

    def shutdown(self) -> None:
        """Called by uvicorn when the server stops: what is asked for is answered, and nothing more."""
        if self._exchange is not None:
            self._exchange.answer.keeps = False
            if self._exchange.waiter is not None:
                self._exchange.waiter.wake()
        elif not self._is_ending:
            self.transport.close()

    # Requests

    def _read_on(self) -> None:
        """Goes on with what has arrived until the client must send more, or somebody else must go on."""
        try:
            for _ in range(TURN_EVENTS):
                exchange = self._exchange
                if exchange is not None and (exchange.whole or exchange.is_full):
                    return self._pause(exchange.is_full or self._reader.waiting_bytes > 0)
                event = self._reader.next()
                if event is None:
                    return self._wait(exchange)
                if isinstance(event, Request):
                    if event.to_websocket:
                        return self._become_websocket(event)
                    self._begin(event)
                else:
                    assert exchange is not None  # a body has its request
                    if event is not END:
                        exchange.take(event)
                        continue
                    self._await(None)
                    exchange.end()
                    if exchange.answer.complete and not self.is_blocked:
                        return self._go_on()
        except BadRequestError as refused:
            return self._refuse(refused)
        self._pause(True)
        self.loop.call_soon(self._take_turn)

    def _take_turn(self) -> None:
        if not self._is_ending:
            self._read_on()

    def _wait(self, exchange: HttpExchange | None) -> None:
        """The client must send more."""
        if self._at_end:
            return self._end()
        self._pause(False)
        if exchange is None and self._reader.waiting_bytes:
            self._await(HEAD)
        elif self._awaited is None:
            self._await(NEXT)

    def _pause(self, is_paused: bool) -> None:
        """Whether nothing more is taken from the socket."""
        if is_paused != self._is_paused and not (self._at_end or self.transport.is_closing()):
            self._is_paused = is_paused
            (self.transport.pause_reading if is_paused else self.transport.resume_reading)()

    def _begin(self, request: Request) -> None:
        """Hands a request to the application."""
        self._await(None if request.length == 0 else BODY)
        config = self._config
        exchange = self._exchange = HttpExchange(self, request, self._server_state.default_headers)
        if self._server is None:
            self._server = get_local_addr(self.transport)
            bound_unsent(self.transport, UNSENT_BYTES)
        scope = http_scope(
            request,
            config,
            server=self._server,
            client=self._client,
            is_secure=self._is_secure,
            state=self._app_state.copy(),
            exchange=exchange,
        )
        application = whole_server if request.target == b"*" else config.loaded_app
        task = self.loop.create_task(exchange.run(cast(Any, application), scope))
        self._server_state.tasks.add(task)
        task.add_done_callback(self._server_state.tasks.discard)

    def _become_websocket(self, request: Request) -> None:
        """Gives the transport to a WebSocket, with everything that came behind the request."""
        rest = self._reader.rest()
        made = cast(type[Connection], self._config.ws_protocol_class)
        connection = made(self._config, self._server_state, self._app_state)
        self._hand_over(connection)
        connection.open(request, self._client)
        if rest:
            connection.data_received(rest)
        if self._at_end:
            connection.eof_received()

    def become_stream(self) -> EventStream | None:
        """Gives the transport to a stream of events; None where nobody is there any more."""
        if self._is_ending or self._at_end or self.transport.is_closing():
            return None
        stream = EventStream(self.loop, self._server_state)
        self._hand_over(stream)
        self._forget()
        self._unblock()
        return stream

    def _hand_over(self, protocol: asyncio.Protocol) -> None:
        self._leave()
        self._pause(False)
        self._is_ending = True  # a turn that is still due finds nothing to do here
        self.transport.set_protocol(protocol)
        protocol.connection_made(self.transport)

    # Answers

    def write(self, parts: list[bytes]) -> None:
        """Sends these bytes, while anybody is there."""
        if self._is_ending or self.transport.is_closing():
            return
        size = sum(map(len, parts))
        if self._pace is not None:
            self._pace.wrote(size)
        if size <= JOINED_BYTES:
            self.transport.write(b"".join(parts))
        else:
            self.transport.writelines(parts)

    async def drain(self) -> None:
        """Returns when nothing waits to be sent, or nobody is there."""
        while self.is_blocked:
            if self._drained is None:
                self._drained = asyncio.Event()
            await self._drained.wait()

    def read_on(self) -> None:
        """There is room for more of the body."""
        self._take_turn()

    def answered(self) -> None:
        """The answer is complete."""
        self._server_state.total_requests += 1
        if not self.is_blocked:
            self._go_on()

    def _go_on(self) -> None:
        """After an answer that is complete and out of our hands: with the next request, or to the end."""
        exchange = self._exchange
        if exchange is None or self._is_ending:
            return
        if not exchange.answer.keeps:
            return self._end()
        if exchange.whole:
            self._exchange = None
        self._read_on()

    def _refuse(self, refused: BadRequestError) -> None:
        """Answers what is no request, or comes no further, and ends. One request has one answer."""
        exchange = self._exchange
        if exchange is None or not exchange.answer.started:
            self.write([refusal(refused, self._server_state.default_headers)])
        elif not exchange.answer.complete:
            return self.abort()
        self._end()

    # The end

    def _await(self, what: str | None) -> None:
        """What the client must do next, from now on within its time."""
        if what != self._awaited:
            if self._deadline is not None:
                self._deadline.cancel()
            self._awaited = what
            self._deadline = None if what is None else self.loop.call_later(self._seconds(what), self._late)

    def _seconds(self, what: str) -> float:
        times = {HEAD: HEAD_SECONDS, BODY: BODY_SECONDS, LINGER: LINGER_SECONDS}
        return times.get(what, self._config.timeout_keep_alive)

    def _late(self) -> None:
        """The client did not do it."""
        was, self._awaited, self._deadline = self._awaited, None, None
        if self._is_ending:
            self.abort()
        elif was == BODY or (was == HEAD and self._reader.waiting_bytes):
            self._refuse(BadRequestError(408, "The request took too long."))
        else:
            self._end()

    def _end(self) -> None:
        """Takes no more requests, and closes; but what this client still sends must not cost it the last answer: a
        socket that is closed with bytes unread loses what was written."""
        if self._is_ending:
            return
        self._is_ending = True
        self._forget()
        if self.transport.is_closing():
            return
        if self._at_end or not self.transport.can_write_eof():
            self._await(None)
            self.transport.close()
            return
        self._pause(False)
        self.transport.write_eof()
        if not self.is_blocked:
            self._linger()

    def _linger(self) -> None:
        """Listens on for a moment; where a body was still to come, for as long as it may take."""
        if self._awaited != BODY and not self._at_end:
            self._await(LINGER)

    def _forget(self) -> None:
        """Keeps nothing of what came."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.disconnect()
        self._reader = RequestReader()

    def _leave(self) -> None:
        """It is no longer a connection that waits for a request."""
        self._await(None)
        self._server_state.connections.discard(self)
        if self._address is not None:
            self.addresses.leave(self._address)
            self._address = None

    def abort(self) -> None:
        """Ends at once; what waits to be sent is lost, in the kernel too."""
        self._is_ending = True
        if not self.transport.is_closing():
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        self.transport.abort()


def bounded(addresses: AddressCounter) -> type[HttpConnection]:
    """A protocol class whose connections are let in, and counted, by `addresses`."""
    return type("HttpConnection", (HttpConnection,), {"addresses": addresses})
