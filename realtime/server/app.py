"""The ASGI application, and its lifespan.

Owns the order in which a server starts and ends, which is one AsyncExitStack, and what `app.state` holds. Must never
build a service: `assembly` does. Assumes that `serving` raises `app.state.failure` when all has ended.
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
from realtime.api.sessions import Sessions
from realtime.api.sockets import SocketRoute
from realtime.errors import LedgerUnavailable, RealtimeError, StartupError, StoreUnavailable, TaskFailed
from realtime.origins import Origins
from realtime.people.tokens import Tokens
from realtime.server.assembly import assemble
from realtime.server.backends import open_backends
from realtime.server.peers import Peers
from realtime.settings import Settings

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
    """Opens the backends, starts the server's tasks, and puts its routes into `app`; ends all of it in reverse."""

    def give_up(name: str) -> None:
        app.state.failure = TaskFailed(name)
        os.kill(os.getpid(), signal.SIGTERM)

    async with AsyncExitStack() as stack:
        try:
            backends = await stack.enter_async_context(open_backends(settings, lanes=settings.batch_lanes))
            assembly = assemble(
                settings,
                tokens,
                backends,
                with_worker=with_worker,
                peers=peers,
                is_leaving=lambda: app.state.leaving,
                on_hopeless=give_up,
            )
            stack.callback(assembly.passwords.close)
            await assembly.revocations.refresh()
        except (StartupError, LedgerUnavailable) as error:
            app.state.failure = error
            raise
        stack.push_async_callback(assembly.supervisor.stop)
        for name, run in assembly.tasks:
            assembly.supervisor.start(name, run)
        app.state.services = assembly.services
        sessions = Sessions(assembly.services)
        app.state.socket = SocketRoute(assembly.services, sessions)
        app.router.routes[:] = [
            *routes.routes(assembly.services, sessions),
            *documents.routes(),
            *pages.routes(resources.folder("web"), registration=settings.registration),
        ]
        with suppress(TimeoutError):
            async with asyncio.timeout(FIRST_LOOK):
                await backends.rebuilder.settled.wait()
        yield
