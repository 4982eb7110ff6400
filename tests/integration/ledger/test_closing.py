"""Closing: a closed week has every score ever recorded in it, whatever the clocks did, and whoever stood still."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis

from realtime.boards.board import ALL_TIME, Board, week_of
from realtime.boards.submissions import Submission
from realtime.broadcast.reading import BoardReader
from realtime.errors import LedgerUnavailable, NotOver
from realtime.ledger import closing as module
from realtime.ledger.archive import Archive
from realtime.ledger.closing import LOCK, view_of
from realtime.ledger.ledger import Ledger
from realtime.ledger.views import Views
from realtime.repair.keeping import Keeping
from realtime.store.snapshots import SnapshotReader
from realtime.store.store import Store
from tests.support.closed_weeks import views_of
from tests.support.databases import MakeUsers
from tests.support.shifting import Shift
from tests.support.waiting import PATIENCE, eventually

FRIDAY = datetime(2027, 1, 1, 12, tzinfo=UTC)
MONDAY = datetime(2027, 1, 4, tzinfo=UTC)
CLOSED = MONDAY + timedelta(seconds=121)
WEEK = week_of(datetime(2026, 12, 28).date())


@pytest.fixture
async def shift(sql: asyncpg.Connection) -> AsyncIterator[Shift]:
    shift = Shift(sql)
    await shift.set_up()
    await shift.to(FRIDAY)
    yield shift
    await shift.take_down()


@pytest.fixture
async def ledger(dsn: str, shift: Shift) -> AsyncIterator[Ledger]:
    """By the clock that is shifted."""
    opened = Ledger(dsn, connections=8, lanes=2)
    try:
        await opened.open()
        yield opened
    finally:
        await opened.aclose()


@pytest.fixture
def views(ledger: Ledger, store: Store) -> Views:
    return views_of(ledger, store)


@pytest.fixture
def archive(views: Views) -> Archive:
    return views.archive


@pytest.fixture
def keeping(views: Views) -> Keeping:
    return Keeping(views)


_sent = 0


async def play(ledger: Ledger, user: int, points: int, at: datetime | None = None) -> bool:
    """A score, now by PostgreSQL's clock where no moment is given; whether PostgreSQL says that its week is closed."""
    global _sent
    _sent += 1
    recorded = await ledger.record_batch([Submission(user, f"s{_sent}", points, None, at)], [])
    assert [judged.outcome for judged in recorded.judged] == ["accepted"]
    return bool(recorded.closed)


async def right(sql: asyncpg.Connection, board: Board = WEEK) -> dict[int, int]:
    """By the log."""
    of_week = "FROM user_score_transactions WHERE created_at >= $1 AND created_at < $2"
    query = f"SELECT user_id, sum(score_added)::bigint {of_week} GROUP BY 1"
    return dict(await sql.fetch(query, board.starts, board.ends))


async def relations(sql: asyncpg.Connection) -> int:
    return int(await sql.fetchval("SELECT count(*) FROM pg_class WHERE relname LIKE '%week_of%'"))


# Clocks ----------------------------------------------------------------------------------------------------------


