"""Partitions: watches over the contents of all partitions that have a leaderboard.

Owns which these are, a rebuilder for each, and the comparison of the rules that the store names with those of the
ledger. Must never let one content's trouble, or its rebuild, keep another from being looked after, or do anything for a
partition without a leaderboard. Assumes that a rebuilder does all that is done to one content; the published one has
its own watch, and is here for its rules alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final, Protocol

from realtime.errors import LedgerUnavailable, StoreUnavailable
from realtime.repair.rebuild import WATCH_INTERVAL, Rebuilder
from realtime.store.filling import Filling

if TYPE_CHECKING:
    from realtime.boards.board import Board
    from realtime.boards.catalogue import Catalogue
    from realtime.repair.rebuild import Ledger, Progress, RankedRows
    from realtime.store.partition import Partition

log = logging.getLogger(__name__)

RULES_EVERY: Final = 5
"""Looks between two comparisons of the rules by which the store has boards."""

OTHERWISE: Final = 3
"""Comparisons in a row that must find another rule: whoever redefines a leaderboard tells the ledger first, then the
store."""

LONGEST_LOOK: Final = 0.5
"""Seconds after which a look goes on beside the others': it makes content anew, or waits for a store that is away."""

AT_A_TIME: Final = 8
"""Looks that are begun together. Many wait where a node hangs, and a round must still come to all the others in time;
all at once would keep others from the ledger's connections."""


class Store(Protocol):
    """What the watch needs of the store."""

    def partition(self, name: str) -> Partition: ...
    async def rules(self, partition: str, slugs: Sequence[str]) -> dict[str, str | None]: ...


class Directory(Protocol):
    """What the watch needs to know of leaderboards."""

    @property
    def current(self) -> Catalogue: ...
    async def look(self) -> None: ...


