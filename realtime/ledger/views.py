"""Views: the materialized views of closed weeks, kept to what is recorded.

Owns the order in which a change of the past reaches a view, the cache and the subscribers, and the count of what was
found to be wrong. Must never decide whether a week is over, or what a view lacks: that is `closing`'s. Assumes that
several processes may do the same at once, and that whatever one leaves undone another does.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Final

from realtime.boards.board import Board
from realtime.errors import LedgerUnavailable, NotOver, StoreUnavailable
from realtime.ledger.archive import Archive
from realtime.ledger.closing import Closing

log = logging.getLogger(__name__)

ALL: Final = 1_000_000
"""More weeks than there are."""

Progress = Callable[[int, int], None]
"""Told how many of how many weeks are done."""


class Views:
    """Makes the views of weeks that end, and brings those up to date whose scores change."""

    def __init__(self, archive: Archive, closing: Closing) -> None:
        self.archive = archive
        """Where the views are read."""
        self.closing = closing
        """What makes and fills one view."""
        self.wrong = 0
        """Users of whom closed weeks did not show what was recorded, ever."""

    async def open_all(self, limit: int) -> int:
        """Closes up to `limit` weeks that are over and have scores; returns how many. Raises LedgerUnavailable."""
        boards = await self.closing.unopened(limit)
        await _each(boards, self.closing.close)
        return len(boards)

    async def amend(self, boards: Collection[Board]) -> None:
        """Scores of closed weeks changed: views, versions and caches follow, subscribers hear of it.

        Raises LedgerUnavailable, StoreUnavailable: then, as where another process is at it, `settle` does it.
        """
        await _each(await self.closing.behind(ALL, among=boards, importing=True), self._bring)

    async def settle(
        self, limit: int = ALL, progress: Progress = lambda done, total: None, *, importing: bool = False
    ) -> int:
        """Does the same for up to `limit` weeks of which anything is left to do; returns how many. `importing` takes
        those too that an import is just changing.

        Raises LedgerUnavailable, StoreUnavailable: it can be repeated.
        """
        behind = await self.closing.behind(limit, importing=importing)
        await _each(behind, self._bring, progress)
        return len(behind)

    async def _bring(self, board: Board) -> None:
        await self.closing.fill(board)
        held = await self.closing.held(board)
        if held is not None:
            content = self.archive.told
            await self.archive.refresh(board)
            await self.closing.told(board, held, content)

    async def withdraw(self) -> None:
        """Takes back what is not over, because a clock was wrong. Raises StoreUnavailable, LedgerUnavailable."""
        for board, version in await self.closing.early():
            await self.archive.outdate(board, version)  # first: a view that is read meanwhile is cached no more
            await self.closing.withdraw(board, version)

    async def verify(self, after: Board | None) -> Board | None:
        """Compares the next week after `after` (the first, where that is None) with what was recorded, and has its view
        made anew where it differs.

        Returns the week, or None where there is none further. Raises LedgerUnavailable. Where a week cannot be compared
        now, the others have their turn first.
        """
        board = await self.closing.after(after)
        if board is None:
            return None
        try:
            await self._verify(board)
        except (LedgerUnavailable, StoreUnavailable) as error:
            log.info("%s cannot be compared: %s", board.id, error, extra={"action": "week"})
        return board

    async def _verify(self, board: Board) -> None:
        await self.closing.fill(board)  # somebody may have dropped it
        differing = await self.differing(board)
        if differing is None:  # on its way; or on the way it was lost: then the cache is of before for good
            await self.archive.refresh(board)
        elif differing:
            log.warning("%s is wrong about %d users", board.id, differing, extra={"action": "week"})
            self.wrong += differing
            await self.closing.doubt(board)
            await self._bring(board)

    async def differing(self, board: Board) -> int | None:
        """Users of whom a closed week's view, or its cache, does not say what was recorded; None where changes are on
        their way. Raises LedgerUnavailable, StoreUnavailable.
        """
        differing = await self.closing.differing(board)
        return differing if differing != 0 else await self.archive.differing(board)


async def _each(
    boards: Sequence[Board],
    work: Callable[[Board], Awaitable[None]],
    progress: Progress = lambda done, total: None,
) -> None:
    """Does `work` for each of `boards`; one that PostgreSQL cannot do now does not keep the others from theirs."""
    failed: LedgerUnavailable | None = None
    for done, board in enumerate(boards, 1):
        try:
            await work(board)
        except NotOver:
            continue  # the clock was set back just now
        except LedgerUnavailable as error:
            log.debug("%s waits: %s", board.id, error)
            failed = error
        progress(done, len(boards))
    if failed is not None:
        raise failed
