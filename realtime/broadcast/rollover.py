"""Rollover: what happens when a window ends.

Owns the moments: at the end subscribers of an alias such as `current_week` move on; a grace later the ledger answers
for the board. Must never trust the host's clock: `now` is PostgreSQL's, and stays in a window until PostgreSQL itself
has said that the next has begun. So a score that is sent upon hearing of the new window is recorded by that same clock
later, and counts for it. Assumes one task a process; closed boards are the worker's (`keeping`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Final, Protocol

from realtime.boards.board import Board
from realtime.boards.catalogue import Directory
from realtime.errors import RealtimeError

log = logging.getLogger(__name__)

LONGEST_SLEEP: Final = 1.0
"""Seconds: the clock's offset may be corrected, and leaderboards redefined, while we sleep."""

ALMOST: Final = 0.001
"""Seconds before a window's end from which PostgreSQL is asked whether it is over."""

ASK_AGAIN: Final = 0.02
"""Seconds until PostgreSQL, which did not say that the window is over, is asked again; twice as many each time, up to
LONGEST_SLEEP: it may be away."""

LATE: Final = timedelta(seconds=10)


class Boards(Protocol):
    """Who is told that windows change."""

    def aliases(self) -> Sequence[tuple[str, Board | None]]: ...
    def boards(self) -> Sequence[Board]: ...
    def roll_over(self, alias: str, before: Board | None, after: Board | None) -> None: ...


class Rollover:
    """Moves one process's subscribers from window to window."""

    def __init__(
        self,
        boards: Boards,
        mark: Callable[[Board], None],
        now: Callable[[], datetime],
        ask: Callable[[], Awaitable[None]],
        directory: Directory | None = None,
    ) -> None:
        self._boards = boards
        self._mark = mark  # the ledger answers for a board from now on
        self._now = now
        self._ask = ask  # asks PostgreSQL what time it is, for `now`; never raises
        self._directory = directory or Directory()
        self._stepped: datetime | None = None

    def step(self, now: datetime) -> None:
        """Does what is due at `now`."""
        for alias, board in self._boards.aliases():
            after = self._stands_for(alias, now)
            if after != board:
                log.info("%s stands for %s now", alias, after.id if after else "no board", extra={"action": "rollover"})
                self._boards.roll_over(alias, board, after)
        if self._stepped is not None:
            for board in self._boards.boards():
                if board.is_closed(now) and not board.is_closed(self._stepped):
                    self._mark(board)
        self._stepped = now

    def _stands_for(self, alias: str, now: datetime) -> Board | None:
        try:
            return self._directory.resolve(alias, now)
        except RealtimeError:
            return None

    def is_late(self, now: datetime) -> bool:
        """Whether a window ended a while ago and subscribers have not been moved."""
        return self._stepped is not None and self._directory.edge_after(self._stepped) <= now - LATE

    async def run(self) -> None:
        """Steps at every end of a window, until cancelled."""
        pause = ASK_AGAIN
        while True:
            now = self._now()
            self.step(now)
            ends = self._directory.edge_after(now)
            left = (ends - now).total_seconds()
            if left > ALMOST:
                pause = ASK_AGAIN
                await asyncio.sleep(min(left, LONGEST_SLEEP))
                continue
            await self._ask()
            if self._directory.edge_after(self._now()) == ends:
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_SLEEP)