class Partitions:
    """Looks after every partition in use."""

    def __init__(
        self,
        ledger: Ledger,
        ranked: RankedRows,
        store: Store,
        directory: Directory,
        now: Callable[[], datetime],
        *,
        chunk: int | None = None,
    ) -> None:
        self._ledger = ledger
        self._ranked = ranked
        self._store = store
        self._directory = directory
        self._now = now
        self._chunk = {} if chunk is None else {"chunk": chunk}
        self._rebuilders: dict[str, Rebuilder] = {}
        self._looks: dict[str, asyncio.Task[bool]] = {}  # those that go on
        self._otherwise: dict[str, int] = {}  # by slug: comparisons in a row that found another rule

    @property
    def in_use(self) -> list[str]:
        """The partitions that have a leaderboard, without the published one."""
        leaderboards = self._directory.current.leaderboards.values()
        return sorted({leaderboard.partition for leaderboard in leaderboards if leaderboard.partition})

    @property
    def incomplete(self) -> list[str]:
        """Those whose content cannot be read here."""
        return [name for name in self.in_use if not self._store.partition(name).is_complete]

    @property
    def rebuilds(self) -> int:
        """Contents that this process has made anew."""
        return sum(rebuilder.rebuilds for rebuilder in self._rebuilders.values())

    @property
    def stray(self) -> str | None:
        """The epoch of content that another process reaches in place of a current one; None where none does."""
        return next((rebuilder.stray for rebuilder in self._rebuilders.values() if rebuilder.stray), None)

    def boards_of(self, partition: str) -> list[Board]:
        """The boards that a partition's content has now, by what this process knows."""
        told = self._directory.current.told_boards(self._now())
        return [board for board in told if board.leaderboard.partition == partition]

    def boards_to_tell(self, now: datetime) -> list[Board]:
        """All boards that the store is told of at `now`, those among them that are being made."""
        return self._directory.current.written_boards(now)

    async def partitions_of(self, sources: Collection[int]) -> dict[int, str]:
        """The partitions of the leaderboards that rank the submissions of sources; those are left out that are of no
        leaderboard any more, by what the ledger says now. Raises LedgerUnavailable."""
        of = self._directory.current.partition_of
        if any(of(source) is None for source in sources):
            await self._directory.look()
            of = self._directory.current.partition_of
        found = {source: of(source) for source in sources}
        return {source: partition for source, partition in found.items() if partition is not None}

    async def latest_boards_of(self, partition: str) -> list[Board]:
        """The same, as the ledger has it now. Raises LedgerUnavailable."""
        await self._directory.look()
        return self.boards_of(partition)

    def rebuilder(self, partition: str) -> Rebuilder:
        """What makes a partition's content anew."""
        found = self._rebuilders.get(partition)
        if found is None:
            content = self._store.partition(partition)
            found = self._rebuilders[partition] = Rebuilder(
                self._ledger,
                content,
                Filling(content.link),
                self._now,
                partition=partition,
                boards=lambda: self.latest_boards_of(partition),
                ranked=self._ranked,
                **self._chunk,
            )
        return found

    # Looking --------------------------------------------------------------------------------------------------------

    async def watch(self) -> None:
        """Looks every second. Never ends by itself."""
        looks = 0
        try:
            while True:
                await asyncio.sleep(WATCH_INTERVAL)
                await self.look()
                looks += 1
                if looks % RULES_EVERY == 0:
                    await self.compare_rules()
        finally:
            for task in self._looks.values():
                task.cancel()

    async def look(self) -> None:
        """Looks after every partition in use, and makes anew what is lost. Raises nothing."""
        due = [name for name in self.in_use if name not in self._looks]
        for begin in range(0, len(due), AT_A_TIME):
            begun = due[begin : begin + AT_A_TIME]
            self._looks.update({name: asyncio.create_task(self._look(name)) for name in begun})
            await asyncio.wait([self._looks[name] for name in begun], timeout=LONGEST_LOOK)

    async def _look(self, name: str) -> bool:
        try:
            return await self.rebuilder(name).look()
        except (StoreUnavailable, LedgerUnavailable) as error:
            log.debug("cannot look after partition %s: %s", name, error)
            return False
        finally:
            self._looks.pop(name, None)

    async def settled(self) -> None:
        """Returns when no look goes on any more."""
        while self._looks:
            await asyncio.wait(list(self._looks.values()))

    async def compare_rules(self) -> None:
        """Distrusts content that has a leaderboard's boards by another rule than the ledger, again and again.

        Whoever shows a new rule tells the ledger, then the store. Where that process died, or where the key was lost,
        nobody can read or write these boards; content that is made anew has them by the ledger's rule.
        """
        for name in ["", *self.in_use]:
            try:
                await self._compare_rules_of(name)
            except (StoreUnavailable, LedgerUnavailable) as error:
                log.debug("cannot compare the rules of partition %s: %s", name, error)

    async def _compare_rules_of(self, name: str) -> None:
        content = self._store.partition(name)
        leaderboards = {b.leaderboard.slug: b.leaderboard for b in self.boards_of(name) if not b.is_published}
        if not content.is_complete or not leaderboards:
            return
        there = await self._store.rules(name, list(leaderboards))
        for slug, leaderboard in leaderboards.items():
            is_other = leaderboard.rule is not None and (there[slug] or "") != leaderboard.rule_in_store
            self._otherwise[slug] = self._otherwise.get(slug, 0) + 1 if is_other else 0
            if self._otherwise[slug] >= OTHERWISE:
                self._otherwise[slug] = 0
                words = "the store has %s by rule %s, and the ledger by %s: its content is made anew"
                log.warning(words, slug, there[slug], leaderboard.rule, extra={"action": "rebuild"})
                content.distrust()

    # All at once -----------------------------------------------------------------------------------------------------

    async def rebuild(self, *, progress: Progress = lambda board, rows: None) -> bool:
        """Makes the contents of all partitions in use anew; False where another process is at one of them.

        Raises StoreUnavailable, LedgerUnavailable.
        """
        done = [await self.rebuilder(name).rebuild(force=True, progress=progress) for name in self.in_use]
        return all(done)

    async def adopt(self) -> None:
        """Adopts what each partition in use holds. Raises StoreUnavailable and its kin."""
        for name in self.in_use:
            await self._store.partition(name).adopt()
