"""Serving: uvicorn, set up for many sockets, and logs as one JSON object a line.

Owns the server's options and how it says that it is ready. Must never log a token: there is no access log.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import logging.config
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from starlette.applications import Starlette

from realtime.connection import Connection
from realtime.settings import Settings

SHUTDOWN_SECONDS = 5


class Server(uvicorn.Server):
    """uvicorn's server, which tells when it answers, and leaves ending the process to its caller."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[str], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: object = None) -> None:
        await super().startup(sockets)  # type: ignore[arg-type]
        if not self.should_exit and self.servers and self.servers[0].sockets:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            self._on_ready(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """uvicorn's, less raising the signals again at the end: what was started around us must be stopped first."""
        kept = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in kept.items():
                signal.signal(number, handler)


def server(app: Starlette, settings: Settings, on_ready: Callable[[str], None]) -> Server:
    """A server for `app`; `on_ready` is told its address when it answers."""
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        root_path=settings.root_path,
        ws=Connection,
        ws_max_size=settings.max_message_bytes,
        ws_ping_interval=20,
        ws_ping_timeout=20,
        http="httptools",
        loop="uvloop",
        lifespan="on",
        access_log=False,
        log_config=None,
        proxy_headers=False,
        server_header=False,
        backlog=4096,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    return Server(config, on_ready)


def run(app: Starlette, settings: Settings, on_ready: Callable[[str], None]) -> bool:
    """Serves until a signal; False where it could not start."""
    serving = server(app, settings, on_ready)
    # What is loaded now stays: the collector need not look at it again, nor at every connection every few messages.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    try:
        with asyncio.Runner(loop_factory=serving.config.get_loop_factory()) as runner:
            runner.run(serving.serve())
    except SystemExit:
        return False
    return serving.started


def configure_logging(level: str) -> None:
    """One JSON object a line, on standard error."""
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "json": {
                    "()": "pythonjsonlogger.json.JsonFormatter",
                    "fmt": "%(levelname)s %(name)s %(message)s",
                    "rename_fields": {"levelname": "level", "name": "logger"},
                    "timestamp": "at",
                }
            },
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
            "root": {"handlers": ["stderr"], "level": level.upper()},
            "loggers": {"uvicorn.error": {"level": "WARNING"}, "asyncio": {"level": "WARNING"}},
        }
    )
