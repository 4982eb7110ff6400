"""Partitions: each content is looked after by itself, and comes to hold what the ledger says, whatever was done."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
import redis.asyncio

from realtime.boards.board import ALL_TIME, Board
from realtime.boards.catalogue import PUBLISHED
from realtime.boards.parsing import parse_definition
from realtime.boards.standings import in_order
from realtime.errors import EpochMoved
from realtime.ledger.builds import Builds
from realtime.ledger.definitions import Definitions
from realtime.ledger.leaderboards import Leaderboards
from realtime.ledger.ledger import Ledger
from realtime.ledger.ranked import RankedRows
from realtime.repair.building import Building
from realtime.repair.comparison import Comparison, Kind
from realtime.repair.drift import OTHERS, Drift, check
from realtime.repair.partitions import AT_A_TIME, LONGEST_LOOK, OTHERWISE, Partitions
from realtime.repair.rebuild import Rebuilder
from realtime.repair.resync import Resync
from realtime.repair.showing import Showing
from realtime.repair.sweeper import Sweeper
from realtime.store.audit import Audit
from realtime.store.filling import Filling
from realtime.store.snapshots import SnapshotReader
from realtime.store.store import Store
from tests.support.databases import MakeUsers
from tests.support.keys import EPOCH_KEY
from tests.support.processes import environment, running

Keys = redis.asyncio.Redis

NOW = datetime.now(UTC)


async def no_time(seconds: float) -> None:
    """Between two looks nothing need happen: order alone decides."""


class World:
    """A ledger with several leaderboards, a store, and all that keeps the one to the other."""

    def __init__(self, ledger: Ledger, store: Store, sql: asyncpg.Connection, users: list[int]) -> None:
        self.ledger, self.store, self.sql, self.users = ledger, store, sql, users
        self.now = now = ledger.clock.now
        self.definitions = Definitions(ledger)
        self.leaderboards = Leaderboards(ledger, self.definitions, partitions=16)
        store.renew = self.leaderboards.look
        rows = RankedRows(ledger)
        self.partitions = Partitions(ledger, rows, store, self.leaderboards, now, chunk=7)
        latest = self.partitions.latest_boards_of
        self.published = Rebuilder(
            ledger, store, Filling(store.link), now, boards=lambda: latest(""), ranked=rows, chunk=7
        )
        builds = Builds(ledger)
        showing = Showing(builds, self.leaderboards, store, rows, now)
        self._builds, self._building = builds, Building(ledger, builds, showing)
        self.resync = Resync(ledger, store, now, boards=self.partitions.boards_to_tell)
        self.sweeper = Sweeper(ledger, self.resync, self.partitions.partitions_of)
        self.audit = Audit(store)
        self.comparison = Comparison(ledger, self.audit, now)

    def drift(self) -> Drift:
        live = self.leaderboards.current.live_boards
        return Drift(self.comparison, self.store, self.audit, self.resync, self.now, no_time, boards=live)

    async def define(self, slug: str, **fields: Any) -> None:
        await self.definitions.put(parse_definition(slug, fields), actor="test")
        await self.ledger.fetch("windows_kept")
        await self.leaderboards.refresh()
        await self.look()
        while await self._builds.waiting() or await self._builds.untold():
            await self._building.step()

    async def look(self) -> None:
        await self.published.look()
        await self.partitions.look()
        await self.partitions.settled()

    async def record(self, slug: str, user_id: int, score: int, number: int, metadata: Any = None) -> None:
        """A score as a batch leaves it in the ledger: log, head, rows of every rule, and the outbox."""
        source = self.leaderboards.current.leaderboards[slug].source
        at = NOW + timedelta(microseconds=number)
        micros = (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
        described = None if metadata is None else json.dumps(metadata)
        await self.sql.execute(
            "INSERT INTO score_transactions (source, id, user_id, submission_id, score, metadata, created_at)"
            " OVERRIDING SYSTEM VALUE VALUES ($1, $2, $3, gen_random_uuid(), $4, $5, $6)",
            source, number, user_id, score, described, at,
        )  # fmt: skip
        await self.sql.execute(
            "INSERT INTO heads (source, user_id, built)"
            " SELECT $1, $2, round FROM leaderboards WHERE id = $1 ON CONFLICT DO NOTHING",
            source, user_id,
        )  # fmt: skip
        for one in self.leaderboards.current.leaderboards.values():
            for window in self.leaderboards.current.windows.get(one.id, ()) if one.source == source else ():
                if window.starts is None or window.starts <= at < (window.ends or at + timedelta(1)):
                    await self.sql.execute(
                        'INSERT INTO scores AS s (source, rule, "window", user_id, score, at, at_id, metadata)'
                        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
                        ' ON CONFLICT (source, rule, "window", user_id) DO UPDATE SET score = excluded.score,'
                        " at = excluded.at, at_id = excluded.at_id, metadata = excluded.metadata,"
                        " version = s.version + 1",
                        source, one.rule, window.key, user_id, score, micros, number, described,
                    )  # fmt: skip
        await self.sql.execute(
            "INSERT INTO outbox (kind, user_ids, source, created_at)"
            " VALUES ('scores', ARRAY[$1::bigint], $2, clock_timestamp() - interval '1 minute')",
            user_id, source,
        )  # fmt: skip

    def board(self, text: str) -> Board:
        return self.leaderboards.current.resolve(text, self.now())

    async def shown(self, text: str) -> list[tuple[int, int, str, str | None]]:
        """What is read of a board."""
        board = self.board(text)
        snapshot = (await SnapshotReader(self.store).read([board]))[board]
        metadata = snapshot.metadata or {}
        return [(i, score, snapshot.names[i], metadata.get(i)) for i, score in snapshot.scores.items()]

    async def said(self, text: str) -> list[tuple[int, int, str, str | None]]:
        """What the ledger says of it."""
        board = self.board(text)
        rows = await self.sql.fetch(
            'SELECT s.*, u.username FROM scores s JOIN users u ON u.id = s.user_id WHERE rule = $1 AND "window" = $2',
            board.leaderboard.rule, board.window.key,
        )  # fmt: skip
        order, of = board.leaderboard.order, {row["user_id"]: row for row in rows}
        at = {i: order.stands((row["at"], row["at_id"])) for i, row in of.items()}
        in_place = in_order([(i, row["score"]) for i, row in of.items()], order, at)
        shows = board.leaderboard.definition.metadata
        return [(i, score, of[i]["username"], of[i]["metadata"] if shows else None) for i, score in in_place.items()]

    async def agrees(self) -> None:
        """Every board shows what the ledger says, and a search of every row finds nothing."""
        for board in self.leaderboards.current.live_boards(self.now()):
            if not board.is_published:
                assert await self.shown(board.id) == await self.said(board.id), board.id
            report = await check(self.comparison, board, sleep=no_time)
            assert (report.differing, report.shown) == (0, []), board.id

    def partition(self, slug: str) -> str:
        return self.leaderboards.current.leaderboards[slug].partition

    def epochs(self) -> dict[str, str | None]:
        return {name: self.store.link_of(name).epoch for name in ("", *self.partitions.in_use)}


@pytest.fixture
async def world(ledger: Ledger, store_url: str, sql: asyncpg.Connection, make_users: MakeUsers) -> AsyncIterator[World]:
    """Twenty players on two leaderboards, which are in two partitions, and on one `of` the first."""
    store = Store(store_url)
    made = World(ledger, store, sql, await make_users(20))
    await made.leaderboards.refresh()
    await made.look()
    timed: dict[str, Any] = {"operator": "last", "order": "ascending", "ties": "first", "metadata": True}
    await made.define("sprint", windows=["all_time", "day"], **timed)
    await made.define("latest", of="sprint", operator="last", windows=["all_time"])
    await made.define("marathon", operator="last", windows=["week"])
    assert made.partition("sprint") == made.partition("latest") != made.partition("marathon")
    for number, user_id in enumerate(made.users, 1):
        await made.record("sprint", user_id, 100 + number // 3, number, {"n": number} if number % 2 else None)
        await made.record("marathon", user_id, 7 * number, 1_000 + number)
    await made.sweeper.sweep()
    yield made
    await store.aclose()


async def test_a_sweep_brings_every_partition_what_is_of_it(world: World, keys: Keys) -> None:
    await world.agrees()
    assert await world.sql.fetchval("SELECT count(*) FROM outbox") == 0
    assert await keys.zcard("leaderboard:user_scores:all_time") == 0
    sprint, marathon = world.partition("sprint"), world.partition("marathon")
    assert world.partitions.in_use == sorted({sprint, marathon})
    assert len([key async for key in keys.scan_iter(f"{{{marathon}}}leaderboard:users:*")]) == 20
    first = (await world.shown("sprint:all_time"))[0]
    assert first == (world.users[0], 100, "player-1", '{"n": 1}')


async def test_one_that_is_lost_is_made_anew_and_no_other(world: World, keys: Keys) -> None:
    before, sprint = world.epochs(), world.partition("sprint")
    doomed = [key async for key in keys.scan_iter(f"{{{sprint}}}*")]
    await keys.delete(*doomed)
    reader = SnapshotReader(world.store)
    assert await reader.read([world.board("marathon:current_week")])
    await world.look()
    await world.agrees()
    after = world.epochs()
    assert {name for name in after if after[name] != before[name]} == {sprint}
    assert (world.partitions.rebuilds, world.published.rebuilds) == (1 + 2, 1), "two at the beginning"
    counted = ":version:"
    assert {key async for key in keys.scan_iter(f"{{{sprint}}}*")} == {key for key in doomed if counted not in key}


async def test_the_ledger_names_the_content_of_each_and_rows_for_another_stay(world: World) -> None:
    named = dict(await world.sql.fetch("SELECT partition, epoch FROM contents"))
    assert named == {name: epoch for name, epoch in world.epochs().items() if name}
    await world.record("sprint", world.users[0], 1, 5_000)
    await world.sql.execute("UPDATE contents SET epoch = 'another-1' WHERE partition = $1", world.partition("sprint"))
    assert await world.sweeper.sweep() == 1
    assert await world.sql.fetchval("SELECT count(*) FROM outbox") == 1, "it was told to content that is not current"


async def test_one_content_that_is_away_keeps_no_other_from_its_rows(world: World, keys: Keys) -> None:
    await world.record("sprint", world.users[0], 1, 5_000)
    await world.record("marathon", world.users[0], 1_000, 5_001)
    await keys.set(f"{{{world.partition('sprint')}}}leaderboard:epoch", "not-ours")
    with pytest.raises(EpochMoved):
        await world.sweeper.sweep()
    assert [row["source"] for row in await world.sql.fetch("SELECT source FROM outbox")] == [
        world.leaderboards.current.leaderboards["sprint"].id
    ]
    assert (await world.shown("marathon:current_week"))[0][:2] == (world.users[0], 1_000)
    await world.look()
    await world.agrees()


async def test_a_restored_ledger_has_every_content_made_anew(world: World) -> None:
    before = world.epochs()
    row = (await world.ledger.fetch("generation"))[0]
    await world.ledger.fetch("generation_renewed", row["mark"], row["place"], "another")
    await world.look()
    after = world.epochs()
    assert not set(before.values()) & set(after.values()) and len(after) == 3
    await world.agrees()


async def test_who_adds_to_default_finds_it_in_the_published_content(world: World, keys: Keys) -> None:
    users = world.users[:5]
    for number, user_id in enumerate(users):
        await world.sql.execute("INSERT INTO user_total_scores (user_id, total_score) VALUES ($1, 9)", user_id)
        await world.sql.execute(
            "INSERT INTO user_score_transactions (user_id, submission_id, score_added, created_at)"
            " VALUES ($1, 'a', $2, clock_timestamp())", user_id, 10 * number
        )  # fmt: skip
    await world.define("newest", of="default", operator="last", ties="last")
    assert [line[:2] for line in await world.shown("newest:all_time")] == [
        (user_id, 10 * number) for number, user_id in reversed([*enumerate(users)])
    ]
    await keys.delete(EPOCH_KEY)
    await world.look()
    assert await keys.zcard("leaderboard:user_scores:newest:all_time") == 5
    assert await keys.get("leaderboard:definition:newest") == str(world.board("newest:all_time").leaderboard.rule)
    assert await keys.zscore("leaderboard:user_scores:all_time", users[0]) == 9
    await world.agrees()


async def test_content_with_a_rule_that_the_ledger_does_not_have_is_made_anew(world: World, keys: Keys) -> None:
    before, sprint = world.epochs(), world.partition("sprint")
    await keys.set(f"{{{sprint}}}leaderboard:definition:sprint", 99)
    for _ in range(OTHERWISE - 1):
        await world.partitions.compare_rules()
        assert world.store.link_of(sprint).is_complete, "a switch may be under way"
    await world.partitions.compare_rules()
    await world.look()
    after = world.epochs()
    assert {name for name in after if after[name] != before[name]} == {sprint}
    await world.agrees()


async def test_a_partition_whose_last_leaderboard_is_gone_is_looked_at_no_more(world: World) -> None:
    await world.definitions.remove("marathon", actor="test")
    await world.leaderboards.refresh()
    assert world.partitions.in_use == [world.partition("sprint")]


async def test_partitions_whose_node_hangs_keep_others_waiting_once_for_all_of_them(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging, last = [f"p0{number}" for number in range(AT_A_TIME - 1)], "p99"
    looked: list[str] = []
    forever = asyncio.Event()

    class Look:
        def __init__(self, name: str) -> None:
            self.name = name

        async def look(self) -> bool:
            looked.append(self.name)
            if self.name in hanging:
                await forever.wait()
            return False

    monkeypatch.setattr(Partitions, "in_use", [*hanging, last])
    monkeypatch.setattr(world.partitions, "rebuilder", Look)
    loop = asyncio.get_running_loop()
    for _ in range(2):
        began = loop.time()
        await world.partitions.look()
        assert loop.time() - began < 3 * LONGEST_LOOK
    assert looked == [*hanging, last, last], "one look at a time of each"
    forever.set()
    await world.partitions.settled()


# Drift -----------------------------------------------------------------------------------------------------------

Damage = Callable[[Keys, str, list[int]], Awaitable[Any]]


async def _member_of(keys: Keys, key: str, user_id: int) -> str:
    return next(str(member) for member in await keys.zrange(key, 0, -1) if member[32:] == str(user_id))


async def _rescore(keys: Keys, tag: str, ids: list[int]) -> None:
    scores = f"{tag}leaderboard:user_scores:sprint:all_time"
    await keys.zadd(scores, {await _member_of(keys, scores, ids[2]): 3})


async def _unplace(keys: Keys, tag: str, ids: list[int]) -> None:
    scores = f"{tag}leaderboard:user_scores:sprint:all_time"
    await keys.zrem(scores, await _member_of(keys, scores, ids[2]))


async def _redate(keys: Keys, tag: str, ids: list[int]) -> None:
    """Both say so: whoever believes the store shows another order."""
    scores, versions = (f"{tag}leaderboard:{what}:sprint:all_time" for what in ("user_scores", "versions"))
    member = await _member_of(keys, scores, ids[2])
    await keys.zadd(scores, {"0" * 32 + str(ids[2]): await keys.zscore(scores, member) or 0})
    await keys.zrem(scores, member)
    await keys.hset(versions, str(ids[2]), "1:" + "0" * 32)


DAMAGES: dict[str, tuple[Damage, Kind]] = {
    "a score by hand": (_rescore, Kind.OTHER),
    "a place taken away": (_unplace, Kind.OTHER),
    "another moment": (_redate, Kind.OTHER),
    "a second member": (
        lambda keys, tag, ids: keys.zadd(
            f"{tag}leaderboard:user_scores:sprint:all_time", {"0" * 31 + "1" + str(ids[2]): 1}
        ),
        Kind.STRAY,
    ),
    "a member without a moment": (
        lambda keys, tag, ids: keys.zadd(f"{tag}leaderboard:user_scores:sprint:all_time", {str(ids[2]): 1}),
        Kind.STRAY,
    ),
    "somebody unknown": (
        lambda keys, tag, ids: keys.zadd(f"{tag}leaderboard:user_scores:sprint:all_time", {"1" * 32 + "987654": 1}),
        Kind.STRAY,
    ),
    "no member at all": (
        lambda keys, tag, ids: keys.zadd(f"{tag}leaderboard:user_scores:sprint:all_time", {"nonsense": 1}),
        Kind.STRAY,
    ),
    "a version of nobody": (
        lambda keys, tag, ids: keys.hset(f"{tag}leaderboard:versions:sprint:all_time", "987654", "1:" + "1" * 32),
        Kind.STRAY,
    ),
    "metadata by hand": (
        lambda keys, tag, ids: keys.hset(f"{tag}leaderboard:metadata:sprint:all_time", str(ids[2]), '{"n": 99}'),
        Kind.OTHER,
    ),
    "metadata lost": (
        lambda keys, tag, ids: keys.delete(f"{tag}leaderboard:metadata:sprint:all_time"),
        Kind.OTHER,
    ),
    "a name by hand": (
        lambda keys, tag, ids: keys.hset(f"{tag}leaderboard:users:{ids[2]}", "username", "evil"),
        Kind.OTHER,
    ),
    "all versions lost": (
        lambda keys, tag, ids: keys.delete(f"{tag}leaderboard:versions:sprint:all_time"),
        Kind.OTHER,
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
async def test_damage_is_found_and_healed_where_it_is(world: World, keys: Keys, name: str) -> None:
    damage, kind = DAMAGES[name]
    epochs = world.epochs()
    await damage(keys, f"{{{world.partition('sprint')}}}", world.users)
    report = await check(world.comparison, world.board("sprint:all_time"), sleep=no_time)
    assert kind in {finding.kind for finding in report.shown}, name
    assert all(str(finding) for finding in report.shown)
    drift = world.drift()
    for _ in range(4):
        await drift.step()
    assert drift.found
    await world.agrees()
    assert world.epochs() == epochs, "row by row"


async def test_one_ahead_of_the_ledger_is_made_anew_and_no_other(world: World, keys: Keys) -> None:
    before, sprint = world.epochs(), world.partition("sprint")
    await keys.hset(f"{{{sprint}}}leaderboard:versions:sprint:all_time", str(world.users[0]), "99:" + "1" * 32)
    await world.drift().step()
    assert not world.store.link_of(sprint).is_complete
    assert world.store.is_complete
    await world.look()
    await world.agrees()
    assert {name for name, epoch in world.epochs().items() if epoch != before[name]} == {sprint}


async def test_who_is_hidden_on_one_leaderboard_stays_on_the_other(world: World) -> None:
    latest, user = world.leaderboards.current.leaderboards["latest"], world.users[0]
    await world.sql.execute("UPDATE heads SET hidden_on = ARRAY[$1::int] WHERE user_id = $2 AND source = $3",
                            latest.id, user, latest.source)  # fmt: skip
    await world.sql.execute("UPDATE scores SET version = version + 1 WHERE user_id = $1", user)
    await world.resync.users([user])
    assert user not in [line[0] for line in await world.shown("latest:all_time")]
    assert user in [line[0] for line in await world.shown("sprint:all_time")]
    assert await world.comparison.counts_agree(world.board("latest:all_time"))
    board = world.board("latest:all_time")
    assert (await check(world.comparison, board, sleep=no_time)).differing == 0


async def test_boards_take_turns_however_many_there_are(world: World) -> None:
    for number in range(OTHERS + 3):
        await world.define(f"cup-{number}", operator="last")
    drift, seen = world.drift(), set()
    top = world.comparison.top

    async def noted(board: Board) -> Any:
        seen.add(board.id)
        return await top(board)

    world.comparison.top = noted  # type: ignore[method-assign]
    await drift.step()
    assert ALL_TIME.id in seen and len([name for name in seen if ":" in name]) == OTHERS
    for _ in range(2):
        await drift.step()
    live = world.leaderboards.current.live_boards(world.now())
    assert seen == {board.id for board in live}


# The commands ----------------------------------------------------------------------------------------------------


async def test_the_commands_cover_every_board(world: World, keys: Keys, dsn: str, store_url: str) -> None:
    variables = {"DATABASE_URL": dsn, "DRAGONFLY_URL": store_url, "REALTIME_SECRET": "s" * 40}

    async def ran(*words: str) -> tuple[int, list[str]]:
        program = [sys.executable, "-m", "realtime"]
        async with running(*words, program=program, env=environment(**variables)) as command:
            return await command.ends(), command.lines

    code, lines = await ran("check")
    assert code == 0, lines
    found = [line for line in lines if line.startswith(("sprint", "latest", "marathon"))]
    assert found == [
        "sprint, 2 boards: 40 users compared, 0 differences.",
        "latest, 1 board: 20 users compared, 0 differences.",
        "marathon, 1 board: 20 users compared, 0 differences.",
        "sprint, log: every score made anew, 0 differences.",
        "latest, log: every score made anew, 0 differences.",
        "marathon, log: every score made anew, 0 differences.",
    ]
    user, sprint = world.users[3], world.leaderboards.current.leaderboards["sprint"]
    await _rescore(keys, f"{{{sprint.partition}}}", world.users)
    await world.sql.execute("UPDATE scores SET score = 1, version = version + 1 WHERE rule = $1 AND user_id = $2",
                            sprint.rule, user)  # fmt: skip
    await world.resync.users([user])
    code, lines = await ran("check")
    assert code == 1
    assert "sprint, 2 boards: 40 users compared, 1 difference." in lines
    assert "sprint, log: every score made anew, 2 differences." in lines
    assert "`realtime leaderboards rebuild sprint` makes its standings anew from the log." in lines
    before = world.epochs()
    assert await ran("rebuild") == (0, ["The store's content is complete."])
    for name in before:
        await world.store.partition(name).adopt()
    assert not set(before.values()) & set(world.epochs().values())
    assert (await check(world.comparison, world.board("sprint:all_time"), sleep=no_time)).differing == 0


async def test_outbox_rows_of_a_leaderboard_that_is_gone_are_cleared_and_of_one_not_known_yet_told(
    world: World, make_users: MakeUsers
) -> None:
    (user,) = await make_users(1)
    await world.define("cup", operator="last")
    await world.record("cup", user, 5, 1)
    known = world.leaderboards.current
    world.leaderboards.current = PUBLISHED  # as of a process that has not looked since before
    assert await world.sweeper.sweep() == 1
    assert world.leaderboards.current.revision == known.revision
    assert [line[:2] for line in await world.shown("cup:all_time")] == [(user, 5)]
    await world.record("cup", user, 6, 2)
    await world.definitions.remove("cup", actor="test")
    await world.leaderboards.refresh()
    resynced = world.sweeper.resynced
    assert await world.sweeper.sweep() == 1
    assert world.sweeper.resynced == resynced and (await world.ledger.outbox_state())[0] == 0
