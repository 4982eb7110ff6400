"""A WebSocket connection that a broadcaster can write to, within uvicorn.

Owns one client's connection from the upgrade on: the order of everything written to it, what is read from it, and its
end. Must never block, await or raise in `write`, nor hold more for a client than its limits allow, nor log a query
string (it may carry a token).
Assumes uvicorn's HTTP protocols or ours before the upgrade, and one event loop.

Its writing stands in `outlet`, its states in `lifecycle`, the application's side of it in `asgi`, its reading in
`frame_reader`, its pings in `keepalive`.

It works alone, with every ASGI application: `uvicorn --ws realtime.wire.connection:Connection any:app`. An application
that knows it finds it as `scope["extensions"]["realtime.connection"]`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.protocols.utils import ClientDisconnected, get_remote_addr
from uvicorn.server import ServerState
from websockets.frames import Close

from realtime.wire.asgi import AsgiCall
from realtime.wire.deframer import Incoming, ViolationError
from realtime.wire.event_queue import Gate
from realtime.wire.frame_reader import BY_APP, BY_HANDSHAKE, BY_OUTPUT, BY_QUEUE, FrameReader
from realtime.wire.frames import BINARY, CLOSE, PING, PONG, TEXT, Frame
from realtime.wire.handshake import Opening, RawHeaders, RefusedError, read, response
from realtime.wire.heads import Request
from realtime.wire.keepalive import Keepalive
from realtime.wire.lifecycle import CONNECTING, LOST, OPEN, REFUSED, TABLE, Event
from realtime.wire.outlet import CLOSED, Outlet

__all__ = ["Connection"]

_log = logging.getLogger("uvicorn.error")

# Seconds a client gets to read the last bytes after it broke the protocol, left, or the server stops.
_LINGER_S = 1.0

_MAX_REASON_BYTES = 123  # RFC 6455, section 5.5


class Connection(Outlet):
    """One client's WebSocket connection.

    The application may set these after it accepted, in the same step, beside those of an outlet; all are called
    synchronously:

    - `on_text(payload)`: whole text messages, valid UTF-8, instead of through ASGI's receive(). If it
      raises, the connection is closed with 1011. Binary messages are then refused with 1003.
    - `on_violation(code, reason)`: the client broke the protocol, and is about to be closed with that code
      (1009: too large a message); the last moment to write to it.
    """

    __slots__ = (
        "_app_state", "_opening", "_server_state", "_writable", "call", "close_timeout", "close_timer", "config",
        "keepalive", "loop", "on_text", "on_violation", "reader", "state",
    )  # fmt: skip

    transport_kind = "websocket"

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.loop = _loop or asyncio.get_running_loop()
        self._server_state = server_state
        self._app_state = app_state
        self.on_text: Callable[[bytes], None] | None = None
        self.on_violation: Callable[[int, str], None] | None = None
        self.state = CONNECTING
        # The request, until it is accepted.
        self._opening: Opening | None = None
        # The application's side, from the request until the connection is lost, or until it ends where it was detached.
        self.call: AsgiCall | None = None
        # `close_code` is that of the first close frame, of either side; `encoding` the bits of the negotiated
        # compression window, 9 to 15, and 0 without compression.
        self.close_timeout = 10.0
        self.close_timer: asyncio.TimerHandle | None = None
        self._writable = Gate()
        # What the client sends, until the connection is lost.
        self.reader = FrameReader(self)
        # While it is open, where pings are wanted.
        self.keepalive: Keepalive | None = None

    @property
    def disconnected(self) -> bool:
        """Whether the connection is gone."""
        return self.state is LOST

    # Writing

    @property
    def buffered_bytes(self) -> int:
        """Bytes that wait in this process to be sent to this client.

        With TLS, bytes already encrypted (up to 64 KiB) are not counted.
        """
        if self.state is LOST or self.transport is None:
            return 0
        return self.transport.get_write_buffer_size()

    def pause_writing(self) -> None:
        """The transport's buffer is no longer empty."""
        self._writable.clear()
        super().pause_writing()

    def resume_writing(self) -> None:
        """The transport's buffer is empty again."""
        self._writable.set()
        super().resume_writing()
        self.reader.start(BY_OUTPUT)

    # Reading

    def pause_reading(self) -> None:
        """Hand over nothing more and, soon, take nothing more from the client."""
        self.reader.stop(BY_APP)

    def resume_reading(self) -> None:
        """Undo `pause_reading`; what already arrived is handed over in the loop's next turn."""
        self.reader.start(BY_APP)

    def data_received(self, data: bytes) -> None:
        """Called by the transport, and by uvicorn with the request that asked for the upgrade."""
        if self.descriptor != CLOSED:
            reader = self.reader
            reader.deframer.feed(data)
            if not reader.stops:
                reader.take()
        elif self.state is not CONNECTING:
            self.reader.take_leave(data)
        elif self._opening is None:
            self._read_request(data)
        else:
            self.reader.deframer.feed(data)
            self.reader.stop(BY_HANDSHAKE)

    def eof_received(self) -> None:
        """The client sends nothing more, so no closing handshake can follow."""
        self.hang_up()

    @property
    def is_deaf(self) -> bool:
        """Whether reading is stopped, other than for what waits to be written: a pong may have come unread."""
        return self.reader.is_deaf

    def read_on(self) -> None:
        """The application has fetched all its events."""
        self.reader.start(BY_QUEUE)

    def act(self, incoming: Incoming) -> None:
        """Act on what the client said. Raises ViolationError."""
        opcode, payload = incoming
        if opcode == TEXT and self.on_text is not None:
            self._call_back(self.on_text, payload)
        elif opcode == TEXT or opcode == BINARY:
            self._hand_over(opcode, payload)
        elif opcode == CLOSE:
            self._closed_by_client(payload)
        elif opcode == PING:
            self.write(Frame(payload, PONG))
        elif opcode == PONG and self.keepalive is not None:
            self.keepalive.pong(payload)

    def _hand_over(self, opcode: int, payload: bytes) -> None:
        """Give a message to the application through ASGI."""
        if self.on_text is not None:
            raise ViolationError(1003, "text messages only")
        if self.call is not None and self.call.put(opcode, payload):
            self.reader.stop(BY_QUEUE)

    def _call_back(self, callback: Callable[..., None], *arguments: object) -> None:
        try:
            callback(*arguments)
        except Exception:
            _log.exception("Exception in a connection's callback")
            self.close(1011)

    # The application's side

    def detach(self) -> None:
        """From now on the callbacks alone drive the connection: it outlives the ASGI call.

        An idle connection then needs no task, scope, coroutine or queue.
        """
        if self.call is not None:
            self.call.is_detached = True

    def _tell_application(self, code: int, reason: str | None = None) -> None:
        if self.call is not None:
            self.call.disconnected(code, reason)

    # The handshake

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by uvicorn, with a transport that was another protocol's."""
        self.transport = cast(asyncio.Transport, transport)
        self._server_state.connections.add(self)  # type: ignore[arg-type]  # uvicorn names its own alone

    def _read_request(self, data: bytes) -> None:
        try:
            request = read(data)
        except RefusedError as refused:
            return self.turn_away(refused.response)
        self.open(request, get_remote_addr(self.transport))

    def open(self, request: Request, client: tuple[str, int] | None) -> None:
        """Let the application decide about a request of `client`."""
        try:
            self._opening = Opening(request, deflate=self.config.ws_per_message_deflate)
        except RefusedError as refused:
            return self.turn_away(refused.response)
        self.call = AsgiCall(self, self._writable)
        scope = self.call.scope(self._opening, client, self._app_state)
        task = self.loop.create_task(self.call.run(scope))
        task.add_done_callback(self._server_state.tasks.discard)
        self._server_state.tasks.add(task)

    def accept(self, first: Frame | None = None, *, headers: RawHeaders = (), subprotocol: str | None = None) -> None:
        """As `websocket.accept`, but at once, and with the `first` frame in the same write as the response.

        Raises ClientDisconnected where nobody is there any more.
        """
        opening = self._opening
        if opening is None or self.transport.is_closing():
            raise ClientDisconnected()
        data = opening.accepted(self._server_state.default_headers, headers, subprotocol)
        self.state = TABLE[self.state, Event.ACCEPT]
        self._opening = None
        if self.call is not None:
            self.call.accepted()
        self.encoding = opening.window
        self.reader.deframer.inflating = bool(self.encoding)
        if first is not None:
            data += first.encoded(self.encoding)
        self._begin_writing(data)
        if self.config.ws_ping_interval:
            self.keepalive = Keepalive(self)
        self.reader.start(BY_HANDSHAKE)

    def turn_away(self, answer: bytes) -> None:
        """Answer that the request becomes no WebSocket, and end."""
        self.state = TABLE[self.state, Event.REFUSE]
        self._tell_application(1006)
        if not self.transport.is_closing():
            self.transport.write(answer)
        self.hang_up()

    # The end

    def close(self, code: int, reason: str = "") -> None:
        """Send a close frame after everything written so far, and wait for the client's, but not for ever.

        The connection is gone at the latest after `close_timeout` seconds. Does nothing where it is
        closing already; a connection that is not yet accepted is aborted.
        """
        if self.state is CONNECTING:
            self.abort()
        elif self.state is OPEN:
            self._send_close(code, reason)
            self._abort_after(self.close_timeout)

    def abort(self) -> None:
        """End the connection at once; what waits to be written is lost."""
        self._leave(Event.END)
        if self.transport is not None and self.state is not LOST:
            self.transport.abort()

    def shutdown(self) -> None:
        """Called by uvicorn when the server stops: ends within a second, whatever the client does."""
        if self.state is CONNECTING:
            self.turn_away(response(500, b"Internal Server Error"))
        else:
            self._send_close(1012)
            self.linger()

    def _send_close(self, code: int, reason: str = "") -> None:
        if self.state is not OPEN:
            return
        reason = reason.encode()[:_MAX_REASON_BYTES].decode(errors="ignore")
        self.state = TABLE[self.state, Event.CLOSE]
        self.write(Frame(Close(code, reason).serialize(), CLOSE))
        self._tell_application(code, reason)
        self._point(CLOSED)
        self.close_code = code
        self._stop_keepalive()
        self.reader.closing()

    def fail(self, code: int, reason: str) -> None:
        """RFC 6455, section 7.1.7; listens for another moment, so that the close frame is not lost."""
        if self.on_violation is not None:
            self._call_back(self.on_violation, code, reason)
        self._send_close(code, reason)
        self.linger()
        self.reader.violated()
        if self.transport.can_write_eof() and not self.transport.is_closing():
            try:
                self.transport.write_eof()
            except OSError:  # it has gone
                self.abort()

    def _closed_by_client(self, payload: bytes) -> None:
        close = Close.parse(payload)
        self.close_code = int(close.code)
        self._tell_application(int(close.code), close.reason)
        self.write(Frame(payload, CLOSE))
        self.hang_up()

    def hang_up(self) -> None:
        """Close the transport, and abort it where it cannot flush in time."""
        self._leave(Event.END)
        if not self.transport.is_closing():
            self.transport.close()
        self.linger()

    def _leave(self, event: Event) -> None:
        """Write and read nothing more. The descriptor is let go before it can be another's."""
        self.state = TABLE[self.state, event]
        self._point(CLOSED)
        self._stop_keepalive()
        self.reader.deframer.end()

    def _stop_keepalive(self) -> None:
        if self.keepalive is not None:
            self.keepalive.stop()
            self.keepalive = None

    def linger(self) -> None:
        """Let the client read the last bytes, but not for ever."""
        self._abort_after(_LINGER_S)

    def _abort_after(self, delay_s: float) -> None:
        if self.close_timer is not None:
            self.close_timer.cancel()
        if self.state is not LOST:
            self.close_timer = self.loop.call_later(delay_s, self.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the transport, once."""
        was_websocket = self.state not in (CONNECTING, REFUSED)
        self._leave(Event.LOSE)
        self._tell_application(1005 if was_websocket else 1006)
        self.call = None
        self._server_state.connections.remove(self)  # type: ignore[arg-type]
        self._writable.set()  # nobody will tell any more that the buffer is empty
        if self.close_timer is not None:
            self.close_timer.cancel()
            self.close_timer = None
        self.reader.lost()
        on_closed = self.on_closed
        self.on_text = self.on_drain = self.on_closed = self.on_descriptor = self.on_violation = None
        if on_closed is not None:
            self._call_back(on_closed)
