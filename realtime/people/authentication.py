"""Authentication: who is at the other end of a request or a handshake.

Owns the way from headers to an identity, and to the address that limits count. Must never put a token into an error or
a log, nor take one from a page of a foreign origin. Assumes that the scope's client is the real one
(see `api.middleware`).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from datetime import datetime

from starlette.requests import HTTPConnection

from realtime.errors import RealtimeError
from realtime.origins import Origins
from realtime.people.identity import Identity
from realtime.people.permissions import Permissions
from realtime.people.revocation import Revocations
from realtime.people.tokens import Tokens


class Authentication:
    """Tells who speaks. `permissions` says what an identity may then do."""

    def __init__(
        self,
        tokens: Tokens,
        revocations: Revocations,
        permissions: Permissions,
        origins: Origins,
        now: Callable[[], datetime],
    ) -> None:
        self.permissions = permissions
        self.revocations = revocations
        self._tokens = tokens
        self._origins = origins
        self._now = now

    def verify(self, token: str) -> Identity:
        """Whom a token speaks for now. Raises RealtimeError `expired` or `unauthorized`, LedgerUnavailable."""
        return self.revocations.check(self._tokens.verify(token, self._now()))

    def identity(self, request: HTTPConnection) -> Identity | None:
        """Whom a request's Authorization header speaks for; None without one."""
        token = bearer(request)
        return self.verify(token) if token else None

    def at_handshake(self, socket: HTTPConnection) -> Identity | None:
        """The same for a socket, which may name its token in the address too: browsers give sockets no headers."""
        token = bearer(socket) or socket.query_params.get("token")
        return self.verifier(socket)(token) if token else None

    def verifier(self, socket: HTTPConnection) -> Callable[[str], Identity]:
        """What checks tokens that come over `socket`: they count only where its page may speak for somebody."""
        return self.verify if self._origins.trusts(socket.headers) else _foreign


def bearer(connection: HTTPConnection) -> str | None:
    """The token of the Authorization header (RFC 6750, section 2.1), if there is one.

    Raises RealtimeError `unauthorized` for a token without its scheme.
    """
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    if not token and scheme.count(".") == 2:  # the form of our tokens: whoever sends one means to be known
        raise RealtimeError("unauthorized", "Write `Authorization: Bearer TOKEN`: the word Bearer is missing.")
    return token.strip() if scheme.lower() == "bearer" and token else None


def _foreign(token: str) -> Identity:
    raise RealtimeError("forbidden", "Tokens count only from this server's own pages, and from REALTIME_ORIGINS.")


def client_address(connection: HTTPConnection) -> str:
    """The client's address as limits count it: of IPv6 the network (/64), which is one customer's."""
    host = connection.client.host if connection.client else ""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host[:64]
    if address.version == 4:
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))
