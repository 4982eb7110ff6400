"""Standings: who stands where on a board, and what separates one state of it from another.

Owns the order of a board, the ranks, and the diff between two snapshots with its inverse. Must never do I/O or
know bytes: encoding is `wire`'s. Assumes at most `boards.TOP` entries a snapshot.

The laws, held by property tests: `apply(a, diff(a, b)) == b`, and ranks follow from scores and order alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, NamedTuple

NOTHING: Final[Mapping[Any, Any]] = MappingProxyType({})


class Position(NamedTuple):
    """Where something stands among its changes: a content, and the changes counted in it.

    A later one of the same epoch is greater; positions of two epochs cannot be compared.
    """

    epoch: str | None
    """The generation of the content; None where a store holds none."""
    version: int
    """Changes counted: of a board, or of all names."""


At = tuple[int, int]
"""When a score was reached: microseconds since 1970, and the number of the transaction that brought it there."""


class Order(NamedTuple):
    """Who stands higher on a board, and how ranks are counted."""

    ascending: bool = False
    """Whether the smaller score is the better one."""
    ties: str = "user_id"
    """Who stands higher of equal scores: `first` or `last` to have reached it, or by `user_id` as text."""
    ranks: str = "competition"
    """`competition` (1 2 2 4), `dense` (1 2 2 3) or `ordinal` (1 2 3 4)."""

    @property
    def by_time(self) -> bool:
        """Whether the moment decides between equal scores."""
        return self.ties != "user_id"

    def stands(self, at: At) -> At:
        """A moment as it is shown: of equal scores the smaller stands higher."""
        return at if self.ties == "first" else (-at[0], -at[1])


PUBLISHED_ORDER: Final = Order()
"""The published system's: most points first, then the id as text, the greater first."""


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
    order: Order = PUBLISHED_ORDER
    at: Mapping[int, At] = field(default_factory=lambda: NOTHING)
    """User id -> when the score was reached, as `Order.stands` shows it, for the same ids; empty with ties by id."""
    metadata: Mapping[int, str | None] | None = None
    """User id -> the counting submission's JSON, for the same ids; None where the board shows none."""

    @property
    def position(self) -> Position:
        """Where the board stood."""
        return Position(self.epoch, self.version)

    @property
    def entries(self) -> list[Entry]:
        """The lines in board order."""
        return [Entry(user_id, self.names[user_id], score) for user_id, score in self.scores.items()]

    @property
    def ranks(self) -> list[int]:
        """The ranks of the lines, as the board counts them."""
        return ranks(self.scores.values(), style=self.order.ranks)


class Upsert(NamedTuple):
    """A changed line. `username` is None where the receiver knows it already."""

    user_id: int
    username: str | None
    score: int
    at: At | None = None
    """See `Snapshot.at`; None where ties are by id."""
    metadata: str | None = None
    """See `Snapshot.metadata`."""


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
    shows_metadata: bool = False
    """Whether lines carry metadata, be it none."""


class Standing(NamedTuple):
    """Where one user stands on a board. `rank` and `score` are None while they are not on it."""

    rank: int | None
    """One more than there are players above, by the board's way to count ranks."""
    score: int | None
    players: int
    to_next: int | None
    """How far it is to the next strictly better score, positive; None without one."""


def standing(score: int | None, above: int | None, next_score: int | None, players: int) -> Standing:
    """The standing of a user with `score`, `above` players being better, the last of them at `next_score`."""
    if score is None or above is None:
        return Standing(None, None, players, None)
    return Standing(above + 1, score, players, None if next_score is None else abs(next_score - score))


