"""Crowd: what processes tell each other of their clients, on each store."""

from __future__ import annotations

import pytest
import redis.asyncio

from realtime.store.crowd import FORGOTTEN_S, WORD_S, Crowd
from realtime.store.store import Store
from tests.support.keys import CROWD_KEY

pytestmark = pytest.mark.every_store


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


async def test_each_hears_the_others_until_their_word_is_old(store: Store, keys: redis.asyncio.Redis) -> None:
    clock = Clock()
    a, b, c = (Crowd(store.link, name, clock) for name in "abc")
    assert await a.tell(10) == {}
    assert await b.tell(20) == {"a": 10}
    assert await c.tell(30) == {"a": 10, "b": 20}
    assert await a.tell(11) == {"b": 20, "c": 30}
    assert 0 < await keys.ttl(CROWD_KEY) <= FORGOTTEN_S, "nothing is left where nobody is"
    clock.now += WORD_S + 1
    assert await b.tell(21) == {}, "the others say nothing any more"
    await c.leave()
    assert set(await keys.hkeys(CROWD_KEY)) == {"a", "b"}
    clock.now += FORGOTTEN_S
    assert await b.tell(21) == {}
    assert await keys.hkeys(CROWD_KEY) == ["b"], "who is gone is forgotten"


async def test_what_is_no_word_of_ours_does_not_count(store: Store, keys: redis.asyncio.Redis) -> None:
    await keys.hset(CROWD_KEY, mapping={"x": "many", "y": "9", "z": "9 then"})
    assert await Crowd(store.link, "a", Clock()).tell(1) == {}
    assert await keys.hkeys(CROWD_KEY) == ["a"]
