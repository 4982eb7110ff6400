"""Places: where and how the content of a partition keeps a board.

Owns what of a board's definition the scripts must know, and remembers it for boards used lately. Must never keep what
an older definition said. Assumes that a leaderboard that was redefined is another value.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from realtime.boards.board import Board
from realtime.boards.leaderboard import Leaderboard
from realtime.boards.making import is_in_the_making
from realtime.boards.standings import Order
from realtime.store.keys import Keys, expire_at

REMEMBERED: Final = 4_096
"""Boards whose place is remembered."""


class Place(NamedTuple):
    """Keys of a board, and how its rows are kept there."""

    scores: str
    version: str
    versions: str
    metadata: str
    definition: str | None
    """Key of the rule that its rows are made by; None for a published board, whose rule never changes."""
    rule: str
    """The number of the rule that is shown, as the caller knows it; "" for none yet."""
    order: Order
    shows_metadata: bool
    writing: str
    """Its traits for `apply_ranked`: see there."""
    reading: str
    """Its traits for `page`, `around`, `ranks` and `top`: see there."""
    expire_at: int
    """See `keys.expire_at`."""

    @property
    def is_published(self) -> bool:
        """Whether it is a board of the published system."""
        return self.definition is None

    @property
    def range(self) -> str:
        """The command that reads the best first."""
        return "ZRANGE" if self.order.ascending else "ZREVRANGE"


class Places:
    """The places of one partition's boards."""

    def __init__(self, of: Keys) -> None:
        self._keys = of
        self._known: dict[str, tuple[Leaderboard, Place]] = {}

    def of(self, board: Board) -> Place:
        """The place of a board."""
        known = self._known.get(board.id)
        if known is not None and known[0] is board.leaderboard:
            return known[1]
        if len(self._known) >= REMEMBERED:
            self._known.clear()
        place = self._made(board)
        self._known[board.id] = board.leaderboard, place
        return place

    def _made(self, board: Board) -> Place:
        leaderboard = board.leaderboard
        order = leaderboard.order
        described = board.shows_metadata
        letters = "a" * order.ascending + "t" * order.by_time + "m" * described
        return Place(
            self._keys.scores(board),
            self._keys.version(board),
            self._keys.versions(board),
            self._keys.metadata(board),
            None if board.is_published else self._keys.definition(leaderboard.slug),
            leaderboard.rule_in_store,
            order,
            described,
            letters + "n" * is_in_the_making(board),
            letters + {"dense": "d", "ordinal": "o"}.get(order.ranks, ""),
            expire_at(board),
        )
