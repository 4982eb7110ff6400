"""Balancers in front of servers: the sample HAProxy, of which other addresses are all that is changed, and others.

Owns the process, and where it listens. Must never add to the sample what a reader would have to add as well.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.clients import asking
from tests.support.processes import Command, free_port, running
from tests.support.waiting import eventually

HAPROXY = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
SAMPLE = Path(__file__).parents[2] / "web/docs/haproxy.cfg"


@dataclass(frozen=True)
class Balancer:
    """One that runs: where viewers come in, and where the primary is found."""

    command: Command
    url: str
    primary_port: int


def addressed(text: str, found: str, wanted: Sequence[str]) -> str:
    """The text with other addresses in the place of those that match, one after another; each may leave some out."""
    there = re.findall(found, text)
    assert len(there) >= len(wanted), "the sample has as many"
    for number, old in enumerate(there):
        if number < len(wanted):
            text = text.replace(old, wanted[number])
        else:
            text = re.sub(rf"^.*{re.escape(old)}.*\n", "", text, flags=re.MULTILINE)
    return text


@asynccontextmanager
async def haproxy(folder: Path, servers: Sequence[str] = (), databases: Sequence[str] = ()) -> AsyncIterator[Balancer]:
    """HAProxy with the sample in front of `servers` and `databases`."""
    if HAPROXY is None:
        pytest.skip("haproxy is not installed: the sample configuration is not run")
    listen, primary = free_port(), free_port()
    text = SAMPLE.read_text(encoding="utf-8")
    text = addressed(text, r"server host\d (10\.0\.0\.\d:8000)", servers or ["127.0.0.1:1"])
    text = addressed(text, r"server postgres\d (10\.0\.1\.\d:5432)", databases or ["127.0.0.1:1"])
    for old, new in (("bind :80\n", f"bind 127.0.0.1:{listen}\n"), ("bind :5432\n", f"bind 127.0.0.1:{primary}\n")):
        assert text.count(old) == 1
        text = text.replace(old, new)
    config = folder / "haproxy.cfg"
    config.write_text(text, encoding="utf-8")
    async with running("-db", "-f", str(config), program=[HAPROXY]) as command:

        def listens() -> bool:
            with suppress(OSError), socket.create_connection(("127.0.0.1", listen), timeout=1):
                return True
            return False

        await eventually(listens)
        yield Balancer(command, f"http://127.0.0.1:{listen}", primary)
        await command.stop()

@asynccontextmanager
async def answering(program: str, arguments: Sequence[str], listen: str) -> AsyncIterator[str]:
    """Runs a balancer that listens at `listen` (host:port), once boards come through it; gives its address."""
    async with running(*arguments, program=[program]) as command:
        async with asking(f"http://{listen}") as http:

            async def answers() -> bool:
                with suppress(Exception):
                    return (await http.get("/boards")).status_code == 200
                return False

            await eventually(answers)
        try:
            yield f"http://{listen}"
        finally:
            await command.stop()  # killed, its workers would live on
