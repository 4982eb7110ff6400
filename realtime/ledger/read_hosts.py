"""Read hosts: standbys that are asked what may be some seconds old, so that the primary need not be.

Owns which of them is fit, how far each is behind, and the way back to the primary. Must never ask a host whose delay is
unknown or beyond the bound, or that follows another primary than ours; whoever reads is answered by the primary then.
Assumes that somebody asks (`look`) every second, and the primary's health check too: how far a standby is behind is
told by what the primary had written, and when (`Progress`), and no clock is compared with another.

A commit is on a standby later than on the primary, always. So only what a person reads comes from one: logs, and boards
of closed windows, where what is read is not older than what this process knows already.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, Final, Protocol

import asyncpg

from realtime.addresses import each_host
from realtime.boards.leaderboard import DEFAULT
from realtime.errors import LedgerUnavailable
from realtime.ledger import bounds
from realtime.ledger.health import HealthCheck
from realtime.ledger.hosts import Host
from realtime.ledger.judging import Judged
from realtime.ledger.outages import Outages
from realtime.ledger.pool import Pool
from realtime.ledger.progress import Progress
from realtime.ledger.standing import Standing

log = logging.getLogger(__name__)

INTERVAL: Final = 1.0
"""Seconds between two looks."""

CONNECTIONS: Final = 4
"""To each read host, of one process, besides the one on which it is asked."""

Rows = Sequence[asyncpg.Record]


class Ledger(Protocol):
    """What is needed of the primary."""

    @property
    def standing(self) -> Standing | None: ...
    @property
    def progress(self) -> Progress: ...
    def connection(self) -> AbstractAsyncContextManager[Any]: ...
    def query(self, name: str, source: int = ...) -> str: ...


class _Way:
    """The connections to one host, whatever it is: it was judged when it was asked. A name may have several addresses:
    only the server that was judged is read from."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.lag: float | None = None
        """Seconds by which it is behind; None while it must not be asked."""
        self.trouble = "it was not asked yet"
        """Why it must not be asked, for people."""
        self.health = HealthCheck(self._never)
        self.pool: Pool | None = None
        self.started: datetime | None = None
        """When the server was that was judged."""

    async def _never(self) -> None:
        raise AssertionError("the look asks")

    async def connect(self, *_: Any, **options: Any) -> bounds.Connection:
        """For the pool."""
        connection, _judged = await self.host.open(**options)
        if not self.is_current(connection):
            connection.terminate()
            raise LedgerUnavailable("its name leads to several servers: name each of them")
        return connection

    def is_current(self, connection: bounds.Connection) -> bool:
        """For the pool."""
        return connection.started == self.started

    def fence(self) -> str:
        """For the pool: a read from whichever server is judged by what it says."""
        return "SELECT"

    def refuse(self, why: str) -> None:
        """It must not be asked, and whoever asks it just now hears nothing."""
        if self.lag is not None:
            log.warning("%s is not read from: %s", self.host.name, why, extra={"action": "read_host"})
            self.health.end()
        self.lag, self.trouble = None, why

    def take(self, lag: float) -> None:
        """It is fit."""
        if self.lag is None:
            log.info("%s is read from", self.host.name, extra={"action": "read_host"})
        self.lag, self.trouble = lag, ""


