"""The store and its scripts: guarded by versions, told apart by epochs, moved only where boards show something else."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from secrets import token_hex
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis.asyncio
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from realtime import resources
from realtime.boards.board import ALL_TIME, Board
from realtime.boards.standings import Position, Profile, Row, in_order
from realtime.errors import EpochMoved, StartupError, StoreChanged, StoreUnavailable, StoreUnfit
from realtime.store import engines
from realtime.store.announcements import Announcements
from realtime.store.audit import Audit
from realtime.store.filling import Filling
from realtime.store.fitness import Content, check_fitness
from realtime.store.keys import expire_at
from realtime.store.pool import Script
from realtime.store.store import Store
from tests.support.keys import (
    EPOCH_KEY,
    RUN_KEY,
    USERS_VERSION_KEY,
    cache_key,
    scores_key,
    user_key,
    version_key,
    versions_key,
)
from tests.support.stores import PrivateStore, make_ours, primary_url, week_ahead
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.every_store

Keys = redis.asyncio.Redis

WEEK = week_ahead()

on_fixtures = hypothesis_settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


async def everything(keys: Keys) -> dict[str, Any]:
    """All that the store holds, by key."""
    found: dict[str, Any] = {}
    async for key in keys.scan_iter("leaderboard:*", 1_000):
        kind = await keys.type(key)
        if kind == "zset":
            found[key] = dict(await keys.zrange(key, 0, -1, withscores=True))
        elif kind == "hash":
            found[key] = await keys.hgetall(key)
        else:
            found[key] = await keys.get(key)
    return found


class Heard:
    """What is announced, from the moment the block is entered."""

    def __init__(self, keys: Keys, pubsub: Any) -> None:
        self._keys = keys
        self._pubsub = pubsub

    async def take(self) -> list[tuple[str, dict[str, Any]]]:
        """`(board, payload)` of everything announced until now, in order."""
        await self._keys.publish("tests:marker", "")
        heard: list[tuple[str, dict[str, Any]]] = []
        while True:
            message = await self._pubsub.get_message(ignore_subscribe_messages=True, timeout=10)
            assert message is not None
            if message["channel"] == "tests:marker":
                return heard
            channel = message["channel"].removeprefix("leaderboard:changes:")
            heard.append((channel, json.loads(message["data"])))


@asynccontextmanager
async def hearing(keys: Keys) -> AsyncIterator[Heard]:
    async with keys.pubsub() as pubsub:
        await pubsub.psubscribe("leaderboard:changes:*", "tests:marker")
        for _ in range(2):
            await pubsub.get_message(timeout=10)
        yield Heard(keys, pubsub)


async def version(keys: Keys, board: Board) -> int:
    return int(await keys.get(version_key(board)) or 0)


async def fill(store: Store, count: int, board: Board = ALL_TIME) -> None:
    """Users 1 to `count`, user n with a score of 10 n."""
    rows = [Row(user_id, 1, 10 * user_id) for user_id in range(1, count + 1)]
    profiles = [Profile(user_id, 1, f"player-{user_id}") for user_id in range(1, count + 1)]
    await store.apply({board: rows}, profiles)


# What is written -------------------------------------------------------------------------------------------------


@pytest.mark.one_store
async def test_rows_and_profiles_land_where_people_look_for_them(store: Store, keys: Keys) -> None:
    applied = await store.apply(
        {ALL_TIME: [Row(7, 3, 1100), Row(8, 1, -5)], WEEK: [Row(7, 2, 300)]}, [Profile(7, 1, "Ω <b>")]
    )
    assert applied == 3
    assert await everything(keys) == {
        "leaderboard:epoch": store.epoch,
        "leaderboard:run": store.run,
        "leaderboard:user_scores:all_time": {"7": 1100, "8": -5},
        "leaderboard:versions:all_time": {"7": "3", "8": "1"},
        "leaderboard:version:all_time": "1",
        f"leaderboard:user_scores:{WEEK.id}": {"7": 300},
        f"leaderboard:versions:{WEEK.id}": {"7": "2"},
        f"leaderboard:version:{WEEK.id}": "1",
        "leaderboard:users:7": {"user_id": "7", "username": "Ω <b>", "version": "1"},
    }


async def test_scores_are_exact_to_the_ends_of_their_range(store: Store, keys: Keys) -> None:
    extremes = {1: 2**53, 2: -(2**53), 3: 2**53 - 1, 4: 0, 5: -1, 6: 10**15 + 1}
    await store.apply({ALL_TIME: [Row(user_id, 1, score) for user_id, score in extremes.items()]})
    (top,) = (await store.read([ALL_TIME])).tops
    assert top.scores == extremes
    assert list(top.scores) == list(in_order(extremes.items()))
    assert await store.apply({ALL_TIME: [Row(1, 2, 2**53)]}) == 1, "compared exactly as well"
    assert await version(keys, ALL_TIME) == 1, "the score is as it was"


async def test_who_has_no_score_leaves_the_board_and_is_remembered(store: Store, keys: Keys) -> None:
    await store.apply({ALL_TIME: [Row(7, 3, 1100)]})
    await store.apply({ALL_TIME: [Row(7, 4, None)]})
    assert await keys.zscore(scores_key(ALL_TIME), 7) is None
    assert await store.apply({ALL_TIME: [Row(7, 3, 1100)]}) == 0, "an older row brings nobody back"
    assert await keys.zscore(scores_key(ALL_TIME), 7) is None
    await store.apply({ALL_TIME: [Row(7, 5, 40)]})
    assert await keys.zscore(scores_key(ALL_TIME), 7) == 40


async def test_a_thousand_rows_of_each_board_and_profiles_go_in_one_call(store: Store, keys: Keys) -> None:
    before = await _calls(keys)
    rows = [Row(user_id, 1, user_id) for user_id in range(1, 1001)]
    profiles = [Profile(user_id, 1, "x" * 64) for user_id in range(1, 1001)]
    assert await store.apply({ALL_TIME: rows, WEEK: rows}, profiles) == 2000
    after = await _calls(keys)
    assert after.get("evalsha", 0) + after.get("eval", 0) - before.get("evalsha", 0) - before.get("eval", 0) <= 2
    assert await keys.zcard(scores_key(ALL_TIME)) == await keys.zcard(scores_key(WEEK)) == 1000


async def test_more_than_a_thousand_go_in_several_calls(store: Store, keys: Keys) -> None:
    rows = [Row(user_id, 1, user_id) for user_id in range(1, 2502)]
    assert await store.apply({ALL_TIME: rows, WEEK: rows[:5]}, [Profile(2501, 1, "last")]) == 2506
    assert await keys.zcard(scores_key(ALL_TIME)) == 2501
    assert await keys.zcard(scores_key(WEEK)) == 5
    assert await keys.hget(user_key(2501), "username") == "last"


async def _calls(keys: Keys) -> dict[str, int]:
    stats = await keys.info("commandstats")
    return {name.removeprefix("cmdstat_"): int(value["calls"]) for name, value in stats.items()}


@pytest.mark.one_store
async def test_the_number_of_calls_inside_the_script_does_not_grow_with_the_rows(store: Store, keys: Keys) -> None:
    """A call to a key of another thread is a hop on Dragonfly: few variadic calls, however many rows."""

    async def cost(count: int, first: int) -> dict[str, int]:
        before = await _calls(keys)
        await store.apply({ALL_TIME: [Row(first + n, 1, n) for n in range(count)]})
        after = await _calls(keys)
        inside = ("zadd", "zrem", "hmget", "zmscore", "zrevrange", "hset", "incr", "publish", "get")
        return {name: after.get(name, 0) - before.get(name, 0) for name in inside}

    few, many = await cost(2, 1), await cost(900, 1_000)
    assert few == many
    assert max(many.values()) == 1


# Guarded by versions ---------------------------------------------------------------------------------------------

row_versions = st.lists(
    st.builds(Row, st.integers(1, 4), st.integers(1, 6), st.none() | st.integers(-5, 5)),
    min_size=1,
    max_size=12,
    unique_by=lambda row: (row.user_id, row.version),
)


@on_fixtures
@given(data=st.data(), of_all_time=row_versions, of_week=row_versions)
async def test_in_whatever_order_and_how_often_rows_arrive_the_newest_stand(
    store: Store, keys: Keys, data: st.DataObject, of_all_time: list[Row], of_week: list[Row]
) -> None:
    of_boards = (scores_key(ALL_TIME), scores_key(WEEK), versions_key(ALL_TIME), versions_key(WEEK))
    await keys.delete(*of_boards, version_key(ALL_TIME), version_key(WEEK))
    sent = [(ALL_TIME, row) for row in of_all_time] + [(WEEK, row) for row in of_week]
    arrivals = data.draw(st.permutations(sent)) + data.draw(st.lists(st.sampled_from(sent), max_size=4))
    for board, row in arrivals:
        await store.apply({board: [row]})
    for board, rows in ((ALL_TIME, of_all_time), (WEEK, of_week)):
        newest = {row.user_id: row for row in sorted(rows, key=lambda row: row.version)}
        shown = {str(row.user_id): row.score for row in newest.values() if row.score is not None}
        assert dict(await keys.zrange(scores_key(board), 0, -1, withscores=True)) == shown
        versions = {str(row.user_id): str(row.version) for row in newest.values()}
        assert await keys.hgetall(versions_key(board)) == versions


async def test_the_same_again_changes_nothing_and_says_nothing(store: Store, keys: Keys) -> None:
    batch = {ALL_TIME: [Row(7, 3, 1100)], WEEK: [Row(7, 2, 300)]}
    await store.apply(batch, [Profile(7, 1, "a")])
    before = await everything(keys)
    async with hearing(keys) as heard:
        assert await store.apply(batch, [Profile(7, 1, "a")]) == 0
        assert await heard.take() == []
    assert await everything(keys) == before


async def test_another_score_of_the_same_version_is_taken_for_it_is_what_the_ledger_says_now(
    store: Store, keys: Keys
) -> None:
    await store.apply({ALL_TIME: [Row(7, 3, 1100)]})
    assert await store.apply({ALL_TIME: [Row(7, 3, 900)]}) == 1
    assert await keys.zscore(scores_key(ALL_TIME), 7) == 900


async def test_each_board_has_its_own_versions(store: Store, keys: Keys) -> None:
    """One version for two boards loses a week."""
    await store.apply({ALL_TIME: [Row(7, 9, 90)]})
    await store.apply({ALL_TIME: [Row(7, 8, 80)], WEEK: [Row(7, 1, 10)]})
    assert await keys.zscore(scores_key(ALL_TIME), 7) == 90
    assert await keys.zscore(scores_key(WEEK), 7) == 10


# Told apart by epochs --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("there", ["other-1", "filling:other-2", None])
async def test_content_of_another_epoch_is_not_touched(store: Store, keys: Keys, there: str | None) -> None:
    await store.apply({ALL_TIME: [Row(7, 3, 1100)]}, [Profile(7, 1, "a")])
    if there is None:
        await keys.delete(EPOCH_KEY)
    else:
        await keys.set(EPOCH_KEY, there)
    before = await everything(keys)
    async with hearing(keys) as heard:
        with pytest.raises(EpochMoved) as caught:
            await store.apply({ALL_TIME: [Row(7, 4, 2000)], WEEK: [Row(9, 1, 1)]}, [Profile(7, 2, "b")])
        assert await heard.take() == []
    assert caught.value.epoch == there
    assert await everything(keys) == before


async def test_other_content_is_told_what_the_ledger_says_by_then(store: Store, keys: Keys) -> None:
    """The ledger may have been restored in between: rows that were read before would count as newer for ever."""
    lost = {ALL_TIME: [Row(7, 9, 900)]}
    assert store.epoch is not None

    async def anew() -> tuple[dict[Board, list[Row]], list[Profile]]:
        return {ALL_TIME: [Row(7, 2, 20)]}, []

    await keys.set(EPOCH_KEY, f"{store.epoch.rpartition('-')[0]}-zz")
    with pytest.raises(EpochMoved):
        await store.tell(lost)
    await keys.set(EPOCH_KEY, f"{store.epoch.rpartition('-')[0]}-zy")
    told = await store.tell(lost, anew=anew)
    assert told == store.epoch and told.endswith("-zy")
    assert await keys.zscore(scores_key(ALL_TIME), 7) == 20
    assert await keys.hget(versions_key(ALL_TIME), "7") in (b"2", "2")


async def test_a_store_that_nobody_adopted_is_not_written(store_url: str, keys: Keys) -> None:
    stranger = Store(store_url)
    try:
        with pytest.raises(StoreChanged):
            await stranger.apply({ALL_TIME: [Row(7, 3, 1100)]})
        content = await stranger.adopt()
        assert not content.is_ours and stranger.epoch is None
        with pytest.raises(StoreChanged):
            await stranger.read([ALL_TIME])
        assert await everything(keys) == {}
    finally:
        await stranger.aclose()


# Bumped only where a board shows something else ------------------------------------------------------------------


@pytest.mark.one_store
async def test_the_first_hundred_and_their_edge(store: Store, keys: Keys) -> None:
    await fill(store, 150)  # user 51 has place 100 with 510 points
    at = await version(keys, ALL_TIME)
    steps: list[tuple[str, Row, bool]] = [
        ("below stays below", Row(10, 2, 505), False),
        ("a newcomer below", Row(500, 1, 1), False),
        ("below leaves", Row(20, 2, None), False),
        ("the last one shown gains", Row(51, 2, 511), True),
        ("below reaches the last one's score, whom the order may put first", Row(50, 2, 511), True),
        ("below climbs past the edge", Row(30, 2, 5_000), True),
        ("the first one loses, and stays", Row(150, 2, 1_400), True),
        ("one drops out by a correction", Row(149, 2, 3), True),
        ("one leaves from the middle", Row(120, 2, None), True),
        ("a newcomer at the top", Row(501, 1, 9_999), True),
        ("one who is shown, unchanged but newer", Row(140, 2, 1_400), False),
    ]
    async with hearing(keys) as heard:
        for what, row, moves in steps:
            before = (await store.read([ALL_TIME])).tops[0]
            assert await store.apply({ALL_TIME: [row]}) == 1, what
            after = (await store.read([ALL_TIME])).tops[0]
            assert moves or before.scores == after.scores, what
            at += moves
            assert after.version == at, what
            said = [("all_time", {"epoch": store.epoch, "version": at})] if moves else []
            assert await heard.take() == said, what
            score = await keys.zscore(scores_key(ALL_TIME), row.user_id)
            assert score == row.score, f"{what}: written all the same"


@on_fixtures
@given(
    st.lists(
        st.lists(
            st.tuples(st.integers(1, 125), st.none() | st.integers(95, 130)),
            min_size=1,
            max_size=6,
            unique_by=lambda r: r[0],
        ),
        min_size=1,
        max_size=4,
    )
)
async def test_a_board_that_shows_something_else_has_another_version(
    store: Store, keys: Keys, batches: list[list[tuple[int, int | None]]]
) -> None:
    """And one that stands still costs no reading: the version is all that is compared."""
    await keys.delete(scores_key(ALL_TIME), versions_key(ALL_TIME))
    await store.apply({ALL_TIME: [Row(user_id, 1, user_id) for user_id in range(1, 121)]})
    (before,) = (await store.read([ALL_TIME])).tops
    for number, batch in enumerate(batches, 2):
        await store.apply({ALL_TIME: [Row(user_id, number, score) for user_id, score in batch]})
        (after,) = (await store.read([ALL_TIME])).tops
        assert after.version - before.version in (0, 1)
        if after.version == before.version:
            assert list(after.scores.items()) == list(before.scores.items())
        before = after


@pytest.mark.one_store
async def test_a_rename_moves_names_and_the_boards_that_show_them(store: Store, keys: Keys) -> None:
    await fill(store, 150)
    await store.apply({WEEK: [Row(150, 1, 5), Row(10, 1, 4)]})
    all_time, week = await version(keys, ALL_TIME), await version(keys, WEEK)
    live: dict[Board, list[Row]] = {ALL_TIME: [], WEEK: []}
    async with hearing(keys) as heard:
        await store.apply(live, [Profile(150, 2, "renamed")])
        assert sorted(await heard.take(), key=lambda said: said[0]) == [
            ("all_time", {"epoch": store.epoch, "version": all_time + 1}),
            ("users", {"epoch": store.epoch, "version": 1}),
            (WEEK.id, {"epoch": store.epoch, "version": week + 1}),
        ]
        await store.apply(live, [Profile(10, 2, "below the edge of all time")])
        assert sorted(await heard.take(), key=lambda said: said[0]) == [
            ("users", {"epoch": store.epoch, "version": 2}),
            (WEEK.id, {"epoch": store.epoch, "version": week + 2}),
        ]
    assert await version(keys, ALL_TIME) == all_time + 1


async def test_profiles_are_guarded_by_their_version(store: Store, keys: Keys) -> None:
    await fill(store, 3)
    await store.apply({ALL_TIME: []}, [Profile(1, 5, "fifth")])
    users = await keys.get(USERS_VERSION_KEY)
    for older in (Profile(1, 4, "fourth"), Profile(1, 5, "fifth")):
        await store.apply({ALL_TIME: []}, [older])
        assert await keys.hgetall(user_key(1)) == {"user_id": "1", "username": "fifth", "version": "5"}
    assert await keys.get(USERS_VERSION_KEY) == users, "nothing moved"


async def test_a_newcomers_first_name_moves_no_names(store: Store, keys: Keys) -> None:
    """Otherwise every registration would make every process read every name again."""
    await fill(store, 3)
    assert await keys.get(USERS_VERSION_KEY) is None
    assert await version(keys, ALL_TIME) == 1


@pytest.mark.one_store
async def test_a_name_that_comes_after_its_score_is_shown(store: Store, keys: Keys) -> None:
    """Two processes record a new player; the second one's script is first, and brings no name with it."""
    await store.apply({ALL_TIME: [Row(7, 2, 30)]})
    shown = await version(keys, ALL_TIME)
    async with hearing(keys) as heard:
        await store.apply({ALL_TIME: [Row(7, 1, 10)]}, [Profile(7, 1, "late")])
        assert ("all_time", {"epoch": store.epoch, "version": shown + 1}) in await heard.take()
    assert await keys.zscore(scores_key(ALL_TIME), 7) == 30


