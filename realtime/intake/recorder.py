"""The recorder: a batch of submissions -> the ledger -> what each came to, and what the store must hear of it.

Owns how a batch is brought home whatever is in it: what counts on the published boards alone by their own statement,
any mixture by the general one, for the catalogue of this moment; where that has moved, it is read and the batch
recorded anew. A submission that PostgreSQL refuses, for whatever reason, is looked
for by halving and answered alone, a concurrent twin is looked up, a lost deadlock is tried again, what meets a lock of
somebody else's is set apart. Owns the outbox rows that the store has by now, until a statement takes them along. Must
never let a submission out without an outcome, or without having been set apart, or tell the store anything uncommitted.
Assumes that no triple of leaderboard, user and submission id is twice in a batch.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, Protocol

from realtime.boards.board import ALL_TIME, Board
from realtime.boards.catalogue import PUBLISHED, Catalogue, Directory
from realtime.boards.leaderboard import DEFAULT
from realtime.boards.standings import Profile, Row
from realtime.boards.submissions import Outcome, Submission
from realtime.errors import (
    CatalogueMoved,
    LedgerLocked,
    LedgerUnavailable,
    RowRefused,
    TransactionConflict,
    WindowsMissing,
)
from realtime.intake.batching import halves
from realtime.intake.outcomes import out_of_range, outcome_of, refused
from realtime.ledger.mixture import AGAIN, Cleared
from realtime.ledger.ranked import RankedRows

if TYPE_CHECKING:
    from realtime.ledger.batch import Recorded, Twin
    from realtime.ledger.mixture import Judged, Mixture

log = logging.getLogger(__name__)

ATTEMPTS: Final = 5
"""How often a batch that lost a deadlock or met a vanished twin is tried again."""

LOCKS: Final = 24
"""Statements that may meet a lock until all that is left of a batch counts as locked."""


class Ledger(Protocol):
    """What the recorder needs of PostgreSQL."""

    async def fetch(self, name: str, *args: Any) -> list[Any]: ...
    async def record_batch(
        self,
        batch: Sequence[Submission],
        cleared: Sequence[int],
        *,
        told: str | None,
        around: bool,
        revision: int | None,
    ) -> list[Recorded]: ...
    async def record_scores(
        self, batch: Sequence[Submission], catalogue: Catalogue, cleared: Sequence[Cleared], *, around: bool
    ) -> Mixture: ...
    async def locked(self, user_ids: Collection[int], sources: Collection[int]) -> set[int]: ...
    async def recorded(self, batch: Sequence[Submission]) -> list[Twin]: ...
    async def recorded_scores(self, batch: Sequence[Submission], catalogue: Catalogue) -> list[Judged]: ...
    async def ensure_windows(self, missing: WindowsMissing) -> bool: ...
    async def clear_told(self, cleared: Sequence[Cleared]) -> None: ...
    async def standings_of(self, user_ids: Collection[int], live: Sequence[Board]) -> dict[Board, list[Row]]: ...
    async def profiles_of(self, user_ids: Collection[int]) -> list[Profile]: ...


class Recording:
    """What one batch came to: an outcome for each submission, and what the store must hear."""

    def __init__(self, catalogue: Catalogue = PUBLISHED) -> None:
        self.catalogue = catalogue
        """The one that it was recorded by last."""
        self.outcomes: list[tuple[Submission, Outcome]] = []
        self.held: list[Submission] = []
        """What has no outcome: somebody else's lock is in its way."""
        self.profiles: list[Profile] = []
        self.outbox_ids: list[int] = []
        """Of the published content."""
        self.outbox: dict[str, list[int]] = {}
        """Of every other content, by its partition."""
        self.refusals: list[RowRefused] = []
        """What PostgreSQL said of submissions that nothing here expects to be refused."""
        # One row for each user on a board: a batch cut in halves meets a user twice, and a script that is told both
        # would compare both with what it read before either.
        self._totals: dict[int, Row] = {}
        self._others: dict[Board, dict[int, Row]] = {}
        self._told_last: tuple[Board | None, dict[int, Row]] = (None, {})
        self.closed: list[Board] = []
        """Boards that are over by PostgreSQL's word, and that the batch changed: what is kept of them is to follow."""

    @property
    def rows(self) -> dict[Board, list[Row]]:
        """By board, the newest row of each user whom the batch changed there."""
        others = {board: list(rows.values()) for board, rows in self._others.items()}
        return {ALL_TIME: list(self._totals.values()), **others} if self._totals or not others else others

    @property
    def user_ids(self) -> list[int]:
        """Users whom the batch changed anywhere."""
        return list({user_id: None for rows in (self._totals, *self._others.values()) for user_id in rows})

    @property
    def is_to_be_told(self) -> bool:
        """Whether anything waits for the store."""
        return bool(self.outbox_ids or self.outbox)

    def live_rows(self, now: datetime) -> dict[Board, Sequence[Row]]:
        """What the store must hear: the rows of boards that are live."""
        rows: dict[Board, Sequence[Row]] = {b: of for b, of in self.rows.items() if not b.is_closed(now)}
        if self.profiles:  # other boards may show a new player by now, told by somebody who had no name for them
            partitions = {board.leaderboard.partition for board in rows}
            told = self.catalogue.written_boards(now)
            rows = {board: () for board in told if board.leaderboard.partition in partitions} | rows
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
        if board is self._told_last[0]:  # nearly all of a batch are of one week, and a board's hash is Python's
            rows = self._told_last[1]
        else:
            rows = self._others.setdefault(board, {})
            self._told_last = board, rows
        known = rows.get(user_id)
        if known is None or known.version != week_version:
            rows[user_id] = Row(user_id, week_version, None if hidden else week_score)

    def take_mixture(self, batch: Sequence[Submission], mixture: Mixture) -> tuple[list[Submission], list[Submission]]:
        """Takes over what a mixture came to; returns the submissions that are recorded already, or that met a twin, and
        those that are to be recorded again."""
        known: list[Submission] = []
        again: list[Submission] = []
        for submission, judged in zip(batch, mixture.judged, strict=True):
            if judged.outcome in ("twin", "duplicate"):
                known.append(submission)
            elif judged.outcome == AGAIN:
                again.append(submission)
            else:
                self.outcomes.append((submission, outcome_of(submission, *judged)))
        for board, rows in mixture.rows.items():
            of_board = self._totals if board == ALL_TIME else self._others.setdefault(board, {})
            of_board |= {row.user_id: row for row in rows}
        self.profiles += mixture.profiles
        for outbox_id, partition in mixture.outbox:
            (self.outbox.setdefault(partition, []) if partition else self.outbox_ids).append(outbox_id)
        self.closed += [board for board in mixture.closed if board not in self.closed]
        return known, again

    def refuse(self, submission: Submission, error: RowRefused) -> None:
        """Takes over what PostgreSQL said of one submission alone."""
        if error.out_of_range:
            self.outcomes.append((submission, out_of_range(submission)))
            return
        self.refusals.append(error)
        self.outcomes.append((submission, refused(submission, for_good=error.for_good)))


