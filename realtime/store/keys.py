"""Keys: names every key and channel of the store.

Owns their names, and when a board's keys expire. Must never change a name: people look at them with redis-cli, and the
content of a running store has them. Assumes that a board's id is fit for a key.

Whatever belongs to one partition begins with its hash tag, `{p07}`: a store that has several threads or nodes keeps it
together, and no script names keys of two partitions. The published content is a partition without a tag; on a cluster
it has one too, `{default}`, in front of the published names.
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
"""Key of what the store remembers of the ledger; rebuilds keep it. There is one, beside the published content."""

CROWD_KEY: Final = "leaderboard:clients"
"""Key of the Hash process -> its clients, and when it said so. There is one; see `crowd`."""

USERS_VERSION_KEY: Final = "leaderboard:version:users"

CHANNEL_PREFIX: Final = "leaderboard:changes:"

CHANNEL_PATTERN: Final = CHANNEL_PREFIX + "*"
"""Channels of the published content, one a board. Whatever has a tag has one for all its boards: `Keys.channel`."""

LIMITS: Final = "leaderboard:limit:"
"""How counters of limits begin: they belong to no content, and to no tag."""

FILLING: Final = "filling:"
"""Prefix of the epoch's value while a rebuild writes; the name of the next epoch follows it."""

PUBLISHED: Final = "default"
"""The published content's name in its tag on a cluster. No partition is called so."""

_CHANNEL_OF_PARTITION: Final = re.compile(rf"\{{(p\d\d|{PUBLISHED})\}}leaderboard:changes\Z", re.ASCII)


def partition_of_channel(channel: str) -> str | None:
    """The partition whose channel that is, for all its boards; None for the channel of one published board."""
    match = _CHANNEL_OF_PARTITION.match(channel)
    return match and match[1].removeprefix(PUBLISHED)


class Keys:
    """The names of what belongs to one partition. On a cluster (`clustered`) each of them has a tag."""

    def __init__(self, partition: str = "", *, clustered: bool = False) -> None:
        self.partition = partition
        self.clustered = clustered
        name = partition or PUBLISHED * clustered
        self.tag = f"{{{name}}}" if name else ""
        self.epoch = self.tag + EPOCH_KEY
        self.run = self.tag + RUN_KEY
        self.users_version = self.tag + USERS_VERSION_KEY
        self.ledger = self.tag + LEDGER_KEY
        self.crowd = self.tag + CROWD_KEY
        self.channel = self.tag + "leaderboard:changes"
        """Channel on which changes of a partition with a tag are announced."""
        self.announcing = f"{'SPUBLISH' if clustered else 'PUBLISH'} {self.channel}" if name else ""
        """How scripts announce what changed in a partition with a tag: the command and the channel."""
        self.pattern = self.tag + "leaderboard:*"
        """What matches every key of the partition, and none of another."""
        self.kept = (self.epoch.encode(), *(() if partition else (self.ledger.encode(), LIMITS.encode())))
        """How keys begin that a rebuild leaves alone."""
        self._of_users = self.tag + "leaderboard:users:"

    def user(self, user_id: int) -> str:
        """Key of the Hash with a user's profile: what boards show of the user besides scores."""
        return f"{self._of_users}{user_id}"

    def definition(self, slug: str) -> str:
        """Key of the number of the rule by which a leaderboard's boards are made; the published ones need none."""
        return f"{self.tag}leaderboard:definition:{slug}"

    def scores(self, board: Board) -> str:
        """Key of the Sorted Set member -> score. The member is the user id; where the moment decides between equal
        scores, see `members`."""
        return f"{self.tag}leaderboard:user_scores:{board.id}"

    def version(self, board: Board) -> str:
        """Key of the board's change counter."""
        return f"{self.tag}leaderboard:version:{board.id}"

    def versions(self, board: Board) -> str:
        """Key of the Hash user id -> version of the row that was applied last; see `members`."""
        return f"{self.tag}leaderboard:versions:{board.id}"

    def metadata(self, board: Board) -> str:
        """Key of the Hash user id -> the counting submission's metadata as JSON; of boards that show it."""
        return f"{self.tag}leaderboard:metadata:{board.id}"

    def cache(self, board: Board) -> str:
        """Key of a closed board's top 100 as JSON."""
        return f"{self.tag}leaderboard:cache_top_100:{board.id}"

    def channel_of(self, board: Board) -> str:
        """Channel on which changes of this board are announced."""
        return self.channel if self.tag else CHANNEL_PREFIX + board.id


def expire_at(board: Board) -> int:
    """Unix time, in seconds, at which a board's keys leave the store; 0 for never."""
    return 0 if board.ends is None else int((board.ends + EXPIRY_GRACE).timestamp())
