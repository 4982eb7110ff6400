"""Boards: their ids, and which board a moment belongs to.

Owns the ids on the wire, and which boards are live. Must never read a clock (`now` is an argument) or do arithmetic of
weeks, which is that of `windows`. Assumes that a week stands for its Monday.

A board is a value with its own rules (`starts`, `ends`, `is_closed`), so that further windows or a slug in front of
the id are further values and not further branches in the callers.
"""

from __future__ import annotations

import re
from datetime import date, datetime
from typing import Final, NamedTuple

from realtime.boards.windows import CLOSE_GRACE, WEEK, ends_of, monday_before, monday_of, starts_of
from realtime.errors import RealtimeError

TOP: Final = 100
"""A board shows this many entries."""

CURRENT_WEEK: Final = "current_week"
"""The alias that stands for whichever week it is now."""

CLOSED_EPOCH: Final = "closed"
"""The epoch of every closed week: its version is kept in PostgreSQL."""

_WEEK = re.compile(r"week_of_(\d{4})_(\d{2})_(\d{2})\Z", re.ASCII)


class Board(NamedTuple):
    """One leaderboard. `week` is its Monday, or None for all time."""

    week: date | None

    @property
    def id(self) -> str:
        """The id on the wire: `all_time` or `week_of_YYYY_MM_DD`."""
        if self.week is None:
            return "all_time"
        return f"week_of_{self.week.year:04}_{self.week.month:02}_{self.week.day:02}"

    @property
    def starts(self) -> datetime:
        """The first moment of the week."""
        assert self.week is not None
        return starts_of(self.week)

    @property
    def ends(self) -> datetime | None:
        """The first moment no longer in the week; None for all time, and for the calendar's last week."""
        return None if self.week is None else ends_of(self.week)

    def is_closed(self, now: datetime) -> bool:
        """Whether the view answers for this board: its end plus the grace lies behind `now`."""
        ends = self.ends
        return ends is not None and now >= ends + CLOSE_GRACE

    def has_started(self, now: datetime) -> bool:
        """Whether the board can have scores at `now`."""
        return self.week is None or now >= self.starts


ALL_TIME: Final = Board(None)


def week_at(moment: datetime) -> Board:
    """The week's board that `moment` (aware, any zone) belongs to."""
    return Board(monday_of(moment))


def live_boards(now: datetime) -> list[Board]:
    """The boards that scripts may write at `now`: all time, this week, and the last week within its grace."""
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
    return [*live_boards(now), week_at(now + WEEK)]


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
        right = Board(monday_before(monday))
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
