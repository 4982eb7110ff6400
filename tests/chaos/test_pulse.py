"""A PostgreSQL that hangs: found by its pulse, not by one time-out after the other."""

from __future__ import annotations

import asyncio

import pytest

from realtime.errors import LedgerUnavailable
from realtime.ledger import health
from realtime.ledger.ledger import Ledger
from tests.chaos.proxy import Proxy


async def test_who_waits_is_cut_off_and_who_comes_is_refused(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Proxy(dsn) as wire:
        ledger = Ledger(wire.url, connections=2)
        await ledger.open()
        await ledger.health.beat()
        assert ledger.health.away is None
        monkeypatch.setattr(health, "PATIENCE", 0.2)
        wire.stall()
        asking = [
            asyncio.ensure_future(ledger.fetch("judged")) for _ in range(4)
        ]  # two hang, two wait for a connection
        await asyncio.sleep(0)
        await ledger.health.beat()
        assert ledger.health.away is not None
        answers = await asyncio.gather(*asking, return_exceptions=True)
        assert [type(answer) for answer in answers] == [LedgerUnavailable] * 4
        with pytest.raises(LedgerUnavailable):
            ledger.fetch("judged").send(None)  # at its first step: it waits for nothing
        monkeypatch.undo()
        wire.cut()
        wire.flow()
        await ledger.health.beat()
        assert await ledger.fetch("judged")
        await ledger.aclose()


async def test_a_lost_connection_alone_is_no_database_that_is_away(dsn: str) -> None:
    async with Proxy(dsn) as wire:
        ledger = Ledger(wire.url)
        await ledger.open()
        await ledger.health.beat()
        wire.cut()
        await ledger.health.beat()
        assert ledger.health.away is None
        assert await ledger.fetch("judged")
        await ledger.aclose()
