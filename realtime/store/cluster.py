"""Cluster: a store whose nodes share the slots of its keys; each partition, by its tag, is in one of them.

Owns which node has which slot, as this process knows it. Must never send a command to the node that a reply names
(MOVED, ASK): another node is another run of the store, so what was meant for the content here is not run there. Only
the connections of its partition are led there; what they meet is judged by its own run, and made anew where it is not
ours. Assumes that a cluster counts its configurations (`cluster_current_epoch`), as Redis, Valkey and Dragonfly do
(redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec).

While a slot is moved key by key, its partition is in two places. The node that has the slot still runs what needs keys
that are all there, and refuses all else (ASK, TRYAGAIN): so nothing is read or written as if it were whole, and nothing
goes to the other node (that would take ASKING) before the slot is its own.
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping
from contextlib import aclosing, suppress
from typing import Any, Final, NamedTuple

import redis.exceptions as failures
from redis.crc import key_slot

from realtime.store.endpoints import Connection, Connector, Endpoint, Endpoints
from realtime.store.engines import engine_of
from realtime.store.inquiry import NODES_TOLD, Answer, Inquiry
from realtime.store.keys import Keys
from realtime.store.primary import OTHER_NODE
from realtime.store.way import ELSEWHERE, Elsewhere, Known, Lost

log = logging.getLogger(__name__)

ASKED: Final = 3
"""Nodes that are asked at a time."""

MOVED: Final = "its slot has moved to another node of the cluster"
MOVING: Final = "its slot is being moved to another node of the cluster"
DOWN: Final = "the cluster has no majority, or no node for some of its slots"


class Told(NamedTuple):
    """What a node says of its cluster."""

    is_up: bool
    epoch: int
    """Of the configuration: higher with every failover and every slot that moved."""
    slots: tuple[tuple[int, int, Endpoint], ...]
    """First and last of some slots, and the node that has them; in order."""
    nodes: tuple[Endpoint, ...]
    """All that it knows, primaries and replicas."""

    def node_of(self, slot: int) -> Endpoint | None:
        """The node that has a slot; None where none has."""
        place = bisect_right(self.slots, slot, key=lambda one: one[0]) - 1
        if place < 0 or slot > self.slots[place][1]:
            return None
        return self.slots[place][2]


def told_of(asked: Endpoint, answer: Answer) -> Told | None:
    """What a node's replies to CLUSTER INFO and CLUSTER SLOTS say; None where they say nothing."""
    with suppress(ValueError, TypeError, IndexError, AttributeError, KeyError):
        info, slots = answer  # type: ignore[misc]  # an exception is nothing to be taken apart: a TypeError
        fields = dict(line.split(":", 1) for line in info.decode().splitlines() if ":" in line)
        rows = [(int(first), int(last), list(_endpoints(asked, nodes))) for first, last, *nodes in slots]
        owned = sorted((first, last, nodes[0]) for first, last, nodes in rows if nodes and nodes[0] is not None)
        known = dict.fromkeys(node for _, _, nodes in rows for node in nodes if node is not None)
        is_up = fields["cluster_state"] == "ok"
        return Told(is_up, int(fields["cluster_current_epoch"]), tuple(owned), tuple(known))
    return None


def _endpoints(asked: Endpoint, nodes: list[Any]) -> Iterator[Endpoint | None]:
    for host, port, *_ in nodes:
        name = host.decode() if host is not None else ""
        # An empty host is the one that was asked; of one that is not known the cluster says "?".
        yield None if name == "?" or not port else Endpoint(name or asked.host, int(port))


def newest(told: Collection[Told]) -> Told | None:
    """Whose word counts: of those whose cluster is up the one of the newest configuration, else of all."""
    return max(told, key=lambda one: (one.is_up, one.epoch, len(one.slots)), default=None)


def unfit_for_cluster(info: Mapping[str, str]) -> str | None:
    """Why a node cannot be one of a cluster here; None where it can."""
    engine = engine_of(info)
    if engine.name == "Redis" and engine.version < (7,):
        return (
            f"it is a cluster of {engine}, which has no sharded channels. A cluster needs Redis 7, Valkey or Dragonfly."
        )
    return None


