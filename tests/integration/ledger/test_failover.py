"""Failover: a promoted standby is found, and what the primary before it says is not believed, with real servers."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from realtime.boards.submissions import Submission
from realtime.errors import LedgerUnavailable, NotPrimary
from realtime.ledger import migrations
from realtime.ledger.judging import Judged, judge
from realtime.ledger.ledger import Ledger
from realtime.ledger.read_hosts import ReadHosts
from realtime.people.accounts import Accounts
from realtime.people.identity import Identity
from realtime.people.revocation import Revocations
from realtime.repair.generation import Generations
from realtime.store.store import Store
from tests.support.balancer import haproxy
from tests.support.replicated import Pair, lacking, led, replicated
from tests.support.servers import running_server
from tests.support.waiting import SECOND, eventually

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
        with pytest.raises(NotPrimary, match="promoted in its place"):
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


async def test_what_was_done_to_people_before_is_confirmed_only_where_the_standby_has_it(pair: Pair) -> None:
    await asyncio.to_thread(pair.synchronous, True)
    async with opened(pair.a.url) as ledger:
        accounts = Accounts(ledger, Untold(), None)  # type: ignore[arg-type]
        token = Identity(1, frozenset({"submit"}), datetime(2099, 1, 1, tzinfo=UTC), token_id="unreplicated")
        changes = {
            "rename": lambda: accounts.rename(1, "unreplicated"),
            "ban": lambda: accounts.ban(2, actor="operator", reason=None),
            "revoke": lambda: Revocations(ledger).revoke(token, actor="operator", reason=None),
        }
        await asyncio.to_thread(pair.b.kill)
        waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
        for name, change in changes.items():
            for _ in ("it is done here alone", "it was done here alone"):
                changing = asyncio.create_task(change())
                await eventually(lambda task=changing: task.done() or pair.a.sql(waits) == "1")  # type: ignore[misc]
                assert not changing.done(), f"{name} would be lost with this server"
                pair.a.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
                with pytest.raises(LedgerUnavailable):
                    await changing
        await asyncio.to_thread(pair.b.start)
        for change in changes.values():
            await change()
        assert pair.b.sql("SELECT username FROM users WHERE id = 1") == "unreplicated"
        assert pair.b.sql("SELECT count(*) FROM bans WHERE user_id = 2") == "1"
        assert pair.b.sql("SELECT count(*) FROM revoked_tokens WHERE token_id = 'unreplicated'") == "1"
        await accounts.unban(2, actor="operator", reason=None)


class Untold:
    """A store that is away: the outbox rows stay."""

    async def each(self, user_ids: object) -> dict[str, str | None]:
        return {}


async def test_behind_a_balancer_that_leads_back_to_a_replaced_primary_nothing_is_recorded_there(
    pair: Pair, tmp_path: Path
) -> None:
    """HAProxy asks each server whether it is in recovery: two of them say that they are not."""
    if haproxy() is None:
        pytest.skip("HAProxy is not installed: nothing is led")
    await asyncio.to_thread(pair.wait_for_standby)
    with led(tmp_path, [pair.a, pair.b]) as place:
        async with opened(pair.b.url.replace(pair.b.place, place)) as ledger:
            numbers = count()

            async def records() -> bool:
                with suppress(LedgerUnavailable):
                    await ledger.record_batch([Submission(4, f"{place}-{next(numbers)}", 1, None, None)], [])
                    return True
                return False

            assert await records()
            await asyncio.to_thread(pair.a.kill)
            await asyncio.to_thread(pair.b.promote)
            await eventually(records, 10 * SECOND)
            assert await place_of(ledger) == "timeline 2"
            await asyncio.to_thread(pair.a.start)
            believed = pair.a.sql("SELECT count(*) FROM user_score_transactions")

            async def refused() -> bool:
                """Connections are made anew, and lead back."""
                for pool in ledger._pools():
                    await pool.expire()
                return not await records()

            await eventually(refused)
            assert pair.a.sql("SELECT count(*) FROM user_score_transactions") == believed
            await asyncio.to_thread(pair.a.kill)
            await eventually(records)
            await asyncio.to_thread(pair.a.start)


# Reading from the standby ------------------------------------------------------------------------------------------


@asynccontextmanager
async def read_from(pair: Pair, ledger: Ledger, store: Store, *, most: float = 10.0) -> AsyncIterator[ReadHosts]:
    generations = Generations(ledger, store)
    await generations.look()
    reads = ReadHosts(pair.b.url, ledger, lambda: generations.current.place, most=most)
    try:
        yield reads
    finally:
        await reads.aclose()


async def fit(reads: ReadHosts) -> bool:
    await reads.look()
    return reads.lags()["1"] is not None


async def not_fit(reads: ReadHosts) -> bool:
    return not await fit(reads)


async def where(reads: ReadHosts) -> str:
    """Who answers."""
    before = dict(reads.reads)
    await reads.fetch("judged")
    return next(name for name, count in reads.reads.items() if count > before[name])


async def test_a_standby_is_read_from_while_it_is_not_too_far_behind(pair: Pair, store: Store) -> None:
    async with opened(pair.a.url) as ledger, read_from(pair, ledger, store, most=3.0) as reads:
        assert await where(reads) == "primary", "nobody knows yet how far it is"
        await eventually(lambda: fit(reads))
        assert await where(reads) == "standby"
        assert (await reads.fetch("judged"))[0]["is_standby"] is True
        empty = await reads.read("SELECT 1 WHERE pg_is_in_recovery() IS NULL")
        assert not empty and reads.reads["primary"] == 2, "what it does not find, the primary is asked"
        await asyncio.to_thread(pair.b.sql, "SELECT pg_wal_replay_pause()")
        await ledger.record_batch([Submission(3, f"late-{monotonic()}", 1, None, None)], [])
        await eventually(lambda: not_fit(reads))
        assert await where(reads) == "primary"
        await asyncio.to_thread(pair.b.sql, "SELECT pg_wal_replay_resume()")
        await eventually(lambda: fit(reads))
        assert await where(reads) == "standby"
        await asyncio.to_thread(pair.b.kill)
        assert (await reads.fetch("judged"))[0]["is_standby"] is False, "at once, by the primary"
        await asyncio.to_thread(pair.b.start)


async def test_a_standby_that_is_a_primary_of_its_own_or_of_another_past_is_not_read_from(
    pair: Pair, store: Store
) -> None:
    async with opened(pair.a.url) as ledger, read_from(pair, ledger, store) as reads:
        await eventually(lambda: fit(reads))
        reads._place = lambda: "1:2:3:00000009"  # the primary has moved on, and the standby has not heard of it
        await reads.look()
        assert reads.lags() == {"1": None} and await where(reads) == "primary"
        reads._place = lambda: ledger_place
        ledger_place = pair.a.sql("SELECT place FROM generation")
        await reads.look()
        assert reads.lags()["1"] is not None
        await asyncio.to_thread(pair.b.promote)
        await reads.look()
        assert reads.lags() == {"1": None} and await where(reads) == "primary"


async def test_behind_a_name_of_several_servers_only_the_one_that_was_judged_is_read_from(
    pair: Pair, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(pair.a.url) as ledger, read_from(pair, ledger, store) as reads:
        await eventually(lambda: fit(reads))
        (way,) = reads._ways
        is_other = True

        async def judged(connection: Any, **options: Any) -> Judged:
            """The one that is asked is another server by now than those that are read from."""
            answer = await judge(connection, **options)
            other = is_other and connection is way.host._probe
            return answer._replace(started=answer.started + timedelta(seconds=1)) if other else answer

        monkeypatch.setattr("realtime.ledger.hosts.judge", judged)
        await reads.look()
        assert reads.lags() == {"1": None} and "several servers" in way.trouble
        assert await where(reads) == "primary"
        is_other = False
        await eventually(lambda: fit(reads))
        assert await where(reads) == "standby"


async def test_a_server_reads_logs_and_closed_boards_from_a_standby_and_says_how_far_it_is(
    pair: Pair, store_url: str
) -> None:
    closed = await asyncio.to_thread(pair.a.sql, _CLOSED)
    async with running_server(
        pair.a.url, store_url, REALTIME_READ_DATABASE_URL=pair.b.url, REALTIME_READ_LAG_S="60"
    ) as server:

        async def is_known() -> bool:
            return (await server.http.get("/readyz")).json()["read_lag_s"].get("1") is not None

        async def standby_reads() -> float:
            lines = (await server.http.get("/metrics")).text.splitlines()
            (line,) = [one for one in lines if one.startswith('realtime_database_reads_total{of="standby"}')]
            return float(line.split()[-1])

        await eventually(is_known)
        assert 'realtime_read_host_lag_seconds{of="1"}' in (await server.http.get("/metrics")).text
        submission = {"submission_id": f"read-{monotonic()}", "user_id": 5, "score_added": 3}
        admin = server.bearer(None, "admin")
        assert (await server.http.post("/scores", json=submission, headers=admin)).status_code == 200
        await asyncio.to_thread(pair.wait_for_standby)

        async def log_has_it() -> bool:
            answer = await server.http.get("/users/5/transactions", headers=admin)
            return submission["submission_id"] in {one["submission_id"] for one in answer.json()["transactions"]}

        await eventually(log_has_it)
        read = await standby_reads()
        assert read >= 1
        board = await server.http.get(f"/boards/{closed}?offset=1")
        assert board.status_code == 200, board.text
        await asyncio.to_thread(pair.wait_for_standby)
        beyond = await server.http.get(f"/boards/{closed}?offset=100&limit=7")  # of the top everybody has a cache
        assert [one["score"] for one in beyond.json()["entries"]] == [9]
        assert await standby_reads() > read


_CLOSED = """
WITH people AS (
    INSERT INTO users (username) SELECT 'closed' || n FROM generate_series(1, 101) n RETURNING id
), made AS (
    INSERT INTO user_score_transactions (user_id, submission_id, score_added, created_at)
    SELECT id, 'closed', 9, '2026-03-04Z' FROM people RETURNING user_id
), total AS (
    INSERT INTO user_total_scores (user_id, total_score) SELECT user_id, 9 FROM made
), weekly AS (
    INSERT INTO user_weekly_scores (week, user_id, score) SELECT '2026-03-02', user_id, 9 FROM made
)
SELECT 'week_of_2026_03_02'
"""
