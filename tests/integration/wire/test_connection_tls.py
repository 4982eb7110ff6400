"""A connection over TLS."""

from __future__ import annotations

import asyncio
import os
import ssl
from pathlib import Path

from realtime.wire.frames import Frame
from tests.support.connections import (
    Hub,
    Receive,
    Run,
    Scope,
    Send,
    serving,
)


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
