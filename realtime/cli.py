"""The `realtime` command.

Owns options, output and exit codes. Must never do work by itself: each command resolves its settings, builds what it
needs through `app`, and shows what comes of it.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from realtime import __version__, boards, commands, embedded, migrations, postgres, serving
from realtime.app import create_app
from realtime.embedded import EmbeddedError
from realtime.errors import LedgerUnavailable, RealtimeError, StartupError, StoreUnavailable, TaskFailed
from realtime.generation import Generations
from realtime.processes import Processes
from realtime.revocation import Revocations
from realtime.settings import STORES, Settings, given, in_force
from realtime.stores import opened
from realtime.submissions import ID_MAX
from realtime.tokens import Tokens
from realtime.worker import run_worker

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
        stores = embedded.locate(data_dir)
        if stores is not None:
            found = {"DATABASE_URL": stores.database_url, "DRAGONFLY_URL": stores.dragonfly_url}
    found["REALTIME_SECRET"] = embedded.development_secret(data_dir)
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


@cli.command()
def up(
    port: Annotated[int | None, typer.Option(help="Port; 0 picks a free one. [default: 8000]")] = None,
    host: Annotated[str | None, typer.Option(help="Address. [default: 127.0.0.1]")] = None,
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
        listener = serving.bound(settings.host, settings.port)
    except StartupError:
        embedded.ensure_free(data_dir)  # the same command twice: the folder is the better reason
        raise
    with embedded.start(
        data_dir,
        database_url=environment.get("DATABASE_URL"),
        dragonfly_url=environment.get("DRAGONFLY_URL"),
    ) as stores:
        own = {"DATABASE_URL": stores.database_url, "DRAGONFLY_URL": stores.dragonfly_url}
        settings = Settings.load({**own, "REALTIME_SECRET": stores.secret, **environment})
        serving.configure_logging(settings.log_level)
        for note in stores.notes:
            say(f"# {note}")
        say("# for development; elsewhere run `realtime serve` and `realtime worker`")
        # One of our own is told whole, for it is for whoever reads this to use; one that was given is known to them.
        say(f"database: {settings.database_url if 'DATABASE_URL' in environment else stores.database_url}")
        say(f"dragonfly: {settings.dragonfly_url if 'DRAGONFLY_URL' in environment else stores.dragonfly_url}")
        asyncio.run(migrations.migrate(settings.database_url.reveal()))

        def ready(address: str) -> None:
            embedded.record_address(data_dir, address)
            say(f"ready: {address}")

        started = serving.run(create_app(settings, with_worker=True), settings, ready, listener=listener)
    if not started:
        raise typer.Exit(1)


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
    serving.configure_logging(settings.log_level)

    def ready(address: str) -> None:
        say(f"ready: {address}")

    if settings.processes > 1:
        raise typer.Exit(0 if Processes(settings, ready).run() else 1)
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
    serving.configure_logging(settings.log_level)
    run(_until_signal(lambda stop: run_worker(settings, stop)))


async def _until_signal(work: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await work(stop)


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


@cli.command()
def migrate(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Bring the database's schema up to date; safe to run again, and while others do."""
    settings = resolve(data_dir, "DATABASE_URL")
    run(migrations.migrate(settings.database_url.reveal()))
    say("The schema is up to date.")


token_cli = typer.Typer(invoke_without_command=True)
cli.add_typer(token_cli, name="token")


