"""The ledger: PostgreSQL through asyncpg.

Owns the pool, and the statements under `sql/queries`. Must never hand out asyncpg's exceptions for a database that is
away (`failures` maps them), nor hold a lock beyond one transaction. Assumes PostgreSQL 14 or later, migrated.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import date
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import asyncpg

from realtime import resources
from realtime.boards import ALL_TIME, Board, monday_of
from realtime.clock import Clock
from realtime.errors import LedgerUnavailable
from realtime.failures import Failures, mapped
from realtime.migrations import MIGRATION_LOCK
from realtime.pulse import Pulse
from realtime.standings import Profile, Row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from realtime.submissions import Submission

log = logging.getLogger(__name__)

STATEMENT_TIMEOUT: Final = 10.0
"""Seconds after which PostgreSQL gives up a statement of the serving path."""

PATIENT_TIMEOUT: Final = 3_600.0
"""Seconds after which the client gives up where statement_timeout was raised: imports, views."""

_REBUILD_LOCK: Final = MIGRATION_LOCK + 1


class Recorded(NamedTuple):
    """What the ledger says of one submission; see `record_batch` in sql/queries/ledger.sql."""

    user_id: int
    outcome: str
    week: date
    total_score: int | None
    total_version: int | None
    hidden: bool
    week_score: int | None
    week_version: int | None
    new_username: str | None
    user_version: int | None
    outbox_id: int | None


class Twin(NamedTuple):
    """What became of a submission whose id was in an unfinished statement; see `recorded`."""

    user_id: int
    outcome: str
    total_score: int | None
    week_score: int | None


class OutboxRow(NamedTuple):
    """A change whose way to the store is not known to have ended."""

    id: int
    kind: str
    user_ids: list[int]
    weeks: list[date]


_SERVING: Final = {
    "statement_timeout": str(int(STATEMENT_TIMEOUT * 1000)),
    "jit": "off",
    "timezone": "'UTC'",
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
}
"""Settings of a serving connection, set by statement and not at startup: a pooler in between may refuse those.

