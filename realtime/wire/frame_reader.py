"""Reading frames: what one client sends over its WebSocket, in turns and within bounds, until nothing more may come.

Owns the bytes of one client that are not yet acted on, why its reading is stopped, what its flood adds up to, and the
timer of a message that does not come whole. Must never write, nor take more from a client than a turn's share at once.
Assumes one event loop, and that its connection acts on every event and says when it is closed, left or lost.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from realtime.wire.deframer import Deframer, Farewell, Incoming, ViolationError
from realtime.wire.lifecycle import CLOSING, OPEN, State

__all__ = ["BY_APP", "BY_HANDSHAKE", "BY_OUTPUT", "BY_QUEUE", "FrameReader"]

# Why reading is stopped: the application asked for it, too many events wait for the application, too much waits to be
# written, the loop's other connections have their turn, the application has not accepted yet, enough was read
# after the end, the connection is lost.
BY_APP, BY_QUEUE, BY_OUTPUT, _BY_TURN, BY_HANDSHAKE, _BY_END, _BY_LOSS = 1, 2, 4, 8, 16, 32, 64

# Bytes that may wait to be written before nothing more is read.
_OUTPUT_BYTES = 64 * 1024

# Events taken from one connection before others have their turn.
_TURN_EVENTS = 128

# What a client may send within so many seconds that brings no message nearer, as `Deframer.idle_bytes` counts it:
# 1,000 pings, say, or fragments of a byte.
_IDLE_BYTES, _IDLE_S = 64_000, 10.0

# Seconds the largest message may take to come: at least so many, or what this many bytes a second make of it.
_MESSAGE_S, _MESSAGE_BYTES_S = 30.0, 2048

# Bytes read after the end, in which a client's close frame may come behind what it sent before it heard of ours.
_LATE_BYTES = 4 * 1024 * 1024


class Connection(Protocol):
    """What a reader needs of its connection."""

    config: Any
    """With `ws_max_size`, bytes of the largest message, or None."""
    loop: asyncio.AbstractEventLoop
    state: State
    transport: asyncio.Transport

    @property
    def buffered_bytes(self) -> int:
        """Bytes that wait in this process to be sent."""

    def act(self, incoming: Incoming) -> None:
        """Acts on an event. Raises ViolationError."""

    def fail(self, code: int, reason: str) -> None:
        """Says what the client did wrong, and ends."""

    def hang_up(self) -> None:
        """Closes the transport."""

    def linger(self) -> None:
        """Gives the client a last moment."""


class FrameReader:
    """Reads for one connection. The connection feeds the `deframer`, and lets `take` follow where there are no `stops`:
    so a read costs no call more."""

    __slots__ = ("_connection", "_idle_bytes", "_idle_since", "_message_timer", "deframer", "farewell", "stops")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection  # until it is lost
        self.deframer = Deframer(connection.config.ws_max_size, inflating=False)
        # The causes that reading is stopped for; 0 while it is not.
        self.stops = 0
        self._idle_bytes = 0
        self._idle_since = 0.0
        # While a message comes that did not come in one read.
        self._message_timer: asyncio.TimerHandle | None = None
        # From the end on.
        self.farewell: Farewell | None = None

    @property
    def is_deaf(self) -> bool:
        """Whether reading is stopped, other than for what waits to be written."""
        return bool(self.stops & ~BY_OUTPUT)

    def stop(self, cause: int) -> None:
        """Hands over nothing more and, soon, takes nothing more from the client, while there is this cause."""
        if not self.stops:
            self._connection.transport.pause_reading()
        self.stops |= cause

    def start(self, cause: int) -> None:
        """This cause is gone. Where it was the last, what already arrived is handed over in the loop's next turn."""
        if self.stops & cause:
            self.stops &= ~cause
            if not self.stops:
                self._connection.loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        if not self.stops:
            self.take()
            if not self.stops:
                self._connection.transport.resume_reading()

    def take(self) -> None:
        """Lets the connection act on what arrived, until it ends, reading is stopped, or others have their turn."""
        connection, deframer = self._connection, self.deframer
        try:
            for _ in range(_TURN_EVENTS):
                incoming = deframer.next()
                if incoming is None:
                    break
                connection.act(incoming)
                if self.stops:
                    break
            else:
                self.stop(_BY_TURN)
                connection.loop.call_soon(self.start, _BY_TURN)
            if deframer.idle_bytes:
                self._count_idle()
        except ViolationError as violation:
            connection.fail(violation.code, violation.reason)
        if connection.buffered_bytes > _OUTPUT_BYTES:
            self.stop(BY_OUTPUT)
        if self._message_timer is None and not deframer.is_between:
            self._time_message()

    def _count_idle(self) -> None:
        """Put an end to a flood of what brings nothing."""
        now = self._connection.loop.time()
        if now - self._idle_since > _IDLE_S:
            self._idle_bytes, self._idle_since = 0, now
        self._idle_bytes += self.deframer.idle_bytes
        self.deframer.idle_bytes = 0
        if self._idle_bytes > _IDLE_BYTES:
            raise ViolationError(1008, "too many frames that bring nothing")

    def _time_message(self) -> None:
        """See to it that a message, of which there is a part, does not take for ever."""
        most_bytes = self._connection.config.ws_max_size
        if most_bytes is not None:
            seconds = max(_MESSAGE_S, most_bytes / _MESSAGE_BYTES_S)
            self._message_timer = self._connection.loop.call_later(seconds, self._judge_message, self.deframer.messages)

    def _judge_message(self, messages: int) -> None:
        """Whether it is still the same: so many were whole when it was looked at last."""
        self._message_timer = None
        if self._connection.state is not OPEN or self.deframer.is_between:
            return
        if self.deframer.messages == messages and not self.stops:
            self._connection.fail(1008, "a message takes too long")
        else:
            self._time_message()

    # The end

    def closing(self) -> None:
        """Our close frame was written: the client's is still to come; what it said before is dropped.

        From the loop's next turn on: whoever closes may be in the midst of what the client said.
        """
        self.farewell = Farewell()
        self.stops = _BY_TURN
        self._connection.loop.call_soon(self._await_close)

    def _await_close(self) -> None:
        if self.stops & _BY_LOSS:
            return
        self.stops = 0
        connection = self._connection
        if connection.state is not CLOSING or connection.transport.is_closing():
            return
        self.take_leave(b"")
        if not self.stops:
            connection.transport.resume_reading()

    def violated(self) -> None:
        """Nobody knows any more what is a frame: not even a close frame is looked for."""
        self.deframer.end()
        self.farewell = Farewell(is_listening=False)

    def take_leave(self, data: bytes) -> None:
        """Reads on after the end, so that neither the client's close frame nor ours is lost; but not for ever."""
        rest = self.deframer.end()
        if self.farewell is None:
            self.farewell = Farewell(is_listening=False)
        if self.farewell.feed(rest + data, _LATE_BYTES):
            self._connection.hang_up()
        elif self.farewell.spent_bytes > _LATE_BYTES:
            self.stop(_BY_END)
            self._connection.linger()

    def lost(self) -> None:
        """The connection is gone, and let go: together they would wait for the collector."""
        self.stops |= _BY_LOSS
        if self._message_timer is not None:
            self._message_timer.cancel()
        del self._connection
