"""Boards: one leaderboard in one window, and what the published ones are called.

Owns the ids on the wire, and which of the published boards are live. Must never read a clock (`now` is an argument),
nor know which other leaderboards there are: that is the catalogue's. Assumes that a published week stands for its
Monday.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime
from functools import lru_cache
from typing import Final

from realtime.boards.leaderboard import DEFAULT, Leaderboard
from realtime.boards.windows import ALWAYS, CLOSE_GRACE, WEEK, Window, monday_before, monday_of, published_week
from realtime.errors import RealtimeError

TOP: Final = 100
"""A board shows this many entries."""

CURRENT_WEEK: Final = "current_week"
"""The alias that stands for whichever week it is now."""

PREVIOUS_WEEK: Final = "previous_week"
"""The alias that stands for the week before."""

CLOSED_EPOCH: Final = "closed"
"""The epoch of every closed board: its version is kept in PostgreSQL."""

_WEEK = re.compile(r"week_of_(\d{4})_(\d{2})_(\d{2})\Z", re.ASCII)


@dataclass(frozen=True, slots=True, eq=False)
class Board:
    """One leaderboard in one window. Boards of one id are equal, also where one knows an older definition."""

    id: str
    """The id on the wire: `all_time`, `week_of_2026_11_30`, `sprint:day_of_2026_11_30`."""
    leaderboard: Leaderboard
    window: Window

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Board) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"Board({self.id})"

    @property
    def slug(self) -> str:
        """The leaderboard's."""
        return self.leaderboard.slug

    @property
    def is_published(self) -> bool:
        """Whether it is one of the published system's, with tables and views of its own."""
        return self.window.key == 0

    @property
    def shows_metadata(self) -> bool:
        """Whether its rows show the counting submission's metadata. The published system's never do."""
        return self.leaderboard.definition.metadata and not self.is_published

    @property
    def week(self) -> date | None:
        """The Monday of a published week; None for every other board."""
        window = self.window
        return window.starts.date() if window.kind == "week" and window.key == 0 and window.starts else None

    @property
    def starts(self) -> datetime:
        """The first moment of its window, which is not all time."""
        assert self.window.starts is not None
        return self.window.starts

    @property
    def ends(self) -> datetime | None:
        """The first moment no longer in its window; None for never."""
        return self.window.ends

    def is_closed(self, now: datetime) -> bool:
        """Whether the ledger answers for this board: its end plus the grace lies behind `now`."""
        ends = self.window.ends
        return ends is not None and now >= ends + CLOSE_GRACE

    def has_started(self, now: datetime) -> bool:
        """Whether the board can have scores at `now`."""
        return self.window.starts is None or now >= self.window.starts


ALL_TIME: Final = Board("all_time", DEFAULT, ALWAYS)


def board_in(leaderboard: Leaderboard, window: Window) -> Board:
    """The board of a leaderboard in a window."""
    name = window.name if leaderboard.slug == DEFAULT.slug else f"{leaderboard.slug}:{window.name}"
    return Board(name, leaderboard, window)


@lru_cache(maxsize=4096)
def week_of(monday: date) -> Board:
    """The board of the published week that begins on `monday`."""
    return board_in(DEFAULT, published_week(monday))


def week_at(moment: datetime) -> Board:
    """The published week's board that `moment` (aware, any zone) belongs to."""
    return week_of(monday_of(moment))


def live_boards(now: datetime) -> list[Board]:
    """The published boards that scripts may write at `now`: all time, this week, and the last week within its grace."""
    boards = [ALL_TIME, week_at(now)]
    last = week_at(now - CLOSE_GRACE)
    return boards if last == boards[1] else [*boards, last]


def told_boards(now: datetime) -> list[Board]:
    """The published boards that the store is told of at `now`: the live ones, and the week after this one.

    PostgreSQL, which decides what week a score is of, may be in that week already while our estimate of its clock is
    not. And a call that waits in front of a store at a standstill may arrive when the week has begun, and bring the
    name of somebody who is shown there.
    """
    return [*live_boards(now), week_at(now + WEEK)]


def no_such_board(message: str | None = None) -> RealtimeError:
    """What is said of an id that cannot be one."""
    return RealtimeError(
        "unknown_board", message or "There is no such board. Use all_time, current_week or week_of_YYYY_MM_DD."
    )


def parse_board(text: object) -> Board:
    """The published board that an id names.

    Raises RealtimeError `unknown_board` where it names none; the alias is not an id, see `resolve`.
    """
    if text == ALL_TIME.id:
        return ALL_TIME
    match = _WEEK.match(text) if isinstance(text, str) else None
    if match is None:
        raise no_such_board()
    try:
        monday = date(*map(int, match.groups()))
    except ValueError:
        raise no_such_board("That date is not in the calendar.") from None
    if monday.weekday() != 0:
        raise no_such_board(f"A week begins on a Monday: use {week_of(monday_before(monday)).id}.")
    return week_of(monday)


def resolve(text: object, now: datetime) -> Board:
    """The published board that an id or an alias stands for at `now`.

    Raises RealtimeError `unknown_board`, also for a week that has not begun.
    """
    if text == CURRENT_WEEK:
        return week_at(now)
    if text == PREVIOUS_WEEK:
        return week_at(now - WEEK)
    board = parse_board(text)
    if not board.has_started(now):
        raise no_such_board("That week has not begun.")
    return board
