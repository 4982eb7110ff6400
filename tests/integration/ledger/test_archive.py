"""History: a closed week is what the log says it was, read once, kept in the store, and true about names and bans."""

from __future__ import annotations

import asyncio
import json
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import orjson
import pytest
from redis.asyncio import Redis

from realtime.boards.board import ALL_TIME, TOP, week_at, week_of
from realtime.boards.standings import Profile, Row
from realtime.boards.submissions import Submission
from realtime.errors import LedgerUnavailable, RealtimeError
from realtime.ledger import archive as module
from realtime.ledger.archive import Archive
from realtime.ledger.closing import Closing, view_of
from realtime.ledger.ledger import Ledger
from realtime.ledger.views import Views
from realtime.people.accounts import Accounts
from realtime.repair.resync import Resync
from realtime.store.store import Store
from tests.support.closed_weeks import Behind, views_of
from tests.support.databases import Databases, MakeUsers
from tests.support.keys import cache_key, channel
from tests.support.stores import PrivateStore, make_ours

MONDAY = datetime(2026, 3, 2, tzinfo=UTC)
WEEK = week_of(MONDAY.date())
MICROSECOND = timedelta(microseconds=1)


async def score(ledger: Ledger, user: int, points: int, at: datetime, name: str | None = None) -> None:
    await ledger.record_batch([Submission(user, name or f"{at}-{points}", points, None, at)], [])


async def has_ended(ledger: Ledger) -> bool:
    """Whether changes of the week are counted."""
    async with ledger.connection() as connection:
        return bool(await connection.fetch("SELECT FROM closed_weeks"))


@pytest.fixture
def views(ledger: Ledger, store: Store) -> Views:
    return views_of(ledger, store)


@pytest.fixture
def archive(views: Views) -> Archive:
    return views.archive


@pytest.fixture
def accounts(ledger: Ledger, store: Store) -> Accounts:
    return Accounts(ledger, Resync(ledger, store, ledger.clock.now), None)  # type: ignore[arg-type]


async def test_a_week_is_from_its_first_microsecond_to_before_the_next(
    ledger: Ledger, archive: Archive, make_users: MakeUsers
) -> None:
    a, b = await make_users(2)
    end = MONDAY + timedelta(days=7)
    for at, points in ((MONDAY - MICROSECOND, 1), (MONDAY, 10), (end - MICROSECOND, 100), (end, 1000)):
        await score(ledger, a, points, at)
    await score(ledger, b, 50, MONDAY + timedelta(days=3))
    snapshot, players = await archive.snapshot(WEEK)
    assert snapshot.entries == [(a, "player-1", 110), (b, "player-2", 50)]
    assert (snapshot.epoch, snapshot.board, players) == ("closed", WEEK.id, 2)


