"""Archive: the boards of closed weeks, as they are read.

Owns which weeks were seen to have their view, who may have a week closed by reading it, and the cached top 100. Must
never touch PostgreSQL for a week whose cache is good, or make anything for a week in which nothing was recorded.
Assumes that `closing` makes the views, and that a worker keeps them right: it does what was left half done.

The view holds ids and scores; names, bans and deletions are joined when it is read, so that one rename does not refresh
a thousand views. What a closed board shows has a version in PostgreSQL that moves with each of those; the cache carries
it together with the `version:users` and the epoch its names are from, and is good while neither has moved. During a
rebuild names move without a sign: it is the new epoch that tells.

Our estimate of the clock decides whom to ask for a board, the archive or the store; where PostgreSQL says that the week
is not over, NotOver sends the reader back to the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple, Protocol

import orjson

from realtime.boards.board import CLOSED_EPOCH, TOP, Board, week_at, week_of
from realtime.boards.standings import Position, Snapshot, Standing, standing
from realtime.boards.windows import CLOSE_GRACE
from realtime.errors import LedgerUnavailable, NotOver, RealtimeError, StoreUnavailable
from realtime.ledger.closing import Closing, view_of
from realtime.validation import ID_MAX, TOTAL_MAX

ATTEMPTS: Final = 3
"""How often a week is opened for one reader."""

READERS: Final = 3
"""Statements on closed weeks that one process has under way at a time: whoever else needs PostgreSQL has the rest."""

OPENINGS: Final = 8
"""Weeks that readers of one process may be having closed at a time."""

OPENINGS_A_SECOND: Final = 4.0
"""Weeks that they may begin to have closed, beyond as many at once: whoever comes sooner waits for the turn, or is told
to come again."""

READER_PATIENCE: Final = 10.0
"""Seconds that a reader waits for a week to be closed; that goes on."""


class Ledger(Protocol):
    """What the archive needs of PostgreSQL."""

    def connection(self) -> AbstractAsyncContextManager[Any]: ...
    def query(self, name: str) -> str: ...
    async def fetch(self, name: str, *args: Any) -> list[Any]: ...


class Reads(Protocol):
    """Who is asked what may be a little old."""

    async def read(self, query: str, *args: Any, fits: Callable[[Sequence[Any]], bool] = ...) -> Sequence[Any]: ...


class Cache(Protocol):
    """What the archive needs of the store."""

    @property
    def told(self) -> str | None: ...
    async def cached_week(self, board: Board) -> tuple[bytes | None, Position]: ...
    async def cache_week(self, board: Board, version: int, names_at: Position, value: bytes) -> None: ...
    async def announce(self, board: Board, version: int) -> None: ...


class Line(NamedTuple):
    """A row of a closed week, with its competition rank among those who are shown."""

    rank: int
    user_id: int
    username: str
    score: int


@dataclass(frozen=True, slots=True)
class WeekPage:
    """A stretch of a closed week."""

    version: int
    players: int
    lines: Sequence[Line]
    next_score: int | None = None
    """For a user's page: the score to reach for the next rank."""


class ListedWeek(NamedTuple):
    """A closed week in the list of boards."""

    board: Board
    players: int


