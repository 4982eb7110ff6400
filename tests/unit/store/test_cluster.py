"""Clusters: what nodes say of their slots, and whose word counts."""

from __future__ import annotations

from typing import Any

import pytest
import redis.exceptions as failures

from realtime.store.cluster import Cluster, newest, told_of, unfit_for_cluster
from realtime.store.endpoints import Endpoint, endpoints_of
from realtime.store.way import Elsewhere

ASKED = Endpoint("asked", 7000)


def info(state: str = "ok", epoch: int = 3) -> bytes:
    return f"cluster_state:{state}\r\ncluster_slots_ok:16384\r\ncluster_current_epoch:{epoch}\r\n".encode()


SLOTS: list[Any] = [
    [8192, 16383, [b"10.0.0.2", 7001, b"b", []]],
    [0, 4095, [b"10.0.0.1", 7000, b"a", []], [b"10.0.0.3", 7002, b"c"]],
    [4096, 5000, [b"", 7000, b"d"]],
    [6000, 6000, [None, 7005, b"e"]],
    [7000, 7001, [b"?", 7000, b"f"]],
]


def test_slots_are_found_where_the_cluster_says_and_gaps_are_nobodys() -> None:
    told = told_of(ASKED, [info(), SLOTS])
    assert told is not None and told.is_up and told.epoch == 3
    at = {slot: told.node_of(slot) for slot in (0, 4095, 4096, 5000, 5001, 6000, 7000, 8191, 8192, 16383)}
    first, second, own = Endpoint("10.0.0.1", 7000), Endpoint("10.0.0.2", 7001), Endpoint("asked", 7000)
    assert at == {
        0: first, 4095: first, 4096: own, 5000: own, 5001: None, 6000: Endpoint("asked", 7005), 7000: None, 8191: None,
        8192: second, 16383: second,
    }  # fmt: skip
    assert Endpoint("10.0.0.3", 7002) in told.nodes, "replicas are asked too"


@pytest.mark.parametrize(
    "answer",
    [
        OSError("away"),
        [failures.ResponseError("cluster support disabled"), []],
        [info(), failures.ResponseError("no")],
        [b"nonsense", SLOTS],
        [info(), [[b"x"]]],
        [],
    ],
)
def test_who_says_nothing_of_use_is_not_believed(answer: Any) -> None:
    assert told_of(ASKED, answer) is None


def test_the_word_of_a_cluster_that_is_up_and_newest_counts() -> None:
    down, old, new = (told_of(ASKED, [info(*of), SLOTS]) for of in (("fail", 9), ("ok", 3), ("ok", 4)))
    assert down and old and new
    assert newest([old, down, new]) is new and newest([down]) is down and newest([]) is None


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (failures.MovedError("7 10.0.0.9:7000"), "has moved"),
        (failures.AskError("7 10.0.0.9:7000"), "being moved"),
        (failures.TryAgainError("Multiple keys request during rehashing of slot"), "being moved"),
        (failures.ClusterDownError("The cluster is down"), "no majority"),
        (failures.ReadOnlyError("You can't write against a read only replica."), "a failover may be under way"),
    ],
)
def test_what_means_that_nothing_was_run_says_so(error: failures.ResponseError, says: str) -> None:
    cluster = Cluster(endpoints_of("redis+cluster://h1"), timeout=1.0)
    taken = cluster.take(error)
    assert isinstance(taken, Elsewhere) and says in str(taken)
    if isinstance(error, failures.MovedError):
        assert cluster._moved == {7: Endpoint("10.0.0.9", 7000)}
    other = failures.ResponseError("WRONGTYPE")
    assert cluster.take(other) is other


def test_a_cluster_needs_sharded_channels() -> None:
    assert "Redis 6.2.14" in str(unfit_for_cluster({"redis_version": "6.2.14"}))
    for fit in ({"redis_version": "7.0.15"}, {"redis_version": "7.2.4", "valkey_version": "8.1.0"}):
        assert unfit_for_cluster(fit) is None
    assert unfit_for_cluster({"redis_version": "7.4.0", "dragonfly_version": "df-v1.40.1"}) is None


def test_every_partition_has_one_slot() -> None:
    cluster = Cluster(endpoints_of("redis+cluster://h1"), timeout=1.0)
    slots = {cluster.way(partition)._slot for partition in ("", *(f"p{n:02}" for n in range(16)))}
    assert len(slots) == 17
