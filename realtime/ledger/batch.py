"""Batches: what the statement `record_batch` is given, and what it says of a batch.

Owns the shape of its arguments and of its one row. Must never ask PostgreSQL anything. Assumes the lists that
sql/queries/ledger.sql names, those of one thing in the same order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from realtime.boards.board import ALL_TIME, week_of
from realtime.boards.leaderboard import DEFAULT
from realtime.boards.standings import NOTHING, Profile, Row
from realtime.boards.windows import monday_of
from realtime.ledger.recorded import ACCEPTED, KNOWN, Judged, Recorded

if TYPE_CHECKING:
    import asyncpg

    from realtime.boards.submissions import Submission


def columns(batch: Sequence[Submission]) -> tuple[list[Any], ...]:
    """A batch of `default` as the lists that its statement takes, one for each of the first five fields."""
    return tuple(map(list, islice(zip(*batch, strict=True), 5)))


class Published(NamedTuple):
    """The scores on default's published boards of whoever has a new one."""

    totals: Mapping[int, int]
    """By user id."""
    weeks: Mapping[date, Mapping[int, int]]
    """By Monday and user id."""

    def scores(self, user_id: int, monday: date) -> tuple[int | None, int | None]:
        """The total and the week's score."""
        return self.totals.get(user_id), self.weeks.get(monday, NOTHING).get(user_id)


def published(row: asyncpg.Record, recorded: Recorded) -> Published:
    """Takes over the rows of default's published boards; of who is hidden without a score."""
    users, totals = row["users"] or (), row["totals"] or ()
    hidden = frozenset(user_id for user_id, is_hidden in _listed(row, "users", "hidden") if is_hidden)
    if users:
        shown = totals
        if hidden:
            shown = [None if user_id in hidden else total for user_id, total in zip(users, totals, strict=True)]
        recorded.rows[ALL_TIME] = dict(zip(users, map(Row, users, row["versions"], shown), strict=True))
    weeks: dict[date, dict[int, int]] = {}
    rows: dict[date, dict[int, Row]] = {}
    for user_id, monday, score, version in _listed(row, "week_users", "weeks", "week_scores", "week_versions"):
        if monday not in weeks:
            weeks[monday], rows[monday] = {}, {}
        weeks[monday][user_id] = score
        rows[monday][user_id] = Row(user_id, version, score if user_id not in hidden else None)
    recorded.rows |= {week_of(monday): of_week for monday, of_week in rows.items()}
    return Published(dict(zip(users, totals, strict=True)), weeks)


def assembled(batch: Sequence[Submission], row: asyncpg.Record) -> Recorded:
    """What the lists of `record_batch` say together."""
    recorded = Recorded(closed=[week_of(monday) for monday in row["closed_weeks"] or ()])
    if row["outbox_id"] is not None:
        recorded.outbox.append((row["outbox_id"], DEFAULT.partition))
    for user_id, username, version in _listed(row, "new_users", "usernames", "user_versions"):
        recorded.profiles.append(Profile(user_id, version, username))
        recorded.new_to = {DEFAULT.id}
    recorded.judged = _judged(batch, row, published(row, recorded))
    return recorded


def _judged(batch: Sequence[Submission], row: asyncpg.Record, scores: Published) -> list[Judged]:
    """What became of each submission."""
    totals, this_week = scores.totals, scores.weeks.get(row["week"], NOTHING)
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
            verdict, monday, seen_total, seen_week = refused[place]
            total, of_week = scores.scores(user_id, monday)
            judged.append(
                Judged(verdict, seen_total if total is None else total, seen_week if of_week is None else of_week)
            )
        elif fresh is not None and (user_id, submission_id) not in fresh:
            judged.append(Judged(KNOWN))
        else:
            week = this_week if created_at is None else scores.weeks[monday_of(created_at)]
            judged.append(Judged(ACCEPTED, totals[user_id], week[user_id]))
    return judged


def _listed(row: asyncpg.Record, *names: str) -> Iterator[tuple[Any, ...]]:
    """What lists of a row say together, thing by thing."""
    return zip(*(row[name] or () for name in names), strict=True)
