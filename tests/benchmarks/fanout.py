"""What one delivery costs each server's CPU, side by side: ours on its whole path, and what people compare us with.

`python -m tests.benchmarks fanout`. Every server is pinned to the first core and its audience of 2,000 sockets to the
last; windows alternate, the medians of server CPU a delivery are compared with a bare C loop over send(), of which
there are two: their difference is the noise. Ours: a score is recorded by another process, and the server hears of it,
reads, diffs, encodes and writes; the peers send ready text of the same size to everybody. What is not installed
is named as missing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import asyncpg
import uvloop
from websockets.asyncio.client import ClientConnection, connect

from tests.benchmarks.harness import Server, Table, cpu_seconds, median, server

CLIENTS = 2_000
HZ = 20
SECONDS = 2.0
WINDOWS = 5
PLAYERS = 1_000
BYTES = 135
"""Of a one-row diff of ours, which the others send too."""

HERE = Path(__file__).parent
NCHAN = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
CORES = sorted(os.sched_getaffinity(0))
Window = Callable[[], float]
"""Runs one window; gives microseconds of server CPU a delivery."""


def _pinned(core: int, *command: str | Path, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(["taskset", "-c", str(CORES[core]), *map(str, command)], text=True, **options)


@contextlib.contextmanager
def _ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _audience(stack: ExitStack, floor: Path, port: int, kind: int, *words: str) -> None:
    """CLIENTS sockets that read and forget; returns when all are connected."""
    process = _pinned(-1, floor, "drain", str(port), str(CLIENTS), str(kind), *words, stdin=-1, stdout=-1)
    stack.enter_context(_ended(process))
    assert process.stdout is not None
    if process.stdout.readline().strip() != "ready":
        raise SystemExit(f"the audience could not connect to port {port}")


def _obedient(stack: ExitStack, floor: Path, command: list[str | Path], kind: int, *words: str, cwd: Path) -> Window:
    """A peer that takes "SECONDS HZ BYTES" lines and answers "DELIVERIES CPU_SECONDS"."""
    process = stack.enter_context(_ended(_pinned(0, *command, stdin=-1, stdout=-1, cwd=cwd)))
    assert process.stdin is not None and process.stdout is not None
    _audience(stack, floor, int(process.stdout.readline()), kind, *words)

    def window() -> float:
        assert process.stdin is not None and process.stdout is not None
        for seconds in (1.0, SECONDS):  # sockets that were idle acknowledge packet by packet at first
            process.stdin.write(f"{seconds} {HZ} {BYTES}\n")
            process.stdin.flush()
            deliveries, used = process.stdout.readline().split()
        return float(used) / int(deliveries) * 1e6

    return window


def _nchan(stack: ExitStack, floor: Path, folder: Path) -> Window:
    port = 18_000 + os.getpid() % 10_000
    (folder / "nchan.conf").write_text(
        f"""load_module {NCHAN}; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log; daemon off;
user root; events {{ worker_connections 10000; }}
http {{ access_log off; server {{ listen 127.0.0.1:{port} backlog=4096;
  location = /ws {{ nchan_subscriber websocket; nchan_channel_id board; nchan_subscriber_first_message newest; }}
  location = /publish {{ nchan_publisher http; nchan_channel_id board; nchan_message_buffer_length 1; }} }} }}
