"""Migrations: the schema, brought up to date by pogo-core from the files under `sql/migrations`.

Owns the lock under which that happens. Must never leave half a migration behind, or two processes at it. Assumes that
servers of the version before may be at work meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import closing
from typing import Any, Final

import asyncpg
from pogo_core.error import BadMigrationError
from pogo_core.util import migrate as pogo

from realtime import resources
from realtime.errors import LedgerLocked, LedgerUnfit
from realtime.ledger import bounds
from realtime.ledger.hosts import Hosts
from realtime.ledger.outages import mapped

log = logging.getLogger(__name__)

MIGRATION_LOCK: Final = 0x7265616C74696D65  # "realtime"

TRIES: Final = 20
"""How often migrations are tried where they meet a deadlock, or a table that somebody else holds."""

CITUS: Final = "13"
"""The major version of the extension that tests ran on."""

AGAIN: Final = 0.5
"""Seconds in between. Nothing is held meanwhile: who waits for a table keeps all others from it."""


class _Told(logging.LoggerAdapter[logging.Logger]):
    """Says as news what pogo says as a warning: that a migration is applied."""

    def warning(self, msg: object, *args: object, **options: Any) -> None:
        self.info(msg, *args, extra={"action": "migrate"}, **options)


async def migrate(dsn: str) -> None:
    """Brings the schema up to date. Safe to run again, and from several processes at once: one waits for the other.

    The lock lives in the transaction around all migrations, so a killed process leaves neither a lock nor half a
    migration behind, and one that stands still loses both within seconds. Servers may go on meanwhile: one that came to
    the tables in another order is a deadlock, which ends the transaction and is met by another.

    Raises LedgerUnavailable; for a database that is unfit, LedgerUnfit.
    """
    hosts = Hosts(dsn)
    with mapped(), closing(hosts):
        tries_left = TRIES
        while True:
            try:
                if await _migrate(hosts):
                    return
            except (BadMigrationError, *_IN_THE_WAY) as error:
                cause = error.__cause__ if isinstance(error, BadMigrationError) else error
                if not isinstance(cause, _IN_THE_WAY):
                    raise
                tries_left -= 1
                if not tries_left:
                    raise LedgerLocked(f"{cause}: a transaction of somebody else's is open, see pg_locks") from error
                log.warning("not migrated yet (%s); once more", cause, extra={"action": "migrate"})
            await asyncio.sleep(AGAIN)


_IN_THE_WAY: Final = (
    asyncpg.DeadlockDetectedError,
    asyncpg.LockNotAvailableError,
    asyncpg.ConnectionDoesNotExistError,  # this and the next: we stood still, and PostgreSQL has ended what was open
    asyncpg.InterfaceError,
)


async def _migrate(hosts: Hosts) -> bool:
    """Whether the schema is up to date; not while another process is at it."""
    connection = await hosts.plain()
    try:
        async with connection.transaction(isolation=bounds.ISOLATION):
            await connection.execute(bounds.of_transaction(connection, bounds.MIGRATION, pooled=True))
            if not await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", MIGRATION_LOCK):
                return False
            await pogo.apply(
                connection, resources.folder("sql") / "migrations", schema_name="public", logger=_Told(log)
            )
            await _spread(connection)
        return True
    finally:
        await connection.close()


async def _spread(connection: asyncpg.Connection[Any]) -> None:
    """Spreads the leaderboards' tables where the database has the extension Citus and they are not spread yet."""
    version = await connection.fetchval("SELECT extversion FROM pg_extension WHERE extname = 'citus'")
    if version is None or await connection.fetchval("SELECT to_regclass('spread.scores') IS NOT NULL"):
        return
    if version.partition(".")[0] != CITUS:
        raise LedgerUnfit(
            f"The database has Citus {version}, which nobody has tried: Citus {CITUS} is supported. Install that "
            "(ALTER EXTENSION citus UPDATE), or DROP EXTENSION citus for one PostgreSQL alone."
        )
    log.info("spreading the leaderboards' tables over the nodes of Citus", extra={"action": "migrate"})
    await connection.execute((resources.folder("sql") / "spread.sql").read_text(encoding="utf-8"))
