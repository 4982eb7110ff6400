"""Sweeper: tells the store changes that nobody has confirmed to have reached it.

Owns one rule: where an outbox row is older than any healthy way to the store takes, the sweeper resyncs its users and
then removes the row. Must never lock a row meanwhile: a sweeper that stands still would keep all others from it.
Assumes that a change may be told twice, by several sweepers at once, and that closed weeks know by themselves what they
lack.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Protocol

from realtime.errors import LedgerUnavailable, StoreUnavailable

if TYPE_CHECKING:
    from realtime.ledger.ledger import OutboxRow
    from realtime.repair.resync import Resync

log = logging.getLogger(__name__)

INTERVAL: Final = 1.0
"""Seconds between two sweeps that found nothing."""

OLDER_THAN: Final = 3.0
"""Seconds for which a row is left to the process that wrote it: longer than the time-out of one script call."""

ROWS: Final = 200
"""Rows taken in one sweep."""


class Outbox(Protocol):
    """What sweeping needs of PostgreSQL."""

    async def outbox(self, *, older_than: float, limit: int) -> list[OutboxRow]: ...
    async def clear_outbox(self, ids: Sequence[int], told: str | None) -> None: ...


class Sweeper:
    """Resyncs the users of outbox rows that stayed."""

    def __init__(self, outbox: Outbox, resync: Resync) -> None:
        self._outbox = outbox
        self._resync = resync
        self.resynced = 0
        """Outbox rows whose users were resynced, ever."""

    async def run(self) -> None:
        """Sweeps until cancelled."""
        while True:
            try:
                swept = await self.sweep()
            except (StoreUnavailable, LedgerUnavailable) as error:
                log.debug("cannot sweep: %s", error)
                swept = 0
            if swept < ROWS:
                await asyncio.sleep(INTERVAL)

    async def sweep(self, *, older_than: float = OLDER_THAN) -> int:
        """Resyncs the users of up to ROWS rows; returns how many rows there were.

        Raises StoreUnavailable, LedgerUnavailable.
        """
        rows = await self._outbox.outbox(older_than=older_than, limit=ROWS)
        if not rows:
            return 0
        told = await self._resync.users({user_id for row in rows for user_id in row.user_ids})
        await self._outbox.clear_outbox([row.id for row in rows], told)
        self.resynced += len(rows)
        return len(rows)
