"""The ledger: PostgreSQL through asyncpg.

Owns the pools, and the statements that record submissions, say what is true of users, and keep the outbox. Must never
hand out asyncpg's exceptions for a database that is away (`outages` maps them), nor hold a lock beyond one transaction,
nor a transaction beyond its `bounds`. Assumes a migrated database.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import asyncpg

from realtime import resources
from realtime.boards.board import ALL_TIME, Board, week_of
from realtime.boards.leaderboard import DEFAULT
from realtime.boards.standings import Profile, Row
from realtime.errors import CatalogueMoved, LedgerLocked, LedgerUnavailable, WindowsMissing
from realtime.ledger import bounds, lease
from realtime.ledger.batch import assembled, columns
from realtime.ledger.bounds import Bounds
from realtime.ledger.clock import Clock
from realtime.ledger.health import HealthCheck
from realtime.ledger.hiding import Hiding
from realtime.ledger.hosts import Hosts
from realtime.ledger.judging import judge
from realtime.ledger.migrations import MIGRATION_LOCK
from realtime.ledger.mixture import Assembly, Columns, as_recorded, cleared_columns, judged_of_recorded
from realtime.ledger.outages import Outages, judged, mapped
from realtime.ledger.pool import Pool
from realtime.ledger.progress import Progress
from realtime.ledger.recorded import Cleared, Judged, Recorded
from realtime.ledger.spread import Spread, apart, parted

if TYPE_CHECKING:
    from realtime.boards.catalogue import Catalogue
    from realtime.boards.submissions import Submission
    from realtime.ledger.standing import Standing

log = logging.getLogger(__name__)

PATIENT_TIMEOUT: Final = 3_600.0
"""Seconds after which the client gives up where statement_timeout was raised: imports, views."""

_REBUILD_LOCK: Final = MIGRATION_LOCK + 1
_BUILD_LOCK: Final = MIGRATION_LOCK + 2


class OutboxRow(NamedTuple):
    """A change whose way to the store is not known to have ended."""

    id: int
    kind: str
    user_ids: list[int]
    source: int = 1
    """The leaderboard whose submissions they handed in."""


class Ledger:
    """One process's way to PostgreSQL: at most `connections`, besides the one of the health check.

    One for each of `lanes`, and one more, record scores and do nothing else: whatever the others are busy with, scores
    come in.
    """

    def __init__(self, dsn: str, *, connections: int = 8, lanes: int = 0) -> None:
        self.clock = Clock()
        self.outages = Outages()
        self.health = HealthCheck(self._beat)
        self._sql = resources.queries()
        self.hosts = Hosts(dsn, self._turned)
        self.hear = self.hosts.hear
        self.progress = Progress()
        self._is_replicated = False  # whether commits wait for a standby
        apart = min(lanes + 1, connections - 1) if lanes else 0
        self._sizes = connections - apart, apart
        self._pooled: bool | None = None  # whether a pooler stands in between; None until that is known
        self._serving: Pool | None = None
        self._intake: Pool | None = None  # the same where there are no lanes
        self._asked: bounds.Connection | None = None  # the health check's own connection
        self._asking = asyncio.Lock()
        self.hiding = Hiding(self)
        self.spread: Spread | None = None
        """What is otherwise where tables of leaderboards are spread over several nodes; None where they are not."""

    async def open(self) -> None:
        """Prepares the pools and reads the clock. Raises LedgerUnavailable; for an unfit database, LedgerUnfit."""
        await self._beat()
        assert self._pooled is not None
        of_both: dict[str, Any] = {"pooled": self._pooled, "health": self.health, "outages": self.outages}
        serving, apart = self._sizes
        self._serving = self._intake = Pool(self.hosts, size=serving, kind=bounds.SERVING, **of_both)
        if apart:
            self._intake = Pool(self.hosts, size=apart, kind=bounds.INTAKE, **of_both)
        for pool in self._pools():
            await pool.open()
        ((is_spread,),) = await self.fetch("is_spread")
        self.spread = Spread(self._sql) if is_spread else None

    def _pools(self) -> set[Pool]:
        return {pool for pool in (self._serving, self._intake) if pool is not None}

    async def aclose(self) -> None:
        """Closes every connection; one that hangs is cut off after a moment."""
        if self._asked is not None:
            self._asked.terminate()
        self.hosts.close()
        pools = self._pools()
        self._serving = self._intake = None
        try:
            async with asyncio.timeout(3):
                await asyncio.gather(*(pool.aclose() for pool in pools))
        except TimeoutError:
            for pool in pools:
                pool.terminate()

    @property
    def standing(self) -> Standing | None:
        """Which primary it is; None before it was asked."""
        return self.hosts.newest

    def connection(self) -> AbstractAsyncContextManager[asyncpg.Connection[Any]]:
        """A connection. Errors that mean "not now" leave as LedgerUnavailable."""
        return _opened(self._serving).lent()

    def transaction(self, kind: Bounds = bounds.SERVING) -> AbstractAsyncContextManager[asyncpg.Connection[Any]]:
        """A connection in a transaction of that kind. Errors that mean "not now" leave as LedgerUnavailable."""
        return _opened(self._serving).transaction(kind)

    def query(self, name: str, source: int = DEFAULT.id) -> str:
        """The text of the query called `name` under sql/queries, for whoever asks of one source alone: of that one."""
        return self._sql[name] if self.spread is None or source == DEFAULT.id else self.spread.query(name)

    async def fetch(self, name: str, *args: Any, source: int = DEFAULT.id) -> list[asyncpg.Record]:
        """The rows of the query called `name`; see `query`."""
        async with self.connection() as connection:
            return await connection.fetch(self.query(name, source), *args)

    async def _beat(self) -> None:
        """Asks PostgreSQL what time it is, on a connection that nobody else uses. Raises LedgerUnavailable."""
        for pool in self._pools():
            await pool.give_back()
        async with self._asking:
            turns = self.hosts.turns
            self.hosts.glance()
            try:
                with mapped():
                    await self._read_clock()
            except BaseException:
                if self._asked is not None:
                    self._asked.terminate()
                self._asked = None
                if turns == self.hosts.turns:
                    self.hosts.doubt(self.hosts.chosen)
                for pool in self._pools():  # who hung may hang on: those that lie idle are made anew as well
                    await pool.expire()
                raise

    def _turned(self) -> None:
        """The primary is another than before: whatever leads to that one is ended, and what it was just saying lost."""
        self.progress.forget()
        is_current = self.hosts.is_current
        self.health.end(lambda connection: not is_current(connection))
        if self._asked is not None and not is_current(self._asked):
            self._asked.terminate()

    async def _read_clock(self) -> None:
        if self._asked is None or self._asked.is_closed():
            self._asked = await self.hosts.plain()
        connection = self._asked
        judged = await judge(connection, pooled=self._pooled is not False)
        connection.standing = judged.standing  # behind a pooler it may be another than when it was opened
        self.hosts.admit(connection.host, judged)
        self._is_replicated = judged.is_replicated
        self.progress.take(judged.log_position, judged.asked)
        if self._pooled is None:
            self._pooled = judged.pid != connection.get_server_pid()
            if self._pooled:
                log.info("a pooler stands before PostgreSQL", extra={"action": "pooler"})
        self.clock.take(judged.moment, judged.asked, judged.answered)

    async def durability_warnings(self) -> list[str]:
        """What about this PostgreSQL's settings makes "acknowledged" promise less than it says."""
        rows = await self.fetch("durability")
        return [f"{name} is off: a crash of the database may lose acknowledged scores" for (name,) in rows]

    # Submissions -----------------------------------------------------------------------------------------------

    async def record_batch(
        self,
        batch: Sequence[Submission],
        cleared: Sequence[int],
        *,
        around: bool = False,
        kind: str = "scores",
        told: str | None = None,
        revision: int | None = None,
        connection: asyncpg.Connection[Any] | None = None,
    ) -> Recorded:
        """Records submissions of `default` in one statement, committed when this returns; clears outbox rows the store
        has, where the content that was `told` of them is current.

        No (user, submission id) pair may be twice in `batch`. `kind` is the outbox row's. `revision` is that of the
        catalogue by which they count on the published boards alone. Raises CatalogueMoved where it has another by now,
        RowRefused where PostgreSQL refuses what it holds, TransactionConflict where others were in the way,
        LedgerLocked where somebody's lock is, at once if `around`: then nothing was recorded.
        Where `connection` is given, it happens in the transaction that is open there, under whatever bounds that has.
        """
        args = (*columns(batch), cleared, kind, told, revision)
        rows = await self._recording("record_batch", args, around=around, connection=connection)
        if not rows:
            raise CatalogueMoved
        if rows[0]["outbox_id"] is None and connection is None:
            await self.settled()
        return assembled(batch, rows[0])

    async def record_scores(
        self,
        batch: Sequence[Submission],
        catalogue: Catalogue,
        cleared: Sequence[Cleared] = (),
        *,
        around: bool = False,
        kind: str = "scores",
        connection: asyncpg.Connection[Any] | None = None,
    ) -> Recorded:
        """Records submissions to any leaderboards of `catalogue` in one statement, committed when this returns; clears
        outbox rows that the store has.

        No triple of leaderboard, user and submission id may be twice in `batch`, and every leaderboard must take
        submissions. Raises WindowsMissing where windows must be made first. Otherwise as `record_batch`.
        """
        given = Columns(batch, catalogue)
        spread = None if self.spread is None else self.spread.of_batch(batch, catalogue)
        if self.spread is not None:
            cleared = self.spread.kept(cleared)
        args = (*given.args, kind, catalogue.revision, *cleared_columns(cleared))
        rows = await self._recording("record_scores", args, around=around, connection=connection, spread=spread)
        if not rows:
            raise CatalogueMoved
        if rows[0]["lacking_sources"] is not None:
            raise WindowsMissing(rows[0]["lacking_sources"], rows[0]["lacking_moments"])
        if spread is not None and connection is None and (over := spread.over(rows[0])):
            # Once more: who read in between, saw the window's new version, and may have seen the scores of before.
            await self.fetch("spread_ended", *over)
        return Assembly(batch, given, rows[0], catalogue).recorded()

    async def ensure_windows(self, missing: WindowsMissing) -> bool:
        """Makes windows; returns whether the catalogue has moved with it."""
        return bool((await self.fetch("windows_ensured", missing.sources, missing.moments))[0][0])

    async def _recording(
        self,
        query: str,
        args: Sequence[Any],
        *,
        around: bool,
        connection: asyncpg.Connection[Any] | None,
        spread: Spread | None = None,
    ) -> list[Any]:
        if connection is not None:
            with judged():
                if spread is not None:
                    return await spread.recorded(connection, args)
                return await connection.fetch(self._sql[query], *args, timeout=PATIENT_TIMEOUT)
        intake = _opened(self._intake)
        kind = bounds.AROUND if around else intake.kind
        async with intake.transaction(kind) if around or spread is not None else intake.lent() as own:
            with judged():
                if spread is not None:
                    return await spread.recorded(own, args)
                return await own.fetch(self._sql[query], *args)

    def apart(self, sources: Collection[int]) -> Sequence[int]:
        """One source for each statement that it takes to ask of all of these."""
        return [DEFAULT.id] if self.spread is None else apart(sources)

    def parted(self, batch: Sequence[Submission], catalogue: Catalogue) -> list[Sequence[Submission]]:
        """A batch as those that one statement each records: where leaderboards are spread, one for each source."""
        return [batch] if self.spread is None else parted(batch, catalogue)

    async def settled(self) -> None:
        """Waits until a synchronous standby has all that was found here. Raises LedgerUnavailable.

        A commit for which nobody waits any more, of a server that was killed or of a wait that was broken off, is seen
        by everybody, and may be on this server alone. A statement that writes nothing waits for nobody.
        """
        if self._is_replicated:
            async with _opened(self._intake).lent() as connection:
                await connection.fetch(self._sql["settled"])

    async def locked(self, players: Collection[tuple[int, int]]) -> set[tuple[int, int]]:
        """Those players, each by source and user id, whose head (of `default`: total) somebody else has locked."""
        try:
            async with _opened(self._intake).transaction(bounds.AROUND) as connection:
                there = set() if self.spread is None else await self.spread.locked(connection, players)
                columns = [[player[place] for player in players] for place in range(2)]
                rows = await connection.fetch(self._sql["locked_players"], *columns)
        except LedgerLocked:
            return set(players)  # the table is
        return there | {(source, user_id) for source, user_id in rows}

    async def recorded_scores(self, batch: Sequence[Submission], catalogue: Catalogue) -> list[Judged]:
        """What has become of submissions that are recorded, or that met a concurrent twin; `gone` where neither."""
        args, rows = as_recorded(batch, catalogue), None
        if self.spread is not None and (spread := self.spread.of_batch(batch, catalogue)) is not None:
            async with self.connection() as connection:
                rows = await spread.recorded_scores(connection, args)
        rows = rows if rows is not None else await self.fetch("recorded_scores", *args)
        await self.settled()
        return judged_of_recorded(batch, rows, catalogue)

    # What the store is told ------------------------------------------------------------------------------------

    async def standings_of(self, user_ids: Collection[int], live: Sequence[Board]) -> dict[Board, list[Row]]:
        """The current rows of users on `live` boards, absolute."""
        weeks = [board.week for board in live if board.week is not None]
        rows: dict[Board, list[Row]] = {board: [] for board in live}
        for user_id, week, version, score in await self.fetch("standings_of", list(user_ids), weeks):
            rows[ALL_TIME if week is None else week_of(week)].append(Row(user_id, version, score))
        return rows

    async def profiles_of(self, user_ids: Collection[int]) -> list[Profile]:
        """What boards show of users."""
        rows = await self.fetch("profiles_of", list(user_ids))
        return [Profile(user_id, version, username) for user_id, username, version in rows]

    @asynccontextmanager
    async def rebuild_lease(self, partition: str = "") -> AsyncIterator[bool]:
        """Whether this process alone may rebuild a partition of the store, during the block; False while another does.

        Who stands still loses the lease. What it tells the store when it goes on is refused: the next one has begun a
        later epoch, and that is the fence. Raises LedgerUnavailable.
        """
        with self.outages.mapped():
            lock = _REBUILD_LOCK + (1 + int(partition[1:]) if partition else 0)
            async with lease.held(self.hosts.plain, lock) as is_held:
                yield is_held

    @asynccontextmanager
    async def build_lease(self) -> AsyncIterator[bool]:
        """Whether this process alone may build standings, during the block; False while another does.

        Who stands still loses the lease; what it does when it goes on is right all the same. Raises LedgerUnavailable.
        """
        with self.outages.mapped():
            async with lease.held(self.hosts.plain, _BUILD_LOCK) as is_held:
                yield is_held

    async def next_epoch(self, run: str, after: int = 0) -> int:
        """A number for a new generation of the content of `run`, never given out before, and beyond `after`."""
        rows = await self.fetch("next_epoch", run, after)
        if not rows:
            raise LedgerUnavailable("PostgreSQL was restored, which is being noticed")
        return int(rows[0]["n"])

    async def pages(self, name: str, *args: Any, size: int) -> AsyncIterator[list[asyncpg.Record]]:
        """The rows of a query in lists of `size`, each in a statement of its own, which takes the user id that the one
        before ended with, and how many. Whoever stops in between holds nothing."""
        after = 0
        while rows := await self.fetch(name, *args, after, size):
            yield rows
            after = rows[-1]["user_id"]

    # Outbox ----------------------------------------------------------------------------------------------------

    async def clear_outbox(self, ids: Sequence[int], told: str | None = None, partition: str = "") -> None:
        """Removes rows that the store's content of epoch `told` knows of; where another is current by now they stay.

        All are of leaderboards that have their boards in `partition`.
        """
        if partition and self.spread is not None:
            await self.clear_told([(partition, told, ids)])
        elif partition:
            await self.fetch("contents_outbox_clear", ids, told, partition)
        else:
            await self.fetch("outbox_clear", ids, told)

    async def clear_told(self, cleared: Sequence[tuple[str, str | None, Sequence[int]]]) -> None:
        """The same, of several contents, each with its partition: see `recorded.Cleared`."""
        if self.spread is not None:
            cleared = self.spread.kept(cleared)
            async with self.transaction() as connection:
                await self.spread.clear(connection)
        await self.fetch("outbox_told", *cleared_columns(cleared))

    async def outbox(self, *, older_than: float, limit: int) -> list[OutboxRow]:
        """Up to `limit` rows waiting for more than `older_than` seconds, oldest first. Nobody holds them: where two
        take the same row, the second tells the store nothing new."""
        rows = await self.fetch("outbox_waiting", older_than, limit)
        if self.spread is not None:
            rows += self.spread.found(await self.fetch("spread_outbox_waiting", older_than, limit))
        return sorted(OutboxRow(*row) for row in rows)[:limit]

    async def outbox_state(self) -> tuple[int, float]:
        """How many rows wait, and the age of the oldest in seconds."""
        ((waiting, age),) = await self.fetch("outbox_state")
        if self.spread is not None:
            ((of_others, oldest),) = await self.fetch("spread_outbox_state")
            return waiting + of_others, max(age or 0.0, oldest or 0.0)
        return waiting, age

    async def waiting_of(self, user_ids: Collection[int]) -> set[int]:
        """Those of users who have a change whose way to the store is not known to have ended."""
        names = ("drift_waiting",) if self.spread is None else ("drift_waiting", "spread_drift_waiting")
        return {user_id for name in names for (user_id,) in await self.fetch(name, list(user_ids))}


def _opened(pool: Pool | None) -> Pool:
    if pool is None:
        raise LedgerUnavailable("the ledger is not open")
    return pool
