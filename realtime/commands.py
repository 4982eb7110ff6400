"""Commands that take a while: importing, simulating, checking, as a person at a terminal sees them.

Owns what they print: results on standard output, progress and what went wrong with a row on standard error. Must never
decide anything about scores. Assumes resolved settings; `cli` turns what comes back into an exit code.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from realtime import progress, score_file
from realtime.app import opened
from realtime.errors import LedgerUnavailable, StoreUnavailable
from realtime.importer import Importer, Summary
from realtime.score_file import BadRow
from realtime.settings import Settings

Say = Callable[[str], None]
"""Prints one line of the result."""


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
            now = stores.ledger.clock.now
            importer = Importer(stores.ledger, stores.store, stores.history.amend, now, show_bad)
            try:
                await importer.run(score_file.rows(file), show_read)
                await importer.settle(lambda done, total: bars.show("closed weeks", done, total, f"{done} of {total}"))
            except LedgerUnavailable as error:
                message = f"{error} (after {importer.summary.read:,} rows: import the file again, it goes on there)"
                raise LedgerUnavailable(message) from None
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
