"""What 1,000,000 hostile messages do: each is answered or ends its connection, and viewers see nothing of it.

`python -m tests.benchmarks hostile`. Windows alternate: quiet, and with a flood from another process on eight sockets
that come again whenever they are closed, under the limits that `realtime serve` has. Beside it a board changes 20 times
a second before 200 viewers. Counted: the time of one pass over the subscribers (the server's own
`realtime_pass_seconds`), and the server's memory.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import re
import time
import urllib.request
from multiprocessing.connection import Connection
from pathlib import Path

import asyncpg
import orjson
import uvloop
from websockets.asyncio.client import ClientConnection, connect

from tests.benchmarks.harness import Server, Table, median, server

MESSAGES = 1_000_000
FLOODS = 10
"""Windows with a flood; the messages are spread over them."""
QUIET = 4.0
VIEWERS = 200
SOCKETS = 8
CHANGES = 20
ON_ONE = 1_000
"""Messages on one connection: about 100 are read as they are, 200 refused for their rate, the rest is cut off."""
TOLD_TO_GO = (4429).to_bytes(2, "big") + b"too many messages"
"""What a close frame says to who sends too much."""

_HANDSHAKE = (
    "GET /ws HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def hostile_messages(count: int, seed: int) -> list[bytes]:
    """Messages nobody should send: cut, swapped, swollen, nested, of wrong types, in wrong encodings; as frames."""
    draw = random.Random(seed)
    values = [
        None, True, -1, 2**53, 1e308, "", "x" * 300, "\u202e", "'; DROP TABLE users; --", "]] redis.call('FLUSHALL')",
        "all_time", "current_week", "week_of_2026_11_24", "../../etc/passwd", "<script>", [], {}, [[[[[]]]]],
        {"type": "submit"}, "eyJhbGciOiJub25lIn0.e30.",
    ]  # fmt: skip
    kinds = ["subscribe", "unsubscribe", "watch", "unwatch", "auth", "submit", "ping", "hello", "", 7]
    names = ["board", "since", "user_id", "token", "submission_id", "score_added", "reason", "created_at", "type"]
    made: list[bytes] = []
    for _ in range(count):
        fields = {name: draw.choice(values) for name in draw.sample(names, draw.randint(0, 5))}
        payload = orjson.dumps({"type": draw.choice(kinds), **fields})
        match draw.randint(0, 5):
            case 0:
                payload = payload[: draw.randint(0, len(payload))]
            case 1:
                payload = draw.choice([b"[" * 2_000, b"{" * 50, b"null", b'"\\ud800"', b"NaN", b"1" * 400, b" "])
            case 2:
                place = draw.randint(0, len(payload))
                payload = payload[:place] + bytes(draw.choices(range(32, 127), k=5)) + payload[place:]
        made.append(_frame(payload))
    return made


def _frame(payload: bytes) -> bytes:
    """A client's text frame, its mask of zeros (RFC 6455, section 5.3)."""
    size = len(payload)
    length = bytes((0x80 | size,)) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    return b"\x81" + length + b"\0\0\0\0" + payload


async def _attacker(url: str, frames: list[bytes], count: int) -> int:
    """Sends so many messages, on a new connection whenever one is told to go; how many connections that took."""
    host, _, port = url.removeprefix("http://").partition(":")
    sent = connections = 0
    while sent < count:
        connections += 1
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(_HANDSHAKE.format(host=host).encode())
        await reader.readuntil(b"\r\n\r\n")
        drain = asyncio.get_running_loop().create_task(_discard(reader))
        some = frames[sent % len(frames) :][: min(ON_ONE, count - sent)]
        sent += len(some)
        try:
            writer.write(b"".join(some))
            await writer.drain()
        except ConnectionError:
            pass
        await asyncio.wait({drain}, timeout=1)  # until the server has had enough
        drain.cancel()
        writer.close()
    return connections


async def _discard(reader: asyncio.StreamReader) -> None:
    try:
        while TOLD_TO_GO not in await reader.read(1 << 18) and not reader.at_eof():
            pass
    except ConnectionError:
        pass


