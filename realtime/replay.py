"""Replay: tells the store what the ledger has of some users now.

Owns the one way by which anything but a fresh batch reaches the store: sweeper, renames, bans, deletions, imports,
repairs. Must never tell what happened, only what is true now; the versions read with it keep it from undoing anything.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Final, Protocol

from realtime import boards
from realtime.boards import Board
from realtime.errors import EpochMoved
from realtime.standings import Profile, Row

USERS: Final = 500
"""Users told in one script call."""


class Ledger(Protocol):
    """What a replay needs of PostgreSQL."""

    async def standings_of(self, user_ids: Collection[int], live: Sequence[Board]) -> dict[Board, list[Row]]: ...
    async def profiles_of(self, user_ids: Collection[int]) -> list[Profile]: ...


class Store(Protocol):
    """What a replay needs of the store."""

    async def adopt(self) -> object: ...
    async def apply(self, rows: Mapping[Board, Sequence[Row]], profiles: Sequence[Profile] = ()) -> int: ...


class Replay:
    """See the module."""

    def __init__(self, ledger: Ledger, store: Store, now: Callable[[], datetime]) -> None:
        self._ledger = ledger
        self._store = store
        self._now = now

    async def users(self, user_ids: Collection[int]) -> None:
        """Brings every live board and the profiles of these users up to the ledger.

        Raises StoreUnavailable, LedgerUnavailable. Safe to repeat.
        """
        ordered = sorted(set(user_ids))
        for start in range(0, len(ordered), USERS):
            await self._part(ordered[start : start + USERS])

    async def _part(self, user_ids: Sequence[int]) -> None:
        live = boards.told_boards(self._now())
        rows = await self._ledger.standings_of(user_ids, live)
        profiles = await self._ledger.profiles_of(user_ids)
        try:
            await self._store.apply(rows, profiles)
        except EpochMoved:
            await self._store.adopt()
            await self._store.apply(rows, profiles)
