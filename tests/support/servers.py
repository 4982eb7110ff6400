"""The real server, in a test's own process and loop, with the worker's tasks.

Owns the server it starts and the clients it hands out, and ends them. Must never stand in for a part of it; what it
reaches into, `travel` alone, is the clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from time import monotonic

import asyncpg
import httpx

from realtime.api.services import Services
from realtime.server import serving
from realtime.server.app import create_app
from realtime.settings import Settings
from tests.support.clients import Client
from tests.support.waiting import PATIENCE

SECRET = "tests-" + "0123456789abcdef" * 4


@dataclass
class RunningServer:
    """The real server, in this process and loop, with the worker's tasks."""

    base_url: str
    services: Services
    http: httpx.AsyncClient
    _clients: list[Client] = field(default_factory=list)

    @property
    def ws_url(self) -> str:
        return self.base_url.replace("http", "ws", 1) + "/ws"

    def travel(self, moment: datetime) -> None:
        """It is `moment` for this server, and time goes on from there: whenever PostgreSQL is asked, it says so."""
        clock, began = self.services.clock, monotonic()
        vars(clock).pop("take", None)
        clock.set(moment, began)
        take = clock.take
        clock.take = lambda _, asked, answered: take(  # type: ignore[method-assign]
            moment + timedelta(seconds=answered - began), asked, answered
        )

    def token(self, user_id: int | None = None, *scopes: str, lifetime: float = 3600) -> str:
        """A token of scope `submit`, or of those given."""
        now = self.services.clock.now()
        return self.services.tokens.mint(user_id, scopes or ("submit",), now, timedelta(seconds=lifetime))[0]

    def bearer(self, user_id: int | None = None, *scopes: str) -> dict[str, str]:
        """The header for HTTP."""
        return {"authorization": f"Bearer {self.token(user_id, *scopes)}"}

    async def client(self, token: str | None = None, **options: object) -> Client:
        """A connected client that has had its greeting; closed with the server."""
        client = await Client.connect(self.ws_url, token, **options)
        self._clients.append(client)
        return client

    async def told(self) -> None:
        """Returns when the store has been told of all that is accepted: that says that a score is recorded, and boards
        show it a moment later, or, where the store is busy, when the sweeper has told it."""
        await self.services.intake.drain()
        connection = await asyncpg.connect(self.services.settings.database_url.reveal())
        try:
            async with asyncio.timeout(PATIENCE):
                while await connection.fetchval("SELECT count(*) FROM outbox"):  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
        finally:
            await connection.close()

    async def aclose(self) -> None:
        for client in self._clients:
            await client.aclose()


@asynccontextmanager
async def running_server(dsn: str, store_url: str, **environment: str) -> AsyncIterator[RunningServer]:
    """A server on these stores. Settings are given as in the environment."""
    settings = Settings.load(
        {
            "DATABASE_URL": dsn,
            "DRAGONFLY_URL": store_url,
            "REALTIME_SECRET": SECRET,
            "REALTIME_PORT": "0",
            "REALTIME_REGISTRATION": "open",
            "REALTIME_BROADCAST_INTERVAL_MS": "10",
            **environment,
        }
    )
    address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    app = create_app(settings, with_worker=True)
    server = serving.server(app, settings, address.set_result)
    task = asyncio.get_running_loop().create_task(server.serve())
    await asyncio.wait({task, address}, return_when=asyncio.FIRST_COMPLETED)
    assert address.done(), "the server did not start"
    async with httpx.AsyncClient(base_url=address.result(), trust_env=False, timeout=PATIENCE) as http:
        running = RunningServer(address.result(), app.state.services, http)
        try:
            yield running
        finally:
            await running.aclose()
            await http.aclose()
            server.should_exit = True
            await task
