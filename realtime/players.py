"""Players: the users behind the names in a score file.

Owns the rule which user an imported name means: the one whose address is made from that name, and no other. Names are
not unique; whoever registered a name first must not inherit its history. Must never let such a user log in, nor make a
deleted one anew: the address stays taken.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from typing import Any, Final, Protocol

from realtime.accounts import IMPORT_DOMAIN
from realtime.errors import LedgerUnavailable

KNOWN: Final = 100_000
"""Names remembered; beyond, all are forgotten and asked for again."""

ATTEMPTS: Final = 5


class Ledger(Protocol):
    """What players need of PostgreSQL."""

    async def fetch(self, name: str, *args: Any) -> list[Any]: ...


def address_of(username: str) -> str:
    """The address that stands for an imported name: the SHA-256 of its UTF-8, where nobody can register."""
    return f"{hashlib.sha256(username.encode()).hexdigest()}@{IMPORT_DOMAIN}"


class Players:
    """Finds users by name, and makes those that are missing."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._known: dict[str, int] = {}
        self.made = 0
        """Users made so far."""

    async def of(self, usernames: Collection[str]) -> dict[str, int]:
        """The user id of each name; a deleted player keeps theirs. Raises LedgerUnavailable."""
        if len(self._known) > KNOWN:
            self._known.clear()
        missing = {username for username in usernames if username not in self._known}
        for _ in range(ATTEMPTS):
            if not missing:
                return {username: self._known[username] for username in usernames}
            found = await self._ask(missing)
            self._known |= found
            missing -= found.keys()
        raise LedgerUnavailable("players appear and vanish again and again")

    async def _ask(self, usernames: Collection[str]) -> dict[str, int]:
        names = {address_of(username): username for username in usernames}
        found = await self._ledger.fetch("imported_users", list(names), list(names.values()))
        self.made += sum(row["is_new"] for row in found)
        return {names[row["email"]]: row["user_id"] for row in found}
