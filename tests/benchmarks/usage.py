"""CPU time by who used it: the server, PostgreSQL with all its processes, and the store.

Owns how that is counted. Must never count what measures, nor a snapshot that the store's child writes. Assumes Linux:
what a process's ended children used is in its `/proc/PID/stat`, in ticks of a hundredth of a second.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks.harness import Server, cpu_seconds

_TICKS = os.sysconf("SC_CLK_TCK")


class Usage(NamedTuple):
    """Seconds of CPU."""

    server: float
    postgres: float
    store: float

    @property
    def together(self) -> float:
        return sum(self)

    def since(self, before: Usage) -> Usage:
        """What was used since then."""
        return Usage(*(now - then for now, then in zip(self, before, strict=True)))

    def each(self, count: float) -> Usage:
        """The same for one of so many, in microseconds."""
        return Usage(*(seconds / count * 1e6 for seconds in self))

    def __str__(self) -> str:
        return f"server {self.server:,.0f} + PostgreSQL {self.postgres:,.0f} + store {self.store:,.0f}"


class Parties:
    """The three of a running instance; `pid` is another server's on the same stores."""

    def __init__(self, target: Server, pid: int | None = None) -> None:
        self._server = pid or target.program.pid
        self._postgres = target.postgres_pid
        self._store = target.store_pid

    def used(self) -> Usage:
        """So far."""
        return Usage(cpu_seconds(self._server), family_seconds(self._postgres), cpu_seconds(self._store))


def family_seconds(pid: int) -> float:
    """CPU seconds of a process and all its children, those that have ended too."""
    used = _with_ended_children(pid)
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with suppress(OSError):  # it has just ended: the next look finds it with its parent
            used += _with_ended_children(int(child))
    return used


def _with_ended_children(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return cpu_seconds(pid) + (int(fields[13]) + int(fields[14])) / _TICKS
