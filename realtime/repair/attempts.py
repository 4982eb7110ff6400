"""Attempts: which of several things that may fail is tried again, and when.

Owns how long each rests after it has failed: longer each time. Must never read a clock, or let one thing's failures
count against another. Assumes that a thing is known by the same key each time.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable
from typing import Final

FIRST_REST: Final = 1.0
"""Seconds after the first failure; twice as many after each one more in a row."""

LONGEST_REST: Final = 60.0


class Attempts:
    """What failed lately. Moments are seconds of any clock that does not go back."""

    def __init__(self) -> None:
        self._resting: dict[Hashable, tuple[float, float]] = {}  # until when, and for how long

    def is_due(self, what: Hashable, now: float) -> bool:
        """Whether something is to be tried."""
        until, _ = self._resting.get(what, (now, 0.0))
        return now >= until

    def failed(self, what: Hashable, now: float) -> None:
        """It was tried in vain."""
        _, rest = self._resting.get(what, (now, 0.0))
        rest = min(rest * 2 or FIRST_REST, LONGEST_REST)
        self._resting[what] = now + rest, rest

    def keep(self, there: Collection[Hashable]) -> None:
        """Forgets all but these: nothing else is there to be tried."""
        self._resting = {what: rest for what, rest in self._resting.items() if what in there}

    def succeeded(self, what: Hashable) -> None:
        """It was done."""
        self._resting.pop(what, None)
