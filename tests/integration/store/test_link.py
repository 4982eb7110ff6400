"""One process's way to the store: which content its commands may meet, and when they are refused at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest
import redis.asyncio

from realtime.errors import ForeignContent, StoreChanged, StoreUnavailable, StoreUnfit
from realtime.store.keys import FILLING
from realtime.store.link import CAUSES, CLOCK_STEP, LEFT, Link
from tests.support.keys import EPOCH_KEY, RUN_KEY
from tests.support.stores import PrivateStore, way_to


@pytest.fixture
async def link(store_url: str) -> AsyncIterator[Link]:
    made = Link(way_to(store_url), timeout=2.0, connections=3)
    yield made
    await made.aclose()


async def fill(link: Link, keys: redis.asyncio.Redis, n: str = "1") -> str:
    """Content that was made for this run."""
    run = (await link.content()).run
    epoch = f"{run[:8]}-{n}"
    await keys.mset({RUN_KEY: run, EPOCH_KEY: epoch})
    return epoch


async def ask(link: Link) -> object:
    with link.mapped():
        return await link.checked.ask("GET", EPOCH_KEY)


async def test_content_made_for_this_run_is_adopted_and_met(link: Link, keys: redis.asyncio.Redis) -> None:
    epoch = await fill(link, keys)
    content = await link.adopt()
    assert content.is_complete and link.is_complete and link.epoch == epoch and link.run == content.run
    assert await ask(link) == epoch.encode()


async def test_an_empty_store_is_led_to_by_nobody(link: Link) -> None:
    assert not (await link.adopt()).is_ours
    assert link.epoch is None and not link.is_complete
    with pytest.raises(StoreChanged):
        await ask(link)


async def test_content_that_is_being_filled_takes_writes_and_is_not_read(link: Link, keys: redis.asyncio.Redis) -> None:
    run = (await link.content()).run
    await keys.set(EPOCH_KEY, f"{FILLING}{run[:8]}-2")
    await link.adopt()
    assert not link.is_complete
    assert await ask(link) == f"{FILLING}{run[:8]}-2".encode()


async def test_reading_what_is_there_adopts_nothing(link: Link, keys: redis.asyncio.Redis) -> None:
    await fill(link, keys)
    assert (await link.content()).is_complete
    assert link.run is link.epoch is None


async def test_a_store_that_restarts_is_refused_until_its_content_is_adopted_anew(private_store: PrivateStore) -> None:
    link = Link(way_to(private_store.url), timeout=2.0, connections=3)
    async with redis.asyncio.Redis.from_url(private_store.url) as keys:
        await fill(link, keys)
        await link.adopt()
        await ask(link)
    await asyncio.to_thread(private_store.restart)
    with pytest.raises(StoreUnavailable):
        await ask(link)
    with pytest.raises(StoreChanged):
        await ask(link)
    async with redis.asyncio.Redis.from_url(private_store.url) as keys:
        assert not (await link.adopt()).is_ours, "the content is of the run before"
        await fill(link, keys)
        await link.adopt()
        assert link.is_complete and await ask(link)
    await link.aclose()


async def test_a_store_that_is_away_is_refused_at_once_until_a_look_finds_it(
    private_store: PrivateStore, caplog: pytest.LogCaptureFixture
) -> None:
    link = Link(way_to(private_store.url), timeout=2.0, connections=3)
    await link.adopt()
    await asyncio.to_thread(private_store.stop)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            with pytest.raises(StoreUnavailable):
                await link.adopt()
        assert link.refusals["away"] == 1, "it is away once, however often one looks"
        assert len(caplog.records) == 1
    assert link.refused() == {cause: float(cause == "away") for cause in CAUSES}
    began = asyncio.get_running_loop().time()
    with pytest.raises(StoreUnavailable):
        await ask(link)
    assert asyncio.get_running_loop().time() - began < link.timeout / 2
    await asyncio.to_thread(private_store.start)
    await link.adopt()
    assert link.refused_for is None and link.complaint is None
    assert caplog.records[-1].message == "the store can be used again"
    await link.aclose()


async def test_whoever_waits_for_a_look_meets_what_it_met(
    private_store: PrivateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = Link(way_to(private_store.url), timeout=2.0, connections=3)
    await asyncio.to_thread(private_store.stop)
    looks = 0
    content = link.content

    async def counted() -> object:
        nonlocal looks
        looks += 1
        return await content()

    monkeypatch.setattr(link, "content", counted)
    found = await asyncio.gather(*(link.adopt() for _ in range(5)), return_exceptions=True)
    assert [type(one) for one in found] == [StoreUnavailable] * 5 and looks == 1
    await link.aclose()
    await asyncio.to_thread(private_store.start)


async def test_a_store_that_may_drop_keys_is_unfit(private_store: PrivateStore) -> None:
    link = Link(way_to(private_store.url), timeout=2.0, connections=3)
    async with redis.asyncio.Redis.from_url(private_store.url) as keys:
        await fill(link, keys)
        await link.adopt()
        await keys.config_set("maxmemory-policy", "allkeys-lru")
        with pytest.raises(StoreUnfit, match="noeviction"):
            await link.adopt()
        assert link.refused_for == "unfit" and not link.is_complete
        await keys.config_set("maxmemory-policy", "noeviction")
        assert (await link.adopt()).is_complete and link.is_complete
    await link.aclose()


async def test_distrusted_content_is_refused_until_other_content_is_there(
    link: Link, keys: redis.asyncio.Redis
) -> None:
    epoch = await fill(link, keys)
    await link.adopt()
    with pytest.raises(ForeignContent), link.mapped():
        raise ForeignContent("a score is not a whole number")
    assert (link.distrusted, link.refused_for, link.is_complete) == (epoch, "foreign", False)
    with pytest.raises(StoreUnavailable):
        await ask(link)
    await link.adopt()
    assert not link.is_complete, "it is still the same"
    await fill(link, keys, "2")
    await link.adopt()
    assert link.is_complete and link.distrusted is None


async def test_content_that_was_left_is_never_current_again(link: Link, keys: redis.asyncio.Redis) -> None:
    left = await fill(link, keys)
    link.leave(left)
    await link.adopt()
    assert (link.refused_for, link.is_complete) == ("superseded", False)
    for n in range(LEFT):
        link.leave(f"another-{n}")
    await fill(link, keys, "2")
    await link.adopt()
    assert link.is_complete and len(link._left) == LEFT, "memory of them has a bound"


@pytest.mark.parametrize(
    ("step", "is_doubted"), [(CLOCK_STEP + 60, True), (CLOCK_STEP - 60, False), (-CLOCK_STEP * 9, False)]
)
async def test_a_clock_that_was_set_ahead_may_have_expired_keys(
    link: Link, keys: redis.asyncio.Redis, step: float, is_doubted: bool
) -> None:
    seconds, micros = await keys.time()
    ledger = [seconds + micros / 1e6]
    link.timestamp = lambda: ledger[0]
    await fill(link, keys)
    await link.adopt()
    assert link.ahead is not None and abs(link.ahead) < 60
    ledger[0] -= step
    await link.adopt()
    assert link.refused_for == ("expired" if is_doubted else None)


async def test_a_run_that_cannot_be_ours_is_turned_from_under_those_who_use_it(
    link: Link, keys: redis.asyncio.Redis
) -> None:
    await fill(link, keys)
    await link.adopt()
    await ask(link)
    await link.turn_to("another run")
    with pytest.raises(StoreChanged):
        await ask(link)