@token_cli.callback()
def token(
    context: typer.Context,
    scope: Annotated[
        list[str] | None, typer.Option(help="submit, submit:any, read, admin; may be given again.")
    ] = None,
    user_id: Annotated[
        int | None, typer.Option(min=1, max=ID_MAX, help="The user the token speaks for.")
    ] = None,
    board: Annotated[
        list[str] | None, typer.Option(help="Bind it to this board, as for an overlay; may be given again.")
    ] = None,
    lifetime: Annotated[int, typer.Option(min=1, help="Seconds it lives.")] = 86_400,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Make a token; it is the last line printed."""
    context.obj = data_dir
    if context.invoked_subcommand is not None:
        return
    if not scope:
        raise typer.BadParameter("Say what it is for: --scope submit, submit:any, read or admin.", context)
    settings = resolve(data_dir, "REALTIME_SECRET")
    scopes = [name for given in scope for name in given.replace(",", " ").split()]
    if scopes == ["submit"] and user_id is None:
        typer.echo("This token can submit nothing: `submit` is for the user it speaks for, --user-id N.", err=True)
    for name in board or ():
        boards.resolve(name, datetime.now(UTC))
    span = timedelta(seconds=lifetime)
    text, _ = Tokens.of(settings).mint(user_id, scopes, datetime.now(UTC), span, boards=board or ())
    say(text)


@token_cli.command()
def revoke(
    context: typer.Context,
    given: Annotated[str, typer.Argument(metavar="TOKEN", help="The token; - reads it from standard input.")],
    reason: Annotated[str | None, typer.Option(help="Why, for the audit log.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the development instance.")] = None,
) -> None:
    """Take a token back before it expires; servers know within two seconds."""
    settings = resolve(data_dir or context.obj, "DATABASE_URL", "REALTIME_SECRET")
    text = sys.stdin.read().strip() if given == "-" else given

    async def work() -> None:
        ledger = postgres.Ledger(settings.database_url.reveal(), connections=1)
        try:
            await ledger.open()
            identity = Tokens.of(settings).verify(text, ledger.clock.now())
            await Revocations(ledger).revoke(identity, actor=f"operator:{_operator()}", reason=reason)
        finally:
            await ledger.aclose()

    run(work())
    say("The token is revoked.")


def _operator() -> str:
    """Who runs this command, as far as the system knows."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return str(os.getuid())


@cli.command()
def restored(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Say that the database was restored from a backup: ends all tokens, and lets nothing be given out twice."""
    settings = resolve(data_dir)
    if not settings.database_url:
        raise StartupError("Set DATABASE_URL, or name a development instance with --data-dir.")

    async def work() -> None:
        ledger = postgres.Ledger(settings.database_url.reveal(), connections=2)
        try:
            await ledger.open()
            await Generations.restored(ledger)
        finally:
            await ledger.aclose()

    run(work())
    say("Tokens made before now are at an end, ids and versions have moved on, and the store will be made anew.")


@cli.command()
def rebuild(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Make the store's content anew from the ledger, while everything goes on."""
    from realtime.progress import counting

    settings = resolve(data_dir, *STORES)

    async def work() -> bool:
        async with opened(settings) as stores:
            with counting("rows") as show:
                return await stores.rebuilder.rebuild(force=True, progress=show)

    if not run(work()):
        say("Another process is rebuilding already.")
        raise typer.Exit(1)
    say("The store's content is complete.")


@cli.command("import")
def import_file(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="CSV with a header line.")],
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Bring in scores of the past from a CSV file; safe to repeat, to break off and to resume.

    Its first line names the columns, in any order: submission_id, username (or user_id), score_added, created_at (ISO
    8601 with a zone, not in the future), and where there is one, reason.

    A bad row is named by its line and left out, the others count; the exit code is then 1.
    """
    if not run(commands.import_scores(resolve(data_dir, *STORES), file, say)):
        raise typer.Exit(1)


@cli.command()
def simulate(
    file: Annotated[Path | None, typer.Argument(exists=True, dir_okay=False, help="CSV. [default: invented]")] = None,
    rate: Annotated[float, typer.Option(min=0.01, help="Scores a second.")] = 50.0,
    players: Annotated[int, typer.Option(min=1, help="Invented players.")] = 200,
    limit: Annotated[int | None, typer.Option(min=0, help="Scores to play. [default: the file's; else no end]")] = None,
    url: Annotated[str | None, typer.Option(help="The server. [default: the development instance's]")] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Play a CSV file's scores, or invented ones, as live submissions over real sockets; Ctrl-C ends it."""
    address = url or embedded.address_of(data_dir)
    if address is None:
        raise StartupError("Say which server with --url, or start one with `realtime up`.")
    plan = commands.Plan(address, file, rate, players, limit)
    if not run(commands.simulate(resolve(data_dir, "DATABASE_URL", "REALTIME_SECRET"), plan, say)):
        raise typer.Exit(1)


@cli.command()
def check(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Compare the two stores, user by user; exit code 1 where they differ."""
    if not run(commands.check(resolve(data_dir, *STORES), say)):
        raise typer.Exit(1)


@cli.command()
def version() -> None:
    """Print the version."""
    say(__version__)


def main() -> None:
    """Runs the command; what went wrong is one sentence, and exit code 1."""
    try:
        cli()
    except (StartupError, TaskFailed, EmbeddedError, LedgerUnavailable, StoreUnavailable, RealtimeError) as error:
        print(f"realtime: {_sentence(error)}", file=sys.stderr, flush=True)
        raise SystemExit(1) from None


def _sentence(error: Exception) -> str:
    """What an error says, for people; of a store or database that is away a library says only how that showed."""
    if isinstance(error, StoreUnavailable):
        return f"The store cannot be used: {error}"
    if isinstance(error, LedgerUnavailable):
        return f"PostgreSQL cannot be used: {error}"
    return str(error)
