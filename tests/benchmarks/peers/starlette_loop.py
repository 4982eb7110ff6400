"""What a first version does: Starlette, and a loop that awaits send_text for each client; uvicorn as it comes."""

from __future__ import annotations

import asyncio
import sys
import time

import uvicorn
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

clients: set[WebSocket] = set()


async def endpoint(websocket: WebSocket) -> None:
    await websocket.accept()
    clients.add(websocket)
    try:
        await websocket.receive_text()
    except WebSocketDisconnect:
        clients.discard(websocket)


async def main() -> None:
    app = Starlette(routes=[WebSocketRoute("/ws", endpoint)])
    config = uvicorn.Config(
        app, port=0, log_level="warning", ws_ping_interval=None, ws_per_message_deflate=False, ws="websockets-sansio"
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    print(server.servers[0].sockets[0].getsockname()[1], flush=True)
    while line := (await asyncio.to_thread(sys.stdin.readline)).split():
        seconds, hz, size = float(line[0]), int(line[1]), int(line[2])
        due, before, count = time.monotonic(), time.process_time(), int(seconds * hz)
        for _ in range(count):
            due += 1 / hz
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            for client in list(clients):
                await client.send_text("x" * size)
        print(count * len(clients), time.process_time() - before, flush=True)


asyncio.run(main())
