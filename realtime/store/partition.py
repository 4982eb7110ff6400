"""Partition: the content of one partition, complete or not.

Owns the link that leads there. Must never touch another partition. Assumes that whoever gives it boards has looked that
they are of this one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from realtime.boards.board import Board
from realtime.store.keys import FILLING
from realtime.store.places import Places
from realtime.store.reading import Reading
from realtime.store.writing import Writing

if TYPE_CHECKING:
    from realtime.boards.standings import Profile, Row
    from realtime.store.fitness import Content
    from realtime.store.link import Link


class Partition:
    """One partition's content, through its `link`."""

    def __init__(self, link: Link) -> None:
        places = Places(link.keys)
        self.link = link
        self.name = link.keys.partition
        self.reading = Reading(link, places)
        self.writing = Writing(link, places)

    @property
    def told(self) -> str | None:
        """The epoch that the adopted content has, or will have once it is complete: a write now becomes part of it."""
        epoch = self.link.epoch
        return None if epoch is None else epoch.removeprefix(FILLING)

    # What a rebuild needs ----------------------------------------------------------------------------------------

    @property
    def distrusted(self) -> str | None:
        """The epoch of content that must not be used, though it says that it is ours; None where there is none."""
        return self.link.distrusted

    @property
    def is_complete(self) -> bool:
        """Whether the adopted content may be read."""
        return self.link.is_complete

    @property
    def is_fit(self) -> bool:
        """See `Link.is_fit`."""
        return self.link.is_fit

    async def adopt(self) -> Content:
        """See `Link.adopt`."""
        return await self.link.adopt()

    def distrust(self, why: str = "foreign") -> None:
        """See `Link.distrust`."""
        self.link.distrust(why)

    def leave(self, epoch: str) -> None:
        """See `Link.leave`."""
        self.link.leave(epoch)

    async def apply(
        self, rows: Mapping[Board, Sequence[Row]], profiles: Sequence[Profile] = (), *, epoch: str | None = None
    ) -> int:
        """See `Store.apply`."""
        return await self.writing.apply(rows, profiles, epoch=epoch)
