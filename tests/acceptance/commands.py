"""Commands of `realtime`, run as an operator runs them: processes of their own, told everything by the environment.

Owns the processes it starts and ends each of them. Must never reach into one: what they say on standard output, on
their ports and by their exit codes is all there is.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.support.waiting import PATIENCE


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
    *arguments: str, program: list[str] | None = None, env: Mapping[str, str] | None = None, **options: Any
) -> AsyncIterator[Command]:
    """`realtime ARGUMENTS` (or `program ARGUMENTS`) for the block; killed at its end where it still runs.

    It runs where there is no `.realtime`, unless a test says where: the checkout's would be found, which is no test's.
    """
    options.setdefault("cwd", Path(__file__).parent)
    process = await asyncio.create_subprocess_exec(
        *(program or [sys.executable, "-m", "realtime"]), *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=env, **options,
    )  # fmt: skip
    command = Command(process)
    try:
        yield command
    finally:
        if process.returncode is None:
            process.kill()
        await command.ends()


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody uses now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def metrics(http_text: str) -> dict[str, float]:
    """The samples of an exposition, by name and labels as written."""
    lines = [line for line in http_text.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


@asynccontextmanager
async def asking(base_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """An HTTP client that keeps no connection from one request to the next."""
    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=base_url, trust_env=False, limits=limits, timeout=PATIENCE) as http:
        yield http
