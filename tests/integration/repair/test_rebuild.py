"""Rebuild: whatever became of the store, its content is made anew from the ledger while everything goes on."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import date, timedelta
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from redis.asyncio import Redis

from realtime.boards.board import ALL_TIME, week_at, week_of
from realtime.boards.standings import Row
from realtime.boards.submissions import Accepted, Outcome, Submission
from realtime.errors import LedgerUnavailable, StoreChanged, StoreUnavailable
from realtime.intake.batching import Batching
from realtime.intake.intake import Intake
from realtime.ledger.ledger import Ledger
from realtime.people.accounts import Accounts
from realtime.repair import rebuild as module
from realtime.repair.rebuild import Rebuilder, epoch_name
from realtime.repair.resync import Resync
from realtime.repair.sweeper import Sweeper
from realtime.store.filling import Filling
from realtime.store.store import Store
from tests.chaos.proxy import Proxy
from tests.support.closed_weeks import views_of
from tests.support.databases import MakeUsers
from tests.support.keys import EPOCH_KEY, RUN_KEY, scores_key, user_key, version_key, versions_key
from tests.support.stores import PrivateStore


class Process:
    """What one server process has to do with the stores."""

    def __init__(self, ledger: Ledger, store: Store) -> None:
        self.ledger = ledger
        self.store = store
        self.filling = Filling(store.link)
        self.rebuilder = Rebuilder(ledger, store, self.filling, ledger.clock.now, chunk=40)
        amend = views_of(ledger, store).amend
        self.intake = Intake(ledger, store, amend, ledger.clock.now, batching=Batching(60, 2, 10), limit=20_000)


@asynccontextmanager
async def processes(dsn: str, store_url: str, count: int) -> AsyncIterator[list[Process]]:
    async with AsyncExitStack() as stack:
        made = []
        for _ in range(count):
            ledger, store = Ledger(dsn), Store(store_url, timeout=1.0)
            stack.push_async_callback(ledger.aclose)
            stack.push_async_callback(store.aclose)
            await ledger.open()
            made.append(Process(ledger, store))
        yield made


async def agrees(sql: asyncpg.Connection, keys: Redis, now: date) -> None:
    """The store holds exactly what the ledger says, versions and names included."""
    totals = await sql.fetch("SELECT user_id, total_score, version, hidden FROM user_total_scores")
    weeks = await sql.fetch(
        "SELECT user_id, score, w.version, hidden FROM user_weekly_scores w JOIN user_total_scores USING (user_id)"
        " WHERE week = $1",
        now,
    )
    for board, rows in ((ALL_TIME, totals), (week_of(now), weeks)):
        shown = {str(row[0]): row[1] for row in rows if not row["hidden"] and row[1] is not None}
        assert dict(await keys.zrange(scores_key(board), 0, -1, withscores=True)) == shown, board.id
        versions = {str(row["user_id"]): str(row["version"]) for row in rows}
        assert await keys.hgetall(versions_key(board)) == versions, board.id
    for user_id, username in await sql.fetch(
        "SELECT u.id, u.username FROM users u JOIN user_total_scores t ON t.user_id = u.id"
    ):
        assert await keys.hmget(user_key(user_id), "user_id", "username") == [str(user_id), username]


async def record(process: Process, users: list[int], name: str = "a", score: int = 5) -> None:
    batch = [Submission(user, name, score, None, None) for user in users]
    await process.ledger.record_batch(batch, [])


async def this_week(process: Process) -> date:
    week = week_at(process.ledger.clock.now()).week
    assert week is not None
    return week


# Filling ---------------------------------------------------------------------------------------------------------


async def test_an_empty_store_is_filled_and_told_apart_from_a_half_filled_one(
    dsn: str, store_url: str, keys: Redis, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    async with processes(dsn, store_url, 1) as (process,):
        users = await make_users(150)
        await record(process, users)
        await sql.execute("UPDATE user_total_scores SET hidden = true, version = 9 WHERE user_id = $1", users[3])
        seen: list[tuple[str, int, bool]] = []

        def progress(board: str, rows: int) -> None:
            seen.append((board, rows, process.store.is_complete))

        assert await process.rebuilder.look() is True
        await process.rebuilder.rebuild(force=True, progress=progress)
        assert [rows for board, rows, _ in seen if board == "all_time"] == [40, 80, 120, 150]
        assert not any(complete for _, _, complete in seen), "marked all the while"
        await agrees(sql, keys, await this_week(process))
        assert await keys.get(RUN_KEY) == process.store.run
        assert await keys.get(EPOCH_KEY) == f"{process.store.run[:8]}-2"
        assert process.rebuilder.rebuilds == 2
        assert await process.rebuilder.look() is False, "it is ours"


@pytest.mark.parametrize(("number", "name"), [(1, "1"), (35, "z"), (36, "10"), (46_655, "zzz")])
def test_an_epoch_is_short_for_it_is_in_every_diff(number: int, name: str) -> None:
    epoch = epoch_name("0123456789abcdef" * 2, number)
    assert epoch == f"01234567-{name}"
    assert len(epoch) <= 12


@pytest.mark.one_store
async def test_what_lay_there_before_is_gone_and_limits_stay(
    dsn: str, store_url: str, keys: Redis, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    await keys.zadd(scores_key(ALL_TIME), {"999": 5, "nonsense": 7})
    await keys.hset(versions_key(ALL_TIME), "999", 99)
    await keys.set(EPOCH_KEY, "someoneelses-7")
    await keys.set("leaderboard:limit:x", 3, ex=60)
    await keys.set("leaderboard:cache_top_100:week_of_2026_03_02", "old")
    async with processes(dsn, store_url, 1) as (process,):
        await record(process, await make_users(3))
        await process.rebuilder.look()
        await agrees(sql, keys, await this_week(process))
    assert await keys.get("leaderboard:limit:x") == "3"
    assert not await keys.exists("leaderboard:cache_top_100:week_of_2026_03_02", "leaderboard:users:999")


@pytest.mark.one_store
async def test_a_rebuild_is_announced_when_it_is_complete(
    dsn: str, store_url: str, keys: Redis, make_users: MakeUsers
) -> None:
    async with processes(dsn, store_url, 1) as (process,), keys.pubsub() as pubsub:
        await record(process, await make_users(100))
        await pubsub.psubscribe("leaderboard:changes:*")
        await pubsub.get_message(timeout=5)
        await process.rebuilder.look()
        heard: list[str] = []
        while not heard or heard[-1] != "users":
            message = await pubsub.get_message(timeout=5)
            assert message is not None
            heard.append(message["channel"].removeprefix("leaderboard:changes:"))
            assert f'"epoch":"{process.store.epoch}"' in message["data"], "never the one it was filled under"
        assert set(heard) >= {"all_time", week_at(process.ledger.clock.now()).id}


# Meanwhile -------------------------------------------------------------------------------------------------------


async def test_submissions_go_on_during_rebuilds_and_every_board_ends_as_the_ledger(
    dsn: str, store_url: str, keys: Redis, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    """Three processes submit, ban, and rebuild again and again, all of it at once."""
    users = await make_users(200)
    chance = random.Random(8)
    async with processes(dsn, store_url, 3) as made:
        await record(made[0], users)
        await made[0].rebuilder.look()
        working = [asyncio.ensure_future(process.intake.run()) for process in made]
        stop = asyncio.Event()
        accepted = {user: 5 for user in users}

        async def submit(process: Process, lane: int) -> None:
            number = 0
            while not stop.is_set():
                answers = []
                for _ in range(30):
                    user, number = chance.choice(users), number + 1
                    answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
                    score = chance.randint(-3, 9)
                    process.intake.submit(Submission(user, f"{lane}-{number}", score, None, None), answer.set_result)
                    answers.append((user, score, answer))
                for user, score, answer in answers:
                    assert isinstance(await answer, Accepted)
                    accepted[user] += score

        async def rebuild() -> None:
            done = 0
            while done < 6:
                process = chance.choice(made)
                try:
                    done += await process.rebuilder.rebuild(force=True)
                except StoreChanged:
                    continue
            stop.set()

        await asyncio.gather(rebuild(), *(submit(process, lane) for lane, process in enumerate(made)))
        for work in working:
            work.cancel()
        await asyncio.wait(working)
        resync = Resync(made[0].ledger, made[0].store, made[0].ledger.clock.now)
        await made[0].store.adopt()
        sweeper = Sweeper(made[0].ledger, resync)
        while await sweeper.sweep(older_than=0.0):
            pass
        await agrees(sql, keys, await this_week(made[0]))
        totals = dict(await sql.fetch("SELECT user_id, total_score FROM user_total_scores"))
        assert totals == accepted


async def test_what_commits_before_the_reading_is_read_and_what_commits_after_brings_its_own_script(
    dsn: str, store_url: str, keys: Redis, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    users = await make_users(120)
    async with processes(dsn, store_url, 2) as (rebuilding, submitting):
        await record(rebuilding, users)
        now = rebuilding.ledger.clock.now()

        async def meanwhile() -> None:
            """A user of the part that was read already, and one of the part that was not."""
            for user in (users[0], users[-1]):
                (row,) = (await submitting.ledger.record_batch([Submission(user, "late", 7, None, None)], [])).judged
                assert row.total_score == 12
            rows = await submitting.ledger.standings_of([users[0], users[-1]], [ALL_TIME, week_at(now)])
            await submitting.store.adopt()
            assert not submitting.store.is_complete
            await submitting.store.apply(rows)

        told = 0
        original = rebuilding.store.apply

        async def apply(*args: object, **options: object) -> int:
            nonlocal told
            told += 1
            is_second = told == 2
            result = await original(*args, **options)  # type: ignore[arg-type]
            if is_second:
                await meanwhile()
            return result

        rebuilding.store.apply = apply  # type: ignore[method-assign,assignment]
        assert await rebuilding.rebuilder.look()
        await agrees(sql, keys, await this_week(rebuilding))
        assert await keys.zscore(scores_key(ALL_TIME), users[0]) == 12


async def test_a_few_chunks_are_told_at_once_and_none_is_left_when_the_rebuild_fails(
    dsn: str, store_url: str, make_users: MakeUsers
) -> None:
    async with processes(dsn, store_url, 1) as (process,):
        await record(process, await make_users(400))
        under_way = most = told = 0
        second = asyncio.Event()
        original = process.store.apply

        async def apply(*args: Any, **options: Any) -> int:
            nonlocal under_way, most, told
            under_way, told = under_way + 1, told + 1
            most = max(most, under_way)
            try:
                if told == 1:  # a store that is slower than the ledger
                    async with asyncio.timeout(10):
                        await second.wait()
                second.set()
                if told == 5:
                    raise StoreUnavailable("gone")
                if told > 5:
                    await asyncio.Event().wait()  # as long as nobody ends it
                return await original(*args, **options)
            finally:
                under_way -= 1

        process.store.apply = apply  # type: ignore[method-assign]
        with pytest.raises(StoreUnavailable, match="gone"):
            await process.rebuilder.rebuild(force=True)
        assert 2 <= most <= module.AT_ONCE, "the ledger does not wait for the store, and nothing piles up"
        assert under_way == 0


async def test_a_closed_week_kept_during_a_rebuild_does_not_outlive_a_rename(
    dsn: str, store_url: str, make_users: MakeUsers
) -> None:
    """The rename's script meets no name yet, so it cannot know that it changes one."""
    week = week_of(date(2026, 3, 2))
    async with processes(dsn, store_url, 2) as (rebuilding, other):
        (user,) = await make_users(names=["before"])
        await rebuilding.ledger.record_batch([Submission(user, "a", 5, None, week.starts)], [])
        archive = views_of(other.ledger, other.store).archive
        accounts = Accounts(other.ledger, Resync(other.ledger, other.store, other.ledger.clock.now), None)  # type: ignore[arg-type]
        original = rebuilding.store.apply

        async def apply(*args: Any, **options: Any) -> int:
            if not await other.ledger.fetch("weeks_versions", [week.week]):
                await other.store.adopt()
                before, _ = await archive.snapshot(week)
                assert before.names == {user: "before"}
                await accounts.rename(user, "after")
            return await original(*args, **options)

        rebuilding.store.apply = apply  # type: ignore[method-assign]
        assert await rebuilding.rebuilder.look()
        for reading in (archive, views_of(other.ledger, other.store).archive):
            after, _ = await reading.snapshot(week)
            assert after.names == {user: "after"}


