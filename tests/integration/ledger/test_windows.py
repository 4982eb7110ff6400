"""Windows: which stretch of time holds a moment, decided once and by PostgreSQL alone."""

from __future__ import annotations

import asyncio
import itertools
import random
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

import asyncpg
import pytest

from tests.support.databases import BEGINNINGS, Databases

SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


async def define(sql: asyncpg.Connection, slug: str = "sprint", *, kinds: str = "{day,week}", **fields: str) -> int:
    """A leaderboard with a live rule; returns its id."""
    leaderboard = await sql.fetchval(
        "INSERT INTO leaderboards (slug, source, definition) SELECT $1, 1, '{}' RETURNING id", slug
    )
    await sql.execute("UPDATE leaderboards SET source = id WHERE id = $1", leaderboard)
    await sql.execute(
        "INSERT INTO rules (leaderboard, source, operator, ascending, kinds, definition, state)"
        " VALUES ($1, $1, 'sum', false, $2::text::text[], '{}', 'live')",
        leaderboard,
        kinds,
    )
    await redefine(sql, leaderboard, **fields)
    return int(leaderboard)


async def redefine(sql: asyncpg.Connection, leaderboard: int, **fields: str) -> None:
    for field, value in fields.items():
        await sql.execute(
            "UPDATE leaderboards SET definition = definition || jsonb_build_object($2::text, $3::text) WHERE id = $1",
            leaderboard,
            field,
            value,
        )


async def ensure(sql: asyncpg.Connection, leaderboard: int, kind: str, at: datetime) -> Any:
    return await sql.fetchrow("SELECT * FROM ensure_window($1, $2, $3)", leaderboard, kind, at)


async def stretch_of(sql: asyncpg.Connection, leaderboard: int, kind: str, at: str) -> tuple[str, datetime, datetime]:
    row = await ensure(sql, leaderboard, kind, moment(at))
    return row["name"], row["starts"], row["ends"]


async def revision(sql: asyncpg.Connection) -> int:
    return int(await sql.fetchval("SELECT revision FROM catalogue"))


# Instants --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("day", "zone", "instant"),
    [
        ("2025-11-02", "America/Havana", "2025-11-02 04:00"),  # midnight comes twice: the first counts
        ("2025-11-03", "America/Havana", "2025-11-03 05:00"),
        ("2025-03-09", "America/Havana", "2025-03-09 05:00"),  # there is no midnight: the day begins at one
        ("2011-12-29", "Pacific/Apia", "2011-12-29 10:00"),
        ("2011-12-30", "Pacific/Apia", None),  # the day does not exist
        ("2011-12-31", "Pacific/Apia", "2011-12-30 10:00"),
        ("2018-11-04", "America/Sao_Paulo", "2018-11-04 03:00"),
        ("2018-02-18", "America/Sao_Paulo", "2018-02-18 03:00"),  # yesterday's last hour came twice
        ("2010-11-07", "America/St_Johns", "2010-11-07 02:30"),  # one minute, then yesterday's last hour once more
        ("2010-03-14", "America/St_Johns", "2010-03-14 03:30"),
        ("1919-03-31", "America/Toronto", "1919-03-31 04:30"),  # begins at half past midnight
        ("1919-10-26", "America/Toronto", "1919-10-26 05:00"),
        ("2025-03-30", "Europe/Berlin", "2025-03-29 23:00"),
        ("2025-10-26", "Europe/Berlin", "2025-10-25 22:00"),
        ("2026-01-01", "Pacific/Kiritimati", "2025-12-31 10:00"),
        ("2026-01-01", "Etc/GMT+12", "2026-01-01 12:00"),
    ],
)
async def test_a_day_begins_at_the_first_instant_that_has_its_date(
    sql: asyncpg.Connection, day: str, zone: str, instant: str | None
) -> None:
    found = await sql.fetchval("SELECT first_instant($1, $2)", date.fromisoformat(day), zone)
    assert found == (moment(instant) if instant else None)


async def test_no_instant_before_it_has_its_date_in_any_zone(sql: asyncpg.Connection) -> None:
    of_postgresql = {name for (name,) in await sql.fetch("SELECT name FROM pg_timezone_names")}
    zones = sorted(of_postgresql & available_timezones())
    chosen = random.Random(6)
    for _ in range(400):
        name, day = chosen.choice(zones), date(1975, 1, 1) + timedelta(days=chosen.randrange(18_000))
        zone = ZoneInfo(name)
        found = await sql.fetchval("SELECT first_instant($1, $2)", day, name)
        midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
        around = [midnight + step * timedelta(minutes=15) for step in range(-64, 164)]
        dated = [at for at in around if at.astimezone(zone).date() == day]
        if found is None:
            assert not dated, (name, day)
            continue
        assert found.astimezone(zone).date() == day, (name, day)
        assert (found - SECOND).astimezone(zone).date() != day, (name, day)
        assert found <= dated[0] < found + timedelta(minutes=15), (name, day)


