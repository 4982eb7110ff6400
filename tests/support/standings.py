"""Standings as they must be: a leaderboard's rows by its log, told in another way than the server's.

Owns the fold over the log, in Python. Must never look at `scores` to know what they should be. Assumes windows that
have their rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

import asyncpg

from realtime.ledger.defined import defined_of
from realtime.ledger.definitions import kinds_of
from realtime.resources import queries


class Sent(NamedTuple):
    """A row of a log."""

    user_id: int
    id: int
    score: int | None
    created_at: datetime
    metadata: str | None


def folded(operator: str, ascending: bool, sent: Iterable[Sent]) -> tuple[int, Sent] | None:
    """The score of one player in one window, and the submission that brought it there; None where there is none."""
    counted = [one for one in sent if one.score is not None or operator == "count"]
    if not counted:
        return None
    latest = max(counted, key=lambda one: (one.created_at, one.id))
    if operator == "count":
        return len(counted), latest
    if operator == "sum":
        return sum(one.score or 0 for one in counted), latest
    if operator == "last":
        return latest.score or 0, latest
    sign = 1 if ascending else -1
    best = min(counted, key=lambda one: (sign * (one.score or 0), one.created_at, one.id))
    return best.score or 0, best


async def expected(sql: asyncpg.Connection, slug: str, *, shown: bool = True) -> dict[tuple[str, int], Any]:
    """The rows that the shown (or the next) standings of a leaderboard must have, by window's name and user."""
    rows = {row["slug"]: defined_of(row) for row in await sql.fetch(queries()["leaderboards"])}
    one = rows[slug]
    definition = one.shown if shown else one.coming
    assert definition is not None
    log = (
        "SELECT user_id, id, score_added AS score, created_at, metadata FROM user_score_transactions WHERE $1 = 1"
        if one.source == 1
        else "SELECT user_id, id, score, created_at, metadata FROM score_transactions WHERE source = $1"
    )
    sent: dict[int, list[Sent]] = {}
    for row in await sql.fetch(log, one.source):
        sent.setdefault(row["user_id"], []).append(Sent(*row))
    windows = await sql.fetch("SELECT kind, name, starts, ends FROM windows WHERE leaderboard = $1", one.id)
    found: dict[tuple[str, int], Any] = {}
    for kind, name, starts, ends in windows:
        if kind not in kinds_of(definition):
            continue
        for user_id, of_user in sent.items():
            within = [s for s in of_user if kind == "all_time" or starts <= s.created_at < ends]
            score = folded(definition.operator, definition.is_ascending, within)
            if score is not None:
                found[name, user_id] = (score[0], score[1].id, score[1].metadata)
    return found


async def kept(sql: asyncpg.Connection, slug: str, *, shown: bool = True) -> dict[tuple[str, int], Any]:
    """The rows that they have, in windows that they are to have."""
    rows = await sql.fetch(
        "SELECT w.name, s.user_id, s.score, s.at_id, s.metadata FROM leaderboards l"
        " JOIN rules r ON r.id = CASE WHEN $2 THEN l.rule ELSE l.next_rule END"
        " JOIN scores s ON s.source = l.source AND s.rule = r.id"
        ' JOIN windows w ON w.leaderboard = l.id AND w.id = s."window" AND w.kind = ANY (r.kinds) WHERE l.slug = $1',
        slug,
        shown,
    )
    return {(name, user_id): (score, at_id, metadata) for name, user_id, score, at_id, metadata in rows}
