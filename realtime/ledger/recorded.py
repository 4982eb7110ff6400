"""Recorded: what a statement that records a batch came to, whichever of the two it was.

Owns those values alone. Must never ask PostgreSQL anything. Assumes that `batch` and `mixture` make them of what their
statements say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from realtime.boards.board import Board
from realtime.boards.standings import Profile, Row

KNOWN: Final = "known"
"""The outcome of a submission that is recorded already, or that met a concurrent twin: it is to be looked up."""

AGAIN: Final = "again"
"""The outcome of a submission whose player was just made by a concurrent statement: it is to be recorded again."""

ACCEPTED: Final = "accepted"


class Judged(NamedTuple):
    """What became of one submission."""

    outcome: str
    """ACCEPTED, KNOWN, AGAIN, or a verdict that sql/queries/ledger.sql or scores.sql names."""
    total_score: int | None = None
    """Of `default`, as `week_score`."""
    week_score: int | None = None
    scores: Mapping[str, int] | None = None
    """By board's id, what the player has now where the submission counts; None where that was not asked."""
    improved: bool | None = None
    """Whether it is a counting one there; None where that was not asked."""


@dataclass(slots=True)
class Recorded:
    """What a statement came to."""

    judged: list[Judged] = field(default_factory=list)
    """In the order of the batch."""
    rows: dict[Board, dict[int, Row]] = field(default_factory=dict)
    """What it changed, by board and user id."""
    profiles: list[Profile] = field(default_factory=list)
    """Of players whose first score it recorded somewhere."""
    new_to: set[int] = field(default_factory=set)
    """Sources that had no score of somebody among them."""
    outbox: list[tuple[int, str]] = field(default_factory=list)
    """Rows of the outbox, each with the partition that it is for."""
    closed: list[Board] = field(default_factory=list)
    """Boards that are over by PostgreSQL's word, and that it changed."""


class Cleared(NamedTuple):
    """Rows of the outbox that the content of a partition has by now."""

    partition: str
    epoch: str | None
    """None: of whichever content is current."""
    ids: Sequence[int]
