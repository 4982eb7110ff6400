"""What subscribers who stop reading cost: the server's memory, and everybody else's time.

`python -m tests.benchmarks slow_readers [--seconds 60]` from its own main runs the long form. Two tables. What a
server's resident memory grows by while a board changes 20 times a second and one subscriber has stopped reading
(it is not closed for being slow: that would end the growth), beside the same stretch with nobody stopped. And how long
one change's way through all subscribers takes, by the server's own `realtime_pass_seconds`, and its CPU, in
windows that alternate between everybody reading and 5 % stopped.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import os
import socket
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import uvloop

from tests.benchmarks.harness import Table, median
from tests.benchmarks.served import HZ, SUBSCRIBE, Served, audience, built_floor

CLIENTS = 2_000
STALLED = CLIENTS // 20
WINDOW = 2.0
WINDOWS = 7
BAR_KIB = 256
BAR_PASS = 1.1

_HANDSHAKE = (
    "GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Reader:
    """A subscriber with a small receive buffer that reads when told to, and only then."""

    def __init__(self, port: int) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._socket.connect(("127.0.0.1", port))
        self._socket.sendall(_HANDSHAKE.format(key=base64.b64encode(os.urandom(16)).decode()).encode())
        greeting = b""
        while b"\r\n\r\n" not in greeting:  # nothing may be said before it
            greeting += self._socket.recv(1 << 12)
        self._socket.setblocking(False)
        self.subscribe()

    def subscribe(self) -> None:
        """Asks for the board, once more where it has it: each answer is a snapshot, so an unread socket fills."""
        payload = SUBSCRIBE.encode()
        self._socket.send(bytes((0x81, 0x80 | len(payload))) + b"\0\0\0\0" + payload)

    def read(self) -> None:
        """Everything that is there."""
        try:
            while self._socket.recv(1 << 16):
                pass
        except BlockingIOError:
            pass

    def close(self) -> None:
        self._socket.close()


def _stall(served: Served, readers: list[Reader]) -> None:
    """Returns when all of them count as behind."""
    while served.metrics()["realtime_behind"] < len(readers):
        for reader in readers:
            reader.subscribe()
        time.sleep(0.05)


def _catch_up(served: Served, readers: list[Reader]) -> None:
    while served.metrics()["realtime_behind"]:
        for reader in readers:
            reader.read()
        time.sleep(0.01)


async def _read_while(served: Served, readers: list[Reader], seconds: float) -> None:
    """Changes the board while all of them read."""
    changing = asyncio.ensure_future(served.changes(seconds))
    while not changing.done():
        for reader in readers:
            reader.read()
        await asyncio.sleep(0.1)
    await changing


def _growth(runner: asyncio.Runner, seconds: float) -> Table:
    """One subscriber stopped, beside none."""
    table = Table(
        f"Growth of server memory in {seconds:.0f} s of {HZ} diffs a second, KiB", ("subscriber", "grown", "bar")
    )
    with ExitStack() as stack:
        served = Served(stack, runner, REALTIME_SLOW_AFTER_S="3600")
        reader = Reader(served.port)
        served.wait_for("realtime_subscribers", 1)
        runner.run(_read_while(served, [reader], 5.0))  # whatever every server grows by at first
        figures = {}
        for name in ("reads", "has stopped reading"):
            before = served.resident_kib()
            if name == "reads":
                runner.run(_read_while(served, [reader], seconds))
            else:
                served.change(seconds / 2)
                _stall(served, [reader])  # whatever of its buffers small diffs have left
                served.change(seconds / 2)
            figures[name] = served.resident_kib() - before
        reader.close()
    for name, grown in figures.items():
        table.add(name, grown, BAR_KIB if name != "reads" else "")
    return table


def _passes(runner: asyncio.Runner, floor: Path) -> Table:
    """5 % stopped, against none, in one server."""
    found: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    with ExitStack() as stack:
        served = Served(stack, runner, REALTIME_SLOW_AFTER_S="3600")
        stack.enter_context(audience(floor, served.port, CLIENTS - STALLED, 1))
        readers = [Reader(served.port) for _ in range(STALLED)]
        served.wait_for("realtime_subscribers", CLIENTS)
        runner.run(_read_while(served, readers, WINDOW))
        for _ in range(WINDOWS):
            for stalled in (False, True):
                (_stall if stalled else _catch_up)(served, readers)
                reading = [] if stalled else readers
                runner.run(_read_while(served, reading, 0.5))  # sockets that were idle acknowledge one by one at first
                before, cpu = served.metrics(), served.cpu_seconds()
                runner.run(_read_while(served, reading, WINDOW))
                cpu = served.cpu_seconds() - cpu
                after = served.metrics()
                seconds, *visits = (
                    after[name] - before[name]
                    for name in (
                        "realtime_pass_seconds_sum", "realtime_deliveries_total", "realtime_skipped_diffs_total"
                    )
                )  # fmt: skip
                changes = sum(visits) / CLIENTS
                found[stalled].append((seconds / changes * 1000, cpu / changes * 1000))
        for reader in readers:
            reader.close()
    table = Table(
        f"One change's way through {CLIENTS:,} subscribers, ms",
        ("measure", "all read", f"{STALLED} stopped", "ratio", "bar"),
    )
    for place, name in enumerate(("time of the pass", "CPU of the server, whole path")):
        quiet, stopped = (median([figure[place] for figure in found[kind]]) for kind in (False, True))
        table.add(name, quiet, stopped, stopped / quiet, BAR_PASS if place == 0 else "")
    return table


def run(seconds: float = 10.0) -> list[Table]:
    """The tables of this benchmark."""
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return [_growth(runner, seconds), _passes(runner, built_floor(Path(folder)))]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    for made in run(**vars(parser.parse_args())):
        made.show()
