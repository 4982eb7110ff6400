"""A wire that can be cut: TCP passed on until it is told to stall, to cut, or to cut in the middle of a reply.

Owns the listening socket and every pair of connections. Must never understand what it passes on. Assumes one loop.
"""

from __future__ import annotations

import asyncio
import random
from urllib.parse import urlsplit, urlunsplit

CHUNK = 65_536


class Proxy:
    """Passes on what comes in on `port` to the address of `url`; `url` is that address through the proxy."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname and parts.port
        self._host, self._port = parts.hostname, parts.port
        self._parts = parts
        self._writers: set[asyncio.StreamWriter] = set()
        self._pairs: set[asyncio.Task[None]] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self._bytes_until_cut: int | None = None
        self.cuts = 0
        """Connections cut in the middle of a reply."""

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        account = self._parts.netloc.rpartition("@")[0]
        self.url = urlunsplit(self._parts._replace(netloc=f"{account}@127.0.0.1:{port}"))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._flows.set()
        self._server.close()
        self.cut()
        await asyncio.gather(*self._pairs)

    def lead_to(self, url: str) -> None:
        """Leads new connections to another address; those that are open stay, as behind a balancer that fails over."""
        parts = urlsplit(url)
        assert parts.hostname and parts.port
        self._host, self._port = parts.hostname, parts.port

    def stall(self) -> None:
        """From now on nothing gets through, and nothing is closed: as when a cable is pulled, or a firewall forgets."""
        self._flows.clear()

    def flow(self) -> None:
        """Lets through what waits, and all that follows."""
        self._flows.set()

    def cut(self) -> None:
        """Closes every connection; new ones are taken."""
        for writer in list(self._writers):
            if writer.transport is not None:
                writer.transport.abort()

    def cut_in_replies(self, generator: random.Random | None) -> None:
        """Cuts each connection after some random number of bytes of replies; None to stop doing so."""
        self._generator = generator
        self._bytes_until_cut = None if generator is None else generator.randint(1, 5_000)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._pairs.add(task)
        task.add_done_callback(self._pairs.discard)
        try:
            theirs, ours = await asyncio.open_connection(self._host, self._port)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, ours}
        try:
            await asyncio.gather(self._pass(reader, ours, replies=False), self._pass(theirs, writer, replies=True))
        finally:
            for end in (writer, ours):
                self._writers.discard(end)
                end.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, replies: bool) -> None:
        try:
            while data := await reader.read(CHUNK):
                await self._flows.wait()
                if replies and self._bytes_until_cut is not None:
                    self._bytes_until_cut -= len(data)
                    if self._bytes_until_cut <= 0:
                        writer.write(data[: max(0, len(data) + self._bytes_until_cut)])
                        self.cuts += 1
                        self._bytes_until_cut = self._generator.randint(1, 5_000) if self._generator else None
                        await asyncio.sleep(0)
                        break
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.transport.abort()
            reader.feed_eof()
