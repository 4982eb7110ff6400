"""`python -m tests.benchmarks [NAME ...]`: runs benchmarks, prints their tables, and keeps the results in a file.

The tables of those not run stay in the file as they were, each with its time, so that all can be run bit by bit.
`chart` measures nothing: it draws the README's chart from that file, as a run of `fanout` does at its end.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from tests.benchmarks import chart
from tests.benchmarks.harness import keep, machine

RESULTS = Path("benchmark-results.json")
NAMES = (
    "submissions", "latency", "board_size", "watchers", "bytes_a_tick",
    "fanout", "events", "waiting", "tls", "memory", "slow_readers", "connects", "many_boards", "fairness",
    "login_storm", "hostile", "rebuild", "builds", "leaderboards", "cluster", "spread", "capacity", "browser",
    "browser_heap",
)  # fmt: skip


def main(names: list[str]) -> None:
    print(machine())
    for name in names or NAMES:
        if name != "chart":
            tables = importlib.import_module(f"tests.benchmarks.{name}").run()
            for table in tables:
                table.show()
            keep(RESULTS, name, tables)
        if name in ("fanout", "chart"):
            chart.draw(RESULTS)


if __name__ == "__main__":
    main(sys.argv[1:])
