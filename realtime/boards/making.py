"""Making: the boards that stand beside those shown while a leaderboard's next standings are made.

Owns what they are called. Must never be shown to anybody: no client can name one. Assumes that a window's name begins
with no digit, and a slug has no colon.
"""

from __future__ import annotations

from realtime.boards.board import Board
from realtime.boards.leaderboard import Leaderboard

_PREFIX = "next:"


def in_the_making(board: Board, made: Leaderboard) -> Board:
    """What stands beside `board` while the leaderboard's next standings are made: `next:12:sprint:all_time`.

    `made` has the next definition, and as `next_rule` its number; its `rule` is the one shown now, None for none.
    """
    assert made.next_rule is not None
    return Board(f"{_PREFIX}{made.next_rule}:{board.id}", made, board.window)


def is_in_the_making(board: Board) -> bool:
    """Whether it stands beside a board that is shown. A slug may be `next` too, but then no number follows it."""
    return board.id.startswith(_PREFIX) and board.id[len(_PREFIX) : len(_PREFIX) + 1].isdigit()
