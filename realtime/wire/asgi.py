"""ASGI: what an application is told of a request, and what it may say to a WebSocket at which moment.

Owns the scopes of requests, and the call of the application for one WebSocket: the events it has not fetched, and how
far its answer is. Must never write to a transport. Assumes that its connection tells it when the request was accepted
and when the connection ended, stops reading while too many events wait, and forgets the call when it is lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import MutableMapping
from enum import Enum, auto
from typing import Any, Final, Protocol
from urllib.parse import unquote

from uvicorn.config import Config
from uvicorn.protocols.utils import ClientDisconnected, get_local_addr, is_ssl

from realtime.wire.event_queue import EventQueue, Gate
from realtime.wire.frames import BINARY, TEXT, Frame
from realtime.wire.handshake import Opening, RawHeaders, response
from realtime.wire.heads import Request
from realtime.wire.lifecycle import CONNECTING, LOST, OPEN, State

__all__ = ["EXCHANGE", "EXTENSION", "AsgiCall", "http_scope"]

Message = MutableMapping[str, Any]

EXTENSION: Final = "realtime.connection"
"""Where in `scope["extensions"]` an application finds its connection."""

EXCHANGE: Final = "realtime.exchange"
"""Where it finds the exchange of an HTTP request."""

_log = logging.getLogger("uvicorn.error")

_QUEUE_BYTES: Final = 64 * 1024
"""Bytes of messages that may wait for the application."""


class Connection(Protocol):
    """What a call needs of its connection."""

    call: AsgiCall | None
    config: Config
    state: State
    transport: asyncio.Transport

    def accept(self, first: Frame | None = None, *, headers: RawHeaders = (), subprotocol: str | None = None) -> None:
        """Makes the request a WebSocket. Raises ClientDisconnected where nobody is there any more."""

    def turn_away(self, answer: bytes) -> None:
        """Answers that the request becomes no WebSocket, and ends."""

    def write(self, frame: Frame, sent: int = 0) -> int:
        """Sends a frame."""

    def read_on(self) -> None:
        """There is room for more events."""

    def close(self, code: int, reason: str = "") -> None:
        """Begins the closing handshake."""

    def hang_up(self) -> None:
        """Closes the transport."""


class Phase(Enum):
    """How far the application's answer is."""

    ASKED = auto()
    """It has said nothing yet."""
    REFUSING = auto()
    """It answers the request in its own words, of which the last are still to come."""
    ACCEPTED = auto()
    """It has accepted."""
    OVER = auto()
    """It has refused, or closed."""


EXPECTED: Final[dict[Phase, frozenset[str]]] = {
    Phase.ASKED: frozenset({"websocket.accept", "websocket.close", "websocket.http.response.start"}),
    Phase.REFUSING: frozenset({"websocket.http.response.body"}),
    Phase.ACCEPTED: frozenset({"websocket.send", "websocket.close"}),
    Phase.OVER: frozenset(),
}
"""What an application may send, by phase. Anything else is its mistake, and raises RuntimeError."""


