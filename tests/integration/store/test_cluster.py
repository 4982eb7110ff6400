"""A store whose nodes share the slots: each partition is on one of them, and what one node loses is no other's loss."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import redis

from realtime.boards.board import ALL_TIME, Board, board_in
from realtime.boards.definitions import Definition
from realtime.boards.leaderboard import Leaderboard
from realtime.boards.standings import Profile, Row
from realtime.boards.windows import ALWAYS
from realtime.errors import StoreChanged, StoreUnavailable, StoreUnfit
from realtime.repair.rebuild import epoch_name
from realtime.store.announcements import Announcements
from realtime.store.filling import Filling
from realtime.store.fitness import run_of
from realtime.store.keys import Keys
from realtime.store.store import Store
from tests.support.redis_cluster import Cluster, redis_cluster, slot_of, some_of
from tests.support.redis_node import Node, until
from tests.support.stores import GIVEN_STORE, as_told, week_ahead
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.skipif(bool(GIVEN_STORE), reason="the store of DRAGONFLY_URL is not ours to kill")

WEEK = week_ahead()


def leaderboard(slug: str, partition: str) -> Leaderboard:
    return Leaderboard(slug, Definition(slug, slug.title()), 2, 5, 2, slug, partition)


def board_of(of: Leaderboard) -> Board:
    return board_in(of, ALWAYS._replace(key=1))


PARTITIONS = ("", "p00", "p01", "p02", "p03", "p07")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three primaries without replicas."""
    with redis_cluster(tmp_path_factory.mktemp("cluster"), replicas=0) as made:
        yield made


@pytest.fixture
async def store(cluster: Cluster) -> AsyncIterator[Store]:
    """A store on the three, with every partition's content new and adopted."""
    for node in cluster.nodes:
        node.call("FLUSHALL")
    async with opened(cluster) as made:
        yield made


@asynccontextmanager
async def opened(cluster: Cluster) -> AsyncIterator[Store]:
    made = Store(cluster.url, timeout=1.5)
    try:
        for partition in PARTITIONS:
            await fill(made, partition)
        yield made
    finally:
        await made.aclose()


def board_in_partition(partition: str) -> Board:
    return board_of(leaderboard(f"cup-{partition}", partition)) if partition else ALL_TIME


async def fill(store: Store, partition: str, number: int = 1) -> str:
    """Makes a partition's content as a rebuild from an empty ledger does; gives its epoch."""
    link = store.link_of(partition)
    filling, run = Filling(link), (await link.content()).run
    epoch = epoch_name(run, number)
    assert await filling.begin(run, epoch)
    await link.adopt()
    await filling.clear(epoch)
    board = board_in_partition(partition)
    if partition:
        await filling.define(epoch, {board.leaderboard.slug: 5})
    assert await filling.end(run, epoch, [])
    await link.adopt()
    assert link.is_complete
    return epoch


def owner_of(cluster: Cluster, partition: str) -> Node:
    """The primary that has a partition."""
    return cluster.owner_of(Keys(partition, clustered=True).epoch)


def on_the_same(cluster: Cluster, partition: str) -> list[str]:
    """The partitions on the primary that has that one."""
    return [other for other in PARTITIONS if owner_of(cluster, other) is owner_of(cluster, partition)]


def everything(cluster: Cluster) -> dict[Node, set[str]]:
    """The keys on each node."""
    return {node: {str(key) for key in node.call("KEYS", "*")} for node in cluster.nodes}


def run_of_node(node: Node) -> str:
    return run_of(as_told(node.info()))


def rows(*scores: int) -> list[Row]:
    return [Row(user_id, 1, score) for user_id, score in enumerate(scores, 1)]


