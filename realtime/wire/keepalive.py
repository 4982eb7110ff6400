"""Keeping alive: pings to a client, and what follows where no pong comes (RFC 6455, section 5.5.2).

Owns one timer and the ping that has no pong yet. Must never take a client for lost because this process was late, or
because nobody read what the client sent. Assumes one event loop, and that its connection stops it before it is gone.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any, Final, Protocol

from realtime.wire.frames import PING, Frame

__all__ = ["Keepalive"]

_LATE_PONG_S: Final = 1.0
"""Seconds more for a pong that may wait in the socket when the loop itself was late."""


class Connection(Protocol):
    """What a keep-alive needs of its connection."""

    config: Any
    """With `ws_ping_interval`, seconds between pings, and `ws_ping_timeout`, seconds until the pong, or None."""
    loop: asyncio.AbstractEventLoop

    @property
    def is_deaf(self) -> bool:
        """Whether a pong may have come that nobody reads."""

    def write(self, frame: Frame, sent: int = 0) -> int:
        """Sends a frame."""

    def abort(self) -> None:
        """Ends the connection at once: nobody is there to read a close frame."""


class Keepalive:
    """Pings one client, from its creation until `stop`. One timer at a time, never cancelled while all is well."""

    __slots__ = ("_connection", "_due", "_is_pong_late", "_pending", "timer")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._pending: bytes | None = None  # payload of the ping that has no pong yet
        self._due = 0.0  # when the next ping is, in the loop's time
        self._is_pong_late = False  # the last ping has had its time, and a moment more
        # It begins at a random phase: clients that came together must not all be pinged together.
        self._next_tick(random.random() * connection.config.ws_ping_interval)  # noqa: S311

    def pong(self, payload: bytes) -> None:
        """Takes a pong; one that answers no ping, or an old one, says nothing."""
        if payload == self._pending:
            self._pending = None

    def stop(self) -> None:
        """Sends nothing more."""
        self.timer.cancel()

    def _next_tick(self, delay_s: float) -> None:
        self.timer: asyncio.TimerHandle = self._connection.loop.call_later(delay_s, self._tick)

    def _tick(self) -> None:
        """Sends a ping, or judges the last one."""
        connection = self._connection
        now = connection.loop.time()
        if self._pending is None or connection.config.ws_ping_timeout is None:
            self._is_pong_late = False
            if now < self._due:
                self._next_tick(self._due - now)
            else:
                self._ping(now)
        elif connection.is_deaf:
            self._next_tick(connection.config.ws_ping_timeout)
        elif not self._is_pong_late:  # perhaps it is the loop that was late
            self._is_pong_late = True
            self._next_tick(_LATE_PONG_S)
        else:
            connection.abort()

    def _ping(self, now: float) -> None:
        """Sends a ping, and waits for its pong."""
        connection = self._connection
        interval, timeout = connection.config.ws_ping_interval, connection.config.ws_ping_timeout
        self._due = now + interval
        self._pending = random.getrandbits(32).to_bytes(4, "big")
        self._next_tick(interval if timeout is None else timeout)
        connection.write(Frame(self._pending, PING))
