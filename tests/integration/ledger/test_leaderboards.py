"""Leaderboards: what one process knows of all leaderboards is what the ledger has, at one moment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from time import perf_counter
from typing import Any

import asyncpg
import pytest

from realtime.boards.board import ALL_TIME
from realtime.boards.catalogue import Catalogue
from realtime.boards.parsing import parse_definition
from realtime.errors import RealtimeError
from realtime.ledger.definitions import Definitions
from realtime.ledger.leaderboards import Leaderboards
from realtime.ledger.ledger import Ledger


@pytest.fixture
def definitions(ledger: Ledger) -> Definitions:
    return Definitions(ledger)


@pytest.fixture
def directory(ledger: Ledger, definitions: Definitions) -> Leaderboards:
    return Leaderboards(ledger, definitions, partitions=16)


async def refreshed(directory: Leaderboards) -> Catalogue:
    await directory.refresh()
    return directory.current


async def define(definitions: Definitions, slug: str, **fields: Any) -> None:
    await definitions.put(parse_definition(slug, fields), actor="test")


async def show(sql: asyncpg.Connection) -> None:
    """What is being made is shown, as if it were built."""
    await sql.execute(
        "UPDATE rules r SET state = CASE WHEN r.id = l.next_rule THEN 'live' ELSE 'retired' END"
        " FROM leaderboards l WHERE l.id = r.leaderboard AND l.next_rule IS NOT NULL;"
        " UPDATE leaderboards SET rule = next_rule, next_rule = NULL WHERE next_rule IS NOT NULL;"
        " UPDATE catalogue SET revision = revision + 1; SELECT ensure_next_windows()"
    )


async def test_of_a_deployment_without_definitions_it_is_the_published_one(directory: Leaderboards) -> None:
    loaded = await refreshed(directory)
    assert list(loaded.leaderboards) == ["default"]
    assert loaded.default.partition == "" and loaded.is_published_alone and not loaded.making
    assert loaded.live_boards(datetime.now(UTC))[0] == ALL_TIME


async def test_it_has_what_is_shown_what_is_being_made_and_the_windows_around_now(
    definitions: Definitions, directory: Leaderboards, sql: asyncpg.Connection
) -> None:
    await define(definitions, "sprint", windows=["all_time", "day"], metadata=True)
    await define(definitions, "sprint-last", of="sprint", operator="last")
    first = await refreshed(directory)
    assert not first.leaderboards["sprint"].is_live
    assert [making.leaderboard.slug for making in first.making.values()] == ["sprint", "sprint-last"]
    with pytest.raises(RealtimeError, match="being made"):
        first.resolve("sprint:all_time", datetime.now(UTC))
    await show(sql)
    await sql.execute(
        "SELECT ensure_window(l.id, 'day', now() - n * interval '1 day') FROM leaderboards l, generate_series(1, 9) n"
        " WHERE slug = 'sprint'"
    )
    await directory.look()
    second = directory.current
    await directory.look()
    assert directory.current is second and second is not first
    now = await sql.fetchval("SELECT now()")
    sprint, last = second.leaderboards["sprint"], second.leaderboards["sprint-last"]
    assert sprint.is_live and sprint.partition == last.partition == directory.partition_of("sprint") != ""
    assert last.definition.metadata, "what its source's submissions bring along"
    days = [window.name for window in second.of(sprint, "day")]
    today = now.date()
    assert days == [(today + timedelta(n)).strftime("day_of_%Y_%m_%d") for n in (-2, -1, 0, 1)]
    board = second.resolve("sprint:current_day", now)
    assert board.window.key == await sql.fetchval("SELECT id FROM windows WHERE name = $1", days[2])
    assert second.resolve("sprint:previous_day", now).id == f"sprint:{days[1]}"
    assert second.is_published_alone
    # A change: what is shown stays, what is to come lies beside it.
    await define(definitions, "sprint", windows=["all_time", "week"], operator="best", metadata=True)
    third = await refreshed(directory)
    assert third.leaderboards["sprint"].definition.windows == ("all_time", "day")
    (making,) = third.making.values()
    assert making.leaderboard.definition.operator == "best"
    assert (making.leaderboard.rule, making.leaderboard.next_rule) == (
        sprint.rule,
        third.leaderboards["sprint"].next_rule,
    )


async def test_whoever_is_of_default_is_counted_beside_the_published_boards(
    definitions: Definitions, directory: Leaderboards, sql: asyncpg.Connection
) -> None:
    """Also while it is being made: a batch that did not know of it would lose its rows."""
    await define(definitions, "best", of="default", operator="best")
    assert not (await refreshed(directory)).is_published_alone
    assert directory.current.leaderboards["best"].partition == ""
    await show(sql)
    assert not (await refreshed(directory)).is_published_alone
    await definitions.remove("best", actor="test")
    assert (await refreshed(directory)).is_published_alone
    await define(definitions, "default", windows=["day"])
    assert not (await refreshed(directory)).is_published_alone


async def test_a_season_that_is_not_shown_yet_has_no_board(
    definitions: Definitions, directory: Leaderboards, sql: asyncpg.Connection
) -> None:
    now = (await sql.fetchval("SELECT now()")).replace(microsecond=0)

    def season(name: str, hours: int) -> dict[str, str]:
        starts = now + timedelta(hours=hours)
        return {"id": name, "starts": starts.isoformat(), "ends": (starts + timedelta(hours=2)).isoformat()}

    await define(definitions, "sprint", windows=["season"], seasons=[season("now", -1)])
    await show(sql)
    await define(definitions, "sprint", windows=["season"], seasons=[season("before", -3), season("now", -1)])
    catalogue = await refreshed(directory)
    assert [window.name for window in catalogue.windows[2]] == ["season_now"]
    (making,) = catalogue.making.values()
    assert [window.name for window in making.windows] == ["season_before", "season_now"]
    with pytest.raises(RealtimeError, match="no such season"):
        await directory.find("sprint:season_before", now)
    await show(sql)
    await refreshed(directory)
    assert (await directory.find("sprint:season_before", now)).starts == now - timedelta(hours=3)
    assert directory.resolve("sprint:previous_season", now).id == "sprint:season_before"


async def test_a_window_of_long_ago_is_asked_for(
    definitions: Definitions, directory: Leaderboards, sql: asyncpg.Connection
) -> None:
    await define(definitions, "sprint", windows=["all_time", "day", "week"], zone="Europe/Berlin")
    await show(sql)
    now = await sql.fetchval("SELECT now()")
    first = datetime(2025, 3, 28, 12, tzinfo=UTC)
    await sql.execute("SELECT ensure_window(2, 'day', $1)", first)
    # Which leaderboards there are, this process has not heard yet.
    found = await directory.find("sprint:day_of_2025_03_28", now)
    assert (found.starts, found.ends) == (datetime(2025, 3, 27, 23, tzinfo=UTC), datetime(2025, 3, 28, 23, tzinfo=UTC))
    # A day without a submission, over a change of clocks.
    empty = await directory.find("sprint:day_of_2025_03_30", now)
    assert (empty.starts, empty.ends) == (datetime(2025, 3, 29, 23, tzinfo=UTC), datetime(2025, 3, 30, 22, tzinfo=UTC))
    assert (await directory.find("sprint:day_of_2025_03_30", now)).window == empty.window
    for text, says in [
        ("sprint:day_of_2025_03_27", "no scores that old"),
        ("sprint:day_of_2999_01_01", "has not begun"),
        ("sprint:week_of_2025_04_01", "use sprint:week_of_2025_03_31"),
        ("sprint:month_of_2025_04", "sprint has sprint:all_time"),
        ("sprint:day_of_2025_02_30", "calendar"),
        ("sprint:season_x", "sprint has"),
        ("nobody:all_time", "no such board"),
        ("week_of_2025_04_01", "Monday"),
        (7, "no such board"),
    ]:
        with pytest.raises(RealtimeError, match=says) as caught:
            await directory.find(text, now)
        assert caught.value.code == "unknown_board"


async def test_a_ledger_that_was_restored_is_believed(directory: Leaderboards, sql: asyncpg.Connection) -> None:
    await sql.execute("UPDATE catalogue SET revision = 9")
    await directory.look()
    await sql.execute("UPDATE catalogue SET revision = 3")
    await directory.look()
    assert directory.current.revision == 3


async def test_a_thousand_leaderboards_are_read_in_two_seconds(
    definitions: Definitions, directory: Leaderboards, sql: asyncpg.Connection
) -> None:
    await define(definitions, "sprint", windows=["all_time", "day", "week", "month"])
    await sql.execute(
        "INSERT INTO leaderboards (id, slug, source, definition, rule)"
        " SELECT n, 'l' || n, n, definition, n FROM leaderboards, generate_series(100, 1099) n WHERE slug = 'sprint';"
        " INSERT INTO rules (id, leaderboard, source, operator, ascending, kinds, definition, state)"
        " SELECT n, n, n, 'sum', false, kinds, definition, 'live' FROM rules, generate_series(100, 1099) n"
        " WHERE state = 'building'; SELECT ensure_next_windows()"
    )
    began = perf_counter()
    loaded = await refreshed(directory)
    assert perf_counter() - began < 2
    assert len(loaded.leaderboards) == 1002 and sum(map(len, loaded.windows.values())) == 10_000
