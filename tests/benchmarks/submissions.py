"""How many submissions a second are acknowledged, against what PostgreSQL alone commits.

`python -m tests.benchmarks submissions`. Three ways on one PostgreSQL, in alternating windows:
one transaction a submission over 32 asyncpg connections (what a first version does), the bare batch statement in the
server's lanes (the ceiling), and the server: 50 sockets with 100 in flight each, and lists of 1,000 over HTTP.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count

import asyncpg
import orjson
import uvloop

from realtime.boards.submissions import Submission
from realtime.ledger.ledger import Ledger
from tests.benchmarks.harness import Server, Table, median, server

USERS = 1_000
SOCKETS, IN_FLIGHT = 50, 100
WINDOW = 4.0
WINDOWS = 5

_numbers = count()


def new_id() -> str:
    """A submission id that nobody had."""
    return f"b{os.getpid()}-{next(_numbers)}"


class Submitter(asyncio.Protocol):
    """A client that costs next to nothing: ready frames out, acknowledgements counted in the byte stream."""

    def __init__(self, path: str, host: str, ends: Callable[[], bool], frame: Callable[[], bytes]) -> None:
        self.acknowledged = 0
        self._greeting = (
            f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        ).encode()
        self._ends = ends
        self._frame = frame
        self._tail = b""
        self._open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._transport.write(self._greeting)

    def data_received(self, data: bytes) -> None:
        seen = self._tail + data
        if not self._open:
            if b'"authenticated"' not in seen:
                self._tail = seen
                return
            self._open = True
            self._send(IN_FLIGHT)
            self._tail = b""
            return
        mark = b'"type":"accepted"'
        accepted = seen.count(mark)
        self._tail = seen[-len(mark) + 1 :]
        self.acknowledged += accepted
        if accepted and not self._ends():
            self._send(accepted)

    def _send(self, frames: int) -> None:
        self._transport.write(b"".join(self._frame() for _ in range(frames)))

    def close(self) -> None:
        self._transport.abort()


def _frame() -> bytes:
    payload = b'{"type":"submit","submission_id":"%s","user_id":%d,"score_added":%d,"reason":"win"}' % (
        new_id().encode(),
        random.randint(1, USERS),
        random.randint(1, 100),
    )
    return framed(payload)


def framed(payload: bytes) -> bytes:
    """A text of less than 64 KiB as a frame of a client's."""
    # A mask of zeros leaves the payload as it is (RFC 6455, section 5.3): the server unmasks it all the same.
    if len(payload) < 126:
        return bytes((0x81, 0x80 | len(payload))) + b"\0\0\0\0" + payload
    return b"\x81\xfe" + len(payload).to_bytes(2, "big") + b"\0\0\0\0" + payload


@asynccontextmanager
async def submitting(
    target: Server, token: str, frame: Callable[[], bytes] = _frame
) -> AsyncIterator[Callable[[], int]]:
    """SOCKETS sockets that hand in what `frame` makes, IN_FLIGHT each, for the block; yields, once they are all at it,
    who tells how many were acknowledged."""
    loop = asyncio.get_running_loop()
    host, port = target.base_url.removeprefix("http://").rsplit(":", 1)
    has_ended = False
    made = [
        (
            await loop.create_connection(
                lambda: Submitter(f"/ws?token={token}", host, lambda: has_ended, frame), host, int(port)
            )
        )[1]
        for _ in range(SOCKETS)
    ]
    await asyncio.sleep(0.5)
    yield lambda: sum(one.acknowledged for one in made)
    has_ended = True
    await asyncio.sleep(0.5)
    for one in made:
        one.close()


async def over_sockets(target: Server, token: str) -> float:
    """Acknowledged submissions a second over SOCKETS sockets with IN_FLIGHT each."""
    async with submitting(target, token) as acknowledged:
        before, began = acknowledged(), time.perf_counter()
        await asyncio.sleep(WINDOW)
        return (acknowledged() - before) / (time.perf_counter() - began)


