"""Importing: a file of scores into the ledger, and both stores right after it.

Owns the batches of one run. Must never hold more than a batch, let a bad row stop it, or refresh a closed week's view
more than once. Assumes that anything may kill it at any moment: whatever is not done then, another run or the worker
does.

A batch is recorded like any other. What live boards show of it the store hears at once, and its outbox row goes with
the next statement. Closed weeks know by themselves what they lack; they are left alone while an import changes them,
and brought up to date at its end, once each.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Protocol

import orjson

from realtime.boards.catalogue import Directory
from realtime.boards.leaderboard import DEFAULT
from realtime.boards.submissions import (
    CLOCK_GRACE,
    Accepted,
    Outcome,
    Rejected,
    Submission,
    check_score,
    written_metadata,
)
from realtime.errors import LedgerLocked, LedgerUnavailable, PartlyTold, RealtimeError, StoreUnavailable, WindowsMissing
from realtime.intake.outcomes import conflict
from realtime.intake.recorder import Ledger as RecorderLedger
from realtime.intake.recorder import Recorder
from realtime.intake.recording import Recording
from realtime.intake.score_file import BadRow, FileRow
from realtime.ledger.bounds import AROUND, IMPORT, Bounds
from realtime.people.imported import ImportedPlayers

if TYPE_CHECKING:
    from realtime.boards.board import Board
    from realtime.boards.catalogue import Catalogue
    from realtime.boards.standings import Profile, Row
    from realtime.ledger.recorded import Cleared, Judged, Recorded
    from realtime.store.replies import Anew

log = logging.getLogger(__name__)

BATCH: Final = 1_000
"""Rows recorded in one statement."""

LOCK_LOOK: Final = 1.0
"""Seconds between two looks whether somebody else's lock is gone."""

LOCK_LOOKS: Final = 60


class Ledger(RecorderLedger, Protocol):
    """What an import needs of PostgreSQL."""

    def transaction(self, kind: Bounds) -> AbstractAsyncContextManager[Any]: ...
    def query(self, name: str) -> str: ...
    def apart(self, sources: Collection[int]) -> Sequence[int]: ...
    async def fetch(self, name: str, *args: Any, source: int = ...) -> list[Any]: ...
    async def record_batch(
        self,
        batch: Sequence[Submission],
        cleared: Sequence[int],
        *,
        told: str | None,
        around: bool = ...,
        revision: int | None,
        kind: str = ...,
        connection: Any = ...,
    ) -> Recorded: ...
    async def record_scores(
        self,
        batch: Sequence[Submission],
        catalogue: Catalogue,
        cleared: Sequence[Cleared],
        *,
        around: bool = ...,
        kind: str = ...,
        connection: Any = ...,
    ) -> Recorded: ...


class Store(Protocol):
    """What an import needs of the store."""

    async def tell_each(
        self, rows: Mapping[Board, Sequence[Row]], profiles: Sequence[Profile] = (), *, anew: Anew | None
    ) -> dict[str, str | None]: ...


Progress = Callable[[int, int], None]
"""Told how much of how much is done."""


class Weeks(Protocol):
    """What brings closed weeks up to date; see `Views`."""

    async def settle(self, limit: int = ..., progress: Progress = ..., *, importing: bool) -> int: ...


@dataclass(slots=True)
class Summary:
    """What an import came to. Every row is exactly one of `new`, `known` and `bad`."""

    read: int = 0
    new: int = 0
    known: int = 0
    """Rows that were there already."""
    bad: int = 0
    players: int = 0
    """Users made."""
    untold: int = 0
    """Batches that are recorded, but that the store has not heard of: a worker tells it."""


