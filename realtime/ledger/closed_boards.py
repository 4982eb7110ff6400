"""Closed boards: boards of any leaderboard whose window is over, as they are read.

Owns how such a board is put in order in SQL, and its cached top. Must never make anything for a board: what it shows is
what `scores` has, by a sort (28 ms for 200,000 players). Assumes that whatever changes the rows of a window that has
ended moves its version in the same transaction, and that renames, bans and deletions move one counter of the
deployment, which is a part of every version. The published weeks have views of their own, see `archive`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

import orjson

from realtime.boards.board import CLOSED_EPOCH, TOP, Board, board_in
from realtime.boards.catalogue import PUBLISHED_KINDS
from realtime.boards.leaderboard import DEFAULT, Leaderboard
from realtime.boards.standings import At, Order, Position, Snapshot, Standing, standing
from realtime.boards.windows import CLOSE_GRACE, Window
from realtime.errors import LedgerUnavailable, StoreUnavailable
from realtime.validation import ID_MAX

READERS: Final = 3
"""Statements on closed boards that one process has under way at a time: whoever else needs PostgreSQL has the rest."""


class Ledger(Protocol):
    """What closed boards need of PostgreSQL."""

    def connection(self) -> AbstractAsyncContextManager[Any]: ...
    def query(self, name: str, source: int = ...) -> str: ...
    async def fetch(self, name: str, *args: Any, source: int = ...) -> list[Any]: ...


class Reads(Protocol):
    """Who is asked what may be a little old."""

    async def read(self, query: str, *args: Any, fits: Callable[[Sequence[Any]], bool] = ...) -> Sequence[Any]: ...


class Cache(Protocol):
    """What closed boards need of the store."""

    async def cached_week(self, board: Board) -> tuple[bytes | None, Position]: ...
    async def cache_week(self, board: Board, version: int, names_at: Position, value: bytes) -> None: ...
    async def announce(self, board: Board, version: int) -> None: ...


class Line(NamedTuple):
    """A row of a closed board, in its order."""

    user_id: int
    username: str
    score: int
    at: At | None
    """See `Snapshot.at`; None where ties are by id."""
    metadata: str | None


@dataclass(frozen=True, slots=True)
class ClosedPage:
    """A stretch of a closed board."""

    version: int
    players: int
    above: int
    """Players who are better than the first row."""
    scores_above: int
    """Scores that are better than the first row's; 0 beyond the top."""
    lines: Sequence[Line]


@dataclass(frozen=True, slots=True)
class ClosedUser:
    """A user's row of a closed board with those around; no lines where the user is not on it."""

    page: ClosedPage
    place: int
    """The place of the first line, from 0."""
    next_score: int | None


class Listed(NamedTuple):
    """A closed board in the list of boards."""

    board: Board
    players: int


