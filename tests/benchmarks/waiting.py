"""What requests that wait for a board to move cost: memory and CPU while they wait, and CPU and time when it moves.

`python -m tests.benchmarks waiting`. The server is pinned to the first core, the clients are on the others; each keeps
one connection and waits in it. As in `fanout`, the score is recorded by another process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
import urllib.request
from contextlib import ExitStack

import uvloop

from tests.benchmarks.harness import Table
from tests.benchmarks.served import Served

CLIENTS = 10_000
IDLE_SECONDS = 10.0


class Client(asyncio.Protocol):
    """Asks, and counts answers."""

    answered = 0

    def __init__(self) -> None:
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if data.startswith(b"HTTP/1.1 200"):
            Client.answered += 1


async def _connected(port: int, count: int) -> list[Client]:
    loop = asyncio.get_running_loop()
    clients: list[Client] = []
    for _ in range(0, count, 100):
        made = await asyncio.gather(*(loop.create_connection(Client, "127.0.0.1", port) for _ in range(100)))
        clients += [client for _, client in made]
    return clients


async def _answers(count: int) -> None:
    while Client.answered < count:  # noqa: ASYNC110
        await asyncio.sleep(0.01)


def run(clients: int = CLIENTS) -> list[Table]:
    """The table of this benchmark."""
    with ExitStack() as stack, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        served = Served(stack, runner)
        page = json.loads(urllib.request.urlopen(f"{served.base_url}/boards/all_time").read())
        there = runner.run(_connected(served.port, clients))
        before = served.resident_kib()
        since = f"{page['epoch']}:{page['version']}"
        for client in there:
            client.transport.write(
                f"GET /boards/all_time?wait=55&since={since} HTTP/1.1\r\nHost: x\r\n"
                "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36\r\nAccept: */*\r\n\r\n".encode()
            )
        runner.run(asyncio.sleep(0.1))
        served.wait_for("realtime_viewers", clients)
        held = (served.resident_kib() - before) / clients
        used = served.cpu_seconds()
        time.sleep(IDLE_SECONDS)
        idle = (served.cpu_seconds() - used) / IDLE_SECONDS * 1000
        used, began = served.cpu_seconds(), time.perf_counter()
        served.change(0.05)
        runner.run(_answers(clients))
        took = time.perf_counter() - began
        cost = (served.cpu_seconds() - used) / clients * 1e6
        for client in there:
            client.transport.close()
    table = Table(f"{clients:,} requests that wait", ("what", "seen"))
    table.add("memory while it waits, beside that of its idle connection, KiB each", held)
    table.add("CPU while all wait, ms a second (the server's own)", idle)
    table.add("CPU of an answer when the board moves, us", cost)
    table.add("from the score to the last answer, s", took)
    return [table]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=CLIENTS)
    for made in run(**vars(parser.parse_args())):
        made.show()
