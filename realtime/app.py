"""The application: the only place where objects are built.

Owns the lifespan, which is one AsyncExitStack, and which background tasks a process runs. Must never decide anything:
what to do is the services', what to do it with is the settings'.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.exceptions import HTTPException

from realtime import pages, resources, rollover
from realtime.accounts import Accounts, Passwords
from realtime.batching import Batching
from realtime.boards import Board
from realtime.broadcaster import Broadcaster
from realtime.dragonfly import Store, check_fitness
from realtime.endpoints import Endpoints, Services, on_error
from realtime.errors import LedgerUnavailable, RealtimeError, StartupError, StoreUnavailable
from realtime.history import History
from realtime.intake import Intake
from realtime.limits import Connections
from realtime.metrics import Metrics
from realtime.postgres import Ledger
from realtime.ranks import Ranks
from realtime.reading import Reading
from realtime.rebuild import Rebuilder
from realtime.replay import Replay
from realtime.rollover import Rollover
from realtime.settings import Settings
from realtime.snapshots import SnapshotReader
from realtime.supervision import Supervisor
from realtime.sweeper import Sweeper
from realtime.tokens import Tokens

log = logging.getLogger(__name__)

CLOCK_INTERVAL = 60.0
"""Seconds between two measurements of PostgreSQL's clock."""

START_PATIENCE = 30.0
"""Seconds a starting process waits for PostgreSQL."""


@dataclass(frozen=True, slots=True)
class Stores:
    """Both stores, open, and what every process needs with them."""

    ledger: Ledger
    store: Store
    replay: Replay
    history: History
    rebuilder: Rebuilder


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Stores]:
    """Both stores for the block. Waits for PostgreSQL; goes on without the store, which may come later.

    Raises StartupError where the store is not fit, LedgerUnavailable where PostgreSQL does not come.
    """
    async with AsyncExitStack() as stack:
        ledger = Ledger(settings.database_url, connections=settings.database_connections)
        stack.push_async_callback(ledger.aclose)
        store = Store(
            settings.dragonfly_url, timeout=settings.store_timeout_s, connections=settings.store_connections
        )
        stack.push_async_callback(store.aclose)
        await _patiently(ledger.open)
        for warning in await ledger.durability_warnings():
            log.warning(warning, extra={"action": "durability"})
        try:
            check_fitness(await store.info())
            await store.adopt()
        except StoreUnavailable as error:
            log.warning("the store does not answer: %s", error, extra={"action": "store"})
        now = ledger.clock.now
        yield Stores(
            ledger,
            store,
            Replay(ledger, store, now),
            History(ledger, store),
            Rebuilder(ledger, store, now),
        )


async def _patiently(attempt: Callable[[], Awaitable[None]]) -> None:
    deadline = asyncio.get_running_loop().time() + START_PATIENCE
    while True:
        try:
            return await attempt()
        except LedgerUnavailable as error:
            if asyncio.get_running_loop().time() > deadline:
                raise StartupError(f"PostgreSQL does not answer: {error}. Check DATABASE_URL.") from None
            log.warning("PostgreSQL does not answer yet: %s", error, extra={"action": "start"})
            await asyncio.sleep(0.5)


async def _keep_clock(ledger: Ledger) -> None:
    while True:
        await asyncio.sleep(CLOCK_INTERVAL)
        await ledger.read_clock()


def _end_process(name: str) -> None:
    """A task that cannot be kept going: better no process than one that lies."""
    os.kill(os.getpid(), signal.SIGTERM)


Task = tuple[str, Callable[[], Awaitable[None]]]


def worker_tasks(stores: Stores) -> list[Task]:
    """What the worker does, besides keeping clock and store."""
    now = stores.ledger.clock.now
    sweeper = Sweeper(stores.ledger, stores.replay, now, stores.history.amend)
    return [
        ("sweeper", sweeper.run),
        ("weeks", lambda: rollover.open_weeks(stores.history.open_all, now)),
    ]


def common_tasks(stores: Stores) -> list[Task]:
    """What every process does."""
    return [("clock", lambda: _keep_clock(stores.ledger)), ("watch", stores.rebuilder.watch)]


async def run_worker(settings: Settings, stop: asyncio.Event) -> None:
    """The worker, until `stop`."""
    async with opened(settings) as stores:
        await supervised([*common_tasks(stores), *worker_tasks(stores)], stop)


async def supervised(tasks: Sequence[Task], stop: asyncio.Event) -> None:
    """Keeps tasks running until `stop`."""
    supervisor = Supervisor(_end_process)
    for name, run in tasks:
        supervisor.start(name, run)
    try:
        await stop.wait()
    finally:
        await supervisor.stop()


def create_app(settings: Settings, *, with_worker: bool) -> Starlette:
    """The ASGI application; `with_worker` does the worker's part in the same process."""
    app = Starlette(
        lifespan=lambda app: _lifespan(app, settings, with_worker),
        exception_handlers={HTTPException: on_error, RealtimeError: on_error, Exception: on_error},
    )
    for kind in (LedgerUnavailable, StoreUnavailable):
        app.add_exception_handler(kind, on_error)
    return app


