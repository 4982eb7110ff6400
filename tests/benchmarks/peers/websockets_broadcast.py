"""The `websockets` library's own broadcast; obeys "SECONDS HZ BYTES" lines like the C floor."""

from __future__ import annotations

import asyncio
import sys
import time

from websockets.asyncio.server import ServerConnection, broadcast, serve

connections: set[ServerConnection] = set()


async def handler(connection: ServerConnection) -> None:
    connections.add(connection)
    await connection.wait_closed()


async def main() -> None:
    async with serve(handler, "127.0.0.1", 0, compression=None, ping_interval=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        while line := (await asyncio.to_thread(sys.stdin.readline)).split():
            seconds, hz, size = float(line[0]), int(line[1]), int(line[2])
            due, before, count = time.monotonic(), time.process_time(), int(seconds * hz)
            for _ in range(count):
                due += 1 / hz
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                broadcast(connections, "x" * size)
            print(count * len(connections), time.process_time() - before, flush=True)


asyncio.run(main())
