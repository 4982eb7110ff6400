"""Resync: tells the store what the ledger has of some users now.

Owns the one way by which anything but a fresh batch reaches the store: outbox rows, renames, bans, deletions and
repairs. Must never tell what happened, only what is true now. Assumes that versions keep the store from taking an older
row for a newer one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final, Protocol

from realtime.boards import board
from realtime.boards.board import Board
from realtime.boards.standings import Profile, Row

if TYPE_CHECKING:
    from realtime.store.replies import Anew, ReadAfterWrite

USERS: Final = 500
"""Users told in one script call."""


class Ledger(Protocol):
    """What a resync needs of PostgreSQL."""

    async def standings_of(self, user_ids: Collection[int], live: Sequence[Board]) -> dict[Board, list[Row]]: ...
    async def profiles_of(self, user_ids: Collection[int]) -> list[Profile]: ...


class Store(Protocol):
    """What a resync needs of the store."""

    @property
    def told(self) -> str | None: ...
    async def tell(
        self,
        rows: Mapping[Board, Sequence[Row]],
        profiles: Sequence[Profile] = (),
        *,
        anew: Anew | None,
        read_after_write: ReadAfterWrite | None,
    ) -> str | None: ...


class Resync:
    """Brings users in the store up to the ledger."""

    def __init__(
        self,
        ledger: Ledger,
        store: Store,
        now: Callable[[], datetime],
        *,
        read_after_write: ReadAfterWrite | None = None,
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._now = now
        self._read_after_write = read_after_write

    async def users(self, user_ids: Collection[int]) -> str | None:
        """Brings these users' rows on every live board, and their profiles, up to the ledger.

        Returns the epoch of the content that has all of it. Raises StoreUnavailable, LedgerUnavailable. Safe to repeat.
        """
        ordered = sorted(set(user_ids))
        told = None if ordered else self._store.told
        for start in range(0, len(ordered), USERS):
            at = await self._part(ordered[start : start + USERS])
            told = told or at  # the first: where content was made anew in between, rows stay and are told again
        return told

    async def _part(self, user_ids: Sequence[int]) -> str | None:
        async def read() -> tuple[Mapping[Board, Sequence[Row]], Sequence[Profile]]:
            rows = await self._ledger.standings_of(user_ids, board.told_boards(self._now()))
            return rows, await self._ledger.profiles_of(user_ids)

        rows, profiles = await read()
        return await self._store.tell(rows, profiles, anew=read, read_after_write=self._read_after_write)
