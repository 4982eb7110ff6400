"""Engines of several processes that fail over: some of the scenarios in their short form, the others with `-m long`.

The long form is run by hand: `python -m tests.chaos`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.chaos import cluster_failovers, sentinel_failovers
from tests.chaos.deployment import Stores
from tests.chaos.scenarios import SHORT
from tests.support import namespaces
from tests.support.balancer import haproxy
from tests.support.redis_cluster import Cluster
from tests.support.redis_node import redis_server
from tests.support.sentinels import Sentinels

if os.environ.get("DATABASE_URL") or os.environ.get("DRAGONFLY_URL"):
    pytest.skip("the stores that were given are not ours to kill", allow_module_level=True)
if redis_server() is None:
    pytest.skip("clusters and Sentinels need redis-server on PATH", allow_module_level=True)

ALWAYS = {"primary_behind", "primary_switched", "primary_restarted", "primary_cut_from_its_kind"} | {
    "node_killed",
    "node_switched",
    "slots_moved",
}
"""What runs wherever tests run: between them they meet every kind of answer that a failover brings."""


def _each(scenarios: Sequence[Any]) -> list[Any]:
    """As parameters, each by its name."""
    return [
        pytest.param(one, id=one.__name__, marks=() if one.__name__ in ALWAYS else pytest.mark.long)
        for one in scenarios
    ]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores[Sentinels]]:
    """A Redis with its Sentinels, for one scenario after the other."""
    made = sentinel_failovers.prepare(Path(tmp_path_factory.mktemp("sentinels")))
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def on_hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores[Sentinels]]:
    """The same on hosts that can be cut off."""
    if refused := namespaces.refused():
        pytest.skip(refused)
    with sentinel_failovers.prepared_on_hosts(Path(tmp_path_factory.mktemp("hosts"))) as made:
        yield made


@pytest.fixture(scope="module")
def clustered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores[Cluster]]:
    """A cluster of six, for one scenario after the other."""
    made = cluster_failovers.prepare(Path(tmp_path_factory.mktemp("cluster")))
    try:
        yield made
    finally:
        made.stop()


@pytest.mark.parametrize("scenario", _each(sentinel_failovers.ALL))
async def test_a_promoted_replica_is_found_and_caught_up(
    scenario: sentinel_failovers.Scenario, watched: Stores[Sentinels]
) -> None:
    outcome = await scenario(watched, SHORT)
    print(outcome)
    outcome.check()


@pytest.mark.skipif(haproxy() is None, reason="it needs HAProxy")
@pytest.mark.parametrize("scenario", _each(sentinel_failovers.BALANCED))
async def test_a_promoted_replica_is_found_at_an_address_that_stays(
    scenario: sentinel_failovers.Scenario, watched: Stores[Sentinels]
) -> None:
    outcome = await scenario(watched, SHORT)
    print(outcome)
    outcome.check()


@pytest.mark.parametrize("scenario", _each(sentinel_failovers.ON_HOSTS))
async def test_a_primary_that_believes_in_itself_is_left(
    scenario: sentinel_failovers.Scenario, on_hosts: Stores[Sentinels]
) -> None:
    outcome = await scenario(on_hosts, SHORT)
    print(outcome)
    outcome.check()


@pytest.mark.parametrize("scenario", _each(cluster_failovers.ALL))
async def test_what_happens_to_a_node_happens_to_its_partitions_alone(
    scenario: cluster_failovers.Scenario, clustered: Stores[Cluster]
) -> None:
    outcome = await scenario(clustered, SHORT)
    print(outcome)
    outcome.check()