JIT costs more than it gives on short statements. One plan for all batch sizes, by index: planning anew costs a small
batch as much as running it, and a plan made while tables were empty must not go on scanning them afterwards.
UTC keeps a forgotten literal from depending on the host. Behind a pooler they are set anew, and LOCAL, in each
transaction: a session there is anybody's.
"""


async def _configure(connection: asyncpg.Connection[Any]) -> None:
    await connection.execute("; ".join(f"SET {name} = {value}" for name, value in _SERVING.items()))


_SERVING_LOCALLY: Final = "; ".join(f"SET LOCAL {name} = {value}" for name, value in _SERVING.items())


async def _is_pooled(dsn: str) -> bool:
    """Whether a pooler stands in between: then the process that answers is not the one that was connected to."""
    connection = await asyncpg.connect(dsn, timeout=5, statement_cache_size=0)
    try:
        async with connection.transaction():
            answering = await connection.fetchval("SELECT pg_backend_pid()")
        return bool(answering != connection.get_server_pid())
    finally:
        await connection.close(timeout=5)


class Ledger:
    """One process's way to PostgreSQL."""

    def __init__(self, dsn: str, *, connections: int = 8) -> None:
        self.clock = Clock()
        self.failures = Failures()
        self._sql = resources.queries()
        self._dsn = dsn
        self._connections = connections
        self._pooled = False  # whether a pooler stands in between
        self._pool: asyncpg.Pool[Any] | None = None  # once that is known
        self._warm: list[Any] = []  # connections of the pool at hand, the one used last at the end
        self.pulse = Pulse(self._beat)
        self._felt: asyncpg.Connection[Any] | None = None  # the pulse's own connection

    def _new_pool(self) -> asyncpg.Pool[Any]:
        # Behind a pooler a statement prepared in one transaction may be unknown in the next.
        differing: dict[str, Any] = {"statement_cache_size": 0} if self._pooled else {"init": _configure}
        return asyncpg.create_pool(
            self._dsn,
            min_size=0,
            max_size=self._connections,
            timeout=5,
            command_timeout=STATEMENT_TIMEOUT + 2,
            max_inactive_connection_lifetime=60,
            reset=_keep_settings,
            **differing,
        )

    async def open(self) -> None:
        """Prepares the pool and reads the clock. Raises LedgerUnavailable."""
        with mapped():
            if self._pool is None:
                self._pooled = await _is_pooled(self._dsn)
                if self._pooled:
                    log.info("a pooler stands before PostgreSQL", extra={"action": "pooler"})
                self._pool = self._new_pool()
            await self._pool
        await self.read_clock()

    async def aclose(self) -> None:
        """Closes every connection; one that hangs is cut off after a moment."""
        if self._felt is not None:
            self._felt.terminate()
        pool, self._pool = self._pool, None  # from now on nobody keeps one at hand
        if pool is None:
            return
        try:
            async with asyncio.timeout(3):
                await self._give_back(pool)
                await pool.close()
        except TimeoutError:
            pool.terminate()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[asyncpg.Connection[Any]]:
        """A connection of the pool. Errors that mean "not now" leave as LedgerUnavailable."""
        pool = self._pool
        if pool is None:
            raise LedgerUnavailable("the ledger is not open")
        with self.failures.mapped():
            async with self.pulse.lent(lambda: self._acquired(pool), STATEMENT_TIMEOUT) as acquired:
                try:
                    connection = cast("asyncpg.Connection[Any]", acquired)
                    if self._pooled:
                        async with connection.transaction():
                            await connection.execute(_SERVING_LOCALLY)
                            yield connection
                    else:
                        yield connection
                except BaseException:
                    await pool.release(acquired)
                    raise
            if self.pulse.is_awaited or pool is not self._pool:
                await pool.release(acquired)
            else:
                self._warm.append(acquired)

    async def _acquired(self, pool: asyncpg.Pool[Any]) -> Any:
        """A connection at hand, else one of the pool: getting and releasing one there takes 0.2 ms while idle."""
        while self._warm:
            connection = self._warm.pop()
            with suppress(asyncpg.InterfaceError):  # one that ended meanwhile: the pool has it back, and it is no more
                if not connection.is_closed():
                    return connection
            await pool.release(connection)
        return await pool.acquire()

    async def _give_back(self, pool: asyncpg.Pool[Any]) -> None:
        """Leaves what is at hand to the pool, which ends what is idle for long, or has expired."""
        for _ in range(len(self._warm)):
            if self._warm:
                await pool.release(self._warm.pop(0))

    def query(self, name: str) -> str:
        """The text of the query called `name` under sql/queries."""
        return self._sql[name]

    async def fetch(self, name: str, *args: Any) -> list[asyncpg.Record]:
        """The rows of the query called `name` under sql/queries."""
        async with self.connection() as connection:
            return await connection.fetch(self._sql[name], *args)

    async def read_clock(self) -> None:
        """Measures PostgreSQL's clock against monotonic time, half the round trip taken off."""
        began = monotonic()
        ((moment,),) = await self.fetch("moment")
        ended = monotonic()
        self.clock.set(moment, (began + ended) / 2)

    async def _beat(self) -> None:
        """Asks PostgreSQL something trivial on a connection of its own. Raises LedgerUnavailable."""
        if self._pool is not None:
            await self._give_back(self._pool)
        try:
            with mapped():
                if self._felt is None:
                    self._felt = await asyncpg.connect(self._dsn, statement_cache_size=0)
                await self._felt.execute("SELECT")
        except BaseException:
            if self._felt is not None:
                self._felt.terminate()
            self._felt = None
            if self._pool is not None:  # who hung may hang on: those that lie idle are made anew as well
                await self._pool.expire_connections()
            raise

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
        kind: str = "scores",
        connection: asyncpg.Connection[Any] | None = None,
    ) -> list[Recorded]:
        """Records submissions in one statement, committed when this returns; clears outbox rows the store has.

        No (user, submission id) pair may be twice in `batch`. `kind` is the outbox row's. Raises asyncpg's
        CheckViolationError or NumericValueOutOfRangeError where a sum leaves its range, DeadlockDetectedError where
        others were in the way: then nothing was recorded. Where `connection` is given, it happens in the transaction
        that is open there, under whatever statement_timeout that has.
        """
        args = (*_columns(batch), cleared, kind)
        if connection is None:
            (row,) = await self.fetch("record_batch", *args)
        else:
            (row,) = await connection.fetch(self._sql["record_batch"], *args, timeout=PATIENT_TIMEOUT)
        return _assembled(batch, row)

    async def recorded(self, batch: Sequence[Submission]) -> list[Twin]:
        """What became of submissions that met a concurrent twin."""
        return [Twin._make(row) for row in await self.fetch("recorded", *_columns(batch))]

    # What the store is told ------------------------------------------------------------------------------------

    async def standings_of(self, user_ids: Collection[int], live: Sequence[Board]) -> dict[Board, list[Row]]:
        """The current rows of users on `live` boards, absolute."""
        weeks = [board.week for board in live if board.week is not None]
        rows: dict[Board, list[Row]] = {board: [] for board in live}
        for user_id, week, version, score in await self.fetch("standings_of", list(user_ids), weeks):
            rows[ALL_TIME if week is None else Board(week)].append(Row(user_id, version, score))
        return rows

    async def profiles_of(self, user_ids: Collection[int]) -> list[Profile]:
        """What boards show of users."""
        rows = await self.fetch("profiles_of", list(user_ids))
        return [Profile(user_id, version, username) for user_id, username, version in rows]

    @asynccontextmanager
    async def rebuild_lease(self) -> AsyncIterator[asyncpg.Connection[Any] | None]:
        """A connection in a transaction that alone may rebuild; None while another process does.

        The lock goes with the transaction, so it also works behind a pooler and never outlives its holder. Read
        committed on purpose: a cursor opened after the store was cleared must see all that was committed until then.
        """
        async with self.connection() as connection, connection.transaction():
            await connection.execute("SET LOCAL statement_timeout = 0")
            held = await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", _REBUILD_LOCK)
            yield connection if held else None

    async def next_epoch(self, run: str) -> int:
        """A number for a new generation of the content of `run`, never given out before."""
        ((n,),) = await self.fetch("next_epoch", run)
        return int(n)

    async def stream(
        self, connection: asyncpg.Connection[Any], name: str, *args: Any, size: int
    ) -> AsyncIterator[list[asyncpg.Record]]:
        """The rows of a query in lists of `size`, through a cursor in the connection's open transaction."""
        with self.failures.mapped():
            cursor = await connection.cursor(self._sql[name], *args)
            while rows := await cursor.fetch(size):
                yield rows

    # Outbox ----------------------------------------------------------------------------------------------------

    async def clear_outbox(self, ids: Sequence[int]) -> None:
        """Removes rows whose content the store has."""
        await self.fetch("outbox_clear", ids)

    @asynccontextmanager
    async def outbox(self, *, older_than: float, limit: int) -> AsyncIterator[list[OutboxRow]]:
        """Up to `limit` rows waiting for more than `older_than` seconds, locked; removed when the block ends well."""
        async with self.connection() as connection, connection.transaction():
            rows = [OutboxRow(*row) for row in await connection.fetch(self._sql["outbox_take"], older_than, limit)]
            yield rows
            await connection.execute(self._sql["outbox_clear"], [row.id for row in rows])

    async def outbox_state(self) -> tuple[int, float]:
        """How many rows wait, and the age of the oldest in seconds."""
        ((waiting, age),) = await self.fetch("outbox_state")
        return waiting, age


