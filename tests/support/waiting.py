"""How tests wait: for a condition, never for a while.

Owns the unit that every time-out of a test is a multiple of. It must never be a measure of speed: what is awaited comes
when it comes, and only what never comes fails. Where a machine is so slow that what does come is given up,
`TEST_SECOND_S` makes all of it longer at once.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

SECOND: Final = float(os.environ.get("TEST_SECOND_S", "1"))
"""Seconds that a second of patience lasts."""

PATIENCE: Final = 60 * SECOND
"""Seconds that an awaited thing may take: a machine under load, never a measure of speed."""

_FIRST_PAUSE_S: Final = 0.001
_LONGEST_PAUSE_S: Final = 0.05

T = TypeVar("T")


async def eventually(holds: Callable[[], Any], patience: float = PATIENCE) -> None:
    """Returns when `holds()` (which may be awaitable) is true: for what no event tells a test of. Looks soon at first,
    then less and less often. Raises TimeoutError after `patience` seconds."""
    pause = _FIRST_PAUSE_S
    async with asyncio.timeout(patience):
        while True:
            held = holds()
            if await held if asyncio.iscoroutine(held) else held:
                return
            await asyncio.sleep(pause)
            pause = min(1.2 * pause, _LONGEST_PAUSE_S)


def attempted(attempt: Callable[[], T], *errors: type[Exception], patience: float = PATIENCE) -> T:
    """What `attempt` comes to, once it raises none of these errors any more. It blocks: for tests without a loop."""
    deadline = time.monotonic() + patience
    while True:
        try:
            return attempt()
        except errors:
            assert time.monotonic() < deadline
            time.sleep(0.1)