class Importer:
    """One import. `on_bad` is told each bad row, in order."""

    def __init__(
        self,
        ledger: Ledger,
        store: Store,
        weeks: Weeks,
        now: Callable[[], datetime],
        on_bad: Callable[[BadRow], None],
        *,
        directory: Directory | None = None,
        leaderboard: str = DEFAULT.slug,
    ) -> None:
        self._ledger = ledger
        self._directory = directory or Directory()
        self._recorder = Recorder(_Patient(ledger), self._directory)
        self._players = ImportedPlayers(ledger)
        self._store = store
        self._weeks = weeks
        self._now = now
        self._on_bad = on_bad
        self._leaderboard = leaderboard  # of rows that name none
        self.summary = Summary()

    async def run(self, rows: Iterator[FileRow | BadRow], progress: Callable[[], None] = lambda: None) -> None:
        """Records every row; `progress` is called after each batch. `settle` is due afterwards.

        Raises LedgerUnavailable: all that was recorded stays, and the file can be imported again from its beginning.
        """
        while batch := list(islice(rows, BATCH)):
            await self._record(batch)
            self.summary.read += len(batch)
            self.summary.players = self._players.made
            progress()

    async def settle(self, progress: Progress = lambda done, total: None) -> None:
        """Brings up to date the closed weeks that this import, or one that broke off, changed.

        Raises LedgerUnavailable, StoreUnavailable: what is left is the worker's, in two minutes.
        """
        await self._recorder.clear()
        await self._weeks.settle(progress=progress, importing=True)

    # A batch -------------------------------------------------------------------------------------------------------

    async def _record(self, batch: Sequence[FileRow | BadRow]) -> None:
        now = self._now()
        bad: list[BadRow] = []
        good: list[FileRow] = []
        for row in batch:
            if isinstance(row, BadRow):
                bad.append(row)
            elif row.created_at > now + CLOCK_GRACE:  # here as well as in the statement: no player is made for it
                bad.append(BadRow(row.line, "created_at lies in the future."))
            else:
                good.append(row)
        if good:
            bad += await self._record_good(good)
        self.summary.bad += len(bad)
        for row in sorted(bad):
            self._on_bad(row)

    async def _record_good(self, rows: Sequence[FileRow]) -> list[BadRow]:
        bad: list[BadRow] = []
        fit: list[tuple[FileRow, str, str | None]] = []
        for row in rows:
            try:
                fit.append((row, *self._checked(row)))
            except RealtimeError as error:
                bad.append(BadRow(row.line, f"{error.code}: {error.message}"))
        users = await self._players.of({row.player for row, _, _ in fit if isinstance(row.player, str)})
        same: dict[tuple[str, int, str], list[tuple[FileRow, Submission]]] = {}
        for row, slug, metadata in fit:
            user_id = row.player if isinstance(row.player, int) else users[row.player]
            submission = Submission(
                user_id, row.submission_id, row.score_added, row.reason, row.created_at, slug, metadata
            )
            same.setdefault((slug, user_id, row.submission_id), []).append((row, submission))
        async for recorded in self._recorded([alike[0][1] for alike in same.values()]):
            await self._tell(recorded)
            for submission, outcome in recorded.outcomes:
                key = submission.leaderboard, submission.user_id, submission.submission_id
                bad += self._judge(same[key], outcome)
        return bad

    def _checked(self, row: FileRow) -> tuple[str, str | None]:
        """The leaderboard and the metadata of a row that fits its leaderboard. Raises RealtimeError."""
        leaderboard = self._directory.current.source(row.leaderboard or self._leaderboard)
        check_score(row.score_added, leaderboard)
        if row.metadata is None:
            return leaderboard.slug, None
        try:
            metadata = orjson.loads(row.metadata)
        except orjson.JSONDecodeError:
            metadata = None
        return leaderboard.slug, written_metadata(metadata)

    async def _recorded(self, batch: Sequence[Submission]) -> AsyncIterator[Recording]:
        """Records a batch, what is in the way of a lock last. Raises LedgerUnavailable."""
        try:
            recorded = await self._recorder.record(batch)
        except LedgerUnavailable as error:  # as after a stop: PostgreSQL has ended what was open, and this goes on
            log.info("once more: %s", error, extra={"action": "import"})
            recorded = await self._recorder.record(batch)
        yield recorded
        for _ in range(LOCK_LOOKS):
            if not recorded.held:
                return
            await asyncio.sleep(LOCK_LOOK)
            recorded = await self._recorder.record(recorded.held, around=True)
            yield recorded
        if recorded.held:
            raise LedgerLocked(f"somebody else's transaction has locked user {recorded.held[0].user_id}")

    def _judge(self, alike: Iterable[tuple[FileRow, Submission]], outcome: Outcome) -> Iterator[BadRow]:
        """Counts the rows of one user and submission id, in the order of the file; gives the bad ones."""
        first: Submission | None = None
        for row, submission in alike:
            if first is not None and submission != first:
                yield BadRow(row.line, _cause(row, conflict(submission)))
            elif not isinstance(outcome, Accepted):
                yield BadRow(row.line, _cause(row, outcome))
            elif first is None and not outcome.duplicate:
                self.summary.new += 1
            else:
                self.summary.known += 1
            first = first or submission

    async def _tell(self, recorded: Recording) -> None:
        """Brings a batch to the live boards."""
        if not recorded.outbox:
            return
        try:
            now = self._now()
            told = await self._store.tell_each(
                recorded.live_rows(now), recorded.profiles, anew=lambda: self._recorder.anew(recorded, now)
            )
        except (StoreUnavailable, LedgerUnavailable) as error:
            self.summary.untold += 1
            log.debug("the store has not heard of a batch: %s", error)
            if not isinstance(error, PartlyTold):
                return
            told = error.told
        self._recorder.told(recorded, told)


