"""Announcements: says on the store's channels that a board changed, and hears what others say there.

Owns what a message on `leaderboard:changes:*` means. Must never raise because of a message: anybody may have sent it.
Assumes that the scripts which change live boards announce those themselves.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

import orjson

from realtime.boards.standings import Position
from realtime.store.keys import CHANNEL_PATTERN, CHANNEL_PREFIX

if TYPE_CHECKING:
    from realtime.store.link import Link


class Announcement(NamedTuple):
    """One message from `leaderboard:changes:*`."""

    board: str | None
    """None where users' names changed."""
    position: Position | None
    """The position that the board has reached; None where the message names none."""


class Announcements:
    """Announces and hears changes through the process's link to the store. Raises StoreUnavailable and its kin."""

    def __init__(self, link: Link) -> None:
        self._link = link

    @asynccontextmanager
    async def hearing(self) -> AsyncIterator[AsyncIterator[Announcement]]:
        """Subscribes to `leaderboard:changes:*` before the block is entered; the block reads what is announced.

        The iterator ends with StoreUnavailable where the connection breaks, or leaves a ping without an answer for
        longer than the time-out: so a connection of which one half is gone is found.
        """
        with self._link.mapped():
            async with aclosing(self._link.checked.listen(CHANNEL_PATTERN, self._link.timeout)) as messages:
                await anext(messages)
                yield self._heard(messages)

    async def _heard(self, messages: AsyncIterator[list[bytes]]) -> AsyncIterator[Announcement]:
        with self._link.mapped():
            async for _, channel, text in messages:
                yield as_announcement(channel.decode(errors="replace").removeprefix(CHANNEL_PREFIX), text)


def as_announcement(topic: str, text: bytes) -> Announcement:
    """The announcement that a message is, on the channel whose name ends with `topic`."""
    board, position = None if topic == "users" else topic, None
    with suppress(ValueError, TypeError, KeyError):
        said = orjson.loads(text)
        position = Position(str(said["epoch"]), int(said["version"]))
    return Announcement(board, position)
