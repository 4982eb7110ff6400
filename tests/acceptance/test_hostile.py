"""What the rest of the world can do to a server: nothing that another client would notice.

Every attack here runs against a real server over real sockets; after each, a player hands in a score and a viewer sees
it. Attacks on frames themselves are in tests/integration/wire/test_connection_reading.py.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import zlib
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidMessage
from websockets.frames import Frame, Opcode

from realtime.api.session import Session
from realtime.broadcast.subscribers import Subscriber
from realtime.wire import close_codes, http_connection
from realtime.wire.connection import Connection
from realtime.wire.deframer import Deframer
from realtime.wire.http_connection import HttpConnection
from realtime.wire.http_exchange import HttpExchange
from realtime.wire.messages import _READERS
from tests.support.clients import Client
from tests.support.databases import MakeUsers
from tests.support.servers import RunningServer, running_server
from tests.support.waiting import PATIENCE

HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)


@asynccontextmanager
async def unnoticed(server: RunningServer, make_users: MakeUsers) -> AsyncIterator[None]:
    """Whatever happens in the block: a player and a viewer who were there before go on, and newcomers come in."""
    (user_id,) = await make_users(names=["honest"])
    viewer = await server.client()
    await viewer.subscribe("all_time")
    player = await server.client(server.token(user_id))
    yield
    for number, speaker in enumerate((player, await server.client(server.token(user_id))), 1):
        await speaker.send("submit", submission_id=f"h{number}", score_added=1)
        await speaker.until("accepted")
        await viewer.shows("all_time", [(user_id, "honest", number)])


async def raw(server: RunningServer) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = server.base_url.removeprefix("http://").rsplit(":", 1)
    return await asyncio.open_connection(host, int(port))


async def rest(reader: asyncio.StreamReader, within: float = 10.0) -> bytes:
    """What still comes until the server closes."""
    async with asyncio.timeout(within):
        try:
            return await reader.read(-1)
        except ConnectionError:
            return b""


# Handshakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "begin",
    [b"", b"\r\n\r\n", b"G", b"GET /ws HTTP/1.1\r\nHost: x\r\n", HANDSHAKE],
    ids=["silence", "lines", "a byte", "half", "ws"],
)
async def test_a_handshake_that_does_not_end_is_ended(
    server: RunningServer, make_users: MakeUsers, monkeypatch: pytest.MonkeyPatch, begin: bytes
) -> None:
    monkeypatch.setattr(http_connection, "HEAD_SECONDS", 1.0)
    async with unnoticed(server, make_users):
        reader, writer = await raw(server)
        writer.write(begin)

        async def drip() -> None:
            while True:  # a byte now and then, which must not buy time
                await asyncio.sleep(0.2)
                writer.write(b"x" if begin.strip() else b"\r\n")

        dripping = asyncio.create_task(drip())
        try:
            answer = await rest(reader, 5.0)
        finally:
            dripping.cancel()
        assert answer.startswith((b"HTTP/1.1 408 ", b"HTTP/1.1 400 ")) or not answer
        writer.close()


async def test_a_body_that_does_not_end_is_ended(
    server: RunningServer, make_users: MakeUsers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_connection, "BODY_SECONDS", 1.0)
    async with unnoticed(server, make_users):
        reader, writer = await raw(server)
        token = server.token(1).encode()
        writer.write(b"POST /scores HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\nAuthorization: Bearer " + token)
        writer.write(b"\r\n\r\n{")
        assert (await rest(reader, 5.0)).startswith(b"HTTP/1.1 408 ")
        writer.close()


async def test_a_kept_connection_gets_the_same_bounds_again(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_connection, "HEAD_SECONDS", 1.0)
    reader, writer = await raw(server)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await reader.readuntil(b'"alive"}')).startswith(b"HTTP/1.1 200")
    writer.write(b"GET /healthz HTTP/1.1\r\n")
    assert (await rest(reader, 4.0)).startswith(b"HTTP/1.1 408")
    writer.close()


@pytest.mark.parametrize("what", ["many", "long", "endless", "address"])
async def test_a_flood_of_headers_is_refused(server: RunningServer, make_users: MakeUsers, what: str) -> None:
    async with unnoticed(server, make_users):
        reader, writer = await raw(server)
        pieces = {
            "many": [b"GET / HTTP/1.1\r\n", *(b"x-%d: y\r\n" % n for n in range(5_000)), b"\r\n"],
            "long": [b"GET / HTTP/1.1\r\nx: ", b"y" * 1_000_000, b"\r\n\r\n"],
            "endless": [b"GET / HTTP/1.1\r\nx: ", *[b"y" * 65_536] * 200],
            "address": [b"GET /", b"y" * 1_000_000, b" HTTP/1.1\r\n\r\n"],
        }[what]
        sent = 0
        try:
            for piece in pieces:
                writer.write(piece)
                sent += len(piece)
                await writer.drain()
                await asyncio.sleep(0)
        except ConnectionError:
            pass
        assert (await rest(reader))[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 431", b"")
        writer.close()


NONSENSE = [
    b"\x00\x01\x02\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET http://[::1 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET //[ HTTP/1.1\r\nHost: x\r\n\r\n",
    b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /scores HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
    b"POST /scores HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /scores HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFFF\r\n",
    b"GET /%ff%fe HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
    HANDSHAKE.replace(b"/ws", b"/nothing") + b"\r\n",
    HANDSHAKE.replace(b": 13", b": 99") + b"\r\n",
    HANDSHAKE + b"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=99\r\n\r\n",
    HANDSHAKE + b"Cookie: \xff\xfe\r\n\r\n",
]


async def test_nonsense_instead_of_a_request(
    server: RunningServer, make_users: MakeUsers, caplog: pytest.LogCaptureFixture
) -> None:
    async with unnoticed(server, make_users):
        for request_line in NONSENSE:
            reader, writer = await raw(server)
            writer.write(request_line)
            try:
                async with asyncio.timeout(0.5):
                    await reader.read(65_536)
            except (TimeoutError, ConnectionError):
                pass
            writer.close()
    assert not [record for record in caplog.records if record.exc_info]


async def test_many_connections_from_one_address_take_no_more_than_its_share(
    dsn: str, store_url: str, filled: None
) -> None:
    async with running_server(dsn, store_url, REALTIME_MAX_CONNECTIONS_PER_ADDRESS="20") as server:
        await server.http.get("/healthz")
        idle = [await raw(server) for _ in range(60)]
        closed = 0
        for reader, _ in idle:
            try:
                async with asyncio.timeout(0.2):
                    closed += await reader.read(1) == b""
            except TimeoutError:
                pass
            except ConnectionError:
                closed += 1
        assert closed >= 40
        for _, writer in idle:
            writer.close()
        sockets, codes = [], []
        async with asyncio.timeout(PATIENCE):
            while len(codes) < 5:
                try:
                    client = await connect(server.ws_url, proxy=None)
                except (InvalidMessage, ConnectionError):  # the idle ones leave at their own pace
                    continue
                first = json.loads(await client.recv())
                if first["type"] == "hello":
                    sockets.append(client)
                else:
                    codes.append(first["code"])
        assert (len(sockets), set(codes)) == (20, {"too_many"})
        for client in sockets:
            await client.close()
        again = await server.client()
        assert again.greeting["type"] == "hello", "whoever left makes room"


@pytest.mark.long
async def test_ten_thousand_connections_from_one_address(server: RunningServer, make_users: MakeUsers) -> None:
    """Needs `ulimit -n` above 20,000: both ends are in this process."""
    async with unnoticed(server, make_users):
        writers = []
        for _ in range(10_000):
            try:
                writers.append((await raw(server))[1])
            except OSError:
                break
        for writer in writers:
            writer.close()


# Frames ------------------------------------------------------------------------------------------------------------


async def opened(server: RunningServer, extensions: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A socket behind its handshake, to write anything to."""
    reader, writer = await raw(server)
    writer.write(HANDSHAKE + extensions + b"\r\n")
    assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
    return reader, writer


