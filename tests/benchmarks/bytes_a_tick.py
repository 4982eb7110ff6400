"""How many bytes a change costs each viewer, on the fixed sequence of changes in `ticks.py`.

`python -m tests.benchmarks bytes_a_tick`. Frames as they go out, headers included, compressed where that is smaller,
for the window that browsers negotiate; beside them the full board, plain and compressed, for the same ticks.
"""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

from realtime.boards import standings
from realtime.boards.board import ALL_TIME, TOP
from realtime.boards.standings import Snapshot
from realtime.wire import messages
from realtime.wire.frames import Frame
from tests.benchmarks.harness import Table

TICKS = Path(__file__).parents[3] / "shared" / "data" / "ticks.py"
CHANGES = (1, 5, 20)
BARS = {1: 120, 5: 150, 20: 240}
WINDOW = 12


def _snapshots(changes: int) -> list[Snapshot]:
    lines = subprocess.run(
        [sys.executable, TICKS, str(changes)], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    players = json.loads(lines[0])["players"]
    names = {user_id: name for user_id, name, _ in players}
    scores = {user_id: score for user_id, _, score in players}
    result = []
    for version, line in enumerate(["{}", *lines[1:]], 1000):
        scores |= {user_id: score for user_id, score in json.loads(line).get("changes", ())}
        top = dict(list(standings.in_order(scores.items()).items())[:TOP])
        result.append(Snapshot(ALL_TIME.id, "d50b7c10-1", version, top, {i: names[i] for i in top}))
    return result


def _size(payload: bytes) -> tuple[int, int]:
    frame = Frame(payload)
    return len(frame.plain), len(frame.encoded(WINDOW))


def run() -> list[Table]:
    """The table of this benchmark; empty, with a word, where the sequence is missing."""
    table = Table(
        "Mean bytes a tick and viewer", ("changes", "diff", "diff, compressed", "bar", "full board", "full, compressed")
    )
    if not TICKS.is_file():
        print(f"bytes_a_tick: {TICKS.name} is missing: nothing measured", file=sys.stderr)
        return []
    for changes in CHANGES:
        snapshots = _snapshots(changes)
        diffs = [_size(messages.diff(standings.diff(a, b))) for a, b in pairwise(snapshots)]
        full = [_size(messages.snapshot(snapshot)) for snapshot in snapshots[1:]]
        mean = [sum(column) / len(column) for column in (*zip(*diffs, strict=True), *zip(*full, strict=True))]
        table.add(changes, mean[0], mean[1], BARS[changes], mean[2], mean[3])
    return [table]
