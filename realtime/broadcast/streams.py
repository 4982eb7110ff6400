"""Streams: a board, and who has been written which of its states.

Owns subscriptions and their states, and each connection's pace. Must never await or do I/O other than writing what a
socket takes at once. Assumes that a connection tells, before its descriptor can be another's, that it is no longer to
be written to.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from itertools import repeat
from typing import Any, NamedTuple, Protocol

from realtime.boards.board import CLOSED_EPOCH, TOP, Board
from realtime.boards.standings import Position, Row, Snapshot
from realtime.broadcast.conflation import Pace
from realtime.broadcast.frame_cache import NOTHING_WRITTEN, Advance, FrameCache
from realtime.broadcast.subscribers import WAITING, Subscriber, Subscription
from realtime.wire import messages
from realtime.wire.frames import Answer, Frame, Joined


class Delivered(NamedTuple):
    """What a stretch of a pass came to: frames written, their payload, subscribers behind, places visited."""

    written: int
    payload_bytes: int
    skipped: int
    visited: int


class Waiter(Protocol):
    """Somebody who wants to know once that a board has moved."""

    def wake(self) -> None: ...


class Stream:
    """A board that somebody in this process follows.

    What the loop over all needs of a subscription stands in flat lists, in its place: a delivery then touches neither
    the subscription nor its connection, and is a few look-ups and one write.
    """

    def __init__(self, board: Board) -> None:
        self.board = board
        self.states = FrameCache()
        self.subscriptions: list[Subscription] = []
        self.written: list[int] = []
        """The state last written to each."""
        self.encodings: list[int] = []
        """In which encoding each gets its frames; see `Frame.by_encoding`."""
        self.descriptors: list[int] = []
        """Where to write to each; negative: only through its connection."""
        self.aliases: Counter[str] = Counter()
        """By which names other than its id the board is followed, and by how many."""
        self.expected = 0
        """Subscribers that wait for the first snapshot."""
        self.waiters: dict[Waiter, str] = {}
        """Who waits for the board to move, once, with the name that each has asked by."""
        self.remaining = 0
        """Subscriptions the current pass has not visited."""
        self._cursor = 0  # where the pass goes on
        self._current = asyncio.Event()
        self._described = True  # whether subscribers know how the board is ordered and shown

    @property
    def latest(self) -> Snapshot | None:
        """The newest snapshot."""
        return self.states.latest

    @property
    def is_unused(self) -> bool:
        """Whether nobody follows the board or waits for it."""
        return not (self.subscriptions or self.expected or self.waiters)

    @property
    def is_current(self) -> bool:
        """Whether `latest` is kept up with the store: somebody followed, or waited, all the while."""
        return self.latest is not None and not self.is_unused

    def would_show(self, rows: Iterable[Row]) -> bool:
        """Whether a write of these rows changes what is shown, by the newest snapshot."""
        if self.latest is None:
            return False
        scores = self.latest.scores
        edge = None if len(scores) < TOP else list(scores.values())[-1]  # who equals it may be above it, by the id
        return any(
            row.user_id in scores or (row.score is not None and (edge is None or row.score >= edge)) for row in rows
        )

    def is_shown_by(self, snapshot: Snapshot) -> bool:
        """Whether a snapshot was read of the board as it is shown now. One that was under way when that changed may be
        of the same version."""
        return (snapshot.metadata is not None) == self.board.shows_metadata

    def has_shown(self, position: Position) -> bool:
        """Whether that position or a later one is shown. Of a closed week nobody knows: see Advance.BACKWARDS."""
        latest = self.latest
        return latest is not None and latest.epoch == position.epoch != CLOSED_EPOCH and latest.position >= position

    def has_shown_more(self, position: Position) -> bool:
        """Whether a later position is shown."""
        return self.has_shown(Position(position.epoch, position.version + 1))

    def miss(self) -> None:
        """There turned out to be no such board: nobody need wait for it."""
        self._current.set()
        self.wake()

    async def wait_current(self) -> None:
        """Waits until the board has been read once; `latest` is None then where there is no such board."""
        await self._current.wait()

    # Who follows ---------------------------------------------------------------------------------------------

    def add(
        self, subscriber: Subscriber, alias: str, since: messages.Since | None, *, describe: bool = False
    ) -> None:
        """Subscribes, and writes the first state: nothing, the missing diff, or a snapshot."""
        assert self.latest is not None
        subscription = self._find(subscriber) or self._append(subscriber)
        self._name(subscription, alias)
        # Boards share epochs, and who asks by an alias may hold what it stood for before.
        held = subscription.state = self.states.at(since if since and (since.board or alias) == self.board.id else None)
        resumed = held != NOTHING_WRITTEN
        self.serve(subscription, Answer(messages.subscribed(self.board, alias, resumed, describe=describe)))

    def join(self, subscriber: Subscriber, alias: str) -> None:
        """Subscribes somebody who did not ask: the first snapshot comes now, or with the first pass."""
        subscription = self._find(subscriber) or self._append(subscriber)
        self._name(subscription, alias)
        self.serve(subscription)

    def _name(self, subscription: Subscription, alias: str) -> None:
        """One more name for a subscription."""
        if alias not in subscription.aliases:
            subscription.aliases.add(alias)
            if alias != self.board.id:
                self.aliases[alias] += 1

    def _unname(self, alias: str) -> None:
        """One subscription fewer has that name."""
        if alias != self.board.id:
            self.aliases[alias] -= 1
            if not self.aliases[alias]:
                del self.aliases[alias]

    def _find(self, subscriber: Subscriber) -> Subscription | None:
        return next((s for s in subscriber.subscriptions if s.stream is self), None)

    def _append(self, subscriber: Subscriber) -> Subscription:
        subscription = Subscription(subscriber, self, len(self.subscriptions))
        self.subscriptions.append(subscription)
        self.written.append(NOTHING_WRITTEN)
        self.encodings.append(subscriber.connection.encoding)
        self.descriptors.append(subscriber.connection.descriptor)
        subscriber.subscriptions.append(subscription)
        if self.remaining:
            self.remaining += 1  # one more place on the pass's way round
        return subscription

    def drop_alias(self, subscription: Subscription, alias: str) -> None:
        """Ends one of the names; the subscription ends with the last."""
        if alias in subscription.aliases:
            subscription.aliases.discard(alias)
            self._unname(alias)
        if not subscription.aliases:
            self.remove(subscription)

    def remove(self, subscription: Subscription) -> None:
        """Ends a subscription."""
        subscription.subscriber.subscriptions.remove(subscription)
        for alias in subscription.aliases:
            self._unname(alias)
        last, place = self.subscriptions[-1], subscription.place
        columns: tuple[list[Any], ...] = (self.subscriptions, self.written, self.encodings, self.descriptors)
        for column in columns:
            column[place] = column[-1]
            column.pop()
        if last is not subscription:
            # The last one takes the free place; a pass may have been there already, so it is served now.
            last.place = place
            if self.remaining:
                self.serve(last)

    def wait(self, waiter: Waiter, alias: str) -> None:
        """Wakes `waiter` when what `alias` stands for is another state, or board, or moves no longer; once."""
        self.waiters[waiter] = alias
        if alias != self.board.id:
            self.aliases[alias] += 1

    def stop_waiting(self, waiter: Waiter) -> None:
        """It is not to be woken any more."""
        alias = self.waiters.pop(waiter, None)
        if alias is not None:
            self._unname(alias)

    def wake(self, alias: str | None = None) -> None:
        """Wakes who waits, or who has asked by that name."""
        for waiter in [waiter for waiter, asked in self.waiters.items() if alias is None or asked == alias]:
            self.stop_waiting(waiter)
            waiter.wake()

    # What they follow ----------------------------------------------------------------------------------------

    def redefine(self, board: Board) -> None:
        """The board is ordered or shown otherwise from now on: subscribers hear how, before the next snapshot."""
        self.board = board
        self.states.forget()
        self._described = False
        self._current.clear()

    def _describe(self) -> None:
        for subscription in self.subscriptions:
            for alias in subscription.aliases:
                subscription.subscriber.write(Answer(messages.subscribed(self.board, alias, False)))
        self._described = True

    def advance(self, snapshot: Snapshot) -> Advance:
        """Takes a snapshot read from the store, and begins a pass where it is another than the one shown."""
        if not self._described:
            self._describe()
        result = self.states.advance(snapshot)
        if result is not Advance.UNCHANGED:
            self.remaining = len(self.subscriptions)
            if self.waiters:
                self.wake()
        self._current.set()
        return result

    def serve(self, subscription: Subscription, answer: Frame | None = None) -> None:
        """Writes one subscription what it lacks, unless its subscriber is behind: then it waits for the drain.

        An `answer` goes before that, in one write with it, and in any case.
        """
        subscriber = subscription.subscriber
        frame = answer
        if subscriber.pace is not Pace.FOLLOWING:
            subscription.state = WAITING
        elif self.latest is not None and subscription.state != self.states.newest:
            lacking = self.states.frame_from(subscription.state)
            subscription.state = self.states.newest
            frame = Joined(answer, lacking) if answer else lacking
        if frame is not None:
            subscriber.write(frame)

    def deliver(self, budget: int) -> Delivered:
        """Goes on with the pass for up to `budget` subscriptions, to the end of the lists at most."""
        if self._cursor >= len(self.subscriptions):
            self._cursor = 0
        begin = self._cursor
        end = self._cursor = min(begin + min(self.remaining, budget), len(self.subscriptions))
        self.remaining = self.remaining - (end - begin) if self.subscriptions else 0
        return self._deliver(begin, end)

    def _deliver_alike(self, begin: int, end: int) -> tuple[int, int]:
        """Writes to all of them in one go, in C, where all need the same bytes on sockets that may be written to.

        Returns how many were written to, and their payload: none where they are not alike, fewer where a socket took
        nothing.
        """
        state, encoding, size = self.written[begin], self.encodings[begin], end - begin
        descriptors = self.descriptors[begin:end]
        if (
            state in (self.states.newest, WAITING)
            or self.written[begin:end].count(state) != size
            or self.encodings[begin:end].count(encoding) != size
            or min(descriptors) < 0
        ):
            return 0, 0
        frame = self.states.frame_from(state)
        data = frame.encoded(encoding)
        sizes: list[int] = []
        with suppress(OSError):  # of the first that was not written to: the loop over the others begins with it
            sizes.extend(map(os.write, descriptors, repeat(data)))
        done = len(sizes)
        self.written[begin : begin + done] = repeat(self.states.newest, done)
        if sizes.count(len(data)) != done:
            for place, sent in enumerate(sizes, begin):
                if sent != len(data):
                    self._go_on(place, frame, sent)
        return done, done * len(frame.payload)

    def _deliver(self, begin: int, end: int) -> Delivered:
        """The loop over all: over those, that is, that `_deliver_alike` leaves."""
        if begin == end:
            return Delivered(0, 0, 0, 0)
        alike, payload_bytes = self._deliver_alike(begin, end)
        written, encodings, descriptors = self.written, self.encodings, self.descriptors
        newest, frame_from, write = self.states.newest, self.states.frame_from, os.write
        known = newest
        current = skipped = payload = 0
        frame: Frame | None = None
        for place in range(begin + alike, end):
            state = written[place]
            if state == newest:
                current += 1
                continue
            if state == WAITING:
                skipped += 1
                continue
            if state != known or frame is None:
                known, frame = state, frame_from(state)
                payload = len(frame.payload)
            written[place] = newest
            payload_bytes += payload
            descriptor = descriptors[place]
            if descriptor >= 0:
                encoding = encodings[place]
                data = frame.by_encoding[encoding] or frame.encoded(encoding)
                try:
                    sent = write(descriptor, data)
                except OSError:
                    sent = 0  # the connection will find out why
                if sent == len(data):
                    continue
                self._go_on(place, frame, sent)
            else:
                self._go_on(place, frame, 0)
        return Delivered(end - begin - current - skipped, payload_bytes, skipped, end - begin)

    def _go_on(self, place: int, frame: Frame, sent: int) -> None:
        """Leaves a frame, of which so many bytes are written, to the connection."""
        subscriber = self.subscriptions[place].subscriber
        subscriber.wrote(subscriber.connection.write(frame, sent))
