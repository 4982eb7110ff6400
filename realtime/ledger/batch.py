"""Batches: what the statement `record_batch` is given, and what it says of a batch.

Owns the shape of its arguments and of its one row. Must never ask PostgreSQL anything. Assumes the lists that
sql/queries/ledger.sql names, those of one thing in the same order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from itertools import islice
from typing import TYPE_CHECKING, Any

from realtime.boards.board import ALL_TIME, week_of
from realtime.boards.standings import Profile, Row
from realtime.boards.windows import monday_of
from realtime.ledger.recorded import ACCEPTED, KNOWN, Judged, Recorded

if TYPE_CHECKING:
    import asyncpg

    from realtime.boards.submissions import Submission


def columns(batch: Sequence[Submission]) -> tuple[list[Any], ...]:
    """A batch of `default` as the lists that its statement takes, one for each of the first five fields."""
    return tuple(map(list, islice(zip(*batch, strict=True), 5)))


def assembled(batch: Sequence[Submission], row: asyncpg.Record) -> Recorded:
    """What the lists of `record_batch` say together."""
    recorded = Recorded(closed=[week_of(monday) for monday in row["closed_weeks"] or ()])
    if row["outbox_id"] is not None:
        recorded.outbox.append((row["outbox_id"], ""))
    for user_id, username, version in _listed(row, "new_users", "usernames", "user_versions"):
        recorded.profiles.append(Profile(user_id, version, username))
    users, totals = row["users"] or (), row["totals"] or ()
    hidden = frozenset(user_id for user_id, is_hidden in _listed(row, "users", "hidden") if is_hidden)
    if users:
        shown = (
            totals
            if not hidden
            else [total if one not in hidden else None for one, total in _listed(row, "users", "totals")]
        )
        recorded.rows[ALL_TIME] = dict(zip(users, map(Row, users, row["versions"], shown), strict=True))
    weeks: dict[date, dict[int, int]] = {}
    rows: dict[date, dict[int, Row]] = {}
    for user_id, monday, score, version in _listed(row, "week_users", "weeks", "week_scores", "week_versions"):
        if monday not in weeks:
            weeks[monday], rows[monday] = {}, {}
        weeks[monday][user_id] = score
        rows[monday][user_id] = Row(user_id, version, score if user_id not in hidden else None)
    recorded.rows |= {week_of(monday): of_week for monday, of_week in rows.items()}
    recorded.judged = _judged(batch, row, dict(zip(users, totals, strict=True)), weeks)
    return recorded


def _judged(
    batch: Sequence[Submission], row: asyncpg.Record, totals: dict[int, int], weeks: dict[date, dict[int, int]]
) -> list[Judged]:
    """What became of each submission, where these are the scores of whoever has a new one."""
    this_week = weeks.get(row["week"], {})
    refused = {
        place: said for place, *said in _listed(row, "ords", "verdicts", "verdict_weeks", "seen_totals", "seen_weeks")
    }
    # Where nobody met a twin, what is not refused is recorded.
    fresh = None if row["fresh_users"] is None else set(_listed(row, "fresh_users", "fresh_ids"))
    if fresh is None and not totals:
        fresh = set()
    judged: list[Judged] = []
    for place, submission in enumerate(batch, 1):
        user_id, submission_id, _, _, created_at = submission[:5]
        if place in refused:
            verdict, monday, total, of_week = refused[place]
            of_week = weeks.get(monday, {}).get(user_id, of_week)
            judged.append(Judged(verdict, totals.get(user_id, total), of_week))
        elif fresh is not None and (user_id, submission_id) not in fresh:
            judged.append(Judged(KNOWN))
        else:
            week = this_week if created_at is None else weeks[monday_of(created_at)]
            judged.append(Judged(ACCEPTED, totals[user_id], week[user_id]))
    return judged


def _listed(row: asyncpg.Record, *names: str) -> Iterator[tuple[Any, ...]]:
    """What lists of a row say together, thing by thing."""
    return zip(*(row[name] or () for name in names), strict=True)
