"""The commands that define leaderboards: what they print, and what is different afterwards."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest
from typer.testing import CliRunner

from realtime.boards.definition_sets import read_definitions
from realtime.cli import leaderboards as module
from realtime.cli.application import cli
from realtime.cli.main import _sentence
from realtime.errors import RealtimeError

Command = Callable[..., list[str]]

FILE = """
[sprint]
title = "Sprint, any %"
operator = "best"
order = "ascending"
windows = ["all_time", "day"]
[sprint-last]
of = "sprint"
operator = "last"
"""


@pytest.fixture
def command(dsn: str, tmp_path: Path) -> Command:
    """Runs a command below `leaderboards`; gives what it printed, or the error as people see it."""

    def run(*args: str, code: int = 0) -> list[str]:
        result = CliRunner().invoke(cli, ["leaderboards", *args], env={"DATABASE_URL": dsn})
        if isinstance(result.exception, RealtimeError):
            assert code == 1
            return _sentence(result.exception).splitlines()
        assert result.exit_code == code, (result.output, result.exception)
        return result.stdout.splitlines()

    return run


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "leaderboards.toml"
    path.write_text(FILE, encoding="utf-8")
    return path


def execute(dsn: str, *statements: str) -> None:
    async def work() -> None:
        connection = await asyncpg.connect(dsn)
        for statement in statements:
            await connection.execute(statement)
        await connection.close()

    asyncio.run(work())


def execute_into(dsn: str, query: str, found: list[str]) -> None:
    async def work() -> None:
        connection = await asyncpg.connect(dsn)
        found.append(await connection.fetchval(query))
        await connection.close()

    asyncio.run(work())


def test_a_plan_is_told_and_nothing_is_done(command: Command, file: Path) -> None:
    assert command("plan", str(file)) == [
        "+ sprint: new; best, ascending; all_time day",
        "+ sprint-last: new; last of sprint, descending; all_time",
    ]
    assert command("list") == [
        "SLUG     TITLE        RANKS            WINDOWS        STATE",
        "default  Leaderboard  sum, descending  all_time week  live",
    ]


def test_what_is_applied_is_listed_and_planned_no_more(command: Command, file: Path, dsn: str) -> None:
    assert command("apply", str(file), "--no-wait") == ["+ sprint is defined.", "+ sprint-last is defined."]
    assert command("apply", str(file), "--no-wait") == ["Nothing to do: everything is as the file has it."]
    assert command("plan", str(file)) == ["Nothing to do: everything is as the file has it."]
    assert command("list")[2:] == [
        "sprint       Sprint, any %  best, ascending             all_time day   building, 0%",
        "sprint-last  sprint-last    last of sprint, descending  all_time       building, 0%",
    ]
    execute(dsn, "UPDATE rules SET todo = 4, done = 3")
    shown = command("show", "sprint")
    assert shown[0] == "# state   building, 75%"
    (definition,) = read_definitions("\n".join(shown)).values()
    assert definition == read_definitions(FILE)["sprint"]
    (line,) = command("show", "sprint", "--json")
    told = json.loads(line)
    assert told == {
        "slug": "sprint", "definition": definition.as_json(), "state": "building", "progress": 0.75, "boards": []
    }  # fmt: skip


def test_changes_say_what_is_made_anew_and_what_stays(command: Command, file: Path, dsn: str) -> None:
    command("apply", str(file), "--no-wait")
    execute(
        dsn,
        "UPDATE rules r SET state = 'live' FROM leaderboards l WHERE r.id = l.next_rule",
        "UPDATE leaderboards SET rule = next_rule, next_rule = NULL WHERE next_rule IS NOT NULL",
        "SELECT ensure_next_windows()",
    )
    assert any("sprint:day_of_" in line for line in command("show", "sprint"))
    file.write_text(
        '[sprint]\noperator = "sum"\norder = "ascending"\nwindows = ["all_time", "day"]\n', encoding="utf-8"
    )
    assert command("plan", str(file)) == [
        "~ sprint",
        '    title: "Sprint, any %" becomes "sprint"',
        '    operator: "best" becomes "sum"',
        "    standings are made anew, for: operator",
        "  sprint-last: not in the file, stays (--prune removes it)",
    ]
    assert command("plan", str(file), "--prune")[-1] == "- sprint-last: its boards go, what was sent is kept"
    assert command("apply", str(file), "--prune", "--no-wait") == ["~ sprint is defined.", "- sprint-last is removed."]
    assert "#         shown as before until then; made anew for operator" in command("show", "sprint")
    assert command("remove", "sprint")[0].startswith("sprint is removed.")
    assert len(command("list")) == 2


def test_a_plan_says_when_windows_end_that_another_zone_stretches(
    command: Command, file: Path, dsn: str
) -> None:
    command("apply", str(file), "--no-wait")
    execute(dsn, "SELECT ensure_next_windows()")
    file.write_text(FILE.replace("[sprint-last]", 'zone = "Pacific/Kiritimati"\n[sprint-last]'), encoding="utf-8")
    planned = command("plan", str(file))
    (line,) = [line for line in planned if " ends " in line]
    command("apply", str(file), "--no-wait")
    ends: list[str] = []
    execute_into(
        dsn,
        "SELECT name || ' ends ' || to_char(ends AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') FROM windows"
        " WHERE kind = 'day' AND starts <= now() ORDER BY starts DESC LIMIT 1",
        ends,
    )
    assert line.strip().startswith(ends[0] + ", not "), "as it is once that is applied"
    assert not any(" ends " in line for line in command("plan", str(file)))


def test_whatever_is_wrong_is_told_line_by_line(command: Command, file: Path) -> None:
    file.write_text('[sprint]\noperator = "max"\nzone = "UTC+3"\n[all_time]\n[b]\nof = "c"\n', encoding="utf-8")
    lines = command("plan", str(file), code=1)
    assert lines[0] == "This cannot be defined:" and len(lines) == 5
    assert lines[1] == "  sprint.operator: It cannot be 'max'. Use sum, best, last or count."
    file.write_bytes(b"[sprint]\ntitle = '\xff'\n")
    assert "not UTF-8" in command("apply", str(file), code=1)[1]
    file.write_text("[sprint\n", encoding="utf-8")
    assert "no TOML" in command("apply", str(file), code=1)[1]
    assert command("show", "nobody", code=1) == ["There is no leaderboard 'nobody' here."]
    assert "cannot be removed" in command("remove", "default", code=1)[0]


def test_who_waits_hears_that_nobody_builds_and_what_could_not_be_made(
    command: Command, file: Path, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "NOBODY", 0.3)
    command("apply", str(file), code=1)
    command("rebuild", "sprint", code=1)
    execute(
        dsn,
        "UPDATE rules SET state = 'retired', failure = 'Too much.' WHERE state = 'building' AND operator = 'best'",
        "UPDATE leaderboards SET next_rule = NULL WHERE slug = 'sprint'",
    )
    assert command("list")[2].endswith("failed")
    assert "#         Too much." in command("show", "sprint")


def test_progress_is_shown_until_everything_is_made(
    command: Command, file: Path, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a worker does meanwhile happens here between two looks."""
    steps = [
        "UPDATE rules SET todo = 10, done = 5 WHERE state = 'building'",
        "UPDATE rules r SET state = 'live' FROM leaderboards l WHERE r.id = l.next_rule",
        "UPDATE leaderboards SET rule = next_rule, next_rule = NULL WHERE next_rule IS NOT NULL",
    ]

    async def between(seconds: float) -> None:
        connection = await asyncpg.connect(dsn)
        await connection.execute(steps.pop(0))
        await connection.close()

    class Paced:
        sleep = staticmethod(between)

    monkeypatch.setattr(module, "asyncio", Paced)
    assert command("apply", str(file))[-1] == "Everything is made and shown."
    assert not steps
