"""Scenarios of a Redis whose Sentinels promote its replica, under load.

Owns the order of events. Must never wait longer than the engine takes for its own part. Each returns an `Outcome`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Final

import redis.exceptions

from tests.chaos.accounts import Outcome
from tests.chaos.deployment import Stores
from tests.chaos.failovers import USERS, failover
from tests.chaos.scenarios import Scale
from tests.support.balancer import balanced
from tests.support.namespaces import hosts
from tests.support.redis_node import Node
from tests.support.sentinels import Sentinels

Scenario = Callable[[Stores[Sentinels], Scale], Awaitable[Outcome]]

RESTING: Final = USERS // 3
"""Users whose last scores only the primary has that is killed: nobody hands in more for them."""


def prepare(folder: Path) -> Stores[Sentinels]:
    """PostgreSQL and a Redis with its Sentinels in `folder`, with users. Blocks for some seconds."""
    return Stores(folder, USERS, lambda at: Sentinels(at / "sentinels"))


@contextmanager
def prepared_on_hosts(folder: Path) -> Iterator[Stores[Sentinels]]:
    """The same, each node and Sentinel on a host of its own."""
    with hosts(5) as made:
        stores = Stores(folder, USERS, lambda at: Sentinels(at / "sentinels", hosts=made))
        try:
            yield stores
        finally:
            stores.stop()


async def _pair(stores: Stores[Sentinels]) -> tuple[Node, Node]:
    """The primary, and the replica that is as far as it is."""
    await asyncio.to_thread(stores.store.put_right)
    return await asyncio.to_thread(lambda: (stores.store.primary, stores.store.replica))


async def primary_killed(stores: Stores[Sentinels], scale: Scale) -> Outcome:
    """kill -9 of the primary; it comes back as a replica."""
    primary, replica = await _pair(stores)
    async with failover("Sentinel: primary killed (-9)", stores, scale) as made:
        await made.load()
        began = monotonic()
        await made.done(primary.kill)
        promoted = await made.promoted(replica, began)
        await made.done(primary.start)
        await made.load()
        await made.heal(promoted)
        made.was_told(["default"], began)
        made.were_accepted(began)
    return made.outcome


async def primary_paused(stores: Stores[Sentinels], scale: Scale) -> Outcome:
    """SIGSTOP of the primary; when it goes on it takes itself for one for some seconds more."""
    primary, replica = await _pair(stores)
    async with failover("Sentinel: primary hangs (SIGSTOP)", stores, scale) as made:
        await made.load()
        await made.done(primary.pause)
        promoted = await made.promoted(replica, monotonic())
        await made.done(primary.go_on)
        await made.load()
        await made.heal(promoted)
    return made.outcome


async def primary_switched(stores: Stores[Sentinels], scale: Scale) -> Outcome:
    """SENTINEL FAILOVER: the old primary answers all the while, soon READONLY."""
    _, replica = await _pair(stores)
    async with failover("Sentinel: switched by an operator", stores, scale) as made:
        await made.load()
        began = monotonic()
        await made.done(stores.store.promote)
        promoted = await made.promoted(replica, began)
        await made.load()
        await made.heal(promoted)
    return made.outcome


async def primary_behind(stores: Stores[Sentinels], scale: Scale) -> Outcome:
    """The replica that is promoted lacks what was acknowledged last: replication is asynchronous."""
    primary, replica = await _pair(stores)
    async with failover("Sentinel: the promoted replica is behind", stores, scale) as made:
        await made.load()
        await made.done(lag, primary, replica)
        await made.load()
        made.tally.resting = RESTING
        await made.load(scale.load / 2)
        missed = await made.done(_behind, primary, replica)
        await made.done(primary.kill)
        promoted = await made.promoted(replica, monotonic())
        await made.done(go_on_replicating, replica)
        await made.done(primary.start)
        await made.heal(promoted)
        assert missed > 0, "the replica was not behind"
        made.outcome.notes["bytes behind"] = f"{missed:,}"
    return made.outcome


def lag(primary: Node, replica: Node) -> None:
    """From now on the replica hears nothing more."""
    replica.call("CONFIG", "SET", "masterauth", "forgotten")
    primary.call("CLIENT", "KILL", "TYPE", "replica")


def go_on_replicating(replica: Node) -> None:
    replica.call("CONFIG", "SET", "masterauth", replica.password)


def _behind(primary: Node, replica: Node) -> int:
    """Bytes of replication that the replica has not heard."""
    return int(primary.info()["master_repl_offset"]) - int(replica.info()["master_repl_offset"])


async def primary_restarted(stores: Stores[Sentinels], scale: Scale) -> Outcome:
    """The primary restarts before the Sentinels miss it: LOADING for a while, then older content."""
    primary, _ = await _pair(stores)
    async with failover("Sentinel: primary restarts, LOADING", stores, scale) as made:
        await made.load()
        await made.done(_save_slowly_loaded, primary)
        await made.load()
        await made.done(primary.kill)
        began = monotonic()
        await made.done(primary.begin)
        loading = await made.done(_await_loaded, primary)
        loaded = monotonic()
        assert loading > 0, "it never said LOADING"
        made.outcome.notes["loading"] = f"{loading:.1f} s, answering after {loaded - began:.1f} s"
        await made.load()
        await made.heal(loaded)
        await made.done(primary.forget)
    return made.outcome


def _save_slowly_loaded(node: Node) -> None:
    """Saves, and sees to it that loading that takes half a second."""
    node.call("SAVE")
    keys = int(node.call("DBSIZE"))
    each = max(1, 500_000 // keys)
    slowly = [f"key-load-delay {each}", "loading-process-events-interval-bytes 1024"]
    node.directives = [*(line for line in node.directives if "load" not in line), *slowly]


def _await_loaded(node: Node) -> float:
    """Returns once it answers; seconds in which it said LOADING."""
    began: float | None = None
    while True:
        try:
            node.call("ROLE")
            node.call("GET", "leaderboard:epoch")
            return 0.0 if began is None else monotonic() - began
        except redis.exceptions.BusyLoadingError:
            began = began or monotonic()
        except redis.exceptions.ConnectionError:
            pass


async def behind_a_balancer(stores: Stores[Sentinels], scale: Scale) -> Outcome:
    """Servers know one address, from which HAProxy leads to the primary; kill -9 of that."""
    primary, replica = await _pair(stores)
    with balanced(stores.folder / "balancer", stores.store.nodes) as url:
        async with failover("Sentinel behind HAProxy: primary killed (-9)", stores, scale, store_url=url) as made:
            await made.load()
            await made.done(primary.kill)
            promoted = await made.promoted(replica, monotonic())
            await made.done(primary.start)
            await made.load()
            await made.heal(promoted)
    return made.outcome


ALL: tuple[Scenario, ...] = (
    primary_killed,
    primary_paused,
    primary_switched,
    primary_behind,
    primary_restarted,
)

BALANCED: tuple[Scenario, ...] = (behind_a_balancer,)


# On hosts that can be cut off -------------------------------------------------------------------------------------


async def primary_cut_off(stores: Stores[Sentinels], scale: Scale) -> Outcome:
    """The primary's host is cut off from everybody; the wire is mended, and it takes itself for the primary still."""
    primary, replica = await _pair(stores)
    host = stores.store.host_of(primary)
    async with failover("Sentinel: primary's host cut off, and back", stores, scale) as made:
        await made.load()
        await made.done(host.cut_off)
        promoted = await made.promoted(replica, monotonic())
        await made.load()
        await made.done(host.join)
        assert await made.done(primary.role) == "master", "the old primary does not believe in itself"
        await made.load()
        await made.heal(promoted)
    return made.outcome


async def primary_cut_from_its_kind(stores: Stores[Sentinels], scale: Scale) -> Outcome:
    """The primary's host is cut off from replica and Sentinels alone: servers reach it, and it takes their writes."""
    primary, replica = await _pair(stores)
    store = stores.store
    host = store.host_of(primary)
    others = [other for other in store.hosts.values() if other is not host]
    async with failover("Sentinel: primary cut off from the Sentinels alone", stores, scale) as made:
        await made.load()
        await made.done(host.cut_from, *others)
        promoted = await made.promoted(replica, monotonic())
        assert await made.done(primary.role) == "master", "the old primary does not believe in itself"
        await made.load()
        await made.heal(promoted)
        assert await made.done(primary.role) == "master", "it was told meanwhile"
        await made.done(host.join_with, *others)
    return made.outcome


ON_HOSTS: tuple[Scenario, ...] = (primary_cut_off, primary_cut_from_its_kind)
