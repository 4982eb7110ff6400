"""A WebSocket connection that a broadcaster can write to, within uvicorn.

Owns one client's connection from the upgrade on: the order of everything written to it, what is read from it, and its
end. Must never block, await or raise in `write`, nor hold more for a client than its limits allow, nor log a query
string (it may carry a token).
Assumes uvicorn's HTTP protocols or ours before the upgrade, one event loop (asyncio's or uvloop's) whose transports try
to send at once where their buffer is empty, and that only this class writes to its transport.

Its states stand in `lifecycle`, the application's side of it in `asgi`, its reading in `frame_reader`, its pings in
`keepalive`. What is left is long because it is one: writing, the handshake and the end share one state and one socket.

It works alone, with every ASGI application: `uvicorn --ws realtime.wire.connection:Connection any:app`. An application
that knows it finds it as `scope["extensions"]["realtime.connection"]`.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.protocols.utils import ClientDisconnected, get_remote_addr, is_ssl
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
from realtime.wire.unsent import bound_unsent

__all__ = ["Connection"]

_log = logging.getLogger("uvicorn.error")

# In place of a file descriptor: nothing may be written; only the transport may write.
_CLOSED, _THROUGH = -1, -2

# Bytes that may wait in the kernel until the client's window opens.
_UNSENT_BYTES = 32 * 1024

# Seconds a client gets to read the last bytes after it broke the protocol, left, or the server stops.
_LINGER_S = 1.0

_MAX_REASON_BYTES = 123  # RFC 6455, section 5.5


class Connection(asyncio.Protocol):
    """One client's WebSocket connection.

    The application may set these after it accepted, in the same step; all are called synchronously:

    - `on_text(payload)`: whole text messages, valid UTF-8, instead of through ASGI's receive(). If it
      raises, the connection is closed with 1011. Binary messages are then refused with 1003.
    - `on_drain()`: everything that waited to be written has gone to the kernel.
    - `on_closed()`: the connection is gone; called once, whatever the cause.
    - `on_violation(code, reason)`: the client broke the protocol, and is about to be closed with that code
      (1009: too large a message); the last moment to write to it.
    - `on_descriptor(descriptor)`: `descriptor` is another now. Where it is not negative, nothing waits to be
      written, and a frame (`frame.deflated(window)`) may be written there with os.write instead of `write`;
      what that leaves unwritten goes to `write` at once. It is negative before the socket is closed.
    """

    __slots__ = (
        "_app_state", "_direct", "_opening", "_server_state", "_writable", "call", "close_code", "close_timeout",
        "close_timer", "config", "descriptor", "keepalive", "loop", "on_closed", "on_descriptor", "on_drain", "on_text",
        "on_violation", "reader", "state", "transport", "window",
    )  # fmt: skip

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.config = config
        self.loop = _loop or asyncio.get_running_loop()
        self._server_state = server_state
        self._app_state = app_state
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # until connection_made
        self.on_text: Callable[[bytes], None] | None = None
        self.on_drain: Callable[[], None] | None = None
        self.on_closed: Callable[[], None] | None = None
        self.on_descriptor: Callable[[int], None] | None = None
        self.on_violation: Callable[[int, str], None] | None = None
        self.state = CONNECTING
        # The request, until it is accepted.
        self._opening: Opening | None = None
        # The application's side, from the request until the connection is lost, or until it ends where it was detached.
        self.call: AsgiCall | None = None
        # Why it ended: the code of the first close frame, of either side; 1006 while there was none.
        self.close_code = 1006
        self.close_timeout = 10.0
        self.close_timer: asyncio.TimerHandle | None = None
        # Bits of the negotiated compression window, 9 to 15; 0 without compression.
        self.window = 0
        # Where `write` writes: the socket while the transport's buffer is empty, else _THROUGH or _CLOSED.
        self.descriptor = _CLOSED
        # What `descriptor` is while the buffer is empty: the socket, or _THROUGH for TLS.
        self._direct = _THROUGH
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

    def write(self, frame: Frame, sent: int = 0) -> int:
        """Send a frame now, less its first `sent` bytes, which are written. Never raises, never waits.

        Returns the bytes that wait in this process to be sent to this client: 0 when the kernel has
        them all; -1 when nothing can be written (not yet accepted, closing, gone).
        """
        data = frame.by_window[self.window] or frame.deflated(self.window)
        if sent:
            data = data[sent:]
        if self.descriptor >= 0:
            try:
                sent = os.write(self.descriptor, data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self.abort()
                return -1
            if sent == len(data):
                return 0
            data = data[sent:]
        if self.descriptor == _CLOSED or self.transport.is_closing():
            return -1
        self.transport.write(data)
        return self.transport.get_write_buffer_size()

    def _point(self, descriptor: int) -> None:
        """Where frames are written from now on."""
        if descriptor != self.descriptor:
            self.descriptor = descriptor
            if self.on_descriptor is not None:
                self.on_descriptor(descriptor)

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
        if self.descriptor != _CLOSED:
            self._point(_THROUGH)

    def resume_writing(self) -> None:
        """The transport's buffer is empty again."""
        self._writable.set()
        if self.descriptor != _CLOSED:
            self._point(self._direct)
            if self.on_drain is not None:
                self._call_back(self.on_drain)
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
        if self.descriptor != _CLOSED:
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
        self.window = opening.window
        self.reader.deframer.inflating = bool(self.window)
        if first is not None:
            data += first.deflated(self.window)
        secure = is_ssl(self.transport)
        bound_unsent(self.transport, _UNSENT_BYTES)
        if not secure:
            self._direct = self.transport.get_extra_info("socket").fileno()
        # The transport tells when its buffer is no longer empty and when it is empty again. (A TLS
        # transport compares with "at least", so that 0 would mean "always".)
        self._point(self._direct)
        self.transport.set_write_buffer_limits(high=1 if secure else 0, low=0)
        self.transport.write(data)
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
        self._point(_CLOSED)
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
        self._point(_CLOSED)
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
