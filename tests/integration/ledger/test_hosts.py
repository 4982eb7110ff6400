"""Hosts: the primary is found among several, and nothing else is believed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from realtime.errors import LedgerUnavailable, NotPrimary
from realtime.ledger.hosts import Hosts
from realtime.ledger.judging import Judged, judge
from realtime.ledger.ledger import Ledger
from realtime.ledger.standing import Standing
from tests.support.processes import free_port
from tests.support.waiting import SECOND


def beside(dsn: str, *, nobody: int = 1) -> str:
    """The same address, with ports in front at which nobody listens."""
    parts = urlsplit(dsn)
    account, _, place = parts.netloc.rpartition("@")
    dead = [f"127.0.0.1:{free_port()}" for _ in range(nobody)]
    return urlunsplit(parts._replace(netloc=f"{account}@{','.join([*dead, place])}"))


async def test_the_primary_is_found_behind_hosts_at_which_nobody_is(dsn: str) -> None:
    ledger = Ledger(beside(dsn, nobody=2))
    try:
        await ledger.open()
        assert await ledger.fetch("judged")
        assert ledger.hosts.chosen is not None and ledger.hosts.chosen.name == urlsplit(dsn).netloc.rpartition("@")[2]
    finally:
        await ledger.aclose()


async def test_a_server_of_an_earlier_timeline_is_refused_with_what_to_do(dsn: str) -> None:
    hosts = Hosts(dsn)
    connection = await hosts.plain()
    await connection.close()
    known = hosts.newest
    assert known is not None
    hosts.newest = Standing(known.cluster, known.timeline + 1)
    with pytest.raises(NotPrimary, match="was replaced: it is of timeline 1, and one of timeline 2 was seen"):
        await hosts.plain()
    hosts.newest = Standing(known.cluster + 1, known.timeline + 1)
    await (await hosts.plain()).close()
    assert hosts.newest == known, "another cluster has timelines of its own"


async def test_a_transaction_that_a_pooler_leads_to_a_replaced_primary_fails(dsn: str) -> None:
    hosts = Hosts(dsn)
    connection = await hosts.plain()
    known = hosts.newest
    assert known is not None
    await connection.execute(hosts.fence())
    hosts.newest = Standing(known.cluster, known.timeline + 1)
    with pytest.raises(asyncpg.ReadOnlySQLTransactionError, match="replaced by a server of timeline 2"):
        await connection.execute(f"SET LOCAL jit = off; {hosts.fence()}")
    hosts.newest = Standing(known.cluster + 1, known.timeline + 1)
    await connection.execute(hosts.fence())
    await connection.close()


@asynccontextmanager
async def silent(dsn: str) -> AsyncIterator[str]:
    """The same address, with a host behind that takes connections and says nothing."""
    held = set[asyncio.StreamWriter]()
    server = await asyncio.start_server(lambda _, writer: held.add(writer), "127.0.0.1", 0)
    parts = urlsplit(dsn)
    try:
        yield urlunsplit(parts._replace(netloc=f"{parts.netloc},127.0.0.1:{server.sockets[0].getsockname()[1]}"))
    finally:
        server.close()
        for writer in held:
            writer.close()


async def test_a_host_that_says_nothing_costs_the_primary_neither_its_verdict_nor_its_connections(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with silent(dsn) as address:
        ledger = Ledger(address)
        try:
            await ledger.open()
            monkeypatch.setattr("realtime.ledger.hosts.PROBE", 3600.0)  # whoever waited for it would wait for good
            primary = ledger.hosts.chosen
            async with ledger.connection() as lent:
                await asyncio.gather(*(ledger.health.beat() for _ in range(3)))
                assert ledger.health.away is None and ledger.hosts.chosen is primary
                assert await lent.fetchval("SELECT 1") == 1
            ledger.hosts.doubt(primary)
            async with asyncio.timeout(60 * SECOND):
                await (await ledger.hosts.plain()).close()
        finally:
            await ledger.aclose()


async def test_one_host_is_asked_once_for_all_who_want_to_know(dsn: str) -> None:
    hosts = Hosts(beside(dsn))
    await (await hosts.plain()).close()
    host = hosts.chosen
    assert host is not None
    try:
        first, *others = await asyncio.gather(*(host.ask() for _ in range(3)))
        assert first is not None and all(other is first for other in others)
    finally:
        hosts.close()


async def test_two_primaries_of_one_timeline_are_refused_until_one_is_stopped(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = urlsplit(dsn)
    account = parts.netloc.rpartition("@")[0]
    both = f"{account}@127.0.0.1:{parts.port},localhost:{parts.port}"
    are_two = False

    async def judged(connection: Any, **options: Any) -> Judged:
        """Whoever is asked by the second name is another server, while there are two."""
        answer = await judge(connection, **options)
        is_other = are_two and connection.host is not None and connection.host.name.startswith("localhost")
        return answer._replace(started=answer.started + timedelta(seconds=1)) if is_other else answer

    monkeypatch.setattr("realtime.ledger.hosts.judge", judged)
    monkeypatch.setattr("realtime.ledger.ledger.judge", judged)
    ledger = Ledger(urlunsplit(parts._replace(netloc=both)))
    try:
        await ledger.open()
        await ledger.hosts.look()
        assert ledger.hosts.chosen is not None, "two names of one server"
        are_two = True
        await ledger.hosts.look()
        await ledger.health.beat()
        assert ledger.health.away is not None
        with pytest.raises(LedgerUnavailable):
            await ledger.fetch("judged")
        with pytest.raises(NotPrimary, match=r"127\.0\.0\.1.* two primaries of timeline 1.*localhost.* stop the other"):
            await ledger.hosts.plain()
        are_two = False
        await ledger.health.beat()
        assert ledger.health.away is None and await ledger.fetch("judged")
    finally:
        await ledger.aclose()