async def test_while_it_is_filled_a_board_says_nothing(store: Store, keys: Keys) -> None:
    run = store.run
    assert run is not None
    assert await Filling(store.link).begin(run, f"{run[:8]}-5")
    await store.adopt()
    async with hearing(keys) as heard:
        await store.apply({ALL_TIME: [Row(7, 1, 10)], WEEK: [Row(7, 1, 10)]}, [Profile(7, 1, "a")])
        assert await heard.take() == []
    assert await keys.zscore(scores_key(ALL_TIME), 7) == 10
    assert await keys.get(version_key(ALL_TIME)) is None
    assert not store.is_complete


# Expiry, keys, memory --------------------------------------------------------------------------------------------


@pytest.mark.one_store
async def test_a_weeks_keys_expire_at_the_same_moment_and_all_time_never(store: Store, keys: Keys) -> None:
    for row in (Row(7, 1, 10), Row(7, 2, 20)):
        await store.apply({ALL_TIME: [row], WEEK: [row]}, [Profile(7, 1, "a")])
        async with keys.pipeline(transaction=True) as pipe:
            pipe.time()
            for key in (scores_key(WEEK), version_key(WEEK), versions_key(WEEK)):
                pipe.pttl(key)
            (seconds, micros), *left = await pipe.execute()
        moments = [seconds * 1000 + micros // 1000 + ttl for ttl in left]
        assert max(moments) - min(moments) <= 20
        assert abs(moments[0] - expire_at(WEEK) * 1000) <= 20
        assert expire_at(WEEK) == (WEEK.starts + timedelta(days=15)).timestamp()
        for key in (scores_key(ALL_TIME), version_key(ALL_TIME), versions_key(ALL_TIME), user_key(7)):
            assert await keys.ttl(key) == -1


@asynccontextmanager
async def only_these(keys: Keys, store_url: str, allowed: list[str]) -> AsyncIterator[Keys]:
    """The store for a user who may do everything with these keys, and nothing with any other."""
    user = f"narrow-{token_hex(4)}"  # a new one: not every store takes the rights of an old one back in one word
    rights = ("on", ">narrow", "+@all", "allchannels", *(f"~{key}" for key in allowed))
    await keys.execute_command("ACL", "SETUSER", user, *rights)
    place = urlsplit(primary_url(store_url))
    address = place._replace(netloc=f"{user}:narrow@{place.netloc.rpartition('@')[2]}").geturl()
    try:
        async with redis.asyncio.Redis.from_url(address, decode_responses=True) as narrow:
            yield narrow
    finally:
        await keys.execute_command("ACL", "DELUSER", user)


@pytest.mark.one_store
async def test_scripts_touch_no_key_that_they_do_not_declare(store: Store, keys: Keys, store_url: str) -> None:
    """Dragonfly refuses them. Here a user is allowed the declared keys and nothing else."""
    await fill(store, 120)
    epoch, run = str(store.epoch), str(store.run)
    profile = user_key(7)
    names = [scores_key(ALL_TIME), version_key(ALL_TIME), versions_key(ALL_TIME)]
    week = [scores_key(WEEK), version_key(WEEK), versions_key(WEEK)]
    calls: list[tuple[str, list[str], list[Any]]] = [
        (
            "apply",
            [EPOCH_KEY, USERS_VERSION_KEY, *names, *week, profile],
            [epoch, 2, 1, "all_time", 0, "7 8", "2 2", "7000 -", WEEK.id, expire_at(WEEK), 7, 1, 5, 7, 2, "renamed"],
        ),
        ("page", [EPOCH_KEY, USERS_VERSION_KEY, version_key(ALL_TIME), scores_key(ALL_TIME)], [0, 9, ""]),
        ("cache_week", [cache_key(WEEK), USERS_VERSION_KEY, EPOCH_KEY], [1, 1, epoch, "{}", 0]),
        ("begin_filling", [EPOCH_KEY], [f"{run[:8]}-zz"]),
        ("end_filling", [EPOCH_KEY, RUN_KEY], [f"{run[:8]}-zz", run, "", "all_time", "users"]),
    ]
    for name, declared, args in calls:
        async with only_these(keys, store_url, declared) as narrow:
            with pytest.raises(redis.exceptions.NoPermissionError):
                await narrow.get("leaderboard:something:else")
            await narrow.eval(resources.script(name), len(declared), *declared, *args)  # or NOPERM
    assert await keys.get(EPOCH_KEY) == f"{run[:8]}-zz"


async def test_at_its_memory_limit_versions_never_stand_ahead_of_scores(private_store: PrivateStore) -> None:
    store = Store(private_store.url)
    stopped = 0
    async with redis.asyncio.Redis.from_url(private_store.url, decode_responses=True) as keys:
        try:
            await make_ours(store)
            for round_number in range(8):
                used = int((await keys.info("memory"))["used_memory"])
                await keys.config_set("maxmemory", used + 20_000 + 15_000 * round_number)
                first = 1 + 1_000 * round_number
                rows = [Row(user_id, 1, user_id) for user_id in range(first, first + 1_000)]
                try:
                    await store.apply({ALL_TIME: rows, WEEK: rows}, [Profile(row.user_id, 1, "x" * 60) for row in rows])
                except StoreUnavailable:
                    stopped += 1
                await keys.config_set("maxmemory", 0)
                for board in (ALL_TIME, WEEK):
                    versions = await keys.hkeys(versions_key(board))
                    placed = set(await keys.zrange(scores_key(board), 0, -1))
                    assert set(versions) <= placed, "a version for a score that was not written"
                assert await store.apply({ALL_TIME: rows, WEEK: rows}) >= 0, "and again, with room: all there"
                assert set(map(str, range(first, first + 1_000))) <= set(await keys.zrange(scores_key(ALL_TIME), 0, -1))
        finally:
            await store.aclose()
    assert stopped, "the limit was met at least once"


# Half-way --------------------------------------------------------------------------------------------------------

HALTING = """
local server, left = redis, {writes}
local writing = {{INCR = 1, HSET = 1, ZADD = 1, ZREM = 1, EXPIREAT = 1, PUBLISH = 1}}
local redis = {{call = function(name, ...)
  if writing[name] then
    if left == 0 then error('OOM command not allowed') end
    left = left - 1
  end
  return server.call(name, ...)
end}}
"""
"""Put before a script, it stops it after so many writes: as a store does that meets its memory limit half-way."""


@pytest.mark.one_store
async def test_a_script_that_stops_half_way_leaves_nothing_that_cannot_be_told_again(
    store: Store, keys: Keys, store_url: str
) -> None:
    old = [Row(1, 1, 10), Row(2, 1, 20), Row(3, 1, 30)]
    new = [Row(1, 2, 50), Row(2, 2, None), Row(4, 1, 40)]
    profiles = [Profile(1, 2, "renamed"), Profile(4, 1, "newcomer")]
    whole = {1: 50, 3: 30, 4: 40}
    for writes in range(100):
        await store.apply({ALL_TIME: old, WEEK: old}, [Profile(user, 1, f"p{user}") for user in (1, 2, 3)])
        before = await store.read([ALL_TIME, WEEK], [1, 4])
        halting = Store(store_url)
        await halting.adopt()
        halting.partition("").writing._apply = Script(HALTING.format(writes=writes) + resources.script("apply"))
        try:
            await halting.apply({ALL_TIME: new, WEEK: new}, profiles)
            break
        except StoreUnavailable:
            pass
        finally:
            await halting.aclose()
        stopped = await store.read([ALL_TIME, WEEK], [1, 4])
        for board, was, top in zip((ALL_TIME, WEEK), before.tops, stopped.tops, strict=True):
            shown = was.scores != top.scores or before.names != stopped.names
            assert top.version > was.version or not shown, f"{writes}: two things under one version of {board.id}"
            held = await Audit(store).held(board, [1, 2, 4])
            for row, (version, score, *_) in zip(new, held, strict=True):
                assert version != b"%d" % row.version or score == row.score, f"{writes}: a version before its score"
        await store.apply({ALL_TIME: new, WEEK: new}, profiles)
        told = await store.read([ALL_TIME, WEEK], [1, 4])
        for was, top in zip(stopped.tops, told.tops, strict=True):
            assert top.scores == whole and (top.version > was.version or was.scores == whole), writes
        assert told.names == {1: "renamed", 4: "newcomer"}
        await keys.delete(*[key for key in await everything(keys) if key not in (EPOCH_KEY, RUN_KEY)])
    assert writes > 10, "it was stopped between all of its writes"


# Reading ---------------------------------------------------------------------------------------------------------


async def test_a_reading_is_of_one_moment_whatever_is_written_meanwhile(store: Store, store_url: str) -> None:
    """Score, name and version are written together as one number: a torn reading would show two."""
    writer = Store(store_url)
    await writer.adopt()
    await store.apply({ALL_TIME: [Row(7, 1, 1)], WEEK: [Row(7, 1, 1)]}, [Profile(7, 1, "1")])

    async def write() -> None:
        for number in range(2, 150):
            row = Row(7, number, number)
            await writer.apply({ALL_TIME: [row], WEEK: [row]}, [Profile(7, number, str(number))])

    writing = asyncio.ensure_future(write())
    seen = set()
    while not writing.done():
        # Long enough that the store takes it in by several pieces.
        reading = await store.read([ALL_TIME, WEEK], [*range(10_000, 11_000), 7])
        numbers = {reading.users_version + 1, int(reading.names[7])}
        for top in reading.tops:
            numbers |= {top.version, top.scores[7]}
        assert len(numbers) == 1, reading
        seen |= numbers
    await writing
    await writer.aclose()
    assert len(seen) > 5, "reader and writer did meet"


async def test_what_is_missing_reads_as_empty(store: Store) -> None:
    reading = await store.read([ALL_TIME, WEEK], [1, 2])
    assert reading.epoch == store.epoch
    assert reading.users_version == 0 and reading.names == {}
    assert [(top.version, top.scores) for top in reading.tops] == [(0, {}), (0, {})]
    page = await store.page(ALL_TIME, 0, 100)
    assert (page.players, page.first_rank, page.scores) == (0, 1, {})


async def test_a_board_shows_a_hundred_and_not_one_more(store: Store) -> None:
    await fill(store, 150)
    (top,) = (await store.read([ALL_TIME])).tops
    assert list(top.scores) == list(range(150, 50, -1))


@pytest.mark.parametrize("sign", [1, -1])
async def test_a_page_knows_the_rank_of_its_first_row_also_within_a_tie(store: Store, sign: int) -> None:
    scores = {1: 50, 2: 40, 3: 40, 4: 40, 5: 30, 6: 2**53 * sign}
    await store.apply({ALL_TIME: [Row(user_id, 1, score) for user_id, score in scores.items()]})
    ordered = list(in_order(scores.items()).items())
    for offset in range(7):
        page = await store.page(ALL_TIME, offset, 2)
        assert list(page.scores.items()) == ordered[offset : offset + 2]
        assert page.players == 6
        if page.scores:
            first = next(iter(page.scores.values()))
            assert page.first_rank == 1 + sum(score > first for score in scores.values())


@pytest.mark.parametrize(
    "spoil",
    [
        ("set", scores_key(ALL_TIME), "no set"),
        ("zadd", scores_key(ALL_TIME), {"no number": 5}),
        ("zadd", scores_key(ALL_TIME), {"9" * 30: 5}),
        ("zadd", scores_key(ALL_TIME), {"7": float("inf")}),
        ("zadd", scores_key(ALL_TIME), {"7": 1e300}),  # a whole number, and none that any client could take
        ("zadd", scores_key(ALL_TIME), {"7": -1e300}),
        ("set", version_key(ALL_TIME), "no number"),
        ("set", user_key(7), "no hash"),
    ],
)
async def test_foreign_content_is_told_as_such_and_not_shown(store: Store, keys: Keys, spoil: tuple[Any, ...]) -> None:
    await fill(store, 10)
    command, *args = spoil
    if command == "set":
        await keys.delete(args[0])
    await getattr(keys, command)(*args)
    with pytest.raises(StoreUnavailable):
        await store.read([ALL_TIME], [7])


# Closed weeks' cache ---------------------------------------------------------------------------------------------


async def test_a_closed_weeks_cache_is_kept_by_version_and_read_with_the_names_version(
    store: Store, keys: Keys
) -> None:
    await fill(store, 1)
    assert await store.cached_week(WEEK) == (None, Position(store.epoch, 0))
    await store.cache_week(WEEK, 2, Position(store.epoch, 0), b'{"version":2,"users_version":0}')
    assert await store.cached_week(WEEK) == (b'{"version":2,"users_version":0}', Position(store.epoch, 0))
    await store.cache_week(WEEK, 1, Position(store.epoch, 0), b'{"version":1,"users_version":0}')
    assert (await store.cached_week(WEEK))[0] == b'{"version":2,"users_version":0}', "an older one is refused"
    await store.apply({ALL_TIME: []}, [Profile(1, 2, "renamed")])
    await store.cache_week(WEEK, 2, Position(store.epoch, 1), b'{"version":2,"users_version":1}')
    assert await store.cached_week(WEEK) == (b'{"version":2,"users_version":1}', Position(store.epoch, 1))
    await store.cache_week(WEEK, 2, Position(store.epoch, 0), b'{"version":2,"users_version":0}')
    assert (await store.cached_week(WEEK))[0] == b'{"version":2,"users_version":1}', "names from before are refused"


@pytest.mark.parametrize("there", ["nonsense", "[]", '{"version":"x"}', "\x00", '{"version":null,"users_version":1}'])
async def test_a_cache_that_is_no_such_json_is_replaced(store: Store, keys: Keys, there: str) -> None:
    await keys.set(cache_key(WEEK), there)
    await store.cache_week(WEEK, 1, Position(store.epoch, 0), b'{"version":1,"users_version":0}')
    assert await keys.get(cache_key(WEEK)) == '{"version":1,"users_version":0}'


async def test_a_cache_of_another_type_is_replaced(store: Store, keys: Keys) -> None:
    await keys.rpush(cache_key(WEEK), "foreign")
    assert await store.cached_week(WEEK) == (None, Position(store.epoch, 0))
    await store.cache_week(WEEK, 1, Position(store.epoch, 0), b'{"version":1,"users_version":0}')
    assert (await store.cached_week(WEEK))[0] == b'{"version":1,"users_version":0}'


async def test_names_from_a_store_before_this_one_are_not_kept(store: Store, keys: Keys) -> None:
    """Who read `version:users` before the content was made anew must not leave old names under a version to come."""
    await store.cache_week(WEEK, 3, Position(store.epoch, 7), b'{"version":3,"users_version":7}')
    assert await keys.get(cache_key(WEEK)) is None
    await store.cache_week(WEEK, 3, Position("before-1", 0), b'{"version":3,"users_version":0}')
    assert await keys.get(cache_key(WEEK)) is None, "nor where the counter has got there again"
    await store.cache_week(WEEK, 3, Position(store.epoch, 0), b'{"version":3,"users_version":0}')
    assert await keys.get(cache_key(WEEK)) == '{"version":3,"users_version":0}'


# Rebuilding ------------------------------------------------------------------------------------------------------


@pytest.mark.one_store
async def test_a_later_rebuild_fences_an_earlier_one_out(store: Store, keys: Keys) -> None:
    run = str(store.run)
    assert await Filling(store.link).begin(run, f"{run[:8]}-9")
    assert not await Filling(store.link).begin(run, f"{run[:8]}-9"), "the same number cannot begin twice"
    assert await Filling(store.link).begin(run, f"{run[:8]}-a"), "ten, in base 36"
    assert not await Filling(store.link).begin(run, f"{run[:8]}-9")
    assert not await Filling(store.link).end(run, f"{run[:8]}-9", ["all_time"]), "it no longer fills"
    assert await keys.get(EPOCH_KEY) == f"filling:{run[:8]}-a"
    async with hearing(keys) as heard:
        assert await Filling(store.link).end(run, f"{run[:8]}-a", ["all_time", "users"])
        assert [name for name, _ in await heard.take()] == ["all_time", "users"]
    assert await keys.mget(EPOCH_KEY, RUN_KEY) == [f"{run[:8]}-a", run]
    assert not await Filling(store.link).begin(run, f"{run[:8]}-9"), "also after the later one has ended"


@pytest.mark.parametrize("there", ["someoneelse-zz", "nonsense", "filling:", "-", ""])
async def test_an_epoch_of_anybody_else_is_no_fence(store: Store, keys: Keys, there: str) -> None:
    await keys.set(EPOCH_KEY, there)
    assert await Filling(store.link).begin(str(store.run), f"{str(store.run)[:8]}-2")


@pytest.mark.parametrize("kind", ["list", "hash", "zset"])
async def test_an_epoch_of_another_type_does_not_stop_a_rebuild(store: Store, keys: Keys, kind: str) -> None:
    await keys.delete(EPOCH_KEY)
    if kind == "list":
        await keys.rpush(EPOCH_KEY, "foreign")
    elif kind == "hash":
        await keys.hset(EPOCH_KEY, "a", "foreign")
    else:
        await keys.zadd(EPOCH_KEY, {"a": 1})
    with pytest.raises(StoreChanged):
        await store.apply({ALL_TIME: [Row(7, 1, 10)]})
    await make_ours(store, 7)
    assert await store.apply({ALL_TIME: [Row(7, 1, 10)]}) == 1


@pytest.mark.one_store
async def test_clearing_leaves_the_epoch_and_the_counters_of_limits(store: Store, keys: Keys) -> None:
    await fill(store, 2_500)
    await keys.set("leaderboard:limit:address:10.0.0.1", 5, ex=60)
    await keys.set("somebody:elses", "key")
    run = str(store.run)
    await Filling(store.link).begin(run, f"{run[:8]}-3")
    await Filling(store.link).clear(f"{run[:8]}-3")
    assert await everything(keys) == {
        "leaderboard:epoch": f"filling:{run[:8]}-3",
        "leaderboard:limit:address:10.0.0.1": "5",
    }
    assert await keys.get("somebody:elses") == "key"
    await keys.delete("somebody:elses")


async def test_a_rebuild_that_was_overtaken_clears_nothing(store: Store, keys: Keys) -> None:
    """It hung while another took over: what that one has filled must stay."""
    run = str(store.run)
    await Filling(store.link).begin(run, f"{run[:8]}-3")
    await make_ours(store, 4)
    await fill(store, 10)
    with pytest.raises(StoreChanged):
        await Filling(store.link).clear(f"{run[:8]}-3")
    assert await keys.zcard(scores_key(ALL_TIME)) == 10


@pytest.mark.parametrize("ahead", [21 * 86_400.0, -21 * 86_400.0])
async def test_a_week_expires_when_it_is_due_by_the_stores_clock_and_by_the_ledgers(
    store: Store, keys: Keys, ahead: float
) -> None:
    store.link.timestamp = lambda: datetime.now(UTC).timestamp() - ahead
    await store.adopt()
    assert store.link.ahead is not None and abs(store.link.ahead - ahead) < 5
    await store.apply({WEEK: [Row(7, 1, 10)]})
    seconds, _ = await keys.time()
    assert abs(seconds + await keys.ttl(scores_key(WEEK)) - expire_at(WEEK) - max(0, ahead)) <= 6


async def test_a_store_whose_clock_is_set_far_ahead_is_filled_anew_for_weeks_may_have_expired(store: Store) -> None:
    now = datetime.now(UTC).timestamp()
    store.link.timestamp = lambda: now
    await store.adopt()
    assert store.is_complete
    now -= 3_600
    await store.adopt()
    assert store.is_complete, "no week is due within days"
    now -= 9 * 86_400
    await store.adopt()
    assert (store.is_complete, store.distrusted, store.link.refused_for) == (False, store.epoch, "expired")


# Which store is this? --------------------------------------------------------------------------------------------


async def test_a_look_that_began_later_is_not_overruled_by_an_earlier_one(store: Store, keys: Keys) -> None:
    """Nobody is shown content of an older epoch after that of a newer one."""
    older, look = str(store.epoch), store.link.content
    newer = older.replace("-1", "-2")
    read, answered = asyncio.Event(), asyncio.Event()

    async def slowly() -> Content:
        content = await look()
        read.set()
        await answered.wait()
        return content

    store.link.content = slowly  # type: ignore[method-assign]
    early = asyncio.ensure_future(store.adopt())
    await read.wait()
    store.link.content = look  # type: ignore[method-assign]
    await keys.set(EPOCH_KEY, newer)
    late = asyncio.ensure_future(store.adopt())
    for _ in range(5):
        await keys.ping()  # the late one has had its chance
    answered.set()
    await asyncio.gather(early, late)
    assert store.epoch == newer


async def test_content_that_was_left_is_not_taken_for_current_even_once(store: Store, keys: Keys) -> None:
    """A balancer leads back to the store that it failed over from."""
    older = str(store.epoch)
    await keys.set(EPOCH_KEY, older.replace("-1", "-2"))
    await store.adopt()
    store.leave(older)
    assert store.is_complete
    await keys.set(EPOCH_KEY, older)
    await store.adopt()
    assert (store.is_complete, store.link.refused_for) == (False, "superseded")
    with pytest.raises(StoreUnavailable):
        await store.read([ALL_TIME])
    for number in range(1_000):
        store.leave(f"other-{number}")
    assert len(store.link._left) < 100


async def test_whoever_waits_behind_a_look_that_failed_is_told_the_same(store: Store) -> None:
    looks = 0

    async def fails() -> Content:
        nonlocal looks
        looks += 1
        await asyncio.sleep(0)
        raise StoreUnavailable("no answer")

    store.link.content = fails  # type: ignore[method-assign]
    told = await asyncio.gather(*(store.adopt() for _ in range(5)), return_exceptions=True)
    assert all(isinstance(error, StoreUnavailable) for error in told)
    assert looks == 1, "nobody waits for a time-out twice"


async def test_a_restarted_store_is_refused_until_its_content_is_verified(private_store: PrivateStore) -> None:
    store = Store(private_store.url)
    try:
        await make_ours(store)
        await fill(store, 3)
        run = store.run
        await asyncio.to_thread(private_store.restart)
        for _ in range(3):
            with pytest.raises(StoreUnavailable):
                await store.read([ALL_TIME])
        content = await store.adopt()
        assert content.run != run
        assert content.content_run == run, "the content is there, and of another run: perhaps older than we know"
        assert not content.is_ours and not content.is_complete
        with pytest.raises(StoreChanged):
            await store.read([ALL_TIME])
        with pytest.raises(StoreUnavailable):
            await store.apply({ALL_TIME: [Row(1, 2, 5)]})
    finally:
        await store.aclose()


async def test_an_empty_store_in_its_place_is_noticed_by_every_new_connection(private_store: PrivateStore) -> None:
    store = Store(private_store.url)
    try:
        await make_ours(store)
        await asyncio.to_thread(private_store.replace_by_empty)
        with pytest.raises(StoreUnavailable):
            await store.read([ALL_TIME])
        with pytest.raises(StoreChanged):
            await store.read([ALL_TIME])
        content = await store.adopt()
        assert (content.content_run, content.epoch) == (None, None)
        assert not store.is_complete
    finally:
        await store.aclose()


async def test_a_store_that_hangs_costs_one_time_out_and_no_more(private_store: PrivateStore) -> None:
    store = Store(private_store.url, timeout=0.2)
    try:
        await make_ours(store)
        os.kill(private_store.running.pid, signal.SIGSTOP)
        try:
            began = asyncio.get_running_loop().time()
            for call in (store.read([ALL_TIME]), store.apply({ALL_TIME: [Row(1, 1, 5)]}), store.content()):
                with pytest.raises(StoreUnavailable):
                    await call
            assert asyncio.get_running_loop().time() - began < 3.0
        finally:
            os.kill(private_store.running.pid, signal.SIGCONT)
        await store.adopt()
        assert (await store.read([ALL_TIME])).epoch == store.epoch
    finally:
        await store.aclose()


async def test_announcements_are_heard_from_the_moment_the_block_is_entered(store: Store, store_url: str) -> None:
    other = Store(store_url)
    await other.adopt()
    async with Announcements(store.link).hearing() as heard:
        await other.apply({ALL_TIME: [Row(1, 1, 5)]}, [Profile(1, 1, "a")])
        await other.apply({ALL_TIME: []}, [Profile(1, 2, "b")])
        said = [(await anext(heard)).board for _ in range(3)]
    assert said[0] == "all_time"
    assert sorted(map(str, said[1:])) == ["None", "all_time"], "names, and the board that shows them"
    await other.aclose()


async def test_a_broken_subscription_is_told(private_store: PrivateStore) -> None:
    store = Store(private_store.url, timeout=0.3)
    try:
        await make_ours(store)
        with pytest.raises(StoreUnavailable):
            async with Announcements(store.link).hearing() as heard:
                await asyncio.to_thread(private_store.kill)
                await anext(heard)
    finally:
        await store.aclose()
        await asyncio.to_thread(private_store.start)


async def test_a_half_open_subscription_is_found(private_store: PrivateStore) -> None:
    store = Store(private_store.url, timeout=0.2)
    try:
        await make_ours(store)
        with pytest.raises(StoreUnavailable):
            async with Announcements(store.link).hearing() as heard:
                os.kill(private_store.running.pid, signal.SIGSTOP)
                async with asyncio.timeout(PATIENCE):
                    await anext(heard)
    finally:
        os.kill(private_store.running.pid, signal.SIGCONT)
        await store.aclose()


# Fit to be used? -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl", "allkeys-random"])
async def test_a_store_that_may_evict_is_refused(private_store: PrivateStore, policy: str) -> None:
    store = Store(private_store.url)
    async with redis.asyncio.Redis.from_url(private_store.url) as keys:
        check_fitness(await store.info())
        await keys.config_set("maxmemory-policy", policy)
        with pytest.raises(StartupError, match="noeviction"):
            check_fitness(await store.info())
    await store.aclose()


@pytest.mark.parametrize(
    ("info", "says"),
    [
        ({"cache_mode": "cache"}, "cache_mode"),
        ({"role": "slave"}, "replica"),
        ({"role": "replica"}, "replica"),
    ],
)
def test_a_cache_or_a_replica_is_refused(info: dict[str, str], says: str) -> None:
    version = {"redis_version": "7.0.15"}
    with pytest.raises(StartupError, match=says):
        check_fitness(version | info)
    check_fitness(version | {"role": "master", "maxmemory_policy": "noeviction", "cache_mode": "store"})


async def test_a_store_that_becomes_another_version_is_refused_from_its_next_look_on(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The versions that are supported change here, for no store changes its own while a test looks."""
    check_fitness(await store.info())
    nobody = {name: one._replace(least=(99,), beyond=(100,)) for name, one in engines.SUPPORTED.items()}
    monkeypatch.setattr(engines, "SUPPORTED", nobody)
    with pytest.raises(StartupError, match=r"not supported: Redis 6\.2 to 8, .* are\. Point DRAGONFLY_URL"):
        check_fitness(await store.info())
    with pytest.raises(StoreUnfit, match="which is not supported"):
        await store.adopt()
    assert store.link.refused_for == "unfit"
    with pytest.raises(StoreUnavailable, match="which is not supported"):
        await store.versions([ALL_TIME])
    monkeypatch.undo()
    await store.adopt()
    assert store.link.refused_for is None
