"""Hosts for tests: network namespaces on one wire, each of which can be cut off from all others, or from some.

Owns the namespaces, the wire and its addresses, and takes them away. Must never touch what it did not make. Assumes
Linux, iproute2 and the right to make namespaces: `refused` says what is missing.

This machine's own end of the wire is a host as well: whoever runs a server here is cut off by the same means.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path


@cache
def refused() -> str:
    """Why hosts cannot be made here, in one line; '' where they can."""
    if shutil.which("ip") is None:
        return "hosts need iproute2's `ip`"
    name = f"rt{secrets.token_hex(3)}"
    try:
        _ip("link", "add", name, "type", "bridge")
        _ip("link", "del", name)
        _ip("netns", "add", name)
        _ip("netns", "del", name)
    except subprocess.CalledProcessError as error:
        return f"hosts cannot be made here: {error.stderr.strip()}"
    return ""


def _ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


class Host:
    """A namespace with an address. `command` in front of another runs that one there."""

    def __init__(self, name: str, address: str) -> None:
        self.name, self.address = name, address
        self.command = (shutil.which("ip") or "ip", "netns", "exec", name)
        self._end = f"{name}v"  # of its cable, on this machine's side

    def cut_off(self) -> None:
        """Pulls its cable: nothing gets out or in, and nobody is told."""
        _ip("link", "set", self._end, "down")

    def join(self) -> None:
        """Puts the cable back in."""
        _ip("link", "set", self._end, "up")

    def cut_from(self, *others: Host) -> None:
        """Nothing that it says reaches these; the rest of the world is as near as before."""
        for other in others:
            _ip("-n", self.name, "route", "replace", "blackhole", f"{other.address}/32")

    def join_with(self, *others: Host) -> None:
        for other in others:
            _ip("-n", self.name, "route", "del", "blackhole", f"{other.address}/32")


@contextmanager
def hosts(count: int) -> Iterator[list[Host]]:
    """So many hosts, all on one wire with this machine, for the block."""
    mark = secrets.token_hex(2)
    network = f"10.{100 + os.getpid() % 100}.{secrets.randbelow(256)}"
    wire = f"rt{mark}br"
    with ExitStack() as stack:
        _ip("link", "add", wire, "type", "bridge")
        stack.callback(_ip, "link", "del", wire)
        _ip("addr", "add", f"{network}.1/24", "dev", wire)
        _ip("link", "set", wire, "up")
        _keep_packets_here(wire)
        made = []
        for number in range(count):
            host = Host(f"rt{mark}n{number}", f"{network}.{10 + number}")
            _ip("netns", "add", host.name)
            stack.callback(_ip, "netns", "del", host.name)
            end = f"{host.name}v"
            _ip("link", "add", end, "type", "veth", "peer", "name", "eth0", "netns", host.name)
            _ip("link", "set", end, "master", wire, "up")
            for arguments in (
                ("link", "set", "lo", "up"),
                ("addr", "add", f"{host.address}/24", "dev", "eth0"),
                ("link", "set", "eth0", "up"),
            ):
                _ip("-n", host.name, *arguments)
            made.append(host)
        yield made


def _keep_packets_here(wire: str) -> None:
    """A bridge waits before it passes anything on, where it thinks of loops; this one has none."""
    Path(f"/sys/class/net/{wire}/bridge/forward_delay").write_text("0")
