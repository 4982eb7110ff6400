"""Pacing: which boards are due to be read, and which subscribers are given what.

Owns two small state machines without clock or I/O: `DirtyBoards` (first change at once, then at most one reading an
interval) and the table that conflates for subscribers who do not keep up. Must never grow with what clients do.
"""

from __future__ import annotations

from collections.abc import Hashable
from heapq import heappop, heappush
from typing import Generic, TypeVar

from realtime.boards.standings import Position

K = TypeVar("K", bound=Hashable)


class Coalescer(Generic[K]):
    """Boards with changes nobody has read. Times are monotonic seconds, given by the caller."""

    def __init__(self, interval: float) -> None:
        self.interval = interval
        self._read_at: dict[K, float] = {}  # when each board was last taken, while that still matters
        self._due_at: dict[K, float] = {}  # the dirty boards
        self._news: dict[K, Position | None] = {}  # of these, the newest state announced; None where it may be any
        self._heap: list[tuple[float, int, K]] = []  # the same, soonest first; the number breaks ties
        self._count = 0

    def mark(self, board: K, now: float, state: Position | None = None) -> None:
        """The board changed: to `state`, where that is known. Marking it again moves nothing."""
        if board in self._due_at:
            news = self._news[board]
            if news is not None and (state is None or state[0] != news[0] or state > news):
                self._news[board] = state
            return
        self._news[board] = state
        read_at = self._read_at.get(board)
        due = now if read_at is None else max(now, read_at + self.interval)
        self._due_at[board] = due
        self._count += 1
        heappush(self._heap, (due, self._count, board))

    def unchanged(self, board: K) -> None:
        """What was taken turned out to be as before: the next change is a first one, due at once."""
        self._read_at.pop(board, None)

    def saw(self, board: K, state: Position) -> None:
        """The board was read in that state: it is no longer dirty where nothing newer was announced."""
        news = self._news.get(board)
        if news is not None and news[0] == state[0] and news <= state:
            self._clean(board)

    def claim(self, board: K, now: float) -> bool:
        """Takes this board, dirty or not, if it may be read at `now`: read it after this call."""
        read_at = self._read_at.get(board)
        if read_at is not None and now < read_at + self.interval:
            return False
        self._clean(board)
        self._read_at[board] = now
        return True

    def forget(self, board: K) -> None:
        """Nobody wants the board any more."""
        self._read_at.pop(board, None)
        self._clean(board)

    def _clean(self, board: K) -> None:
        self._due_at.pop(board, None)
        self._news.pop(board, None)

    def take(self, now: float) -> list[K]:
        """The boards due at `now`, no longer dirty from here on: read them after this call."""
        taken: list[K] = []
        while self._heap and self._heap[0][0] <= now:
            due, _, board = heappop(self._heap)
            if self._due_at.get(board) == due:
                self._clean(board)
                self._read_at[board] = now
                taken.append(board)
        if len(self._read_at) > 2 * len(taken) + 1_000:
            self._read_at = {k: at for k, at in self._read_at.items() if at > now - self.interval}
        return taken

    @property
    def next_due(self) -> float | None:
        """When the next board is due; None while none is dirty."""
        while self._heap and self._due_at.get(self._heap[0][2]) != self._heap[0][0]:
            heappop(self._heap)
        return self._heap[0][0] if self._heap else None