# Windows ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "fields", "at", "name", "starts", "ends"),
    [
        (
            "day",
            {"zone": "Europe/Berlin"},
            "2025-03-30 12:00",
            "day_of_2025_03_30",
            "2025-03-29 23:00",
            "2025-03-30 22:00",
        ),
        (
            "day",
            {"zone": "Europe/Berlin"},
            "2025-10-26 12:00",
            "day_of_2025_10_26",
            "2025-10-25 22:00",
            "2025-10-26 23:00",
        ),
        (
            "week",
            {"zone": "Europe/Berlin"},
            "2025-03-30 12:00",
            "week_of_2025_03_24",
            "2025-03-23 23:00",
            "2025-03-30 22:00",
        ),
        (
            "week",
            {"zone": "Europe/Berlin"},
            "2025-03-30 22:00",
            "week_of_2025_03_31",
            "2025-03-30 22:00",
            "2025-04-06 22:00",
        ),
        (
            "week",
            {"week_starts": "sunday"},
            "2025-03-30 00:00",
            "week_of_2025_03_30",
            "2025-03-30 00:00",
            "2025-04-06 00:00",
        ),
        (
            "week",
            {"week_starts": "saturday"},
            "2025-03-28 23:59",
            "week_of_2025_03_22",
            "2025-03-22 00:00",
            "2025-03-29 00:00",
        ),
        (
            "month",
            {"zone": "Europe/Berlin"},
            "2025-03-30 12:00",
            "month_of_2025_03",
            "2025-02-28 23:00",
            "2025-03-31 22:00",
        ),
        ("month", {}, "2024-02-29 23:59", "month_of_2024_02", "2024-02-01 00:00", "2024-03-01 00:00"),
        ("year", {"zone": "Asia/Tokyo"}, "2025-12-31 15:00", "year_of_2026", "2025-12-31 15:00", "2026-12-31 15:00"),
        (
            "day",
            {"zone": "America/Havana"},
            "2025-11-02 04:30",
            "day_of_2025_11_02",
            "2025-11-02 04:00",
            "2025-11-03 05:00",
        ),
        (
            "day",
            {"zone": "Pacific/Apia"},
            "2011-12-30 09:00",
            "day_of_2011_12_29",
            "2011-12-29 10:00",
            "2011-12-30 10:00",
        ),
        (
            "day",
            {"zone": "Pacific/Apia"},
            "2011-12-30 10:00",
            "day_of_2011_12_31",
            "2011-12-30 10:00",
            "2011-12-31 10:00",
        ),
        # its first day does not exist: the week has the others
        (
            "week",
            {"zone": "Pacific/Apia", "week_starts": "friday"},
            "2011-12-30 10:00",
            "week_of_2011_12_30",
            "2011-12-30 10:00",
            "2012-01-05 10:00",
        ),
        # the date is yesterday's, and today's window has begun a minute before
        (
            "day",
            {"zone": "America/St_Johns"},
            "2010-11-07 02:45",
            "day_of_2010_11_07",
            "2010-11-07 02:30",
            "2010-11-08 03:30",
        ),
        (
            "day",
            {"zone": "America/St_Johns"},
            "2010-11-07 02:29",
            "day_of_2010_11_06",
            "2010-11-06 02:30",
            "2010-11-07 02:30",
        ),
    ],
)
async def test_a_window_holds_its_moment_and_is_named_by_its_first_day(
    sql: asyncpg.Connection, kind: str, fields: dict[str, str], at: str, name: str, starts: str, ends: str
) -> None:
    leaderboard = await define(sql, **fields)
    assert await stretch_of(sql, leaderboard, kind, at) == (name, moment(starts), moment(ends))


