"""Claims: which content of a partition is current, by the ledger's word.

Owns the questions that are asked of it. Must never decide which content may be used: the rebuilder does. Assumes that
the published content is named in `generation`, where a restore of the ledger is, and every other in `contents`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple, Protocol


class Ledger(Protocol):
    """What claims need of PostgreSQL."""

    async def fetch(self, name: str, *args: Any) -> list[Any]: ...


class Named(NamedTuple):
    """What the ledger says of a partition's content."""

    epoch: str | None
    """The content that is current; '' for none, None where nobody has said yet."""
    used_at: datetime | None
    used_lately: bool
    stray: str | None
    """Other content that somebody reaches these days in its place; None where nobody does."""


class Claims:
    """One partition's. Raises LedgerUnavailable."""

    def __init__(self, ledger: Ledger, partition: str = "") -> None:
        self._ledger = ledger
        self._partition = partition

    async def _fetch(self, of_published: str, of_others: str, *args: Any) -> list[Any]:
        if self._partition:
            return await self._ledger.fetch(of_others, self._partition, *args)
        return await self._ledger.fetch(of_published, *args)

    async def named_now(self) -> Named:
        """Which content is current."""
        ((epoch, used_at, used_lately, stray),) = await self._fetch("content_named_now", "contents_named_now")
        return Named(epoch, used_at, used_lately, stray)

    async def used(self, epoch: str | None) -> None:
        """The current content is in use, and it is that of `epoch` where nobody has said yet which one it is."""
        await self._fetch("content_used", "contents_used", epoch)

    async def strayed(self, epoch: str | None) -> None:
        """This process reaches content of `epoch`, which is not the current one."""
        await self._fetch("content_strayed", "contents_strayed", epoch)

    async def claimed(self) -> int:
        """A number for whoever makes the content anew, higher than any before."""
        ((claim,),) = await self._fetch("content_claimed", "contents_claimed")
        return int(claim)

    async def named(self, epoch: str, claim: int) -> bool:
        """Makes content that was made under `claim` the current one; False where a later claim was made good."""
        return bool(await self._fetch("content_named", "contents_named", epoch, claim))
