"""The recorder: a batch of submissions -> the ledger -> what each came to, and what the store must hear of it.

Owns how a batch is brought home whatever is in it: a submission that PostgreSQL refuses, for whatever reason, is looked
for by halving and answered alone, a concurrent twin is looked up, a lost deadlock is tried again, what meets a lock of
somebody else's is set apart. Owns the outbox rows that the store has by now, until a statement takes them along. Must
never let a submission out without an outcome, or without having been set apart, or tell the store anything uncommitted.
Assumes that no (user, submission id) pair is twice in a batch.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final, Protocol

from realtime.boards.board import ALL_TIME, Board, told_boards
from realtime.boards.standings import Profile, Row
from realtime.boards.submissions import Outcome, Submission
from realtime.errors import LedgerLocked, LedgerUnavailable, RowRefused, TransactionConflict
from realtime.intake.batching import halves
from realtime.intake.outcomes import out_of_range, outcome_of, refused

if TYPE_CHECKING:
    from realtime.ledger.batch import Recorded, Twin

log = logging.getLogger(__name__)

ATTEMPTS: Final = 5
"""How often a batch that lost a deadlock or met a vanished twin is tried again."""

LOCKS: Final = 24
"""Statements that may meet a lock until all that is left of a batch counts as locked."""


class Ledger(Protocol):
    """What the recorder needs of PostgreSQL."""

    async def record_batch(
        self, batch: Sequence[Submission], cleared: Sequence[int], *, told: str | None, around: bool
    ) -> list[Recorded]: ...
    async def locked(self, user_ids: Collection[int]) -> set[int]: ...
    async def recorded(self, batch: Sequence[Submission]) -> list[Twin]: ...
    async def clear_outbox(self, ids: Sequence[int], told: str | None) -> None: ...
    async def standings_of(self, user_ids: Collection[int], live: Sequence[Board]) -> dict[Board, list[Row]]: ...
    async def profiles_of(self, user_ids: Collection[int]) -> list[Profile]: ...


class Recording:
    """What one batch came to: an outcome for each submission, and what the store must hear."""

    def __init__(self) -> None:
        self.outcomes: list[tuple[Submission, Outcome]] = []
        self.held: list[Submission] = []
        """What has no outcome: somebody else's lock is in its way."""
        self.profiles: list[Profile] = []
        self.outbox_ids: list[int] = []
        self.refusals: list[RowRefused] = []
        """What PostgreSQL said of submissions that nothing here expects to be refused."""
        # One row for each user on a board: a batch cut in halves meets a user twice, and a script that is told both
        # would compare both with what it read before either.
        self._totals: dict[int, Row] = {}
        self._weeks: dict[Board, dict[int, Row]] = {}
        self.closed: list[Board] = []
        """Weeks that are over by PostgreSQL's word, and that the batch changed: their views are to follow."""

    @property
    def rows(self) -> dict[Board, list[Row]]:
        """By board, the newest row of each user whom the batch changed there."""
        weeks = {board: list(rows.values()) for board, rows in self._weeks.items()}
        return {ALL_TIME: list(self._totals.values()), **weeks}

    @property
    def user_ids(self) -> list[int]:
        """Users whom the batch changed anywhere."""
        return list(self._totals)

    def live_rows(self, now: datetime) -> dict[Board, Sequence[Row]]:
        """What the store must hear: the rows of boards that are live."""
        rows: dict[Board, Sequence[Row]] = {b: of for b, of in self.rows.items() if not b.is_closed(now)}
        if self.profiles:  # other boards may show a new player by now, told by somebody who had no name for them
            rows = {board: () for board in told_boards(now)} | rows
        return rows

    def take(self, batch: Sequence[Submission], rows: Iterable[Recorded]) -> list[Submission]:
        """Takes over a statement's rows; returns the submissions that met a twin."""
        twins: list[Submission] = []
        outbox_id: int | None = None
        for submission, row in zip(batch, rows, strict=True):
            outbox_id = row.outbox_id
            if row.outcome == "twin":
                twins.append(submission)
                continue
            self.outcomes.append((submission, outcome_of(submission, row.outcome, row.total_score, row.week_score)))
            if row.outcome == "accepted":
                self._tell(row)
        if outbox_id is not None:
            self.outbox_ids.append(outbox_id)
        return twins

    def _tell(self, row: Recorded) -> None:
        (
            user_id, _, board, total_score, total_version, hidden, week_score, week_version, username, user_version, _,
            is_closed,
        ) = row  # fmt: skip
        assert total_version is not None and week_version is not None
        known = self._totals.get(user_id)
        if known is None or known.version != total_version:
            self._totals[user_id] = Row(user_id, total_version, None if hidden else total_score)
            if username is not None:
                self.profiles.append(Profile(user_id, user_version or 1, username))
        if is_closed and board not in self.closed:
            self.closed.append(board)
        rows = self._weeks.get(board)
        if rows is None:
            rows = self._weeks[board] = {}
        known = rows.get(user_id)
        if known is None or known.version != week_version:
            rows[user_id] = Row(user_id, week_version, None if hidden else week_score)

    def refuse(self, submission: Submission, error: RowRefused) -> None:
        """Takes over what PostgreSQL said of one submission alone."""
        if error.out_of_range:
            self.outcomes.append((submission, out_of_range(submission)))
            return
        self.refusals.append(error)
        self.outcomes.append((submission, refused(submission, for_good=error.for_good)))


