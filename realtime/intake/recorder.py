"""The recorder: a batch of submissions -> the ledger -> what each came to, and what the store must hear of it.

Owns how a batch is brought home whatever is in the way: where the catalogue has moved, it is read and the batch
recorded anew; a submission that PostgreSQL refuses, for whatever reason, is looked for by halving and answered alone; a
concurrent twin is looked up, a lost deadlock is tried again, what meets a lock of somebody else's is set apart. Must
never let a submission out without an outcome, or without having been set apart, or tell the store anything uncommitted.
Assumes that no triple of leaderboard, user and submission id is twice in a batch.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Protocol

from realtime.boards.board import Board
from realtime.boards.catalogue import Catalogue, Directory
from realtime.boards.leaderboard import DEFAULT
from realtime.boards.standings import Profile, Row
from realtime.boards.submissions import Submission
from realtime.errors import (
    CatalogueMoved,
    LedgerLocked,
    LedgerUnavailable,
    RowRefused,
    TransactionConflict,
    WindowsMissing,
)
from realtime.intake import statements
from realtime.intake.batching import halves
from realtime.intake.holdups import Player
from realtime.intake.outcomes import outcome_of
from realtime.intake.recording import Recording
from realtime.intake.statements import Statements
from realtime.intake.told import Told
from realtime.ledger.ranked import RankedRows

if TYPE_CHECKING:
    from realtime.ledger.recorded import Cleared, Judged

log = logging.getLogger(__name__)

ATTEMPTS: Final = 5
"""How often a batch that lost a deadlock or met a vanished twin is tried again."""

LOCKS: Final = 24
"""Statements that may meet a lock until all that is left of a batch counts as locked."""


class Ledger(statements.Ledger, Protocol):
    """What the recorder needs of PostgreSQL."""

    def apart(self, sources: Collection[int]) -> Sequence[int]: ...
    def parted(self, batch: Sequence[Submission], catalogue: Catalogue) -> list[Sequence[Submission]]: ...
    async def fetch(self, name: str, *args: Any, source: int = ...) -> list[Any]: ...
    async def locked(self, players: Collection[tuple[int, int]]) -> set[tuple[int, int]]: ...
    async def recorded_scores(self, batch: Sequence[Submission], catalogue: Catalogue) -> list[Judged]: ...
    async def ensure_windows(self, missing: WindowsMissing) -> bool: ...
    async def clear_told(self, cleared: Sequence[Cleared]) -> None: ...
    async def standings_of(self, user_ids: Collection[int], live: Sequence[Board]) -> dict[Board, list[Row]]: ...
    async def profiles_of(self, user_ids: Collection[int]) -> list[Profile]: ...


class Recorder:
    """Brings batches home through one ledger. Several may be under way at once.

    Without a `directory` nobody knows of other leaderboards.
    """

    def __init__(self, ledger: Ledger, directory: Directory | None = None) -> None:
        self._ledger = ledger
        self._rows = RankedRows(ledger)
        self._directory = directory or Directory()
        self._told = Told()
        self._statements = Statements(ledger, self._told, directory)

    def told(self, recording: Recording, told: Mapping[str, str | None]) -> None:
        """The contents of these partitions, of these epochs, have what a batch came to."""
        for partition, epoch in told.items():
            if ids := recording.outbox.get(partition):
                self._told.add(ids, epoch, partition)

    async def clear(self, *, others_alone: bool = False) -> None:
        """Removes the rows of the outbox that the store has now, instead of with the next batch; with `others_alone`
        not those of the published content, which the next batch of default takes along. Raises LedgerUnavailable."""
        partitions = self._told.partitions - ({DEFAULT.partition} if others_alone else frozenset())
        with self._told.taken(partitions) as taken:
            if taken:
                await self._ledger.clear_told(taken)

    async def record(self, batch: Sequence[Submission], *, around: bool = False) -> Recording:
        """Records a batch; `around` locks that are likely, without waiting for one.

        Raises LedgerUnavailable: whatever became of it, it may be recorded again.
        """
        result = Recording(self._directory.current)
        await self._record_into(result, batch, ATTEMPTS, LOCKS if around else 0)
        if result.refusals:
            words = "PostgreSQL refused %d of %d submissions, the last one with: %s"
            log.error(words, len(result.refusals), len(batch), result.refusals[-1], extra={"action": "batch"})
        return result

    async def anew(
        self, recording: Recording, now: datetime
    ) -> tuple[Mapping[Board, Sequence[Row]], Sequence[Profile]]:
        """The same users' rows on live boards, and their profiles, as they are now. Raises LedgerUnavailable."""
        user_ids, written = recording.user_ids, self._directory.current.written_boards(now)
        partitions = {board.leaderboard.partition for board in recording.rows}
        boards = [board for board in written if board.leaderboard.partition in partitions]
        return await self._rows.standings_of(user_ids, boards), await self._ledger.profiles_of(user_ids)

    async def locked(self, players: Collection[Player]) -> set[Player]:
        """Those of whom somebody else holds what a score of theirs would change. Raises LedgerUnavailable."""
        leaderboards = self._directory.current.leaderboards
        known = {
            (leaderboards[one.leaderboard].source, one.user_id): one
            for one in players
            if one.leaderboard in leaderboards
        }
        return {known[player] for player in await self._ledger.locked(known)}

    async def _record_into(self, result: Recording, batch: Sequence[Submission], attempts: int, locks: int) -> int:
        """Records a batch, or its parts. `locks` is how many statements may meet a lock yet, 0 before the first has;
        returns what is left of them."""
        if locks == 1:
            result.held += batch
            return 1
        catalogue = result.catalogue = self._directory.current
        if len(parts := self._ledger.parted(batch, catalogue)) > 1:
            return await self._parts(result, parts, attempts, locks)
        try:
            recorded = await self._statements.record(batch, catalogue, around=locks > 0)
        except LedgerLocked:
            return await self._around(result, batch, attempts, locks)
        except (TransactionConflict, CatalogueMoved, WindowsMissing) as error:
            if attempts == 0:
                raise LedgerUnavailable(_AGAIN_AND_AGAIN[type(error)]) from None
            has_moved = isinstance(error, CatalogueMoved)
            if isinstance(error, WindowsMissing):
                has_moved = await self._ledger.ensure_windows(error)
            if has_moved:
                await self._directory.refresh()
            return await self._record_into(result, batch, attempts - 1, locks)
        except RowRefused as error:  # what says "not now" came as LedgerUnavailable
            if len(batch) == 1:
                result.refuse(batch[0], error)
                return locks
            return await self._halved(result, batch, attempts, locks)
        known, again = result.take(batch, recorded)
        if known:
            again += await self._look_up(result, known, catalogue)
        if not again:
            return locks
        if attempts == 0:
            raise LedgerUnavailable("twins vanish again and again")
        return await self._record_into(result, again, attempts - 1, locks)

    async def _parts(self, result: Recording, parts: Sequence[Sequence[Submission]], attempts: int, locks: int) -> int:
        """Records parts of a batch that one statement cannot record together, at once. What one cannot be recorded for
        now, as where its node is away, is set apart; where none can, LedgerUnavailable says so."""
        recorded = [self._record_into(result, part, attempts, locks) for part in parts]
        ends = await asyncio.gather(*recorded, return_exceptions=True)
        failed = [end for end in ends if isinstance(end, BaseException)]
        for error in failed:
            if len(failed) == len(parts) or not isinstance(error, LedgerUnavailable):
                raise error
        if failed:
            done = {id(one) for one, _ in result.outcomes} | {id(one) for one in result.held}
            lost = (part for part, end in zip(parts, ends, strict=True) if isinstance(end, BaseException))
            result.held += [one for part in lost for one in part if id(one) not in done]
        return min(end for end in ends if isinstance(end, int))

    async def _halved(self, result: Recording, batch: Sequence[Submission], attempts: int, locks: int) -> int:
        for half in halves(len(batch)):
            locks = await self._record_into(result, batch[half], attempts, locks)
        return locks

    async def _around(self, result: Recording, batch: Sequence[Submission], attempts: int, locks: int) -> int:
        """Sets apart what a lock is in the way of, and records the others.

        Locked rows can be seen. What cannot, a row that somebody else is just making, is looked for by halving.
        """
        if locks > 0:
            if len(batch) > 1:
                return await self._halved(result, batch, attempts, locks - 1)
            result.held += batch
            return locks - 1
        locked = await self.locked({Player.of(submission) for submission in batch})
        result.held += [submission for submission in batch if Player.of(submission) in locked]
        others = [submission for submission in batch if Player.of(submission) not in locked]
        return await self._record_into(result, others, attempts, LOCKS) if others else LOCKS

    async def _look_up(self, result: Recording, known: Sequence[Submission], catalogue: Catalogue) -> list[Submission]:
        """Answers submissions that are recorded already; returns those that are not after all."""
        gone: list[Submission] = []
        for submission, judged in zip(known, await self._ledger.recorded_scores(known, catalogue), strict=True):
            if judged.outcome == "gone":
                gone.append(submission)
            else:
                result.outcomes.append((submission, outcome_of(submission, *judged)))
        return gone


_AGAIN_AND_AGAIN: Final = {
    TransactionConflict: "deadlocks again and again",
    CatalogueMoved: "definitions change again and again",
    WindowsMissing: "windows are missing again and again",
}
