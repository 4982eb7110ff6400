"""Cut off: a process that has lost the store while others may still have it.

Owns the rule: after so long its clients are asked, once for each time it happens, to come back, which leads them to
another process where a balancer reads /readyz. Must never ask while boards move, nor everybody for the same moment.
Assumes that a client picks a moment of its own within what `reconnect` says.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final, Protocol

log = logging.getLogger(__name__)

INTERVAL: Final = 0.5
"""Seconds between two looks."""

COME_BACK_MS: Final = 20_000
"""Milliseconds over which clients spread: it may be all processes that ask."""


class Boards(Protocol):
    """What a process shows, and to whom."""

    @property
    def live(self) -> bool: ...
    def send_away(self, after_ms: int) -> int: ...


class CutOff:
    """Asks this process's clients to come back elsewhere.

    `after` is in seconds; `step` is told the time, in seconds of any clock that only goes on.
    """

    def __init__(self, boards: Boards, after: float, *, come_back_ms: int = COME_BACK_MS) -> None:
        self._boards = boards
        self._after = after
        self._come_back_ms = come_back_ms
        self._since: float | None = None  # when boards were first seen to stand still
        self._asked = False

    def step(self, now: float) -> None:
        """Looks, and asks where it is time."""
        if self._boards.live:
            self._since, self._asked = None, False
        elif self._since is None:
            self._since = now
        elif not self._asked and now - self._since >= self._after:
            self._asked = True
            log.warning("cut off from the store: clients are asked to come back", extra={"action": "cut_off"})
            self._boards.send_away(self._come_back_ms)

    async def run(self) -> None:
        """Looks until cancelled."""
        while True:
            self.step(asyncio.get_running_loop().time())
            await asyncio.sleep(INTERVAL)
