"""Connections of a real uvicorn server on loopback, on both loops, and clients that behave badly."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import random
import socket
import ssl
import struct
import time
import tracemalloc
import weakref
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

import pytest
import uvicorn
import uvloop
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Close, Opcode
from websockets.frames import Frame as ReadFrame
from websockets.protocol import CLIENT, Protocol
from websockets.speedups import apply_mask

from realtime.boards.board import ALL_TIME
from realtime.boards.standings import Snapshot
from realtime.broadcast.conflation import Pace
from realtime.broadcast.streams import Stream
from realtime.broadcast.subscribers import Subscriber
from realtime.wire import connection as module
from realtime.wire.close_codes import CloseCode
from realtime.wire.connection import Connection
from realtime.wire.deframer import Deframer
from realtime.wire.frames import BINARY, CLOSE, CONT, EMPTY_BLOCK, PING, PONG, TEXT, Frame
from tests.support.certificates import certified
from tests.support.following import Follower

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Run = Callable[[Coroutine[Any, Any, None]], None]

SMALL_BUFFER = 4096  # bytes a stalled client's kernel takes in


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    factory = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}[request.param]

    def run(main: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(asyncio.wait_for(main, 30))

    return run


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graces of a tenth of their length, where a test waits for one."""
    monkeypatch.setattr(module, "_LINGER_S", 0.1)
    monkeypatch.setattr(module, "_LATE_PONG_S", 0.1)


@pytest.fixture(autouse=True)
def no_socket_is_left() -> Iterator[None]:
    """A test that fails says why, not which sockets it left open."""
    yield
    while RawClient.opened:
        RawClient.opened.pop().close()


@asynccontextmanager
async def serving(app: Any, **options: Any) -> AsyncIterator[tuple[int, uvicorn.Server]]:
    """A server, ready, and its port."""
    settings: dict[str, Any] = {"ws": Connection, "lifespan": "off", "log_config": None, "log_level": "info", "port": 0}
    config = uvicorn.Config(app, **(settings | options))
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    try:
        yield server.servers[0].sockets[0].getsockname()[1], server
    finally:
        await server.shutdown()


class Hub:
    """An application that accepts, hands the connection to the test and ends: callbacks do the rest."""

    def __init__(self) -> None:
        self.arrived: asyncio.Queue[Connection] = asyncio.Queue()
        self.heard: list[bytes] = []
        self.closed = asyncio.Event()
        self.closed_times = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        connection: Connection = scope["extensions"]["realtime.connection"]
        connection.on_text = self.heard.append
        connection.on_closed = self._on_closed
        connection.detach()
        self.arrived.put_nowait(connection)

    def _on_closed(self) -> None:
        self.closed_times += 1
        self.closed.set()


def client_frame(opcode: int, payload: bytes, *, fin: bool = True, rsv: int = 0) -> bytes:
    head, length, mask = (0x80 if fin else 0) | rsv << 4 | opcode, len(payload), b"\x37\xfa\x21\x3d"
    if length < 126:
        size = bytes((0x80 | length,))
    else:
        size = b"\xfe" + length.to_bytes(2, "big") if length < 65536 else b"\xff" + length.to_bytes(8, "big")
    return bytes((head,)) + size + mask + apply_mask(payload, mask)


