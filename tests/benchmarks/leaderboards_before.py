"""What `default` alone costs with this program, beside a checkout from before there were many leaderboards.

Owns the pairs. Must never let one of a pair run beside the other: windows alternate. Assumes that the other checkout
runs with this one's libraries.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import asyncpg
import orjson
from websockets.asyncio.client import ClientConnection, connect

from tests.benchmarks.bars import Line, ratios
from tests.benchmarks.harness import Server, median, server
from tests.benchmarks.latency import PAUSE
from tests.benchmarks.leaderboards_intake import PLAYERS, Pace, anybody, handed_in, middle, together
from tests.benchmarks.served import Served, audience, authenticated, built_floor
from tests.benchmarks.submissions import new_id
from tests.benchmarks.usage import Parties, Usage

SUBMISSIONS = "default alone: submissions, of those before"
LATENCY = "default alone: submission sent to diff received, of that before"
WAY = "default alone: CPU of that way, of that before"
DELIVERY = "default alone: server CPU a delivery, of that before"

CLIENTS = 1_000
ROUNDS = 50
"""Scores on their way, one at a time, in a window."""


def lines(runner: asyncio.Runner, pace: Pace, baseline: Path | None) -> list[Line]:
    """All of it; nothing is measured without another checkout."""
    if baseline is None:
        why = "no other checkout was named: see --baseline"
        bars = {SUBMISSIONS: 0.97, LATENCY: 1.03, WAY: 1.03, DELIVERY: 1.03}
        return [Line(what, bar, [], is_least=what == SUBMISSIONS, more=why) for what, bar in bars.items()]
    if not (baseline / "realtime").is_dir():
        raise SystemExit(f"{baseline} is no checkout: it has no folder realtime")
    trees = {"before": baseline, "now": None}
    with ExitStack() as stack:
        targets = {when: stack.enter_context(server(tree)) for when, tree in trees.items()}
        found = [runner.run(_submissions(targets, pace)), *runner.run(_latency(targets, pace))]
    with ExitStack() as stack:
        return [*found, _deliveries(stack, runner, trees, pace)]


async def _submissions(targets: Mapping[str, Server], pace: Pace) -> Line:
    found: dict[str, list[Usage]] = {when: [] for when in targets}
    tokens = {when: target.token("submit:any", user_id=1) for when, target in targets.items()}
    for target in targets.values():
        await _sql(target, f"INSERT INTO users (username) SELECT 'player ' || g FROM generate_series(1, {PLAYERS}) g")
    for window in range(-1, pace.windows):
        for when, target in targets.items():
            count, used = await handed_in(target, tokens[when], anybody(), pace.seconds)
            if window >= 0:
                found[when].append(used.each(count))
            await _sql(target, "DELETE FROM outbox")
            await _sql(target, "VACUUM ANALYZE user_total_scores, user_weekly_scores, outbox")
    return Line(
        SUBMISSIONS,
        0.97,
        ratios(together(found["before"]), together(found["now"])),
        is_least=True,
        more=f"CPU a submission: before {middle(found['before'])}; now {middle(found['now'])}",
    )


async def _sql(target: Server, statement: str) -> None:
    connection = await asyncpg.connect(target.database_url)
    await connection.execute(statement)
    await connection.close()


class Way(NamedTuple):
    """Scores on their way, one at a time."""

    seconds: float
    """The median."""
    used: Usage
    """CPU microseconds a score, by party."""


async def _latency(targets: Mapping[str, Server], pace: Pace) -> list[Line]:
    found: dict[str, list[Way]] = {when: [] for when in targets}
    for window in range(-1, pace.windows):
        for when, target in targets.items():
            way = await _ways(target)
            if window >= 0:
                found[when].append(way)
    clock, cpu = ({when: [one[part] for one in ways] for when, ways in found.items()} for part in (0, 1))
    medians = {when: median(seconds) * 1000 for when, seconds in clock.items()}
    return [
        Line(
            LATENCY,
            1.03,
            ratios(clock["now"], clock["before"]),
            more=f"by the clock: before {medians['before']:.2f} ms, now {medians['now']:.2f} ms",
        ),
        Line(
            WAY,
            1.03,
            ratios(together(cpu["now"]), together(cpu["before"])),
            more=f"before {middle(cpu['before'])}; now {middle(cpu['now'])}",
        ),
    ]


async def _ways(target: Server) -> Way:
    token = target.token("submit:any", user_id=1)
    parties = Parties(target)
    seconds: list[float] = []
    player = await authenticated(f"{target.ws_url}?token={token}")
    async with player, connect(target.ws_url) as viewer:
        await viewer.send('{"type":"subscribe","board":"all_time"}')
        while orjson.loads(await viewer.recv())["type"] != "snapshot":
            pass
        before = parties.used()
        for _ in range(ROUNDS):
            await asyncio.sleep(PAUSE)
            began = time.perf_counter()
            await _send(player)
            while orjson.loads(await viewer.recv())["type"] != "diff":
                pass
            seconds.append(time.perf_counter() - began)
            await player.recv()
        used = parties.used().since(before)
    return Way(median(seconds), used.each(ROUNDS))


async def _send(player: ClientConnection) -> None:
    """A score by which the first gets further ahead: the top changes."""
    submission = {"type": "submit", "submission_id": new_id(), "user_id": 1, "score_added": 1_000_000}
    await player.send(orjson.dumps(submission).decode())


def _deliveries(stack: ExitStack, runner: asyncio.Runner, trees: Mapping[str, Path | None], pace: Pace) -> Line:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    folder.chmod(0o755)
    floor = built_floor(folder)
    served = {when: _followed(stack, runner, floor, tree) for when, tree in trees.items()}
    found: dict[str, list[float]] = {when: [] for when in trees}
    for window in range(-1, pace.windows):  # sockets that were idle acknowledge packet by packet at first
        for when, one in served.items():
            us = _delivery(one, pace.seconds)
            if window >= 0:
                found[when].append(us)
    more = f"before {median(found['before']):.2f} us, now {median(found['now']):.2f} us, {CLIENTS:,} subscribers"
    return Line(DELIVERY, 1.03, ratios(found["now"], found["before"]), more=more)


def _followed(stack: ExitStack, runner: asyncio.Runner, floor: Path, tree: Path | None) -> Served:
    served = Served(stack, runner, tree=tree)
    stack.enter_context(audience(floor, served.port, CLIENTS))
    served.wait_for("realtime_subscribers", CLIENTS)
    served.wait_idle()
    return served


def _delivery(served: Served, seconds: float) -> float:
    """Microseconds of server CPU."""
    before, delivered = served.cpu_seconds(), served.metrics()["realtime_deliveries_total"]
    served.change(seconds)
    time.sleep(0.1)
    used = served.cpu_seconds() - before
    return used / (served.metrics()["realtime_deliveries_total"] - delivered) * 1e6