async def test_every_key_of_a_partition_is_on_one_node_and_default_has_a_tag(store: Store, cluster: Cluster) -> None:
    profiles = [Profile(1, 1, "Anna"), Profile(2, 1, "Bob")]
    wanted = {board_in_partition(partition): rows(10, 20) for partition in PARTITIONS} | {WEEK: rows(5)}
    assert set((await store.tell_each(wanted, profiles)).values()) == {store.link_of(p).epoch for p in PARTITIONS}
    await store.remember_ledger("a:1:2", 1, 1, 1)
    there = await asyncio.to_thread(everything, cluster)
    for partition in PARTITIONS:
        tag = Keys(partition, clustered=True).tag
        mine = {key for key in there[owner_of(cluster, partition)] if key.startswith(tag)}
        assert {f"{tag}leaderboard:epoch", f"{tag}leaderboard:users:1"} <= mine
        assert sum(len(keys) for keys in there.values()) == len(set().union(*there.values()))
    assert {"{default}leaderboard:user_scores:all_time", "{default}leaderboard:ledger"} <= there[owner_of(cluster, "")]
    assert all(key.startswith("{") for keys in there.values() for key in keys)
    assert len({owner_of(cluster, partition) for partition in PARTITIONS}) == 3, "else this shows nothing"
    for board, of_board in wanted.items():
        look = await store.read([board], [1])
        assert look.tops[0].scores == dict(sorted(((r.user_id, r.score) for r in of_board), reverse=True))
        assert look.names == {1: "Anna"}
        page = await store.page(board, 0, 10)
        assert (page.players, page.version) == (len(of_board), 1)
        assert (await store.around(board, 1, 2)).players == len(of_board)
        epoch, standings = await store.standings({board: [1]})
        assert (
            epoch == store.link_of(board.leaderboard.partition).epoch and standings[board][0].score == of_board[0].score
        )
        assert (await store.versions([board])).boards == {board: 1}


async def test_changes_are_announced_on_the_partitions_channel_of_its_node(store: Store) -> None:
    for partition in PARTITIONS:
        board, link = board_in_partition(partition), store.link_of(partition)
        async with asyncio.timeout(PATIENCE), Announcements(store.link, store.link_of).hearing(partition) as heard:
            await store.apply({board: rows(10)}, [Profile(1, 1, "Anna")])
            said = await anext(heard)
            assert (said.board, said.partition, said.position and said.position[:]) == (
                board.id,
                partition,
                (link.epoch, 1),
            )
            await store.apply({board: rows(10)}, [Profile(1, 2, "Anne")])
            assert {(await anext(heard)).board for _ in range(2)} == {board.id, None}
            await store.announce(board, 7)
            said = await anext(heard)
            assert (said.board, said.position and said.position[:]) == (board.id, ("closed", 7))
            run = link.run or ""
            await Filling(link).begin(run, epoch_name(run, 2))
            await Filling(link).end(run, epoch_name(run, 2), [board.id, "users"])
            assert [(await anext(heard)).board for _ in range(2)] == [board.id, None]


async def test_limits_are_counted_on_every_node_and_one_that_hangs_spoils_no_others(
    store: Store, cluster: Cluster
) -> None:
    amounts = {f"leaderboard:limit:messages:1:{n}": n for n in range(1, 60)}
    assert await store.count(amounts, 60) == list(amounts.values())
    assert await store.count(amounts, 60) == [2 * n for n in amounts.values()]
    there = await asyncio.to_thread(everything, cluster)
    spread = [len(keys & amounts.keys()) for keys in there.values()]
    assert sum(spread) == len(amounts) and min(spread) > 5
    one = cluster.nodes[1]
    one.pause()
    try:
        totals = await store.count(amounts, 60)
        assert [total is None for total in totals] == [key in there[one] for key in amounts]
        loop = asyncio.get_running_loop()
        began = loop.time()
        await store.count(amounts, 60)
        assert loop.time() - began < 0.1, "who is away is not asked again at once"
    finally:
        one.go_on()


async def test_a_node_that_is_away_takes_its_partitions_along_and_no_other(store: Store, cluster: Cluster) -> None:
    lost, node = on_the_same(cluster, "p07"), owner_of(cluster, "p07")
    others = [p for p in PARTITIONS if p not in lost]
    node.pause()
    try:
        for partition in lost:
            with pytest.raises(StoreUnavailable):
                await store.partition(partition).adopt()
        for partition in others:
            await store.partition(partition).adopt()
            await store.apply({board_in_partition(partition): rows(3)})
        assert store.topology.away()[node.address] == 1
    finally:
        node.go_on()
    await asyncio.to_thread(cluster.settle)
    for partition in PARTITIONS:
        async with asyncio.timeout(PATIENCE):
            while not store.link_of(partition).is_complete:
                try:
                    await store.partition(partition).adopt()
                except StoreUnavailable:
                    await asyncio.sleep(0.1)
        assert store.link_of(partition).epoch, "it was the same run"