"""
    )
    process = stack.enter_context(
        _ended(_pinned(0, "nginx", "-p", folder, "-c", folder / "nchan.conf", stderr=subprocess.DEVNULL))
    )
    time.sleep(1)
    _audience(stack, floor, port, 1)
    workers = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()

    def publish() -> None:
        request = urllib.request.Request(f"http://127.0.0.1:{port}/publish", data=b"x" * BYTES, method="POST")
        urllib.request.urlopen(request).close()

    def window() -> float:
        _ticks(publish, 1.0)
        before = sum(cpu_seconds(int(pid)) for pid in workers)
        ticks = _ticks(publish, SECONDS)
        time.sleep(0.1)
        return (sum(cpu_seconds(int(pid)) for pid in workers) - before) / (ticks * CLIENTS) * 1e6

    return window


def _ticks(act: Callable[[], None], seconds: float) -> int:
    due, count = time.monotonic(), int(seconds * HZ)
    for _ in range(count):
        due += 1 / HZ
        time.sleep(max(0.0, due - time.monotonic()))
        act()
    return count


class Ours:
    """A whole server process of ours with an audience. Scores come in through another process of the same stores, so
    that what is measured begins with hearing of a change."""

    def __init__(self, stack: ExitStack, floor: Path, runner: asyncio.Runner, kind: int) -> None:
        self._runner = runner
        other: Server = stack.enter_context(server())
        environment = {**os.environ, "REALTIME_PORT": "0", "REALTIME_MAX_CONNECTIONS_PER_ADDRESS": "0"}
        environment["REALTIME_PING_INTERVAL_S"] = "3600"  # the audience reads and forgets, pings too
        command = [sys.executable, "-m", "realtime", "serve", "--data-dir", str(other.data_dir)]
        self._process = stack.enter_context(
            _ended(_pinned(0, *command, stdout=-1, stderr=subprocess.DEVNULL, env=environment))
        )
        runner.run(_fill(other.database_url))
        other.rebuild()
        assert self._process.stdout is not None
        self._base_url = next(line.split()[1] for line in self._process.stdout if line.startswith("ready: "))
        port = int(self._base_url.rsplit(":", 1)[1])
        _audience(stack, floor, port, kind, "/ws", '{"type":"subscribe","board":"all_time"}')
        token = other.token("submit:any", user_id=1)
        self._submitter = runner.run(_connected(f"{other.ws_url}?token={token}"))
        self._turn = 0
        time.sleep(2)

    def delivered(self) -> int:
        text = urllib.request.urlopen(f"{self._base_url}/metrics").read().decode()
        return int(float(text.split("\nrealtime_deliveries_total ")[1].split("\n")[0]))

    def window(self) -> float:
        self._runner.run(self._changes(1.0))
        delivered, before = self.delivered(), cpu_seconds(self._process.pid)
        self._runner.run(self._changes(SECONDS))
        used = cpu_seconds(self._process.pid) - before
        return used / (self.delivered() - delivered) * 1e6

    async def _changes(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        for _ in range(int(seconds * HZ)):
            due += 1 / HZ
            await asyncio.sleep(max(0.0, due - loop.time()))
            self._turn += 1
            message = {
                "type": "submit",
                "submission_id": f"f{os.getpid()}-{self._turn}",
                "user_id": PLAYERS - self._turn % 50,
                "score_added": 1,
            }
            await self._submitter.send(json.dumps(message))
            await self._submitter.recv()
        await asyncio.sleep(0.1)


async def _connected(url: str) -> ClientConnection:
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


def _peers(stack: ExitStack, floor: Path, folder: Path) -> tuple[dict[str, Window], list[str]]:
    """What is here, ready to be measured, and the names of what is missing."""
    windows: dict[str, Window] = {}
    missing: list[str] = []

    def offer(name: str, there: bool, start: Callable[[], Window]) -> None:
        if there:
            windows[name] = start()
        else:
            missing.append(name)

    def obey(*command: str | Path, kind: int = 1, words: tuple[str, ...] = (), cwd: Path = folder) -> Window:
        return _obedient(stack, floor, list(command), kind, *words, cwd=cwd)

    python, root = sys.executable, HERE.parents[1]
    for name in ("bare C loop over send(), 1", "bare C loop over send(), 2"):
        windows[name] = obey(floor, "serve", str(CLIENTS), kind=0)
    offer("websockets.broadcast", True, lambda: obey(python, HERE / "peers/websockets_broadcast.py", cwd=root))
    offer("Starlette, await send_text", True, lambda: obey(python, HERE / "peers/starlette_loop.py", cwd=root))
    offer("nchan (nginx)", NCHAN.exists(), lambda: _nchan(stack, floor, folder))
    node = _node_packages(folder)
    offer("Node ws", node, lambda: obey("node", folder / "ws.js"))
    socketio = ("/socket.io/?EIO=4&transport=websocket", "40")
    offer("socket.io", node, lambda: obey("node", folder / "socketio.js", words=socketio))
    centrifuge = _built_centrifuge(folder)
    hello = ("/ws", '{"id":1,"connect":{}}')
    offer("centrifuge 0.40 (the library in Centrifugo)", centrifuge, lambda: obey(folder / "centrifuge", words=hello))
    missing.append("Centrifugo 6 (its module is not to be had from the Go proxy used here)")
    return windows, missing


def _node_packages(folder: Path) -> bool:
    if not shutil.which("npm"):
        return False
    for script in (HERE / "peers").glob("*.js"):
        shutil.copy(script, folder)
    done = subprocess.run(["npm", "install", "--silent", "ws@8", "socket.io@4"], cwd=folder, capture_output=True)
    return done.returncode == 0


def _built_centrifuge(folder: Path) -> bool:
    if not shutil.which("go"):
        return False
    shutil.copytree(HERE / "peers/centrifuge", folder / "source")
    for command in (["go", "mod", "tidy"], ["go", "build", "-o", str(folder / "centrifuge"), "."]):
        if subprocess.run(command, cwd=folder / "source", capture_output=True).returncode:
            return False
    return True


def run() -> list[Table]:
    """The table of this benchmark."""
    with (
        tempfile.TemporaryDirectory() as name,
        ExitStack() as stack,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        folder = Path(name)
        folder.chmod(0o755)
        floor = folder / "floor"
        subprocess.run(["gcc", "-O2", "-o", floor, HERE / "fanout_floor.c"], check=True)
        windows, missing = _peers(stack, floor, folder)
        windows["ours, the whole path"] = Ours(stack, floor, runner, 1).window
        windows["ours, the whole path, compression negotiated"] = Ours(stack, floor, runner, 2).window
        costs: dict[str, list[float]] = {who: [] for who in windows}
        for _ in range(WINDOWS):
            for who, window in windows.items():
                costs[who].append(window())
        bare = median(costs["bare C loop over send(), 1"] + costs["bare C loop over send(), 2"])
        title = f"Server CPU a delivery, {CLIENTS:,} subscribers, {HZ} times a second, {BYTES} bytes"
        table = Table(title, ("server", "us", "against the bare loop", "lowest", "highest"))
        for who, values in sorted(costs.items(), key=lambda item: median(item[1])):
            table.add(who, median(values), median(values) / bare, min(values), max(values))
        for who in missing:
            table.add(f"{who}: missing", "", "", "", "")
        return [table]
