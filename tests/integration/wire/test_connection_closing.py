"""How connections end, from either side, and that they leave nothing behind."""

from __future__ import annotations

import gc
import random
import socket
import time
import tracemalloc
import weakref
from typing import Any

import pytest
from websockets.frames import Close, Opcode

from realtime.wire import frame_reader as module
from realtime.wire.connection import Connection
from realtime.wire.deframer import Deframer
from realtime.wire.frames import BINARY, CLOSE, CONT, PONG, TEXT, Frame
from realtime.wire.lifecycle import OPEN
from tests.support.connections import (
    CRUMB,
    GOODBYE,
    SMALL_BUFFER,
    Hub,
    RawClient,
    Run,
    client_frame,
    connected,
    deflated,
    serving,
    stall,
)
from tests.support.waiting import eventually


def test_a_half_closed_connection_ends(run: Run) -> None:
    async def main() -> None:
        async with connected() as (_, client, hub):
            client.sock.shutdown(socket.SHUT_WR)
            await hub.closed.wait()

    run(main())


def test_a_half_closed_connection_that_does_not_read_ends(run: Run, quick: None) -> None:
    async def main() -> None:
        async with connected(buffer=SMALL_BUFFER) as (connection, client, hub):
            stall(connection)
            client.sock.shutdown(socket.SHUT_WR)
            await hub.closed.wait()

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
                assert connection.reader.farewell is not None
                spent.append(connection.reader.farewell.spent_bytes)
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
        await eventually(lambda: connection.state is not OPEN or not connection.reader.deframer.is_between)
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
                await eventually(lambda: not server.server_state.connections)
                await eventually(lambda: not alive)
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
            await eventually(lambda: hub.closed_times == 300)
            await eventually(lambda: not server.server_state.connections)
            assert not server.server_state.tasks
            while not hub.arrived.empty():
                hub.arrived.get_nowait()
            gc.collect()
            assert not [thing for thing in gc.get_objects() if isinstance(thing, Connection)]

    run(main())
