"""What a connection writes, in order, to quick and to slow readers; and what a stream writes past it."""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import Callable
from contextlib import suppress

import pytest
from uvicorn.protocols.utils import ClientDisconnected
from websockets.frames import Opcode

from realtime.boards.board import ALL_TIME
from realtime.boards.standings import Snapshot
from realtime.broadcast.conflation import Pace
from realtime.broadcast.streams import Stream
from realtime.broadcast.subscribers import Subscriber
from realtime.wire.close_codes import CloseCode
from realtime.wire.connection import Connection
from realtime.wire.frames import CLOSE, PING, TEXT, Frame
from tests.support.connections import (
    SMALL_BUFFER,
    Hub,
    RawClient,
    Receive,
    Run,
    Scope,
    Send,
    client_frame,
    connected,
    serving,
)
from tests.support.following import Follower
from tests.support.waiting import eventually


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
                assert connection.encoding == (0 if bits == 8 else bits)
                assert (b"server_no_context_takeover" in client.head) == (bits != 8)
                for _ in range(2):
                    connection.write(frame)
                    assert bytes((await client.next()).data) == frame.payload
                client.sock.close()
        assert sum(data is not None for data in frame.by_encoding) == 8

    run(main())


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
            await eventually(lambda: let_go)
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
        async with serving(hub, ws_ping_interval=None) as (port, _):
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
