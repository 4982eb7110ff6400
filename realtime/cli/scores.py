"""The commands that bring scores in: import, simulate.

Owns what they print: results on standard output, progress and what went wrong with a row on standard error. Must never
decide anything about scores. Assumes that `import_scores` and `play` are given resolved settings.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from pathlib import Path
from time import monotonic
from typing import Annotated, Final

import typer

from realtime.boards.definitions import Definition
from realtime.boards.leaderboard import DEFAULT
from realtime.cli import progress
from realtime.cli.application import DEFAULT_DATA_DIR, DataDir, Say, cli, resolve, run, say
from realtime.client.client import Client, connect
from realtime.client.connection import place_of
from realtime.dev import demo, instance, simulation
from realtime.dev.simulation import Play, Simulation, Tally
from realtime.errors import LedgerUnavailable, StartupError, StoreUnavailable
from realtime.intake import score_file
from realtime.intake.importer import Importer, Summary
from realtime.intake.score_file import BadRow
from realtime.ledger.definitions import Definitions, unknown_leaderboard
from realtime.ledger.ledger import Ledger
from realtime.people.imported import ImportedPlayers
from realtime.people.tokens import Tokens
from realtime.server.backends import open_backends
from realtime.settings import STORES, Settings

SOCKETS: Final = 8
"""Connections of a simulation."""

FIRST_WAIT: Final = 10.0
"""Seconds in which a server must greet before a simulation begins."""


async def import_scores(settings: Settings, path: Path, say: Say, leaderboard: str = DEFAULT.slug) -> bool:
    """Imports a file, into `leaderboard` what names no other; whether every row of it is in the ledger now.

    Raises RealtimeError for a file without a usable header, LedgerUnavailable.
    """
    with path.open("rb") as file, progress.shares() as bars:
        size = os.fstat(file.fileno()).st_size or None

        def show_bad(row: BadRow) -> None:
            bars.say(f"line {row.line}: {row.cause}")

        def show_read() -> None:
            bars.show("reading", file.tell() if file.seekable() else 0, size, f"{importer.summary.read:,} rows")

        async with open_backends(settings) as backends:
            now = backends.ledger.clock.instant  # nobody asks PostgreSQL here whether a week is over
            directory = backends.leaderboards
            directory.current.source(leaderboard)
            with suppress(StoreUnavailable):  # then a worker tells it
                await backends.partitions.adopt()
            importer = Importer(
                backends.ledger, backends.store, backends.views, now, show_bad,
                directory=directory, leaderboard=leaderboard,
            )  # fmt: skip
            try:
                await importer.run(score_file.rows(file, of_another=leaderboard != DEFAULT.slug), show_read)
                await importer.settle(lambda done, total: bars.show("closed weeks", done, total, f"{done} of {total}"))
            except LedgerUnavailable as error:
                message = f"{error} (after {importer.summary.read:,} rows: import the file again, it goes on there)"
                raise LedgerUnavailable(message) from None
            except asyncio.CancelledError:
                bars.say("Broken off: import the file again, it goes on there.")
                raise
            except StoreUnavailable as error:
                bars.say(f"The store does not answer ({error}): a worker brings closed weeks up to date.")
    say(_told(importer.summary))
    return importer.summary.bad == 0


def _told(summary: Summary) -> str:
    line = (
        f"{summary.read} read: {summary.new} new, {summary.known} already there, {summary.bad} bad; "
        f"{summary.players} players made."
    )
    if summary.untold:
        line += f" The store has not heard of {summary.untold} batches: a worker tells it."
    return line


# Simulating ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Plan:
    """What to play, where."""

    url: str
    file: Path | None
    rate: float
    """Scores a second."""
    players: int
    """Invented ones, where there is no file."""
    limit: int | None
    leaderboard: str = DEFAULT.slug


async def play(settings: Settings, plan: Plan, say: Say) -> bool:
    """Plays a plan, until its end or Ctrl-C; whether every score was good and accepted.

    Raises StartupError where no server answers, LedgerUnavailable, and RealtimeError for a file without a header.
    """
    bad = 0
    with progress.towards() as bars:

        def show_bad(row: BadRow) -> None:
            nonlocal bad
            bad += 1
            bars.say(f"line {row.line}: {row.cause}")

        def show() -> None:
            tally = playing.tally
            answered = tally.accepted + tally.refusals.total()
            bars.show("scores", answered, total, f"{tally.rate:,.0f}/s, {tally.refusals.total()} rejected")

        async with _ledger(settings) as ledger, _clients(settings, plan, ledger) as clients:
            defined = await Definitions(ledger).all()
            if plan.leaderboard not in defined:
                raise unknown_leaderboard(plan.leaderboard)
            definitions = {slug: one.definition for slug, one in defined.items()}
            with _scores(plan, definitions, show_bad) as (scores, total):
                players, prefix = ImportedPlayers(ledger), secrets.token_hex(6)
                playing = Simulation(clients, players, prefix, rate=plan.rate, now=monotonic)
                try:
                    await playing.run(scores, show)
                except asyncio.CancelledError:
                    bars.say("Broken off.")
    say(_played(playing.tally, bad))
    return not bad and not playing.tally.refusals


@contextmanager
def _scores(
    plan: Plan, definitions: Mapping[str, Definition], on_bad: Callable[[BadRow], None]
) -> Iterator[tuple[Iterator[Play], int | None]]:
    """What a plan plays, and how much that is, where it has an end."""
    if plan.file is None:
        yield (
            islice(
                simulation.invented(plan.players, secrets.SystemRandom(), definitions[plan.leaderboard]), plan.limit
            ),
            plan.limit,
        )
        return
    with plan.file.open("rb") as file:
        of_another = plan.leaderboard != DEFAULT.slug
        rows = sum(1 for _ in score_file.rows(file, of_another=of_another))
        file.seek(0)
        plays = simulation.plays(score_file.rows(file, of_another=of_another), on_bad, definitions, plan.leaderboard)
        yield islice(plays, plan.limit), rows if plan.limit is None else min(rows, plan.limit)


@asynccontextmanager
async def _ledger(settings: Settings) -> AsyncIterator[Ledger]:
    ledger = Ledger(settings.database_url.reveal())
    try:
        await ledger.open()
        yield ledger
    finally:
        await ledger.aclose()


@asynccontextmanager
async def _clients(settings: Settings, plan: Plan, ledger: Ledger) -> AsyncIterator[list[Client]]:
    """Connected clients that may submit for everybody. Raises StartupError where no server answers."""
    token, _ = Tokens.of(settings).mint(None, ["submit:any"], ledger.clock.now(), timedelta(days=30))
    async with AsyncExitStack() as stack:
        try:
            clients = [await stack.enter_async_context(connect(plan.url, token=token)) for _ in range(SOCKETS)]
            async with asyncio.timeout(FIRST_WAIT):
                for client in clients:
                    await client.connected()
        except ValueError as error:
            raise StartupError(str(error)) from None
        except TimeoutError:
            raise StartupError(f"No server answers at {place_of(plan.url)}.") from None
        yield clients


def _played(tally: Tally, bad: int) -> str:
    refused = ", ".join(f"{count} {code}" for code, count in tally.refusals.most_common())
    return (
        f"{tally.sent} sent: {tally.accepted} accepted, {tally.refusals.total()} rejected"
        f"{f' ({refused})' if refused else ''}, {bad} bad rows left out; {tally.rate:.1f} a second."
    )


async def play_demo(settings: Settings, url: str) -> None:
    """Fills the published boards with some weeks of invented scores, and plays on, until it is cancelled.

    Raises StartupError where no server answers, LedgerUnavailable, StoreUnavailable.
    """
    async with open_backends(settings) as backends:
        now = backends.ledger.clock.instant
        importer = Importer(
            backends.ledger, backends.store, backends.views, now, lambda bad: None, directory=backends.leaderboards
        )
        await importer.run(demo.history(now()), lambda: None)
        await importer.settle(lambda done, total: None)
    plan = Plan(url, None, demo.RATE, demo.PLAYERS, None)
    async with _ledger(settings) as ledger, _clients(settings, plan, ledger) as clients:
        prefix = secrets.token_hex(6)
        playing = Simulation(clients, ImportedPlayers(ledger), prefix, rate=plan.rate, now=monotonic)
        await playing.run(demo.plays(secrets.SystemRandom()))


# Commands --------------------------------------------------------------------------------------------------------


@cli.command("import")
def import_file(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="CSV with a header line.")],
    leaderboard: Annotated[str, typer.Option(help="Of rows that name none.")] = DEFAULT.slug,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Bring in scores of the past from a CSV file; safe to repeat, to break off and to resume.

    Its first line names the columns, in any order: submission_id, username (or user_id), score_added (or score),
    created_at (ISO 8601 with a zone, not in the future), and where there is one, reason, leaderboard, metadata.

    A bad row is named by its line and left out, the others count; the exit code is then 1.
    """
    if not run(import_scores(resolve(data_dir, *STORES), file, say, leaderboard)):
        raise typer.Exit(1)


@cli.command()
def simulate(
    file: Annotated[Path | None, typer.Argument(exists=True, dir_okay=False, help="CSV. [default: invented]")] = None,
    rate: Annotated[float, typer.Option(min=0.01, help="Scores a second.")] = 50.0,
    players: Annotated[int, typer.Option(min=1, help="Invented players.")] = 200,
    limit: Annotated[int | None, typer.Option(min=0, help="Scores to play. [default: the file's; else no end]")] = None,
    leaderboard: Annotated[str, typer.Option(help="Where to play; rows of a file may name others.")] = DEFAULT.slug,
    url: Annotated[str | None, typer.Option(help="The server. [default: the development instance's]")] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Play a CSV file's scores, or invented ones, as live submissions over real sockets; Ctrl-C ends it."""
    address = url or instance.address_of(data_dir)
    if address is None:
        raise StartupError("Say which server with --url, or start one with `realtime up`.")
    plan = Plan(address, file, rate, players, limit, leaderboard)
    if not run(play(resolve(data_dir, "DATABASE_URL", "REALTIME_SECRET"), plan, say)):
        raise typer.Exit(1)