async def test_a_slot_that_moves_is_never_read_or_written_as_if_whole_and_is_then_other_content(
    store: Store, cluster: Cluster
) -> None:
    board, keys = board_in_partition("p07"), Keys("p07", clustered=True)
    other = board_in_partition(next(p for p in PARTITIONS if p not in on_the_same(cluster, "p07")))
    await store.apply({board: rows(10, 20)}, [Profile(1, 1, "Anna")])
    slot, source = slot_of(keys.epoch), owner_of(cluster, "p07")
    target = some_of(cluster.primaries(), source)
    before = store.link_of("p07").epoch
    hearing = Announcements(store.link, store.link_of).hearing("p07")
    async with asyncio.timeout(PATIENCE), hearing as heard:
        await asyncio.to_thread(cluster.begin_move, slot, target)
        source.call("MIGRATE", target.host, target.port, keys.scores(board), 0, 5000, "AUTH", cluster.password)
        with pytest.raises(StoreUnavailable, match="being moved"):
            await store.read([board])
        with pytest.raises(StoreUnavailable, match="being moved"):
            await store.apply({board: [Row(1, 2, 30)]})
        with target.client() as client:
            client.execute_command("ASKING")
            assert client.zrange(keys.scores(board), 0, -1, withscores=True) == [("1", 10.0), ("2", 20.0)]
        await asyncio.to_thread(cluster.move_keys, slot, target)
        await asyncio.to_thread(cluster.end_move, slot, target)
        with pytest.raises(StoreUnavailable):
            async for _ in heard:
                pass
    with pytest.raises(StoreUnavailable):
        await store.apply({board: [Row(1, 2, 30)]})
    run = await asyncio.to_thread(run_of_node, target)
    async with asyncio.timeout(2.0):
        while (await store.partition("p07").adopt()).run != run:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    content = await store.partition("p07").adopt()
    assert content.epoch == before and not content.is_ours, "it is of the node before"
    with pytest.raises(StoreChanged):
        await store.apply({board: [Row(1, 2, 30)]})
    await store.apply({other: rows(3)})
    await fill(store, "p07")
    await store.apply({board: [Row(1, 2, 30)]})
    assert (await store.read([board])).tops[0].scores == {1: 30}
    await asyncio.to_thread(cluster.move, slot, source)


async def test_a_cluster_that_stops_whole_where_one_node_is_lost_is_known(store: Store, cluster: Cluster) -> None:
    assert not await store.link.stops_whole()
    owner_of(cluster, "").call("CONFIG", "SET", "cluster-require-full-coverage", "yes")
    try:
        assert await store.link.stops_whole()
    finally:
        owner_of(cluster, "").call("CONFIG", "SET", "cluster-require-full-coverage", "no")


async def test_what_is_no_cluster_and_what_is_one_are_told_apart(store: Store, cluster: Cluster) -> None:
    single = Store(cluster.nodes[0].url, timeout=1.5)
    with pytest.raises(StoreUnfit, match=r"redis\+cluster://"):
        await single.adopt()
    await single.aclose()
    wrong = Store(f"redis+cluster://:wrong@{cluster.nodes[0].address}", timeout=1.5)
    with pytest.raises(StoreUnfit, match="refuses the user or the password"):
        await wrong.adopt()
    await wrong.aclose()


async def test_one_store_is_no_cluster(store_url: str) -> None:
    given = redis.connection.parse_url(store_url)
    made = Store(f"redis+cluster://:{given['password']}@{given['host']}:{given['port']}", timeout=1.5)
    with pytest.raises(StoreUnfit, match="must begin with redis:// or rediss://"):
        await made.adopt()
    await made.aclose()


async def test_a_failover_makes_its_partitions_other_content_and_no_other(tmp_path: Path) -> None:
    with redis_cluster(tmp_path) as cluster:
        async with opened(cluster) as store:
            lost, old = on_the_same(cluster, "p07"), owner_of(cluster, "p07")
            new = cluster.replica_of(old)
            await asyncio.to_thread(old.kill)
            await asyncio.to_thread(until, lambda: new.role() == "master", "the replica is promoted")
            run = await asyncio.to_thread(run_of_node, new)
            left = set(lost)
            async with asyncio.timeout(2.0):
                while left:
                    for partition in sorted(left):
                        with suppress(StoreUnavailable):
                            if (await store.partition(partition).adopt()).run == run:
                                left.discard(partition)
                    await asyncio.sleep(0.1)
            for partition in PARTITIONS:
                content = await store.partition(partition).adopt()
                assert content.is_complete == (partition not in lost), partition
            for partition in lost:
                await fill(store, partition, 2)
            await store.tell_each({board_in_partition(p): rows(4) for p in PARTITIONS})
            await asyncio.to_thread(old.start)
            await asyncio.to_thread(cluster.settle)
            await asyncio.sleep(0.6)
            for partition in PARTITIONS:
                assert (await store.partition(partition).adopt()).is_complete
            primaries = store.topology.primaries()
            assert (primaries[new.address], primaries[old.address]) == (1, 0)
