"""A store of several nodes: a replica that was promoted is found, by a list of nodes and by Sentinels, and never passes
for the primary before it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from realtime.boards.board import ALL_TIME
from realtime.boards.standings import Row
from realtime.errors import StoreChanged, StoreUnavailable, StoreUnfit
from realtime.store.fitness import run_of
from realtime.store.store import Store
from tests.support.certificates import certified
from tests.support.redis_node import Node, free_ports, stop_all, until
from tests.support.sentinels import Sentinels
from tests.support.stores import GIVEN_STORE, as_told, make_ours
from tests.support.waiting import PATIENCE

PASSWORD = "a-password"
SEEN = 2.0
"""Seconds within which a promotion is seen."""

pytestmark = pytest.mark.skipif(bool(GIVEN_STORE), reason="the store of DRAGONFLY_URL is not ours to kill")


def nodes_of(folder: Path, count: int) -> list[Node]:
    """A primary and replicas of it."""
    ports = free_ports(count)
    follow_first = [f"replicaof 127.0.0.1 {ports[0]}"]
    nodes = [
        Node(folder / str(n), port, password=PASSWORD, directives=follow_first if n else [])
        for n, port in enumerate(ports)
    ]
    for node in nodes:
        node.start()
    until(lambda: all(node.call("ROLE")[3] == "connected" for node in nodes[1:]), "the replicas follow")
    return nodes


def follow(node: Node, other: Node | None) -> None:
    """Makes it a replica of another node, in step with it, or a primary."""
    if other is None:
        node.call("REPLICAOF", "NO", "ONE")
        return
    node.call("REPLICAOF", other.host, other.port)
    until(lambda: node.call("ROLE")[3] == "connected", f"{node} follows")


def run_of_node(node: Node) -> str:
    return run_of(as_told(node.info()))


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[Store, list[Node]]]:
    """A store that is a list of a primary and its replica, its content adopted."""
    nodes = await asyncio.to_thread(nodes_of, tmp_path, 2)
    store = Store(url_of(nodes), timeout=1.5)
    await make_ours(store)
    yield store, nodes
    await store.aclose()
    await asyncio.to_thread(stop_all, nodes)


def url_of(nodes: list[Node], password: str = PASSWORD) -> str:
    return f"redis://:{password}@{','.join(node.address for node in nodes)}/0"


async def seen_within(store: Store, node: Node, seconds: float = SEEN) -> None:
    """Returns once a look meets that node; as the watch does, one look a second."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    while True:
        try:
            found = await store.adopt()
            if found.run == await asyncio.to_thread(run_of_node, node):
                break
        except StoreUnavailable:
            pass
        assert loop.time() - began < seconds, "it is not found"
        await asyncio.sleep(0.3)
    assert loop.time() - began < seconds


async def test_a_promoted_replica_is_found_and_its_content_is_not_ours(pair: tuple[Store, list[Node]]) -> None:
    store, (old, new) = pair
    await store.apply({ALL_TIME: [Row(7, 1, 10)]})
    await asyncio.to_thread(follow, new, None)
    await asyncio.to_thread(old.kill)
    await seen_within(store, new)
    content = await store.adopt()
    assert content.epoch is not None and not content.is_ours, "it has the keys of the primary before"
    with pytest.raises(StoreChanged):
        await store.apply({ALL_TIME: [Row(7, 2, 20)]})
    await make_ours(store)
    assert await store.apply({ALL_TIME: [Row(7, 2, 20)]}) == 1
    assert store.topology.away()[old.address] == 1
    assert store.topology.primaries()[new.address] == 1
    await asyncio.to_thread(old.start)
    await asyncio.to_thread(follow, old, new)
    await seen_within(store, new)
    assert store.is_complete, "a node that comes back as a replica changes nothing"
    async with asyncio.timeout(PATIENCE):
        while store.topology.away()[old.address]:
            await asyncio.sleep(0.3)
            await store.adopt()


async def test_a_primary_that_hangs_is_left_and_comes_back_believing(pair: tuple[Store, list[Node]]) -> None:
    store, (old, new) = pair
    await asyncio.to_thread(old.pause)
    try:
        await asyncio.to_thread(follow, new, None)
        await seen_within(store, new, SEEN + store.link.timeout)
        await make_ours(store)
    finally:
        old.go_on()
    for _ in range(3):
        await store.adopt()
        await asyncio.sleep(0.6)
        assert store.is_complete, "the one in use stays"
    # A process that starts now meets the first of the list, and what it holds is not what the ledger names.
    other = Store(url_of([old, new]), timeout=1.5)
    try:
        content = await other.adopt()
        assert content.is_complete and content.epoch != store.epoch
        other.distrust("superseded")
        await asyncio.sleep(0.6)
        await other.adopt()
        await asyncio.sleep(0.6)
        await other.adopt()
        assert other.epoch == store.epoch and other.is_complete
    finally:
        await other.aclose()


async def test_a_primary_that_was_a_replica_meanwhile_does_not_pass_for_what_it_was(
    pair: tuple[Store, list[Node]],
) -> None:
    store, (first, second) = pair
    await asyncio.to_thread(follow, second, None)
    await asyncio.to_thread(follow, first, second)
    await asyncio.to_thread(follow, first, None)
    await asyncio.to_thread(second.kill)
    with pytest.raises(StoreUnavailable):  # the connection in use says nothing of it, but the next one does
        await store.link.checked.disconnect()
        await store.apply({ALL_TIME: [Row(7, 1, 10)]})
    await asyncio.sleep(0.6)
    content = await store.adopt()
    assert content.epoch is not None and not content.is_ours


