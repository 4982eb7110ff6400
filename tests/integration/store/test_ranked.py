"""Boards of any order in contents of their own: they are what a plain sort says, and keys are where people look."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis.asyncio
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from realtime import resources
from realtime.boards.board import ALL_TIME, TOP, Board, board_in
from realtime.boards.definitions import Definition
from realtime.boards.leaderboard import DEFAULT, Leaderboard
from realtime.boards.making import in_the_making
from realtime.boards.standings import At, Position, Profile, Row, in_order
from realtime.boards.windows import ALWAYS, Window
from realtime.errors import DefinitionMoved, EpochMoved, PartlyTold, StoreUnavailable
from realtime.repair.rebuild import epoch_name
from realtime.store.audit import Audit
from realtime.store.filling import Filling
from realtime.store.pool import Script
from realtime.store.snapshots import SnapshotReader
from realtime.store.store import Store
from tests.support.stores import make_ours, primary_url

pytestmark = pytest.mark.every_store

Keys = redis.asyncio.Redis

on_fixtures = hypothesis_settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

SCRIPTS = Path(resources.__file__).parent / "store" / "scripts"

ORDERS = [(order, ties) for order in ("descending", "ascending") for ties in ("user_id", "first", "last")]

FIRST_MOMENT = 1_764_500_000_000_000


def leaderboard(slug: str = "sprint", partition: str = "p07", rule: int | None = 5, **fields: Any) -> Leaderboard:
    return Leaderboard(slug, Definition(slug, slug.title(), **fields), 2, rule, 2, slug, partition)


async def fill_next(store: Store, made: Leaderboard, rows: dict[Board, list[Row]]) -> str | None:
    """Writes rows of the standings that are being made; returns the epoch of the content that has them."""
    epoch = store.partition(made.partition).link.epoch
    await store.apply({in_the_making(board, made): of for board, of in rows.items()}, epoch=epoch)
    return epoch


def board_of(of: Leaderboard, window: Window = ALWAYS) -> Board:
    return board_in(of, window._replace(key=window.key or 1))


def day_ahead() -> Window:
    """A day in the year after next: its keys do not expire while a test runs."""
    starts = datetime(datetime.now(UTC).year + 2, 1, 7, 23, tzinfo=UTC)
    return Window("day", f"day_of_{starts.year}_01_08", starts, starts + timedelta(days=1), 7)


async def content(store: Store, *of: Leaderboard, number: int = 1) -> str:
    """Marks a partition's content as complete, with the boards of these leaderboards; gives its epoch."""
    link = store.link_of(of[0].partition)
    filling, run = Filling(link), (await link.content()).run
    epoch = epoch_name(run, number)
    assert await filling.begin(run, epoch)
    await link.adopt()
    await filling.define(epoch, {one.slug: one.rule for one in of if one.rule is not None})
    assert await filling.end(run, epoch, [])
    await link.adopt()
    return epoch


class Model:
    """A board in plain Python: the newest row of each user, sorted."""

    def __init__(self, of: Leaderboard) -> None:
        self.order = of.order
        self.rows: dict[int, Row] = {}

    def take(self, rows: Sequence[Row]) -> None:
        for row in rows:
            known = self.rows.get(row.user_id)
            if known is None or row.version >= known.version:
                self.rows[row.user_id] = row

    @property
    def placed(self) -> list[Row]:
        rows = {user_id: row for user_id, row in self.rows.items() if row.score is not None}
        at = {user_id: self.order.stands(row.at) for user_id, row in rows.items() if row.at is not None}
        scores = in_order([(user_id, row.score or 0) for user_id, row in rows.items()], self.order, at)
        return [rows[user_id] for user_id in scores]

    @property
    def top(self) -> list[tuple[int, int | None, At | None, str | None]]:
        return [(row.user_id, row.score, row.at, row.metadata) for row in self.placed[:TOP]]

    def better(self, score: int) -> list[int]:
        scores = [row.score for row in self.placed if row.score is not None]
        return [other for other in scores if (other < score if self.order.ascending else other > score)]

    def rank(self, row: Row) -> int:
        assert row.score is not None
        place = self.placed.index(row)
        better = self.better(row.score)
        if self.order.ranks == "ordinal":
            return place + 1
        return len(set(better)) + 1 if self.order.ranks == "dense" and place < TOP else len(better) + 1

    def to_next(self, row: Row) -> int | None:
        assert row.score is not None
        gaps = [abs(other - row.score) for other in self.better(row.score)]
        return min(gaps) if gaps else None


def shown_by(of: Leaderboard, top: Any) -> list[tuple[int, int, At | None, str | None]]:
    """A top that was read, as the model says it."""
    sign = -1 if of.order.ties == "last" else 1
    return [
        (
            user_id,
            score,
            (sign * top.at[user_id][0], sign * top.at[user_id][1]) if of.order.by_time else None,
            top.metadata[user_id] if top.metadata is not None else None,
        )
        for user_id, score in top.scores.items()
    ]


