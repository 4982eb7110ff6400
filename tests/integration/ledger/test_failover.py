"""Failover: a promoted standby is found, and what the primary before it says is not believed, with real servers."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from time import monotonic

import pytest

from realtime.boards.submissions import Submission
from realtime.errors import LedgerUnavailable, NotPrimary
from realtime.ledger import migrations
from realtime.ledger.ledger import Ledger
from realtime.repair.generation import Generations
from realtime.store.store import Store
from tests.support.replicated import Pair, lacking, replicated
from tests.support.waiting import eventually

FOUND_WITHIN = 5.0
"""Seconds after a promotion."""


@pytest.fixture(scope="module")
def servers() -> Iterator[Pair]:
    if (why := lacking(namespaces=False)) is not None:
        pytest.skip(why)
    with tempfile.TemporaryDirectory(prefix="realtime-failover-") as folder, replicated(Path(folder)) as pair:
        asyncio.run(_prepare(pair))
        yield pair


async def _prepare(pair: Pair) -> None:
    await migrations.migrate(pair.a.url)
    await asyncio.to_thread(pair.a.sql, "INSERT INTO users (username) SELECT 'p' || n FROM generate_series(1, 5) n")


@pytest.fixture
def pair(servers: Pair) -> Pair:
    """`a` is the primary, `b` its standby, asynchronous."""
    servers.a.configure(synchronous_standby_names="")
    servers.prepare()
    return servers


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Ledger]:
    """A ledger whose health is looked after."""
    ledger = Ledger(url, connections=4, lanes=1)
    await ledger.open()
    beating = asyncio.create_task(ledger.health.run())
    try:
        yield ledger
    finally:
        beating.cancel()
        with suppress(asyncio.CancelledError):
            await beating
        await ledger.aclose()


async def place_of(ledger: Ledger) -> str:
    (row,) = await ledger.fetch("judged")
    return f"timeline {row['timeline']}"


async def test_a_promoted_standby_is_found_while_the_primary_before_goes_on_believing(pair: Pair, store: Store) -> None:
    await asyncio.to_thread(pair.wait_for_standby)
    async with opened(pair.url) as ledger, opened(pair.a.url) as stuck:
        assert ledger.hosts.chosen is not None and ledger.hosts.chosen.name == pair.a.place, "b is a standby, in front"
        generations, lonely = Generations(ledger, store), Generations(stuck, store)
        await generations.look()
        await lonely.look()

        async def wait_there() -> None:
            async with ledger.connection() as connection:
                await connection.fetch("SELECT pg_sleep(60)")

        waiting = asyncio.create_task(wait_there())
        await asyncio.sleep(0)
        await asyncio.to_thread(pair.b.promote)
        promoted = monotonic()
        with pytest.raises(LedgerUnavailable):  # what it was just saying is not heard
            await waiting
        assert monotonic() - promoted < FOUND_WITHIN
        assert await place_of(ledger) == "timeline 2"
        (recorded,) = (await ledger.record_batch([Submission(1, "after", 1, None, None)], [])).judged
        assert recorded.outcome == "accepted"
        assert pair.b.sql("SELECT count(*) FROM user_score_transactions WHERE submission_id = 'after'") == "1"
        # One that reaches the primary before alone learns of it from the store, and so does one that starts anew.
        await generations.look()
        await store.adopt()
        with pytest.raises(NotPrimary, match="timeline 1"):
            await lonely.look()
        with pytest.raises(LedgerUnavailable):
            await stuck.record_batch([Submission(1, "believed", 1, None, None)], [])
        async with opened(pair.a.url) as late:
            with pytest.raises(NotPrimary):
                await Generations(late, store).look()
            with pytest.raises(LedgerUnavailable):
                await late.record_batch([Submission(1, "believed", 1, None, None)], [])
        assert pair.a.sql("SELECT count(*) FROM user_score_transactions WHERE submission_id = 'believed'") == "0"
        # What is remembered is not overwritten by whoever has not heard of it yet.
        remembered = store.ledger_seen
        assert remembered is not None
        standing = generations.current.place
        await store.remember_ledger("x:1:1:7:1:0:0", *_cluster_and_timeline(standing or "", timeline=1), 0)
        await store.adopt()
        assert store.ledger_seen == remembered


def _cluster_and_timeline(place: str, *, timeline: int) -> tuple[int, int]:
    return int(place.split(":")[0]), timeline


async def test_a_primary_that_becomes_a_standby_is_left(pair: Pair) -> None:
    await asyncio.to_thread(pair.wait_for_standby)
    async with opened(pair.url) as ledger:
        assert await place_of(ledger) == "timeline 1"
        await asyncio.to_thread(pair.b.promote)
        await asyncio.to_thread(pair.a.kill)
        (pair.a.data / "standby.signal").touch()
        try:
            await asyncio.to_thread(pair.a.start)
            await eventually(lambda: ledger.health.away is None and ledger.hosts.turns > 0)
            assert await place_of(ledger) == "timeline 2"
            with pytest.raises(NotPrimary, match="is a standby"):
                async with opened(pair.a.url):
                    pass
        finally:
            await asyncio.to_thread(pair.a.kill)
            (pair.a.data / "standby.signal").unlink()
            await asyncio.to_thread(pair.a.start)


async def test_what_is_found_is_acknowledged_only_where_the_standby_has_it(pair: Pair) -> None:
    """A commit whose wait was broken off is seen by everybody, on this server alone."""
    await asyncio.to_thread(pair.synchronous, True)
    async with opened(pair.a.url) as ledger:
        await asyncio.to_thread(pair.b.kill)
        once = Submission(2, "unreplicated", 7, None, None)
        recording = asyncio.create_task(ledger.record_batch([once], []))
        waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
        await eventually(lambda: pair.a.sql(waits) == "1")
        pair.a.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
        with pytest.raises(LedgerUnavailable):
            await recording
        assert pair.a.sql("SELECT count(*) FROM user_score_transactions WHERE submission_id = 'unreplicated'") == "1"
        again = asyncio.create_task(ledger.record_batch([once], []))
        await eventually(lambda: again.done() or pair.a.sql(waits) == "1")
        assert not again.done(), "it would be lost with this server"
        await asyncio.to_thread(pair.b.start)
        (recorded,) = (await again).judged
        assert recorded.outcome == "duplicate"
        assert pair.b.sql("SELECT count(*) FROM user_score_transactions WHERE submission_id = 'unreplicated'") == "1"
