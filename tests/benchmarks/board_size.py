"""Whether a broadcast costs more on a larger board.

`python -m tests.benchmarks board_size`. Two boards of 1,000 and 1,000,000 players, each in a server of its own; twenty
submissions a second by the leaders, one viewer. CPU of server and store together for each diff delivered.
"""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import ExitStack
from urllib.parse import urlsplit

import asyncpg
import orjson
import uvloop
from redis import Redis
from websockets.asyncio.client import connect

from tests.benchmarks.harness import Server, Table, cpu_seconds, median, server

SIZES = (1_000, 1_000_000)
WINDOW = 5.0
WINDOWS = 5
RATE = 20


async def _fill(target: Server, players: int) -> None:
    connection = await asyncpg.connect(target.database_url)
    await connection.execute(f"INSERT INTO users (username) SELECT 'player ' || g FROM generate_series(1, {players}) g")
    await connection.execute(
        f"INSERT INTO user_total_scores (user_id, total_score) SELECT g, g FROM generate_series(1, {players}) g"
    )
    await connection.execute("ANALYZE")
    await connection.close()
    await asyncio.to_thread(target.rebuild)


def _store_pid(url: str) -> int:
    with contextlib.closing(Redis.from_url(url)) as store:
        return int(store.info("server")["process_id"])


async def _window(target: Server, players: int, number: int) -> float:
    """CPU seconds of server and store for one diff."""
    assert urlsplit(target.dragonfly_url).hostname == "127.0.0.1"
    store = _store_pid(target.dragonfly_url)
    token = target.token("submit:any", user_id=1)
    diffs = 0
    async with connect(target.ws_url) as viewer, connect(f"{target.ws_url}?token={token}") as player:
        await viewer.send('{"type":"subscribe","board":"all_time"}')
        while orjson.loads(await viewer.recv())["type"] != "snapshot":
            pass
        before = target.cpu_seconds() + cpu_seconds(store)
        for turn in range(int(WINDOW * RATE)):
            message = {
                "type": "submit",
                "submission_id": f"w{number}-{turn}",
                "user_id": players - turn % 50,
                "score_added": 1,
            }
            await player.send(orjson.dumps(message).decode())
            while orjson.loads(await viewer.recv())["type"] != "diff":
                pass
            diffs += 1
            await player.recv()
            await asyncio.sleep(1 / RATE)
        return (target.cpu_seconds() + cpu_seconds(store) - before) / diffs


async def _measure(targets: dict[int, Server]) -> Table:
    for players, target in targets.items():
        await _fill(target, players)
    costs: dict[int, list[float]] = {players: [] for players in targets}
    for number in range(WINDOWS):
        for players, target in targets.items():
            costs[players].append(await _window(target, players, number))
    base = median(costs[SIZES[0]])
    table = Table("CPU of one broadcast, server and store", ("players on the board", "ms", "ratio"))
    for players, values in costs.items():
        table.add(f"{players:,}", median(values) * 1000, median(values) / base)
    return table


def run() -> list[Table]:
    """The table of this benchmark."""
    with ExitStack() as stack, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return [runner.run(_measure({size: stack.enter_context(server()) for size in SIZES}))]
