"""The page about leaderboards against the code: its definitions can be defined, its tables say what is done."""

from __future__ import annotations

import html
import io
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from realtime.boards import parsing, submissions
from realtime.boards.catalogue import Catalogue, is_alias, split_id
from realtime.boards.definition_sets import read_definitions
from realtime.boards.definitions import (
    KINDS,
    OPERATORS,
    ORDERS,
    RANKS,
    SCORE_MAX,
    SUBMITTERS,
    TIES,
    VISIBLE,
    Bounds,
    Definition,
    Format,
    Season,
    needs_new_standings,
)
from realtime.boards.leaderboard import Leaderboard, partition_of
from realtime.boards.standings import ranks
from realtime.boards.submissions import parse_submission
from realtime.boards.windows import CLOSE_GRACE, Window, read_name
from realtime.errors import STATUS, RealtimeError
from realtime.intake import score_file
from realtime.intake.score_file import FileRow
from realtime.settings import Settings
from realtime.store import keys
from tests.acceptance.test_backup import tools
from tests.support.clients import asking
from tests.support.processes import Command, environment, running
from tests.support.servers import SECRET
from tests.support.waiting import eventually

DOCS = Path(__file__).parents[2] / "web/docs"
PAGE = (DOCS / "leaderboards.html").read_text(encoding="utf-8")
GUIDE = (DOCS / "operations.html").read_text(encoding="utf-8")
NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
USUAL = Definition("x", "x")
"""One in which everything is left out."""


def shown(name: str, page: str = PAGE) -> str:
    """The lines that a page shows under this id."""
    (found,) = re.findall(rf'<code id="{name}">(.*?)</code></pre>', page, re.DOTALL)
    return html.unescape(found)


def table(label: str) -> dict[str, list[str]]:
    """The rows of a table: what stands in the first cell, and the other cells, without their markup."""
    (body,) = re.findall(rf'aria-label="{label}".*?<tbody>(.*?)</tbody>', PAGE, re.DOTALL)
    rows: dict[str, list[str]] = {}
    for row in re.findall(r"<tr>(.*?)</tr>", body):
        first, *others = (
            html.unescape(re.sub(r"<[^>]*>", "", cell)) for cell in re.findall(r"<td[^>]*>(.*?)</td>", row)
        )
        rows[first] = others
    return rows


# Definitions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["five-file", "several", "derived"])
def test_what_is_shown_can_be_defined(name: str) -> None:
    assert read_definitions(shown(name))


def test_every_field_is_explained_and_no_other() -> None:
    assert list(table("Fields of a definition")) == ["the slug", *parsing._FIELDS]


@pytest.mark.parametrize(
    ("field", "values"),
    [("operator", OPERATORS), ("order", ORDERS), ("ties", TIES), ("ranks", RANKS), ("submit", SUBMITTERS),
     ("visible", VISIBLE), ("windows", KINDS)],
)  # fmt: skip
def test_the_values_of_a_field_are_all_there(field: str, values: tuple[str, ...]) -> None:
    assert table("Fields of a definition")[field][0].removeprefix("some of ").split(", ") == list(values)


@pytest.mark.parametrize("field", ["operator", "order", "zone", "week_starts", "ties", "ranks", "submit"])
def test_what_counts_where_a_field_is_left_out(field: str) -> None:
    assert table("Fields of a definition")[field][1] == getattr(USUAL, field)


def test_what_counts_where_others_are_left_out() -> None:
    said = {field: cells[1] for field, cells in table("Fields of a definition").items()}
    assert USUAL.windows == ("all_time",) and said["windows"] == '["all_time"]'
    assert USUAL.format == Format("integer") and said["format"] == "integer"
    assert USUAL.metadata is False and said["metadata"] == "false"
    assert parsing.parse_definition("x", {}).title == "x" and said["title"] == "the slug"
    assert USUAL.visible is None and said["visible"] == "as REALTIME_BOARDS says"
    assert (USUAL.of, USUAL.bounds, USUAL.seasons) == (None, None, ())
    assert [field for field, words in said.items() if words == "none"] == ["of", "bounds", "seasons"]


BEGUN = Season("begun", datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC))
LATER = Season("later", datetime(2026, 12, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))
SEASONAL = replace(USUAL, windows=("season",), seasons=(LATER,))
CHANGES: list[tuple[str, Definition, dict[str, Any], bool]] = [
    ("title", USUAL, {"title": "y"}, False),
    ("of", USUAL, {"of": "y"}, True),
    ("operator", USUAL, {"operator": "best"}, True),
    ("order", USUAL, {"order": "ascending"}, True),
    ("windows", USUAL, {"windows": ("all_time", "day")}, True),
    ("windows", replace(USUAL, windows=("all_time", "day")), {"windows": ("all_time",)}, False),
    ("zone", USUAL, {"zone": "Europe/Berlin"}, False),
    ("week_starts", USUAL, {"week_starts": "sunday"}, False),
    ("ties", USUAL, {"ties": "first"}, True),
    ("ranks", USUAL, {"ranks": "dense"}, False),
    ("format", USUAL, {"format": Format("decimal", places=2)}, False),
    ("bounds", USUAL, {"bounds": Bounds(0, 1)}, False),
    ("submit", USUAL, {"submit": "servers"}, False),
    ("visible", USUAL, {"visible": "private"}, False),
    ("metadata", USUAL, {"metadata": True}, True),
    ("metadata", replace(USUAL, metadata=True), {"metadata": False}, False),
    ("seasons", SEASONAL, {"seasons": (replace(LATER, id="other"),)}, False),
    ("seasons", SEASONAL, {"seasons": (BEGUN, LATER)}, True),
]


