"""Building beside everything else: scores come in, people are banned, definitions change, the builder is killed, and in
the end every row is what a plain fold over the log says."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import asyncpg
import pytest

from realtime.boards.parsing import parse_definition
from realtime.boards.submissions import Submission
from realtime.errors import CatalogueMoved, LedgerLocked, RowRefused, TransactionConflict, WindowsMissing
from realtime.ledger.builds import Build, Builds
from realtime.ledger.definitions import Definitions
from realtime.ledger.leaderboards import Leaderboards
from realtime.ledger.ledger import Ledger
from realtime.repair.building import Building
from tests.support.building import InTheLedger, build_all, building_of
from tests.support.databases import MakeUsers
from tests.support.standings import expected, kept

ROOT = Path(__file__).parents[3]
NOW = datetime.now(UTC) - timedelta(hours=1)


@pytest.fixture
def definitions(ledger: Ledger) -> Definitions:
    return Definitions(ledger)


@pytest.fixture
def directory(ledger: Ledger, definitions: Definitions) -> Leaderboards:
    return Leaderboards(ledger, definitions, partitions=16)


async def define(definitions: Definitions, slug: str, **fields: Any) -> None:
    await definitions.put(parse_definition(slug, fields), actor="test")


_sent = 0


def score(user_id: int, score: int, slug: str = "sprint", at: datetime | None = None) -> Submission:
    global _sent
    _sent += 1
    return Submission(user_id, f"s-{_sent}", score, None, at, slug)


async def record(ledger: Ledger, directory: Leaderboards, batch: list[Submission], **options: Any) -> None:
    """Records a batch as a server does: by the newest catalogue, and once its windows are there."""
    while True:
        try:
            await ledger.record_scores(batch, directory.current, **options)
            return
        except CatalogueMoved:
            await directory.refresh()
        except WindowsMissing as missing:
            await ledger.ensure_windows(missing)
            await directory.refresh()


# Two ways that lose rows, and ours -----------------------------------------------------------------------------------


class Impatient(Building):
    """Does not wait for those who began before the rule was there."""

    async def _wait_for_writers(self, build: Build) -> None:
        pass


class ByIds(Impatient):
    """Goes through the log by the ids of its transactions, each once."""

    def __init__(self, ledger: Ledger) -> None:
        builds = Builds(ledger)
        super().__init__(ledger, builds, InTheLedger(builds))
        self._of = ledger

    async def _walk(self, build: Build) -> None:
        async with self._of.transaction() as connection:
            (rule,) = build.rules
            ((window,),) = await connection.fetch("SELECT id FROM windows WHERE leaderboard = $1", rule.leaderboard)
            await connection.execute(
                'INSERT INTO scores (source, rule, "window", user_id, score, at, at_id)'
                " SELECT source, $2, $3, user_id, sum(score), micros(max(created_at)), max(id) FROM score_transactions"
                " WHERE source = $1 AND id > 0 GROUP BY source, user_id",
                build.source, rule.id, window,
            )  # fmt: skip
            await connection.execute("UPDATE heads SET built = $2 WHERE source = $1", build.source, build.round)


WAYS: dict[str, Callable[[Ledger], Building]] = {
    "ours": building_of,
    "without the wait": lambda ledger: Impatient(ledger, builds := Builds(ledger), InTheLedger(builds)),
    "by ids": ByIds,
}


@pytest.mark.parametrize("way", WAYS)
async def test_a_score_that_was_under_way_when_the_rule_came_is_counted(
    definitions: Definitions,
    directory: Leaderboards,
    ledger: Ledger,
    sql: asyncpg.Connection,
    make_users: MakeUsers,
    way: str,
) -> None:
    """Of a new player, whose head nobody else sees yet. Both other ways lose it: so this would be noticed."""
    known, new = await make_users(2)
    await define(definitions, "sprint", operator="best")
    await build_all(ledger)
    await directory.refresh()
    await record(ledger, directory, [score(known, 1)])
    async with ledger.transaction() as late:
        await ledger.record_scores([score(new, 5)], directory.current, connection=late)
        await record(ledger, directory, [score(known, 7)])
        await define(definitions, "sprint", operator="sum")
        building = asyncio.ensure_future(WAYS[way](ledger).step())
        if way == "ours":
            await asyncio.wait([building], timeout=0.5)
            assert not building.done() and await Builds(ledger).writers()
        else:
            await building
    await building
    await build_all(ledger)
    assert (await kept(sql, "sprint") == await expected(sql, "sprint")) == (way == "ours")


async def test_whoever_is_walked_over_waits_and_is_counted_once(
    definitions: Definitions, directory: Leaderboards, ledger: Ledger, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    """A score of a player whose head the walk has locked, and one of a player whom it has done."""
    first, second = await make_users(2)
    await define(definitions, "sprint", operator="best")
    await build_all(ledger)
    await directory.refresh()
    await record(ledger, directory, [score(first, 1), score(second, 2)])
    await define(definitions, "sprint", operator="sum")
    builds = Builds(ledger)
    (build,) = await builds.waiting()
    await builds.begin(build)
    await builds.chunk(build, 0, 1)
    await record(ledger, directory, [score(first, 10), score(second, 20)])
    assert set(await kept(sql, "sprint", shown=False)) == {("all_time", first)}, "of the other the log has it"
    await build_all(ledger)
    assert await kept(sql, "sprint") == await expected(sql, "sprint")
    assert {key: row[0] for key, row in (await kept(sql, "sprint")).items()} == {
        ("all_time", first): 11, ("all_time", second): 22,
    }  # fmt: skip


async def test_a_player_whose_score_is_under_way_is_waited_for(
    definitions: Definitions, directory: Leaderboards, ledger: Ledger, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    """It was handed in once the rule was there, and adds no row to it: the walk will find it in the log."""
    (known,) = await make_users(1)
    await define(definitions, "sprint", operator="best")
    await build_all(ledger)
    await directory.refresh()
    await record(ledger, directory, [score(known, 1)])
    await define(definitions, "sprint", operator="sum")
    await directory.refresh()
    builds = Builds(ledger)
    (build,) = await builds.waiting()
    await builds.begin(build)
    async with ledger.transaction() as late:
        await record(ledger, directory, [score(known, 10)], connection=late)
        walking = asyncio.ensure_future(builds.chunk(build, 0, 10))
        await asyncio.wait([walking], timeout=0.5)
        assert not walking.done()
    await walking
    assert await kept(sql, "sprint", shown=False) == await expected(sql, "sprint", shown=False)


# Everything at once --------------------------------------------------------------------------------------------------

DEFINED: tuple[tuple[str, dict[str, Any]], ...] = (
    ("sprint", {"operator": "best", "windows": ["all_time", "day"], "metadata": True}),
    ("sprint", {"operator": "sum", "windows": ["all_time", "month"], "zone": "America/Havana"}),
    ("sprint", {"operator": "best", "order": "ascending", "windows": ["day", "week"]}),
    ("sprint-last", {"of": "sprint", "operator": "last", "windows": ["all_time", "week"]}),
    ("sprint-last", {"of": "sprint", "operator": "count", "windows": ["year"]}),
    ("points-best", {"of": "default", "operator": "best", "windows": ["month"]}),
    ("points-best", {"of": "default", "operator": "last", "ties": "first"}),
    ("default", {"windows": ["day"]}),
    ("default", {}),
)


@asynccontextmanager
async def killed_again_and_again(dsn: str, random: Random) -> AsyncIterator[list[int]]:
    """A builder, killed at random moments and started again; counts how often."""
    kills = [0]

    async def run() -> None:
        while True:
            builder = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.support.building", dsn,
                cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            try:
                assert builder.stdout is not None
                await builder.stdout.readline()
                with suppress(TimeoutError):
                    async with asyncio.timeout(random.uniform(0, 0.4)):
                        await builder.wait()
            finally:
                if builder.returncode is None:
                    builder.kill()
                    kills[0] += 1
                await builder.wait()

    task = asyncio.ensure_future(run())
    try:
        yield kills
    finally:
        task.cancel()
        await asyncio.wait([task])


async def hand_in(ledger: Ledger, directory: Leaderboards, players: list[int], random: Random, batches: int) -> None:
    for _ in range(batches):
        batch = [
            score(
                random.choice(players),
                random.randint(-5, 5),
                random.choice(["sprint", "default"]),
                random.choice([None, NOW - timedelta(hours=random.randint(0, 2_000))]),
            )
            for _ in range(random.randint(1, 30))
        ]
        with suppress(LedgerLocked, TransactionConflict, RowRefused):
            await record(ledger, directory, batch)


async def change(definitions: Definitions, random: Random, until: Callable[[], bool], built: Awaitable[Any]) -> None:
    while not until():
        slug, fields = random.choice(DEFINED)
        with suppress(LedgerLocked):
            await define(definitions, slug, **fields)
        await asyncio.wait([built], timeout=random.uniform(0, 0.5))


async def many_at_once(
    ledger: Ledger, dsn: str, sql: asyncpg.Connection, make_users: MakeUsers, *, seed: int, kills: int
) -> None:
    random = Random(seed)
    players = await make_users(300)
    definitions = Definitions(ledger)
    directories = [Leaderboards(ledger, definitions, partitions=16) for _ in range(3)]
    for slug, fields in DEFINED[::3]:
        await define(definitions, slug, **fields)
    for directory in directories:
        await directory.refresh()
    await hand_in(ledger, directories[0], players[:250], random, 60)
    async with killed_again_and_again(dsn, random) as killed:

        async def work(directory: Leaderboards) -> None:
            while killed[0] < kills:
                await hand_in(ledger, directory, players, random, 5)

        working = asyncio.gather(*map(work, directories))
        await change(definitions, random, working.done, working)
        await working
    await build_all(ledger)
    for slug in await definitions.all():
        rows, wanted = await kept(sql, slug), await expected(sql, slug)
        assert len(wanted) > 0 or slug == "default"
        differing = {key: (rows.get(key), wanted.get(key)) for key in rows.keys() | wanted.keys()
                     if rows.get(key) != wanted.get(key)}  # fmt: skip
        assert differing == {}, slug


async def test_a_builder_that_is_killed_beside_batches_and_changes_leaves_no_row_wrong(
    ledger: Ledger, dsn: str, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    await many_at_once(ledger, dsn, sql, make_users, seed=16, kills=5)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(20))
async def test_the_same_for_long(
    ledger: Ledger, dsn: str, sql: asyncpg.Connection, make_users: MakeUsers, seed: int
) -> None:
    await many_at_once(ledger, dsn, sql, make_users, seed=seed, kills=25)
