"""Serving: uvicorn, set up for many sockets.

Owns the server's options, how it says that it is ready, and what a signal does. Must never log a token (there is no
access log), nor live longer after a signal than `longest_leave`. Assumes that `draining` knows how clients leave.
"""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import logging
import resource
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import uvicorn
from starlette.applications import Starlette
from uvicorn.middleware.proxy_headers import _TrustedHosts

from realtime.people.limits import AddressCounter
from realtime.server.draining import SHUTDOWN_SECONDS, Draining, longest_leave
from realtime.server.listeners import address_of, bound
from realtime.settings import Settings
from realtime.wire.connection import Connection
from realtime.wire.event_stream import EventStream
from realtime.wire.http_connection import bounded

log = logging.getLogger(__name__)

BACKLOG: Final = 4_096
"""Connections that may wait until somebody takes them."""

FILES_BESIDE: Final = 200
"""Open files that are no client's: connections to the stores, logs, what listens."""


class Server(uvicorn.Server):
    """uvicorn's server. It tells `on_ready` its address when it answers, takes its time to leave, and lets its caller
    end the process."""

    def __init__(
        self, config: uvicorn.Config, app: Starlette, settings: Settings, on_ready: Callable[[str], None]
    ) -> None:
        super().__init__(config)
        self._app = app
        self._settings = settings
        self._on_ready = on_ready
        self._asked = False
        self._draining = Draining(settings)
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """uvicorn's; then `on_ready` is told the address."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        if not self.should_exit and self.servers and self.servers[0].sockets:
            self._on_ready(address_of(self.servers[0].sockets[0]))

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """uvicorn's, less raising the signals again at the end: what was started around this must be stopped first."""
        kept = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
            for number, handler in kept.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """The first signal begins the leave, a second one hastens it. A watchdog outside the loop keeps the limit."""
        self.should_exit = True
        self._app.state.leaving = True
        if self._asked and self._loop is not None:
            self._loop.call_soon_threadsafe(self._draining.hasten)
        elif not self._asked:
            self._asked = True
            faulthandler.dump_traceback_later(longest_leave(self._settings), exit=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """uvicorn's; before it, clients are led elsewhere, where a signal asked for the end."""
        if self._asked:
            await self._draining.leave(self._clients, self._close_listeners)
        await super().shutdown(sockets)

    def _close_listeners(self) -> None:
        for server in self.servers:
            server.close()
        # An answer on a kept connection is its last: the next request goes elsewhere.
        self.server_state.default_headers = [*self.server_state.default_headers, (b"connection", b"close")]

    def _clients(self) -> list[Connection | EventStream]:
        return [client for client in self.server_state.connections if isinstance(client, Connection | EventStream)]


def files_needed(settings: Settings) -> int:
    """How many files a process has open at most."""
    return settings.max_connections + FILES_BESIDE


def open_many_files(settings: Settings, level: int = logging.WARNING) -> None:
    """Raises the limit of open files as far as it goes, and logs at that level where that is too little for the
    connections that the settings allow."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # where the system says more than it gives
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    needed = files_needed(settings)
    if resource.RLIM_INFINITY not in (soft, hard) and soft < needed:
        log.log(
            level,
            "the system lets this process open %d files, and REALTIME_MAX_CONNECTIONS=%d needs %d: raise the limit "
            "(ulimit -n, LimitNOFILE= of systemd, ulimits of compose), or lower REALTIME_MAX_CONNECTIONS",
            soft, settings.max_connections, needed, extra={"action": "limits"},
        )  # fmt: skip


def server(app: Starlette, settings: Settings, on_ready: Callable[[str], None]) -> Server:
    """A server for `app`; `on_ready` is told its address when it answers."""
    trusted = _TrustedHosts(settings.trusted_proxies)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        root_path=settings.root_path,
        ws=Connection,
        ws_max_size=settings.max_message_bytes,
        ws_ping_interval=settings.ping_interval_s,
        ws_ping_timeout=settings.ping_interval_s,
        http=bounded(AddressCounter(settings.max_connections_per_address, is_proxy=trusted.__contains__)),
        loop="uvloop",
        lifespan="on",
        access_log=False,
        log_config=None,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=settings.keep_alive_s,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    return Server(config, app, settings, on_ready)


def run(
    app: Starlette,
    settings: Settings,
    on_ready: Callable[[str], None],
    *,
    listener: socket.socket | None = None,
    in_development: bool = False,
) -> bool:
    """Serves until a signal, on `listener` where one is given; False where it could not start.

    `in_development` nobody needs as many open files as the settings allow connections: too few are no warning then.
    Raises what the application says of its own end (`app.state.failure`): StartupError, TaskFailed; and StartupError
    where its address cannot be had.
    """
    if listener is None:
        listener = bound(settings.host, settings.port)
    open_many_files(settings, logging.INFO if in_development else logging.WARNING)
    serving = server(app, settings, on_ready)
    # What is loaded now stays: the collector need not look at it again, nor at every connection every few messages.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    try:
        with asyncio.Runner(loop_factory=serving.config.get_loop_factory()) as runner:
            runner.run(serving.serve([listener]))
    except SystemExit:
        serving.started = False
    failure = getattr(app.state, "failure", None)
    if failure is not None:
        raise failure
    return serving.started
