"""What a thousand leaderboards cost: memory, start, submissions spread over them, and 100,000 closed boards.

Owns the rows of closed boards: a hundred days of each leaderboard, put in as they are. Must never measure the server
that makes the standings: a `realtime serve` beside it, pinned to the first core, is started for each figure. Assumes
that "before" and "after" are of one instance: first without, then with closed boards.
"""

from __future__ import annotations

import http.client
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks.bars import Line, ratios
from tests.benchmarks.harness import Server, median
from tests.benchmarks.leaderboards_defining import Operator, operator_of
from tests.benchmarks.leaderboards_intake import (
    PLAYERS,
    Pace,
    anybody,
    costs,
    middle,
    register,
    submission,
    together,
)
from tests.benchmarks.served import elsewhere, ended, pinned
from tests.benchmarks.usage import Parties, Usage

LEADERBOARDS = int(os.environ.get("BENCH_LEADERBOARDS", "1000"))
EACH = PLAYERS // LEADERBOARDS
"""Players of each: so there are as many rows as where all are on one."""

WINDOWS = ["all_time", "day"]
DAYS = 100
CLOSED = LEADERBOARDS * DAYS
REQUESTS = 100
NOTHING_SLOWER = 1.1
"""What windows of one and the same differ by."""

_DAYS_OF = f"""
WITH made AS (
    INSERT INTO windows (leaderboard, kind, starts, ends, name)
    SELECT l.id, 'day', day, day + interval '1 day', to_char(day, '"day_of_"YYYY_MM_DD')
    FROM leaderboards l CROSS JOIN generate_series(2, {DAYS + 1}) n
    CROSS JOIN LATERAL (SELECT date_trunc('day', now()) - make_interval(days => n) AS day) AS d
    WHERE l.slug LIKE $1 AND l.id <> 1 ON CONFLICT DO NOTHING RETURNING leaderboard, id, starts
), ranked AS (
    SELECT l.source, l.rule, m.id, row_number() OVER (ORDER BY l.id) AS place, m.starts
    FROM made m JOIN leaderboards l ON l.id = m.leaderboard
)
INSERT INTO scores (source, rule, "window", user_id, score, at, at_id)
SELECT source, rule, id, user_id, user_id % 1000, micros(starts), user_id
FROM ranked CROSS JOIN generate_series(1, $2::int) AS user_id
"""


def name(place: int) -> str:
    """The slug of one of many leaderboards."""
    return f"many-{place}"


def _anywhere() -> bytes:
    """A score on any of the many leaderboards, of one of its players."""
    place = random.randrange(LEADERBOARDS)
    return submission(name(place), 1 + EACH * place + random.randrange(EACH))


class Start(NamedTuple):
    """One start of a server."""

    seconds: float
    """Of CPU, its own and PostgreSQL's, until it answers."""
    clock_seconds: float
    kib: float
    """Of memory, once it has settled."""


@dataclass(frozen=True, slots=True)
class Started:
    """A `realtime serve` that answers."""

    process: subprocess.Popen[str]
    address: str
    seconds: float


@contextmanager
def _serving(target: Server) -> Iterator[Started]:
    command = [sys.executable, "-m", "realtime", "serve", "--data-dir", str(target.data_dir)]
    environment = {**os.environ, "REALTIME_PORT": "0", "REALTIME_DRAIN_S": "0", "REALTIME_RECONNECT_SPREAD_S": "0"}
    began = time.perf_counter()
    with ended(pinned(0, *command, stdout=-1, stderr=subprocess.DEVNULL, env=environment)) as process:
        assert process.stdout is not None
        address = next(line.split()[1] for line in process.stdout if line.startswith("ready: "))
        yield Started(process, address.removeprefix("http://"), time.perf_counter() - began)


def _start(target: Server) -> Start:
    at_rest = Parties(target)
    before = at_rest.used().postgres
    with _serving(target) as started:
        parties = Parties(target, started.process.pid)
        used = parties.used()
        _settle(parties)
        status = Path(f"/proc/{started.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+)", status)
        assert found is not None
        return Start(used.server + used.postgres - before, started.seconds, float(found[1]))


def _settle(parties: Parties) -> None:
    """Returns when the server has used next to no CPU for a while."""
    last, quiet = parties.used().server, 0
    while quiet < 3:
        time.sleep(0.5)
        now = parties.used().server
        quiet = quiet + 1 if now - last < 0.02 else 0
        last = now


class Look(NamedTuple):
    """What is compared before and after, by window: microseconds of CPU of all three."""

    start: list[float]
    one: list[Usage]
    """A submission to one leaderboard with as many players."""
    spread: list[Usage]
    """One to any of the many."""
    page: list[Usage]
    listing: list[Usage]
    rest: list[float]
    """CPU of a second in which nobody does anything."""


