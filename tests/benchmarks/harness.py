"""What the benchmarks share: a real server in a folder of its own, CPU time by process, medians, tables.

Figures are ratios to a baseline of the same run, in windows that alternate, so that a slow minute of the machine slows
both. CPU time comes from the kernel (`/proc`), wall time only where rates are compared.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis import Redis

from tests.support.processes import REALTIME, Program, environment


@dataclass
class Server:
    """A `realtime up` and how to reach it."""

    program: Program
    base_url: str
    database_url: str
    dragonfly_url: str
    data_dir: Path

    @property
    def ws_url(self) -> str:
        return self.base_url.replace("http", "ws") + "/ws"

    def token(self, *scopes: str, user_id: int | None = None) -> str:
        command = [*REALTIME, "token", "--data-dir", str(self.data_dir)]
        command += [part for scope in scopes for part in ("--scope", scope)]
        command += ["--user-id", str(user_id)] if user_id else []
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=self.program.env)
        return done.stdout.split()[-1]

    def rebuild(self) -> None:
        """Makes the store's content anew; again where another process was at it with older rows."""
        command = [*REALTIME, "rebuild", "--data-dir", str(self.data_dir)]
        for _ in range(20):
            if subprocess.run(command, capture_output=True, env=self.program.env).returncode == 0:
                return
            time.sleep(0.5)
        raise SystemExit("the store could not be rebuilt")

    def cpu_seconds(self) -> float:
        return cpu_seconds(self.program.pid)

    @property
    def postgres_pid(self) -> int:
        """Of the process that PostgreSQL's others are children of."""
        return int((self.data_dir / "postgres" / "postmaster.pid").read_text().split()[0])

    @property
    def store_pid(self) -> int:
        with closing(Redis.from_url(self.dragonfly_url)) as store:
            return int(store.info("server")["process_id"])


def cpu_seconds(pid: int) -> float:
    """User and system time so far of a process with all its threads, in seconds, to the nanosecond: what
    clock_getcpuclockid(3) names, where /proc counts in hundredths."""
    return time.clock_gettime(~pid << 3 | 2)


def of_tree(tree: Path | None) -> Mapping[str, str]:
    """The variables by which a command is that of another checkout; none for this one."""
    return {} if tree is None else {"PYTHONPATH": str(tree.absolute()), "PYTHONSAFEPATH": "1"}


@contextmanager
def server(tree: Path | None = None, **settings: str) -> Iterator[Server]:
    """A server with both stores, in a temporary folder, gone afterwards; `tree` is another checkout to be run."""
    settings = {**settings, **of_tree(tree)}
    with tempfile.TemporaryDirectory(prefix="realtime-bench-") as folder:
        command = (*REALTIME, "up", "--port", "0", "--data-dir", folder)
        log = Path(folder, "server.log")
        program = Program(*command, env=environment(**settings), log=log)
        program.start()
        try:
            said = program.said
            yield Server(program, said["ready"], said["database"], said["dragonfly"], Path(folder))
        finally:
            program.stop()


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
