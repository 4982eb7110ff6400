"""The broadcaster on a real store: announced, polled, lost, torn away and brought back, every viewer ends right."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from itertools import count

import asyncpg
import pytest
from redis.asyncio import Redis

from realtime.boards.board import ALL_TIME, CURRENT_WEEK, Board, week_of
from realtime.boards.standings import Profile, Row
from realtime.boards.submissions import Submission
from realtime.broadcast import delivery, following
from realtime.broadcast.broadcaster import Broadcaster
from realtime.broadcast.reading import BoardReader
from realtime.broadcast.rollover import Rollover
from realtime.broadcast.subscribers import Subscriber
from realtime.errors import EpochMoved, LedgerUnavailable, RealtimeError, StoreUnavailable
from realtime.ledger.ledger import Ledger
from realtime.people.accounts import Accounts
from realtime.repair.resync import Resync
from realtime.store.announcements import Announcements
from realtime.store.filling import Filling
from realtime.store.replies import ReadAfterWrite
from realtime.store.snapshots import SnapshotReader
from realtime.store.store import Store
from realtime.wire.messages import Since
from tests.support.closed_weeks import views_of
from tests.support.databases import MakeUsers
from tests.support.keys import cache_key, scores_key, version_key
from tests.support.recorder import RecordingConnection
from tests.support.stores import PrivateStore, make_ours, week_ahead
from tests.support.waiting import eventually

LAST, WEEK, NEXT = week_ahead(), week_ahead(1), week_ahead(2)
A_TUESDAY = f"week_of_{WEEK.starts + timedelta(days=1):%Y_%m_%d}"


async def answered() -> None:
    """PostgreSQL was asked what time it is; a test says that itself."""


class Broadcasting:
    """A broadcaster with its tasks, and the time it is."""

    def __init__(self, store: Store, ledger: Ledger | None = None) -> None:
        self.now = WEEK.starts + timedelta(days=2)
        self.store = store
        live = SnapshotReader(store)
        snapshots = BoardReader(live, views_of(ledger, store).archive, lambda: self.now) if ledger else live
        self.it = Broadcaster(snapshots, Announcements(store.link), store, lambda: self.now, interval=0.005)
        self._tasks: list[asyncio.Task[None]] = []

    def run(self, *works: Callable[[], object]) -> None:
        self._tasks += [asyncio.ensure_future(work()) for work in works]

    async def aclose(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def viewer(
        self, alias: str = "all_time", since: Since | None = None, *, into: RecordingConnection | None = None
    ) -> RecordingConnection:
        """Somebody who subscribed, as a session does."""
        connection = into or RecordingConnection()
        subscriber = Subscriber(
            connection, buffer_limit=20_000, slow_after=3600, on_drained=self.it.following.caught_up
        )
        connection.subscriber = subscriber  # type: ignore[attr-defined]
        if not self.it.following.subscribe_now(subscriber, alias, since):
            await self.it.following.subscribe(subscriber, alias, since)
        return connection

    async def shows(self, connection: RecordingConnection, board: Board, lines: list[tuple[int, str, int]]) -> None:
        await eventually(
            lambda: board.id in connection.follower.boards and connection.follower.boards[board.id].lines == lines
        )


@asynccontextmanager
async def broadcasting(
    store: Store, ledger: Ledger | None = None, *, listening: bool = True
) -> AsyncIterator[Broadcasting]:
    made = Broadcasting(store, ledger)
    made.run(made.it.read, made.it.delivery.run)
    if listening:
        made.run(made.it.changes.listen)
    try:
        yield made
    finally:
        await made.aclose()


@pytest.fixture
async def broadcast(store: Store) -> AsyncIterator[Broadcasting]:
    async with broadcasting(store) as made:
        yield made


async def place(
    store: Store,
    scores: dict[int, int],
    version: int = 1,
    board: Board = ALL_TIME,
    read_after_write: ReadAfterWrite | None = None,
) -> None:
    await store.apply(
        {board: [Row(user_id, version, score) for user_id, score in scores.items()]},
        [Profile(user_id, 1, f"p{user_id}") for user_id in scores],
        read_after_write=read_after_write,
    )


# Following -------------------------------------------------------------------------------------------------------


async def test_a_snapshot_first_then_diffs(broadcast: Broadcasting, store: Store) -> None:
    await place(store, {1: 10, 2: 20})
    viewer = await broadcast.viewer()
    assert viewer.kinds() == ["subscribed", "snapshot"]
    await place(store, {1: 30, 3: 5}, 2)
    await broadcast.shows(viewer, ALL_TIME, [(1, "p1", 30), (2, "p2", 20), (3, "p3", 5)])
    assert viewer.kinds() == ["subscribed", "snapshot", "diff"]
    assert viewer.messages[-1]["upsert"] == [
        {"user_id": 1, "score": 30},
        {"user_id": 3, "username": "p3", "score": 5},
    ]


async def test_only_a_board_that_is_followed_can_be_had_at_once(broadcast: Broadcasting, store: Store) -> None:
    await place(store, {1: 10})
    late = RecordingConnection()
    subscriber = Subscriber(late, buffer_limit=20_000, slow_after=3600)
    for board in ("all_time", "nonsense"):
        assert not broadcast.it.following.subscribe_now(subscriber, board, None)
    assert not late.messages and not list(broadcast.it.following.streams), "nothing is begun that nobody waits for"
    await broadcast.viewer()
    assert broadcast.it.following.subscribe_now(subscriber, "all_time", None)
    assert late.kinds() == ["subscribed", "snapshot"] and broadcast.it.following.subscribers == 2


async def test_viewers_come_and_go_under_load_and_all_end_with_what_the_store_holds(
    broadcast: Broadcasting, store: Store, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "SLICE_SECONDS", 1e-9)
    monkeypatch.setattr(delivery, "STRETCH", 7)  # passes are cut, and cut again
    writer = Store(store_url)
    await writer.adopt()
    chance = random.Random(4)
    await place(store, {user: user for user in range(1, 130)})
    viewers: list[RecordingConnection] = []

    async def write_until(coming: asyncio.Task[None]) -> None:
        for version in count(2):
            if coming.done():
                return
            users = {chance.randint(1, 130): chance.randint(0, 300) for _ in range(3)}
            board = chance.choice([ALL_TIME, WEEK])
            await place(writer, users, version, board)
            if version % 10 == 0:
                user = chance.randint(1, 130)
                await writer.apply({ALL_TIME: [], WEEK: []}, [Profile(user, version, f"n{version}")])

    async def come_and_go() -> None:
        for number in range(60):
            viewer = await broadcast.viewer(chance.choice(["all_time", WEEK.id, CURRENT_WEEK]))
            viewers.append(viewer)
            if number % 3 == 0:
                viewer.stalled = True
            if number % 4 == 0:
                leaver = viewers.pop(chance.randrange(len(viewers)))
                leaver.is_closed = True
                leaver.subscriber.gone()  # type: ignore[attr-defined]
                broadcast.it.following.remove(leaver.subscriber)  # type: ignore[attr-defined]
            await asyncio.sleep(0.002)

    coming = asyncio.create_task(come_and_go())
    await asyncio.gather(write_until(coming), coming)
    for viewer in viewers:
        viewer.stalled, viewer.buffered = False, 0
        viewer.subscriber.drained()  # type: ignore[attr-defined]
    newest = await SnapshotReader(writer).read([ALL_TIME, WEEK])
    for viewer in viewers:
        (board,) = viewer.follower.boards
        latest = newest[ALL_TIME if board == "all_time" else WEEK]
        await broadcast.shows(viewer, ALL_TIME if board == "all_time" else WEEK, [tuple(e) for e in latest.entries])
        assert viewer.follower.boards[board].version == latest.version
    assert sum(viewer.follower.diffs for viewer in viewers) > 100
    await writer.aclose()


# Behind a write --------------------------------------------------------------------------------------------------


async def reads(keys: Redis) -> int:
    """How often a top was read, or the edge of one by the script that writes."""
    return int((await keys.info("commandstats")).get("cmdstat_zrevrange", {"calls": 0})["calls"])


async def test_the_outcome_of_a_write_of_this_process_is_shown_unannounced(store: Store) -> None:
    async with broadcasting(store, listening=False) as broadcast:
        await place(store, {1: 10}, read_after_write=broadcast.it.expect)
        viewer = await broadcast.viewer()
        broadcast.it.mark(ALL_TIME)  # the change before, as announced; it turns out to be known
        await asyncio.sleep(0.02)
        await place(store, {1: 20}, 2, read_after_write=broadcast.it.expect)
        assert viewer.kinds() == ["subscribed", "snapshot", "diff"]
        assert viewer.follower.boards["all_time"].lines == [(1, "p1", 20)]


async def test_what_a_write_has_shown_is_not_read_again_when_it_is_announced(
    broadcast: Broadcasting, store: Store, keys: Redis, store_url: str
) -> None:
    await place(store, {1: 10}, read_after_write=broadcast.it.expect)
    viewer = await broadcast.viewer()
    other = Store(store_url)
    await other.adopt()
    async with Announcements(other.link).hearing() as heard:
        await asyncio.sleep(0.02)
        before = await reads(keys)
        await place(store, {1: 20}, 2, read_after_write=broadcast.it.expect)
        await anext(heard)
    await broadcast.shows(viewer, ALL_TIME, [(1, "p1", 20)])
    await asyncio.sleep(0.03)
    assert await reads(keys) - before == 2, "the script's own look at the edge, and one reading"
    await other.aclose()


async def test_what_is_announced_before_it_was_read_behind_the_write_is_not_read_again(
    broadcast: Broadcasting, store: Store
) -> None:
    await place(store, {1: 10})
    await broadcast.viewer()
    broadcast.it._dirty.interval = 60.0
    broadcast.it._dirty.unchanged(ALL_TIME)
    expected = broadcast.it.expect({ALL_TIME: [Row(1, 2, 20)]})
    assert expected is not None
    await place(store, {1: 20}, 2)
    await eventually(lambda: broadcast.it._dirty.next_due is not None)
    expected.fulfil(await store.read(expected.wanted, expected.names_of))
    assert broadcast.it._dirty.next_due is None


async def test_a_write_below_the_top_has_nothing_read_behind_it(broadcast: Broadcasting, store: Store) -> None:
    await place(store, {user: 1000 + user for user in range(1, 101)})
    await broadcast.viewer()
    await asyncio.sleep(0.02)
    below, edge = [Row(900, 1, 1000)], [Row(900, 2, 1001)]
    assert broadcast.it.expect({ALL_TIME: below, WEEK: edge}) is None, "nor has a board that nobody follows"
    assert broadcast.it.expect({ALL_TIME: [Row(7, 2, None)]}), "who is shown, and leaves"
    assert broadcast.it.expect({ALL_TIME: edge}) is None, "it was read just now"
    await asyncio.sleep(0.02)
    assert broadcast.it.expect({ALL_TIME: edge}), "who equals the last one shown may stand above"


async def test_a_write_that_fails_leaves_its_boards_to_be_read_as_ever(
    broadcast: Broadcasting, store: Store, keys: Redis
) -> None:
    await place(store, {1: 10}, read_after_write=broadcast.it.expect)
    viewer = await broadcast.viewer()
    await asyncio.sleep(0.02)
    await keys.zadd(scores_key(ALL_TIME), {"1": 15})
    await keys.incr(version_key(ALL_TIME))
    held, store.link.epoch = store.link.epoch, "another"
    with pytest.raises(EpochMoved):
        await place(store, {1: 20}, 2, read_after_write=broadcast.it.expect)
    store.link.epoch = held
    await broadcast.shows(viewer, ALL_TIME, [(1, "p1", 15)])


async def test_a_reading_that_was_overtaken_is_not_shown(broadcast: Broadcasting, store: Store) -> None:
    await place(store, {1: 10})
    viewer = await broadcast.viewer()
    await asyncio.sleep(0.02)
    expected = broadcast.it.expect({ALL_TIME: [Row(1, 2, 20)]})
    assert expected is not None
    early = await store.read(expected.wanted, expected.names_of)
    await place(store, {1: 30}, 2)
    await broadcast.shows(viewer, ALL_TIME, [(1, "p1", 30)])
    expected.fulfil(early)
    await asyncio.sleep(0.02)
    assert viewer.kinds() == ["subscribed", "snapshot", "diff"]


async def test_many_changes_are_one_diff(broadcast: Broadcasting, store: Store) -> None:
    await place(store, {1: 0})
    viewer = await broadcast.viewer()
    broadcast.it._dirty.interval = 0.2
    began = asyncio.get_running_loop().time()
    for version in range(2, 60):
        await place(store, {1: version}, version)
    await broadcast.shows(viewer, ALL_TIME, [(1, "p1", 59)])
    took = asyncio.get_running_loop().time() - began
    assert viewer.follower.diffs <= 2 + took / 0.2, "the first at once, the others together"


async def test_a_rename_is_a_diff(broadcast: Broadcasting, store: Store) -> None:
    await place(store, {1: 10, 2: 20})
    viewer = await broadcast.viewer()
    await store.apply({ALL_TIME: []}, [Profile(1, 2, "<b>new</b>")])
    await broadcast.shows(viewer, ALL_TIME, [(2, "p2", 20), (1, "<b>new</b>", 10)])
    assert viewer.messages[-1]["upsert"] == [{"user_id": 1, "username": "<b>new</b>", "score": 10}]


async def test_a_lost_announcement_costs_one_comparison(store: Store) -> None:
    async with broadcasting(store, listening=False) as broadcast:
        await place(store, {1: 10})
        viewer = await broadcast.viewer()
        await broadcast.it.changes.compare()
        await place(store, {1: 20}, 2)
        assert viewer.kinds() == ["subscribed", "snapshot"], "nobody listens"
        await broadcast.it.changes.compare()
        await broadcast.shows(viewer, ALL_TIME, [(1, "p1", 20)])
        await store.apply({ALL_TIME: []}, [Profile(1, 2, "new")])
        await broadcast.it.changes.compare()
        await broadcast.shows(viewer, ALL_TIME, [(1, "new", 20)])


async def test_what_was_announced_before_anybody_listened_is_not_missed(store: Store) -> None:
    async with broadcasting(store, listening=False) as broadcast:
        await place(store, {1: 10})
        viewer = await broadcast.viewer()
        await place(store, {1: 20}, 2)
        broadcast.run(broadcast.it.changes.listen)
        await broadcast.shows(viewer, ALL_TIME, [(1, "p1", 20)])


async def test_a_board_without_subscribers_is_not_read(broadcast: Broadcasting, store: Store, keys: Redis) -> None:
    await place(store, {1: 10})
    viewer = await broadcast.viewer()
    assert broadcast.it.following.unsubscribe(viewer.subscriber, "all_time") == ALL_TIME  # type: ignore[attr-defined]
    assert broadcast.it.following.unsubscribe(viewer.subscriber, "all_time") is None  # type: ignore[attr-defined]
    assert list(broadcast.it.following.streams) == [] and broadcast.it.following.subscribers == 0

    async def readings() -> int:
        return int((await keys.info("commandstats"))["cmdstat_exec"]["calls"])

    before = await readings()
    for version in range(2, 12):
        await place(store, {1: version}, version)
    again = await broadcast.viewer()
    assert await readings() <= before + 2
    assert again.follower.boards["all_time"].lines == [(1, "p1", 11)], "read anew, not what was held once"
    assert viewer.kinds() == ["subscribed", "snapshot"]


async def test_nothing_is_left_of_those_who_left(broadcast: Broadcasting, store: Store) -> None:
    for number in range(200):
        viewer = await broadcast.viewer("all_time" if number % 2 else WEEK.id)
        broadcast.it.following.remove(viewer.subscriber)  # type: ignore[attr-defined]
    it = broadcast.it
    assert not it.following.boards() and not it.following.subscribers and not it.delivery._pending
    assert it._dirty.next_due is None


# Resuming --------------------------------------------------------------------------------------------------------


async def test_since_is_answered_with_what_is_missing(broadcast: Broadcasting, store: Store) -> None:
    await place(store, {1: 10})
    keeper = await broadcast.viewer()  # holds the stream
    left = await broadcast.viewer()
    broadcast.it.following.remove(left.subscriber)  # type: ignore[attr-defined]
    await place(store, {1: 20}, 2)
    await broadcast.shows(keeper, ALL_TIME, [(1, "p1", 20)])
    held = left.follower.boards["all_time"]
    before = len(left.messages)
    await broadcast.viewer("all_time", Since(held.epoch, held.version), into=left)
    assert left.kinds()[before:] == ["subscribed", "diff"]
    assert left.messages[before]["resumed"] is True
    assert left.follower.boards["all_time"].lines == [(1, "p1", 20)]
    broadcast.it.following.remove(left.subscriber)  # type: ignore[attr-defined]
    before = len(left.messages)
    await broadcast.viewer("all_time", Since(held.epoch, held.version), into=left)
    assert left.kinds()[before:] == ["subscribed"], "as it is now: nothing else"


async def test_since_of_another_epoch_or_of_long_ago_gets_a_snapshot(broadcast: Broadcasting, store: Store) -> None:
    await place(store, {1: 10})
    for since in (Since("other-1", 1), Since(str(store.epoch), 0), Since(str(store.epoch), 99)):
        viewer = await broadcast.viewer("all_time", since)
        assert viewer.kinds() == ["subscribed", "snapshot"]
        assert viewer.messages[0]["resumed"] is False


# Refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("board", ["", "nonsense", A_TUESDAY, NEXT.id, "leaderboard:epoch"])
async def test_a_board_that_there_is_not_is_refused(broadcast: Broadcasting, board: str) -> None:
    with pytest.raises(RealtimeError) as caught:
        await broadcast.viewer(board)
    assert caught.value.code == "unknown_board"
    assert list(broadcast.it.following.streams) == []


async def test_a_week_before_the_first_score_is_refused_at_once(
    store: Store, ledger: Ledger, make_users: MakeUsers
) -> None:
    async with broadcasting(store, ledger) as broadcast:
        for _ in range(2):
            with pytest.raises(RealtimeError, match="that old") as caught:
                await broadcast.viewer("week_of_2001_01_01")
            assert caught.value.code == "unknown_board"
            (user,) = await make_users(1)
            await ledger.record_batch([Submission(user, str(user), 5, None, datetime(2026, 3, 2, tzinfo=UTC))], [])
        viewer = await broadcast.viewer("week_of_2026_03_02")
        assert viewer.messages[-1]["epoch"] == "closed"


# Closed weeks ----------------------------------------------------------------------------------------------------


async def test_a_closed_week_in_the_making_holds_no_live_board_up(
    store: Store, ledger: Ledger, sql: object, make_users: MakeUsers
) -> None:
    """Its view is made at the first request, which may take minutes where the week was large."""
    (user,) = await make_users(1)
    at = datetime(2026, 3, 2, tzinfo=UTC)
    await ledger.record_batch([Submission(user, "a", 5, None, at)], [])
    async with broadcasting(store, ledger) as broadcast:
        viewer = await broadcast.viewer()
        async with ledger.connection() as connection, connection.transaction():
            await connection.execute("LOCK TABLE user_score_transactions IN ACCESS EXCLUSIVE MODE")
            making = asyncio.ensure_future(broadcast.viewer("week_of_2026_03_02"))
            for version in range(1, 6):
                await place(store, {user: version}, version)
                await broadcast.shows(viewer, ALL_TIME, [(user, f"p{user}", version)])
            assert not making.done()
        closed = await making
        assert closed.follower.boards["week_of_2026_03_02"].lines == [(user, "player-1", 5)]


async def test_a_closed_week_that_cannot_be_read_says_nothing_of_live_boards(
    store: Store, ledger: Ledger, make_users: MakeUsers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "SUBSCRIBE_TIMEOUT", 0.2)
    async with broadcasting(store, ledger) as broadcast:
        viewer = await broadcast.viewer()
        await ledger.aclose()
        with pytest.raises((RealtimeError, LedgerUnavailable)):
            await broadcast.viewer("week_of_2026_03_02")
        await place(store, {1: 7}, 2)
        await broadcast.shows(viewer, ALL_TIME, [(1, "p1", 7)])
        assert "status" not in viewer.kinds()
        assert broadcast.it.live


@pytest.mark.parametrize("listening", [True, False])
async def test_a_rename_reaches_the_viewers_of_closed_weeks(
    store: Store, ledger: Ledger, make_users: MakeUsers, listening: bool
) -> None:
    """They have no announcement of their own: that of names is theirs, or a comparison."""
    (user,) = await make_users(names=["before"])
    await ledger.record_batch([Submission(user, "a", 5, None, datetime(2026, 3, 2, tzinfo=UTC))], [])
    await store.apply({ALL_TIME: [Row(user, 1, 5)]}, [Profile(user, 1, "before")])
    week = week_of(date(2026, 3, 2))
    async with broadcasting(store, ledger, listening=listening) as broadcast:
        viewer = await broadcast.viewer(week.id)
        await broadcast.it.changes.compare()
        await broadcast.shows(viewer, week, [(user, "before", 5)])
        await Accounts(ledger, Resync(ledger, store, ledger.clock.now), None).rename(user, "after")  # type: ignore[arg-type]
        if not listening:
            await broadcast.it.changes.compare()
        await broadcast.shows(viewer, week, [(user, "after", 5)])
        assert viewer.kinds()[-1] == "diff"


async def test_a_closed_week_of_a_restored_postgresql_goes_back_for_everybody(
    store: Store, ledger: Ledger, sql: asyncpg.Connection, keys: Redis, make_users: MakeUsers
) -> None:
    """The ledger is the truth about closed weeks, whatever it said before."""
    (user,) = await make_users(names=["before"])
    await ledger.record_batch([Submission(user, "a", 5, None, datetime(2026, 3, 2, tzinfo=UTC))], [])
    week = week_of(date(2026, 3, 2))
    async with broadcasting(store, ledger) as broadcast:
        viewer = await broadcast.viewer(week.id)
        await sql.execute("UPDATE closed_weeks SET version = 7")
        await keys.delete(cache_key(week))
        broadcast.it.mark(week)
        await eventually(lambda: viewer.follower.boards[week.id].version == 7)
        await sql.execute("UPDATE closed_weeks SET version = 3")
        await keys.delete(cache_key(week))
        broadcast.it.mark(week)
        await eventually(lambda: viewer.follower.boards[week.id].version == 3)
        assert viewer.kinds()[-1] == "snapshot"


# Rollover --------------------------------------------------------------------------------------------------------


async def test_followers_of_the_current_week_move_on_without_asking(broadcast: Broadcasting, store: Store) -> None:
    rollover = Rollover(broadcast.it.following, broadcast.it.mark, lambda: broadcast.now, answered)
    broadcast.now = NEXT.starts - timedelta(microseconds=1)
    rollover.step(broadcast.now)
    await place(store, {1: 10}, board=WEEK)
    by_alias, by_id = await broadcast.viewer(CURRENT_WEEK), await broadcast.viewer(WEEK.id)
    by_both = RecordingConnection()
    await broadcast.viewer(CURRENT_WEEK, into=by_both)
    await broadcast.it.following.subscribe(by_both.subscriber, WEEK.id, None)  # type: ignore[attr-defined]
    rollover.step(broadcast.now)
    assert "rollover" not in by_alias.kinds(), "not a microsecond early"
    broadcast.now = NEXT.starts
    rollover.step(broadcast.now)
    told = {"type": "rollover", "as": CURRENT_WEEK, "from": WEEK.id, "to": NEXT.id}
    await eventually(lambda: by_alias.kinds()[-1] == "snapshot" and NEXT.id in by_both.follower.boards)
    assert by_alias.messages[-2:] == [
        told,
        {"type": "snapshot", "board": NEXT.id, "epoch": store.epoch, "version": 0, "entries": []},
    ]
    await place(store, {1: 5}, board=NEXT)
    await place(store, {1: 12}, 2, board=WEEK)  # still within its grace
    await broadcast.shows(by_alias, NEXT, [(1, "p1", 5)])
    await broadcast.shows(by_id, WEEK, [(1, "p1", 12)])
    await broadcast.shows(by_both, NEXT, [(1, "p1", 5)])
    await broadcast.shows(by_both, WEEK, [(1, "p1", 12)])
    assert by_id.kinds() == ["subscribed", "snapshot", "diff"], "who asked for the week by name keeps it"
    assert by_alias.follower.boards[WEEK.id].lines == [(1, "p1", 10)], "and who did not has left it"
    assert by_both.messages.count(told) == 1


async def test_a_rollover_that_moves_nobody_leaves_nothing_behind(broadcast: Broadcasting) -> None:
    await broadcast.viewer(WEEK.id)
    broadcast.now = NEXT.starts
    broadcast.it.following.roll_over(CURRENT_WEEK, WEEK, NEXT)
    broadcast.it.following.roll_over(CURRENT_WEEK, LAST, WEEK)
    assert [stream.board for stream in broadcast.it.following.streams] == [WEEK]


async def test_who_was_behind_at_the_rollover_gets_the_new_week_when_drained(
    broadcast: Broadcasting, store: Store
) -> None:
    rollover = Rollover(broadcast.it.following, broadcast.it.mark, lambda: broadcast.now, answered)
    rollover.step(broadcast.now)
    viewer = await broadcast.viewer(CURRENT_WEEK)
    viewer.stalled = True
    viewer.buffered = 50_000
    await place(store, {1: 10}, board=WEEK)
    await eventually(lambda: "diff" in viewer.kinds())
    broadcast.now = NEXT.starts + timedelta(hours=1)
    rollover.step(broadcast.now)
    keeper = await broadcast.viewer(CURRENT_WEEK)
    await place(store, {1: 3}, board=NEXT)
    await broadcast.shows(keeper, NEXT, [(1, "p1", 3)])
    assert NEXT.id not in viewer.follower.boards
    viewer.stalled, viewer.buffered = False, 0
    viewer.subscriber.drained()  # type: ignore[attr-defined]
    assert viewer.follower.boards[NEXT.id].lines == [(1, "p1", 3)]
    assert viewer.kinds()[-2:] == ["rollover", "snapshot"]


async def test_a_closed_week_changes_hands_from_the_store_to_its_view(
    store: Store, ledger: Ledger, make_users: MakeUsers
) -> None:
    (user,) = await make_users(names=["p1"])
    monday = datetime(2026, 3, 2, tzinfo=UTC)
    week = week_of(monday.date())
    await ledger.record_batch([Submission(user, "a", 5, None, monday)], [])
    async with broadcasting(store, ledger) as broadcast:
        broadcast.now = monday + timedelta(days=6)
        rollover = Rollover(broadcast.it.following, broadcast.it.mark, lambda: broadcast.now, answered)
        rollover.step(broadcast.now)
        # Written without an expiry that lies behind us: the store would drop it at once.
        await store.apply({ALL_TIME: [Row(user, 1, 5)]}, [Profile(user, 1, "p1")])
        viewer = await broadcast.viewer(week.id)
        assert viewer.messages[-1]["epoch"] == store.epoch
        for moment in (monday + timedelta(days=7), monday + timedelta(days=7, seconds=119)):
            broadcast.now = moment
            rollover.step(moment)
        assert viewer.follower.boards[week.id].epoch == store.epoch
        broadcast.now = monday + timedelta(days=7, seconds=120)
        rollover.step(broadcast.now)
        await broadcast.shows(viewer, week, [(user, "p1", 5)])
        assert viewer.follower.boards[week.id].epoch == "closed"


# The store away --------------------------------------------------------------------------------------------------


async def test_viewers_are_told_when_boards_stand_still_and_when_they_move_again(private_store: PrivateStore) -> None:
    store = Store(private_store.url, timeout=0.3)
    await make_ours(store)
    await place(store, {1: 10})
    async with broadcasting(store, listening=False) as broadcast:
        viewer = await broadcast.viewer()
        await broadcast.it.changes.compare()
        os.kill(private_store.running.pid, signal.SIGSTOP)
        try:
            await broadcast.it.changes.compare()
            assert viewer.messages[-1] == {"type": "status", "live": False}
            assert not broadcast.it.live
            late = await broadcast.viewer()
            assert late.kinds() == ["subscribed", "snapshot", "status"], "the last board, and that it may be old"
            await broadcast.it.changes.compare()
            assert viewer.kinds().count("status") == 1, "said once"
        finally:
            os.kill(private_store.running.pid, signal.SIGCONT)
        await broadcast.it.changes.compare()
        await eventually(lambda: viewer.messages[-1] == {"type": "status", "live": True})
        await place(store, {1: 20}, 2)
        await broadcast.it.changes.compare()
        await broadcast.shows(viewer, ALL_TIME, [(1, "p1", 20)])
        await broadcast.shows(late, ALL_TIME, [(1, "p1", 20)])
    await store.aclose()


async def test_without_a_store_the_first_subscriber_is_told_when_to_come_again(
    private_store: PrivateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "SUBSCRIBE_TIMEOUT", 0.3)
    store = Store(private_store.url, timeout=0.2)
    await make_ours(store)
    await asyncio.to_thread(private_store.kill)
    async with broadcasting(store, listening=False) as broadcast:
        with pytest.raises(RealtimeError) as caught:
            await broadcast.viewer()
        assert (caught.value.code, caught.value.retry_after_ms) == ("unavailable", 1_000)
        assert list(broadcast.it.following.streams) == []
    await store.aclose()
    await asyncio.to_thread(private_store.start)


async def test_with_nobody_there_it_still_notices_that_the_store_is_back(private_store: PrivateStore) -> None:
    store = Store(private_store.url, timeout=0.2)
    await make_ours(store)
    async with broadcasting(store, listening=False) as broadcast:
        os.kill(private_store.running.pid, signal.SIGSTOP)
        await broadcast.it.changes.compare()
        assert not broadcast.it.live
        os.kill(private_store.running.pid, signal.SIGCONT)
        await broadcast.it.changes.compare()
        assert broadcast.it.live
    await store.aclose()


async def test_a_listener_whose_connection_breaks_says_so(private_store: PrivateStore) -> None:
    store = Store(private_store.url, timeout=0.3)
    await make_ours(store)
    made = Broadcasting(store)
    listening = asyncio.ensure_future(made.it.changes.listen())
    await asyncio.sleep(0.05)
    await asyncio.to_thread(private_store.kill)
    with pytest.raises(StoreUnavailable):
        await listening
    await store.aclose()
    await asyncio.to_thread(private_store.start)


async def test_a_board_that_goes_back_is_not_shown_and_stands_still_until_it_is_made_anew(
    broadcast: Broadcasting, store: Store, keys: Redis, store_url: str
) -> None:
    """Older content under the same epoch: whoever wrote it, it cannot be right."""
    for version in range(1, 6):
        await place(store, {1: 10 * version}, version)
    viewer = await broadcast.viewer()
    await keys.set(version_key(ALL_TIME), 2)
    await keys.zadd(scores_key(ALL_TIME), {"1": 20})
    broadcast.it.mark(ALL_TIME)
    await eventually(lambda: not broadcast.it.live)
    assert (store.distrusted, store.is_complete) == (store.epoch, False)
    assert viewer.kinds() == ["subscribed", "snapshot", "status"]
    assert viewer.follower.boards["all_time"].lines == [(1, "p1", 50)]
    await fill_anew(store_url, {1: 50})
    await store.adopt()
    await broadcast.it.changes.compare()
    await eventually(lambda: broadcast.it.live)
    await eventually(lambda: viewer.kinds()[3:] == ["status", "snapshot"])
    assert viewer.follower.boards["all_time"].lines == [(1, "p1", 50)]


async def fill_anew(store_url: str, scores: dict[int, int]) -> None:
    """What a rebuild in another process does, for one board; its epoch ends in 2."""
    other = Store(store_url)
    run = (await other.adopt()).run
    await Filling(other.link).begin(run, f"{run[:8]}-2")
    await other.adopt()
    await Filling(other.link).clear(f"{run[:8]}-2")
    await place(other, scores, 9)
    await Filling(other.link).end(run, f"{run[:8]}-2", ["all_time", "users"])
    await other.aclose()


async def test_a_new_epoch_is_a_snapshot_for_everybody(broadcast: Broadcasting, store: Store, store_url: str) -> None:
    await place(store, {1: 10})
    viewer = await broadcast.viewer()
    await fill_anew(store_url, {1: 15})
    await broadcast.shows(viewer, ALL_TIME, [(1, "p1", 15)])
    assert viewer.follower.boards["all_time"].epoch == f"{str(store.run)[:8]}-2"
    assert store.distrusted is None