small = st.builds(
    Row,
    st.integers(1, 12),
    st.integers(1, 6),
    st.none() | st.integers(-3, 3) | st.sampled_from([2**53 - 1, 2**53 - 2, -(2**53) + 1]),
)


def dated(rows: Sequence[Row], of: Leaderboard) -> list[Row]:
    """Rows with what goes with their user and version: the same always goes with the same."""
    found = []
    for row in rows:
        at = (FIRST_MOMENT + (row.user_id * 7 + row.version) % 4, 100 + (row.user_id * 13 + row.version * 5) % 97)
        described = json.dumps({"car": row.version}) if (row.user_id + row.version) % 3 else None
        by_time = of.order.by_time and row.score is not None
        shows = of.definition.metadata and row.score is not None
        found.append(row._replace(at=at if by_time else None, metadata=described if shows else None))
    return found


def unambiguous(rows: Sequence[Row]) -> list[Row]:
    """One row of each user and version: the ledger never says two things under one version at one time."""
    return list({(row.user_id, row.version): row for row in rows}.values())


@pytest.mark.parametrize("ranks", ["competition", "dense", "ordinal"])
@pytest.mark.parametrize("order, ties", ORDERS)
@given(st.lists(small, max_size=60).map(unambiguous), st.integers(0, 2**32))
@on_fixtures
async def test_whatever_arrives_in_whatever_order_a_board_is_what_a_sort_says(
    store: Store, keys: Keys, order: str, ties: str, ranks: str, rows: list[Row], seed: int
) -> None:
    await keys.flushall()
    of = leaderboard(order=order, ties=ties, ranks=ranks, metadata=ranks == "dense")
    board, model, told, chance = board_of(of), Model(of), dated(rows, of), random.Random(seed)
    await content(store, of)
    chance.shuffle(told)
    while told:
        # At most one row of a user in a call: what a call is told was read at one moment.
        part = list({row.user_id: row for row in told[: chance.randint(1, 9)]}.values())
        told = [row for row in told if row not in part]
        before, was = (await store.read([board])).tops[0], model.top
        await store.apply({board: part}, [Profile(row.user_id, 1, f"p{row.user_id}") for row in part])
        model.take(part)
        (top,) = (await store.read([board])).tops
        assert shown_by(of, top) == model.top
        assert top.version == before.version or model.top != was or not before.scores
        assert top.version > before.version or model.top == was

    everybody = [*range(1, 13)]
    _, standings = await store.standings({board: everybody})
    for user_id, standing in zip(everybody, standings[board], strict=True):
        row = model.rows.get(user_id)
        assert standing.players == len(model.placed)
        if row is None or row.score is None:
            assert (standing.rank, standing.score, standing.to_next) == (None, None, None)
            continue
        assert (standing.rank, standing.score) == (model.rank(row), row.score)
        assert standing.to_next == model.to_next(row)
        around = await store.around(board, user_id, 2)
        place = model.placed.index(row)
        first = model.placed[max(0, place - 2)]
        assert list(around.scores) == [row.user_id for row in model.placed[max(0, place - 2) : place + 3]]
        assert (around.place, around.first_rank) == (max(0, place - 2), len(model.better(first.score or 0)) + 1)
        assert around.first_dense == (model.rank(first) if ranks == "dense" else None)
        following = None if around.next_score is None else abs(around.next_score - row.score)
        assert following == model.to_next(row)
    page = await store.page(board, 1, 3)
    assert [*page.scores.items()] == [(row.user_id, row.score) for row in model.placed[1:4]]
    if of.definition.metadata:
        assert page.metadata == {row.user_id: row.metadata for row in model.placed[1:4]}


@pytest.mark.parametrize("order, ties", ORDERS)
async def test_the_version_moves_where_the_first_hundred_change_and_nowhere_else(
    store: Store, order: str, ties: str
) -> None:
    """At the edge, where a hundred others have the score of the last one shown."""
    of = leaderboard(order=order, ties=ties)
    board, model = board_of(of), Model(of)
    await content(store, of)

    def row(user_id: int, version: int, score: int | None, moment: int) -> Row:
        at = (FIRST_MOMENT + moment, 1_000 + user_id) if of.order.by_time and score is not None else None
        return Row(user_id, version, score, at)

    better = 20 if order == "descending" else 5
    crowd = [row(user_id, 1, better if user_id <= 60 else 10, 3 * user_id) for user_id in range(1, 201)]
    await store.apply({board: crowd})
    model.take(crowd)
    moved = 0
    for step in range(300):
        user_id, version = 61 + step % 160, 2 + step
        told = [row(user_id, version, None if step % 7 == 6 else 10, 3 * ((step * 37) % 220) + 1)]
        before, was = (await store.versions([board])).boards[board], model.top
        await store.apply({board: told})
        model.take(told)
        after = (await store.versions([board])).boards[board]
        assert (after > before) == (model.top != was), f"{told}"
        moved += after > before
    assert 0 < moved < 300


