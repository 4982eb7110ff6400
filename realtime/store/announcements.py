"""Announcements: says on the store's channels that a board changed, and hears what others say there.

Owns what a message on `leaderboard:changes:*`, or on `{p07}leaderboard:changes`, means; on a cluster every partition
has a channel of the second kind, the published content `{default}leaderboard:changes`. Must never raise because of a
message: anybody may have sent it. Assumes that the scripts which change live boards announce those themselves.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

import orjson

from realtime.boards.standings import Position
from realtime.store.keys import CHANNEL_PATTERN, CHANNEL_PREFIX, partition_of_channel

if TYPE_CHECKING:
    from realtime.store.link import Link


class Announcement(NamedTuple):
    """What a message says of one thing that changed."""

    board: str | None
    """A board's id; None where users' names changed."""
    position: Position | None
    """The position that the board has reached; None where the message names none."""
    partition: str = ""
    """Where it happened; '' for the published content."""


class Announcements:
    """Hears changes through the process's links to the store. Raises StoreUnavailable and its kin."""

    def __init__(self, link: Link, link_of: Callable[[str], Link] | None = None) -> None:
        self._link = link
        self._link_of = link_of

    @asynccontextmanager
    async def hearing(self, partition: str = "") -> AsyncIterator[AsyncIterator[Announcement]]:
        """Subscribes to what is announced of a partition before the block is entered; the block reads it.

        Of the published content on one store that is `leaderboard:changes:*`. The iterator ends with StoreUnavailable
        where the connection breaks, leaves a ping without an answer for longer than the time-out (so a connection of
        which one half is gone is found), or where a cluster moves the partition to another node.
        """
        link = self._link if not partition or self._link_of is None else self._link_of(partition)
        pattern = link.keys.channel if link.keys.tag else CHANNEL_PATTERN
        with link.mapped():
            heard = link.checked.listen(pattern, link.timeout, sharded=link.keys.clustered)
            async with aclosing(heard) as messages:
                await anext(messages)
                yield self._heard(link, messages)

    async def _heard(self, link: Link, messages: AsyncIterator[list[bytes]]) -> AsyncIterator[Announcement]:
        with link.mapped():
            async for _, channel, text in messages:
                for announcement in announced(channel.decode(errors="replace"), text):
                    yield announcement


def announced(channel: str, text: bytes) -> Sequence[Announcement]:
    """What a message on a channel says: of a partition's boards it may name several."""
    partition = partition_of_channel(channel)
    topic, said, position = None if partition is not None else channel.removeprefix(CHANNEL_PREFIX), {}, None
    with suppress(ValueError, TypeError, KeyError):
        said = orjson.loads(text)
        position = Position(str(said["epoch"]), int(said["version"]))
    if partition is None:
        return (Announcement(None if topic == "users" else topic, position),)
    with suppress(ValueError, TypeError, KeyError, AttributeError):
        epoch = str(said["epoch"])
        return [Announcement(board, Position(epoch, int(at)), partition) for board, at in said["boards"].items()]
    board = said.get("board") if isinstance(said, dict) else None
    return (Announcement(board if isinstance(board, str) else None, position, partition),)