class ClosedBoards:
    """Reads closed boards of all leaderboards but the published weeks. Raises LedgerUnavailable."""

    def __init__(self, ledger: Ledger, cache: Cache, reads: Reads | None = None) -> None:
        self._ledger = ledger
        self._reads = reads
        self._cache = cache
        self._reading = asyncio.Semaphore(READERS)
        self._newest: dict[tuple[int, int], int] = {}  # by leaderboard and window, the newest version given out

    async def snapshot(self, board: Board) -> tuple[Snapshot, int]:
        """The top of a closed board and its number of players. PostgreSQL says whether the cache is good."""
        board = await self._there(board)
        if board.window.key < 0:
            return _snapshot(board, 0, []), 0
        try:
            value, names_at = await self._cache.cached_week(board)
        except StoreUnavailable:
            page = await self.page(board, 0, TOP)
            return _snapshot(board, page.version, page.lines), page.players
        version = (await self.versions([board])).get(board, 0)
        if value is not None and (good := _decoded(board, value, names_at, version)) is not None:
            return good
        page = await self.page(board, 0, TOP)
        snapshot = _snapshot(board, page.version, page.lines)
        try:
            await self._cache.cache_week(board, page.version, names_at, _encoded(board, page, names_at))
        except StoreUnavailable:
            pass  # read again next time
        return snapshot, page.players

    async def page(self, board: Board, offset: int, limit: int) -> ClosedPage:
        """A stretch of a closed board."""
        board = await self._there(board)
        if board.window.key < 0:
            return ClosedPage(0, 0, 0, 0, [])
        rows = await self._rows("closed_page", board, offset, limit)
        if not rows:
            return ClosedPage(0, 0, 0, 0, [])
        lines = [_line(row, board.leaderboard.order) for row in rows if row["user_id"] is not None]
        return ClosedPage(rows[0]["version"], rows[0]["players"], rows[0]["above"], rows[0]["scores_above"], lines)

    async def around(self, board: Board, user_id: int, neighbours: int) -> ClosedUser | None:
        """A user's row with neighbours; None where the user is not on that board."""
        board = await self._there(board)
        rows = await self._rows("closed_standings", board, [user_id]) if board.window.key >= 0 else []
        if not rows or rows[0]["place"] is None:
            return None
        first = max(0, rows[0]["place"] - 1 - neighbours)
        page = await self.page(board, first, rows[0]["place"] + neighbours - first)
        return ClosedUser(page, first, rows[0]["next_score"])

    async def versions(self, of: Sequence[Board]) -> dict[Board, int]:
        """The versions of closed boards, all in one statement."""
        by_name = {(board.leaderboard.id, board.window.name): board for board in of}
        rows = await self._ledger.fetch("closed_versions", *map(list, zip(*by_name, strict=True))) if by_name else []
        versions = {by_name[leaderboard, name]: version for leaderboard, name, version in rows}
        for board, version in versions.items():
            self._know(board, version)
        return versions

    def _know(self, board: Board, version: int) -> None:
        key = board.leaderboard.id, board.window.key
        self._newest[key] = max(version, self._newest.get(key, 0))

    async def amend(self, boards: Sequence[Board]) -> None:
        """Scores of closed boards changed: whoever follows them hears of it.

        Raises StoreUnavailable too: then they hear when it is their board's turn to be looked at.
        """
        for board, version in (await self.versions(boards)).items():
            await self._cache.announce(board, version)

    async def standings(self, board: Board, user_ids: Sequence[int]) -> tuple[int, list[Standing]]:
        """Where users stand on a closed board, in the order asked, and its version."""
        board = await self._there(board)
        rows = await self._rows("closed_standings", board, list(user_ids)) if board.window.key >= 0 else []
        if not rows:
            return 0, [standing(None, None, None, 0) for _ in user_ids]
        style = board.leaderboard.order.ranks
        return rows[0]["version"], [_standing(row, style) for row in rows]

    async def listed(self, leaderboard: Leaderboard, offset: int, limit: int) -> tuple[list[Listed], int]:
        """Boards of a leaderboard whose windows are over, newest first, and how many there are."""
        published = PUBLISHED_KINDS if leaderboard.id == DEFAULT.id else ("all_time",)
        kinds = [kind for kind in leaderboard.definition.windows if kind not in published]
        if leaderboard.rule is None or not kinds:
            return [], 0
        args = leaderboard.id, kinds, CLOSE_GRACE, offset, limit, leaderboard.source, leaderboard.rule
        async with self._reading:  # each board's players are counted
            rows = await self._ledger.fetch("closed_listed", *args, source=leaderboard.source)
            if not rows and offset:
                again = *args[:3], 0, 1, *args[5:]
                (first,) = await self._ledger.fetch("closed_listed", *again, source=leaderboard.source) or [None]
                return [], first["total"] if first else 0
        listed = [
            Listed(
                board_in(leaderboard, Window(row["kind"], row["name"], row["starts"], row["ends"], row["id"])),
                row["players"],
            )
            for row in rows
        ]
        return listed, rows[0]["total"] if rows else 0

    async def _there(self, board: Board) -> Board:
        """The board as it is now: in a window where nobody was somebody may be, and nobody tells of the past."""
        if board.window.key >= 0:
            return board
        rows = await self._ledger.fetch("window_named", board.leaderboard.id, board.window.name)
        return board_in(board.leaderboard, Window(*rows[0])) if rows else board

    async def _rows(self, name: str, board: Board, *args: Any) -> list[Any]:
        """What a query finds; a standby may say so, whose answer is not older than what was given out already."""
        leaderboard = board.leaderboard
        query = self._ledger.query(name, leaderboard.source).format(**_ordered(leaderboard.order))
        given = leaderboard.source, leaderboard.rule, board.window.key, leaderboard.id, *args
        async with self._reading:
            if self._reads is None:
                async with self._ledger.connection() as connection:
                    rows: Sequence[Any] = await connection.fetch(query, *given)
            else:
                least = self._newest.get((leaderboard.id, board.window.key), 0)
                rows = await self._reads.read(query, *given, fits=lambda rows: _is_of(rows, least))
        if rows and rows[0]["version"] is None:  # what is read now would be kept as what is shown by then
            raise LedgerUnavailable(f"{leaderboard.slug} is shown by another rule, which is being noticed")
        if rows:
            self._know(board, rows[0]["version"])
        return list(rows)


