"""What a connection takes from its client, and what it does about violations and floods."""

from __future__ import annotations

import asyncio
import gc
import logging
import tracemalloc

import pytest
from websockets.frames import Close, Opcode

from realtime.wire import frame_reader as module
from realtime.wire.connection import Connection
from realtime.wire.frames import BINARY, CLOSE, CONT, EMPTY_BLOCK, PING, PONG, TEXT, Frame
from realtime.wire.lifecycle import OPEN
from tests.support.connections import (
    CRUMB,
    EMPTY_FRAGMENT,
    SMALL_BUFFER,
    Hub,
    RawClient,
    Receive,
    Run,
    Scope,
    Send,
    client_frame,
    connected,
    deflated,
    serving,
)
from tests.support.waiting import eventually


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
                assert connection.reader.deframer.waiting_bytes == 0
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
                if len(heard) % 3 == 0 and connection.reader.stops:
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
            await eventually(lambda: connections and len(connections[0].call.queue) == 16)  # type: ignore[union-attr]
            for _ in range(200):
                await asyncio.sleep(0)
                held = max(held, len(connections[0].call.queue))  # type: ignore[union-attr]
            assert held == 16
            assert connections[0].reader.deframer.waiting_bytes <= 256 * 1024
            fetch.set()
            await sending
            await client.close_code()
        assert fetched == [str(number) for number in range(50_000)]

    run(main())


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
                connection.reader._idle_since -= module._IDLE_S + 1  # as after so many seconds

    run(main())


def test_a_frame_in_pieces_of_a_byte_ends_in_1008(run: Run) -> None:
    async def main() -> None:
        async with connected() as (connection, client, _):
            for byte in client_frame(TEXT, b"x" * 2000):
                if connection.state is not OPEN:
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
                await eventually(lambda: not connection.reader.deframer.is_between)
                timer, connection.reader._message_timer = connection.reader._message_timer, None
                assert timer is not None
                timer.cancel()
                messages = connection.reader.deframer.messages
                await client.send(frame[3:] + frame[:3])
                await eventually(lambda: len(hub.heard) == number)  # noqa: B023
                connection.reader._judge_message(messages)  # as when the time is over: it is another one now
                assert connection.reader._message_timer is not None
            connection.reader._judge_message(connection.reader.deframer.messages)
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
