"""Windows: which stretch of time a board counts.

Owns the arithmetic of weeks. Must never read a clock: the moment is an argument.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

_DAY = timedelta(days=1)


def monday_of(moment: datetime) -> date:
    """The first day of the week that `moment` (aware, any zone) belongs to."""
    day = moment.astimezone(UTC).date()
    return day - day.weekday() * _DAY
