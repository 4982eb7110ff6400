"""Snapshots of live boards, read from the store.

Owns the names this process knows, and the newest version of each board it has seen. Must never give out a snapshot
whose parts were not all true at one moment, one from content that is not complete, or one of an older version than was
seen before: content that goes back within an epoch cannot be ours. Assumes that a name changes only with
`version:users`.

A reading is one MULTI of epoch, versions, tops, and the names we think we need. Where the top shows somebody else, or
names moved, it is read again with those asked for as well, until one reading holds everything.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from realtime.boards.board import Board
from realtime.boards.standings import Position, Snapshot
from realtime.errors import ForeignContent, StoreChanged, StoreUnavailable

if TYPE_CHECKING:
    from realtime.boards.standings import Standing
    from realtime.store.fitness import Content
    from realtime.store.replies import Around, Look, Page

Rows = TypeVar("Rows", "Page", "Around")

ATTEMPTS: Final = 8
NAMES_KEPT: Final = 200_000
"""More than 1,000 boards show, at some 200 bytes each: fewer than are shown would be read again and again."""

BOARDS_A_READING: Final = 50


class Store(Protocol):
    """What reading needs of the store."""

    @property
    def epoch(self) -> str | None: ...
    @property
    def is_complete(self) -> bool: ...
    async def adopt(self) -> Content: ...
    def distrust(self) -> None: ...
    async def read(self, wanted: Sequence[Board], names_of: Collection[int] = ()) -> Look: ...
    async def page(self, board: Board, offset: int, limit: int) -> Page: ...
    async def around(self, board: Board, user_id: int, neighbours: int) -> Around: ...
    async def standings(
        self, wanted: Mapping[Board, Sequence[int]]
    ) -> tuple[str | None, dict[Board, list[Standing]]]: ...


_NEVER: Final = Position(None, -1)


@dataclass(frozen=True, slots=True)
class Expected:
    """A reading that is about to be made."""

    wanted: Sequence[Board]
    names_of: Collection[int]
    """Whose names are to be read as well."""
    seen: Mapping[Board, Position]
    """What it must not fall behind. Readings may overtake each other: so it is noted before."""


class SnapshotReader:
    """Reads snapshots, and pages beyond the top."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._names: dict[int, str] = {}
        self._names_at = Position(None, -1)  # when every name in `_names` was true
        self._newest: dict[Board, Position] = {}

    async def read(self, wanted: Sequence[Board], shown: Iterable[int] = ()) -> dict[Board, Snapshot]:
        """Snapshots of `wanted`; `shown` are ids likely to be in them.

        Raises StoreUnavailable, StoreChanged where the content is not (yet) complete.
        """
        result: dict[Board, Snapshot] = {}
        # Where there are many boards nobody says whose ids these are, and every part would ask for all of them: there
        # a part asks for what it turns out to show, in a second reading.
        guess = list(shown) if len(wanted) <= BOARDS_A_READING else []
        for start in range(0, len(wanted), BOARDS_A_READING):
            part = wanted[start : start + BOARDS_A_READING]
            result |= await self._read_part(part, guess)
        return result

    async def _read_part(self, wanted: Sequence[Board], shown: Iterable[int]) -> dict[Board, Snapshot]:
        for _ in range(ATTEMPTS):
            expected = self.expect(wanted, shown)
            reading = await self._store.read(wanted, expected.names_of)
            await self._check_epoch(reading.epoch)
            found = self.take(expected, reading)
            if found is not None:
                return found
            shown = set().union(*(top.scores for top in reading.tops))
        raise StoreUnavailable("names change faster than they can be read")

    def expect(self, wanted: Sequence[Board], shown: Iterable[int]) -> Expected:
        """What to read for snapshots of `wanted`, of which `shown` are likely to be part."""
        seen = {board: self._newest.get(board, _NEVER) for board in wanted}
        return Expected(wanted, set(shown).difference(self._names), seen)

    def take(self, expected: Expected, reading: Look) -> dict[Board, Snapshot] | None:
        """The snapshots that were read; None where it lacks names, or is of content not adopted: then read again.

        Raises ForeignContent.
        """
        if reading.epoch != self._store.epoch or not self._store.is_complete:
            return None
        for (board, before), top in zip(expected.seen.items(), reading.tops, strict=True):
            self._check_version(board, before, Position(reading.epoch, top.version))
        self._take_names(reading)
        ids: set[int] = set().union(*(top.scores for top in reading.tops))
        if ids.difference(self._names, expected.names_of):
            return None
        return self._snapshots(expected.wanted, reading)

    async def _check_epoch(self, epoch: str | None) -> None:
        """Raises StoreChanged unless `epoch` is complete content that we adopted, now if need be."""
        if epoch != self._store.epoch:
            await self._store.adopt()
        if not self._store.is_complete:
            raise StoreChanged("the store's content is not complete")

    def _check_version(self, board: Board, seen: Position, at: Position) -> None:
        """Raises ForeignContent where the board went back since it was `seen`: then the content is distrusted."""
        if at.epoch == seen.epoch and at.version < seen.version:
            self._store.distrust()
            raise ForeignContent(f"{board.id} went back from version {seen.version} to {at.version}")
        newest = self._newest.get(board, _NEVER)
        if at.epoch != newest.epoch or at.version > newest.version:
            self._newest[board] = at

    def _take_names(self, reading: Look) -> None:
        at = Position(reading.epoch, reading.users_version)
        if at != self._names_at or len(self._names) > NAMES_KEPT:
            self._names, self._names_at = {}, at
        self._names |= reading.names

    def _snapshots(self, wanted: Sequence[Board], reading: Look) -> dict[Board, Snapshot]:
        assert reading.epoch is not None
        return {
            board: Snapshot(board.id, reading.epoch, top.version, top.scores, self._names_of(top.scores))
            for board, top in zip(wanted, reading.tops, strict=True)
        }

    def _names_of(self, user_ids: Collection[int]) -> dict[int, str]:
        try:
            return dict(zip(user_ids, map(self._names.__getitem__, user_ids), strict=True))
        except KeyError:
            # A player without a Hash (somebody deleted it) keeps a place, and the drift check restores the name.
            return {user_id: self._names.get(user_id) or f"#{user_id}" for user_id in user_ids}

    async def page(self, board: Board, offset: int, limit: int) -> tuple[Page, Mapping[int, str]]:
        """A stretch of a live board and the names in it, of one moment; one round trip where the names are known.

        Raises StoreUnavailable, StoreChanged.
        """
        return await self._with_names(board, lambda: self._store.page(board, offset, limit))

    async def around(self, board: Board, user_id: int, neighbours: int) -> tuple[Around, Mapping[int, str]]:
        """A user's row with those around it, and the names in it, likewise.

        Raises StoreUnavailable, StoreChanged.
        """
        return await self._with_names(board, lambda: self._store.around(board, user_id, neighbours))

    async def _with_names(self, board: Board, read: Callable[[], Awaitable[Rows]]) -> tuple[Rows, Mapping[int, str]]:
        for _ in range(ATTEMPTS):
            seen = self._newest.get(board, _NEVER)
            rows: Rows = await read()
            await self._check_epoch(rows.epoch)
            self._check_version(board, seen, Position(rows.epoch, rows.version))
            at = Position(rows.epoch, rows.users_version)
            unknown = [i for i in rows.scores if i not in self._names] if at == self._names_at else [*rows.scores]
            if unknown:
                self._take_names(await self._store.read([], unknown))
            if not unknown or at == self._names_at:
                known = self._names.get
                return rows, {i: known(i) or f"#{i}" for i in rows.scores}
        raise StoreUnavailable("names change faster than they can be read")

    async def standings(self, wanted: Mapping[Board, Sequence[int]]) -> dict[Board, list[Standing]]:
        """Where users stand on live boards, in the order asked. Raises StoreUnavailable, StoreChanged."""
        epoch, found = await self._store.standings(wanted)
        await self._check_epoch(epoch)
        return found
