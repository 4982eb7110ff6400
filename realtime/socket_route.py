"""Route of the socket: from a handshake to a session.

Owns who gets in. Must never await once a connection counts, nor stay with it: from then on its session is called back.
"""

from __future__ import annotations

from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket

from realtime import wire
from realtime.access import address_of
from realtime.connection import Connection
from realtime.errors import RealtimeError
from realtime.frames import Frame
from realtime.services import Services
from realtime.session import Limits, Session
from realtime.streams import Subscriber


class SocketRoute:
    """See the module."""

    def __init__(self, services: Services) -> None:
        self._s = services

    def routes(self) -> list[BaseRoute]:
        """Where it is."""
        return [WebSocketRoute("/ws", self.socket)]

    async def socket(self, websocket: WebSocket) -> None:
        """Accepts, and leaves the connection to its session: from then on there is no task for it."""
        connection = websocket.scope["extensions"].get("realtime.connection")
        if not isinstance(connection, Connection):
            raise RuntimeError("serve with uvicorn --ws realtime.connection:Connection")
        address = address_of(websocket)
        await websocket.accept()
        # From here on nothing is awaited: what is counted now is sure to be counted off when the connection ends.
        try:
            identity = self._s.access.at_handshake(websocket)
        except RealtimeError as error:
            return self._turn_away(connection, wire.CloseCode.AUTHENTICATION, error)
        if not self._s.connections.enter(address):
            full = RealtimeError("too_many", "Too many connections. Come back later.", retry_after_ms=10_000)
            return self._turn_away(connection, wire.CloseCode.LIMITS, full)
        settings = self._s.settings
        subscriber = Subscriber(
            connection,
            buffer_limit=settings.subscriber_buffer_bytes,
            slow_after=settings.slow_after_s,
            on_drained=self._s.broadcaster.caught_up,
        )
        session = Session(
            subscriber,
            self._s.broadcaster,
            self._s.ranks,
            self._s.admission,
            self._s.access.verifier(websocket),
            self._s.clock,
            identity=identity,
            rights=self._s.access.rights,
            holders=self._s.access.revocations,
            limits=Limits(settings.max_subscriptions, settings.message_rate),
            refused=self._s.refused,
        )

        def closed() -> None:
            self._s.connections.leave(address)
            self._s.closed(connection.close_code)
            session.closed()

        connection.on_text = session.receive
        connection.on_violation = session.violated
        connection.on_drain = subscriber.drained
        connection.on_closed = closed
        connection.detach()
        session.greet()

    def _turn_away(self, connection: Connection, code: int, error: RealtimeError) -> None:
        self._s.refused(error.code)
        self._s.closed(code)
        connection.write(Frame(wire.error(error)))
        connection.close(code, error.code)
