"""What the benchmarks share: a real server in a folder of its own, CPU time by process, medians, tables.

Figures are ratios to a baseline of the same run, in windows that alternate, so that a slow minute of the machine slows
both. CPU time comes from the kernel (`/proc`), wall time only where rates are compared.
"""

from __future__ import annotations

import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Server:
    """A `realtime up` and how to reach it."""

    process: subprocess.Popen[str]
    base_url: str
    database_url: str
    dragonfly_url: str
    data_dir: Path

    @property
    def ws_url(self) -> str:
        return self.base_url.replace("http", "ws") + "/ws"

    def token(self, *scopes: str, user_id: int | None = None) -> str:
        command = [sys.executable, "-m", "realtime", "token", "--data-dir", str(self.data_dir)]
        command += [part for scope in scopes for part in ("--scope", scope)]
        command += ["--user-id", str(user_id)] if user_id else []
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]

    def rebuild(self) -> None:
        """Makes the store's content anew; again where another process was at it with older rows."""
        command = [sys.executable, "-m", "realtime", "rebuild", "--data-dir", str(self.data_dir)]
        for _ in range(20):
            if subprocess.run(command, capture_output=True).returncode == 0:
                return
            time.sleep(0.5)
        raise SystemExit("the store could not be rebuilt")

    def cpu_seconds(self) -> float:
        return cpu_seconds(self.process.pid)


def cpu_seconds(pid: int) -> float:
    """User and system time so far of a process with all its threads, in seconds, to the nanosecond: what
    clock_getcpuclockid(3) names, where /proc counts in hundredths."""
    return time.clock_gettime(~pid << 3 | 2)


@contextmanager
def server(**environment: str) -> Iterator[Server]:
    """A server with both stores, in a temporary folder, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="realtime-bench-") as folder:
        clean = {k: v for k, v in os.environ.items() if k not in ("DATABASE_URL", "DRAGONFLY_URL")}
        command = [sys.executable, "-m", "realtime", "up", "--port", "0", "--data-dir", folder]
        log = Path(folder, "server.log").open("w")
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, env={**clean, **environment}
        )
        try:
            found: dict[str, str] = {}
            assert process.stdout is not None
            for line in process.stdout:
                if match := re.match(r"(database|dragonfly|ready): (\S+)", line):
                    found[match[1]] = match[2]
                if "ready" in found:
                    break
            else:
                raise SystemExit(Path(folder, "server.log").read_text())
            yield Server(process, found["ready"], found["database"], found["dragonfly"], Path(folder))
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


@dataclass
class Table:
    """Rows of one benchmark, printed as Markdown and kept as JSON."""

    title: str
    columns: Sequence[str]
    rows: list[list[Any]] = field(default_factory=list)

    def add(self, *row: Any) -> None:
        self.rows.append(list(row))

    def show(self) -> None:
        print(f"\n### {self.title}\n\n| {' | '.join(self.columns)} |\n| {' | '.join('---' for _ in self.columns)} |")
        for row in self.rows:
            print(f"| {' | '.join(_shown(value) for value in row)} |")

    def as_json(self) -> dict[str, Any]:
        return {"title": self.title, "columns": list(self.columns), "rows": self.rows}


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.2f}" if abs(value) < 100 else f"{value:,.0f}"
    return str(value)


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def machine() -> str:
    """The machine, in one line."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return f"{os.cpu_count()} x {model[1] if model else 'unknown CPU'}, {os.uname().sysname} {os.uname().release}"


def keep(path: Path, name: str, tables: Sequence[Table]) -> None:
    """Puts a benchmark's tables into the file of results, in place of what it had of that benchmark."""
    known = json.loads(path.read_text())["tables"] if path.is_file() else []
    about = {"benchmark": name, "machine": machine(), "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    made = [about | table.as_json() for table in tables]
    others = [table for table in known if table.get("benchmark") != name]
    path.write_text(json.dumps({"tables": others + made}, indent=1))
