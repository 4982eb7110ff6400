"""Boards of several partitions: each is followed by itself, whatever becomes of the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from dataclasses import replace

import pytest
import redis.asyncio

from realtime.boards.board import ALL_TIME, Board, board_in
from realtime.boards.catalogue import PUBLISHED, Directory
from realtime.boards.definitions import Definition
from realtime.boards.leaderboard import Leaderboard
from realtime.boards.making import in_the_making
from realtime.boards.standings import Profile, Row, Snapshot
from realtime.boards.windows import ALWAYS
from realtime.broadcast.broadcaster import Broadcaster
from realtime.broadcast.subscribers import Subscriber
from realtime.repair.rebuild import epoch_name
from realtime.store.announcements import Announcements
from realtime.store.filling import Filling
from realtime.store.snapshots import SnapshotReader
from realtime.store.store import Store
from tests.support.keys import EPOCH_KEY
from tests.support.recorder import RecordingConnection
from tests.support.stores import week_ahead
from tests.support.waiting import eventually

WINDOW = ALWAYS._replace(key=1)


def cup(number: int, **fields: str) -> Leaderboard:
    return Leaderboard(f"cup-{number}", Definition(f"cup-{number}", "Cup", **fields), number, number, number,
                       f"cup-{number}", f"p{number:02}")  # type: ignore[arg-type]  # fmt: skip


CUPS = [cup(2), cup(3)]
BOARDS = [board_in(one, WINDOW) for one in CUPS]
CATALOGUE = replace(
    PUBLISHED,
    leaderboards={**PUBLISHED.leaderboards, **{one.slug: one for one in CUPS}},
    windows={one.id: [WINDOW] for one in CUPS},
)


async def content(store: Store, of: Leaderboard, number: int = 1) -> None:
    link = store.link_of(of.partition)
    filling, run = Filling(link), (await link.content()).run
    epoch = epoch_name(run, number)
    assert await filling.begin(run, epoch)
    await filling.define(epoch, {of.slug: of.rule or 0})
    assert await filling.end(run, epoch, [])
    await link.adopt()


class Broadcast:
    def __init__(self, store: Store) -> None:
        self.store, self.directory = store, Directory(CATALOGUE)
        now = week_ahead().starts
        self.it = Broadcaster(
            SnapshotReader(store),
            Announcements(store.link, store.link_of),
            store,
            lambda: now,
            interval=0.005,
            directory=self.directory,
        )

    async def viewer(self, board: Board) -> RecordingConnection:
        connection = RecordingConnection()
        await self.it.following.subscribe(self.subscriber(connection), board.id, None)
        return connection

    def subscriber(self, connection: RecordingConnection) -> Subscriber:
        return Subscriber(connection, buffer_limit=20_000, slow_after=3600, on_drained=self.it.following.caught_up)

    async def shows(self, viewer: RecordingConnection, board: Board, score: int) -> None:
        def is_shown() -> bool:
            followed = viewer.follower.boards.get(board.id)
            return followed is not None and [line[2] for line in followed.lines] == [score]

        await eventually(is_shown)


@pytest.fixture
async def broadcast(store: Store) -> AsyncIterator[Broadcast]:
    made = Broadcast(store)
    for one in CUPS:
        await content(store, one)
    works = (made.it.read, made.it.delivery.run, made.it.changes.listen)
    tasks = [asyncio.ensure_future(work()) for work in works]
    yield made
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def told(viewer: RecordingConnection) -> list[tuple[str | None, bool]]:
    """What a viewer heard of whether boards move."""
    return [(one.get("board"), one["live"]) for one in viewer.messages if one["type"] == "status"]


async def place(store: Store, board: Board, score: int, version: int) -> None:
    await store.apply({board: [Row(1, version, score)]}, [Profile(1, 1, "p1")])


async def test_a_change_of_each_is_heard_and_shown(broadcast: Broadcast, store: Store) -> None:
    """Nothing is polled here: what is shown was announced."""
    boards = [ALL_TIME, *BOARDS]
    for board in boards:
        await place(store, board, 1, 1)
    viewers = [await broadcast.viewer(board) for board in boards]
    for version in (2, 3):
        for board, viewer in zip(boards, viewers, strict=True):
            await place(store, board, 10 * version, version)
            await broadcast.shows(viewer, board, 10 * version)


async def test_one_that_is_lost_stops_no_other(broadcast: Broadcast, store: Store, keys: redis.asyncio.Redis) -> None:
    lost, other = BOARDS
    for board in (ALL_TIME, *BOARDS):
        await place(store, board, 1, 1)
    viewers = {board: await broadcast.viewer(board) for board in (ALL_TIME, *BOARDS)}
    await keys.set("{p02}leaderboard:epoch", "not-ours")
    store.link_of(lost.leaderboard.partition).distrust()
    await store.link_of(lost.leaderboard.partition).checked.disconnect()
    for version in (2, 3):
        for board in (ALL_TIME, other):
            await place(store, board, 10 * version, version)
            await broadcast.shows(viewers[board], board, 10 * version)
        await broadcast.it.changes.compare()
    assert broadcast.it.live
    assert all("status" not in viewer.kinds() for board, viewer in viewers.items() if board != lost)
    assert told(viewers[lost]) == [(lost.id, False)]
    late = await broadcast.viewer(lost)
    assert told(late) == [(lost.id, False)], "who comes meanwhile hears it too"
    await content(store, CUPS[0], 2)
    store.link_of(lost.leaderboard.partition).accept()
    await place(store, lost, 40, 4)
    await broadcast.shows(viewers[lost], lost, 40)
    assert told(viewers[lost]) == told(late) == [(lost.id, False), (lost.id, True)]
    assert all("status" not in viewer.kinds() for board, viewer in viewers.items() if board != lost)


@pytest.mark.parametrize("hung", [ALL_TIME, BOARDS[0]], ids=lambda board: board.id)
async def test_one_that_hangs_keeps_no_other_waiting(
    broadcast: Broadcast, store: Store, monkeypatch: pytest.MonkeyPatch, hung: Board
) -> None:
    boards = [ALL_TIME, *BOARDS]
    for board in boards:
        await place(store, board, 1, 1)
    viewers = {board: await broadcast.viewer(board) for board in boards}
    goes_on = asyncio.Event()
    read = broadcast.it._snapshots.read

    async def hanging(wanted: Sequence[Board], names_of: Collection[int] = ()) -> Mapping[Board, Snapshot]:
        if hung in wanted:
            await goes_on.wait()
        return await read(wanted, names_of)

    monkeypatch.setattr(broadcast.it._snapshots, "read", hanging)
    for version in (2, 3):
        for board in boards:
            await place(store, board, 10 * version, version)
        for board in boards:
            if board != hung:
                await broadcast.shows(viewers[board], board, 10 * version)
    goes_on.set()
    await broadcast.shows(viewers[hung], hung, 30)


async def test_the_published_content_that_is_lost_stops_no_other(
    broadcast: Broadcast, store: Store, keys: redis.asyncio.Redis
) -> None:
    """Whoever follows a board of another partition alone hears nothing of it."""
    other = BOARDS[0]
    for board in (ALL_TIME, other):
        await place(store, board, 1, 1)
    published, viewer = await broadcast.viewer(ALL_TIME), await broadcast.viewer(other)
    epoch = await keys.getset(EPOCH_KEY, "not-ours")
    store.distrust()
    await store.link.checked.disconnect()
    await broadcast.it.changes.compare()
    await place(store, other, 20, 2)
    await broadcast.shows(viewer, other, 20)
    assert not broadcast.it.live, "a board of another partition that can be read says nothing of these"
    assert told(published) == [(None, False)] and told(viewer) == []
    await keys.set(EPOCH_KEY, epoch)
    store.link.accept()
    await store.adopt()
    await broadcast.it.changes.compare()
    await eventually(lambda: told(published) == [(None, False), (None, True)])
    assert broadcast.it.live and told(viewer) == []


async def test_a_partition_of_which_nothing_is_followed_does_not_stand_still(
    broadcast: Broadcast, store: Store, keys: redis.asyncio.Redis
) -> None:
    lost = BOARDS[0]
    await place(store, lost, 1, 1)
    viewer = broadcast.subscriber(RecordingConnection())
    await broadcast.it.following.subscribe(viewer, lost.id, None)
    await keys.set("{p02}leaderboard:epoch", "not-ours")
    store.link_of("p02").distrust()
    await broadcast.it.changes.compare()
    await eventually(lambda: broadcast.it.still == {"p02"})
    broadcast.it.following.unsubscribe(viewer, lost.id)
    await broadcast.it.changes.compare()
    assert not broadcast.it.still


async def test_a_board_of_another_rule_is_read_by_that_rule(
    broadcast: Broadcast, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was marked before names the rule of then, which nothing can be read by any more."""
    board, other = BOARDS[0], cup(2, ties="first")
    await place(store, board, 1, 1)
    viewer = await broadcast.viewer(board)
    await broadcast.shows(viewer, board, 1)
    link = store.link_of(board.leaderboard.partition)
    made = replace(board.leaderboard, definition=other.definition, next_rule=22)
    beside = in_the_making(board_in(made, WINDOW), made)
    await store.apply({beside: [Row(1, 2, 20, (5, 5))]}, epoch=link.epoch)
    assert await store.switch(made, [board_in(made, WINDOW)], epoch=link.epoch)
    shown = replace(made, rule=22, next_rule=None)
    asked: list[int | None] = []
    read = SnapshotReader.read

    async def counted(self: SnapshotReader, wanted: Sequence[Board], ids: Iterable[int] = ()) -> dict[Board, Snapshot]:
        asked.extend(one.leaderboard.rule for one in wanted)
        return await read(self, wanted, ids)

    monkeypatch.setattr(SnapshotReader, "read", counted)
    broadcast.directory.current = replace(
        CATALOGUE, leaderboards={**CATALOGUE.leaderboards, shown.slug: shown}, revision=1
    )
    broadcast.it.following.redefine(broadcast.directory.current)
    await broadcast.shows(viewer, board, 20)
    assert set(asked) == {22}