@asynccontextmanager
async def _lifespan(app: Starlette, settings: Settings, with_worker: bool) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        stores = await stack.enter_async_context(opened(settings))
        now = stores.ledger.clock.now
        snapshots = SnapshotReader(stores.store)
        reading = Reading(snapshots, stores.history, now)
        ranks = Ranks(snapshots, stores.history, now, most=settings.max_watches)
        broadcaster = Broadcaster(reading, stores.store, now, interval=settings.broadcast_interval_ms / 1000)
        broadcaster.on_foreign = stores.rebuilder.suspect
        intake = Intake(
            stores.ledger,
            stores.store,
            now,
            batching=Batching(settings.batch_limit, settings.batch_lanes),
            limit=settings.queue_limit,
        )
        passwords = Passwords()
        stack.callback(passwords.close)
        supervisor = Supervisor(_end_process)
        stack.push_async_callback(supervisor.stop)
        tasks: list[Task] = [
            *common_tasks(stores),
            ("intake", intake.run),
            ("announcements", broadcaster.listen),
            ("poll", broadcaster.poll),
            ("read", broadcaster.read),
            ("deliver", broadcaster.deliver),
            ("ranks", ranks.run),
            ("closed ranks", ranks.run_closed),
            ("rollover", Rollover(broadcaster, now).run),
            *(worker_tasks(stores) if with_worker else []),
        ]
        for name, run in tasks:
            supervisor.start(name, run)

        async def ready() -> dict[str, str]:
            why: dict[str, str] = {}
            if not broadcaster.live or not stores.store.is_complete:
                why["store"] = "boards cannot be read, or are being rebuilt"
            try:
                await stores.ledger.read_clock()
            except LedgerUnavailable:
                why["database"] = "PostgreSQL does not answer"
            return why

        metrics = Metrics()
        connections = Connections(settings.max_connections, settings.max_connections_per_address)
        _measure(metrics, stores, intake, broadcaster, supervisor, connections)
        supervisor.start("lag", lambda: _measure_lag(metrics))
        services = Services(
            settings=settings,
            clock=stores.ledger.clock,
            tokens=Tokens(settings.secret),
            intake=intake,
            broadcaster=broadcaster,
            ranks=ranks,
            reading=reading,
            history=stores.history,
            accounts=Accounts(stores.ledger, stores.replay, passwords),
            connections=connections,
            ready=ready,
            metrics=metrics,
        )
        app.state.services = services
        app.router.routes[:] = [*Endpoints(services).routes(), *pages.routes(resources.folder("web"))]
        yield


def _measure(
    metrics: Metrics,
    stores: Stores,
    intake: Intake,
    broadcaster: Broadcaster,
    supervisor: Supervisor,
    connections: Connections,
) -> None:
    """Hangs the metrics on what they measure."""

    def batch(size: int, seconds: float) -> None:
        metrics.batch_size.observe(size)
        metrics.commit_seconds.observe(seconds)

    arrivals: dict[Board, float] = {}  # when the oldest submission came that a board does not show yet

    def storing(boards: Iterable[Board], arrived: float) -> None:
        for board in boards:
            if arrivals.get(board, 0.0) < arrived - 1.0:  # older: a change below the top 100, which has no diff
                arrivals[board] = arrived

    def changed(board: Board) -> None:
        arrived = arrivals.pop(board, None)
        if arrived is not None:
            metrics.submit_to_diff_seconds.observe(asyncio.get_running_loop().time() - arrived)

    intake.on_batch = batch
    intake.on_storing = storing
    broadcaster.on_changed = changed
    intake.on_stored = metrics.store_seconds.observe
    broadcaster.on_pass = lambda deliveries, seconds: metrics.pass_seconds.observe(seconds)
    metrics.read(
        [
            ("gauge", "connections", "Open sockets", lambda: connections.open),
            ("gauge", "subscribers", "Subscriptions by class of board", broadcaster.subscriptions_by_class),
            ("gauge", "behind", "Subscribers that are behind", lambda: broadcaster.behind),
            ("gauge", "boards_followed", "Boards with subscribers", lambda: sum(1 for _ in broadcaster.streams)),
            ("gauge", "live", "1 while boards move", lambda: float(broadcaster.live)),
            ("gauge", "submissions_waiting", "Submissions in the queue", lambda: intake.waiting),
            ("counter", "deliveries", "Frames written to subscribers", lambda: broadcaster.deliveries),
            ("counter", "delivered_bytes", "Payload of these, uncompressed", lambda: broadcaster.delivered_bytes),
            ("counter", "skipped_diffs", "Diffs not written to subscribers behind", lambda: broadcaster.skipped),
            ("counter", "rebuilds", "Rebuilds of the store", lambda: stores.rebuilder.rebuilds),
            ("counter", "task_restarts", "Restarts of background tasks", lambda: supervisor.restarts),
        ]
    )


async def _measure_lag(metrics: Metrics) -> None:
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + 0.5
        await asyncio.sleep(0.5)
        metrics.loop_lag_seconds.observe(max(0.0, loop.time() - due))