# What people see in redis-cli ------------------------------------------------------------------------------------


async def expiry_of(keys: Keys, key: str) -> int:
    """The Unix time at which a key expires, in seconds."""
    seconds, micros = await keys.time()
    return round(seconds + micros / 1e6 + await keys.pttl(key) / 1e3)


async def everything(keys: Keys, pattern: str = "*") -> dict[str, Any]:
    """All that the store holds, by key."""
    found: dict[str, Any] = {}
    async for key in keys.scan_iter(pattern, 1_000):
        kind = await keys.type(key)
        if kind == "zset":
            found[key] = dict(await keys.zrange(key, 0, -1, withscores=True))
        elif kind == "hash":
            found[key] = await keys.hgetall(key)
        else:
            found[key] = await keys.get(key)
    return found


@pytest.mark.one_store
async def test_keys_begin_with_the_tag_of_their_partition(store: Store, keys: Keys) -> None:
    of = leaderboard(ties="first", metadata=True)
    board = board_of(of)
    epoch = await content(store, of)
    published = await everything(keys, "leaderboard:*")
    at = (FIRST_MOMENT, 42)
    digits = "8235499999999999" + "9999999999999957"
    assert int(digits[:16]) == 10**16 - 1 - FIRST_MOMENT
    await store.apply({board: [Row(7, 3, 62345, at, '{"car":"gt"}'), Row(8, 1, None)]}, [Profile(7, 1, "Ω <b>")])
    assert await everything(keys, "{*") == {
        "{p07}leaderboard:epoch": epoch,
        "{p07}leaderboard:run": store.run,
        "{p07}leaderboard:definition:sprint": "5",
        "{p07}leaderboard:user_scores:sprint:all_time": {digits + "7": 62345},
        "{p07}leaderboard:versions:sprint:all_time": {"7": f"3:{digits}", "8": "1"},
        "{p07}leaderboard:version:sprint:all_time": "1",
        "{p07}leaderboard:metadata:sprint:all_time": {"7": '{"car":"gt"}'},
        "{p07}leaderboard:users:7": {"user_id": "7", "username": "Ω <b>", "version": "1"},
    }
    assert await everything(keys, "leaderboard:*") == published


@pytest.mark.one_store
async def test_boards_of_the_published_leaderboard_and_those_of_it_lie_beside_the_published_ones(
    store: Store, keys: Keys
) -> None:
    """A batch of all of them is one script call, and each is announced on a channel of its own."""
    derived = Leaderboard("latest", Definition("latest", "Latest", of="default", operator="last"), 3, 9, 1, "default")
    extended = replace(DEFAULT, definition=replace(DEFAULT.definition, windows=("all_time", "week", "day")), rule=4)
    await keys.set("leaderboard:definition:latest", 9)
    await keys.set("leaderboard:definition:default", 4)
    day = board_in(extended, day_ahead())
    before = (await keys.info("commandstats"))["cmdstat_evalsha"]["calls"]
    async with hearing(keys, "leaderboard:changes*") as heard:
        await store.apply(
            {ALL_TIME: [Row(7, 1, 5)], board_of(derived): [Row(7, 1, 3)], day: [Row(7, 1, 2)]}, [Profile(7, 1, "a")]
        )
        position = {"epoch": store.epoch, "version": 1}
        assert await heard.take() == [
            ("leaderboard:changes:all_time", position),
            ("leaderboard:changes:latest:all_time", position),
            (f"leaderboard:changes:{day.id}", position),
        ]
    assert (await keys.info("commandstats"))["cmdstat_evalsha"]["calls"] <= before + 1
    assert await keys.zrange("leaderboard:user_scores:latest:all_time", 0, -1, withscores=True) == [("7", 3)]
    assert await keys.zrange(f"leaderboard:user_scores:{day.id}", 0, -1, withscores=True) == [("7", 2)]
    assert day.ends is not None
    assert await expiry_of(keys, f"leaderboard:user_scores:{day.id}") == int(day.ends.timestamp()) + 8 * 86_400


