"""Snapshots of live boards, read from the store.

Owns the names that this process knows, by partition, and the newest version that it has seen of each board. Must never
give out a snapshot whose parts were not all true at one moment, one from content that is not complete, or one of an
older version than it has seen: content that goes back within an epoch cannot be ours. Assumes that a name changes only
together with `version:users`.

A look is one MULTI of the epoch, versions, tops, and the names that the snapshot seems to need. Where the top shows
somebody else, or names moved, the reader looks again and asks for those names too, until one look holds everything.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from realtime.boards.board import Board
from realtime.boards.standings import Position, Snapshot
from realtime.errors import DefinitionMoved, ForeignContent, StoreChanged, StoreUnavailable

if TYPE_CHECKING:
    from realtime.boards.standings import Standing
    from realtime.store.fitness import Content
    from realtime.store.replies import Around, Look, Page

Rows = TypeVar("Rows", "Page", "Around")

ATTEMPTS: Final = 8
NAMES_KEPT: Final = 200_000
"""More than 1,000 boards show, at some 200 bytes each: fewer than are shown would be read again and again."""

BOARDS_A_READING: Final = 50


class Link(Protocol):
    """What reading snapshots needs to know of a partition's content."""

    @property
    def epoch(self) -> str | None: ...
    @property
    def is_complete(self) -> bool: ...
    async def adopt(self) -> Content: ...
    def distrust(self) -> None: ...


class Store(Protocol):
    """What reading snapshots needs of the store."""

    def link_of(self, name: str) -> Link: ...
    async def read(
        self, wanted: Sequence[Board], names_of: Collection[int] = (), *, partition: str | None = None
    ) -> Look: ...
    async def page(self, board: Board, offset: int, limit: int) -> Page: ...
    async def around(self, board: Board, user_id: int, neighbours: int) -> Around: ...
    async def standings(
        self, wanted: Mapping[Board, Sequence[int]]
    ) -> tuple[str | None, dict[Board, list[Standing]]]: ...


_NEVER: Final = Position(None, -1)


@dataclass(frozen=True, slots=True)
class Expected:
    """A look that is about to be taken, at boards of one partition."""

    wanted: Sequence[Board]
    names_of: Collection[int]
    """The users whose names the look reads too."""
    seen: Mapping[Board, Position]
    """The positions that the look must not fall behind, noted before it: looks may overtake each other."""


class _Names:
    """The names that this process knows of one partition, and the position at which every one of them was true."""

    def __init__(self) -> None:
        self.known: dict[int, str] = {}
        self.at = Position(None, -1)

    def take(self, look: Look) -> None:
        at = Position(look.epoch, look.users_version)
        if at != self.at or len(self.known) > NAMES_KEPT:
            self.known, self.at = {}, at
        self.known |= look.names

    def of(self, user_ids: Collection[int]) -> dict[int, str]:
        try:
            return dict(zip(user_ids, map(self.known.__getitem__, user_ids), strict=True))
        except KeyError:
            # A player whose Hash somebody deleted keeps the place; the drift check restores the name.
            return {user_id: self.known.get(user_id) or f"#{user_id}" for user_id in user_ids}