async def test_a_node_without_a_primary_is_told_by_its_nodes_and_heals(pair: tuple[Store, list[Node]]) -> None:
    store, (old, new) = pair
    await asyncio.to_thread(old.kill)
    await asyncio.sleep(0.6)
    with pytest.raises(StoreUnavailable) as caught:
        await store.adopt()
    assert not isinstance(caught.value, StoreUnfit) and store.link.refused_for == "away"
    assert f"{old.address} does not answer, {new.address} is a replica" in str(store.link.complaint)
    assert PASSWORD not in str(store.link.complaint)
    await asyncio.to_thread(follow, new, None)
    await seen_within(store, new)


async def test_a_wrong_password_is_told_as_that(pair: tuple[Store, list[Node]]) -> None:
    _, nodes = pair
    wrong = Store(url_of(nodes, "wrong"), timeout=1.5)
    with pytest.raises(StoreUnfit, match="refuses the user or the password"):
        await wrong.adopt()
    await wrong.aclose()


async def test_a_demoted_primary_is_left_by_who_writes_there(pair: tuple[Store, list[Node]]) -> None:
    store, (old, new) = pair
    await store.apply({ALL_TIME: [Row(7, 1, 10)]})
    await asyncio.to_thread(follow, new, None)
    await asyncio.to_thread(follow, old, new)
    with pytest.raises(StoreUnavailable) as caught:
        await store.apply({ALL_TIME: [Row(7, 2, 20)]})
    assert not isinstance(caught.value, StoreUnfit), "it is only the wrong one of several nodes"
    await seen_within(store, new)


# Sentinels ------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncIterator[tuple[Store, Sentinels]]:
    """A store that three Sentinels watch, its content adopted."""
    made = await asyncio.to_thread(Sentinels, tmp_path, sentinel_password="another")
    store = Store(made.url, timeout=1.5)
    await make_ours(store)
    yield store, made
    await store.aclose()
    await asyncio.to_thread(made.stop)


async def test_sentinels_promote_a_replica_and_it_is_found(watched: tuple[Store, Sentinels]) -> None:
    store, made = watched
    old, new = made.primary, made.replica
    await store.apply({ALL_TIME: [Row(7, 1, 10)]})
    await asyncio.to_thread(old.kill)
    await asyncio.to_thread(until, lambda: new.role() == "master", "the replica is promoted")
    await seen_within(store, new)
    assert not (await store.adopt()).is_ours
    await make_ours(store)
    assert await store.apply({ALL_TIME: [Row(7, 2, 20)]}) == 1
    for sentinel in made.sentinels:
        await asyncio.to_thread(sentinel.kill)
    await asyncio.sleep(0.6)
    await store.adopt()
    assert store.is_complete, "the store does not need its Sentinels"
    async with asyncio.timeout(PATIENCE):
        while set(store.topology.away().values()) != {1.0}:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_whoever_meets_no_sentinel_is_told_which(watched: tuple[Store, Sentinels]) -> None:
    _, made = watched
    sentinel = made.sentinels[0]
    at = sentinel.address
    for url, says in (
        (f"redis+sentinel://{at}/others?sentinel_password=another", f"{at} does not know that name"),
        (f"redis+sentinel://{at}/boards", f"{at} refuses sentinel_username or sentinel_pass"),
        (f"redis+sentinel://{at}/boards?sentinel_password=hush", f"{at} refuses sentinel_username or sentinel_pass"),
        ("redis+sentinel://127.0.0.1:1/boards", "127.0.0.1:1 does not answer"),
    ):
        store = Store(url, timeout=1.0)
        with pytest.raises(StoreUnavailable, match=says) as caught:
            await store.adopt()
        assert "hush" not in str(caught.value)
        await store.aclose()


# TLS, and names that move ---------------------------------------------------------------------------------------------


async def test_nodes_and_sentinels_are_met_over_tls(tmp_path: Path) -> None:
    made = await asyncio.to_thread(Sentinels, tmp_path / "redis", tls=certified(tmp_path))
    try:
        for url in (made.url, made.list_url):
            store = Store(url, timeout=1.5)
            await store.adopt()
            assert store.topology.primaries() == {made.nodes[0].address: 1.0}
            await store.aclose()
        plain = Store(made.url.replace("rediss", "redis").partition("?")[0], timeout=1.5)
        with pytest.raises(StoreUnavailable, match="does not answer"):
            await plain.adopt()
        await plain.aclose()
    finally:
        await asyncio.to_thread(made.stop)


async def test_a_name_that_moves_is_looked_up_at_each_connection(
    pair: tuple[Store, list[Node]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, (old, new) = pair
    loop = asyncio.get_running_loop()
    leads_to, asked = [old], 0
    resolve = loop.getaddrinfo

    async def resolved(host: str, port: int, **options: Any) -> Any:
        nonlocal asked
        if host != "store.example":
            return await resolve(host, port, **options)
        asked += 1
        return await resolve(leads_to[0].host, leads_to[0].port, **options)

    monkeypatch.setattr(loop, "getaddrinfo", resolved)
    store = Store(f"redis://:{PASSWORD}@store.example:6379/0", timeout=1.5)
    await make_ours(store, 2)
    await asyncio.to_thread(follow, new, None)
    await asyncio.to_thread(old.kill)
    leads_to[0] = new
    await seen_within(store, new)
    assert not (await store.adopt()).is_ours and asked > 2
    await store.aclose()
