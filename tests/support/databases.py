"""Databases for tests: each a copy of one that was migrated once, on a real PostgreSQL.

Owns the databases that it made, on the server of `DATABASE_URL` or one of the session's own, and drops them. Must never
touch another database beside them.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from realtime import resources
from realtime.ledger import migrations

GIVEN_CITUS = os.environ.get("CITUS_URL", "")
"""The coordinator of a Citus deployment, whose database knows its nodes; where it is set, tests run there."""

GIVEN_DATABASE = GIVEN_CITUS or os.environ.get("DATABASE_URL", "")

# Speed for databases that live for one test. Nothing here changes what a statement does.
FAST_POSTGRES = {
    "fsync": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "max_connections": "200",
}

BEGINNINGS = """
INSERT INTO catalogue DEFAULT VALUES;
INSERT INTO leaderboards (id, slug, source, definition, rule) VALUES (1, 'default', 1, '{}', 1);
INSERT INTO rules (id, leaderboard, source, operator, ascending, kinds, definition, state)
VALUES (1, 1, 1, 'sum', false, '{}', '{}', 'live');
"""
"""The rows that migrations leave, and that every ledger has."""

ALL_OF_IT = """
CREATE SCHEMA everything;
CREATE VIEW everything.scores AS SELECT * FROM public.scores UNION ALL SELECT * FROM spread.scores;
CREATE VIEW everything.outbox AS SELECT id, kind, user_ids, created_at, source FROM public.outbox
    UNION ALL SELECT id, kind, user_ids, created_at, source FROM spread.outbox;
"""
"""Where tables are spread, what tests look at under the names that they have elsewhere."""

MakeUsers = Callable[..., Awaitable[list[int]]]
"""Makes users without a password: a number of them, or one for each name."""


class Databases:
    """Makes databases, each a copy of one that was migrated once, and empties those that come back."""

    def __init__(self, url: str, runner: asyncio.Runner) -> None:
        self._url = url
        self._runner = runner
        self._connection: asyncpg.Connection = runner.run(asyncpg.connect(url))
        self._template = f"realtime_template_{os.getpid()}"
        self._nodes: list[str] = [] if not GIVEN_CITUS else runner.run(self._find_nodes())
        if not GIVEN_CITUS:
            self._execute(f'DROP DATABASE IF EXISTS "{self._template}" WITH (FORCE)')
            self._execute(f'CREATE DATABASE "{self._template}"')
            runner.run(migrations.migrate(self.url_of(self._template)))
        self._migrations = len(list((resources.folder("sql") / "migrations").glob("*.sql")))
        self._made = 0
        self._free: list[str] = []

    def _execute(self, statement: str) -> None:
        self._runner.run(self._connection.execute(statement))

    def url_of(self, name: str) -> str:
        return urlunsplit(urlsplit(self._url)._replace(path=f"/{name}"))

    def create(self, *, migrated: bool = True) -> str:
        """The name of a new database."""
        self._made += 1
        name = f"realtime_test_{os.getpid()}_{self._made}"
        if GIVEN_CITUS:
            self._runner.run(self._create_everywhere(name, migrated=migrated))
            return name
        template = self._template if migrated else "template0"
        # Without fsync a copy of files is quicker than one through the log. A server that was given may not know it.
        strategy = "" if GIVEN_DATABASE else " STRATEGY FILE_COPY"
        self._execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"{strategy}')
        return name

    async def _find_nodes(self) -> list[str]:
        """The addresses of the workers."""
        rows = await self._connection.fetch(
            "SELECT nodename, nodeport FROM pg_dist_node WHERE groupid <> 0 AND noderole = 'primary'"
        )
        return [f"{name}:{port}" for name, port in rows]

    def _at(self, node: str, name: str = "") -> str:
        """The URL of a database of a worker: of the one of that name, or of the one that was given."""
        given = urlsplit(self._url)
        url = given._replace(netloc=f"{given.netloc.rpartition('@')[0]}@{node}")
        return urlunsplit(url._replace(path=f"/{name}") if name else url)

    def create_apart(self) -> str:
        """The name of a new database, migrated, of which the nodes of Citus have one each and know nothing yet."""
        self._made += 1
        name = f"realtime_test_{os.getpid()}_{self._made}"
        self._runner.run(self._create_apart(name))
        self._runner.run(migrations.migrate(self.url_of(name)))
        return name

    async def _create_apart(self, name: str) -> None:
        for url in (self._url, *map(self._at, self._nodes)):
            await _executed(url, f'CREATE DATABASE "{name}"')

    async def join(self, name: str) -> None:
        """Makes one deployment of Citus of a database and those of its name on the other nodes."""
        given = urlsplit(self._url)
        for node in self._nodes:
            await _executed(self._at(node, name), "CREATE EXTENSION citus")
        known = f"SELECT citus_set_coordinator_host('{given.hostname}', {given.port or 5432})"
        added = [f"SELECT citus_add_node('{node.split(':')[0]}', {node.split(':')[1]})" for node in self._nodes]
        await _executed(self.url_of(name), "CREATE EXTENSION citus", known, *added)

    async def _create_everywhere(self, name: str, *, migrated: bool) -> None:
        await self._create_apart(name)
        await self.join(name)
        if migrated:
            await migrations.migrate(self.url_of(name))
            await _executed(self.url_of(name), ALL_OF_IT)

    def take(self) -> str:
        """The name of a migrated database with nothing in it: one that came back, or a new one."""
        return self._free.pop() if self._free else self.create()

    def give_back(self, name: str) -> None:
        """Leaves a database as it was when it was new: quicker than a copy for every test."""
        self._execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        self._execute(f'ALTER DATABASE "{name}" RESET ALL')
        if self._runner.run(self._empty(name)):
            self._free.append(name)
        else:
            self.drop(name)

    async def _empty(self, name: str) -> bool:
        """Whether it is as it was: a test may have migrated it further."""
        connection = await asyncpg.connect(self.url_of(name))
        try:
            if await connection.fetchval("SELECT count(*) FROM _pogo_migration") != self._migrations:
                return False
            for (view,) in await connection.fetch("SELECT matviewname FROM pg_matviews"):
                await connection.execute(f'DROP MATERIALIZED VIEW "{view}" CASCADE')
            tables = await connection.fetch(
                "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename NOT LIKE '%pogo%'"
            )
            if GIVEN_CITUS:
                for table in ("heads", "score_transactions", "scores", "outbox"):
                    await connection.execute(f"TRUNCATE spread.{table}")
            names = ", ".join(f'"{table}"' for (table,) in tables)
            await connection.execute(f"TRUNCATE {names} RESTART IDENTITY CASCADE; {BEGINNINGS}")
            return True
        finally:
            await connection.close()

    def drop(self, name: str) -> None:
        self._execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        for node in self._nodes:
            self._runner.run(_executed(self._at(node), f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))

    def close(self) -> None:
        for name in [*self._free, self._template]:
            self.drop(name)
        self._runner.run(self._connection.close())


async def _executed(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()
