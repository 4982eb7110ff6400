"""The application: the only place where a server's objects are built.

Owns the lifespan, which is one AsyncExitStack, and which background tasks a server runs. Must never decide anything:
what to do is the services', what to do it with is the settings'.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from realtime import resources
from realtime.api import documents, pages, routes
from realtime.api.middleware import Security
from realtime.api.routes import on_error, refusal
from realtime.api.services import Readiness, Services
from realtime.api.sockets import SocketRoute
from realtime.broadcast.broadcaster import Broadcaster
from realtime.broadcast.cut_off import CutOff
from realtime.broadcast.rank_feed import RankFeed
from realtime.broadcast.reading import BoardReader
from realtime.broadcast.rollover import Rollover
from realtime.errors import LedgerUnavailable, RealtimeError, StartupError, StoreUnavailable, TaskFailed
from realtime.intake.admission import Admission
from realtime.intake.batching import Batching
from realtime.intake.intake import Intake
from realtime.metrics import Metrics
from realtime.origins import Origins
from realtime.people.accounts import Accounts
from realtime.people.authentication import Authentication
from realtime.people.limits import Connections
from realtime.people.passwords import Passwords
from realtime.people.permissions import Permissions
from realtime.people.rate_limits import Limit, RateLimits
from realtime.people.revocation import Revocations
from realtime.people.tokens import Tokens
from realtime.repair.backlog import Backlog
from realtime.repair.resync import Resync
from realtime.server.backends import Task, common_tasks, open_backends
from realtime.server.instrumentation import measure
from realtime.server.peers import Peers
from realtime.server.supervisor import Supervisor
from realtime.server.worker import Worker
from realtime.settings import Settings
from realtime.store.announcements import Announcements
from realtime.store.snapshots import SnapshotReader

FIRST_LOOK: Final = 5.0
"""Seconds at most that a start waits for the store's content: who is told `ready` wants boards."""


def create_app(settings: Settings, *, with_worker: bool, peers: Peers | None = None) -> Starlette:
    """The ASGI application; `with_worker` does the worker's part in the same process. `peers` serve the same port."""
    tokens = Tokens.of(settings)  # first: a deployment without proper keys must not even start
    app = Starlette(
        lifespan=lambda app: _lifespan(app, settings, tokens, with_worker, peers),
        exception_handlers={HTTPException: on_error, RealtimeError: on_error, Exception: on_error},
    )
    for kind in (LedgerUnavailable, StoreUnavailable):
        app.add_exception_handler(kind, on_error)
    app.router.redirect_slashes = False  # made from the Host header, it would lead anywhere, with a token in the query
    app.state.leaving = False
    app.state.failure = None  # what keeps it from starting or going on; `serving` raises it when all has ended
    # Around everything, the answers to what failed too.
    app.middleware_stack = Security(
        _plain(app), Origins(settings.origins), private=settings.boards == "private", refuse=refusal
    )
    return app


def _plain(app: Starlette) -> ASGIApp:
    """The application, which hands no traceback to the log where `serving` tells what is wrong in a sentence.

    Sockets have one route, and none of the layers around the others has anything to say of them.
    """
    inner = app.build_middleware_stack()

    async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            return await app.state.socket(scope, receive, send)  # type: ignore[no-any-return]

        async def send_plainly(message: Message) -> None:
            if message["type"] == "lifespan.startup.failed" and app.state.failure is not None:
                message["message"] = ""
            await send(message)

        await inner(scope, receive, send_plainly if scope["type"] == "lifespan" else send)

    return asgi


