"""Builds: standings made from the log, player by player, beside those that are shown.

Owns the transactions of such a build. Must never read a player's log before the player's head is locked, mark a head
whose rows are not there, or make a window: PostgreSQL's functions do. Assumes that a rule to be built was committed,
and that every batch writes rows of it for players whose head is marked, and for those who are new.

So a player's rows are right whatever happens meanwhile. Who recorded before the rule was there has ended when the walk
begins, and their scores are in the log. Who records later sees the rule; where the head is not marked yet, the walk
will lock it after them and find their scores; where it is, their statement adds to the rows itself. A walk by ids of
transactions would lose those that commit behind it, and one that does not wait those of whoever saw no rule.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple, Protocol

from realtime.boards.leaderboard import DEFAULT
from realtime.boards.windows import Window
from realtime.errors import RowRefused
from realtime.ledger.bounds import BUILD, Bounds
from realtime.ledger.outages import judged
from realtime.ledger.spread import Spread, dropped_with_rows, failed_with_rows

log = logging.getLogger(__name__)

MOMENTS_AT_ONCE: Final = 100
"""Moments for which windows are made in one transaction."""

ROWS_AT_ONCE: Final = 10_000
"""Rows of standings that are no more, removed in one transaction."""

LAST_WRITERS: Final = timedelta(minutes=2)
"""Longer than any transaction may last that writes rows of standings which it took for those that are shown."""

VERSION_OF_DEFAULT: Final = 1_000_000_000
"""What rows of default that are made from the log begin with: more than its published tables ever count to. So once the
store has the boards of all time and of the weeks by these rows, a row of those tables, told by a process that has not
heard of the change yet, is older."""

_OF_DEFAULT: Final = {
    "log": "(SELECT user_id, id, score_added::bigint AS score, created_at, metadata FROM user_score_transactions) AS l"
    " WHERE $1::int = 1",
    "heads": "user_total_scores WHERE $1::int = 1",
    "heads_table": "user_total_scores",
    "heads_own": "$1::int = 1 AND coalesce($4::bigint[], '{}') IS NOT NULL",
    "far": "",
}
_OF_OTHERS: Final = {
    "log": "score_transactions WHERE source = $1",
    "heads": "heads WHERE source = $1",
    "heads_table": "heads",
    "heads_own": "source = $1",
    "far": ", far = far OR user_id = ANY ($4::bigint[])",
}

_SPREAD: Final = {
    **_OF_OTHERS,
    "log": "spread.score_transactions WHERE source = $1",
    "heads": "spread.heads WHERE source = $1",
    "heads_table": "spread.heads",
}

_FAR: Final = "(SELECT array_agg(DISTINCT user_id) FROM counted WHERE abs(score) > 4503599627370495)"
"""Users who have a sum further from zero than 2^52: from there on, what comes is added up before it is recorded."""

_LAST: Final = {
    "order": "created_at DESC, id DESC",
    "counts": "score IS NOT NULL",
    "score": "score",
    "far": "NULL::bigint[]",
}
_OPERATORS: Final = {
    "sum": {**_LAST, "score": "sum(score) OVER of_row", "far": _FAR},
    "count": {**_LAST, "score": "count(*) OVER of_row", "counts": "true"},
    "last": _LAST,
    "best": {**_LAST, "order": "score {}, created_at, id"},
}


class Ledger(Protocol):
    """What a build needs of PostgreSQL."""

    def transaction(self, kind: Bounds = ...) -> AbstractAsyncContextManager[Any]: ...

    spread: Spread | None

    def query(self, name: str, source: int = ...) -> str: ...
    async def fetch(self, name: str, *args: Any, source: int = ...) -> list[Any]: ...


class Rule(NamedTuple):
    """Standings to be made."""

    id: int
    leaderboard: int
    slug: str
    operator: str
    ascending: bool
    kinds: Sequence[str]


class Windows(NamedTuple):
    """The windows of a leaderboard and a kind, in order."""

    starts: list[datetime]
    ends: list[datetime]
    ids: list[int]


class Chunk(NamedTuple):
    """What one transaction of a walk did."""

    last: int | None
    """The last user's id; None where there was nobody left."""
    heads: int
    recorded: int
    """How many submissions were ever recorded, by anybody."""


class Lacking(Exception):
    """Windows must be made first: `moments` are in none."""

    def __init__(self, moments: list[datetime]) -> None:
        super().__init__(f"{len(moments)} moments are in no window")
        self.moments = moments


class Overflow(Exception):
    """Standings cannot be made: a sum leaves its range."""

    def __init__(self, rule: Rule, message: str) -> None:
        super().__init__(message)
        self.rule = rule
        self.message = message


class Retired(NamedTuple):
    """Standings that are no more."""

    id: int
    source: int
    leaderboard: int
    slug: str
    source_slug: str
    failure: str | None
    is_removed: bool
    """Whether the leaderboard is no more either."""


