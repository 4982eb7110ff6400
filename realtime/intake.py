"""Intake: submission -> batch -> ledger -> acknowledge -> store.

Owns the queue of submissions and the batches in flight. Must never acknowledge what is not committed, wait before
committing when idle, or let one bad submission take others with it. Assumes rights were checked by the caller.

A submission that cannot be recorded now (`overloaded`, `unavailable`) may be sent again under the same id: whatever
became of the first try, it counts once.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Final, Protocol

import asyncpg

from realtime.batching import Batching, halves
from realtime.boards import ALL_TIME, Board
from realtime.errors import EpochMoved, LedgerUnavailable, StoreUnavailable
from realtime.standings import Profile, Row
from realtime.submissions import Accepted, Outcome, Rejected, Submission

if TYPE_CHECKING:
    from realtime.postgres import Recorded, Twin

log = logging.getLogger(__name__)

Reply = Callable[[Outcome], None]
"""Takes a submission's outcome. Called on the event loop, once, soon after commit; must not block or raise."""

RETRY_UNAVAILABLE_MS: Final = 1_000
ATTEMPTS: Final = 5
"""How often a batch that lost a deadlock or met a vanished twin is tried."""

_OUT_OF_RANGE = (asyncpg.CheckViolationError, asyncpg.NumericValueOutOfRangeError)
_REPEATABLE = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)


class Ledger(Protocol):
    """What intake needs of PostgreSQL."""

    async def record_batch(self, batch: Sequence[Submission], cleared: Sequence[int]) -> list[Recorded]: ...
    async def recorded(self, batch: Sequence[Submission]) -> list[Twin]: ...
    async def clear_outbox(self, ids: Sequence[int]) -> None: ...


class Ranks(Protocol):
    """What intake needs of the store."""

    async def apply(self, rows: Mapping[Board, Sequence[Row]], profiles: Sequence[Profile] = ()) -> int: ...
    async def adopt(self) -> object: ...


