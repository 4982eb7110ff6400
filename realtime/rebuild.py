"""Rebuild: the store's content made anew from the ledger.

Owns the watch over which store answers, and the filling. Must never let a half-filled store pass for a whole one: its
epoch says `filling:` until the last row is in. Assumes scripts go on meanwhile; versions keep old rows from winning.

The order matters: first the epoch, then the old content goes, then the ledger is read. What was committed before the
reading is in it; what commits later brings a script of its own, under the epoch it finds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Protocol

from realtime import boards
from realtime.boards import ALL_TIME, Board
from realtime.errors import LedgerUnavailable, StoreChanged, StoreUnavailable
from realtime.standings import Profile, Row

if TYPE_CHECKING:
    from realtime.dragonfly import Content

log = logging.getLogger(__name__)

WATCH_INTERVAL: Final = 1.0
"""Seconds between two looks at which store answers."""

SUSPICION_PAUSE: Final = 2.0
LONGEST_SUSPICION_PAUSE: Final = 60.0
"""Seconds from one rebuild on suspicion to the next: doubled each time, so that a foreign writer costs little."""

SUSPICIONS_FORGOTTEN: Final = 300.0
"""Seconds without a suspicion after which earlier ones count no more."""

CHUNK: Final = 1_000

Progress = Callable[[str, int], None]
"""Told a board's id and how many of its rows are in."""


class Ledger(Protocol):
    """What a rebuild needs of PostgreSQL."""

    def rebuild_lease(self) -> AbstractAsyncContextManager[Any]: ...
    async def next_epoch(self, run: str) -> int: ...
    def stream(self, connection: Any, name: str, *args: Any, size: int) -> AsyncIterator[list[Any]]: ...


class Store(Protocol):
    """What a rebuild needs of the store."""

    epoch: str | None

    async def adopt(self) -> Content: ...
    async def begin_filling(self, run: str, epoch: str) -> bool: ...
    async def clear(self, epoch: str) -> None: ...
    async def apply(
        self, rows: Mapping[Board, Sequence[Row]], profiles: Sequence[Profile] = (), *, epoch: str | None = None
    ) -> int: ...
    async def end_filling(self, run: str, epoch: str, announced: Sequence[str]) -> bool: ...


def epoch_name(run: str, n: int) -> str:
    """`<first 8 characters of the run>-<n>`, n in base 36: at most 12 characters up to 46,655 rebuilds of one run."""
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    text = ""
    while n:
        n, digit = divmod(n, 36)
        text = digits[digit] + text
    return f"{run[:8]}-{text or '0'}"


class Rebuilder:
    """Keeps the store's content ours: watches, and fills when need be."""

    def __init__(self, ledger: Ledger, store: Store, now: Callable[[], datetime], *, chunk: int = CHUNK) -> None:
        self._ledger = ledger
        self._store = store
        self._now = now
        self._chunk = chunk
        self._suspected: str | None = None  # the epoch whose content cannot be ours
        self._not_before = 0.0  # when a suspicion may be followed again (the loop's seconds)
        self._pause = SUSPICION_PAUSE
        self.rebuilds = 0
        """Rebuilds this process completed."""

    def suspect(self) -> None:
        """Somebody met content that cannot be ours: rebuilt soon, even where the run says it is."""
        self._suspected = self._store.epoch

    async def watch(self) -> None:
        """Looks every second which store answers, and rebuilds where its content is not ours. Never ends by itself."""
        while True:
            try:
                await self.look()
            except (StoreUnavailable, LedgerUnavailable) as error:
                log.debug("cannot look after the store: %s", error)
            await asyncio.sleep(WATCH_INTERVAL)

    async def look(self) -> bool:
        """Whether the content had to be rebuilt, and was, by this process.

        Raises StoreUnavailable, LedgerUnavailable: a suspicion stays for the next look.
        """
        content = await self._store.adopt()
        if not content.is_complete:
            return await self.rebuild()
        if self._suspected != content.epoch:
            self._suspected = None  # made anew since, by whomever
            return False
        return await self._follow_suspicion()

    async def _follow_suspicion(self) -> bool:
        """Rebuilds, but ever more rarely where that does not help: somebody else may write under our names."""
        at = asyncio.get_running_loop().time()
        if at < self._not_before:
            return False
        if at - self._not_before > SUSPICIONS_FORGOTTEN:
            self._pause = SUSPICION_PAUSE
        log.error("the store's content cannot be ours", extra={"action": "foreign"})
        rebuilt = await self.rebuild(instead_of=self._suspected)
        self._not_before = asyncio.get_running_loop().time() + self._pause
        self._pause = min(2 * self._pause, LONGEST_SUSPICION_PAUSE)
        return rebuilt

    async def rebuild(
        self,
        *,
        force: bool = False,
        instead_of: str | None = None,
        progress: Progress = lambda board, rows: None,
    ) -> bool:
        """Fills the store from the ledger; False where another process does so already, or did meanwhile.

        Complete content is left alone, but for that of the epoch `instead_of`, or with `force`. Raises
        StoreUnavailable, LedgerUnavailable: then the store stays marked, and anybody may begin again.
        """
        async with self._ledger.rebuild_lease() as connection:
            if connection is None:
                return False
            content = await self._store.adopt()
            if content.is_complete and not force and content.epoch != instead_of:
                return False
            epoch = epoch_name(content.run, await self._ledger.next_epoch(content.run))
            log.warning("rebuilding the store's content as %s", epoch, extra={"action": "rebuild"})
            if not await self._store.begin_filling(content.run, epoch):
                raise StoreChanged("another rebuild went ahead")
            await self._store.adopt()
            await self._store.clear(epoch)
            live = boards.told_boards(self._now())
            await self._fill(connection, live, epoch, progress)
            announced = [*(board.id for board in live), "users"]
            if not await self._store.end_filling(content.run, epoch, announced):
                raise StoreChanged("another rebuild went ahead")
        await self._store.adopt()
        self.rebuilds += 1
        log.warning("the store's content is complete as %s", epoch, extra={"action": "rebuild"})
        return True

    async def _fill(self, connection: Any, live: Sequence[Board], epoch: str, progress: Progress) -> None:
        filling = boards.FILLING + epoch
        for board in live:
            done = 0
            if board is ALL_TIME:
                stream = self._ledger.stream(connection, "all_totals", size=self._chunk)
            else:
                stream = self._ledger.stream(connection, "all_of_week", board.week, size=self._chunk)
            async for records in stream:
                rows = [Row(record[0], record[1], record[2]) for record in records]
                profiles = [Profile(r[0], r[4], r[3]) for r in records] if board is ALL_TIME else []
                await self._store.apply({board: rows}, profiles, epoch=filling)
                done += len(rows)
                progress(board.id, done)
