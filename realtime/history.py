"""History: the boards of closed weeks.

Owns the materialized view of each closed week, its version, and the cached top 100. Must never put input into DDL, or
touch PostgreSQL for a week whose cache is good. Assumes that a week is closed only after every transaction begun in it
has ended (`boards.CLOSE_GRACE`).

The view holds ids and scores; names, bans and deletions are joined when it is read, so that one rename does not refresh
a thousand views. What a closed board shows has a version in PostgreSQL that moves with each of those; the cache carries
it together with the `version:users` and the epoch its names are from, and is good while neither has moved. During a
rebuild names move without a sign: it is the new epoch that tells.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final, NamedTuple, Protocol

import orjson

from realtime.boards import CLOSE_GRACE, CLOSED_EPOCH, TOP, Board, week_at
from realtime.bounds import VIEW, Bounds
from realtime.errors import LedgerUnavailable, RealtimeError, StoreUnavailable
from realtime.postgres import PATIENT_TIMEOUT
from realtime.replies import NamesAt
from realtime.standings import Snapshot, Standing, standing
from realtime.submissions import ID_MAX, TOTAL_MAX

log = logging.getLogger(__name__)


class Ledger(Protocol):
    """What history needs of PostgreSQL."""

    def connection(self) -> AbstractAsyncContextManager[Any]: ...
    def transaction(self, kind: Bounds) -> AbstractAsyncContextManager[Any]: ...
    def query(self, name: str) -> str: ...
    async def fetch(self, name: str, *args: Any) -> list[Any]: ...


class Cache(Protocol):
    """What history needs of the store."""

    async def cached_week(self, board: Board) -> tuple[bytes | None, NamesAt]: ...
    async def cache_week(self, board: Board, version: int, names_at: NamesAt, value: bytes) -> None: ...
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


class History:
    """Closed weeks, opened at first need."""

    def __init__(self, ledger: Ledger, cache: Cache) -> None:
        self._ledger = ledger
        self._cache = cache
        self._opened: set[date | None] = set()  # weeks known to have their view
        self._newest: dict[Board, int] = {}  # the newest version given out: an older cache is no answer any more

    # Reading -------------------------------------------------------------------------------------------------

    async def snapshot(self, board: Board) -> tuple[Snapshot, int]:
        """The top of a closed week and its number of players; one round trip to the store where the cache is good.

        Raises RealtimeError `unknown_board`, LedgerUnavailable.
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

    async def _read_top(self, board: Board, names_at: NamesAt | None) -> tuple[Snapshot, int]:
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
        if names_at is not None:
            encoded = _encode(snapshot, page.players, names_at)
            await self._cache.cache_week(board, page.version, names_at, encoded)
        return snapshot, page.players

    async def page(self, board: Board, offset: int, limit: int) -> WeekPage:
        """A stretch of a closed week from the view. Raises RealtimeError `unknown_board`, LedgerUnavailable."""
        await self.open(board)
        rows = await self._fetch("week_page", board, offset, limit)
        return _page(rows)

    async def around(self, board: Board, user_id: int, neighbours: int) -> WeekPage:
        """A user's row with neighbours; no lines where the user is not on that board."""
        await self.open(board)
        rows = await self._fetch("week_user", board, user_id, neighbours)
        return _page(rows)

    async def versions(self, of: Sequence[Board]) -> dict[Board, int]:
        """The versions of those closed weeks that have their view, all in one statement. Raises LedgerUnavailable."""
        rows = await self._ledger.fetch("weeks_versions", [board.week for board in of]) if of else []
        return {Board(week): version for week, version in rows}

    async def standings(self, board: Board, user_ids: Sequence[int]) -> tuple[int, list[Standing]]:
        """Where users stand on an open closed week, in the order asked, and its version. Raises LedgerUnavailable."""
        rows = await self._fetch("week_standings", board, list(user_ids))
        version, players = rows[0]["version"], rows[0]["players"]
        return version, [standing(row["score"], row["above"], row["next_score"], players) for row in rows]

    async def _fetch(self, name: str, board: Board, *args: Any) -> list[Any]:
        try:
            async with self._ledger.connection() as connection:
                rows: list[Any] = await connection.fetch(
                    self._ledger.query(name).format(view=board.view), board.week, *args
                )
                return rows
        except LedgerUnavailable:
            self._opened.discard(board.week)  # somebody may have dropped the view: whoever asks next looks
            raise

    async def listed(self, now: datetime, offset: int, limit: int) -> tuple[list[ListedWeek], int]:
        """Closed weeks with scores, newest first, and how many there are."""
        rows = await self._ledger.fetch("weeks_listed", _first_open(now), offset, limit)
        weeks = [ListedWeek(Board(row["week"]), row["players"]) for row in rows]
        if rows or not offset:
            return weeks, rows[0]["total"] if rows else 0
        everything = await self._ledger.fetch("weeks_listed", _first_open(now), 0, 1)
        return [], everything[0]["total"] if everything else 0

    # Opening and refreshing ----------------------------------------------------------------------------------

    async def open(self, board: Board) -> None:
        """Makes the week's view where there is none. Raises RealtimeError `unknown_board` before the first score."""
        assert board.week is not None
        if board.week in self._opened:
            return
        ((version, has_view),) = await self._ledger.fetch("week_opened", board.week, board.view)
        if version is None or not has_view:
            ((first,),) = await self._ledger.fetch("first_week")
            if first is None or board.week < first:
                raise RealtimeError("unknown_board", "There are no scores that old.")
            await self._fill(board, again=False)
        self._opened.add(board.week)

    async def open_all(self, now: datetime, limit: int) -> int:
        """Opens up to `limit` closed weeks that have scores and no view; returns how many."""
        rows = await self._ledger.fetch("weeks_unopened", _first_open(now), limit)
        for (week,) in rows:
            await self.open(Board(week))
        return len(rows)

    async def amend(
        self, weeks: Collection[date], progress: Callable[[int, int], None] = lambda done, total: None
    ) -> None:
        """Scores of closed weeks changed: views, versions and caches follow, subscribers hear of it. `progress` is told
        how many of how many views are done.

        Raises LedgerUnavailable, StoreUnavailable: then it may be repeated.
        """
        opened = await self._opened_of(weeks)  # one that is made from now on has it all
        for done, week in enumerate(opened, 1):
            board = Board(week)
            await self._fill(board, again=True)
            await self.refresh(board)
            progress(done, len(opened))

    async def _opened_of(self, weeks: Collection[date]) -> list[date]:
        """Those of `weeks` that have their view, in order. One that is just being made is waited for: it may lack what
        was committed since it began.
        """
        async with self._ledger.transaction(VIEW) as connection:
            args = list(weeks), _LOCK
            await connection.execute(self._ledger.query("weeks_locked"), *args, timeout=PATIENT_TIMEOUT)
            return [week for (week,) in await connection.fetch(self._ledger.query("weeks_opened"), args[0])]

    async def refresh(self, board: Board) -> None:
        """Reads a closed week's top anew and announces it. Raises StoreUnavailable: the outbox row stays."""
        _, names_at = await self._cache.cached_week(board)
        snapshot, _ = await self._read_top(board, names_at)
        await self._cache.announce(board, snapshot.version)

    async def _fill(self, board: Board, *, again: bool) -> None:
        """Makes the view, or fills it again; once across processes: the others wait for the lock and find it done."""
        ends = board.ends
        assert board.week is not None and ends is not None
        async with self._ledger.transaction(VIEW) as connection:
            lock = _LOCK + board.week.toordinal()
            await connection.execute("SELECT pg_advisory_xact_lock($1)", lock, timeout=PATIENT_TIMEOUT)
            before: Any = None
            digest = self._ledger.query("week_digest").format(view=board.view)
            opened = self._ledger.query("week_opened")
            version, has_view = await connection.fetchrow(opened, board.week, board.view)
            if not has_view:
                await connection.execute(
                    self._ledger.query("week_view").format(
                        view=board.view, starts=board.starts.isoformat(), ends=ends.isoformat()
                    ),
                    timeout=PATIENT_TIMEOUT,
                )
                await connection.execute(f"CREATE UNIQUE INDEX ON {board.view} (user_id)")
                await connection.execute(f"CREATE UNIQUE INDEX ON {board.view} (place)")
                await connection.execute(f"CREATE INDEX ON {board.view} (score)")
            elif version is not None and not again:
                return
            else:
                if version is not None:
                    before = await connection.fetchrow(digest, timeout=PATIENT_TIMEOUT)
                await connection.execute(f"REFRESH MATERIALIZED VIEW {board.view}", timeout=PATIENT_TIMEOUT)
            after = await connection.fetchrow(digest, timeout=PATIENT_TIMEOUT)
            if after == before:
                return  # what was to be amended was in it already: another amendment came in between
            players = after["players"]
            if version is None:
                # Of a rename or ban under way that began before there was a version to move, nobody could tell the
                # view without it from the view with it: let it end first, and whoever comes now see the version.
                await connection.execute("LOCK TABLE closed_weeks IN SHARE ROW EXCLUSIVE MODE", timeout=PATIENT_TIMEOUT)
            await connection.execute(self._ledger.query("week_filled"), board.week, players)
        log.info("%s is filled: %d players", board.id, players, extra={"action": "week"})


_LOCK: Final = 0x7765656B << 24


def _first_open(now: datetime) -> date:
    """The first week whose view does not answer for it yet."""
    week = week_at(now - CLOSE_GRACE).week
    assert week is not None
    return week


def _page(rows: Sequence[Any]) -> WeekPage:
    if not rows:
        raise RealtimeError("unknown_board", "There is no such week.")
    lines = [Line(r["rank"], r["user_id"], r["username"], r["score"]) for r in rows if r["user_id"] is not None]
    next_score = rows[0].get("next_score")
    return WeekPage(rows[0]["version"], rows[0]["players"], lines, next_score)


def _encode(snapshot: Snapshot, players: int, names_at: NamesAt) -> bytes:
    return orjson.dumps(
        {
            "version": snapshot.version,
            "users_version": names_at.users_version,
            "epoch": names_at.epoch,
            "players": players,
            "entries": [
                {"user_id": user_id, "username": username, "score": score}
                for user_id, username, score in snapshot.entries
            ],
        }
    )


def _decode(board: Board, value: bytes, names_at: NamesAt) -> tuple[Snapshot, int] | None:
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
