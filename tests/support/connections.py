"""Connections of a real uvicorn server on loopback, and a client that does only what it is told.

Owns both ends of a connection under test, and the application between. Must never read or answer by itself.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import uvicorn
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Close, Opcode
from websockets.frames import Frame as ReadFrame
from websockets.protocol import CLIENT, Protocol
from websockets.speedups import apply_mask

from realtime.wire.connection import Connection
from realtime.wire.frames import CLOSE, CONT, EMPTY_BLOCK, Frame

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Run = Callable[[Coroutine[Any, Any, None]], None]
SMALL_BUFFER = 4096  # bytes a stalled client's kernel takes in


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
        cls, port: int, path: str = "/ws", *, offer: str = "", buffer: int = 0, headers: str = "", before: bytes = b""
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
            before
            + f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
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


def stall(connection: Connection) -> None:
    """Write until bytes wait that the kernel does not take."""
    frame = Frame(b"s" * 5000)
    while connection.write(frame) < 50_000:
        pass


GOODBYE = client_frame(CLOSE, b"\x0f\xa1why")
EMPTY_FRAGMENT, CRUMB = client_frame(CONT, b"", fin=False), client_frame(CONT, b"x", fin=False)
