"""What was held goes back to the system, and what is worth nothing is left alone."""

from __future__ import annotations

import subprocess
import sys

import pytest

from realtime.server.heap import WORTH_BYTES, Heap

glibc = pytest.mark.skipif(not Heap().can_give_back, reason="the C library gives memory back by itself, or never")


FREED = """
import os
from pathlib import Path
from realtime.server.heap import Heap

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

before = resident()
# As sockets that end while others, newer ones, stay.
held = [bytearray(b"x") * 60_000 for _ in range(1_000)]
assert resident() - before > 50_000_000
heap = Heap()
kept = held[::50]
del held
assert heap.give_back()
assert resident() - before < 10_000_000
assert not heap.give_back(), "once"
assert len(kept) == 20
"""


@glibc
def test_what_was_freed_between_what_is_kept_goes_back() -> None:
    """In a process of its own: in one that ran other tests there is room already."""
    subprocess.run([sys.executable, "-c", FREED], check=True)


@glibc
def test_little_is_not_worth_it() -> None:
    heap = Heap()
    for _ in range(20):
        held = [bytearray(60_000) for _ in range(WORTH_BYTES // 120_000)]
        del held
        assert not heap.give_back()
