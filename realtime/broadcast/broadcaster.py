"""Broadcaster: announcement -> dirty boards -> top 100 -> diff -> frame -> deliveries.

Owns the streams (a board with subscribers in this process), and which of them are to be read. `changes` says what
changed, `delivery` writes what was read.
Must never await, serialise or queue per subscriber: a delivery is one write of bytes that are ready. Assumes one event
loop; everything here runs on it.

Each subscription knows the state last written to it. A pass over a stream writes to each the diff from exactly that
state to the newest, or the newest snapshot where that state is no longer held: so there is never a gap and nothing
twice, whoever came in between, however the pass was sliced.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Final, Protocol

from realtime.boards.board import ALL_TIME, Board
from realtime.boards.catalogue import Catalogue, Directory, is_alias
from realtime.boards.standings import Position, Row, Snapshot
from realtime.broadcast.changes import Announcements, Changes, Store
from realtime.broadcast.coalescing import Coalescer
from realtime.broadcast.conflation import Pace
from realtime.broadcast.delivery import Delivery
from realtime.broadcast.frame_cache import Advance
from realtime.broadcast.streams import Stream
from realtime.broadcast.subscribers import Subscriber, Subscription
from realtime.errors import LedgerUnavailable, RealtimeError, StoreUnavailable
from realtime.store.replies import Expectation, Look
from realtime.store.snapshots import Expected
from realtime.wire import messages
from realtime.wire.frames import Frame

log = logging.getLogger(__name__)


RETRY_INTERVAL: Final = 0.5
"""Seconds until a board that could not be read is tried again."""

SUBSCRIBE_TIMEOUT: Final = 5.0
"""Seconds a first snapshot may take."""


class Snapshots(Protocol):
    """Where snapshots come from."""

    async def read(self, wanted: Sequence[Board], shown: Iterable[int] = ()) -> dict[Board, Snapshot]: ...
    def expect(self, wanted: Sequence[Board], shown: Iterable[int]) -> Expected: ...
    def take(self, expected: Expected, look: Look) -> dict[Board, Snapshot] | None: ...


class Broadcaster:
    """Every board's way to its subscribers in this process.

    `read`, `changes.listen`, `changes.poll` and `delivery.run` must be running.
    """

    def __init__(
        self,
        snapshots: Snapshots,
        announcements: Announcements,
        store: Store,
        now: Callable[[], datetime],
        *,
        interval: float,
        directory: Directory | None = None,
    ) -> None:
        self._snapshots = snapshots
        self._directory = directory or Directory()
        self.changes = Changes(announcements, store, self)
        self.delivery = Delivery()
        self._now = now
        self._streams: dict[Board, Stream] = {}
        self._subscribers: set[Subscriber] = set()
        # By alias: who follows what stands for nothing now, as between two seasons, and what it stood for last.
        self._waiting: dict[str, tuple[Board, set[Subscriber]]] = {}
        self._dirty: Coalescer[Board] = Coalescer(interval)
        self._wake = asyncio.Event()
        self._closed_due: dict[Board, None] = {}  # closed weeks to be read, oldest first
        self._closed_wake = asyncio.Event()
        self._live = True
        self.on_changed: Callable[[Board], None] = lambda board: None
        """Called with a board whose diff is about to be written."""

    # What others see -----------------------------------------------------------------------------------------

    @property
    def live(self) -> bool:
        """Whether boards move. False while the store is away or its content is not complete."""
        return self._live

    @property
    def streams(self) -> Iterator[Stream]:
        """The boards with subscribers."""
        return iter(self._streams.values())

    @property
    def subscribers(self) -> int:
        """Connections with at least one subscription."""
        return len(self._subscribers)

    @property
    def behind(self) -> int:
        """Connections that are behind now."""
        return sum(1 for subscriber in self._subscribers if subscriber.pace is Pace.BEHIND)

    def subscriptions_by_class(self) -> dict[str, float]:
        """Subscriptions of all time, and of weeks that are live or closed."""
        counts = {"all_time": 0.0, "live_week": 0.0, "closed_week": 0.0}
        for board, stream in self._streams.items():
            is_closed = self.is_closed(board)
            kind = "all_time" if board.ends is None else "closed_week" if is_closed else "live_week"
            counts[kind] += len(stream.subscriptions)
        return counts

    def latest(self, board: Board) -> Snapshot | None:
        """The newest snapshot this process holds of a board with subscribers."""
        stream = self._streams.get(board)
        return stream.latest if stream else None

    # Subscribing ---------------------------------------------------------------------------------------------

    def subscribe_now(
        self, subscriber: Subscriber, alias: str, since: messages.Since | None, *, describe: bool = False
    ) -> bool:
        """`subscribe` without waiting, where the board's state is at hand; False, and nothing done, where it is not."""
        try:
            board = self._directory.resolve(alias, self._now())
        except (RealtimeError, LedgerUnavailable):
            return False  # `subscribe` says why
        stream = self._streams.get(board)
        if stream is None or not stream.is_current:
            return False
        self._begin(stream, subscriber, alias, since, describe)
        return True

    def _begin(
        self, stream: Stream, subscriber: Subscriber, alias: str, since: messages.Since | None, describe: bool
    ) -> None:
        """Registers and writes the first state. Nothing may come between these two."""
        if subscriber.is_open:
            self._subscribers.add(subscriber)
            stream.add(subscriber, alias, since, describe=describe)
            if not self._live:
                subscriber.write(_STALE)

    async def subscribe(
        self, subscriber: Subscriber, alias: str, since: messages.Since | None, *, describe: bool = False
    ) -> None:
        """Subscribes to what `alias` (an id, or one like `current_week`) stands for, and writes the first state.

        `describe` says what leaderboard and window it is, also of the published ones. Raises RealtimeError
        `unknown_board`, also for a window before the first score, or `unavailable` where no state can be had now.
        """
        while True:
            board = await self._directory.find(alias, self._now())
            stream = self._streams.get(board)
            if stream is None:
                stream = self._streams[board] = Stream(board)
            stream.expected += 1
            try:
                if not stream.is_current:
                    await self._first_snapshot(stream)
                # From here to the first write there is no await: nothing comes between registering and that state.
                if is_alias(alias) and self._directory.resolve(alias, self._now()) != board:
                    continue  # the window ended while we waited
                if stream.board.leaderboard is not board.leaderboard and not stream.is_current:
                    continue  # it was redefined meanwhile
                self._begin(stream, subscriber, alias, since, describe)
                return
            finally:
                stream.expected -= 1
                self._drop_if_unused(stream.board)

    async def _first_snapshot(self, stream: Stream) -> None:
        """Waits until the stream has a state read after now, or one to show while the store is away."""
        self._mark(stream.board)
        try:
            async with asyncio.timeout(SUBSCRIBE_TIMEOUT):
                await stream.wait_current()
        except TimeoutError:
            if stream.latest is None:
                raise RealtimeError(
                    "unavailable", "The board cannot be read now. Subscribe again.", retry_after_ms=1_000
                ) from None
        if stream.latest is None:
            raise RealtimeError("unknown_board", "There are no scores that old.")

    def unsubscribe(self, subscriber: Subscriber, alias: str) -> Board | None:
        """Ends what `alias` began; the stream ends with its last alias. Returns its board, None if there was none."""
        subscription = subscriber.subscription(alias)
        if subscription is None:
            board, waiting = self._waiting.get(alias, (None, set()))
            if subscriber not in waiting:
                return None
            waiting.discard(subscriber)
            return board
        subscription.stream.drop_alias(subscription, alias)
        self._drop_if_unused(subscription.stream.board)
        if not subscriber.subscriptions:
            self._subscribers.discard(subscriber)
        return subscription.stream.board

    def remove(self, subscriber: Subscriber) -> None:
        """The connection is gone."""
        for subscription in list(subscriber.subscriptions):
            subscription.stream.remove(subscription)
            self._drop_if_unused(subscription.stream.board)
        self._subscribers.discard(subscriber)
        for _, subscribers in self._waiting.values():
            subscribers.discard(subscriber)

    def _drop_if_unused(self, board: Board) -> None:
        stream = self._streams.get(board)
        if stream is not None and stream.is_unused:
            del self._streams[board]
            self._dirty.forget(board)
            self.delivery.forget(stream)

    def caught_up(self, subscriber: Subscriber) -> None:
        """A subscriber that was behind has drained: one fresh snapshot of each of its boards, at once."""
        for subscription in subscriber.subscriptions:
            subscription.stream.serve(subscription)

    def aliases(self) -> list[tuple[str, Board]]:
        """Names that stand for another board later, with what each stands for to its followers."""
        following = [(alias, board) for board, stream in self._streams.items() for alias in stream.aliases]
        return following + [(alias, board) for alias, (board, waiting) in self._waiting.items() if waiting]

    def followed(self) -> list[Board]:
        """The boards with subscribers."""
        return list(self._streams)

    def roll_over(self, alias: str, before: Board, after: Board | None) -> None:
        """Moves everybody who follows `alias` from one board to the next, without a reconnect; None for no board, until
        there is one again."""
        movers = self._leave(alias, before)
        if not movers:
            return
        frame = Frame(messages.rollover(alias, before, after))
        for subscriber in movers:
            subscriber.write(frame)
        if after is None:
            self._waiting.setdefault(alias, (before, set()))[1].update(movers)
            return
        stream = self._streams.get(after)
        if stream is None:
            stream = self._streams[after] = Stream(after)
        described = None if after.is_published else Frame(messages.subscribed(after, alias, False))
        for subscriber in movers:
            if described is not None:
                subscriber.write(described)  # the window is another one
            self._subscribers.add(subscriber)
            stream.join(subscriber, alias)
        self._mark(after)

    def _leave(self, alias: str, before: Board) -> list[Subscriber]:
        """Ends what `alias` began on a board; returns whose it was."""
        last, waiting = self._waiting.pop(alias, (before, set()))
        if last != before:
            self._waiting[alias] = last, waiting
            waiting = set()
        movers = [subscriber for subscriber in waiting if subscriber.is_open]
        stream = self._streams.get(before)
        if stream is not None:
            for subscription in [s for s in stream.subscriptions if alias in s.aliases]:
                movers.append(subscription.subscriber)
                stream.drop_alias(subscription, alias)
            self._drop_if_unused(before)
        return movers

    def redefine(self, catalogue: Catalogue) -> None:
        """Leaderboards changed: followers are told how boards are ordered and shown now, or that they are gone."""
        for board, stream in list(self._streams.items()):
            now_called = catalogue.now_called(board)
            if now_called is None:
                self._end(stream)
            elif now_called.leaderboard is not stream.board.leaderboard:
                if _is_shown_otherwise(stream.board, now_called):
                    stream.redefine(now_called)
                    self._mark(board)
                else:
                    stream.board = now_called

    def _end(self, stream: Stream) -> None:
        for subscription in list(stream.subscriptions):
            for alias in list(subscription.aliases):
                subscription.subscriber.write(Frame(messages.unsubscribed(stream.board, alias)))
                stream.drop_alias(subscription, alias)
            if not subscription.subscriber.subscriptions:
                self._subscribers.discard(subscription.subscriber)
        stream.miss()
        self._drop_if_unused(stream.board)

    def send_away(self, after_ms: int) -> None:
        """Asks every subscriber to come back within so long: to another process, where there is a balancer."""
        frame = Frame(messages.reconnect(after_ms))
        for subscriber in self._subscribers:
            subscriber.write(frame)

    # Changes -------------------------------------------------------------------------------------------------

    def _mark(self, board: Board, position: Position | None = None) -> None:
        self._dirty.mark(board, asyncio.get_running_loop().time(), position)
        self._wake.set()

    def mark(self, board: Board, position: Position | None = None) -> None:
        """The board changed, to `position` where that is known; nothing happens where nobody here lacks it."""
        stream = self._streams.get(board)
        if stream is not None and not (position and stream.has_shown(position)):
            self._mark(board, position)

    def mark_all(self) -> None:
        """Every followed board may have changed."""
        for board in self._streams:
            self._mark(board)

    def positions(self) -> dict[Board, Position | None]:
        """The followed boards, each with the position last shown; None where nothing was shown yet."""
        return {board: stream.latest.position if stream.latest else None for board, stream in self._streams.items()}

    def is_closed(self, board: Board) -> bool:
        """Whether a view answers for the board, as far as PostgreSQL's clock is known."""
        try:
            return board.is_closed(self._now())
        except LedgerUnavailable:
            return False

    def stand_still(self, why: str) -> None:
        """The store cannot be asked: boards do not move until one can be read again."""
        self._set_live(False, why)

    async def probe(self) -> None:
        """Asks whether the store is back where no board is followed whose reading would show it."""
        if self._streams:
            return
        try:
            await self._snapshots.read([ALL_TIME])
        except StoreUnavailable:
            return
        self._set_live(True, "")

    # Reading -------------------------------------------------------------------------------------------------

    async def read(self) -> None:
        """Reads boards as they fall due, and begins their delivery. Never ends by itself."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._read_live())
            group.create_task(self._read_closed())

    async def _read_live(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due_at = self._dirty.next_due
            now = loop.time()
            if due_at is None or due_at > now:
                self._wake.clear()
                try:
                    async with asyncio.timeout_at(due_at):
                        await self._wake.wait()
                except TimeoutError:
                    pass
                continue
            due = [board for board in self._dirty.take(now) if board in self._streams]
            live = [board for board in due if not self.is_closed(board)]
            if len(live) < len(due):
                self._closed_due |= dict.fromkeys(board for board in due if board not in live)
                self._closed_wake.set()
            if live:
                await self._read_boards(live)

    async def _read_closed(self) -> None:
        """Closed weeks by themselves: the first reading of one makes its view, and live boards must not wait for it."""
        while True:
            await self._closed_wake.wait()
            self._closed_wake.clear()
            while self._closed_due:
                board = next(iter(self._closed_due))
                del self._closed_due[board]
                await self._read_closed_board(board)

    async def _read_closed_board(self, board: Board) -> None:
        try:
            found = await self._snapshots.read([board])
        except (StoreUnavailable, LedgerUnavailable):
            # Says nothing of live boards, which need no PostgreSQL.
            asyncio.get_running_loop().call_later(RETRY_INTERVAL, self.mark, board)
            return
        stream = self._streams.get(board)
        if stream is None:
            return
        if board not in found:
            stream.miss()
        elif stream.advance(found[board]) is Advance.CHANGED:
            self.on_changed(board)
        self.delivery.schedule(stream)
        self.delivery.write_slice()

    def expect(self, written: Mapping[Board, Iterable[Row]]) -> Expectation | None:
        """What to read right behind a write of this process: boards followed here that will change, and are due.

        So the first change is on its way a round trip sooner than its announcement would bring it.
        """
        now = asyncio.get_running_loop().time()
        due = [
            board
            for board, rows in written.items()
            if (stream := self._streams.get(board)) is not None
            and stream.would_show(rows)
            and not self.is_closed(board)
            and self._dirty.claim(board, now)
        ]
        if not due:
            return None
        expected = self._snapshots.expect(due, self._shown_on(due))
        return Expectation(expected.wanted, expected.names_of, partial(self._fulfil, expected))

    def _fulfil(self, expected: Expected, look: Look | None) -> None:
        """Shows what was read behind a write; where that is of no use, the boards are read as ever."""
        found = None
        if look is not None:
            with suppress(StoreUnavailable):  # whoever reads next meets it as well, and says so
                found = self._snapshots.take(expected, look)
        if found is not None:
            self._show(found)
            return
        for board in expected.wanted:
            self._dirty.unchanged(board)
            self.mark(board)

    def _shown_on(self, due: Iterable[Board]) -> set[int]:
        streams = [self._streams[board] for board in due if board in self._streams]
        return set().union(*(stream.latest.scores for stream in streams if stream.latest))

    async def _read_boards(self, due: Sequence[Board]) -> None:
        try:
            found = await self._snapshots.read(due, self._shown_on(due))
        except (StoreUnavailable, LedgerUnavailable) as error:
            self._set_live(False, str(error))
            loop = asyncio.get_running_loop()
            for board in due:
                loop.call_later(RETRY_INTERVAL, self.mark, board)
            return
        self._show(found)

    def _show(self, found: Mapping[Board, Snapshot]) -> None:
        self._set_live(True, "")
        for board, snapshot in found.items():
            stream = self._streams.get(board)
            if stream is None or stream.has_shown_more(snapshot.position):
                continue  # readings may overtake each other
            self._dirty.saw(board, snapshot.position)
            advance = stream.advance(snapshot)
            if advance is Advance.CHANGED:
                self.on_changed(board)
            if advance in (Advance.FIRST, Advance.UNCHANGED):
                self._dirty.unchanged(board)
            self.delivery.schedule(stream)
        self.delivery.write_slice()

    def _set_live(self, live: bool, why: str) -> None:
        if live == self._live:
            return
        self._live = live
        log.warning("boards %s", "move again" if live else f"stand still: {why}", extra={"action": "status"})
        frame = _LIVE if live else _STALE
        for subscriber in self._subscribers:
            subscriber.write(frame)


def _is_shown_otherwise(before: Board, after: Board) -> bool:
    """Whether who knows a board as `before` must be told anew how it is ordered and written."""
    old, new = before.leaderboard, after.leaderboard
    shown = (old.definition.title, old.definition.format, old.definition.metadata, old.order, before.window)
    return shown != (new.definition.title, new.definition.format, new.definition.metadata, new.order, after.window)


_LIVE: Final = Frame(messages.status(True))
_STALE: Final = Frame(messages.status(False))

__all__ = ["Broadcaster", "Stream", "Subscriber", "Subscription"]
