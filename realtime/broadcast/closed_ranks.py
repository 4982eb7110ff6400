"""Closed ranks: where users stand on boards whose window is over, whichever they are.

Owns the decision who answers: the archive of the published weeks, or the standings of all other boards.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from realtime.boards.board import Board
from realtime.boards.standings import Standing


class Closed(Protocol):
    """What this needs of either."""

    async def versions(self, of: Sequence[Board]) -> dict[Board, int]: ...
    async def standings(self, board: Board, user_ids: Sequence[int]) -> tuple[int, list[Standing]]: ...


class ClosedRanks:
    """Asks the `published` weeks, or the `others`. Raises RealtimeError, NotOver, LedgerUnavailable."""

    def __init__(self, published: Closed, others: Closed) -> None:
        self._published = published
        self._others = others

    async def versions(self, of: Sequence[Board]) -> dict[Board, int]:
        """The versions of those boards that answer."""
        weeks = [board for board in of if board.is_published]
        others = [board for board in of if not board.is_published]
        found = await self._published.versions(weeks) if weeks else {}
        return found | await self._others.versions(others) if others else found

    async def standings(self, board: Board, user_ids: Sequence[int]) -> tuple[int, list[Standing]]:
        """Where users stand on a board, in the order asked, and its version."""
        return await (self._published if board.is_published else self._others).standings(board, user_ids)
