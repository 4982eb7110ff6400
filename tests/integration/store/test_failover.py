"""A store of several nodes: a replica that was promoted is found, by a list of nodes and by Sentinels, and never passes
for the primary before it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import redis

from realtime.boards.board import ALL_TIME
from realtime.boards.standings import Row
from realtime.dev.store import installed, wheels_store
from realtime.errors import StoreChanged, StoreUnavailable, StoreUnfit
from realtime.store.fitness import parse_info, run_of
from realtime.store.store import Store
from tests.support.stores import GIVEN_STORE, make_ours
from tests.support.waiting import PATIENCE

PASSWORD = "a-password"
NAME = "boards"
SEEN = 2.0
"""Seconds within which a promotion is seen."""

pytestmark = pytest.mark.skipif(bool(GIVEN_STORE), reason="the store of DRAGONFLY_URL is not ours to kill")


class Node:
    """A Redis, or a Sentinel, of this test."""

    def __init__(self, folder: Path, program: Path, *lines: str, sentinel: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        file = folder / "node.conf"
        own = ("bind 127.0.0.1", f"port {self.port}", f"dir {folder}", f"logfile {folder / 'log'}", *lines)
        file.write_text("".join(f"{line}\n" for line in own))
        self._command = [program, file, *(["--sentinel"] if sentinel else [])]
        self._sentinel = sentinel
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self._command)
        with self.client() as client:
            for _ in range(1000):
                try:
                    assert client.ping()
                    return
                except (redis.ConnectionError, redis.BusyLoadingError):
                    self.process.poll()
                    signal.sigtimedwait([], 0.01)

    def client(self) -> redis.Redis:
        password = None if self._sentinel else PASSWORD
        return redis.Redis(port=self.port, password=password, decode_responses=True)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def pause(self) -> None:
        os.kill(self.process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)

    @property
    def run(self) -> str:
        with self.client() as client:
            return str(client.info()["run_id"])

    def follow(self, other: Node | None) -> None:
        """Makes it a replica of another node, in step with it, or a primary."""
        with self.client() as client:
            if other is None:
                client.replicaof("NO", "ONE")
                return
            client.replicaof("127.0.0.1", str(other.port))
            for _ in range(1000):
                if client.info("replication")["master_link_status"] == "up":
                    return
                signal.sigtimedwait([], 0.01)
            raise AssertionError("the replica does not follow")


@contextmanager
def nodes_in(folder: Path) -> Iterator[Callable[..., Node]]:
    program = installed("redis-server") or wheels_store()
    if program is None:
        pytest.skip("no Redis here")
    with ExitStack() as stack:

        def made(*lines: str, sentinel: bool = False) -> Node:
            node = Node(folder / str(len(stack._exit_callbacks)), program, *lines, sentinel=sentinel)
            stack.callback(node.kill)
            return node

        yield made


def replicas(make: Callable[..., Node], count: int) -> list[Node]:
    """A primary and replicas of it."""
    lines = (f"requirepass {PASSWORD}", f"masterauth {PASSWORD}", "save ''", "repl-diskless-sync-delay 0")
    nodes = [make(*lines) for _ in range(count)]
    for node in nodes[1:]:
        node.follow(nodes[0])
    return nodes


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Node]]:
    with nodes_in(tmp_path) as made:
        yield made
    shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.fixture
async def pair(make: Callable[..., Node]) -> AsyncIterator[tuple[Store, list[Node]]]:
    """A store that is a list of a primary and its replica, its content adopted."""
    nodes = await asyncio.to_thread(replicas, make, 2)
    store = Store(f"redis://:{PASSWORD}@{','.join(f'127.0.0.1:{node.port}' for node in nodes)}/0", timeout=1.5)
    await make_ours(store)
    yield store, nodes
    await store.aclose()


async def seen_within(store: Store, node: Node, seconds: float = SEEN) -> None:
    """Returns once a look meets that node; as the watch does, one look a second."""
    run = node.run
    loop = asyncio.get_running_loop()
    began = loop.time()
    while True:
        try:
            found = await store.adopt()
            with node.client() as client:
                info = parse_info("\n".join(f"{k}:{v}" for k, v in client.info().items()).encode())
            if found.run == run_of(info):
                break
        except StoreUnavailable:
            pass
        assert loop.time() - began < seconds, f"{run} is not found"
        await asyncio.sleep(0.3)
    assert loop.time() - began < seconds


async def test_a_promoted_replica_is_found_and_its_content_is_not_ours(pair: tuple[Store, list[Node]]) -> None:
    store, (old, new) = pair
    await store.apply({ALL_TIME: [Row(7, 10, 1)]})
    await asyncio.to_thread(new.follow, None)
    await asyncio.to_thread(old.kill)
    await seen_within(store, new)
    content = await store.adopt()
    assert content.epoch is not None and not content.is_ours, "it has the keys of the primary before"
    with pytest.raises(StoreChanged):
        await store.apply({ALL_TIME: [Row(7, 20, 2)]})
    await make_ours(store)
    assert await store.apply({ALL_TIME: [Row(7, 20, 2)]}) == 1
    assert store.topology.away()[f"127.0.0.1:{old.port}"] == 1
    assert store.topology.primaries()[f"127.0.0.1:{new.port}"] == 1
    await asyncio.to_thread(old.start)
    await asyncio.to_thread(old.follow, new)
    await seen_within(store, new)
    assert store.is_complete, "a node that comes back as a replica changes nothing"
    async with asyncio.timeout(PATIENCE):
        while store.topology.away()[f"127.0.0.1:{old.port}"]:
            await asyncio.sleep(0.3)
            await store.adopt()


async def test_a_primary_that_hangs_is_left_and_comes_back_believing(pair: tuple[Store, list[Node]]) -> None:
    store, (old, new) = pair
    await asyncio.to_thread(old.pause)
    try:
        await asyncio.to_thread(new.follow, None)
        await seen_within(store, new, SEEN + store.link.timeout)
        await make_ours(store)
    finally:
        old.go_on()
    for _ in range(3):
        await store.adopt()
        await asyncio.sleep(0.6)
        assert store.is_complete, "the one in use stays"
    # A process that starts now meets the first of the list, and what it holds is not what the ledger names.
    other = Store(f"redis://:{PASSWORD}@127.0.0.1:{old.port},127.0.0.1:{new.port}/0", timeout=1.5)
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
    await asyncio.to_thread(second.follow, None)
    await asyncio.to_thread(first.follow, second)
    await asyncio.to_thread(first.follow, None)
    await asyncio.to_thread(second.kill)
    with pytest.raises(StoreUnavailable):  # the connection in use says nothing of it, but the next one does
        await store.link.checked.disconnect()
        await store.apply({ALL_TIME: [Row(7, 10, 1)]})
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
    assert f"127.0.0.1:{old.port} does not answer, 127.0.0.1:{new.port} is a replica" in str(store.link.complaint)
    assert PASSWORD not in str(store.link.complaint)
    await asyncio.to_thread(new.follow, None)
    await seen_within(store, new)


async def test_a_wrong_password_is_told_as_that(pair: tuple[Store, list[Node]]) -> None:
    _, nodes = pair
    wrong = Store(f"redis://:wrong@{','.join(f'127.0.0.1:{node.port}' for node in nodes)}", timeout=1.5)
    with pytest.raises(StoreUnfit, match="refuses the user or the password"):
        await wrong.adopt()
    await wrong.aclose()


async def test_a_demoted_primary_is_left_by_who_writes_there(pair: tuple[Store, list[Node]]) -> None:
    store, (old, new) = pair
    await store.apply({ALL_TIME: [Row(7, 10, 1)]})
    await asyncio.to_thread(new.follow, None)
    await asyncio.to_thread(old.follow, new)
    with pytest.raises(StoreUnavailable) as caught:
        await store.apply({ALL_TIME: [Row(7, 20, 2)]})
    assert not isinstance(caught.value, StoreUnfit), "it is only the wrong one of several nodes"
    await seen_within(store, new)


# Sentinels ------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def watched(make: Callable[..., Node]) -> AsyncIterator[tuple[Store, list[Node], list[Node]]]:
    """A store that three Sentinels watch, its content adopted; its nodes and the Sentinels."""

    def all_of_them() -> tuple[list[Node], list[Node]]:
        nodes = replicas(make, 2)
        lines = (
            f"sentinel monitor {NAME} 127.0.0.1 {nodes[0].port} 2",
            f"sentinel auth-pass {NAME} {PASSWORD}",
            f"sentinel down-after-milliseconds {NAME} 800",
            f"sentinel failover-timeout {NAME} 3000",
        )
        sentinels = [make(*lines, sentinel=True) for _ in range(3)]
        for sentinel in sentinels:
            with sentinel.client() as client:
                for _ in range(2000):
                    (told,) = client.sentinel_masters().values()
                    if told["num-other-sentinels"] == 2 and told["num-slaves"] == 1:
                        break
                    signal.sigtimedwait([], 0.01)
        return nodes, sentinels

    nodes, sentinels = await asyncio.to_thread(all_of_them)
    places = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in sentinels)
    store = Store(f"redis+sentinel://:{PASSWORD}@{places}/{NAME}/0", timeout=1.5)
    await make_ours(store)
    yield store, nodes, sentinels
    await store.aclose()


async def test_sentinels_promote_a_replica_and_it_is_found(watched: tuple[Store, list[Node], list[Node]]) -> None:
    store, (old, new), sentinels = watched
    await store.apply({ALL_TIME: [Row(7, 10, 1)]})
    await asyncio.to_thread(old.kill)
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(PATIENCE):
        with new.client() as client:
            while client.role()[0] != "master":  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    promoted = loop.time()
    await seen_within(store, new, SEEN + 1)
    assert loop.time() - promoted < SEEN
    assert not (await store.adopt()).is_ours
    await make_ours(store)
    for sentinel in sentinels:
        await asyncio.to_thread(sentinel.kill)
    await asyncio.sleep(0.6)
    await store.adopt()
    assert store.is_complete, "the store does not need its Sentinels"
    assert set(store.topology.away().values()) == {1.0}


async def test_whoever_meets_no_sentinel_is_told_which(watched: tuple[Store, list[Node], list[Node]]) -> None:
    _, _, (sentinel, *_) = watched
    for url, says in (
        (f"redis+sentinel://127.0.0.1:{sentinel.port}/others", f"127.0.0.1:{sentinel.port} does not know that name"),
        ("redis+sentinel://127.0.0.1:1/boards", "127.0.0.1:1 does not answer"),
    ):
        store = Store(url, timeout=1.0)
        with pytest.raises(StoreUnavailable, match=says):
            await store.adopt()
        await store.aclose()
