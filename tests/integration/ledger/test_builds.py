"""Builds: rows that are those of the log, for every operator and window, wherever a build was broken off."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import asyncpg
import pytest

from realtime.boards.parsing import parse_definition
from realtime.ledger.builds import Build, Builds, Lacking, Overflow
from realtime.ledger.definitions import Definitions
from realtime.ledger.ledger import Ledger
from tests.support.standings import expected, kept

OPERATORS = [
    ("sum", "descending"),
    ("count", "descending"),
    ("last", "ascending"),
    ("best", "ascending"),
    ("best", "descending"),
]
NOW = timedelta(hours=1)


@pytest.fixture
def definitions(ledger: Ledger) -> Definitions:
    return Definitions(ledger)


@pytest.fixture
def builds(ledger: Ledger) -> Builds:
    return Builds(ledger)


async def define(definitions: Definitions, slug: str, **fields: Any) -> None:
    await definitions.put(parse_definition(slug, fields), actor="test")


async def send(sql: asyncpg.Connection, slug: str, *, players: int = 20, scores: int = 400, seed: int = 1) -> None:
    """A log with moments and scores that are the same now and then, back over two changes of clocks."""
    random, now = Random(seed), datetime.now(UTC) - NOW
    source = await sql.fetchval("SELECT id FROM leaderboards WHERE slug = $1", slug)
    rows = [
        (
            random.randint(1, players),
            f"{seed}-{n}",
            random.choice([None, *range(-3, 4)]) if source != 1 else random.randint(-3, 3),
            now - timedelta(hours=random.randint(0, 24 * 400), minutes=random.choice([0, 0, 30])),
            random.choice([None, '{"car": "gt"}', '{"car": "f1"}']),
        )
        for n in range(scores)
    ]
    columns = list(map(list, zip(*rows, strict=True)))
    if source == 1:
        await sql.execute(
            "INSERT INTO user_score_transactions (user_id, submission_id, score_added, created_at, metadata)"
            " SELECT * FROM unnest($1::bigint[], $2::text[], $3::int[], $4::timestamptz[], $5::jsonb[])",
            *columns,
        )
        await sql.execute(
            "INSERT INTO user_total_scores (user_id, total_score)"
            " SELECT user_id, sum(score_added) FROM user_score_transactions GROUP BY 1 ON CONFLICT DO NOTHING"
        )
        return
    await sql.execute(
        "INSERT INTO score_transactions (source, user_id, submission_id, score, created_at, metadata)"
        " SELECT $6, * FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::timestamptz[], $5::jsonb[])",
        *columns,
        source,
    )
    await sql.execute(
        "INSERT INTO heads (source, user_id) SELECT DISTINCT source, user_id FROM score_transactions"
        " ON CONFLICT DO NOTHING"
    )


async def walk(builds: Builds, build: Build, *, limit: int = 7, most: int = 1_000) -> bool:
    """Walks at most so many chunks; whether all was done."""
    await builds.begin(build)
    after = 0
    for _ in range(most):
        try:
            chunk = await builds.chunk(build, after, limit)
        except Lacking as lacking:
            await builds.make_windows(build, lacking.moments)
            continue
        if chunk.last is None:
            return True
        after = chunk.last
    return False


async def build_all(builds: Builds) -> None:
    for build in await builds.waiting():
        assert await walk(builds, build)
        for rule in build.rules:
            assert await builds.switch(build, rule)
            await builds.told(rule.id)


@pytest.mark.parametrize(("operator", "order"), OPERATORS)
async def test_every_operator_has_in_every_window_what_the_log_says(
    definitions: Definitions, builds: Builds, sql: asyncpg.Connection, operator: str, order: str
) -> None:
    start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(days=200)
    seasons = [{"id": "one", "starts": start.isoformat(), "ends": (start + timedelta(days=30)).isoformat()}]
    await define(
        definitions, "sprint", operator=operator, order=order, zone="America/Havana", week_starts="wednesday",
        windows=["all_time", "day", "week", "month", "year", "season"], seasons=seasons,
    )  # fmt: skip
    await send(sql, "sprint")
    await sql.execute(
        "INSERT INTO score_transactions (source, user_id, submission_id, score, created_at)"
        " SELECT source, user_id, 'edge' || at, 1, at FROM heads, unnest($1::timestamptz[]) AS at",
        [start, start + timedelta(days=30)],
    )
    await build_all(builds)
    rows = await kept(sql, "sprint")
    assert rows == await expected(sql, "sprint")
    assert {name.split("_")[0] for name, _ in rows} == {"all", "day", "week", "month", "year", "season"}
    one = await definitions.one("sprint")
    assert (one.is_building, one.progress, one.shown) == (False, 1.0, one.definition)


async def test_several_of_one_source_are_made_in_one_walk_also_of_default(
    definitions: Definitions, builds: Builds, sql: asyncpg.Connection
) -> None:
    await send(sql, "default")
    await define(definitions, "default", windows=["month"])
    await define(definitions, "best-day", of="default", operator="best", windows=["day"], zone="Asia/Kathmandu")
    await define(definitions, "counted", of="default", operator="count", windows=["all_time", "year"])
    assert len(await builds.waiting()) == 1
    await build_all(builds)
    for slug in ("default", "best-day", "counted"):
        rows = await kept(sql, slug)
        assert rows and rows == await expected(sql, slug), slug
    assert await sql.fetchval("SELECT count(*) FROM user_weekly_scores") == 0, "what is published is not its business"


@pytest.mark.parametrize("chunks", [0, 1, 2, 5])
async def test_a_build_that_was_broken_off_goes_on(
    definitions: Definitions, builds: Builds, sql: asyncpg.Connection, chunks: int
) -> None:
    await define(definitions, "sprint", operator="best", windows=["all_time", "month"])
    await send(sql, "sprint")
    (build,) = await builds.waiting()
    assert not await walk(builds, build, most=chunks, limit=3)
    assert not await builds.switch(build, build.rules[0]), "what is not whole is not shown"
    before = (await definitions.one("sprint")).progress
    assert (before > 0) == (chunks > 1)  # the first finds that windows are missing
    (build,) = await builds.waiting()
    done, todo = await builds.begin(build)
    assert (done / todo, todo) == (pytest.approx(before), 20)
    await build_all(builds)
    assert await kept(sql, "sprint") == await expected(sql, "sprint")


async def test_a_change_during_a_build_ends_it(
    definitions: Definitions, builds: Builds, sql: asyncpg.Connection
) -> None:
    await define(definitions, "sprint", operator="best")
    await send(sql, "sprint")
    (build,) = await builds.waiting()
    assert not await walk(builds, build, most=2, limit=3)
    old = build.rules[0]
    await define(definitions, "sprint", operator="sum")
    assert (await builds.chunk(build, 0, 10)).last is None, "whoever still walks finds nobody"
    assert not await builds.switch(build, old)
    await builds.refresh(build)
    assert build.rules == []
    await build_all(builds)
    assert await kept(sql, "sprint") == await expected(sql, "sprint")


async def test_a_head_that_nobody_marked_keeps_standings_from_being_shown(
    definitions: Definitions, builds: Builds, sql: asyncpg.Connection
) -> None:
    """A ban makes one, and once it ends its player may hand in scores."""
    await define(definitions, "sprint")
    await send(sql, "sprint")
    (build,) = await builds.waiting()
    assert await walk(builds, build)
    await sql.execute("INSERT INTO heads (source, user_id, hidden) VALUES ($1, 5000, true)", build.source)
    assert not await builds.switch(build, build.rules[0])
    assert await walk(builds, build)
    assert await builds.switch(build, build.rules[0])


async def test_standings_that_are_shown_write_no_row_for_a_closed_board(
    definitions: Definitions, builds: Builds, sql: asyncpg.Connection
) -> None:
    await define(definitions, "sprint", windows=["month", "all_time"])
    await send(sql, "sprint")
    await build_all(builds)
    await sql.execute("SELECT ensure_next_windows()")
    revision = await sql.fetchval("SELECT revision FROM catalogue")
    versions = dict(await sql.fetch("SELECT name, version FROM windows"))
    assert await sql.fetchval("SELECT count(*) FROM windows WHERE ends <= now()")
    await define(definitions, "sprint", windows=["month", "all_time"], operator="count")
    await build_all(builds)
    # The rule that is shown is part of a closed board's version: see `closed_version`.
    assert dict(await sql.fetch("SELECT name, version FROM windows")) == versions
    assert await sql.fetchval("SELECT revision FROM catalogue") >= revision + 2, "the change, and the switch"


async def test_a_sum_that_leaves_its_range_fails_the_build_and_says_whose_it_is(
    definitions: Definitions, builds: Builds, sql: asyncpg.Connection
) -> None:
    await define(definitions, "sprint", operator="best")
    source = await sql.fetchval("SELECT id FROM leaderboards WHERE slug = 'sprint'")
    await send(sql, "sprint")
    await build_all(builds)
    await sql.execute(
        "INSERT INTO score_transactions (source, user_id, submission_id, score, created_at)"
        " SELECT $1, 9, 'big' || n, 9007199254740991, now() FROM generate_series(1, 2) AS n",
        source,
    )
    await define(definitions, "sprint-sum", of="sprint", windows=["all_time", "day"])
    await define(definitions, "sprint-count", of="sprint", operator="count")
    (build,) = await builds.waiting()
    with pytest.raises(Overflow, match=r"user 9 in all_time") as caught:
        await walk(builds, build, limit=100)
    await builds.fail(caught.value.rule, caught.value.message)
    one = await definitions.one("sprint-sum")
    assert one.failure == caught.value.message and not one.is_building
    await build_all(builds)  # the other one goes on
    assert await kept(sql, "sprint-count") == await expected(sql, "sprint-count")


async def test_sums_far_from_zero_are_known_by_their_players_heads(
    definitions: Definitions, builds: Builds, sql: asyncpg.Connection
) -> None:
    await define(definitions, "sprint", operator="sum")
    source = await sql.fetchval("SELECT id FROM leaderboards WHERE slug = 'sprint'")
    await send(sql, "sprint")
    await sql.execute(
        "INSERT INTO score_transactions (source, user_id, submission_id, score, created_at)"
        " VALUES ($1, 9, 'big', 9007199254740000, now()), ($1, 8, 'small', -4503599627370400, now())", source
    )  # fmt: skip
    await build_all(builds)
    assert await sql.fetch("SELECT user_id FROM heads WHERE far") == [(9,)]


async def test_rows_that_somebody_left_are_made_anew(
    definitions: Definitions, builds: Builds, sql: asyncpg.Connection
) -> None:
    await define(definitions, "sprint")
    await send(sql, "sprint")
    (build,) = await builds.waiting()
    assert await walk(builds, build)
    await sql.execute("UPDATE heads SET built = 0; UPDATE scores SET score = 77")
    await build_all(builds)
    assert await kept(sql, "sprint") == await expected(sql, "sprint")


async def test_what_is_no_more_is_cleared_away(
    definitions: Definitions, builds: Builds, sql: asyncpg.Connection
) -> None:
    await define(definitions, "sprint", windows=["all_time", "month"])
    await send(sql, "sprint")
    await build_all(builds)
    await define(definitions, "sprint", windows=["all_time"], operator="count")
    await build_all(builds)
    await define(definitions, "gone")
    await definitions.remove("gone", actor="test")
    assert await builds.retired() == [], "not yet: somebody may still write rows of them"
    retired = await builds.retired(timedelta())
    assert [(one.slug, one.is_removed) for one in retired] == [("sprint", False), ("gone", True)]
    for one in retired:
        while await builds.clear(one):
            pass
        await builds.bury(one)
    assert await builds.retired(timedelta()) == []
    assert await kept(sql, "sprint") == await expected(sql, "sprint")
    assert await sql.fetchval("SELECT count(*) FROM scores") == len(await kept(sql, "sprint"))


async def test_rows_in_windows_that_a_definition_no_longer_has_are_cleared_away(
    definitions: Definitions, builds: Builds, sql: asyncpg.Connection
) -> None:
    await define(definitions, "sprint", windows=["all_time", "month"])
    await send(sql, "sprint")
    await build_all(builds)
    await define(definitions, "sprint", windows=["all_time"])
    assert not await builds.clear_dropped()
    while await builds.clear_dropped(timedelta()):
        pass
    assert await sql.fetchval("SELECT count(*) FROM scores") == len(await expected(sql, "sprint"))


async def test_transactions_that_record_are_waited_for(
    definitions: Definitions, builds: Builds, sql: asyncpg.Connection
) -> None:
    assert await builds.writers() == []
    async with sql.transaction():
        await sql.execute("SELECT count(*) FROM score_transactions")
        writers = Builds(definitions._ledger)  # another connection of the same process
        assert await writers.writers() == [], "who reads is not"
        await sql.execute("UPDATE heads SET built = 0 WHERE user_id = 0")
        found = await writers.writers()
        assert len(found) == 1 and await writers.writers(found) == found
    assert await builds.writers(found) == []
