"""The commands that look after PostgreSQL and the store: migrate, restored, rebuild, check.

Owns their output and exit codes. Must never repair by itself what differs: `repair` does. Assumes that servers and
workers may run meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import typer

from realtime.boards.board import Board
from realtime.cli import progress
from realtime.cli.application import DEFAULT_DATA_DIR, DataDir, Say, cli, resolve, run, say
from realtime.errors import ForeignContent, StartupError, StoreUnavailable
from realtime.ledger import migrations
from realtime.ledger.ledger import Ledger
from realtime.ledger.log_check import LogCheck
from realtime.ledger.views import Views
from realtime.repair import drift
from realtime.repair.comparison import Comparison
from realtime.repair.generation import Generations
from realtime.server.backends import Backends, open_backends
from realtime.settings import STORES, Settings
from realtime.store.audit import Audit


@cli.command()
def migrate(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Bring the database's schema up to date; safe to run again, and while others do."""
    settings = resolve(data_dir, "DATABASE_URL")
    run(migrations.migrate(settings.database_url.reveal()))
    say("The schema is up to date.")


@cli.command()
def restored(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Say that the database was restored from a backup: ends all tokens, and lets nothing be given out twice."""
    settings = resolve(data_dir)
    if not settings.database_url:
        raise StartupError("Set DATABASE_URL, or name a development instance with --data-dir.")

    async def work() -> None:
        ledger = Ledger(settings.database_url.reveal(), connections=2)
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
    settings = resolve(data_dir, *STORES)

    async def work() -> bool:
        async with open_backends(settings) as backends:
            with progress.counting("rows") as show:
                published = await backends.rebuilder.rebuild(force=True, progress=show)
                return await backends.partitions.rebuild(progress=show) and published

    if not run(work()):
        say("Another process is rebuilding already.")
        raise typer.Exit(1)
    say("The store's content is complete.")


@cli.command()
def check(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Compare the two stores, user by user; exit code 1 where they differ."""
    if not run(compare(resolve(data_dir, *STORES), say)):
        raise typer.Exit(1)


HEALED: Final = "a server or worker that runs makes it anew, or `realtime rebuild`"
"""What helps a store whose content cannot be compared."""


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


async def compare(settings: Settings, say: Say) -> bool:
    """Compares every board and prints what differs; whether nothing does.

    Raises StoreUnavailable where the store cannot be read, or is being filled; LedgerUnavailable.
    """
    async with open_backends(settings) as backends:
        now = backends.ledger.clock.now
        if not (await backends.store.adopt()).is_complete:
            raise StoreUnavailable(f"its content is not complete; {HEALED}")
        await backends.partitions.adopt()
        if incomplete := backends.partitions.incomplete:
            raise StoreUnavailable(f"its content is not complete in {', '.join(incomplete)}; {HEALED}")
        comparison = Comparison(backends.ledger, Audit(backends.store), now)
        with progress.counting("users") as show:
            try:
                live = backends.leaderboards.current.live_boards(now())
                reports = [await drift.check(comparison, board, show) for board in live]
                of_weeks = await _check_weeks(backends.views, show)
                of_logs = await _check_logs(backends, show)
            except ForeignContent:
                raise StoreUnavailable(f"something else wrote under the leaderboard's keys; {HEALED}") from None
    differing = sum(report.differing for report in reports)
    for line in _lines(reports):
        say(line)
    for line in of_weeks.lines():
        say(line)
    for slug, rows in of_logs.items():
        say(f"{slug}, log: every score made anew, {_counted(rows, 'difference')}.")
    for finding in [finding for report in reports for finding in report.shown][: drift.SHOWN]:
        say(f"  {finding}.")
    if differing or of_weeks.wrong:
        say("A worker repairs this, or `realtime rebuild`.")
    if of_weeks.log:
        say("Scores were changed behind the server's back: nothing repairs that.")
    if wrong := [slug for slug, rows in of_logs.items() if rows]:
        say(f"`realtime leaderboards rebuild {wrong[0]}` makes its standings anew from the log.")
    return not differing and not of_weeks.wrong and not of_weeks.log and not wrong


def _lines(reports: Sequence[drift.Report]) -> Iterator[str]:
    """For people: a line for each published board, and one for all boards of every other leaderboard."""
    of_others: dict[str, list[drift.Report]] = {}
    for report in reports:
        if report.board.is_published:
            yield f"{report.board.id}: {_compared([report])}."
        else:
            of_others.setdefault(report.board.leaderboard.slug, []).append(report)
    for slug, of in of_others.items():
        yield f"{slug}, {_counted(len(of), 'board')}: {_compared(of)}."


def _compared(reports: Sequence[drift.Report]) -> str:
    compared, differing, of_waiting = (
        sum(getattr(report, what) for report in reports) for what in ("compared", "differing", "waiting")
    )
    waiting = f", {of_waiting} on their way" if of_waiting else ""
    return f"{compared} users compared, {_counted(differing, 'difference')}{waiting}"


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


async def _check_logs(backends: Backends, show: Callable[[str, int], None]) -> dict[str, int]:
    """By slug, how many rows of each leaderboard's standings are not what its log gives."""
    found: dict[str, int] = {}
    check = LogCheck(backends.ledger)
    for slug, leaderboard in backends.leaderboards.current.leaderboards.items():
        if await check.kinds(leaderboard):
            found[slug] = await check.differing(leaderboard)
            show("logs", len(found))
    return found


async def _check_weeks(views: Views, show: Callable[[str, int], None]) -> _Weeks:
    found = _Weeks()
    board: Board | None = None
    while board := await views.closing.after(board):
        differing = await views.differing(board)
        found.compared += 1
        found.waiting += differing is None
        if differing:
            found.wrong[board.id] = differing
        show("closed weeks", found.compared)
    found.log = await views.closing.differing_from_log()
    return found
