"""Following: who follows which board, by which names, in this process.

Owns the streams (a board with subscribers in this process) and the subscribers. Must never read a board: it asks for
that, and hears when one was read. Must never await between registering a subscriber and writing its first state.
Assumes one event loop; everything here runs on it.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Final

from realtime.boards.board import Board
from realtime.boards.catalogue import Catalogue, Directory, is_alias
from realtime.boards.standings import Snapshot
from realtime.broadcast.conflation import Pace
from realtime.broadcast.streams import Stream
from realtime.broadcast.subscribers import Subscriber
from realtime.errors import LedgerUnavailable, RealtimeError
from realtime.wire import messages
from realtime.wire.frames import Frame

log = logging.getLogger(__name__)

SUBSCRIBE_TIMEOUT: Final = 5.0
"""Seconds a first snapshot may take."""


TRANSPORTS: Final = ("websocket", "events", "request")
"""What may carry what somebody follows: `request` is one that waits for a board to move."""

LEADERBOARDS: Final = 50
"""Leaderboards that metrics name: each is a time series of its own."""


def most_of(counts: Counter[str], most: int) -> dict[str, float]:
    """The `most` greatest of `counts`, and the sum of all others as `(other)`, which no slug can be."""
    named = dict(counts.most_common(most))
    rest = counts.total() - sum(named.values())
    return {name: float(count) for name, count in named.items()} | ({"(other)": float(rest)} if rest else {})


class Following:
    """The subscribers of this process, and the boards that they follow. `wanted` is called with a board that must be
    read, `unused` with a stream that nobody follows any more."""

    def __init__(
        self,
        directory: Directory,
        now: Callable[[], datetime],
        *,
        wanted: Callable[[Board], None],
        unused: Callable[[Stream], None],
    ) -> None:
        self._directory = directory
        self._now = now
        self._wanted = wanted
        self._unused = unused
        self._streams: dict[Board, Stream] = {}
        self._subscribers: set[Subscriber] = set()
        # By alias: who follows what stands for nothing now, as between two seasons, and what it stood for last.
        self._waiting: dict[str, tuple[Board, set[Subscriber]]] = {}
        self._still: set[str] = set()  # partitions whose boards do not move

    # What others see -----------------------------------------------------------------------------------------

    @property
    def live(self) -> bool:
        """Whether boards of the published content move. False while the store is away or that is not complete."""
        return "" not in self._still

    @property
    def still(self) -> frozenset[str]:
        """The partitions whose boards do not move: their content is away, or not complete."""
        return frozenset(self._still)

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

    def subscribers_by_transport(self) -> dict[str, float]:
        """Connections with at least one subscription, and requests that wait, by what carries them."""
        counts = Counter(subscriber.connection.transport_kind for subscriber in self._subscribers)
        counts["request"] = sum(len(stream.waiters) for stream in self._streams.values())
        return {kind: float(counts[kind]) for kind in TRANSPORTS}

    def subscriptions_by_class(self) -> dict[str, float]:
        """Subscriptions of all time, and of weeks that are live or closed."""
        counts = {"all_time": 0.0, "live_week": 0.0, "closed_week": 0.0}
        for board, stream in self._streams.items():
            is_closed = self.is_closed(board)
            kind = "all_time" if board.ends is None else "closed_week" if is_closed else "live_week"
            counts[kind] += len(stream.subscriptions)
        return counts

    def subscriptions_by_leaderboard(self) -> dict[str, float]:
        """Subscriptions of the LEADERBOARDS most followed leaderboards, by slug; those of all others as `(other)`."""
        counts: Counter[str] = Counter()
        for board, stream in self._streams.items():
            counts[board.leaderboard.slug] += len(stream.subscriptions)
        return most_of(counts, LEADERBOARDS)

    def stream(self, board: Board) -> Stream | None:
        """The stream of a board, where somebody follows it."""
        return self._streams.get(board)

    def is_closed(self, board: Board) -> bool:
        """Whether the ledger answers for the board, as far as PostgreSQL's clock is known."""
        try:
            return board.is_closed(self._now())
        except LedgerUnavailable:
            return False

    def stands_still(self, board: Board) -> bool:
        """Whether the board would move, and does not now: its content is away, or not complete."""
        return board.leaderboard.partition in self._still and not self.is_closed(board)

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
            if stream.board.leaderboard.partition in self._still:
                subscriber.write(_status(stream.board, False))

    async def subscribe(
        self, subscriber: Subscriber, alias: str, since: messages.Since | None, *, describe: bool = False
    ) -> None:
        """Subscribes to what `alias` (an id, or one like `current_week`) stands for, and writes the first state.

        `describe` says what leaderboard and window it is, also of the published ones. Raises RealtimeError
        `unknown_board`, also for a window before the first score, or `unavailable` where no state can be had now.
        """
        async with self.at_hand(alias) as stream:
            self._begin(stream, subscriber, alias, since, describe)

    @asynccontextmanager
    async def at_hand(self, alias: str) -> AsyncIterator[Stream]:
        """The stream of what `alias` stands for, with its state at hand for the block, from whose first step to its
        first await nothing comes in between. Raises as `subscribe` does."""
        while True:
            board = await self._directory.find(alias, self._now())
            stream = self._streams.get(board)
            if stream is None:
                stream = self._streams[board] = Stream(board)
            stream.expected += 1
            try:
                if not stream.is_current:
                    await self._first_snapshot(stream)
                if is_alias(alias) and self._directory.resolve(alias, self._now()) != board:
                    continue  # the window ended while we waited
                if stream.board.leaderboard is not board.leaderboard and not stream.is_current:
                    continue  # it was redefined meanwhile
                yield stream
                return
            finally:
                stream.expected -= 1
                self._drop_if_unused(stream.board)

    async def _first_snapshot(self, stream: Stream) -> None:
        """Waits until the stream has a state read after now, or one to show while the store is away."""
        self._wanted(stream.board)
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

    def leave(self, stream: Stream) -> None:
        """Somebody waits for it no longer."""
        self._drop_if_unused(stream.board)

    def _drop_if_unused(self, board: Board) -> None:
        stream = self._streams.get(board)
        if stream is not None and stream.is_unused:
            del self._streams[board]
            self._unused(stream)

    def caught_up(self, subscriber: Subscriber) -> None:
        """A subscriber that was behind has drained: one fresh snapshot of each of its boards, at once."""
        for subscription in subscriber.subscriptions:
            subscription.stream.serve(subscription)

    def aliases(self) -> list[tuple[str, Board | None]]:
        """Names that stand for another board later, with what each stands for to its followers; None for nothing."""
        following = [(alias, board) for board, stream in self._streams.items() for alias in stream.aliases]
        return following + [(alias, None) for alias, (_, waiting) in self._waiting.items() if waiting]

    def waiting_for(self, subscriber: Subscriber) -> list[str]:
        """The names by which a subscriber follows what stands for nothing now."""
        return [alias for alias, (_, waiting) in self._waiting.items() if subscriber in waiting]

    def boards(self) -> list[Board]:
        """The boards with subscribers."""
        return list(self._streams)

    def roll_over(self, alias: str, before: Board | None, after: Board | None) -> None:
        """Moves everybody who follows `alias` from one board to the next, without a reconnect; None for no board, until
        there is one again."""
        if before is not None:
            if (stream := self._streams.get(before)) is not None:
                stream.wake(alias)
            movers = self._leave(alias, before)
        else:
            before, waiting = self._waiting.pop(alias, (None, set()))
            movers = [subscriber for subscriber in waiting if subscriber.is_open]
        if before is None or not movers:
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
            if after.leaderboard.partition and after.leaderboard.partition in self._still:
                subscriber.write(_status(after, False))
        self._wanted(after)

    def _leave(self, alias: str, before: Board) -> list[Subscriber]:
        """Ends what `alias` began on a board; returns whose it was."""
        movers: list[Subscriber] = []
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
                before = stream.board
                if _is_shown_otherwise(stream.board, now_called):
                    stream.redefine(now_called)
                    self._wanted(board)
                else:
                    stream.board = now_called
                self._tell_moved(stream, before)

    def _end(self, stream: Stream) -> None:
        for subscription in list(stream.subscriptions):
            for alias in list(subscription.aliases):
                subscription.subscriber.write(Frame(messages.unsubscribed(stream.board.id, alias)))
                stream.drop_alias(subscription, alias)
            if not subscription.subscriber.subscriptions:
                self._subscribers.discard(subscription.subscriber)
        stream.miss()
        self._drop_if_unused(stream.board)

    def send_away(self, after_ms: int, most: int | None = None) -> int:
        """Asks subscribers, or any `most` of them, to come back within so long: to another process, where somebody
        leads them there. Returns how many were asked."""
        frame = Frame(messages.reconnect(after_ms))
        asked = list(self._subscribers)
        if most is not None and most < len(asked):
            asked = random.sample(asked, most)
        for subscriber in asked:
            subscriber.write(frame)
            subscriber.connection.lead_away(after_ms / 1000)
        return len(asked)

    def set_live(self, live: bool, why: str, partition: str = "") -> None:
        """Boards of a partition move from now on, or do not, for a reason; everybody who follows one is told."""
        if live == (partition not in self._still):
            return
        if live:
            self._still.remove(partition)
        else:
            self._still.add(partition)
        boards = f"boards of partition {partition}" if partition else "boards"
        log.warning("%s %s", boards, "move again" if live else f"stand still: {why}", extra={"action": "status"})
        streams = [stream for board, stream in self._streams.items() if board.leaderboard.partition == partition]
        for stream in streams:
            stream.wake()  # what is shown from now on is stale, or no longer
        if partition:
            for stream in streams:
                _write(stream, _status(stream.board, live))
        else:
            followers = {subscription.subscriber for stream in streams for subscription in stream.subscriptions}
            for subscriber in followers:
                subscriber.write(_LIVE if live else _STALE)

    def _tell_moved(self, stream: Stream, before: Board) -> None:
        """A board may be of another partition from now on: its followers hear whether it moves, where that is other."""
        was, now = (board.leaderboard.partition in self._still for board in (before, stream.board))
        if was and not now:
            _write(stream, _status(before, True))
        elif now and before.leaderboard.partition != stream.board.leaderboard.partition:
            _write(stream, _status(stream.board, False))


def _is_shown_otherwise(before: Board, after: Board) -> bool:
    """Whether who knows a board as `before` must be told anew how it is ordered and written."""
    old, new = before.leaderboard, after.leaderboard
    shown = (old.definition.title, old.definition.format, old.definition.metadata, old.order, before.window)
    return shown != (new.definition.title, new.definition.format, new.definition.metadata, new.order, after.window)


def _write(stream: Stream, frame: Frame) -> None:
    for subscription in stream.subscriptions:
        subscription.subscriber.write(frame)


def _status(board: Board, live: bool) -> Frame:
    """Says whether a board moves: of the published content, whether all of its boards do."""
    if board.leaderboard.partition:
        return Frame(messages.status(live, board.id))
    return _LIVE if live else _STALE


_LIVE: Final = Frame(messages.status(True))
_STALE: Final = Frame(messages.status(False))
