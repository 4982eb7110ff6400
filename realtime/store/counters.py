"""Counters: numbers that expire, such as limits have; the only content that nobody can make anew.

Owns where they are. Must never keep a caller waiting for a node that is away, or let one node that is away spoil what
others count. Assumes that whoever counts goes by its own count where there is no answer.

On one store they are beside the published content. On a cluster each is on whichever node its name falls to: so they
are spread evenly, however few partitions there are, and a content that is being made anew stops no limit; those of one
node go in one exchange. The counters of a node that fails over are as old as its replica was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import redis.exceptions as failures

from realtime.errors import StoreUnavailable
from realtime.store.cluster import Cluster, NodeWay
from realtime.store.outages import mapped
from realtime.store.pool import Command, Pool, checked
from realtime.store.way import Elsewhere

if TYPE_CHECKING:
    from realtime.store.endpoints import Endpoint
    from realtime.store.link import Link

CONNECTIONS: Final = 4
"""Connections at most to each node of a cluster."""

PATIENCE: Final = 0.2
"""Seconds that a node of a cluster may take: beyond, it counts as away."""

PAUSE: Final = 1.0
"""Seconds for which it is then not asked."""


class Counters:
    """Counts in the store. Raises StoreUnavailable and its kin."""

    def __init__(self, link: Link, cluster: Cluster | None, *, timeout: float) -> None:
        self._link = link
        self._cluster = cluster
        self._timeout = min(timeout, PATIENCE)
        self._pools: dict[Endpoint, Pool] = {}
        self._away_until: dict[Endpoint, float] = {}  # the loop's seconds

    async def aclose(self) -> None:
        """Closes every connection."""
        for pool in self._pools.values():
            await pool.disconnect()

    async def count(self, amounts: Mapping[str, int], seconds: int) -> list[int | None]:
        """Adds amounts to counters, which expire `seconds` after the last addition; returns each new total, in order;
        None for those whose node is away.

        Raises StoreUnavailable where all are, and ForeignContent where one of the keys is no counter: then all of them
        begin anew, and boards stay trusted.
        """
        with mapped():
            if self._cluster is None:
                totals = await _counted(self._link.checked, amounts, seconds)
                return [totals[key] for key in amounts]
            found: dict[str, int] = {}
            for _ in range(2):  # a slot has moved: nothing was counted there, and its node is known now
                left = {key: amount for key, amount in amounts.items() if key not in found}
                if left:
                    found |= await self._count_by_node(self._cluster, left, seconds)
        if not found:
            raise StoreUnavailable("no node counts")
        return [found.get(key) for key in amounts]

    async def _count_by_node(self, cluster: Cluster, amounts: Mapping[str, int], seconds: int) -> dict[str, int]:
        by_node: dict[Endpoint, dict[str, int]] = {}
        for key, amount in amounts.items():
            by_node.setdefault(await cluster.node_of_key(key), {})[key] = amount
        await self._forget(set(cluster.nodes()).union(by_node))
        counts = [self._count_on(cluster, node, own, seconds) for node, own in by_node.items()]
        return {key: total for one in await asyncio.gather(*counts) for key, total in one.items()}

    async def _count_on(
        self, cluster: Cluster, node: Endpoint, amounts: Mapping[str, int], seconds: int
    ) -> dict[str, int]:
        now = asyncio.get_running_loop().time()
        if now < self._away_until.get(node, now):
            return {}
        pool = self._pools.get(node)
        if pool is None:
            pool = self._pools[node] = Pool(NodeWay(cluster, node), limit=CONNECTIONS, timeout=self._timeout)
        try:
            return await _counted(pool, amounts, seconds)
        except failures.ResponseError as error:
            if isinstance(error, Elsewhere | failures.BusyLoadingError | failures.MasterDownError):
                return {}
            raise
        except (failures.RedisError, OSError, TimeoutError):
            self._away_until[node] = now + PAUSE
            return {}

    async def _forget(self, known: set[Endpoint]) -> None:
        """Closes connections to nodes that are no more."""
        for node in self._pools.keys() - known:
            await self._pools.pop(node).disconnect()
            self._away_until.pop(node, None)


async def _counted(pool: Pool, amounts: Mapping[str, int], seconds: int) -> dict[str, int]:
    commands: list[Command] = []
    for key, amount in amounts.items():
        commands += (("INCRBY", key, amount), ("EXPIRE", key, seconds))
    replies: list[Any] = await pool.exchange(*commands)
    counts, is_elsewhere = {}, False
    for key, reply in zip(amounts, replies[::2], strict=True):
        is_elsewhere = is_elsewhere or isinstance(reply, Elsewhere)
        if not isinstance(reply, Exception):
            counts[key] = int(reply)
    if is_elsewhere:
        return counts
    try:
        checked(replies)
    except failures.ResponseError:
        for key in amounts:
            await pool.ask("DEL", key)
        raise
    return counts
