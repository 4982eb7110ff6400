"""Positions as text: which state of which board a client holds, in an event's id, a header or an address.

Owns how they are written and read. Must never take one board's position for another's: versions of two boards are
counted from the same beginning. Assumes that no epoch, and no board's id, holds a comma or a space. Pure.

A position is `epoch:version`, and where that does not say of which board, which is every board but `all_time`, the
board's id follows: `epoch:version:week_of_2026_11_23`. Of several boards there are several, with commas in between.
"""

from __future__ import annotations

import re
from typing import Final

from realtime.boards.board import ALL_TIME
from realtime.validation import ID_MAX
from realtime.wire.messages import BOARD_LENGTH, Since

__all__ = ["joined", "read", "written"]

_POSITION: Final = re.compile(rf"([0-9A-Za-z-]{{1,64}}):([0-9]{{1,16}})(?::([0-9A-Za-z_:-]{{1,{BOARD_LENGTH}}}))?")


def written(board_id: str, epoch: str, version: int) -> bytes:
    """The position of a board."""
    text = f"{epoch}:{version}" if board_id == ALL_TIME.id else f"{epoch}:{version}:{board_id}"
    return text.encode()


def joined(positions: list[bytes]) -> bytes:
    """The positions of several boards as one."""
    return b",".join(positions)


def read(text: str, board_id: str = ALL_TIME.id) -> dict[str, Since]:
    """The positions in a text by board, of which one without a board is of `board_id`; whatever is none is left out."""
    found: dict[str, Since] = {}
    for part in text.split(","):
        match = _POSITION.fullmatch(part.strip())
        if match is not None and int(match[2]) <= ID_MAX:
            board = match[3] or board_id
            found[board] = Since(match[1], int(match[2]), board)
    return found
