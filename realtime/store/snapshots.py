"""Snapshots of live boards, read from the store.

Owns the names that this process knows, and the newest version that it has seen of each board. Must never give out a
snapshot whose parts were not all true at one moment, one from content that is not complete, or one of an older version
than it has seen: content that goes back within an epoch cannot be ours. Assumes that a name changes only together with
`version:users`.

A look is one MULTI of the epoch, versions, tops, and the names that the snapshot seems to need. Where the top shows
somebody else, or names moved, the reader looks again and asks for those names too, until one look holds everything.
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
    """What reading snapshots needs of the store."""

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
    """A look that is about to be taken."""

    wanted: Sequence[Board]
    names_of: Collection[int]
    """The users whose names the look reads too."""
    seen: Mapping[Board, Position]
    """The positions that the look must not fall behind, noted before it: looks may overtake each other."""


class SnapshotReader:
    """Reads snapshots of live boards, pages beyond the top, and users' standings."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._names: dict[int, str] = {}
        self._names_at = Position(None, -1)  # the position at which every name in `_names` was true
        self._newest: dict[Board, Position] = {}

    async def read(self, wanted: Sequence[Board], shown: Iterable[int] = ()) -> dict[Board, Snapshot]:
        """Snapshots of `wanted`; `shown` are the ids of users who are likely to be in them.

        Raises StoreUnavailable, and StoreChanged where the content is not (yet) complete.
        """
        result: dict[Board, Snapshot] = {}
        # With many boards nobody says on which board an id is shown, and every part would ask for all names. There a
        # part asks for the names that it turns out to need, in a second look.
        guess = list(shown) if len(wanted) <= BOARDS_A_READING else []
        for start in range(0, len(wanted), BOARDS_A_READING):
            part = wanted[start : start + BOARDS_A_READING]
            result |= await self._read_part(part, guess)
        return result

    async def _read_part(self, wanted: Sequence[Board], shown: Iterable[int]) -> dict[Board, Snapshot]:
        for _ in range(ATTEMPTS):
            expected = self.expect(wanted, shown)
            look = await self._store.read(wanted, expected.names_of)
            await self._check_epoch(look.epoch)
            found = self.take(expected, look)
            if found is not None:
                return found
            shown = set().union(*(top.scores for top in look.tops))
        raise StoreUnavailable("names change faster than they can be read")

    def expect(self, wanted: Sequence[Board], shown: Iterable[int]) -> Expected:
        """The look to take for snapshots of `wanted`, in which the users `shown` are likely to be."""
        seen = {board: self._newest.get(board, _NEVER) for board in wanted}
        return Expected(wanted, set(shown).difference(self._names), seen)

    def take(self, expected: Expected, look: Look) -> dict[Board, Snapshot] | None:
        """The snapshots that a look gives; None where it lacks names or is of content not adopted: then look again.

        Raises ForeignContent.
        """
        if look.epoch != self._store.epoch or not self._store.is_complete:
            return None
        for (board, before), top in zip(expected.seen.items(), look.tops, strict=True):
            self._check_version(board, before, Position(look.epoch, top.version))
        self._take_names(look)
        ids: set[int] = set().union(*(top.scores for top in look.tops))
        if ids.difference(self._names, expected.names_of):
            return None
        return self._snapshots(expected.wanted, look)

    async def _check_epoch(self, epoch: str | None) -> None:
        """Raises StoreChanged unless `epoch` is the adopted, complete content; adopts what is there where it is not."""
        if epoch != self._store.epoch:
            await self._store.adopt()
        if not self._store.is_complete:
            raise StoreChanged("the store's content is not complete")

    def _check_version(self, board: Board, seen: Position, at: Position) -> None:
        """Distrusts the content and raises ForeignContent where the board went back behind the position `seen`."""
        if at.epoch == seen.epoch and at.version < seen.version:
            self._store.distrust()
            raise ForeignContent(f"{board.id} went back from version {seen.version} to {at.version}")
        newest = self._newest.get(board, _NEVER)
        if at.epoch != newest.epoch or at.version > newest.version:
            self._newest[board] = at

    def _take_names(self, look: Look) -> None:
        at = Position(look.epoch, look.users_version)
        if at != self._names_at or len(self._names) > NAMES_KEPT:
            self._names, self._names_at = {}, at
        self._names |= look.names

    def _snapshots(self, wanted: Sequence[Board], look: Look) -> dict[Board, Snapshot]:
        assert look.epoch is not None
        return {
            board: Snapshot(board.id, look.epoch, top.version, top.scores, self._names_of(top.scores))
            for board, top in zip(wanted, look.tops, strict=True)
        }

    def _names_of(self, user_ids: Collection[int]) -> dict[int, str]:
        try:
            return dict(zip(user_ids, map(self._names.__getitem__, user_ids), strict=True))
        except KeyError:
            # A player whose Hash somebody deleted keeps the place; the drift check restores the name.
            return {user_id: self._names.get(user_id) or f"#{user_id}" for user_id in user_ids}

    async def page(self, board: Board, offset: int, limit: int) -> tuple[Page, Mapping[int, str]]:
        """A stretch of a live board and the names in it, of one moment. It takes one round trip where names are known.

        Raises StoreUnavailable, StoreChanged.
        """
        return await self._with_names(board, lambda: self._store.page(board, offset, limit))

    async def around(self, board: Board, user_id: int, neighbours: int) -> tuple[Around, Mapping[int, str]]:
        """A user's row with the rows around it and the names in them, of one moment, as `page` reads it.

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
        """Where users stand on live boards, in the order of `wanted`. Raises StoreUnavailable, StoreChanged."""
        epoch, found = await self._store.standings(wanted)
        await self._check_epoch(epoch)
        return found
