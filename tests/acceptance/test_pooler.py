"""Behind pgbouncer in transaction mode: everything works, and no setting leaks to whoever has the session next."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import asyncpg
import pytest

from realtime.boards.submissions import Submission
from realtime.ledger import migrations
from realtime.ledger.ledger import Ledger
from tests.support.crowd import players
from tests.support.processes import environment, free_port, running
from tests.support.servers import SECRET
from tests.support.waiting import eventually

PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@pytest.fixture
async def pooled(dsn: str, tmp_path: Path) -> AsyncIterator[str]:
    """This test's database behind a pgbouncer with two connections to it."""
    if PGBOUNCER is None:
        pytest.skip("pgbouncer is not installed: nothing is tried behind a pooler")
    parts = urlsplit(dsn)
    port = free_port()
    users = tmp_path / "users.txt"
    users.write_text(f'"{parts.username}" "{unquote(parts.password or "")}"\n', encoding="utf-8")
    config = tmp_path / "pgbouncer.ini"
    config.write_text(
        f"[databases]\n* = host={parts.hostname} port={parts.port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
        f"listen_port = {port}\nauth_type = plain\nauth_file = {users}\npool_mode = transaction\n"
        "default_pool_size = 2\nmax_client_conn = 200\nunix_socket_dir =\nserver_reset_query =\n",
        encoding="utf-8",
    )
    for path in (tmp_path, users, config):
        path.chmod(0o755)
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    async with running(*user, str(config), program=[PGBOUNCER], cwd="/") as command:
        url = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[0] + f"@127.0.0.1:{port}"))

        async def answers() -> bool:
            try:
                connection = await asyncpg.connect(url, statement_cache_size=0)
            except (OSError, asyncpg.PostgresError):
                return False
            await connection.close()
            return True

        await eventually(answers)
        yield url
        command.signal()


async def test_many_users_of_two_connections_record_and_read_and_leave_no_setting_behind(
    pooled: str, make_users: Any, sql: Any
) -> None:
    users = await make_users(50)
    name = await sql.fetchval("SELECT current_database()")
    await sql.execute(f"ALTER DATABASE \"{name}\" SET default_transaction_isolation = 'repeatable read'")
    ledgers = [Ledger(pooled, connections=4) for _ in range(3)]
    for ledger in ledgers:
        await ledger.open()
    assert all(ledger._pooled for ledger in ledgers)
    try:
        for number in range(10):
            batches = [
                ledger.record_batch([Submission(user, f"{place}-{number}", 1, None, None) for user in users], [])
                for place, ledger in enumerate(ledgers)
            ]
            for recorded in await asyncio.gather(*batches):
                assert {one.outcome for one in recorded.judged} == {"accepted"}
        async with ledgers[0].connection() as connection:
            assert await connection.fetchval("SHOW statement_timeout") == "10s"
            assert await connection.fetchval("SHOW enable_seqscan") == "off"
            assert await connection.fetchval("SHOW transaction_isolation") == "read committed"
            assert await connection.fetchval("SHOW idle_in_transaction_session_timeout") == "5s"
            assert await connection.fetchval("SHOW lock_timeout") == "2s"
    finally:
        for ledger in ledgers:
            await ledger.aclose()
    assert await sql.fetchval("SELECT sum(total_score) FROM user_total_scores") == 50 * 3 * 10
    plain = await asyncpg.connect(pooled, statement_cache_size=0)
    for _ in range(5):
        async with plain.transaction():
            assert await plain.fetchval("SHOW enable_seqscan") == "on", "another client's session is its own"
    await plain.close()


async def test_a_direct_connection_is_known_as_one(ledger: Ledger) -> None:
    assert ledger._pooled is False


async def test_the_schema_is_migrated_through_it(pooled: str) -> None:
    await migrations.migrate(pooled)
    await migrations.migrate(pooled)


async def test_a_whole_deployment_runs_behind_it(
    pooled: str, store_url: str, filled: None, make_users: Any, sql: Any
) -> None:
    users = await make_users(10)
    env = environment(
        DATABASE_URL=pooled, DRAGONFLY_URL=store_url, REALTIME_SECRET=SECRET, REALTIME_PORT="0", REALTIME_DRAIN_S="0"
    )
    async with running("token", "--scope", "submit:any", env=env) as command:
        assert await command.ends() == 0, command.errors
    async with running("worker", env=env) as worker, running("serve", "--processes", "2", env=env) as server:
        url = await server.says("ready:")
        async with players(url) as people:
            await people.view(6)
            await people.submit(command.lines[-1], users, 50)
            await eventually(lambda: sum(people.accepted.values()) >= 100)
            await people.finish()
            await people.all_show(people.accepted)
        assert await server.stop() == 0
        assert await worker.stop() == 0
        errors = [line for line in server.errors + worker.errors if '"ERROR"' in line]
        assert not errors
    async with running("check", env=env) as check:
        assert await check.ends() == 0, check.lines
    assert await sql.fetchval("SELECT count(*) FROM outbox") == 0