async def until(condition: Callable[[], object]) -> None:
    """For states that nothing announces; the test as a whole has its time-out."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.001)


class RawClient:
    """A client that does what it is told and nothing else: it neither reads nor answers by itself."""

    opened: ClassVar[list[socket.socket]] = []

    def __init__(self, sock: socket.socket) -> None:
        self.opened.append(sock)
        self.sock = sock
        self.loop = asyncio.get_running_loop()
        self.head = b""
        self.parser = Protocol(CLIENT, max_size=None)
        self.frames: list[ReadFrame] = []

    @classmethod
    async def connect(
        cls, port: int, path: str = "/ws", *, offer: str = "", buffer: int = 0, headers: str = ""
    ) -> RawClient:
        sock = socket.socket()
        sock.setblocking(False)
        if buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        client = cls(sock)
        await client.loop.sock_connect(sock, ("127.0.0.1", port))
        if offer:
            headers += f"Sec-WebSocket-Extensions: {offer}\r\n"
        await client.send(
            f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n".encode()
        )
        while not client.head.endswith(b"\r\n\r\n"):
            piece = await client.loop.sock_recv(sock, 1)
            if not piece:
                break
            client.head += piece
        if b"permessage-deflate" in client.head:
            client.parser.extensions = [PerMessageDeflate(True, True, 15, 15)]
        return client

    @property
    def status(self) -> int:
        return int(self.head.split(b" ", 2)[1])

    async def send(self, data: bytes) -> None:
        await self.loop.sock_sendall(self.sock, data)

    async def read(self, size: int = 65536) -> bool:
        """Take in what the server sent; False at its end."""
        data = await self.loop.sock_recv(self.sock, size)
        if data:
            self.parser.receive_data(data)
            assert self.parser.parser_exc is None
            for frame in self.parser.events_received():
                assert isinstance(frame, ReadFrame)
                self.frames.append(frame)
        return bool(data)

    async def next(self) -> ReadFrame:
        while not self.frames:
            assert await self.read(), "the server ended the connection"
        return self.frames.pop(0)

    async def close_code(self) -> int | None:
        """The code of the server's close frame, once it ended the connection; None without one."""
        try:
            while await self.read():
                pass
        except ConnectionError:
            pass
        finally:
            self.sock.close()
        closes = [frame for frame in self.frames if frame.opcode == Opcode.CLOSE]
        return int(Close.parse(closes[0].data).code) if closes else None

    def vanish(self) -> None:
        """End with a reset instead of a goodbye."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


@asynccontextmanager
async def connected(**options: Any) -> AsyncIterator[tuple[Connection, RawClient, Hub]]:
    """One connection, both its ends, and the application between."""
    client_options = {key: options.pop(key) for key in ("offer", "buffer") if key in options}
    hub = Hub()
    async with serving(hub, **options) as (port, _):
        client = await RawClient.connect(port, **client_options)
        connection = await hub.arrived.get()
        try:
            yield connection, client, hub
        finally:
            client.sock.close()


def deflated(payload: bytes) -> bytes:
    encoder = zlib.compressobj(wbits=-15)
    return (encoder.compress(payload) + encoder.flush(zlib.Z_SYNC_FLUSH))[: -len(EMPTY_BLOCK)]


# Writing


@pytest.mark.parametrize("offer", ["", "permessage-deflate"])
def test_frames_sends_pings_and_the_close_arrive_in_order_at_a_slow_reader(run: Run, offer: str) -> None:
    # Between two sends that wait there is always more than the kernel takes.
    shared = [Frame(b'{"number":%d,"filler":"%s"}' % (n, os.urandom(n * 7 % 1800).hex().encode())) for n in range(600)]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        connection: Connection = scope["extensions"]["realtime.connection"]
        buffered = 0
        for number, frame in enumerate(shared):
            if number % 60 == 3:  # waits until everything before it is with the kernel
                await send({"type": "websocket.send", "text": frame.payload.decode()})
            elif number % 11 == 5:
                connection.write(Frame(b"%d" % number, PING))
            else:
                assert connection.write(frame) >= 0
            buffered += bool(connection.buffered_bytes)
        assert buffered > 50, "the reader was not slow enough to test anything"
        await send({"type": "websocket.close", "code": 4000, "reason": "done"})

    async def main() -> None:
        async with serving(app, ws_ping_interval=0.005, ws_ping_timeout=None) as (port, _):
            client = await RawClient.connect(port, offer=offer, buffer=SMALL_BUFFER)
            while await client.read(random.randint(1, 3000)):
                if client.frames and client.frames[-1].opcode == Opcode.CLOSE:
                    await client.send(client_frame(CLOSE, client.frames[-1].data))
            client.sock.close()
        *frames, last = client.frames
        assert last.opcode == Opcode.CLOSE and bytes(last.data) == b"\x0f\xa0done"
        pings = [frame for frame in frames if frame.opcode == Opcode.PING]
        ours = [bytes(f.data) for f in frames if f.opcode == Opcode.TEXT or bytes(f.data).isdigit()]
        assert ours == [b"%d" % n if n % 60 != 3 and n % 11 == 5 else f.payload for n, f in enumerate(shared)]
        assert len(pings) > sum(f.opcode == Opcode.PING and bytes(f.data).isdigit() for f in frames)

    run(main())


def test_write_tells_what_waits_and_drain_tells_when_it_went(run: Run) -> None:
    async def main() -> None:
        async with connected(buffer=SMALL_BUFFER) as (connection, client, _):
            drained = asyncio.Event()
            connection.on_drain = drained.set
            frame, sent = Frame(b"x" * 1000), 0
            assert connection.write(frame) == 0
            while not (waiting := connection.write(frame)):
                sent += 1
                assert sent < 2000, "the kernel takes everything"
            assert waiting == connection.buffered_bytes
            assert connection.write(frame) == waiting + len(frame.plain)
            assert not drained.is_set()
            while not drained.is_set():
                await client.read()
                await asyncio.sleep(0)
            assert connection.buffered_bytes == 0
            assert connection.write(frame) == 0
            while len(client.frames) < sent + 4:
                await client.read()
            assert {bytes(frame.data) for frame in client.frames} == {b"x" * 1000}

    run(main())


@pytest.mark.parametrize("offer", ["", "permessage-deflate"])
def test_a_first_frame_follows_the_response(run: Run, offer: str) -> None:
    first, second = Frame(b'{"number":1}' * 50), Frame(b"2")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        connection: Connection = scope["extensions"]["realtime.connection"]
        await receive()
        connection.accept(first)
        assert connection.write(second) == 0
        with pytest.raises(ClientDisconnected):
            connection.accept(first)
        assert (await receive())["text"] == "heard"

    async def main() -> None:
        async with serving(app) as (port, _):
            client = await RawClient.connect(port, offer=offer)
            assert client.status == 101
            assert [bytes((await client.next()).data) for _ in range(2)] == [first.payload, second.payload]
            await client.send(client_frame(TEXT, b"heard"))
            assert (await client.next()).opcode == Opcode.CLOSE
            client.sock.close()

    run(main())


def test_nothing_can_be_written_before_it_is_accepted_or_after_its_end(run: Run) -> None:
    async def main() -> None:
        written: list[int] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            connection: Connection = scope["extensions"]["realtime.connection"]
            await receive()
            written.append(connection.write(Frame(b"early")))
            await send({"type": "websocket.accept"})
            written.append(connection.write(Frame(b"now")))
            await send({"type": "websocket.close"})
            written.append(connection.write(Frame(b"late")))

        async with serving(app) as (port, _):
            client = await RawClient.connect(port)
            assert bytes((await client.next()).data) == b"now"
            assert (await client.next()).opcode == Opcode.CLOSE
            await client.send(client_frame(CLOSE, b"\x03\xe8"))
            assert not await client.read()
            client.sock.close()
        assert written == [-1, 0, -1]

    run(main())


def test_a_client_that_vanished_is_never_an_exception(run: Run) -> None:
    async def main() -> None:
        async with connected() as (connection, client, hub):
            client.vanish()
            for _ in range(5):
                assert connection.write(Frame(b"x" * 100)) <= 0
            await hub.closed.wait()
            assert connection.write(Frame(b"x")) == -1
            assert connection.buffered_bytes == 0
            connection.close(1000)
            connection.abort()
            assert hub.closed_times == 1

    run(main())


def test_one_compressed_frame_suits_every_window(run: Run) -> None:
    async def main() -> None:
        hub, frame = Hub(), Frame(b'{"user_id":1,"score":100}' * 100)
        async with serving(hub) as (port, _):
            for bits in range(8, 16):
                client = await RawClient.connect(port, offer=f"permessage-deflate; server_max_window_bits={bits}")
                connection = await hub.arrived.get()
                # zlib has no raw streams for a window of 2**8 bytes: such an offer is declined.
                assert connection.window == (0 if bits == 8 else bits)
                assert (b"server_no_context_takeover" in client.head) == (bits != 8)
                for _ in range(2):
                    connection.write(frame)
                    assert bytes((await client.next()).data) == frame.payload
                client.sock.close()
        assert sum(data is not None for data in frame.by_window) == 8

    run(main())


# Reading


def test_messages_of_every_kind_reach_on_text_in_order(run: Run) -> None:
    async def main() -> None:
        async with connected(offer="permessage-deflate") as (_, client, hub):
            packed = deflated(b"packed" * 50)
            await client.send(
                client_frame(TEXT, b"plain")
                + client_frame(TEXT, b"in ", fin=False)
                + client_frame(PING, b"between")
                + client_frame(CONT, b"pieces")
                + client_frame(TEXT, packed, rsv=4)
                + client_frame(TEXT, packed[:9], fin=False, rsv=4)
                + client_frame(CONT, packed[9:])
                + client_frame(TEXT, "é".encode() * 40_000)
                + client_frame(PING, b"done")
            )
            assert [bytes((await client.next()).data) for _ in range(2)] == [b"between", b"done"]
            assert hub.heard == [b"plain", b"in pieces", b"packed" * 50, b"packed" * 50, "é".encode() * 40_000]

    run(main())


VIOLATIONS = {
    "unmasked": (b"\x81\x02hi", 1002),
    "reserved bit": (client_frame(TEXT, b"hi", rsv=2), 1002),
    "compressed without agreement": (client_frame(TEXT, b"hi", rsv=4), 1002),
    "reserved opcode": (client_frame(3, b""), 1002),
    "fragmented ping": (client_frame(PING, b"", fin=False), 1002),
    "endless ping": (client_frame(PING, b"x" * 126), 1002),
    "continues nothing": (client_frame(CONT, b"x"), 1002),
    "bad close code": (client_frame(CLOSE, b"\x03\xed"), 1002),
    "bad text": (client_frame(TEXT, b"\xc3\x28"), 1007),
    "bad text in pieces": (client_frame(TEXT, b"\xc3", fin=False) + client_frame(CONT, b"\x28"), 1007),
    "too large": (client_frame(TEXT, b"x" * 1001), 1009),
    "announced too large": (b"\x81\xff" + (2**40).to_bytes(8, "big"), 1009),
    "too large in pieces": (client_frame(TEXT, b"x" * 600, fin=False) + client_frame(CONT, b"x" * 600), 1009),
    "binary": (client_frame(BINARY, b"x"), 1003),
}


@pytest.mark.parametrize("name", VIOLATIONS)
def test_a_violation_is_answered_with_its_code(run: Run, name: str) -> None:
    data, code = VIOLATIONS[name]

    async def main() -> None:
        async with connected(ws_max_size=1000) as (_, client, hub):
            await client.send(client_frame(TEXT, b"good") + data + client_frame(TEXT, b"never read"))
            assert await client.close_code() == code
            await hub.closed.wait()
            assert (hub.heard, hub.closed_times) == ([b"good"], 1)

    run(main())


def test_a_client_still_sending_hears_why_it_was_refused(run: Run) -> None:
    async def main() -> None:
        async with connected(ws_max_size=1000) as (connection, client, hub):
            await client.send(client_frame(TEXT, b"x" * 5_000_000)[:3_000_000])
            while await client.read():  # a reset, which may overtake the close frame, would raise
                assert connection._deframer.waiting_bytes == 0
            (close,) = client.frames
            assert Close.parse(close.data).code == 1009
            client.sock.close()
            await hub.closed.wait()

    run(main())


def test_a_bomb_is_refused_in_bounded_memory(run: Run) -> None:
    bomb = client_frame(TEXT, deflated(b"\0" * 60_000_000), rsv=4)

    async def main() -> None:
        async with connected(ws_max_size=65536, offer="permessage-deflate") as (_, client, _):
            tracemalloc.start()
            await client.send(bomb)
            assert await client.close_code() == 1009
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert peak < 2_000_000

    run(main())


COMPRESSED_VIOLATIONS = {
    "no deflate": (client_frame(TEXT, b"\xff" * 9, rsv=4), 1002),
    "no deflate, in pieces": (client_frame(TEXT, b"\xff" * 9, fin=False, rsv=4) + client_frame(CONT, b""), 1002),
    "bad text": (client_frame(TEXT, deflated(b"\xc3\x28"), rsv=4), 1007),
}


@pytest.mark.parametrize("name", COMPRESSED_VIOLATIONS)
def test_a_violation_under_compression_is_answered_with_its_code(run: Run, name: str) -> None:
    data, code = COMPRESSED_VIOLATIONS[name]

    async def main() -> None:
        async with connected(offer="permessage-deflate") as (_, client, _):
            await client.send(data)
            assert await client.close_code() == code

    run(main())


def test_a_callback_that_raises_closes_its_connection_only(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    def stumble(_: bytes) -> None:
        raise LookupError("stumbled")

    async def main() -> None:
        hub = Hub()
        async with serving(hub) as (port, _):
            clients = [await RawClient.connect(port) for _ in range(2)]
            first, second = [await hub.arrived.get() for _ in range(2)]
            first.on_text = stumble
            await clients[0].send(client_frame(TEXT, b"1") * 3)
            assert (await clients[0].next()).data == b"\x03\xf3"  # 1011
            await clients[0].send(client_frame(CLOSE, b"\x03\xf3"))
            assert not await clients[0].read()
            second.write(Frame(b"alive"))
            assert bytes((await clients[1].next()).data) == b"alive"
            for client in clients:
                client.sock.close()

    with caplog.at_level(logging.ERROR):
        run(main())
    assert [record.exc_info[1].args for record in caplog.records if record.exc_info and record.exc_info[1]] == [
        ("stumbled",)
    ]


def test_a_paused_connection_hands_over_nothing_and_loses_nothing(run: Run) -> None:
    async def main() -> None:
        async with connected() as (connection, client, _):
            heard: list[bytes] = []

            def three_at_a_time(payload: bytes) -> None:
                heard.append(payload)
                if len(heard) % 3 == 0:
                    connection.pause_reading()

            connection.on_text = three_at_a_time
            messages = [b"%d" % number for number in range(30)]
            await client.send(b"".join(client_frame(TEXT, message) for message in messages))
            while len(heard) < 30:
                if len(heard) % 3 == 0 and connection._stops:
                    before = len(heard)
                    await asyncio.sleep(0.001)
                    assert len(heard) == before
                    connection.resume_reading()
                await asyncio.sleep(0)
            assert heard == messages
            connection.resume_reading()
            await client.send(client_frame(PING, b"alive"))
            assert bytes((await client.next()).data) == b"alive"

    run(main())


def test_what_an_asgi_application_has_not_fetched_is_bounded(run: Run) -> None:
    fetch, fetched = asyncio.Event(), []
    connections: list[Connection] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        connections.append(scope["extensions"]["realtime.connection"])
        await fetch.wait()
        while (event := await receive())["type"] == "websocket.receive":
            fetched.append(event["text"])

    async def main() -> None:
        async with serving(app, ws_max_queue=16) as (port, _):
            client = await RawClient.connect(port)
            flood = b"".join(client_frame(TEXT, b"%d" % number) for number in range(50_000))
            sending = asyncio.create_task(client.send(flood + client_frame(CLOSE, b"\x03\xe8")))
            held = 0
            await until(lambda: connections and len(connections[0].queue) == 16)  # type: ignore[arg-type]
            for _ in range(200):
                await asyncio.sleep(0)
                held = max(held, len(connections[0].queue))  # type: ignore[arg-type]
            assert held == 16
            assert connections[0]._deframer.waiting_bytes <= 256 * 1024
            fetch.set()
            await sending
            await client.close_code()
        assert fetched == [str(number) for number in range(50_000)]

    run(main())


def test_data_before_the_acceptance_waits_for_it(run: Run) -> None:
    accept, hub = asyncio.Event(), Hub()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accept.wait()
        await hub(scope, receive, send)

    async def main() -> None:
        async with serving(app) as (port, server):
            connecting = asyncio.create_task(RawClient.connect(port))
            await until(lambda: server.server_state.tasks)
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


# Floods, stalls and other ends


def test_a_flood_of_pings_nobody_reads_the_pongs_of_is_ended(run: Run, quick: None) -> None:
    async def main() -> None:
        patience = {"ws_ping_interval": 0.2, "ws_ping_timeout": 0.2}
        async with connected(buffer=SMALL_BUFFER, **patience) as (connection, client, hub):
            flood = asyncio.create_task(client.send(client_frame(PING, b"p" * 125) * 200_000))
            most = 0
            while not hub.closed.is_set():
                await asyncio.sleep(0.001)
                most = max(most, connection.buffered_bytes)
            assert most < 200_000
            with pytest.raises(OSError):
                await flood

    run(main())


def test_pings_within_reason_are_answered(run: Run) -> None:
    async def main() -> None:
        async with connected() as (_, client, _):
            for start in range(0, 900, 100):
                await client.send(b"".join(client_frame(PING, b"%d" % number) for number in range(start, start + 100)))
                for number in range(start, start + 100):
                    pong = await client.next()
                    assert (pong.opcode, bytes(pong.data)) == (Opcode.PONG, b"%d" % number)

    run(main())


EMPTY_FRAGMENT, CRUMB = client_frame(CONT, b"", fin=False), client_frame(CONT, b"x", fin=False)
FLOODS = {
    "pings": client_frame(PING, b"") * 2000,
    "pongs": client_frame(PONG, b"") * 2000,
    "long pongs": client_frame(PONG, b"x" * 125) * 1000,
    "empty fragments": client_frame(TEXT, b"", fin=False) + EMPTY_FRAGMENT * 2000,
    "fragments of a byte": client_frame(TEXT, b"x", fin=False) + CRUMB * 2000,
    "fragments of 20 bytes": client_frame(TEXT, b"x", fin=False) + client_frame(CONT, b"x" * 20, fin=False) * 2000,
    "messages of two crumbs": (client_frame(TEXT, b"x", fin=False) + client_frame(CONT, b"x")) * 2000,
    "a little of everything": (CRUMB + client_frame(PING, b"") + EMPTY_FRAGMENT + client_frame(PONG, b"")) * 500,
    "compressed forms that say nothing": client_frame(TEXT, (b"\0" + EMPTY_BLOCK) * 10_000 + b"\0", rsv=4) * 3,
    "the same in fragments": client_frame(TEXT, b"", fin=False, rsv=4)
    + client_frame(CONT, (b"\0" + EMPTY_BLOCK) * 10_000, fin=False) * 3,
}
FLOODS["a little of everything"] = client_frame(TEXT, b"x", fin=False) + FLOODS["a little of everything"]


@pytest.mark.parametrize("name", FLOODS)
def test_frames_that_bring_nothing_end_in_1008(run: Run, name: str) -> None:
    async def main() -> None:
        async with connected(offer="permessage-deflate") as (_, client, hub):
            await client.send(FLOODS[name])
            assert await client.close_code() == 1008
            await hub.closed.wait()

    run(main())


def test_what_brings_nothing_is_allowed_again_later(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with connected() as (connection, client, _):
            for _ in range(5):
                await client.send(client_frame(PONG, b"") * 900 + client_frame(PING, b"all read"))
                assert bytes((await client.next()).data) == b"all read"
                connection._idle_since -= module._IDLE_S + 1  # as after so many seconds

    run(main())


def test_a_frame_in_pieces_of_a_byte_ends_in_1008(run: Run) -> None:
    async def main() -> None:
        async with connected() as (connection, client, _):
            for byte in client_frame(TEXT, b"x" * 2000):
                if connection.close_sent:
                    break
                connection.data_received(bytes((byte,)))  # as a transport that is told each
            assert await client.close_code() == 1008

    run(main())


def test_messages_in_fragments_are_read_with_pings_beside_them(run: Run) -> None:
    async def main() -> None:
        size = 65536
        async with connected(ws_max_size=size) as (_, client, hub):
            part, ping = b"x" * (size // 4), client_frame(PING, b"hello")
            for _ in range(3):
                fragments = [client_frame(CONT if n else TEXT, part, fin=n == 3) for n in range(4)]
                await client.send(ping.join(fragments))
                await client.send(client_frame(TEXT, part * 4, fin=False) + ping + client_frame(CONT, b""))
                for _ in range(4):
                    assert bytes((await client.next()).data) == b"hello"
            await client.send(ping)
            assert bytes((await client.next()).data) == b"hello"
            assert hub.heard == [part * 4] * 6

    run(main())


@pytest.mark.parametrize("begun", [client_frame(TEXT, b"x" * 100, fin=False), client_frame(TEXT, b"x" * 100)[:-1]])
def test_a_message_that_takes_too_long_ends_in_1008(run: Run, monkeypatch: pytest.MonkeyPatch, begun: bytes) -> None:
    monkeypatch.setattr(module, "_MESSAGE_S", 0.2)

    async def main() -> None:
        async with connected(ws_max_size=256) as (_, client, hub):
            await client.send(client_frame(TEXT, b"good") + begun)
            assert await client.close_code() == 1008
            await hub.closed.wait()
            assert hub.heard == [b"good"]

    run(main())


def test_messages_that_come_in_parts_may_go_on_for_ever(run: Run) -> None:
    async def main() -> None:
        async with connected() as (connection, client, hub):
            frame = client_frame(TEXT, b"part")
            await client.send(frame[:3])
            for number in range(1, 20):
                await until(lambda: not connection._deframer.is_between)
                timer, connection._message_timer = connection._message_timer, None
                assert timer is not None
                timer.cancel()
                messages = connection._deframer.messages
                await client.send(frame[3:] + frame[:3])
                await until(lambda: len(hub.heard) == number)  # noqa: B023
                connection._judge_message(messages)  # as when the time is over: it is another one now
                assert connection._message_timer is not None
            connection._judge_message(connection._deframer.messages)
            assert await client.close_code() == 1008

    run(main())


def test_a_flood_does_not_hold_others_back(run: Run) -> None:
    async def main() -> None:
        hub, turns = Hub(), 0

        def count() -> None:
            nonlocal turns
            turns += 1
            asyncio.get_running_loop().call_soon(count)

        async with serving(hub) as (port, _):
            client = await RawClient.connect(port)
            connection = await hub.arrived.get()
            connection.on_text = lambda payload: seen.append(turns)
            seen: list[int] = []
            count()
            await client.send(client_frame(TEXT, b"x") * 5000 + client_frame(PING, b""))
            await client.next()
            assert max(seen.count(turn) for turn in set(seen)) <= module._TURN_EVENTS
            client.sock.close()

    run(main())


def test_fragments_for_ever_end_at_the_limit_in_bounded_memory(run: Run) -> None:
    async def main() -> None:
        async with connected(ws_max_size=65536) as (_, client, _):
            gc.collect()
            tracemalloc.start()
            await client.send(client_frame(TEXT, b"x", fin=False) + client_frame(CONT, b"x" * 64, fin=False) * 7_000)
            assert await client.close_code() == 1009
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert peak < 3_000_000

    run(main())


def test_a_half_closed_connection_ends(run: Run) -> None:
    async def main() -> None:
        async with connected() as (_, client, hub):
            client.sock.shutdown(socket.SHUT_WR)
            await hub.closed.wait()

    run(main())


def stall(connection: Connection) -> None:
    """Write until bytes wait that the kernel does not take."""
    frame = Frame(b"s" * 5000)
    while connection.write(frame) < 50_000:
        pass


def test_a_half_closed_connection_that_does_not_read_ends(run: Run, quick: None) -> None:
    async def main() -> None:
        async with connected(buffer=SMALL_BUFFER) as (connection, client, hub):
            stall(connection)
            client.sock.shutdown(socket.SHUT_WR)
            await hub.closed.wait()

    run(main())


def test_a_stalled_client_is_aborted_for_want_of_a_pong(run: Run, quick: None) -> None:
    async def main() -> None:
        async with connected(buffer=SMALL_BUFFER, ws_ping_interval=0.1, ws_ping_timeout=0.1) as (connection, _, hub):
            stall(connection)
            await hub.closed.wait()
            assert connection.buffered_bytes == 0

    run(main())


def test_a_client_that_vanished_without_a_word_is_found_out(run: Run, quick: None) -> None:
    async def main() -> None:
        async with connected(ws_ping_interval=0.1, ws_ping_timeout=0.1) as (connection, _, hub):
            await hub.closed.wait()
            assert connection.close_code == 1006

    run(main())


def test_a_client_that_answers_pings_stays(run: Run, quick: None) -> None:
    async def main() -> None:
        async with connected(ws_ping_interval=0.05, ws_ping_timeout=0.05) as (_, client, hub):
            for _ in range(12):
                ping = await client.next()
                assert ping.opcode == Opcode.PING
                await client.send(client_frame(PONG, ping.data))
            assert not hub.closed.is_set()

    run(main())


def test_a_pong_that_waits_because_we_do_not_read_is_not_missed(run: Run, quick: None) -> None:
    async def main() -> None:
        async with connected(ws_ping_interval=0.05, ws_ping_timeout=0.05) as (connection, client, hub):
            connection.pause_reading()
            ping = await client.next()
            await client.send(client_frame(PONG, ping.data))
            await asyncio.sleep(0.4)
            assert not hub.closed.is_set()
            connection.resume_reading()
            assert (await client.next()).opcode == Opcode.PING

    run(main())


def test_a_late_loop_is_not_taken_for_a_lost_client(run: Run) -> None:
    async def main() -> None:
        async with connected(ws_ping_interval=0.05, ws_ping_timeout=0.1) as (connection, client, hub):
            ping = await client.next()

            def dawdle(_: bytes) -> None:
                """The pong comes while the loop is busy, and the timer is due before it is read."""
                client.sock.send(client_frame(PONG, ping.data))
                time.sleep(0.3)

            connection.on_text = dawdle
            await client.send(client_frame(TEXT, b""))
            assert (await client.next()).opcode == Opcode.PING
            assert not hub.closed.is_set()

    run(main())


def test_first_pings_are_spread_over_the_interval(run: Run) -> None:
    async def main() -> None:
        hub = Hub()
        async with serving(hub, ws_ping_interval=100.0) as (port, _):
            clients = [await RawClient.connect(port) for _ in range(40)]
            now = asyncio.get_running_loop().time()
            timers = [(await hub.arrived.get()).ping_timer for _ in clients]
            phases = [timer.when() - now for timer in timers if timer]
            assert len(phases) == 40 and -1 <= min(phases) < 35 and 65 < max(phases) <= 100
            for client in clients:
                client.sock.close()

    run(main())


@pytest.mark.parametrize("stalled", [False, True])
def test_close_from_outside_is_final_whatever_the_client_does(run: Run, stalled: bool) -> None:
    async def main() -> None:
        async with connected(buffer=SMALL_BUFFER) as (connection, client, hub):
            connection.close_timeout = 0.2
            if stalled:
                stall(connection)
            else:
                connection.write(Frame(b"last"))
            connection.close(4408, "too slow: " + "é" * 100)
            assert connection.write(Frame(b"never")) == -1
            if not stalled:
                assert bytes((await client.next()).data) == b"last"
                close = Close.parse((await client.next()).data)
                assert close.code == 4408 and close.reason.startswith("too slow: ééé")
            await client.send(client_frame(TEXT, b"ignored"))
            await hub.closed.wait()
            assert (hub.heard, hub.closed_times) == ([], 1)

    run(main())


def test_the_clients_answer_ends_a_close_at_once_even_if_reading_was_paused(run: Run) -> None:
    async def main() -> None:
        async with connected() as (connection, client, hub):
            connection.pause_reading()
            await client.send(client_frame(TEXT, b"unread") * 10)
            connection.close(4000)
            assert (await client.next()).opcode == Opcode.CLOSE
            await client.send(client_frame(CLOSE, b"\x0f\xa0"))
            assert not await client.read()
            await hub.closed.wait()
            assert hub.heard == []

    run(main())


def test_after_our_close_nothing_is_parsed_but_the_clients(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = 0

    def next_event(self: Deframer) -> None:
        nonlocal parsed
        parsed += 1

    async def main() -> None:
        async with connected(offer="permessage-deflate") as (connection, client, hub):
            connection.close(4429)
            assert (await client.next()).opcode == Opcode.CLOSE
            monkeypatch.setattr(Deframer, "next", next_event)
            unread = client_frame(TEXT, b"\xff" * 50_000, rsv=4) + client_frame(BINARY, b"x" * 70_000) * 20
            await client.send(unread + b"\x8b\x80mask" + client_frame(CLOSE, b"\x11\x4d"))
            assert not await client.read()
            await hub.closed.wait()
            assert (parsed, hub.heard) == (0, [])

    run(main())


@pytest.mark.parametrize("flood", [CRUMB, client_frame(BINARY, b"x" * 60_000), b"no frames at all "])
@pytest.mark.parametrize("failed", [False, True])
def test_who_sends_on_after_our_close_is_read_no_further_than_so_far(
    run: Run, quick: None, flood: bytes, failed: bool
) -> None:
    async def main() -> None:
        async with connected(buffer=SMALL_BUFFER) as (connection, client, hub):
            spent: list[int] = []

            def ended() -> None:
                assert connection._farewell is not None
                spent.append(connection._farewell.spent_bytes)
                hub.closed.set()

            connection.on_closed = ended
            if failed:
                await client.send(client_frame(CONT, b""))
            else:
                connection.close(4429)
            assert (await client.next()).opcode == Opcode.CLOSE
            with pytest.raises(ConnectionError):  # long before the 10 s in which the client's close may come
                while True:
                    await client.send(flood * (500_000 // len(flood)))
            await hub.closed.wait()
            read_at_once = 512 * 1024
            assert module._LATE_BYTES < spent[0] <= module._LATE_BYTES + read_at_once

    run(main())


def test_what_a_client_sent_before_our_close_is_dropped_without_being_parsed(run: Run) -> None:
    async def main() -> None:
        async with connected() as (connection, client, hub):
            heard: list[bytes] = []

            def first(payload: bytes) -> None:
                heard.append(payload)
                connection.close(4000)

            connection.on_text = first
            await client.send(client_frame(TEXT, b"x") * 5000 + client_frame(CLOSE, b"\x0f\xa0"))
            assert await client.close_code() == 4000
            await hub.closed.wait()
            assert heard == [b"x"]

    run(main())


def test_a_clients_close_is_echoed(run: Run) -> None:
    async def main() -> None:
        for payload in (b"", b"\x03\xe8", b"\x0f\xa1bye"):
            async with connected() as (_, client, hub):
                await client.send(client_frame(CLOSE, payload) + client_frame(TEXT, b"too late"))
                echo = await client.next()
                assert (echo.opcode, bytes(echo.data)) == (Opcode.CLOSE, payload)
                await hub.closed.wait()
                assert hub.heard == []

    run(main())


def test_shutdown_ends_soon_with_stalled_paused_and_deaf_clients(run: Run) -> None:
    async def main() -> None:
        hub = Hub()
        async with serving(hub) as (port, _):
            clients = [await RawClient.connect(port, buffer=SMALL_BUFFER) for _ in range(4)]
            stalled, paused, told, closing = [await hub.arrived.get() for _ in clients]
            stall(stalled)
            paused.pause_reading()
            told.write(Frame(b"last"))
            stall(closing)
            closing.close(4000)
            start = time.monotonic()
        assert time.monotonic() - start < 3
        assert bytes((await clients[2].next()).data) == b"last"
        assert (await clients[2].next()).data == b"\x03\xf4"  # 1012
        assert hub.closed_times == 4
        for client in clients:
            client.sock.close()

    run(main())


# With ASGI as with uvicorn


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
GOODBYE = client_frame(CLOSE, b"\x0f\xa1why")
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
            await until(lambda: not server.server_state.connections)

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


def test_a_detached_connection_keeps_no_task_and_little_memory(run: Run) -> None:
    async def main() -> None:
        hub = Hub()
        async with serving(hub) as (port, server):
            warm = [await RawClient.connect(port, offer="permessage-deflate") for _ in range(50)]
            gc.collect()
            tracemalloc.start()
            clients = [await RawClient.connect(port, offer="permessage-deflate") for _ in range(100)]
            for _ in range(150):
                await hub.arrived.get()
            assert not server.server_state.tasks
            for client in clients:
                client.parser = None  # type: ignore[assignment]
            gc.collect()
            size, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert size / 100 < 5500, "bytes a connection, the client's socket included"
            for client in (*warm, *clients):
                client.sock.close()

    run(main())


def test_what_attackers_held_is_free_when_they_are_gone_and_no_collector_ran(run: Run) -> None:
    """Cycles would wait for a collector that hardly ever runs."""
    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    body = deflated(random.Random(1).randbytes(60_000))
    held = [
        client_frame(TEXT, b"x" * 60_000)[:-1],
        client_frame(TEXT, body[:50_000], fin=False, rsv=4),
        client_frame(CONT, b""),
        client_frame(TEXT, body + b"?", rsv=4),
        client_frame(PONG, b"") * 2000,
    ]

    class Seen(Connection):
        __slots__ = ("__weakref__",)

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            alive.add(self)

    async def attack(port: int, hub: Hub, number: int) -> None:
        client = await RawClient.connect(port, offer="permessage-deflate")
        connection = await hub.arrived.get()
        await client.send(held[number % 5])
        await until(lambda: connection.close_sent or not connection._deframer.is_between)
        if number < 5:
            client.vanish()
        else:
            client.sock.close()

    async def main() -> None:
        hub = Hub()
        async with serving(hub, ws=Seen, ws_max_size=65536) as (port, server):
            gc.collect()
            gc.disable()
            try:
                for number in range(10):
                    await attack(port, hub, number)
                await until(lambda: not server.server_state.connections)
                await until(lambda: not alive)
            finally:
                gc.enable()

    run(main())


def test_clients_that_come_and_go_leave_nothing_behind(run: Run) -> None:
    async def main() -> None:
        hub = Hub()
        async with serving(hub) as (port, server):
            for number in range(300):
                client = await RawClient.connect(port, offer="permessage-deflate")
                if number % 3 == 0:
                    client.vanish()
                elif number % 3 == 1:
                    await client.send(GOODBYE)
                    await client.close_code()
                else:
                    client.sock.close()
            refused = await RawClient.connect(port, headers="Sec-WebSocket-Version: 99\r\n")
            assert refused.status == 426
            refused.sock.close()
            await until(lambda: hub.closed_times == 300)
            await until(lambda: not server.server_state.connections)
            assert not server.server_state.tasks
            while not hub.arrived.empty():
                hub.arrived.get_nowait()
            gc.collect()
            assert not [thing for thing in gc.get_objects() if isinstance(thing, Connection)]

    run(main())


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return certified(tmp_path_factory.mktemp("tls"))


def test_tls_keeps_the_order_drains_and_ends_stalled_clients(
    run: Run, certificate: tuple[Path, Path], quick: None
) -> None:
    cert, key = certificate

    async def main() -> None:
        from websockets.asyncio.client import connect

        hub = Hub()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["path"] != "/asgi":
                await hub(scope, receive, send)
                return
            await receive()
            await send({"type": "websocket.accept"})
            for number in range(5):
                await send({"type": "websocket.send", "text": str(number)})

        context = ssl.create_default_context(cafile=str(cert))
        async with serving(app, ssl_certfile=str(cert), ssl_keyfile=str(key)) as (port, _):
            async with connect(f"wss://127.0.0.1:{port}", ssl=context, max_queue=1, max_size=None) as client:
                connection = await hub.arrived.get()
                drained = asyncio.Event()
                connection.on_drain = drained.set
                sent = [b"%d " % number + os.urandom(20_000).hex().encode() for number in range(200)]
                waiting = [connection.write(Frame(payload)) for payload in sent]
                assert max(waiting) > 0 and min(waiting) >= 0
                for payload in sent:
                    assert await client.recv() == payload.decode()
                await drained.wait()
                await client.send("hello")
                await (await client.ping())
                assert hub.heard == [b"hello"]
            await hub.closed.wait()
            hub.closed.clear()
            async with connect(f"wss://127.0.0.1:{port}/asgi", ssl=context) as client:
                assert [await client.recv() for _ in range(5)] == ["0", "1", "2", "3", "4"]
            async with connect(f"wss://127.0.0.1:{port}", ssl=context, max_queue=1) as client:
                connection = await hub.arrived.get()
                frame = Frame(sent[0])
                while connection.write(frame) < 1_000_000:
                    pass
                connection.close_timeout = 0.2
                connection.close(4408)
                await hub.closed.wait()
                client.transport.abort()

    run(main())


# Written to by a stream, past `write`


def of_version(version: int) -> Snapshot:
    return Snapshot("all_time", "x", version, {1: version}, {1: "n" * 64})


def subscribed(stream: Stream, connection: Connection) -> Subscriber:
    def caught_up(drained: Subscriber) -> None:
        for subscription in drained.subscriptions:
            subscription.stream.serve(subscription)

    subscriber = Subscriber(connection, buffer_limit=2_000, slow_after=3600, on_drained=caught_up)
    connection.on_drain = subscriber.drained
    stream.add(subscriber, "all_time", None)
    return subscriber


ENDS: dict[str, Callable[[Connection, RawClient], object]] = {
    "the client closes": lambda connection, client: client.sock.close(),
    "the client vanishes": lambda connection, client: client.vanish(),
    "the client says goodbye": lambda connection, client: client.sock.send(client_frame(CLOSE, b"\x03\xe8")),
    "the client breaks the protocol": lambda connection, client: client.sock.send(b"\x81\x01x"),
    "aborted": lambda connection, client: connection.abort(),
    "closed": lambda connection, client: connection.close(1000),
    "shut down": lambda connection, client: connection.shutdown(),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_stream_lets_go_of_a_socket_before_it_can_be_anothers(run: Run, quick: None, end: str) -> None:
    async def main() -> None:
        async with connected() as (connection, client, hub):
            stream = Stream(ALL_TIME)
            stream.advance(of_version(1))
            subscribed(stream, connection)
            descriptor = connection.descriptor
            assert stream.descriptors == [descriptor] and descriptor >= 0
            socket_before = os.fstat(descriptor).st_ino
            let_go: list[int] = []
            pointed = connection.on_descriptor
            assert pointed is not None

            def on_descriptor(now: int) -> None:
                pointed(now)
                let_go.append(os.fstat(descriptor).st_ino)  # OSError, or another's, where it comes too late

            connection.on_descriptor = on_descriptor
            ENDS[end](connection, client)
            await until(lambda: let_go)
            assert let_go[0] == socket_before
            assert stream.descriptors == [connection.descriptor] and connection.descriptor < 0
            stream.advance(of_version(2))
            assert stream.deliver(10).visited == 1
            client.sock.close()
            await hub.closed.wait()

    run(main())


@pytest.mark.parametrize("offer", ["", "permessage-deflate"])
def test_a_stream_keeps_the_order_at_slow_and_quick_readers(run: Run, offer: str) -> None:
    async def main() -> None:
        hub = Hub()
        async with serving(hub) as (port, _):
            slow = await RawClient.connect(port, offer=offer, buffer=SMALL_BUFFER)
            connections = [await hub.arrived.get()]
            quick = await RawClient.connect(port)
            connections.append(await hub.arrived.get())
            stream = Stream(ALL_TIME)
            stream.advance(of_version(1))
            subscribers = [subscribed(stream, connection) for connection in connections]
            version, behind = 1, 0
            while behind < 3:  # it falls behind, and drains, and gets a snapshot: thrice
                while subscribers[0].pace is Pace.FOLLOWING:
                    version += 1
                    stream.advance(Snapshot("all_time", "x", version, {1: version}, {1: os.urandom(1500).hex()}))
                    assert stream.deliver(10).visited == 2
                    if version % 5 == 0:
                        connections[0].write(Frame(b"between", PING))
                    while len(quick.frames) < version:
                        assert await quick.read()
                behind += 1
                assert stream.descriptors[0] < 0 <= stream.descriptors[1]
                while subscribers[0].pace is not Pace.FOLLOWING:
                    assert await slow.read(random.randint(1, 3000))
            stream.advance(of_version(version + 1))
            stream.deliver(10)
            for client, connection in zip((slow, quick), connections, strict=True):
                connection.close(1000)
                while await client.read():
                    if client.frames and client.frames[-1].opcode == Opcode.CLOSE:
                        await client.send(client_frame(CLOSE, b"\x03\xe8"))
                follower = Follower()
                for frame in client.frames:
                    if frame.opcode == Opcode.TEXT:
                        follower.take(json.loads(frame.data))
                assert follower.boards["all_time"].version == version + 1
                client.sock.close()
            assert follower.diffs == version, "the quick one missed something"

    run(main())


@pytest.mark.parametrize("place", [0, 2, 4])
def test_a_full_socket_among_many_alike_misses_nothing_and_costs_no_other_a_byte(run: Run, place: int) -> None:
    async def main() -> None:
        hub = Hub()
        async with serving(hub) as (port, _):
            stream = Stream(ALL_TIME)
            stream.advance(of_version(1))
            clients, connections = [], []
            for number in range(5):
                clients.append(await RawClient.connect(port, buffer=SMALL_BUFFER if number == place else 0))
                connections.append(await hub.arrived.get())
                subscribed(stream, connections[-1])
            full = clients.pop(place)
            for client in clients:
                assert [(await client.next()).opcode for _ in range(2)] == [Opcode.TEXT] * 2
            with suppress(BlockingIOError):
                while True:
                    os.write(stream.descriptors[place], bytes(10_000))
            last = b""
            for version in (2, 3):
                state = stream.states.newest
                stream.advance(of_version(version))
                assert stream.deliver(10).written == 5
                last += stream.states.frame_from(state).plain
                assert stream.written == [stream.states.newest] * 5
                for client in clients:
                    assert json.loads((await client.next()).data)["version"] == version
            assert [place for place, one in enumerate(stream.descriptors) if one < 0] == [place]
            received = b""
            while not received.endswith(last):
                received += await full.loop.sock_recv(full.sock, 65536)
            for client in (full, *clients):
                client.sock.close()

    run(main())


def test_a_client_that_reads_byte_by_byte_is_behind_in_bounded_memory_and_then_closed(run: Run, quick: None) -> None:
    async def main() -> None:
        hub = Hub()
        async with serving(hub) as (port, _):
            slow = await RawClient.connect(port, buffer=SMALL_BUFFER)
            trickle = await hub.arrived.get()
            steady = await RawClient.connect(port)
            connections = [trickle, await hub.arrived.get()]
            stream = Stream(ALL_TIME)
            stream.advance(of_version(1))
            subscribers = [subscribed(stream, connection) for connection in connections]
            subscribers[0].slow_after = trickle.close_timeout = 0.2
            version, most, news = 1, 0, 1500
            while not hub.closed_times:
                version += 1
                stream.advance(Snapshot("all_time", "x", version, {1: version}, {1: os.urandom(news).hex()}))
                stream.deliver(10)
                most = max(most, trickle.buffered_bytes)
                with suppress(ConnectionError):  # at its end
                    await slow.loop.sock_recv(slow.sock, 1)
                await asyncio.sleep(0)  # where all is there already, nothing above gives the loop back
                while len(steady.frames) < version:
                    assert await steady.read()
            assert trickle.close_code == CloseCode.TOO_SLOW
            assert most < subscribers[0].buffer_limit + 3 * news, "its limit, and the frame that went beyond"
            for client in (slow, steady):
                client.sock.close()

    run(main())
