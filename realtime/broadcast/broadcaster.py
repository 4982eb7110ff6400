"""Broadcaster: announcement -> dirty boards -> top 100 -> diff -> frame -> deliveries.

Owns which followed boards are to be read. `following` says who follows them, `changes` what changed, and `delivery`
writes what was read. Must never await, serialise or queue per subscriber: a delivery is one write of bytes that are
ready. Assumes one event loop; everything here runs on it.

Each subscription knows the state last written to it. A pass over a stream writes to each the diff from exactly that
state to the newest, or the newest snapshot where that state is no longer held: so there is never a gap and nothing
twice, whoever came in between, however the pass was sliced.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Final, Protocol

from realtime.boards.board import ALL_TIME, Board
from realtime.boards.catalogue import Directory
from realtime.boards.standings import Position, Row, Snapshot
from realtime.broadcast.changes import Announcements, Changes, Store
from realtime.broadcast.coalescing import Coalescer
from realtime.broadcast.delivery import Delivery
from realtime.broadcast.following import Following
from realtime.broadcast.frame_cache import Advance
from realtime.broadcast.streams import Stream
from realtime.errors import DefinitionMoved, LedgerUnavailable, StoreUnavailable
from realtime.store.replies import Expectation, Look
from realtime.store.snapshots import Expected, by_partition

log = logging.getLogger(__name__)


RETRY_INTERVAL: Final = 0.5
"""Seconds until a board that could not be read is tried again."""


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
        self._directory = directory = directory or Directory()
        self.following = Following(directory, now, wanted=self._mark, unused=self._forget)
        self.changes = Changes(announcements, store, self, directory)
        self.delivery = Delivery()
        self._dirty: Coalescer[Board] = Coalescer(interval)
        self._wake = asyncio.Event()
        # By partition, once another than the published one was followed: boards to be read when the reading that is
        # under way has ended.
        self._due_in: dict[str, dict[Board, None]] = {}
        self._reading: set[str] = set()  # the partitions of which a reading is under way
        self._closed_due: dict[Board, None] = {}  # closed weeks to be read, oldest first
        self._closed_wake = asyncio.Event()
        self.on_changed: Callable[[Board], None] = lambda board: None
        """Called with a board whose diff is about to be written."""

    @property
    def live(self) -> bool:
        """Whether boards of the published content move. False while the store is away or that is not complete."""
        return self.following.live

    @property
    def still(self) -> frozenset[str]:
        """The partitions whose boards do not move."""
        return self.following.still

    # Changes -------------------------------------------------------------------------------------------------

    def _mark(self, board: Board, position: Position | None = None) -> None:
        self._dirty.mark(board, asyncio.get_running_loop().time(), position)
        self._wake.set()

    def mark(self, board: Board, position: Position | None = None) -> None:
        """The board changed, to `position` where that is known; nothing happens where nobody here lacks it."""
        stream = self.following.stream(board)
        if stream is not None and not (position and stream.has_shown(position)):
            self._mark(board, position)

    def _forget(self, stream: Stream) -> None:
        self._dirty.forget(stream.board)
        self.delivery.forget(stream)

    def mark_all(self, partition: str) -> None:
        """Every followed board of a partition may have changed."""
        for board in self.following.boards():
            if board.leaderboard.partition == partition:
                self._mark(board)

    def positions(self) -> dict[Board, Position | None]:
        """The followed boards, each with the position last shown; None where nothing was shown yet."""
        return {s.board: s.latest.position if s.latest else None for s in self.following.streams}

    def is_closed(self, board: Board) -> bool:
        """Whether the ledger answers for the board."""
        return self.following.is_closed(board)

    def stand_still(self, why: str, partition: str = "") -> None:
        """A partition cannot be asked: its boards do not move until one can be read again."""
        self.following.set_live(False, why, partition)

    def move(self, partition: str) -> None:
        """No live board of a partition is followed: nothing of it stands still."""
        self.following.set_live(True, "", partition)

    async def probe(self) -> None:
        """Asks whether the published content is back where no board is followed whose reading would show it."""
        if any(not board.leaderboard.partition for board in self.following.boards()):
            return
        try:
            await self._snapshots.read([ALL_TIME])
        except StoreUnavailable:
            return
        self.following.set_live(True, "")

    # Reading -------------------------------------------------------------------------------------------------

    async def read(self) -> None:
        """Reads boards as they fall due, and begins their delivery. Never ends by itself."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._read_live(group))
            group.create_task(self._read_closed())

    async def _read_live(self, group: asyncio.TaskGroup) -> None:
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
            # As they are by now: what was marked may name the rule of before, by which nothing is read any more.
            due = [stream.board for board in self._dirty.take(now) if (stream := self.following.stream(board))]
            live = [board for board in due if not self.is_closed(board)]
            if len(live) < len(due):
                self._closed_due |= dict.fromkeys(board for board in due if board not in live)
                self._closed_wake.set()
            partitions = by_partition(live)
            if self._due_in or partitions.keys() - {""}:
                for partition, boards in partitions.items():
                    self._read_apart(group, partition, boards)
            elif live:
                await self._read_boards("", live)

    def _read_apart(self, group: asyncio.TaskGroup, partition: str, boards: Sequence[Board]) -> None:
        """Has boards of a partition read by themselves: one that hangs keeps those of no other waiting."""
        waiting = self._due_in.setdefault(partition, {})
        waiting |= dict.fromkeys(boards)
        if partition not in self._reading:
            self._reading.add(partition)
            group.create_task(self._read_partition(partition, waiting))

    async def _read_partition(self, partition: str, waiting: dict[Board, None]) -> None:
        """Reads what is due of a partition, also what falls due meanwhile."""
        try:
            while waiting:
                boards = [stream.board for board in waiting if (stream := self.following.stream(board))]
                waiting.clear()
                for board in boards:
                    if self.is_closed(board):  # by now: it goes the way of those
                        self._mark(board)
                if live := [board for board in boards if not self.is_closed(board)]:
                    await self._read_boards(partition, live)
        finally:
            self._reading.discard(partition)

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
        stream = self.following.stream(board)
        if stream is None:
            return
        try:
            found = await self._snapshots.read([stream.board])
        except (StoreUnavailable, LedgerUnavailable):
            # Says nothing of live boards, which need no PostgreSQL.
            asyncio.get_running_loop().call_later(RETRY_INTERVAL, self.mark, board)
            return
        stream = self.following.stream(board)
        if stream is None:
            return
        if board not in found:
            stream.miss()
        elif not stream.is_shown_by(found[board]):
            self._mark(board)
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
            if (stream := self.following.stream(board)) is not None
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
            self._show(found, expected.wanted[0].leaderboard.partition)
            return
        for board in expected.wanted:
            self._dirty.unchanged(board)
            self.mark(board)

    def _shown_on(self, due: Iterable[Board]) -> set[int]:
        latest = [self.following.latest(board) for board in due]
        return set().union(*(snapshot.scores for snapshot in latest if snapshot))

    async def _read_boards(self, partition: str, due: Sequence[Board]) -> None:
        try:
            found = await self._snapshots.read(due, self._shown_on(due))
        except (StoreUnavailable, LedgerUnavailable) as error:
            if isinstance(error, DefinitionMoved):
                await self._directory.look_soon()
            else:
                self.following.set_live(False, str(error), partition)
            loop = asyncio.get_running_loop()
            for board in due:
                loop.call_later(RETRY_INTERVAL, self.mark, board)
            return
        self._show(found, partition)

    def _show(self, found: Mapping[Board, Snapshot], partition: str) -> None:
        self.following.set_live(True, "", partition)
        for board, snapshot in found.items():
            stream = self.following.stream(board)
            if stream is None or stream.has_shown_more(snapshot.position):
                continue  # readings may overtake each other
            if not stream.is_shown_by(snapshot):
                self._mark(board)
                continue
            self._dirty.saw(board, snapshot.position)
            advance = stream.advance(snapshot)
            if advance is Advance.CHANGED:
                self.on_changed(board)
            if advance in (Advance.FIRST, Advance.UNCHANGED):
                self._dirty.unchanged(board)
            self.delivery.schedule(stream)
        self.delivery.write_slice()