class Recorder:
    """Brings batches home through one ledger. Several may be under way at once."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._stored: list[int] = []  # outbox rows the store has; the next statement removes them
        self._told: str | None = None  # the epoch of the content that has them

    def stored(self, outbox_ids: Iterable[int], told: str | None) -> None:
        """The store's content of epoch `told` has what these outbox rows stand for."""
        if told != self._told:
            self._stored, self._told = [], told  # what was told to other content is left to the sweeper
        self._stored += outbox_ids

    def _still_stored(self, outbox_ids: Iterable[int], told: str | None) -> None:
        """These outbox rows were not removed after all."""
        if told == self._told:
            self._stored += outbox_ids

    async def clear(self) -> None:
        """Removes the rows named with `stored` now, instead of with the next batch. Raises LedgerUnavailable."""
        (ids, told), self._stored = (self._stored, self._told), []
        if ids:
            await self._ledger.clear_outbox(ids, told)

    async def record(self, batch: Sequence[Submission], *, around: bool = False) -> Recording:
        """Records a batch; `around` locks that are likely, without waiting for one.

        Raises LedgerUnavailable: whatever became of it, it may be recorded again.
        """
        result = Recording()
        await self._record_into(result, batch, ATTEMPTS, LOCKS if around else 0)
        if result.refusals:
            words = "PostgreSQL refused %d of %d submissions, the last one with: %s"
            log.error(words, len(result.refusals), len(batch), result.refusals[-1], extra={"action": "batch"})
        return result

    async def anew(
        self, recording: Recording, now: datetime
    ) -> tuple[Mapping[Board, Sequence[Row]], Sequence[Profile]]:
        """The same users' rows on live boards, and their profiles, as they are now. Raises LedgerUnavailable."""
        user_ids = recording.user_ids
        return await self._ledger.standings_of(user_ids, told_boards(now)), await self._ledger.profiles_of(user_ids)

    async def locked(self, user_ids: Collection[int]) -> set[int]:
        """Those of whom somebody else holds what a score of theirs would change. Raises LedgerUnavailable."""
        return await self._ledger.locked(user_ids)

    async def _record_into(self, result: Recording, batch: Sequence[Submission], attempts: int, locks: int) -> int:
        """Records a batch, or its parts. `locks` is how many statements may meet a lock yet, 0 before the first has;
        returns what is left of them."""
        if locks == 1:
            result.held += batch
            return 1
        (cleared, told), self._stored = (self._stored, self._told), []
        try:
            rows = await self._ledger.record_batch(batch, cleared, told=told, around=locks > 0)
        except LedgerLocked:
            self._still_stored(cleared, told)
            return await self._around(result, batch, attempts, locks)
        except TransactionConflict:
            self._still_stored(cleared, told)
            if attempts == 0:
                raise LedgerUnavailable("deadlocks again and again") from None
            return await self._record_into(result, batch, attempts - 1, locks)
        except RowRefused as error:  # what says "not now" came as LedgerUnavailable
            self._still_stored(cleared, told)
            if len(batch) == 1:
                result.refuse(batch[0], error)
                return locks
            return await self._halved(result, batch, attempts, locks)
        except BaseException:
            self._still_stored(cleared, told)
            raise
        twins = result.take(batch, rows)
        return await self._meet(result, twins, attempts, locks) if twins else locks

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
        locked = await self._ledger.locked({submission.user_id for submission in batch})
        result.held += [submission for submission in batch if submission.user_id in locked]
        others = [submission for submission in batch if submission.user_id not in locked]
        return await self._record_into(result, others, attempts, LOCKS) if others else LOCKS

    async def _meet(self, result: Recording, twins: Sequence[Submission], attempts: int, locks: int) -> int:
        """Answers submissions whose id was in somebody else's unfinished statement."""
        gone: list[Submission] = []
        for submission, twin in zip(twins, await self._ledger.recorded(twins), strict=True):
            if twin.outcome == "gone":
                gone.append(submission)
            else:
                result.outcomes.append(
                    (submission, outcome_of(submission, twin.outcome, twin.total_score, twin.week_score))
                )
        if gone:
            if attempts == 0:
                raise LedgerUnavailable("twins vanish again and again")
            return await self._record_into(result, gone, attempts - 1, locks)
        return locks
