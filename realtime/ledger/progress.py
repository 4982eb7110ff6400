"""Progress: how far the primary's log had come, and when: so a standby's delay is told without any clock of theirs.

Owns the last moments at which the primary was asked. Pure. Assumes that it is asked every second, and that positions of
one log only grow: with another primary all of it begins anew.
"""

from __future__ import annotations

from collections import deque
from typing import Final

KEPT: Final = 600
"""Moments that are remembered: ten minutes."""


class Progress:
    """What one primary said of its log."""

    def __init__(self) -> None:
        self._said: deque[tuple[float, int]] = deque(maxlen=KEPT)  # when it was asked (monotonic), what it had at least

    def take(self, position: int, asked: float) -> None:
        """It had written up to `position` when it answered what was `asked` at that monotonic second."""
        self._said.append((asked, position))

    def forget(self) -> None:
        """The primary is another one."""
        self._said.clear()

    def lag(self, position: int, asked: float) -> float | None:
        """Seconds by which a standby is behind, at most, that had replayed up to `position` at the monotonic second
        `asked`; None where it is further behind than is remembered."""
        for moment, written in reversed(self._said):
            if written <= position:
                return max(0.0, asked - moment)
        return None
