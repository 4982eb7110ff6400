"""Health: whether PostgreSQL answers, known within seconds where its connections hang without an end.

Owns the verdict `away`, and the list of connections that are lent and of those who wait for one. Must never take a busy
database for one that is away: it is asked something trivial, twice, on a connection nobody else uses. Assumes that a
connection that is cut off fails whoever waits on it.

A socket to a host that is gone or frozen says nothing for many minutes. Without this check everybody who asks waits for
a time-out, one after the other; with it they are cut off together, and who comes after them is refused at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol, TypeVar

from realtime.errors import LedgerUnavailable

log = logging.getLogger(__name__)

INTERVAL: Final = 1.0
"""Seconds between two beats."""

PATIENCE: Final = 1.5
"""Seconds that an answer may take."""


class Connection(Protocol):
    """What is lent."""

    def terminate(self) -> None: ...


C = TypeVar("C", bound=Connection)


class HealthCheck:
    """Asks PostgreSQL whether it answers, and cuts off whoever waits for it where it does not.

    Until `run` runs, nothing is ever away. `ask` raises LedgerUnavailable where nobody answers.
    """

    def __init__(self, ask: Callable[[], Awaitable[None]]) -> None:
        self._ask = ask
        self._lent: set[Connection] = set()
        self._waits: set[asyncio.Timeout] = set()
        self.away: str | None = None
        """Why PostgreSQL counts as away; None while it does not."""

    async def run(self) -> None:
        """Asks every second. Never ends by itself."""
        while True:
            await self.beat()
            await asyncio.sleep(INTERVAL)

    async def beat(self) -> None:
        """Asks, and once more where there is no answer: a single connection may be lost for reasons of its own."""
        try:
            try:
                await self._asked()
            except LedgerUnavailable:
                await self._asked()
        except LedgerUnavailable as error:
            if self.away is None:
                log.error("PostgreSQL cannot be used: %s", error, extra={"action": "pulse"})
            self._cut_off(error.reason)
        else:
            if self.away is not None:
                log.warning("PostgreSQL answers again", extra={"action": "pulse"})
            self.away = None

    async def _asked(self) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                await self._ask()
        except TimeoutError:
            raise LedgerUnavailable(f"it does not answer within {PATIENCE} s") from None

    def _cut_off(self, why: str) -> None:
        self.away = why
        self.end()

    def end(self, is_over: Callable[[Any], bool] = lambda connection: True) -> None:
        """Cuts off the lent connections of which that is true, and whoever waits for one: it may be to a host that says
        nothing."""
        now = asyncio.get_running_loop().time()
        for wait in self._waits:
            if not wait.expired():
                wait.reschedule(now)
        for connection in list(self._lent):
            if is_over(connection):
                connection.terminate()

    @asynccontextmanager
    async def lent(self, acquire: Callable[[], Awaitable[C]], patience: float) -> AsyncIterator[C]:
        """What `acquire` gives within `patience` seconds, cut off when PostgreSQL turns out to be away.

        Raises TimeoutError, and LedgerUnavailable at once while it is known to be away.
        """
        if self.away is not None:
            raise LedgerUnavailable(self.away)
        async with asyncio.timeout(patience) as wait:
            self._waits.add(wait)
            try:
                connection = await acquire()
            finally:
                self._waits.discard(wait)
        self._lent.add(connection)
        try:
            yield connection
        finally:
            self._lent.discard(connection)
