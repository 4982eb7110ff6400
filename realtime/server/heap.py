"""Heap: what clients held and no longer hold goes back to the system.

Owns the rule when. Must never cost a server that is only busy more than a look. Assumes glibc, which keeps what was
freed in the middle of its heap for itself, for ever: an attack of a minute would show in the process for as long as it
lives. Elsewhere it does nothing.
"""

from __future__ import annotations

import asyncio
import ctypes
from typing import Final

__all__ = ["Heap"]

INTERVAL: Final = 2.0
"""Seconds between two looks."""

WORTH_BYTES: Final = 8 * 1024 * 1024
"""What must have become free for it to be given back: a server at work takes and leaves less than that."""


class _Figures(ctypes.Structure):
    """`struct mallinfo2` (mallinfo(3)); `fordblks` is what is free in the heap, given back or not."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    )


class Heap:
    """Gives memory back to the system, for as long as `run` runs."""

    def __init__(self) -> None:
        libc = ctypes.CDLL(None)
        self._trim = getattr(libc, "malloc_trim", None)
        self._look = getattr(libc, "mallinfo2", None)
        if self._look is not None:
            self._look.restype = _Figures
        self._free = self._free_now()  # what was free when it was given back last, or less

    @property
    def can_give_back(self) -> bool:
        """Whether the C library has what this takes."""
        return self._trim is not None and self._look is not None

    def _free_now(self) -> int:
        return int(self._look().fordblks) if self._look is not None else 0

    def give_back(self) -> bool:
        """Gives back what has become free, where it is worth it; whether it was."""
        free = self._free_now()
        if self._trim is None or free - self._free < WORTH_BYTES:
            self._free = min(self._free, free)
            return False
        self._trim(0)
        self._free = free
        return True

    async def run(self) -> None:
        """Looks now and then. Never ends by itself."""
        while self.can_give_back:
            await asyncio.sleep(INTERVAL)
            self.give_back()
        await asyncio.Event().wait()
