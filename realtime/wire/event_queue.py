"""What waits between a connection and the coroutine of an ASGI application.

Owns the events that an application has not fetched yet, and who waits for the next one. Must never grow into a queue
with rules: the connection decides how much may wait here. Assumes one event loop.

asyncio.Event and asyncio.Queue would do the same, and cost 3 KiB more with every idle connection.
"""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

__all__ = ["EventQueue", "Gate"]

T = TypeVar("T")


class Gate:
    """As asyncio.Event; open at first."""

    __slots__ = ("_open", "_waiters")

    def __init__(self) -> None:
        self._open = True
        self._waiters: tuple[asyncio.Future[None], ...] = ()

    def set(self) -> None:
        """Let everybody through who waits or comes."""
        self._open = True
        waiters, self._waiters = self._waiters, ()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def clear(self) -> None:
        """Let nobody through until `set`."""
        self._open = False

    async def wait(self) -> None:
        """Return at once when open, else after the next `set`."""
        while not self._open:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters = (*(w for w in self._waiters if not w.done()), waiter)
            await waiter


class EventQueue(Generic[T]):
    """As asyncio.Queue without a limit, but it knows the size of what it holds."""

    __slots__ = ("_events", "_filled", "size_bytes")

    def __init__(self) -> None:
        self._events: list[T] = []
        self._filled = Gate()
        # Bytes, as `put_nowait` was told, of the events that were added since the queue was last empty.
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._events)

    def put_nowait(self, event: T, size_bytes: int = 0) -> None:
        """Add an event and wake whoever waits in `get`."""
        self._events.append(event)
        self.size_bytes += size_bytes
        self._filled.set()

    async def get(self) -> T:
        """The oldest event, as soon as there is one."""
        while not self._events:
            self._filled.clear()
            await self._filled.wait()
        event = self._events.pop(0)
        if not self._events:
            self.size_bytes = 0
        return event