class Recorder:
    """Brings batches home through one ledger. Several may be under way at once.

    Without a `directory` nobody knows of other leaderboards: batches are recorded whatever the catalogue's revision is.
    """

    def __init__(self, ledger: Ledger, directory: Directory | None = None) -> None:
        self._ledger = ledger
        self._rows = RankedRows(ledger)
        self._directory = directory or Directory()
        self._is_fenced = directory is not None
        self._stored: dict[str, Cleared] = {}  # outbox rows the store has; the next statement removes them
        self._plain: tuple[Catalogue, bool] | None = None  # see `_is_plain`

    def told(self, recording: Recording, told: Mapping[str, str | None]) -> None:
        """The contents of these partitions, of these epochs, have what a batch came to."""
        for partition, epoch in told.items():
            if ids := recording.outbox.get(partition, ()) if partition else recording.outbox_ids:
                self.stored(ids, epoch, partition)

    def stored(self, outbox_ids: Iterable[int], told: str | None, partition: str = "") -> None:
        """The content of a partition, of epoch `told`, has what these outbox rows stand for."""
        known = self._stored.get(partition)
        # What was told to other content is left to the sweeper.
        ids = [*known.ids, *outbox_ids] if known is not None and known.epoch == told else list(outbox_ids)
        self._stored[partition] = Cleared(partition, told, ids)

    def _taken(self, *, published_alone: bool = False) -> list[Cleared]:
        """The outbox rows that the next statement removes."""
        if published_alone:
            published = self._stored.pop("", None)
            return [] if published is None else [published]
        taken = list(self._stored.values())
        self._stored = {}
        return taken

    def _still_stored(self, taken: Iterable[Cleared]) -> None:
        """These outbox rows were not removed after all."""
        for of in taken:
            known = self._stored.get(of.partition)
            if known is None or known.epoch == of.epoch:
                self.stored(of.ids, of.epoch, of.partition)

    async def clear(self) -> None:
        """Removes the rows named with `stored` now, instead of with the next batch. Raises LedgerUnavailable."""
        if taken := self._taken():
            await self._ledger.clear_told(taken)

    async def clear_others(self) -> None:
        """The same, of all contents but the published one: its rows the next batch of default takes along."""
        published = self._stored.pop("", None)
        await self.clear()
        if published is not None:
            self._still_stored([published])

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

    async def locked(self, user_ids: Collection[int]) -> set[int]:
        """Those of whom somebody else holds what a score of theirs would change. Raises LedgerUnavailable."""
        leaderboards = self._directory.current.leaderboards.values()
        sources = {one.source for one in leaderboards if one.takes_submissions and one.id != DEFAULT.id}
        return await self._ledger.locked(user_ids, sources)

    def _is_plain(self, batch: Sequence[Submission], catalogue: Catalogue) -> bool:
        """Whether all of it counts on the published boards alone, and asks for nothing else."""
        if self._plain is None or self._plain[0] is not catalogue:
            self._plain = catalogue, catalogue.is_published_alone
        return self._plain[1] and all(map(_PUBLISHED_ALONE.__eq__, map(_BEYOND_PUBLISHED, batch)))

    async def _record_into(self, result: Recording, batch: Sequence[Submission], attempts: int, locks: int) -> int:
        """Records a batch, or its parts. `locks` is how many statements may meet a lock yet, 0 before the first has;
        returns what is left of them."""
        if locks == 1:
            result.held += batch
            return 1
        catalogue = result.catalogue = self._directory.current
        is_plain = self._is_plain(batch, catalogue)
        if not is_plain:
            batch = _open(result, batch, catalogue)
            if not batch:
                return locks
        taken = self._taken(published_alone=is_plain)
        around = locks > 0
        try:
            if is_plain:
                _, told, cleared = taken[0] if taken else ("", None, ())
                revision = catalogue.revision if self._is_fenced else None
                rows = await self._ledger.record_batch(batch, cleared, told=told, around=around, revision=revision)
            else:
                mixture = await self._ledger.record_scores(batch, catalogue, taken, around=around)
        except LedgerLocked:
            self._still_stored(taken)
            return await self._around(result, batch, attempts, locks)
        except (TransactionConflict, CatalogueMoved, WindowsMissing) as error:
            self._still_stored(taken)
            if attempts == 0:
                raise LedgerUnavailable(_AGAIN_AND_AGAIN[type(error)]) from None
            has_moved = isinstance(error, CatalogueMoved)
            if isinstance(error, WindowsMissing):
                has_moved = await self._ledger.ensure_windows(error)
            if has_moved:
                await self._directory.refresh()
            return await self._record_into(result, batch, attempts - 1, locks)
        except RowRefused as error:  # what says "not now" came as LedgerUnavailable
            self._still_stored(taken)
            if len(batch) == 1:
                result.refuse(batch[0], error)
                return locks
            return await self._halved(result, batch, attempts, locks)
        except BaseException:
            self._still_stored(taken)
            raise
        if is_plain:
            twins = result.take(batch, rows)
            return await self._meet(result, twins, attempts, locks) if twins else locks
        known, again = result.take_mixture(batch, mixture)
        if known:
            again += await self._look_up(result, known, catalogue)
        return await self._once_more(result, again, attempts, locks) if again else locks

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
        locked = await self.locked({submission.user_id for submission in batch})
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
        return await self._once_more(result, gone, attempts, locks) if gone else locks

    async def _look_up(self, result: Recording, known: Sequence[Submission], catalogue: Catalogue) -> list[Submission]:
        """Answers submissions of a mixture that are recorded already; returns those that are not after all."""
        gone: list[Submission] = []
        for submission, judged in zip(known, await self._ledger.recorded_scores(known, catalogue), strict=True):
            if judged.outcome == "gone":
                gone.append(submission)
            else:
                result.outcomes.append((submission, outcome_of(submission, *judged)))
        return gone

    async def _once_more(self, result: Recording, batch: Sequence[Submission], attempts: int, locks: int) -> int:
        if attempts == 0:
            raise LedgerUnavailable("twins vanish again and again")
        return await self._record_into(result, batch, attempts - 1, locks)


_PUBLISHED_ALONE: Final = (DEFAULT.slug, None, None, False)
"""The leaderboard, metadata, window and question of a submission that the published system knows."""

_BEYOND_PUBLISHED: Final = itemgetter(slice(5, None))
"""The same four of any submission."""

_AGAIN_AND_AGAIN: Final = {
    TransactionConflict: "deadlocks again and again",
    CatalogueMoved: "definitions change again and again",
    WindowsMissing: "windows are missing again and again",
}


def _open(result: Recording, batch: Sequence[Submission], catalogue: Catalogue) -> Sequence[Submission]:
    """What is of leaderboards that take submissions; the rest is answered."""
    open_: list[Submission] = []
    for submission in batch:
        leaderboard = catalogue.leaderboards.get(submission.leaderboard)
        if leaderboard is not None and leaderboard.takes_submissions:
            open_.append(submission)
        else:
            result.outcomes.append((submission, outcome_of(submission, "removed", None, None)))
    return open_
