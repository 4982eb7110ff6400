"""Limits across processes: the store's counts decide, and this process's own where the store is away."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping

import pytest

from realtime.errors import RealtimeError, StoreUnavailable
from realtime.people import rate_limits
from realtime.people.rate_limits import Limit, RateLimits, account_key

LIMIT = Limit("sign_ins", 3, 60)


class Counters:
    """The counters of a store that every process of a test has in common."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.lifetimes: dict[str, int] = {}
        self.asked = 0
        self.is_away = self.hangs = False

    async def count(self, amounts: Mapping[str, int], seconds: int) -> list[int]:
        self.asked += 1
        if self.hangs:
            await asyncio.Event().wait()
        if self.is_away:
            raise StoreUnavailable("away")
        self.counts.update(amounts)
        self.lifetimes.update(dict.fromkeys(amounts, seconds))
        return [self.counts[key] for key in amounts]


class Time:
    def __init__(self) -> None:
        self.now = 600.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def counters() -> Counters:
    return Counters()


@pytest.fixture
def time() -> Time:
    return Time()


async def passes(limits: RateLimits, who: str = "a", limit: Limit = LIMIT) -> bool:
    try:
        await limits.check(limit, who)
    except RealtimeError as error:
        assert error.code == "too_many"
        return False
    return True


async def test_as_many_pass_as_the_limit_says_and_each_has_its_own_count(counters: Counters, time: Time) -> None:
    limits = RateLimits(counters, time)
    assert [await passes(limits) for _ in range(5)] == [True, True, True, False, False]
    assert await passes(limits, "b")


async def test_processes_share_a_limit(counters: Counters, time: Time) -> None:
    one, other = RateLimits(counters, time), RateLimits(counters, time)
    assert [await passes(limits) for limits in (one, other, one, other)] == [True, True, True, False]


async def test_a_new_window_begins_with_nothing(counters: Counters, time: Time) -> None:
    limits = RateLimits(counters, time)
    assert [await passes(limits) for _ in range(4)][-1] is False
    time.now += LIMIT.seconds
    assert await passes(limits)


async def test_a_refusal_says_when_its_window_ends_and_is_counted(counters: Counters, time: Time) -> None:
    refused: list[str] = []
    limits = RateLimits(counters, time, refused.append)
    time.now = 600.0 + 45.5
    for _ in range(LIMIT.most):
        await limits.check(LIMIT, "a")
    with pytest.raises(RealtimeError) as caught:
        await limits.check(LIMIT, "a")
    assert caught.value.retry_after_ms == 14_500
    assert "At most 3 sign ins in 60 seconds." in str(caught.value)
    assert refused == ["sign_ins"]


async def test_in_the_last_moment_of_a_window_the_hint_is_still_one(counters: Counters, time: Time) -> None:
    time.now = 659.9999
    assert RateLimits(counters, time).refusal(LIMIT).retry_after_ms == 1
    assert "a second." in str(RateLimits(counters, time).refusal(Limit("submissions", 5, 1)))


async def test_a_limit_of_zero_counts_nothing(counters: Counters, time: Time) -> None:
    limits = RateLimits(counters, time)
    assert await limits.admit(Limit("submissions", 0, 1), {"a": 10**6}) == {"a": 10**6}
    assert not counters.asked


async def test_of_many_at_once_so_many_are_admitted_as_fit(counters: Counters, time: Time) -> None:
    limits = RateLimits(counters, time)
    assert await limits.admit(LIMIT, {"a": 2, "b": 5}) == {"a": 2, "b": 3}
    assert await limits.admit(LIMIT, {"a": 2, "b": 1}) == {"a": 1, "b": 0}


async def test_what_is_beyond_the_limit_here_is_no_question_for_the_store(counters: Counters, time: Time) -> None:
    limits = RateLimits(counters, time)
    for _ in range(LIMIT.most):
        await limits.check(LIMIT, "a")
    asked = counters.asked
    assert not await passes(limits)
    assert counters.asked == asked


async def test_counters_are_named_by_window_and_expire_soon_after_it(counters: Counters, time: Time) -> None:
    await RateLimits(counters, time).check(LIMIT, "a")
    assert counters.lifetimes == {"leaderboard:limit:sign_ins:10:a": 120}


async def test_without_a_store_a_process_limits_by_itself_and_asks_again_later(
    counters: Counters, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limits, "STORE_PAUSE", 0.0)
    counters.is_away = True
    limits = RateLimits(counters, time)
    assert [await passes(limits) for _ in range(4)] == [True, True, True, False]
    counters.is_away = False
    assert await passes(limits, "b") and counters.counts["leaderboard:limit:sign_ins:10:b"] == 1


async def test_a_store_that_is_away_is_not_asked_for_a_while(counters: Counters, time: Time) -> None:
    counters.is_away = True
    limits = RateLimits(counters, time)
    await limits.check(LIMIT, "a")
    await limits.check(LIMIT, "b")
    assert counters.asked == 1


async def test_a_store_that_hangs_costs_a_moment_and_no_request(
    counters: Counters, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limits, "STORE_PATIENCE", 0.01)
    counters.hangs = True
    limits = RateLimits(counters, time)
    assert [await passes(limits) for _ in range(4)] == [True, True, True, False]


def test_nobody_reads_an_address_from_the_key_of_an_account() -> None:
    key = account_key(" Ann@Example.org ")
    assert key == account_key("ann@example.org") != account_key("bo@example.org")
    assert "ann" not in key and len(key) == 32
    assert account_key("\ud800")
