"""Replay: tells the store what the ledger has of some users now.

Owns the one way by which anything but a fresh batch reaches the store: sweeper, renames, bans, deletions, imports,
repairs. Must never tell what happened, only what is true now; the versions read with it keep it from undoing anything.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Final, Protocol

from realtime.boards import board
from realtime.boards.board import Board
from realtime.boards.standings import Profile, Row
from realtime.errors import EpochMoved

USERS: Final = 500
"""Users told in one script call."""


class Ledger(Protocol):
    """What a replay needs of PostgreSQL."""

    async def standings_of(self, user_ids: Collection[int], live: Sequence[Board]) -> dict[Board, list[Row]]: ...
    async def profiles_of(self, user_ids: Collection[int]) -> list[Profile]: ...


class Store(Protocol):
    """What a replay needs of the store."""

    @property
    def told(self) -> str | None: ...
    async def adopt(self) -> object: ...
    async def apply(self, rows: Mapping[Board, Sequence[Row]], profiles: Sequence[Profile] = ()) -> int: ...


class Resync:
    """See the module."""

    def __init__(self, ledger: Ledger, store: Store, now: Callable[[], datetime]) -> None:
        self._ledger = ledger
        self._store = store
        self._now = now

    async def users(self, user_ids: Collection[int]) -> str | None:
        """Brings every live board and the profiles of these users up to the ledger.

        Returns the epoch of the content that has it all. Raises StoreUnavailable, LedgerUnavailable. Safe to repeat.
        """
        ordered = sorted(set(user_ids))
        told = None if ordered else self._store.told
        for start in range(0, len(ordered), USERS):
            at = await self._part(ordered[start : start + USERS])
            told = told or at  # the first: where content was made anew in between, the rows stay, and are told again
        return told

    async def _part(self, user_ids: Sequence[int]) -> str | None:
        live = board.told_boards(self._now())
        rows = await self._ledger.standings_of(user_ids, live)
        profiles = await self._ledger.profiles_of(user_ids)
        told = self._store.told
        try:
            await self._store.apply(rows, profiles)
        except EpochMoved:
            await self._store.adopt()
            told = self._store.told
            await self._store.apply(rows, profiles)
        return told
