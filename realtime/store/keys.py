"""Keys: names every key and channel of the store.

Owns their names, and when a board's keys expire. Must never change a name: people look at them with redis-cli, and the
content of a running store has them. Assumes that a board's id is fit for a key.

Whatever belongs to one partition begins with its hash tag, `{p07}`: a store that has several threads or nodes keeps it
together, and no script names keys of two partitions. The published content is a partition without a tag.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

from realtime.boards.board import Board

EXPIRY_GRACE: Final = timedelta(days=8)
"""A board's keys leave the store this long after its window's end."""

EPOCH_KEY: Final = "leaderboard:epoch"

RUN_KEY: Final = "leaderboard:run"

LEDGER_KEY: Final = "leaderboard:ledger"
"""Key of what the store remembers of the ledger; rebuilds keep it. There is one, without a tag."""

CROWD_KEY: Final = "leaderboard:clients"
"""Key of the Hash process -> its clients, and when it said so. There is one, without a tag; see `crowd`."""

USERS_VERSION_KEY: Final = "leaderboard:version:users"

CHANNEL_PREFIX: Final = "leaderboard:changes:"

CHANNEL_PATTERN: Final = CHANNEL_PREFIX + "*"
"""Channels of the published content, one a board. A partition with a tag has one for all its boards: `Keys.channel`."""

FILLING: Final = "filling:"
"""Prefix of the epoch's value while a rebuild writes; the name of the next epoch follows it."""

_CHANNEL_OF_PARTITION: Final = re.compile(r"\{(p\d\d)\}leaderboard:changes\Z", re.ASCII)


def tag_of(partition: str) -> str:
    """What every key of a partition begins with; nothing for the published one."""
    return f"{{{partition}}}" if partition else ""


def partition_of_channel(channel: str) -> str | None:
    """The partition whose channel that is; None for a channel of the published content."""
    match = _CHANNEL_OF_PARTITION.match(channel)
    return match[1] if match else None


class Keys:
    """The names of what belongs to one partition as a whole."""

    def __init__(self, partition: str = "") -> None:
        self.partition = partition
        self.tag = tag_of(partition)
        self.epoch = self.tag + EPOCH_KEY
        self.run = self.tag + RUN_KEY
        self.users_version = self.tag + USERS_VERSION_KEY
        self.channel = self.tag + "leaderboard:changes"
        """Channel on which changes of a partition with a tag are announced."""
        self.pattern = self.tag + "leaderboard:*"
        """What matches every key of the partition, and none of another."""
        self.kept = (self.epoch.encode(), *(() if partition else (LEDGER_KEY.encode(), b"leaderboard:limit:")))
        """How keys begin that a rebuild leaves alone."""
        self._of_users = self.tag + "leaderboard:users:"

    def user(self, user_id: int) -> str:
        """Key of the Hash with a user's profile: what boards show of the user besides scores."""
        return f"{self._of_users}{user_id}"

    def definition(self, slug: str) -> str:
        """Key of the number of the rule by which a leaderboard's boards are made; the published ones need none."""
        return f"{self.tag}leaderboard:definition:{slug}"


def user_key(user_id: int) -> str:
    """Key of a user's profile in the published content."""
    return f"leaderboard:users:{user_id}"


def _key(board: Board, what: str) -> str:
    return f"{tag_of(board.leaderboard.partition)}leaderboard:{what}:{board.id}"


def scores_key(board: Board) -> str:
    """Key of the Sorted Set member -> score. The member is the user id; where the moment decides between equal scores,
    see `members`."""
    return _key(board, "user_scores")


def version_key(board: Board) -> str:
    """Key of the board's change counter."""
    return _key(board, "version")


def versions_key(board: Board) -> str:
    """Key of the Hash user id -> version of the row that was applied last; see `members`."""
    return _key(board, "versions")


def metadata_key(board: Board) -> str:
    """Key of the Hash user id -> the counting submission's metadata as JSON; of boards that show it."""
    return _key(board, "metadata")


def cache_key(board: Board) -> str:
    """Key of a closed board's top 100 as JSON."""
    return _key(board, "cache_top_100")


def channel(board: Board) -> str:
    """Channel on which changes of this board are announced."""
    partition = board.leaderboard.partition
    return Keys(partition).channel if partition else CHANNEL_PREFIX + board.id


def expire_at(board: Board) -> int:
    """Unix time, in seconds, at which a board's keys leave the store; 0 for never."""
    return 0 if board.ends is None else int((board.ends + EXPIRY_GRACE).timestamp())
