"""A client of streams of events, as the HTML Standard (section 9.2) has browsers read them; it follows boards too.

Owns one connection. Must never share code with the server: what a browser may rely on is all it knows.
"""

from __future__ import annotations

import asyncio
import json
import socket
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from copy import deepcopy
from typing import Any, ClassVar
from urllib.parse import urlsplit

from tests.support.following import Follower, Message
from tests.support.waiting import PATIENCE


class EventClient:
    """One stream. `last_id` is what a browser would send as Last-Event-ID."""

    _open: ClassVar[set[EventClient]] = set()

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._open.add(self)
        self.follower = Follower()
        self.seen: list[Message] = []
        self.status = 0
        self.headers: dict[str, str] = {}
        self.last_id = ""
        self.retry_ms: int | None = None
        self.comments = 0
        self.raw_bytes = 0
        self._inflate: Callable[[bytes], bytes] = lambda data: data
        self._text = b""
        self._buffered_id = ""
        self._data: list[str] = []

    @classmethod
    async def connect(cls, base_url: str, target: str, *, narrow: bool = False, **headers: str) -> EventClient:
        """A stream whose answer's head has come. Names of headers are written with underscores. The kernel takes
        little in unread where it is `narrow`."""
        address = urlsplit(base_url)
        sock = socket.socket()
        if narrow:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (address.hostname, address.port))
        reader, writer = await asyncio.open_connection(sock=sock, limit=1 << 12 if narrow else 1 << 20)
        lines = [f"GET {target} HTTP/1.1", f"Host: {address.netloc}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        client = cls(reader, writer)
        async with asyncio.timeout(PATIENCE):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
        client.status = int(head.split(" ", 2)[1])
        fields = [line.partition(": ") for line in head.split("\r\n")[1:] if line]
        client.headers = {name.lower(): value for name, _, value in fields}
        if client.headers.get("content-encoding") == "gzip":
            client._inflate = zlib.decompressobj(wbits=31).decompress
        return client

    def lost(self) -> EventClient:
        """The connection breaks. What a browser keeps is for `again`."""
        self.writer.transport.abort()
        return self

    async def again(self, base_url: str, target: str, **headers: str) -> EventClient:
        """Comes back as a browser does, with the board still before its user's eyes."""
        last = {"last_event_id": self.last_id} if self.last_id else {}
        client = await self.connect(base_url, target, **last, **headers)
        client.follower = deepcopy(self.follower)
        client.last_id = client._buffered_id = self.last_id
        return client

    async def error(self) -> Any:
        """The error that came instead of a stream."""
        async with asyncio.timeout(PATIENCE):
            body = await self.reader.readexactly(int(self.headers["content-length"]))
        return json.loads(body)["error"]

    async def next(self) -> Message:
        """The next message. Raises EOFError where the stream has ended."""
        while True:
            line = await self._line()
            if not line:
                self.last_id = self._buffered_id
                data, self._data = "\n".join(self._data), []
                if data:
                    message: Message = json.loads(data)
                    self.seen.append(message)
                    self.follower.take(message)
                    return message
                continue
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if not name:
                self.comments += 1
            elif name == "id" and "\0" not in value:
                self._buffered_id = value
            elif name == "data":
                self._data.append(value)
            elif name == "retry" and value.isdigit():
                self.retry_ms = int(value)

    async def commented(self, count: int) -> None:
        """Returns when so many comments have come; messages before them are passed over."""
        while self.comments < count:
            self.comments += (await self._line()).startswith(":")

    async def positioned(self) -> None:
        """Returns when the next position has come by itself: an event without data, which no browser shows."""
        while not (line := await self._line()).startswith("id: "):
            pass
        self.last_id = self._buffered_id = line.removeprefix("id: ")

    async def _part(self) -> bytes:
        """The next bytes of the body; proxies send them in chunks."""
        if self.headers.get("transfer-encoding") != "chunked":
            return await self.reader.read(65536)
        size = int(await self.reader.readline() or b"0", 16)
        data = await self.reader.readexactly(size + 2)
        return data[:-2]

    async def _line(self) -> str:
        while b"\n" not in self._text:
            async with asyncio.timeout(PATIENCE):
                data = await self._part()
            if not data:
                raise EOFError
            self.raw_bytes += len(data)
            self._text += self._inflate(data)
        line, _, self._text = self._text.partition(b"\n")
        return line.decode()

    async def until(self, kind: str, matches: Callable[[Message], bool] = lambda message: True) -> Message:
        """The next message of a type (for which `matches` holds); those before it are taken in as well."""
        while True:
            message = await self.next()
            if message["type"] == kind and matches(message):
                return message

    async def shows(self, board: str, lines: list[tuple[int, str, int]]) -> None:
        """Takes messages in until the board it follows is `lines`."""
        while board not in self.follower.boards or self.follower.boards[board].lines != lines:
            await self.next()

    def close(self) -> None:
        self.writer.close()

    @classmethod
    async def close_all(cls) -> None:
        """Ends every stream there is, and waits until it has."""
        streams = set(cls._open)
        cls._open.clear()
        for stream in streams:
            stream.writer.transport.abort()
        for stream in streams:
            with suppress(OSError):
                await stream.writer.wait_closed()


@asynccontextmanager
async def following_events(base_url: str, target: str, **headers: str) -> AsyncIterator[EventClient]:
    """A stream for the block."""
    client = await EventClient.connect(base_url, target, **headers)
    try:
        yield client
    finally:
        client.close()