def in_order(
    scores: Iterable[tuple[int, int]], order: Order = PUBLISHED_ORDER, at: Mapping[int, At] = NOTHING
) -> dict[int, int]:
    """`(user id, score)` pairs as a dictionary in board order; with ties by time, `at` says when.

    By id: the id as text, descending on a descending board and ascending on an ascending one, as ZREVRANGE, ZRANGE and
    `COLLATE "C"` have it.
    """
    if not order.by_time:
        return dict(sorted(scores, key=lambda pair: (pair[1], str(pair[0])), reverse=not order.ascending))
    sign = 1 if order.ascending else -1
    return dict(sorted(scores, key=lambda pair: (sign * pair[1], at[pair[0]])))


def ranks(scores: Iterable[int], first: int = 1, style: str = "competition") -> list[int]:
    """Ranks of scores in board order, counted as `Order.ranks` says; the first place has rank `first`."""
    result: list[int] = []
    previous: int | None = None
    for place, score in enumerate(scores, first):
        if not result or style == "ordinal":
            result.append(place)
        elif score == previous:
            result.append(result[-1])
        else:
            result.append(result[-1] + 1 if style == "dense" else place)
        previous = score
    return result


def diff(old: Snapshot, new: Snapshot) -> Diff:
    """What turns `old` into `new`: both of one board, epoch and order, `old` not the newer."""
    assert old.board == new.board and old.epoch == new.epoch
    changed = {user_id for user_id, _ in new.scores.items() - old.scores.items()}
    if new.at:
        changed |= {user_id for user_id, _ in new.at.items() - old.at.items()}
    if new.metadata:
        changed |= {user_id for user_id, _ in new.metadata.items() - (old.metadata or NOTHING).items()}
    if new.names is old.names:
        unknown: set[int] = set()
    else:
        unknown = {user_id for user_id, _ in new.names.items() - old.names.items()}
        changed |= unknown
    upsert = [
        _upsert(new, user_id, user_id in unknown) for user_id in (new.scores if changed else ()) if user_id in changed
    ]
    remove = sorted(old.scores.keys() - new.scores.keys())
    shows_metadata = new.metadata is not None
    return Diff(new.board, new.epoch, old.version, new.version, upsert, remove, shows_metadata)


def _upsert(of: Snapshot, user_id: int, named: bool) -> Upsert:
    name = of.names[user_id] if named else None
    return Upsert(user_id, name, of.scores[user_id], of.at.get(user_id), (of.metadata or NOTHING).get(user_id))


def apply(snapshot: Snapshot, change: Diff) -> Snapshot:
    """The snapshot after `change`.

    Raises ValueError where the change does not start from this snapshot: ask for a fresh one.
    """
    if (snapshot.board, snapshot.epoch, snapshot.version) != (change.board, change.epoch, change.from_version):
        raise ValueError(f"the change starts at {change.epoch}/{change.from_version}")
    scores, names, order = dict(snapshot.scores), dict(snapshot.names), snapshot.order
    at, metadata = dict(snapshot.at), None if snapshot.metadata is None else dict(snapshot.metadata)
    for user_id in change.remove:
        del scores[user_id], names[user_id]
        at.pop(user_id, None)
        if metadata is not None:
            metadata.pop(user_id, None)
    for line in change.upsert:
        scores[line.user_id] = line.score
        if line.username is not None:
            names[line.user_id] = line.username
        if line.at is not None:
            at[line.user_id] = line.at
        if metadata is not None:
            metadata[line.user_id] = line.metadata
    entries = in_order(scores.items(), order, at)
    return Snapshot(change.board, change.epoch, change.version, entries, names, order, at, metadata)


class Row(NamedTuple):
    """A user's absolute standing on one board, as the ledger has it; what the store is told.

    `score` is None where the user has no place. `version` counts this row's changes: it guards the store against
    anything older.
    """

    user_id: int
    version: int
    score: int | None
    at: At | None = None
    """When the score was reached, as the ledger has it; None on published boards."""
    metadata: str | None = None
    """The counting submission's JSON."""


class Profile(NamedTuple):
    """What boards show of a user besides the score, with the version that guards it."""

    user_id: int
    version: int
    username: str
