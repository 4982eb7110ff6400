"""Leases: an advisory lock that a process holds for as long as it shows life.

Owns the connection and the transaction that hold the lock. Must never outlive its holder: PostgreSQL ends a transaction
in which nothing is said. Assumes that whoever loses a lease is fenced off by other means: nobody tells it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import asyncpg

from realtime.errors import LedgerUnavailable
from realtime.ledger import bounds
from realtime.ledger.outages import mapped

log = logging.getLogger(__name__)

Connect = Callable[[], Awaitable[bounds.Connection]]
"""Opens a connection that nobody else uses."""

LEASE_BEAT: Final = 1.0
"""Seconds between two signs of life of a lease's holder."""


@asynccontextmanager
async def held(connect: Connect, lock: int) -> AsyncIterator[bool]:
    """Whether this process alone holds `lock` during the block; False while another does.

    The lock is that of a transaction on a connection of its own, in which something is said every second. Raises what
    asyncpg raises.
    """
    connection = await connect()
    done = asyncio.Event()
    try:
        await connection.execute(f"BEGIN; {bounds.of_transaction(connection, bounds.LEASE, pooled=True)}")
        is_held = bool(await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", lock))
        keeping = asyncio.create_task(_keep(connection, done)) if is_held else None
        try:
            yield is_held
        finally:
            done.set()
            if keeping is not None:
                await asyncio.wait([keeping])
        with suppress(LedgerUnavailable, asyncpg.PostgresError), mapped():
            await connection.execute("ROLLBACK", timeout=bounds.LEASE.statement)
    finally:
        connection.terminate()


async def _keep(connection: asyncpg.Connection[Any], done: asyncio.Event) -> None:
    """Says something in the connection's transaction every second, until `done`."""
    while not done.is_set():
        with suppress(TimeoutError):
            async with asyncio.timeout(LEASE_BEAT):
                await done.wait()
        try:
            with mapped():
                await connection.execute("SELECT", timeout=bounds.LEASE.statement)
        except (LedgerUnavailable, asyncpg.PostgresError) as error:
            log.warning("a lease is lost: %s", error, extra={"action": "lease"})
            return
