"""Bounds: what every session is pinned to, whatever others have set, and what ends by itself."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from realtime.boards.board import ALL_TIME
from realtime.boards.submissions import Submission
from realtime.errors import LedgerLocked, LedgerUnavailable
from realtime.ledger import bounds, lease
from realtime.ledger.bounds import Bounds
from realtime.ledger.ledger import Ledger
from tests.chaos.proxy import Proxy
from tests.support.databases import MakeUsers
from tests.support.waiting import PATIENCE

HOSTILE = {
    "default_transaction_isolation": "'repeatable read'",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "'2s'",
    "enable_seqscan": "on",
    "timezone": "'Pacific/Kiritimati'",
}
"""What somebody may have set for a database or a role."""


@pytest.fixture
async def hostile(dsn: str, sql: asyncpg.Connection) -> None:
    name = urlsplit(dsn).path[1:]
    for setting, value in HOSTILE.items():
        await sql.execute(f'ALTER DATABASE "{name}" SET {setting} = {value}')


@asynccontextmanager
async def opened(dsn: str, **options: Any) -> AsyncIterator[Ledger]:
    ledger = Ledger(dsn, **options)
    await ledger.open()
    try:
        yield ledger
    finally:
        await ledger.aclose()


async def test_a_session_is_pinned_whatever_the_database_says(dsn: str, hostile: None) -> None:
    async with opened(dsn) as ledger, ledger.connection() as connection:
        shown = {name: await connection.fetchval(f"SHOW {name}") for name in HOSTILE}
        assert shown == {
            "default_transaction_isolation": "read committed",
            "statement_timeout": "10s",
            "lock_timeout": "2s",
            "idle_in_transaction_session_timeout": "5s",
            "idle_session_timeout": "0",
            "enable_seqscan": "off",
            "timezone": "UTC",
        }
        async with connection.transaction():
            assert await connection.fetchval("SHOW transaction_isolation") == "read committed"


async def test_versions_are_right_whatever_isolation_the_database_says(
    dsn: str, hostile: None, make_users: MakeUsers
) -> None:
    """A batch that waited for another sees what that has written: else it would fail, or count from before it."""
    users = await make_users(20)
    async with opened(dsn, lanes=3) as ledger:
        batches = [
            ledger.record_batch([Submission(user, str(number), 1, None, None) for user in users], [])
            for number in range(12)
        ]
        recorded = await asyncio.gather(*batches)
    versions = sorted(one.rows[ALL_TIME][users[0]].version for one in recorded)
    assert versions == list(range(1, 13))


@pytest.mark.parametrize("kind", [bounds.SERVING, bounds.IMPORT, bounds.VIEW], ids=["serving", "import", "view"])
async def test_a_transaction_has_the_bounds_of_its_kind(ledger: Ledger, kind: Bounds) -> None:
    async with ledger.transaction(kind) as connection:
        wanted = kind.settings(connection.get_server_version().major)
        rows = await connection.fetch("SELECT name, setting FROM pg_settings WHERE name = ANY ($1)", list(wanted))
        assert dict(rows) == wanted
    async with ledger.connection() as connection:
        assert await connection.fetchval("SHOW statement_timeout") == "10s", "its own alone"


def test_an_older_postgresql_is_not_asked_for_what_it_does_not_know() -> None:
    assert "transaction_timeout" in bounds.SERVING.settings(17)
    assert "transaction_timeout" not in bounds.SERVING.settings(16)


async def test_a_transaction_in_which_nothing_happens_is_ended_and_what_it_held_is_free(
    dsn: str, make_users: MakeUsers, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(bounds._PINNED, "idle_in_transaction_session_timeout", "100")
    (user,) = await make_users(1)
    async with opened(dsn) as ledger:
        await ledger.record_batch([Submission(user, "a", 1, None, None)], [])
        with pytest.raises(LedgerUnavailable):
            async with ledger.transaction() as connection:
                ended = asyncio.Event()
                connection.add_termination_listener(lambda _: ended.set())
                await connection.execute("SELECT FROM user_total_scores FOR UPDATE")
                async with asyncio.timeout(PATIENCE):
                    await ended.wait()
                assert await sql.fetch("SELECT FROM user_total_scores FOR UPDATE NOWAIT"), "somebody else has it"
                await connection.execute("UPDATE user_total_scores SET total_score = 0")
        assert await sql.fetchval("SELECT total_score FROM user_total_scores") == 1
        await ledger.record_batch([Submission(user, "b", 1, None, None)], [])


async def test_a_wire_that_hangs_within_a_transaction_keeps_nobody_from_what_it_holds(
    dsn: str, make_users: MakeUsers, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a host that is gone: nothing is closed, and nothing comes."""
    monkeypatch.setitem(bounds._PINNED, "idle_in_transaction_session_timeout", "100")
    (user,) = await make_users(1)
    async with Proxy(dsn) as wire, opened(dsn) as other:
        await other.record_batch([Submission(user, "a", 1, None, None)], [])
        ledger = Ledger(wire.url)
        await ledger.open()
        with pytest.raises(LedgerUnavailable):
            async with ledger.transaction() as connection:
                await connection.execute("SELECT FROM user_total_scores FOR UPDATE")
                wire.stall()
                await other.record_batch([Submission(user, "b", 1, None, None)], [])
                wire.cut()
                wire.flow()
                await connection.execute("SELECT")
        await ledger.aclose()


