"""The entry of the command: whoever tells it to end before it has begun gets the exit code that it always has."""

from __future__ import annotations

import subprocess
import sys

import pytest

BEGINNING = """
import os, signal, sys
sys.argv = ["realtime", {command!r}]
class Ends:
    def find_spec(self, name, *rest):
        if name == "realtime.cli.main":
            os.kill(os.getpid(), signal.SIGTERM)
sys.meta_path.insert(0, Ends())
from realtime.__main__ import main
main()
print("it went on")
"""


@pytest.mark.parametrize(("command", "code"), [("worker", 0), ("serve", 0), ("up", 0), ("check", 143)])
def test_who_is_ended_before_the_beginning_says_nothing_and_ends(command: str, code: int) -> None:
    program = [sys.executable, "-c", BEGINNING.format(command=command)]
    ended = subprocess.run(program, capture_output=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (code, b"", b"")
