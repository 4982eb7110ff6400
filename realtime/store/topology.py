"""Topology: how the nodes of a store hang together, by the form of DRAGONFLY_URL.

Owns which kinds there are. Must never cost a command anything: a topology is asked when a connection is made, and by
the looks of every second. Assumes that each look opens a connection of its own: so a promoted replica is found by the
next one, and is what its own run says.
"""

from __future__ import annotations

from typing import Protocol

import redis.exceptions as failures

from realtime.store.cluster import Cluster
from realtime.store.endpoints import Connection, Connector, Endpoints, endpoints_of
from realtime.store.inquiry import Inquiry
from realtime.store.nodes import Nodes
from realtime.store.primary import PrimaryWay
from realtime.store.sentinels import Sentinels
from realtime.store.way import Way


class Topology(Protocol):
    """Where the partitions of a store are."""

    def way(self, partition: str) -> Way:
        """The way of a partition's connections."""
        ...

    def away(self) -> dict[str, float]:
        """1 for each node, or Sentinel, that did not answer when it was asked last, else 0; by its address."""
        ...

    def primaries(self) -> dict[str, float]:
        """1 for each address to which connections lead now, 0 for those that did before."""
        ...

    async def aclose(self) -> None:
        """Ends what is under way."""
        ...


class OneAddress:
    """Every partition is where the address leads, which may be a name that moves; its own way."""

    has_choice = False
    is_cluster = False

    def __init__(self, connector: Connector) -> None:
        self._connector = connector

    def way(self, partition: str) -> Way:
        """See `Topology.way`."""
        return self

    def away(self) -> dict[str, float]:
        """See `Topology.away`."""
        return {}

    def primaries(self) -> dict[str, float]:
        """See `Topology.primaries`."""
        return {}

    async def aclose(self) -> None:
        """See `Topology.aclose`."""

    async def connection(self, *, fresh: bool = False) -> Connection:
        """See `Way.connection`."""
        return self._connector.connection()

    def doubt(self) -> None:
        """See `Way.doubt`."""

    def take(self, error: failures.ResponseError) -> failures.ResponseError:
        """See `Way.take`."""
        return error

    def judge(self, run: str, *, is_superseded: bool) -> None:
        """See `Way.judge`."""


class OnePrimary:
    """Every partition is on the primary of several nodes."""

    def __init__(self, found: Endpoints, *, timeout: float) -> None:
        connector = Connector(found.url, timeout=timeout)
        if found.form == "sentinel":
            self._inquiry = Inquiry(Connector(found.sentinels_url, timeout=timeout), timeout=timeout)
            self._way = PrimaryWay(connector, Sentinels(found.nodes, found.service, self._inquiry).find)
        else:
            self._inquiry = Inquiry(connector, timeout=timeout)
            nodes = Nodes(found.nodes, self._inquiry)
            self._way = PrimaryWay(connector, nodes.find, nodes.judge)

    def way(self, partition: str) -> Way:
        """See `Topology.way`."""
        return self._way

    def away(self) -> dict[str, float]:
        """See `Topology.away`."""
        return dict(self._inquiry.away)

    def primaries(self) -> dict[str, float]:
        """See `Topology.primaries`."""
        return self._way.primaries()

    async def aclose(self) -> None:
        """See `Topology.aclose`."""
        await self._way.known.aclose()
        await self._inquiry.aclose()


def topology_of(url: str, *, timeout: float) -> Topology:
    """The topology that DRAGONFLY_URL names. Raises ValueError where it is no address."""
    found = endpoints_of(url)
    if found.form == "one":
        return OneAddress(Connector(url, timeout=timeout))
    if found.form == "cluster":
        return Cluster(found, timeout=timeout)
    return OnePrimary(found, timeout=timeout)
