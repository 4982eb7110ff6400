"""What a year of history costs: submissions on an empty database beside 10,000,000 transactions of 1,000,000 users.

Owns both databases, on one PostgreSQL that is durable as in earnest. Windows alternate between them, and ratios are of
windows side by side. Must never let the filling count: it ends, with a checkpoint, before the first window.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from realtime.boards.submissions import Submission
from realtime.dev.postgres import start_postgres
from realtime.ledger import migrations
from realtime.ledger.ledger import Ledger
from tests.benchmarks.harness import Table, median

HOT = 10_000
BATCH = 200
LANES = 2
BECOMING = 3
"""Windows in which a hot set still pays for becoming one: its index pages, filled to the brim, split, each once."""

SETTINGS = {"shared_buffers": "3GB", "max_wal_size": "8GB"}
"""What a server for such a database would be given: the eight pages or so that a user's submission touches stay in
memory for the whole hot set."""

FILL = (
    """INSERT INTO users (username) SELECT 'player-' || n FROM generate_series(1, $1::int) n""",
    """INSERT INTO user_score_transactions (user_id, score_added, reason, submission_id, created_at)
       SELECT u, 1 + (u * 31 + n) % 100, 'win', 'h-' || n, now() - make_interval(weeks => n % 52, secs => u % 600000)
       FROM generate_series(1, $2::int) n, generate_series(1, $1::int) u ORDER BY n""",
    """INSERT INTO user_total_scores (user_id, total_score)
       SELECT user_id, sum(score_added) FROM user_score_transactions GROUP BY user_id""",
    """INSERT INTO user_weekly_scores (week, user_id, score)
       SELECT date_trunc('week', created_at AT TIME ZONE 'UTC')::date w, user_id, sum(score_added)
       FROM user_score_transactions GROUP BY user_id, w""",
)


async def _fill(dsn: str, users: int, each: int) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("SET work_mem = '256MB'; SET synchronous_commit = off")
        for statement in FILL:
            arguments = [users, each][: statement.count("::int")]
            await connection.execute(statement, *arguments, timeout=3_600)
        await connection.execute("VACUUM ANALYZE", timeout=3_600)
        await connection.execute("CHECKPOINT", timeout=600)
    finally:
        await connection.close()


async def _analyze(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute("ANALYZE", timeout=600)
    await connection.close()


async def _database(url: str, name: str) -> str:
    connection = await asyncpg.connect(url)
    await connection.execute(f'CREATE DATABASE "{name}"')
    await connection.close()
    dsn = urlunsplit(urlsplit(url)._replace(path=f"/{name}"))
    await migrations.migrate(dsn)
    return dsn


async def _window(ledger: Ledger, users: Sequence[int], seconds: float) -> float:
    """Submissions a second through LANES statements at a time."""
    until = time.monotonic() + seconds
    done = 0

    async def lane(number: int) -> None:
        nonlocal done
        pick = random.Random()
        while time.monotonic() < until:
            batch = [
                Submission(user, f"{pick.getrandbits(96):x}", 1, None, None) for user in pick.choices(users, k=BATCH)
            ]
            recorded = await ledger.record_batch(batch, [])
            await ledger.clear_outbox([outbox_id for outbox_id, _ in recorded.outbox])
            done += len(batch)

    await asyncio.gather(*(lane(number) for number in range(LANES)))
    return done / seconds


async def _measure(url: str, users: int, each: int, windows: int, seconds: float) -> Table:
    empty, full = await _database(url, "empty"), await _database(url, "full")
    began = time.monotonic()
    await _fill(empty, HOT, 0)
    await _fill(full, users, each)
    print(f"filled in {time.monotonic() - began:.0f} s", flush=True)
    pick = random.Random(1)
    small, hot, everyone = range(1, HOT + 1), pick.sample(range(1, users + 1), HOT), range(1, users + 1)
    of_empty, of_full = Ledger(empty), Ledger(full)
    await of_empty.open()
    await of_full.open()
    rates: dict[str, list[float]] = {"empty": [], "hot": [], "spread": []}
    try:
        both = (("empty", empty, of_empty, small), ("hot", full, of_full, hot))
        for _, dsn, ledger, of in both:  # warm, and known to the planner, as autovacuum sees to within a minute
            await _window(ledger, of, seconds)
            await _analyze(dsn)
        for _ in range(windows):
            for name, _, ledger, of in both:
                rates[name].append(await _window(ledger, of, seconds))
        for _ in range(windows):  # afterwards: it drives the hot set out of memory
            rates["spread"].append(await _window(of_full, everyone, seconds))
    finally:
        await of_empty.aclose()
        await of_full.aclose()
    print({name: [round(rate) for rate in found] for name, found in rates.items()}, flush=True)
    table = Table(
        f"Submissions a second, batches of {BATCH}, {users * each:,} transactions of {users:,} users",
        ("database", "submissions/s", "times slower than empty"),
    )
    table.add("empty", median(rates["empty"]), 1.0)
    for name, words, part in (
        ("hot", f"full, a hot set of {HOT:,}, in the windows after it becomes hot", slice(BECOMING)),
        ("hot", f"full, the hot set of {HOT:,} from then on", slice(BECOMING, None)),
        ("spread", "full, spread over all users", slice(None)),
    ):
        slower = median([a / b for a, b in zip(rates["empty"][part], rates[name][part], strict=True)])
        table.add(words, median(rates[name][part]), slower)
    return table


def run(users: int = 1_000_000, each: int = 10, windows: int = 12, seconds: float = 5.0) -> list[Table]:
    """One table."""
    with tempfile.TemporaryDirectory(prefix="realtime-growth-") as folder:
        with start_postgres(Path(folder), settings=SETTINGS) as server:
            return [asyncio.run(_measure(server.url, users, each, windows, seconds))]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--each", type=int, default=10)
    for made in run(**vars(parser.parse_args())):
        made.show()
