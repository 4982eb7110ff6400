"""The application that every command belongs to, and what all of them do alike.

Owns how settings are resolved: the environment, else the development instance of `--data-dir`; and how a coroutine is
run and broken off. Must never start a store or print a secret. Assumes that `settings` says which variables are meant.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer

from realtime.dev import instance
from realtime.settings import Settings, given

cli = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # a traceback must never show what variables hold
    help="Live leaderboards, pushed.",
)

DataDir = Annotated[Path, typer.Option(help="Folder of the development instance.", show_default=True)]

DEFAULT_DATA_DIR = Path(".realtime")

DEVELOPMENT = {
    "REALTIME_REGISTRATION": "open",
    "REALTIME_MAX_CONNECTIONS_PER_ADDRESS": "0",
    "REALTIME_MESSAGE_RATE": "0",
    "REALTIME_SUBMISSION_RATE": "0",
    "REALTIME_REGISTRATIONS_PER_ADDRESS": "0",
    "REALTIME_LOGINS_PER_ADDRESS": "0",
    "REALTIME_LOGINS_PER_ACCOUNT": "0",
    "REALTIME_DRAIN_S": "0",
}
"""What `up` sets where nobody else does: everything there comes from one address, and no balancer looks."""


def gathered(data_dir: Path) -> tuple[dict[str, str], dict[str, str]]:
    """The variables of this environment, what they leave out from the development instance of `data_dir`; and where
    each is from."""
    environment = given(os.environ)
    sources = dict.fromkeys(environment, "environment")
    if "REALTIME_PORT" not in environment and "PORT" in environment:
        sources["PORT"] = "environment, as PORT"
    found: dict[str, str | None] = {}
    if not ("DATABASE_URL" in environment and "DRAGONFLY_URL" in environment):
        stores = instance.locate(data_dir)
        if stores is not None:
            found = {"DATABASE_URL": stores.database_url, "DRAGONFLY_URL": stores.dragonfly_url}
    found["REALTIME_SECRET"] = instance.development_secret(data_dir)
    for name, value in found.items():
        if value and name not in environment:
            environment[name] = value
            sources[name] = str(data_dir)
    return environment, sources


def resolve(data_dir: Path, *needed: str) -> Settings:
    """Settings of this environment; what it leaves out, from the development instance of `data_dir`."""
    environment, _ = gathered(data_dir)
    return Settings.load(environment, needed)


def say(line: str) -> None:
    """One plain line, at once."""
    print(line, flush=True)


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Runs a command's coroutine on its loop. SIGTERM cancels it, as Ctrl-C does."""
    import uvloop

    async def terminable() -> Any:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await work

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(terminable())
    except asyncio.CancelledError:
        raise SystemExit(128 + signal.SIGTERM) from None


def operator() -> str:
    """Who runs this command, as far as the system knows; for the audit log."""
    try:
        return f"operator:{getpass.getuser()}"
    except (OSError, KeyError):
        return f"operator:{os.getuid()}"


Say = Callable[[str], None]
"""Prints one line of the result."""