def frame(opcode: Opcode, payload: bytes, *, fin: bool = True, deflated: bool = False) -> bytes:
    data = bytearray(Frame(opcode, payload, fin=fin).serialize(mask=True))
    data[0] |= 0x40 * deflated  # the serializer knows no deflate
    return bytes(data)


async def end_of(reader: asyncio.StreamReader) -> int:
    """The close code with which a socket ends; 0 where it ends without one."""
    data = await rest(reader)
    place = data.rfind(b"\x88")
    return int.from_bytes(data[place + 2 : place + 4], "big") if place >= 0 else 0


async def test_a_compression_bomb_costs_what_a_message_may(server: RunningServer, make_users: MakeUsers) -> None:
    before = _resident()
    async with unnoticed(server, make_users):
        squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
        bomb = b"".join(squeeze.compress(bytes(1 << 20)) for _ in range(1024))
        bomb += squeeze.flush(zlib.Z_SYNC_FLUSH)[:-4]
        assert len(bomb) > 1_000_000, "a megabyte that would be a gigabyte"
        for sent in (bomb, bomb[:60_000]):
            reader, writer = await opened(server, b"Sec-WebSocket-Extensions: permessage-deflate\r\n")
            try:
                writer.write(frame(Opcode.TEXT, sent, deflated=True))
                await writer.drain()
            except ConnectionError:
                pass
            assert await end_of(reader) in (1009, 0)
            writer.close()
    assert _resident() - before < 64 << 20


