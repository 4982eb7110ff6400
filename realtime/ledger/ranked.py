"""Ranked: the rows of boards as the ledger has them, whatever they are made of.

Owns the difference between the published boards, which have tables of their own, and all others, whose rows are those
of a rule and a window. Must never read more than was asked for. Assumes that a board's leaderboard names the rule whose
rows are meant: of one that is being made, the next.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from itertools import chain
from typing import Any, Protocol

from realtime.boards.board import Board
from realtime.boards.making import is_in_the_making
from realtime.boards.standings import Profile, Row


class Ledger(Protocol):
    """What reading rows needs of PostgreSQL."""

    async def fetch(self, name: str, *args: Any, source: int = ...) -> list[Any]: ...
    def apart(self, sources: Collection[int]) -> Sequence[int]: ...
    async def standings_of(self, user_ids: Collection[int], live: Sequence[Board]) -> dict[Board, list[Row]]: ...
    async def profiles_of(self, user_ids: Collection[int]) -> list[Profile]: ...


class RankedRows:
    """Reads rows. Raises LedgerUnavailable."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def pages(self, board: Board, *, size: int) -> AsyncIterator[tuple[list[Row], list[Profile]]]:
        """The rows of a board that is not published, and what it shows of their users, in lists of `size`, by user id.

        Each is read in a statement of its own: whoever stops in between holds nothing.
        """
        after = 0
        of, source = (*_rows_of(board), board.leaderboard.id), board.leaderboard.source
        while records := await self._ledger.fetch("ranked_page", *of, after, size, source=source):
            rows = [_row(record, record["score"]) for record in records]
            yield rows, [Profile(r["user_id"], r["user_version"], r["username"]) for r in records]
            after = records[-1]["user_id"]

    async def users(self, board: Board, after: int, limit: int) -> list[int]:
        """Users who have a row of a board, hidden ones too: those after id `after`, up to `limit`, in order."""
        if board.is_published:
            found = await self._ledger.fetch("drift_page", board.week, after, limit)
        else:
            of = _rows_of(board)
            found = await self._ledger.fetch("ranked_users", *of, after, limit, source=board.leaderboard.source)
        return [user_id for (user_id,) in found]

    async def players(self, board: Board) -> int:
        """How many have a place on a board."""
        if board.is_published:
            ((count,),) = await self._ledger.fetch("drift_count", board.week)
        else:
            of = *_rows_of(board), board.leaderboard.id
            ((count,),) = await self._ledger.fetch("ranked_count", *of, source=board.leaderboard.source)
        return int(count)

    async def standings_of(self, user_ids: Collection[int], live: Sequence[Board]) -> dict[Board, list[Row]]:
        """The current rows of users on boards, absolute. Of those that are not published only boards with a row."""
        published = [board for board in live if board.is_published]
        others = {(rule_of(board), board.window.key): board for board in live if not board.is_published}
        rows = await self._ledger.standings_of(user_ids, published) if published else {}
        return rows | await self._others_of(user_ids, others) if others else rows

    async def _others_of(
        self, user_ids: Collection[int], boards: Mapping[tuple[int, int], Board]
    ) -> dict[Board, list[Row]]:
        sources = {board.leaderboard.source for board in boards.values()}
        rules, windows = ({key[place] for key in boards} for place in (0, 1))
        rows: dict[Board, list[Row]] = {}
        asked = list(user_ids), list(sources), list(rules), list(windows)
        found = [await self._ledger.fetch("ranked_of", *asked, source=source) for source in self._ledger.apart(sources)]
        for record in chain.from_iterable(found):
            board = boards.get((record["rule"], record["window"]))
            if board is not None:
                is_shown = board.leaderboard.id not in record["hidden_on"]
                rows.setdefault(board, []).append(_row(record, record["score"] if is_shown else None))
        return rows

    async def profiles_of(self, user_ids: Collection[int]) -> list[Profile]:
        """What boards show of users."""
        return await self._ledger.profiles_of(user_ids)


def rule_of(board: Board) -> int:
    """The rule whose rows a board has."""
    leaderboard = board.leaderboard
    rule = leaderboard.next_rule if is_in_the_making(board) else leaderboard.rule
    assert rule is not None
    return rule


def _rows_of(board: Board) -> tuple[int, int, int]:
    return board.leaderboard.source, rule_of(board), board.window.key


def _row(record: Any, score: int | None) -> Row:
    at = None if score is None else (record["at"], record["at_id"])
    return Row(record["user_id"], record["version"], score, at, record["metadata"] if score is not None else None)
