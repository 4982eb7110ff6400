"""Players: the users behind the names in a score file.

Owns the rule which user an imported name means: the one whose address is made from that name, and no other. Names are
not unique; whoever registered a name first must not inherit its history. A name is one however its accents are written;
but two that are two players already stay two. Must never let such a user log in, nor make a deleted one anew: the
address stays taken.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Set
from typing import Any, Final, Protocol

from realtime.errors import LedgerUnavailable
from realtime.people.accounts import IMPORT_DOMAIN
from realtime.people.normal_forms import composed, writings

KNOWN: Final = 100_000
"""Names remembered; beyond, all are forgotten and asked for again."""

ATTEMPTS: Final = 5


class Ledger(Protocol):
    """What players need of PostgreSQL."""

    async def fetch(self, name: str, *args: Any) -> list[Any]: ...


def imported_email(username: str) -> str:
    """The address that stands for an imported name: the SHA-256 of its UTF-8, composed, where nobody can register."""
    return _digest(composed(username))


def _digest(text: str) -> str:
    return f"{hashlib.sha256(text.encode()).hexdigest()}@{IMPORT_DOMAIN}"


class ImportedPlayers:
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

    async def _ask(self, usernames: Set[str]) -> dict[str, int]:
        known = await self._of_before({username for username in usernames if len(writings(username)) > 1})
        shown: dict[str, str] = {}  # by address, the composed name where it is among them
        for username in sorted(usernames - known.keys(), key=lambda name: name != composed(name)):
            shown.setdefault(imported_email(username), username)
        found = await self._ledger.fetch("imported_users", list(shown), list(shown.values()))
        self.made += sum(row["is_new"] for row in found)
        users = {row["email"]: row["user_id"] for row in found}
        asked = {username: users.get(imported_email(username)) for username in usernames - known.keys()}
        return known | {username: user_id for username, user_id in asked.items() if user_id is not None}

    async def _of_before(self, usernames: Collection[str]) -> dict[str, int]:
        """Who of these is there under a writing of their own, as an earlier version made them."""
        if not usernames:
            return {}
        addresses = {username: [_digest(text) for text in writings(username)] for username in usernames}
        asked = [address for several in addresses.values() for address in several]
        users = dict(await self._ledger.fetch("users_of_addresses", asked))
        found = {
            username: next((users[address] for address in several if address in users), None)
            for username, several in addresses.items()
        }
        return {username: user_id for username, user_id in found.items() if user_id is not None}
