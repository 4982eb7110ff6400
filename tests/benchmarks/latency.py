"""How long a score takes from one socket to another while nothing else happens.

`python -m tests.benchmarks latency`. After a pause of 40 ms a submission is sent, and its diff awaited on another
socket. Beside it stand one bare commit (a one-row INSERT through asyncpg) and one PING of the store after the same
pause: a machine that slept is slow to wake, whatever it is asked. The same commit right behind a diff, when everything
is awake, is the strictest thing to compare with.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
import orjson
import redis.asyncio as redis
import uvloop
from websockets.asyncio.client import connect

from tests.benchmarks.harness import Server, Table, median, server

ROUNDS = 200
PAUSE = 0.04
"""Seconds: long enough for a diff to be due at once, and for a core to fall asleep."""

PING = "one PING of the store"
AWAKE = "one bare commit, right behind a diff"
COMMIT = "one bare commit"
WAY = "submission sent to diff received"


async def _measure(target: Server) -> Table:
    connection = await asyncpg.connect(target.database_url)
    await connection.execute("INSERT INTO users (username) VALUES ('one')")
    await connection.execute("CREATE TABLE bare (id BIGSERIAL PRIMARY KEY, value INT)")
    token = target.token("submit", user_id=1)
    store = redis.from_url(target.dragonfly_url)
    found: dict[str, list[float]] = {name: [] for name in (PING, AWAKE, COMMIT, WAY)}

    @contextmanager
    def timed(name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        found[name].append(time.perf_counter() - began)

    async def commit(name: str) -> None:
        with timed(name):
            await connection.execute("INSERT INTO bare (value) VALUES (1)")

    async with connect(target.ws_url) as viewer, connect(f"{target.ws_url}?token={token}") as player:
        await viewer.send('{"type":"subscribe","board":"all_time"}')
        while orjson.loads(await viewer.recv())["type"] != "snapshot":
            pass
        asyncio.get_running_loop().create_task(_discard(player))
        for number in range(ROUNDS):
            submission = {"type": "submit", "submission_id": f"l{number}", "score_added": 1}
            await asyncio.sleep(PAUSE)
            with timed(WAY):
                await player.send(orjson.dumps(submission).decode())
                assert orjson.loads(await viewer.recv())["type"] == "diff"
            await commit(AWAKE)
            await asyncio.sleep(PAUSE)
            await commit(COMMIT)
            await asyncio.sleep(PAUSE)
            with timed(PING):
                await store.ping()
    await connection.close()
    await store.aclose()
    table = Table("Idle latency, ms", ("what", "median", "beyond a commit", "beyond a commit of an awake machine"))
    medians = {name: median(values) * 1000 for name, values in found.items()}
    for name, value in medians.items():
        beyond = (value - medians[COMMIT], value - medians[AWAKE]) if name == WAY else ("", "")
        table.add(name, value, *beyond)
    return table


async def _discard(socket: object) -> None:
    async for _ in socket:  # type: ignore[attr-defined]
        pass


def run() -> list[Table]:
    """The table of this benchmark."""
    with server() as target, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return [runner.run(_measure(target))]