async def test_all_time_has_no_ends_and_seasons_are_made_by_nobody_here(sql: asyncpg.Connection) -> None:
    leaderboard = await define(sql)
    row = await ensure(sql, leaderboard, "all_time", moment("2025-01-01 00:00"))
    assert row["name"] == "all_time"
    assert await sql.fetchval("SELECT starts = '-infinity' AND ends = 'infinity' FROM windows")
    assert await ensure(sql, leaderboard, "season", moment("2025-01-01 00:00")) is None
    await sql.execute(
        "INSERT INTO windows (leaderboard, kind, starts, ends, name) VALUES ($1, 'season', $2, $3, 'season_spring')",
        leaderboard,
        moment("2025-03-01 00:00"),
        moment("2025-06-01 00:00"),
    )
    assert (await ensure(sql, leaderboard, "season", moment("2025-03-01 00:00")))["name"] == "season_spring"
    assert await ensure(sql, leaderboard, "season", moment("2025-06-01 00:00")) is None, "half-open"


async def test_windows_of_a_kind_follow_each_other_without_gap_or_overlap(sql: asyncpg.Connection) -> None:
    chosen = random.Random(7)
    for number, zone in enumerate(("America/Havana", "Pacific/Apia", "America/St_Johns", "Asia/Amman")):
        leaderboard = await define(sql, f"b{number}", zone=zone)
        for kind in ("day", "week", "month"):
            for _ in range(60):  # in any order, as corrections of the past come
                at = moment("2010-01-01 00:00") + chosen.random() * timedelta(days=900)
                row = await ensure(sql, leaderboard, kind, at)
                assert row["starts"] <= at < row["ends"]
            rows = await sql.fetch(
                "SELECT name, starts, ends FROM windows WHERE leaderboard = $1 AND kind = $2 ORDER BY starts",
                leaderboard,
                kind,
            )
            for before, after in itertools.pairwise(rows):
                assert before["ends"] <= after["starts"], (zone, kind)
                assert (await ensure(sql, leaderboard, kind, before["ends"]))["starts"] == before["ends"], (zone, kind)
            assert all("_2" not in row["name"].removeprefix(f"{kind}_of_2") for row in rows if kind == "month")


async def test_several_at_once_make_one_window(sql: asyncpg.Connection, dsn: str) -> None:
    leaderboard = await define(sql)
    at = datetime.now(UTC)
    connections = [await asyncpg.connect(dsn) for _ in range(6)]
    try:
        before = await revision(sql)
        rows = await asyncio.gather(*(ensure(one, leaderboard, "day", at) for one in connections))
        assert len({row["id"] for row in rows}) == 1
        assert await revision(sql) == before + 1
    finally:
        for one in connections:
            await one.close()


async def test_the_revision_moves_with_windows_that_are_not_over(sql: asyncpg.Connection) -> None:
    leaderboard = await define(sql)
    before = await revision(sql)
    now = datetime.now(UTC)
    await ensure(sql, leaderboard, "day", now - timedelta(days=3))
    assert await revision(sql) == before, "of the past nobody needs to hear"
    await ensure(sql, leaderboard, "day", now)
    await ensure(sql, leaderboard, "day", now)
    assert await revision(sql) == before + 1


async def test_all_windows_of_a_batch_and_those_to_come_are_made_together(sql: asyncpg.Connection) -> None:
    first, second = await define(sql, "first"), await define(sql, "second", kinds="{month,season}")
    await sql.execute(
        "INSERT INTO rules (leaderboard, source, operator, ascending, kinds, definition, state)"
        " VALUES ($1, $2, 'best', false, '{year}', '{}', 'building')",
        second,
        first,
    )
    before = await revision(sql)
    now, past = datetime.now(UTC), moment("2020-02-03 12:00")
    assert await sql.fetchval("SELECT ensure_windows($1, $2)", [first, second, first], [now, now, past])
    assert await revision(sql) == before + 1, "once for all of them"
    names = await sql.fetch("SELECT leaderboard, name FROM windows WHERE starts < '2021-01-01' ORDER BY name")
    assert [tuple(row) for row in names] == [
        (first, "day_of_2020_02_03"), (first, "week_of_2020_02_03"), (second, "year_of_2020"),
    ]  # fmt: skip
    assert not await sql.fetchval("SELECT ensure_windows($1, $2)", [first, second], [now, now])
    assert await sql.fetchval("SELECT ensure_next_windows()")
    kinds = await sql.fetch("SELECT kind, count(*) FROM windows WHERE ends > now() GROUP BY kind ORDER BY kind")
    assert {kind: count for kind, count in kinds} == {"day": 2, "week": 2, "month": 2, "year": 2}
    assert not await sql.fetchval("SELECT ensure_next_windows()")
    assert await revision(sql) == before + 2


# Changes -----------------------------------------------------------------------------------------------------------


