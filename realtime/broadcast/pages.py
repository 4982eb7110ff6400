"""Pages: what a reader of a board is given.

Owns their shapes alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


@dataclass(frozen=True, slots=True)
class Line:
    """A row of a page, with its competition rank."""

    rank: int
    user_id: int
    username: str
    score: int


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
    """Points to the score of the next better rank; None for the first."""
    user_id: int
    username: str
    neighbours: Sequence[Line]
    """In board order, the user among them."""