@asynccontextmanager
async def _lifespan(
    app: Starlette, settings: Settings, tokens: Tokens, with_worker: bool, peers: Peers | None
) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        try:
            stores = await stack.enter_async_context(open_backends(settings, lanes=settings.batch_lanes))
        except StartupError as error:
            app.state.failure = error
            raise
        clock = stores.ledger.clock
        now = clock.now
        snapshots = SnapshotReader(stores.store)
        reading = BoardReader(snapshots, stores.history, now)
        ranks = RankFeed(snapshots, stores.history, now, most=settings.max_watches)
        broadcaster = Broadcaster(
            reading,
            Announcements(stores.store.link),
            stores.store,
            now,
            interval=settings.broadcast_interval_ms / 1000,
        )
        resync = Resync(stores.ledger, stores.store, now, read_after_write=broadcaster.expect)
        intake = Intake(
            stores.ledger,
            stores.store,
            stores.history.amend,
            now,
            batching=Batching(settings.batch_limit, settings.batch_lanes),
            limit=settings.queue_limit,
            read_after_write=broadcaster.expect,
        )
        passwords = Passwords()
        stack.callback(passwords.close)
        metrics = Metrics(peers.others if peers else list)
        throttle = RateLimits(stores.store, clock.timestamp, lambda name: metrics.limited.labels(name).inc())
        admission = Admission(
            intake,
            throttle,
            stores.ledger,
            limit=Limit("submissions_of_one_user", settings.submission_rate, 1),
            room=settings.queue_limit,
        )
        revocations = Revocations(stores.ledger, lambda: stores.generations.current)
        try:
            await revocations.refresh()
        except LedgerUnavailable as error:
            app.state.failure = error
            raise
        weeks = Rollover(broadcaster, now, stores.ledger.pulse.beat)
        backlog = Backlog(stores.ledger)

        def give_up(name: str) -> None:
            app.state.failure = TaskFailed(name)
            os.kill(os.getpid(), signal.SIGTERM)

        supervisor = Supervisor(give_up)
        stack.push_async_callback(supervisor.stop)
        worker = Worker(stores, resync) if with_worker else None
        tasks: list[Task] = [
            *common_tasks(stores),
            ("intake", intake.run),
            ("admission", admission.run),
            ("revocations", revocations.run),
            ("announcements", broadcaster.changes.listen),
            ("poll", broadcaster.changes.poll),
            ("read", broadcaster.read),
            ("deliver", broadcaster.delivery.run),
            ("backlog", backlog.watch),
            ("ranks", ranks.run),
            ("closed ranks", ranks.run_closed),
            ("rollover", weeks.run),
            *(worker.tasks() if worker else []),
        ]
        for name, run in tasks:
            supervisor.start(name, run)

        async def ready() -> Readiness:
            why: dict[str, str] = {}
            if app.state.leaving:
                why["leaving"] = "this process is about to end"
            if not broadcaster.live or not stores.store.is_complete:
                why["store"] = stores.trouble or "boards cannot be read, or are being rebuilt"
            if stores.ledger.pulse.away is not None:
                why["database"] = f"PostgreSQL cannot be used: {stores.ledger.pulse.away}"
            elif weeks.is_late(clock.instant()):
                why["rollover"] = "the week has changed, and this process has not"
            return Readiness(why, backlog.age, worker.differing if worker else None)

        metrics.read_once([*backlog.readings(), *(worker.readings() if worker else [])])
        connections = Connections(settings.max_connections, settings.max_connections_per_address)
        metrics.read(stores.readings())
        measure(metrics, intake, broadcaster, supervisor, connections)
        if settings.cut_off_s:
            supervisor.start("cut_off", CutOff(broadcaster, settings.cut_off_s).run)
        supervisor.start("lag", metrics.watch_lag)
        if peers is not None:
            supervisor.start("share", lambda: peers.share(metrics.own))
        services = Services(
            settings=settings,
            clock=clock,
            tokens=tokens,
            access=Authentication(tokens, revocations, _rights(settings), Origins(settings.origins), clock.instant),
            throttle=throttle,
            admission=admission,
            intake=intake,
            broadcaster=broadcaster,
            ranks=ranks,
            reading=reading,
            history=stores.history,
            accounts=Accounts(stores.ledger, resync, passwords),
            connections=connections,
            ready=ready,
            metrics=metrics,
        )
        app.state.services = services
        app.state.socket = SocketRoute(services)
        app.router.routes[:] = [
            *routes.routes(services),
            *documents.routes(),
            *pages.routes(resources.folder("web")),
        ]
        with suppress(TimeoutError):
            async with asyncio.timeout(FIRST_LOOK):
                await stores.rebuilder.settled.wait()
        yield


def _rights(settings: Settings) -> Permissions:
    return Permissions(
        private=settings.boards == "private",
        registration_open=settings.registration == "open",
        max_score=settings.max_score,
    )
