"""What people compare us with, each ready to send to an audience: bare loops, libraries and servers.

Owns how each is built, started and told to send. Must never measure itself: it says what a process used, and
`fanout` compares. Assumes gcc; what else is not installed is named as missing.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

from realtime.boards import standings
from realtime.boards.board import ALL_TIME, TOP
from realtime.boards.standings import Snapshot
from realtime.wire import messages
from tests.benchmarks.harness import cpu_seconds
from tests.benchmarks.served import HZ, Audience, audience, ended, pinned

CLIENTS = 2_000
BYTES = 135
"""Of the frame of a one-row diff of ours; the others' are as long."""

HEADER = 4
"""Bytes of it that a WebSocket frame of that size begins with (RFC 6455, section 5.2)."""

HERE = Path(__file__).parent
NCHAN = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")


class Contestant(NamedTuple):
    """A server with CLIENTS sockets before it."""

    send: Callable[[float], tuple[int, float]]
    """Sends for so many seconds, HZ times a second; gives deliveries and seconds of the server's CPU."""
    audience: Audience
    writing: Callable[[], float] | None = None
    """Seconds so far that it spent writing, by its own clock, where it tells."""


class Peers:
    """Those that are here, by name; `missing` are the names of the others, with what they lack."""

    def __init__(self, stack: ExitStack, floor: Path, folder: Path) -> None:
        self._stack = stack
        self._floor = floor
        self._folder = folder
        self.missing: list[str] = []
        self.here = self._all()

    def _all(self) -> dict[str, Contestant]:
        python, root = sys.executable, HERE.parents[1]
        here = {
            name: self._obedient(self._floor, "serve", str(CLIENTS), kind=0)
            for name in ("bare C loop over send(), 1", "bare C loop over send(), 2")
        }
        for name, script in (
            ("websockets.broadcast", "websockets_broadcast"), ("Starlette, await send_text", "starlette_loop")
        ):  # fmt: skip
            here[name] = self._obedient(python, HERE / f"peers/{script}.py", cwd=root)
        if NCHAN.exists():
            here["nchan (nginx)"] = self._nchan()
        else:
            self.missing.append("nchan (libnginx-mod-nchan)")
        if self._node_packages():
            here["Node ws"] = self._obedient("node", self._folder / "ws.js")
            hello = ("/socket.io/?EIO=4&transport=websocket", "40")
            here["socket.io"] = self._obedient("node", self._folder / "socketio.js", hello=hello)
        else:
            self.missing.append("Node ws, socket.io (npm)")
        if self._built_centrifuge():
            hello = ("/ws", '{"id":1,"connect":{}}')
            name = "centrifuge 0.40, the library in Centrifugo"
            here[name] = self._obedient(self._folder / "centrifuge", hello=hello)
        else:
            self.missing.append("centrifuge (go)")
        if shutil.which("centrifugo"):
            here["Centrifugo 6, full board"] = self._centrifugo(delta=False)
            here["Centrifugo 6, its delta compression"] = self._centrifugo(delta=True)
        else:
            self.missing.append("Centrifugo 6 (go install github.com/centrifugal/centrifugo/v6@latest, and on PATH)")
        return here

    def _audience(self, port: int, kind: int, path: str, message: str) -> Audience:
        return self._stack.enter_context(audience(self._floor, port, CLIENTS, kind, message, path))

    # Told by a line on stdin -----------------------------------------------------------------------------------------

    def _obedient(
        self, *command: str | Path, kind: int = 1, hello: tuple[str, str] = ("/ws", ""), cwd: Path | None = None
    ) -> Contestant:
        """A process that takes "SECONDS HZ BYTES" lines and answers "DELIVERIES CPU_SECONDS"."""
        process = self._stack.enter_context(ended(pinned(0, *command, stdin=-1, stdout=-1, cwd=cwd or self._folder)))
        assert process.stdin is not None and process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def send(seconds: float) -> tuple[int, float]:
            stdin.write(f"{seconds} {HZ} {BYTES - HEADER if kind else BYTES}\n")
            stdin.flush()
            deliveries, used = stdout.readline().split()
            return int(deliveries), float(used)

        return Contestant(send, self._audience(int(stdout.readline()), kind, *hello))

    # Told by HTTP ----------------------------------------------------------------------------------------------------

    def _nchan(self) -> Contestant:
        port, folder = _port(0), self._folder
        (folder / "nchan.conf").write_text(
            f"""load_module {NCHAN}; worker_processes 1; daemon off; user root;
pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 10000; }}
http {{ access_log off; server {{ listen 127.0.0.1:{port} backlog=4096;
  location = /ws {{ nchan_subscriber websocket; nchan_channel_id board; nchan_subscriber_first_message newest; }}
  location = /publish {{ nchan_publisher http; nchan_channel_id board; nchan_message_buffer_length 1; }} }} }}
"""
        )
        command = ("nginx", "-p", folder, "-c", folder / "nchan.conf")
        process = self._stack.enter_context(ended(pinned(0, *command, stderr=subprocess.DEVNULL)))
        time.sleep(1)
        workers = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
        publish = _poster(f"http://127.0.0.1:{port}/publish", cycle([b"x" * (BYTES - HEADER)]))
        return Contestant(_published(publish, [int(pid) for pid in workers]), self._audience(port, 1, "/ws", ""))

    def _centrifugo(self, *, delta: bool) -> Contestant:
        """Publishing the whole board, as its guides do; clients get it whole, or what Fossil finds different."""
        port, path = _port(1 + delta), self._folder / f"centrifugo-{delta}.json"
        rules: dict[str, Any] = {"allow_subscribe_for_client": True, "allow_subscribe_for_anonymous": True}
        if delta:  # needs a history to compare with, and clients that follow it
            rules |= {
                "history_size": 2, "history_ttl": "60s", "force_recovery": True,
                "allowed_delta_types": ["fossil"], "delta_publish": True,
            }  # fmt: skip
        settings = {
            "http_server": {"address": "127.0.0.1", "port": str(port)},
            "http_api": {"insecure": True},
            "client": {
                "allowed_origins": ["*"],
                "allow_anonymous_connect_without_token": True,
                "ping_interval": "3600s",
                "pong_timeout": "60s",
            },
            "channel": {"without_namespace": rules},
            "log": {"level": "error"},
        }
        path.write_text(json.dumps(settings))
        process = self._stack.enter_context(
            ended(pinned(0, "centrifugo", "-c", path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        )
        time.sleep(2)
        asked = ',"delta":"fossil"' if delta else ""
        words = f'{{"id":1,"connect":{{}}}}\n{{"id":2,"subscribe":{{"channel":"board"{asked}}}}}'
        boards = (b'{"channel":"board","data":%b}' % board for board in _boards())
        publish = _poster(f"http://127.0.0.1:{port}/api/publish", boards)
        sockets = self._audience(port, 2, "/connection/websocket", words)
        return Contestant(_published(publish, [process.pid]), sockets)

    # Built here ------------------------------------------------------------------------------------------------------

    def _node_packages(self) -> bool:
        if not shutil.which("npm"):
            return False
        for script in (HERE / "peers").glob("*.js"):
            shutil.copy(script, self._folder)
        command = ["npm", "install", "--silent", "ws@8", "socket.io@4"]
        return subprocess.run(command, cwd=self._folder, capture_output=True).returncode == 0

    def _built_centrifuge(self) -> bool:
        if not shutil.which("go"):
            return False
        source = shutil.copytree(HERE / "peers/centrifuge", self._folder / "source")
        for command in (["go", "mod", "tidy"], ["go", "build", "-o", str(self._folder / "centrifuge"), "."]):
            if subprocess.run(command, cwd=source, capture_output=True).returncode:
                return False
        return True


def _port(n: int) -> int:
    return 18_000 + (os.getpid() * 3 + n) % 10_000


def _poster(url: str, bodies: Iterator[bytes]) -> Callable[[], None]:
    headers = {"Content-Type": "application/json"}

    def publish() -> None:
        urllib.request.urlopen(urllib.request.Request(url, next(bodies), headers)).close()

    return publish


def _published(publish: Callable[[], None], pids: list[int]) -> Callable[[float], tuple[int, float]]:
    """What a server that is told by `publish` is sent with."""

    def used() -> float:
        return sum(cpu_seconds(pid) for pid in pids)

    def send(seconds: float) -> tuple[int, float]:
        before, due, count = used(), time.monotonic(), int(seconds * HZ)
        for _ in range(count):
            due += 1 / HZ
            time.sleep(max(0.0, due - time.monotonic()))
            publish()
        time.sleep(0.1)
        return count * CLIENTS, used() - before

    return send


def _boards() -> Iterator[bytes]:
    """A top 100, one score of which rises from each to the next."""
    scores = {user_id: 100 * user_id for user_id in range(901, 1_001)}
    names = {user_id: f"player {user_id}" for user_id in scores}
    for version in range(1, sys.maxsize):
        scores[1_000 - version % 50] += 1
        top = dict(list(standings.in_order(scores.items()).items())[:TOP])
        yield messages.snapshot(Snapshot(ALL_TIME.id, "d50b7c10-1", version, top, names))
