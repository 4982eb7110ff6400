"""Pool: pinned connections to PostgreSQL, for one kind of work.

Owns how a connection is had and given back, and how many there are. Must never hand out a connection whose settings are
not ours, or let one kind of work take another's. Assumes that whoever has a connection does not wait for a second one:
then no number of them can wait for each other.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, Final, Protocol, cast

import asyncpg

from realtime.ledger import bounds
from realtime.ledger.bounds import Bounds
from realtime.ledger.health import HealthCheck
from realtime.ledger.outages import Outages


class Hosts(Protocol):
    """Where connections lead."""

    async def connect(self, *given: Any, **options: Any) -> bounds.Connection: ...
    def is_current(self, connection: Any) -> bool: ...
    def fence(self) -> str: ...


class Pool:
    """At most `size` connections, bounded as `kind` says where a transaction does not say otherwise.

    `pooled` is whether a pooler stands in between: then no session is pinned (see `bounds`).
    """

    def __init__(
        self, hosts: Hosts, *, size: int, kind: Bounds, pooled: bool, health: HealthCheck, outages: Outages
    ) -> None:
        # Behind a pooler a statement prepared in one transaction may be unknown in the next.
        differing: dict[str, Any] = {"statement_cache_size": 0} if pooled else {"init": partial(_pin, kind)}
        self._pool: asyncpg.Pool[Any] = asyncpg.create_pool(
            connect=hosts.connect,
            min_size=0,
            max_size=size,
            timeout=bounds.CONNECT,
            command_timeout=kind.statement + 2,
            max_inactive_connection_lifetime=60,
            max_cacheable_statement_size=0,  # planning the longest anew would take as long as a hundred runs of it
            reset=_keep_settings,
            connection_class=bounds.Connection,  # what `connect` gives
            **differing,
        )
        self._hosts = hosts
        self.kind: Final = kind
        """How its connections are bounded where a transaction does not say otherwise."""
        self._pooled = pooled
        self._health = health
        self._outages = outages
        self._warm: list[Any] = []  # connections of the pool at hand, the one used last at the end
        self._waiting = 0  # who waits for one
        self._closing = False  # from then on nobody keeps one at hand

    async def open(self) -> None:
        """Prepares the pool; connections are made at need."""
        await self._pool

    async def aclose(self) -> None:
        """Closes every connection; waits for those that are lent."""
        self._closing = True
        await self.give_back()
        await self._pool.close()

    def terminate(self) -> None:
        """Cuts off every connection."""
        self._pool.terminate()

    async def give_back(self) -> None:
        """Leaves what is at hand to the pool, which ends what is idle for long, or has expired."""
        for _ in range(len(self._warm)):
            if self._warm:
                await self._pool.release(self._warm.pop(0))

    async def expire(self) -> None:
        """Has connections that lie idle made anew before they are used again."""
        await self._pool.expire_connections()

    @asynccontextmanager
    async def lent(self) -> AsyncIterator[asyncpg.Connection[Any]]:
        """Lends a connection. Errors that mean "not now" leave as LedgerUnavailable."""
        with self._outages.mapped():
            async with self._health.lent(self._acquired, self.kind.statement) as acquired:
                try:
                    connection = cast("asyncpg.Connection[Any]", acquired)
                    if self._pooled:
                        async with connection.transaction(isolation=bounds.ISOLATION):
                            settings = bounds.of_transaction(connection, self.kind, pooled=True)
                            await connection.execute(f"{settings}; {self._hosts.fence()}")
                            yield connection
                    else:
                        yield connection
                except BaseException:
                    await self._pool.release(acquired)
                    raise
            if self._waiting or self._closing:
                await self._pool.release(acquired)
            else:
                self._warm.append(acquired)

    @asynccontextmanager
    async def transaction(self, kind: Bounds) -> AsyncIterator[asyncpg.Connection[Any]]:
        """Lends a connection in a transaction that is bounded as `kind` says. Raises LedgerUnavailable."""
        async with self.lent() as connection, asyncio.timeout(kind.transaction), connection.transaction():
            if kind is not self.kind:
                await connection.execute(bounds.of_transaction(connection, kind))
            yield connection

    async def _acquired(self) -> Any:
        """A connection at hand, else one of the pool: getting and releasing one there takes 0.2 ms while idle."""
        while self._warm:
            connection = self._warm.pop()
            with suppress(asyncpg.InterfaceError):  # one that ended meanwhile: the pool has it back, and it is no more
                if not connection.is_closed() and self._hosts.is_current(connection):
                    return connection
                connection.terminate()
            await self._pool.release(connection)
        self._waiting += 1
        try:
            while not self._hosts.is_current(connection := await self._pool.acquire()):
                connection.terminate()  # it lay idle while the primary was replaced, or was just being opened
                await self._pool.release(connection)
            return connection
        finally:
            self._waiting -= 1


async def _pin(kind: Bounds, connection: asyncpg.Connection[Any]) -> None:
    await connection.execute(bounds.of_session(connection, kind))


async def _keep_settings(connection: asyncpg.Connection[Any]) -> None:
    """Nothing: every setting beyond `bounds.of_session` is LOCAL to its transaction, so no round trip is owed."""
