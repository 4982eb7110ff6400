"""Processes of `realtime`, run as an operator runs them: told everything by the environment, ended by their own ids.

Owns the processes it starts and ends each of them: a `Command` in a loop, which hears every line; a `Program` for tests
and benchmarks without one, which starts again at the same address. Must never reach into one: what they say on standard
output, on their ports and by their exit codes is all there is.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from tests.support.waiting import PATIENCE

REALTIME: Final = (sys.executable, "-m", "realtime")
"""The command, whatever is on PATH."""


class Command:
    """A running command. `lines` is what it has said on standard output, `errors` on standard error."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self.errors: list[str] = []
        self._said = asyncio.Event()
        self._readers = [
            asyncio.ensure_future(self._read(process.stdout, self.lines)),
            asyncio.ensure_future(self._read(process.stderr, self.errors)),
        ]

    @property
    def pid(self) -> int:
        return self.process.pid

    async def _read(self, stream: asyncio.StreamReader | None, into: list[str]) -> None:
        assert stream is not None
        while line := await stream.readline():
            into.append(line.decode().rstrip("\n"))
            self._said.set()
        self._said.set()

    async def says(self, prefix: str, *, errors: bool = False, within: bool = False) -> str:
        """What follows `prefix` on the first line that begins with (`within`, on standard error: contains) it."""
        lines = self.errors if errors else self.lines
        async with asyncio.timeout(PATIENCE):
            while True:
                for line in lines:
                    if line.startswith(prefix) or ((errors or within) and prefix in line):
                        return line.removeprefix(prefix).strip()
                if all(reader.done() for reader in self._readers):
                    raise AssertionError(f"it ended without saying {prefix!r}: {self.lines} {self.errors}")
                self._said.clear()
                await self._said.wait()

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    async def ends(self) -> int:
        """Its exit code."""
        async with asyncio.timeout(PATIENCE):
            code = await self.process.wait()
            await asyncio.gather(*self._readers)
        return code

    async def stop(self) -> int:
        self.signal()
        return await self.ends()


def environment(**variables: str) -> dict[str, str]:
    """This process's environment without anything that would set `realtime` up, and `variables`."""
    ours = re.compile(r"^(REALTIME_.*|DATABASE_URL|DRAGONFLY_URL|PORT)$")
    return {name: value for name, value in os.environ.items() if not ours.match(name)} | variables


@asynccontextmanager
async def running(
    *arguments: str, program: Sequence[str] = REALTIME, env: Mapping[str, str] | None = None, **options: Any
) -> AsyncIterator[Command]:
    """`realtime ARGUMENTS` (or `program ARGUMENTS`) for the block; killed at its end where it still runs.

    It runs where there is no `.realtime`, unless a test says where: the checkout's would be found, which is no test's.
    """
    options.setdefault("cwd", Path(__file__).parent)
    process = await asyncio.create_subprocess_exec(
        *program, *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=env, **options,
    )  # fmt: skip
    command = Command(process)
    try:
        yield command
    finally:
        if process.returncode is None:
            process.kill()
        await command.ends()


class Program:
    """A process of `command` that may be stopped, killed and started again. What it says on standard error is in the
    file `log`, start after start; of standard output `said` has what came at the last start, by its labels."""

    def __init__(self, *command: str, env: Mapping[str, str], log: Path) -> None:
        self.env = dict(env)
        self.said: dict[str, str] = {}
        self._command = command
        self._log = log
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Starts it, and waits until it is ready. Raises RuntimeError where it ends before."""
        self.begin()
        self.await_ready()

    def begin(self) -> None:
        """Starts it."""
        self.said.clear()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdout=subprocess.PIPE, stderr=log, env=self.env, encoding="utf-8"
            )

    def await_ready(self) -> None:
        """Returns once it says `ready`. Raises RuntimeError where it ends before."""
        assert self._process is not None and self._process.stdout is not None
        for line in self._process.stdout:
            label, _, text = line.partition(": ")
            self.said[label] = text.strip()
            if label == "ready":
                return
        self.kill()
        raise RuntimeError(self.log[-2000:])

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def kill(self) -> None:
        """kill -9."""
        self.stop(signal.SIGKILL)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int | None:
        """Ends it, in its own way; its exit code. One that does not end is killed; None where none runs."""
        process, self._process = self._process, None
        if process is None:
            return None
        assert process.stdout is not None
        with process.stdout:
            process.send_signal(how)
            try:
                return process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                return process.wait()


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody uses now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def lasting_port() -> int:
    """A port that nobody uses now, below those that clients are given: it is still free after a restart."""
    for port in range(20_000 + os.getpid() % 5_000, 32_000):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no port is free")
