"""What became of everything: PostgreSQL against what was sent and acknowledged, the store against PostgreSQL.

Owns the queries, which share nothing with the server's own. Must never correct anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from statistics import median
from time import monotonic
from typing import Any, ClassVar

import asyncpg
import redis.asyncio
import redis.exceptions

from realtime.boards.board import ALL_TIME, week_of
from realtime.store.fitness import run_of
from tests.support.crowd import Tally
from tests.support.keys import scores_key
from tests.support.stores import as_told

Differs = Callable[[], Awaitable[str]]
"""How the store differs from PostgreSQL, '' where it does not; also that one cannot be asked."""

_AWAY = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, redis.exceptions.RedisError, TimeoutError)


@dataclass
class Outcome:
    """One scenario: what it did, and what came of it."""

    name: str
    rounds: int = 0
    sent: int = 0
    acknowledged: int = 0
    found: int = 0
    lost: int = 0
    """Acknowledged, and not in PostgreSQL."""
    double: int = 0
    """Recorded or counted more than once, or with a sum that is not that of the log."""
    foreign: int = 0
    """In PostgreSQL, and never sent."""
    heals: list[float] = field(default_factory=list)
    """Seconds from each restart until both stores agreed."""
    notes: dict[str, Any] = field(default_factory=dict)

    COLUMNS: ClassVar = (
        "scenario",
        "rounds",
        "sent",
        "acknowledged",
        "found",
        "lost",
        "double",
        "heal, median",
        "longest",
        "more",
    )

    @property
    def row(self) -> list[str]:
        heal = (f"{median(self.heals):.1f} s", f"{max(self.heals):.1f} s") if self.heals else ("", "")
        more = ", ".join(f"{name} {value}" for name, value in self.notes.items())
        counts = (self.rounds, self.sent, self.acknowledged, self.found, self.lost, self.double)
        return [self.name, *(f"{count:,}" for count in counts), *heal, more]

    def __str__(self) -> str:
        return "; ".join(f"{name} {value}" for name, value in zip(self.COLUMNS, self.row, strict=True) if value)

    def add(self, other: Outcome) -> None:
        """Takes another round in."""
        self.rounds += 1
        for part in ("sent", "acknowledged", "found", "lost", "double", "foreign", "heals"):
            setattr(self, part, getattr(self, part) + getattr(other, part))

    def check(self) -> None:
        """Raises where a promise was broken."""
        assert self.acknowledged > 0, f"nothing was acknowledged: {self}"
        assert (self.lost, self.double, self.foreign) == (0, 0, 0), str(self)
        assert self.acknowledged <= self.found <= self.sent, str(self)


async def account(outcome: Outcome, url: str, tally: Tally) -> None:
    """Fills in what PostgreSQL has of it."""
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch(
            "SELECT submission_id, user_id, score_added, 1 AS source FROM user_score_transactions"
            " WHERE submission_id LIKE $1 UNION ALL"
            " SELECT submission_id, user_id, score, source FROM score_transactions WHERE submission_id LIKE $1",
            f"{tally.prefix}-%",
        )
        sources = dict(await connection.fetch("SELECT id, slug FROM leaderboards"))
        wrong_sums = await connection.fetchval(_WRONG_SUMS)
    finally:
        await connection.close()
    found = {row[0]: (row[1], row[2]) for row in rows}
    outcome.sent = len(tally.sent)
    outcome.acknowledged = len(tally.acknowledged)
    outcome.found = len(found)
    outcome.lost = len(tally.acknowledged - found.keys())
    outcome.double = len(rows) - len(found) + wrong_sums
    outcome.foreign = sum(tally.sent.get(submission_id) != what for submission_id, what in found.items())
    outcome.foreign += sum(tally.elsewhere.get(row[0], "default") != sources[row[3]] for row in rows)


_WRONG_SUMS = """
SELECT (SELECT count(*) FROM
            (SELECT user_id, sum(score_added) AS sum FROM user_score_transactions GROUP BY user_id) s
            FULL JOIN user_total_scores t USING (user_id) WHERE s.sum IS DISTINCT FROM t.total_score)
     + (SELECT count(*) FROM
            (SELECT user_id, date_trunc('week', created_at AT TIME ZONE 'UTC')::date AS week, sum(score_added) AS sum
             FROM user_score_transactions GROUP BY 1, 2) s
            FULL JOIN user_weekly_scores w USING (user_id, week) WHERE s.sum IS DISTINCT FROM w.score)
     + (SELECT count(*) FROM
            (SELECT l.rule, w.id AS "window", t.user_id, sum(t.score) AS sum
             FROM leaderboards l JOIN windows w ON w.leaderboard = l.id
             JOIN score_transactions t ON t.source = l.source AND t.created_at >= w.starts AND t.created_at < w.ends
             WHERE l.id <> 1 GROUP BY 1, 2, 3) s
            FULL JOIN (SELECT s.rule, s."window", s.user_id, s.score FROM scores s
                       JOIN leaderboards l ON l.rule = s.rule WHERE l.id <> 1) t USING (rule, "window", user_id)
            WHERE s.sum IS DISTINCT FROM t.score)
"""
"""Rows whose score is not the sum over the log. Other leaderboards than `default` are ones that add up."""


async def difference(url: str, keys: redis.asyncio.Redis) -> str:
    """How the store differs from PostgreSQL in live boards, '' where it does not; also that one cannot be asked."""
    try:
        return await _difference(url, keys)
    except _AWAY as error:
        return repr(error)


async def _difference(url: str, keys: redis.asyncio.Redis) -> str:
    epoch, run = await keys.mget("leaderboard:epoch", "leaderboard:run")
    if epoch is None or epoch.startswith("filling:") or run != run_of(as_told(await keys.info())):
        return f"the content is not complete: {epoch} of {run}"
    connection = await asyncpg.connect(url, timeout=5)
    try:
        totals = await connection.fetch("SELECT user_id, total_score, NULL::date FROM user_total_scores")
        weeks = await connection.fetch(
            "SELECT user_id, score, week FROM user_weekly_scores"
            " WHERE week = date_trunc('week', clock_timestamp() AT TIME ZONE 'UTC')::date"
        )
        names = dict(
            await connection.fetch("SELECT u.id, username FROM users u JOIN user_total_scores t ON t.user_id = u.id")
        )
    finally:
        await connection.close()
    for board in {ALL_TIME, *(week_of(row[2]) for row in weeks)}:
        ledger = {str(row[0]): float(row[1]) for row in (*totals, *weeks) if row[2] == board.week}
        store = dict(await keys.zrange(scores_key(board), 0, -1, withscores=True))
        if ledger != store:
            return f"{board.id}: {len(ledger.items() ^ store.items())} rows differ"
    async with keys.pipeline(transaction=False) as pipe:
        for user_id in names:
            pipe.hget(f"leaderboard:users:{user_id}", "username")
        return "" if await pipe.execute() == list(names.values()) else "names differ"


async def healed(differs: Differs, since: float, patience: float = 60.0) -> float:
    """Waits until both stores agree; seconds from `since` (monotonic) until then."""
    what = ""
    while monotonic() - since < patience:
        what = await differs()
        if not what:
            return monotonic() - since
        await asyncio.sleep(0.05)
    raise AssertionError(f"after {patience} s: {what}")
