"""Leaderboards whose tables are spread over the nodes of Citus. Runs where CITUS_URL leads to its coordinator."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from realtime.boards.definitions import Definition
from realtime.boards.submissions import Accepted, Submission
from realtime.intake.holdups import Player
from realtime.intake.recorder import Recorder
from realtime.ledger import migrations
from realtime.ledger.leaderboards import Leaderboards
from realtime.ledger.ledger import Ledger
from realtime.people.accounts import Accounts
from tests.support.databases import ALL_OF_IT, GIVEN_CITUS, Databases, MakeUsers
from tests.support.leaderboards import agree_with_the_log, catalogue_of, define

if not GIVEN_CITUS:
    pytest.skip("CITUS_URL leads to no Citus", allow_module_level=True)

LAP = Definition("lap", "Lap", operator="best", order="ascending", windows=("all_time", "day"), ties="first")
LAST = Definition("lap-last", "Last lap", of="lap", operator="last")
POINTS = Definition("points", "Points", windows=("all_time", "week"))
RACES = Definition("races", "Races", operator="count", windows=("all_time",))
HIGH = Definition("high", "High", of="default", operator="best")
TAKERS = ("default", "lap", "points", "races")


class Untold:
    """A store that is away: the outbox rows stay."""

    async def each(self, user_ids: object) -> dict[str, str | None]:
        return {}


def to(slug: str, user_id: int, name: str, score: int = 5, at: datetime | None = None) -> Submission:
    return Submission(user_id, name, score, None, at, slug)


@pytest.fixture
async def directory(ledger: Ledger, sql: asyncpg.Connection) -> Leaderboards:
    await define(sql, LAP, LAST, POINTS, RACES, HIGH)
    return await catalogue_of(ledger)


@pytest.fixture
def recorder(ledger: Ledger, directory: Leaderboards) -> Recorder:
    return Recorder(ledger, directory)


@pytest.fixture
def accounts(ledger: Ledger, directory: Leaderboards) -> Accounts:
    return Accounts(ledger, Untold(), None, directory)  # type: ignore[arg-type]


@pytest.fixture
def apart(databases: Databases) -> Iterator[str]:
    """The name of a database that has not heard of Citus, though it has leaderboards."""
    name = databases.create_apart()
    yield name
    databases.drop(name)


@pytest.fixture
async def before(databases: Databases, apart: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(databases.url_of(apart))
    yield connection
    await connection.close()


async def recorded(dsn: str, *batches: list[Submission]) -> list[str]:
    """What a server that starts now answers."""
    ledger = Ledger(dsn)
    await ledger.open()
    try:
        recorder = Recorder(ledger, await catalogue_of(ledger))
        answers = [out for batch in batches for _, out in (await recorder.record(batch)).outcomes]
    finally:
        await ledger.aclose()
    return ["accepted" if isinstance(out, Accepted) and not out.duplicate else "other" for out in answers]


async def test_a_database_with_leaderboards_is_spread_as_it_is(
    databases: Databases, apart: str, before: asyncpg.Connection
) -> None:
    dsn = databases.url_of(apart)
    users = [await before.fetchval("INSERT INTO users (username) VALUES ($1) RETURNING id", n) for n in "abc"]
    await define(before, LAP, LAST, POINTS, RACES, HIGH)
    batch = [to(slug, user, f"{slug}-{user}", user) for slug in TAKERS for user in users]
    assert set(await recorded(dsn, batch)) == {"accepted"}
    await databases.join(apart)
    await migrations.migrate(dsn)
    await migrations.migrate(dsn)
    spread = await before.fetch("SELECT table_name::text, distribution_column, colocation_id FROM citus_tables")
    assert {row[0].split(".")[-1] for row in spread} == {"heads", "outbox", "score_transactions", "scores"}
    assert {row[1] for row in spread} == {"source"} and len({row[2] for row in spread}) == 1
    left = "SELECT source FROM public.heads UNION ALL SELECT source FROM public.score_transactions"
    assert await before.fetch(f"{left} UNION ALL SELECT source FROM public.scores WHERE source <> 1") == []
    more = [to(slug, user, f"more-{slug}", 1) for slug in TAKERS for user in users]
    assert await recorded(dsn, batch, more) == ["other"] * len(batch) + ["accepted"] * len(more)
    await before.execute(ALL_OF_IT)
    await before.execute("SET search_path = everything, spread, public")
    assert await agree_with_the_log(before) > len(users) * len(TAKERS)
    logged = await before.fetch("SELECT source, count(*) FROM score_transactions GROUP BY source")
    assert {count for _, count in logged} == {2 * len(users)}


async def test_each_source_is_on_one_node_and_default_on_the_coordinator(
    recorder: Recorder, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    (user,) = await make_users(1)
    outcomes = (await recorder.record([to(slug, user, "a") for slug in TAKERS])).outcomes
    assert all(isinstance(out, Accepted) for _, out in outcomes)
    assert await sql.fetchval("SELECT count(*) FROM user_total_scores") == 1
    assert {source for (source,) in await sql.fetch("SELECT DISTINCT source FROM public.scores")} == {1}
    of_others = await sql.fetch("SELECT id, source FROM leaderboards WHERE id = source AND id <> 1")
    for source, _ in of_others:
        pieces = await sql.fetch(
            "SELECT DISTINCT p.groupid"
            " FROM unnest(ARRAY['heads', 'score_transactions', 'scores', 'outbox']) AS t (name)"
            " JOIN pg_dist_placement p ON p.shardid"
            " = get_shard_id_for_distribution_column(('spread.' || t.name)::regclass, $1::int)",
            source,
        )
        assert len(pieces) == 1
    rows = await sql.fetch("SELECT source, id FROM spread.score_transactions")
    assert len(rows) == len(TAKERS) - 1 and all(row["id"] < 10_000 for row in rows), "ids come from the coordinator"


async def test_what_is_handed_in_twice_at_once_counts_once(
    ledger: Ledger, directory: Leaderboards, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    users = await make_users(20)
    chosen = random.Random(3)
    several = [Recorder(ledger, directory) for _ in range(4)]
    for round_ in range(5):
        batch = [to(slug, user, f"{round_}", chosen.randint(1, 9)) for slug in TAKERS for user in users]
        shuffled = [chosen.sample(batch, len(batch)) for _ in several]
        answers = await asyncio.gather(*(one.record(of) for one, of in zip(several, shuffled, strict=True)))
        fresh = [1 for one in answers for _, out in one.outcomes if isinstance(out, Accepted) and not out.duplicate]
        assert len(fresh) == len(batch) and not any(one.held for one in answers)
    assert await agree_with_the_log(sql) > 0


async def test_a_locked_head_holds_up_its_own_source_alone(
    recorder: Recorder, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    locked, free = await make_users(2)
    await recorder.record([to(slug, user, "a") for slug in TAKERS for user in (locked, free)])
    source = await sql.fetchval("SELECT id FROM leaderboards WHERE slug = 'lap'")
    players = [Player("lap", locked), Player("lap", free), Player("default", locked)]
    async with sql.transaction():
        await sql.execute(
            "SELECT FROM spread.heads WHERE source = $1 AND user_id = $2 FOR NO KEY UPDATE", source, locked
        )
        result = await recorder.record([to(slug, user, "b", 3) for slug in TAKERS for user in (locked, free)])
        assert [(one.leaderboard, one.user_id) for one in result.held] == [("lap", locked)]
        assert await recorder.locked(players) == {players[0]}
    assert await recorder.locked(players) == set()
    held = await recorder.record(result.held, around=True)
    assert [isinstance(out, Accepted) for _, out in held.outcomes] == [True]
    await agree_with_the_log(sql)


async def test_bans_renamings_and_deletions_reach_every_node(
    recorder: Recorder, accounts: Accounts, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    user, new = await make_users(2)
    await recorder.record([to(slug, user, "a") for slug in TAKERS])
    shown = "SELECT shown FROM catalogue"
    before = await sql.fetchval(shown)
    of_all = "SELECT DISTINCT l.slug FROM outbox o JOIN leaderboards l ON l.id = o.source WHERE o.kind = $1"

    async def told(kind: str) -> set[str]:
        return {slug for (slug,) in await sql.fetch(of_all, kind)}

    async def answers(user_id: int, name: str) -> set[str]:
        found = (await recorder.record([to(slug, user_id, name) for slug in TAKERS])).outcomes
        return {one.leaderboard for one, out in found if isinstance(out, Accepted)}

    await accounts.rename(user, "another")
    assert await told("rename") == set(TAKERS) and await sql.fetchval(shown) > before
    await accounts.ban(user, actor="a", reason=None, leaderboard="lap")
    assert await told("ban") == {"lap"} and await answers(user, "b") == set(TAKERS) - {"lap"}
    await accounts.ban(user, actor="a", reason=None)
    await accounts.ban(new, actor="a", reason=None)
    assert await told("ban") == set(TAKERS)
    assert await answers(user, "c") == await answers(new, "c") == set()
    await accounts.unban(user, actor="a", reason=None)
    assert await answers(user, "d") == set(TAKERS) - {"lap"}
    await accounts.unban(user, actor="a", reason=None, leaderboard="lap")
    assert await answers(user, "e") == set(TAKERS)
    await accounts.delete(user, actor="a")
    assert await answers(user, "f") == set()
    assert await sql.fetchval("SELECT bool_and(hidden) FROM spread.heads WHERE user_id = $1", user)


async def test_rows_of_the_outbox_are_found_and_go_by_source(
    ledger: Ledger, recorder: Recorder, directory: Leaderboards, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    (user,) = await make_users(1)
    recording = await recorder.record([to(slug, user, "a") for slug in TAKERS])
    rows = await ledger.outbox(older_than=-60, limit=100)
    assert len(rows) == (await ledger.outbox_state())[0] == len(TAKERS) == len({row.source for row in rows})
    assert await ledger.waiting_of([user, user + 1]) == {user}
    lap = directory.current.leaderboards["lap"].partition
    recorder.told(recording, {lap: None})
    await recorder.record([to("lap", user, "b")])
    left = {row.source for row in await ledger.outbox(older_than=-60, limit=100)}
    assert len(left) == len(TAKERS), "the row of before went, and one came"
    for row in await ledger.outbox(older_than=-60, limit=100):
        await ledger.clear_outbox([row.id], None, directory.current.partition_of(row.source) or "")
    assert await ledger.outbox_state() == (0, 0.0)
    assert await sql.fetch("SELECT FROM outbox") == []


async def test_a_closed_board_has_another_version_after_every_change(
    recorder: Recorder, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    (user,) = await make_users(1)
    then = datetime(2019, 5, 5, 12, tzinfo=UTC)
    version = "SELECT version FROM windows WHERE name = 'day_of_2019_05_05'"
    await recorder.record([to("lap", user, "a", 5, then)])
    first = await sql.fetchval(version)
    await recorder.record([to("lap", user, "b", 4, then)])
    second = await sql.fetchval(version)
    await recorder.record([to("lap", user, "b", 4, then)])
    assert first < second == await sql.fetchval(version)
    await agree_with_the_log(sql)


async def test_nothing_is_lost_while_a_source_moves_to_another_node(
    ledger: Ledger, directory: Leaderboards, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    users = await make_users(30)
    recorder = Recorder(ledger, directory)
    source = await sql.fetchval("SELECT id FROM leaderboards WHERE slug = 'lap'")
    where = (
        "SELECT s.shardid, n.nodename, n.nodeport FROM pg_dist_placement p JOIN pg_dist_node n USING (groupid)"
        " CROSS JOIN LATERAL (SELECT get_shard_id_for_distribution_column('spread.heads', $1::int) AS shardid) AS s"
        " WHERE p.shardid = s.shardid"
    )
    shard, host, port = await sql.fetchrow(where, source)
    other = await sql.fetchrow(
        "SELECT nodename, nodeport FROM pg_dist_node WHERE shouldhaveshards AND (nodename, nodeport) <> ($1, $2)",
        host,
        port,
    )
    is_moving, accepted = True, 0

    async def hand_in(lane: int) -> None:
        nonlocal accepted
        number = 0
        while is_moving:
            number += 1
            batch = [to("lap", user, f"{lane}-{number}", number) for user in users]
            result = await recorder.record(batch)
            while result.held:
                accepted += sum(isinstance(out, Accepted) for _, out in result.outcomes)
                result = await recorder.record(result.held, around=True)
            accepted += sum(isinstance(out, Accepted) for _, out in result.outcomes)

    lanes = [asyncio.ensure_future(hand_in(lane)) for lane in range(2)]
    await asyncio.sleep(0)
    await sql.execute(
        f"SELECT citus_move_shard_placement({shard}, '{host}', {port}, '{other[0]}', {other[1]}, 'block_writes')",
        timeout=120,
    )
    is_moving = False
    await asyncio.gather(*lanes)
    assert tuple((await sql.fetchrow(where, source))[1:]) == tuple(other)
    await recorder.record([to("lap", users[0], "after", 1)])
    assert await sql.fetchval("SELECT count(*) FROM score_transactions WHERE source = $1", source) == accepted + 1
    await agree_with_the_log(sql)


async def test_a_life_over_several_sources_is_what_its_logs_say(
    recorder: Recorder, accounts: Accounts, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    users, chosen = await make_users(12), random.Random(7)
    now = datetime.now(UTC)
    for step in range(25):
        for _ in range(chosen.randint(0, 2)):
            change, where = chosen.choice([accounts.ban, accounts.unban]), chosen.choice([None, "lap", "points"])
            await change(chosen.choice(users), actor="a", reason=None, leaderboard=where)
        batch = {
            (slug, user, name): to(slug, user, name, len(name) + user, now - timedelta(hours=int(name[-1]) * 30))
            for slug in TAKERS
            for user in chosen.sample(users, 6)
            for name in (f"{step % 9}-{chosen.randint(0, 9)}",)
        }
        result = await recorder.record(list(batch.values()))
        assert len(result.outcomes) == len(batch)
    assert await agree_with_the_log(sql) > 100
