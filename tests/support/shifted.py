"""A PostgreSQL of a test's own whose clock is set: forward, back, to seconds before a week's end.

Owns the library that is preloaded into it, made of `shifted_clock.c` here and now. Must never shift any other process:
our own side then has another clock than the database, as on two hosts. Assumes Linux and a C compiler; without one
there is nothing to try.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest

from realtime.dev import process
from realtime.dev.postgres import start_postgres

SOURCE = Path(__file__).with_name("shifted_clock.c")
COMPILER = shutil.which("cc") or shutil.which("gcc")


@dataclass(frozen=True)
class ShiftedPostgres:
    """It runs, and its clock is ours until it is set."""

    url: str
    clock: Path

    def shift(self, seconds: float) -> None:
        """Its clock is ahead of ours by so much, at once; negative: behind."""
        with self.clock.open("r+b") as file:
            file.write(struct.pack("q", int(seconds * 1e9)))

    def to(self, moment: datetime) -> None:
        """It is `moment` there now."""
        self.shift(moment.timestamp() - time.time())


@contextmanager
def shifted_postgres(settings: dict[str, str]) -> Iterator[ShiftedPostgres]:
    """Skips the test where it cannot be had."""
    if COMPILER is None:
        pytest.skip("no C compiler: nothing is tried with a clock that is set")
    with tempfile.TemporaryDirectory(prefix="realtime-shifted-") as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL may run as another user
        library, clock = folder / "clock.so", folder / "clock"
        build = [COMPILER, "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"]
        subprocess.run(build, check=True)
        clock.write_bytes(struct.pack("q", 0))
        clock.chmod(0o644)
        plain = process.environment
        preloaded = {"LD_PRELOAD": str(library), "SHIFTED_CLOCK": str(clock)}
        patch.setattr(process, "environment", lambda: plain() | preloaded)
        with start_postgres(folder / "data", settings=settings) as running:
            yield ShiftedPostgres(running.url, clock)
