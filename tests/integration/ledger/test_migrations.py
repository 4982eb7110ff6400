"""Migrations: once, whoever starts them and how often, and all of it or nothing."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from realtime import resources
from realtime.boards.submissions import Submission
from realtime.errors import LedgerUnavailable, LedgerUnfit, StartupError
from realtime.ledger import migrations
from realtime.ledger.ledger import Ledger
from tests.support.databases import Databases
from tests.support.waiting import PATIENCE

SCHEMA = """
    SELECT table_name, column_name, data_type, is_nullable, column_default
    FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2
"""


async def shape(dsn: str) -> list[tuple[object, ...]]:
    connection = await asyncpg.connect(dsn)
    try:
        columns = [tuple(row) for row in await connection.fetch(SCHEMA)]
        indexes = await connection.fetch("SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1")
        return columns + [tuple(row) for row in indexes]
    finally:
        await connection.close()


def tables(found: list[tuple[object, ...]]) -> set[object]:
    return {row[0] for row in found if len(row) > 1}


async def test_an_empty_database_gets_the_schema_of_every_other_test(empty_dsn: str, dsn: str) -> None:
    assert await shape(empty_dsn) == []
    await migrations.migrate(empty_dsn)
    assert await shape(empty_dsn) == await shape(dsn)
    assert {"users", "user_score_transactions", "user_total_scores", "user_weekly_scores", "outbox"} <= tables(
        await shape(dsn)
    )


async def test_again_changes_nothing(dsn: str, sql: asyncpg.Connection) -> None:
    await sql.execute("INSERT INTO users (username) VALUES ('here before')")
    before = await shape(dsn)
    for _ in range(2):
        await migrations.migrate(dsn)
    assert await shape(dsn) == before
    assert await sql.fetchval("SELECT username FROM users") == "here before"


async def test_several_at_once_wait_for_each_other(empty_dsn: str, dsn: str) -> None:
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*(migrations.migrate(empty_dsn) for _ in range(5)))
    assert await shape(empty_dsn) == await shape(dsn)


async def test_two_processes_at_once(empty_dsn: str, dsn: str) -> None:
    environment = {**os.environ, "DATABASE_URL": empty_dsn}
    started = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-m", "realtime", "migrate", env=environment, stdout=subprocess.PIPE
        )
        for _ in range(2)
    ]
    said = [(await process.communicate())[0].decode() for process in started]
    assert [process.returncode for process in started] == [0, 0]
    assert said == ["The schema is up to date.\n"] * 2
    assert await shape(empty_dsn) == await shape(dsn)


async def test_a_killed_migration_leaves_neither_a_lock_nor_half_a_schema(empty_dsn: str, dsn: str) -> None:
    """It is killed while it waits for a table that somebody else holds."""
    holder = await asyncpg.connect(empty_dsn)
    await holder.execute("BEGIN; CREATE TABLE users (half boolean)")  # the migration's own must wait for ours
    environment = {**os.environ, "DATABASE_URL": empty_dsn}
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "realtime", "migrate", env=environment)
    async with asyncio.timeout(PATIENCE):
        while not await holder.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            await holder.execute("SELECT pg_sleep(0.02)")
    process.send_signal(signal.SIGKILL)
    await process.wait()
    await holder.execute("ROLLBACK")
    async with asyncio.timeout(PATIENCE):
        await migrations.migrate(empty_dsn)
    assert await shape(empty_dsn) == await shape(dsn)
    await holder.close()


async def test_a_server_that_comes_to_the_tables_in_another_order_costs_another_try(
    empty_dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await migrations.migrate(empty_dsn)
    shutil.copytree(resources.folder("sql"), tmp_path / "sql")
    columns = "".join(f"ALTER TABLE {table} ADD COLUMN seen TEXT;\n" for table in ("users", "outbox"))
    text = f"-- later\n-- depends: 0002_revoked_tokens\n\n-- migrate: apply\n{columns}\n-- migrate: rollback\n"
    (tmp_path / "sql/migrations/0003_later.sql").write_text(text, encoding="utf-8")
    monkeypatch.setattr(resources, "folder", lambda name: tmp_path / name)
    server = await asyncpg.connect(empty_dsn)
    await server.execute("SET deadlock_timeout = '60s'")  # it is the migration that gives way
    await server.execute("BEGIN; SELECT FROM outbox")
    migrating = asyncio.create_task(migrations.migrate(empty_dsn))
    async with asyncio.timeout(PATIENCE):
        while not await server.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            assert not migrating.done()
        await server.execute("SELECT FROM users; COMMIT")  # the migration has waited longer: PostgreSQL ends that
        await migrating
    assert {("users", "seen"), ("outbox", "seen")} <= {row[:2] for row in await shape(empty_dsn)}
    await server.close()


async def test_a_database_that_cannot_keep_every_text_is_refused_and_says_what_to_do(
    databases: Databases, sql: asyncpg.Connection
) -> None:
    for encoding in ("LATIN1", "SQL_ASCII"):
        name = f"realtime_{encoding.lower()}_{os.getpid()}"
        await sql.execute(f"DROP DATABASE IF EXISTS {name}")
        await sql.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'")
        url = databases.url_of(name)
        try:
            with pytest.raises(StartupError, match=f"encoding is {encoding}, and must be UTF8: .* ENCODING 'UTF8'"):
                await migrations.migrate(url)
            assert await shape(url) == [], "and nothing is left in it"
            with pytest.raises(StartupError, match=f"encoding is {encoding}"):
                await Ledger(url).open()
            environment = {**os.environ, "DATABASE_URL": url, "DRAGONFLY_URL": "redis://127.0.0.1:1/0"}
            environment["REALTIME_SECRET"] = "x" * 32
            for command in ("migrate", "serve") if encoding == "LATIN1" else ():
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "realtime", command, env=environment, stderr=subprocess.PIPE
                )
                _, said = await process.communicate()
                assert process.returncode == 1, command
                assert f"encoding is {encoding}" in said.decode() and "Traceback" not in said.decode(), command
        finally:
            await sql.execute(f"DROP DATABASE {name} WITH (FORCE)")


async def test_a_database_that_becomes_unfit_is_refused_by_every_new_connection(
    databases: Databases, sql: asyncpg.Connection
) -> None:
    """Another takes its place under the same name, as after a failover, or a restore of somebody's."""
    name = f"realtime_becomes_{os.getpid()}"
    made = f"CREATE DATABASE {name} TEMPLATE template0 LOCALE 'C' ENCODING"
    await sql.execute(f"DROP DATABASE IF EXISTS {name}")
    await sql.execute(f"{made} 'UTF8'")
    ledger = Ledger(databases.url_of(name))
    try:
        await ledger.open()
        await ledger.health.beat()
        assert ledger.health.away is None
        await sql.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await sql.execute(f"{made} 'LATIN1'")
        await ledger.health.beat()
        assert "encoding is LATIN1, and must be UTF8" in (ledger.health.away or "")
        ledger.health.away = None
        with pytest.raises(LedgerUnfit, match="encoding is LATIN1"):
            await ledger.fetch("judged")
        assert ledger.outages.counts["unfit"] == 1
        await sql.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await sql.execute(f"{made} 'UTF8'")
        await ledger.health.beat()
        assert ledger.health.away is None
        assert await ledger.fetch("judged")
    finally:
        await ledger.aclose()
        await sql.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


