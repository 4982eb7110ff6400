"""What a build costs: standings made from a log of a million transactions, and submissions beside it.

Owns the log: every player has one transaction a day. Over all time that makes one row of many transactions, and by the
day one row of each. Must never count what declares a build, or clears up behind it. Assumes that the server builds: the
most memory it has had while it does so is the builder's.
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks.bars import Line, ratios
from tests.benchmarks.harness import Server, median
from tests.benchmarks.leaderboards_defining import Operator, operator_of
from tests.benchmarks.leaderboards_intake import Pace, anybody, handed_in, register
from tests.benchmarks.usage import Parties, Usage

PLAYERS = 50_000
DAYS = 20
TRANSACTIONS = PLAYERS * DAYS

_LOG = (
    f"""INSERT INTO user_score_transactions (user_id, score_added, reason, submission_id, created_at)
        SELECT u, 1 + (u * 31 + n) % 100, 'win', 'h-' || n, date_trunc('day', now()) - make_interval(days => n - 1)
        FROM generate_series(1, {DAYS}) n, generate_series(1, {PLAYERS}) u ORDER BY n""",
    """INSERT INTO user_total_scores (user_id, total_score)
       SELECT user_id, sum(score_added) FROM user_score_transactions GROUP BY user_id""",
    """INSERT INTO user_weekly_scores (week, user_id, score)
       SELECT date_trunc('week', created_at AT TIME ZONE 'UTC')::date AS week, user_id, sum(score_added)
       FROM user_score_transactions GROUP BY user_id, week""",
    "VACUUM ANALYZE",
    "CHECKPOINT",
)


class Built(NamedTuple):
    """One build, from its declaration until it was shown."""

    seconds: float
    used: Usage
    memory_mb: float
    """The most that the server had."""


async def lines(target: Server, pace: Pace) -> list[Line]:
    """All of it, on a fresh instance."""
    async with operator_of(target) as operator:
        await register(operator, PLAYERS)
        for statement in _LOG:
            await operator.sql.execute(statement, timeout=600)
        target.rebuild()
        # Two that are built once, for there to be something to be made anew.
        await operator.define(["whole"], of="default", windows=["all_time"])
        await operator.define(["daily"], of="default", windows=["day"])
        found: dict[str, list[Built]] = {"whole": [], "daily": []}
        for _ in range(pace.windows):
            for slug, built in found.items():
                await operator.tidy()
                built.append(await _build(target, operator, slug))
        slower = await _slower(target, operator, pace)
    return [
        _rate(f"a build: transactions a second, {DAYS} a row", 300_000, TRANSACTIONS, found["whole"]),
        _rate("a build: rows a second, a transaction each", 100_000, TRANSACTIONS, found["daily"]),
        Line("a build: MB of the builder at most", 256, [one.memory_mb for of in found.values() for one in of]),
        slower,
    ]


def _rate(what: str, bar: float, count: int, found: list[Built]) -> Line:
    """So many things in a second of CPU: one statement runs after the other."""
    seconds = [f"{one.seconds:.1f}" for one in found]
    used = Usage(*(median(column) * 1000 for column in zip(*(one.used for one in found), strict=True)))
    return Line(
        what,
        bar,
        [count / one.used.together for one in found],
        is_least=True,
        more=f"by CPU: {used} ms; by the clock until it is shown: {', '.join(seconds)} s",
    )


async def _build(target: Server, operator: Operator, slug: str) -> Built:
    parties = Parties(target)
    await operator.rebuild(slug)
    _forget_peak(target.program.pid)
    before, began = parties.used(), time.perf_counter()
    await operator.shown()
    took, used = time.perf_counter() - began, parties.used().since(before)
    return Built(took, used, _peak_mb(target.program.pid))


async def _slower(target: Server, operator: Operator, pace: Pace) -> Line:
    """Submissions a second without a build, of those beside one."""
    token = target.token("submit:any", user_id=1)
    alone: list[float] = []
    beside: list[float] = []
    for _ in range(pace.windows):
        await operator.tidy()
        alone.append((await handed_in(target, token, anybody(), pace.seconds))[0])
        await operator.tidy()
        await operator.rebuild("daily")
        beside.append((await handed_in(target, token, anybody(), pace.seconds))[0])
        if not await operator.is_building():
            raise SystemExit("the build was over before the window was: there is too little to build")
        await operator.shown()
    more = f"submissions a second: {median(alone) / pace.seconds:,.0f} and {median(beside) / pace.seconds:,.0f}"
    return Line("submissions beside a build: times slower", 1.5, ratios(alone, beside), more=more)


def _forget_peak(pid: int) -> None:
    """From now on the most memory that a process has had is counted anew (proc_pid_clear_refs(5))."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _peak_mb(pid: int) -> float:
    found = re.search(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) / 1024