class SnapshotReader:
    """Reads snapshots of live boards, pages beyond the top, and users' standings."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._names: dict[str, _Names] = {}  # by partition
        self._newest: dict[Board, Position] = {}

    def _of(self, partition: str) -> _Names:
        found = self._names.get(partition)
        if found is None:
            found = self._names[partition] = _Names()
        return found

    async def read(self, wanted: Sequence[Board], shown: Iterable[int] = ()) -> dict[Board, Snapshot]:
        """Snapshots of `wanted`; `shown` are the ids of users who are likely to be in them.

        Raises StoreUnavailable, StoreChanged where a content is not (yet) complete, and DefinitionMoved where a board
        is made by another rule by now. Who wants boards of several partitions, and those whose content is well in any
        case, asks for each by itself.
        """
        result: dict[Board, Snapshot] = {}
        # With many boards nobody says on which board an id is shown, and every part would ask for all names. There a
        # part asks for the names that it turns out to need, in a second look.
        guess = list(shown) if len(wanted) <= BOARDS_A_READING else []
        for of_partition in by_partition(wanted).values():
            for start in range(0, len(of_partition), BOARDS_A_READING):
                part = of_partition[start : start + BOARDS_A_READING]
                result |= await self._read_part(part, guess)
        return result

    async def _read_part(self, wanted: Sequence[Board], shown: Iterable[int]) -> dict[Board, Snapshot]:
        link = self._store.link_of(wanted[0].leaderboard.partition)
        for _ in range(ATTEMPTS):
            expected = self.expect(wanted, shown)
            try:
                look = await self._store.read(wanted, expected.names_of)
            except DefinitionMoved as error:
                await self._look_again(link, error)
                continue
            await self._check_epoch(link, look.epoch)
            found = self.take(expected, look)
            if found is not None:
                return found
            shown = set().union(*(top.scores for top in look.tops))
        raise StoreUnavailable("names change faster than they can be read")

    def expect(self, wanted: Sequence[Board], shown: Iterable[int]) -> Expected:
        """The look to take for snapshots of `wanted`, of one partition, in which the users `shown` are likely to be."""
        seen = {board: self._newest.get(board, _NEVER) for board in wanted}
        known = self._of(wanted[0].leaderboard.partition).known
        return Expected(wanted, set(shown).difference(known), seen)

    def take(self, expected: Expected, look: Look) -> dict[Board, Snapshot] | None:
        """The snapshots that a look gives; None where it lacks names or is of content not adopted: then look again.

        Raises ForeignContent.
        """
        partition = expected.wanted[0].leaderboard.partition
        link = self._store.link_of(partition)
        if look.epoch != link.epoch or not link.is_complete:
            return None
        for (board, before), top in zip(expected.seen.items(), look.tops, strict=True):
            self._check_version(link, board, before, Position(look.epoch, top.version))
        names = self._of(partition)
        names.take(look)
        ids: set[int] = set().union(*(top.scores for top in look.tops))
        if ids.difference(names.known, expected.names_of):
            return None
        return _snapshots(expected.wanted, look, names)

    async def _look_again(self, link: Link, error: DefinitionMoved) -> None:
        """Adopts the content there is where a board lacks its rule because it is other content; raises where not."""
        if error.epoch == link.epoch:
            raise error
        await self._check_epoch(link, error.epoch)

    async def _check_epoch(self, link: Link, epoch: str | None) -> None:
        """Raises StoreChanged unless `epoch` is the adopted, complete content; adopts what is there where it is not."""
        if epoch != link.epoch:
            await link.adopt()
        if not link.is_complete:
            raise StoreChanged("the store's content is not complete")

    def _check_version(self, link: Link, board: Board, seen: Position, at: Position) -> None:
        """Distrusts the content and raises ForeignContent where the board went back behind the position `seen`."""
        if at.epoch == seen.epoch and at.version < seen.version:
            link.distrust()
            raise ForeignContent(f"{board.id} went back from version {seen.version} to {at.version}")
        newest = self._newest.get(board, _NEVER)
        if at.epoch != newest.epoch or at.version > newest.version:
            self._newest[board] = at

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
        partition = board.leaderboard.partition
        link, names = self._store.link_of(partition), self._of(partition)
        for _ in range(ATTEMPTS):
            seen = self._newest.get(board, _NEVER)
            try:
                rows: Rows = await read()
            except DefinitionMoved as error:
                await self._look_again(link, error)
                continue
            await self._check_epoch(link, rows.epoch)
            self._check_version(link, board, seen, Position(rows.epoch, rows.version))
            at = Position(rows.epoch, rows.users_version)
            unknown = [i for i in rows.scores if i not in names.known] if at == names.at else [*rows.scores]
            if unknown:
                names.take(await self._store.read([], unknown, partition=partition))
            if not unknown or at == names.at:
                known = names.known.get
                return rows, {i: known(i) or f"#{i}" for i in rows.scores}
        raise StoreUnavailable("names change faster than they can be read")

    async def standings(self, wanted: Mapping[Board, Sequence[int]]) -> dict[Board, list[Standing]]:
        """Where users stand on live boards, in the order of `wanted`. Raises StoreUnavailable, StoreChanged."""
        result: dict[Board, list[Standing]] = {}
        for partition, boards in by_partition(wanted).items():
            link = self._store.link_of(partition)
            try:
                epoch, found = await self._store.standings({board: wanted[board] for board in boards})
            except DefinitionMoved as error:
                await self._look_again(link, error)
                raise
            await self._check_epoch(link, epoch)
            result |= found
        return result if len(result) < 2 else {board: result[board] for board in wanted}


def by_partition(boards: Iterable[Board]) -> dict[str, list[Board]]:
    """Boards by their partition, in their order."""
    found: dict[str, list[Board]] = {}
    for board in boards:
        found.setdefault(board.leaderboard.partition, []).append(board)
    return found


def _snapshots(wanted: Sequence[Board], look: Look, names: _Names) -> dict[Board, Snapshot]:
    assert look.epoch is not None
    return {
        board: Snapshot(
            board.id,
            look.epoch,
            top.version,
            top.scores,
            names.of(top.scores),
            board.leaderboard.order,
            top.at,
            top.metadata,
        )
        for board, top in zip(wanted, look.tops, strict=True)
    }
