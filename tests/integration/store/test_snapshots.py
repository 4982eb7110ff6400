"""Snapshots: a pure function of epoch, board and version, names included, in every process."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from realtime.boards.board import ALL_TIME, week_of
from realtime.boards.standings import Profile, Row
from realtime.errors import ForeignContent, StoreChanged, StoreUnavailable
from realtime.store.filling import Filling
from realtime.store.snapshots import BOARDS_A_READING, SnapshotReader
from realtime.store.store import Store
from tests.support.keys import EPOCH_KEY, RUN_KEY, user_key, version_key
from tests.support.stores import make_ours, week_ahead

WEEK = week_ahead()


@pytest.fixture
def reader(store: Store) -> SnapshotReader:
    return SnapshotReader(store)


async def test_a_snapshot_is_the_top_with_its_names(store: Store, reader: SnapshotReader) -> None:
    await store.apply(
        {ALL_TIME: [Row(7, 1, 5), Row(8, 1, 9)], WEEK: [Row(7, 1, 5)]}, [Profile(7, 1, "Ω"), Profile(8, 1, "b")]
    )
    found = await reader.read([ALL_TIME, WEEK])
    assert [tuple(entry) for entry in found[ALL_TIME].entries] == [(8, "b", 9), (7, "Ω", 5)]
    assert [tuple(entry) for entry in found[WEEK].entries] == [(7, "Ω", 5)]
    assert (found[ALL_TIME].epoch, found[ALL_TIME].version, found[ALL_TIME].board) == (store.epoch, 1, "all_time")


async def test_an_empty_board_is_a_board(reader: SnapshotReader) -> None:
    found = await reader.read([WEEK])
    assert (found[WEEK].version, found[WEEK].entries) == (0, [])


@pytest.mark.one_store
async def test_names_that_are_known_are_not_asked_for_again(store: Store, reader: SnapshotReader, keys: Redis) -> None:
    await store.apply(
        {ALL_TIME: [Row(i, 1, i) for i in range(1, 101)]}, [Profile(i, 1, f"p{i}") for i in range(1, 101)]
    )
    await reader.read([ALL_TIME])

    async def asked() -> int:
        return int((await keys.info("commandstats")).get("cmdstat_hget", {"calls": 0})["calls"])

    before = await asked()
    for version in range(2, 6):
        await store.apply({ALL_TIME: [Row(50, version, 1000 + version)]})
        await reader.read([ALL_TIME], range(1, 101))
    assert await asked() == before
    await store.apply({ALL_TIME: [Row(101, 1, 2000)]}, [Profile(101, 1, "new")])
    found = await reader.read([ALL_TIME], range(1, 101))
    assert found[ALL_TIME].names[101] == "new"
    assert await asked() == before + 1, "the newcomer's alone"
    await store.apply({ALL_TIME: []}, [Profile(50, 2, "renamed")])
    assert (await reader.read([ALL_TIME], range(1, 101)))[ALL_TIME].names[50] == "renamed"


async def test_the_same_version_shows_the_same_names_in_every_process(store: Store, store_url: str) -> None:
    """While scores and names change as fast as they can."""
    other = Store(store_url)
    await other.adopt()
    readers = [SnapshotReader(store), SnapshotReader(other)]
    await store.apply({ALL_TIME: [Row(i, 1, i) for i in range(1, 8)]}, [Profile(i, 1, f"p{i}") for i in range(1, 8)])
    seen: dict[tuple[str, int], Any] = {}
    done = asyncio.Event()

    async def write() -> None:
        for number in range(2, 250):
            user = 1 + number % 7
            await other.apply(
                {ALL_TIME: [Row(user, number, number)] if number % 2 else []}, [Profile(user, number, f"n{number}")]
            )
            if number % 5 == 0:
                await other.apply({ALL_TIME: [Row(100 + number, 1, number)]}, [Profile(100 + number, 1, "new")])
        done.set()

    async def watch(reader: SnapshotReader) -> int:
        readings = 0
        while not done.is_set():
            try:
                snapshot = (await reader.read([ALL_TIME]))[ALL_TIME]
            except StoreUnavailable:
                continue  # names moved faster than they could be read: said, and not shown
            readings += 1
            shown = seen.setdefault((snapshot.epoch, snapshot.version), snapshot)
            assert snapshot.entries == shown.entries
        return readings

    _, *readings = await asyncio.gather(write(), *(watch(reader) for reader in readers))
    await other.aclose()
    assert min(readings) > 5 and len(seen) > 5


async def test_a_player_whose_name_is_lost_keeps_a_place_until_it_is_back(
    store: Store, reader: SnapshotReader, keys: Redis
) -> None:
    await store.apply({ALL_TIME: [Row(7, 1, 5)]}, [Profile(7, 1, "a")])
    await keys.delete(user_key(7))
    assert (await reader.read([ALL_TIME]))[ALL_TIME].names == {7: "#7"}
    await store.apply({ALL_TIME: [Row(7, 1, 5)]}, [Profile(7, 1, "a")])
    found = (await reader.read([ALL_TIME]))[ALL_TIME]
    assert found.names == {7: "a"}
    assert found.version == 2, "who shows the placeholder hears of it"


async def test_content_that_is_made_anew_is_adopted_and_nothing_of_before_is_shown(
    store: Store, reader: SnapshotReader, store_url: str
) -> None:
    await store.apply({ALL_TIME: [Row(7, 1, 5)]}, [Profile(7, 1, "before")])
    assert (await reader.read([ALL_TIME]))[ALL_TIME].names == {7: "before"}
    other = Store(store_url)
    await other.adopt()
    run = str(other.run)
    await Filling(other.link).begin(run, f"{run[:8]}-2")
    with pytest.raises(StoreChanged):
        await reader.read([ALL_TIME])
    await Filling(other.link).clear(f"{run[:8]}-2")
    await other.adopt()
    await other.apply({ALL_TIME: [Row(7, 1, 6)]}, [Profile(7, 2, "after")])
    with pytest.raises(StoreChanged):
        await reader.page(ALL_TIME, 0, 10)
    await Filling(other.link).end(run, f"{run[:8]}-2", [])
    found = (await reader.read([ALL_TIME]))[ALL_TIME]
    assert (found.epoch, found.version, found.entries) == (f"{run[:8]}-2", 0, [(7, "after", 6)])
    await other.aclose()


@pytest.mark.parametrize("epoch", ["", "filling:other-1", "other-1", None])
async def test_content_that_is_not_ours_is_not_read(
    store: Store, reader: SnapshotReader, keys: Redis, epoch: str | None
) -> None:
    await store.apply({ALL_TIME: [Row(7, 1, 5)]}, [Profile(7, 1, "a")])
    await keys.delete(RUN_KEY)
    if epoch is None:
        await keys.delete(EPOCH_KEY)
    else:
        await keys.set(EPOCH_KEY, epoch)
    for _ in range(2):
        with pytest.raises(StoreChanged):
            await reader.read([ALL_TIME])


async def test_more_boards_than_one_reading_holds(store: Store, reader: SnapshotReader) -> None:
    weeks = [week_of(WEEK.starts.date() + timedelta(weeks=n)) for n in range(BOARDS_A_READING + 7)]
    for place, week in enumerate(weeks):
        await store.apply({week: [Row(7, 1, place)]}, [Profile(7, 1, "a")])
    found = await reader.read(weeks)
    assert [found[week].entries for week in weeks] == [[(7, "a", place)] for place in range(len(weeks))]


async def test_a_page_beyond_the_top_has_names_as_well(store: Store, reader: SnapshotReader) -> None:
    await store.apply(
        {ALL_TIME: [Row(i, 1, i) for i in range(1, 151)]}, [Profile(i, 1, f"p{i}") for i in range(1, 150)]
    )
    page, names = await reader.page(ALL_TIME, 148, 100)
    assert (page.players, page.first_rank, page.scores) == (150, 149, {2: 2, 1: 1})
    assert names == {2: "p2", 1: "p1"}
    _, names = await reader.page(ALL_TIME, 0, 1)
    assert names == {150: "#150"}


async def test_a_rebuild_by_somebody_else_is_followed(store: Store, reader: SnapshotReader, store_url: str) -> None:
    other = Store(store_url)
    try:
        await make_ours(other, 9)
        assert (await reader.read([ALL_TIME]))[ALL_TIME].epoch == other.epoch
        assert store.epoch == other.epoch
    finally:
        await other.aclose()


# Going back ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["read", "page", "around"])
async def test_content_that_went_back_within_its_epoch_is_refused_however_it_is_read(
    store: Store, reader: SnapshotReader, keys: Redis, how: str
) -> None:
    for version in (1, 2):
        await store.apply({ALL_TIME: [Row(7, version, version)]}, [Profile(7, 1, "a")])
    await reader.page(ALL_TIME, 0, 10)
    await keys.set(version_key(ALL_TIME), 1)
    readings = {
        "read": lambda: reader.read([ALL_TIME]),
        "page": lambda: reader.page(ALL_TIME, 0, 10),
        "around": lambda: reader.around(ALL_TIME, 7, 1),
    }
    with pytest.raises(ForeignContent, match="all_time went back from version 2 to 1"):
        await readings[how]()
    assert store.distrusted == store.epoch
    with pytest.raises(StoreUnavailable, match="cannot be ours"):
        await reader.read([ALL_TIME])


async def test_readings_that_overtake_each_other_do_not_go_back(
    store: Store, reader: SnapshotReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.apply({ALL_TIME: [Row(7, 1, 1)]}, [Profile(7, 1, "a")])
    original, answered, go_on = store.page, asyncio.Event(), asyncio.Event()

    async def slow(*args: Any) -> Any:
        page = await original(*args)
        answered.set()
        await go_on.wait()
        return page

    monkeypatch.setattr(store, "page", slow)
    overtaken = asyncio.ensure_future(reader.page(ALL_TIME, 0, 10))
    await answered.wait()
    await store.apply({ALL_TIME: [Row(7, 2, 2)]})
    assert (await reader.read([ALL_TIME]))[ALL_TIME].version == 2
    go_on.set()
    page, _ = await overtaken
    assert page.version == 1 and store.distrusted is None
    assert (await reader.read([ALL_TIME]))[ALL_TIME].version == 2


@pytest.mark.parametrize("what", ["page", "around"])
async def test_a_page_s_names_are_of_the_same_moment_as_its_scores(
    store: Store, reader: SnapshotReader, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Somebody is renamed just when the scores were read: no later name under the version before."""
    await store.apply({ALL_TIME: [Row(7, 1, 5)]}, [Profile(7, 1, "before")])
    (board_before,) = (await store.versions([ALL_TIME])).boards.values()
    read = getattr(store, what)
    left = 2

    async def overtaken(*args: Any) -> Any:
        nonlocal left
        found = await read(*args)
        if left:
            left -= 1
            await store.apply({ALL_TIME: []}, [Profile(7, 4 - left, f"after {2 - left}")])
        return found

    monkeypatch.setattr(store, what, overtaken)
    found, names = await (reader.page(ALL_TIME, 0, 10) if what == "page" else reader.around(ALL_TIME, 7, 3))
    assert found.version - board_before == {"before": 0, "after 1": 1, "after 2": 2}[names[7]]
