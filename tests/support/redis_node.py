"""One Redis process of several that make an engine: started, killed, paused, and started again where it was.

Owns the process and its folder, and ends it by its own id. Must never know what the node is for: whoever makes a
cluster or Sentinels writes its directives. Assumes Debian's redis-server, 6.2 or later, in a network namespace where
one is named.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import redis
import redis.exceptions

from realtime.dev.process import Keeper, Log, write_private
from realtime.dev.store import installed
from tests.support.waiting import PATIENCE, attempted

AWAY = (redis.exceptions.RedisError, OSError)
"""What a node says that is not there, or not yet, or of no use."""

_BUS = 10_000
"""A cluster's nodes talk to each other on a port so much higher."""


def redis_server() -> Path | None:
    """The Redis that this machine brought; None where it has none that knows clusters as they are today."""
    return installed("redis-server") or installed("valkey-server")


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody uses, nor those so much higher that a cluster's nodes talk to each other on. All
    are below those that clients are given: they are still free after a restart."""
    found: list[int] = []
    while len(found) < count:
        port = secrets.choice(range(20_000, 22_000))
        if port not in found and _is_free(port) and _is_free(port + _BUS):
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class Node:
    """A redis-server with a folder of its own, at an address that stays.

    `directives` is what its configuration says besides address, password and that nothing is ever waited for on a disk.
    Its methods block for some tens of milliseconds: call them through `asyncio.to_thread`.
    """

    def __init__(
        self,
        folder: Path,
        port: int,
        *,
        host: str = "127.0.0.1",
        password: str = "",
        tls: tuple[Path, Path] | None = None,
        directives: Sequence[str] = (),
        within: Sequence[str] = (),
        sentinel: bool = False,
    ) -> None:
        self.folder = folder
        self.host, self.port, self.password = host, port, password
        self.directives = directives
        self._tls = tls
        self._within = within  # the command that runs another in a namespace
        self._sentinel = sentinel
        self._keeper: Keeper | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def __repr__(self) -> str:
        return f"<node {self.address}>"

    @property
    def address(self) -> str:
        """As the engine's other nodes call it."""
        return f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """Leads to this node alone."""
        scheme = "rediss" if self._tls else "redis"
        account = f":{self.password}@" if self.password else ""
        certificate = f"?ssl_ca_certs={self._tls[0]}" if self._tls else ""
        return f"{scheme}://{account}{self.address}/0{certificate}"

    @property
    def pid(self) -> int:
        assert self._keeper is not None
        return self._keeper.pid

    @property
    def is_running(self) -> bool:
        return self._keeper is not None and not self._keeper.has_ended()

    # Its life -----------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Starts it, and does not wait. Where it ran before, it finds what it had written then."""
        program = redis_server()
        assert program is not None
        conf = self.folder / "redis.conf"
        if not (self._sentinel and conf.exists()):  # a Sentinel keeps what it learns in its configuration
            write_private(conf, "".join(f"{line}\n" for line in self._lines()))
        command = [*self._within, str(program), str(conf), *(["--sentinel"] if self._sentinel else [])]
        self._keeper = Keeper(command, Log(self.folder / "redis.log"), signal.SIGTERM, inherit=(), cwd=self.folder)

    def _lines(self) -> Iterable[str]:
        yield f"bind {self.host}"
        if self._tls:
            certificate, key = self._tls
            yield f"port 0\ntls-port {self.port}\ntls-cert-file {certificate}\ntls-key-file {key}"
            yield f"tls-ca-cert-file {certificate}\ntls-auth-clients no\ntls-replication yes"
        else:
            yield f"port {self.port}"
        if self.password:
            yield f"requirepass {self.password}"
        if not self._sentinel:
            if self.password:
                yield f"masterauth {self.password}"
            yield 'save ""\nappendonly no\nmaxmemory-policy noeviction'
            # A replica is up to date as soon as it can be, and a primary that is gone is missed within two seconds.
            yield "repl-diskless-sync yes\nrepl-diskless-sync-delay 0\nrepl-ping-replica-period 1\nrepl-timeout 5"
        yield from self.directives

    def answers(self) -> Node:
        """Returns once it answers a PING; it may still be loading."""

        def ping() -> None:
            assert self.is_running, f"{self} ended: {self.log[-1500:]}"
            self.call("PING")

        with suppress(redis.exceptions.BusyLoadingError):
            attempted(ping, redis.exceptions.ConnectionError, redis.exceptions.TimeoutError)
        return self

    def start(self) -> None:
        """Starts it, and waits until it answers."""
        self.begin()
        self.answers()

    def stop(self) -> None:
        """Ends it as an operator would; what has ended is left alone."""
        if self._keeper is not None:
            with suppress(ProcessLookupError):
                os.kill(self._keeper.pid, signal.SIGCONT)
            self._keeper.stop()
            self._keeper = None

    def kill(self) -> None:
        """Ends it as a power cut would."""
        if self._keeper is not None:
            with suppress(ProcessLookupError):
                os.kill(self._keeper.pid, signal.SIGKILL)
            self._keeper.stop()
            self._keeper = None

    def pause(self) -> None:
        """It hangs: sockets stay open, nobody answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def forget(self) -> None:
        """While it is down: nothing was ever saved."""
        for path in self.folder.glob("*.rdb"):
            path.unlink()

    @property
    def log(self) -> str:
        path = self.folder / "redis.log"
        return path.read_text(errors="replace") if path.exists() else ""

    # What it says -------------------------------------------------------------------------------------------------

    def client(self, **options: Any) -> redis.Redis:
        """A client of this node alone, which follows nobody elsewhere and sends nothing twice."""
        given = {"socket_timeout": 2, "socket_connect_timeout": 2, "decode_responses": True, "retry": None} | options
        given |= {"protocol": 2, "driver_info": None}  # no greeting that an older Redis counts as an error
        return redis.Redis.from_url(self.url, **given)

    def call(self, *command: Any, **options: Any) -> Any:
        """A command's answer, over a connection of its own."""
        with self.client(**options) as client:
            return client.execute_command(*command)

    def role(self) -> str:
        """`master`, `slave` or `sentinel`, by its own word."""
        return str(self.call("ROLE")[0])

    def info(self) -> dict[str, Any]:
        """The fields of INFO."""
        return dict(self.call("INFO"))


def stop_all(nodes: Iterable[Node]) -> None:
    """Ends them together: each is told before the first is waited for."""
    with_process = [node for node in nodes if node.is_running]
    for node in with_process:
        with suppress(ProcessLookupError):
            os.kill(node.pid, signal.SIGCONT)
            os.kill(node.pid, signal.SIGTERM)
    for node in nodes:
        node.stop()


def until(holds: Any, what: str, patience: float = PATIENCE) -> None:
    """Returns when `holds()` is true; blocks. Errors of nodes that are away count as not yet."""
    deadline = time.monotonic() + patience
    while True:
        said: Any = None
        try:
            said = holds()
        except AWAY as error:
            said, error_said = None, error
            if time.monotonic() > deadline:
                raise AssertionError(f"{what}: {error_said}") from error
        if said:
            return
        assert time.monotonic() < deadline, f"{what}: not within {patience:.0f} s"
        time.sleep(0.02)


def emptied_folder(folder: Path) -> Path:
    """That folder, with nothing in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
