"""What an idle subscriber weighs in a server.

`python -m tests.benchmarks memory`. A whole `realtime serve` process, to which so many subscribers come that follow a
board of 100 rows: what its resident memory grows by, in several groups that come one after another, divided by each
group's size. Kernel buffers, which no process owns, do not count.
"""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import ExitStack
from pathlib import Path

import uvloop

from tests.benchmarks.harness import Table, median
from tests.benchmarks.served import Served, audience, built_floor

CLIENTS = 2_000
GROUPS = 3
KINDS = {1: "plain", 2: "compression negotiated"}
BARS = {2: 20.0}


def _weigh(served: Served, floor: Path) -> dict[int, list[float]]:
    """KiB a subscriber, by kind, for each group."""
    found: dict[int, list[float]] = {kind: [] for kind in KINDS}
    there = 0
    with ExitStack() as stack:
        # The first group of each kind brings what every later one finds: buffers, caches, the snapshot.
        for group in range(GROUPS + 1):
            for kind, weights in found.items():
                before = served.resident_kib()
                stack.enter_context(audience(floor, served.port, CLIENTS, kind))
                there += CLIENTS
                served.wait_for("realtime_subscribers", there)
                served.change(0.5)  # everybody has been written to
                served.wait_idle()
                if group:
                    weights.append((served.resident_kib() - before) / CLIENTS)
    return found


def run() -> list[Table]:
    """The table of this benchmark."""
    title = f"Resident memory an idle subscriber, groups of {CLIENTS:,}, KiB"
    table = Table(title, ("subscribers", "median", "bar", "lowest", "highest"))
    with (
        tempfile.TemporaryDirectory() as folder,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ExitStack() as stack,
    ):
        floor = built_floor(Path(folder))
        for kind, found in _weigh(Served(stack, runner), floor).items():
            table.add(KINDS[kind], median(found), BARS.get(kind, ""), min(found), max(found))
    return [table]
