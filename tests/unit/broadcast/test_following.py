"""Following: by which names, while these stand for something and while they do not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from realtime.boards.board import Board
from realtime.boards.catalogue import Catalogue, Directory
from realtime.boards.definitions import Definition
from realtime.boards.leaderboard import DEFAULT, Leaderboard
from realtime.boards.standings import Snapshot
from realtime.boards.windows import Window
from realtime.broadcast.following import Following
from realtime.broadcast.rollover import Rollover
from realtime.broadcast.subscribers import Subscriber
from tests.support.recorder import RecordingConnection

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
DAY = timedelta(days=1)
CUP = Leaderboard("cup", Definition("cup", "Cup", windows=("season",)), 2, 20, 2, "cup", "p03")
SEASONS = [
    Window("season", "season_one", NOW - DAY, NOW + DAY, 1),
    Window("season", "season_two", NOW + 5 * DAY, NOW + 9 * DAY, 2),
]
ALIAS = "cup:current_season"


async def test_whoever_waits_for_the_next_season_is_told_once_that_there_is_none() -> None:
    now = NOW

    def read(board: Board) -> None:
        stream = following.stream(board)
        assert stream is not None
        stream.advance(Snapshot(board.id, "e", 1, {}, {}))

    directory = Directory(Catalogue(1, {"default": DEFAULT, "cup": CUP}, {2: SEASONS}))
    following = Following(directory, lambda: now, wanted=read, unused=lambda stream: None)
    connection = RecordingConnection()
    subscriber = Subscriber(connection, buffer_limit=20_000, slow_after=3600)
    await following.subscribe(subscriber, ALIAS, None)

    async def ask() -> None:
        raise AssertionError("nobody is to be asked")

    rollover = Rollover(following, lambda board: None, lambda: now, ask, directory)
    for days in (0, 2, 3, 4):
        now = NOW + days * DAY
        rollover.step(now)
    assert connection.kinds().count("rollover") == 1
    assert following.waiting_for(subscriber) == [ALIAS]
    now = NOW + 5 * DAY
    rollover.step(now)
    assert connection.kinds().count("rollover") == 2 and following.waiting_for(subscriber) == []
    assert [subscription.stream.board.id for subscription in subscriber.subscriptions] == ["cup:season_two"]
