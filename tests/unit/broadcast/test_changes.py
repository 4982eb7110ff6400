"""Changes: which followed boards an announcement is about."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from realtime.boards.board import ALL_TIME, CLOSED_EPOCH, Board, board_in
from realtime.boards.catalogue import Catalogue, Directory
from realtime.boards.definitions import Definition
from realtime.boards.leaderboard import DEFAULT, Leaderboard
from realtime.boards.standings import Position
from realtime.boards.windows import Window
from realtime.broadcast.changes import Changes
from realtime.store.announcements import Announcement

LAP = Leaderboard("lap", Definition("lap", "Lap", windows=("day",)), 2, 20, 2, "lap", "p03")
LONG_AGO = datetime(2025, 1, 1, tzinfo=UTC)
DAY = board_in(LAP, Window("day", "day_of_2025_01_01", LONG_AGO, LONG_AGO + timedelta(days=1), 5))
SAID = Position(CLOSED_EPOCH, 7)


class Followed:
    """Two boards with followers, one of a window that the catalogue has no more; and what is marked."""

    live = True

    def __init__(self) -> None:
        self.marked: list[tuple[Board, Position | None]] = []

    def positions(self) -> Mapping[Board, Position | None]:
        return {ALL_TIME: None, DAY: None}

    def mark(self, board: Board, position: Position | None = None) -> None:
        if position is not None:
            self.marked.append((board, position))


class Said:
    """One partition where three boards are announced."""

    @asynccontextmanager
    async def hearing(self, partition: str) -> AsyncIterator[AsyncIterator[Announcement]]:
        yield self._all(partition)

    async def _all(self, partition: str) -> AsyncIterator[Announcement]:
        if partition:
            for board_id in ("lap:day_of_2025_01_02", DAY.id, "nobody:all_time"):
                yield Announcement(board_id, SAID)
        await asyncio.Event().wait()


async def test_a_correction_of_long_ago_is_heard_by_whoever_follows_it() -> None:
    followed: Any = Followed()
    said: Any = Said()
    nobody: Any = None
    directory = Directory(Catalogue(1, {"default": DEFAULT, "lap": LAP}))
    listening = asyncio.ensure_future(Changes(said, nobody, followed, directory).listen())
    for _ in range(20):
        await asyncio.sleep(0)
    listening.cancel()
    with suppress(asyncio.CancelledError):
        await listening
    assert followed.marked == [(DAY, SAID)]
