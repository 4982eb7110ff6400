"""Windows: which stretch of time a board counts.

Owns the arithmetic of weeks, and how long after its end a week counts as closed. Must never read a clock: the moment is
an argument. Assumes UTC everywhere; a week is half-open, `[Monday 00:00, next Monday 00:00)`.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Final

DAY: Final = timedelta(days=1)
WEEK: Final = timedelta(days=7)

CLOSE_GRACE: Final = timedelta(seconds=120)
"""From a week's end plus this, its view answers for it: longer than any transaction may last (10 s)."""


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