class Intake:
    """The one way by which scores come in. `run` must be running for anything to be recorded."""

    def __init__(
        self, ledger: Ledger, ranks: Ranks, now: Callable[[], datetime], *, batching: Batching, limit: int
    ) -> None:
        self._ledger = ledger
        self._ranks = ranks
        self._now = now
        self._batching = batching
        self._limit = limit
        # The queue: submissions with their replies, oldest first; never longer than `limit`.
        self._queue: deque[tuple[Submission, Reply]] = deque()
        self._in_flight: set[asyncio.Task[None]] = set()
        self._stored: list[int] = []  # outbox rows the store has; the next statement removes them
        self._wake = asyncio.Event()
        self._rate = 0.0  # submissions a second, smoothed: for the hint when to try again
        self.live = True
        """Whether the last batch reached the store: what `accepted` says with `live`."""
        self.on_batch: Callable[[int, float], None] = lambda size, seconds: None
        self.on_stored: Callable[[float], None] = lambda seconds: None

    @property
    def waiting(self) -> int:
        """Submissions in the queue."""
        return len(self._queue)

    def room(self, count: int) -> bool:
        """Whether `count` more submissions fit."""
        return len(self._queue) + count <= self._limit

    def submit(self, submission: Submission, reply: Reply) -> None:
        """Queues a submission; `reply` gets its outcome. Beyond the limit it is `overloaded` at once."""
        if len(self._queue) >= self._limit:
            reply(self.overloaded(submission.submission_id))
            return
        self._queue.append((submission, reply))
        self._wake.set()

    def overloaded(self, submission_id: str) -> Rejected:
        """The outcome of a submission for which there is no room."""
        seconds = self._limit / self._rate / 2 if self._rate > 1 else 0.5
        hint = int(1000 * min(max(seconds, 0.1), 5.0))
        message = "Too many scores wait to be recorded. Send this one again, under the same submission_id, later."
        return Rejected(submission_id, "overloaded", message, hint)

    # The loop ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Records what is queued until cancelled; then records what is left."""
        try:
            while True:
                await self._wait_for_work()
                self._start_batches()
        finally:
            await self.drain()

    async def _wait_for_work(self) -> None:
        self._wake.clear()
        if self._queue and self._batching.take(len(self._queue), len(self._in_flight)):
            return
        idle = not self._in_flight and not self._queue
        try:
            # Idle with rows to clear: a moment later, unless a batch takes them along.
            async with asyncio.timeout(1.0 if idle and self._stored else None):
                await self._wake.wait()
        except TimeoutError:
            await self._clear_stored()

    def _start_batches(self) -> None:
        while count := self._batching.take(len(self._queue), len(self._in_flight)):
            batch = [self._queue.popleft() for _ in range(count)]
            task = asyncio.get_running_loop().create_task(self._process(batch))
            self._in_flight.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._in_flight.discard(task)
        self._wake.set()
        if not task.cancelled() and (error := task.exception()):
            log.error("a batch failed", exc_info=error, extra={"action": "batch"})

    async def drain(self) -> None:
        """Records everything queued, and waits for the store to have it or not."""
        while self._queue or self._in_flight:
            self._start_batches()
            await asyncio.wait(self._in_flight, return_when=asyncio.FIRST_COMPLETED)
        await self._clear_stored()

    async def _clear_stored(self) -> None:
        ids, self._stored = self._stored, []
        if ids:
            try:
                await self._ledger.clear_outbox(ids)
            except LedgerUnavailable:
                pass  # the sweeper finds the rows and replays what the store has: nothing changes

    # A batch -------------------------------------------------------------------------------------------------

    async def _process(self, batch: list[tuple[Submission, Reply]]) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        replies: dict[tuple[int, str], list[tuple[Submission, Reply]]] = {}
        for submission, reply in batch:
            replies.setdefault((submission.user_id, submission.submission_id), []).append((submission, reply))
        try:
            recorded = await self._record([same[0][0] for same in replies.values()])
        except BaseException as error:
            # Whatever it was, nobody waits for an answer for ever. The ids make it safe to send all again.
            away = isinstance(error, LedgerUnavailable)
            for submission, reply in batch:
                reply(_unavailable(submission.submission_id))
            if not away:
                raise
            return
        for submission, outcome in recorded.outcomes:
            _answer(replies[submission.user_id, submission.submission_id], outcome)
        took = loop.time() - began
        self._rate += 0.2 * (len(batch) / max(took, 1e-4) - self._rate)
        self.on_batch(len(batch), took)
        if recorded.outbox_ids:
            await self._store(recorded)

    async def _record(self, batch: Sequence[Submission]) -> _Outcomes:
        """Records a batch, whatever is in it: bad rows are answered alone, twins looked up, deadlocks repeated."""
        result = _Outcomes()
        await self._record_into(result, batch, ATTEMPTS)
        return result

    async def _record_into(self, result: _Outcomes, batch: Sequence[Submission], attempts: int) -> None:
        cleared, self._stored = self._stored, []
        try:
            rows = await self._ledger.record_batch(batch, cleared)
        except _OUT_OF_RANGE:
            self._stored += cleared
            if len(batch) == 1:
                result.outcomes.append((batch[0], _out_of_range(batch[0])))
                return
            for half in halves(len(batch)):
                await self._record_into(result, batch[half], attempts)
            return
        except _REPEATABLE:
            self._stored += cleared
            if attempts == 0:
                raise LedgerUnavailable("deadlocks again and again") from None
            await self._record_into(result, batch, attempts - 1)
            return
        except BaseException:
            self._stored += cleared
            raise
        twins = result.take(batch, rows)
        if twins:
            await self._meet(result, twins, attempts)

    async def _meet(self, result: _Outcomes, twins: Sequence[Submission], attempts: int) -> None:
        """Answers submissions whose id was in somebody else's unfinished statement."""
        gone: list[Submission] = []
        for submission, twin in zip(twins, await self._ledger.recorded(twins), strict=True):
            if twin.outcome == "gone":
                gone.append(submission)
            else:
                result.outcomes.append(
                    (submission, _outcome(submission, twin.outcome, twin.total_score, twin.week_score))
                )
        if gone:
            if attempts == 0:
                raise LedgerUnavailable("twins vanish again and again")
            await self._record_into(result, gone, attempts - 1)

    async def _store(self, recorded: _Outcomes) -> None:
        """Tells the store. What it does not hear now the sweeper replays: the outbox rows stay."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        now = self._now()
        rows = {board: of for board, of in recorded.rows.items() if not board.is_closed(now)}
        try:
            try:
                await self._ranks.apply(rows, recorded.profiles)
            except EpochMoved:
                await self._ranks.adopt()
                await self._ranks.apply(rows, recorded.profiles)
        except StoreUnavailable as error:
            if self.live:
                log.warning("scores are recorded but not shown: %s", error, extra={"action": "store"})
            self.live = False
            return
        self.live = True
        if len(rows) == len(recorded.rows):  # else a closed week changed: the sweeper refreshes its view
            self._stored += recorded.outbox_ids
        self.on_stored(loop.time() - began)


class _Outcomes:
    """What one batch came to: an outcome for each submission, and what the store must hear."""

    def __init__(self) -> None:
        self.outcomes: list[tuple[Submission, Outcome]] = []
        self.rows: dict[Board, list[Row]] = {ALL_TIME: []}
        self.profiles: list[Profile] = []
        self.outbox_ids: list[int] = []

    def take(self, batch: Sequence[Submission], rows: Iterable[Recorded]) -> list[Submission]:
        """Takes over a statement's rows; returns the submissions that met a twin."""
        twins: list[Submission] = []
        told: set[int] = set()
        told_weeks: set[tuple[date, int]] = set()
        outbox_id: int | None = None
        for submission, row in zip(batch, rows, strict=True):
            outbox_id = row.outbox_id
            if row.outcome == "twin":
                twins.append(submission)
                continue
            self.outcomes.append((submission, _outcome(submission, row.outcome, row.total_score, row.week_score)))
            if row.outcome != "accepted":
                continue
            user_id = row.user_id
            assert row.total_version is not None and row.week_version is not None
            if user_id not in told:
                told.add(user_id)
                total = None if row.hidden else row.total_score
                self.rows[ALL_TIME].append(Row(user_id, row.total_version, total))
                if row.new_username is not None:
                    self.profiles.append(Profile(user_id, row.user_version or 1, row.new_username))
            if (row.week, user_id) not in told_weeks:
                told_weeks.add((row.week, user_id))
                week_score = None if row.hidden else row.week_score
                self.rows.setdefault(Board(row.week), []).append(Row(user_id, row.week_version, week_score))
        if outbox_id is not None:
            self.outbox_ids.append(outbox_id)
        return twins


