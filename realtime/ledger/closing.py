"""Closing: when a week is over, and its materialized view from then on.

Owns which weeks have ended, how their views are named, made and filled, and the count by which it is known what a view
lacks. Must never ask any clock but PostgreSQL's, put input into DDL, or wait for a reader of a view. Assumes that
whatever changes scores, names or bans writes to `closed_weeks` in the same statement (see `ledger.sql`, `people.sql`).

A week ends in three steps, none of which trusts a moment:

1. PostgreSQL's clock says that the week is over, and the row is there, committed. Every statement that sees it adds one
   to the row's `changes` where it changes the week's scores, in the transaction that changes them.
2. Whoever may have begun before that commit, and so counts nothing, has ended: they hold a lock on `closed_weeks`,
   which they took before they looked at any row.
3. The count is read, then the view is filled, and the row says how much of the count it holds.

From then on a view is right exactly where these two numbers are the same: there is no digest that could collide, and no
late score that nobody counted, whatever the clocks did. A week that turns out not to be over is withdrawn: its view
answers no more, and it ends again in these steps.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from contextlib import AbstractAsyncContextManager
from datetime import date
from typing import Any, Final, NamedTuple, Protocol

from realtime.boards.board import Board, week_of
from realtime.boards.windows import CLOSE_GRACE
from realtime.errors import LedgerUnavailable, NotOver
from realtime.ledger.bounds import VIEW, Bounds

log = logging.getLogger(__name__)

_LEISURELY: Final = "SET LOCAL max_parallel_workers_per_gather = 0; SET LOCAL max_parallel_maintenance_workers = 0"
"""A view takes one core at most: submissions have the others. (What is scanned is what must be, in any plan.)"""

WRITERS: Final = 3.0
"""Seconds that one attempt waits for transactions which began before a week's end."""

PAUSE: Final = 0.2
"""Seconds between two looks at what others do."""

PATIENCE: Final = 60.0
"""Seconds until a view that others seem to make, or keep from being made, is given up for now."""

LOCK: Final = 0x7765656B << 24
"""Advisory locks from this number on: one for each week."""


class Ledger(Protocol):
    """What closing needs of PostgreSQL."""

    def transaction(self, kind: Bounds) -> AbstractAsyncContextManager[Any]: ...
    def query(self, name: str) -> str: ...
    async def fetch(self, name: str, *args: Any) -> list[Any]: ...


class State(NamedTuple):
    """What there is of a week, by PostgreSQL."""

    is_over: bool
    has_scores: bool
    is_too_old: bool
    """It lies before everything that was recorded."""
    answers: bool
    """Its view is there and answers for it."""


def view_of(board: Board) -> str:
    """Name of a closed week's materialized view: made of digits, safe as an SQL identifier."""
    assert board.week is not None
    return f"leaderboard_{board.id}"


