"""Tokens: JSON Web Tokens (RFC 7519) through PyJWT.

Owns what a token says and how it is checked. Must never let the token choose its algorithm (RFC 8725, section 3.1),
nor put a token into an error. Assumes a secret of at least 32 bytes (RFC 7518, section 3.2).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import jwt

from realtime.errors import RealtimeError, StartupError
from realtime.submissions import ID_MAX

ALGORITHM: Final = "HS256"
SECRET_BYTES: Final = 32

SCOPES: Final = frozenset({"submit", "submit:any", "read", "admin"})
"""submit: own scores, positive. submit:any: everyone's, also negative. read: private boards. admin: all of it."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a token speaks for, what they may do, and until when."""

    user_id: int | None
    scopes: frozenset[str]
    expires_at: datetime

    def may(self, *scopes: str) -> bool:
        """Whether any of `scopes` is held."""
        return not self.scopes.isdisjoint(scopes)


class Tokens:
    """Makes and checks tokens with one secret."""

    def __init__(self, secret: str) -> None:
        if len(secret.encode()) < SECRET_BYTES:
            raise StartupError(f"REALTIME_SECRET must have at least {SECRET_BYTES} bytes.")
        self._secret = secret

    def mint(
        self, user_id: int | None, scopes: Collection[str], now: datetime, lifetime: timedelta
    ) -> tuple[str, datetime]:
        """A token and the moment it ends. Raises RealtimeError `bad_message` for a scope there is not."""
        unknown = set(scopes) - SCOPES
        if unknown:
            raise RealtimeError("bad_message", f"Unknown scope. Known are: {', '.join(sorted(SCOPES))}.")
        expires_at = (now + lifetime).replace(microsecond=0)
        claims: dict[str, Any] = {
            "iat": int(now.timestamp()),
            "exp": int(expires_at.timestamp()),
            "scope": " ".join(sorted(scopes)),
        }
        if user_id is not None:
            claims["sub"] = str(user_id)
        return jwt.encode(claims, self._secret, algorithm=ALGORITHM), expires_at

    def verify(self, token: str, now: datetime) -> Identity:
        """Whom a token speaks for. Raises RealtimeError `expired` or `unauthorized`.

        Time is the argument's, which is PostgreSQL's, and not the host's.
        """
        try:
            claims = jwt.decode(
                token,
                self._secret,
                algorithms=[ALGORITHM],
                options={"require": ["exp"], "verify_exp": False, "verify_nbf": False, "verify_iat": False},
            )
            expires_at = datetime.fromtimestamp(int(claims["exp"]), UTC)
            user_id = None if claims.get("sub") is None else int(claims["sub"])
            scopes = frozenset(str(claims.get("scope", "")).split())
            begins = int(claims.get("nbf", 0))
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, OSError):
            raise RealtimeError("unauthorized", "The token is not valid. Ask for a new one.") from None
        if user_id is not None and not 1 <= user_id <= ID_MAX:
            raise RealtimeError("unauthorized", "The token is not valid. Ask for a new one.")
        if now >= expires_at:
            raise RealtimeError("expired", "The token has expired. Ask for a new one.")
        if begins > now.timestamp():
            raise RealtimeError("unauthorized", "The token is not valid yet.")
        return Identity(user_id, scopes & SCOPES, expires_at)
