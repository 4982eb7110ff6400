"""Revocation: tokens that were taken back before they expired.

Owns this process's copy of the list and who speaks with which token. Must never ask the ledger while a token is being
checked: the list is read anew every two seconds, so that is how long a revoked token may live on. Assumes tokens carry
an id (`jti`, RFC 7519, section 4.1.7); one without cannot be revoked, only expire.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, Protocol

import orjson

from realtime.errors import RealtimeError
from realtime.submissions import plain_text
from realtime.tokens import Identity

INTERVAL: Final = 2.0
"""Seconds between two looks at the list."""

Lapse = Callable[[RealtimeError], None]


class Ledger(Protocol):
    """What this needs of PostgreSQL."""

    async def fetch(self, name: str, *args: Any) -> list[Any]: ...


class Revocations:
    """See the module. `run` keeps the copy current."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._revoked: frozenset[str] = frozenset()
        self._holders: dict[str, set[Lapse]] = {}  # by token id; who is told

    def check(self, identity: Identity) -> Identity:
        """`identity`, unless its token was revoked: RealtimeError `unauthorized`."""
        if identity.token_id in self._revoked:
            raise _revoked()
        return identity

    def hold(self, token_id: str, lapse: Lapse) -> None:
        """Somebody speaks with that token: `lapse` is called where it is revoked."""
        self._holders.setdefault(token_id, set()).add(lapse)

    def release(self, token_id: str, lapse: Lapse) -> None:
        """They no longer do."""
        holders = self._holders.get(token_id, set())
        holders.discard(lapse)
        if not holders:
            self._holders.pop(token_id, None)

    async def run(self) -> None:
        """Keeps the copy current until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(INTERVAL)

    async def refresh(self) -> None:
        """Reads the list; whoever speaks with a token on it is told. Raises LedgerUnavailable."""
        self._revoked = frozenset(row["token_id"] for row in await self._ledger.fetch("revoked_tokens"))
        for token_id in self._revoked & self._holders.keys():
            for lapse in list(self._holders[token_id]):
                lapse(_revoked())

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
        await self.refresh()


def _revoked() -> RealtimeError:
    return RealtimeError("unauthorized", "The token was revoked. Ask for a new one.")
