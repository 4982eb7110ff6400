"""HTTP as a hostile client speaks it: each request has one answer, each answer a reader, and nothing stays behind.

Every test runs against a real server over real sockets, of which it writes the bytes itself.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import json
import re
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from websockets.frames import Opcode

from realtime.settings import Settings
from realtime.wire import http_connection, reading_pace
from realtime.wire.http_connection import HttpConnection
from realtime.wire.http_exchange import HttpExchange
from realtime.wire.request_reader import CHUNKS
from tests.acceptance.test_hostile import GOODBYE, HANDSHAKE, _resident, frame, raw, rest, unnoticed
from tests.support.databases import MakeUsers
from tests.support.servers import RunningServer, running_server
from tests.support.waiting import PATIENCE

GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
ALIVE = b'{"status":"alive"}'
PING = frame(Opcode.TEXT, b'{"type":"ping"}')
LAST = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def statuses(answers: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+) ", answers)]


async def told(server: RunningServer, *parts: bytes, end: bool = False, within: float = 10.0) -> bytes:
    """Everything that is answered to these bytes, each part a segment of its own, until the server closes."""
    reader, writer = await raw(server)
    try:
        for part in parts:
            writer.write(part)
            with suppress(ConnectionError):
                await writer.drain()
            await asyncio.sleep(0.01 if len(parts) > 1 else 0)
        if end:
            writer.write_eof()
        return await rest(reader, within)
    finally:
        writer.close()


# One request, one answer -------------------------------------------------------------------------------------------


UPGRADES = [
    b"", b"h2c", b"H2C", b"TLS/1.0", b"foo, bar", b"h2c, TLS/1.0", b"websocket, foo", b"foo, websocket", b"websocket",
    b",", b"websockets", b"\t",
]  # fmt: skip


def bodies(inner: bytes) -> list[bytes]:
    """`inner` as a body, with the fields that say so."""
    return [
        b"Content-Length: %d\r\n\r\n" % len(inner) + inner,
        b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(inner) + inner + b"\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(inner) + inner + b"\r\n0\r\nx: y\r\n\r\n",
    ]


@pytest.mark.parametrize("method", [b"POST", b"GET", b"DELETE", b"OPTIONS", b"FOO"])
async def test_a_body_belongs_to_its_request_whatever_that_would_change_to(
    server: RunningServer, method: bytes
) -> None:
    for upgrade in UPGRADES:
        head = method + b" /nope HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: " + upgrade + b"\r\n"
        for body in bodies(GET):
            stream = head + body
            cut = stream.index(b"\r\n\r\n") + 4
            for parts in (
                [stream + LAST],
                [stream[:cut], stream[cut:] + LAST],
                [stream[: cut - 2], stream[cut - 2 :], LAST],
            ):
                answers = await told(server, *parts)
                ended = b"connection: close" in answers.partition(b"\r\n\r\n")[0]  # before the body was whole
                assert statuses(answers) == ([404] if ended else [404, 200]), (parts, answers)
                assert not ended or (len(parts) > 1 and b"chunked" in body)


async def test_a_byte_at_a_time_it_is_the_same(server: RunningServer) -> None:
    for path in (b"/scores", b"/sessions", b"/healthz", b"/", b"/ws"):
        head = b"POST " + path + b" HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: upgrade\r\n"
        stream = head + bodies(GET)[0] + LAST
        answers = statuses(await told(server, *(bytes([byte]) for byte in stream)))
        assert len(answers) == 2 and answers[1] == 200
        assert answers == statuses(await told(server, stream))


async def test_a_request_for_a_websocket_with_a_body_is_an_ordinary_one(server: RunningServer) -> None:
    line, *fields = HANDSHAKE.split(b"\r\n")
    for start in (b"GET /ws", b"POST /ws", b"GET /"):
        for body in bodies(GET):
            answers = await told(server, b"\r\n".join([start + line[7:], *fields]) + body + LAST)
            assert len(statuses(answers)) == 2 and statuses(answers)[1] == 200, answers


COUNTED: list[tuple[bytes, list[int]]] = [
    (b"GET /healthz HTTP/1.1\r\n\r\n", [400]),
    (b"GET /healthz HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", [400]),
    (b"GET /healthz HTTP/1.0\r\n\r\n", [200]),
    (b"GET /healthz HTTP/2.0\r\nHost: x\r\n\r\n", [505]),
    (b"GET http://y/healthz HTTP/1.1\r\nHost: x\r\n\r\n" + LAST, [200, 200]),
    (b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n" + GET, [501]),
    (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n" + LAST, [204, 200]),
    (b"HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n" + LAST, [200, 200]),
    (b"\r\n" + GET + b"\r\n" + LAST, [200, 200]),
    (b"POST /nope HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!" + GET, [400]),
    (b"POST /nope HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + GET, [501]),
    (b"POST /nope HTTP/1.1\r\nHost: x\r\nx: a\r\n b\r\n\r\n" + GET, [400]),
    (b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello" + LAST, [200, 200]),
    (GET * 99 + LAST, [200] * 100),
]


async def test_so_many_requests_so_many_answers(server: RunningServer) -> None:
    for stream, expected in COUNTED:
        assert statuses(await told(server, stream)) == expected, stream


async def test_who_waits_to_send_a_body_is_told_to_go_on_once(server: RunningServer) -> None:
    head = b"POST /sessions HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    reader, writer = await raw(server)
    writer.write(head)
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"he")
    await asyncio.sleep(0.05)
    writer.write(b"llo" + LAST)
    assert statuses(await rest(reader)) == [400, 200]
    writer.close()
    answers = await told(server, head.replace(b"/sessions", b"/nope"))
    assert statuses(answers) == [404] and b"connection: close" in answers, "nobody knows whether the body comes"


# Answers reach their readers ---------------------------------------------------------------------------------------


async def test_an_answer_reaches_who_sends_no_more(server: RunningServer) -> None:
    answers = await told(server, GET, end=True)
    assert answers.endswith(ALIVE)
    assert statuses(await told(server, GET * 3, end=True)) == [200, 200, 200]
    answers = await told(server, b"POST /sessions HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhe", end=True)
    assert statuses(answers) == [400]


async def test_what_follows_an_answer_does_not_cost_it(server: RunningServer) -> None:
    answers = await told(server, GET + b"garbage\r\n\r\n" + b"x" * 100_000)
    assert statuses(answers) == [200, 400] and ALIVE in answers
    answers = await told(server, LAST + b"x" * 100_000)
    assert statuses(answers) == [200] and answers.endswith(ALIVE)


@pytest.mark.parametrize("is_chunked", [False, True])
async def test_a_body_that_is_too_large_is_refused_and_its_sender_reads_so(
    server: RunningServer, is_chunked: bool
) -> None:
    size = 3_000_000
    framing = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % size if is_chunked else b"Content-Length: %d\r\n\r\n" % size
    answers = await told(server, b"POST /sessions HTTP/1.1\r\nHost: x\r\n" + framing, b"x" * size, end=True)
    assert statuses(answers) == [413]
    assert json.loads(answers.partition(b"\r\n\r\n")[2])["error"]["code"] == "too_large"


async def test_whoever_goes_away_in_the_midst_leaves_no_traceback(
    server: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(5):
        _, writer = await raw(server)
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        writer.write(b"GET /docs/operations HTTP/1.1\r\nHost: x\r\n\r\n" * 400)
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.transport.abort()
    await told(server, LAST)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


# Trailers ----------------------------------------------------------------------------------------------------------


async def test_a_trailer_is_no_header(server: RunningServer) -> None:
    token = server.token(1).encode()
    ask = b"GET /users/me HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n"
    field = b"Authorization: Bearer " + token + b"\r\n"
    as_header = await told(server, ask + field + b"\r\n0\r\n\r\n")
    as_trailer = await told(server, ask + b"\r\n0\r\n" + field + b"\r\n")
    assert b'"unauthorized"' not in as_header and b'"unauthorized"' in as_trailer


async def test_a_trailer_is_nobody_s_address(dsn: str, store_url: str, filled: None) -> None:
    async with running_server(
        dsn, store_url, REALTIME_TRUSTED_PROXIES="127.0.0.1", REALTIME_LOGINS_PER_ADDRESS="3"
    ) as server:
        found: Counter[int] = Counter()
        for number in range(6):
            body = b'{"email":"n%d@example.com","password":"wrong horse"}' % number
            answers = await told(
                server,
                b"POST /sessions HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 203.0.113.7\r\nConnection: close\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\nX-Forwarded-For: 198.51.100.%d\r\n\r\n"
                % (len(body), body, number),
            )
            found.update(statuses(answers))
        assert found == {401: 3, 429: 3}


# Handshakes --------------------------------------------------------------------------------------------------------


async def test_what_comes_with_a_handshake_is_heard(server: RunningServer) -> None:
    stream = HANDSHAKE + b"\r\n" + PING
    for parts in ([stream], [stream[:-5], stream[-5:]], [stream[: len(HANDSHAKE) + 1], stream[len(HANDSHAKE) + 1 :]]):
        answers = await told(server, *parts, GOODBYE)
        assert statuses(answers) == [101] and b'"hello"' in answers and b'"pong"' in answers


async def test_a_request_and_a_handshake_at_once_are_answered_in_order(server: RunningServer) -> None:
    for first in (GET, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"POST /nope HTTP/1.1\r\nHost: x\r\n" + bodies(GET)[0]):
        answers = await told(server, first + HANDSHAKE + b"\r\n" + PING + GOODBYE)
        assert statuses(answers)[1:] == [101] and statuses(answers)[0] in (200, 404)
        assert b'"pong"' in answers.partition(b" 101 ")[2]


HANDSHAKES: list[tuple[bytes, bytes, int]] = [
    (b"", b"", 101),
    (b"HTTP/1.1", b"HTTP/1.0", 426),
    (b"HTTP/1.1", b"HTTP/2.0", 505),
    (b"Version: 13", b"Version: 8", 426),
    (b"Version: 13", b"Version: 14", 426),
    (b": websocket", b": websocket, foo", 101),
    (b": websocket", b": foo, WebSocket", 101),
    (b": websocket", b": websocket \t", 101),
    (b": websocket", b": h2c", 426),
    (b": Upgrade", b": keep-alive\r\nConnection: Upgrade", 101),
    (b": Upgrade", b": Upgrade\r\nConnection: keep-alive", 101),
    (b": Upgrade", b": keep-alive", 426),
    (b"Host: x", b"Host: x\r\nHost: y", 400),
    (b"Host: x\r\n", b"", 400),
    (b"/ws", b"http://x/ws", 101),
    (b"/ws", b"/ws#a", 400),
    (b"GET", b"POST", 405),
]


async def test_who_becomes_a_websocket(server: RunningServer) -> None:
    for old, new, expected in HANDSHAKES:
        answers = await told(server, HANDSHAKE.replace(old, new, 1) + b"\r\n" + GOODBYE * (expected == 101), end=True)
        assert statuses(answers) == [expected], (old, new, answers)


async def test_who_asks_for_no_websocket_is_told_of_proxies(server: RunningServer) -> None:
    answer = await server.http.get("/ws")
    assert (answer.status_code, answer.headers["upgrade"]) == (426, "websocket")
    assert "proxy" in answer.json()["error"]["message"] and "Upgrade" in answer.json()["error"]["message"]
    old = await told(server, HANDSHAKE.replace(b"13", b"8") + b"\r\n")
    assert b"\r\nSec-WebSocket-Version: 13\r\n" in old


# Bounds ------------------------------------------------------------------------------------------------------------


PAGE = b"GET /docs/operations HTTP/1.1\r\nHost: x\r\n\r\n"


@asynccontextmanager
async def who_do_not_read(server: RunningServer, count: int, stream: bytes) -> AsyncIterator[list[socket.socket]]:
    """So many connections that ask for `stream` and read nothing of what is answered."""
    host, port = server.base_url.removeprefix("http://").rsplit(":", 1)
    loop, held = asyncio.get_running_loop(), []
    try:
        for _ in range(count):
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            sock.setblocking(False)
            held.append(sock)
            await loop.sock_connect(sock, (host, int(port)))
            with suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    await loop.sock_sendall(sock, stream)
        yield held
    finally:
        for sock in held:
            sock.close()


def _kept() -> int:
    """Connections and exchanges that are in memory."""
    return sum(issubclass(type(thing), (HttpConnection, HttpExchange)) for thing in gc.get_objects())


async def test_requests_ahead_cost_one_read_and_are_given_back(server: RunningServer, make_users: MakeUsers) -> None:
    """6 MB of requests whose answers nobody reads: one of each connection is under way, the rest waits unread."""
    async with unnoticed(server, make_users):
        await told(server, LAST)
        before, kept = _resident(), _kept()
        gc.disable()
        try:
            async with who_do_not_read(server, 24, PAGE * 400 + GET * 7_000):
                exchanges = [thing for thing in gc.get_objects() if type(thing) is HttpExchange]
                assert len(exchanges) <= 24 + kept, "one at a time"
                del exchanges
                assert _resident() - before < 32 << 20
            async with asyncio.timeout(5):
                while _kept() > kept:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        finally:
            gc.enable()


async def test_others_have_their_turn_beside_a_flood(server: RunningServer) -> None:
    count = 3_000
    reader, writer = await raw(server)
    writer.write(GET * count)
    answered = 0

    async def read() -> None:
        nonlocal answered
        while answered < count:
            await reader.readuntil(ALIVE)
            answered += 1

    reading = asyncio.create_task(read())
    assert statuses(await told(server, LAST)) == [200]
    assert answered < count, "while these are answered"
    await reading
    writer.close()


async def test_an_answer_is_read_at_a_pace_or_not_at_all(
    server: RunningServer, make_users: MakeUsers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading_pace, "PACE_SECONDS", 0.3)
    async with unnoticed(server, make_users):
        kept = _kept()
        async with who_do_not_read(server, 2, PAGE * 400) as held:
            async with asyncio.timeout(PATIENCE):
                while _kept() > kept:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            for sock in held:  # what waited in the kernel is given back as well
                assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNRESET


async def test_an_answer_that_is_read_slowly_comes_whole(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading_pace, "PACE_SECONDS", 0.2)
    reader, writer = await raw(server)
    writer.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    count = 150
    writer.write(PAGE * count + LAST)
    data = bytearray()
    async with asyncio.timeout(PATIENCE):
        while part := await reader.read(65_536):
            data += part
            await asyncio.sleep(0.005)
    assert statuses(bytes(data)) == [200] * (count + 1)
    writer.close()


async def test_an_idle_connection_is_kept_as_long_as_the_setting_says(dsn: str, store_url: str, filled: None) -> None:
    assert Settings.load({}).keep_alive_s == 75
    async with running_server(dsn, store_url, REALTIME_KEEP_ALIVE_S="1") as server:
        reader, writer = await raw(server)
        loop = asyncio.get_running_loop()
        began = loop.time()
        writer.write(GET)
        await reader.readuntil(ALIVE)
        await asyncio.sleep(0.6)
        writer.write(GET)
        await reader.readuntil(ALIVE)
        assert await rest(reader) == b""
        assert loop.time() - began >= 1.5, "each answer counts anew"
        writer.close()


async def test_who_has_nothing_to_say_is_not_kept_by_empty_lines(dsn: str, store_url: str, filled: None) -> None:
    async with running_server(dsn, store_url, REALTIME_KEEP_ALIVE_S="1") as server:
        reader, writer = await raw(server)
        writer.write(GET)
        await reader.readuntil(ALIVE)

        async def drip() -> None:
            with suppress(ConnectionError):
                while True:
                    writer.write(b"\r\n")
                    await asyncio.sleep(0.1)

        dripping = asyncio.create_task(drip())
        assert await rest(reader, 5) == b""
        dripping.cancel()
        writer.close()


async def test_a_connection_that_ends_listens_on_only_so_long(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_connection, "LINGER_SECONDS", 0.3)
    kept = _kept()
    reader, writer = await raw(server)
    writer.write(LAST)
    assert (await rest(reader)).endswith(ALIVE)
    async with asyncio.timeout(5):
        while _kept() > kept:  # noqa: ASYNC110  # though this end stays open
            await asyncio.sleep(0.05)
    writer.close()


async def test_a_connection_that_ends_takes_in_only_so_much(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_connection, "LINGER_SECONDS", 60.0)
    monkeypatch.setattr(http_connection, "LINGER_BYTES", 1_000_000)
    _, writer = await raw(server)
    with pytest.raises(ConnectionError):
        writer.write(LAST)
        while True:
            writer.write(b"x" * 65_536)
            await writer.drain()
            await asyncio.sleep(0)
    writer.close()


@pytest.mark.parametrize("piece", [b"x: y\r\n", b"x" * 65_536], ids=["many", "one"])
async def test_a_trailer_without_end_is_refused(server: RunningServer, make_users: MakeUsers, piece: bytes) -> None:
    async with unnoticed(server, make_users):
        before = _resident()
        begin = b"POST /sessions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nx: "
        answers = await told(server, begin, *[piece * (1_000_000 // len(piece))] * 5)
        assert statuses(answers) == [431]
        assert _resident() - before < 16 << 20


async def test_a_body_is_not_chopped_up_without_end(server: RunningServer, make_users: MakeUsers) -> None:
    async with unnoticed(server, make_users):
        begin = b"POST /sessions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        answers = await told(server, begin + b"1\r\n \r\n" * (CHUNKS + 1), end=True)
        assert statuses(answers) == [413]


# The table in SECURITY.md ------------------------------------------------------------------------------------------


ROOT = Path(__file__).parents[2]


def bounds() -> list[list[str]]:
    """The rows of SECURITY.md's table of bounds."""
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    table = text.partition("| what | at most | test |\n")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()[1:]]


def test_each_bound_has_its_test() -> None:
    rows = bounds()
    assert len(rows) > 12
    for row in rows:
        what, most, test = row
        assert what and most
        place, name = re.fullmatch(r"`(\w+/\w+\.py)` `(\w+)`", test).groups()  # type: ignore[union-attr]
        assert f"def {name}(" in (ROOT / "tests" / place).read_text(encoding="utf-8"), name


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("HEAD_SECONDS", "10 s"), ("BODY_SECONDS", "30 s"), ("LINGER_SECONDS", "2 s"), ("LINGER_BYTES", "16 MiB"),
        ("PACE_SECONDS", "10 s"), ("PACE_BYTES", "10 KiB"),
    ],
)  # fmt: skip
def test_the_table_names_the_bounds_that_there_are(value: str, words: str) -> None:
    number, unit = words.split()
    factor: dict[str, Any] = {"s": 1, "KiB": 1024, "MiB": 1 << 20}
    module = reading_pace if value.startswith("PACE") else http_connection
    assert getattr(module, value) == float(number) * factor[unit]
    assert any(words in row[1] for row in bounds())
