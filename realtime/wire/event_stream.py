"""A stream of server-sent events that a broadcaster can write to: one HTTP answer that does not end.

Owns one client's connection from the answer's head on, its comments and its end. Must never block, await or raise in
`write`, nor hold more for a client than its limits allow, nor read what a client sends.
Assumes that an HTTP connection hands it its transport, and that a client that sends its last byte is gone.

The answer has neither a length nor chunks: it ends with the connection (RFC 9112, section 6.3). So a frame is the same
bytes for every stream, and HTTP/1.0 can follow too.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Final, cast

from uvicorn.server import ServerState

from realtime.wire import messages, sse
from realtime.wire.close_codes import CloseCode
from realtime.wire.frames import Frame, Joined
from realtime.wire.outlet import CLOSED, Outlet
from realtime.wire.unsent import bound_unanswered

__all__ = ["COMMENT_SECONDS", "EventStream"]

COMMENT_SECONDS: Final = 15.0
"""Between two comments, by which proxies see that somebody is there, and this side that nobody is."""

LINGER_SECONDS: Final = 1.0
"""What a client gets to read the last event."""

READ_BYTES: Final = 64 * 1024
"""What a client may send in all; it has nothing to say any more."""


class EventStream(Outlet):
    """One client's stream of events. `on_beat()` is called with each comment."""

    __slots__ = ("_beat", "_end", "_loop", "_own_position", "_read_bytes", "_server_state", "on_beat")

    transport_kind = "events"

    def __init__(self, loop: asyncio.AbstractEventLoop, server_state: ServerState) -> None:
        super().__init__()
        self._loop = loop
        self._server_state = server_state
        self._own_position: Callable[[], bytes] | None = None
        self._read_bytes = 0  # of what the client has sent
        self._beat: asyncio.TimerHandle | None = None
        self._end: asyncio.TimerHandle | None = None
        self.on_beat: Callable[[], None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the HTTP connection."""
        self.transport = cast(asyncio.Transport, transport)
        self._server_state.connections.add(self)  # type: ignore[arg-type]  # uvicorn names its own alone

    def begin(
        self,
        head: bytes,
        first: Frame,
        *,
        gzip: bool,
        come_back_ms: int,
        gone_after_s: float,
        own_position: Callable[[], bytes] | None = None,
    ) -> None:
        """Sends the answer's `head`, when a browser comes back after the stream has ended, and the `first` words.

        `own_position` tells the client's position, where a frame's own is not all of it: of several boards.
        """
        if own_position is not None:
            self.encoding = sse.OWN_GZIP if gzip else sse.OWN
        else:
            self.encoding = sse.GZIP if gzip else sse.PLAIN
        self._own_position = own_position
        before = head + sse.GZIP_HEAD if gzip else head
        retry = sse.line(self.encoding, b"retry: %d\n\n" % come_back_ms)
        bound_unanswered(self.transport, gone_after_s)
        self._begin_writing(before + retry + first.encoded(self.encoding), direct=own_position is None)
        # At a random phase: clients that came together must not all be written to together.
        self._beat = self._loop.call_later(random.random() * COMMENT_SECONDS, self._tick)  # noqa: S311

    def write(self, frame: Frame, sent: int = 0) -> int:
        """See `Outlet.write`."""
        if self._own_position is None:
            return super().write(frame, sent)
        if isinstance(frame, Joined):
            return self._send(b"".join([self._with_own_position(part) for part in frame.frames]))
        return self._send(self._with_own_position(frame))

    def tell_position(self) -> None:
        """Says the client's position by itself, where no frame has said all of it."""
        if self._own_position is not None and (position := self._own_position()):
            self._send(sse.line(self.encoding, b"id: %b\n\n" % position))

    def _with_own_position(self, frame: Frame) -> bytes:
        data = frame.by_encoding[self.encoding] or frame.encoded(self.encoding)
        if not frame.position or self._own_position is None:
            return data
        return sse.line(self.encoding, b"id: %b\n" % self._own_position()) + data

    def _tick(self) -> None:
        self._beat = self._loop.call_later(COMMENT_SECONDS, self._tick)
        if not self.transport.get_write_buffer_size():  # else there is something on its way
            self._send(sse.comment(self.encoding))
        if self.on_beat is not None:
            self.on_beat()

    def data_received(self, data: bytes) -> None:
        """What a client still sends is forgotten."""
        self._read_bytes += len(data)
        if self._read_bytes > READ_BYTES:
            self.abort()

    def eof_received(self) -> None:
        """The client is gone."""
        self.abort()

    def close(self, code: int, reason: str = "") -> None:
        """Says why, and ends, after what was written so far; within a moment, whatever the client does."""
        if self.descriptor != CLOSED:
            self.write(Frame(messages.closing(code, reason)))
            self.close_code = code
            self._point(CLOSED)
            self.transport.close()
            if self._end is not None:
                self._end.cancel()
            self._end = self._loop.call_later(LINGER_SECONDS, self.transport.abort)

    def lead_away(self, within_s: float) -> None:
        """Ends at a random moment within so long: a browser comes back by itself, and only then."""
        if self._end is None and self.descriptor != CLOSED:
            moment = random.random() * within_s  # noqa: S311
            self._end = self._loop.call_later(moment, self.close, CloseCode.RESTART)

    def shutdown(self) -> None:
        """Called by uvicorn when the server stops."""
        self.close(CloseCode.RESTART)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the transport, once."""
        self._point(CLOSED)
        for timer in (self._beat, self._end):
            if timer is not None:
                timer.cancel()
        self._server_state.connections.discard(self)
        on_closed = self.on_closed
        self.on_drain = self.on_closed = self.on_descriptor = self.on_beat = self._own_position = None
        if on_closed is not None:
            self._call_back(on_closed)
