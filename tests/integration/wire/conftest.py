"""Fixtures of tests of connections: both loops, shorter graces, a certificate."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from realtime.wire import connection, keepalive
from tests.support.certificates import certified
from tests.support.connections import RawClient, Run


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    factory = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}[request.param]

    def run(main: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(asyncio.wait_for(main, 30))

    return run


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graces of a tenth of their length, where a test waits for one."""
    monkeypatch.setattr(connection, "_LINGER_S", 0.1)
    monkeypatch.setattr(keepalive, "_LATE_PONG_S", 0.1)


@pytest.fixture(autouse=True)
def no_socket_is_left() -> Iterator[None]:
    """A test that fails says why, not which sockets it left open."""
    yield
    while RawClient.opened:
        RawClient.opened.pop().close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return certified(tmp_path_factory.mktemp("tls"))
