"""`python -m tests.chaos [--rounds 50] [--short] [--only NAME ...]`: runs scenarios and prints their table.

Those whose store is an engine of several processes need redis-server, those that cut hosts off network namespaces:
where this machine lacks them, a line says so.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.chaos import cluster_failovers, ledger_failovers, scenarios, sentinel_failovers
from tests.chaos.accounts import Outcome
from tests.chaos.deployment import Stores
from tests.support import namespaces
from tests.support.balancer import haproxy
from tests.support.redis_node import redis_server
from tests.support.replicated import lacking


class Group(NamedTuple):
    """Scenarios that share their stores."""

    scenarios: Sequence[Callable[[Any, scenarios.Scale], Awaitable[Outcome]]]
    stores: Callable[[Path], AbstractContextManager[Any]]
    missing: Callable[[], str] = lambda: ""
    """What this machine lacks for them, in one line; '' where it lacks nothing."""


@contextmanager
def _stopped(stores: Stores[Any]) -> Iterator[Stores[Any]]:
    try:
        yield stores
    finally:
        stores.stop()


def _without_redis() -> str:
    return "" if redis_server() else "they need redis-server on PATH"


GROUPS: Final = (
    Group(scenarios.ALL, lambda folder: _stopped(scenarios.prepare(folder))),
    Group(sentinel_failovers.ALL, lambda folder: _stopped(sentinel_failovers.prepare(folder)), _without_redis),
    Group(
        sentinel_failovers.BALANCED,
        lambda folder: _stopped(sentinel_failovers.prepare(folder)),
        lambda: _without_redis() or ("" if haproxy() else "it needs HAProxy"),
    ),
    Group(
        sentinel_failovers.ON_HOSTS,
        sentinel_failovers.prepared_on_hosts,
        lambda: _without_redis() or namespaces.refused(),
    ),
    Group(cluster_failovers.ALL, lambda folder: _stopped(cluster_failovers.prepare(folder)), _without_redis),
    Group(ledger_failovers.ALL, ledger_failovers.prepared, lambda: lacking(namespaces=True) or ""),
)


def main() -> None:
    names = [one.__name__ for group in GROUPS for one in group.scenarios]
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("--rounds", type=int, help="kills of the server")
    parser.add_argument("--short", action="store_true", help="as in CI")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=names)
    given = parser.parse_args()
    scale = scenarios.SHORT if given.short else scenarios.LONG
    if given.rounds:
        scale = dataclasses.replace(scale, rounds=given.rounds)
    outcomes: list[Outcome] = []
    for group in GROUPS:
        wanted = [one for one in group.scenarios if not given.only or one.__name__ in given.only]
        if wanted and (missing := group.missing()):
            print(f"skipped: {', '.join(one.__name__ for one in wanted)}: {missing}")
        elif wanted:
            outcomes += _run(group, wanted, scale)
    print(f"\n| {' | '.join(Outcome.COLUMNS)} |\n| {' | '.join('---' for _ in Outcome.COLUMNS)} |")
    for outcome in outcomes:
        print(f"| {' | '.join(outcome.row)} |")


def _run(
    group: Group, wanted: Sequence[Callable[[Any, scenarios.Scale], Awaitable[Outcome]]], scale: scenarios.Scale
) -> Iterator[Outcome]:
    with tempfile.TemporaryDirectory(prefix="realtime-chaos-") as folder, group.stores(Path(folder)) as stores:
        for scenario in wanted:
            outcome = asyncio.run(scenario(stores, scale))
            print(outcome, flush=True)
            outcome.check()
            yield outcome


if __name__ == "__main__":
    main()