class Heard:
    """What is announced, from the moment the block is entered."""

    def __init__(self, keys: Keys, pubsub: Any) -> None:
        self._keys = keys
        self._pubsub = pubsub

    async def take(self) -> list[tuple[str, dict[str, Any]]]:
        """`(channel, payload)` of everything announced until now, in order."""
        await self._keys.publish("tests:marker", "")
        heard: list[tuple[str, dict[str, Any]]] = []
        while True:
            message = await self._pubsub.get_message(ignore_subscribe_messages=True, timeout=10)
            assert message is not None
            if message["channel"] == "tests:marker":
                return heard
            heard.append((message["channel"], json.loads(message["data"])))


@asynccontextmanager
async def hearing(keys: Keys, pattern: str) -> AsyncIterator[Heard]:
    async with keys.pubsub() as pubsub:
        await pubsub.psubscribe(pattern, "tests:marker")
        for _ in range(2):
            await pubsub.get_message(timeout=10)
        yield Heard(keys, pubsub)


@pytest.mark.one_store
async def test_a_partition_announces_its_boards_and_names_on_one_channel(store: Store, keys: Keys) -> None:
    """All boards of a batch in one message; what is heard of it is the same as of one message each."""
    of = leaderboard(windows=("all_time", "day"))
    board, day = board_of(of), board_in(of, day_ahead())
    epoch = await content(store, of)
    async with hearing(keys, "{p07}*") as heard:
        await store.apply({board: [Row(7, 1, 5)]}, [Profile(7, 1, "before")])
        await store.apply({board: [Row(7, 2, 6)], day: [Row(7, 1, 6)]}, [])
        await store.apply({board: []}, [])
        await store.apply({board: [Row(7, 2, 6)]}, [Profile(7, 2, "after")])
        await store.announce(board, 4)
        assert await heard.take() == [
            ("{p07}leaderboard:changes", {"boards": {"sprint:all_time": 1}, "epoch": epoch}),
            ("{p07}leaderboard:changes", {"boards": {"sprint:all_time": 2, day.id: 1}, "epoch": epoch}),
            ("{p07}leaderboard:changes", {"board": None, "epoch": epoch, "version": 1}),
            ("{p07}leaderboard:changes", {"boards": {"sprint:all_time": 3}, "epoch": epoch}),
            ("{p07}leaderboard:changes", {"board": "sprint:all_time", "epoch": "closed", "version": 4}),
        ]


@pytest.mark.parametrize("ties", ["user_id", "first"])
async def test_a_name_and_metadata_that_are_shown_move_the_version_and_those_below_the_top_do_not(
    store: Store, ties: str
) -> None:
    of = leaderboard(ties=ties, metadata=True)
    board = board_of(of)
    await content(store, of)
    rows = [Row(i, 1, 1_000 - i, (FIRST_MOMENT, i), '{"n":1}') for i in range(1, 121)]
    await store.apply({board: rows}, [Profile(i, 1, f"p{i}") for i in range(1, 121)])

    async def moves(*told: Row, names: Sequence[Profile] = ()) -> bool:
        before = (await store.versions([board])).boards[board]
        await store.apply({board: told}, names)
        return (await store.versions([board])).boards[board] > before

    assert not await moves(rows[110]._replace(version=2, metadata='{"n":2}'))
    assert await moves(rows[10]._replace(version=2, metadata='{"n":2}'))
    assert not await moves(rows[10]._replace(version=3, metadata='{"n":2}')), "nothing is shown otherwise"
    assert await moves(rows[10]._replace(version=4, metadata=None))
    assert not await moves(rows[10]._replace(version=3, metadata='{"n":9}')), "older than what is known"
    assert not await moves(rows[110]._replace(version=3), names=[Profile(111, 2, "renamed")])
    assert await moves(rows[10]._replace(version=5, metadata=None), names=[Profile(11, 2, "renamed")])
    (top,) = (await store.read([board])).tops
    assert top.metadata is not None and top.metadata[11] is None and top.metadata[1] == '{"n":1}'


# Contents of their own -------------------------------------------------------------------------------------------


def in_partition(number: int) -> Leaderboard:
    return leaderboard(f"cup-{number}", f"p{number:02}", rule=number)


@pytest.mark.one_store
async def test_each_partition_has_its_own_script_call_and_hears_of_its_own_players(store: Store, keys: Keys) -> None:
    first, second = in_partition(1), in_partition(2)
    await content(store, first)
    await content(store, second)
    told = await store.tell_each(
        {ALL_TIME: [Row(1, 1, 5)], board_of(first): [Row(2, 1, 6)], board_of(second): [Row(2, 1, 7), Row(3, 1, 8)]},
        [Profile(user_id, 1, f"p{user_id}") for user_id in (1, 2, 3, 4)],
    )
    assert told == {name: store.link_of(name).epoch for name in ("", "p01", "p02")}
    users = sorted([key async for key in keys.scan_iter("*leaderboard:users:*")])
    assert users == [
        "leaderboard:users:1",
        "leaderboard:users:4",
        "{p01}leaderboard:users:2",
        "{p02}leaderboard:users:2",
        "{p02}leaderboard:users:3",
    ]
    snapshots = await SnapshotReader(store).read([ALL_TIME, board_of(second), board_of(first)])
    assert [(s.board, s.epoch, s.entries) for s in snapshots.values()] == [
        ("all_time", store.epoch, [(1, "p1", 5)]),
        ("cup-2:all_time", store.link_of("p02").epoch, [(3, "p3", 8), (2, "p2", 7)]),
        ("cup-1:all_time", store.link_of("p01").epoch, [(2, "p2", 6)]),
    ]