class _Patient:
    """The ledger as an import uses it."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def record_batch(
        self,
        batch: Sequence[Submission],
        cleared: Sequence[int],
        *,
        told: str | None,
        around: bool,
        revision: int | None,
    ) -> Recorded:
        async with self._ledger.transaction(AROUND if around else IMPORT) as connection:
            return await self._ledger.record_batch(
                batch, cleared, kind="import", told=told, revision=revision, connection=connection
            )

    async def record_scores(
        self, batch: Sequence[Submission], catalogue: Catalogue, cleared: Sequence[Cleared], *, around: bool
    ) -> Recorded:
        async with self._ledger.transaction(AROUND if around else IMPORT) as connection:
            return await self._ledger.record_scores(batch, catalogue, cleared, kind="import", connection=connection)

    async def locked(self, players: Collection[tuple[int, int]]) -> set[tuple[int, int]]:
        return await self._ledger.locked(players)

    async def recorded_scores(self, batch: Sequence[Submission], catalogue: Catalogue) -> list[Judged]:
        return await self._ledger.recorded_scores(batch, catalogue)

    def apart(self, sources: Collection[int]) -> Sequence[int]:
        return self._ledger.apart(sources)

    def parted(self, batch: Sequence[Submission], catalogue: Catalogue) -> list[Sequence[Submission]]:
        return self._ledger.parted(batch, catalogue)

    async def fetch(self, name: str, *args: Any, source: int = DEFAULT.id) -> list[Any]:
        return await self._ledger.fetch(name, *args, source=source)

    async def ensure_windows(self, missing: WindowsMissing) -> bool:
        return await self._ledger.ensure_windows(missing)

    async def clear_told(self, cleared: Sequence[Cleared]) -> None:
        await self._ledger.clear_told(cleared)

    async def standings_of(self, user_ids: Collection[int], live: Sequence[Board]) -> dict[Board, list[Row]]:
        return await self._ledger.standings_of(user_ids, live)

    async def profiles_of(self, user_ids: Collection[int]) -> list[Profile]:
        return await self._ledger.profiles_of(user_ids)


def _cause(row: FileRow, outcome: Rejected) -> str:
    if outcome.code == "unknown_user" and isinstance(row.player, str):
        return "deleted: this player was deleted here, and does not come back by an import."
    return f"{outcome.code}: {outcome.message}"