class ReadHosts:
    """The hosts of REALTIME_READ_DATABASE_URL, beside the primary; none where that is not set.

    `place` says where the ledger is, as this process saw it last: see `repair.generation`. `most` is the delay in
    seconds beyond which a host is not asked.
    """

    def __init__(self, url: str, ledger: Ledger, place: Callable[[], str | None], *, most: float = 10.0) -> None:
        self._ways = [_Way(Host(name, address)) for name, address in each_host(url)] if url else []
        self._ledger = ledger
        self._place = place
        self._most = most
        self._outages = Outages()
        self._turn = 0
        self.reads = {"standby": 0.0, "primary": 0.0}
        """Reads that were answered, by whom."""

    async def run(self) -> None:
        """Looks every second. Never ends by itself."""
        while True:
            await self.look()
            await asyncio.sleep(INTERVAL)

    async def look(self) -> None:
        """Asks every host how far it is. Raises nothing."""
        await asyncio.gather(*map(self._look_at, self._ways))

    async def _look_at(self, way: _Way) -> None:
        judged = await way.host.ask()
        if judged is None:
            assert way.host.trouble is not None
            return way.refuse(way.host.trouble.reason)
        way.started = judged.started
        try:
            if way.pool is None:
                await self._open(way, judged)
            lag = self._lag(judged)
            if (why := self._unfitness(judged, lag) or await self._estranged(way)) is not None:
                way.refuse(why)
            else:
                assert lag is not None
                way.take(lag)
        except (LedgerUnavailable, TimeoutError) as error:
            way.refuse(str(error))

    async def _open(self, way: _Way, judged: Judged) -> None:
        pooled = judged.pid != way.host.server_pid
        way.pool = Pool(
            way, size=CONNECTIONS, kind=bounds.SERVING, pooled=pooled, health=way.health, outages=self._outages
        )
        await way.pool.open()

    def _lag(self, judged: Judged) -> float | None:
        if judged.standing is not None and judged.standing == self._ledger.standing:
            return 0.0  # it is the primary
        return self._ledger.progress.lag(judged.log_position, judged.asked)

    def _unfitness(self, judged: Judged, lag: float | None) -> str | None:
        standing = self._ledger.standing
        if standing is None or judged.cluster != standing.cluster:
            return "it is of another cluster than the primary"
        if not judged.is_standby and judged.standing != standing:
            return "it is a primary of its own"
        if lag is None or lag > self._most:
            behind = "for longer than is known" if lag is None else f"{lag:.1f} s"
            return f"it is behind: {behind}"
        return None

    async def _estranged(self, way: _Way) -> str | None:
        """Whether what is there is not the past of what the primary has."""
        assert way.pool is not None
        async with asyncio.timeout(INTERVAL), way.pool.lent() as connection:
            place = await connection.fetchval(self._ledger.query("lineage"))
        return None if place == self._place() else "it follows another primary, or one that was there before"

    # Reading ---------------------------------------------------------------------------------------------------

    async def fetch(
        self, name: str, *args: Any, source: int = DEFAULT.id, fits: Callable[[Rows], bool] = bool
    ) -> Rows:
        """The rows of the query called `name`, of a source; see `read`, and `Ledger.query`."""
        return await self.read(self._ledger.query(name, source), *args, fits=fits)

    async def read(self, query: str, *args: Any, fits: Callable[[Rows], bool] = bool) -> Rows:
        """What a query finds on a host that is fit, or, where there is none, it cannot answer or its answer does not
        fit (by default: is empty), on the primary. Raises LedgerUnavailable."""
        for way in self._next():
            assert way.pool is not None
            try:
                async with way.pool.lent() as connection:
                    rows: Rows = await connection.fetch(query, *args)
            except (LedgerUnavailable, asyncpg.PostgresError) as error:
                log.debug("%s could not be read from: %s", way.host.name, error)
                break
            if fits(rows):
                self.reads["standby"] += 1
                return rows
        self.reads["primary"] += 1
        async with self._ledger.connection() as connection:
            found: Rows = await connection.fetch(query, *args)
            return found

    def _next(self) -> list[_Way]:
        """The host whose turn it is; none where none is fit."""
        fit = [way for way in self._ways if way.lag is not None]
        self._turn += 1
        return [fit[self._turn % len(fit)]] if fit else []

    def lags(self) -> dict[str, float | None]:
        """By host the seconds by which it is behind; None where it is not asked. A host is called by its place in the
        address, from 1: whoever reads this need not know its name."""
        return {str(place): way.lag for place, way in enumerate(self._ways, 1)}

    async def aclose(self) -> None:
        """Closes every connection."""
        for way in self._ways:
            way.host.forget()
            if way.pool is not None:
                way.pool.terminate()
