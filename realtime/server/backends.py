"""Backends: PostgreSQL and the store, opened for one process, and what keeps them in order.

Owns the start: who waits for what, what is refused, what a warning is for. Must never serve anything. Assumes a
migrated database.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from realtime.boards.board import Board
from realtime.errors import LedgerRefused, LedgerUnavailable, LedgerUnfit, StartupError, StoreUnavailable
from realtime.ledger.archive import Archive
from realtime.ledger.closed_boards import ClosedBoards
from realtime.ledger.closing import Closing
from realtime.ledger.definitions import Definitions
from realtime.ledger.leaderboards import Leaderboards
from realtime.ledger.ledger import Ledger
from realtime.ledger.ranked import RankedRows
from realtime.ledger.read_hosts import ReadHosts
from realtime.ledger.views import Views
from realtime.metrics import Figure
from realtime.repair.generation import Generations
from realtime.repair.partitions import Partitions
from realtime.repair.rebuild import Rebuilder
from realtime.server.heap import Heap
from realtime.settings import Settings
from realtime.store.filling import Filling
from realtime.store.fitness import check_fitness
from realtime.store.store import Store

log = logging.getLogger(__name__)

CLOCKS_INTERVAL: Final = 5.0
"""Seconds between two comparisons of clocks."""

CLOCKS_AGREE: Final = 5.0
"""Seconds by which a clock may be off before a warning: expiry has days of grace."""

START_PATIENCE: Final = 30.0
"""Seconds a starting process waits for PostgreSQL."""

SCATTERED: Final = (
    "the store keeps keys of one partition on several threads, and a write to many boards stops all of them: "
    "start Dragonfly with --lock_on_hashtags"
)

STOPS_WHOLE: Final = (
    "the nodes of the cluster all stop where one is lost, until its replica is promoted: set "
    "cluster-require-full-coverage no, and its boards alone stand still"
)

Task = tuple[str, Callable[[], Awaitable[None]]]
"""The name of a task, and the coroutine function to be kept running."""


@dataclass(frozen=True, slots=True)
class Backends:
    """PostgreSQL and the store, open, and what every process needs to keep them in order."""

    ledger: Ledger
    definitions: Definitions
    leaderboards: Leaderboards
    store: Store
    archive: Archive
    closed_boards: ClosedBoards
    views: Views
    rebuilder: Rebuilder
    partitions: Partitions
    generations: Generations
    clocks: Clocks
    reads: ReadHosts

    async def amend(self, boards: Collection[Board]) -> None:
        """Scores of closed boards changed: whatever is kept of them follows, and subscribers hear of it.

        Raises LedgerUnavailable, StoreUnavailable: then it is done later.
        """
        if weeks := [board for board in boards if board.is_published]:
            await self.views.amend(weeks)
        if others := [board for board in boards if not board.is_published]:
            await self.closed_boards.amend(others)

    @property
    def trouble(self) -> str | None:
        """Why the store is not used, for people; None where nothing is known."""
        trouble = self.rebuilder.trouble
        return self.store.link.complaint or (trouble and f"the store cannot be used: {trouble}")

    def figures(self) -> list[Figure]:
        """What the metrics show of it."""
        link, health, outages = self.store.link, self.ledger.health, self.ledger.outages
        clock, rebuilder, partitions = self.ledger.clock, self.rebuilder, self.partitions
        topology = self.store.topology
        return [
            *self.clocks.figures(),
            ("gauge", "store_refused", "1 while the store is not used, by cause", link.refused),
            ("counter", "store_refusals", "How often that began", lambda: link.refusals),
            ("gauge", "store_node_away", "1 while a node of the store, or a Sentinel, is silent", topology.away),
            ("gauge", "store_primary", "1 for each address that has content now", topology.primaries),
            ("gauge", "clock_uncertainty_seconds", "How well PostgreSQL's clock is known", lambda: clock.uncertainty),
            ("gauge", "database_away", "Processes that PostgreSQL does not answer", lambda: float(bool(health.away))),
            ("counter", "database_failovers", "Turns to another primary", lambda: self.ledger.hosts.turns),
            ("counter", "database_reads", "Reads of logs and closed boards, by who answered", lambda: self.reads.reads),
            ("counter", "database_failures", "Statements PostgreSQL failed, by cause", lambda: outages.counts),
            ("gauge", "stray_stores", "1 while a process reaches another store", self._stray),
            ("counter", "rebuilds", "Rebuilds of the store", lambda: rebuilder.rebuilds + partitions.rebuilds),
            (
                "gauge",
                "store_partitions_incomplete",
                "Partitions of the store that cannot be read now",
                lambda: len(partitions.incomplete),
            ),
        ]

    def figures_of_hosts(self) -> list[Figure]:
        """What every process would tell alike of the hosts of PostgreSQL."""
        hosts, reads = self.ledger.hosts, self.reads
        return [
            ("gauge", "database_timeline", "Promotions up to the primary", lambda: float(hosts.timeline)),
            (
                "gauge",
                "read_host_lag_seconds",
                "How far a standby that is read from is behind, by host",
                lambda: {host: lag for host, lag in reads.lags().items() if lag is not None},
            ),
            (
                "gauge",
                "read_host_refused",
                "1 while a standby is not read from, by host",
                lambda: {host: float(lag is None) for host, lag in reads.lags().items()},
            ),
        ]

    def _stray(self) -> float:
        return float(bool(self.rebuilder.stray or self.partitions.stray))


@asynccontextmanager
async def open_backends(settings: Settings, *, lanes: int = 0) -> AsyncIterator[Backends]:
    """Opens both for the block. Waits for PostgreSQL; goes on without the store, which may come later. `lanes` is how
    many statements at once record scores here.

    Raises StartupError where the store is not fit, LedgerUnavailable where PostgreSQL does not come.
    """
    async with AsyncExitStack() as stack:
        ledger = Ledger(settings.database_url.reveal(), connections=settings.database_connections, lanes=lanes)
        stack.push_async_callback(ledger.aclose)
        store = Store(
            settings.dragonfly_url.reveal(), timeout=settings.store_timeout_s, connections=settings.store_connections
        )
        stack.push_async_callback(store.aclose)
        await _patiently(ledger.open)
        definitions = Definitions(ledger)
        leaderboards = Leaderboards(ledger, definitions, partitions=settings.partitions)
        await _patiently(leaderboards.refresh)
        ledger.clock.edge_after = leaderboards.edge_after
        leaderboards.on_change.append(lambda catalogue: ledger.clock.take_edges())
        store.link.timestamp = ledger.clock.timestamp
        for warning in await ledger.durability_warnings():
            log.warning(warning, extra={"action": "durability"})
        try:
            check_fitness(await store.info())
            await store.adopt()
            if len(leaderboards.current.partitions) > 1 and await store.link.scatters():
                log.warning(SCATTERED, extra={"action": "store"})
            if await store.link.stops_whole():
                log.warning(STOPS_WHOLE, extra={"action": "store"})
        except StoreUnavailable as error:
            if store.link.complaint is None:  # else it was told already
                log.warning("the store cannot be used: %s", error, extra={"action": "store"})
        now = ledger.clock.now
        store.renew = leaderboards.look
        ranked = RankedRows(ledger)
        partitions = Partitions(ledger, ranked, store, leaderboards, now)
        rebuilder = Rebuilder(
            ledger,
            store,
            Filling(store.link),
            now,
            boards=lambda: partitions.latest_boards_of(""),
            ranked=ranked,
        )
        generations = Generations(ledger, store)
        await _patiently(generations.look)  # before anything is given out
        closing = Closing(ledger)
        reads = ReadHosts(
            settings.read_database_url.reveal(),
            ledger,
            lambda: generations.current.place,
            most=settings.read_lag_s,
        )
        stack.push_async_callback(reads.aclose)
        archive = Archive(ledger, store, closing, reads)
        views = Views(archive, closing)
        clocks = Clocks(ledger, store)
        closed_boards = ClosedBoards(ledger, store, reads)
        yield Backends(
            ledger,
            definitions,
            leaderboards,
            store,
            archive,
            closed_boards,
            views,
            rebuilder,
            partitions,
            generations,
            clocks,
            reads,
        )


async def _patiently(attempt: Callable[[], Awaitable[None]]) -> None:
    deadline = asyncio.get_running_loop().time() + START_PATIENCE
    while True:
        try:
            return await attempt()
        except LedgerUnfit:
            raise
        except LedgerRefused as error:
            raise StartupError(f"PostgreSQL lets nobody in: {error}. Check DATABASE_URL.") from None
        except LedgerUnavailable as error:
            if asyncio.get_running_loop().time() > deadline:
                raise StartupError(f"PostgreSQL cannot be used: {error}. Check DATABASE_URL.") from None
            log.warning("PostgreSQL cannot be used yet: %s", error, extra={"action": "start"})
            await asyncio.sleep(0.5)


class Clocks:
    """How far the other clocks are ahead of PostgreSQL's, which is the one that counts."""

    def __init__(self, ledger: Ledger, store: Store) -> None:
        self._ledger = ledger
        self._store = store
        self._warned: frozenset[str] = frozenset()

    def ahead(self) -> dict[str, float]:
        """Seconds, by whose clock it is; only of clocks that were compared."""
        found: dict[str, float] = {}
        if self._ledger.clock.is_set:
            found["host"] = time.time() - self._ledger.clock.timestamp()
        if (ahead := self._store.ahead) is not None:
            found["store"] = ahead
        return found

    async def watch(self) -> None:
        """Warns where a clock begins to differ. Never ends by itself."""
        while True:
            self.look()
            await asyncio.sleep(CLOCKS_INTERVAL)

    def look(self) -> None:
        """Warns once of each clock that has begun to differ."""
        ahead = self.ahead()
        wrong = frozenset(whose for whose, seconds in ahead.items() if abs(seconds) > CLOCKS_AGREE)
        for whose in sorted(wrong - self._warned):
            words = "the clock of %s is %.0f s ahead of PostgreSQL's: keep all hosts' clocks by NTP"
            log.warning(words, _CLOCK_OF[whose], ahead[whose], extra={"action": "clock"})
        self._warned = wrong

    def figures(self) -> list[Figure]:
        """What the metrics show of it."""
        return [("gauge", "clock_ahead_seconds", "How far a clock is ahead of PostgreSQL's, by whose", self.ahead)]


_CLOCK_OF: Final = {"host": "this host", "store": "the store's host"}


def common_tasks(backends: Backends) -> list[Task]:
    """The tasks that every process runs."""
    return [
        ("pulse", backends.ledger.health.run),
        ("catalogue", backends.leaderboards.run),
        ("watch", backends.rebuilder.watch),
        ("partitions", backends.partitions.watch),
        ("heap", Heap().run),
        ("generation", backends.generations.run),
        ("clocks", backends.clocks.watch),
        *([("read hosts", backends.reads.run)] if backends.reads.lags() else []),
    ]
