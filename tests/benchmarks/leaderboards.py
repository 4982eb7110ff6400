"""What many leaderboards cost: `default` alone, one other, a thousand, builds, and 100,000 closed boards.

`python -m tests.benchmarks leaderboards`, or from its own main, which takes parts and shorter windows. Each line is a
ratio, or a figure, beside its bar. Windows alternate; a ratio is of windows side by side, and the median of them
counts. Figures are of CPU time, of the server, PostgreSQL and the store: only what is slower beside a build, and how
long a score takes to be seen, is told by the clock on the wall. `default` alone is compared with another checkout of
this program: BENCH_BASELINE, or `--baseline`, says where one lies.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import uvloop

from tests.benchmarks import leaderboards_before, leaderboards_builds, leaderboards_intake, leaderboards_thousand
from tests.benchmarks.bars import Line, table_of
from tests.benchmarks.harness import Table, server
from tests.benchmarks.leaderboards_intake import Pace

PACE = Pace(windows=7, seconds=4.0)

Part = Callable[[asyncio.Runner, Pace, Path | None], list[Line]]


def _before(runner: asyncio.Runner, pace: Pace, baseline: Path | None) -> list[Line]:
    return leaderboards_before.lines(runner, pace, baseline)


def _intake(runner: asyncio.Runner, pace: Pace, baseline: Path | None) -> list[Line]:
    with server() as target:
        return runner.run(leaderboards_intake.lines(target, pace))


def _builds(runner: asyncio.Runner, pace: Pace, baseline: Path | None) -> list[Line]:
    with server() as target:
        return runner.run(leaderboards_builds.lines(target, pace))


def _thousand(runner: asyncio.Runner, pace: Pace, baseline: Path | None) -> list[Line]:
    with server() as target:
        return runner.run(leaderboards_thousand.lines(target, pace))


PARTS: Mapping[str, Part] = {"before": _before, "intake": _intake, "builds": _builds, "thousand": _thousand}


def run(parts: Sequence[str] = (*PARTS,), pace: Pace = PACE, baseline: Path | None = None) -> list[Table]:
    """The table of this benchmark."""
    lines: list[Line] = []
    if baseline is None and "BENCH_BASELINE" in os.environ:
        baseline = Path(os.environ["BENCH_BASELINE"])
    for part in parts:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            lines += PARTS[part](runner, pace, baseline)
    return [table_of(f"Many leaderboards, {pace.windows} windows of {pace.seconds:g} s", lines)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=[*PARTS])
    parser.add_argument("--windows", type=int, default=PACE.windows)
    parser.add_argument("--seconds", type=float, default=PACE.seconds)
    parser.add_argument("--baseline", type=Path)
    given = parser.parse_args()
    for made in run(given.parts, Pace(given.windows, given.seconds), given.baseline):
        made.show()
