"""Definitions in the ledger: what is wanted becomes what is, one leaderboard at a time, wherever it was broken off."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from realtime.boards.definition_sets import check_together, read_definitions
from realtime.boards.definitions import DEFAULT_DEFINITION, Bounds, Definition, DefinitionError, Season
from realtime.boards.parsing import parse_definition
from realtime.errors import LedgerUnavailable, RealtimeError
from realtime.ledger.definitions import Definitions
from realtime.ledger.ledger import Ledger
from realtime.ledger.plans import Step
from tests.support.databases import MakeUsers
from tests.support.waiting import PATIENCE

SPRINT = parse_definition("sprint", {"operator": "best", "order": "ascending", "windows": ["all_time", "day"]})
LAST = parse_definition("sprint-last", {"of": "sprint", "operator": "last"})


@pytest.fixture
def definitions(ledger: Ledger) -> Definitions:
    return Definitions(ledger)


async def show(sql: asyncpg.Connection) -> None:
    """What is being made is shown, as if it were built."""
    await sql.execute(
        "UPDATE rules r SET state = CASE WHEN r.id = l.next_rule THEN 'live' ELSE 'retired' END"
        " FROM leaderboards l WHERE l.id = r.leaderboard AND l.next_rule IS NOT NULL;"
        " UPDATE leaderboards SET rule = next_rule, next_rule = NULL WHERE next_rule IS NOT NULL"
    )


async def revision(sql: asyncpg.Connection) -> int:
    return int(await sql.fetchval("SELECT revision FROM catalogue"))


def changed(definition: Definition, **fields: Any) -> Definition:
    return parse_definition(definition.slug, {**definition.as_json(), **fields})


async def test_a_deployment_begins_with_default_alone(definitions: Definitions) -> None:
    (one,) = (await definitions.all()).values()
    assert (one.slug, one.id, one.rule, one.source) == ("default", 1, 1, 1)
    assert one.definition == one.shown == DEFAULT_DEFINITION
    assert (one.is_building, one.progress, one.failure) == (False, 1.0, None)


async def test_zones_are_those_of_postgresql(definitions: Definitions) -> None:
    zones = await definitions.zones()
    assert {"Europe/Berlin", "UTC", "America/Havana"} <= zones and "UTC+3" not in zones


async def test_a_new_leaderboard_is_made_of_its_log_and_one_of_it_too(
    definitions: Definitions, sql: asyncpg.Connection
) -> None:
    before = await revision(sql)
    change = await definitions.put(SPRINT, actor="admin")
    assert change is not None and change.before is None
    await definitions.put(LAST, actor="admin")
    everything = await definitions.all()
    sprint, last = everything["sprint"], everything["sprint-last"]
    assert (sprint.source, last.source, last.source_slug) == (sprint.id, sprint.id, "sprint")
    assert (sprint.rule, sprint.coming, sprint.progress) == (None, SPRINT, 0.0)
    rules = await sql.fetch("SELECT * FROM rules WHERE state = 'building' ORDER BY leaderboard")
    assert [(r["operator"], r["ascending"], r["kinds"], r["source"]) for r in rules] == [
        ("best", True, ["all_time", "day"], sprint.id),
        ("last", False, ["all_time"], sprint.id),
    ]
    assert await sql.fetchval("SELECT round FROM leaderboards WHERE id = $1", sprint.id) == 2
    assert await revision(sql) == before + 2


async def test_the_same_again_changes_nothing(definitions: Definitions, sql: asyncpg.Connection) -> None:
    await definitions.put(SPRINT, actor="admin")
    before = await sql.fetch("SELECT * FROM rules"), await revision(sql)
    assert await definitions.put(SPRINT, actor="admin") is None
    await show(sql)
    assert await definitions.put(SPRINT, actor="admin") is None
    assert await revision(sql) == before[1]
    assert await sql.fetchval("SELECT count(*) FROM rules") == len(before[0])


async def test_what_needs_no_other_standings_counts_at_once(definitions: Definitions, sql: asyncpg.Connection) -> None:
    await definitions.put(SPRINT, actor="admin")
    await show(sql)
    wanted = changed(SPRINT, title="Sprint!", windows=["all_time"], bounds={"min": 5}, ranks="dense")
    change = await definitions.put(wanted, actor="admin")
    assert change is not None and (change.fields, change.anew) == (["title", "windows", "ranks", "bounds"], ())
    one = await definitions.one("sprint")
    assert (one.definition, one.shown, one.is_building) == (wanted, wanted, False)
    assert await sql.fetchval("SELECT kinds FROM rules WHERE id = $1", one.rule) == ["all_time"]


async def test_a_window_that_comes_back_is_made_anew(definitions: Definitions, sql: asyncpg.Connection) -> None:
    """Its rows were not kept meanwhile."""
    await definitions.put(SPRINT, actor="admin")
    await show(sql)
    await definitions.put(changed(SPRINT, windows=["all_time"]), actor="admin")
    change = await definitions.put(SPRINT, actor="admin")
    assert change is not None and change.anew == ("windows",)
    assert (await definitions.one("sprint")).is_building


async def test_a_change_during_a_build_replaces_it(definitions: Definitions, sql: asyncpg.Connection) -> None:
    await definitions.put(SPRINT, actor="admin")
    await show(sql)
    await definitions.put(changed(SPRINT, operator="last"), actor="admin")
    first = await definitions.one("sprint")
    # What the build is right for: it goes on.
    wanted = changed(SPRINT, operator="last", title="Last", bounds={"max": 9})
    await definitions.put(wanted, actor="admin")
    second = await definitions.one("sprint")
    assert (second.next_rule, second.coming) == (first.next_rule, wanted)
    assert second.shown is not None
    assert (second.shown.title, second.shown.bounds) == ("sprint", wanted.bounds), "what is shown looks as it did"
    # What it is not right for.
    await definitions.put(changed(SPRINT, operator="sum"), actor="admin")
    third = await definitions.one("sprint")
    assert third.next_rule not in (None, first.next_rule)
    assert await sql.fetchval("SELECT state FROM rules WHERE id = $1", first.next_rule) == "retired"
    # Back to what is shown: nothing is to be made.
    await definitions.put(SPRINT, actor="admin")
    fourth = await definitions.one("sprint")
    assert (fourth.next_rule, fourth.rule, fourth.shown) == (None, first.rule, SPRINT)
    assert await sql.fetchval("SELECT count(*) FROM rules WHERE state = 'building'") == 0


async def test_builds_of_one_source_begin_anew_together(definitions: Definitions, sql: asyncpg.Connection) -> None:
    """Heads that are marked for one of them are not for the next."""
    await definitions.put(SPRINT, actor="admin")
    await definitions.put(LAST, actor="admin")
    everything = await definitions.all()
    numbers = [everything[slug].next_rule for slug in ("sprint", "sprint-last")]
    assert await sql.fetch("SELECT state FROM rules WHERE id > 1 AND id <> ALL ($1::int[])", numbers) == [("retired",)]
    assert await sql.fetchval("SELECT count(*) FROM rules WHERE state = 'building'") == 2


async def test_metadata_that_a_source_shows_is_shown_by_those_of_it(
    definitions: Definitions, sql: asyncpg.Connection
) -> None:
    await definitions.put(SPRINT, actor="admin")
    await definitions.put(LAST, actor="admin")
    await show(sql)
    change = await definitions.put(changed(SPRINT, metadata=True), actor="admin")
    assert change is not None and change.anew == ("metadata",)
    assert [one.is_building for one in (await definitions.all()).values()] == [False, True, True]


async def test_what_could_not_be_made_is_tried_again(definitions: Definitions, sql: asyncpg.Connection) -> None:
    await definitions.put(SPRINT, actor="admin")
    await show(sql)
    wanted = changed(SPRINT, operator="sum")
    await definitions.put(wanted, actor="admin")
    await sql.execute("UPDATE rules SET state = 'retired', failure = 'Too much.' WHERE state = 'building'")
    await sql.execute("UPDATE leaderboards SET next_rule = NULL")
    one = await definitions.one("sprint")
    assert (one.failure, one.definition, one.shown) == ("Too much.", wanted, SPRINT)
    now = datetime.now(UTC)
    assert [change.slug for change in (await definitions.plan({"sprint": wanted}, now)).changed] == ["sprint"]
    assert await definitions.put(wanted, actor="admin") is not None
    assert ((await definitions.one("sprint")).failure, (await definitions.one("sprint")).is_building) == (None, True)
    await definitions.put(SPRINT, actor="admin")
    assert (await definitions.plan({"sprint": SPRINT}, now)).is_empty


# Removing ------------------------------------------------------------------------------------------------------------


async def test_a_removed_leaderboard_comes_back_with_its_number_and_what_was_sent(
    definitions: Definitions, sql: asyncpg.Connection
) -> None:
    await definitions.put(SPRINT, actor="admin")
    await show(sql)
    before = await definitions.one("sprint")
    await sql.execute(
        "INSERT INTO score_transactions (source, user_id, submission_id, score, created_at)"
        " VALUES ($1, 7, 'a', 5, now())",
        before.id,
    )
    await definitions.remove("sprint", actor="admin")
    assert list(await definitions.all()) == ["default"]
    assert await sql.fetchval("SELECT count(*) FROM score_transactions") == 1
    assert await sql.fetchval("SELECT state FROM rules WHERE id = $1", before.rule) == "retired"
    for again in (
        definitions.remove("sprint", actor="x"),
        definitions.one("sprint"),
        definitions.rebuild("sprint", actor="x"),
    ):
        with pytest.raises(RealtimeError, match="no leaderboard 'sprint'") as caught:
            await again
        assert caught.value.code == "unknown_leaderboard"
    await definitions.put(SPRINT, actor="admin")
    after = await definitions.one("sprint")
    assert after.id == before.id and after.rule is None and after.is_building


async def test_a_source_stays_while_others_are_of_it_and_default_for_ever(
    definitions: Definitions, sql: asyncpg.Connection
) -> None:
    await definitions.put(SPRINT, actor="admin")
    await definitions.put(LAST, actor="admin")
    with pytest.raises(RealtimeError, match="sprint-last ranks the submissions of sprint") as caught:
        await definitions.remove("sprint", actor="admin")
    assert caught.value.code == "conflict"
    with pytest.raises(RealtimeError) as caught:
        await definitions.remove("default", actor="admin")
    assert caught.value.code == "forbidden"
    with pytest.raises(DefinitionError, match="sprint takes no submissions"):
        await definitions.put(Definition("sprint", "Sprint", of="default"), actor="admin")
    await definitions.remove("sprint-last", actor="admin")
    await definitions.remove("sprint", actor="admin")
    with pytest.raises(DefinitionError, match="There is no leaderboard sprint"):
        await definitions.put(LAST, actor="admin")


async def test_one_that_ranks_others_submissions_from_now_on_is_made_from_their_log(
    definitions: Definitions, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    """It is away meanwhile: its rows lie elsewhere."""
    (banned,) = await make_users(1)
    await definitions.put(SPRINT, actor="admin")
    await definitions.put(Definition("other", "Other"), actor="admin")
    await show(sql)
    other = await definitions.one("other")
    await sql.execute("INSERT INTO bans VALUES ($1, $2)", banned, other.id)
    change = await definitions.put(Definition("other", "Other", of="sprint"), actor="admin")
    assert change is not None and change.anew == ("of",)
    moved = await definitions.one("other")
    sprint = await definitions.one("sprint")
    assert (moved.source, moved.rule, moved.is_building) == (sprint.id, None, True)
    assert await sql.fetchval("SELECT source FROM rules WHERE id = $1", moved.next_rule) == sprint.id
    assert await sql.fetch("SELECT source, user_id, hidden, hidden_on FROM heads WHERE hidden_on <> '{}'") == [
        (sprint.id, banned, False, [other.id])
    ]
    await definitions.put(Definition("other", "Other", of="default"), actor="admin")
    assert await sql.fetchval("SELECT hidden_on FROM user_total_scores WHERE user_id = $1", banned) == [other.id]


async def test_whoever_is_banned_is_so_on_a_new_leaderboard(
    definitions: Definitions, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    banned, deleted, of_default, _ = await make_users(4)
    await sql.execute(
        "INSERT INTO user_total_scores (user_id, hidden) SELECT unnest($1::bigint[]), true",
        [banned, deleted, of_default],
    )
    await sql.execute("INSERT INTO bans VALUES ($1, 0), ($2, 1)", banned, of_default)
    await sql.execute("UPDATE users SET deleted_at = now() WHERE id = $1", deleted)
    await definitions.put(SPRINT, actor="admin")
    assert await sql.fetch("SELECT user_id, hidden FROM heads ORDER BY user_id") == [(banned, True), (deleted, True)]


async def test_whoever_is_banned_no_more_is_shown_on_a_leaderboard_that_is_back(
    definitions: Definitions, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    """Bans are kept up for sources that there are, and where a leaderboard ranks submissions now."""
    everywhere, here = await make_users(2)
    other = Definition("other", "Other")
    await definitions.put(SPRINT, actor="admin")
    await definitions.put(other, actor="admin")
    number = (await definitions.one("other")).id
    await sql.execute("INSERT INTO bans VALUES ($1, 0), ($2, $3)", everywhere, here, number)
    for of in ("sprint", "default", None):
        await definitions.put(Definition("other", "Other", of=of), actor="admin")
    hidden = await sql.fetch("SELECT user_id FROM heads WHERE source = $1 AND hidden ORDER BY user_id", number)
    assert hidden == [(everywhere,), (here,)]
    await definitions.remove("other", actor="admin")
    await sql.execute("DELETE FROM bans")
    for of in (None, "sprint", "default"):
        await definitions.put(Definition("other", "Other", of=of), actor="admin")
        assert await sql.fetchval("SELECT count(*) FROM heads WHERE source = $1 AND hidden", number) == 0
    assert await sql.fetchval("SELECT count(*) FROM heads WHERE hidden_on <> '{}'") == 0
    assert await sql.fetchval("SELECT count(*) FROM user_total_scores WHERE hidden_on <> '{}'") == 0


async def test_nobody_is_hidden_while_a_leaderboard_is_defined(
    definitions: Definitions, sql: asyncpg.Connection
) -> None:
    """Or it would lack the head of who is banned meanwhile: see the migration."""
    async with sql.transaction():
        await sql.execute("SELECT while_sources_stay()")
        defining = asyncio.ensure_future(definitions.put(SPRINT, actor="admin"))
        async with asyncio.timeout(PATIENCE):
            while not await sql.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"):
                await sql.execute("SELECT pg_sleep(0.01)")
        assert not defining.done()
    assert await defining is not None


# default -------------------------------------------------------------------------------------------------------------


async def test_default_gets_further_windows_and_keeps_its_own_tables(
    definitions: Definitions, sql: asyncpg.Connection
) -> None:
    wanted = parse_definition("default", {"windows": ["month"], "title": "Points"})
    await definitions.put(wanted, actor="admin")
    one = await definitions.one("default")
    assert (one.rule, one.coming) == (1, wanted)
    assert await sql.fetchval("SELECT kinds FROM rules WHERE id = $1", one.next_rule) == ["month"]
    await show(sql)
    await definitions.put(DEFAULT_DEFINITION, actor="admin")
    one = await definitions.one("default")
    assert (one.shown, one.is_building) == (DEFAULT_DEFINITION, False)
    assert await sql.fetchval("SELECT kinds FROM rules WHERE id = $1", one.rule) == []


# Windows -------------------------------------------------------------------------------------------------------------


async def test_the_windows_of_now_and_next_are_there_at_once(definitions: Definitions, sql: asyncpg.Connection) -> None:
    await definitions.put(changed(SPRINT, windows=["all_time", "day", "year"]), actor="admin")
    found = await sql.fetch("SELECT kind, count(*) FROM windows WHERE ends > now() GROUP BY kind ORDER BY kind")
    assert found == [("all_time", 1), ("day", 2), ("year", 2)]


async def test_another_zone_stretches_the_running_windows(definitions: Definitions, sql: asyncpg.Connection) -> None:
    await definitions.put(SPRINT, actor="admin")
    await sql.execute("SELECT ensure_next_windows()")
    (before,) = await sql.fetch("SELECT * FROM windows WHERE kind = 'day' AND starts <= now() AND ends > now()")
    await definitions.put(changed(SPRINT, zone="America/New_York"), actor="admin")
    (after,) = await sql.fetch("SELECT * FROM windows WHERE kind = 'day' AND starts <= now() AND ends > now()")
    assert (after["id"], after["starts"]) == (before["id"], before["starts"])
    assert after["ends"].hour in (4, 5) and timedelta() < after["ends"] - before["ends"] < timedelta(days=1)


HOUR = timedelta(hours=1)


def seasons(*given: tuple[str, datetime, datetime], **fields: Any) -> Definition:
    made = tuple(Season(*season) for season in given)
    return Definition("sprint", "Sprint", windows=("all_time", "season"), seasons=made, **fields)


async def rows(sql: asyncpg.Connection) -> list[tuple[Any, ...]]:
    found = await sql.fetch("SELECT name, starts, ends FROM windows WHERE kind = 'season' ORDER BY starts")
    return [(name.removeprefix("season_"), starts, ends) for name, starts, ends in found]


async def test_seasons_are_rows_that_move_until_they_begin(definitions: Definitions, sql: asyncpg.Connection) -> None:
    now = (await sql.fetchval("SELECT now()")).replace(microsecond=0)
    old, running = ("old", now - 9 * HOUR, now - 8 * HOUR), ("running", now - HOUR, now + HOUR)
    first, second = ("first", now + 2 * HOUR, now + 3 * HOUR), ("second", now + 3 * HOUR, now + 4 * HOUR)
    await definitions.put(seasons(old, running, first, second), actor="admin")
    assert await rows(sql) == [old, running, first, second]
    await show(sql)
    # The two to come exchange their places, and the one that runs ends earlier: no standings are needed for that.
    first, second = ("first", second[1], second[2]), ("second", first[1], first[2])
    running = ("running", running[1], now + HOUR / 2)
    await definitions.put(seasons(old, running, second, first), actor="admin")
    assert await rows(sql) == [old, running, second, first]
    await definitions.put(seasons(old, running), actor="admin")
    assert await rows(sql) == [old, running]
    assert not (await definitions.one("sprint")).is_building
    # One of the past is made from the log.
    past = ("past", now - 20 * HOUR, now - 19 * HOUR)
    change = await definitions.put(seasons(past, old, running), actor="admin")
    assert change is not None and change.anew == ("seasons",)
    assert await rows(sql) == [past, old, running]


async def test_of_a_season_that_has_been_nothing_moves(definitions: Definitions, sql: asyncpg.Connection) -> None:
    now = (await sql.fetchval("SELECT now()")).replace(microsecond=0)
    old, running = ("old", now - 9 * HOUR, now - 8 * HOUR), ("running", now - HOUR, now + HOUR)
    await definitions.put(seasons(old, running), actor="admin")
    with pytest.raises(DefinitionError) as caught:
        await definitions.put(seasons(("old", old[1], now - 7 * HOUR), ("running", now - 2 * HOUR, now)), actor="admin")
    assert [problem.wrong for problem in caught.value.problems] == [
        "old has ended: its end is fixed.",
        "running has begun: its start is fixed.",
        "running cannot end at a moment that may have scores.",
    ]
    assert {problem.field for problem in caught.value.problems} == {"sprint.seasons"}
    with pytest.raises(DefinitionError, match="old has begun, and stays"):
        await definitions.put(seasons(running), actor="admin")
    assert await rows(sql) == [old, running]
    assert (await definitions.one("sprint")).definition == seasons(old, running), "nothing was half done"
    await definitions.put(Definition("sprint", "Sprint"), actor="admin")
    assert await rows(sql) == [old, running], "they are not shown, and stay"
    with pytest.raises(DefinitionError, match="stays"):
        await definitions.put(seasons(running), actor="admin")


# Sets ----------------------------------------------------------------------------------------------------------------

FIRST = '[a]\n[b]\n[c]\nof = "a"\n[d]\nof = "b"\n'
SECOND = '[a]\nof = "b"\n[b]\nwindows = ["day"]\n[d]\n[default]\ntitle = "Points"\n'


async def apply(definitions: Definitions, text: str, *, prune: bool = False, **more: Any) -> None:
    await definitions.apply(read_definitions(text), actor="admin", prune=prune, **more)


async def test_a_plan_says_what_applying_does_and_applying_does_it(
    definitions: Definitions, sql: asyncpg.Connection
) -> None:
    now = datetime.now(UTC)
    plan = await definitions.plan(read_definitions(FIRST), now)
    assert [change.slug for change in plan.added] == ["a", "b", "c", "d"]
    await apply(definitions, FIRST)
    assert (await definitions.plan(read_definitions(FIRST), now)).is_empty
    await show(sql)
    wanted = read_definitions(SECOND)
    plan = await definitions.plan(wanted, now, prune=True)
    assert [(change.slug, change.fields, change.anew) for change in plan.changed] == [
        ("a", ["of"], ("of",)), ("b", ["windows"], ("windows",)), ("d", ["of"], ("of",)), ("default", ["title"], ()),
    ]  # fmt: skip
    assert (plan.added, plan.removed, plan.left) == ((), ("c",), ())
    assert (await definitions.plan(wanted, now)).left == ("c",)
    with pytest.raises(DefinitionError, match="a takes no submissions"):
        await apply(definitions, SECOND)
    assert (await definitions.plan(read_definitions(FIRST), now)).is_empty, "nothing was done"
    told: list[Step] = []
    await apply(definitions, SECOND, prune=True, told=told.append)
    assert sorted(step.slug for step in told) == ["a", "b", "c", "d", "default"]
    assert (await definitions.plan(wanted, now, prune=True)).is_empty
    found = {slug: one.definition for slug, one in (await definitions.all()).items()}
    assert found == wanted


@pytest.mark.parametrize("after", range(5))
async def test_an_apply_that_was_broken_off_goes_on_when_it_is_repeated(
    definitions: Definitions, after: int, sql: asyncpg.Connection
) -> None:
    await apply(definitions, FIRST)
    await show(sql)
    done = 0

    def break_off(step: Step) -> None:
        nonlocal done
        done += 1
        if done == after + 1:
            raise LedgerUnavailable("killed")

    with pytest.raises(LedgerUnavailable):
        await apply(definitions, SECOND, prune=True, told=break_off)
    there = {slug: one.definition for slug, one in (await definitions.all()).items()}
    assert not check_together(there, there), "what there is goes together at any point"
    await apply(definitions, SECOND, prune=True)
    found = {slug: one.definition for slug, one in (await definitions.all()).items()}
    assert found == read_definitions(SECOND)


async def test_what_is_not_wanted_stays_unless_it_is_to_be_removed(definitions: Definitions) -> None:
    await apply(definitions, FIRST)
    await apply(definitions, "[e]\n")
    assert list(await definitions.all()) == ["default", "a", "b", "c", "d", "e"]
    await apply(definitions, "[e]\n", prune=True)
    assert list(await definitions.all()) == ["default", "e"]


async def test_two_that_define_at_once_wait_for_each_other(ledger: Ledger, sql: asyncpg.Connection) -> None:
    one, other = Definitions(ledger), Definitions(ledger)
    await asyncio.gather(*(which.put(SPRINT, actor="admin") for which in (one, other)), one.put(LAST, actor="admin"),
                         return_exceptions=True)  # fmt: skip
    assert await sql.fetchval("SELECT count(*) FROM leaderboards WHERE slug = 'sprint'") == 1
    assert await sql.fetchval("SELECT count(*) FROM rules WHERE state = 'building' AND source = leaderboard") == 1


async def test_who_changed_what_is_in_the_audit_log(definitions: Definitions, sql: asyncpg.Connection) -> None:
    await definitions.put(SPRINT, actor="user:7")
    await definitions.rebuild("sprint", actor="operator:me")
    await definitions.remove("sprint", actor="operator:me")
    entries = await sql.fetch("SELECT actor, action, detail FROM audit ORDER BY id")
    assert [(actor, action) for actor, action, _ in entries] == [
        ("user:7", "define"), ("operator:me", "rebuild"), ("operator:me", "remove"),
    ]  # fmt: skip
    assert json.loads(entries[0]["detail"])["definition"] == SPRINT.as_json()


async def test_a_rebuild_makes_the_same_standings_anew(definitions: Definitions, sql: asyncpg.Connection) -> None:
    await definitions.put(SPRINT, actor="admin")
    await show(sql)
    before = await definitions.one("sprint")
    await definitions.rebuild("sprint", actor="admin")
    after = await definitions.one("sprint")
    assert (after.rule, after.coming, after.shown) == (before.rule, SPRINT, SPRINT)
    assert after.is_building


async def test_bounds_beyond_what_a_table_keeps_are_those_of_scores(definitions: Definitions) -> None:
    wide = changed(SPRINT, bounds={"min": -(2**53) + 1, "max": 2**53 - 1})
    await definitions.put(wide, actor="admin")
    assert (await definitions.one("sprint")).definition.bounds == Bounds(-(2**53) + 1, 2**53 - 1)