def _resident() -> int:
    """Bytes of memory this process, which is the server, holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


DEFLATE = b"Sec-WebSocket-Extensions: permessage-deflate\r\n"


def ended_stream(payload: bytes) -> bytes:
    """A compressed form that says itself that it ends (BFINAL)."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    return squeeze.compress(payload) + squeeze.flush()


ENDLESS = [
    (frame(Opcode.TEXT, b"x", fin=False), frame(Opcode.CONT, b"x", fin=False), 1008),
    (frame(Opcode.TEXT, b"x", fin=False), frame(Opcode.CONT, b"", fin=False), 1008),
    (frame(Opcode.TEXT, b"x", fin=False), frame(Opcode.CONT, b"x" * 64, fin=False), 1009),
    (frame(Opcode.TEXT, b" ", fin=False) + frame(Opcode.CONT, b" " * 99), frame(Opcode.PONG, b""), 1008),
    (
        frame(Opcode.TEXT, ended_stream(b"{"), fin=False, deflated=True),
        frame(Opcode.CONT, b"\xaa" * 60_000, fin=False),
        1002,
    ),
    (
        frame(Opcode.TEXT, b"", fin=False, deflated=True),
        frame(Opcode.CONT, b"\0\0\0\xff\xff" * 10_000, fin=False),
        1008,
    ),
]


