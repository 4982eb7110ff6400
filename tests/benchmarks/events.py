"""What one delivery costs over server-sent events, beside the same over WebSockets.

`python -m tests.benchmarks events`. One server a line, all pinned to the first core, each with an audience of 2,000;
windows alternate, and each window of a stream is compared with the window of the socket beside it. As in `fanout`, the
score is recorded by another process: the server hears of it, reads, diffs, encodes and writes.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import uvloop

from tests.benchmarks.harness import Table, median
from tests.benchmarks.served import HZ, SUBSCRIBE, Audience, Served, audience, built_floor, elsewhere

CLIENTS = 2_000
SECONDS = 2.0
WINDOWS = 7
ONE, TWO = "/boards/all_time/events", "/events?board=all_time&board=current_week"

LINES = {
    "WebSocket": (1, "/ws", SUBSCRIBE, None),
    "events": (3, ONE, "", "WebSocket"),
    "WebSocket, compressed": (2, "/ws", SUBSCRIBE, None),
    "events, gzip": (4, ONE, "", "WebSocket, compressed"),
    "events of two boards, gzip": (4, TWO, "", "WebSocket, compressed"),
}
"""Kind of audience, path, message, and the line to compare with."""


class Side(NamedTuple):
    served: Served
    sockets: Audience

    def window(self) -> tuple[float, float]:
        """Microseconds of the server's CPU a delivery, and bytes."""
        self.served.change(0.5)  # sockets that were idle acknowledge packet by packet at first
        received = self.sockets.received()
        delivered, before = self.served.metrics()["realtime_deliveries_total"], self.served.cpu_seconds()
        self.served.change(SECONDS)
        time.sleep(0.1)
        used = self.served.cpu_seconds() - before
        deliveries = self.served.metrics()["realtime_deliveries_total"] - delivered
        return used / deliveries * 1e6, (self.sockets.received() - received) / deliveries


def run(windows: int = WINDOWS) -> list[Table]:
    """The table of this benchmark."""
    with (
        tempfile.TemporaryDirectory() as name,
        ExitStack() as stack,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        folder = Path(name)
        folder.chmod(0o755)
        floor = built_floor(folder)
        stack.enter_context(elsewhere())
        sides: dict[str, Side] = {}
        for line, (kind, path, message, _) in LINES.items():
            served = Served(stack, runner)
            sockets = stack.enter_context(audience(floor, served.port, CLIENTS, kind, message, path))
            served.wait_for("realtime_subscribers", CLIENTS * (2 if path == TWO else 1))
            served.wait_idle()
            sides[line] = Side(served, sockets)
        found: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
        for _ in range(windows):
            for line, side in sides.items():
                found[line].append(side.window())
    title = f"Server CPU a delivery, {CLIENTS:,} viewers, {HZ} times a second, {windows} windows"
    table = Table(title, ("over", "us", "of the socket's", "lowest", "highest", "bytes"))
    for line, (_, _, _, beside) in LINES.items():
        costs = [us for us, _ in found[line]]
        pairs = [us / other for us, (other, _) in zip(costs, found[beside or line], strict=True)]
        size = median([size for _, size in found[line]])
        table.add(line, median(costs), median(pairs), min(pairs), max(pairs), size)
    return [table]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, default=WINDOWS)
    for made in run(**vars(parser.parse_args())):
        made.show()
