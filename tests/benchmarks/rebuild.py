"""How long a rebuild of a million users takes, against one pipelined ZADD a user, and how much memory.

`python -m tests.benchmarks rebuild`. The baselines write the same scores to one sorted set and nothing else: with
redis-py's pipeline, and as bytes that were made before the clock began. A rebuild reads them from PostgreSQL, writes
scores, row versions and profiles, and the week's board too; it is the command, its start included.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import redis

from realtime.dev.postgres import start_postgres
from realtime.dev.store import start_store
from realtime.ledger import migrations
from tests.benchmarks.harness import Table, median

USERS = int(os.environ.get("BENCH_REBUILD_USERS", "1000000"))
OF_THE_WEEK = USERS // 4
ROUNDS = 3
CHUNK = 10_000

_FILL = f"""
INSERT INTO users (username) SELECT 'player ' || g FROM generate_series(1, {USERS}) g;
INSERT INTO user_total_scores (user_id, total_score)
SELECT g, (g::bigint * 7919) % 1000003 FROM generate_series(1, {USERS}) g;
INSERT INTO user_weekly_scores (week, user_id, score)
SELECT date_trunc('week', clock_timestamp() AT TIME ZONE 'UTC')::date, g, (g::bigint * 7919) % 1009
FROM generate_series(1, {OF_THE_WEEK}) g;
ANALYZE;
"""


async def _fill(url: str) -> None:
    await migrations.migrate(url)
    connection = await asyncpg.connect(url)
    await connection.execute(_FILL)
    await connection.close()


def _rows() -> list[tuple[int, int]]:
    return [(user, user * 7919 % 1_000_003) for user in range(1, USERS + 1)]


def pipelined(url: str) -> float:
    """Seconds of redis-py's pipeline, a command a user."""
    with redis.Redis.from_url(url) as client:
        client.delete("baseline")
        began = time.perf_counter()
        rows = _rows()
        for start in range(0, USERS, CHUNK):
            with client.pipeline(transaction=False) as pipe:
                for user, score in rows[start : start + CHUNK]:
                    pipe.zadd("baseline", {user: score})
                pipe.execute()
        took = time.perf_counter() - began
        client.delete("baseline")
    return took


def ready_bytes(url: str) -> float:
    """Seconds of the same commands as bytes made before: the store's own time."""
    with redis.Redis.from_url(url) as client:
        client.delete("baseline")
        parts = [_encoded(_rows()[start : start + CHUNK]) for start in range(0, USERS, CHUNK)]
        connection = client.connection_pool.get_connection()
        began = time.perf_counter()
        for part in parts:
            connection.send_packed_command([part])
            for _ in range(CHUNK):
                connection.read_response()
        took = time.perf_counter() - began
        client.connection_pool.release(connection)
        client.delete("baseline")
    return took


def _encoded(rows: list[tuple[int, int]]) -> bytes:
    return b"".join(
        b"*4\r\n$4\r\nZADD\r\n$8\r\nbaseline\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n" % (len(score), score, len(user), user)
        for user, score in ((b"%d" % user, b"%d" % score) for user, score in rows)
    )


def rebuild(database_url: str, store_url: str) -> tuple[float, float]:
    """Seconds of `realtime rebuild`, and the most memory it had, in MB."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("REALTIME_")}
    environment = {
        **kept, "DATABASE_URL": database_url, "DRAGONFLY_URL": store_url, "REALTIME_SECRET": "x" * 40,
        "REALTIME_LOG_LEVEL": "error",
    }  # fmt: skip
    began = time.perf_counter()
    command = [sys.executable, "-m", "realtime", "rebuild"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    memory = 0.0
    while process.poll() is None:
        memory = peak_memory(process.pid) or memory
        time.sleep(0.02)
    took = time.perf_counter() - began
    if process.returncode:
        raise SystemExit(f"the rebuild failed: {process.returncode}")
    return took, memory


def peak_memory(pid: int) -> float | None:
    """The most memory a process has had until now, in MB; None where it is just ending.

    Not what the kernel says of it once it has ended: that counts what its parent had when it was started.
    """
    match = re.search(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(match[1]) / 1024 if match else None


def run() -> list[Table]:
    """The table of this benchmark."""
    with tempfile.TemporaryDirectory(prefix="realtime-bench-") as folder:
        with start_postgres(Path(folder)) as database, start_store(Path(folder)) as store:
            asyncio.run(_fill(database.url))
            ways: dict[str, list[float]] = {}
            memory = 0.0
            for _ in range(ROUNDS):
                ways.setdefault("one pipelined ZADD a user, redis-py", []).append(pipelined(store.url))
                ways.setdefault("one pipelined ZADD a user, ready bytes", []).append(ready_bytes(store.url))
                took, memory = rebuild(database.url, store.url)
                ways.setdefault("realtime rebuild", []).append(took)
            with redis.Redis.from_url(store.url) as client:
                assert client.zcard("leaderboard:user_scores:all_time") == USERS, urlsplit(store.url).port
    base, bare = (median(ways[name]) for name in list(ways)[:2])
    table = Table(
        f"Rebuild of {USERS:,} users, {OF_THE_WEEK:,} of them this week",
        ("way", "seconds", "of redis-py's", "of ready bytes", "memory, MB"),
    )
    for name, seconds in ways.items():
        own = f"{memory:.0f}" if name == "realtime rebuild" else ""
        table.add(name, median(seconds), median(seconds) / base, median(seconds) / bare, own)
    return [table]
