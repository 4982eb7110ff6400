"""Keys: every key and channel of the store, by board.

Owns their names. People look at them with redis-cli: they never change.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from realtime.boards.board import Board

EXPIRY_GRACE: Final = timedelta(days=8)
"""A week's keys leave the store this long after the week's end."""

EPOCH_KEY: Final = "leaderboard:epoch"

RUN_KEY: Final = "leaderboard:run"

USERS_VERSION_KEY: Final = "leaderboard:version:users"

USERS_CHANNEL: Final = "leaderboard:changes:users"

CHANNEL_PREFIX: Final = "leaderboard:changes:"

CHANNEL_PATTERN: Final = CHANNEL_PREFIX + "*"

FILLING: Final = "filling:"
"""Prefix of the epoch's value while a rebuild is writing; the next epoch's name follows."""


def user_key(user_id: int) -> str:
    """Key of the Hash with what a board shows of a user."""
    return f"leaderboard:users:{user_id}"


def scores_key(board: Board) -> str:
    """Key of the Sorted-Set, user id -> score."""
    return f"leaderboard:user_scores:{board.id}"


def version_key(board: Board) -> str:
    """Key of the board's change counter."""
    return f"leaderboard:version:{board.id}"


def versions_key(board: Board) -> str:
    """Key of the Hash user id -> version of the row last applied."""
    return f"leaderboard:versions:{board.id}"


def cache_key(board: Board) -> str:
    """Key of a closed week's top 100 as JSON."""
    return f"leaderboard:cache_top_100:{board.id}"


def channel(board: Board) -> str:
    """Channel on which changes of this board are announced."""
    return CHANNEL_PREFIX + board.id


def expire_at(board: Board) -> int:
    """Unix time, in seconds, at which the week's keys leave the store; 0 for never."""
    return 0 if board.ends is None else int((board.ends + EXPIRY_GRACE).timestamp())
