"""`python -m tests.benchmarks [NAME ...]`: runs benchmarks, prints their tables, writes results.json beside them."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from tests.benchmarks.harness import machine, write_json

NAMES = (
    "submissions", "latency", "board_size", "watchers", "bytes_a_tick",
    "fanout", "memory", "slow_readers", "connects", "many_boards", "fairness", "browser",
)  # fmt: skip


def main(names: list[str]) -> None:
    tables = []
    print(machine())
    for name in names or NAMES:
        for table in importlib.import_module(f"tests.benchmarks.{name}").run():
            table.show()
            tables.append(table)
    write_json(Path("benchmark-results.json"), tables)


if __name__ == "__main__":
    main(sys.argv[1:])
