"""Replies: what the store's answers become.

Owns the values that readings of the store are handed out as, and how these are made of bytes. Must never let a value
pass that cannot be ours: it raises ForeignContent. Assumes RESP2.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from realtime.boards.board import Board
from realtime.errors import ForeignContent
from realtime.validation import ID_MAX, TOTAL_MAX


class Top(NamedTuple):
    """A board's top as the store had it at one moment."""

    version: int
    scores: dict[int, int]


@dataclass(frozen=True, slots=True)
class Look:
    """One consistent look at the store: everything in it was true at the same moment."""

    epoch: str | None
    users_version: int
    tops: list[Top]
    names: dict[int, str]
    """The names asked for, where the store has them."""


class Page(NamedTuple):
    """A stretch of a board. `first_rank` is the competition rank of its first row."""

    epoch: str | None
    users_version: int
    version: int
    players: int
    first_rank: int
    scores: dict[int, int]


class Around(NamedTuple):
    """A user's place with the rows around it; no scores where the user is not on the board."""

    epoch: str | None
    users_version: int
    version: int
    players: int
    place: int
    """Of the first row, from 0."""
    first_rank: int
    next_score: int | None
    """The least score above the user's."""
    scores: dict[int, int]


class Versions(NamedTuple):
    """What the 2-second poll compares."""

    epoch: str | None
    users: int
    boards: dict[Board, int]


class Held(NamedTuple):
    """What the store holds of a place on a board, or of a profile, as it stands there. None for nothing."""

    version: bytes | None
    value: float | bytes | None
    """The score, or the username."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """A reading that is wanted right behind a write."""

    wanted: Sequence[Board]
    names_of: Collection[int]
    fulfil: Callable[[Look | None], None]
    """Takes what was read; None where it could not be. Must not raise."""


def as_text(value: Any) -> str | None:
    """A text as it is kept; None for nothing."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def as_scores(reply: Sequence[Any]) -> dict[int, int]:
    """ZREVRANGE WITHSCORES under RESP2, in its order: highest first. Scores are doubles that hold whole numbers."""
    try:
        scores = _whole(reply[1::2])
        if scores and max(scores[0], -scores[-1]) > TOTAL_MAX:
            raise ValueError("a score is beyond plus or minus 2^53")
        user_ids = list(map(int, reply[::2]))
        if user_ids and not 1 <= min(user_ids) <= max(user_ids) <= ID_MAX:
            raise ValueError("a member is no user id")
        return dict(zip(user_ids, scores, strict=True))
    except (ValueError, OverflowError) as error:
        raise ForeignContent(str(error)) from error


def _whole(texts: Sequence[Any]) -> list[int]:
    """Doubles as they are written, which hold whole numbers. Raises ValueError, OverflowError."""
    try:
        return list(map(int, texts))
    except ValueError:  # 1e3 is whole, too, and inf a double
        numbers = list(map(float, texts))
        scores = list(map(int, numbers))
        if scores != numbers:
            raise ValueError("a score is not a whole number") from None
        return scores


def as_count(counter: Any) -> int:
    """A counter as it is kept; a missing one is 0."""
    try:
        return int(counter or 0)
    except ValueError as error:
        raise ForeignContent(str(error)) from error


def as_name(kept: bytes) -> str:
    """A username as it is kept."""
    try:
        return kept.decode()
    except UnicodeDecodeError as error:
        raise ForeignContent(str(error)) from error
