"""Tokens: JSON Web Tokens (RFC 7519) through PyJWT.

Owns what a token says, the keys it may be signed with, and how it is checked. Must never let a token choose its
algorithm (RFC 8725, section 3.1): each key has one, and no other. Must never put a token into an error. Assumes secrets
of at least 32 bytes (`settings` sees to it) and public keys, as a JSON Web Key Set (RFC 7517), that somebody else signs
for.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from realtime.boards.submissions import CLOCK_GRACE
from realtime.errors import RealtimeError, StartupError
from realtime.people.identity import SCOPES, Identity
from realtime.settings import Settings, secret_parts
from realtime.validation import ID_MAX

RSA_BITS: Final = 2048
"""RFC 7518, section 3.3."""

TOKEN_LENGTH: Final = 8_192
"""Characters. A longer one is not even looked at."""


_ALGORITHMS: Final = {("RSA", None): "RS256", ("EC", "P-256"): "ES256", ("OKP", "Ed25519"): "EdDSA"}
"""What a public key verifies, by its type and curve."""


@dataclass(frozen=True, slots=True)
class Key:
    """What verifies signatures of one algorithm. `kid` is the name by which tokens ask for it."""

    algorithm: str
    value: Any = field(repr=False)
    kid: str | None = None


def secret_keys(secret: str) -> list[Key]:
    """The keys in REALTIME_SECRET: one, or several with commas in between while they are being rotated.

    Raises StartupError where one is too short, without saying which text it was.
    """
    try:
        return [Key("HS256", part) for part in secret_parts(secret)]
    except ValueError as error:
        raise StartupError(f"REALTIME_SECRET {error}.") from None


def public_keys(text: str) -> list[Key]:
    """The keys of a JSON Web Key Set. Raises StartupError where one is unfit: none is skipped silently."""
    try:
        members = json.loads(text)["keys"]
        keys = [_public_key(member) for member in members if member.get("use", "sig") == "sig"]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise StartupError('REALTIME_JWKS_FILE must hold {"keys":[...]} (RFC 7517).') from None
    if not keys:
        raise StartupError("REALTIME_JWKS_FILE holds no key for signatures.")
    return keys


def _public_key(member: dict[str, Any]) -> Key:
    kid = member.get("kid")
    if "d" in member or member.get("kty") == "oct":
        raise StartupError("REALTIME_JWKS_FILE holds a private key or a secret: give public keys alone.")
    algorithm = _ALGORITHMS.get((member["kty"], member.get("crv")))
    if algorithm is None or member.get("alg", algorithm) != algorithm:
        raise StartupError(f"REALTIME_JWKS_FILE: use RS256, ES256 (P-256) or EdDSA (Ed25519), not key {kid!r}.")
    try:
        value = jwt.PyJWK(member, algorithm).key
    except jwt.PyJWTError:
        raise StartupError(f"REALTIME_JWKS_FILE: key {kid!r} cannot be read.") from None
    if isinstance(value, RSAPublicKey) and value.key_size < RSA_BITS:
        raise StartupError(f"REALTIME_JWKS_FILE: RSA key {kid!r} has less than {RSA_BITS} bits.")
    return Key(algorithm, value, kid)


def read_keys(secret: str, jwks_file: str) -> list[Key]:
    """Every key that these settings name. Raises StartupError."""
    keys = secret_keys(secret)
    if jwks_file:
        try:
            keys += public_keys(Path(jwks_file).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError):
            raise StartupError("REALTIME_JWKS_FILE: the file cannot be read.") from None
    return keys


class Tokens:
    """Makes tokens with the first secret, checks them with any key. Without a secret it only checks."""

    def __init__(self, keys: Sequence[Key], *, audience: str | None = None, issuer: str | None = None) -> None:
        if not keys:
            raise StartupError("Set REALTIME_SECRET or REALTIME_JWKS_FILE.")
        self._keys = list(keys)
        self._audience = audience or None
        self._issuer = issuer or None

    @classmethod
    def of(cls, settings: Settings) -> Tokens:
        """With the keys and rules of a deployment. Raises StartupError."""
        keys = read_keys(settings.secret.reveal(), settings.jwks_file)
        return cls(keys, audience=settings.token_audience, issuer=settings.token_issuer)

    def mint(
        self,
        user_id: int | None,
        scopes: Collection[str],
        now: datetime,
        lifetime: timedelta,
        *,
        boards: Collection[str] = (),
        leaderboards: Collection[str] = (),
        generation: str | None = None,
    ) -> tuple[str, datetime]:
        """A token and the moment it ends. It is bound to `boards` and to `leaderboards` where there are any, and to a
        generation of the ledger.

        Raises RealtimeError `bad_message` for a scope there is not, `forbidden` where tokens are made elsewhere.
        """
        unknown = set(scopes) - SCOPES
        if unknown:
            raise RealtimeError("bad_message", f"Unknown scope. Known are: {', '.join(sorted(SCOPES))}.")
        signing = next((key for key in self._keys if key.algorithm == "HS256"), None)
        if signing is None:
            raise RealtimeError("forbidden", "Tokens are not made here: ask who signs them.")
        try:
            expires_at = (now + lifetime).replace(microsecond=0)
        except OverflowError:
            raise RealtimeError("out_of_range", "No token lives that long.") from None
        claims: dict[str, Any] = {
            "iat": int(now.timestamp()),
            "exp": int(expires_at.timestamp()),
            "scope": " ".join(sorted(scopes)),
            "jti": secrets.token_hex(8),
            "sub": None if user_id is None else str(user_id),
            "boards": sorted(boards) or None,
            "leaderboards": sorted(leaderboards) or None,
            "gen": generation,
            "aud": self._audience,
            "iss": self._issuer,
        }
        said = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(said, signing.value, algorithm=signing.algorithm), expires_at

    def verify(self, token: str, now: datetime) -> Identity:
        """Whom a token speaks for. Raises RealtimeError `expired` or `unauthorized`.

        Time is the argument's, which is PostgreSQL's, and not the host's. Whoever signs elsewhere has a clock of their
        own, so a token may be used CLOCK_GRACE before its nbf; iat decides nothing.
        """
        identity, begins = _identity(self._claims(token))
        if now >= identity.expires_at:
            raise RealtimeError("expired", "The token has expired. Ask for a new one.")
        if not begins <= (now + CLOCK_GRACE).timestamp():
            raise RealtimeError("unauthorized", "The token is not valid yet.")
        return identity

    def _claims(self, token: str) -> dict[str, Any]:
        """What a token says, once its signature, audience and issuer are known to be right."""
        if len(token) > TOKEN_LENGTH:
            raise _invalid()
        try:
            kid = jwt.get_unverified_header(token).get("kid")
        except (jwt.PyJWTError, ValueError):  # a lone surrogate is a ValueError
            raise _invalid() from None
        named = [key for key in self._keys if kid is not None and key.kid == kid]
        for key in named or [key for key in self._keys if key.kid is None]:
            try:
                return jwt.decode(
                    token,
                    key.value,
                    algorithms=[key.algorithm],
                    audience=self._audience,
                    issuer=self._issuer,
                    options={
                        "require": ["exp"] + ["aud"] * bool(self._audience) + ["iss"] * bool(self._issuer),
                        "verify_exp": False,
                        "verify_nbf": False,
                        "verify_iat": False,
                    },
                )
            except (jwt.PyJWTError, ValueError, TypeError):
                continue
        raise _invalid()


def _identity(claims: dict[str, Any]) -> tuple[Identity, float]:
    """What claims come to, and from when on they hold. Raises RealtimeError `unauthorized` for nonsense."""
    try:
        expires_at = datetime.fromtimestamp(int(claims["exp"]), UTC)
        begins = float(claims.get("nbf", 0))
        issued_at = float(claims.get("iat") or 0)
    except (ValueError, TypeError, OverflowError, OSError):
        raise _invalid() from None
    scope = claims.get("scope", "")
    token_id, generation = claims.get("jti"), claims.get("gen")
    if type(scope) is not str or not all(text is None or type(text) is str for text in (token_id, generation)):
        raise _invalid()
    boards, leaderboards = _bound(claims.get("boards")), _bound(claims.get("leaderboards"))
    scopes = frozenset(scope.split()) & SCOPES
    user_id = _user_id(claims.get("sub"))
    identity = Identity(user_id, scopes, expires_at, boards, token_id, generation, issued_at, leaderboards)
    return identity, begins


def _bound(names: Any) -> frozenset[str] | None:
    """What a token is bound to; None where it is not."""
    if names is None:
        return None
    if type(names) is not list or not all(type(name) is str for name in names):
        raise _invalid()
    return frozenset(names)


def _user_id(subject: Any) -> int | None:
    if subject is None:
        return None
    # In one spelling alone: what compares as text elsewhere must not be two.
    if type(subject) is not str or not (subject.isascii() and subject.isdigit() and len(subject) <= 16):
        raise _invalid()
    user_id = int(subject)
    if str(user_id) != subject or not 1 <= user_id <= ID_MAX:
        raise _invalid()
    return user_id


def _invalid() -> RealtimeError:
    return RealtimeError("unauthorized", "The token is not valid. Ask for a new one.")