@pytest.mark.parametrize(
    ("begin", "go_on", "code"),
    ENDLESS,
    ids=("crumbs", "nothing", "fragments", "pongs", "behind-the-end", "empty-blocks"),
)
async def test_what_has_no_end_is_ended(
    server: RunningServer, make_users: MakeUsers, begin: bytes, go_on: bytes, code: int
) -> None:
    before = _resident()
    async with unnoticed(server, make_users):
        reader, writer = await opened(server, DEFLATE)
        ending = asyncio.create_task(end_of(reader))
        sent = 0
        try:
            writer.write(begin)
            while not ending.done() and sent < 20_000_000:
                writer.write(go_on * (1 + 60_000 // len(go_on)))
                sent += 60_000
                await writer.drain()
        except ConnectionError:
            pass
        assert await ending in (code, 0)
        assert sent < 20_000_000
        writer.close()
    assert _resident() - before < 32 << 20


async def test_long_messages_count_as_several(dsn: str, store_url: str, filled: None) -> None:
    # One message now, the next in 100 s: however slow this machine is, it sends too fast.
    async with running_server(dsn, store_url, REALTIME_MESSAGE_RATE="0.01") as server:
        client = await server.client()
        for _ in range(14):
            await client.raw('{"type":"ping","x":"' + "x" * 65_000 + '"}')
        refusals = 0
        with pytest.raises(ConnectionClosed):
            while True:
                refusals += (await client.next())["type"] == "error"
        assert client.socket.close_code == close_codes.CloseCode.LIMITS
        assert 12 <= refusals <= 13, "16 each, of 200"


async def test_what_many_sockets_held_is_free_once_they_are_gone_and_no_collector_ran(
    server: RunningServer, make_users: MakeUsers
) -> None:
    body = ended_stream(os.urandom(60_000))
    async with unnoticed(server, make_users):
        for left in (frame(Opcode.TEXT, b"x" * 60_000, fin=False), frame(Opcode.TEXT, body, deflated=True)[:-1]):
            gc.collect()
            gc.disable()
            try:
                writers = [(await opened(server, DEFLATE))[1] for _ in range(50)]
                for writer in writers:
                    writer.write(left)
                    await writer.drain()
                for writer in writers:
                    writer.transport.abort()
                async with asyncio.timeout(10):
                    while server.services.connections.open > 2:  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
                kinds = (Connection, Deframer, Session, Subscriber)
                found = Counter(type(thing) for thing in gc.get_objects() if isinstance(thing, kinds))
                assert max(found.values()) <= 2, found
            finally:
                gc.enable()


BROKEN = [
    (frame(Opcode.TEXT, b'{"type":"\xff"}'), 1007),
    (frame(Opcode.TEXT, b"\xed\xa0\x80"), 1007),
    (frame(Opcode.TEXT, b"\xc3", fin=False) + frame(Opcode.CONT, b"\x28"), 1007),
    (frame(Opcode.BINARY, b"{}"), 1003),
    (frame(Opcode.TEXT, b"x" * 70_000), 1009),
    (frame(Opcode.CONT, b"x"), 1002),
    (b"\x81\x02{}", 1002),  # not masked
    (b"\xf1\x80\x00\x00\x00\x00", 1002),
    (b"\x83\x80\x00\x00\x00\x00", 1002),
]


async def test_frames_that_break_the_protocol(server: RunningServer, make_users: MakeUsers) -> None:
    async with unnoticed(server, make_users):
        for sent, code in BROKEN:
            reader, writer = await opened(server)
            writer.write(sent)
            assert await end_of(reader) == code, sent[:20]
            writer.close()


async def test_a_client_that_never_reads_is_somebody_elses_problem_never(
    server: RunningServer, make_users: MakeUsers
) -> None:
    async with unnoticed(server, make_users):
        _, writer = await opened(server)
        writer.transport.pause_reading()
        writer.write(frame(Opcode.TEXT, b'{"type":"subscribe","board":"all_time"}'))
        flood = frame(Opcode.TEXT, b'{"type":"ping"}') * 1000
        for _ in range(50):
            writer.write(flood)
            await asyncio.sleep(0)
        await asyncio.sleep(0.2)
        writer.transport.abort()


SUBSCRIBE = frame(Opcode.TEXT, b'{"type":"subscribe","board":"all_time"}')
UNSUBSCRIBE = frame(Opcode.TEXT, b'{"type":"unsubscribe","board":"all_time"}')
GOODBYE = frame(Opcode.CLOSE, b"\x03\xe8")


async def only_the_viewer_is_left(server: RunningServer) -> None:
    """Returns when `unnoticed`'s own are the only ones there."""
    async with asyncio.timeout(10):
        while server.services.broadcaster.following.subscribers > 1 or server.services.connections.open > 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_flood_of_subscribe_and_unsubscribe_leaves_nothing_behind(
    dsn: str, store_url: str, filled: None, make_users: MakeUsers
) -> None:
    async with running_server(dsn, store_url, REALTIME_MESSAGE_RATE="0") as server, unnoticed(server, make_users):
        reader, writer = await opened(server)
        answers = asyncio.create_task(rest(reader, 60))
        for _ in range(50):
            writer.write((SUBSCRIBE + UNSUBSCRIBE) * 100)
            await writer.drain()
            (stream,) = server.services.broadcaster.following.streams
            assert len(stream.subscriptions) <= 2, "the viewer's, and one of ours at most"
        writer.write(GOODBYE)
        assert (await answers).count(b'"type":"unsubscribed"') == 5_000
        await only_the_viewer_is_left(server)
        assert [len(column) for column in (stream.subscriptions, stream.written, stream.descriptors)] == [1, 1, 1]
        writer.close()


async def test_a_client_that_reconnects_as_often_as_it_can_leaves_nothing_behind(
    server: RunningServer, make_users: MakeUsers
) -> None:
    """A hundred times a second and more, each time for the board, and gone in one of three ways."""
    async with unnoticed(server, make_users):
        after: list[int] = []
        for _ in range(3):
            for number in range(150):
                reader, writer = await opened(server)
                writer.write(SUBSCRIBE)
                if number % 3 == 0:
                    await reader.readuntil(b'"snapshot"')
                if number % 3 == 1:
                    writer.write(GOODBYE)
                    await rest(reader)
                    writer.close()
                else:
                    writer.transport.abort()
            await only_the_viewer_is_left(server)
            after.append(_resident())
        assert after[-1] - after[0] < 4_000_000, "it grows with those who are gone"


async def test_those_who_are_gone_do_not_wait_for_the_collector(server: RunningServer, make_users: MakeUsers) -> None:
    async with unnoticed(server, make_users):
        before = _held()
        gc.disable()
        try:
            for number in range(20):
                reader, writer = await opened(server)
                writer.write(SUBSCRIBE)
                await reader.readuntil(b'"snapshot"')
                if number % 2:
                    writer.write(GOODBYE)
                    await rest(reader)
                writer.transport.abort()
            async with asyncio.timeout(5):
                while _held() != before:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        finally:
            gc.enable()


def _held() -> Counter[str]:
    """What there is of connections, sessions and the like."""
    kinds = (HttpConnection, HttpExchange, Connection, Session, Subscriber)
    return Counter(type(thing).__name__ for thing in gc.get_objects() if issubclass(type(thing), kinds))


# Messages ----------------------------------------------------------------------------------------------------------

NASTY = [
    "'; DROP TABLE users; --",
    "1 OR 1=1",
    "$$; SELECT pg_sleep(10); $$",
    "%s %(x)s {0} {} ${jndi:ldap://x}",
    "]] return redis.call('FLUSHALL') --[[",
    "leaderboard:epoch",
    "all_time\r\nFLUSHALL\r\n",
    "*1\r\n$8\r\nFLUSHALL\r\n",
    "week_of_2026_11_23; DROP VIEW x",
    "week_of_2026_11_24",
    "../../../../etc/passwd",
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "\u202e\u200b\ufeff",
    "\ud800",
    "a\x00b",
    "x" * 70,
    "\N{GRINNING FACE}" * 64,
]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(NASTY),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
boards = st.sampled_from(["all_time", "current_week", "week_of_2026_11_16", *NASTY]) | json_values
users = st.integers(-1, 5) | json_values
sinces = st.fixed_dictionaries({"epoch": json_values, "version": json_values})
FIELDS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "subscribe": {"board": boards, "since": json_values | sinces},
    "unsubscribe": {"board": boards},
    "watch": {"board": boards, "user_id": users},
    "unwatch": {"board": boards, "user_id": users},
    "auth": {"token": json_values},
    "submit": {
        "submission_id": json_values, "score_added": json_values, "reason": json_values, "user_id": users,
        "created_at": json_values,
    },
    "ping": {},
}  # fmt: skip


def test_every_message_type_is_tried() -> None:
    assert set(FIELDS) == {"submit", *_READERS}


@st.composite
def messages(draw: st.DrawFn) -> str:
    kind = draw(st.sampled_from(sorted(FIELDS)))
    fields = draw(st.fixed_dictionaries({}, optional=FIELDS[kind]))
    extra = draw(st.dictionaries(st.text(max_size=8), json_values, max_size=2))
    text = json.dumps({**extra, **fields, "type": kind})
    if draw(st.integers(0, 9)) == 0:  # cut, or something in its midst
        place = draw(st.integers(0, len(text)))
        text = text[:place] + draw(st.text(max_size=5)) + (text[place:] if draw(st.booleans()) else "")
    return text


async def test_whatever_a_message_says_it_is_answered_and_nothing_breaks(
    server: RunningServer, make_users: MakeUsers, caplog: pytest.LogCaptureFixture
) -> None:
    (user_id,) = await make_users(names=["target"])
    loop = asyncio.get_running_loop()

    async def say(texts: list[str], client: Client) -> None:
        for text in texts:
            await client.raw(text.encode(errors="replace").decode())
        answers = await client.settled()
        assert {answer["type"] for answer in answers} <= {
            "error", "rejected", "accepted", "subscribed", "unsubscribed", "snapshot", "diff", "rank", "unwatched",
            "pong", "status", "authenticated",
        }  # fmt: skip
        assert not [a for a in answers if a.get("code") == "unavailable"]

    def attack() -> None:
        speakers = [None, server.token(user_id), server.token(None, "admin", "read", "submit:any")]

        @hypothesis_settings(max_examples=60, suppress_health_check=list(HealthCheck), database=None)
        @given(st.lists(messages(), min_size=1, max_size=30), st.integers(0, 2))
        def one(texts: list[str], who: int) -> None:
            async def conversation() -> None:
                client = await Client.connect(server.ws_url, speakers[who])
                try:
                    async with asyncio.timeout(PATIENCE):
                        await say(texts, client)
                finally:
                    await client.aclose()

            asyncio.run_coroutine_threadsafe(conversation(), loop).result(30)

        one()

    async with unnoticed_names(server, make_users):
        await asyncio.to_thread(attack)
    assert not [record for record in caplog.records if record.exc_info]


@asynccontextmanager
async def unnoticed_names(server: RunningServer, make_users: MakeUsers) -> AsyncIterator[None]:
    """As `unnoticed`, where the attack may have put others on the board."""
    (user_id,) = await make_users(names=["honest"])
    yield
    player = await server.client(server.token(None, "submit:any"))
    await player.send("submit", submission_id="h", score_added=2**30, user_id=user_id)
    await player.until("accepted")
    viewer = await server.client()
    await viewer.subscribe("all_time")
    assert any(user == user_id for user, _, _ in viewer.follower.boards["all_time"].lines)


async def test_syntax_in_text_stays_text(server: RunningServer, make_users: MakeUsers, sql: asyncpg.Connection) -> None:
    for text in NASTY:
        (user_id,) = await make_users(1)
        await _hand_in(server, sql, user_id, text)
        await _rename(server, sql, user_id, text)
        await _ban(server, sql, user_id, text)
        await _ask_for(server, text)


async def _hand_in(server: RunningServer, sql: asyncpg.Connection, user_id: int, text: str) -> None:
    body = json.dumps({"submission_id": text, "score_added": 1, "reason": text, "user_id": user_id})
    answer = await server.http.post("/scores", content=body, headers=server.bearer(None, "admin"))
    if answer.status_code == 200:
        query = "SELECT submission_id, reason FROM user_score_transactions WHERE user_id = $1"
        assert tuple(await sql.fetchrow(query, user_id)) == (text, text)
    else:
        assert answer.json()["code"] in ("bad_message", "out_of_range")


async def _rename(server: RunningServer, sql: asyncpg.Connection, user_id: int, text: str) -> None:
    own = server.bearer(user_id)
    answer = await server.http.request("PATCH", "/users/me", content=json.dumps({"username": text}), headers=own)
    if answer.status_code == 200:
        shown = (await server.http.get("/users/me", headers=own)).json()["username"]
        assert await sql.fetchval("SELECT username FROM users WHERE id = $1", user_id) == shown
    else:
        assert answer.json()["error"]["code"] in ("bad_message", "out_of_range")


async def _ban(server: RunningServer, sql: asyncpg.Connection, user_id: int, text: str) -> None:
    admin, body = server.bearer(None, "admin"), json.dumps({"reason": text})
    answer = await server.http.request("POST", f"/users/{user_id}/ban", content=body, headers=admin)
    if answer.status_code == 200:
        assert await sql.fetchval("SELECT detail->>'reason' FROM audit WHERE user_id = $1", user_id) == text
    else:
        assert answer.json()["error"]["code"] in ("bad_message", "out_of_range")


async def _ask_for(server: RunningServer, text: str) -> None:
    path = quote(text.encode(errors="replace"), safe="")
    for address in (f"/boards/{path}", f"/boards/all_time/users/{path}", f"/users/{path}/transactions"):
        answer = await server.http.get(address, headers=server.bearer(None, "admin"))
        assert answer.status_code in (400, 404, 422), address
        assert answer.headers["content-type"] == "application/json"
    said = text.encode(errors="replace").decode()
    for query in ("limit", "offset"):
        assert (await server.http.get("/boards/all_time", params={query: said})).status_code in (400, 422)
    fields = json.dumps({"email": text, "password": text[:5]})
    assert (await server.http.post("/sessions", content=fields)).status_code in (400, 401, 422, 429)


# Files -------------------------------------------------------------------------------------------------------------


PATHS = [
    b"../../../../../../etc/passwd",
    b"..%2f..%2f..%2f..%2fetc/passwd",
    b"%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    b"..\\..\\..\\etc\\passwd",
    b"/etc/passwd",
    b"//etc/passwd",
    b"js/../../../pyproject.toml",
    b"js/%00",
    b"....//....//etc/passwd",
    b"%252e%252e%252fetc%252fpasswd",
    b"%c0%ae%c0%ae/etc/passwd",
]


async def test_no_path_leaves_the_folder(server: RunningServer) -> None:
    for root in (b"/static/", b"/docs/", b"/static/v-000000000000/", b"/"):
        for path in PATHS:
            reader, writer = await raw(server)  # a client library would tidy the path up
            writer.write(b"GET " + root + path + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = await rest(reader)
            assert answer[:12] in (b"HTTP/1.1 404", b"HTTP/1.1 400"), (root, path, answer[:100])
            assert b"root:" not in answer and b"[project]" not in answer
            writer.close()


# Floods ------------------------------------------------------------------------------------------------------------


async def test_who_sends_too_fast_is_refused_and_then_closed(dsn: str, store_url: str, filled: None) -> None:
    # One message now, the next in 100 s: however slow this machine is, it sends too fast.
    async with running_server(dsn, store_url, REALTIME_MESSAGE_RATE="0.01") as server:
        client = await server.client()
        for _ in range(1 + 201):
            await client.send("ping")
        refusals = 0
        with pytest.raises(ConnectionClosed):
            while True:
                message = await client.next()
                refusals += message["type"] == "error"
                assert message["type"] == "pong" or (message["code"] == "too_many" and message["retry_after_ms"] > 0)
        assert client.socket.close_code == close_codes.CloseCode.LIMITS
        assert refusals >= 200


async def test_one_body_is_bounded(server: RunningServer) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(200):  # without end it is cut off, see test_http.py
            yield b" " * 65_536

    headers = server.bearer(1)
    for method, path in (("POST", "/scores"), ("POST", "/sessions"), ("POST", "/users"), ("PATCH", "/users/me")):
        answer = await server.http.request(method, path, content=endless(), headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large"), path
    admin = server.bearer(1, "admin")
    assert (await server.http.post("/users/1/ban", content=endless(), headers=admin)).status_code == 413


async def test_a_flood_of_logins_is_answered_at_once_and_does_not_stop_the_loop(server: RunningServer) -> None:
    async def login(number: int) -> tuple[int, float]:
        began = asyncio.get_running_loop().time()
        body = {"email": f"u{number % 5}@example.com", "password": "wrong horse"}
        answer = await server.http.post("/sessions", json=body, timeout=30)
        return answer.status_code, asyncio.get_running_loop().time() - began

    answers = await asyncio.gather(*(login(number) for number in range(60)))
    assert {status for status, _ in answers} <= {401, 503, 429}
    assert any(status in (503, 429) for status, _ in answers), "the rest is overloaded, or too many"
