"""A Redis with a replica and three Sentinels that promote it, on this machine or on hosts that can be cut off.

Owns its nodes. Must never wait for Sentinels to hear of each other: each finds the others written down at its first
start. Assumes `tests.support.redis_node`.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import redis

from tests.support.namespaces import Host
from tests.support.redis_node import AWAY, Node, free_ports, stop_all, until

NAME: Final = "boards"
"""What the Sentinels call it."""

DOWN_AFTER_MS: Final = 1_000
"""After so long a primary that does not answer is down."""

FAILOVER_TIMEOUT_MS: Final = 3_000

PASSWORD: Final = "of-the-sentinels"


class Sentinels:
    """A primary, its replicas, and their Sentinels, each on a host of its own where `hosts` are given (as many as there
    are nodes and Sentinels). `url` is what a deployment is told.

    Its methods block: call them through `asyncio.to_thread`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        replicas: int = 1,
        sentinels: int = 3,
        password: str = PASSWORD,
        sentinel_password: str = "",
        tls: tuple[Path, Path] | None = None,
        hosts: Sequence[Host] = (),
    ) -> None:
        self.password = password
        self.sentinel_password = sentinel_password
        self._tls = tls
        count = 1 + replicas
        ports = free_ports(count + sentinels) if not hosts else [6379] * count + [26379] * sentinels
        at = [(host.address, host.command) for host in hosts] or [("127.0.0.1", ())] * len(ports)
        self.hosts = dict(zip(range(len(ports)), hosts, strict=False))
        (first, _), first_port = at[0], ports[0]
        self.nodes = [
            Node(
                folder / f"node-{n}",
                ports[n],
                host=at[n][0],
                within=at[n][1],
                password=password,
                tls=tls,
                directives=[f"replicaof {first} {first_port}"] if n else [],
            )
            for n in range(count)
        ]
        ids = [secrets.token_hex(20) for _ in range(sentinels)]
        self.sentinels = [
            Node(
                folder / f"sentinel-{n}",
                ports[count + n],
                host=at[count + n][0],
                within=at[count + n][1],
                password=self.sentinel_password,
                tls=tls,
                sentinel=True,
                directives=self._watching(n, ids, [(at[count + m][0], ports[count + m]) for m in range(sentinels)]),
            )
            for n in range(sentinels)
        ]
        try:
            for node in self.nodes:
                node.begin()
            self.settle()
            for sentinel in self.sentinels:
                sentinel.begin()
            until(self._is_watched, "the Sentinels agree")
        except BaseException:
            self.stop()
            raise

    def _watching(self, n: int, ids: Sequence[str], at: Sequence[tuple[str, int]]) -> list[str]:
        """What a Sentinel would have written down of the others."""
        primary, *replicas = self.nodes
        quorum = len(ids) // 2 + 1
        return [
            f"sentinel myid {ids[n]}",
            *([f"sentinel sentinel-pass {self.sentinel_password}"] if self.sentinel_password else []),
            f"sentinel monitor {NAME} {primary.host} {primary.port} {quorum}",
            *([f"sentinel auth-pass {NAME} {self.password}"] if self.password else []),
            f"sentinel down-after-milliseconds {NAME} {DOWN_AFTER_MS}",
            f"sentinel failover-timeout {NAME} {FAILOVER_TIMEOUT_MS}",
            *(f"sentinel known-replica {NAME} {replica.host} {replica.port}" for replica in replicas),
            *(f"sentinel known-sentinel {NAME} {host} {port} {ids[m]}" for m, (host, port) in enumerate(at) if m != n),
        ]

    def stop(self) -> None:
        stop_all([*self.sentinels, *self.nodes])

    def mend(self) -> None:
        """All nodes run again, whatever was done to them, and one of them is the primary."""
        for host in self.hosts.values():
            host.join()
        for node in (*self.nodes, *self.sentinels):
            if node.is_running:
                node.go_on()
            else:
                node.begin()
        self.put_right()

    def put_right(self) -> None:
        """Who still takes itself for the primary is told, as the Sentinels would within some ten seconds."""
        for node in (*self.nodes, *self.sentinels):
            node.answers()
        primary = self.primary
        for node in self.nodes:
            if node is not primary and node.role() == "master":
                node.call("REPLICAOF", primary.host, primary.port)
        self.settle()

    @property
    def url(self) -> str:
        """As a deployment is told of it."""
        return self.url_of(self.sentinels)

    def url_of(self, sentinels: Sequence[Node]) -> str:
        """The same, of some Sentinels."""
        some = ",".join(node.address for node in sentinels)
        theirs = f"sentinel_password={self.sentinel_password}" if self.sentinel_password else ""
        return f"{self._beginning('+sentinel')}{some}/{NAME}/0{self._options(theirs)}"

    @property
    def list_url(self) -> str:
        """Primary and replicas by their addresses, for who asks no Sentinel."""
        some = ",".join(node.address for node in self.nodes)
        return f"{self._beginning()}{some}/0{self._options()}"

    def _beginning(self, form: str = "") -> str:
        return f"{'rediss' if self._tls else 'redis'}{form}://" + (f":{self.password}@" if self.password else "")

    def _options(self, *options: str) -> str:
        given = [option for option in (*options, f"ssl_ca_certs={self._tls[0]}" if self._tls else "") if option]
        return f"?{'&'.join(given)}" if given else ""

    def settle(self) -> None:
        """Returns once every node that runs answers, and every replica has what its primary has."""
        for node in self.nodes:
            if node.is_running:
                node.answers()
        until(self._is_settled, "the replicas are up to date")

    def _is_settled(self) -> bool:
        roles = [node.call("ROLE") for node in self.nodes if node.is_running]
        return sum(role[0] == "master" for role in roles) == 1 and all(
            role[0] == "master" or role[3] == "connected" for role in roles
        )

    def _is_watched(self) -> bool:
        return all(
            str(sentinel.call("SENTINEL", "CKQUORUM", NAME)).startswith(("OK", "True")) for sentinel in self.sentinels
        )

    # Who is what --------------------------------------------------------------------------------------------------

    @property
    def primary(self) -> Node:
        """The one that most Sentinels name."""
        named = [node for node in map(self._named_by, self.sentinels) if node is not None]
        assert named, "no Sentinel answers"
        return max(named, key=named.count)

    def _named_by(self, sentinel: Node) -> Node | None:
        if not sentinel.is_running:
            return None
        try:
            host, port = sentinel.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME, socket_timeout=0.5)
        except (*AWAY, TypeError):
            return None
        return next(node for node in self.nodes if (node.host, node.port) == (host, int(port)))

    @property
    def replica(self) -> Node:
        """One that is not."""
        primary = self.primary
        return next(node for node in self.nodes if node is not primary)

    def primaries(self) -> list[Node]:
        """The one."""
        return [self.primary]

    def host_of(self, node: Node) -> Host:
        """Where a node or Sentinel runs."""
        return self.hosts[[*self.nodes, *self.sentinels].index(node)]

    def client(self, **options: Any) -> redis.Redis:
        """A client of whoever is the primary now."""
        return self.primary.client(**options)

    # What is done to it -------------------------------------------------------------------------------------------

    def promote(self) -> Node:
        """Has the Sentinels promote the replica, though nothing is wrong; returns it once all of them name it."""
        replica = self.replica
        sentinel = next(sentinel for sentinel in self.sentinels if sentinel.is_running)

        def is_begun() -> bool:
            try:
                return bool(sentinel.call("SENTINEL", "FAILOVER", NAME))
            except redis.ResponseError as error:  # one is under way, or no replica is known to be well yet
                if "INPROG" in str(error) or "NOGOODSLAVE" in str(error):
                    return False
                raise

        until(is_begun, "a failover begins")
        self.await_promotion(replica)
        return replica

    def await_promotion(self, replica: Node) -> None:
        """Returns once it takes writes, and every Sentinel that answers names it."""

        def is_known() -> bool:
            named = [node for node in map(self._named_by, self.sentinels) if node is not None]
            return bool(named) and all(node is replica for node in named) and replica.role() == "master"

        until(is_known, f"{replica} is promoted")


@contextmanager
def sentinels(folder: Path, **options: Any) -> Iterator[Sentinels]:
    """A Redis with its Sentinels for the block."""
    made = Sentinels(folder, **options)
    try:
        yield made
    finally:
        made.stop()
