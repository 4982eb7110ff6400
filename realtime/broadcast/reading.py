"""Reading boards, whatever they are made of: live ones from the store, closed ones from the ledger.

Owns the decision which of them answers, and the last state seen of a few boards for when the store is away. Must
never show an old state as a new one: it says `stale`. Assumes that whatever subscribers are shown is read through it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Final

from realtime.boards.board import CLOSED_EPOCH, TOP, Board
from realtime.boards.standings import Snapshot
from realtime.broadcast.pages import Line, Page, Stretch, UserPage
from realtime.broadcast.shared_readings import SharedReadings
from realtime.errors import NotOver, RealtimeError, StoreUnavailable

if TYPE_CHECKING:
    from realtime.ledger.archive import Archive
    from realtime.ledger.closed_boards import ClosedBoards, ClosedPage
    from realtime.store.replies import Look
    from realtime.store.snapshots import Expected, SnapshotReader

REMEMBERED: Final = 64
"""Boards whose last page is kept."""


class BoardReader:
    """Reads a board from the store, or from the archive once it is closed."""

    def __init__(
        self,
        live: SnapshotReader,
        closed: Archive,
        now: Callable[[], datetime],
        *,
        closed_boards: ClosedBoards | None = None,
    ) -> None:
        self._live = live
        self._closed = closed  # of the published weeks
        self._others = closed_boards  # of all other boards; None where there are none
        self._now = now
        self._readings: SharedReadings[tuple[str, int | None, int, int], Page] = SharedReadings()
        self._last: dict[Board, Page] = {}  # the top of boards read lately, oldest first
        self._shown: dict[Board, Snapshot] = {}  # newer tops of some of these, as their subscribers have them

    async def read(self, wanted: Sequence[Board], shown: Iterable[int] = ()) -> dict[Board, Snapshot]:
        """Snapshots of boards of any kind. Raises StoreUnavailable, LedgerUnavailable."""
        now = self._now()
        closed = [board for board in wanted if board.is_closed(now)]
        live = [board for board in wanted if not board.is_closed(now)]
        found: dict[Board, Snapshot] = {}
        for board in closed:
            try:
                found[board], _ = await self._closed_snapshot(board)
            except RealtimeError:
                continue  # a week that never was: its subscribers were refused already
            except NotOver:
                live.append(board)
        for board, snapshot in (await self._live.read(live, shown) if live else {}).items():
            found[board] = snapshot
            if board not in self._last:  # a snapshot does not tell how many players there are
                await self._live_page(board, 0, TOP)
            self._keep(board, snapshot)
        return found

    def expect(self, wanted: Sequence[Board], shown: Iterable[int]) -> Expected:
        """What to read for snapshots of live boards; see `SnapshotReader.expect`."""
        return self._live.expect(wanted, shown)

    def take(self, expected: Expected, look: Look) -> dict[Board, Snapshot] | None:
        """The snapshots that were read; see `SnapshotReader.take`."""
        found = self._live.take(expected, look)
        for board, snapshot in (found or {}).items():
            if board in self._last:
                self._keep(board, snapshot)
        return found

    def _keep(self, board: Board, snapshot: Snapshot) -> None:
        shown = self._shown.get(board)
        if shown is None or shown.epoch != snapshot.epoch or shown.version < snapshot.version:
            self._shown[board] = snapshot  # else a later reading was sooner

    async def page(self, board: Board, offset: int, limit: int) -> Page:
        """A stretch of a board. While the store is away: the last one seen, `stale`.

        Raises RealtimeError `unavailable` where none was, `unknown_board` for a week before the first score.
        """
        if board.is_closed(self._now()):
            with suppress(NotOver):
                return await self._closed_page(board, offset, limit)
        try:
            return await self._live_page(board, offset, limit)
        except StoreUnavailable:
            return self._remembered(board, offset, limit)

    async def _live_page(self, board: Board, offset: int, limit: int) -> Page:
        """However many ask for it at the same moment, the store is asked once."""
        asked = (board.id, board.leaderboard.rule, offset, limit)
        return await self._readings.read(asked, lambda: self._read_page(board, offset, limit))

    async def _read_page(self, board: Board, offset: int, limit: int) -> Page:
        page, names = await self._live.page(board, offset, limit)
        stretch = Stretch(offset, page.first_rank, page.scores, names, page.at, page.metadata, page.first_dense)
        lines = stretch.lines(board)
        result = Page(board.id, page.epoch or "", page.version, page.players, False, lines)
        if offset == 0:
            self._remember(board, result)
        return result

    async def _closed_page(self, board: Board, offset: int, limit: int) -> Page:
        top = await self._closed_top(board)
        if offset + limit <= TOP or top.players <= TOP:
            return replace(top, entries=top.entries[offset : offset + limit])
        if not board.is_published:
            page = await self._closed_boards.page(board, offset, limit)
            return Page(board.id, CLOSED_EPOCH, page.version, page.players, False, _stretch(page, offset).lines(board))
        week = await self._closed.page(board, offset, limit)
        entries = [Line(*line) for line in week.lines]
        return Page(board.id, CLOSED_EPOCH, week.version, week.players, False, entries)

    async def _closed_top(self, board: Board) -> Page:
        snapshot, players = await self._closed_snapshot(board)
        return Page(board.id, snapshot.epoch, snapshot.version, players, False, _top(snapshot).lines(board))

    async def _closed_snapshot(self, board: Board) -> tuple[Snapshot, int]:
        return await (self._closed if board.is_published else self._closed_boards).snapshot(board)

    @property
    def _closed_boards(self) -> ClosedBoards:
        assert self._others is not None
        return self._others

    async def user(self, board: Board, user_id: int, neighbours: int) -> UserPage:
        """A user's row with up to `neighbours` on each side. While the store is away: from the last top seen, `stale`.

        Raises RealtimeError `unknown_user` where the user is not on that board, and as `page` does.
        """
        if board.is_closed(self._now()):
            with suppress(NotOver):
                return await self._closed_user(board, user_id, neighbours)
        try:
            around, names = await self._live.around(board, user_id, neighbours)
        except StoreUnavailable:
            found = _user_in(self._last_top(board), user_id, neighbours)
            if found is None:
                raise _unavailable() from None
            return found
        stretch = Stretch(
            around.place, around.first_rank, around.scores, names, around.at, around.metadata, around.first_dense
        )
        page = Page(board.id, around.epoch or "", around.version, around.players, False, stretch.lines(board))
        return _user_page(page, user_id, around.next_score)

    async def _closed_user(self, board: Board, user_id: int, neighbours: int) -> UserPage:
        if found := _user_in(await self._closed_top(board), user_id, neighbours):
            return found
        if not board.is_published:
            found_there = await self._closed_boards.around(board, user_id, neighbours)
            if found_there is None:
                raise _unknown_user()
            of = found_there.page
            lines_there = _stretch(of, found_there.place).lines(board)
            page = Page(board.id, CLOSED_EPOCH, of.version, of.players, False, lines_there)
            return _user_page(page, user_id, found_there.next_score)
        week = await self._closed.around(board, user_id, neighbours)
        lines = [Line(*line) for line in week.lines]
        page = Page(board.id, CLOSED_EPOCH, week.version, week.players, False, lines)
        return _user_page(page, user_id, week.next_score)

    def _remember(self, board: Board, page: Page) -> None:
        known = self._last.pop(board, None)
        same = known is not None and (known.epoch, known.version) == (page.epoch, page.version)
        self._last[board] = known if known and same and len(known.entries) > len(page.entries) else page
        shown = self._shown.get(board)
        if shown is not None and (shown.epoch != page.epoch or shown.version <= page.version):
            del self._shown[board]
        if len(self._last) > REMEMBERED:
            oldest = next(iter(self._last))
            del self._last[oldest]
            self._shown.pop(oldest, None)

    def _last_top(self, board: Board) -> Page:
        """The last top seen. Raises RealtimeError `unavailable` where none was."""
        last, shown = self._last.get(board), self._shown.get(board)
        if last is None:
            raise _unavailable()
        if shown is None:
            return replace(last, stale=True)
        # Beyond the top the number of players is as old as the last page.
        players = max(last.players, TOP) if len(shown.scores) == TOP else len(shown.scores)
        return Page(board.id, shown.epoch, shown.version, players, True, _top(shown).lines(board))

    def _remembered(self, board: Board, offset: int, limit: int) -> Page:
        last = self._last_top(board)
        if offset + limit > len(last.entries) < last.players:  # what lies beyond is not known
            raise _unavailable()
        return replace(last, entries=last.entries[offset : offset + limit])


def _unavailable() -> RealtimeError:
    return RealtimeError("unavailable", "The board cannot be read now.", retry_after_ms=1_000)


def _unknown_user() -> RealtimeError:
    return RealtimeError("unknown_user", "This user is not on that board.")


def _user_in(top: Page, user_id: int, neighbours: int) -> UserPage | None:
    """A user as a board's top shows them; None where they, or a neighbour, may be below it.

    Raises RealtimeError `unknown_user` where nobody is below it.
    """
    known = top.entries
    place = next((i for i, line in enumerate(known) if line.user_id == user_id), None)
    if len(known) < top.players and (place is None or place + neighbours >= len(known)):
        return None
    if place is None:
        raise _unknown_user()
    better = [line.score for line in known[:place] if line.score != known[place].score]
    around = replace(top, entries=known[max(0, place - neighbours) : place + neighbours + 1])
    return _user_page(around, user_id, better[-1] if better else None)


def _user_page(page: Page, user_id: int, next_score: int | None) -> UserPage:
    own = next((line for line in page.entries if line.user_id == user_id), None)
    if own is None:
        raise _unknown_user()
    to_next = None if next_score is None else abs(next_score - own.score)
    return UserPage(
        page.board,
        page.epoch,
        page.version,
        page.players,
        page.stale,
        own.rank,
        own.score,
        to_next,
        user_id,
        own.username,
        page.entries,
    )


def _top(snapshot: Snapshot) -> Stretch:
    return Stretch(0, 1, snapshot.scores, snapshot.names, snapshot.at, snapshot.metadata, 1)


def _stretch(page: ClosedPage, offset: int) -> Stretch:
    lines = page.lines
    return Stretch(
        offset,
        page.above + 1,
        {line.user_id: line.score for line in lines},
        {line.user_id: line.username for line in lines},
        {line.user_id: line.at for line in lines if line.at is not None},
        {line.user_id: line.metadata for line in lines},
        page.scores_above + 1 if offset < TOP else None,
    )