class Cluster:
    """Where the slots are."""

    def __init__(self, found: Endpoints, *, timeout: float) -> None:
        self._connector = Connector(found.url, timeout=timeout)
        self._inquiry = Inquiry(self._connector, timeout=timeout)
        self._seeds = found.nodes
        self._turn = 0
        self._moved: dict[int, Endpoint] = {}  # what nodes said since the map was made
        self._known = Known(self._find)
        self._was: dict[str, float] = {}

    def way(self, partition: str) -> ClusterWay:
        """See `Topology.way`."""
        return ClusterWay(self, key_slot(Keys(partition, clustered=True).epoch.encode()))

    async def node_of(self, slot: int, *, fresh: bool = False) -> Endpoint:
        """The node that has a slot. Raises Lost, or what a node answers that refuses us."""
        told = await self._known.get(fresh=fresh)
        node = self._moved.get(slot) or told.node_of(slot)
        if node is None:
            raise Lost(f"no node of the cluster has slot {slot}")
        return node

    async def node_of_key(self, key: str) -> Endpoint:
        """The node that has a key's slot. Raises as `node_of` does."""
        return await self.node_of(key_slot(key.encode()))

    def connection(self, node: Endpoint) -> Connection:
        """A connection, not yet opened, to a node."""
        return self._connector.connection(node)

    def nodes(self) -> tuple[Endpoint, ...]:
        """All nodes that are known, primaries and replicas."""
        return self._known.last.nodes if self._known.last is not None else ()

    def doubt(self) -> None:
        """A node did not answer, or is not what it was taken for."""
        self._known.doubt()

    def take(self, error: failures.ResponseError) -> failures.ResponseError:
        """See `Way.take`."""
        if isinstance(error, failures.TryAgainError):
            return Elsewhere(MOVING)
        if not isinstance(error, ELSEWHERE):
            return error
        self._known.doubt()
        if isinstance(error, failures.MovedError):
            if error.host:
                self._moved[error.slot_id] = Endpoint(error.host.strip("[]"), error.port)
            return Elsewhere(MOVED)
        if isinstance(error, failures.AskError):
            return Elsewhere(MOVING)
        if isinstance(error, failures.ClusterDownError):
            return Elsewhere(DOWN)
        return Elsewhere(OTHER_NODE) if isinstance(error, failures.ReadOnlyError) else error

    async def _find(self) -> Told:
        """The newest map of the slots that a node tells.

        A few nodes are asked at a time, in turns: one that was cut off knows an older configuration than was seen
        before, and is not believed while another answers.
        """
        before = self._known.last
        least = before.epoch if before is not None else 0
        told: list[Told] = []
        refusal: failures.RedisError | None = None
        for some in self._turns():
            commands = (("CLUSTER", "INFO"), ("CLUSTER", "SLOTS"))
            async with aclosing(self._inquiry.ask(some, *commands)) as answers:
                async for node, answer in answers:
                    one = told_of(node, answer)
                    if one is None:
                        refusal = _refusal(answer) or refusal
                        continue
                    told.append(one)
                    if one.is_up and one.epoch >= least:
                        return self._taken(one)
        found = newest(told)
        if found is None and refusal is not None:
            raise refusal
        if found is not None:
            return self._taken(found)
        if before is None:
            raise Lost("no node of the cluster answers")
        return before  # who waits longer may be answered where it led to

    def _turns(self) -> Iterator[list[Endpoint]]:
        """All nodes, a few at a time; those first that answered, and each time another first."""
        nodes = list(dict.fromkeys((*self.nodes(), *self._seeds)))
        self._turn += 1
        at = self._turn % len(nodes)
        nodes = sorted(nodes[at:] + nodes[:at], key=lambda node: self._inquiry.away.get(str(node), 0.0))
        for start in range(0, len(nodes), ASKED):
            yield nodes[start : start + ASKED]

    def _taken(self, told: Told) -> Told:
        self._moved.clear()
        addresses = dict.fromkeys((str(node) for _, _, node in told.slots), 1.0)
        if addresses.keys() != {address for address, now in self._was.items() if now}:
            log.info("the cluster's slots are on %s", ", ".join(addresses), extra={"action": "store"})
            self._was = dict(list({**dict.fromkeys(self._was, 0.0), **addresses}.items())[-NODES_TOLD:])
        return told

    def away(self) -> dict[str, float]:
        """See `Topology.away`."""
        return dict(self._inquiry.away)

    def primaries(self) -> dict[str, float]:
        """See `Topology.primaries`."""
        return dict(self._was)

    async def aclose(self) -> None:
        """See `Topology.aclose`."""
        await self._known.aclose()
        await self._inquiry.aclose()


class ClusterWay:
    """The way to one slot."""

    has_choice = True
    is_cluster = True

    def __init__(self, cluster: Cluster, slot: int) -> None:
        self._cluster = cluster
        self._slot = slot

    async def connection(self, *, fresh: bool = False) -> Connection:
        """See `Way.connection`."""
        return self._cluster.connection(await self._cluster.node_of(self._slot, fresh=fresh))

    def doubt(self) -> None:
        """See `Way.doubt`."""
        self._cluster.doubt()

    def take(self, error: failures.ResponseError) -> failures.ResponseError:
        """See `Way.take`."""
        return self._cluster.take(error)

    def judge(self, run: str, *, is_superseded: bool) -> None:
        """See `Way.judge`: a slot is on one node."""


class NodeWay(ClusterWay):
    """The way to one node, whatever slots it has."""

    def __init__(self, cluster: Cluster, node: Endpoint) -> None:
        super().__init__(cluster, -1)
        self._node = node

    async def connection(self, *, fresh: bool = False) -> Connection:
        """See `Way.connection`."""
        return self._cluster.connection(self._node)


def _refusal(answer: Answer) -> failures.RedisError | None:
    """What a node says that answers, and lets us ask nothing."""
    said = (
        answer if isinstance(answer, Exception) else next((one for one in answer if isinstance(one, Exception)), None)
    )
    return said if isinstance(said, failures.AuthenticationError | failures.ResponseError) else None
