"""The clock: what time it is by PostgreSQL, whatever the clocks of the hosts say.

Owns how that clock is known: between two bounds, from the moments it was asked and it answered (Cristian's algorithm).
Must never be ahead of it, go back a little, or say that a window has begun before PostgreSQL itself has said so.
Assumes that somebody asks it now and then, and at the end of a window until the answer lies in the next.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import TYPE_CHECKING, Final

from realtime.boards.catalogue import PUBLISHED
from realtime.errors import LedgerUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

DRIFT: Final = 0.001
"""Seconds a second by which two clocks may part: each is slewed by at most half of that."""

STEP: Final = 120.0
"""Seconds. A clock that was set back by less is waited for; one that was set back by more is followed."""

_TICK: Final = timedelta(microseconds=1)


class Clock:
    """Estimates PostgreSQL's time. All methods that tell the time raise LedgerUnavailable before the first answer."""

    def __init__(self) -> None:
        self.edge_after: Callable[[datetime], datetime] = PUBLISHED.edge_after
        """The first moment after one at which a window ends: what nobody hears of before PostgreSQL says so."""
        # PostgreSQL's time less monotonic time lies between these two, as it was found at `_at` (monotonic seconds).
        self._low = self._high = self._at = 0.0
        self._ends: datetime | None = None  # the next edge after what PostgreSQL said last; None before it answered
        self._told = 0.0  # the latest that was told, in seconds since 1970

    @property
    def is_set(self) -> bool:
        """Whether PostgreSQL has ever answered."""
        return self._ends is not None

    @property
    def uncertainty(self) -> float:
        """Seconds between the bounds: what is told is behind PostgreSQL by no more."""
        return self._high - self._low

    def take(self, moment: datetime, asked: float, answered: float) -> None:
        """PostgreSQL said `moment` between `asked` and `answered`, which are monotonic seconds."""
        seconds = moment.timestamp()
        low, high = seconds - answered, seconds - asked
        if self._ends is not None:
            parted = DRIFT * max(answered - self._at, 0.0)
            if low > self._high + parted or high < self._low - parted:
                log.warning("PostgreSQL's clock was set by %.3f s", low - self._low, extra={"action": "clock"})
                if self._low - high > STEP:
                    self._told, self._ends = 0.0, None
            else:
                low, high = max(low, self._low - parted), min(high, self._high + parted)
        self._low, self._high, self._at = low, high, answered
        ends = self.edge_after(moment)
        self._ends = ends if self._ends is None else max(ends, self._ends)

    def take_edges(self) -> None:
        """Windows end at other moments than before."""
        if self._ends is not None:
            self._ends = min(self._ends, self.edge_after(self.instant()))

    def set(self, moment: datetime, at: float) -> None:
        """Forgets every answer but this one, which was right at `at`, in monotonic seconds."""
        self._told, self._ends = 0.0, None
        self.take(moment, at, at)

    def timestamp(self) -> float:
        """Seconds since 1970."""
        if self._ends is None:
            raise LedgerUnavailable("the database's clock has not been read yet")
        self._told = max(self._told, monotonic() + self._low)
        return self._told

    def instant(self) -> datetime:
        """The moment, aware, in UTC."""
        return datetime.fromtimestamp(self.timestamp(), UTC)

    def now(self) -> datetime:
        """The moment, aware, in UTC; the last one of a window until PostgreSQL has said that the next has begun."""
        instant = self.instant()
        assert self._ends is not None
        return instant if instant < self._ends else self._ends - _TICK