class Closing:
    """Ends weeks and fills their views, one view at a time in a process."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._turn = asyncio.Semaphore(1)

    async def state(self, board: Board) -> State:
        """What there is of a week. Raises LedgerUnavailable."""
        (row,) = await self._ledger.fetch("week_state", board.week, view_of(board), CLOSE_GRACE)
        return State(*row)

    async def close(self, board: Board) -> None:
        """Ends a week that is over: its view answers for it. Waits while another process is at it, holding nothing.

        Raises NotOver, LedgerUnavailable.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + PATIENCE
        while True:
            await self._ledger.fetch("week_ends", board.week, CLOSE_GRACE)
            await self.fill(board)
            state = await self.state(board)
            if state.answers:
                return
            if not state.is_over:
                raise NotOver(board.id)
            if loop.time() > until:
                raise LedgerUnavailable(f"{board.id} is being made, or kept from being made, by others")
            await asyncio.sleep(PAUSE)

    async def fill(self, board: Board) -> None:
        """Brings the view of a week that has ended up to date; nothing where it is, or where another process is at it.

        Raises LedgerUnavailable.
        """
        async with self._turn, self._ledger.transaction(VIEW) as connection:
            if not await self._is_ours(connection, board):
                return
            counted = await connection.fetchrow(self._ledger.query("week_counted"), board.week, view_of(board))
            if counted is None or counted["changes"] is None:
                return
            if counted["holds"] is None:
                if not await self._writers_ended(connection):
                    return
                counted = await connection.fetchrow(self._ledger.query("week_counted"), board.week, view_of(board))
            if counted["is_whole"] and counted["holds"] == counted["changes"]:
                return
            if counted["is_whole"] and counted["beside_readers"]:
                await self._refresh(connection, board)
            else:
                await self._make(connection, board)
            filled = self._ledger.query("week_filled").format(view=view_of(board))
            await connection.execute(filled, board.week, counted["changes"], timeout=VIEW.statement)
        log.info("%s is filled", board.id, extra={"action": "week"})

    async def _is_ours(self, connection: Any, board: Board) -> bool:
        """Whether nobody else is at this week, until the transaction's end."""
        assert board.week is not None
        return bool(await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", LOCK + board.week.toordinal()))

    async def _writers_ended(self, connection: Any) -> bool:
        """Whether all who began before now have ended, within a moment."""
        query = self._ledger.query("week_writers")
        writers = await connection.fetchval(query, None)
        until = asyncio.get_running_loop().time() + WRITERS
        while writers := writers and await connection.fetchval(query, writers):
            if asyncio.get_running_loop().time() > until:
                return False
            await asyncio.sleep(PAUSE / 10)
        return True

    async def _make(self, connection: Any, board: Board) -> None:
        view, ends = view_of(board), board.ends
        assert ends is not None
        await connection.execute(_LEISURELY)
        await connection.execute(f"DROP MATERIALIZED VIEW IF EXISTS {view}")
        made = self._ledger.query("week_view").format(view=view, starts=board.starts.isoformat(), ends=ends.isoformat())
        await connection.execute(made, timeout=VIEW.statement)
        for index in ("UNIQUE INDEX ON {} (user_id)", "UNIQUE INDEX ON {} (place)", "INDEX ON {} (score)"):
            await connection.execute(f"CREATE {index.format(view)}", timeout=VIEW.statement)

    async def _refresh(self, connection: Any, board: Board) -> None:
        """Beside whoever reads the view, in a transaction of any length: they see the rows as they were."""
        await connection.execute(_LEISURELY)
        await connection.execute("SET LOCAL enable_seqscan = on")  # the old and the new rows are compared, all of them
        await connection.execute(f"REFRESH MATERIALIZED VIEW CONCURRENTLY {view_of(board)}", timeout=VIEW.statement)

    # What is to be done ----------------------------------------------------------------------------------------

    async def unopened(self, limit: int) -> list[Board]:
        """Up to `limit` weeks that are over, have scores, and have no view yet. Raises LedgerUnavailable."""
        return [week_of(week) for (week,) in await self._ledger.fetch("weeks_unopened", CLOSE_GRACE, limit)]

    async def behind(
        self, limit: int, *, among: Collection[Board] | None = None, importing: bool = False
    ) -> list[Board]:
        """Weeks whose view lacks changes, or of whose content the store has not heard: all, or those `among` some.

        With `importing` those as well that an import is just changing. Raises LedgerUnavailable.
        """
        weeks = None if among is None else [board.week for board in among]
        return [week_of(week) for (week,) in await self._ledger.fetch("weeks_behind", weeks, limit, importing)]

    async def held(self, board: Board) -> int | None:
        """How many changes the view holds: for `told`, once the store has heard of them. Raises LedgerUnavailable."""
        rows = await self._ledger.fetch("week_counted", board.week, view_of(board))
        return rows[0]["holds"] if rows else None

    async def told(self, board: Board, held: int, content: str | None) -> None:
        """The store's content of that epoch heard what the view had when it held so many changes; nothing where other
        content is current. Raises LedgerUnavailable."""
        await self._ledger.fetch("week_told", board.week, held, content)

    async def early(self) -> list[tuple[Board, int]]:
        """Weeks that count as over and are not, with their versions. Raises LedgerUnavailable."""
        rows = await self._ledger.fetch("weeks_early", CLOSE_GRACE)
        return [(week_of(week), version) for week, version in rows]

    async def withdraw(self, board: Board, version: int) -> None:
        """Takes back that a week is over, where `version` stands. Raises LedgerUnavailable."""
        async with self._ledger.transaction(VIEW) as connection:
            if await self._is_ours(connection, board):
                await connection.execute(self._ledger.query("week_withdrawn"), board.week, version)
                log.warning("%s is not over: a clock was wrong", board.id, extra={"action": "week"})

    # Looking ---------------------------------------------------------------------------------------------------

    async def after(self, board: Board | None) -> Board | None:
        """The next week whose view answers for it, or the first where `board` is None. Raises LedgerUnavailable."""
        rows = await self._ledger.fetch("week_after", date.min if board is None else board.week)
        return week_of(rows[0]["week"]) if rows else None

    async def differing(self, board: Board) -> int | None:
        """Users of whom the view does not say what was recorded; None where changes are on their way.

        Both are of one moment, so this is never wrong, however busy the week is. Raises LedgerUnavailable.
        """
        async with self._ledger.transaction(VIEW) as connection:
            await connection.execute(_LEISURELY)
            counted = await connection.fetchrow(self._ledger.query("week_counted"), board.week, view_of(board))
            if counted is not None and not counted["is_whole"]:
                return int(await connection.fetchval(self._ledger.query("week_players"), board.week))
            query = self._ledger.query("week_compared").format(view=view_of(board))
            found: int | None = await connection.fetchval(query, board.week, timeout=VIEW.statement)
            return found

    async def differing_from_log(self) -> int:
        """Users' weeks that are not the sum of their transactions. Reads the whole log. Raises LedgerUnavailable."""
        async with self._ledger.transaction(VIEW) as connection:
            await connection.execute(f"{_LEISURELY}; SET LOCAL enable_seqscan = on")
            return int(await connection.fetchval(self._ledger.query("log_compared"), timeout=VIEW.statement))

    async def doubt(self, board: Board) -> None:
        """The view of a week is to be made anew. Raises LedgerUnavailable."""
        await self._ledger.fetch("week_doubted", board.week)
