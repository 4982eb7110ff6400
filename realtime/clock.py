"""What time it is, by PostgreSQL, whatever the clocks of the hosts say.

Owns the offset between monotonic time and that clock. Must never guess one. Assumes that somebody measures it now and
then.
"""

from __future__ import annotations

from datetime import UTC, datetime
from time import monotonic

from realtime.errors import LedgerUnavailable


class Clock:
    """What time it is, by PostgreSQL: monotonic time plus an offset measured now and then."""

    def __init__(self) -> None:
        self._offset: float | None = None

    @property
    def is_set(self) -> bool:
        """Whether the offset has ever been measured."""
        return self._offset is not None

    def set(self, moment: datetime, measured_at: float) -> None:
        """Takes PostgreSQL's `moment` as the time it was at `measured_at` (monotonic seconds)."""
        self._offset = moment.timestamp() - measured_at

    def timestamp(self) -> float:
        """Seconds since 1970. Raises LedgerUnavailable before the first measurement."""
        if self._offset is None:
            raise LedgerUnavailable("the database's clock has not been read yet")
        return monotonic() + self._offset

    def now(self) -> datetime:
        """The moment, aware, in UTC. Raises LedgerUnavailable before the first measurement."""
        return datetime.fromtimestamp(self.timestamp(), UTC)