@pytest.mark.one_store
async def test_what_becomes_of_one_partition_the_others_are_told(store: Store, keys: Keys) -> None:
    first, second = in_partition(1), in_partition(2)
    await content(store, first)
    await content(store, second)
    await keys.set("{p01}leaderboard:epoch", "lost")
    rows: Mapping[Board, Sequence[Row]] = {
        ALL_TIME: [Row(1, 1, 5)],
        board_of(first): [Row(1, 1, 5)],
        board_of(second): [Row(1, 1, 5)],
    }
    before = {name: store.link_of(name).epoch for name in ("", "p02")}
    with pytest.raises(PartlyTold) as partly:
        await store.tell_each(rows)
    assert (partly.value.told, partly.value.untold) == (before, ["p01"])
    assert isinstance(partly.value.__cause__, EpochMoved)
    with pytest.raises(EpochMoved):
        await store.tell_each({board_of(first): [Row(1, 1, 5)]})
    assert await keys.zcard("leaderboard:user_scores:all_time") == 1
    assert await keys.zcard("{p01}leaderboard:user_scores:cup-1:all_time") == 0
    assert await keys.zcard("{p02}leaderboard:user_scores:cup-2:all_time") == 1
    assert store.is_complete and not store.link_of("p01").is_complete and store.link_of("p02").is_complete


@pytest.mark.one_store
async def test_a_partition_without_a_leaderboard_costs_nothing(store: Store, keys: Keys) -> None:
    await store.apply({ALL_TIME: [Row(1, 1, 5)]})
    await store.read([ALL_TIME])
    assert store.partitions == [""]
    assert [key async for key in keys.scan_iter("{*")] == []


@pytest.mark.one_store
async def test_clearing_one_partition_leaves_all_others(store: Store, keys: Keys) -> None:
    first, second = in_partition(1), in_partition(2)
    await content(store, first)
    await content(store, second)
    rows = {board: [Row(1, 1, 5)] for board in (ALL_TIME, board_of(first), board_of(second))}
    await store.apply(rows, [Profile(1, 1, "p")])
    others = {**await everything(keys, "leaderboard:*"), **await everything(keys, "{p02}*")}
    filling, run = Filling(store.link_of("p01")), str(store.run)
    assert await filling.begin(run, epoch_name(run, 9))
    await filling.clear(epoch_name(run, 9))
    assert await everything(keys, "{p01}*") == {"{p01}leaderboard:epoch": "filling:" + epoch_name(run, 9)}
    assert {**await everything(keys, "leaderboard:*"), **await everything(keys, "{p02}*")} == others
    everything_published = Filling(store.link)
    assert await everything_published.begin(run, epoch_name(run, 9))
    await everything_published.clear(epoch_name(run, 9))
    assert await everything(keys, "{p02}*") == {k: v for k, v in others.items() if k.startswith("{p02}")}


# A leaderboard that is redefined ---------------------------------------------------------------------------------


async def test_who_knows_another_definition_writes_and_reads_nothing(store: Store, keys: Keys) -> None:
    of = leaderboard()
    older, board = leaderboard(rule=4), board_of(of)
    await content(store, of)
    await store.apply({board: [Row(1, 1, 5)]})
    before = await everything(keys)
    with pytest.raises(DefinitionMoved) as moved:
        await store.apply({board_of(older): [Row(1, 2, 9)]})
    assert (moved.value.slug, moved.value.rule) == ("sprint", "5")
    for reading in (
        store.read([board_of(older)]),
        store.page(board_of(older), 0, 10),
        store.around(board_of(older), 1, 1),
        store.standings({board_of(older): [1]}),
        SnapshotReader(store).read([board_of(older)]),
    ):
        with pytest.raises(DefinitionMoved):
            await reading
    assert await everything(keys) == before


async def test_who_tells_by_an_older_definition_learns_the_new_one_and_tells_anew(store: Store) -> None:
    of, older = leaderboard(order="ascending"), leaderboard(rule=4)
    await content(store, of)
    known = [older]

    async def renew() -> None:
        known.append(of)

    async def anew() -> tuple[Mapping[Board, Sequence[Row]], Sequence[Profile]]:
        return {board_of(known[-1]): [Row(1, 2, 3), Row(2, 1, 4)]}, []

    store.renew = renew
    await store.tell({board_of(older): [Row(1, 2, 9)]}, anew=anew)
    (top,) = (await store.read([board_of(of)])).tops
    assert [*top.scores.items()] == [(1, 3), (2, 4)]


