"""History: the boards of closed weeks, as they are read.

Owns who may have a week closed by reading it, the cached top 100, and what subscribers hear of a closed week. Must
never touch PostgreSQL for a week whose cache is good, or make anything for a week in which nothing was recorded.
Assumes that `closing` makes the views, and that a worker is `keeping` them: it does what was left half done.

The view holds ids and scores; names, bans and deletions are joined when it is read, so that one rename does not refresh
a thousand views. What a closed board shows has a version in PostgreSQL that moves with each of those; the cache carries
it together with the `version:users` and the epoch its names are from, and is good while neither has moved. During a
rebuild names move without a sign: it is the new epoch that tells.

Our estimate of the clock decides whom to ask for a board, this or the store; where PostgreSQL says that the week is not
over, NotOver sends the reader back to the store.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final, NamedTuple, Protocol

import orjson

from realtime.boards.board import CLOSE_GRACE, CLOSED_EPOCH, TOP, Board
from realtime.boards.standings import Position, Snapshot, Standing, standing
from realtime.errors import LedgerUnavailable, NotOver, RealtimeError, StoreUnavailable
from realtime.ledger.bounds import Bounds
from realtime.ledger.closing import Closing
from realtime.ledger.views import _first_open
from realtime.validation import ID_MAX, TOTAL_MAX

log = logging.getLogger(__name__)

ATTEMPTS: Final = 3
"""How often a week is opened for one reader."""

READERS: Final = 3
"""Statements on closed weeks that one process has under way at a time: whoever else needs PostgreSQL has the rest."""

OPENINGS: Final = 8
"""Weeks that readers of one process may be having closed at a time."""

READER_PATIENCE: Final = 10.0
"""Seconds that a reader waits for a week to be closed; that goes on."""

ALL: Final = 1_000_000


class Ledger(Protocol):
    """What history needs of PostgreSQL."""

    def connection(self) -> AbstractAsyncContextManager[Any]: ...
    def transaction(self, kind: Bounds) -> AbstractAsyncContextManager[Any]: ...
    def query(self, name: str) -> str: ...
    async def fetch(self, name: str, *args: Any) -> list[Any]: ...


class Cache(Protocol):
    """What history needs of the store."""

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
    """Closed weeks, opened at first need."""

    def __init__(self, ledger: Ledger, cache: Cache) -> None:
        self._ledger = ledger
        self._cache = cache
        self.closing = Closing(ledger)
        """What makes the views."""
        self._reading = asyncio.Semaphore(READERS)
        self._opened: set[date | None] = set()  # weeks whose views were seen to answer
        self._openings: dict[date | None, asyncio.Task[None]] = {}  # weeks being closed, for all who wait
        self.wrong = 0
        """Users of whom closed weeks did not show what was recorded, ever."""
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
        """The top from the view; cached under `names_at`, which was read before it."""
        page = await self.page(board, 0, TOP)
        snapshot = Snapshot(
            board.id,
            CLOSED_EPOCH,
            page.version,
            {line.user_id: line.score for line in page.lines},
            {line.user_id: line.username for line in page.lines},
        )
        self._newest[board] = max(page.version, self._newest.get(board, 0))
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
        return {Board(week): version for week, version in rows}

    async def standings(self, board: Board, user_ids: Sequence[int]) -> tuple[int, list[Standing]]:
        """Where users stand on a closed week, in the order asked, and its version.

        Raises RealtimeError `unknown_board`, NotOver, LedgerUnavailable.
        """
        rows = await self._rows("week_standings", board, list(user_ids))
        if not rows:
            return 0, [standing(None, None, None, 0) for _ in user_ids]
        version, players = rows[0]["version"], rows[0]["players"]
        return version, [standing(row["score"], row["above"], row["next_score"], players) for row in rows]

    async def _rows(self, name: str, board: Board, *args: Any) -> list[Any]:
        """What a query finds in a week's view; nothing where nothing was ever recorded in that week."""
        for _ in range(ATTEMPTS):
            if not await self.open(board):
                return []
            try:
                async with self._reading, self._ledger.connection() as connection:
                    query = self._ledger.query(name).format(view=board.view)
                    if rows := await connection.fetch(query, board.week, *args):
                        return list(rows)
            except LedgerUnavailable:
                self._opened.discard(board.week)  # somebody may have dropped the view: whoever asks next looks
                raise
            self._opened.discard(board.week)  # withdrawn
        raise LedgerUnavailable(f"{board.id} is withdrawn again and again")

    async def listed(self, now: datetime, offset: int, limit: int) -> tuple[list[ListedWeek], int]:
        """Closed weeks with scores, newest first, and how many there are."""
        rows = await self._ledger.fetch("weeks_listed", _first_open(now), offset, limit)
        weeks = [ListedWeek(Board(row["week"]), row["players"]) for row in rows]
        if rows or not offset:
            return weeks, rows[0]["total"] if rows else 0
        everything = await self._ledger.fetch("weeks_listed", _first_open(now), 0, 1)
        return [], everything[0]["total"] if everything else 0

    # Opening ---------------------------------------------------------------------------------------------------

    async def open(self, board: Board) -> bool:
        """Whether there is a view to read: it is made where there is none, once for all who wait, and not at all for a
        week in which nothing was recorded.

        Raises RealtimeError `unknown_board` before the first score, NotOver, LedgerUnavailable.
        """
        if board.week in self._opened:
            return True
        if board.week not in self._openings:
            async with self._reading:
                state = await self.closing.state(board)
            if state.answers:
                self._opened.add(board.week)
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
        task = self._openings.get(board.week)
        if task is None:
            if len(self._openings) >= OPENINGS:
                raise LedgerUnavailable("other weeks are being closed")
            task = self._openings[board.week] = asyncio.create_task(self._close(board))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())  # it may be that nobody waits
        try:
            async with asyncio.timeout(READER_PATIENCE):
                await asyncio.shield(task)
        except TimeoutError:
            raise LedgerUnavailable(f"{board.id} is still being made") from None

    async def _close(self, board: Board) -> None:
        try:
            await self.closing.close(board)
            self._opened.add(board.week)
        finally:
            del self._openings[board.week]

    async def open_all(self, limit: int) -> int:
        """Closes up to `limit` weeks that are over and have scores; returns how many. Raises LedgerUnavailable."""
        rows = await self._ledger.fetch("weeks_unopened", CLOSE_GRACE, limit)
        await _each([Board(week) for (week,) in rows], self.closing.close)
        return len(rows)

    # Keeping right ---------------------------------------------------------------------------------------------

    async def amend(self, weeks: Collection[date]) -> None:
        """Scores of closed weeks changed: views, versions and caches follow, subscribers hear of it.

        Raises LedgerUnavailable, StoreUnavailable: then, as where another process is at it, `settle` does it.
        """
        await _each(await self.closing.behind(ALL, weeks=list(weeks), importing=True), self._bring)

    async def settle(
        self,
        limit: int = ALL,
        progress: Callable[[int, int], None] = lambda done, total: None,
        *,
        importing: bool = False,
    ) -> int:
        """Does the same for up to `limit` weeks of which anything is left to do; returns how many. `progress` is told
        how many of how many are done. `importing` takes those too that an import is just changing.

        Raises LedgerUnavailable, StoreUnavailable: it can be repeated.
        """
        behind = await self.closing.behind(limit, importing=importing)
        await _each(behind, self._bring, progress)
        return len(behind)

    async def _bring(self, board: Board) -> None:
        await self.closing.fill(board)
        held = await self.closing.held(board)
        if held is not None:
            await self.refresh(board)
            await self.closing.told(board, held)

    async def refresh(self, board: Board) -> None:
        """Reads a closed week's top anew and announces it. Raises StoreUnavailable, LedgerUnavailable."""
        _, names_at = await self._cache.cached_week(board)
        snapshot, _ = await self._read_top(board, names_at)
        await self._cache.announce(board, snapshot.version)

    async def withdraw(self) -> None:
        """Takes back what is not over, because a clock was wrong. Raises StoreUnavailable, LedgerUnavailable."""
        for board, version in await self.closing.early():
            # First of all nothing is cached any more: what readers cached meanwhile is of a version before.
            _, names_at = await self._cache.cached_week(board)
            await self._cache.cache_week(board, version + 1, names_at, orjson.dumps({"version": version + 1}))
            await self.closing.withdraw(board, version)

    async def verify(self, after: date) -> date:
        """Compares the next week after `after` with what was recorded, and has it made anew where it differs.

        Returns it, or the first of days where there is none further. Raises LedgerUnavailable, StoreUnavailable.
        """
        board = await self.closing.after(after)
        if board is None or board.week is None:
            return date.min
        await self.closing.fill(board)  # somebody may have dropped it
        if differing := await self.differing(board):
            log.warning("%s is wrong about %d users", board.id, differing, extra={"action": "week"})
            self.wrong += differing
            await self.closing.doubt(board)
            await self._bring(board)
        return board.week

    async def differing(self, board: Board) -> int | None:
        """Users of whom a closed week's view, or its cache, does not say what was recorded; None where changes are on
        their way. Raises LedgerUnavailable, StoreUnavailable.
        """
        differing = await self.closing.differing(board)
        if differing != 0:
            return differing
        value, names_at = await self._cache.cached_week(board)
        cached = None if value is None else _decode(board, value, names_at)
        if cached is None:
            return 0
        page = await self.page(board, 0, TOP)
        if cached[0].version < page.version:
            return None  # a change that was made meanwhile, or a name that the store has yet to hear
        shown = {(user_id, name, score) for user_id, name, score in cached[0].entries}
        recorded = {(line.user_id, line.username, line.score) for line in page.lines}
        return len({user_id for user_id, _, _ in shown ^ recorded})


async def _each(
    weeks: Sequence[Board],
    work: Callable[[Board], Awaitable[None]],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Does `work` for each of `weeks`; one that PostgreSQL cannot do now does not keep the others from theirs."""
    failed: LedgerUnavailable | None = None
    for done, board in enumerate(weeks, 1):
        try:
            await work(board)
        except NotOver:
            continue  # the clock was set back just now
        except LedgerUnavailable as error:
            log.debug("%s waits: %s", board.id, error)
            failed = error
        progress(done, len(weeks))
    if failed is not None:
        raise failed


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
        if (cached["epoch"], cached["users_version"]) != names_at:
            return None
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
