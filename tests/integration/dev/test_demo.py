"""The demo: weeks of scores that are the same whenever they are asked for, then play that goes on."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from realtime.boards.definition_sets import read_definitions
from realtime.cli.leaderboards import init
from realtime.cli.scores import play_demo
from realtime.dev import demo
from realtime.errors import StartupError
from tests.support.servers import RunningServer
from tests.support.waiting import eventually

NOW = datetime(2026, 11, 30, 13, 30, tzinfo=UTC)


def test_the_same_days_bring_the_same_scores_and_none_is_of_the_future() -> None:
    first, later = list(demo.history(NOW)), list(demo.history(NOW + timedelta(hours=3)))
    assert first == [row for row in later if row.created_at < NOW]
    assert len(later) > len(first) > demo.DAYS * demo.SCORES_A_DAY
    assert all(before.created_at <= after.created_at for before, after in pairwise(later))
    assert len({row.submission_id for row in later}) == len(later)


async def test_it_fills_an_empty_server_and_plays_on(server: RunningServer) -> None:
    playing = asyncio.create_task(play_demo(server.services.settings, server.base_url))

    async def shown() -> dict[str, int]:
        page = (await server.http.get("/boards/all_time")).json()
        return {entry["username"]: entry["score"] for entry in page.get("entries", ())}

    async def is_full() -> bool:
        boards = (await server.http.get("/boards")).json()
        return boards["closed_weeks"] >= 3 and len(await shown()) == 100

    try:
        await eventually(is_full)
        before = await shown()

        async def has_moved() -> bool:
            return await shown() != before

        await eventually(has_moved)
    finally:
        playing.cancel()
        await asyncio.wait([playing])


def test_the_file_that_init_writes_defines_leaderboards_and_is_not_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "own.toml"
    init(file)
    assert str(file) in capsys.readouterr().out
    text = file.read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("# ") or " = " in line or "[" in line]
    uncommented = "\n".join(line.removeprefix("# ") for line in lines)
    for one in (text, uncommented):
        assert "lap" in read_definitions(one)
    with pytest.raises(StartupError, match="is there already"):
        init(file)
    assert file.read_text(encoding="utf-8") == text
