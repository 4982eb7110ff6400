"""What pytest does here, and what tests ask for by name: real stores, started once a session, fresh for each test.

Owns how long each of them lives. Must never stand in for any of them. Where `DATABASE_URL` or `DRAGONFLY_URL` are set,
those are used instead: databases are made and dropped beside what is there, and of the store only `leaderboard:*` is
touched.
"""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import redis.asyncio
from hypothesis import settings as hypothesis_settings
from xdist.scheduler import LoadFileScheduling

from realtime.dev.postgres import start_postgres
from realtime.dev.store import start_store
from realtime.ledger.ledger import Ledger
from realtime.repair.rebuild import Rebuilder
from realtime.store.filling import Filling
from realtime.store.store import Store
from tests.support.databases import FAST_POSTGRES, GIVEN_CITUS, GIVEN_DATABASE, Databases, MakeUsers
from tests.support.keys import IS_CLUSTER
from tests.support.servers import RunningServer, running_server
from tests.support.shifted import ShiftedPostgres, shifted_postgres
from tests.support.stores import GIVEN_STORE, PROGRAMS, PrivateStore, async_client_of, emptied, make_ours

# Real stores answer when they answer; a slow machine is no failure of a law.
hypothesis_settings.register_profile("realtime", deadline=None)
hypothesis_settings.load_profile("realtime")

BROWSER = "tests/browser/"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "every_store: runs on each store that this machine has, not on one alone")
    config.addinivalue_line("markers", "one_store: holds names, or uses commands, that a cluster does not have")
    if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):
        # The commands that tests start would each compile every module anew: that is most of their CPU time. They, and
        # the other processes of this session, share what was compiled; nothing of it lands in the checkout.
        folder = tempfile.TemporaryDirectory(prefix="realtime-bytecode-", ignore_cleanup_errors=True)
        os.environ["PYTHONPYCACHEPREFIX"] = folder.name
        config.add_cleanup(folder.cleanup)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long forms take the time they take; on a cluster that was given, what only one store has is left out."""
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(pytest.mark.timeout(0))
        if IS_CLUSTER and item.get_closest_marker("one_store"):
            item.add_marker(pytest.mark.skip(reason="the store of DRAGONFLY_URL is a cluster"))


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
    if GIVEN_CITUS:
        await connection.execute("SET search_path = everything, spread, public")
    yield connection
    await connection.close()


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


@pytest.fixture
def store_url(store_servers: Callable[[str], str], program: str) -> str:
    """URL of an empty store that lives on after the test."""
    return emptied(store_servers(program))


@pytest.fixture
async def keys(store_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    """The store as redis-cli shows it."""
    async with async_client_of(store_url, decode_responses=True) as client:
        yield client


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    """The store, its (empty) content adopted."""
    opened = Store(store_url)
    try:
        await make_ours(opened)
        yield opened
    finally:
        await opened.aclose()


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