def _answer(same: Sequence[tuple[Submission, Reply]], outcome: Outcome) -> None:
    """Answers one submission and those of the same id in the same batch."""
    first, _ = same[0]
    for place, (submission, reply) in enumerate(same):
        if submission != first:
            reply(_conflict(submission))
        elif place and isinstance(outcome, Accepted):
            reply(Accepted(outcome.submission_id, outcome.user_id, outcome.total_score, outcome.week_score, True))
        else:
            reply(outcome)


def _outcome(submission: Submission, outcome: str, total: int | None, week: int | None) -> Outcome:
    if outcome in ("accepted", "duplicate"):
        return Accepted(
            submission.submission_id, submission.user_id, total or 0, week or 0, outcome == "duplicate"
        )
    if outcome == "conflict":
        return _conflict(submission)
    if outcome == "range":
        return _out_of_range(submission)
    code, message = _REFUSALS[outcome]
    return Rejected(submission.submission_id, code, message)


_REFUSALS: Final = {
    "unknown": ("unknown_user", "There is no such user. Register the player before sending scores."),
    "hidden": ("forbidden", "This player is banned."),
    "future": ("out_of_range", "created_at lies in the future."),
}


def _conflict(submission: Submission) -> Rejected:
    message = "This submission_id stands for another score of the same user. Use a new id for a new score."
    return Rejected(submission.submission_id, "submission_conflict", message)


def _out_of_range(submission: Submission) -> Rejected:
    message = "The user's total would leave the range of plus or minus 2^53."
    return Rejected(submission.submission_id, "out_of_range", message)


def _unavailable(submission_id: str) -> Rejected:
    message = "Scores cannot be recorded now. Send this one again, under the same submission_id."
    return Rejected(submission_id, "unavailable", message, RETRY_UNAVAILABLE_MS)
