"""Leaderboards for tests: defined and shown at once, without standings that would have to be made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import orjson

from realtime.boards.definitions import Definition
from realtime.ledger.definitions import Definitions, kinds_of
from realtime.ledger.leaderboards import Leaderboards
from realtime.ledger.ledger import Ledger

PARTITIONS = 16


async def define(sql: asyncpg.Connection, *definitions: Definition) -> None:
    """Defines leaderboards over an empty history, as if their standings had been made."""
    for one in definitions:
        written = orjson.dumps(one.as_json()).decode()
        source = one.slug if one.of is None else one.of
        number = await sql.fetchval(
            "INSERT INTO leaderboards (slug, source, definition) VALUES ($1, 1, $2::jsonb)"
            " ON CONFLICT (slug) DO UPDATE SET definition = excluded.definition RETURNING id",
            one.slug,
            written,
        )
        await sql.execute(
            "UPDATE leaderboards l SET source = s.id FROM leaderboards s WHERE l.id = $1 AND s.slug = $2",
            number,
            source,
        )
        if one.slug == "default":
            await sql.execute(
                "UPDATE rules SET kinds = $1, definition = $2::jsonb WHERE id = 1", kinds_of(one), written
            )
            continue
        await sql.execute(
            "WITH made AS (INSERT INTO rules (leaderboard, source, operator, ascending, kinds, definition, state)"
            " SELECT id, source, $2, $3, $4, $5::jsonb, 'live' FROM leaderboards WHERE id = $1 RETURNING id)"
            " UPDATE leaderboards SET rule = made.id FROM made WHERE leaderboards.id = $1",
            number,
            one.operator,
            one.is_ascending,
            kinds_of(one),
            written,
        )
    await sql.execute("UPDATE catalogue SET revision = revision + 1")
    await sql.execute("SELECT ensure_next_windows()")


async def catalogue_of(ledger: Ledger) -> Leaderboards:
    """The directory of a process that has just looked."""
    directory = Leaderboards(ledger, Definitions(ledger), partitions=PARTITIONS)
    await directory.refresh()
    return directory


# What standings must be ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Transaction:
    """A row of a log."""

    id: int
    user_id: int
    score: int | None
    created_at: datetime
    metadata: str | None

    @property
    def at(self) -> tuple[int, int]:
        return (self.created_at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1), self.id


Line = tuple[int, tuple[int, int], str | None]
"""A score, the moment and id of the transaction that brought it there, and that one's metadata."""


def _counts(rows: Sequence[Transaction]) -> Line | None:
    last = max(rows, key=lambda row: row.at)
    return len(rows), last.at, last.metadata


def _adds(rows: Sequence[Transaction]) -> Line | None:
    scored = [row for row in rows if row.score is not None]
    if not scored:
        return None
    last = max(scored, key=lambda row: row.at)
    return sum(row.score or 0 for row in scored), last.at, last.metadata


def _takes_last(rows: Sequence[Transaction]) -> Line | None:
    scored = [row for row in rows if row.score is not None]
    if not scored:
        return None
    last = max(scored, key=lambda row: row.at)
    return last.score or 0, last.at, last.metadata


def _takes_best(rows: Sequence[Transaction], *, ascending: bool) -> Line | None:
    scored = [row for row in rows if row.score is not None]
    if not scored:
        return None
    sign = 1 if ascending else -1
    best = min(scored, key=lambda row: (sign * (row.score or 0), row.at))
    return best.score or 0, best.at, best.metadata


FOLDS: Mapping[tuple[str, bool], Callable[[Sequence[Transaction]], Line | None]] = {
    ("sum", False): _adds,
    ("sum", True): _adds,
    ("count", False): _counts,
    ("count", True): _counts,
    ("last", False): _takes_last,
    ("last", True): _takes_last,
    ("best", False): lambda rows: _takes_best(rows, ascending=False),
    ("best", True): lambda rows: _takes_best(rows, ascending=True),
}


async def log_of(sql: asyncpg.Connection, source: int) -> list[Transaction]:
    """All transactions of a source."""
    if source == 1:
        query = "SELECT id, user_id, score_added, created_at, metadata::text FROM user_score_transactions"
    else:
        query = f"SELECT id, user_id, score, created_at, metadata::text FROM score_transactions WHERE source = {source}"
    return [Transaction(*row) for row in await sql.fetch(query)]


async def folded(sql: asyncpg.Connection, rule: Any) -> dict[tuple[int, int], Line]:
    """What a rule's standings must be by the log alone; by window and user."""
    windows = await sql.fetch(
        "SELECT id, kind, nullif(starts, '-infinity') AS starts, nullif(ends, 'infinity') AS ends FROM windows"
        " WHERE leaderboard = $1 AND kind = ANY ($2)",
        rule["leaderboard"],
        rule["kinds"],
    )
    fold = FOLDS[rule["operator"], rule["ascending"]]
    of_players: dict[tuple[int, int], list[Transaction]] = {}
    for row in await log_of(sql, rule["source"]):
        kinds: set[str] = set()
        for window in windows:
            if (window["starts"] or row.created_at) <= row.created_at and (
                window["ends"] is None or row.created_at < window["ends"]
            ):
                assert window["kind"] not in kinds, "windows of a kind overlap"
                kinds.add(window["kind"])
                of_players.setdefault((window["id"], row.user_id), []).append(row)
        assert kinds >= set(rule["kinds"]) - {"season"}, "recorded, and on no board"
    lines = {key: fold(rows) for key, rows in of_players.items()}
    return {key: line for key, line in lines.items() if line is not None}


async def standings(sql: asyncpg.Connection, rule: Any) -> dict[tuple[int, int], Line]:
    """What a rule's standings are; by window and user."""
    rows = await sql.fetch(
        'SELECT "window", user_id, score, at, at_id, metadata::text FROM scores WHERE source = $1 AND rule = $2',
        rule["source"],
        rule["id"],
    )
    return {(row[0], row[1]): (row[2], (row[3], row[4]), row[5]) for row in rows}


async def agree_with_the_log(sql: asyncpg.Connection) -> int:
    """Every live rule's standings are a plain fold over the log; returns how many rows there are."""
    found = 0
    for rule in await sql.fetch("SELECT * FROM rules WHERE state = 'live'"):
        is_, must_be = await standings(sql, rule), await folded(sql, rule)
        assert is_ == must_be, (rule["id"], rule["operator"], rule["ascending"])
        found += len(is_)
    return found