# One at a time ---------------------------------------------------------------------------------------------------


async def test_of_many_processes_one_rebuilds(
    dsn: str, store_url: str, keys: Redis, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    async with processes(dsn, store_url, 5) as made:
        await record(made[0], await make_users(100))
        did = await asyncio.gather(*(process.rebuilder.look() for process in made))
        assert sum(did) == 1
        assert [await process.rebuilder.look() for process in made] == [False] * 5
        assert await keys.get(EPOCH_KEY) == f"{str(made[0].store.run)[:8]}-1"
        assert all(process.store.is_complete for process in made)
        await agrees(sql, keys, await this_week(made[0]))


async def test_a_rebuild_whose_process_died_is_taken_over(
    dsn: str, store_url: str, keys: Redis, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    async with processes(dsn, store_url, 2) as (first, second):
        await record(first, await make_users(200))
        begun = asyncio.Event()
        dying = asyncio.ensure_future(first.rebuilder.rebuild(progress=lambda board, rows: begun.set()))
        await begun.wait()
        dying.cancel()
        await asyncio.wait([dying])
        assert str(await keys.get(EPOCH_KEY)).startswith("filling:")
        with pytest.raises(StoreUnavailable):
            await second.store.read([ALL_TIME])
        assert await second.rebuilder.look() is True
        assert await keys.get(EPOCH_KEY) == f"{str(second.store.run)[:8]}-2"
        await agrees(sql, keys, await this_week(second))


@pytest.mark.parametrize("hangs_in", ["clear", "apply", "end"])
async def test_a_rebuild_that_hung_does_no_harm_when_it_goes_on(
    dsn: str, store_url: str, keys: Redis, sql: asyncpg.Connection, make_users: MakeUsers, hangs_in: str
) -> None:
    """Its database connection is lost, so another has the lease; then it wakes up, wherever it was."""
    async with processes(dsn, store_url, 2) as (hung, other):
        await record(hung, await make_users(100))
        reached, wake = asyncio.Event(), asyncio.Event()
        hanging_in = hung.store if hangs_in == "apply" else hung.filling
        original = getattr(hanging_in, hangs_in)

        async def hang(*args: Any, **options: Any) -> Any:
            reached.set()
            await wake.wait()
            return await original(*args, **options)

        setattr(hanging_in, hangs_in, hang)
        hanging = asyncio.ensure_future(hung.rebuilder.rebuild(force=True))
        await reached.wait()
        await sql.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND pid <> pg_backend_pid()"
        )
        while not await other.rebuilder.rebuild(force=True):
            pass  # until the lease is free
        wake.set()
        with pytest.raises((StoreUnavailable, LedgerUnavailable)):
            await hanging
        assert await keys.get(EPOCH_KEY) == other.store.epoch
        await agrees(sql, keys, await this_week(other))


# Which store is this? --------------------------------------------------------------------------------------------


async def test_a_store_that_was_replaced_by_an_empty_one_is_filled(
    dsn: str, private_store: PrivateStore, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    async with (
        processes(dsn, private_store.url, 1) as (process,),
        Redis.from_url(private_store.url, decode_responses=True) as keys,
    ):
        await record(process, await make_users(50))
        await process.rebuilder.look()
        first = process.store.epoch
        await asyncio.to_thread(private_store.replace_by_empty)
        with pytest.raises(StoreUnavailable):
            await process.store.read([ALL_TIME])
        assert await process.rebuilder.look() is True
        assert process.store.epoch != first
        await agrees(sql, keys, await this_week(process))


async def test_a_store_that_came_back_with_older_content_is_filled_anew(
    dsn: str, private_store: PrivateStore, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    """Its keys look right: epoch, versions and all. Only the run tells."""
    async with (
        processes(dsn, private_store.url, 2) as (process, other),
        Redis.from_url(private_store.url, decode_responses=True) as keys,
    ):
        users = await make_users(50)
        await record(process, users)
        await process.rebuilder.look()
        await other.rebuilder.look()
        older = await asyncio.to_thread(private_store.save)
        await record(process, users, "later", 7)
        now = process.ledger.clock.now()
        await process.store.apply(await process.ledger.standings_of(users, [ALL_TIME, week_at(now)]))
        newest = (await process.store.read([ALL_TIME])).tops[0]
        await asyncio.to_thread(private_store.replace_by, older)
        assert await keys.get(EPOCH_KEY) == process.store.epoch, "the same epoch"
        assert int(str(await keys.get(version_key(ALL_TIME)) or 0)) < newest.version, "and versions of before"
        for somebody in (process, other):
            with pytest.raises(StoreUnavailable):
                await somebody.store.read([ALL_TIME])
        assert await other.rebuilder.look() is True
        assert await process.rebuilder.look() is False
        assert (await process.store.read([ALL_TIME])).tops[0].scores == newest.scores
        await agrees(sql, keys, await this_week(process))


async def test_a_failover_is_met_although_the_old_store_lives_on_and_its_connections_with_it(
    dsn: str, store_url: str, private_store: PrivateStore, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    """A balancer that leads new connections elsewhere, and keeps the open ones."""
    users = await make_users(3)
    async with Proxy(store_url) as balancer, processes(dsn, balancer.url, 2) as (process, other):
        await record(process, users)
        await process.rebuilder.look()
        await other.rebuilder.look()
        before = process.store.epoch
        async with Redis.from_url(private_store.url) as new:
            await new.config_set("requirepass", urlsplit(store_url).password or "")
        balancer.lead_to(private_store.url)
        assert len((await process.store.read([ALL_TIME])).tops[0].scores) == 3, "its connection still leads there"
        assert await other.rebuilder.look() is True
        assert await process.rebuilder.look() is False, "it finds the new one made"
        assert process.store.epoch == other.store.epoch != before
        (recorded,) = (await process.ledger.record_batch([Submission(users[0], "b", 95, None, None)], [])).judged
        rows = await process.ledger.standings_of(users, [ALL_TIME])
        await process.store.apply(rows)
        assert recorded.total_score == 100
        assert (await other.store.read([ALL_TIME])).tops[0].scores[users[0]] == 100, "and tells it"


async def test_of_two_stores_one_is_current_and_whoever_has_the_other_says_so(
    dsn: str, store_url: str, private_store: PrivateStore, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    users = await make_users(3)
    async with processes(dsn, store_url, 1) as (mine,), processes(dsn, private_store.url, 1) as (other,):
        await record(mine, users)
        await mine.rebuilder.look()
        old = mine.store.epoch
        assert await other.rebuilder.look() is True, "an empty store is filled: it may be all there is"
        assert mine.store.is_complete and other.store.is_complete
        first = await mine.ledger.record_batch([Submission(users[0], "b", 95, None, None)], [])
        await mine.store.apply(await mine.ledger.standings_of(users, [ALL_TIME]))  # into what nobody shows any more
        ((outbox_id, _),) = first.outbox
        await mine.ledger.clear_outbox([outbox_id], old)
        await mine.ledger.record_batch([Submission(users[1], "b", 1, None, None)], [outbox_id], told=old)
        waiting = {row.id for row in await mine.ledger.outbox(older_than=0, limit=99)}
        assert outbox_id in waiting, "only what the current store was told is done"

        for _ in range(2):
            assert await mine.rebuilder.look() is False
            assert (mine.store.is_complete, mine.store.link.refused_for) == (False, "superseded")
            assert "DRAGONFLY_URL" in str(mine.store.link.complaint)
            with pytest.raises(StoreUnavailable):
                await mine.store.read([ALL_TIME])
            assert await other.rebuilder.look() is False and other.store.is_complete
            assert (mine.rebuilder.stray, other.rebuilder.stray) == (None, old), "both know"
        await mine.store.adopt()
        assert not mine.store.is_complete, "nor does anybody take it for current between two looks"
        resync = Resync(other.ledger, other.store, other.ledger.clock.now)
        await Sweeper(other.ledger, resync).sweep(older_than=0)
        assert await other.ledger.outbox_state() == (0, 0.0)
        assert (await other.store.read([ALL_TIME])).tops[0].scores[users[0]] == 100

        mine.rebuilder._used_seen -= module.ABANDONED  # nobody has used the other for that long
        assert await mine.rebuilder.look() is True
        assert mine.store.is_complete and mine.store.epoch != old
        assert (await mine.store.read([ALL_TIME])).tops[0].scores[users[0]] == 100
        await other.rebuilder.look()
        assert other.store.link.refused_for == "superseded"


async def test_content_in_use_is_said_to_be_every_few_seconds_and_no_more(
    dsn: str, store_url: str, sql: asyncpg.Connection
) -> None:
    async with processes(dsn, store_url, 1) as (process,):
        await process.rebuilder.look()
        used = "SELECT used_at FROM generation"
        first = await sql.fetchval(used)
        await process.rebuilder.look()
        assert await sql.fetchval(used) == first
        for moment in ("- interval '5 seconds'", "+ interval '1 hour'"):  # long ago, or by a clock that was ahead
            await sql.execute(f"UPDATE generation SET used_at = used_at {moment}")
            await process.rebuilder.look()
            assert timedelta() <= await sql.fetchval(used) - first < timedelta(minutes=1)


async def test_a_rebuild_that_was_overtaken_on_another_store_ends(
    dsn: str, store_url: str, private_store: PrivateStore, make_users: MakeUsers
) -> None:
    """It hung after it had taken its number."""
    async with processes(dsn, store_url, 1) as (slow,), processes(dsn, private_store.url, 1) as (quick,):
        begin = slow.filling.begin

        async def late(run: str, epoch: str) -> bool:
            await quick.ledger.fetch("content_named", "quick-1", 10**6)
            return await begin(run, epoch)

        slow.filling.begin = late  # type: ignore[method-assign]
        with pytest.raises(StoreChanged):
            await slow.rebuilder.look()
        assert not slow.store.is_complete


async def test_distrusted_content_is_not_shown_until_it_is_made_anew_and_ever_more_rarely(
    dsn: str, store_url: str, keys: Redis, make_users: MakeUsers
) -> None:
    async with processes(dsn, store_url, 1) as (process,):
        await record(process, await make_users(3))
        await process.rebuilder.look()
        await keys.delete(versions_key(ALL_TIME))
        await keys.rpush(versions_key(ALL_TIME), "not ours")
        with pytest.raises(StoreUnavailable):
            await process.store.apply({ALL_TIME: [Row(1, 9, 9)]})
        assert not process.store.is_complete, "accepted says live: false"
        with pytest.raises(StoreUnavailable, match="cannot be ours"):
            await process.store.read([ALL_TIME])  # though this key is as it was
        assert await process.rebuilder.look() is True
        assert process.store.is_complete and len((await process.store.read([ALL_TIME])).tops[0].scores) == 3
        assert await process.rebuilder.look() is False, "that was about the epoch before"
        process.store.distrust()
        assert await process.rebuilder.look() is False, "not yet again: making it anew did not help"
        assert not process.store.is_complete, "and all the while it is not shown as right"
        process.rebuilder._due = 0.0
        assert await process.rebuilder.look() is True


async def test_while_the_ledger_is_away_nothing_is_thrown_away(
    dsn: str, store_url: str, keys: Redis, make_users: MakeUsers
) -> None:
    async with processes(dsn, store_url, 1) as (process,):
        await record(process, await make_users(3))
        await process.rebuilder.look()
        before = await keys.zrange(scores_key(ALL_TIME), 0, -1)
        await process.ledger.aclose()
        with pytest.raises(LedgerUnavailable):
            await process.rebuilder.rebuild(force=True)
        assert await keys.zrange(scores_key(ALL_TIME), 0, -1) == before
        assert not str(await keys.get(EPOCH_KEY)).startswith("filling:")


def test_a_look_is_soon_enough() -> None:
    """Each process notices within seconds that the store is another."""
    assert timedelta(seconds=module.WATCH_INTERVAL) <= timedelta(seconds=2)
