"""Standings: who stands where on a board, and what separates one state of it from another.

Owns the order of a board, the ranks, and the diff between two snapshots with its inverse. Must never do I/O or
know bytes: encoding is `wire`'s. Assumes at most `boards.TOP` entries a snapshot.

The laws, held by property tests: `apply(a, diff(a, b)) == b`, and ranks follow from the scores alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Position(NamedTuple):
    """Where something stands among its changes: a content, and the changes counted in it.

    A later one of the same epoch is greater; positions of two epochs cannot be compared.
    """

    epoch: str | None
    """The generation of the content; None where a store holds none."""
    version: int
    """Changes counted: of a board, or of all names."""


class Entry(NamedTuple):
    """One line of a board."""

    user_id: int
    username: str
    score: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A board's top at one version: a pure function of (epoch, board, version), names included."""

    board: str
    epoch: str
    version: int
    scores: Mapping[int, int]
    """User id -> score, in board order."""
    names: Mapping[int, str]
    """User id -> username, for exactly the ids in `scores`."""

    @property
    def position(self) -> Position:
        """Where the board stood."""
        return Position(self.epoch, self.version)

    @property
    def entries(self) -> list[Entry]:
        """The lines in board order."""
        return [Entry(user_id, self.names[user_id], score) for user_id, score in self.scores.items()]


class Upsert(NamedTuple):
    """A changed line. `username` is None where the receiver knows it already."""

    user_id: int
    username: str | None
    score: int


@dataclass(frozen=True, slots=True)
class Diff:
    """What leads from one snapshot (`from_version`) to a later one (`version`) of the same epoch."""

    board: str
    epoch: str
    from_version: int
    version: int
    upsert: Sequence[Upsert]
    """In board order."""
    remove: Sequence[int]


class Standing(NamedTuple):
    """Where one user stands on a board. `rank` and `score` are None while they are not on it."""

    rank: int | None
    """Standard competition rank: one more than there are players with a higher score."""
    score: int | None
    players: int
    to_next: int | None
    """Points to the score of the next better rank; None for the first."""


def standing(score: int | None, above: int | None, next_score: int | None, players: int) -> Standing:
    """The standing of a user with `score`, `above` players having more, the least of them `next_score`."""
    if score is None or above is None:
        return Standing(None, None, players, None)
    return Standing(above + 1, score, players, None if next_score is None else next_score - score)


def order_key(user_id: int, score: int) -> tuple[int, str]:
    """Sort key, descending: score, then the id as text, as ZREVRANGE and `COLLATE "C" DESC` do."""
    return score, str(user_id)


def in_order(scores: Iterable[tuple[int, int]]) -> dict[int, int]:
    """`(user id, score)` pairs as a dictionary in board order."""
    return dict(sorted(scores, key=lambda pair: order_key(*pair), reverse=True))


def ranks(scores: Iterable[int], first: int = 1) -> list[int]:
    """Standard competition ranks (1, 2, 2, 4) of scores in board order; the first place has rank `first`."""
    result: list[int] = []
    previous: int | None = None
    for place, score in enumerate(scores, first):
        result.append(result[-1] if score == previous else place)
        previous = score
    return result


def diff(old: Snapshot, new: Snapshot) -> Diff:
    """What turns `old` into `new`: both of one board and epoch, `old` not the newer."""
    assert old.board == new.board and old.epoch == new.epoch
    changed = {user_id for user_id, _ in new.scores.items() - old.scores.items()}
    if new.names is old.names:
        unknown: set[int] = set()
    else:
        unknown = {user_id for user_id, _ in new.names.items() - old.names.items()}
        changed |= unknown
    upsert = [
        Upsert(user_id, new.names[user_id] if user_id in unknown else None, score)
        for user_id, score in (new.scores.items() if changed else ())
        if user_id in changed
    ]
    remove = sorted(old.scores.keys() - new.scores.keys())
    return Diff(new.board, new.epoch, old.version, new.version, upsert, remove)


def apply(snapshot: Snapshot, change: Diff) -> Snapshot:
    """The snapshot after `change`.

    Raises ValueError where the change does not start from this snapshot: ask for a fresh one.
    """
    if (snapshot.board, snapshot.epoch, snapshot.version) != (change.board, change.epoch, change.from_version):
        raise ValueError(f"the change starts at {change.epoch}/{change.from_version}")
    scores, names = dict(snapshot.scores), dict(snapshot.names)
    for user_id in change.remove:
        del scores[user_id], names[user_id]
    for user_id, username, score in change.upsert:
        scores[user_id] = score
        if username is not None:
            names[user_id] = username
    return Snapshot(change.board, change.epoch, change.version, in_order(scores.items()), names)


class Row(NamedTuple):
    """A user's absolute standing on one board, as the ledger has it; what the store is told.

    `score` is None where the user has no place. `version` counts this row's changes: it guards the store against
    anything older.
    """

    user_id: int
    version: int
    score: int | None


class Profile(NamedTuple):
    """What boards show of a user besides the score, with the version that guards it."""

    user_id: int
    version: int
    username: str
