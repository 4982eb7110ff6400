"""From a request to an ASGI application, which sees what it sees with uvicorn's own protocol."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from realtime.people.limits import AddressCounter
from realtime.wire.connection import Connection
from realtime.wire.frames import BINARY, CLOSE, CONT, PING, TEXT
from realtime.wire.http_connection import TURN_EVENTS, bounded
from realtime.wire.http_exchange import BODY_AHEAD
from tests.support.connections import (
    GOODBYE,
    Hub,
    RawClient,
    Receive,
    Run,
    Scope,
    Send,
    client_frame,
    serving,
)
from tests.support.waiting import eventually


def test_data_before_the_acceptance_waits_for_it(run: Run) -> None:
    accept, hub = asyncio.Event(), Hub()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accept.wait()
        await hub(scope, receive, send)

    async def main() -> None:
        async with serving(app) as (port, server):
            connecting = asyncio.create_task(RawClient.connect(port))
            await eventually(lambda: server.server_state.tasks)
            (connection,) = server.server_state.connections
            assert isinstance(connection, Connection)
            connection.data_received(client_frame(TEXT, b"ea"))  # as the transport would
            connection.data_received(client_frame(TEXT, b"rly"))
            assert not connection.transport.is_reading()
            accept.set()
            client = await connecting
            await client.send(client_frame(PING, b""))
            await client.next()
            assert hub.heard == [b"ea", b"rly"]
            client.sock.close()

    run(main())


def scripted(steps: list[dict[str, Any]], events: list[dict[str, Any]]) -> Any:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        events.append(await receive())
        for step in steps:
            await send(step)
        while events[-1]["type"] != "websocket.disconnect":
            events.append(await receive())
            if events[-1]["type"] == "websocket.receive":
                await send(events[-1] | {"type": "websocket.send"})

    return app


ACCEPT = {"type": "websocket.accept", "subprotocol": "chat", "headers": [(b"x-one", b"1")]}
HELLO = {"type": "websocket.send", "text": "hello é", "bytes": None}
START = {"type": "websocket.http.response.start", "status": 418, "headers": [(b"x-two", b"2")]}
CLOSED = {"type": "websocket.close", "code": 4001, "reason": "no"}
BODY = {"type": "websocket.http.response.body", "body": b"short and stout"}
# What the application sends first, and what the client sends.
SCRIPTS: dict[str, tuple[list[dict[str, Any]], list[bytes]]] = {
    "echo": ([ACCEPT], [client_frame(TEXT, "é".encode()), client_frame(BINARY, b"\0\xff"), GOODBYE]),
    "pieces": (
        [ACCEPT, HELLO],
        [client_frame(TEXT, b"a", fin=False), client_frame(CONT, b"b"), client_frame(CLOSE, b"")],
    ),
    "large": ([ACCEPT], [client_frame(BINARY, b"x" * 300_000), GOODBYE]),
    "closed by the application": ([ACCEPT, HELLO, CLOSED], [client_frame(CLOSE, b"\x0f\xa1no")]),
    "refused": ([{"type": "websocket.close"}], []),
    "refused in words": ([START, BODY], []),
    "violation": ([ACCEPT], [b"\x81\x00"]),
    "too large": ([ACCEPT], [client_frame(TEXT, b"x" * 400_000)]),
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_application_and_its_client_see_what_they_see_with_uvicorns_own(run: Run, script: str) -> None:
    steps, pieces = SCRIPTS[script]

    async def seen_with(protocol: type[WebSocketsSansIOProtocol]) -> Any:
        events: list[dict[str, Any]] = []
        async with serving(scripted(steps, events), ws=protocol, ws_max_size=300_000) as (port, _):
            client = await RawClient.connect(port, "/a%20b?token=c", headers="Sec-WebSocket-Protocol: chat\r\n")
            for number, piece in enumerate(pieces):
                while piece is GOODBYE and len(client.frames) < number:  # leaves when it has its echoes
                    await client.read()
                await client.send(piece)
            body = b""
            if client.status == 101:
                await client.close_code()
            else:
                body = await asyncio.get_running_loop().sock_recv(client.sock, 1000)
                client.sock.close()
        head = [line for line in client.head.split(b"\r\n") if not line.lower().startswith(b"date")]
        return events, head, body, [(frame.opcode, bytes(frame.data)) for frame in client.frames]

    async def main() -> None:
        ours, theirs = await seen_with(Connection), await seen_with(WebSocketsSansIOProtocol)
        for one, other in zip(ours, theirs, strict=True):
            assert one == other

    run(main())


def test_the_scope_is_uvicorns_with_the_connection_in_it(run: Run) -> None:
    scopes: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)

    async def main() -> None:
        for protocol in (Connection, WebSocketsSansIOProtocol):
            async with serving(app, ws=protocol, root_path="/boards") as (port, _):
                client = await RawClient.connect(port, "/a%20b?token=c")
                assert client.status == 500
                client.sock.close()
        ours, theirs = ({**scope, "client": None, "server": None} for scope in scopes)
        assert isinstance(ours["extensions"].pop("realtime.connection"), Connection)
        assert ours == theirs

    run(main())


def test_an_application_that_fails_or_ends_says_so_to_its_client(run: Run) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        if scope["path"] == "/fails":
            raise LookupError

    async def main() -> None:
        async with serving(app) as (port, _):
            for path, code in (("/fails", b"\x03\xf3"), ("/ends", b"\x03\xe8")):
                client = await RawClient.connect(port, path)
                assert (await client.next()).data == code
                await client.send(client_frame(CLOSE, code))
                assert not await client.read()
                client.sock.close()

    run(main())


def test_a_send_to_a_client_that_left_is_refused_as_uvicorn_does(run: Run) -> None:
    refused: list[type[BaseException]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        if scope["path"] == "/closes":
            await send({"type": "websocket.close"})
        else:
            assert (await receive())["type"] == "websocket.disconnect"
        try:
            await send({"type": "websocket.send", "text": "too late"})
        except Exception as error:
            refused.append(type(error))
            raise

    async def main() -> None:
        for protocol in (Connection, WebSocketsSansIOProtocol):
            async with serving(app, ws=protocol) as (port, _):
                for path in ("/leaves", "/closes"):
                    client = await RawClient.connect(port, path)
                    await client.send(client_frame(CLOSE, b"\x03\xe8"))
                    await client.close_code()
        assert refused[:2] == refused[2:] and issubclass(refused[0], OSError) and refused[1] is RuntimeError

    run(main())


@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_a_request_that_websockets_refuses_is_answered(run: Run, http: str) -> None:
    async def main() -> None:
        async with serving(Hub(), http=http, h11_max_incomplete_event_size=65536) as (port, server):
            for headers, status in (
                (f"X-Long: {'x' * 40_000}\r\n", 431),
                ("".join(f"X-{number}: 1\r\n" for number in range(200)), 431),
            ):
                client = await RawClient.connect(port, headers=headers)
                assert client.status == status
                while await asyncio.get_running_loop().sock_recv(client.sock, 1000):
                    pass
                client.sock.close()
            await eventually(lambda: not server.server_state.connections)

    run(main())


def test_what_was_due_of_http_is_not_done_to_a_websocket(run: Run) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        size = 0
        if scope["type"] == "http":
            while size <= BODY_AHEAD:
                size += len((await receive())["body"])
            await send({"type": "http.response.start", "status": 413})
            await send({"type": "http.response.body"})
        else:
            await receive()
            await send({"type": "websocket.accept"})
            await receive()

    async def main() -> None:
        http = bounded(AddressCounter(0))
        async with serving(app, http=http, timeout_keep_alive=1, ws_ping_interval=None) as (port, _):
            # The last part of a turn fills what waits for the application, which takes it before the next turn.
            parts = b"1\r\na\r\n" * (TURN_EVENTS - 2) + b"%x\r\n%b\r\n" % (BODY_AHEAD, b"b" * BODY_AHEAD)
            begin = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + parts
            client = await RawClient.connect(port, before=begin + b"1\r\nc\r\n0\r\n\r\n")
            while b" 101 " not in client.head:
                client.head += await client.loop.sock_recv(client.sock, 65_536)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.loop.sock_recv(client.sock, 1), 2)

    run(main())


def test_no_log_line_has_a_query_or_speaks_of_single_connections(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept" if scope["path"] == "/in" else "websocket.close"})
        await receive()

    async def main() -> None:
        async with serving(app, log_level="debug") as (port, _):
            for path in ("/in", "/out"):
                client = await RawClient.connect(port, f"{path}?token=secret")
                await client.send(client_frame(CLOSE, b""))
                await client.close_code()

    with caplog.at_level(logging.DEBUG):
        run(main())
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.INFO]
    assert not any("secret" in record.getMessage() for record in caplog.records)
    assert not any("127.0.0.1" in line or "connection" in line for line in lines if "running on" not in line)
