"""Changes: how this process hears that a board changed.

Owns the one subscription to the store's announcements and the comparison of versions that makes up for what it misses.
Must never read a board's content. Assumes that whatever changes a board moves its version.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

from realtime.boards.board import Board
from realtime.boards.catalogue import Directory
from realtime.boards.standings import Position
from realtime.errors import StoreUnavailable
from realtime.store.announcements import Announcement
from realtime.store.replies import Versions

POLL_INTERVAL: Final = 2.0
"""Seconds between two comparisons of versions: what a lost announcement costs."""

CLOSED_A_POLL: Final = 25
"""Closed weeks looked at in each poll: one that is lost among more costs some polls."""


class Announcements(Protocol):
    """Where changes are heard of."""

    def hearing(self) -> AbstractAsyncContextManager[AsyncIterator[Announcement]]: ...


class Store(Protocol):
    """What comparing versions needs of the store."""

    async def versions(self, of: Sequence[Board]) -> Versions: ...


class Followed(Protocol):
    """The boards that somebody in this process follows."""

    @property
    def live(self) -> bool: ...
    def positions(self) -> Mapping[Board, Position | None]: ...
    def is_closed(self, board: Board) -> bool: ...
    def mark(self, board: Board, position: Position | None = None) -> None: ...
    def mark_all(self) -> None: ...
    def stand_still(self, why: str) -> None: ...
    async def probe(self) -> None: ...


class Changes:
    """Marks followed boards that changed. `listen` and `poll` must be running."""

    def __init__(self, announcements: Announcements, store: Store, boards: Followed, directory: Directory) -> None:
        self._announcements = announcements
        self._store = store
        self._boards = boards
        self._directory = directory
        self._users_version = -1
        self._closed_turn = 0  # the next of the followed closed weeks to look at unasked

    async def listen(self) -> None:
        """Hears announcements until the connection breaks, and raises then: its supervisor starts it again."""
        async with self._announcements.hearing() as heard:
            self._boards.mark_all()  # whatever was announced before the subscription stood
            async for announcement in heard:
                if announcement.board is None:
                    self._boards.mark_all()  # names moved; boards that show them announce themselves, closed weeks not
                else:
                    self._mark(announcement.board, announcement.position)

    def _mark(self, board_id: str, position: Position | None) -> None:
        board = self._directory.current.parse(board_id)
        if board is not None:  # anybody may have said it
            self._boards.mark(board, position)

    async def poll(self) -> None:
        """Compares versions every 2 s: a lost announcement costs that, not truth."""
        while True:
            await asyncio.sleep(POLL_INTERVAL)
            await self.compare()

    async def compare(self) -> None:
        """Marks every followed board of which the store has another version than was last shown."""
        shown = self._boards.positions()
        live = [board for board in shown if not self._boards.is_closed(board)]
        try:
            versions = await self._store.versions(live)
        except StoreUnavailable as error:
            self._boards.stand_still(str(error))
            return
        moved = versions.users != self._users_version
        self._users_version = versions.users
        shown = self._boards.positions()
        for board, version in versions.boards.items():
            if moved or shown.get(board) != Position(versions.epoch, version):
                self._boards.mark(board)
        self._look_at_closed(all_of_them=moved)
        if not self._boards.live:
            self._boards.mark_all()
            await self._boards.probe()

    def _look_at_closed(self, *, all_of_them: bool) -> None:
        """Marks closed weeks, which have no version in the store to compare: names moved, or it is their turn."""
        closed = [board for board in self._boards.positions() if self._boards.is_closed(board)]
        turn = self._closed_turn if self._closed_turn < len(closed) else 0
        self._closed_turn = turn + CLOSED_A_POLL
        for board in closed if all_of_them else closed[turn : self._closed_turn]:
            self._boards.mark(board)
