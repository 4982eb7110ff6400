"""Scenarios of a Redis cluster under load: what happens to a node happens to its partitions, and to no others.

Owns the order of events. Must never wait longer than the engine takes for its own part. Each returns an `Outcome`.
Assumes that a cluster serves what it can (`cluster-require-full-coverage no`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import monotonic
from typing import Final

from realtime.boards.leaderboard import partition_of
from tests.chaos.accounts import Outcome
from tests.chaos.agreement import PARTITIONS
from tests.chaos.deployment import Stores
from tests.chaos.failovers import USERS, define, failover
from tests.chaos.scenarios import Scale
from tests.chaos.sentinel_failovers import RESTING, go_on_replicating, lag
from tests.support.redis_cluster import Cluster, slot_of, some_of
from tests.support.redis_node import AWAY, Node, until

Scenario = Callable[[Stores[Cluster], Scale], Awaitable[Outcome]]

SLUGS: Final = ("default", "slalom", "luge", "sprint", "discus", "marathon", "relay")
"""Leaderboards of seven partitions; each node of three has two of them, and one has `default`'s besides."""


def prepare(folder: Path) -> Stores[Cluster]:
    """PostgreSQL and a cluster in `folder`, with users and leaderboards. Blocks for some seconds."""
    made = Stores(folder, USERS, lambda at: Cluster(at / "cluster"))
    try:
        asyncio.run(define(made.database.url, [slug for slug in SLUGS if slug != "default"]))
    except BaseException:
        made.stop()
        raise
    return made


def tag_of(slug: str, cluster: Cluster) -> str:
    """What the keys of a leaderboard's partition begin with, by what there is."""
    partition = partition_of(slug, PARTITIONS)
    if partition:
        return f"{{{partition}}}"
    for node in cluster.primaries():
        with node.client() as client:
            for key in client.scan_iter("*leaderboard:epoch", 10_000):
                tag: str = key.removesuffix("leaderboard:epoch")
                if not tag.startswith("{p"):
                    return tag
    raise AssertionError("the published content is nowhere")


def by_node(cluster: Cluster) -> dict[Node, list[str]]:
    """The leaderboards that each primary has."""
    found: dict[Node, list[str]] = {node: [] for node in cluster.primaries()}
    for slug in SLUGS:
        found[cluster.owner_of(tag_of(slug, cluster))].append(slug)
    return found


class _Cast:
    """A primary with leaderboards, its replica, and the leaderboards of other nodes."""

    def __init__(self, cluster: Cluster) -> None:
        cluster.settle()
        found = by_node(cluster)
        # `default` is one leaderboard among others: what happens to it is another scenario's.
        self.primary = next(node for node, slugs in found.items() if slugs and "default" not in slugs)
        self.replica = cluster.replica_of(self.primary)
        self.touched = found[self.primary]
        self.others = [slug for slug in SLUGS if slug not in self.touched]
        assert len(self.others) >= 3


async def node_killed(stores: Stores[Cluster], scale: Scale) -> Outcome:
    """kill -9 of a primary; it comes back as a replica."""
    async with failover("cluster: node killed (-9)", stores, scale, SLUGS) as made:
        cast = await made.done(_Cast, stores.store)
        await made.load()
        began = monotonic()
        await made.done(cast.primary.kill)
        promoted = await made.promoted(cast.replica, began)
        await made.done(cast.primary.start)
        await made.load()
        made.was_untouched(cast.others, began)
        await made.heal(promoted)
        made.was_told(cast.touched, began)
    return made.outcome


async def first_node_killed(stores: Stores[Cluster], scale: Scale) -> Outcome:
    """kill -9 of the primary that has `default`: the others go on all the same."""
    async with failover("cluster: default's node killed (-9)", stores, scale, SLUGS) as made:
        found = await made.done(by_node, stores.store)
        primary = next(node for node, slugs in found.items() if "default" in slugs)
        others = [slug for slug in SLUGS if slug not in found[primary]]
        replica = await made.done(stores.store.replica_of, primary)
        await made.load()
        began = monotonic()
        await made.done(primary.kill)
        promoted = await made.promoted(replica, began)
        await made.done(primary.start)
        await made.load()
        made.was_untouched(others, began)
        await made.heal(promoted)
        made.was_told(["default"], began)
        made.were_accepted(began)
    return made.outcome


async def node_paused(stores: Stores[Cluster], scale: Scale) -> Outcome:
    """SIGSTOP of a primary; when it goes on it takes itself for one until it is told."""
    async with failover("cluster: node hangs (SIGSTOP)", stores, scale, SLUGS) as made:
        cast = await made.done(_Cast, stores.store)
        await made.load()
        began = monotonic()
        await made.done(cast.primary.pause)
        promoted = await made.promoted(cast.replica, began)
        await made.done(cast.primary.go_on)
        await made.load()
        made.was_untouched(cast.others, began)
        await made.heal(promoted)
    return made.outcome


