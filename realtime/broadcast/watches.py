"""Watches: users who are watched, by whom, what each was told last, and when whom to read next.

Owns one frame a standing, however many it goes to, and the order of turns. Must never read a clock (times are monotonic
seconds, given by the caller, that do not go back) or do I/O other than a subscriber's `write`, which does not block.
Assumes one event loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Final

from realtime.boards.board import Board
from realtime.boards.standings import Standing
from realtime.broadcast.conflation import Pace
from realtime.broadcast.subscribers import Subscriber
from realtime.errors import RealtimeError
from realtime.wire import messages
from realtime.wire.frames import Answer, Frame

INTERVAL: Final = 1.0
"""Seconds between two readings of a user, and the least between two messages about one."""

PASS: Final = 500
"""Users read in one pass: some milliseconds of the store's time on a board of a million."""

SLICE: Final = 1_000
"""Messages written between two turns of the event loop."""

_UNAVAILABLE: Final = RealtimeError("unavailable", "The rank cannot be read now. It is told as soon as it can be.")


class Watched:
    """One user on one board, while somebody watches."""

    __slots__ = ("_frame", "board", "due", "standing", "user_id", "version", "watches")

    def __init__(self, board: Board, user_id: int) -> None:
        self.board = board
        self.user_id = user_id
        self.due = 0.0  # monotonic seconds; when to read next
        self.version = -1  # of a closed week: the one that `standing` is of
        self.standing: Standing | None = None  # as read last; None where the last reading failed
        self.watches: list[RankWatch] = []
        self._frame: tuple[Standing, Frame] | None = None

    @property
    def frame(self) -> Frame:
        """What tells the standing; encoded once."""
        assert self.standing is not None
        if self._frame is None or self._frame[0] != self.standing:
            self._frame = self.standing, Frame(messages.rank(self.board, self.user_id, *self.standing))
        return self._frame[1]


class RankWatch:
    """One connection's interest in one user on one board, under one or two names (the board's id, and an alias)."""

    __slots__ = ("names", "subscriber", "told", "told_until", "unanswered", "watched")

    def __init__(self, subscriber: Subscriber, watched: Watched) -> None:
        self.subscriber = subscriber
        self.watched = watched
        self.names: set[str] = set()
        self.told: Standing | None = None  # what was written last
        self.told_until = 0.0  # monotonic seconds; nothing more is written before
        self.unanswered: str | None = None  # the name asked by, until there is an answer, be it that there is none


class Turns:
    """Users to be read, soonest first: one new at once, one read again an interval later."""

    def __init__(self) -> None:
        self._queue: deque[Watched] = deque()
        self.wake = asyncio.Event()

    def add(self, watched: Watched) -> None:
        """Its turn is now."""
        watched.due = 0.0
        self._queue.appendleft(watched)
        self.wake.set()

    def take(self, at: float) -> list[Watched]:
        """Up to PASS users whose turn it is at `at` (monotonic seconds); whom nobody watches any more is left out."""
        taken: list[Watched] = []
        while self._queue and self._queue[0].due <= at and len(taken) < PASS:
            watched = self._queue.popleft()
            if watched.watches:
                taken.append(watched)
        return taken

    def put_back(self, taken: Iterable[Watched], at: float) -> None:
        """These were read at `at`, not before any that were put back earlier: their next turn is an interval later."""
        for watched in taken:
            watched.due = at + INTERVAL
            self._queue.append(watched)

    @property
    def next_due(self) -> float | None:
        """When the next turn is."""
        return self._queue[0].due if self._queue else None


async def tell_all(taken: Iterable[Watched], at: float) -> None:
    """Tells everybody who watches these users what they were not told yet; the loop has a turn between two slices."""
    written = 0
    for watched in taken:
        for watch in list(watched.watches):
            written += tell(watch, at)
            if written >= SLICE:
                written = 0
                await asyncio.sleep(0)


def tell(watch: RankWatch, at: float) -> int:
    """Writes the standing where it is another than was written last; 1 where something was written.

    Where it could not be read: says so to who has asked, once. Too soon after the last, or to somebody who is behind:
    the next turn will.
    """
    standing = watch.watched.standing
    news = watch.unanswered is not None if standing is None else standing != watch.told
    if not news or at < watch.told_until or not watch.names or watch.subscriber.pace is not Pace.FOLLOWING:
        return 0
    if standing is not None:
        watch.told, watch.told_until = standing, at + INTERVAL
        watch.subscriber.write(watch.watched.frame)
    else:
        watch.subscriber.write(Answer(messages.error(_UNAVAILABLE, watch.unanswered)))
    watch.unanswered = None
    return 1
