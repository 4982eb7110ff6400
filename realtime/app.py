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

from realtime import documents, pages, resources, rollover
from realtime.access import Access
from realtime.accounts import Accounts, Passwords
from realtime.admission import Admission
from realtime.batching import Batching
from realtime.boards import Board
from realtime.broadcaster import Broadcaster
from realtime.dragonfly import Store, check_fitness
from realtime.drift import Drift
from realtime.endpoints import Endpoints, Services, on_error, refusal
from realtime.errors import LedgerUnavailable, RealtimeError, StartupError, StoreUnavailable, TaskFailed
from realtime.estrangement import Estrangement
from realtime.history import History
from realtime.inspection import Inspection
from realtime.intake import Intake
from realtime.limits import Connections
from realtime.metrics import Metrics, Peers
from realtime.metrics import Reading as Measured
from realtime.postgres import Ledger
from realtime.ranks import Ranks
from realtime.reading import Reading
from realtime.rebuild import Rebuilder
from realtime.replay import Replay
from realtime.revocation import Revocations
from realtime.rights import Rights
from realtime.rollover import Rollover
from realtime.security import Origins, Security
from realtime.settings import Settings
from realtime.snapshots import SnapshotReader
from realtime.supervision import Supervisor
from realtime.sweeper import Sweeper
from realtime.throttle import Limit, Throttle
from realtime.tokens import Tokens

log = logging.getLogger(__name__)

CLOCK_INTERVAL = 60.0
"""Seconds between two measurements of PostgreSQL's clock."""

BACKLOG_INTERVAL = 5.0
"""Seconds between two looks at what waits in the ledger for the store."""

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
        rebuilder = Rebuilder(ledger, store, now)
        yield Stores(ledger, store, Replay(ledger, store, now), History(ledger, store), rebuilder)


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


class Backlog:
    """How much waits in the ledger for its way to the store, as last looked."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._rows, self._age = 0, 0.0

    async def watch(self) -> None:
        """Looks now and then. Never ends by itself."""
        while True:
            self._rows, self._age = await self._ledger.outbox_state()
            await asyncio.sleep(BACKLOG_INTERVAL)

    def readings(self) -> list[Measured]:
        """For the metrics."""
        return [
            ("gauge", "outbox_rows", "Changes recorded that the store may not have", lambda: self._rows),
            ("gauge", "outbox_age_seconds", "Age of the oldest of these", lambda: self._age),
        ]


Task = tuple[str, Callable[[], Awaitable[None]]]


class Worker:
    """What the worker does, besides keeping clock and store."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._now = stores.ledger.clock.now
        inspection = Inspection(stores.ledger, stores.store, self._now)
        self._sweeper = Sweeper(stores.ledger, stores.replay, self._now, stores.history.amend)
        self._drift = Drift(inspection, stores.store, stores.replay, self._now)

    def tasks(self) -> list[Task]:
        """To be kept running."""
        open_all = self._stores.history.open_all
        return [
            ("sweeper", self._sweeper.run),
            ("weeks", lambda: rollover.open_weeks(open_all, self._now)),
            ("drift", self._drift.run),
        ]

    def readings(self) -> list[Measured]:
        """For the metrics."""
        sweeper, drift = self._sweeper, self._drift
        return [
            ("counter", "outbox_replayed", "Changes brought to the store again", lambda: sweeper.replayed),
            ("gauge", "drift", "Rows that differed between the stores at the last look", lambda: drift.differing),
            ("counter", "drift_found", "Rows that differed, ever", lambda: drift.found),
            ("counter", "drift_repaired", "Of these, repaired one by one", lambda: drift.repaired),
        ]


def common_tasks(stores: Stores) -> list[Task]:
    """What every process does."""
    return [
        ("pulse", stores.ledger.pulse.run),
        ("clock", lambda: _keep_clock(stores.ledger)),
        ("watch", stores.rebuilder.watch),
    ]


async def run_worker(settings: Settings, stop: asyncio.Event) -> None:
    """The worker, until `stop`."""
    async with opened(settings) as stores:
        worker = Worker(stores)
        tasks = [*common_tasks(stores), *worker.tasks()]
        if settings.worker_metrics_port:
            backlog = Backlog(stores.ledger)
            metrics = Metrics()
            metrics.read([*backlog.readings(), *worker.readings()])
            tasks += [("backlog", backlog.watch), ("lag", lambda: _measure_lag(metrics))]
            metrics.serve(settings.host, settings.worker_metrics_port)
        await supervised(tasks, stop)


async def supervised(tasks: Sequence[Task], stop: asyncio.Event) -> None:
    """Keeps tasks running until `stop`. Raises TaskFailed where one cannot be kept going."""
    failed: list[str] = []

    def give_up(name: str) -> None:
        failed.append(name)
        stop.set()

    supervisor = Supervisor(give_up)
    for name, run in tasks:
        supervisor.start(name, run)
    try:
        await stop.wait()
    finally:
        await supervisor.stop()
    if failed:
        raise TaskFailed(failed[0])


