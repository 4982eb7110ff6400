"""Definitions: every mistake is told at once, and what is right is the same after it was written down."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.boards.definition_sets import parse_definitions, read_definitions, written_definition
from realtime.boards.definitions import (
    DEFAULT_DEFINITION,
    KINDS,
    OPERATORS,
    ORDERS,
    RANKS,
    SCORE_MAX,
    TIES,
    WEEKDAYS,
    Bounds,
    Definition,
    DefinitionError,
    Format,
    Problem,
    Season,
    changes,
    needs_new_standings,
)
from realtime.boards.parsing import parse_definition
from realtime.validation import INT_MAX, INT_MIN

ZONES = {"UTC", "Europe/Berlin", "America/Havana", "Etc/GMT+3", "US/Eastern"}

CONTRACT = """
[sprint]
title = "Sprint, any %"
operator = "best"
order = "ascending"
windows = ["all_time", "day", "week", "season"]
zone = "Europe/Berlin"
week_starts = "monday"
ties = "first"
ranks = "competition"
format = { kind = "duration", unit = "ms" }
bounds = { min = 1000, max = 3600000 }
submit = "players"
visible = "public"
metadata = true
[[sprint.seasons]]
id = "spring_26"
starts = 2026-03-01T00:00:00+01:00
ends = 2026-06-01T00:00:00+02:00
[sprint-last]
of = "sprint"
operator = "last"
"""


def problems(slug: object, fields: object) -> list[Problem]:
    with pytest.raises(DefinitionError) as caught:
        parse_definition(slug, fields, zones=ZONES)
    assert caught.value.code == "bad_definition"
    for problem in caught.value.problems:
        assert problem.wrong.endswith(".") and problem.do.endswith((".", "?")), problem
    return list(caught.value.problems)


def fields_of(found: list[Problem]) -> list[str]:
    return [problem.field for problem in found]


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def test_the_example_of_the_guide_is_read() -> None:
    found = read_definitions(CONTRACT, zones=ZONES)
    season = Season("spring_26", at("2026-02-28T23:00:00Z"), at("2026-05-31T22:00:00Z"))
    assert found["sprint"] == Definition(
        "sprint", "Sprint, any %", None, "best", "ascending", ("all_time", "day", "week", "season"), "Europe/Berlin",
        "monday", "first", "competition", Format("duration", unit="ms"), Bounds(1000, 3_600_000), "players", "public",
        True, (season,),
    )  # fmt: skip
    assert found["sprint-last"] == Definition("sprint-last", "sprint-last", "sprint", "last")


def test_what_is_left_out_or_null_is_what_is_published() -> None:
    assert parse_definition("points", {}) == Definition("points", "points")
    assert parse_definition("points", dict.fromkeys(DEFAULT_DEFINITION.as_json() | {"of": 1, "seasons": 1})) == (
        Definition("points", "points")
    )
    assert parse_definition("default", {}) == DEFAULT_DEFINITION


@pytest.mark.parametrize(
    ("slug", "says"),
    [
        ("all_time", "window"), ("day_of_2026_11_30", "window"), ("week_of_x", "window"),
        ("month_of_2026_11", "window"), ("year_of_2026", "window"), ("season_1", "window"),
        ("current_week", "window"), ("previous_day", "window"),
        ("day", "window"), ("users", "names"), ("next", "being made"), ("Sprint", "a-z"), ("1st", "a-z"), ("", "a-z"),
        ("a" * 33, "a-z"), ("a_b", "a-z"), ("sprint\n", "a-z"), ("-a", "a-z"), ("sprint:day", "a-z"), ("é", "a-z"),
        (None, "text"), (7, "text"),
    ],
)  # fmt: skip
def test_a_slug_is_refused_where_it_stands_for_something_else_or_cannot_stand_in_a_key(slug: object, says: str) -> None:
    (problem,) = problems(slug, {})
    assert problem.field == "slug" and says in str(problem)


@pytest.mark.parametrize(
    ("fields", "field", "says"),
    [
        ({"windws": ["day"]}, "windws", "Is windows meant?"),
        ({"slug": "sprint"}, "slug", "no such field"),
        ({"title": ""}, "title", "1 to 100"),
        ({"title": "x" * 101}, "title", "1 to 100"),
        ({"title": 5}, "title", "text"),
        ({"title": "a\nb"}, "title", "control"),
        ({"title": " a"}, "title", "spaces"),
        ({"title": "\ud800"}, "title", "Unicode"),
        ({"operator": "max"}, "operator", "sum, best, last or count"),
        ({"operator": ["sum"]}, "operator", "sum, best, last or count"),
        ({"operator": "x" * 500}, "operator", "…"),
        ({"order": "asc"}, "order", "descending or ascending"),
        ({"ties": True}, "ties", "first"),
        ({"ranks": "1224"}, "ranks", "ordinal"),
        ({"windows": []}, "windows", "at least one"),
        ({"windows": "day"}, "windows", "list"),
        ({"windows": ["daily"]}, "windows", "Is day meant?"),
        ({"windows": ["day", "day"]}, "windows", "more than once"),
        ({"windows": [7, {}]}, "windows", "no window 7"),
        ({"zone": "UTC+3"}, "zone", "do not agree"),
        ({"zone": "+03:00"}, "zone", "do not agree"),
        ({"zone": "europe/berlin"}, "zone", "Is Europe/Berlin meant?"),
        ({"zone": "Mars/Olympus"}, "zone", "Europe/Berlin"),
        ({"zone": 3}, "zone", "name"),
        ({"week_starts": "mon"}, "week_starts", "monday"),
        ({"format": "duration"}, "format", "table"),
        ({"format": {}}, "format.kind", "missing"),
        ({"format": {"kind": "time"}}, "format.kind", "duration"),
        ({"format": {"kind": "decimal"}}, "format.places", "0 to 6"),
        ({"format": {"kind": "decimal", "places": 7}}, "format.places", "0 to 6"),
        ({"format": {"kind": "decimal", "places": "2"}}, "format.places", "0 to 6"),
        ({"format": {"kind": "decimal", "places": 2, "unit": "s"}}, "format.unit", "Leave it out"),
        ({"format": {"kind": "duration"}}, "format.unit", "s or ms"),
        ({"format": {"kind": "duration", "unit": "h"}}, "format.unit", "s or ms"),
        ({"format": {"kind": "integer", "places": 0}}, "format.places", "Leave it out"),
        ({"format": {"kind": "integer", "colour": 0}}, "format.colour", "kind, places, unit"),
        ({"bounds": [0, 1]}, "bounds", "{ min = 0, max = 1000 }"),
        ({"bounds": {}}, "bounds", "no bound"),
        ({"bounds": {"min": 2, "max": 1}}, "bounds", "Exchange"),
        ({"bounds": {"max": 2**53}}, "bounds.max", str(SCORE_MAX)),
        ({"bounds": {"min": -(2**53)}}, "bounds.min", str(-SCORE_MAX)),
        ({"bounds": {"min": 0.5}}, "bounds.min", "whole number"),
        ({"bounds": {"min": True}}, "bounds.min", "whole number"),
        ({"bounds": {"least": 1}}, "bounds.least", "min, max"),
        ({"submit": "everybody"}, "submit", "players or servers"),
        ({"visible": "hidden"}, "visible", "public or private"),
        ({"metadata": "yes"}, "metadata", "true or false"),
        ({"of": "points"}, "of", "not of itself"),
        ({"of": "all_time"}, "of", "slug"),
        ({"of": 1}, "of", "text"),
        ({"of": "sprint", "bounds": {"min": 0}}, "bounds", "[sprint]"),
        ({"of": "sprint", "submit": "players"}, "submit", "[sprint]"),
        ({"of": "sprint", "metadata": False}, "metadata", "[sprint]"),
        ({"windows": ["season"]}, "seasons", "no season"),
        ({"seasons": {}, "windows": ["season"]}, "seasons", "[[slug.seasons]]"),
    ],
)  # fmt: skip
def test_each_field_is_refused_by_name_with_what_to_do(fields: dict[str, Any], field: str, says: str) -> None:
    found = problems("points", fields)
    assert field in fields_of(found)
    assert any(says in str(problem) for problem in found), found


def season(name: object = "one", starts: object = "2026-01-01T00:00:00Z", ends: object = "2026-02-01T00:00:00Z") -> Any:
    return {"id": name, "starts": starts, "ends": ends}


@pytest.mark.parametrize(
    ("seasons", "field", "says"),
    [
        ([season("Spring")], "seasons[0].id", "a-z"),
        ([season("a" * 33)], "seasons[0].id", "a-z"),
        ([season("a\n")], "seasons[0].id", "a-z"),
        ([season(starts="2026-01-01T00:00:00")], "seasons[0].starts", "+01:00"),
        ([season(starts="2026-01-01")], "seasons[0].starts", "offset"),
        ([season(starts=datetime(2026, 1, 1))], "seasons[0].starts", "offset"),
        ([season(ends=datetime(2026, 1, 1).date())], "seasons[0].ends", "offset"),
        ([season(ends=5)], "seasons[0].ends", "offset"),
        ([season(starts="1969-12-31T23:59:59Z")], "seasons[0].starts", "1970"),
        ([season(ends="2026-01-01T01:00:00+01:00")], "seasons[0].ends", "later moment"),
        ([{"id": "a"}], "seasons[0].ends", "missing"),
        ([{**season(), "name": 1}], "seasons[0].name", "id, starts, ends"),
        (["spring"], "seasons[0]", "table"),
        ([season(), season(starts="2026-03-01T00:00:00Z", ends="2026-04-01T00:00:00Z")], "seasons", "more than once"),
        ([season("b", "2026-01-31T23:59:59.9Z", "2026-05-01T00:00:00Z"), season("a")], "seasons", "a and b overlap"),
        (
            [season("a", ends="2027-01-01T00:00:00Z"), season("b"),
             season("c", "2026-06-01T00:00:00Z", "2026-07-01T00:00:00Z")],
            "seasons", "a and c overlap",
        ),
    ],
)  # fmt: skip
def test_seasons_are_refused_one_by_one_and_where_they_overlap(seasons: list[Any], field: str, says: str) -> None:
    found = problems("points", {"windows": ["season"], "seasons": seasons})
    assert field in fields_of(found) and any(says in str(problem) for problem in found), found


def test_seasons_may_follow_each_other_without_a_gap_and_stand_in_any_order() -> None:
    second = season("two", "2026-02-01T01:00:00+01:00", "2026-03-01T00:00:00Z")
    found = parse_definition("points", {"windows": ["season"], "seasons": [second, season("one")]})
    assert [one.id for one in found.seasons] == ["one", "two"]


def test_everything_that_is_wrong_is_told_at_once() -> None:
    found = problems(
        "current_week",
        {"operator": "max", "zone": "UTC+3", "bounds": {"min": 2**60}, "colour": 1, "seasons": [season(), season()]},
    )
    expected = {"slug", "operator", "zone", "bounds.min", "colour", "windows", "seasons"}
    assert expected <= set(fields_of(found))
    assert str(DefinitionError(found)) == " ".join(map(str, found))


@pytest.mark.parametrize("fields", [None, [], "sum", 5])
def test_what_is_no_table_is_refused(fields: object) -> None:
    assert "table" in str(problems("points", fields)[0])


# default -------------------------------------------------------------------------------------------------------------


def test_of_default_only_some_can_be_set_and_windows_come_besides_the_published_ones() -> None:
    fields = {"title": "Points", "bounds": {"min": 0}, "submit": "servers", "visible": "private", "metadata": True}
    found = parse_definition("default", {**fields, "windows": ["month"]}, zones=ZONES)
    assert found.windows == ("all_time", "week", "month")
    assert (found.title, found.bounds, found.submit) == ("Points", Bounds(0, INT_MAX), "servers")
    assert (found.visible, found.metadata) == ("private", True)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("operator", "best"), ("order", "ascending"), ("zone", "Europe/Berlin"), ("week_starts", "sunday"),
        ("ties", "first"), ("ranks", "dense"), ("format", {"kind": "duration", "unit": "s"}), ("of", "sprint"),
        ("seasons", [season()]),
    ],
)  # fmt: skip
def test_of_default_the_rest_is_the_published_one(name: str, value: object) -> None:
    (problem,) = problems("default", {name: value})
    assert problem.field == name and "published" in problem.wrong


def test_default_has_no_season_and_no_bound_that_its_table_cannot_keep() -> None:
    found = problems("default", {"windows": ["season"], "bounds": {"min": INT_MIN - 1}})
    assert fields_of(found) == ["windows", "bounds.min"]


# sets ----------------------------------------------------------------------------------------------------------------


def refused(text: str, **known: Definition) -> list[Problem]:
    with pytest.raises(DefinitionError) as caught:
        read_definitions(text, zones=ZONES, known=known)
    return list(caught.value.problems)


def test_of_a_set_the_mistakes_of_all_are_told_each_with_its_slug() -> None:
    found = refused('[a]\noperator = "max"\n[b]\nof = "nobody"\n[c]\nof = "b"\n[d]\nof = "a"\n[all_time]\n')
    assert fields_of(found) == ["a.operator", "all_time.slug", "b.of", "c.of"]
    assert "of b" not in str(found[3]) and "itself of nobody" in str(found[3])


def test_of_names_a_leaderboard_of_the_set_or_one_that_is_there_or_default() -> None:
    known = {"old": Definition("old", "Old"), "daily": Definition("daily", "Daily", of="old")}
    text = '[a]\n[b]\nof = "a"\n[c]\nof = "old"\n[d]\nof = "default"\n'
    assert list(read_definitions(text, known=known)) == ["a", "b", "c", "d"]
    (problem,) = refused('[e]\nof = "daily"\n', **known)
    assert "as old" in problem.do
    (problem,) = refused('[e]\nof = "olds"\n', **known)
    assert "Is old meant?" in problem.do


def test_one_that_others_are_of_must_go_on_taking_submissions() -> None:
    known = {"a": Definition("a", "A"), "b": Definition("b", "B", of="a"), "c": Definition("c", "C")}
    (problem,) = refused('[a]\nof = "c"\n', **known)
    assert problem.field == "b.of"


def test_what_is_no_toml_is_refused_with_the_place() -> None:
    (problem,) = refused("[a\n")
    assert "line 1" in problem.wrong


def test_a_table_that_is_a_value_is_refused() -> None:
    assert fields_of(refused('title = "x"\n')) == ["title"]


# laws ----------------------------------------------------------------------------------------------------------------

moments = st.datetimes(datetime(1970, 1, 2), datetime(9999, 12, 30)).map(lambda naive: naive.replace(tzinfo=UTC))
titles = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=100)
scores = st.integers(-SCORE_MAX, SCORE_MAX)
bounds = st.tuples(scores, scores).map(lambda pair: Bounds(min(pair), max(pair)))
formats = st.sampled_from([Format(), Format("duration", unit="s"), Format("duration", unit="ms")]) | st.builds(
    Format, st.just("decimal"), places=st.integers(0, 6)
)


@st.composite
def seasons_of(draw: st.DrawFn) -> tuple[Season, ...]:
    instants = sorted(draw(st.sets(moments, min_size=2, max_size=8)))
    names = draw(st.lists(st.from_regex(r"[a-z0-9_]{1,32}", fullmatch=True), unique=True, min_size=4, max_size=4))
    pairs = zip(instants[::2], instants[1::2], strict=False)
    return tuple(Season(name, *pair) for name, pair in zip(names, pairs, strict=False))


@st.composite
def definitions(draw: st.DrawFn) -> Definition:
    kinds = draw(st.sets(st.sampled_from(KINDS), min_size=1))
    of = draw(st.none() | st.just("sprint"))
    return Definition(
        draw(st.from_regex(r"x[a-z0-9-]{0,31}", fullmatch=True)),
        draw(titles),
        of,
        draw(st.sampled_from(OPERATORS)),
        draw(st.sampled_from(ORDERS)),
        tuple(kind for kind in KINDS if kind in kinds),
        draw(st.sampled_from(sorted(ZONES))),
        draw(st.sampled_from(WEEKDAYS)),
        draw(st.sampled_from(TIES)),
        draw(st.sampled_from(RANKS)),
        draw(formats),
        draw(st.none() | bounds) if of is None else None,
        draw(st.sampled_from(("players", "servers"))) if of is None else "players",
        draw(st.sampled_from((None, "public", "private"))),
        draw(st.booleans()) if of is None else False,
        draw(seasons_of()) if "season" in kinds else (),
    )


@given(definitions())
def test_a_definition_that_was_written_down_is_the_same(definition: Definition) -> None:
    written = json.loads(json.dumps(definition.as_json()))
    assert parse_definition(definition.slug, written, zones=ZONES) == definition
    assert parse_definition(definition.slug, written) == definition, "also where nobody names the zones"
    assert parse_definition(definition.slug, written).as_json() == written


@given(definitions())
def test_a_definition_that_was_written_as_a_file_is_the_same(definition: Definition) -> None:
    known = {} if definition.of is None else {definition.of: Definition(definition.of, "Source")}
    text = written_definition(definition)
    assert read_definitions(text, zones=ZONES, known=known) == {definition.slug: definition}


@given(st.builds(
    Definition, st.just("default"), titles, windows=st.sets(st.sampled_from(KINDS[:-1])).map(
        lambda more: tuple(kind for kind in KINDS if kind in more | {"all_time", "week"})
    ),
    bounds=st.none() | st.tuples(st.integers(INT_MIN, 0), st.integers(0, INT_MAX)).map(lambda pair: Bounds(*pair)),
    submit=st.sampled_from(("players", "servers")), metadata=st.booleans(),
))  # fmt: skip
def test_so_is_default(definition: Definition) -> None:
    assert parse_definition("default", definition.as_json(), zones=ZONES) == definition


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None, categories=None)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
names = st.sampled_from([*DEFAULT_DEFINITION.as_json(), "of", "seasons", "bounds", "colour"])


@given(st.sampled_from(["default", "points"]), st.dictionaries(names, anything))
def test_no_fields_raise_anything_else(slug: str, fields: dict[str, Any]) -> None:
    try:
        parse_definition(slug, fields, zones=ZONES)
    except DefinitionError as error:
        assert error.problems and error.message


@given(st.dictionaries(st.text(max_size=8), anything))
def test_no_set_raises_anything_else(tables: dict[str, Any]) -> None:
    try:
        parse_definitions(tables, zones=ZONES)
    except DefinitionError as error:
        assert error.problems


# changes -------------------------------------------------------------------------------------------------------------

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
BASE = Definition(
    "sprint", "Sprint", windows=("all_time", "season"),
    seasons=(Season("old", NOW - 9 * HOUR, NOW - 8 * HOUR), Season("now", NOW - HOUR, NOW + HOUR),
             Season("later", NOW + 2 * HOUR, NOW + 3 * HOUR)),
)  # fmt: skip


def changed(**fields: Any) -> Definition:
    return Definition(**{**{name: getattr(BASE, name) for name in Definition.__dataclass_fields__}, **fields})


def with_season(number: int, **fields: Any) -> Definition:
    seasons = list(BASE.seasons)
    one = seasons[number]
    seasons[number] = Season(one.id, fields.get("starts", one.starts), fields.get("ends", one.ends))
    return changed(seasons=tuple(seasons))


@pytest.mark.parametrize(
    ("new", "needs"),
    [
        (BASE, []),
        (changed(title="S", format=Format("decimal", 2), bounds=Bounds(0, 9), submit="servers", visible="private"), []),
        (changed(ranks="dense", zone="Europe/Berlin", week_starts="sunday"), []),
        (changed(operator="best", order="ascending", ties="first"), ["operator", "order", "ties"]),
        (changed(of="other"), ["of"]),
        (changed(windows=("all_time", "day", "season")), ["windows"]),
        (changed(windows=("season",)), []),
        (changed(windows=("all_time",), seasons=()), []),
        (changed(metadata=True), ["metadata"]),
        (changed(seasons=BASE.seasons[:2]), []),
        (changed(seasons=(*BASE.seasons, Season("next", NOW + 5 * HOUR, NOW + 6 * HOUR))), []),
        (changed(seasons=(Season("first", NOW - 99 * HOUR, NOW - 98 * HOUR), *BASE.seasons)), ["seasons"]),
        (with_season(1, ends=NOW + HOUR / 2), []),
        (with_season(1, ends=NOW - HOUR / 2), ["seasons"]),
        (with_season(2, starts=NOW + HOUR), []),
        (with_season(2, starts=NOW), ["seasons"]),
        (with_season(2, ends=NOW + 4 * HOUR), []),
    ],
)
def test_standings_are_made_anew_only_where_the_log_says_something_else(new: Definition, needs: list[str]) -> None:
    assert needs_new_standings(BASE, new, NOW) == needs


def test_without_a_moment_any_other_season_counts() -> None:
    assert needs_new_standings(BASE, with_season(2, ends=NOW + 4 * HOUR)) == ["seasons"]
    assert needs_new_standings(BASE, BASE) == []


def test_metadata_that_is_no_longer_shown_needs_nothing() -> None:
    assert needs_new_standings(changed(metadata=True), BASE) == []


def test_changes_are_named_in_the_order_of_the_fields() -> None:
    assert changes(BASE, changed(ties="first", title="S", metadata=True)) == ["title", "ties", "metadata"]


def test_a_moment_in_any_offset_is_kept_as_its_instant() -> None:
    offset = timezone(timedelta(hours=5, minutes=30))
    one = Season("a", datetime(2026, 1, 1, tzinfo=offset), datetime(2026, 2, 1, microsecond=1, tzinfo=offset))
    assert one.as_json() == {"id": "a", "starts": "2025-12-31T18:30:00Z", "ends": "2026-01-31T18:30:00.000001Z"}
