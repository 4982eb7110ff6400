"""What it costs a server when thousands come at once: handshake, subscription and snapshot.

`python -m tests.benchmarks connects`. In windows that alternate, 5,000 sockets connect to a whole `realtime serve`
process, subscribe and get their snapshot, and as many connect to a bare `websockets` server that does nothing but the
handshake. Counted is each server's CPU a client until it is idle again; leaving is not counted.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import uvloop
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as websockets_serve

from tests.benchmarks.harness import Table, cpu_seconds, median
from tests.benchmarks.served import SUBSCRIBE, Served, audience, built_floor, ended, pinned

CLIENTS = 5_000
WINDOWS = 3
KINDS = {1: "plain", 2: "compression offered"}
BAR = 1.5


async def serve_bare() -> None:
    """A server of `websockets`, as its documentation shows one, that says nothing."""

    async def stay(connection: ServerConnection) -> None:
        await connection.wait_closed()

    async with websockets_serve(stay, "127.0.0.1", 0, ping_interval=None, backlog=4096) as server:
        print(next(iter(server.sockets)).getsockname()[1], flush=True)
        await server.serve_forever()


def _wait_idle(used: Callable[[], float]) -> None:
    """Returns when a process has used next to no CPU for a moment."""
    last = used()
    while True:
        time.sleep(0.5)
        now = used()
        if now - last <= 0.02:
            return
        last = now


def _arrive(floor: Path, port: int, kind: int, message: str, used: Callable[[], float]) -> float:
    """CPU microseconds a client."""
    before = used()
    with audience(floor, port, CLIENTS, kind, message):
        _wait_idle(used)
        cost = (used() - before) / CLIENTS * 1e6
    _wait_idle(used)
    return cost


def run() -> list[Table]:
    """The table of this benchmark."""
    names = {"ours, with its snapshot": SUBSCRIBE, "bare websockets, handshake alone": ""}
    found: dict[tuple[int, str], list[float]] = {(kind, name): [] for kind in KINDS for name in names}
    with (
        tempfile.TemporaryDirectory() as folder,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ExitStack() as stack,
    ):
        floor = built_floor(Path(folder))
        served = Served(stack, runner)
        command = [sys.executable, "-m", "tests.benchmarks.connects"]
        bare = stack.enter_context(ended(pinned(0, *command, stdout=-1)))
        assert bare.stdout is not None
        ports = dict(zip(names, (served.port, int(bare.stdout.readline())), strict=True))
        used = dict(zip(names, (served.cpu_seconds, lambda: cpu_seconds(bare.pid)), strict=True))
        for _ in range(WINDOWS):
            for (kind, name), costs in found.items():
                costs.append(_arrive(floor, ports[name], kind, names[name], used[name]))
    table = Table(f"CPU a client when {CLIENTS:,} connect, us", ("sockets", *names, "ratio", "bar"))
    for kind, words in KINDS.items():
        ours, theirs = (median(found[kind, name]) for name in names)
        table.add(words, ours, theirs, ours / theirs, BAR)
    return [table]


if __name__ == "__main__":
    uvloop.run(serve_bare())
