"""Replies: turns the store's replies into values.

Owns the values that readings of the store are handed out as, and the parsing that makes them of bytes. Must never let
a value pass that cannot be ours: it raises ForeignContent. Assumes RESP2.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from realtime.boards.board import Board
from realtime.boards.standings import NOTHING, At, Order, Profile, Row
from realtime.errors import ForeignContent
from realtime.store import members
from realtime.validation import ID_MAX, TOTAL_MAX


class Top(NamedTuple):
    """A board's top and its version, as the store had them at one moment."""

    version: int
    scores: dict[int, int]
    at: Mapping[int, At] = NOTHING
    """See `Snapshot.at`."""
    metadata: Mapping[int, str | None] | None = None
    """See `Snapshot.metadata`."""


@dataclass(frozen=True, slots=True)
class Look:
    """One consistent look at the store: everything in it was true at the same moment."""

    epoch: str | None
    users_version: int
    tops: list[Top]
    names: dict[int, str]
    """The names that were asked for and that the store has, by user id."""


class Page(NamedTuple):
    """A stretch of a board. `first_rank` is the competition rank of its first row."""

    epoch: str | None
    users_version: int
    version: int
    players: int
    first_rank: int
    scores: dict[int, int]
    at: Mapping[int, At] = NOTHING
    metadata: Mapping[int, str | None] | None = None
    first_dense: int | None = None
    """The dense rank of the first row; None where the board counts otherwise, and beyond the top."""


class Around(NamedTuple):
    """A user's row with the rows around it; no scores where the user is not on the board."""

    epoch: str | None
    users_version: int
    version: int
    players: int
    place: int
    """The place of the first row, from 0."""
    first_rank: int
    next_score: int | None
    """The next score that is better than the user's."""
    scores: dict[int, int]
    at: Mapping[int, At] = NOTHING
    metadata: Mapping[int, str | None] | None = None
    first_dense: int | None = None
    """As of a Page."""


class Versions(NamedTuple):
    """The epoch and the versions of names and boards of one partition, which the 2-second poll compares."""

    epoch: str | None
    users: int
    boards: dict[Board, int]


class Held(NamedTuple):
    """What the store holds of a member of a board, or of a profile, unparsed; None for what it does not hold."""

    version: bytes | None
    value: float | bytes | None
    """The score, or the username."""
    digits: bytes = b""
    """Of a board where the moment decides between equal scores: the 32 that stand in front of the user id."""
    metadata: bytes | None = None
    """Of a board that shows it."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """A reading that is wanted right behind a write, in the same exchange."""

    wanted: Sequence[Board]
    names_of: Collection[int]
    fulfil: Callable[[Look | None], None]
    """Takes the look that was read; None where it could not be read. Must not raise."""


Anew = Callable[[], Awaitable[tuple[Mapping[Board, Sequence[Row]], Sequence[Profile]]]]
"""Reads from the ledger, once more, what the store is to be told."""

ReadAfterWrite = Callable[[Mapping[Board, Sequence[Row]]], Expectation | None]
"""Says, for rows that are about to be written, what is to be read right behind them; None for nothing."""


def as_text(value: Any) -> str | None:
    """A text of the store; None where there is none."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def as_scores(reply: Sequence[Any]) -> dict[int, int]:
    """The scores in a reply to ZREVRANGE WITHSCORES, by user id, in its order: highest first.

    Scores are doubles that hold whole numbers.
    """
    try:
        return _scores(reply[::2], reply[1::2])
    except (ValueError, OverflowError) as error:
        raise ForeignContent(str(error)) from error


def as_rows(reply: Sequence[Any], order: Order) -> tuple[dict[int, int], Mapping[int, At]]:
    """The scores in a reply to ZRANGE or ZREVRANGE WITHSCORES, by user id, in its order: the best first.

    And the moments at which they were reached, as they are shown, where these decide between equal scores.
    """
    if not order.by_time:
        return as_scores(reply), NOTHING
    try:
        user_ids, moments = members.split(reply[::2], order)
        scores = _scores(user_ids, reply[1::2])
    except (ValueError, OverflowError) as error:
        raise ForeignContent(str(error)) from error
    return scores, dict(zip(scores, map(order.stands, moments), strict=True))


def as_metadata(user_ids: Iterable[int], reply: Sequence[bytes | None]) -> dict[int, str | None]:
    """The metadata of users, in their order."""
    try:
        texts = [None if text is None else text.decode() for text in reply]
    except UnicodeDecodeError as error:
        raise ForeignContent(str(error)) from error
    return dict(zip(user_ids, texts, strict=True))


def _scores(members: Sequence[Any], texts: Sequence[Any]) -> dict[int, int]:
    """Whole scores by user id. Raises ValueError, OverflowError."""
    scores = _whole(texts)
    if scores and not -TOTAL_MAX <= min(scores[0], scores[-1]) <= max(scores[0], scores[-1]) <= TOTAL_MAX:
        raise ValueError("a score is beyond plus or minus 2^53")
    user_ids = list(map(int, members))
    if user_ids and not 1 <= min(user_ids) <= max(user_ids) <= ID_MAX:
        raise ValueError("a member is no user id")
    found = dict(zip(user_ids, scores, strict=True))
    if len(found) < len(user_ids):
        raise ValueError("a user has two members")
    return found


def _whole(texts: Sequence[Any]) -> list[int]:
    """The whole numbers that texts of doubles hold. Raises ValueError, OverflowError."""
    try:
        return list(map(int, texts))
    except ValueError:  # "1e3" is a whole number too, and "inf" is a double
        numbers = list(map(float, texts))
        scores = list(map(int, numbers))
        if scores != numbers:
            raise ValueError("a score is not a whole number") from None
        return scores


def as_count(counter: Any) -> int:
    """A counter of the store; a missing one is 0."""
    try:
        return int(counter or 0)
    except ValueError as error:
        raise ForeignContent(str(error)) from error


def as_name(kept: bytes) -> str:
    """A username of the store."""
    try:
        return kept.decode()
    except UnicodeDecodeError as error:
        raise ForeignContent(str(error)) from error