async def day_now(sql: asyncpg.Connection, leaderboard: int) -> Any:
    return await ensure(sql, leaderboard, "day", await sql.fetchval("SELECT clock_timestamp()"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Europe/Berlin", "America/New_York"),
        ("America/New_York", "Pacific/Kiritimati"),
        ("Pacific/Kiritimati", "Etc/GMT+12"),
        ("Asia/Kolkata", "Australia/Lord_Howe"),
        ("Europe/Berlin", "Europe/Paris"),
    ],
)
async def test_a_window_that_has_begun_is_stretched_to_the_new_zones_next_boundary(
    sql: asyncpg.Connection, old: str, new: str
) -> None:
    leaderboard = await define(sql, zone=old)
    await sql.execute("SELECT ensure_next_windows()")
    begun = await day_now(sql, leaderboard)
    await redefine(sql, leaderboard, zone=new)
    await sql.execute("SELECT stretch_windows($1, 'day'), stretch_windows($1, 'week')", leaderboard)
    after = await day_now(sql, leaderboard)
    assert (after["id"], after["starts"], after["name"]) == (begun["id"], begun["starts"], begun["name"])
    assert begun["ends"] <= after["ends"] < begun["ends"] + timedelta(days=1)
    local = after["ends"].astimezone(ZoneInfo(new))
    assert (local.hour, local.minute) == (0, 0), "the new rule's boundary"
    following = await ensure(sql, leaderboard, "day", after["ends"])
    assert following["starts"] == after["ends"]
    named = f"day_of_{local.year}_{local.month:02}_{local.day:02}"
    # Two zones may lie more than a day apart: then both windows have the same first day.
    assert following["name"] == (named if named != begun["name"] else named + "_2")


async def test_another_first_day_of_the_week_counts_from_the_running_weeks_end(sql: asyncpg.Connection) -> None:
    leaderboard = await define(sql)
    now = await sql.fetchval("SELECT clock_timestamp()")
    begun = await ensure(sql, leaderboard, "week", now)
    await redefine(sql, leaderboard, week_starts="thursday")
    await sql.execute("SELECT stretch_windows($1, 'week')", leaderboard)
    after = await ensure(sql, leaderboard, "week", now)
    assert (after["id"], after["ends"]) == (begun["id"], begun["ends"] + timedelta(days=3)), "to Thursday"
    following = await ensure(sql, leaderboard, "week", after["ends"])
    assert following["ends"] - following["starts"] == timedelta(days=7)


async def test_what_has_not_begun_gives_way_and_what_is_over_stays(sql: asyncpg.Connection) -> None:
    leaderboard = await define(sql, zone="Europe/Berlin")
    now = await sql.fetchval("SELECT clock_timestamp()")
    over, soon = await ensure(sql, leaderboard, "day", now - timedelta(days=1)), now + timedelta(days=2)
    unbegun = await ensure(sql, leaderboard, "day", soon)
    await redefine(sql, leaderboard, zone="UTC")
    await sql.execute("SELECT stretch_windows($1, 'day')", leaderboard)
    rows = {row["id"] for row in await sql.fetch("SELECT id FROM windows")}
    assert rows == {over["id"]}
    begun = await day_now(sql, leaderboard)
    assert begun["starts"] == max(over["ends"], begun["starts"]), "clipped by the one before"
    assert unbegun["id"] not in {row["id"] for row in await sql.fetch("SELECT id FROM windows")}


async def test_two_stretches_of_one_day_have_two_names(sql: asyncpg.Connection) -> None:
    """After a change of zone a correction of the past may find a piece of a day that has its window already."""
    leaderboard = await define(sql, zone="Europe/Berlin")
    whole = await stretch_of(sql, leaderboard, "day", "2025-06-10 12:00")
    await redefine(sql, leaderboard, zone="Pacific/Kiritimati")
    piece = await stretch_of(sql, leaderboard, "day", "2025-06-09 12:00")
    assert piece == ("day_of_2025_06_10_2", moment("2025-06-09 10:00"), whole[1])


async def test_a_database_that_comes_back_has_the_rows_that_migrations_leave(
    databases: Databases, sql: asyncpg.Connection
) -> None:
    tables = ("catalogue", "leaderboards", "rules")
    found = [await sql.fetch(f"SELECT to_jsonb(t) - 'created_at' - 'updated_at' FROM {table} t") for table in tables]
    await sql.execute(f"TRUNCATE {', '.join(tables)} RESTART IDENTITY CASCADE; {BEGINNINGS}")
    again = [await sql.fetch(f"SELECT to_jsonb(t) - 'created_at' - 'updated_at' FROM {table} t") for table in tables]
    assert found == again and all(len(rows) == 1 for rows in found)
