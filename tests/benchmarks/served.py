"""What the benchmarks of a server under many subscribers share.

Owns a `realtime serve` process, pinned to the first core and set up so that its limits are not what is measured; the
`realtime up` beside it, on the other cores, through which scores come, so that the process measured only hears of
them; and audiences of sockets, on the last core. Must never count anything but the measured process. Assumes gcc, for
an audience that costs next to nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import asyncpg
from websockets.asyncio.client import ClientConnection, connect

from tests.benchmarks.harness import Server, cpu_seconds, of_tree, server

PLAYERS = 1_000
HZ = 20
SUBSCRIBE = '{"type":"subscribe","board":"all_time"}'
CORES = sorted(os.sched_getaffinity(0))


def pinned(core: int, *command: str | Path, **options: Any) -> subprocess.Popen[str]:
    """A process of `command` on one of our cores: 0 is the first, -1 the last."""
    return subprocess.Popen(["taskset", "-c", str(CORES[core]), *map(str, command)], text=True, **options)


@contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """Ends the process at the end, whatever it does about it."""
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def built_floor(folder: Path) -> Path:
    """`fanout_floor`, compiled into `folder`."""
    floor = folder / "floor"
    subprocess.run(["gcc", "-O2", "-o", floor, Path(__file__).with_name("fanout_floor.c")], check=True)
    return floor


class Audience:
    """Sockets that read and forget."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def received(self) -> int:
        """Bytes that came since the handshakes, all sockets together."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write("?\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


@contextmanager
def audience(
    floor: Path, port: int, clients: int, kind: int = 2, message: str = SUBSCRIBE, path: str = "/ws"
) -> Iterator[Audience]:
    """So many sockets that send `message`, read and forget (kind 0: bare; 1: WebSockets; 2: that offer compression;
    3: streams of events; 4: that take gzip); yields when all are connected, which is
    before the server has answered them all."""
    words = [path, message] if message else [path]
    command: list[str | Path] = [floor, "drain", str(port), str(clients), str(kind), *words]
    with ended(pinned(-1, *command, stdin=-1, stdout=-1)) as process:
        assert process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            raise SystemExit(f"an audience of {clients} could not connect to port {port}")
        yield Audience(process)


@contextmanager
def elsewhere() -> Iterator[None]:
    """This process, and what it starts, keeps off the first core, which is the measured server's."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, CORES[1:] or CORES)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Served:
    """The measured process. `runner` runs what submits; `program` is the module that is started, of another checkout
    where `tree` is one."""

    def __init__(
        self,
        stack: ExitStack,
        runner: asyncio.Runner,
        *,
        program: str = "realtime",
        tree: Path | None = None,
        **environment: str,
    ) -> None:
        self._runner = runner
        stack.enter_context(elsewhere())
        # Nobody answers its pings either while nothing is submitted.
        self.beside: Server = stack.enter_context(server(tree, REALTIME_PING_INTERVAL_S="3600"))
        settings = {
            "REALTIME_PORT": "0",
            "REALTIME_MAX_CONNECTIONS_PER_ADDRESS": "0",
            "REALTIME_PING_INTERVAL_S": "3600",  # audiences read and forget, pings too
            "REALTIME_DRAIN_S": "0",
            "REALTIME_RECONNECT_SPREAD_S": "0",
            "REALTIME_MOVE_A_SECOND": "0",  # all of an audience is at one process of two
        }
        command = [sys.executable, "-m", program, "serve", "--data-dir", str(self.beside.data_dir)]
        own = {**os.environ, **settings, **of_tree(tree), **environment}
        started = pinned(0, *command, stdout=-1, stderr=subprocess.DEVNULL, env=own)
        self._process = stack.enter_context(ended(started))
        runner.run(_fill(self.beside.database_url))
        self.beside.rebuild()
        assert self._process.stdout is not None
        self.base_url = next(line.split()[1] for line in self._process.stdout if line.startswith("ready: "))
        self.port = int(self.base_url.rsplit(":", 1)[1])
        self.token = self.beside.token("submit:any", user_id=1)
        self._submitter = runner.run(authenticated(f"{self.beside.ws_url}?token={self.token}"))
        self._turn = 0

    @property
    def ws_url(self) -> str:
        return self.base_url.replace("http", "ws") + "/ws"

    def cpu_seconds(self) -> float:
        return cpu_seconds(self._process.pid)

    def resident_kib(self) -> int:
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+)", status)
        assert found is not None
        return int(found[1])

    def metrics(self) -> dict[str, float]:
        """Everything it says of itself, summed over labels."""
        with urllib.request.urlopen(self.base_url + "/metrics") as answer:
            text = answer.read().decode()
        found: dict[str, float] = {}
        for name, value in re.findall(r"^(realtime_\w+)(?:\{.*\})? (\S+)$", text, re.M):
            found[name] = found.get(name, 0.0) + float(value)
        return found

    def wait_for(self, name: str, value: float, seconds: float = 60) -> None:
        """Returns when a metric has that value."""
        until = time.monotonic() + seconds
        while self.metrics()[name] != value:
            if time.monotonic() > until:
                raise SystemExit(f"{name} is {self.metrics()[name]}, not {value}")
            time.sleep(0.2)

    def wait_idle(self) -> None:
        """Returns when it has used next to no CPU for a moment."""
        last = self.cpu_seconds()
        while True:
            time.sleep(0.5)
            now = self.cpu_seconds()
            if now - last <= 0.02:
                return
            last = now

    def change(self, seconds: float) -> None:
        """HZ changes of the board a second, one row each, submitted beside."""
        self._runner.run(self.changes(seconds))

    async def changes(self, seconds: float) -> None:
        """See `change`."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        for _ in range(int(seconds * HZ)):
            due += 1 / HZ
            await asyncio.sleep(max(0.0, due - loop.time()))
            self._turn += 1
            user_id = PLAYERS - self._turn % 50
            await submitted(self._submitter, f"s{os.getpid()}-{self._turn}", user_id)


async def submitted(socket: ClientConnection, submission_id: str, user_id: int) -> None:
    """One submission and its answer."""
    message = {"type": "submit", "submission_id": submission_id, "user_id": user_id, "score_added": 1}
    await socket.send(json.dumps(message))
    answer = await socket.recv()
    if "accepted" not in str(answer):
        raise SystemExit(f"not accepted: {answer!r}")


async def authenticated(url: str) -> ClientConnection:
    """A socket whose token was taken."""
    socket = await connect(url, ping_interval=None)
    while "authenticated" not in str(await socket.recv()):
        pass
    return socket


async def _fill(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute(f"INSERT INTO users (username) SELECT 'player ' || g FROM generate_series(1, {PLAYERS}) g")
    await connection.execute(
        f"INSERT INTO user_total_scores (user_id, total_score) SELECT g, 100 * g FROM generate_series(1, {PLAYERS}) g"
    )
    await connection.close()
