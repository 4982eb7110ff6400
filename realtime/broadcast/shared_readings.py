"""Shared readings: what many ask for at the same moment is read once.

Owns which readings are under way. Must never give anybody a reading that began before they asked: who reads what they
have just written sees it. Assumes one event loop; two readings of one thing at most are under way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class SharedReadings(Generic[K, T]):
    """Readings by key. Who asks alone is served as if this were not here; who asks while a reading is under way waits
    for the next one, with all others who do."""

    def __init__(self) -> None:
        self._under_way: dict[K, asyncio.Future[None]] = {}
        self._next: dict[K, asyncio.Task[T]] = {}

    async def read(self, key: K, read: Callable[[], Awaitable[T]]) -> T:
        """What `read` gives, or that of somebody who asked for the same. Raises as it does."""
        under_way = self._under_way.get(key)
        if under_way is None:
            return await self._lead(key, read)
        shared = self._next.get(key)
        if shared is None:
            shared = asyncio.get_running_loop().create_task(self._after(under_way, key, read))
            shared.add_done_callback(_seen)
            self._next[key] = shared
        return await asyncio.shield(shared)  # who goes away takes it from nobody

    async def _lead(self, key: K, read: Callable[[], Awaitable[T]]) -> T:
        ended = self._under_way[key] = asyncio.get_running_loop().create_future()
        try:
            return await read()
        finally:
            ended.set_result(None)
            if self._under_way.get(key) is ended:
                del self._under_way[key]

    async def _after(self, under_way: asyncio.Future[None], key: K, read: Callable[[], Awaitable[T]]) -> T:
        await under_way
        del self._next[key]  # whoever asks from here on asks for a later one
        return await self._lead(key, read)


def _seen(task: asyncio.Task[T]) -> None:
    """It may be that nobody waits any more: then its error is nobody's."""
    if not task.cancelled():
        task.exception()
