"""Boards: their ids, their time windows, and the names of everything kept for them.

Owns the rule which board a moment belongs to and every key, channel and view name. Must never read a clock:
`now` is an argument. Assumes UTC everywhere; a week is half-open, `[Monday 00:00, next Monday 00:00)`.

A board is a value with its own rules (`week`, `ends`, `accepts`), so that further windows or a slug in front of
the id are further values and not further branches in the callers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final

from realtime.boards.windows import _DAY, monday_of
from realtime.errors import RealtimeError

TOP: Final = 100
"""A board shows this many entries."""

CURRENT_WEEK: Final = "current_week"
"""The alias that stands for whichever week it is now."""

CLOSED_EPOCH: Final = "closed"
"""The epoch of every closed week: its version is kept in PostgreSQL."""

CLOSE_GRACE: Final = timedelta(seconds=120)
"""From a week's end plus this, its view answers for it: longer than any transaction may last (10 s)."""


_WEEK = re.compile(r"week_of_(\d{4})_(\d{2})_(\d{2})\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Board:
    """One leaderboard. `week` is its Monday, or None for all time."""

    week: date | None

    @property
    def id(self) -> str:
        """The id on the wire: `all_time` or `week_of_YYYY_MM_DD`."""
        if self.week is None:
            return "all_time"
        return f"week_of_{self.week.year:04}_{self.week.month:02}_{self.week.day:02}"

    @property
    def view(self) -> str:
        """Name of a closed week's materialized view: made of digits, safe as an SQL identifier."""
        assert self.week is not None
        return f"leaderboard_{self.id}"

    @property
    def starts(self) -> datetime:
        """The first moment of the week."""
        assert self.week is not None
        return datetime.combine(self.week, time(), UTC)

    @property
    def ends(self) -> datetime | None:
        """The first moment no longer in the week; None for all time."""
        if self.week is None:
            return None
        try:
            return self.starts + 7 * _DAY
        except OverflowError:
            return None

    def is_closed(self, now: datetime) -> bool:
        """Whether the view answers for this board: its end plus the grace lies behind `now`."""
        return self.ends is not None and now >= self.ends + CLOSE_GRACE

    def has_started(self, now: datetime) -> bool:
        """Whether the board can have scores at `now`."""
        return self.week is None or now >= self.starts


ALL_TIME: Final = Board(None)


def week_at(moment: datetime) -> Board:
    """The week's board that `moment` (aware, any zone) belongs to."""
    return Board(monday_of(moment))


def live_boards(now: datetime) -> list[Board]:
    """The boards that scripts may write at `now`: all time, this week, and the last one within its grace."""
    boards = [ALL_TIME, week_at(now)]
    last = week_at(now - CLOSE_GRACE)
    return boards if last == boards[1] else [*boards, last]


def no_such_board() -> RealtimeError:
    """What is said of an id that cannot be one."""
    return RealtimeError(
        "unknown_board", "There is no such board. Use all_time, current_week or week_of_YYYY_MM_DD."
    )


def told_boards(now: datetime) -> list[Board]:
    """The boards that the store is told of at `now`: the live ones, and the week after this one.

    PostgreSQL, which decides what week a score is of, may be in that week already while our estimate of its clock is
    not. And a call that waits in front of a store at a standstill may arrive when the week has begun, and bring the
    name of somebody who is shown there.
    """
    return [*live_boards(now), week_at(now + 7 * _DAY)]


def parse_board(text: object) -> Board:
    """The board an id names.

    Raises RealtimeError `unknown_board` where it names none; the alias is not an id, see `resolve`.
    """
    if text == "all_time":
        return ALL_TIME
    match = _WEEK.match(text) if isinstance(text, str) else None
    if match is None:
        raise no_such_board()
    try:
        monday = date(*map(int, match.groups()))
    except ValueError:
        raise RealtimeError("unknown_board", "That date is not in the calendar.") from None
    if monday.weekday() != 0:
        right = Board(monday - monday.weekday() * _DAY)  # the calendar's first day is a Monday
        raise RealtimeError("unknown_board", f"A week begins on a Monday: use {right.id}.")
    return Board(monday)


def resolve(text: object, now: datetime) -> Board:
    """The board that an id or the alias `current_week` stands for at `now`.

    Raises RealtimeError `unknown_board`, also for a week that has not begun.
    """
    if text == CURRENT_WEEK:
        return week_at(now)
    board = parse_board(text)
    if not board.has_started(now):
        raise RealtimeError("unknown_board", "That week has not begun.")
    return board
