"""What a changed board costs where there are many: 1,000 active boards of 100 rows, ten subscribers each.

`python -m tests.benchmarks many_boards`. In a process of its own, pinned to the first core: a Broadcaster with a real
store, and 10,000 real connections of uvicorn's, subscribed to 1,000 weeks ten by ten. From outside, one row of every
board is changed in the store and announced; the process's CPU until every subscriber has its diff is divided by the
boards. No player is on two boards, so there are 100,000 names. Beside it stand ten bare writes of a C loop.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, date, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import uvicorn
import uvloop
from redis import Redis

from realtime.boards.board import week_of
from realtime.broadcast.broadcaster import Broadcaster
from realtime.broadcast.subscribers import Subscriber
from realtime.dev.store import start_store
from realtime.store import keys
from realtime.store.announcements import Announcements
from realtime.store.fitness import run_of
from realtime.store.snapshots import SnapshotReader
from realtime.store.store import Store
from realtime.wire.connection import Connection
from realtime.wire.frames import Frame
from tests.benchmarks.harness import Table, median
from tests.benchmarks.served import audience, built_floor, ended, pinned
from tests.support.keys import channel, scores_key, user_key, version_key
from tests.support.stores import as_told

BOARDS = 1_000
EACH = 10
ROWS = 100
TICKS = 9
PAUSE = 0.5
BAR_US = 400
BYTES = 150
"""Of a one-row diff of a week."""

WEEKS = [week_of(date(2000, 1, 3) + timedelta(weeks=n)) for n in range(BOARDS)]
BEFORE, AFTER = datetime(2000, 1, 4, tzinfo=UTC), datetime(2040, 1, 1, tzinfo=UTC)
"""All weeks can be subscribed to once they have begun, and none is closed before its end: so the clock is set back."""


# The measured process ------------------------------------------------------------------------------------------------


class _Nobody:
    """A connection that takes everything and goes nowhere."""

    window = 0
    descriptor = -1
    on_descriptor: Callable[[int], None] | None = None

    def write(self, frame: Frame, sent: int = 0) -> int:
        return 0

    def close(self, code: int, reason: str = "") -> None:
        pass


async def serve(url: str) -> None:
    """Prints its port, then for each line read its CPU seconds and deliveries; with the first line all are there."""
    now = AFTER
    store = Store(url)
    await store.adopt()
    broadcaster = Broadcaster(SnapshotReader(store), Announcements(store.link), store, lambda: now, interval=0.05)
    keeper = Subscriber(_Nobody(), buffer_limit=1, slow_after=1.0)
    places = count()

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        connection: Connection = scope["extensions"]["realtime.connection"]
        subscriber = Subscriber(
            connection, buffer_limit=32_768, slow_after=60.0, on_drained=broadcaster.following.caught_up
        )
        connection.on_drain = subscriber.drained
        connection.detach()
        await broadcaster.following.subscribe(subscriber, WEEKS[next(places) % BOARDS].id, None)

    config = uvicorn.Config(
        app, port=0, ws=Connection, log_level="warning", lifespan="off", ws_ping_interval=None, backlog=4096
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    async with asyncio.TaskGroup() as tasks:
        work = (broadcaster.changes.listen, broadcaster.changes.poll, broadcaster.read, broadcaster.delivery.run)
        running = [tasks.create_task(task()) for task in work]
        for board in WEEKS:  # each is read once before anybody comes, so that who comes finds it
            await broadcaster.following.subscribe(keeper, board.id, None)
        print(server.servers[0].sockets[0].getsockname()[1], flush=True)
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while await reader.readline():
            there = broadcaster.following.subscribers - bool(keeper.subscriptions)
            if there == BOARDS * EACH and keeper.subscriptions:
                broadcaster.following.remove(keeper)
                now = BEFORE
            print(time.process_time(), broadcaster.delivery.deliveries, there, flush=True)
        for task in running:
            task.cancel()
    await server.shutdown()


# The other side ------------------------------------------------------------------------------------------------------


def _fill(store: Redis) -> None:
    run = run_of(as_told(store.info()))
    pipe = store.pipeline(transaction=False)
    pipe.mset({keys.RUN_KEY: run, keys.EPOCH_KEY: f"{run[:8]}-1", keys.USERS_VERSION_KEY: 1})
    for place, board in enumerate(WEEKS):
        users = _users(place)
        pipe.zadd(scores_key(board), {str(user): 1_000 + user for user in users})
        for user in users:
            pipe.hset(user_key(user), mapping={"user_id": user, "username": f"player {user}", "version": 1})
    pipe.execute()


def _users(place: int) -> range:
    return range(1 + place * ROWS, 1 + (place + 1) * ROWS)


def _change(store: Redis, tick: int) -> None:
    """One row of every board, each announced for itself."""
    pipe = store.pipeline(transaction=False)
    for place, board in enumerate(WEEKS):
        pipe.incr(version_key(board))
        pipe.zincrby(scores_key(board), 1, str(_users(place)[tick % ROWS]))
        pipe.publish(channel(board), b"{}")
    pipe.execute()


class Measured:
    """The process and what it says."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert process.stdout is not None
        self.port = int(process.stdout.readline())

    def ask(self) -> tuple[float, int, int]:
        """CPU seconds, deliveries, subscriptions so far."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write("?\n")
        self._process.stdin.flush()
        cpu, deliveries, there = self._process.stdout.readline().split()
        return float(cpu), int(deliveries), int(there)

    def wait_there(self) -> None:
        """Returns when all have subscribed."""
        while self.ask()[2] < BOARDS * EACH:
            time.sleep(0.3)
        time.sleep(1.0)

    def tick(self, store: Redis, tick: int) -> float:
        """CPU microseconds a board for one change of each."""
        cpu, before, _ = self.ask()
        _change(store, tick)
        while self.ask()[1] < before + BOARDS * EACH:
            time.sleep(0.05)
        return (self.ask()[0] - cpu) / BOARDS * 1e6


def _bare_us(floor: Path) -> float:
    """Ten writes of a C loop."""
    with ended(pinned(0, floor, "serve", str(BOARDS), stdin=-1, stdout=-1)) as process:
        assert process.stdin is not None and process.stdout is not None
        with audience(floor, int(process.stdout.readline()), BOARDS, 0, ""):
            found = []
            for _ in range(4):
                process.stdin.write(f"1 20 {BYTES}\n")
                process.stdin.flush()
                deliveries, used = process.stdout.readline().split()
                found.append(float(used) / int(deliveries) * 1e6 * EACH)
            return median(found[1:])  # sockets that were idle acknowledge packet by packet at first


def run() -> list[Table]:
    """The table of this benchmark."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        floor = built_floor(Path(folder))
        bare = _bare_us(floor)
        url = stack.enter_context(start_store(Path(folder) / "store")).url
        store = stack.enter_context(Redis.from_url(url))
        _fill(store)
        command = [sys.executable, "-m", "tests.benchmarks.many_boards", url]
        measured = Measured(stack.enter_context(ended(pinned(0, *command, stdin=-1, stdout=-1))))
        stack.enter_context(audience(floor, measured.port, BOARDS * EACH, 2, ""))
        measured.wait_there()
        found = []
        for tick in range(TICKS + 1):
            time.sleep(PAUSE)
            found.append(measured.tick(store, tick))
    table = Table(
        f"CPU a changed board a tick, {BOARDS:,} boards of {ROWS} rows, {EACH} subscribers each, us",
        ("measure", "median", "bar", "lowest", "highest"),
    )
    table.add("hear, read, diff, encode, write", median(found[1:]), BAR_US, min(found[1:]), max(found[1:]))
    table.add(f"{EACH} bare writes of a C loop", bare, "", "", "")
    return [table]


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1]))
