"""What a cluster of three primaries costs the server, beside one store: a submission, spread over 64 leaderboards.

`python -m tests.benchmarks cluster`, or from its own main, which takes shorter windows. Two servers, each with its own
PostgreSQL, are handed the same in alternating windows: one has its boards on one redis-server, one on three of the same
kind that are a cluster. A ratio is of windows side by side, and the median of them counts; it is of CPU time of the
server's process, in which the worker runs too.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import NamedTuple

import uvloop

from tests.benchmarks.bars import Line, ratios, table_of
from tests.benchmarks.harness import Server, Table, cpu_seconds, median, server
from tests.benchmarks.leaderboards_defining import Operator, operator_of
from tests.benchmarks.leaderboards_intake import PLAYERS, Pace, register, submission
from tests.benchmarks.submissions import submitting
from tests.support.redis_cluster import redis_cluster
from tests.support.redis_node import Node, free_ports

LEADERBOARDS = 64
WINDOWS = ["all_time", "week"]
PACE = Pace(windows=9, seconds=4.0)


class Side(NamedTuple):
    """A server, and the processes its boards are in."""

    target: Server
    nodes: Sequence[Node]
    operator: Operator
    token: str


class Cost(NamedTuple):
    """CPU microseconds a submission."""

    server: float
    store: float


def _name(place: int) -> str:
    return f"spread-{place}"


def _anywhere() -> bytes:
    return submission(_name(random.randrange(LEADERBOARDS)), random.randint(1, PLAYERS))


async def _handed_in(side: Side, seconds: float) -> Cost:
    """What the submissions of so many seconds took."""

    def used() -> Cost:
        return Cost(cpu_seconds(side.target.program.pid), sum(cpu_seconds(node.pid) for node in side.nodes))

    async with submitting(side.target, side.token, _anywhere) as acknowledged:
        count, before = acknowledged(), used()
        await asyncio.sleep(seconds)
        after, count = used(), acknowledged() - count
    if not count:
        raise SystemExit("nothing was acknowledged")
    return Cost(*((now - then) / count * 1e6 for now, then in zip(after, before, strict=True)))


async def _lines(sides: Mapping[str, tuple[Server, Sequence[Node]]], pace: Pace) -> list[Line]:
    found: dict[str, list[Cost]] = {name: [] for name in sides}
    async with AsyncExitStack() as stack:
        made: dict[str, Side] = {}
        for name, (target, nodes) in sides.items():
            operator = await stack.enter_async_context(operator_of(target))
            await register(operator)
            await operator.define([_name(place) for place in range(LEADERBOARDS)], windows=WINDOWS)
            made[name] = Side(target, nodes, operator, target.token("submit:any", user_id=1))
        for window in range(-1, pace.windows):
            for name, side in made.items():
                cost = await _handed_in(side, pace.seconds)
                if window >= 0:
                    found[name].append(cost)
                await side.operator.tidy()
    one, cluster = found["one store"], found["cluster"]
    return [
        Line(
            f"spread over {LEADERBOARDS} leaderboards, a cluster of three: the server's CPU, of that with one store",
            1.15,
            ratios([cost.server for cost in cluster], [cost.server for cost in one]),
            more="; ".join(f"{name}: {_middle(costs)}" for name, costs in found.items()),
        )
    ]


def _middle(costs: Sequence[Cost]) -> str:
    server, store = (median(column) for column in zip(*costs, strict=True))
    return f"server {server:,.0f} us a submission, its store {store:,.0f}"


def run(pace: Pace = PACE) -> list[Table]:
    """The table of this benchmark."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="realtime-bench-")))
        cluster = stack.enter_context(redis_cluster(folder / "cluster", replicas=0))
        one = Node(folder / "one", free_ports(1)[0], password=cluster.password)
        stack.callback(one.stop)
        one.start()
        sides = {
            "one store": (stack.enter_context(server(DRAGONFLY_URL=one.url)), [one]),
            "cluster": (stack.enter_context(server(DRAGONFLY_URL=cluster.url)), cluster.nodes),
        }
        runner = stack.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))
        lines = runner.run(_lines(sides, pace))
    return [table_of(f"One store and a cluster, {pace.windows} windows of {pace.seconds:g} s", lines)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, default=PACE.windows)
    parser.add_argument("--seconds", type=float, default=PACE.seconds)
    given = parser.parse_args()
    for made in run(Pace(given.windows, given.seconds)):
        made.show()
