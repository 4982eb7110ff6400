"""Subscribers: the connections that follow boards, and how each keeps up.

Owns each connection's pace and its subscriptions. Must never queue anything for a connection. Assumes that a connection
tells, before its descriptor can be another's, that it is no longer to be written to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from realtime.boards.board import Board
from realtime.broadcast.conflation import TABLE, Action, Event, Pace
from realtime.broadcast.frame_cache import NOTHING_WRITTEN, FrameCache
from realtime.wire import close_codes, positions
from realtime.wire.frames import Frame

WAITING: Final = -2
"""The state of a subscription whose subscriber is not following: it needs a snapshot, later."""


class Connection(Protocol):
    """What a subscriber writes to; see `wire.connection`, `wire.event_stream`."""

    encoding: int
    descriptor: int
    transport_kind: str
    on_descriptor: Callable[[int], None] | None

    def write(self, frame: Frame, sent: int = 0) -> int: ...
    def close(self, code: int, reason: str = "") -> None: ...
    def lead_away(self, within_s: float) -> None: ...


class Subscriber:
    """One connection, as far as boards are concerned: its pace and its subscriptions."""

    __slots__ = (
        "_expiry", "_on_drained", "buffer_limit", "connection", "pace", "slow_after", "subscriptions",
    )  # fmt: skip

    def __init__(
        self,
        connection: Connection,
        *,
        buffer_limit: int,
        slow_after: float,
        on_drained: Callable[[Subscriber], None] = lambda subscriber: None,
    ) -> None:
        self.connection = connection
        self.pace = Pace.FOLLOWING
        self.buffer_limit = buffer_limit  # bytes
        self.slow_after = slow_after  # seconds behind until it is closed
        self.subscriptions: list[Subscription] = []
        self._on_drained = on_drained
        self._expiry: asyncio.TimerHandle | None = None
        connection.on_descriptor = self._redirect

    def _redirect(self, descriptor: int) -> None:
        """From now on frames go there, or, where it is negative, only through the connection."""
        for subscription in self.subscriptions:
            subscription.stream.descriptors[subscription.place] = descriptor

    @property
    def is_open(self) -> bool:
        """Whether anything may still be written."""
        return self.pace is not Pace.LOST

    def subscription(self, alias: str) -> Subscription | None:
        """The subscription that was asked for as `alias`."""
        return next((s for s in self.subscriptions if alias in s.aliases), None)

    def position(self) -> bytes:
        """Where it is on each of its boards, as far as those were written to it; see `wire.positions`."""
        found = [s.stream.states.position_at(s.stream.written[s.place]) for s in self.subscriptions]
        return positions.joined([position for position in found if position])

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
            self.connection.close(close_codes.CloseCode.TOO_SLOW, "too slow")

    def drained(self) -> None:
        """The transport has written all it held."""
        self.step(Event.DRAINED)

    def gone(self) -> None:
        """The connection is closed."""
        self.step(Event.GONE)


class Followed(Protocol):
    """What a subscription needs of the stream that it is a place in."""

    @property
    def board(self) -> Board: ...
    @property
    def written(self) -> list[int]: ...
    @property
    def descriptors(self) -> list[int]: ...
    @property
    def states(self) -> FrameCache: ...
    def drop_alias(self, subscription: Subscription, alias: str) -> None: ...
    def remove(self, subscription: Subscription) -> None: ...
    def serve(self, subscription: Subscription) -> None: ...


class Subscription:
    """One subscriber on one stream, under one or two names (the id, and an alias)."""

    __slots__ = ("aliases", "place", "stream", "subscriber")

    def __init__(self, subscriber: Subscriber, stream: Followed, place: int) -> None:
        self.subscriber = subscriber
        self.stream = stream
        self.aliases: set[str] = set()
        self.place = place  # in the stream's lists

    @property
    def state(self) -> int:
        """The stream's state last written to it."""
        return self.stream.written[self.place]

    @state.setter
    def state(self, state: int) -> None:
        self.stream.written[self.place] = state
