"""Processes that are stopped, as by Ctrl-Z, a laptop's lid or a host that swaps: the others go on, and so do they."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from redis.asyncio import Redis

from realtime.ledger import migrations
from realtime.store.keys import FILLING
from tests.support.databases import MakeUsers
from tests.support.keys import EPOCH_KEY
from tests.support.processes import Command, environment, free_port, running
from tests.support.servers import SECRET, RunningServer
from tests.support.waiting import PATIENCE, eventually

HELD = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND state LIKE 'idle in transaction%'
"""


def told(dsn: str, store_url: str, **more: str) -> dict[str, str]:
    return environment(DATABASE_URL=dsn, DRAGONFLY_URL=store_url, REALTIME_SECRET=SECRET, **more)


@asynccontextmanager
async def stopped(command: Command) -> AsyncIterator[None]:
    """It stands still for the block."""
    command.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        if command.process.returncode is None:
            command.signal(signal.SIGCONT)


async def answers(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


_sent = 0


async def play(server: RunningServer, users: Sequence[int]) -> None:
    """One score of each user, all in one list; every one is recorded."""
    global _sent
    _sent += 1
    body = [{"submission_id": f"live-{_sent}", "user_id": user, "score_added": 1} for user in users]
    answer = await server.http.post("/scores", json=body, headers=server.bearer(None, "submit:any"))
    assert {result["type"] for result in answer.json()["results"]} == {"accepted"}, answer.text


async def test_an_import_that_is_stopped_costs_its_players_seconds_and_all_others_nothing(
    server: RunningServer, dsn: str, store_url: str, make_users: MakeUsers, sql: asyncpg.Connection, tmp_path: Path
) -> None:
    imported, others = await make_users(500), await make_users(100)
    await play(server, [*imported, *others])
    rows = 20_000
    file = tmp_path / "scores.csv"
    lines = [f"i{n},{imported[n % len(imported)]},1,2026-11-18T00:00:00Z" for n in range(rows)]
    file.write_text("submission_id,user_id,score_added,created_at\n" + "\n".join(lines), encoding="utf-8")
    async with running("import", str(file), env=told(dsn, store_url)) as command:
        await eventually(lambda: sql.fetchval("SELECT count(*) > 0 FROM user_score_transactions WHERE reason IS NULL"))
        for _ in range(200):  # until it stands still within a transaction
            async with stopped(command):
                await asyncio.sleep(0.05)
                if await sql.fetchval(HELD):
                    await play(server, others)
                    await play(server, imported)
                    break
            await asyncio.sleep(random.uniform(0, 0.05))
            if command.process.returncode is not None:
                pytest.skip("it was too quick to be stopped within a transaction")
        assert await command.ends() == 0, command.errors
    assert f"{rows} read" in command.lines[-1] and " 0 bad" in command.lines[-1]
    total = await sql.fetchval("SELECT sum(total_score) FROM user_total_scores")
    assert total == rows + 2 * len(imported) + 2 * len(others)


async def test_a_rebuild_that_is_stopped_is_taken_over_and_does_no_harm_when_it_goes_on(
    server: RunningServer, dsn: str, store_url: str, make_users: MakeUsers, sql: asyncpg.Connection, keys: Redis
) -> None:
    users = await make_users(20_000)
    await sql.execute("INSERT INTO user_total_scores (user_id, total_score) SELECT id, id FROM users")
    async with running("rebuild", env=told(dsn, store_url)) as command:

        async def fills() -> bool:
            return str(await keys.get(EPOCH_KEY)).startswith(FILLING)

        await eventually(fills)
        async with stopped(command):
            began = await keys.get(EPOCH_KEY)

            async def complete() -> bool:
                return not await fills()

            await eventually(complete)
            epoch = await keys.get(EPOCH_KEY)
            assert epoch != str(began).removeprefix(FILLING), "another has made it anew"
        assert await command.ends() in (0, 1)
    assert await keys.get(EPOCH_KEY) == epoch
    async with running("check", env=told(dsn, store_url)) as check:
        assert await check.ends() == 0, check.lines
        assert f"all_time: {len(users)} users compared, 0 differences." in check.lines


@pytest.mark.parametrize("arguments", [("serve",), ("worker",)], ids=lambda arguments: arguments[0])
async def test_a_server_or_worker_that_is_stopped_anywhere_holds_nobody_up(
    server: RunningServer, dsn: str, store_url: str, make_users: MakeUsers, sql: asyncpg.Connection,
    arguments: tuple[str, ...],
) -> None:  # fmt: skip
    users = await make_users(100)
    port = free_port()
    ports = {"REALTIME_PORT": "0", "REALTIME_WORKER_METRICS_PORT": str(port)}
    async with running(*arguments, env=told(dsn, store_url, REALTIME_DRAIN_S="0", **ports)) as command:
        if arguments == ("serve",):
            await command.says("ready:")
        else:
            await eventually(lambda: answers(port))
        for _ in range(5):
            await asyncio.sleep(random.uniform(0, 0.3))
            playing = asyncio.create_task(play(server, users))
            async with stopped(command):
                await playing
                await play(server, users)
        assert await command.stop() == 0, command.errors
    assert await sql.fetchval("SELECT sum(total_score) FROM user_total_scores") == 10 * len(users)
    async with running("check", env=told(dsn, store_url)) as check:
        assert await check.ends() == 0, check.lines


async def test_migrations_that_are_stopped_keep_no_others_from_it(empty_dsn: str) -> None:
    holder = await asyncpg.connect(empty_dsn)
    await holder.execute("BEGIN; CREATE TABLE users (half boolean)")  # what is migrated waits for ours
    async with running("migrate", env=environment(DATABASE_URL=empty_dsn)) as command:
        await eventually(lambda: holder.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))
        async with stopped(command):
            await holder.execute("ROLLBACK")
            async with asyncio.timeout(PATIENCE):
                await migrations.migrate(empty_dsn)
        assert await command.ends() == 0, command.errors
    await holder.close()
