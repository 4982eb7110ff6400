"""Batches: what the statement `record_batch` is given, and what it says of each submission.

Owns the shape of its arguments and of its one row. Must never ask PostgreSQL anything. Assumes the lists that
sql/queries/ledger.sql names, those of one thing in the same order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from realtime.boards.board import Board, week_of
from realtime.boards.windows import monday_of

if TYPE_CHECKING:
    import asyncpg

    from realtime.boards.submissions import Submission


class Recorded(NamedTuple):
    """What the ledger says of one submission; see `record_batch` in sql/queries/ledger.sql."""

    user_id: int
    outcome: str
    board: Board
    """The week's board that it counts for."""
    total_score: int | None
    total_version: int | None
    hidden: bool
    week_score: int | None
    week_version: int | None
    new_username: str | None
    user_version: int | None
    outbox_id: int | None
    is_closed: bool
    """Whether the week is over by PostgreSQL's word: its view lacks this now."""


class Twin(NamedTuple):
    """What became of a submission whose id was in an unfinished statement; see `recorded`."""

    user_id: int
    outcome: str
    total_score: int | None
    week_score: int | None


def columns(batch: Sequence[Submission]) -> tuple[list[Any], ...]:
    """A batch of `default` as the lists that its statement takes, one for each of the first five fields."""
    return tuple(map(list, islice(zip(*batch, strict=True), 5)))


def assembled(batch: Sequence[Submission], row: asyncpg.Record) -> list[Recorded]:
    """The lists that `record_batch` gives, as one value for each submission."""
    this_monday, outbox_id = row["week"], row["outbox_id"]
    this_week, this_is_closed = week_of(this_monday), this_monday in (row["closed_weeks"] or ())
    closed = row["closed_weeks"] or ()
    totals = dict(zip(row["users"] or (), _listed(row, "totals", "versions", "hidden"), strict=True))
    new = dict(zip(row["new_users"] or (), _listed(row, "usernames", "user_versions"), strict=True))
    keys, scores = _listed(row, "week_users", "weeks"), _listed(row, "week_scores", "week_versions")
    weeks = dict(zip(keys, scores, strict=True))
    verdicts = _listed(row, "verdicts", "verdict_weeks", "seen_totals", "seen_weeks")
    refused = {
        place: (verdict, week, total, of_week)
        for place, (verdict, week, total, of_week) in zip(row["ords"] or (), verdicts, strict=True)
    }
    # Where nobody met a twin, what is not refused is recorded.
    fresh = None if row["fresh_users"] is None else set(_listed(row, "fresh_users", "fresh_ids"))
    if fresh is None and not totals:
        fresh = set()
    recorded: list[Recorded] = []
    for place, submission in enumerate(batch, 1):
        user_id, submission_id, _, _, created_at = submission[:5]
        outcome, monday, seen_total, seen_week = refused.get(place) or (
            "accepted" if fresh is None or (user_id, submission_id) in fresh else "twin",
            this_monday if created_at is None else monday_of(created_at),
            None,
            None,
        )
        # Nearly all are of this week: nothing is asked of its board for each of them.
        board, is_closed = this_week, this_is_closed
        if monday != this_monday:
            board, is_closed = week_of(monday), monday in closed
        total_score, total_version, hidden = totals.get(user_id, (seen_total, None, False))
        week_score, week_version = weeks.get((user_id, monday), (seen_week, None))
        username, user_version = new.get(user_id, (None, None))
        recorded.append(
            Recorded(
                user_id, outcome, board, total_score, total_version, hidden, week_score, week_version, username,
                user_version, outbox_id, is_closed,
            )
        )  # fmt: skip
    return recorded


def _listed(row: asyncpg.Record, *names: str) -> Iterator[tuple[Any, ...]]:
    """What lists of a row say together, thing by thing."""
    return zip(*(row[name] or () for name in names), strict=True)
