"""What 200 logins a second do to a broadcast at 20 a second: nothing that a viewer would notice.

`python -m tests.benchmarks login_storm`. One socket sends a ping every 10 ms and waits for its pong: what that takes
beyond a quiet loop is how late the server's event loop is. A second one sees each diff. Windows alternate: quiet, and
with a storm of wrong passwords from another process. Most of a storm is refused, `overloaded`, within 100 ms.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections import Counter
from multiprocessing.connection import Connection

import orjson
import uvloop
from websockets.asyncio.client import ClientConnection, connect

from tests.benchmarks.harness import Server, Table, median, server

LOGINS = 200
CHANGES = 20
WINDOW = 5.0
WINDOWS = 4
LANES = 40
"""Connections of the storm."""


async def _lane(url: str, every: float, until: float, seen: Counter[int], waits: list[float]) -> None:
    """Logins on one kept connection, one each `every` seconds."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    body = orjson.dumps({"email": "known@example.com", "password": "a wrong password"})
    request = f"POST /sessions HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    due = time.monotonic()
    while due < until:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        began = time.monotonic()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)
        seen[int(head[9:12])] += 1
        waits.append(time.monotonic() - began)
        due += every
    writer.close()


def _storm(url: str, orders: Connection) -> None:
    """Another process: a storm for each order, told how it went."""

    async def storm(seconds: float) -> tuple[dict[int, int], list[float]]:
        seen: Counter[int] = Counter()
        waits: list[float] = []
        until = time.monotonic() + seconds
        await asyncio.gather(*(_lane(url, LANES / LOGINS, until, seen, waits) for _ in range(LANES)))
        return dict(seen), waits

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        while (seconds := orders.recv()) > 0:
            orders.send(runner.run(storm(seconds)))


async def _pings(socket: ClientConnection, until: float) -> list[float]:
    found: list[float] = []
    while time.monotonic() < until:
        began = time.perf_counter()
        await socket.send('{"type":"ping"}')
        await socket.recv()
        found.append(time.perf_counter() - began)
        await asyncio.sleep(0.01)
    return found


async def _changes(socket: ClientConnection, until: float, first: int) -> None:
    number = first
    while time.monotonic() < until:
        message = {"type": "submit", "submission_id": f"l{number}", "score_added": 1, "user_id": 1}
        await socket.send(orjson.dumps(message).decode())
        await socket.recv()
        number += 1
        await asyncio.sleep(1 / CHANGES)


async def _diffs(socket: ClientConnection, until: float) -> list[float]:
    """Seconds between one diff and the next."""
    gaps: list[float] = []
    last = time.monotonic()
    while (left := until - time.monotonic()) > 0:
        try:
            async with asyncio.timeout(left):
                await socket.recv()
        except TimeoutError:
            break
        gaps.append(time.monotonic() - last)
        last = time.monotonic()
    return gaps


async def _window(seconds: float, pinging: ClientConnection, game: ClientConnection, viewer: ClientConnection,
                  first: int) -> tuple[list[float], list[float]]:  # fmt: skip
    until = time.monotonic() + seconds
    pings, _, gaps = await asyncio.gather(_pings(pinging, until), _changes(game, until, first), _diffs(viewer, until))
    return pings, gaps


def _share(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else 0.0


async def _measure(target: Server, orders: Connection) -> Table:
    import asyncpg

    connection = await asyncpg.connect(target.database_url)
    await connection.execute("INSERT INTO users (username) VALUES ('one')")
    await connection.close()
    token = target.token("submit:any")
    lag: dict[str, list[float]] = {"quiet": [], "storm": []}
    steps: dict[str, list[float]] = {"quiet": [], "storm": []}
    statuses: Counter[int] = Counter()
    waits: list[float] = []
    async with (
        connect(target.ws_url) as pinging,
        connect(target.ws_url) as viewer,
        connect(f"{target.ws_url}?token={token}") as game,
    ):
        await pinging.recv()
        await game.recv(), await game.recv()
        await viewer.send('{"type":"subscribe","board":"all_time"}')
        while orjson.loads(await viewer.recv())["type"] != "snapshot":
            pass
        for number in range(2 * WINDOWS):
            kind = ("quiet", "storm")[number % 2]
            if kind == "storm":
                orders.send(WINDOW)
            pings, gaps = await _window(WINDOW, pinging, game, viewer, number * 100_000)
            lag[kind] += pings
            steps[kind] += gaps
            if kind == "storm":
                seen, took = await asyncio.to_thread(orders.recv)
                statuses.update(seen)
                waits += took
    table = Table(
        "A login storm beside a broadcast, ms", ("what", "quiet", f"{LOGINS} logins a second", "beyond quiet")
    )
    for name, share in (("loop, median", 0.5), ("loop, p99", 0.99)):
        quiet, storm = (_share(lag[kind], share) * 1000 for kind in ("quiet", "storm"))
        table.add(name, quiet, storm, storm - quiet)
    quiet, storm = (median(steps[kind]) * 1000 for kind in ("quiet", "storm"))
    table.add("from diff to diff, median", quiet, storm, storm - quiet)
    table.add("answer to a login, median", "", median(waits) * 1000, "")
    table.add("logins answered, by status", "", ", ".join(f"{k}: {v}" for k, v in sorted(statuses.items())), "")
    return table


def run() -> list[Table]:
    """The table of this benchmark."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    with server() as target:
        process = context.Process(target=_storm, args=(target.base_url, theirs), daemon=True)
        process.start()
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                return [runner.run(_measure(target, ours))]
        finally:
            ours.send(0)
            process.join(10)