class Archive:
    """Reads closed weeks, and has those closed that nobody has closed yet."""

    def __init__(self, ledger: Ledger, cache: Cache, closing: Closing, reads: Reads | None = None) -> None:
        self._ledger = ledger
        self._reads = reads
        self._cache = cache
        self._closing = closing
        self._reading = asyncio.Semaphore(READERS)
        self._opened: set[Board] = set()  # weeks whose views were seen to answer
        self._openings: dict[Board, asyncio.Task[None]] = {}  # weeks being closed, for all who wait
        self._paced = 0.0  # the loop's time at which openings so far are made up for
        self._newest: dict[Board, int] = {}  # the newest version given out: an older cache is no answer any more

    # Reading -------------------------------------------------------------------------------------------------

    async def snapshot(self, board: Board) -> tuple[Snapshot, int]:
        """The top of a closed week and its number of players; one round trip to the store where the cache is good.

        Raises RealtimeError `unknown_board`, NotOver, LedgerUnavailable.
        """
        try:
            value, names_at = await self._cache.cached_week(board)
        except StoreUnavailable:
            return await self._read_top(board, None)
        if value is not None and (good := _decode(board, value, names_at)) is not None:
            version = good[0].version
            if version >= self._newest.get(board, 0):
                self._newest[board] = version
                return good
        try:
            return await self._read_top(board, names_at)
        except StoreUnavailable:
            return await self._read_top(board, None)

    async def _read_top(self, board: Board, names_at: Position | None) -> tuple[Snapshot, int]:
        """The top from the view; cached under `names_at`, which was read before it. What everybody is to see for long
        is the primary's: a standby may have heard of those names only later."""
        page = _page(await self._rows("week_page", board, 0, TOP, latest=names_at is not None))
        snapshot = Snapshot(
            board.id,
            CLOSED_EPOCH,
            page.version,
            {line.user_id: line.score for line in page.lines},
            {line.user_id: line.username for line in page.lines},
        )
        if names_at is not None and page.version:
            encoded = _encode(snapshot, page.players, names_at)
            await self._cache.cache_week(board, page.version, names_at, encoded)
        return snapshot, page.players

    async def page(self, board: Board, offset: int, limit: int) -> WeekPage:
        """A stretch of a closed week from the view.

        Raises RealtimeError `unknown_board`, NotOver, LedgerUnavailable.
        """
        return _page(await self._rows("week_page", board, offset, limit))

    async def around(self, board: Board, user_id: int, neighbours: int) -> WeekPage:
        """A user's row with neighbours; no lines where the user is not on that board."""
        return _page(await self._rows("week_user", board, user_id, neighbours))

    async def versions(self, of: Sequence[Board]) -> dict[Board, int]:
        """The versions of those closed weeks that have their view, all in one statement. Raises LedgerUnavailable."""
        rows = await self._ledger.fetch("weeks_versions", [board.week for board in of]) if of else []
        versions = {week_of(week): version for week, version in rows}
        for board, version in versions.items():
            self._know(board, version)
        return versions

    def _know(self, board: Board, version: int) -> None:
        self._newest[board] = max(version, self._newest.get(board, 0))

    async def standings(self, board: Board, user_ids: Sequence[int]) -> tuple[int, list[Standing]]:
        """Where users stand on a closed week, in the order asked, and its version.

        Raises RealtimeError `unknown_board`, NotOver, LedgerUnavailable.
        """
        rows = await self._rows("week_standings", board, list(user_ids))
        if not rows:
            return 0, [standing(None, None, None, 0) for _ in user_ids]
        version, players = rows[0]["version"], rows[0]["players"]
        return version, [standing(row["score"], row["above"], row["next_score"], players) for row in rows]

    async def _rows(self, name: str, board: Board, *args: Any, latest: bool = False) -> list[Any]:
        """What a query finds in a week's view; nothing where nothing was ever recorded in that week. Unless it must be
        the `latest`, a standby may say so, whose answer is not older than what was given out already."""
        for _ in range(ATTEMPTS):
            if not await self.open(board):
                return []
            try:
                query = self._ledger.query(name).format(view=view_of(board))
                async with self._reading:
                    if rows := await self._asked(board, query, *args, latest=latest):
                        self._know(board, rows[0]["version"])
                        return list(rows)
            except LedgerUnavailable:
                self._opened.discard(board)  # somebody may have dropped the view: whoever asks next looks
                raise
            self._opened.discard(board)  # withdrawn
        raise LedgerUnavailable(f"{board.id} is withdrawn again and again")

    async def _asked(self, board: Board, query: str, *args: Any, latest: bool) -> Sequence[Any]:
        if self._reads is None or latest:
            async with self._ledger.connection() as connection:
                return list(await connection.fetch(query, board.week, *args))
        least = self._newest.get(board, 0)
        is_new = lambda rows: bool(rows) and rows[0]["version"] >= least  # noqa: E731
        return await self._reads.read(query, board.week, *args, fits=is_new)

    async def listed(self, now: datetime, offset: int, limit: int) -> tuple[list[ListedWeek], int]:
        """Closed weeks with scores, newest first, and how many there are."""
        first_open = week_at(now - CLOSE_GRACE).week
        rows = await self._ledger.fetch("weeks_listed", first_open, offset, limit)
        weeks = [ListedWeek(week_of(row["week"]), row["players"]) for row in rows]
        if rows or not offset:
            return weeks, rows[0]["total"] if rows else 0
        everything = await self._ledger.fetch("weeks_listed", first_open, 0, 1)
        return [], everything[0]["total"] if everything else 0

    # Opening ---------------------------------------------------------------------------------------------------

    async def open(self, board: Board) -> bool:
        """Whether there is a view to read: it is made where there is none, once for all who wait, and not at all for a
        week in which nothing was recorded.

        Raises RealtimeError `unknown_board` before the first score, NotOver, LedgerUnavailable.
        """
        if board in self._opened:
            return True
        if board not in self._openings:
            async with self._reading:
                state = await self._closing.state(board)
            if state.answers:
                self._opened.add(board)
                return True
            if state.is_too_old:
                raise RealtimeError("unknown_board", "There are no scores that old.")
            if not state.is_over:
                raise NotOver(board.id)
            if not state.has_scores:
                return False
        await self._opening(board)
        return True

    async def _opening(self, board: Board) -> None:
        """Waits until a week is closed: by one task, which goes on when nobody waits any more."""
        task = self._openings.get(board)
        if task is None:
            if len(self._openings) >= OPENINGS:
                raise LedgerUnavailable("other weeks are being closed")
            task = self._openings[board] = asyncio.create_task(self._close(board))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())  # it may be that nobody waits
        try:
            async with asyncio.timeout(READER_PATIENCE):
                await asyncio.shield(task)
        except TimeoutError:
            raise LedgerUnavailable(f"{board.id} is still being made") from None

    def _pause(self, now: float) -> float:
        """Seconds until readers may have one more week closed; it is counted now."""
        self._paced = max(self._paced, now) + 1 / OPENINGS_A_SECOND
        return max(0.0, self._paced - OPENINGS / OPENINGS_A_SECOND - now)

    async def _close(self, board: Board) -> None:
        try:
            await asyncio.sleep(self._pause(asyncio.get_running_loop().time()))
            await self._closing.close(board)
            self._opened.add(board)
        finally:
            del self._openings[board]

    @property
    def told(self) -> str | None:
        """The epoch of the store's content that hears of closed weeks now."""
        return self._cache.told

    # The cache -------------------------------------------------------------------------------------------------

    async def refresh(self, board: Board) -> None:
        """Reads a closed week's top anew and announces it. Raises StoreUnavailable, LedgerUnavailable."""
        _, names_at = await self._cache.cached_week(board)
        snapshot, _ = await self._read_top(board, names_at)
        await self._cache.announce(board, snapshot.version)

    async def outdate(self, board: Board, version: int) -> None:
        """Caches nothing any more of a week whose `version` is withdrawn: what readers cached is of a version before.

        Raises StoreUnavailable.
        """
        _, names_at = await self._cache.cached_week(board)
        await self._cache.cache_week(board, version + 1, names_at, orjson.dumps({"version": version + 1}))

    async def differing(self, board: Board) -> int | None:
        """Users of whom the cache does not say what the view says; None where changes are on their way.

        Raises LedgerUnavailable, StoreUnavailable.
        """
        value, names_at = await self._cache.cached_week(board)
        cached = None if value is None else _decode(board, value, names_at)
        if cached is None:
            return 0
        page = _page(await self._rows("week_page", board, 0, TOP, latest=True))
        if cached[0].version < page.version:
            return None  # a change that was made meanwhile, or a name that the store has yet to hear
        shown = {(user_id, name, score) for user_id, name, score in cached[0].entries}
        recorded = {(line.user_id, line.username, line.score) for line in page.lines}
        return len({user_id for user_id, _, _ in shown ^ recorded})