def create_app(settings: Settings, *, with_worker: bool, peers: Peers | None = None) -> Starlette:
    """The ASGI application; `with_worker` does the worker's part in the same process. `peers` serve the same port."""
    tokens = Tokens.of(settings)  # first: a deployment without proper keys must not even start
    app = Starlette(
        lifespan=lambda app: _lifespan(app, settings, tokens, with_worker, peers),
        exception_handlers={HTTPException: on_error, RealtimeError: on_error, Exception: on_error},
    )
    for kind in (LedgerUnavailable, StoreUnavailable):
        app.add_exception_handler(kind, on_error)
    app.state.leaving = False
    app.state.failure = None  # what keeps it from starting or going on; `serving` raises it when all has ended
    # Around everything, the answers to what failed too.
    app.middleware_stack = Security(
        app.build_middleware_stack(), Origins(settings.origins), private=settings.boards == "private", refuse=refusal
    )
    return app


@asynccontextmanager
async def _lifespan(
    app: Starlette, settings: Settings, tokens: Tokens, with_worker: bool, peers: Peers | None
) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        try:
            stores = await stack.enter_async_context(opened(settings))
        except StartupError as error:
            app.state.failure = error
            raise
        now = stores.ledger.clock.now
        snapshots = SnapshotReader(stores.store)
        reading = Reading(snapshots, stores.history, now)
        ranks = Ranks(snapshots, stores.history, now, most=settings.max_watches)
        broadcaster = Broadcaster(reading, stores.store, now, interval=settings.broadcast_interval_ms / 1000)
        broadcaster.on_foreign = stores.store.distrust
        intake = Intake(
            stores.ledger,
            stores.store,
            now,
            batching=Batching(settings.batch_limit, settings.batch_lanes),
            limit=settings.queue_limit,
        )
        passwords = Passwords()
        stack.callback(passwords.close)
        metrics = Metrics(peers)
        timestamp = stores.ledger.clock.timestamp
        throttle = Throttle(stores.store, timestamp, lambda name: metrics.limited.labels(name).inc())
        admission = Admission(
            intake,
            throttle,
            stores.ledger,
            limit=Limit("submissions_of_one_user", settings.submission_rate, 1),
            room=settings.queue_limit,
        )
        revocations = Revocations(stores.ledger)
        await revocations.refresh()
        weeks = Rollover(broadcaster, now)
        backlog = Backlog(stores.ledger)

        def give_up(name: str) -> None:
            app.state.failure = TaskFailed(name)
            os.kill(os.getpid(), signal.SIGTERM)

        supervisor = Supervisor(give_up)
        stack.push_async_callback(supervisor.stop)
        worker = Worker(stores) if with_worker else None
        tasks: list[Task] = [
            *common_tasks(stores),
            ("intake", intake.run),
            ("admission", admission.run),
            ("revocations", revocations.run),
            ("announcements", broadcaster.listen),
            ("poll", broadcaster.poll),
            ("read", broadcaster.read),
            ("deliver", broadcaster.deliver),
            ("backlog", backlog.watch),
            ("ranks", ranks.run),
            ("closed ranks", ranks.run_closed),
            ("rollover", weeks.run),
            *(worker.tasks() if worker else []),
        ]
        for name, run in tasks:
            supervisor.start(name, run)

        async def ready() -> dict[str, str]:
            why: dict[str, str] = {}
            if app.state.leaving:
                why["leaving"] = "this process is about to end"
            if not broadcaster.live or not stores.store.is_complete:
                why["store"] = "boards cannot be read, or are being rebuilt"
            try:
                await stores.ledger.read_clock()
            except LedgerUnavailable:
                why["database"] = "PostgreSQL does not answer"
            else:
                if weeks.is_late(now()):
                    why["rollover"] = "the week has changed, and this process has not"
            return why

        metrics.read_once([*backlog.readings(), *(worker.readings() if worker else [])])
        connections = Connections(settings.max_connections, settings.max_connections_per_address)
        _measure(metrics, stores, intake, broadcaster, supervisor, connections)
        if settings.cut_off_s:
            supervisor.start("cut_off", Estrangement(broadcaster, settings.cut_off_s).run)
        supervisor.start("lag", lambda: _measure_lag(metrics))
        if peers is not None:
            supervisor.start("share", metrics.share)
        services = Services(
            settings=settings,
            clock=stores.ledger.clock,
            tokens=tokens,
            access=Access(tokens, revocations, _rights(settings), Origins(settings.origins), now),
            throttle=throttle,
            admission=admission,
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
        app.router.routes[:] = [
            *Endpoints(services).routes(),
            *documents.routes(),
            *pages.routes(resources.folder("web")),
        ]
        yield


def _rights(settings: Settings) -> Rights:
    return Rights(
        private=settings.boards == "private",
        registration_open=settings.registration == "open",
        max_score=settings.max_score,
    )


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
