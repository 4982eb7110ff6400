"""The pace at which a client reads an answer.

Owns one timer while something waits to be sent. Must never end a client that reads as fast as is asked, nor one for
which nothing waits. Assumes that it is told whatever is written meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

__all__ = ["ReadingPace"]

PACE_SECONDS: Final = 10.0
PACE_BYTES: Final = 10 * 1024
"""While an answer waits to be read, so many bytes of it are read in so many seconds."""


class ReadingPace:
    """Watches one client from its creation until `stop`; `too_slow` is called once where it does not read.
    `waiting` tells the bytes that wait to be sent."""

    __slots__ = ("_loop", "_timer", "_too_slow", "_unread_bytes", "_waiting")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, waiting: Callable[[], int], too_slow: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._waiting = waiting
        self._too_slow = too_slow
        self._unread_bytes = waiting()  # how many waited at the last look, with what came since
        self._timer = loop.call_later(PACE_SECONDS, self._look)

    def wrote(self, size_bytes: int) -> None:
        """So many more are to be read."""
        self._unread_bytes += size_bytes

    def stop(self) -> None:
        """Nothing waits any more."""
        self._timer.cancel()

    def _look(self) -> None:
        waiting = self._waiting()
        if self._unread_bytes - waiting < PACE_BYTES:
            return self._too_slow()
        self._unread_bytes = waiting
        self._timer = self._loop.call_later(PACE_SECONDS, self._look)
