"""PostgreSQL on a disk that is full: refused with a hint, nothing half recorded, and well again once there is room."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from redis.asyncio import Redis

from realtime.dev.postgres import start_postgres
from realtime.ledger import migrations
from tests.chaos.accounts import difference
from tests.support.servers import running_server
from tests.support.waiting import PATIENCE


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 300 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", disk], check=False).returncode
    ):
        pytest.skip("a disk of its own takes root, and the right to mount one")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def fill(filler: Path) -> None:
    """Takes all the room there is on a disk."""
    room = os.statvfs(filler.parent)
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, room.f_bavail * room.f_frsize)


async def agreed(url: str, keys: Redis) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            if not await difference(url, keys):
                return
            await asyncio.sleep(0.05)


async def test_a_full_disk_is_unavailable_and_got_over(
    small_disk: Path, store_url: str, keys: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    running = start_postgres(small_disk)
    url = (await asyncio.to_thread(running.__enter__)).url
    try:
        await migrations.migrate(url)
        connection = await asyncpg.connect(url)
        (user,) = await connection.fetchrow("INSERT INTO users (username) VALUES ('a') RETURNING id")
        await connection.close()
        async with running_server(url, store_url) as server:
            headers = server.bearer(1, "submit:any")
            await agreed(url, keys)

            def rows(part: int) -> list[dict[str, object]]:
                return [
                    {"submission_id": f"{part}-{n}" + "x" * 40, "user_id": user, "score_added": 1, "reason": "y" * 250}
                    for n in range(1000)
                ]

            filler = small_disk / "filler"
            accepted = refused = part = 0
            while not refused:
                if part == 1:
                    fill(filler)
                response = await server.http.post("/scores", json=rows(part), headers=headers, timeout=30)
                results = response.json()["results"]
                kinds = {result["type"] for result in results}
                assert len(kinds) == 1, "a batch is recorded or it is not"
                if kinds == {"accepted"}:
                    accepted += len(results)
                    part += 1
                else:
                    refused += len(results)
                    assert {(result["code"], result["retry_after_ms"] > 0) for result in results} == {
                        ("unavailable", True)
                    }
                assert part < 500, "the disk did not get full"
            shown = (await server.http.get("/metrics")).text
            assert 'realtime_database_failures_total{of="full"} 0.0' not in shown
            said = [record.message for record in caplog.records if "has no room" in record.message]
            assert len(said) == 1 and "No space left on device" in said[0], "once, however many statements fail"
            board = (await server.http.get("/boards/all_time")).json()
            assert board["stale"] is False and board["entries"][0]["score"] == accepted
            filler.unlink()
            async with asyncio.timeout(PATIENCE):
                while True:
                    response = await server.http.post("/scores", json=rows(part), headers=headers, timeout=30)
                    if {result["type"] for result in response.json()["results"]} == {"accepted"}:
                        break
                    await asyncio.sleep(0.1)
            await agreed(url, keys)
            entries = (await server.http.get("/boards/all_time")).json()["entries"]
            assert entries[0]["score"] == accepted + 1000
    finally:
        await asyncio.to_thread(running.__exit__, None, None, None)
