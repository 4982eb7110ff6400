"""Keeping: closed weeks are closed in time, and right, as long as one worker runs.

Owns how often is looked. Must never decide what a closed week is, or what its view lacks: that is `closing`'s and
`history`'s. Assumes that several workers may do this at once.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import date
from typing import Final, Protocol

from realtime.errors import LedgerUnavailable, StoreUnavailable

log = logging.getLogger(__name__)

INTERVAL: Final = 2.0
"""Seconds between two looks that found nothing."""

AT_ONCE: Final = 20
"""Weeks taken in one look."""

VERIFIED_EVERY: Final = 30
"""Looks between two comparisons of a view with what was recorded: all of it, one week after the other."""


class Weeks(Protocol):
    """What there is to do."""

    async def withdraw(self) -> None: ...
    async def open_all(self, limit: int) -> int: ...
    async def settle(self, limit: int) -> int: ...
    async def verify(self, after: date) -> date: ...


class Keeping:
    """See the module."""

    def __init__(self, weeks: Weeks) -> None:
        self._weeks = weeks
        self._looks = 0
        self._verified = date.min

    async def run(self) -> None:
        """Looks until cancelled."""
        while True:
            done = 0
            try:
                done = await self.step()
            except (LedgerUnavailable, StoreUnavailable) as error:
                log.debug("cannot keep closed weeks: %s", error)
            await asyncio.sleep(0.05 if done >= AT_ONCE else INTERVAL)

    async def step(self) -> int:
        """One look; returns for how many weeks there was anything to do. Raises LedgerUnavailable, StoreUnavailable."""
        self._looks += 1
        await self._weeks.withdraw()
        done = await self._weeks.settle(AT_ONCE) + await self._weeks.open_all(AT_ONCE)
        if self._looks % VERIFIED_EVERY == 0:
            self._verified = await self._weeks.verify(self._verified)
        return done