def _flood(url: str, orders: Connection) -> None:
    """Another process: so many hostile messages for each order."""

    async def flood(count: int) -> int:
        parts = [_attacker(url, hostile_messages(2_000, number), count // SOCKETS) for number in range(SOCKETS)]
        return sum(await asyncio.gather(*parts))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        while (count := orders.recv()) > 0:
            orders.send(runner.run(flood(count)))


def _passes(target: Server) -> tuple[float, float]:
    """Seconds of all passes so far, and how many there were."""
    with urllib.request.urlopen(target.base_url + "/metrics") as answer:
        text = answer.read().decode()
    found = {name: float(value) for name, value in re.findall(r"^realtime_pass_seconds_(sum|count) (\S+)", text, re.M)}
    return found["sum"], found["count"]


def _refused(target: Server) -> int:
    """Messages that the server refused, by its own count."""
    with urllib.request.urlopen(target.base_url + "/metrics") as answer:
        text = answer.read().decode()
    return int(sum(float(value) for value in re.findall(r"^realtime_refusals_total\{.*\} (\S+)", text, re.M)))


def _resident_mib(target: Server) -> float:
    status = Path(f"/proc/{target.program.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]


async def _change(game: ClientConnection, numbers: list[int], stop: asyncio.Event) -> None:
    while not stop.is_set():
        numbers[0] += 1
        message = {"type": "submit", "submission_id": f"n{numbers[0]}", "score_added": 1, "user_id": 1}
        await game.send(orjson.dumps(message).decode())
        await game.recv()
        await asyncio.sleep(1 / CHANGES)


async def _measure(target: Server, orders: Connection) -> Table:
    connection = await asyncpg.connect(target.database_url)
    await connection.execute("INSERT INTO users (username) SELECT 'p' || n FROM generate_series(1, 5) n")
    await connection.close()
    token = target.token("submit:any")
    viewers = [await connect(target.ws_url, max_queue=None) for _ in range(VIEWERS)]
    readers = [asyncio.create_task(_read(viewer)) for viewer in viewers]
    for viewer in viewers:
        await viewer.send('{"type":"subscribe","board":"all_time"}')
    numbers, stop = [0], asyncio.Event()
    seconds: dict[str, list[float]] = {"quiet": [], "flood": []}
    resident: list[float] = []
    took = connections = 0.0
    async with connect(f"{target.ws_url}?token={token}") as game:
        await game.recv(), await game.recv()
        changing = asyncio.create_task(_change(game, numbers, stop))
        for _ in range(FLOODS):
            for kind in ("quiet", "flood"):
                before = _passes(target)
                began = time.monotonic()
                if kind == "quiet":
                    await asyncio.sleep(QUIET)
                else:
                    orders.send(MESSAGES // FLOODS)
                    connections += await asyncio.to_thread(orders.recv)
                    took += time.monotonic() - began
                after = await asyncio.to_thread(_passes, target)
                seconds[kind].append((after[0] - before[0]) / max(1.0, after[1] - before[1]))
            resident.append(_resident_mib(target))
        stop.set()
        await changing
    assert target.program.is_running, "the server is alive"
    refused = await asyncio.to_thread(_refused, target)
    for reader in readers:
        reader.cancel()
    for viewer in viewers:
        await viewer.close()
    quiet, flood = median(seconds["quiet"]), median(seconds["flood"])
    table = Table(f"{MESSAGES:,} hostile messages beside {VIEWERS} viewers", ("what", "quiet", "flood", "ratio"))
    table.add("one pass over the subscribers, ms, median of windows", quiet * 1000, flood * 1000, flood / quiet)
    table.add("server's memory after the first and the last flood, MiB", resident[0], resident[-1],
              resident[-1] / resident[0])  # fmt: skip
    table.add("hostile messages a second, connections used", "", MESSAGES / took, int(connections))
    table.add("of these refused one by one, by the server's own count", "", refused, "")
    return table


async def _read(viewer: ClientConnection) -> None:
    async for _ in viewer:
        pass


def run() -> list[Table]:
    """The table of this benchmark."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    with server(REALTIME_MESSAGE_RATE="50") as target:  # as `serve` has it
        process = context.Process(target=_flood, args=(target.base_url, theirs), daemon=True)
        process.start()
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                return [runner.run(_measure(target, ours))]
        finally:
            ours.send(0)
            process.join(10)
