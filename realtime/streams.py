"""Streams: a board, its recent snapshots, and who has been written which of them.

Owns subscriptions and their states, frames per state, and each connection's pace. Must never await or do I/O other
than `Connection.write`, which does not block. Assumes snapshots of one board arrive in order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum, auto
from typing import Final, NamedTuple, Protocol

from realtime import standings, wire
from realtime.boards import Board
from realtime.frames import Frame
from realtime.pacing import TABLE, Action, Event, Pace
from realtime.standings import Snapshot

HELD: Final = 32
"""Recent snapshots a stream holds: how far back `since` and a sliced pass may reach."""

NOTHING_WRITTEN: Final = -1
"""The state of a subscription that needs a snapshot."""

WAITING: Final = -2
"""The state of a subscription whose subscriber is not following: it needs a snapshot, later."""


class Advance(Enum):
    """How a snapshot relates to the one shown before it."""

    FIRST = auto()
    UNCHANGED = auto()
    CHANGED = auto()
    BACKWARDS = auto()
    """Its version went back within the epoch, which the store's own content cannot do. It is shown even so, to all as
    a fresh start, for it is what the store holds."""


class Delivered(NamedTuple):
    """What a stretch of a pass came to: frames written, their payload, subscribers behind, places visited."""

    written: int
    payload_bytes: int
    skipped: int
    visited: int


class Connection(Protocol):
    """What a subscriber writes to; see `realtime.connection`."""

    def write(self, frame: Frame) -> int: ...
    def close(self, code: int, reason: str = "") -> None: ...


class Subscriber:
    """One connection, as far as boards are concerned: its pace and its subscriptions."""

    __slots__ = (
        "_expiry", "_on_closed", "_on_drained", "buffer_limit", "connection", "pace", "slow_after", "subscriptions",
    )  # fmt: skip

    def __init__(
        self,
        connection: Connection,
        *,
        buffer_limit: int,
        slow_after: float,
        on_drained: Callable[[Subscriber], None] = lambda subscriber: None,
        on_closed: Callable[[int], None] = lambda code: None,
    ) -> None:
        self.connection = connection
        self.pace = Pace.FOLLOWING
        self.buffer_limit = buffer_limit  # bytes
        self.slow_after = slow_after  # seconds behind until it is closed
        self.subscriptions: list[Subscription] = []
        self._on_drained = on_drained
        self._on_closed = on_closed  # told the code where a subscriber is closed for being slow
        self._expiry: asyncio.TimerHandle | None = None

    @property
    def is_open(self) -> bool:
        """Whether anything may still be written."""
        return self.pace is not Pace.LOST

    def subscription(self, alias: str) -> Subscription | None:
        """The subscription that was asked for as `alias`."""
        return next((s for s in self.subscriptions if alias in s.aliases), None)

    def write(self, frame: Frame) -> None:
        """Writes something that is no diff."""
        if self.pace is not Pace.LOST:
            self.wrote(self.connection.write(frame))

    def wrote(self, buffered: int) -> None:
        """Takes what a write returned: bytes buffered, or -1 where nothing can be written any more."""
        if buffered > self.buffer_limit:
            self.step(Event.FILLED)

    def step(self, event: Event) -> None:
        """Moves through the table and does what it says."""
        before = self.pace
        self.pace, action = TABLE[before, event]
        if self.pace is not before and self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        if self.pace is not Pace.FOLLOWING:
            for subscription in self.subscriptions:
                subscription.state = WAITING
        if self.pace is Pace.BEHIND and before is not Pace.BEHIND:
            self._expiry = asyncio.get_running_loop().call_later(self.slow_after, self.step, Event.EXPIRED)
        if action is Action.SNAPSHOT:
            for subscription in self.subscriptions:
                subscription.state = NOTHING_WRITTEN
            self._on_drained(self)
        elif action is Action.CLOSE:
            self.connection.close(wire.CloseCode.TOO_SLOW, "too slow")
            self._on_closed(wire.CloseCode.TOO_SLOW)

    def drained(self) -> None:
        """The transport has written all it held."""
        self.step(Event.DRAINED)

    def gone(self) -> None:
        """The connection is closed."""
        self.step(Event.GONE)


class Subscription:
    """One subscriber on one stream, under one or two names (the id, and an alias)."""

    __slots__ = ("aliases", "place", "state", "stream", "subscriber", "write")

    def __init__(self, subscriber: Subscriber, stream: Stream, alias: str, place: int) -> None:
        self.subscriber = subscriber
        self.stream = stream
        self.aliases = {alias}
        self.place = place  # in stream.subscriptions
        self.state = NOTHING_WRITTEN  # the stream's state last written to it
        self.write = subscriber.connection.write  # at hand for the loop over all


class Stream:
    """A board that somebody in this process follows.

    A *state* is a number that grows with every snapshot taken, across epochs; versions are the wire's names for them.
    """

    def __init__(self, board: Board) -> None:
        self.board = board
        self.latest: Snapshot | None = None
        self.state = 0
        self.subscriptions: list[Subscription] = []
        self.expected = 0
        """Subscribers that wait for the first snapshot."""
        self.remaining = 0
        """Subscriptions the current pass has not visited."""
        self._cursor = 0  # where the pass goes on
        self._held: dict[int, Snapshot] = {}  # state -> snapshot, the newest HELD of one epoch
        self._frames: dict[int, Frame] = {}  # state -> what leads from it to the newest
        self._current = asyncio.Event()

    @property
    def is_unused(self) -> bool:
        """Whether nobody follows the board or waits for it."""
        return not self.subscriptions and not self.expected

    @property
    def is_current(self) -> bool:
        """Whether `latest` is kept up with the store: somebody followed all the while."""
        return self.latest is not None and bool(self.subscriptions)

    def miss(self) -> None:
        """There turned out to be no such board: nobody need wait for it."""
        self._current.set()

    async def wait_current(self) -> None:
        """Waits until the board has been read once; `latest` is None then where there is no such board."""
        await self._current.wait()

    # Who follows ---------------------------------------------------------------------------------------------

    def add(self, subscriber: Subscriber, alias: str, since: wire.Since | None) -> None:
        """Subscribes, and writes the first state: nothing, the missing diff, or a snapshot."""
        assert self.latest is not None
        subscription = self._find(subscriber)
        if subscription is None:
            subscription = self._append(subscriber, alias)
        subscription.aliases.add(alias)
        held = self._state_of(since)
        subscriber.write(Frame(wire.subscribed(self.board, alias, held != NOTHING_WRITTEN)))
        subscription.state = held
        self.serve(subscription)

    def join(self, subscriber: Subscriber, alias: str) -> None:
        """Subscribes somebody who did not ask: the first snapshot comes now, or with the first pass."""
        subscription = self._find(subscriber) or self._append(subscriber, alias)
        subscription.aliases.add(alias)
        self.serve(subscription)

    def _find(self, subscriber: Subscriber) -> Subscription | None:
        return next((s for s in subscriber.subscriptions if s.stream is self), None)

    def _append(self, subscriber: Subscriber, alias: str) -> Subscription:
        subscription = Subscription(subscriber, self, alias, len(self.subscriptions))
        self.subscriptions.append(subscription)
        subscriber.subscriptions.append(subscription)
        if self.remaining:
            self.remaining += 1  # one more place on the pass's way round
        return subscription

    def drop_alias(self, subscription: Subscription, alias: str) -> None:
        """Ends one of the names; the subscription ends with the last."""
        subscription.aliases.discard(alias)
        if not subscription.aliases:
            self.remove(subscription)

    def remove(self, subscription: Subscription) -> None:
        """Ends a subscription."""
        subscription.subscriber.subscriptions.remove(subscription)
        last = self.subscriptions.pop()
        if last is not subscription:
            # The last one takes the free place; a pass may have been there already, so it is served now.
            self.subscriptions[subscription.place] = last
            last.place = subscription.place
            if self.remaining:
                self.serve(last)

    def _state_of(self, since: wire.Since | None) -> int:
        """The held state that a client says it is at."""
        if since is None or self.latest is None or since.epoch != self.latest.epoch:
            return NOTHING_WRITTEN
        if since.version == self.latest.version:
            return self.state
        for state, snapshot in self._held.items():
            if snapshot.version == since.version:
                return state
        return NOTHING_WRITTEN

    # What they follow ----------------------------------------------------------------------------------------

    def advance(self, snapshot: Snapshot) -> Advance:
        """Takes a snapshot read from the store, and begins a pass where it is another than the one shown."""
        latest = self.latest
        result = Advance.CHANGED
        if latest is None:
            result = Advance.FIRST
        elif latest.epoch == snapshot.epoch and snapshot.version == latest.version:
            self._current.set()
            return Advance.UNCHANGED
        elif latest.epoch == snapshot.epoch and snapshot.version < latest.version:
            result = Advance.BACKWARDS
        if latest is None or latest.epoch != snapshot.epoch or result is Advance.BACKWARDS:
            self._held.clear()
        self.latest = snapshot
        self.state += 1
        self._held[self.state] = snapshot
        if len(self._held) > HELD:
            del self._held[next(iter(self._held))]
        self._frames.clear()
        self.remaining = len(self.subscriptions)
        self._current.set()
        return result

    def frame_from(self, state: int) -> Frame:
        """What leads from `state` to the newest: a diff, or a snapshot. Encoded once for all who need it."""
        frame = self._frames.get(state)
        if frame is None:
            assert self.latest is not None
            held = self._held.get(state)
            if held is None:
                frame = self._frames.get(NOTHING_WRITTEN) or Frame(wire.snapshot(self.latest))
                self._frames[NOTHING_WRITTEN] = frame
            else:
                frame = Frame(wire.diff(standings.diff(held, self.latest)))
            self._frames[state] = frame
        return frame

    def serve(self, subscription: Subscription) -> None:
        """Writes one subscription what it lacks, unless its subscriber is behind: then it waits for the drain."""
        subscriber = subscription.subscriber
        if subscriber.pace is not Pace.FOLLOWING:
            subscription.state = WAITING
        elif subscription.state != self.state and self.latest is not None:
            frame = self.frame_from(subscription.state)
            subscription.state = self.state
            subscriber.wrote(subscription.write(frame))

    def deliver(self, budget: int) -> Delivered:
        """Goes on with the pass for up to `budget` subscriptions."""
        subscriptions, state, frames = self.subscriptions, self.state, self._frames
        visits = min(self.remaining, budget, len(subscriptions))
        if self._cursor > len(subscriptions):
            self._cursor = 0
        end = self._cursor + visits
        stretch = subscriptions[self._cursor : end]
        if end > len(subscriptions):
            end -= len(subscriptions)
            stretch += subscriptions[:end]
        self._cursor = end
        self.remaining = self.remaining - visits if subscriptions else 0
        written = skipped = payload_bytes = 0
        # The loop over all: for nearly everybody two look-ups and a write.
        for subscription in stretch:
            frame = frames.get(subscription.state)
            if frame is None:
                if subscription.state == state:
                    continue
                if subscription.state == WAITING:
                    skipped += 1
                    continue
                frame = self.frame_from(subscription.state)
            subscription.state = state
            buffered = subscription.write(frame)
            written += 1
            payload_bytes += len(frame.payload)
            if buffered > 0:
                subscription.subscriber.wrote(buffered)
        return Delivered(written, payload_bytes, skipped, visits)