async def node_switched(stores: Stores[Cluster], scale: Scale) -> Outcome:
    """CLUSTER FAILOVER: nothing is lost, and the content is of another run all the same."""
    async with failover("cluster: replica promoted by an operator", stores, scale, SLUGS) as made:
        cast = await made.done(_Cast, stores.store)
        await made.load()
        began = monotonic()
        await made.done(stores.store.promote, cast.replica)
        promoted = await made.promoted(cast.replica, began)
        await made.load()
        made.was_untouched(cast.others, began)
        await made.heal(promoted)
    return made.outcome


async def node_behind(stores: Stores[Cluster], scale: Scale) -> Outcome:
    """A replica that lacks what was acknowledged last takes over (TAKEOVER)."""
    async with failover("cluster: the promoted replica is behind", stores, scale, SLUGS) as made:
        cast = await made.done(_Cast, stores.store)
        await made.load()
        await made.done(lag, cast.primary, cast.replica)
        await made.load()
        made.tally.resting = RESTING
        await made.load(scale.load / 2)
        began = monotonic()
        await made.done(cast.primary.kill)
        await made.done(stores.store.promote, cast.replica, "TAKEOVER")
        promoted = await made.promoted(cast.replica, began)
        await made.done(go_on_replicating, cast.replica)
        await made.done(cast.primary.start)
        await made.load()
        made.was_untouched(cast.others, began)
        await made.heal(promoted)
    return made.outcome


async def slots_moved(stores: Stores[Cluster], scale: Scale) -> Outcome:
    """The slots of a primary's partitions move to another one, in batches, and back."""
    async with failover("cluster: slots moved under load", stores, scale, SLUGS) as made:
        cast = await made.done(_Cast, stores.store)
        cluster = stores.store
        to = some_of(await made.done(cluster.primaries), cast.primary)
        await made.load()
        began = monotonic()
        keys = 0
        for source, target in ((cast.primary, to), (to, cast.primary)):
            for slug in cast.touched:
                slot = slot_of(tag_of(slug, cluster))
                await made.done(cluster.begin_move, slot, target)
                keys += await made.done(cluster.move_keys, slot, target, 100)  # ASK and TRYAGAIN from here on
                await made.load(scale.load / 2)
                keys += await made.done(cluster.move_keys, slot, target)
                await made.done(cluster.end_move, slot, target)
                assert await made.done(cluster.owner, slot) is target and source is not target
                await made.load(scale.load / 2)
        moved = monotonic()
        made.was_untouched(cast.others, began)
        await made.heal(moved)
        made.outcome.notes["keys moved"] = f"{keys:,}"
    return made.outcome


async def cluster_restarted(stores: Stores[Cluster], scale: Scale) -> Outcome:
    """kill -9 of every node at once; all come back, with nothing (CLUSTERDOWN for a while)."""
    async with failover("cluster: all nodes killed (-9), back empty", stores, scale, SLUGS) as made:
        await made.load()
        began = monotonic()
        for node in stores.store.nodes:
            await made.done(node.kill)
        await made.load(scale.outage)
        for node in stores.store.nodes:
            await made.done(node.begin)
        await made.done(stores.store.settle)
        settled = monotonic()
        made.outcome.notes["served again after"] = f"{settled - began:.1f} s"
        await made.load()
        await made.heal(settled)
        made.was_told(["default"], began)
    return made.outcome


async def nodes_restarted(stores: Stores[Cluster], scale: Scale) -> Outcome:
    """The nodes restart one after the other, replicas first, as an operator brings a new release in."""
    async with failover("cluster: nodes restarted one by one", stores, scale, SLUGS) as made:
        cluster = stores.store
        await made.load()
        for primary in await made.done(cluster.primaries):
            replica = await made.done(cluster.replica_of, primary)
            await made.done(_restart, replica, cluster)
            await made.done(cluster.promote, replica)
            await made.load()
            await made.done(_restart, primary, cluster)
            made.outcome.rounds += 1
        await made.heal(monotonic())
        assert not made.tally.refused(), made.tally.refused()
    return made.outcome


def _restart(node: Node, cluster: Cluster) -> None:
    node.stop()
    node.start()
    cluster.settle()
    until(lambda: _is_replica(node), f"{node} is a replica")


def _is_replica(node: Node) -> bool:
    try:
        return node.role() == "slave"
    except AWAY:
        return False


ALL: tuple[Scenario, ...] = (
    node_killed,
    first_node_killed,
    node_paused,
    node_switched,
    node_behind,
    slots_moved,
    cluster_restarted,
    nodes_restarted,
)