async def test_other_content_that_lacks_the_definition_is_looked_at_first(store: Store) -> None:
    """Somebody else made the content anew, and a leaderboard was redefined besides."""
    of = leaderboard()
    await content(store, of)
    reader = SnapshotReader(store)
    await reader.read([board_of(of)])
    store.link_of("p07").epoch = "older-1"
    found = await reader.read([board_of(of)])
    assert found[board_of(of)].epoch == store.link_of("p07").epoch != "older-1"


@pytest.mark.one_store
async def test_a_switch_shows_what_was_filled_at_one_moment(store: Store, keys: Keys) -> None:
    of = leaderboard(windows=("all_time", "day"))
    day, gone = board_in(of, day_ahead()), board_in(of, day_ahead()._replace(name="week_of_2028_01_03", kind="week"))
    await content(store, of)
    await store.apply({board: [Row(1, 4, 50), Row(2, 1, 60)] for board in (board_of(of), day, gone)})
    made = replace(of, definition=replace(of.definition, order="ascending", ties="first", metadata=True), next_rule=6)
    rows = {
        board: [Row(1, 4, 7, (FIRST_MOMENT, 1), '{"a":1}'), Row(2, 1, 7, (FIRST_MOMENT, 2))]
        for board in (board_of(made), board_in(made, day_ahead()))
    }
    async with hearing(keys, "{p07}*") as heard:
        epoch = await fill_next(store, made, rows)
        assert await heard.take() == [], "nobody hears of what is being made"
        # Beside it a batch tells both, in one script.
        await store.apply({board_of(of): [Row(1, 5, 51)], in_the_making(board_of(made), made): [Row(3, 1, 9, (1, 1))]})
        assert [said["boards"] for _, said in await heard.take()] == [{"sprint:all_time": 2}]
        assert await store.switch(made, rows, [gone], epoch=epoch)
        assert [said["board"] for _, said in await heard.take()] == [board.id for board in (*rows, gone)]
    after = replace(made, rule=6, next_rule=None)
    tops = (await store.read([board_of(after), board_in(after, day_ahead())])).tops
    assert [list(top.scores.items()) for top in tops] == [[(1, 7), (2, 7), (3, 9)], [(1, 7), (2, 7)]]
    assert tops[0].version == 3 and tops[0].metadata == {1: '{"a":1}', 2: None, 3: None}
    assert not [key async for key in keys.scan_iter("*next:*")]
    assert await keys.zcard("{p07}leaderboard:user_scores:" + gone.id) == 0
    assert await keys.get("{p07}leaderboard:definition:sprint") == "6"
    assert day.ends is not None
    expiry = int(day.ends.timestamp()) + 8 * 86_400
    for what in ("user_scores", "versions", "metadata", "version"):
        assert await expiry_of(keys, f"{{p07}}leaderboard:{what}:{day.id}") == expiry, what
    assert not await store.switch(made, rows, [gone], epoch=epoch), "done already"
    with pytest.raises(DefinitionMoved):
        await store.apply({board_of(of): [Row(1, 6, 52)]})
    with pytest.raises(DefinitionMoved):
        await store.apply({in_the_making(board_of(made), made): [Row(1, 6, 52, (1, 1))]})


async def test_what_was_filled_into_other_content_is_not_switched_to(store: Store, keys: Keys) -> None:
    made = replace(leaderboard(), next_rule=6)
    board = board_of(made)
    await content(store, made)
    epoch = await fill_next(store, made, {board: [Row(1, 1, 5)]})
    await content(store, made, number=2)
    with pytest.raises(EpochMoved):
        await store.switch(made, [board], epoch=epoch)
    assert await keys.get("{p07}leaderboard:definition:sprint") == "5"


async def test_a_first_definition_has_no_boards_before_the_switch(store: Store, keys: Keys) -> None:
    made = replace(leaderboard(rule=None), next_rule=1)
    await content(store, made)
    epoch = await fill_next(store, made, {board_of(made): [Row(1, 1, 5)]})
    assert await store.switch(made, [board_of(made)], epoch=epoch)
    (top,) = (await store.read([board_of(replace(made, rule=1, next_rule=None))])).tops
    assert top.scores == {1: 5}


