"""Identity: who somebody is, and what a token lets them do.

Owns the scopes. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

SCOPES: Final = frozenset({"submit", "submit:any", "read", "admin"})
"""submit: own scores, positive. submit:any: everyone's, also negative. read: private boards. admin: all of it."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a token speaks for, what they may do, and until when."""

    user_id: int | None
    scopes: frozenset[str]
    expires_at: datetime
    boards: frozenset[str] | None = None
    """Ids and aliases the token is bound to; None where it is not."""
    token_id: str | None = None
    """Names the token without being one: what is revoked, and what logs may show."""
    generation: str | None = None
    """The mark of the ledger's generation it was made in; None for one that was made without the ledger."""
    issued_at: float = 0.0
    """Seconds since 1970; 0 where it does not say."""
    leaderboards: frozenset[str] | None = None
    """Slugs of the leaderboards that the token is bound to; None where it is not."""

    def may(self, *scopes: str) -> bool:
        """Whether any of `scopes` is held."""
        return not self.scopes.isdisjoint(scopes)

    @property
    def actor(self) -> str:
        """Who this is, in the audit log."""
        if self.user_id is not None:
            return f"user:{self.user_id}"
        return "admin" if self.token_id is None else f"token:{self.token_id}"


@dataclass(frozen=True, slots=True)
class Generation:
    """What tokens are compared with."""

    mark: str | None = None
    """By chance, another one after each restore; None before anybody has looked."""
    restored_at: datetime | None = None
    """When the last restore was noticed, by the ledger's clock."""
    place: str | None = None
    """Where the ledger is; another one after each promotion too."""
