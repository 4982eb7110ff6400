"""Generation: which past the ledger goes on from.

Owns the watch for a ledger that is a copy: restored from a backup, cloned, or promoted in place of the one before.
Such a ledger has forgotten what it gave out since it was copied, and gives it out again: ids of users, versions of
closed weeks, epochs. Must never let that happen: before anything is given out, all of it moves on, beyond what can have
been given out. Must never end tokens where nothing was forgotten that tokens rest on.

A copy is noticed by its place (the cluster, the database, the table, the timeline), and by what the store remembers of
the ledger: a user or score that was there, and is not. What leaves no such trace an operator says: `realtime restored`.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from dataclasses import dataclass
from typing import Any, Final, Protocol

from realtime.errors import LedgerUnavailable, StoreUnavailable
from realtime.people.identity import Generation

log = logging.getLogger(__name__)

INTERVAL: Final = 1.0
"""Seconds between two looks."""


class Ledger(Protocol):
    """What this needs of PostgreSQL."""

    async def fetch(self, name: str, *args: Any) -> list[Any]: ...


class Store(Protocol):
    """What this needs of the store."""

    @property
    def ledger_seen(self) -> str | None: ...
    async def remember_ledger(self, seen: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Seen:
    """How far a ledger was seen to have come."""

    mark: str
    users: int
    scores: int

    @classmethod
    def parse(cls, text: str | None) -> Seen | None:
        """What `str` makes; None for anything else."""
        parts = (text or "").split(":")
        if len(parts) != 3 or not all(part.isascii() and part.isdigit() and len(part) < 20 for part in parts[1:]):
            return None
        return cls(parts[0], int(parts[1]), int(parts[2]))

    def __str__(self) -> str:
        return f"{self.mark}:{self.users}:{self.scores}"


class Generations:
    """See the module. `current` is what was seen last."""

    def __init__(self, ledger: Ledger, store: Store) -> None:
        self._ledger = ledger
        self._store = store
        self.current = Generation()

    async def run(self) -> None:
        """Looks every second. Never ends by itself."""
        while True:
            try:
                await self.look()
            except LedgerUnavailable as error:
                log.debug("cannot look after the ledger's generation: %s", error)
            await asyncio.sleep(INTERVAL)

    @staticmethod
    async def restored(ledger: Ledger) -> None:
        """What an operator says who has restored a backup. Raises LedgerUnavailable."""
        (row,) = await ledger.fetch("generation")
        if row["mark"] is None:
            await ledger.fetch("generation_begun", secrets.token_hex(6))
            (row,) = await ledger.fetch("generation")
        await _renewed(ledger, row, forgetful=True)

    async def look(self) -> None:
        """Looks where the ledger is, and moves on what a copy would give out again. Raises LedgerUnavailable."""
        # First: what the store remembers by now, the ledger has if it is the one that was seen.
        before = Seen.parse(self._store.ledger_seen)
        (row,) = await self._ledger.fetch("generation")
        if row["here"] is None:
            return  # a standby: nothing is given out there
        if row["place"] is None:
            await self._ledger.fetch("generation_begun", secrets.token_hex(6))
        elif (forgetful := _forgetful(row, before)) or row["here"] != row["place"]:
            await self._renew(row, forgetful=forgetful)
        else:
            self.current = Generation(row["mark"], row["restored_at"], row["place"])
            await self._remember(Seen(row["mark"], row["users"], row["scores"]), before)
            return
        await self.look()

    async def _renew(self, row: Any, *, forgetful: bool) -> None:
        if await _renewed(self._ledger, row, forgetful=forgetful):
            if forgetful:
                log.warning(
                    "PostgreSQL was restored: people must sign in again, and tokens of operators be made anew",
                    extra={"action": "restored"},
                )
            else:
                log.warning("PostgreSQL has failed over, and lacks nothing that was seen", extra={"action": "restored"})

    async def _remember(self, seen: Seen, before: Seen | None) -> None:
        if seen == before:
            return
        try:
            await self._store.remember_ledger(str(seen))
        except StoreUnavailable as error:
            log.debug("the store remembers nothing of the ledger: %s", error)


def _forgetful(row: Any, before: Seen | None) -> bool:
    """Whether something is missing that was there, or nobody knows: it may have been revoked, or have been somebody."""
    known = before is not None and before.mark == row["mark"]
    if before is not None and known and (before.users > row["users"] or before.scores > row["scores"]):
        return True
    if row["here"] == row["place"]:
        return False
    promoted = row["here"].rpartition(":")[0] == row["place"].rpartition(":")[0]
    return not (promoted and known)


async def _renewed(ledger: Ledger, row: Any, *, forgetful: bool) -> bool:
    """Moves everything on, and with `forgetful` ends all tokens; whether nobody else had done that already."""
    mark = secrets.token_hex(6) if forgetful else None
    return bool(await ledger.fetch("generation_renewed", row["mark"], row["place"], mark))
