"""A server that leaves: listeners close first, then every client is asked, and whoever stays is closed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from realtime.server import draining
from realtime.server.draining import Draining
from realtime.settings import Settings
from realtime.wire.close_codes import CloseCode
from realtime.wire.frames import Frame


class Client:
    """A client that goes when it is asked, or stays until it is closed; one that is `gone` takes no frame any more."""

    def __init__(self, told: list[str], *, stays: bool = False, gone: bool = False) -> None:
        self._told = told
        self._stays = stays
        self._gone = gone
        self.is_connected = True
        self.closed: list[int] = []

    def write(self, frame: Frame) -> int:
        if self._gone:
            return -1
        self._told.append("asked")
        self.is_connected = self._stays
        return 0

    def close(self, code: int) -> None:
        self.closed.append(code)
        self.is_connected = False


@pytest.fixture
def told() -> list[str]:
    return []


def leaving(drain_s: float = 0.0, spread_s: float = 0.0) -> Draining:
    return Draining(Settings.load({"REALTIME_DRAIN_S": str(drain_s), "REALTIME_RECONNECT_SPREAD_S": str(spread_s)}))


def connected(clients: list[Client]) -> Callable[[], list[Client]]:
    return lambda: [client for client in clients if client.is_connected]


async def test_listeners_close_before_the_first_client_is_asked(told: list[str]) -> None:
    clients = [Client(told), Client(told)]
    await leaving().leave(connected(clients), lambda: told.append("closed"))
    assert told == ["closed", "asked", "asked"]


async def test_a_client_whose_handshake_was_under_way_is_asked_as_well(told: list[str]) -> None:
    late = Client(told)
    first = Client(told)
    asked = iter([[first], [first, late]])
    await leaving().leave(lambda: next(asked, []), lambda: None)
    assert not late.is_connected and told == ["asked", "asked"]


async def test_a_client_that_stays_is_closed_and_one_that_is_gone_is_left_alone(
    told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draining, "CLOSE_AFTER", 0.1)
    stays, gone = Client(told, stays=True), Client(told, gone=True)
    await leaving().leave(connected([stays, gone]), lambda: None)
    await asyncio.sleep(0)
    assert stays.closed == [CloseCode.RESTART] and gone.closed == []


async def test_who_hastens_ends_every_wait(told: list[str]) -> None:
    clients = [Client(told, stays=True) for _ in range(1_000)]
    server = leaving(drain_s=600, spread_s=600)
    server.hasten()
    async with asyncio.timeout(draining.CLOSE_AFTER):
        await server.leave(connected(clients), lambda: told.append("closed"))
    assert told == ["closed", *["asked"] * 1_000]


async def test_clients_are_asked_at_moments_of_their_own(told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draining, "LEAVING_A_SECOND", 100)
    clients = [Client(told) for _ in range(20)]
    leave = asyncio.create_task(leaving(spread_s=600).leave(connected(clients), lambda: None))
    seen = set()
    while not leave.done():
        seen.add(len(told))
        await asyncio.sleep(0)
    assert 5 in seen and 20 in seen, "a slice at a time"