@pytest.mark.one_store
async def test_what_was_removed_or_given_up_is_dropped(store: Store, keys: Keys) -> None:
    made = replace(leaderboard(), next_rule=6)
    board = board_of(made)
    await content(store, made)
    await store.apply({board: [Row(1, 1, 5)]})
    await fill_next(store, made, {board: [Row(1, 1, 5)]})
    await store.discard(made, [board], beside=True)
    assert not [key async for key in keys.scan_iter("*next:*")]
    assert await keys.zcard("{p07}leaderboard:user_scores:sprint:all_time") == 1
    await store.discard(made, [board])
    assert sorted([key async for key in keys.scan_iter("{*")]) == ["{p07}leaderboard:epoch", "{p07}leaderboard:run"]


# Looking at single rows ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order, ties", [("ascending", "first"), ("descending", "last"), ("descending", "user_id")])
async def test_a_member_that_its_users_record_does_not_name_can_be_dropped_alone(
    store: Store, keys: Keys, order: str, ties: str
) -> None:
    of = leaderboard(order=order, ties=ties, metadata=True)
    board, audit = board_of(of), Audit(store)
    await content(store, of)
    await store.apply({board: [Row(7, 3, 5, (FIRST_MOMENT, 1), "{}"), Row(8, 2, 6, (FIRST_MOMENT, 2))]})
    scores = "{p07}leaderboard:user_scores:sprint:all_time"
    by_time = of.order.by_time
    (held,) = await audit.held(board, [7])
    assert (held.version, held.value, held.metadata, len(held.digits)) == (b"3", 5.0, b"{}", 32 if by_time else 0)
    leftover = "0" * 32 + "7" if by_time else "nonsense"
    await keys.zadd(scores, {leftover: 4})
    cursor, members = await audit.scan(board, 0, 100)
    assert len(members) == 3 and cursor == 1
    (found,) = await audit.held_members(board, [leftover.encode()])
    assert found.value == 4.0
    seen = b"3:" + held.digits if by_time else None
    await audit.forget(board, {leftover.encode(): b"another"})
    assert await keys.zcard(scores) == 3, "somebody was faster"
    await audit.forget(board, {leftover.encode(): seen}, kept=[leftover.encode()])
    assert await keys.zcard(scores) == 2 and await audit.held(board, [7]) == [held]
    (own,) = [member async for member, _ in keys.zscan_iter(scores) if member.endswith("7")]
    await audit.forget(board, {own.encode(): seen or b"3"}, [7])
    assert await keys.zcard(scores) == 1
    assert await keys.hkeys("{p07}leaderboard:versions:sprint:all_time") == ["8"]
    assert await keys.hkeys("{p07}leaderboard:metadata:sprint:all_time") == []


# The scripts -----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def only_these(keys: Keys, store_url: str, declared: Sequence[str]) -> AsyncIterator[Keys]:
    """A connection that may touch these keys and no others."""
    rights = ["reset", "on", ">narrow", "+@all", "allchannels", *(f"~{key}" for key in declared)]
    await keys.execute_command("ACL", "SETUSER", "narrow", *rights)
    place = urlsplit(primary_url(store_url))
    address = place._replace(netloc=f"narrow:narrow@{place.netloc.rpartition('@')[2]}").geturl()
    try:
        async with redis.asyncio.Redis.from_url(address, decode_responses=True) as narrow:
            yield narrow
    finally:
        await keys.execute_command("ACL", "DELUSER", "narrow")


