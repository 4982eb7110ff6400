"""What one delivery costs the server's CPU, beside a bare C loop over send(), and what an idle subscriber weighs.

Owns the measurement of `Connection.write` alone: no store, no encoding, one ready frame for everybody.
Must never run two loads at once: windows alternate, and the medians are compared.
Assumes gcc and two cores: the servers are pinned to the first, their audiences to the last.

    python -m tests.benchmarks.fanout_floor --clients 2000 --windows 7
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import uvicorn

from realtime.wire.connection import Connection
from realtime.wire.frames import Frame

PAYLOAD = (
    b'{"type":"diff","board":"all_time","epoch":"0123abcd-1","from":12,"version":15,'
    b'"upsert":[{"user_id":1234567,"score":1100}]}'
)


def rss_kib() -> int:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


def by_write(connections: Iterable[Connection], frame: Frame) -> None:
    for connection in connections:
        connection.write(frame)


def by_descriptor(connections: Iterable[Connection], frame: Frame) -> None:
    data, write = frame.plain, os.write
    for connection in connections:
        write(connection.descriptor, data)


def by_transport(connections: Iterable[Connection], frame: Frame) -> None:
    data = frame.plain
    for connection in connections:
        connection.transport.write(data)


WAYS: dict[str, Callable[[Iterable[Connection], Frame], None]] = {
    "Connection.write": by_write,
    "os.write": by_descriptor,
    "transport.write": by_transport,
}


async def serve(detach: bool = True, **options: Any) -> None:
    """A server that obeys lines on stdin: `send WAY SECONDS HZ BYTES` and `weigh`. `options` are uvicorn's own."""
    connections: set[Connection] = set()

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        connection: Connection = scope["extensions"]["realtime.connection"]
        connections.add(connection)
        connection.on_text = connection.write  # type: ignore[assignment]
        if detach:
            connection.detach()
        else:
            await receive()

    config = uvicorn.Config(
        app, port=0, ws=Connection, log_level="warning", lifespan="off", ws_ping_interval=None, **options
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    gc.collect()
    print(server.servers[0].sockets[0].getsockname()[1], rss_kib(), flush=True)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := (await reader.readline()).decode().split():
        if line[0] == "weigh":
            gc.collect()
            print(len(connections), rss_kib(), flush=True)
        else:
            way, seconds, hz, size = WAYS[line[1].replace("_", ".")], float(line[2]), int(line[3]), int(line[4])
            frame = Frame(PAYLOAD[:size].ljust(size, b"x"))
            gc.collect()
            due, before = time.monotonic(), time.process_time()
            for _ in range(int(seconds * hz)):
                due += 1 / hz
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                way(connections, frame)
            print(len(connections) * int(seconds * hz), time.process_time() - before, flush=True)
    await server.shutdown()


class Side:
    """A server and its audience, each a process of its own."""

    def __init__(self, name: str, command: list[str], floor: str, clients: int, websocket: int) -> None:
        self.name = name
        cores = sorted(os.sched_getaffinity(0))
        self.server = subprocess.Popen(
            ["taskset", "-c", str(cores[0]), *command], stdin=-1, stdout=-1, text=True, bufsize=1
        )
        first = self.line()
        self.empty_kib = int(first[1]) if len(first) > 1 else 0
        self.audience = subprocess.Popen(
            ["taskset", "-c", str(cores[-1]), floor, "drain", first[0], str(clients), str(websocket)],
            stdin=-1,
            stdout=-1,
            text=True,
        )
        assert self.audience.stdout is not None
        self.audience.stdout.readline()

    def line(self) -> list[str]:
        assert self.server.stdout is not None
        return self.server.stdout.readline().split()

    def ask(self, command: str) -> list[str]:
        assert self.server.stdin is not None
        self.server.stdin.write(command + "\n")
        return self.line()

    def cost_us(self, command: str) -> float:
        # A socket that was idle is acknowledged packet by packet at first (16 of them): not what we measure.
        self.ask(" ".join([*command.split()[:-3], "1.2", *command.split()[-2:]]))
        deliveries, seconds = self.ask(command)
        return float(seconds) / int(deliveries) * 1e6

    def stop(self) -> None:
        for process in (self.audience, self.server):
            assert process.stdin is not None
            process.stdin.close()
            process.wait()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--clients", type=int, default=2000)
    options.add_argument("--windows", type=int, default=7)
    options.add_argument("--seconds", type=float, default=2.0)
    options.add_argument("--hz", type=int, default=20)
    options.add_argument("--bytes", type=int, default=100)
    options.add_argument("--serve", choices=("asyncio", "uvloop"))
    options.add_argument("--keep-task", action="store_true")
    chosen = options.parse_args()
    if chosen.serve == "uvloop":
        import uvloop

        uvloop.run(serve(not chosen.keep_task))
        return
    if chosen.serve:
        asyncio.run(serve(not chosen.keep_task))
        return
    with tempfile.TemporaryDirectory() as folder:
        floor = str(Path(folder) / "floor")
        source = str(Path(__file__).with_suffix(".c"))
        subprocess.run(["gcc", "-O2", "-o", floor, source], check=True)
        measure(floor, chosen)


def measure(floor: str, chosen: argparse.Namespace) -> None:
    """Print a table: microseconds of server CPU a delivery, and KiB an idle subscriber."""
    sides = [Side(f"C send() {n}", [floor, "serve", str(chosen.clients)], floor, chosen.clients, 0) for n in (1, 2)]
    for loop in ("asyncio", "uvloop"):
        for websocket, offers in ((1, "plain"), (2, "deflate")):
            command = [sys.executable, "-m", "tests.benchmarks.fanout_floor", "--serve", loop]
            if chosen.keep_task:
                command.append("--keep-task")
            sides.append(Side(f"{loop} {offers}", command, floor, chosen.clients, websocket))
    load = f"{chosen.seconds} {chosen.hz} {chosen.bytes}"
    costs: dict[str, list[float]] = {}
    for side in sides[2:]:
        clients, full_kib = side.ask("weigh")
        print(f"{side.name:28} {(int(full_kib) - side.empty_kib) / int(clients):6.2f} KiB a client")
    for window in range(chosen.windows):
        for side in sides:
            if side.empty_kib:
                ways = list(WAYS) if "plain" in side.name else ["Connection.write"]
                for turn in range(len(ways)):  # whoever comes first after another process pays for its caches
                    way = ways[(turn + window) % len(ways)]
                    name = f"{side.name} {way}"
                    costs.setdefault(name, []).append(side.cost_us(f"send {way.replace('.', '_')} {load}"))
            else:
                costs.setdefault(side.name, []).append(side.cost_us(load))
    base = statistics.median(costs["C send() 1"] + costs["C send() 2"])
    for name, values in costs.items():
        middle = statistics.median(values)
        spread = f"{min(values):.2f}..{max(values):.2f}"
        print(f"{name:36} {middle:6.2f} us  {middle / base:5.2f}  ({spread})")
    for side in sides:
        side.stop()


if __name__ == "__main__":
    main()