async def test_a_view_is_indexed_by_user_place_and_score(
    ledger: Ledger, archive: Archive, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    (a,) = await make_users(1)
    await score(ledger, a, 5, MONDAY)
    await archive.open(WEEK)
    rows = await sql.fetch("SELECT indexdef FROM pg_indexes WHERE tablename = $1", view_of(WEEK))
    indexes = [row["indexdef"].partition(" ON ")[::2] for row in rows]
    assert sorted(columns.partition("btree ")[2] for _, columns in indexes) == ["(place)", "(score)", "(user_id)"]
    assert [made.split()[1] for made, columns in indexes if "(score)" not in columns] == ["UNIQUE", "UNIQUE"]


async def test_places_and_ranks_are_as_an_independent_count_has_them(
    ledger: Ledger, archive: Archive, make_users: MakeUsers
) -> None:
    users = await make_users(130)
    chance = random.Random(6)
    expected: dict[int, int] = {}
    batch = []
    for number in range(900):
        user, points = chance.choice(users), chance.randint(-3, 5)
        expected[user] = expected.get(user, 0) + points
        at = MONDAY + timedelta(seconds=chance.randrange(7 * 86_400))
        batch.append(Submission(user, str(number), points, None, at))
    await ledger.record_batch(batch, [])
    order = sorted(expected, key=lambda user: (expected[user], str(user)), reverse=True)
    lines = []
    for offset in range(0, 140, 37):
        page = await archive.page(WEEK, offset, 37)
        assert page.players == len(expected)
        lines += page.lines
    assert [(line.user_id, line.score) for line in lines] == [(user, expected[user]) for user in order]
    assert [line.rank for line in lines] == [
        1 + sum(other > expected[user] for other in expected.values()) for user in order
    ]
    snapshot, _ = await archive.snapshot(WEEK)
    assert list(snapshot.scores) == order[:100]
    middle = order[60]
    around = await archive.around(WEEK, middle, 3)
    assert [line.user_id for line in around.lines] == order[57:64]
    better = [points for points in expected.values() if points > expected[middle]]
    assert around.next_score == min(better)
    assert (await archive.around(WEEK, order[0], 2)).next_score is None
    assert (await archive.around(WEEK, 10**9, 2)).lines == []


async def test_a_cached_week_touches_no_database(
    ledger: Ledger, store: Store, archive: Archive, keys: Redis, make_users: MakeUsers
) -> None:
    (user,) = await make_users(1)
    await score(ledger, user, 5, MONDAY)
    first = await archive.snapshot(WEEK)
    kept = orjson.loads(str(await keys.get(cache_key(WEEK))))
    assert kept["entries"] == [{"user_id": user, "username": "player-1", "score": 5}]
    assert (kept["version"], kept["users_version"], kept["epoch"]) == (first[0].version, 0, store.epoch)
    await ledger.aclose()
    assert await archive.snapshot(WEEK) == first
    assert await views_of(ledger, store).archive.snapshot(WEEK) == first, "in any process"


@pytest.mark.parametrize("spoilt", ["", "nonsense", "[]", '{"version":1}', '{"users_version":0,"entries":5}'])
async def test_a_spoilt_cache_is_read_anew(
    ledger: Ledger, archive: Archive, keys: Redis, make_users: MakeUsers, spoilt: str
) -> None:
    (user,) = await make_users(1)
    await score(ledger, user, 5, MONDAY)
    first = await archive.snapshot(WEEK)
    await keys.set(cache_key(WEEK), spoilt)
    assert await archive.snapshot(WEEK) == first
    assert orjson.loads(str(await keys.get(cache_key(WEEK))))["players"] == 1


@pytest.mark.parametrize(
    "spoilt",
    [
        {"version": 10**30},
        {"players": -1},
        {"entries": [{"user_id": 1, "username": "x", "score": 1e300}]},
        {"entries": [{"user_id": 10**30, "username": "x", "score": 5}]},
    ],
)
async def test_a_cache_with_numbers_that_cannot_be_ours_is_read_anew(
    ledger: Ledger, archive: Archive, keys: Redis, make_users: MakeUsers, spoilt: dict[str, Any]
) -> None:
    (user,) = await make_users(1)
    await score(ledger, user, 5, MONDAY)
    first = await archive.snapshot(WEEK)
    kept = json.loads(str(await keys.get(cache_key(WEEK))))
    await keys.set(cache_key(WEEK), json.dumps(kept | spoilt))
    assert await archive.snapshot(WEEK) == first
    assert json.loads(str(await keys.get(cache_key(WEEK)))) == kept


async def test_a_rename_reaches_every_closed_week_without_touching_its_view(
    ledger: Ledger, store: Store, archive: Archive, accounts: Accounts, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    (user,) = await make_users(names=["before"])
    await score(ledger, user, 5, MONDAY)
    await store.apply({ALL_TIME: [Row(user, 1, 5)]}, [Profile(user, 1, "before")])
    before, _ = await archive.snapshot(WEEK)
    made = await sql.fetchval("SELECT relfilenode FROM pg_class WHERE relname = $1", view_of(WEEK))
    await accounts.rename(user, "after")
    after, _ = await archive.snapshot(WEEK)
    assert (before.names, after.names) == ({user: "before"}, {user: "after"})
    assert after.version > before.version
    assert await sql.fetchval("SELECT relfilenode FROM pg_class WHERE relname = $1", view_of(WEEK)) == made


async def test_what_is_cached_for_everybody_is_from_no_standby(
    ledger: Ledger, store: Store, accounts: Accounts, make_users: MakeUsers
) -> None:
    (user,) = await make_users(names=["before"])
    await score(ledger, user, 5, MONDAY)
    await store.apply({ALL_TIME: [Row(user, 1, 5)]}, [Profile(user, 1, "before")])
    behind = Behind(ledger)
    old = await Archive(ledger, store, Closing(ledger), behind).page(WEEK, 0, TOP)
    await accounts.rename(user, "after")
    archive = Archive(ledger, store, Closing(ledger), behind)  # of a process that knows of no version yet
    assert (await archive.page(WEEK, 0, TOP)) == old, "the standby has not heard of it"
    for reader in (archive, views_of(ledger, store).archive):
        assert (await reader.snapshot(WEEK))[0].names == {user: "after"}
    assert (await archive.page(WEEK, 0, TOP)).lines[0].username == "after", "nor is what was given out taken back"


async def test_who_is_banned_is_not_counted_and_ranks_close_up(
    ledger: Ledger, store: Store, archive: Archive, accounts: Accounts, make_users: MakeUsers
) -> None:
    users = await make_users(4)
    for user, points in zip(users, (40, 30, 20, 10), strict=True):
        await score(ledger, user, points, MONDAY)
    await store.apply(await ledger.standings_of(users, [ALL_TIME]), await ledger.profiles_of(users))
    await accounts.ban(users[1], actor="test", reason=None)
    snapshot, players = await archive.snapshot(WEEK)
    assert list(snapshot.scores) == [users[0], users[2], users[3]]
    assert players == 3
    assert [line.rank for line in (await archive.page(WEEK, 0, 10)).lines] == [1, 2, 3]
    assert [line.user_id for line in (await archive.page(WEEK, 1, 1)).lines] == [users[2]]
    await accounts.unban(users[1], actor="test", reason=None)
    snapshot, players = await archive.snapshot(WEEK)
    assert list(snapshot.scores) == users and players == 4


async def test_weeks_before_the_first_score_and_weeks_without_any(
    ledger: Ledger, archive: Archive, make_users: MakeUsers
) -> None:
    with pytest.raises(RealtimeError, match="that old"):
        await archive.snapshot(WEEK)
    (user,) = await make_users(1)
    await score(ledger, user, 5, MONDAY)
    with pytest.raises(RealtimeError, match="that old") as caught:
        await archive.page(week_of((MONDAY - timedelta(days=7)).date()), 0, 10)
    assert caught.value.code == "unknown_board"
    quiet = week_of((MONDAY + timedelta(days=7)).date())
    snapshot, players = await archive.snapshot(quiet)
    assert (snapshot.entries, players) == ([], 0)


async def test_many_at_once_make_one_view(
    dsn: str, ledger: Ledger, store: Store, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    (user,) = await make_users(1)
    await score(ledger, user, 5, MONDAY)
    ledgers = [Ledger(dsn) for _ in range(3)]
    for other in ledgers:
        await other.open()
    archives = [views_of(other, store).archive for other in ledgers for _ in range(3)]
    found = await asyncio.gather(*(archive.snapshot(WEEK) for archive in archives))
    assert len({snapshot.version for snapshot, _ in found}) == 1
    assert await sql.fetchval("SELECT count(*) FROM pg_matviews WHERE matviewname = $1", view_of(WEEK)) == 1
    assert await sql.fetchval("SELECT count(*) FROM closed_weeks") == 1
    for other in ledgers:
        await other.aclose()


async def test_readers_have_weeks_closed_only_so_many_a_second(
    ledger: Ledger, store: Store, sql: asyncpg.Connection, make_users: MakeUsers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crowd that walks through all weeks there are makes relations no faster than that."""
    monkeypatch.setattr(module, "OPENINGS", 1)
    monkeypatch.setattr(module, "OPENINGS_A_SECOND", 0.01)
    monkeypatch.setattr(module, "READER_PATIENCE", 0.1)
    (user,) = await make_users(1)
    weeks = [week_of((MONDAY + timedelta(weeks=n)).date()) for n in range(3)]
    for board in weeks:
        await score(ledger, user, 5, board.starts)
    views = views_of(ledger, store)
    await views.archive.open(weeks[0])
    for board in weeks[1:]:
        with pytest.raises(LedgerUnavailable):
            await views.archive.open(board)
    assert await sql.fetchval("SELECT count(*) FROM closed_weeks") == 1
    assert await views.open_all(100) == 2, "the worker waits for nobody"
    for waiting in views.archive._openings.values():
        waiting.cancel()
    assert (await views.archive.snapshot(weeks[2]))[0].scores == {user: 5}


async def test_the_session_s_time_zone_moves_no_week(
    dsn: str, databases: Databases, store: Store, ledger: Ledger, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    (user,) = await make_users(1)
    for at in (MONDAY - MICROSECOND, MONDAY):
        await score(ledger, user, 5, at)
    async with ledger.connection() as connection:
        await connection.execute("SET timezone = 'Pacific/Kiritimati'")
    snapshot, _ = await views_of(ledger, store).archive.snapshot(WEEK)
    assert snapshot.scores == {user: 5}


async def test_without_the_store_the_view_answers(
    ledger: Ledger, private_store: PrivateStore, make_users: MakeUsers
) -> None:
    (user,) = await make_users(1)
    await score(ledger, user, 5, MONDAY)
    store = Store(private_store.url, timeout=0.3)
    await make_ours(store)
    archive = views_of(ledger, store).archive
    first = await archive.snapshot(WEEK)
    await asyncio.to_thread(private_store.kill)
    assert await archive.snapshot(WEEK) == first
    await asyncio.to_thread(private_store.start)
    await store.aclose()


async def test_an_amendment_moves_the_version_the_cache_and_the_subscribers(
    ledger: Ledger, store: Store, views: Views, keys: Redis, make_users: MakeUsers
) -> None:
    (user,) = await make_users(1)
    await score(ledger, user, 5, MONDAY)
    before, _ = await views.archive.snapshot(WEEK)
    await score(ledger, user, -2, MONDAY, "correction")
    async with keys.pubsub() as pubsub:
        await pubsub.psubscribe("leaderboard:changes:*")
        await pubsub.get_message(timeout=5)
        await views.amend([WEEK, week_at(MONDAY + timedelta(days=70))])
        message = await pubsub.get_message(timeout=5)
        assert message is not None and message["channel"] == channel(WEEK)
        said = orjson.loads(message["data"])
    after, _ = await views.archive.snapshot(WEEK)
    assert after.scores == {user: 3}
    assert after.version > before.version
    assert said == {"epoch": "closed", "version": after.version}
    await views.amend([WEEK])
    again, _ = await views.archive.snapshot(WEEK)
    assert again == after, "what was in the view already moves no version: nobody is sent an empty diff"


async def test_the_list_has_weeks_with_scores_newest_first(ledger: Ledger, views: Views, make_users: MakeUsers) -> None:
    a, b = await make_users(2)
    for week in (0, 2, 3):
        await score(ledger, a, 5, MONDAY + timedelta(weeks=week))
    await score(ledger, b, 5, MONDAY + timedelta(weeks=2))
    await score(ledger, a, 5, ledger.clock.now() - timedelta(seconds=1), "now")
    weeks, total = await views.archive.listed(ledger.clock.now(), 0, 10)
    assert [(week.board.starts, week.players) for week in weeks] == [
        (MONDAY + timedelta(weeks=3), 1),
        (MONDAY + timedelta(weeks=2), 2),
        (MONDAY, 1),
    ]
    assert total == 3
    assert ([week.board.starts for week in (await views.archive.listed(ledger.clock.now(), 1, 1))[0]], total) == (
        [MONDAY + timedelta(weeks=2)],
        3,
    )
    assert await views.archive.listed(ledger.clock.now(), 5, 1) == ([], 3)
    assert await views.open_all(2) == 2
    assert await views.open_all(2) == 1
    assert await views.open_all(2) == 0


# While a view is made --------------------------------------------------------------------------------------------


async def test_a_rename_under_way_while_the_view_is_made_is_in_its_first_version_or_moves_it(
    ledger: Ledger, archive: Archive, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    """A version stands for one thing: it must not be shown with the old name, and then again with the new one."""
    (user,) = await make_users(names=["before"])
    await score(ledger, user, 5, MONDAY)
    async with sql.transaction():
        await sql.fetch(ledger.query("rename"), user, "after")
        await sql.fetch(ledger.query("renamed"), user)
        opening = asyncio.ensure_future(archive.page(WEEK, 0, 10))
        while not opening.done() and not await has_ended(ledger):  # noqa: ASYNC110 - PostgreSQL tells nobody
            await asyncio.sleep(0.005)
    first, later = await opening, await archive.page(WEEK, 0, 10)
    assert later.lines[0].username == "after"
    assert first == later or first.version < later.version


# After a restore -------------------------------------------------------------------------------------------------


async def test_a_view_without_its_version_and_a_version_without_its_view_are_made_whole(
    ledger: Ledger, store: Store, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    """A backup may have the one without the other, and whoever looks for room may drop a view."""
    (user,) = await make_users(1)
    await score(ledger, user, 5, MONDAY)
    first = await views_of(ledger, store).archive.page(WEEK, 0, 10)
    await sql.execute("DELETE FROM closed_weeks")
    await score(ledger, user, 2, MONDAY, "later")
    anew = await views_of(ledger, store).archive.page(WEEK, 0, 10)
    assert (first.lines[0].score, anew.lines[0].score) == (5, 7)
    await sql.execute(f"DROP MATERIALIZED VIEW {view_of(WEEK)}")
    again = await views_of(ledger, store).archive.page(WEEK, 0, 10)
    assert again.lines == anew.lines and again.version > anew.version


async def test_a_view_that_is_dropped_under_a_living_process_is_made_again(
    ledger: Ledger, store: Store, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    (user,) = await make_users(1)
    await score(ledger, user, 5, MONDAY)
    archive = views_of(ledger, store).archive
    before = await archive.page(WEEK, 0, 10)
    await sql.execute(f"DROP MATERIALIZED VIEW {view_of(WEEK)}")
    with pytest.raises(LedgerUnavailable, match=view_of(WEEK)):
        await archive.page(WEEK, 0, 10)
    assert ledger.outages.counts["schema"] == 1
    assert (await archive.page(WEEK, 0, 10)).lines == before.lines