@pytest.mark.parametrize(("field", "before", "change", "anew"), CHANGES, ids=[str(case[0]) for case in CHANGES])
def test_what_a_change_does_is_what_is_done(field: str, before: Definition, change: dict[str, Any], anew: bool) -> None:
    assert bool(needs_new_standings(before, replace(before, **change), NOW)) == anew
    told = table("Fields of a definition")[field][3]
    both = len([case for case in CHANGES if case[0] == field]) == 2
    assert ("made anew" in told.lower()) == (anew or both)


def test_every_change_is_tried_here() -> None:
    assert {case[0] for case in CHANGES} == set(parsing._FIELDS)


# What counts -----------------------------------------------------------------------------------------------------


def test_ranks_are_counted_as_shown() -> None:
    for style, cells in table("Ranks").items():
        assert ranks([50, 40, 40, 30], style=style) == [int(cell) for cell in cells]
    assert set(table("Ranks")) == set(RANKS)


def test_every_operator_is_there() -> None:
    assert set(table("Operators")) == set(OPERATORS)


def test_every_window_is_there_with_ids_that_can_be() -> None:
    found = table("Windows")
    assert list(found) == list(KINDS)
    for kind, (ids, aliases) in found.items():
        slug, name = split_id(ids.split(" ")[0])
        said = read_name(name)
        assert slug == "lap" and said is not None and said.kind == kind
        if kind != "all_time":
            assert aliases.split(", ") == [f"lap:current_{kind}", f"lap:previous_{kind}"]
            assert all(map(is_alias, aliases.split(", ")))


# Submissions -----------------------------------------------------------------------------------------------------


def lap(**fields: Any) -> Leaderboard:
    definition = Definition("lap", "Lap", operator="best", order="ascending", windows=("all_time", "day"), **fields)
    return Leaderboard("lap", definition, 2, 2, 2, "lap", partition_of("lap", 16))


def catalogue(leaderboard: Leaderboard) -> Catalogue:
    midnight = datetime(2026, 11, 29, 23, tzinfo=UTC)
    day = Window("day", "day_of_2026_11_30", midnight, midnight.replace(day=30), 1)
    return Catalogue(1, {**Catalogue().leaderboards, "lap": leaderboard}, {2: [day]})


def submitted(leaderboard: Leaderboard | None = None, **fields: Any) -> str:
    """What becomes of the submission that is shown, with `fields` in it: `accepted`, or the code."""
    message = {**json.loads(shown("submit")), **fields}
    try:
        parse_submission(message, 1, catalogue(leaderboard or lap()), lambda: NOW)
    except RealtimeError as error:
        return error.code
    return "accepted"


def test_the_submission_that_is_shown_is_one() -> None:
    message = json.loads(shown("submit"))
    assert submitted() == "accepted"
    assert set(message) <= submissions._FIELDS
    told = {name for cell in table("Fields of a submission") for name in cell.split(" or ")}
    assert told | {"type"} == submissions._FIELDS


def test_refusals_are_what_is_answered() -> None:
    told = table("Refusals")
    assert set(told) <= set(STATUS)
    assert submitted(board="lap:current_day") == "wrong_board"
    assert submitted(board="all_time") == "wrong_board"
    assert submitted(score_added=5) == "bad_message"
    assert submitted(lap(bounds=Bounds(70_000, 80_000))) == "out_of_range"
    assert submitted(metadata={"car": "x" * 256}) == submitted(metadata=[]) == "bad_metadata"
    elsewhere = {**json.loads(shown("submit")), "leaderboard": "nowhere"}
    with pytest.raises(RealtimeError) as caught:
        parse_submission(elsewhere, 1, catalogue(lap()), lambda: NOW)
    assert caught.value.code == "unknown_leaderboard"


def test_the_file_of_scores_that_is_shown_can_be_imported() -> None:
    rows = list(score_file.rows(io.BytesIO(shown("csv").encode())))
    assert len(rows) == 2
    for row in rows:
        assert isinstance(row, FileRow) and row.leaderboard == "lap"


# Figures ---------------------------------------------------------------------------------------------------------


