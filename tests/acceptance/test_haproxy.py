"""The sample HAProxy as it stands: what it passes on, and that it finds PostgreSQL's primary, whichever that is."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import asyncpg
import pytest
from websockets.asyncio.client import connect

from tests.support.balancers import haproxy
from tests.support.clients import asking
from tests.support.processes import environment, free_port, running
from tests.support.replicated import Pair, replicated
from tests.support.servers import SECRET
from tests.support.waiting import PATIENCE, eventually


async def test_it_leads_to_who_is_ready_and_keeps_health_and_upgrades_to_itself(
    dsn: str, store_url: str, filled: None, tmp_path: Path
) -> None:
    port = free_port()
    places = [f"{host}:{port}" for host in ("127.0.0.2", "127.0.0.3")]
    env = environment(
        DATABASE_URL=dsn, DRAGONFLY_URL=store_url, REALTIME_SECRET=SECRET, REALTIME_HOST="127.0.0.3",
        REALTIME_PORT=str(port), REALTIME_DRAIN_S="0", REALTIME_TRUSTED_PROXIES="127.0.0.1",
    )  # fmt: skip
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(running("serve", env=env))  # the other is not there
        await server.says("ready:")
        balancer = await stack.enter_async_context(haproxy(tmp_path, places))
        async with asking(balancer.url) as http:

            async def answers() -> bool:
                return (await http.get("/boards")).status_code == 200

            await eventually(answers)
            for path in ("/metrics", "/healthz", "/readyz"):
                assert (await http.get(path)).status_code == 404, f"{path} is each server's own"
            for upgrade in ("h2c", "TLS/1.0"):
                asked = {"Connection": "Upgrade", "Upgrade": upgrade}
                assert (await http.get("/boards", headers=asked)).status_code == 200, "an ordinary request"
        address = balancer.url.replace("http", "ws") + "/ws"
        for _ in range(4):  # never to the one that is not there
            async with connect(address, proxy=None, origin="https://elsewhere.example") as socket:
                assert '"hello"' in str(await socket.recv())
                await socket.send('{"type":"subscribe","board":"all_time"}')
                while '"snapshot"' not in str(await socket.recv()):
                    pass


@pytest.fixture
def pair() -> Iterator[Pair]:
    with tempfile.TemporaryDirectory(prefix="realtime-pair-") as folder, replicated(Path(folder)) as made:
        made.a.sql("CREATE ROLE haproxy LOGIN CONNECTION LIMIT 8")
        made.prepare()
        yield made


async def test_it_finds_the_primary_again_after_each_failover(pair: Pair, tmp_path: Path) -> None:
    async with haproxy(tmp_path, databases=[pair.a.place, pair.b.place]) as balancer:
        url = f"postgresql://realtime@127.0.0.1:{balancer.primary_port}/realtime?sslmode=disable"

        async def leads_to(port: int) -> bool:
            with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                connection = await asyncpg.connect(url, timeout=2)
                try:
                    found = await connection.fetchrow(
                        "SELECT inet_server_port() AS port, pg_is_in_recovery() AS standby"
                    )
                    assert not found["standby"], "never a standby"
                    return bool(found["port"] == port)
                finally:
                    await connection.close()
            return False

        await eventually(lambda: leads_to(pair.a.port))
        kept = await asyncpg.connect(url)
        await asyncio.to_thread(pair.wait_for_standby)
        await asyncio.to_thread(pair.a.pause)  # it hangs, and its connections with it
        async with asyncio.timeout(PATIENCE):
            while not kept.is_closed():  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert not await leads_to(pair.b.port), "a standby is not promoted by being the only one"
        await asyncio.to_thread(pair.b.promote)
        await eventually(lambda: leads_to(pair.b.port))
        await asyncio.to_thread(pair.a.kill)
        await asyncio.to_thread(pair.a.follow, pair.b)
        for _ in range(10):
            assert await leads_to(pair.b.port), "the one of before is a standby now"