def _assembled(batch: Sequence[Submission], row: asyncpg.Record) -> list[Recorded]:
    """The lists that `record_batch` gives, as one value for each submission."""
    this_week, outbox_id = row["week"], row["outbox_id"]
    totals = dict(zip(row["users"] or (), _listed(row, "totals", "versions", "hidden"), strict=True))
    new = dict(zip(row["new_users"] or (), _listed(row, "usernames", "user_versions"), strict=True))
    keys, scores = _listed(row, "week_users", "weeks"), _listed(row, "week_scores", "week_versions")
    weeks = dict(zip(keys, scores, strict=True))
    verdicts = _listed(row, "verdicts", "verdict_weeks", "seen_totals", "seen_weeks")
    refused = dict(zip(row["ords"] or (), verdicts, strict=True))
    # Where nobody met a twin, what is not refused is recorded.
    fresh = None if row["fresh_users"] is None else set(_listed(row, "fresh_users", "fresh_ids"))
    if fresh is None and not totals:
        fresh = set()
    recorded: list[Recorded] = []
    for place, (user_id, submission_id, _, _, created_at) in enumerate(batch, 1):
        outcome, week, seen_total, seen_week = refused.get(place) or (
            "accepted" if fresh is None or (user_id, submission_id) in fresh else "twin",
            this_week if created_at is None else monday_of(created_at),
            None,
            None,
        )
        total_score, total_version, hidden = totals.get(user_id, (seen_total, None, False))
        week_score, week_version = weeks.get((user_id, week), (seen_week, None))
        username, user_version = new.get(user_id, (None, None))
        recorded.append(
            Recorded(
                user_id, outcome, week, total_score, total_version, hidden, week_score, week_version, username,
                user_version, outbox_id,
            )
        )  # fmt: skip
    return recorded


def _listed(row: asyncpg.Record, *names: str) -> Iterator[tuple[Any, ...]]:
    """What lists of a row say together, thing by thing."""
    return zip(*(row[name] or () for name in names), strict=True)


def _columns(batch: Sequence[Submission]) -> tuple[list[Any], ...]:
    return tuple(map(list, zip(*batch, strict=True)))


async def _keep_settings(connection: asyncpg.Connection[Any]) -> None:
    """Nothing: every setting beyond `_configure` is LOCAL to its transaction, so no round trip is owed on release."""
