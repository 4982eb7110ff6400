"""HAProxy for tests: one address that leads to whichever node is the primary.

Owns the process and ends it. Must never decide by itself: twice a second it asks each node for its role.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from realtime.dev.process import Keeper, Log, connects
from tests.support.processes import lasting_port
from tests.support.redis_node import Node, until


def haproxy() -> str | None:
    """The program, where this machine has it."""
    return shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")


@contextmanager
def balanced(folder: Path, nodes: Sequence[Node]) -> Iterator[str]:
    """A URL that leads to the primary among these nodes, for the block."""
    program = haproxy()
    assert program is not None
    port, password = lasting_port(), nodes[0].password
    folder.mkdir(parents=True, exist_ok=True)
    conf = folder / "haproxy.cfg"
    conf.write_text(_configuration(port, password, nodes))
    keeper = Keeper([program, "-db", "-f", str(conf)], Log(folder / "haproxy.log"), signal.SIGTERM, inherit=())
    try:
        until(lambda: connects(port), "HAProxy answers")
        yield f"redis://:{password}@127.0.0.1:{port}/0"
    finally:
        keeper.stop()


def _configuration(port: int, password: str, nodes: Sequence[Node]) -> str:
    servers = "\n".join(f"    server node-{n} {node.address} check" for n, node in enumerate(nodes))
    return f"""
defaults
    mode tcp
    timeout connect 1s
    timeout client 1h
    timeout server 1h
listen store
    bind 127.0.0.1:{port}
    option tcp-check
    tcp-check connect
    tcp-check send "AUTH {password}\\r\\n"
    tcp-check expect string +OK
    tcp-check send "INFO replication\\r\\n"
    tcp-check expect string role:master
    tcp-check send "QUIT\\r\\n"
    tcp-check expect string +OK
    timeout check 500ms
    default-server inter 500ms fall 2 rise 1 on-marked-down shutdown-sessions
{servers}
"""
