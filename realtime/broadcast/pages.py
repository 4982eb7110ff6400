"""Pages: what a reader of a board is given.

Owns their shapes, and the ranks of a stretch of a board. Must never read anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from realtime.boards.board import TOP, Board
from realtime.boards.standings import NOTHING, At, ranks


@dataclass(frozen=True, slots=True)
class Line:
    """A row of a page, with its competition rank."""

    rank: int
    user_id: int
    username: str
    score: int


@dataclass(frozen=True, slots=True)
class DescribedLine(Line):
    """A row of a page of any leaderboard but the published one."""

    at: At | None
    """See `Snapshot.at`; None where ties are by id."""
    metadata: Any
    """The counting submission's, as JSON that is written already; None where there is none."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Rows of a board in its order, of one moment, and what their ranks follow from."""

    offset: int
    """The place of the first row, from 0."""
    first_rank: int
    """The competition rank of the first row."""
    scores: Mapping[int, int]
    names: Mapping[int, str]
    at: Mapping[int, At] = field(default_factory=lambda: NOTHING)
    metadata: Mapping[int, str | None] | None = None
    first_dense: int | None = None
    """The dense rank of the first row; None where the board counts otherwise, and beyond the top."""

    def lines(self, board: Board) -> list[Line]:
        """The rows with their ranks, as the board counts them."""
        places = self._ranks(board.leaderboard.order.ranks)
        rows = zip(places, self.scores.items(), strict=True)
        if board.is_published:
            return [Line(rank, user_id, self.names[user_id], score) for rank, (user_id, score) in rows]
        metadata = self.metadata or NOTHING
        return [
            DescribedLine(
                rank, user_id, self.names[user_id], score, self.at.get(user_id), _written(metadata.get(user_id))
            )
            for rank, (user_id, score) in rows
        ]

    def _ranks(self, style: str) -> list[int]:
        """Rows equal to the first share its rank; from the next score on, place and competition rank agree."""
        places = ranks(self.scores.values(), self.offset + 1)
        if style == "ordinal":
            return list(range(self.offset + 1, self.offset + 1 + len(places)))
        first = places[0] if places else 0
        places = [self.first_rank if place == first else place for place in places]
        within = max(0, TOP - self.offset)
        if style == "dense" and self.first_dense is not None:
            places[:within] = ranks(list(self.scores.values())[:within], self.first_dense, "dense")
        return places


def _written(metadata: str | None) -> Any:
    return None if metadata is None else orjson.Fragment(metadata)


@dataclass(frozen=True, slots=True)
class Page:
    """A stretch of a board, as HTTP shows it."""

    board: str
    epoch: str
    version: int
    players: int
    stale: bool
    entries: Sequence[Line]


@dataclass(frozen=True, slots=True)
class UserPage:
    """One user on a board, with those around, as HTTP shows it."""

    board: str
    epoch: str
    version: int
    players: int
    stale: bool
    rank: int
    score: int
    to_next: int | None
    """How far it is to the next strictly better score, positive; None without one."""
    user_id: int
    username: str
    neighbours: Sequence[Line]
    """In board order, the user among them."""
