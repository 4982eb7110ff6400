"""Resync: tells the store what the ledger has of some users now.

Owns the one way by which anything but a fresh batch reaches the store: outbox rows, renames, bans, deletions and
repairs. Must never tell what happened, only what is true now. Assumes that versions keep the store from taking an older
row for a newer one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Protocol

from realtime.boards.board import Board, told_boards
from realtime.boards.standings import Profile, Row
from realtime.ledger.ranked import RankedRows

if TYPE_CHECKING:
    from realtime.store.replies import Anew, ReadAfterWrite

USERS: Final = 500
"""Users told in one script call."""


class Ledger(Protocol):
    """What a resync needs of PostgreSQL."""

    def apart(self, sources: Collection[int]) -> Sequence[int]: ...
    async def fetch(self, name: str, *args: Any, source: int = ...) -> list[Any]: ...
    async def standings_of(self, user_ids: Collection[int], live: Sequence[Board]) -> dict[Board, list[Row]]: ...
    async def profiles_of(self, user_ids: Collection[int]) -> list[Profile]: ...


class Store(Protocol):
    """What a resync needs of the store."""

    @property
    def told(self) -> str | None: ...
    async def tell_each(
        self,
        rows: Mapping[Board, Sequence[Row]],
        profiles: Sequence[Profile] = (),
        *,
        anew: Anew | None,
        read_after_write: ReadAfterWrite | None,
    ) -> dict[str, str | None]: ...


class Resync:
    """Brings users in the store up to the ledger. `boards` says which boards the store is told of at a moment."""

    def __init__(
        self,
        ledger: Ledger,
        store: Store,
        now: Callable[[], datetime],
        *,
        boards: Callable[[datetime], Sequence[Board]] = told_boards,
        read_after_write: ReadAfterWrite | None = None,
    ) -> None:
        self._rows = RankedRows(ledger)
        self._store = store
        self._now = now
        self._boards = boards
        self._read_after_write = read_after_write

    async def users(self, user_ids: Collection[int]) -> str | None:
        """Brings these users' rows on every live board, and their profiles, up to the ledger.

        Returns the epoch of the published content that has all of it. Raises StoreUnavailable, LedgerUnavailable. Safe
        to repeat.
        """
        told = await self.each(user_ids)
        return told.get("", self._store.told)

    async def each(self, user_ids: Collection[int], partition: str | None = None) -> dict[str, str | None]:
        """The same; with `partition` on the boards of that one alone. Returns, by partition, the epoch of the content
        that has all of it."""
        ordered = sorted(set(user_ids))
        told: dict[str, str | None] = {}
        for start in range(0, len(ordered), USERS):
            at = await self._part(ordered[start : start + USERS], partition)
            told = at | told  # the first: where content was made anew in between, rows stay and are told again
        return told

    async def _part(self, user_ids: Sequence[int], partition: str | None) -> dict[str, str | None]:
        async def read() -> tuple[Mapping[Board, Sequence[Row]], Sequence[Profile]]:
            boards = self._boards(self._now())
            if partition is not None:
                boards = [board for board in boards if board.leaderboard.partition == partition]
            return await self._rows.standings_of(user_ids, boards), await self._rows.profiles_of(user_ids)

        rows, profiles = await read()
        return await self._store.tell_each(rows, profiles, anew=read, read_after_write=self._read_after_write)
