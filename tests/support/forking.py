"""Commands of `realtime` that end by themselves: processes of their own, forked from one that has imported everything.

Owns the process that is forked from. It must never run a command itself: whatever a command changes ends with it.
Assumes that importing `realtime` reads no environment, opens nothing and starts no thread. What comes before that, the
start of an interpreter and the imports, is most of a short command's CPU time; here it is spent once.
"""

from __future__ import annotations

import asyncio
import faulthandler
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from realtime.cli.main import main as realtime
from tests.support.waiting import PATIENCE


class Forker:
    """The process that is forked from, and a folder for what commands say."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self._process = process
        self._output = folder / "output"
        self._errors = folder / "errors"

    async def run(self, *arguments: str, env: Mapping[str, str], cwd: Path) -> tuple[int, str]:
        """Runs `realtime ARGUMENTS` with this environment to its end; gives its exit code and everything it said, its
        standard output first."""
        asked = {
            "arguments": arguments, "environment": dict(env), "folder": str(cwd), "output": str(self._output),
            "errors": str(self._errors),
        }  # fmt: skip
        try:
            async with asyncio.timeout(PATIENCE):
                code = await asyncio.to_thread(self._ask, json.dumps(asked))
        except TimeoutError:
            os.killpg(self._process.pid, signal.SIGKILL)
            raise
        lines = [line for path in (self._output, self._errors) for line in path.read_text().splitlines()]
        return code, "\n".join(lines)

    def _ask(self, line: str) -> int:
        assert self._process.stdin is not None and self._process.stdout is not None
        print(line, file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())


@contextmanager
def forker() -> Iterator[Forker]:
    """A process to fork from, gone at the end of the block."""
    with tempfile.TemporaryDirectory(prefix="realtime-forked-") as folder:
        command = [sys.executable, "-m", "tests.support.forking"]
        with subprocess.Popen(
            command, stdin=-1, stdout=-1, text=True, cwd=Path(__file__).parents[2], start_new_session=True
        ) as process:
            yield Forker(process, Path(folder))


def main() -> None:
    """Runs each command that a line of standard input asks for, and says its exit code."""
    for line in sys.stdin:
        child = os.fork()
        if not child:
            _become(json.loads(line))
            realtime()
            return
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _become(asked: dict[str, object]) -> None:
    """This process is from now on one that was started for that command alone."""
    for number, place in ((0, os.devnull), (1, asked["output"]), (2, asked["errors"])):
        opened = os.open(str(place), os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    os.chdir(str(asked["folder"]))
    os.environ.clear()
    os.environ.update(asked["environment"])  # type: ignore[call-overload]
    if os.environ.get("PYTHONFAULTHANDLER"):
        faulthandler.enable()
    sys.argv = ["realtime", *asked["arguments"]]  # type: ignore[misc]


if __name__ == "__main__":
    main()
