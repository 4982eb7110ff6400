"""Sessions: the conversations that are under way, whatever carries them.

Owns how a session is made on a connection, and that the connection counts as long as it is there. Must never await once
a connection counts. Assumes that the connection calls its session back, and tells when it is closed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from starlette.requests import HTTPConnection

from realtime.api.services import Services
from realtime.api.session import Limits, Session
from realtime.boards.catalogue import Catalogue
from realtime.broadcast.subscribers import Connection, Subscriber
from realtime.errors import RealtimeError
from realtime.people.authentication import client_address
from realtime.people.identity import Identity


class Carrier(Connection, Protocol):
    """A connection as a session begins on it; see `wire.outlet`."""

    on_drain: Callable[[], None] | None
    on_closed: Callable[[], None] | None
    close_code: int


class Sessions:
    """All of a process."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._limits = Limits(services.settings.max_subscriptions, services.settings.message_rate)
        self._open: set[Session] = set()
        self._visible = _visible(services.leaderboards.current)
        services.leaderboards.on_change.append(self._redefined)

    def _redefined(self, catalogue: Catalogue) -> None:
        """Whoever follows what not everybody may see any more, and may not see it, follows it no longer."""
        before, self._visible = self._visible, _visible(catalogue)
        if any(before.get(slug, visible) != visible for slug, visible in self._visible.items()):
            for session in list(self._open):
                session.drop_unreadable()

    def count(self, request: HTTPConnection) -> str:
        """Counts one more connection; gives the address that it counts for. Raises RealtimeError `too_many`."""
        address = client_address(request)
        if not self._services.connections.enter(address):
            raise RealtimeError("too_many", "Too many connections. Come back later.", retry_after_ms=10_000)
        return address

    def uncount(self, address: str) -> None:
        """A connection that was counted has come to nothing."""
        self._services.connections.leave(address)

    def begin(
        self, request: HTTPConnection, connection: Carrier, identity: Identity | None, address: str
    ) -> tuple[Session, Subscriber]:
        """A session on a connection that counts for `address`, until that is closed."""
        services, settings = self._services, self._services.settings
        subscriber = Subscriber(
            connection,
            buffer_limit=settings.subscriber_buffer_bytes,
            slow_after=settings.slow_after_s,
            on_drained=services.broadcaster.following.caught_up,
        )
        session = Session(
            subscriber,
            services.broadcaster.following,
            services.rank_feed,
            services.admission,
            services.leaderboards,
            services.authentication.verifier(request),
            services.clock,
            identity=identity,
            permissions=services.authentication.permissions,
            holders=services.authentication.revocations,
            limits=self._limits,
            refused=services.refused,
        )
        self._open.add(session)

        def closed() -> None:
            self._open.discard(session)
            self.uncount(address)
            services.closed(connection.close_code)
            session.closed()

        connection.on_drain = subscriber.drained
        connection.on_closed = closed
        return session, subscriber


def _visible(catalogue: Catalogue) -> dict[str, str | None]:
    """Who may see each leaderboard."""
    return {slug: leaderboard.definition.visible for slug, leaderboard in catalogue.leaderboards.items()}