def _is_of(rows: Sequence[Any], least: int) -> bool:
    """Whether rows were read of a version that is not before `least`."""
    return bool(rows) and rows[0]["version"] is not None and rows[0]["version"] >= least


def _ordered(order: Order) -> dict[str, str]:
    """The pieces of SQL that put the better first; the order is the store's (see `Order`)."""
    best, better = ("ASC", "<") if order.ascending else ("DESC", ">")
    ties = {"first": "s.at, s.at_id", "last": "s.at DESC, s.at_id DESC"}
    tie = ties.get(order.ties, f's.user_id::text COLLATE "C" {best}')
    return {"best": best, "better": better, "order": f"s.score {best}, {tie}"}


def _line(row: Any, order: Order) -> Line:
    at = order.stands((row["at"], row["at_id"])) if order.by_time else None
    return Line(row["user_id"], row["username"], row["score"], at, row["metadata"])


def _standing(row: Any, style: str) -> Standing:
    if row["score"] is None:
        return standing(None, None, None, row["players"])
    rank: int = row["rank"]
    if style == "ordinal":
        rank = row["place"]
    elif style == "dense" and row["place"] <= TOP:
        rank = row["dense"]
    return standing(row["score"], rank - 1, row["next_score"], row["players"])


def _snapshot(board: Board, version: int, lines: Sequence[Line]) -> Snapshot:
    leaderboard = board.leaderboard
    return Snapshot(
        board.id,
        CLOSED_EPOCH,
        version,
        {line.user_id: line.score for line in lines},
        {line.user_id: line.username for line in lines},
        leaderboard.order,
        {line.user_id: line.at for line in lines if line.at is not None},
        {line.user_id: line.metadata for line in lines} if leaderboard.definition.metadata else None,
    )


def _encoded(board: Board, page: ClosedPage, names_at: Position) -> bytes:
    """JSON in the shape of a closed week's, with what such a board shows besides."""
    return orjson.dumps(
        {
            "version": page.version,
            "users_version": names_at.version,
            "epoch": names_at.epoch,
            "rule": board.leaderboard.rule,
            "players": page.players,
            "entries": [line._asdict() for line in page.lines],
        }
    )


def _decoded(board: Board, value: bytes, names_at: Position, version: int) -> tuple[Snapshot, int] | None:
    """The cached top; None where it is of another version, its names of another moment, or it is no such JSON."""
    try:
        cached = orjson.loads(value)
        if (cached["epoch"], cached["users_version"]) != names_at:
            return None
        if (cached["version"], cached["rule"]) != (version, board.leaderboard.rule):
            return None
        lines = [
            Line(
                int(entry["user_id"]),
                str(entry["username"]),
                int(entry["score"]),
                (int(entry["at"][0]), int(entry["at"][1])) if board.leaderboard.order.by_time else None,
                None if entry["metadata"] is None else str(entry["metadata"]),
            )
            for entry in cached["entries"]
        ]
        players = int(cached["players"])
    except (ValueError, TypeError, KeyError, IndexError):
        return None
    if not 0 <= players <= ID_MAX or not all(1 <= line.user_id <= ID_MAX for line in lines):
        return None
    return _snapshot(board, version, lines), players
