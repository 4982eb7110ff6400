"""Migrations: the schema, brought up to date by pogo-core from the files under `sql/migrations`.

Owns the lock under which that happens. Must never leave half a migration behind, or two processes at it. Assumes that
servers of the version before may be at work meanwhile.
"""

from __future__ import annotations

import logging
from typing import Any, Final

import asyncpg
from pogo_core.error import BadMigrationError
from pogo_core.util import migrate as pogo

from realtime import resources
from realtime.failures import mapped

log = logging.getLogger(__name__)

MIGRATION_LOCK: Final = 0x7265616C74696D65  # "realtime"

TRIES: Final = 5
"""How often migrations are tried where they meet a deadlock."""


class _Told(logging.LoggerAdapter[logging.Logger]):
    """Says as news what pogo says as a warning: that a migration is applied."""

    def warning(self, msg: object, *args: object, **options: Any) -> None:
        self.info(msg, *args, extra={"action": "migrate"}, **options)


async def migrate(dsn: str) -> None:
    """Brings the schema up to date. Safe to run again, and from several processes at once: one waits for the other.

    The lock lives in the transaction around all migrations, so a killed process leaves neither a lock nor half a
    migration behind. Servers may go on meanwhile: one that came to the tables in another order is a deadlock, which
    ends the transaction and is met by another. Raises LedgerUnavailable.
    """
    with mapped():
        for tries_left in reversed(range(TRIES)):
            try:
                return await _migrate(dsn)
            except BadMigrationError as error:
                if not tries_left or not isinstance(error.__cause__, asyncpg.DeadlockDetectedError):
                    raise
                log.warning("a deadlock with a server at work; once more", extra={"action": "migrate"})


async def _migrate(dsn: str) -> None:
    connection = await asyncpg.connect(dsn, timeout=10, statement_cache_size=0)
    try:
        async with connection.transaction():
            await connection.execute("SET LOCAL timezone = 'UTC'")
            await connection.execute("SELECT pg_advisory_xact_lock($1)", MIGRATION_LOCK)
            await pogo.apply(
                connection, resources.folder("sql") / "migrations", schema_name="public", logger=_Told(log)
            )
    finally:
        await connection.close()