async def test_users_whom_a_locale_gave_one_address_each_keep_it(
    empty_dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(resources.folder("sql"), tmp_path / "sql")
    for path in (tmp_path / "sql/migrations").glob("*.sql"):
        if path.stem not in ("0001_initial", "0002_revoked_tokens"):
            path.unlink()
    with monkeypatch.context() as patched:
        patched.setattr(resources, "folder", lambda name: tmp_path / name)
        await migrations.migrate(empty_dsn)
    connection = await asyncpg.connect(empty_dsn)
    try:
        await connection.execute("DROP INDEX users_email")  # under that locale it would have let these in
        emails = ["Ada@I.example", "bo@example.org", "ada@i.example", None, None, "ADA@i.example"]
        await connection.executemany("INSERT INTO users (email, username) VALUES ($1, 'x')", [(one,) for one in emails])
        await migrations.migrate(empty_dsn)
        found = await connection.fetch("SELECT email, email_place FROM users ORDER BY id")
        assert [tuple(row) for row in found] == list(zip(emails, [0, 0, 1, 0, 0, 2], strict=True))
        with pytest.raises(asyncpg.UniqueViolationError):
            await connection.execute("INSERT INTO users (email, username) VALUES ('ADA@I.EXAMPLE', 'x')")
    finally:
        await connection.close()


def test_no_query_leaves_it_to_the_locale_what_a_small_letter_is() -> None:
    for name, query in resources.queries().items():
        cased = re.findall(r"\b(?:lower|upper|initcap|casefold)\s*\([^)]*\)", query)
        assert all('COLLATE "C"' in call for call in cased), name
        assert not re.search(r"\bI?LIKE\b(?! '%@)|~\*", query), name


async def test_a_database_that_is_not_there_is_told_as_such() -> None:
    with pytest.raises(LedgerUnavailable):
        await migrations.migrate("postgresql://nobody:x@127.0.0.1:1/none")


async def test_a_ledger_works_on_what_was_just_migrated(empty_dsn: str) -> None:
    await migrations.migrate(empty_dsn)
    ledger = Ledger(empty_dsn)
    await ledger.open()
    (row,) = (await ledger.record_batch([Submission(1, "a", 5, None, None)], [])).judged
    assert row.outcome == "unknown"
    await ledger.aclose()


def test_migrations_are_plain_sql_with_a_way_there() -> None:
    found = sorted((resources.folder("sql") / "migrations").glob("*.sql"))
    assert found
    numbers = [re.match(r"(\d{4})_\w+$", path.stem) for path in found]
    assert all(numbers)
    assert [int(match[1]) for match in numbers if match] == list(range(1, len(found) + 1)), "no number twice, no gap"
    for path in found:
        text = path.read_text(encoding="utf-8")
        assert "-- migrate: apply" in text, path.name


def test_migrations_only_add_so_that_the_version_before_serves_on() -> None:
    for path in (resources.folder("sql") / "migrations").glob("*.sql"):
        applied = path.read_text(encoding="utf-8").partition("-- migrate: rollback")[0]
        assert not re.search(r"\b(DROP|RENAME|TRUNCATE|ALTER\s+COLUMN)\b", applied), path.name


def test_every_query_has_a_name_of_its_own_and_is_used() -> None:
    queries = resources.queries()
    source = "".join(path.read_text(encoding="utf-8") for path in Path(migrations.__file__).parents[1].rglob("*.py"))
    named = [name.removesuffix("_spread") if name.removesuffix("_spread") in queries else name for name in queries]
    unused = [name for name in named if f'"{name}"' not in source]
    assert unused == []


async def test_a_filled_ledger_of_one_leaderboard_gets_the_others_without_being_rewritten(
    empty_dsn: str, dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(resources.folder("sql"), tmp_path / "sql")
    for path in (tmp_path / "sql/migrations").glob("*.sql"):
        if path.stem > "0006":
            path.unlink()
    with monkeypatch.context() as patched:
        patched.setattr(resources, "folder", lambda name: tmp_path / name)
        await migrations.migrate(empty_dsn)
    connection = await asyncpg.connect(empty_dsn)
    try:
        await connection.execute(
            "INSERT INTO users (username, deleted_at) SELECT 'p' || g, CASE WHEN g = 3 THEN now() END"
            " FROM generate_series(1, 50) g;"
            "INSERT INTO user_score_transactions (user_id, score_added, submission_id, created_at)"
            " SELECT 1 + g % 50, g, g, now() FROM generate_series(1, 5000) g;"
            "INSERT INTO user_total_scores (user_id, total_score, hidden)"
            " SELECT user_id, sum(score_added), user_id IN (2, 3) FROM user_score_transactions GROUP BY user_id"
        )
        files = (
            "SELECT relname, relfilenode FROM pg_class"
            " WHERE relnamespace = 'public'::regnamespace AND relname ~ '^user'"
        )
        before = await connection.fetch(files)
        await migrations.migrate(empty_dsn)
        assert [row for row in await connection.fetch(files) if row in before] == before, "a table was written anew"
        bans = await connection.fetch("SELECT user_id, leaderboard FROM bans")
        assert bans == [(2, 0)], "who is deleted is not banned"
        assert await shape(empty_dsn) == await shape(dsn)
        text = (resources.folder("sql") / "migrations/0006_leaderboards.sql").read_text(encoding="utf-8")
        await connection.execute(text.partition("-- migrate: rollback")[2])
        await connection.execute("DELETE FROM _pogo_migration WHERE migration_id = '0006_leaderboards'")
        await migrations.migrate(empty_dsn)
        assert await shape(empty_dsn) == await shape(dsn), "and back, and there again"
    finally:
        await connection.close()
