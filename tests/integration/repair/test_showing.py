"""Showing: what was made in the ledger is what the store shows, at one moment, wherever it was broken off."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
import redis.asyncio

from realtime.boards.making import in_the_making
from realtime.boards.parsing import parse_definition
from realtime.boards.standings import Row
from realtime.errors import DefinitionMoved, StoreUnavailable
from realtime.ledger.builds import Builds, Retired
from realtime.ledger.definitions import Definitions
from realtime.ledger.leaderboards import Leaderboards
from realtime.ledger.ledger import Ledger
from realtime.ledger.ranked import RankedRows
from realtime.repair.building import Building
from realtime.repair.rebuild import epoch_name
from realtime.repair.showing import Showing
from realtime.store.filling import Filling
from realtime.store.store import Store
from tests.support.databases import MakeUsers

DAY = timedelta(days=1)


class World:
    """A ledger with definitions, a store whose partition is complete, and whoever builds."""

    def __init__(self, ledger: Ledger, store: Store, sql: asyncpg.Connection, keys: redis.asyncio.Redis) -> None:
        self.ledger, self.store, self.sql, self.keys = ledger, store, sql, keys
        self.definitions = Definitions(ledger)
        self.leaderboards = Leaderboards(ledger, self.definitions, partitions=16)
        self.builds = Builds(ledger)
        self.showing = self.another()
        self.building = Building(ledger, self.builds, self.showing)
        self.partition = self.leaderboards.partition_of("sprint")

    def another(self) -> Showing:
        rows = RankedRows(self.ledger)
        return Showing(self.builds, self.leaderboards, self.store, rows, self.ledger.clock.now)

    async def complete(self, number: int = 1) -> None:
        """The partition's content is complete, and empty but for what it has."""
        link = self.store.link_of(self.partition)
        filling = Filling(link)
        run = (await link.content()).run
        await filling.begin(run, epoch_name(run, number))
        await self.leaderboards.refresh()
        rules = {slug: one.rule for slug, one in self.leaderboards.current.leaderboards.items() if one.rule is not None}
        await filling.define(epoch_name(run, number), {s: r for s, r in rules.items() if s.startswith("sprint")})
        assert await filling.end(run, epoch_name(run, number), [])
        await self.store.partition(self.partition).adopt()

    async def define(self, slug: str, **fields: Any) -> None:
        await self.definitions.put(parse_definition(slug, fields), actor="test")

    async def send(self, *scores: tuple[int, int, datetime]) -> None:
        source = await self.sql.fetchval("SELECT id FROM leaderboards WHERE slug = 'sprint'")
        for user_id, score, at in scores:
            await self.sql.execute(
                "INSERT INTO score_transactions (source, user_id, submission_id, score, created_at)"
                " VALUES ($1, $2, gen_random_uuid(), $3, $4)", source, user_id, score, at
            )  # fmt: skip
            await self.sql.execute("INSERT INTO heads (source, user_id) VALUES ($1, $2) ON CONFLICT DO NOTHING",
                                   source, user_id)  # fmt: skip

    async def build(self) -> None:
        while await self.builds.waiting() or await self.builds.untold():
            await self.building.step()

    async def board(self, board: str) -> list[tuple[str, float]]:
        key = f"{{{self.partition}}}leaderboard:user_scores:{board}"
        return list(await self.keys.zrange(key, 0, -1, withscores=True))

    async def names(self) -> set[str]:
        return {str(key).split("}leaderboard:")[1] async for key in self.keys.scan_iter(f"{{{self.partition}}}*")}


@pytest.fixture
async def world(
    ledger: Ledger, store: Store, sql: asyncpg.Connection, keys: redis.asyncio.Redis
) -> AsyncIterator[World]:
    world = World(ledger, store, sql, keys)
    await world.complete()
    yield world


NOW = datetime.now(UTC)


async def test_a_new_leaderboard_is_shown_with_what_was_sent_and_who_it_was(
    world: World, make_users: MakeUsers
) -> None:
    one, other = await make_users(2)
    await world.define("sprint", operator="best", windows=["all_time", "day"])
    await world.send((one, 5, NOW), (one, 3, NOW), (other, 4, NOW - DAY))
    await world.build()
    assert await world.board("sprint:all_time") == [(str(other), 4), (str(one), 5)]
    today = NOW.strftime("day_of_%Y_%m_%d")
    assert await world.board(f"sprint:{today}") == [(str(one), 5)]
    assert await world.keys.hget(f"{{{world.partition}}}leaderboard:users:{other}", "username") == "player-2"
    rule = (await world.definitions.one("sprint")).rule
    assert await world.keys.get(f"{{{world.partition}}}leaderboard:definition:sprint") == str(rule)
    assert not [name for name in await world.names() if "next:" in name]
    assert world.leaderboards.current.leaderboards["sprint"].rule == rule, "this process knows at once"
    assert await world.builds.untold() == []


