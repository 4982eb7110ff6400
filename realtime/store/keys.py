"""Keys: names every key and channel of the store.

Owns their names, and when a board's keys expire. Must never change a name: people look at them with redis-cli, and the
content of a running store has them. Assumes that a board's id is fit for a key.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from realtime.boards.board import Board

EXPIRY_GRACE: Final = timedelta(days=8)
"""A week's keys leave the store this long after the week's end."""

EPOCH_KEY: Final = "leaderboard:epoch"

RUN_KEY: Final = "leaderboard:run"

LEDGER_KEY: Final = "leaderboard:ledger"
"""Key of what the store remembers of the ledger; rebuilds keep it."""

USERS_VERSION_KEY: Final = "leaderboard:version:users"

USERS_CHANNEL: Final = "leaderboard:changes:users"

CHANNEL_PREFIX: Final = "leaderboard:changes:"

CHANNEL_PATTERN: Final = CHANNEL_PREFIX + "*"

FILLING: Final = "filling:"
"""Prefix of the epoch's value while a rebuild writes; the name of the next epoch follows it."""


def user_key(user_id: int) -> str:
    """Key of the Hash with a user's profile: what boards show of the user besides scores."""
    return f"leaderboard:users:{user_id}"


def scores_key(board: Board) -> str:
    """Key of the Sorted Set user id -> score."""
    return f"leaderboard:user_scores:{board.id}"


def version_key(board: Board) -> str:
    """Key of the board's change counter."""
    return f"leaderboard:version:{board.id}"


def versions_key(board: Board) -> str:
    """Key of the Hash user id -> version of the row that was applied last."""
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