class AsgiCall:
    """One call of the application, from the request to the end of the connection.

    `writable` is open while nothing waits to be written.
    """

    __slots__ = ("_connection", "_phase", "_refusal", "_writable", "is_detached", "queue")

    def __init__(self, connection: Connection, writable: Gate) -> None:
        self._connection = connection
        self._writable = writable
        self._phase = Phase.ASKED
        self._refusal: tuple[int, RawHeaders, bytes] = 0, (), b""  # status, headers, and of the body what there is
        self.is_detached = False
        """The connection outlives the call."""
        self.queue = EventQueue[Message]()
        self.queue.put_nowait({"type": "websocket.connect"})

    def scope(self, opening: Opening, client: tuple[str, int] | None, app_state: dict[str, Any]) -> dict[str, Any]:
        """What the application is told of the request, which came from `client`."""
        config, transport = self._connection.config, self._connection.transport
        return {
            "type": "websocket",
            "asgi": {"version": config.asgi_version, "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "wss" if is_ssl(transport) else "ws",
            "server": get_local_addr(transport),
            "client": client,
            "state": app_state.copy(),
            "extensions": {"websocket.http.response": {}, EXTENSION: self._connection},
            **opening.scope(config.root_path),
        }

    async def run(self, scope: dict[str, Any]) -> None:
        """Runs the application, and closes the connection when it ends, unless the connection was detached."""
        connection, code = self._connection, 1000
        try:
            await connection.config.loaded_app(scope, self.receive, self.send)
        except ClientDisconnected:
            return
        except Exception:
            code = 1011
            _log.exception("Exception in ASGI application\n")
        except BaseException:
            connection.hang_up()
            raise
        if connection.state is CONNECTING:
            if code == 1000 and self._phase is Phase.ASKED:
                _log.error("ASGI callable returned without completing handshake.")
            connection.turn_away(response(500, b"Internal Server Error"))
        elif not self.is_detached or code != 1000:
            connection.close(code)
        else:  # nobody fetches events any more
            connection.call = None

    # What the application is told

    async def receive(self) -> Message:
        """ASGI: the next event."""
        event = await self.queue.get()
        if not len(self.queue):
            self._connection.read_on()
        return event

    def put(self, opcode: int, payload: bytes) -> bool:
        """Adds a message; whether no more should be read before the application has fetched what there is."""
        event: Message = {"type": "websocket.receive"}
        if opcode == TEXT:
            event["text"] = payload.decode()
        else:
            event["bytes"] = payload
        self.queue.put_nowait(event, len(payload))
        return len(self.queue) >= self._connection.config.ws_max_queue or self.queue.size_bytes >= _QUEUE_BYTES

    def accepted(self) -> None:
        """The request was accepted, by the application's message or by a call of `accept`."""
        self._phase = Phase.ACCEPTED

    def disconnected(self, code: int, reason: str | None = None) -> None:
        """The connection ended, or is about to."""
        event: Message = {"type": "websocket.disconnect", "code": code}
        if reason is not None:
            event["reason"] = reason
        self.queue.put_nowait(event)

    # What the application says

    async def send(self, message: Message) -> None:
        """ASGI: returns when everything before this message has gone to the kernel.

        Raises ClientDisconnected where nobody is there any more.
        """
        await self._writable.wait()
        connection, phase, kind = self._connection, self._phase, message["type"]
        if connection.state is LOST or (phase is not Phase.OVER and connection.state not in (CONNECTING, OPEN)):
            raise ClientDisconnected()
        if kind not in EXPECTED[phase]:
            raise _unexpected(message)
        if kind == "websocket.send":
            self._write(message)
        elif kind == "websocket.accept":
            connection.accept(headers=message.get("headers", ()), subprotocol=message.get("subprotocol"))
        elif kind == "websocket.close":
            self._phase = Phase.OVER
            if phase is Phase.ASKED:
                connection.turn_away(response(403))
            else:
                connection.close(message.get("code", 1000), message.get("reason") or "")
        elif kind == "websocket.http.response.start":
            if not 100 <= message["status"] < 600:
                raise _unexpected(message)
            self._phase, self._refusal = Phase.REFUSING, (message["status"], message.get("headers", ()), b"")
        else:
            self._refuse(message)

    def _write(self, message: Message) -> None:
        data, text = message.get("bytes"), message.get("text")
        if data is not None:
            self._connection.write(Frame(data, BINARY))
        elif text is not None:
            self._connection.write(Frame(text.encode()))

    def _refuse(self, message: Message) -> None:
        """Takes a part of the body of a refusal, and sends all of it with the last part."""
        status, headers, body = self._refusal
        body += message.get("body", b"")
        self._refusal = status, headers, body
        if not message.get("more_body", False):
            self._phase = Phase.OVER
            self._connection.turn_away(response(status, body, headers))


def http_scope(
    request: Request,
    config: Config,
    *,
    server: tuple[str, int | None] | None,
    client: tuple[str, int] | None,
    is_secure: bool,
    state: dict[str, Any],
    exchange: object,
) -> dict[str, Any]:
    """What the application is told of a request: ASGI's scope."""
    raw_path, _, query = request.target.partition(b"?")
    path = raw_path.decode("ascii")
    return {
        "type": "http",
        "asgi": {"version": config.asgi_version, "spec_version": "2.3"},
        "http_version": request.version,
        "server": server,
        "client": client,
        "scheme": "https" if is_secure else "http",
        "method": request.method,
        "root_path": config.root_path,
        "path": config.root_path + (unquote(path) if "%" in path else path),
        "raw_path": config.root_path.encode("ascii") + raw_path,
        "query_string": query,
        "headers": request.fields,
        "state": state,
        "extensions": {EXCHANGE: exchange},
    }


def _unexpected(message: Message) -> RuntimeError:
    return RuntimeError(f"Unexpected ASGI message '{message['type']}'.")
