"""Sweeper: tells the store changes that nobody has confirmed to have reached it.

Owns one rule: where an outbox row is older than any healthy way to the store takes, the sweeper resyncs its users and
then removes the row. Must never lock a row meanwhile: a sweeper that stands still would keep all others from it.
Assumes that a change may be told twice, by several sweepers at once, and that closed weeks know by themselves what they
lack.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
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
    async def clear_outbox(self, ids: Sequence[int], told: str | None, partition: str = "") -> None: ...


PartitionsOf = Callable[[Collection[int]], Awaitable[dict[int, str]]]
"""The partitions of the boards that rank the submissions of sources; without those that are of no leaderboard any
more."""


class Sweeper:
    """Resyncs the users of outbox rows that stayed."""

    def __init__(self, outbox: Outbox, resync: Resync, partitions_of: PartitionsOf | None = None) -> None:
        self._outbox = outbox
        self._resync = resync
        self._partitions_of = partitions_of  # None: there is the published content alone
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
        partitions = {row.source: "" for row in rows}
        if self._partitions_of is not None:
            partitions = await self._partitions_of(partitions)
        of_partitions: dict[str, list[OutboxRow]] = {}
        gone: list[int] = []
        for row in rows:
            if row.source in partitions:
                of_partitions.setdefault(partitions[row.source], []).append(row)
            else:
                gone.append(row.id)
        if gone:  # their leaderboards were removed: defined again, they have their boards made from the log
            await self._outbox.clear_outbox(gone, None)
        failed: StoreUnavailable | None = None
        for partition, of in of_partitions.items():
            try:
                await self._tell(partition, of)
            except StoreUnavailable as error:  # one content keeps no other from its rows
                failed = error
        if failed is not None:
            raise failed
        return len(rows)

    async def _tell(self, partition: str, rows: Sequence[OutboxRow]) -> None:
        told = await self._resync.each({user_id for row in rows for user_id in row.user_ids}, partition)
        await self._outbox.clear_outbox([row.id for row in rows], told.get(partition), partition)
        self.resynced += len(rows)
