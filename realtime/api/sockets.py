"""Route of the socket: from a handshake to a session.

Owns who gets in. Must never await once a connection counts, nor stay with it: from then on the connection calls its
session back. Assumes that `wire.connection` serves the socket.
"""

from __future__ import annotations

from typing import Final

from starlette._utils import get_route_path
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from realtime.api.services import Services
from realtime.api.session import Limits, Session
from realtime.boards.catalogue import Catalogue
from realtime.broadcast.subscribers import Subscriber
from realtime.errors import RealtimeError
from realtime.people.authentication import client_address
from realtime.wire import close_codes, messages
from realtime.wire.connection import Connection
from realtime.wire.frames import Frame

PATH: Final = "/ws"

_NO_UPGRADE: Final = (
    "This address speaks WebSocket, and this request asks for none. Where your client asked for one, a proxy in "
    "between took that out: it must pass the fields Upgrade and Connection on (see /docs/nginx.conf)."
)
_TO_WEBSOCKET: Final = {"upgrade": "websocket", "connection": "Upgrade"}


class SocketRoute:
    """An ASGI application for sockets, without the layers that only answers over HTTP need."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._limits = Limits(services.settings.max_subscriptions, services.settings.message_rate)
        self._sessions: set[Session] = set()
        self._visible = _visible(services.leaderboards.current)
        services.leaderboards.on_change.append(self._redefined)

    def _redefined(self, catalogue: Catalogue) -> None:
        """Whoever follows what not everybody may see any more, and may not see it, follows it no longer."""
        before, self._visible = self._visible, _visible(catalogue)
        if any(before.get(slug, visible) != visible for slug, visible in self._visible.items()):
            for session in list(self._sessions):
                session.drop_unreadable()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Accepts, and leaves the connection to its session: from then on there is no task for it."""
        if get_route_path(scope) != PATH:
            return await send({"type": "websocket.close"})  # 403
        connection = scope["extensions"].get("realtime.connection")
        if not isinstance(connection, Connection):
            raise RuntimeError("serve with uvicorn --ws realtime.wire.connection:Connection")
        await receive()
        # From here on nothing is awaited: what is counted now is sure to be counted off when the connection ends.
        if not connection.disconnected:
            self._enter(HTTPConnection(scope), connection)

    def _enter(self, request: HTTPConnection, connection: Connection) -> None:
        try:
            identity = self._services.authentication.at_handshake(request)
        except RealtimeError as error:
            return self._turn_away(connection, close_codes.CloseCode.AUTHENTICATION, error)
        address = client_address(request)
        if not self._services.connections.enter(address):
            full = RealtimeError("too_many", "Too many connections. Come back later.", retry_after_ms=10_000)
            return self._turn_away(connection, close_codes.CloseCode.LIMITS, full)
        settings = self._services.settings
        subscriber = Subscriber(
            connection,
            buffer_limit=settings.subscriber_buffer_bytes,
            slow_after=settings.slow_after_s,
            on_drained=self._services.broadcaster.following.caught_up,
        )
        session = Session(
            subscriber,
            self._services.broadcaster.following,
            self._services.rank_feed,
            self._services.admission,
            self._services.leaderboards,
            self._services.authentication.verifier(request),
            self._services.clock,
            identity=identity,
            permissions=self._services.authentication.permissions,
            holders=self._services.authentication.revocations,
            limits=self._limits,
            refused=self._services.refused,
        )
        self._sessions.add(session)

        def closed() -> None:
            self._sessions.discard(session)
            self._services.connections.leave(address)
            self._services.closed(connection.close_code)
            session.closed()

        connection.on_text = session.receive
        connection.on_violation = session.violated
        connection.on_drain = subscriber.drained
        connection.on_closed = closed
        connection.detach()
        connection.accept(session.greeting())

    def _turn_away(self, connection: Connection, code: int, error: RealtimeError) -> None:
        self._services.refused(error.code)
        self._services.closed(code)
        connection.accept(Frame(messages.error(error)))
        connection.close(code, error.code)


def _visible(catalogue: Catalogue) -> dict[str, str | None]:
    """Who may see each leaderboard."""
    return {slug: leaderboard.definition.visible for slug, leaderboard in catalogue.leaderboards.items()}


def routes() -> list[BaseRoute]:
    """The same address for those who ask for no WebSocket."""
    return [Route(PATH, _upgrade_required, methods=["GET"], include_in_schema=False)]


async def _upgrade_required(request: Request) -> None:
    raise HTTPException(426, _NO_UPGRADE, _TO_WEBSOCKET)
