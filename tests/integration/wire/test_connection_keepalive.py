"""Pings, pongs, and clients that are no longer there."""

from __future__ import annotations

import asyncio
import time

from websockets.frames import Opcode

from realtime.wire.frames import PONG, TEXT
from tests.support.connections import (
    SMALL_BUFFER,
    Hub,
    RawClient,
    Run,
    client_frame,
    connected,
    serving,
    stall,
)


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
            keepalives = [(await hub.arrived.get()).keepalive for _ in clients]
            phases = [keepalive.timer.when() - now for keepalive in keepalives if keepalive]
            assert len(phases) == 40 and -1 <= min(phases) < 35 and 65 < max(phases) <= 100
            for client in clients:
                client.sock.close()

    run(main())