async def test_a_change_is_one_step_for_every_board(world: World, make_users: MakeUsers) -> None:
    (one,) = await make_users(1)
    await world.define("sprint", operator="best", windows=["all_time", "day"])
    await world.send((one, 5, NOW), (one, 3, NOW - DAY))
    await world.build()
    versions = f"{{{world.partition}}}leaderboard:version:sprint:all_time"
    before = int(await world.keys.get(versions))
    await world.define("sprint", operator="sum", windows=["all_time", "month"], ties="first", order="ascending")
    assert await world.board("sprint:all_time") == [(str(one), 5)], "until then it shows what it showed"
    await world.build()
    ((member, score),) = await world.board("sprint:all_time")
    assert (member[32:], score, member[:16]) == (str(one), 8, f"{int(NOW.timestamp() * 1e6):016}"[:16])
    assert int(await world.keys.get(versions)) == before + 1
    today = NOW.strftime("day_of_%Y_%m_%d")
    assert await world.board(f"sprint:{today}") == [], "a board that is no more is emptied"


async def test_whoever_died_between_the_ledger_and_the_store_is_caught_up_with(
    world: World, make_users: MakeUsers, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one,) = await make_users(1)
    await world.define("sprint", operator="best")
    await world.send((one, 5, NOW), (one, 3, NOW))
    await world.build()
    await world.define("sprint", operator="sum")

    async def away(*args: Any, **more: Any) -> bool:
        raise StoreUnavailable("killed")

    with monkeypatch.context() as broken:
        broken.setattr(world.store, "switch", away)
        with pytest.raises(StoreUnavailable):
            await world.building.step()
    assert await world.builds.untold() == ["sprint"]
    assert await world.showing.behind() == ["sprint"]
    # Content that was made anew meanwhile may have been begun before the ledger's word, with rows of the old rule.
    await world.build()
    assert await world.board("sprint:all_time") == [(str(one), 8)]
    assert await world.builds.untold() == []


async def test_content_that_is_made_anew_meanwhile_is_filled_once_more(
    world: World, make_users: MakeUsers, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one,) = await make_users(1)
    await world.define("sprint")
    await world.send((one, 5, NOW))
    apply, numbers = world.store.apply, iter([2])

    async def interrupted(*args: Any, **more: Any) -> int:
        applied = await apply(*args, **more)
        for number in numbers:
            await Filling(world.store.link_of(world.partition)).begin(
                world.store.run or "", epoch_name(world.store.run or "", number)
            )
            await Filling(world.store.link_of(world.partition)).clear(epoch_name(world.store.run or "", number))
            await world.complete(number + 1)
        return applied

    monkeypatch.setattr(world.store, "apply", interrupted)
    with pytest.raises(StoreUnavailable):
        await world.building.step()
    await world.build()
    assert await world.board("sprint:all_time") == [(str(one), 5)]


async def test_nothing_is_shown_while_content_is_being_made(world: World, make_users: MakeUsers) -> None:
    (one,) = await make_users(1)
    await world.define("sprint")
    await world.send((one, 5, NOW))
    link = world.store.link_of(world.partition)
    await Filling(link).begin(world.store.run or "", epoch_name(world.store.run or "", 2))
    with pytest.raises(StoreUnavailable, match="being made"):
        await world.building.step()
    assert (await world.definitions.one("sprint")).is_building


async def test_what_the_store_has_of_standings_that_are_no_more_is_dropped(world: World, make_users: MakeUsers) -> None:
    (one,) = await make_users(1)
    await world.define("sprint", operator="best", windows=["all_time", "day"])
    await world.send((one, 5, NOW))
    await world.build()
    # Broken off between filling and showing, and then replaced.
    await world.define("sprint", operator="sum")
    await world.leaderboards.refresh()
    (making,) = world.leaderboards.current.making.values()
    (build,) = await world.builds.waiting()
    await world.builds.begin(build)
    await world.builds.chunk(build, 0, 100)
    await world.showing._fill(making)
    assert [name for name in await world.names() if "next:" in name]
    await world.definitions.remove("sprint", actor="test")
    retired = await world.builds.retired(timedelta())
    assert [one.is_removed for one in retired] == [True, True]
    for gone in retired:
        await world.showing.forget(gone)
    assert {name for name in await world.names() if "sprint" in name} == set()


async def test_a_leaderboard_that_is_back_keeps_its_boards(world: World, make_users: MakeUsers) -> None:
    (one,) = await make_users(1)
    await world.define("sprint")
    await world.send((one, 5, NOW))
    await world.build()
    await world.define("sprint", operator="count")
    await world.build()
    (retired,) = await world.builds.retired(timedelta())
    assert isinstance(retired, Retired) and not retired.is_removed
    await world.showing.forget(retired)
    assert await world.board("sprint:all_time") == [(str(one), 1)]


async def test_what_comes_beside_the_first_build_of_a_leaderboard_that_is_back_reaches_the_store_at_once(
    world: World, make_users: MakeUsers
) -> None:
    (one,) = await make_users(1)
    await world.define("sprint")
    await world.send((one, 5, NOW))
    await world.build()
    await world.definitions.remove("sprint", actor="test")
    await world.define("sprint", operator="count")
    await world.leaderboards.refresh()
    (making,) = world.leaderboards.current.making.values()
    beside = in_the_making(making.boards[0], making.leaderboard)
    with pytest.raises(DefinitionMoved):
        await world.store.apply({beside: [Row(one, 2, 1)]})
    (build,) = await world.builds.waiting()
    await world.builds.begin(build)
    await world.showing.prepare(build.rules)
    assert await world.store.apply({beside: [Row(one, 2, 1)]}) == 1
