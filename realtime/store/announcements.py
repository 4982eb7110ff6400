"""Announcements: what is said on the store's channels.

Owns what a message on `leaderboard:changes:*` means. Must never raise: anybody may have said it.
"""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

import orjson

from realtime.boards.standings import Position


class Announcement(NamedTuple):
    """A message from `leaderboard:changes:*`; `board` is None for names, `position` for what names none."""

    board: str | None
    position: Position | None
    """What the board has come to."""


def as_announcement(topic: str, text: bytes) -> Announcement:
    """What is said on a channel, whose name ends with `topic`. Anybody may have said it."""
    board, position = None if topic == "users" else topic, None
    with suppress(ValueError, TypeError, KeyError):
        said = orjson.loads(text)
        position = Position(str(said["epoch"]), int(said["version"]))
    return Announcement(board, position)
