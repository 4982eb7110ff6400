"""What a submission to a leaderboard costs where tables are spread over the nodes of Citus.

`CITUS_URL=... python -m tests.benchmarks citus`. Batches of 1, 100 and 1,000 submissions, one after the other, to one
leaderboard and to eight, of which each is recorded by a statement of its own; and to `default` on the same coordinator.
The baseline is the same on the coordinator's PostgreSQL, in a database that has nothing of Citus. Windows alternate.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable
from itertools import count

import asyncpg

from realtime.boards.definitions import Definition
from realtime.boards.submissions import Submission
from realtime.intake.recorder import Recorder
from realtime.ledger.ledger import Ledger
from tests.benchmarks.harness import Table, median
from tests.support.databases import GIVEN_CITUS, Databases
from tests.support.leaderboards import catalogue_of, define

USERS = 2_000
SIZES = (1, 100, 1_000)
SLUGS = [f"lap{number}" for number in range(8)]
ROUNDS = 15

_numbers = count()


def batch_of(size: int, slugs: list[str]) -> list[Submission]:
    """So many scores of any players, over these leaderboards in turn."""
    ids = (f"b{os.getpid()}-{next(_numbers)}" for _ in range(size))
    return [
        Submission(random.randint(1, USERS), name, random.randint(1, 1_000), None, None, slugs[n % len(slugs)])
        for n, name in enumerate(ids)
    ]


WAYS: dict[str, Callable[[int], list[Submission]]] = {
    "`default`": lambda size: batch_of(size, ["default"]),
    "one leaderboard": lambda size: batch_of(size, SLUGS[:1]),
    "eight leaderboards": lambda size: batch_of(size, SLUGS),
}


async def _prepared(dsn: str) -> tuple[Ledger, Recorder]:
    sql = await asyncpg.connect(dsn)
    await sql.execute(f"INSERT INTO users (username) SELECT 'player ' || g FROM generate_series(1, {USERS}) g")
    await define(sql, *(Definition(slug, slug, operator="best", windows=("all_time", "week")) for slug in SLUGS))
    await sql.close()
    ledger = Ledger(dsn)
    await ledger.open()
    return ledger, Recorder(ledger, await catalogue_of(ledger))


async def _measured(plain: str, spread: str) -> Table:
    table = Table(
        f"Milliseconds a batch, median of {ROUNDS}: one PostgreSQL, and Citus with {USERS:,} players",
        ("Submissions to", "in a batch", "one PostgreSQL", "Citus", "times"),
    )
    pairs = [await _prepared(dsn) for dsn in (plain, spread)]
    for way, batch in WAYS.items():
        for size in SIZES:
            took: list[list[float]] = [[], []]
            for round_ in range(-2, ROUNDS):
                for times, (_, recorder) in zip(took, pairs, strict=True):
                    given = batch(size)
                    began = time.perf_counter()
                    recorded = await recorder.record(given)
                    if round_ >= 0:
                        times.append((time.perf_counter() - began) * 1_000)
                    assert len(recorded.outcomes) == size
            one, several = map(median, took)
            table.add(way, size, one, several, several / one)
    for ledger, _ in pairs:
        await ledger.aclose()
    return table


def run() -> list[Table]:
    if not GIVEN_CITUS:
        raise SystemExit("CITUS_URL must lead to the coordinator of a Citus deployment, which knows its nodes.")
    with asyncio.Runner() as runner:
        databases = Databases(GIVEN_CITUS, runner)
        plain, spread = databases.create_apart(), databases.create()
        try:
            return [runner.run(_measured(databases.url_of(plain), databases.url_of(spread)))]
        finally:
            databases.drop(plain)
            databases.drop(spread)
            databases.close()
