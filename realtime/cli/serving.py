"""The commands that serve: up, serve, worker, and the settings they would use.

Owns what they print and how signals end them. Must never print a secret that was given. Assumes that `server` says when
it is ready.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

import typer

from realtime.cli.application import DEFAULT_DATA_DIR, DEVELOPMENT, DataDir, cli, gathered, resolve, run, say
from realtime.cli.scores import play_demo
from realtime.dev import instance
from realtime.errors import LedgerUnavailable, StartupError, StoreUnavailable
from realtime.ledger import migrations
from realtime.server import listeners, logs, serving
from realtime.server.app import create_app
from realtime.server.prefork import Prefork
from realtime.server.worker import run_worker
from realtime.settings import STORES, Settings, given, in_force


@cli.command()
def up(
    port: Annotated[int | None, typer.Option(help="Port; 0 picks a free one. [default: 8000]")] = None,
    host: Annotated[str | None, typer.Option(help="Address. [default: 127.0.0.1]")] = None,
    demo: Annotated[bool, typer.Option("--demo", help="Fill the boards with invented scores, and play on.")] = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Start everything for development: what stores are missing, the server and the worker in one process."""
    environment = {**DEVELOPMENT, **given(os.environ)}
    if port is not None:
        environment["REALTIME_PORT"] = str(port)
    if host is not None:
        environment["REALTIME_HOST"] = host
    settings = Settings.load(environment)  # mistakes first: before anything is started
    try:
        listener = listeners.bound(settings.host, settings.port)
    except StartupError:
        instance.ensure_free(data_dir)  # the same command twice: the folder is the better reason
        raise
    with instance.start(
        data_dir,
        database_url=environment.get("DATABASE_URL"),
        dragonfly_url=environment.get("DRAGONFLY_URL"),
    ) as stores:
        own = {"DATABASE_URL": stores.database_url, "DRAGONFLY_URL": stores.dragonfly_url}
        settings = Settings.load({**own, "REALTIME_SECRET": stores.secret, **environment})
        logs.configure_logging(settings.log_level)
        for note in stores.notes:
            say(f"# {note}")
        say("# for development; elsewhere run `realtime serve` and `realtime worker`")
        # One of our own is told whole, for it is for whoever reads this to use; one that was given is known to them.
        say(f"database: {settings.database_url if 'DATABASE_URL' in environment else stores.database_url}")
        say(f"dragonfly: {settings.dragonfly_url if 'DRAGONFLY_URL' in environment else stores.dragonfly_url}")
        asyncio.run(migrations.migrate(settings.database_url.reveal()))

        def ready(address: str) -> None:
            instance.record_address(data_dir, address)
            say(f"ready: {address}")
            if demo:
                say("# invented players play here; without --demo nobody does")
                threading.Thread(target=_demo, args=(settings, address), daemon=True).start()  # it ends with us

        app = create_app(settings, with_worker=True)
        started = serving.run(app, settings, ready, listener=listener, in_development=True)
    if not started:
        raise typer.Exit(1)


def _demo(settings: Settings, address: str) -> None:
    """Plays for as long as this process lives."""
    logging.getLogger("realtime.client").setLevel(logging.WARNING)  # the server's end is no news to its own players
    try:
        asyncio.run(play_demo(settings, address))
    except (StartupError, LedgerUnavailable, StoreUnavailable) as error:
        logging.getLogger(__name__).warning("the demo plays no longer: %s", error, extra={"action": "start"})


@cli.command()
def serve(
    processes: Annotated[int | None, typer.Option(help="Processes, one a core. [default: 1]")] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Serve boards, sockets and pages. Needs both stores; starts nothing else."""
    environment, _ = gathered(data_dir)
    if processes is not None:
        environment["REALTIME_PROCESSES"] = str(processes)
    settings = Settings.load(environment, STORES)
    logs.configure_logging(settings.log_level)

    def ready(address: str) -> None:
        say(f"ready: {address}")

    if settings.processes > 1:
        raise typer.Exit(0 if Prefork(settings, ready).run() else 1)
    if not serving.run(create_app(settings, with_worker=False), settings, ready):
        raise typer.Exit(1)


@cli.command("settings")
def show_settings(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Print every setting in force and where it is from; secrets masked."""
    environment, sources = gathered(data_dir)
    shown = in_force(Settings.load(environment), sources)
    widest = max(len(one.value) for one in shown)
    for one in shown:
        say(f"{one.name:<38} {one.value:<{widest}}  {one.source}".rstrip())
    if sources.get("DATABASE_URL") == str(data_dir):
        own = " ".join(f"{name}={value}" for name, value in DEVELOPMENT.items() if name not in environment)
        say(f"# so for the other commands; `realtime up` itself runs with {own}, and its own options")


@cli.command()
def worker(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Sweep the outbox, close weeks, look for drift."""
    settings = resolve(data_dir, *STORES)
    logs.configure_logging(settings.log_level)
    run(_until_signal(lambda stop: run_worker(settings, stop)))


async def _until_signal(work: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await work(stop)
