"""Rollover: what happens when a week ends.

Owns the moments: at the end subscribers of `current_week` move on; a grace later the view answers for the week. Must
never trust the host's clock: `now` is PostgreSQL's, and stays in a week until PostgreSQL itself has said that the next
has begun. So a score that is sent upon hearing of the new week is recorded by that same clock later, and counts for it.
Assumes one task a process; the views are the worker's (`keeping`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final, Protocol

from realtime.boards.board import ALL_TIME, Board, live_boards, week_at

log = logging.getLogger(__name__)

LONGEST_SLEEP: Final = 1.0
"""Seconds: the clock's offset may be corrected while we sleep."""

ALMOST: Final = 0.001
"""Seconds before a week's end from which PostgreSQL is asked whether it is over."""

ASK_AGAIN: Final = 0.02
"""Seconds until PostgreSQL, which did not say that the week is over, is asked again; twice as many each time, up to
LONGEST_SLEEP: it may be away."""

LATE: Final = timedelta(seconds=10)


class Boards(Protocol):
    """Who is told that weeks change."""

    def roll_over(self, before: Board, after: Board) -> None: ...
    def mark(self, board: Board) -> None: ...


class Rollover:
    """Moves one process's subscribers from week to week."""

    def __init__(self, boards: Boards, now: Callable[[], datetime], ask: Callable[[], Awaitable[None]]) -> None:
        self._boards = boards
        self._now = now
        self._ask = ask  # asks PostgreSQL what time it is, for `now`; never raises
        self._week: Board | None = None
        self._closing: list[Board] = []  # weeks that ended, whose view does not answer yet

    def step(self, now: datetime) -> None:
        """Does what is due at `now`."""
        week = week_at(now)
        if self._week is None:  # begun between a week's end and its view: somebody may follow it by its id
            self._closing += [board for board in live_boards(now) if board not in (ALL_TIME, week)]
        elif week != self._week:
            log.info("%s ends, %s begins", self._week.id, week.id, extra={"action": "rollover"})
            self._boards.roll_over(self._week, week)
            self._closing.append(self._week)
        self._week = week
        for board in [board for board in self._closing if board.is_closed(now)]:
            self._closing.remove(board)
            self._boards.mark(board)

    def is_late(self, now: datetime) -> bool:
        """Whether a week ended a while ago and subscribers have not been moved."""
        return self._week not in (None, week_at(now), week_at(now - LATE))

    async def run(self) -> None:
        """Steps at every end of a week, until cancelled."""
        pause = ASK_AGAIN
        while True:
            now = self._now()
            self.step(now)
            ends = week_at(now).ends
            assert ends is not None
            left = (ends - now).total_seconds()
            if left > ALMOST:
                pause = ASK_AGAIN
                await asyncio.sleep(min(left, LONGEST_SLEEP))
                continue
            await self._ask()
            if week_at(self._now()) == week_at(now):
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_SLEEP)
