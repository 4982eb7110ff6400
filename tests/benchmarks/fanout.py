"""What one delivery costs each server's CPU, side by side: ours on its whole path, and what people compare us with.

`python -m tests.benchmarks fanout`, or from its own main with `--windows`. Every server is pinned to the first core,
and all else keeps to the others: its audience of 2,000 sockets, and the stores and the other process of ours through
which scores come. Windows alternate, the medians of server CPU a delivery are compared with a bare C loop over send(),
of which there are two: their difference is the noise. Ours: a score is recorded by another process, and the server
hears of it, reads, diffs, encodes and writes; the peers send ready text of the same size to everybody, Centrifugo the
whole board, as its users do. What our writing alone takes is by the server's own clock, on a core of its own. What is
not installed is named as missing.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path

import uvloop

from tests.benchmarks.fanout_peers import BYTES, CLIENTS, Contestant, Peers
from tests.benchmarks.harness import Table, median
from tests.benchmarks.served import HZ, Served, audience, built_floor, elsewhere

SECONDS = 2.0
WINDOWS = 5
KINDS = {1: "realtime, the whole path", 2: "realtime, with compression"}


def _ours(stack: ExitStack, floor: Path, runner: asyncio.Runner, kind: int) -> Contestant:
    served = Served(stack, runner)
    sockets = stack.enter_context(audience(floor, served.port, CLIENTS, kind))
    served.wait_for("realtime_subscribers", CLIENTS)
    served.wait_idle()

    def send(seconds: float) -> tuple[int, float]:
        delivered, before = served.metrics()["realtime_deliveries_total"], served.cpu_seconds()
        served.change(seconds)
        time.sleep(0.1)
        used = served.cpu_seconds() - before
        return int(served.metrics()["realtime_deliveries_total"] - delivered), used

    return Contestant(send, sockets, lambda: served.metrics()["realtime_pass_seconds_sum"])


def _window(who: str, contestant: Contestant) -> dict[str, tuple[float, float]]:
    """Microseconds of server CPU and bytes a delivery; beside it, where it tells, of its writing alone."""
    contestant.send(1.0)  # sockets that were idle acknowledge packet by packet at first
    before, wrote = contestant.audience.received(), contestant.writing and contestant.writing()
    deliveries, used = contestant.send(SECONDS)
    size = (contestant.audience.received() - before) / deliveries
    found = {who: (used / deliveries * 1e6, size)}
    if contestant.writing is not None and wrote is not None:
        found[f"{who}: writing"] = ((contestant.writing() - wrote) / deliveries * 1e6, size)
    return found


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
        peers = Peers(stack, floor, folder)
        contestants = dict(peers.here)
        for kind, who in KINDS.items():
            contestants[who] = _ours(stack, floor, runner, kind)
        found: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
        for _ in range(windows):
            for who, contestant in contestants.items():
                for what, figures in _window(who, contestant).items():
                    found[what].append(figures)
        return [_table(found, peers.missing, windows)]


def _table(found: dict[str, list[tuple[float, float]]], missing: list[str], windows: int) -> Table:
    costs = {who: [us for us, _ in windows] for who, windows in found.items()}
    bare = median([us for who, values in costs.items() if who.startswith("bare") for us in values])
    title = f"Server CPU a delivery, {CLIENTS:,} subscribers, {HZ} times a second, {BYTES} bytes, {windows} windows"
    table = Table(title, ("server", "us", "against the bare loop", "lowest", "highest", "bytes"))
    for who, values in sorted(costs.items(), key=lambda item: median(item[1])):
        size = median([size for _, size in found[who]])
        table.add(who, median(values), median(values) / bare, min(values), max(values), size)
    for who in missing:
        table.add(f"{who}: missing", "", "", "", "", "")
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, default=WINDOWS)
    for made in run(**vars(parser.parse_args())):
        made.show()