def test_limits_are_the_code_s() -> None:
    limits = table("Limits")
    assert f"{SCORE_MAX:,}" in PAGE and SCORE_MAX == 2**53 - 1
    assert limits["places"] == [f"0 to {parsing.PLACES}"]
    assert limits["Metadata"] == [f"{submissions.METADATA_BYTES} bytes"]
    assert limits["Seasons of a leaderboard"] == [f"{parsing.SEASONS:,}"]
    assert limits["Slug, season's id, title"] == [f"32, 32, {parsing.TITLE_LENGTH} characters"]
    assert f"<li>{CLOSE_GRACE.total_seconds():g} s after its end" in PAGE
    assert f"<code>REALTIME_PARTITIONS</code> ({Settings.load({}).partitions})" in PAGE
    assert keys.EXPIRY_GRACE.days == 8 and "ended in the last eight days" in PAGE


def test_keys_are_named_as_in_the_store() -> None:
    (board,) = (board for board in catalogue(lap()).current_boards("lap", NOW) if board.window.kind == "day")
    tagged = keys.Keys(board.leaderboard.partition)
    there = {tagged.scores(board), tagged.version(board), tagged.metadata(board)}
    there = {key.replace("day_of_2026_11_30", "all_time") for key in there}
    assert {*there, tagged.definition("lap"), tagged.channel} == set(table("Keys"))


# What is shown, run ----------------------------------------------------------------------------------------------


@dataclass
class Deployment:
    """A server with its worker, and a shell in a folder beside it."""

    url: str
    env: dict[str, str]
    folder: Path

    async def types(self, script: str) -> Command:
        """Runs lines of the page; nothing is changed in them but the server's address."""
        script = script.replace("http://127.0.0.1:8000", self.url)
        async with running("-ec", script, program=["sh"], env=self.env, cwd=self.folder) as shell:
            assert await shell.ends() == 0, shell.errors
        return shell

    async def board(self, name: str) -> list[tuple[int, str, int]]:
        """(rank, name, score) of a board's rows."""
        async with asking(self.url) as http:
            answer = await http.get(f"/boards/{name}")
        assert answer.status_code == 200, answer.text
        return [(row["rank"], row["username"], row["score"]) for row in answer.json()["entries"]]


@pytest.fixture
async def deployment(dsn: str, store_url: str, tmp_path: Path) -> AsyncIterator[Deployment]:
    env = environment(
        DATABASE_URL=dsn, DRAGONFLY_URL=store_url, REALTIME_SECRET=SECRET, REALTIME_PORT="0", REALTIME_DRAIN_S="0",
        REALTIME_REGISTRATION="open", PATH=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    )  # fmt: skip
    (tmp_path / "leaderboards.toml").write_text(shown("five-file"), encoding="utf-8")
    (tmp_path / "laps.csv").write_text(shown("csv"), encoding="utf-8")
    async with running("worker", env=env), running("serve", env=env) as server:
        deployment = Deployment(await server.says("ready:"), env, tmp_path)
        await deployment.types(shown("five-apply"))
        yield deployment


def answers(lines: list[str]) -> list[Any]:
    """What `curl` printed: JSON after JSON."""
    text, found = "".join(lines), []
    while text:
        value, end = json.JSONDecoder().raw_decode(text)
        found.append(value)
        text = text[end:].lstrip()
    return found


async def holds(deployment: Deployment, name: str, rows: list[tuple[int, str, int]]) -> bool:
    return await deployment.board(name) == rows


async def test_there_is_a_board_in_five_minutes_and_it_is_changed_over_http(deployment: Deployment) -> None:
    shell = await deployment.types(shown("five-score"))
    kim, accepted = answers(shell.lines)
    assert kim == {"user_id": 1, "username": "Kim"}
    day = re.compile(r"day_of_[0-9_]+")
    today = day.search(json.dumps(accepted))
    assert today is not None and accepted == json.loads(day.sub(today[0], shown("five-answer")))
    await eventually(lambda: holds(deployment, "lap:current_day", [(1, "Kim", 62_345)]))
    defined, read = answers((await deployment.types(shown("put"))).lines)
    assert read["slug"] == defined["slug"] == "lap" and read["definition"] == defined["definition"]
    assert {"state", "progress", "boards"} <= set(read)
    assert read["definition"]["ties"] == "user_id", "what is left out is as in the table"


async def test_a_history_is_imported_and_moved_as_written(deployment: Deployment) -> None:
    lines = shown("import").splitlines()
    await deployment.types("\n".join(lines[:2]))
    board = [(1, "Alex", 61_950), (2, "Kim", 62_345)]
    await eventually(lambda: holds(deployment, "lap:all_time", board))
    assert await deployment.board("lap:day_of_2026_03_28") == board
    moved = shown("five-file").replace("[lap]", "[fastest-lap]")
    (deployment.folder / "leaderboards.toml").write_text(moved, encoding="utf-8")
    deployment.env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), tools()])
    await deployment.types(shown("five-apply") + "\n" + shown("move", GUIDE))
    await eventually(lambda: holds(deployment, "fastest-lap:all_time", board))
