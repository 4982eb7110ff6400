"""Rollover: at every end of a week, once, by the clock that is given. (What viewers see of it: test_broadcaster.)"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from realtime.boards.board import CURRENT_WEEK, Board, week_of
from realtime.broadcast.rollover import Rollover
from tests.support.waiting import PATIENCE

MONDAY = datetime(2026, 11, 23, tzinfo=UTC)
BEFORE, WEEK, NEXT = (week_of((MONDAY + timedelta(weeks=n)).date()) for n in (-1, 0, 1))
MICROSECOND = timedelta(microseconds=1)


class Told:
    """Who is told, in order: somebody who follows the current week, and somebody who follows two weeks by their ids."""

    def __init__(self) -> None:
        self.said: list[tuple[str, ...]] = []
        self.current = WEEK

    def aliases(self) -> list[tuple[str, Board | None]]:
        return [(CURRENT_WEEK, self.current)]

    def boards(self) -> list[Board]:
        return [BEFORE, WEEK]

    def roll_over(self, alias: str, before: Board | None, after: Board | None) -> None:
        assert alias == CURRENT_WEEK and before is not None and before == self.current and after is not None
        self.said.append(("roll over", before.id, after.id))
        self.current = after

    def mark(self, board: Board) -> None:
        self.said.append(("mark", board.id))


async def answered() -> None:
    """PostgreSQL was asked; a test says itself what the answer is."""


def stepped(*moments: datetime) -> list[tuple[str, ...]]:
    told = Told()
    rollover = Rollover(told, told.mark, lambda: moments[0], answered)
    for moment in moments:
        rollover.step(moment)
    return told.said


def test_nothing_happens_within_a_week() -> None:
    day = timedelta(days=1)
    assert stepped(MONDAY + day, MONDAY + 3 * day, MONDAY + 7 * day - MICROSECOND) == []


def test_a_week_ends_once_and_its_view_answers_a_grace_later() -> None:
    end = MONDAY + timedelta(days=7)
    closes = end + timedelta(seconds=120)
    moments = [
        end - MICROSECOND,
        end,
        end + timedelta(seconds=1),
        closes - MICROSECOND,
        closes,
        closes + timedelta(hours=1),
    ]
    assert stepped(*moments) == [("roll over", WEEK.id, NEXT.id), ("mark", WEEK.id)]
    assert stepped(*moments[:4]) == [("roll over", WEEK.id, NEXT.id)]


def test_after_a_long_sleep_everybody_is_moved_to_the_week_it_is() -> None:
    later = MONDAY + timedelta(weeks=5, hours=3)
    now = week_of((MONDAY + timedelta(weeks=5)).date())
    assert stepped(MONDAY + timedelta(days=1), later) == [("roll over", WEEK.id, now.id), ("mark", WEEK.id)]


def test_who_starts_within_the_grace_moves_the_last_weeks_viewers_to_its_view() -> None:
    assert stepped(MONDAY + timedelta(seconds=60), MONDAY + timedelta(seconds=120)) == [("mark", BEFORE.id)]
    assert stepped(MONDAY + timedelta(seconds=120), MONDAY + timedelta(seconds=121)) == []


def test_a_rollover_knows_when_it_is_late() -> None:
    told = Told()
    rollover = Rollover(told, told.mark, lambda: MONDAY, answered)
    end = MONDAY + timedelta(days=7)
    assert not rollover.is_late(MONDAY), "it has not begun"
    rollover.step(MONDAY)
    assert not rollover.is_late(end + timedelta(seconds=5)), "a moment is nothing"
    assert rollover.is_late(end + timedelta(seconds=11))
    rollover.step(end + timedelta(seconds=11))
    assert not rollover.is_late(end + timedelta(seconds=11))


async def test_a_rollover_steps_by_itself_when_the_week_ends() -> None:
    told = Told()
    begun = asyncio.get_running_loop().time()
    first = MONDAY + timedelta(days=7) - timedelta(milliseconds=50)
    clock = lambda: first + timedelta(seconds=asyncio.get_running_loop().time() - begun)  # noqa: E731
    running = asyncio.ensure_future(Rollover(told, told.mark, clock, answered).run())
    async with asyncio.timeout(PATIENCE):
        while not told.said:  # noqa: ASYNC110 - fifty milliseconds of a real clock
            await asyncio.sleep(0.005)
    running.cancel()
    await asyncio.wait([running])
    assert told.said == [("roll over", WEEK.id, NEXT.id)]


async def test_nobody_is_told_while_postgresql_does_not_say_that_the_week_is_over() -> None:
    """It may be away, or its clock may have been set back: it is asked until it says so."""
    told = Told()
    asked: list[int] = []
    end = MONDAY + timedelta(days=7)
    clock = lambda: end - MICROSECOND if len(asked) < 4 else end  # noqa: E731

    async def ask() -> None:
        asked.append(len(told.said))

    running = asyncio.ensure_future(Rollover(told, told.mark, clock, ask).run())
    async with asyncio.timeout(PATIENCE):
        while not told.said:  # noqa: ASYNC110 - a tenth of a second of a real clock
            await asyncio.sleep(0.005)
    running.cancel()
    await asyncio.wait([running])
    assert asked == [0, 0, 0, 0], "no more often than it must, and nobody was told before"
    assert told.said == [("roll over", WEEK.id, NEXT.id)]