async def test_a_clock_that_was_ahead_makes_no_week_final(
    ledger: Ledger, views: Views, keeping: Keeping, shift: Shift, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    a, b = await make_users(2)
    await play(ledger, a, 10)
    await shift.to(CLOSED + timedelta(days=1))
    await keeping.step()
    assert (await views.archive.snapshot(WEEK))[0].scores == {a: 10}, "by that clock the week is over"
    await shift.to(FRIDAY)
    assert await play(ledger, a, 90), "until somebody looks it counts as over"
    await keeping.step()
    assert not await play(ledger, b, 500), "nobody counts: batches of the running week do not meet"
    with pytest.raises(NotOver):
        await views.archive.snapshot(WEEK)
    await shift.to(CLOSED)
    first, players = await views_of(ledger, views.archive._cache).archive.snapshot(WEEK)  # before any worker
    assert (first.scores, players) == ({b: 500, a: 100}, 2)
    assert (await views.archive.snapshot(WEEK))[0] == first, "not what was cached while the clock was wrong"
    await keeping.step()
    assert await views.differing(WEEK) == 0 and await right(sql) == first.scores


async def test_a_step_back_after_closing_loses_nothing(
    ledger: Ledger, archive: Archive, keeping: Keeping, shift: Shift, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    a, b = await make_users(2)
    await play(ledger, a, 10)
    await shift.to(CLOSED)
    await keeping.step()
    first = (await archive.snapshot(WEEK))[0]
    await shift.by(timedelta(minutes=-4))
    assert await play(ledger, b, 700), "it is Sunday again"
    await keeping.step()
    assert not await play(ledger, b, 1)
    await shift.by(timedelta(minutes=5))
    await keeping.step()
    later, _ = await archive.snapshot(WEEK)
    assert later.scores == await right(sql) == {b: 701, a: 10}
    assert later.version > first.version


async def test_a_score_that_nobody_looked_for_is_found_whatever_the_clocks_said(
    ledger: Ledger, archive: Archive, keeping: Keeping, shift: Shift, make_users: MakeUsers
) -> None:
    """Back and forth again between two looks."""
    (a,) = await make_users(1)
    await play(ledger, a, 10)
    await shift.to(CLOSED)
    await keeping.step()
    await shift.to(FRIDAY)
    assert await play(ledger, a, 5)
    await shift.to(CLOSED)
    assert await keeping.step() == 1
    assert (await archive.snapshot(WEEK))[0].scores == {a: 15}


async def test_who_believes_too_early_that_a_week_is_over_is_shown_the_live_board(
    ledger: Ledger, archive: Archive, store: Store, shift: Shift, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    (a,) = await make_users(1)
    await shift.to(CLOSED - timedelta(seconds=5))
    await play(ledger, a, 10, FRIDAY)
    await store.apply(await ledger.standings_of([a], [ALL_TIME, WEEK]), await ledger.profiles_of([a]))
    reading = BoardReader(SnapshotReader(store), archive, lambda: CLOSED)
    snapshot = (await reading.read([WEEK]))[WEEK]
    page = await reading.page(WEEK, 0, 10)
    assert snapshot.epoch == page.epoch == store.epoch and snapshot.scores == {a: 10}
    assert (await reading.user(WEEK, a, 1)).score == 10
    assert await relations(sql) == 0
    await shift.to(CLOSED)
    assert (await reading.read([WEEK]))[WEEK].epoch == "closed"


# Late scores -----------------------------------------------------------------------------------------------------


async def test_a_batch_that_began_before_the_week_ended_is_waited_for(
    ledger: Ledger, archive: Archive, shift: Shift, dsn: str, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    a, b = await make_users(2)
    await play(ledger, a, 10)
    await play(ledger, b, 1)
    holder = await asyncpg.connect(dsn)
    await holder.execute("BEGIN; SELECT FROM user_total_scores FOR UPDATE")
    late = asyncio.ensure_future(play(ledger, a, 90))

    async def waits() -> bool:
        return bool(await sql.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))

    await eventually(waits)
    await shift.to(CLOSED)
    opening = asyncio.ensure_future(archive.snapshot(WEEK))

    async def waits_for_writers() -> bool:
        asking = "FROM pg_stat_activity WHERE query LIKE '%virtualtransaction%' AND pid <> pg_backend_pid()"
        return opening.done() or bool(await sql.fetchval(f"SELECT count(*) {asking}"))

    await eventually(waits_for_writers)
    await holder.execute("ROLLBACK")
    await holder.close()
    # The statement saw nothing of the end: it counts nothing.
    assert not await late
    snapshot, _ = await opening
    assert snapshot.scores == await right(sql) == {a: 100, b: 1}


async def test_one_that_does_not_end_keeps_the_week_open_and_nobody_from_scoring(
    ledger: Ledger,
    archive: Archive,
    shift: Shift,
    dsn: str,
    sql: asyncpg.Connection,
    make_users: MakeUsers,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "WRITERS", 0.05)
    monkeypatch.setattr(module, "PATIENCE", 0.1)
    a, b = await make_users(2)
    await play(ledger, a, 10)
    await shift.to(CLOSED)
    async with sql.transaction():
        await sql.fetch(ledger.query("rename"), b, "slow")
        await sql.fetch(ledger.query("renamed"), b)
        with pytest.raises(LedgerUnavailable, match="by others"):
            await archive.snapshot(WEEK)
        await play(ledger, a, 5, FRIDAY)
        await play(ledger, a, 1)
    assert (await archive.snapshot(WEEK))[0].scores == {a: 15}


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
@pytest.mark.parametrize("seed", range(3))
async def test_whatever_happens_at_once_every_score_is_in_the_end(
    dsn: str,
    store: Store,
    shift: Shift,
    sql: asyncpg.Connection,
    make_users: MakeUsers,
    isolation: str,
    seed: int,
) -> None:
    """Two processes record, close, read and keep, while the clock steps to and fro over the week's end."""
    name = await sql.fetchval("SELECT current_database()")
    await sql.execute(f"ALTER DATABASE \"{name}\" SET default_transaction_isolation = '{isolation}'")
    users = await make_users(6)
    ledgers = [Ledger(dsn, connections=8, lanes=2) for _ in range(2)]
    for one in ledgers:
        await one.open()
    chance = random.Random(seed)
    await play(ledgers[0], users[0], 1, FRIDAY)

    async def record(ledger: Ledger) -> None:
        for _ in range(40):
            await asyncio.sleep(chance.random() / 100)
            await play(ledger, chance.choice(users), chance.randint(-9, 9), chance.choice((None, WEEK.starts)))

    async def keep(views: Views) -> None:
        keeping = Keeping(views)
        for _ in range(25):
            await asyncio.sleep(chance.random() / 50)
            await keeping.step()

    async def read(views: Views) -> None:
        for _ in range(40):
            await asyncio.sleep(chance.random() / 100)
            try:
                await views.archive.snapshot(WEEK)
            except NotOver:
                continue

    async def step() -> None:
        connection = await asyncpg.connect(dsn)
        try:
            for _ in range(30):
                await asyncio.sleep(chance.random() / 50)
                await Shift(connection).to(MONDAY + timedelta(seconds=chance.choice((-60, 60, 125, 600))))
        finally:
            await connection.close()

    all_views = [views_of(one, store) for one in ledgers]
    async with asyncio.timeout(120), asyncio.TaskGroup() as group:
        group.create_task(step())
        for ledger, views in zip(ledgers, all_views, strict=True):
            for work in (record(ledger), record(ledger), keep(views), read(views)):
                group.create_task(work)
    await shift.to(MONDAY + timedelta(hours=1))
    for views in all_views:
        await Keeping(views).step()
    expected = await right(sql)
    for views in all_views:
        assert (await views.archive.snapshot(WEEK))[0].scores == expected
        assert await views.differing(WEEK) == 0 == await views.closing.differing_from_log()
    for one in ledgers:
        await one.aclose()


@pytest.mark.parametrize("change", [2**32 + 1, 2**33, -(2**32) - 1])
async def test_a_change_of_any_size_moves_the_version(
    ledger: Ledger, views: Views, shift: Shift, make_users: MakeUsers, change: int
) -> None:
    a, b = await make_users(2)
    await play(ledger, a, 0)
    await play(ledger, b, 100)
    await shift.to(CLOSED)
    before, _ = await views.archive.snapshot(WEEK)
    left = change
    while left:
        points = max(min(left, 2**31 - 1), -(2**31))
        await play(ledger, a, points, FRIDAY)
        left -= points
    await views.amend([WEEK])
    after, _ = await views.archive.snapshot(WEEK)
    assert after.version > before.version and after.scores[a] == change


# Others ----------------------------------------------------------------------------------------------------------


async def test_an_open_reader_of_a_view_keeps_nobody_waiting(
    ledger: Ledger, views: Views, shift: Shift, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    (a,) = await make_users(1)
    await play(ledger, a, 10)
    await shift.to(CLOSED)
    await views.archive.snapshot(WEEK)
    async with sql.transaction():
        await sql.fetch(f"SELECT * FROM {view_of(WEEK)}")
        await play(ledger, a, 5, FRIDAY)
        async with asyncio.timeout(PATIENCE):
            await views.amend([WEEK])
        assert (await views.archive.page(WEEK, 0, 10)).lines[0].score == 15


async def test_a_maker_that_stands_still_is_passed_by(
    ledger: Ledger, archive: Archive, shift: Shift, dsn: str, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    """Who waits for it holds no connection, and goes on once PostgreSQL has ended its transaction."""
    (a,) = await make_users(1)
    await play(ledger, a, 10)
    await shift.to(CLOSED)
    frozen = await asyncpg.connect(dsn)
    await frozen.execute("SET idle_in_transaction_session_timeout = 1500; BEGIN")
    assert WEEK.week is not None
    await frozen.execute("SELECT pg_advisory_xact_lock($1)", LOCK + WEEK.week.toordinal())
    readers = [asyncio.ensure_future(archive.page(WEEK, 0, 10)) for _ in range(20)]
    await asyncio.sleep(0)
    for _ in range(5):
        await play(ledger, a, 1)  # of another week by now
        assert await ledger.fetch("judged")
    assert not any(reader.done() for reader in readers)
    assert {(await reader).lines[0].score for reader in readers} == {10}
    frozen.terminate()


async def test_many_readers_have_a_week_closed_once_and_it_goes_on_without_them(
    ledger: Ledger, store: Store, shift: Shift, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    (a,) = await make_users(1)
    await play(ledger, a, 10)
    await shift.to(CLOSED)
    views = views_of(ledger, store)
    closed: list[Board] = []
    close = views.closing.close

    async def counted(board: Board) -> None:
        closed.append(board)
        await close(board)

    views.closing.close = counted  # type: ignore[method-assign]
    readers = [asyncio.ensure_future(views.archive.page(WEEK, 0, 10)) for _ in range(30)]

    async def begun() -> bool:
        return bool(closed)

    await eventually(begun)
    for reader in readers[1:]:
        reader.cancel()
    assert (await readers[0]).players == 1
    assert closed == [WEEK]


async def test_weeks_in_which_nothing_was_recorded_leave_no_trace(
    ledger: Ledger, archive: Archive, shift: Shift, sql: asyncpg.Connection, keys: Redis, make_users: MakeUsers
) -> None:
    (a,) = await make_users(1)
    await play(ledger, a, 10, datetime(1970, 1, 1, tzinfo=UTC))
    before: Any = await keys.keys("*")
    for number in range(1, 60):
        board = week_of((datetime(1969, 12, 29) + timedelta(weeks=number)).date())
        snapshot, players = await archive.snapshot(board)
        assert (snapshot.entries, snapshot.version, players) == ([], 0, 0)
        assert (await archive.page(board, 100, 10)).lines == (await archive.around(board, a, 3)).lines == []
        version, standings = await archive.standings(board, [a])
        assert (version, [standing.rank for standing in standings]) == (0, [None])
    assert await relations(sql) == 0 and await keys.keys("*") == before
    assert await sql.fetchval("SELECT count(*) FROM closed_weeks") == 0
    await play(ledger, a, 3, datetime(1970, 2, 3, tzinfo=UTC))
    first = week_of(datetime(1970, 2, 2).date())
    assert (await archive.snapshot(first))[0].version == 1, "and what comes later is seen"
