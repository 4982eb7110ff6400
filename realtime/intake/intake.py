"""Intake: submission -> batch -> ledger -> acknowledge -> store.

Owns the queue of submissions and the batches in flight. Must never acknowledge what is not committed, wait before
committing when idle, or let one bad submission, or one locked player, take others with it. Assumes rights were checked
by the caller.

A submission that cannot be recorded now (`overloaded`, `unavailable`) may be sent again under the same id: whatever
became of the first try, it counts once.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final, Protocol

from realtime.boards.board import Board
from realtime.boards.catalogue import Directory
from realtime.boards.definitions import DEFAULT_SLUG
from realtime.boards.submissions import Accepted, Outcome, Rejected, Submission
from realtime.errors import LedgerUnavailable, PartlyTold, StoreUnavailable
from realtime.intake import holdups
from realtime.intake.batching import Batching
from realtime.intake.duplicates import Reply, Waiting, beside, grouped
from realtime.intake.holdups import Holdups
from realtime.intake.outcomes import unavailable
from realtime.intake.recorder import Ledger, Recorder

if TYPE_CHECKING:
    from realtime.boards.standings import Profile, Row
    from realtime.intake.recording import Recording
    from realtime.store.replies import Anew, ReadAfterWrite

log = logging.getLogger(__name__)

CLEARING: Final = 1.0
"""Seconds between two clearings of outbox rows while idle."""

STORING: Final = 8
"""Batches that may be on their way to the store at once; what comes while it hangs is left to the sweeper. A clean end
leaves nothing to it: then no more comes than is queued, and all of that is told. A batch of several partitions counts
for HELD seconds, one of a single partition among those of that one: what one partition holds up is no other's to wait
for."""

HELD: Final = 0.25
"""Seconds after which a batch of several partitions that is on its way waits for one that hangs."""

DOUBT: Final = 3.0
"""Seconds that a batch which did not reach the store speaks against it: by then it is known whether that is away."""

AMENDED_AT_ONCE: Final = 8
"""Closed weeks in one batch whose views are refreshed at once; where there are more, the worker does it."""


class Store(Protocol):
    """What intake needs of the store."""

    @property
    def is_complete(self) -> bool: ...
    def is_complete_in(self, partition: str) -> bool: ...
    async def tell_each(
        self,
        rows: Mapping[Board, Sequence[Row]],
        profiles: Sequence[Profile] = (),
        *,
        anew: Anew | None,
        read_after_write: ReadAfterWrite | None,
    ) -> dict[str, str | None]: ...


class Intake:
    """The one way by which scores come in. `run` must be running for anything to be recorded; `amend` is told closed
    weeks that changed, and returns when everybody can see it."""

    def __init__(
        self,
        ledger: Ledger,
        store: Store,
        amend: Callable[[Collection[Board]], Awaitable[None]],
        now: Callable[[], datetime],
        *,
        batching: Batching,
        limit: int,
        read_after_write: ReadAfterWrite | None = None,
        directory: Directory | None = None,
    ) -> None:
        self._directory = directory or Directory()
        self._recorder = Recorder(ledger, directory)
        self._store = store
        self._read_after_write = read_after_write
        self._amend = amend
        self._amending = False  # one batch at a time: what comes meanwhile the worker takes together
        self._now = now
        self._batching = batching
        self._limit = limit
        # The queue: submissions with their replies, oldest first; never longer than `limit`.
        self._queue: deque[Waiting] = deque()
        self._holdups = Holdups(self._recorder.locked, self._process_held, _refuse)
        self._in_flight: set[asyncio.Task[None]] = set()
        # Committed batches on their way to the store: since when (the loop's seconds), and to which partitions.
        self._storing: dict[asyncio.Task[None], tuple[float, frozenset[str]]] = {}
        self._running = False
        self._draining = 0  # whoever waits for all to be told
        self._starting = False  # batches are started at the end of the loop's turn
        self._rate = 0.0  # submissions a second, smoothed: for the hint when to try again
        # By partition, the loop's seconds: a batch did not reach it shortly before.
        self._doubted_until: dict[str, float] = {}
        self.on_batch: Callable[[int, float], None] = lambda size, seconds: None
        self.on_accepted: Callable[[Counter[str]], None] = lambda by_leaderboard: None
        self.on_storing: Callable[[Iterable[Board], float], None] = lambda boards, arrived: None
        self.on_stored: Callable[[float], None] = lambda seconds: None

    @property
    def live(self) -> bool:
        """Whether what `default` records now is shown soon."""
        return self._store.is_complete and not (self._doubted_until and self._is_doubted(""))

    def is_live(self, outcome: Outcome) -> bool:
        """Whether boards show soon what came of a submission: what `accepted` says with `live`."""
        if type(outcome) is not Accepted:
            return True
        if outcome.leaderboard == DEFAULT_SLUG:
            return self.live
        leaderboard = self._directory.current.leaderboards.get(outcome.leaderboard)
        partition = leaderboard.partition if leaderboard is not None else ""
        return self._store.is_complete_in(partition) and not (self._doubted_until and self._is_doubted(partition))

    def _is_doubted(self, partition: str) -> bool:
        return asyncio.get_running_loop().time() < self._doubted_until.get(partition, 0.0)

    @property
    def waiting(self) -> int:
        """Submissions that wait: for a statement, or for somebody else's lock."""
        return len(self._queue) + self._holdups.count

    def room(self, count: int) -> bool:
        """Whether `count` more submissions fit."""
        return self.waiting + count <= self._limit

    def submit(self, submission: Submission, reply: Reply) -> None:
        """Queues a submission; `reply` gets its outcome. Beyond the limit it is `overloaded` at once."""
        if self.waiting >= self._limit:
            reply(self.overloaded(submission.submission_id))
            return
        loop = asyncio.get_running_loop()
        self._queue.append((submission, reply, loop.time()))
        self._start_soon(loop)

    def overloaded(self, submission_id: str) -> Rejected:
        """The outcome of a submission for which there is no room."""
        seconds = self._limit / self._rate / 2 if self._rate > 1 else 0.5
        hint = int(1000 * min(max(seconds, 0.1), 5.0))
        message = "Too many scores wait to be recorded. Send this one again, under the same submission_id, later."
        return Rejected(submission_id, "overloaded", message, hint)

    # The loop ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Records what is queued until cancelled; then records what is left."""
        self._running = True
        self._start_soon(asyncio.get_running_loop())
        try:
            while True:
                await asyncio.sleep(CLEARING)
                # Where there are others, a batch takes the rows of the published content along.
                await self._clear_stored(others_alone=bool(self._in_flight or self._queue))
        finally:
            self._running = False
            await self.drain()

    def _start_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        """Starts batches once all that came in this turn is queued, not in a task that would have to wake up first."""
        if self._running and not self._starting:
            self._starting = True
            loop.call_soon(self._start_batches)

    def _start_batches(self) -> None:
        self._starting = False
        while count := self._batching.take(len(self._queue), len(self._in_flight)):
            batch = [self._queue.popleft() for _ in range(count)]
            if self._holdups and not (batch := self._without_held(batch)):
                continue
            task = asyncio.get_running_loop().create_task(self._process(batch))
            self._in_flight.add(task)
            task.add_done_callback(self._ended)

    def _without_held(self, batch: Iterable[Waiting]) -> list[Waiting]:
        """What does not wait for a player who is locked."""
        others: list[Waiting] = []
        for waiting in batch:
            if waiting[0] in self._holdups:
                self._holdups.take(waiting)
            else:
                others.append(waiting)
        return others

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._in_flight.discard(task)
        self._storing.pop(task, None)
        self._start_soon(asyncio.get_running_loop())  # a lane is free
        if not task.cancelled() and (error := task.exception()):
            log.error("a batch failed", exc_info=error, extra={"action": "batch"})

    async def drain(self) -> None:
        """Records everything queued, tells the store all of it, however much that is at once, and waits for it to have
        it or not."""
        self._draining += 1
        try:
            while self._queue or self._in_flight or self._storing or self._holdups.count:
                self._start_batches()
                under_way = self._in_flight | self._storing.keys()
                if under_way:
                    await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                elif self._holdups.count:
                    await asyncio.sleep(holdups.LOOK)
        finally:
            self._draining -= 1
        self._holdups.close()
        await self._clear_stored()

    async def _clear_stored(self, *, others_alone: bool = False) -> None:
        try:
            await self._recorder.clear(others_alone=others_alone)
        except LedgerUnavailable:
            pass  # the sweeper finds the rows and tells the store what it has already: nothing changes

    # A batch -------------------------------------------------------------------------------------------------

    async def _process_held(self, batch: Sequence[Waiting]) -> None:
        """Beside the lanes, which are for those that need not wait. Whatever goes wrong, every one is answered."""
        rest = deque(batch)
        try:
            while rest:
                part = [rest.popleft() for _ in range(min(len(rest), self._batching.largest))]
                try:
                    await self._process(part, around=True)
                except Exception as error:
                    log.error("a batch failed", exc_info=error, extra={"action": "batch"})
        finally:
            for waiting in rest:
                _refuse(waiting)

    async def _process(self, batch: Sequence[Waiting], *, again: bool = True, around: bool = False) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        firsts = grouped(batch)
        try:
            recorded = await self._recorder.record([first.submission for first in firsts.values()], around=around)
        except BaseException as error:
            # Whatever it was, nobody waits for an answer for ever. The ids make it safe to send all again.
            away = isinstance(error, LedgerUnavailable)
            for waiting in batch:
                _refuse(waiting)
            if not away:
                raise
            return
        others: list[Waiting] = []
        for submission, outcome in recorded.outcomes:
            first = firsts[submission.user_id, submission.submission_id, submission.leaderboard]
            first.answer(outcome)
            if again and not isinstance(outcome, Accepted):
                others += first.others  # nothing of this stands under the id: theirs may
            else:
                for other, reply, _ in first.others:
                    reply(beside(other, submission, outcome))
        for submission in recorded.held:
            first = firsts[submission.user_id, submission.submission_id, submission.leaderboard]
            for waiting in (*first.same, *first.others):
                self._holdups.take(waiting)
        took = loop.time() - began
        self._rate += 0.2 * (len(batch) / max(took, 1e-4) - self._rate)
        self.on_batch(len(batch), took)
        self.on_accepted(
            Counter(
                submission.leaderboard
                for submission, outcome in recorded.outcomes
                if isinstance(outcome, Accepted) and not outcome.duplicate
            )
        )
        partitions = frozenset(board.leaderboard.partition for board in recorded.rows)
        if recorded.outbox and (self._has_room(partitions, loop.time()) or self._draining):
            # Beside the lanes: a store that hangs must not keep the next batch from the ledger.
            task = loop.create_task(self._tell(recorded, batch[0][2]))
            self._storing[task] = loop.time(), partitions
            task.add_done_callback(self._ended)
        if others:
            await self._process(others, again=False, around=around)

    def _has_room(self, partitions: frozenset[str], now: float) -> bool:
        """Whether a batch of these partitions may be on its way to the store beside those that are."""
        if len(self._storing) < STORING:
            return True
        under_way = self._storing.values()
        return STORING > sum(of <= partitions if len(of) < 2 else now - began < HELD for began, of in under_way)

    async def _tell(self, recorded: Recording, arrived: float) -> None:
        """Tells the store. What it does not hear now the sweeper tells it: the outbox rows stay."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        now = self._now()
        self.on_storing(recorded.rows, arrived)
        rows = recorded.live_rows(now)
        try:
            told = await self._store.tell_each(
                rows,
                recorded.profiles,
                anew=lambda: self._recorder.anew(recorded, now),
                read_after_write=self._read_after_write,
            )
        except PartlyTold as error:
            told = error.told
            self._doubt(error.untold, error)
        except (StoreUnavailable, LedgerUnavailable) as error:
            self._doubt({board.leaderboard.partition for board in rows}, error)
            return
        if self._doubted_until:
            for partition in told:
                self._doubted_until.pop(partition, None)
        self.on_stored(loop.time() - began)
        self._recorder.told(recorded, told)
        await self._amend_closed(recorded.closed)

    def _doubt(self, partitions: Iterable[str], error: Exception) -> None:
        """What is recorded is not shown soon by these partitions."""
        partitions = set(partitions)
        if not any(map(self._is_doubted, partitions)):
            log.warning("scores are recorded but not shown: %s", error, extra={"action": "store"})
        until = asyncio.get_running_loop().time() + DOUBT
        self._doubted_until |= dict.fromkeys(partitions, until)

    async def _amend_closed(self, boards: Collection[Board]) -> None:
        """Brings closed weeks that a batch changed to who follows them. Where not at once, the worker sees to it."""
        if not boards or self._amending or len(boards) > AMENDED_AT_ONCE:
            return
        self._amending = True
        try:
            await self._amend(boards)
        except (StoreUnavailable, LedgerUnavailable) as error:
            log.warning("an amendment waits: %s", error, extra={"action": "outbox"})
        finally:
            self._amending = False


def _refuse(waiting: Waiting) -> None:
    submission, reply, _ = waiting
    reply(unavailable(submission))
