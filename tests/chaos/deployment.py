"""A deployment on this machine: PostgreSQL, a store, servers and a worker, each a process that may be killed.

Owns the processes it starts and ends each of them. Must never reach into one: signals, sockets and what the two stores
hold are all there is. Addresses stay the same from start to start.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import asyncpg
import httpx
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff

from realtime.dev.postgres import start_postgres
from realtime.dev.process import Running
from realtime.dev.store import start_store
from realtime.ledger import migrations
from tests.support.processes import REALTIME, Program, lasting_port
from tests.support.waiting import SECOND

SECRET = "chaos-" + "0123456789abcdef" * 4
PATIENCE = 30 * SECOND
"""Seconds a process may take to answer on a machine under load."""


class Kept:
    """PostgreSQL or the store. Its methods block: call them through `asyncio.to_thread`."""

    def __init__(self, start: Callable[[], AbstractContextManager[Running]]) -> None:
        self._make = start
        self._stack = ExitStack()
        self.running: Running
        self.start()

    @property
    def url(self) -> str:
        return self.running.url

    def start(self) -> None:
        self.running = self._stack.enter_context(self._make())

    def stop(self) -> None:
        """Ends it as an operator would."""
        self._stack.close()

    def kill(self) -> None:
        """Ends it as a power cut would."""
        os.kill(self.running.pid, signal.SIGKILL)
        self._stack.close()

    def pause(self) -> None:
        """It hangs: sockets stay open, nobody answers."""
        for pid in _family(self.running.pid):
            os.kill(pid, signal.SIGSTOP)

    def go_on(self) -> None:
        for pid in _family(self.running.pid):
            os.kill(pid, signal.SIGCONT)

    def mend(self) -> None:
        """It runs again, whatever was done to it."""
        with suppress(FileNotFoundError, ProcessLookupError):  # dead: then there is nobody to wake
            self.go_on()
        self.stop()
        self.start()


def _family(pid: int) -> list[int]:
    """A process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]


class KeptStore(Kept):
    """The store, whose content can be lost or go back."""

    def __init__(self, folder: Path) -> None:
        self._data = folder / "dragonfly"
        super().__init__(lambda: start_store(folder))

    def lose(self) -> None:
        """While it is down: nothing was ever saved."""
        shutil.rmtree(self._data)

    def keep(self, saved: Path) -> None:
        """A copy of what was saved last."""
        shutil.rmtree(saved, ignore_errors=True)
        shutil.copytree(self._data, saved)

    def go_back(self, saved: Path) -> None:
        """While it is down: back to a copy."""
        self.lose()
        shutil.copytree(saved, self._data)


class Server(Program):
    """A `realtime serve` or `realtime worker`."""

    def __init__(self, command: str, environment: dict[str, str], log: Path) -> None:
        super().__init__(*REALTIME, command, env=environment, log=log)
        self.base_url = f"http://127.0.0.1:{environment['REALTIME_PORT']}"


class Engine(Protocol):
    """A store of one process or of several."""

    @property
    def url(self) -> str:
        """As a deployment is told of it."""

    def mend(self) -> None:
        """It runs again, whatever was done to it."""

    def stop(self) -> None: ...


StoreT = TypeVar("StoreT", bound=Engine)


class Stores(Generic[StoreT]):
    """PostgreSQL and the store with users in them, for any number of deployments one after the other."""

    def __init__(self, folder: Path, users: int, start_store: Callable[[Path], StoreT]) -> None:
        self.folder = folder
        self.users = users
        self.database = Kept(lambda: start_postgres(folder))
        try:
            self.store = start_store(folder)
        except BaseException:
            self.database.stop()
            raise
        asyncio.run(self._prepare())
        self._shared: Deployment | None = None

    @property
    def shared(self) -> Deployment:
        """A server and a worker, the same for one scenario after the other."""
        if self._shared is None:
            self._shared = Deployment(self)
            self._shared.start()
        return self._shared

    async def _prepare(self) -> None:
        await migrations.migrate(self.database.url)
        connection = await asyncpg.connect(self.database.url)
        await connection.execute(
            f"INSERT INTO users (username) SELECT 'player ' || g FROM generate_series(1, {self.users}) g"
        )
        await connection.close()

    def mend(self) -> None:
        """After a scenario that broke off: everything runs again, so that the next fails for its own reasons only."""
        if self._shared is not None:
            self._shared.stop()
            self._shared = None
        self.database.mend()
        self.store.mend()

    def stop(self) -> None:
        if self._shared is not None:
            self._shared.stop()
        self.store.stop()
        self.database.stop()


class Deployment:
    """Servers and a worker on `Stores`, reached through these URLs; `stop` ends everything that `start` began."""

    def __init__(
        self,
        stores: Stores[Any],
        *,
        servers: int = 1,
        database_url: str | None = None,
        store_url: str | None = None,
        **environment: str,
    ) -> None:
        self.stores = stores
        self.database, self.store = stores.database, stores.store
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LD_LIBRARY_PATH") if name in os.environ}
        common = {
            **kept,
            "DATABASE_URL": database_url or self.database.url,
            "DRAGONFLY_URL": store_url or self.store.url,
            "REALTIME_SECRET": SECRET,
            # The crowd comes from one address, and sends for everybody.
            "REALTIME_MAX_CONNECTIONS_PER_ADDRESS": "0",
            "REALTIME_MESSAGE_RATE": "0",
            "REALTIME_SUBMISSION_RATE": "0",
            "REALTIME_DRAIN_S": "0",
            "REALTIME_RECONNECT_SPREAD_S": "0",
            **environment,
        }
        self.servers: list[Server] = []
        for number in range(servers):
            log = stores.folder / f"server-{number}.log"
            port = str(lasting_port() + number)
            self.servers.append(Server("serve", {**common, "REALTIME_PORT": port}, log))
        self.worker = Server("worker", {**common, "REALTIME_PORT": "0"}, stores.folder / "worker.log")

    def start(self) -> None:
        for program in self._programs:
            program.begin()

    def stop(self) -> None:
        for program in self._programs:
            program.stop()

    @property
    def _programs(self) -> list[Server]:
        return [*self.servers, self.worker]

    async def answer(self) -> None:
        """Waits until every server answers."""
        for server in self.servers:
            await self.answers(server)

    def keys(self) -> redis.asyncio.Redis:
        """The store as redis-cli shows it, for one event loop."""
        return redis.asyncio.Redis.from_url(
            self.store.url, decode_responses=True, socket_timeout=5, retry=Retry(ConstantBackoff(0.05), 3)
        )

    async def answers(self, server: Server) -> None:
        """Waits until a server answers and its boards can be read."""
        deadline = time.monotonic() + PATIENCE
        async with httpx.AsyncClient(trust_env=False) as http:
            while time.monotonic() < deadline:
                assert server.is_running, f"{server.base_url} ended:\n{server.log[-3000:]}"
                try:
                    if (await http.get(f"{server.base_url}/readyz")).status_code == 200:
                        return
                except httpx.HTTPError:
                    pass
                await asyncio.sleep(0.05)
        raise AssertionError(f"{server.base_url} does not answer:\n{server.log[-3000:]}")

    @cached_property
    def token(self) -> str:
        """For a game server: everyone's scores. Blocks for a second the first time."""
        command = [*REALTIME, "token", "--user-id", "1", "--scope", "submit:any"]
        said = subprocess.run(command, env=self.servers[0].env, check=True, capture_output=True, text=True)
        return said.stdout.split()[-1]