async def test_a_transaction_ends_with_its_time(ledger: Ledger) -> None:
    with pytest.raises(LedgerUnavailable):
        async with ledger.transaction(Bounds(statement=10, lock=10, transaction=0.2)) as connection:
            await connection.execute("SELECT pg_sleep(20)")
    assert await ledger.fetch("judged")


async def test_who_waits_for_a_lock_is_told_and_has_done_nothing(
    ledger: Ledger, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    (user,) = await make_users(1)
    await ledger.record_batch([Submission(user, "a", 1, None, None)], [])
    async with sql.transaction():
        await sql.execute("SELECT FROM user_total_scores FOR UPDATE")
        with pytest.raises(LedgerLocked):
            await ledger.record_batch([Submission(user, "b", 1, None, None)], [], around=True)
        assert await ledger.locked([(1, user), (1, user + 1)]) == {(1, user)}
    assert await ledger.locked([(1, user)]) == set()
    assert ledger.outages.counts["locked"] == 1
    assert (await ledger.record_batch([Submission(user, "b", 1, None, None)], [])).judged[0].total_score == 2


async def test_both_ends_of_a_connection_find_out_that_the_other_is_gone(ledger: Ledger) -> None:
    async with ledger.connection() as connection:
        shown = await connection.fetch("SELECT name, setting FROM pg_settings WHERE name LIKE 'tcp_%'")
        assert dict(shown) == {
            "tcp_keepalives_idle": "10", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "3",
            "tcp_user_timeout": "10000",
        }  # fmt: skip
        sock = connection._transport.get_extra_info("socket")  # type: ignore[attr-defined]
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 10
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 10_000


async def test_a_lease_lives_by_its_beat(dsn: str, monkeypatch: pytest.MonkeyPatch, sql: asyncpg.Connection) -> None:
    monkeypatch.setitem(bounds._PINNED, "idle_in_transaction_session_timeout", "1000")
    monkeypatch.setattr(lease, "LEASE_BEAT", 0.05)
    async with opened(dsn) as ledger, opened(dsn) as other:
        async with ledger.rebuild_lease() as held:
            assert held
            await sql.execute("SELECT pg_sleep(2)")
            async with other.rebuild_lease() as second:
                assert not second, "longer than an idle transaction is borne"
        monkeypatch.setattr(lease, "LEASE_BEAT", 3600)
        async with ledger.rebuild_lease() as held:
            assert held
            async with asyncio.timeout(PATIENCE):
                while True:
                    async with other.rebuild_lease() as second:
                        if second:
                            break
                    await sql.execute("SELECT pg_sleep(0.1)")
        async with other.rebuild_lease() as held:
            assert held, "who lost it ends in peace"


@pytest.mark.parametrize("lanes", [0, 3])
async def test_no_number_of_connections_that_is_allowed_is_too_few(dsn: str, lanes: int, make_users: MakeUsers) -> None:
    users = await make_users(5)
    async with opened(dsn, connections=2, lanes=lanes) as ledger:
        async with asyncio.timeout(PATIENCE), ledger.rebuild_lease() as held:
            assert held
            assert await ledger.next_epoch("run") == 1
            batches = [
                ledger.record_batch([Submission(user, str(n), 1, None, None)], []) for n in range(5) for user in users
            ]
            await asyncio.gather(*batches, *(ledger.fetch("judged") for _ in range(10)))
            assert [len(rows) async for rows in ledger.pages("all_totals", size=2)] == [2, 2, 1]
