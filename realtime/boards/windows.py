"""Windows: which stretch of time a board counts.

Owns what a window is, how its name is read, how long after its end it counts as closed, and the arithmetic of the
published weeks. Must never read a clock, or compute where a window of any other leaderboard begins: PostgreSQL alone
does, once, and its rows say so. Assumes that every window is half-open, and that a published week is
`[Monday 00:00, next Monday 00:00)` in UTC.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Final, NamedTuple

DAY: Final = timedelta(days=1)
WEEK: Final = timedelta(days=7)

CLOSE_GRACE: Final = timedelta(seconds=120)
"""From a window's end plus this, the ledger answers for it: longer than any transaction may last (10 s)."""

_NAME: Final = re.compile(
    r"(?:(?:(?P<kind>day|week)_of_(?P<day>\d{4}_\d{2}_\d{2})|month_of_(?P<month>\d{4}_\d{2})|year_of_(?P<year>\d{4}))"
    r"(?:_[1-9]\d?)?|season_(?P<season>[a-z0-9_]{1,32}))\Z",
    re.ASCII,
)


class Window(NamedTuple):
    """A stretch of time that a board counts."""

    kind: str
    """One of `definitions.KINDS`."""
    name: str
    """Its part of the board's id: `all_time`, `day_of_2026_11_30`, `season_spring_26`."""
    starts: datetime | None
    """Its first moment; None for all time."""
    ends: datetime | None
    """The first moment that is no longer in it; None for never."""
    key: int = 0
    """Its number in the ledger; 0 for the published windows, which have tables of their own."""


class Named(NamedTuple):
    """What a window's name says."""

    kind: str
    first_day: date | None
    """Its first local day; None for a season and for all time."""


ALWAYS: Final = Window("all_time", "all_time", None, None)
"""The window of all time."""


def read_name(name: str) -> Named | None:
    """What a window's name says; None where no window can be called so. Where a zone was changed one day may have two
    windows: the second is called `day_of_2026_11_30_2`.

    Raises ValueError for a date that is not in the calendar.
    """
    if name == ALWAYS.name:
        return Named(name, None)
    match = _NAME.match(name)
    if match is None:
        return None
    if match["day"]:
        return Named(match["kind"], date(*map(int, match["day"].split("_"))))
    if match["month"]:
        year, month = map(int, match["month"].split("_"))
        return Named("month", date(year, month, 1))
    if match["year"]:
        return Named("year", date(int(match["year"]), 1, 1))
    return Named("season", None)


def name_of(kind: str, first_day: date) -> str:
    """The name of the window of that kind that begins on a local day; of no season, and not of all time."""
    parts = {"year": 1, "month": 2}.get(kind, 3)
    day = f"{first_day.year:04}", f"{first_day.month:02}", f"{first_day.day:02}"
    return "_".join((kind, "of", *day[:parts]))


@lru_cache(maxsize=4096)
def published_week(monday: date) -> Window:
    """The published week that begins on `monday`."""
    return Window("week", name_of("week", monday), starts_of(monday), ends_of(monday))


def monday_of(moment: datetime) -> date:
    """The first day of the week that `moment` (aware, any zone) belongs to."""
    day = moment.astimezone(UTC).date()
    return day - day.weekday() * DAY


def monday_before(day: date) -> date:
    """The last Monday that is not after `day`: the calendar's first day is a Monday."""
    return day - day.weekday() * DAY


def starts_of(monday: date) -> datetime:
    """The first moment of the week that begins on `monday`."""
    return datetime.combine(monday, time(), UTC)


def ends_of(monday: date) -> datetime | None:
    """The first moment that no longer belongs to that week; None for the calendar's last week."""
    try:
        return datetime.combine(monday, time(), UTC) + WEEK
    except OverflowError:
        return None
