"""Commands that take a while: importing, simulating, checking, as a person at a terminal sees them.

Owns what they print: results on standard output, progress and what went wrong with a row on standard error. Must never
decide anything about scores. Assumes resolved settings; `cli` turns what comes back into an exit code.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from itertools import islice
from pathlib import Path
from time import monotonic
from typing import Final

from realtime import boards, drift, progress, score_file, simulation
from realtime.client import Client, connect
from realtime.errors import ForeignContent, LedgerUnavailable, StartupError, StoreUnavailable
from realtime.history import History
from realtime.importer import Importer, Summary
from realtime.inspection import Inspection
from realtime.line import place_of
from realtime.players import Players
from realtime.postgres import Ledger
from realtime.score_file import BadRow
from realtime.settings import Settings
from realtime.simulation import Play, Simulation, Tally
from realtime.stores import opened
from realtime.tokens import Tokens

Say = Callable[[str], None]
"""Prints one line of the result."""

SOCKETS: Final = 8
"""Connections of a simulation."""

FIRST_WAIT: Final = 10.0
"""Seconds in which a server must greet before a simulation begins."""

HEALED: Final = "a server or worker that runs makes it anew, or `realtime rebuild`"
"""Who helps a store whose content cannot be compared."""


async def import_scores(settings: Settings, path: Path, say: Say) -> bool:
    """Imports a file; whether every row of it is in the ledger now.

    Raises RealtimeError for a file without a usable header, LedgerUnavailable.
    """
    with path.open("rb") as file, progress.shares() as bars:
        size = os.fstat(file.fileno()).st_size or None

        def show_bad(row: BadRow) -> None:
            bars.say(f"line {row.line}: {row.cause}")

        def show_read() -> None:
            bars.show("reading", file.tell() if file.seekable() else 0, size, f"{importer.summary.read:,} rows")

        async with opened(settings) as stores:
            now = stores.ledger.clock.instant  # nobody asks PostgreSQL here whether a week is over
            importer = Importer(stores.ledger, stores.store, stores.history, now, show_bad)
            try:
                await importer.run(score_file.rows(file), show_read)
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


async def simulate(settings: Settings, plan: Plan, say: Say) -> bool:
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

        with _scores(plan, show_bad) as (scores, total):
            async with _ledger(settings) as ledger, _clients(settings, plan, ledger) as clients:
                playing = Simulation(clients, Players(ledger), secrets.token_hex(6), rate=plan.rate, now=monotonic)
                try:
                    await playing.run(scores, show)
                except asyncio.CancelledError:
                    bars.say("Broken off.")
    say(_played(playing.tally, bad))
    return not bad and not playing.tally.refusals


@contextmanager
def _scores(plan: Plan, on_bad: Callable[[BadRow], None]) -> Iterator[tuple[Iterator[Play], int | None]]:
    """What a plan plays, and how much that is, where it has an end."""
    if plan.file is None:
        yield islice(simulation.invented(plan.players, secrets.SystemRandom()), plan.limit), plan.limit
        return
    with plan.file.open("rb") as file:
        rows = sum(1 for _ in score_file.rows(file))
        file.seek(0)
        plays = simulation.plays(score_file.rows(file), on_bad)
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


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


# Checking --------------------------------------------------------------------------------------------------------


async def check(settings: Settings, say: Say) -> bool:
    """Compares every board and prints what differs; whether nothing does.

    Raises StoreUnavailable where the store cannot be read, or is being filled; LedgerUnavailable.
    """
    async with opened(settings) as stores:
        now = stores.ledger.clock.now
        if not (await stores.store.adopt()).is_complete:
            raise StoreUnavailable(f"its content is not complete; {HEALED}")
        inspection = Inspection(stores.ledger, stores.store, now)
        with progress.counting("users") as show:
            try:
                reports = [await drift.check(inspection, board, show) for board in boards.live_boards(now())]
                of_weeks = await _check_weeks(stores.history, show)
            except ForeignContent:
                raise StoreUnavailable(f"something else wrote under the leaderboard's keys; {HEALED}") from None
    differing = sum(report.differing for report in reports)
    for report in reports:
        waiting = f", {report.waiting} on their way" if report.waiting else ""
        found = _counted(report.differing, "difference")
        say(f"{report.board.id}: {report.compared} users compared, {found}{waiting}.")
    for line in of_weeks.lines():
        say(line)
    for finding in [finding for report in reports for finding in report.shown][: drift.SHOWN]:
        say(f"  {finding}.")
    if differing or of_weeks.wrong:
        say("A worker repairs this, or `realtime rebuild`.")
    if of_weeks.log:
        say("Scores were changed behind the server's back: nothing repairs that.")
    return not differing and not of_weeks.wrong and not of_weeks.log


@dataclass(slots=True)
class _Weeks:
    """What a comparison of closed weeks with what was recorded came to."""

    compared: int = 0
    wrong: dict[str, int] = field(default_factory=dict)
    """How many users each week that differs is wrong about."""
    waiting: int = 0
    """Weeks with changes on their way: no difference."""
    log: int = 0
    """Users' weeks that are not the sum of their transactions."""

    def lines(self) -> Iterator[str]:
        """For people."""
        waiting = f", {self.waiting} on their way" if self.waiting else ""
        yield f"closed weeks: {self.compared} compared, {_counted(len(self.wrong), 'difference')}{waiting}."
        for name, users in list(self.wrong.items())[: drift.SHOWN]:
            yield f"  {name} is wrong about {_counted(users, 'user')}."
        yield f"log: every user's weeks added up, {_counted(self.log, 'difference')}."


async def _check_weeks(history: History, show: Callable[[str, int], None]) -> _Weeks:
    found = _Weeks()
    week = date.min
    while board := await history.closing.after(week):
        week = board.starts.date()
        differing = await history.differing(board)
        found.compared += 1
        found.waiting += differing is None
        if differing:
            found.wrong[board.id] = differing
        show("closed weeks", found.compared)
    found.log = await history.closing.differing_from_log()
    return found
