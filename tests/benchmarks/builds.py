"""How fast standings are made from a log, in how much memory, and what that costs scores that come in meanwhile.

`python -m tests.benchmarks builds`. The builder is a process of its own, its start included. A few rows of many
submissions are the speed of reading the log; a row for nearly each submission is that of writing rows. Beside it, the
same two lanes record batches as before, in turns with and without a build.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import asyncpg

from realtime.boards.parsing import parse_definition
from realtime.boards.submissions import Submission
from realtime.dev.postgres import start_postgres
from realtime.errors import CatalogueMoved, LedgerLocked, WindowsMissing
from realtime.ledger import migrations
from realtime.ledger.definitions import Definitions
from realtime.ledger.leaderboards import Leaderboards
from realtime.ledger.ledger import Ledger
from tests.benchmarks.harness import Table, median
from tests.benchmarks.rebuild import peak_memory
from tests.support.building import build_all

SUBMISSIONS = int(os.environ.get("BENCH_BUILDS_SUBMISSIONS", "1000000"))
PLAYERS = SUBMISSIONS // 20
DAYS = 60
BATCH = 100
LANES = 2
ROUNDS = 3
ALONE_S = float(os.environ.get("BENCH_BUILDS_ALONE_S", "10"))

_FILL = f"""
INSERT INTO users (username) SELECT 'player ' || g FROM generate_series(1, {PLAYERS}) g;
INSERT INTO score_transactions (source, user_id, submission_id, score, created_at)
SELECT $source, 1 + (random() * {PLAYERS - 1})::int, 's' || g, (random() * 1000)::int,
       now() - random() * interval '{DAYS} days'
FROM generate_series(1, {SUBMISSIONS}) g;
INSERT INTO heads (source, user_id) SELECT DISTINCT source, user_id FROM score_transactions;
ANALYZE;
"""

WAYS = (
    ("best", ["all_time"]),
    ("sum", ["all_time"]),
    ("count", ["month"]),
    ("best", ["day"]),
)


class Bench:
    """A ledger with one leaderboard and its log."""

    def __init__(self, url: str, ledger: Ledger) -> None:
        self._url = url
        self._ledger = ledger
        self._definitions = Definitions(ledger)
        self._directory = Leaderboards(ledger, self._definitions, partitions=16)
        self._random = Random(1)
        self._sent = 0
        self.locked = 0
        """Batches that met a lock for a second: a server sets such players apart, and goes on with the others."""

    async def define(self, operator: str, windows: list[str]) -> None:
        fields = {"operator": operator, "windows": windows}
        await self._definitions.put(parse_definition("laps", fields), actor="benchmark")

    async def fill(self) -> None:
        await self.define("last", ["all_time"])
        await build_all(self._ledger)
        source = (await self._definitions.one("laps")).id
        connection = await asyncpg.connect(self._url)
        await connection.execute(_FILL.replace("$source", str(source)))
        await connection.close()

    async def build(self) -> tuple[float, float, int]:
        """Seconds that a build takes, the most memory the builder had in MB, and how many rows came of it."""
        began = time.perf_counter()
        builder, memory = self.builder(), 0.0
        while builder.poll() is None:
            memory = peak_memory(builder.pid) or memory
            await asyncio.sleep(0.02)
        took = time.perf_counter() - began
        one = await self._definitions.one("laps")
        async with self._ledger.connection() as connection:
            query = "SELECT count(*) FROM scores WHERE source = $1 AND rule = $2"
            return took, memory, await connection.fetchval(query, one.source, one.rule)

    def builder(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.support.building", self._url]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL)

    async def recorded(self, until: Callable[[], bool]) -> float:
        """Submissions a second that all lanes record, until then."""
        began, before = time.perf_counter(), self._sent
        await self._directory.refresh()

        async def lane() -> None:
            while not until():
                await self._record()

        await asyncio.gather(*(lane() for _ in range(LANES)))
        return (self._sent - before) / (time.perf_counter() - began)

    async def _record(self) -> None:
        first, self._sent = self._sent, self._sent + BATCH
        batch = [
            Submission(self._random.randint(1, PLAYERS), f"b{n}", self._random.randint(1, 1_000), None, None, "laps")
            for n in range(first, first + BATCH)
        ]
        while True:
            try:
                await self._ledger.record_scores(batch, self._directory.current)
                return
            except CatalogueMoved:
                await self._directory.refresh()
            except WindowsMissing as missing:
                await self._ledger.ensure_windows(missing)
                await self._directory.refresh()
            except LedgerLocked:
                self.locked += 1

    async def beside(self) -> tuple[float, float]:
        """Submissions a second alone, and beside a build."""
        until = time.perf_counter() + ALONE_S
        alone = await self.recorded(lambda: time.perf_counter() > until)
        await self._definitions.rebuild("laps", actor="benchmark")
        builder = self.builder()
        return alone, await self.recorded(lambda: builder.poll() is not None)


async def _run(url: str) -> list[Table]:
    await migrations.migrate(url)
    ledger = Ledger(url, lanes=LANES)
    await ledger.open()
    bench = Bench(url, ledger)
    await bench.fill()
    speed = Table(
        f"Standings of {PLAYERS:,} players made from {SUBMISSIONS:,} submissions",
        ["rule", "rows", "s", "submissions a second", "rows a second", "memory, MB"],
    )
    for operator, windows in WAYS:
        await bench.define(operator, windows)
        took, memory, rows = await bench.build()
        speed.add(f"{operator}, {windows[0]}", f"{rows:,}", took, SUBMISSIONS / took, rows / took, memory)
    pairs = [await bench.beside() for _ in range(ROUNDS)]
    alone, beside = (median(values) for values in zip(*pairs, strict=True))
    slower = median([one / other for one, other in pairs])
    cost = Table("Scores that come in beside a build", ["", "submissions a second"])
    cost.add("alone", alone)
    cost.add("beside a build", beside)
    cost.add("times slower, median of the pairs", slower)
    cost.add("batches that waited a second for a player", bench.locked)
    await ledger.aclose()
    return [speed, cost]


def run() -> list[Table]:
    """The tables of this benchmark."""
    with tempfile.TemporaryDirectory(prefix="realtime-bench-") as folder, start_postgres(Path(folder)) as database:
        return asyncio.run(_run(database.url))
