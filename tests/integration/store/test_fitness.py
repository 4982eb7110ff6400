"""Fitness: what is read of what a store says of itself."""

from __future__ import annotations

import pytest

from realtime.store.fitness import is_scattered, may_scatter_tags
from realtime.store.store import Store


@pytest.mark.parametrize(
    ("info", "may"),
    [
        ({"redis_version": "7.0.15"}, False),
        ({"redis_version": "7.4.0", "dragonfly_version": "df-v1.40.1", "thread_count": "4"}, True),
        ({"redis_version": "7.4.0", "dragonfly_version": "df-v1.40.1", "thread_count": "1"}, False),
        ({"redis_version": "7.4.0", "dragonfly_version": "df-v1.40.1"}, True),
    ],
)
def test_who_may_scatter_keys_of_one_tag(info: dict[str, str], may: bool) -> None:
    assert may_scatter_tags(info) is may


@pytest.mark.parametrize(
    ("told", "is_it"),
    [
        ([b"encoding:raw bucket_id:3 slot:0 shard:1", b"encoding:raw bucket_id:9 slot:0 shard:1 ttl:10s"], False),
        ([b"encoding:raw bucket_id:3 slot:0 shard:1", b"encoding:raw bucket_id:3 slot:0 shard:11"], True),
        ([b"encoding:raw bucket_id:3 slot:0 shard:1", 10, ValueError("NOPERM")], False),
        ([ValueError("NOPERM"), 10], None),
        ([], None),
    ],
)
def test_whether_keys_lie_on_several_threads(told: list[object], is_it: bool | None) -> None:
    assert is_scattered(told) is is_it


@pytest.mark.every_store
async def test_a_store_with_one_thread_scatters_nothing(store: Store) -> None:
    assert not await store.link.scatters()
