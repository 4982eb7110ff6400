"""A Redis cluster for tests: three primaries, each with a replica, on this machine.

Owns its nodes, and who of them has which slots. Must never wait for gossip where it can be told: each node finds the
whole cluster written down at its first start, as if it had been a member before. Assumes `tests.support.redis_node`.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import redis
from redis.crc import key_slot

from tests.support.redis_node import AWAY, Node, free_ports, stop_all, until

SLOTS: Final = 16_384

NODE_TIMEOUT_MS: Final = 1_000
"""After so long a node that does not answer is suspected; within two more of these its replica is promoted."""

PASSWORD: Final = "of-the-cluster"

KEYS_A_MOVE: Final = 200
"""Keys of a slot that move to another node in one command."""


class Cluster:
    """A cluster of `primaries`, each with `replicas`. `url` is what a deployment is told.

    Its methods block: call them through `asyncio.to_thread`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        primaries: int = 3,
        replicas: int = 1,
        password: str = PASSWORD,
        tls: tuple[Path, Path] | None = None,
        full_coverage: bool = False,
    ) -> None:
        self.password = password
        self._tls = tls
        directives = (
            "cluster-enabled yes",
            "cluster-config-file nodes.conf",
            f"cluster-node-timeout {NODE_TIMEOUT_MS}",
            "cluster-replica-validity-factor 0",  # somebody is better than nobody: what is missing is made again
            f"cluster-require-full-coverage {'yes' if full_coverage else 'no'}",
            "cluster-allow-replica-migration no",
            *(["tls-cluster yes"] if tls else []),
        )
        ports = free_ports(primaries * (1 + replicas))
        self.nodes = [
            Node(folder / f"node-{n}", port, password=password, tls=tls, directives=directives)
            for n, port in enumerate(ports)
        ]
        self._ids = {node: secrets.token_hex(20) for node in self.nodes}
        try:
            self._write_down(primaries, replicas)
            for node in self.nodes:
                node.begin()
            self.settle()
        except BaseException:
            self.stop()
            raise

    def _write_down(self, primaries: int, replicas: int) -> None:
        """Writes for each node what a member of this cluster would have kept."""
        owners = self.nodes[:primaries]
        bounds = [SLOTS * n // primaries for n in range(primaries + 1)]
        for myself in self.nodes:
            lines = []
            for n, node in enumerate(self.nodes):
                is_owner = n < primaries
                flags = ("myself," if node is myself else "") + ("master" if is_owner else "slave")
                owner = owners[n if is_owner else (n - primaries) % primaries]
                slots = f" {bounds[n]}-{bounds[n + 1] - 1}" if is_owner else ""
                epoch = owners.index(owner) + 1
                lines.append(
                    f"{self._ids[node]} {node.host}:{node.port}@{node.port + 10_000} {flags}"
                    f" {'-' if is_owner else self._ids[owner]} 0 0 {epoch} connected{slots}\n"
                )
            lines.append(f"vars currentEpoch {primaries} lastVoteEpoch 0\n")
            (myself.folder / "nodes.conf").write_text("".join(lines))

    def stop(self) -> None:
        stop_all(self.nodes)

    def mend(self) -> None:
        """All nodes run again, whatever was done to them."""
        for node in self.nodes:
            if node.is_running:
                node.go_on()
            else:
                node.begin()
        self.settle()

    @property
    def url(self) -> str:
        """As a deployment is told of it: some of the nodes are enough, and those may be replicas."""
        some = ",".join(node.address for node in self.nodes)
        scheme = "rediss" if self._tls else "redis"
        account = f":{self.password}@" if self.password else ""
        certificate = f"?ssl_ca_certs={self._tls[0]}" if self._tls else ""
        return f"{scheme}+cluster://{account}{some}{certificate}"

    def settle(self) -> None:
        """Returns once every node says that all slots are served, and every replica has what its primary has."""
        for node in self.nodes:
            node.answers()
        until(self._is_settled, "the cluster settles")

    def _is_settled(self) -> bool:
        for node in self.nodes:
            said = dict(line.split(":", 1) for line in node.call("CLUSTER", "INFO").splitlines() if ":" in line)
            if said["cluster_state"] != "ok" or said["cluster_slots_ok"] != str(SLOTS):
                return False
            role = node.call("ROLE")
            if role[0] == "slave" and role[3] != "connected":
                return False
        return True

    def client(self, **options: Any) -> redis.RedisCluster:
        """Who follows the cluster wherever it goes, and shares no code with the server."""
        return redis.RedisCluster.from_url(
            self.running[0].url.partition("/0")[0], decode_responses=True, socket_timeout=5, **options
        )

    # Who is what --------------------------------------------------------------------------------------------------

    @property
    def running(self) -> list[Node]:
        return [node for node in self.nodes if node.is_running]

    def id_of(self, node: Node) -> str:
        return self._ids[node]

    def primaries(self) -> list[Node]:
        """By what a majority of nodes that answer would say: the owners of slots, in the order of these."""
        owners: dict[Node, int] = {}
        for first, last, owner in self._ranges():
            owners.setdefault(owner, first)
            assert last >= first
        return sorted(owners, key=lambda node: owners[node])

    def owner(self, slot: int) -> Node:
        """The primary that has a slot."""
        return next(owner for first, last, owner in self._ranges() if first <= slot <= last)

    def owner_of(self, key: str) -> Node:
        """The primary that has a key."""
        return self.owner(slot_of(key))

    def _ranges(self) -> Iterator[tuple[int, int, Node]]:
        by_id = {node_id: node for node, node_id in self._ids.items()}
        for node in self.running:
            try:
                ranges = node.call("CLUSTER", "SLOTS")
            except AWAY:
                continue
            for first, last, owner in _slots(ranges):
                yield first, last, by_id[owner]
            return
        raise AssertionError("no node answers")

    def replica_of(self, primary: Node) -> Node:
        """A replica that has what a primary has, or did before that went away."""
        found = next(iter(self.replicas_of(primary)), None)
        assert found is not None, f"{primary} has no replica"
        return found

    def replicas_of(self, primary: Node) -> list[Node]:
        for node in self.running:
            try:
                lines = node.call("CLUSTER", "NODES", decode_responses=False).decode().splitlines()
            except AWAY:
                continue
            of_it = {line.split()[0] for line in lines if line.split()[3] == self._ids[primary]}
            return [one for one in self.running if self._ids[one] in of_it]
        raise AssertionError("no node answers")

    # What is done to it -------------------------------------------------------------------------------------------

    def promote(self, replica: Node, how: str = "") -> None:
        """Has a replica take its primary's place: in agreement with it, or (`FORCE`, `TAKEOVER`) without; returns once
        every node that runs knows."""
        replica.call("CLUSTER", "FAILOVER", *([how] if how else []))
        self.await_promotion(replica)

    def await_promotion(self, replica: Node) -> None:
        """Returns once a replica is a primary in the eyes of every node that answers."""

        def is_known() -> bool:
            answering = [node for node in self.running if self._answers(node)]
            return all(self._ids[replica] in set(self._owners_by(node)) for node in answering)

        until(is_known, f"{replica} is promoted")

    def _answers(self, node: Node) -> bool:
        try:
            return bool(node.call("PING", socket_timeout=0.3, socket_connect_timeout=0.3))
        except AWAY:
            return False

    def _owners_by(self, node: Node) -> Iterator[str]:
        return (owner for _, _, owner in _slots(node.call("CLUSTER", "SLOTS")))

    def move(self, slot: int, to: Node) -> int:
        """Moves a slot with all its keys, as redis-cli does; returns how many keys there were."""
        self.begin_move(slot, to)
        moved = self.move_keys(slot, to)
        self.end_move(slot, to)
        return moved

    def begin_move(self, slot: int, to: Node) -> None:
        """From here on the slot's new keys are made at the other node, who is asked for them (ASK)."""
        source = self.owner(slot)
        to.call("CLUSTER", "SETSLOT", slot, "IMPORTING", self._ids[source])
        source.call("CLUSTER", "SETSLOT", slot, "MIGRATING", self._ids[to])

    def move_keys(self, slot: int, to: Node, most: int = 10**9) -> int:
        """Moves at most so many keys of a slot; returns how many."""
        source = self.owner(slot)
        moved = 0
        with source.client() as client:
            while moved < most:
                keys = client.execute_command("CLUSTER", "GETKEYSINSLOT", slot, min(KEYS_A_MOVE, most - moved))
                if not keys:
                    break
                account = ["AUTH", self.password] if self.password else []
                client.execute_command("MIGRATE", to.host, to.port, "", 0, 5000, *account, "KEYS", *keys)
                moved += len(keys)
        return moved

    def end_move(self, slot: int, to: Node) -> None:
        """The other node has the slot from here on; all primaries are told."""
        source = self.owner(slot)
        others = [node for node in self.primaries() if node not in (to, source)]
        for node in (to, source, *others):
            node.call("CLUSTER", "SETSLOT", slot, "NODE", self._ids[to])


def slot_of(key: str) -> int:
    """The slot that a key, or a tag in braces, falls into."""
    return int(key_slot(key.encode()))


def _slots(said: Any) -> Iterator[tuple[int, int, str]]:
    """First and last slot and the owner's id, of a reply to CLUSTER SLOTS."""
    for first, last, owner, *_ in said:
        yield int(first), int(last), owner[2] if isinstance(owner[2], str) else owner[2].decode()


@contextmanager
def redis_cluster(folder: Path, **options: Any) -> Iterator[Cluster]:
    """A cluster for the block."""
    made = Cluster(folder, **options)
    try:
        yield made
    finally:
        made.stop()


def some_of(nodes: Sequence[Node], other: Node) -> Node:
    """A node besides the one."""
    return next(node for node in nodes if node is not other)
