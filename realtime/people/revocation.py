"""Revocation: tokens that end before they expire, one by one, or all with a restore of the ledger.

Owns this process's copy of the list and who speaks with which token. Must never ask the ledger while a token is being
checked: the list is read anew every two seconds, so that is how long a revoked token may live on. Assumes tokens carry
an id (`jti`, RFC 7519, section 4.1.7); one without cannot be revoked, only expire.

A ledger that was restored has forgotten who was revoked, and may have forgotten of whom a token speaks. So tokens made
before it was are at an end: those with the mark of another generation, and those without one that were issued before.
After a failover whoever knows of revocations puts back those that did not reach the new ledger.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, Protocol

import orjson

from realtime.errors import RealtimeError
from realtime.people.identity import Generation, Identity
from realtime.validation import plain_text

INTERVAL: Final = 2.0
"""Seconds between two looks at the list."""

Lapse = Callable[[RealtimeError], None]


class Ledger(Protocol):
    """What this needs of PostgreSQL."""

    async def fetch(self, name: str, *args: Any) -> list[Any]: ...
    async def settled(self) -> None: ...


class Revocations:
    """Knows which tokens have ended before they expire. `run` keeps the copy current."""

    def __init__(self, ledger: Ledger, generation: Callable[[], Generation] = Generation) -> None:
        self._ledger = ledger
        self._generation = generation
        self._seen = generation()  # by which holders were last checked
        self._revoked: dict[str, datetime] = {}  # until when each would be good
        self._holders: dict[Lapse, Identity] = {}  # who is told, and with which token they speak

    @property
    def generation(self) -> str | None:
        """The mark that tokens made now are to carry."""
        return self._generation().mark

    def check(self, identity: Identity) -> Identity:
        """`identity`, unless its token is at an end: RealtimeError `unauthorized`."""
        if (error := self._end_of(identity)) is not None:
            raise error
        return identity

    def _end_of(self, identity: Identity) -> RealtimeError | None:
        if identity.token_id in self._revoked:
            return RealtimeError("unauthorized", "The token was revoked. Ask for a new one.")
        now = self._generation()
        if identity.generation is not None:
            outlived = identity.generation != now.mark
        else:  # to the second, as tokens say it
            outlived = now.restored_at is not None and identity.issued_at < int(now.restored_at.timestamp())
        if outlived:
            words = "The token is from before the database was restored. Sign in again, or ask for a new one."
            return RealtimeError("unauthorized", words)
        return None

    def hold(self, identity: Identity, lapse: Lapse) -> None:
        """Somebody speaks with that token: `lapse` is called where it comes to an end."""
        self._holders[lapse] = identity

    def release(self, lapse: Lapse) -> None:
        """They no longer do."""
        self._holders.pop(lapse, None)

    async def run(self) -> None:
        """Keeps the copy current until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(INTERVAL)

    async def refresh(self) -> None:
        """Reads the list; whoever speaks with a token that is at an end is told. Raises LedgerUnavailable."""
        now, before = self._generation(), self._revoked
        revoked = dict(await self._ledger.fetch("revoked_tokens"))
        if now != self._seen and (lost := {name: end for name, end in before.items() if name not in revoked}):
            await self._ledger.fetch("revoke_again", list(lost), list(lost.values()))
            revoked |= lost
        moved = now != self._seen or revoked.keys() != before.keys()
        self._revoked, self._seen = revoked, now
        if moved:
            for lapse, identity in list(self._holders.items()):
                if (error := self._end_of(identity)) is not None:
                    lapse(error)

    async def revoke(self, identity: Identity, *, actor: str, reason: str | None) -> None:
        """Takes a token back for good, and leaves a row that says who, what and why. Can be repeated.

        Raises RealtimeError `bad_message` for a token without an id, LedgerUnavailable.
        """
        if identity.token_id is None:
            raise RealtimeError("bad_message", "This token has no id, so it cannot be revoked. Change the key instead.")
        if reason is not None:
            reason = plain_text(reason, "reason", 0, 255)
        detail = {
            "token": identity.token_id,
            "scopes": sorted(identity.scopes),
            "boards": None if identity.boards is None else sorted(identity.boards),
            "reason": reason,
        }
        told = orjson.dumps({name: value for name, value in detail.items() if value is not None}).decode()
        args = (identity.token_id, identity.expires_at, actor, identity.user_id, told)
        await self._ledger.fetch("revoke_token", *args)
        await self._ledger.settled()  # where it was revoked before, nothing was written now
        await self.refresh()
