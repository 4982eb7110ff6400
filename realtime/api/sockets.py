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
from realtime.api.sessions import Sessions
from realtime.errors import RealtimeError
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

    def __init__(self, services: Services, sessions: Sessions) -> None:
        self._services = services
        self._sessions = sessions

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
        try:
            address = self._sessions.count(request)
        except RealtimeError as full:
            return self._turn_away(connection, close_codes.CloseCode.LIMITS, full)
        session, _ = self._sessions.begin(request, connection, identity, address)
        connection.on_text = session.receive
        connection.on_violation = session.violated
        connection.detach()
        connection.accept(session.greeting())

    def _turn_away(self, connection: Connection, code: int, error: RealtimeError) -> None:
        self._services.refused(error.code)
        self._services.closed(code)
        connection.accept(Frame(messages.error(error)))
        connection.close(code, error.code)


def routes() -> list[BaseRoute]:
    """The same address for those who ask for no WebSocket."""
    return [Route(PATH, _upgrade_required, methods=["GET"], include_in_schema=False)]


async def _upgrade_required(request: Request) -> None:
    raise HTTPException(426, _NO_UPGRADE, _TO_WEBSOCKET)
