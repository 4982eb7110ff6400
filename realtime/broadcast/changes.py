"""Changes: how this process hears that a board changed.

Owns the one subscription to the store's announcements and the comparison of versions that makes up for what it misses.
Must never read a board's content. Assumes that whatever changes a board moves its version.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

from realtime.boards.board import Board
from realtime.boards.catalogue import Directory
from realtime.boards.standings import Position
from realtime.errors import StoreUnavailable, first_of
from realtime.store.announcements import Announcement
from realtime.store.replies import Versions

log = logging.getLogger(__name__)

POLL_INTERVAL: Final = 2.0
"""Seconds between two comparisons of versions: what a lost announcement costs."""

PARTITIONS_INTERVAL: Final = 1.0
"""Seconds between two looks whether there are other partitions."""

CLOSED_A_POLL: Final = 25
"""Closed weeks looked at in each poll: one that is lost among more costs some polls."""


class Announcements(Protocol):
    """Where changes are heard of."""

    def hearing(self, partition: str = "") -> AbstractAsyncContextManager[AsyncIterator[Announcement]]: ...


class Store(Protocol):
    """What comparing versions needs of the store."""

    async def versions(self, of: Sequence[Board], *, partition: str | None = None) -> Versions: ...


class Followed(Protocol):
    """The boards that somebody in this process follows."""

    @property
    def still(self) -> Collection[str]: ...
    def positions(self) -> Mapping[Board, Position | None]: ...
    def is_closed(self, board: Board) -> bool: ...
    def mark(self, board: Board, position: Position | None = None) -> None: ...
    def mark_all(self, partition: str) -> None: ...
    def stand_still(self, why: str, partition: str = "") -> None: ...
    def move(self, partition: str) -> None: ...
    async def probe(self) -> None: ...


class Changes:
    """Marks followed boards that changed. `listen` and `poll` must be running."""

    def __init__(self, announcements: Announcements, store: Store, boards: Followed, directory: Directory) -> None:
        self._announcements = announcements
        self._store = store
        self._boards = boards
        self._directory = directory
        self._users_versions: dict[str, int] = {}  # of each partition
        self._closed_turn = 0  # the next of the followed closed weeks to look at unasked

    async def listen(self) -> None:
        """Hears announcements of every partition. Where there is one alone, it raises when its connection breaks, and
        its supervisor starts it again."""
        while True:
            await self._listen_to_all(self._directory.current.partitions)

    async def _listen_to_all(self, partitions: frozenset[str]) -> None:
        """Hears announcements until there are other partitions."""
        try:
            async with asyncio.TaskGroup() as group:
                listen = self._listen_to if len(partitions) == 1 else self._keep_listening_to
                for partition in partitions:
                    group.create_task(listen(partition))
                group.create_task(self._watch(partitions))
        except ExceptionGroup as group:
            _, mistakes = group.split((StoreUnavailable, _Moved))
            if mistakes is not None:
                raise
            if (lost := group.subgroup(StoreUnavailable)) is not None:
                raise first_of(lost) from None  # and not within a group, of which nobody knows what it means

    async def _watch(self, partitions: frozenset[str]) -> None:
        """Ends the listening where there are other partitions by now."""
        while True:
            await asyncio.sleep(PARTITIONS_INTERVAL)
            if self._directory.current.partitions != partitions:
                raise _Moved

    async def _keep_listening_to(self, partition: str) -> None:
        """Hears a partition however often it is lost: no other is heard worse for that."""
        while True:
            try:
                await self._listen_to(partition)
            except StoreUnavailable as error:
                log.debug("cannot hear of partition %s: %s", partition, error)
            await asyncio.sleep(PARTITIONS_INTERVAL)

    async def _listen_to(self, partition: str) -> None:
        async with self._announcements.hearing(partition) as heard:
            self._mark_partition(partition)  # whatever was announced before the subscription stood
            async for announcement in heard:
                if announcement.board is None:
                    self._mark_partition(partition)  # names moved; boards that show them say so, closed ones do not
                else:
                    self._mark(announcement.board, announcement.position)

    def _mark_partition(self, partition: str) -> None:
        for board in self._boards.positions():
            if board.leaderboard.partition == partition:
                self._boards.mark(board)

    def _mark(self, board_id: str, position: Position | None) -> None:
        board = self._directory.current.parse(board_id)
        if board is None:  # anybody may have said it; or it is one of long ago, which only its followers know
            board = next((board for board in self._boards.positions() if board.id == board_id), None)
        if board is not None:
            self._boards.mark(board, position)

    async def poll(self) -> None:
        """Compares versions every 2 s: a lost announcement costs that, not truth."""
        while True:
            await asyncio.sleep(POLL_INTERVAL)
            await self.compare()

    async def compare(self) -> None:
        """Marks every followed board of which the store has another version than was last shown."""
        live = [board for board in self._boards.positions() if not self._boards.is_closed(board)]
        by_partition: dict[str, list[Board]] = {"": []}
        for board in live:
            by_partition.setdefault(board.leaderboard.partition, []).append(board)
        moved: set[str] = set()
        looks = [self._versions(partition, boards) for partition, boards in by_partition.items()]
        found = dict(zip(by_partition, await asyncio.gather(*looks), strict=True))
        for partition, versions in found.items():
            if versions is None:
                continue  # its boards stand still: they are read when it is back
            if versions.users != self._users_versions.get(partition, -1):
                moved.add(partition)
            self._users_versions[partition] = versions.users
            shown = self._boards.positions()
            for board, version in versions.boards.items():
                if partition in moved or shown.get(board) != Position(versions.epoch, version):
                    self._boards.mark(board)
        self._look_at_closed(moved)
        for partition in self._boards.still:
            if found.get(partition) is not None:
                self._boards.mark_all(partition)
            elif partition not in found:
                self._boards.move(partition)
        if "" in self._boards.still and found[""] is not None:
            await self._boards.probe()

    async def _versions(self, partition: str, boards: Sequence[Board]) -> Versions | None:
        try:
            return await self._store.versions(boards, partition=partition)
        except StoreUnavailable as error:
            self._boards.stand_still(str(error), partition)
            return None

    def _look_at_closed(self, moved: Collection[str]) -> None:
        """Marks closed boards, which have no version in the store to compare: names moved, or it is their turn."""
        closed = [board for board in self._boards.positions() if self._boards.is_closed(board)]
        turn = self._closed_turn if self._closed_turn < len(closed) else 0
        self._closed_turn = turn + CLOSED_A_POLL
        for board in closed[turn : self._closed_turn]:
            self._boards.mark(board)
        for board in closed if moved else ():
            if board.leaderboard.partition in moved:
                self._boards.mark(board)


class _Moved(Exception):
    """There are other partitions than before."""