async def lines(target: Server, pace: Pace) -> list[Line]:
    """All of it, on a fresh instance."""
    with elsewhere():
        async with operator_of(target) as operator:
            await register(operator)
            bare = [_start(target) for _ in range(pace.windows)]
            await operator.define(["one", *map(name, range(LEADERBOARDS))], windows=WINDOWS)
            full = [_start(target) for _ in range(pace.windows)]
            await _close(operator, name(0), LEADERBOARDS * EACH // DAYS)  # one to be read, before and after
            before = await _look(target, operator, pace)
            await _close(operator, "many-%", EACH)
            after = await _look(target, operator, pace)
    return [*_unfollowed(bare, full), _spread(before), *_closed(before, after)]


async def _close(operator: Operator, slugs: str, players: int) -> None:
    """Gives leaderboards that are called like this closed days, with so many players each, where they have none."""
    await operator.sql.execute(_DAYS_OF, slugs, players, timeout=600)
    await operator.sql.execute("VACUUM ANALYZE", timeout=600)
    await operator.sql.execute("CHECKPOINT", timeout=600)


def _unfollowed(bare: Sequence[Start], full: Sequence[Start]) -> list[Line]:
    kib = [(many.kib - few.kib) / LEADERBOARDS for few, many in zip(bare, full, strict=True)]
    seconds = [many.seconds - few.seconds for few, many in zip(bare, full, strict=True)]
    with_none, with_all = (median([one.clock_seconds for one in starts]) for starts in (bare, full))
    return [
        Line("a leaderboard that nobody follows: KiB of the server", 50, kib),
        Line(
            f"{LEADERBOARDS:,} that nobody follows: seconds of CPU longer until it answers",
            2,
            seconds,
            more=f"start by the clock: {with_none:.1f} s without, {with_all:.1f} s with them",
        ),
    ]


def _spread(look: Look) -> Line:
    return Line(
        f"spread over {LEADERBOARDS:,} leaderboards: a submission, of one to one",
        1.6,
        ratios(together(look.spread), together(look.one)),
        more=f"CPU a submission: one {middle(look.one)}; spread {middle(look.spread)}",
    )


async def _look(target: Server, operator: Operator, pace: Pace) -> Look:
    token = target.token("submit:any", user_id=1)
    starts = [_start(target).seconds * 1e6 for _ in range(pace.windows)]
    found = await costs(target, operator, token, {"one": anybody("one"), "spread": _anywhere}, pace)
    day = await operator.sql.fetchval(
        "SELECT w.name FROM windows w JOIN leaderboards l ON l.id = w.leaderboard"
        " WHERE l.slug = $1 AND w.kind = 'day' ORDER BY w.starts LIMIT 1",
        name(0),
    )
    with _serving(target) as started:
        parties = Parties(target, started.process.pid)
        _settle(parties)
        pages = [_asked(started, parties, f"/boards/{name(0)}:{day}?limit=50") for _ in range(pace.windows)]
        listings = [_asked(started, parties, f"/boards?leaderboard={name(0)}") for _ in range(pace.windows)]
        rest = [_at_rest(Parties(target), pace.seconds) for _ in range(pace.windows)]
    return Look(starts, found["one"], found["spread"], pages, listings, rest)


def _asked(started: Started, parties: Parties, path: str) -> Usage:
    """CPU a request, by party."""
    connection = http.client.HTTPConnection(started.address)
    before = parties.used()
    for _ in range(REQUESTS):
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{path}: {answer.status} {body!r}")
    used = parties.used().since(before)
    connection.close()
    return used.each(REQUESTS)


def _at_rest(parties: Parties, seconds: float) -> float:
    """CPU microseconds a second of the server with the worker, PostgreSQL and the store."""
    before = parties.used()
    time.sleep(seconds)
    return parties.used().since(before).each(seconds).together


def _closed(before: Look, after: Look) -> list[Line]:
    compared = {
        "start": (before.start, after.start, ""),
        "a submission": (together(before.spread), together(after.spread), middle(after.spread)),
        "a closed page": (together(before.page), together(after.page), middle(after.page)),
        "GET /boards?leaderboard=": (together(before.listing), together(after.listing), middle(after.listing)),
        "a second at rest": (before.rest, after.rest, ""),
    }
    return [
        Line(
            f"{CLOSED:,} closed boards: {what}, of that without",
            NOTHING_SLOWER,
            ratios(now, then),
            more=f"CPU {median(then):,.0f} us before, {median(now):,.0f} after; {parts}".removesuffix("; "),
        )
        for what, (then, now, parts) in compared.items()
    ]