def _page(rows: Sequence[Any]) -> WeekPage:
    if not rows:  # nothing was recorded in that week
        return WeekPage(0, 0, [])
    lines = [Line(r["rank"], r["user_id"], r["username"], r["score"]) for r in rows if r["user_id"] is not None]
    next_score = rows[0].get("next_score")
    return WeekPage(rows[0]["version"], rows[0]["players"], lines, next_score)


def _encode(snapshot: Snapshot, players: int, names_at: Position) -> bytes:
    return orjson.dumps(
        {
            "version": snapshot.version,
            "users_version": names_at.version,
            "epoch": names_at.epoch,
            "players": players,
            "entries": [
                {"user_id": user_id, "username": username, "score": score}
                for user_id, username, score in snapshot.entries
            ],
        }
    )


def _decode(board: Board, value: bytes, names_at: Position) -> tuple[Snapshot, int] | None:
    """The cached top, or None where its names are from another moment than `names_at`, or it is no such JSON."""
    try:
        cached = orjson.loads(value)
        if (cached["epoch"], cached["users_version"]) != names_at or "rule" in cached:
            return None  # what `closed_boards` keeps of the week, where default shows metadata, is of other versions
        entries = cached["entries"]
        scores = {int(entry["user_id"]): int(entry["score"]) for entry in entries}
        names = {int(entry["user_id"]): str(entry["username"]) for entry in entries}
        version, players = int(cached["version"]), int(cached["players"])
        counts = (version, players, *scores)
        if min(counts) < 0 or max(counts) > ID_MAX or any(abs(score) > TOTAL_MAX for score in scores.values()):
            return None  # no number of ours, and none that could be told anybody
        return Snapshot(board.id, CLOSED_EPOCH, version, scores, names), players
    except (ValueError, TypeError, KeyError):
        return None
