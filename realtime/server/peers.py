"""Peers: the processes behind one port, and what each shows the others of its metrics and clients.

Owns a folder with one file of figures for each process, and this process's place among them. Must never lose what a
process counted that has ended. Assumes that the processes share a file system.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from realtime.metrics import exposed, summed
from realtime.server.steering import AWAY

ATTEND_INTERVAL: Final = 0.1
"""Seconds between two counts of a process's clients."""

SHARE_INTERVAL: Final = 1.0
"""Seconds between two writings of a process's figures for the others."""


@dataclass(frozen=True, slots=True)
class Peers:
    """A folder with a file of figures for each process behind one port, the name of this process's file, and its place,
    which is told how many clients it has."""

    folder: Path
    name: str
    tell: Callable[[int], None] = lambda clients: None

    @property
    def _file(self) -> Path:
        return self.folder / f"{self.name}.prom"

    def write(self, exposition: bytes) -> None:
        """Shows the others what this process counts."""
        _replace(self._file, exposition)

    def others(self) -> list[str]:
        """What the others last showed, and what those counted that are gone."""
        return [_text(path) for path in self.folder.glob("*.prom") if path != self._file]

    async def share(self, own: Callable[[], bytes]) -> None:
        """Shows the others what this process counts, now and then. Never ends by itself."""
        while True:
            self.write(own())
            await asyncio.sleep(SHARE_INTERVAL)

    async def attend(self, clients: Callable[[], int], is_leaving: Callable[[], bool]) -> None:
        """Tells how many clients are here, until it leaves: then that it takes no newcomers. Never ends by itself."""
        while True:
            self.tell(AWAY if is_leaving() else clients())
            await asyncio.sleep(ATTEND_INTERVAL)

    def retire(self) -> None:
        """Keeps a dead process's counters, drops its gauges."""
        gone = _text(self._file)
        if gone:
            kept = self.folder / "retired.prom"
            counted = [metric for metric in summed([_text(kept), gone]) if metric.type != "gauge"]
            _replace(kept, exposed(counted))
            self._file.unlink()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:  # written for the first time just now, or just retired
        return ""


def _replace(path: Path, content: bytes) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_bytes(content)
    fresh.replace(path)
