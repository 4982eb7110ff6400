"""What 10,000 people who watch their own rank cost, on a board of a million under 100 changes a second.

`python -m tests.benchmarks watchers`. Every watcher has a socket of their own and watches another player, drawn from
the whole board; scores are drawn from ten million, so that hardly two watchers share one. Two kinds of change, in
alternating windows: points for anybody, by which a few watchers move each second, and one of the last who takes the
lead, by which everybody moves and every watcher is told once a second. CPU of server and store, PostgreSQL not counted.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import count

import asyncpg
import orjson
import uvloop

from realtime.wire.frames import PING, PONG
from tests.benchmarks.harness import Server, Table, cpu_seconds, median, server

PLAYERS = 1_000_000
WATCHERS = 10_000
CHANGES = 100
WINDOW = 5.0
WINDOWS = 5

_numbers = count()

_HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def _text_frame(message: dict[str, object]) -> bytes:
    """A client's frame. A mask of zeros leaves the payload as it is (RFC 6455, section 5.3)."""
    payload = orjson.dumps(message)
    assert len(payload) < 126
    return bytes((0x81, 0x80 | len(payload))) + b"\0\0\0\0" + payload


class Socket(asyncio.Protocol):
    """A client that costs next to nothing: it sends what it was given after the greeting, and counts ranks."""

    def __init__(self, path: str, host: str, first: bytes) -> None:
        self._greeting = _HANDSHAKE.format(path=path, host=host).encode()
        self._first = first
        self._seen = b""
        self._open = False
        self.told = asyncio.get_running_loop().create_future()
        self.ranks = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.transport.write(self._greeting)

    def data_received(self, data: bytes) -> None:
        seen = self._seen + data
        if not self._open:
            head, end, seen = seen.partition(b"\r\n\r\n")
            if not end:
                self._seen = head
                return
            self._open = True
            self.transport.write(self._first)
        while len(seen) >= 4:
            length, start = seen[1], 2
            if length == 126:
                length, start = int.from_bytes(seen[2:4], "big"), 4
            if len(seen) < start + length:
                break
            self._take(seen[0] & 0x0F, seen[start : start + length])
            seen = seen[start + length :]
        self._seen = seen

    def _take(self, opcode: int, payload: bytes) -> None:
        if opcode == PING:
            self.transport.write(bytes((0x80 | PONG, 0x80 | len(payload))) + b"\0\0\0\0" + payload)
        elif b'"type":"rank"' in payload:
            self.ranks += 1
            if not self.told.done():
                self.told.set_result(None)


async def _connect(target: Server, path: str, first: bytes) -> Socket:
    host, port = target.base_url.removeprefix("http://").rsplit(":", 1)
    _, made = await asyncio.get_running_loop().create_connection(lambda: Socket(path, host, first), host, int(port))
    return made


async def _fill(target: Server) -> None:
    connection = await asyncpg.connect(target.database_url)
    await connection.execute(f"INSERT INTO users (username) SELECT 'player ' || g FROM generate_series(1, {PLAYERS}) g")
    await connection.execute(
        "INSERT INTO user_total_scores (user_id, total_score) "
        f"SELECT g, 1 + random() * 10000000 FROM generate_series(1, {PLAYERS}) g"
    )
    await connection.execute("ANALYZE")
    await connection.close()
    command = [sys.executable, "-m", "realtime", "rebuild", "--data-dir", str(target.data_dir)]
    await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)


async def _watch(target: Server) -> list[Socket]:
    """All watchers, each told a first time."""
    watched = random.sample(range(1, PLAYERS + 1), WATCHERS)
    sockets: list[Socket] = []
    for start in range(0, WATCHERS, 100):
        firsts = [
            _text_frame({"type": "watch", "board": "all_time", "user_id": user_id})
            for user_id in watched[start : start + 100]
        ]
        sockets += await asyncio.gather(*(_connect(target, "/ws", first) for first in firsts))
    async with asyncio.timeout(60):
        await asyncio.gather(*(socket.told for socket in sockets))
    return sockets


def _anybody() -> tuple[int, int]:
    """A user, and the points they get."""
    return random.randint(1, PLAYERS), random.randint(1, 1_000)


def _to_the_top() -> tuple[int, int]:
    return random.randint(1, PLAYERS), 20_000_000


async def _change(player: Socket, choose: Callable[[], tuple[int, int]], seconds: float) -> None:
    """CHANGES submissions a second, evenly."""
    began = time.perf_counter()
    for turn in range(int(seconds * CHANGES)):
        user_id, points = choose()
        message = {"type": "submit", "submission_id": f"w{next(_numbers)}", "user_id": user_id, "score_added": points}
        player.transport.write(_text_frame(message))
        await asyncio.sleep(max(0.0, began + (turn + 1) / CHANGES - time.perf_counter()))


async def _measure(target: Server) -> Table:
    await _fill(target)
    store = target.store_pid
    player = await _connect(target, f"/ws?token={target.token('submit:any', user_id=1)}", b"")
    sockets: list[Socket] = []
    figures: dict[tuple[int, str], list[tuple[float, float, float]]] = {}

    async def window(kind: str, choose: Callable[[], tuple[int, int]] | None) -> None:
        told = sum(socket.ranks for socket in sockets)
        server_before, store_before, began = target.cpu_seconds(), cpu_seconds(store), time.perf_counter()
        await (_change(player, choose, WINDOW) if choose else asyncio.sleep(WINDOW))
        took = time.perf_counter() - began
        figure = (
            (target.cpu_seconds() - server_before) / took * 100,
            (cpu_seconds(store) - store_before) / took * 100,
            (sum(socket.ranks for socket in sockets) - told) / took,
        )
        figures.setdefault((len(sockets), kind), []).append(figure)

    kinds = {"nothing": None, "points for anybody": _anybody, "the last take the lead": _to_the_top}
    for watching in (False, True):
        if watching:
            sockets = await _watch(target)
        for _ in range(WINDOWS):
            for kind, choose in kinds.items():
                await window(kind, choose)
    columns = ("watchers", f"{CHANGES} changes a second", "server", "store", "together", "messages a second")
    table = Table(f"CPU, percent of one core, {PLAYERS:,} players on the board", columns)
    for (watchers, kind), values in figures.items():
        of_server, of_store, told = (median(column) for column in zip(*values, strict=True))
        table.add(f"{watchers:,}", kind, of_server, of_store, of_server + of_store, told)
    return table


def run() -> list[Table]:
    """The table of this benchmark."""
    limits = {"REALTIME_MAX_CONNECTIONS_PER_ADDRESS": "0", "REALTIME_MESSAGE_RATE": "0"}
    with server(**limits) as target, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return [runner.run(_measure(target))]