@pytest.mark.one_store
async def test_scripts_name_every_key_that_they_touch_and_all_of_one_partition(
    store: Store, keys: Keys, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they are called: each call is made again by somebody who may touch what it declares, and nothing else."""
    of = leaderboard(order="ascending", ties="first", metadata=True, ranks="dense")
    board, link = board_of(of), store.link_of("p07")
    epoch = await content(store, of)
    calls: list[tuple[str, list[str], list[Any]]] = []
    exchange = link.checked.exchange

    async def noted(*commands: tuple[Any, ...]) -> list[Any]:
        for command in commands:
            if command[0] == "EVAL":
                calls.append((command[1], list(command[3 : 3 + command[2]]), list(command[3 + command[2] :])))
        return await exchange(*commands)

    monkeypatch.setattr(link.checked, "exchange", noted)
    monkeypatch.setattr(Script, "call", lambda self, names, args: ("EVAL", self.text, len(names), *names, *args))
    rows = [Row(i, 1, i, (FIRST_MOMENT, i), "{}") for i in range(1, 121)]
    made, audit = replace(of, next_rule=6), Audit(store)
    await store.apply({board: rows}, [Profile(i, 1, f"p{i}") for i in range(1, 4)])
    await store.read([board])
    await store.page(board, 3, 5)
    await store.around(board, 7, 2)
    await store.standings({board: [1, 2, 200]})
    await audit.held(board, [7])
    await audit.forget(board, {b"0" * 32 + b"99": b"x"}, [99])
    await store.cache_week(board, 3, Position(epoch, 0), b"{}")
    await fill_next(store, made, {board: rows})
    await store.switch(made, [board], epoch=epoch)
    await store.discard(made, [board])
    filling = Filling(link)
    assert await filling.begin(str(link.run), epoch_name(str(link.run), 2))
    await filling.define(epoch_name(str(link.run), 2), {"sprint": 5})
    await filling.clear(epoch_name(str(link.run), 2))
    assert await filling.end(str(link.run), epoch_name(str(link.run), 2), ["sprint:all_time", "users"])
    scripts = {resources.script(name.stem): name.stem for name in SCRIPTS.glob("*.lua")}
    assert {scripts[text] for text, _, _ in calls} == set(scripts.values()) - {"apply", "remember"}
    for text, declared, args in calls:
        assert {key.split("}")[0] for key in map(_as_text, declared)} == {"{p07"}, scripts[text]
        async with only_these(keys, store_url, [_as_text(key) for key in declared]) as narrow:
            await narrow.eval(text, len(declared), *declared, *args)  # or NOPERM


def _as_text(key: str | bytes) -> str:
    return key.decode() if isinstance(key, bytes) else key


HALTING = """
local server, left = redis, {writes}
local writing = {{INCR = 1, HSET = 1, HDEL = 1, ZADD = 1, ZREM = 1, EXPIREAT = 1, PUBLISH = 1}}
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
    store: Store, store_url: str
) -> None:
    of = leaderboard(ties="first", metadata=True)
    board, whole = board_of(of), Model(of)
    old = [Row(i, 1, 10 * i, (FIRST_MOMENT, i), '{"n":1}') for i in (1, 2, 3)]
    new = [
        Row(1, 2, 50, (FIRST_MOMENT, 11), '{"n":2}'),
        Row(2, 2, None),
        Row(3, 2, 30, (FIRST_MOMENT, 13), None),
        Row(4, 1, 40, (FIRST_MOMENT, 14), '{"n":4}'),
    ]
    whole.take(old)
    whole.take(new)
    for writes in range(100):
        filling, run = Filling(store.link_of("p07")), (await store.content()).run
        assert await filling.begin(run, epoch_name(run, 2 * writes + 2))
        await filling.clear(epoch_name(run, 2 * writes + 2))
        await content(store, of, number=2 * writes + 3)
        await store.apply({board: old}, [Profile(i, 1, f"p{i}") for i in (1, 2, 3)])
        (was,) = (await store.read([board])).tops
        halting = Store(store_url)
        await halting.link_of("p07").adopt()
        text = HALTING.format(writes=writes) + resources.script("apply_ranked")
        halting.partition("p07").writing._apply_ranked = Script(text)
        try:
            await halting.apply({board: new}, [Profile(4, 1, "p4")])
            break
        except StoreUnavailable:
            pass
        finally:
            await halting.aclose()
        key = "{p07}leaderboard:user_scores:sprint:all_time"
        shown = await store.link_of("p07").checked.ask("ZREVRANGE", key, 0, -1)
        moved = (await store.versions([board])).boards[board] > was.version
        assert moved or [int(member[32:]) for member in shown] == list(was.scores), "two things under one version"
        await store.apply({board: new}, [Profile(4, 1, "p4")])
        (top,) = (await store.read([board])).tops
        assert shown_by(of, top) == whole.top, writes
    assert writes > 4, "every write was the last once"


@pytest.mark.parametrize("ranks", ["competition", "dense", "ordinal"])
@pytest.mark.parametrize("order", ["descending", "ascending"])
async def test_ranks_beyond_the_top(store: Store, order: str, ranks: str) -> None:
    """Dense ones end with the top, wherever a tie goes on."""
    of = leaderboard(order=order, ranks=ranks, ties="last")
    board, model = board_of(of), Model(of)
    await content(store, of)
    rows = [Row(i, 1, i // 3 if i < 96 else 33 + i // 20, (FIRST_MOMENT + i * 7 % 50, i)) for i in range(1, 181)]
    await store.apply({board: rows})
    model.take(rows)
    _, found = await store.standings({board: list(range(1, 181))})
    for row, standing in zip(rows, found[board], strict=True):
        assert (standing.rank, standing.to_next) == (model.rank(row), model.to_next(row)), row
    for offset in (0, 40, 95, 99, 100, 150):
        page = await store.page(board, offset, 20)
        first = model.placed[offset]
        assert page.first_rank == len(model.better(first.score or 0)) + 1
        assert page.first_dense == (model.rank(first) if ranks == "dense" and offset < TOP else None)


async def test_every_content_is_made_ours_by_itself(store: Store) -> None:
    """Nothing here was marked by the fixture but the published content."""
    await make_ours(store, 2)
    assert not store.link_of("p07").is_complete
