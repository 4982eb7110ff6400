"""Keeping: closes weeks in time and keeps their views right, as long as one worker runs.

Owns how often it looks. Must never decide what a closed week is, or what its view lacks: `ledger.closing` and
`ledger.views` do. Assumes that several workers may do this at once.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final, Protocol

from realtime.boards.board import Board
from realtime.errors import LedgerUnavailable, StoreUnavailable

log = logging.getLogger(__name__)

INTERVAL: Final = 2.0
"""Seconds between two looks that found nothing."""

AT_ONCE: Final = 20
"""Weeks taken in one look."""

VERIFIED_EVERY: Final = 30
"""Looks between two comparisons of one week's whole view with what was recorded; the weeks take turns."""


class Views(Protocol):
    """What can be done for closed weeks."""

    async def withdraw(self) -> None: ...
    async def open_all(self, limit: int) -> int: ...
    async def settle(self, limit: int) -> int: ...
    async def verify(self, after: Board | None) -> Board | None: ...


class Keeping:
    """Looks again and again for closed weeks that need something done."""

    def __init__(self, views: Views) -> None:
        self._views = views
        self._looks = 0
        self._verified: Board | None = None

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
        """Looks once; returns for how many weeks something was done.

        Raises LedgerUnavailable, StoreUnavailable, once all was tried: one week keeps no other from its turn.
        """
        self._looks += 1
        done = 0
        failed: LedgerUnavailable | StoreUnavailable | None = None
        for work in (self._withdrawn, self._settled, self._opened, self._compared):
            try:
                done += await work()
            except (LedgerUnavailable, StoreUnavailable) as error:
                failed = error
        if failed is not None:
            raise failed
        return done

    async def _withdrawn(self) -> int:
        await self._views.withdraw()
        return 0

    async def _settled(self) -> int:
        return await self._views.settle(AT_ONCE)

    async def _opened(self) -> int:
        return await self._views.open_all(AT_ONCE)

    async def _compared(self) -> int:
        if self._looks % VERIFIED_EVERY == 0:
            self._verified = await self._views.verify(self._verified)
        return 0
