"""Hosts: the primary is found among several, and nothing else is believed."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from realtime.errors import NotPrimary
from realtime.ledger.hosts import Hosts
from realtime.ledger.ledger import Ledger
from realtime.ledger.standing import Standing
from tests.support.processes import free_port


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
