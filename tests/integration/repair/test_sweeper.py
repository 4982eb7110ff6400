"""The sweeper: what died between the stores arrives all the same, once, and from the values of now."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from datetime import UTC, datetime

import asyncpg
import pytest
from redis.asyncio import Redis

from realtime.boards.board import ALL_TIME, week_at, week_of
from realtime.boards.submissions import Submission
from realtime.errors import LedgerUnavailable, StoreUnavailable
from realtime.ledger.ledger import Ledger
from realtime.people.accounts import Accounts
from realtime.repair.resync import USERS, Resync
from realtime.repair.sweeper import ROWS, Sweeper
from realtime.store.store import Store
from tests.support.databases import MakeUsers
from tests.support.keys import scores_key, user_key, version_key
from tests.support.stores import PrivateStore, make_ours
from tests.support.waiting import PATIENCE

MONDAY = datetime(2026, 3, 2, tzinfo=UTC)


def sweeper_of(ledger: Ledger, store: Store) -> Sweeper:
    return Sweeper(ledger, Resync(ledger, store, ledger.clock.now))


async def record(ledger: Ledger, user: int, name: str, score: int = 5, at: datetime | None = None) -> None:
    """Commits, and dies before the store hears of it."""
    await ledger.record_batch([Submission(user, name, score, None, at)], [])


async def test_a_crash_between_the_stores_is_made_good(
    ledger: Ledger, store: Store, keys: Redis, make_users: MakeUsers
) -> None:
    (user,) = await make_users(names=["Ω"])
    await record(ledger, user, "a")
    assert await keys.zscore(scores_key(ALL_TIME), user) is None
    sweeper = sweeper_of(ledger, store)
    assert await sweeper.sweep() == 0, "it may still be on its way"
    assert await sweeper.sweep(older_than=0) == 1
    assert await keys.zscore(scores_key(ALL_TIME), user) == 5
    assert await keys.zscore(scores_key(week_at(ledger.clock.now())), user) == 5
    assert await keys.hget(user_key(user), "username") == "Ω"
    assert await ledger.outbox_state() == (0, 0.0)
    assert await sweeper.sweep(older_than=0) == 0
    assert sweeper.resynced == 1


async def test_a_resync_tells_what_is_true_now(
    ledger: Ledger, store: Store, keys: Redis, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    """An old row after newer ones have arrived takes nothing back."""
    (user,) = await make_users(1)
    await record(ledger, user, "a", 5)
    await record(ledger, user, "b", 7)
    now = await ledger.standings_of([user], [ALL_TIME, week_at(ledger.clock.now())])
    await store.apply(now, await ledger.profiles_of([user]))
    version = await keys.get(version_key(ALL_TIME))
    await sweeper_of(ledger, store).sweep(older_than=0)
    assert await keys.zscore(scores_key(ALL_TIME), user) == 12
    assert await keys.get(version_key(ALL_TIME)) == version, "nothing changed: nobody is told"


@pytest.mark.parametrize("change", ["rename", "ban", "unban", "delete"])
async def test_every_kind_of_change_is_resynced(
    ledger: Ledger, private_store: PrivateStore, make_users: MakeUsers, change: str
) -> None:
    """The store is away while somebody is renamed, banned, shown again or deleted."""
    (user,) = await make_users(names=["before"])
    store = Store(private_store.url, timeout=0.5)
    await make_ours(store)
    resync = Resync(ledger, store, ledger.clock.now)
    accounts = Accounts(ledger, resync, None)  # type: ignore[arg-type]
    await record(ledger, user, "a", 5)
    if change == "unban":
        await accounts.ban(user, actor="test", reason=None)
    await sweeper_of(ledger, store).sweep(older_than=0)
    await asyncio.to_thread(private_store.kill)
    if change == "rename":
        await accounts.rename(user, "after")
    elif change == "delete":
        await accounts.delete(user, actor="test")
    else:
        await getattr(accounts, change)(user, actor="test", reason=None)
    assert (await ledger.outbox_state())[0] == 1
    with pytest.raises(StoreUnavailable):
        await sweeper_of(ledger, store).sweep(older_than=0)
    assert (await ledger.outbox_state())[0] == 1, "the row stays until the store has it"
    await asyncio.to_thread(private_store.start)
    await make_ours(store, 2)
    assert await sweeper_of(ledger, store).sweep(older_than=0) == 1
    top = (await store.read([ALL_TIME], [user])).tops[0]
    assert top.scores == ({} if change in ("ban", "delete") else {user: 5})
    name = (await store.read([], [user])).names[user]
    assert name == {"rename": "after", "delete": "deleted"}.get(change, "before")
    await store.aclose()


async def test_many_rows_and_users_are_resynced_in_few_calls(
    ledger: Ledger, store: Store, keys: Redis, make_users: MakeUsers
) -> None:
    users = await make_users(USERS + 50)
    batch = [Submission(user, "a", user, None, None) for user in users]
    for start in range(0, len(batch), 100):
        await ledger.record_batch(batch[start : start + 100], [])
    for number in range(ROWS + 10):
        await record(ledger, users[number % 7], f"more-{number}", 1)
    sweeper = sweeper_of(ledger, store)
    assert await sweeper.sweep(older_than=0) == ROWS
    assert await sweeper.sweep(older_than=0) == 6 + 10
    assert await keys.zcard(scores_key(ALL_TIME)) == len(users)


async def test_a_sweeper_that_stands_still_keeps_no_other_from_the_rows(
    dsn: str, ledger: Ledger, store: Store, keys: Redis, make_users: MakeUsers
) -> None:
    (user,) = await make_users(1)
    await record(ledger, user, "a")
    stands, goes_on = asyncio.Event(), asyncio.Event()

    class Standing(Resync):
        """Has read what there is, and stands still before it says so."""

        async def each(self, user_ids: Collection[int], partition: str | None = None) -> dict[str, str | None]:
            stands.set()
            await goes_on.wait()
            return await super().each(user_ids, partition)

    standing = Sweeper(ledger, Standing(ledger, store, ledger.clock.now))
    late = asyncio.create_task(standing.sweep(older_than=0))
    await stands.wait()
    other = Ledger(dsn)
    await other.open()
    assert await sweeper_of(other, store).sweep(older_than=0) == 1
    assert await keys.zscore(scores_key(ALL_TIME), user) == 5
    await record(ledger, user, "b")
    goes_on.set()
    assert await late == 1
    assert (await ledger.outbox_state())[0] == 1, "what it had not read stays"
    await other.aclose()


async def test_two_sweepers_do_the_same_work_and_wait_for_nobody(
    dsn: str, ledger: Ledger, store: Store, keys: Redis, make_users: MakeUsers
) -> None:
    users = await make_users(30)
    for user in users:
        await record(ledger, user, "a")
    other = Ledger(dsn)
    await other.open()
    first, second = sweeper_of(ledger, store), sweeper_of(other, store)
    async with asyncio.timeout(PATIENCE):
        swept = await asyncio.gather(*(sweeper.sweep(older_than=0) for sweeper in (first, second)))
    assert 30 <= sum(swept) <= 60
    assert await keys.zcard(scores_key(ALL_TIME)) == 30
    await other.aclose()


async def test_live_boards_are_told_and_closed_weeks_are_not(
    ledger: Ledger, store: Store, keys: Redis, make_users: MakeUsers
) -> None:
    (user,) = await make_users(1)
    await record(ledger, user, "then", 5, MONDAY)
    await record(ledger, user, "now", 7)
    await sweeper_of(ledger, store).sweep(older_than=0)
    assert await keys.zscore(scores_key(ALL_TIME), user) == 12
    assert not await keys.exists(scores_key(week_of(MONDAY.date())))


async def test_without_the_ledger_or_the_store_it_goes_on_trying(
    ledger: Ledger, store: Store, make_users: MakeUsers
) -> None:
    (user,) = await make_users(1)
    await record(ledger, user, "a")
    sweeper = sweeper_of(ledger, store)
    running = asyncio.ensure_future(sweeper.run())
    await ledger.aclose()
    await asyncio.sleep(0.02)
    assert not running.done()
    with pytest.raises(LedgerUnavailable):
        await sweeper.sweep(older_than=0)
    running.cancel()
    await asyncio.wait([running])
