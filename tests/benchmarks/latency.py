"""How long a score takes from one socket to another while nothing else happens.

`python -m tests.benchmarks latency`. A submission is sent every 80 ms; its diff is awaited on another socket. Between
two of them one bare commit (a one-row INSERT through asyncpg) is timed on the same PostgreSQL, and one PING of the
store: what any round trip to it costs on a machine that slept. The way of a score has two, besides the commit.
"""

from __future__ import annotations

import asyncio
import time

import asyncpg
import orjson
import redis.asyncio as redis
import uvloop
from websockets.asyncio.client import connect

from tests.benchmarks.harness import Server, Table, median, server

ROUNDS = 200


async def _measure(target: Server) -> Table:
    connection = await asyncpg.connect(target.database_url)
    await connection.execute("INSERT INTO users (username) VALUES ('one')")
    await connection.execute("CREATE TABLE bare (id BIGSERIAL PRIMARY KEY, value INT)")
    token = target.token("submit", user_id=1)
    store = redis.from_url(target.dragonfly_url)
    commits: list[float] = []
    pings: list[float] = []
    ways: list[float] = []
    async with connect(target.ws_url) as viewer, connect(f"{target.ws_url}?token={token}") as player:
        await viewer.send('{"type":"subscribe","board":"all_time"}')
        while orjson.loads(await viewer.recv())["type"] != "snapshot":
            pass
        asyncio.get_running_loop().create_task(_discard(player))
        for number in range(ROUNDS):
            await asyncio.sleep(0.04)
            began = time.perf_counter()
            await store.ping()
            pings.append(time.perf_counter() - began)
            await asyncio.sleep(0.04)
            began = time.perf_counter()
            await player.send(
                orjson.dumps({"type": "submit", "submission_id": f"l{number}", "score_added": 1}).decode()
            )
            assert orjson.loads(await viewer.recv())["type"] == "diff"
            ways.append(time.perf_counter() - began)
            began = time.perf_counter()
            await connection.execute("INSERT INTO bare (value) VALUES ($1)", number)
            commits.append(time.perf_counter() - began)
    await connection.close()
    await store.aclose()
    table = Table("Idle latency, ms", ("what", "median", "beyond one bare commit"))
    table.add("one PING of the store", median(pings) * 1000, "")
    table.add("one bare commit", median(commits) * 1000, 0.0)
    table.add("submission sent to diff received", median(ways) * 1000, (median(ways) - median(commits)) * 1000)
    return table


async def _discard(socket: object) -> None:
    async for _ in socket:  # type: ignore[attr-defined]
        pass


def run() -> list[Table]:
    """The table of this benchmark."""
    with server() as target, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return [runner.run(_measure(target))]