async def over_http(target: Server, token: str) -> float:
    """Acknowledged submissions a second in lists of 1,000, eight requests at a time."""
    host, port = target.base_url.removeprefix("http://").rsplit(":", 1)
    acknowledged = 0
    deadline = time.perf_counter() + WINDOW

    async def client() -> None:
        nonlocal acknowledged
        reader, writer = await asyncio.open_connection(host, int(port), limit=2**21)
        while time.perf_counter() < deadline:
            rows = [
                {"submission_id": new_id(), "user_id": random.randint(1, USERS), "score_added": 5, "reason": "win"}
                for _ in range(1000)
            ]
            body = orjson.dumps(rows)
            head = (
                f"POST /scores HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            writer.write(head.encode() + body)
            reply = await reader.readuntil(b"\r\n\r\n")
            length = int(reply.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            acknowledged += (await reader.readexactly(length)).count(b'"accepted"')
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(8)))
    return acknowledged / (time.perf_counter() - began)


async def one_transaction_each(dsn: str) -> float:
    """Commits a second of one transaction a submission, 32 connections."""
    pool = await asyncpg.create_pool(dsn, min_size=32, max_size=32)
    done = 0
    deadline = time.perf_counter() + WINDOW

    async def client() -> None:
        nonlocal done
        async with pool.acquire() as connection:
            while time.perf_counter() < deadline:
                user = random.randint(1, USERS)
                async with connection.transaction():
                    await connection.execute(
                        "INSERT INTO user_score_transactions (user_id, submission_id, score_added, reason, created_at)"
                        " VALUES ($1, $2, 5, 'win', clock_timestamp())",
                        user,
                        new_id(),
                    )
                    await connection.execute(
                        "INSERT INTO user_total_scores AS t (user_id, total_score) VALUES ($1, 5) ON CONFLICT (user_id)"
                        " DO UPDATE SET total_score = t.total_score + 5, version = t.version + 1",
                        user,
                    )
                    await connection.execute(
                        "INSERT INTO user_weekly_scores AS w (week, user_id, score)"
                        " VALUES (date_trunc('week', now() AT TIME ZONE 'UTC')::date, $1, 5)"
                        " ON CONFLICT (week, user_id) DO UPDATE SET score = w.score + 5, version = w.version + 1",
                        user,
                    )
                done += 1

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(32)))
    rate = done / (time.perf_counter() - began)
    await pool.close()
    return rate


async def bare_statement(dsn: str) -> float:
    """Submissions a second of the batch statement alone, 1,000 at a time in as many lanes as the server has."""
    ledger = Ledger(dsn, connections=2)
    await ledger.open()
    done = 0
    deadline = time.perf_counter() + WINDOW

    async def lane() -> None:
        nonlocal done
        while time.perf_counter() < deadline:
            batch = [Submission(random.randint(1, USERS), new_id(), 5, "win", None) for _ in range(1000)]
            await ledger.record_batch(batch, [])
            done += len(batch)

    began = time.perf_counter()
    await asyncio.gather(lane(), lane())
    rate = done / (time.perf_counter() - began)
    await ledger.aclose()
    return rate


async def _measure(target: Server) -> Table:
    connection = await asyncpg.connect(target.database_url)
    await connection.execute(f"INSERT INTO users (username) SELECT 'player ' || g FROM generate_series(1, {USERS}) g")
    token = target.token("submit:any", user_id=1)
    ways: dict[str, Callable[[], Awaitable[float]]] = {
        "one transaction a submission, 32 connections": lambda: one_transaction_each(target.database_url),
        "bare batch statement, 1,000 a batch, 2 lanes": lambda: bare_statement(target.database_url),
        f"server, {SOCKETS} sockets, {IN_FLIGHT} in flight each": lambda: over_sockets(target, token),
        "server, lists of 1,000 over HTTP": lambda: over_http(target, token),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(WINDOWS):
        for name, way in ways.items():
            rates[name].append(await way())
            # Each window begins with the outbox and dead rows of the one before out of the way.
            await connection.execute("DELETE FROM outbox")
            await connection.execute("VACUUM user_total_scores, user_weekly_scores, outbox")
    await connection.close()
    base, bare = (median(rates[name]) for name in list(ways)[:2])
    table = Table("Submissions a second", ("way", "median", "of one transaction each", "of the bare statement"))
    for name, values in rates.items():
        table.add(name, median(values), median(values) / base, median(values) / bare)
    return table


def run() -> list[Table]:
    """The table of this benchmark."""
    with server() as target, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return [runner.run(_measure(target))]