@dataclass(slots=True)
class Build:
    """The standings of one source that are being made, in one round of marks."""

    source: int
    slug: str
    round: int
    rules: list[Rule]
    windows: dict[tuple[int, str], Windows]
    """By leaderboard and kind."""


class Builds:
    """The steps of a build, each a transaction that may be the last: whoever comes next goes on."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def waiting(self) -> list[Build]:
        """What is to be built, the oldest first. Raises LedgerUnavailable."""
        rows = await self._ledger.fetch("builds")
        return [Build(row["source"], row["slug"], row["round"], [], {}) for row in rows]

    async def writers(self, known: list[str] | None = None) -> list[str]:
        """Transactions that record scores now; of those `known` the ones that go on. Raises LedgerUnavailable."""
        ((writers,),) = await self._ledger.fetch("build_writers", known)
        return writers or []

    async def begin(self, build: Build) -> tuple[int, int]:
        """Reads what a build needs; returns how many heads are done, and of how many. Raises LedgerUnavailable."""
        await self.refresh(build)
        (counted,) = await self._fetch("build_counted", build.source, build.source, build.round)
        rows = await self._ledger.fetch("build_begun", build.source, *counted)
        return (rows[0]["done"], rows[0]["todo"]) if rows else (0, 0)

    async def refresh(self, build: Build) -> None:
        """Reads anew which standings are to be made, and their windows: none where another round has begun."""
        rows = await self._ledger.fetch("build_rules", build.source, build.round)
        build.rules = [Rule(*row) for row in rows]
        wanted = {(rule.leaderboard, kind) for rule in build.rules for kind in rule.kinds}
        build.windows = {}
        for leaderboard, kind in sorted(wanted):
            ((starts, ends, ids),) = await self._ledger.fetch("build_windows", leaderboard, kind)
            build.windows[leaderboard, kind] = Windows(starts, ends, ids)

    async def make_windows(self, build: Build, moments: Sequence[datetime]) -> None:
        """Makes the windows that hold these moments, and reads them. Raises LedgerUnavailable."""
        for first in range(0, len(moments), MOMENTS_AT_ONCE):
            some = moments[first : first + MOMENTS_AT_ONCE]
            async with self._ledger.transaction(BUILD) as connection:
                await connection.execute("SELECT ensure_windows($1, $2)", [build.source] * len(some), list(some))
        await self.refresh(build)

    async def chunk(self, build: Build, after: int, limit: int) -> Chunk:
        """Makes the rows of up to `limit` players behind user `after` who have none yet, and marks their heads.

        Raises Lacking, Overflow, LedgerUnavailable: then nothing was done.
        """
        try:
            return await self._chunk(build, after, limit, anew=False)
        except RowRefused as error:
            # Somebody wrote rows of theirs who should not have: they are made anew.
            log.warning("rows of standings that are being made were there: %s", error, extra={"action": "build"})
            return await self._chunk(build, after, limit, anew=True)

    async def _chunk(self, build: Build, after: int, limit: int, *, anew: bool) -> Chunk:
        async with self._ledger.transaction(BUILD) as connection:
            # What a crash loses of it is lost with its marks.
            await connection.execute("SET LOCAL synchronous_commit = off")
            locked = self._query("build_locked", build.source)
            rows = await connection.fetch(locked, build.source, build.round, after, limit)
            users = [user_id for (user_id,) in rows]
            if users:
                far = await self._fill(connection, build, users, anew)
                marked = self._query("build_marked", build.source)
                await connection.execute(marked, build.source, build.round, users, far)
            recorded = await connection.fetchval(self._ledger.query("build_moved"), build.source, len(users))
        return Chunk(users[-1] if users else None, len(users), recorded)

    async def _fill(self, connection: Any, build: Build, users: list[int], anew: bool) -> list[int]:
        """Makes the rows of users whose heads are locked; returns those who have sums far from zero."""
        lacking: set[datetime] = set()
        far: set[int] = set()
        for rule in build.rules:
            query = self._query("build_filled", build.source, **_of(rule))
            if anew:
                await connection.execute(
                    self._ledger.query("build_emptied", build.source), build.source, rule.id, users
                )
            for kind in rule.kinds:
                windows = build.windows[rule.leaderboard, kind]
                try:
                    with judged():
                        found = await connection.fetchrow(query, build.source, rule.id, users, *windows)
                except RowRefused as error:
                    if error.out_of_range:
                        raise Overflow(rule, await self._explained(build, rule, users, windows)) from error
                    raise
                far.update(found["far"] or ())
                if kind != "season":
                    lacking.update(found["lacking"] or ())
        if lacking:
            raise Lacking(sorted(lacking))
        return sorted(far)

    async def _explained(self, build: Build, rule: Rule, users: list[int], windows: Windows) -> str:
        """Whose scores leave their range, for people."""
        async with self._ledger.transaction(BUILD) as connection:  # the other one is lost
            query = self._query("build_overflow", build.source)
            rows = await connection.fetch(query, build.source, rule.id, users, *windows)
        who = f"The scores of user {rows[0][0]} in {rows[0][1]}" if rows else "The scores of a user"
        return (
            f"{who} add up to more than 2^53 - 1, or less than minus that. Correct them, or rank the best, the last or "
            "the count."
        )

    # The end of a build --------------------------------------------------------------------------------------------

    async def fail(self, rule: Rule, why: str) -> None:
        """Gives standings up. Raises LedgerUnavailable."""
        async with self._ledger.transaction(BUILD) as connection:
            if await connection.fetch(self._ledger.query("build_failed"), rule.id, why):
                await connection.execute(self._ledger.query("revision_moved"))

    async def switch(self, build: Build, rule: Rule) -> bool:
        """Shows the standings of a rule from now on; False where a head is not marked yet, or another rule is wanted.

        Raises LedgerUnavailable.
        """
        async with self._ledger.transaction(BUILD) as connection:
            # A ban makes a head that no batch has marked: none does so until this is committed.
            await connection.execute("SELECT while_nobody_is_hidden()")
            if not await connection.fetch(self._ledger.query("build_rules"), build.source, build.round):
                return False
            is_walked = any(one.kinds for one in build.rules)
            unmarked = self._query("build_unmarked", build.source)
            if is_walked and await connection.fetchval(unmarked, build.source, build.round):
                return False
            switched = await connection.fetch(self._ledger.query("build_switched"), rule.id)
            if switched:
                await connection.execute(self._ledger.query("revision_moved"))
        return bool(switched)

    async def untold(self) -> list[str]:
        """Leaderboards whose standings are shown, and of which the store has not heard. Raises LedgerUnavailable."""
        return [slug for (slug,) in await self._ledger.fetch("build_untold")]

    async def told(self, rule: int) -> None:
        """The store shows these standings. Raises LedgerUnavailable."""
        await self._ledger.fetch("build_told", rule)

    # What is no more -----------------------------------------------------------------------------------------------

    async def retired(self, after: timedelta = LAST_WRITERS) -> list[Retired]:
        """Standings that have been no more for a while, and of which something is left. Raises LedgerUnavailable."""
        rows = await self._ledger.fetch("retired_rules", after)
        if self._ledger.spread is not None:
            rows = [*rows, *await failed_with_rows(self._ledger, after)]
        return [Retired(*row) for row in rows]

    async def recent_windows(self, leaderboard: int) -> list[Window]:
        """The windows of a leaderboard whose boards the store may have. Raises LedgerUnavailable."""
        rows = await self._ledger.fetch("recent_windows", leaderboard)
        return [Window(row["kind"], row["name"], row["starts"], row["ends"], row["id"]) for row in rows]

    async def clear(self, retired: Retired) -> bool:
        """Removes some rows of standings that are no more; False where there was none. Raises LedgerUnavailable."""
        args = retired.source, retired.id, ROWS_AT_ONCE
        return bool(await self._ledger.fetch("retired_rows", *args, source=retired.source))

    async def bury(self, retired: Retired) -> None:
        """Nothing is left of standings, but why they could not be made. Raises LedgerUnavailable."""
        if retired.failure is None:
            await self._ledger.fetch("retired_rule", retired.id)

    async def clear_dropped(self, after: timedelta = LAST_WRITERS) -> bool:
        """Removes some rows in windows that a definition no longer has; False where there is none.

        Raises LedgerUnavailable.
        """
        dropped = await self._ledger.fetch("dropped_windows", 1, after)
        if self._ledger.spread is not None:
            dropped = [*dropped, *await dropped_with_rows(self._ledger, after)]
        for source, rule, window in dropped:
            await self._ledger.fetch("dropped_rows", source, rule, window, ROWS_AT_ONCE, source=source)
        return bool(dropped)

    def _query(self, name: str, source: int, **more: str) -> str:
        others = _OF_OTHERS if self._ledger.spread is None else _SPREAD
        of = _OF_DEFAULT if source == DEFAULT.id else others
        return self._ledger.query(name, source).format(**{**of, **more})

    async def _fetch(self, name: str, of: int, *args: Any) -> list[Any]:
        async with self._ledger.transaction(BUILD) as connection:
            return list(await connection.fetch(self._query(name, of), *args))


def _of(rule: Rule) -> dict[str, str]:
    """How an operator's rows are made."""
    parts = _OPERATORS[rule.operator]
    version = VERSION_OF_DEFAULT if rule.leaderboard == 1 else 1
    return {**parts, "order": parts["order"].format("ASC" if rule.ascending else "DESC"), "version": str(version)}
