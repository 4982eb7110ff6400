"""Limits: buckets, windows, connections, and counts that hold across processes or, without a store, in each."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.errors import RealtimeError, StoreUnavailable
from realtime.people.limits import AddressCounter, Bucket, Windows
from realtime.people.rate_limits import Limit, RateLimits, account_key

# One socket --------------------------------------------------------------------------------------------------------


def test_a_bucket_holds_two_seconds_of_its_rate_and_fills_with_time() -> None:
    bucket = Bucket(10, now=0.0)
    assert [bucket.take(0.0) for _ in range(21)] == [True] * 20 + [False]
    assert bucket.retry_after_ms() == 100
    assert bucket.retry_after_ms(5) == 500, "the fifth from here, if all come again"
    assert bucket.take(0.1)
    assert not bucket.take(0.1)
    assert sum(bucket.take(100.0) for _ in range(50)) == 20


def test_what_counts_as_several_is_let_in_whole_and_paid_for_afterwards() -> None:
    bucket = Bucket(10, now=0.0)
    assert all(bucket.take(0.0) for _ in range(19))
    assert bucket.take(0.0, 17), "there is room for one"
    assert not bucket.take(1.6) and not bucket.take(1.6, 17)
    assert bucket.take(1.71)
    slow = Bucket(0.1, now=0.0)
    assert slow.take(0.0, 17), "also where so many never fit"
    assert not slow.take(160.0) and slow.take(171.0)


def test_a_rate_below_one_lets_a_message_through_now_and_then() -> None:
    bucket = Bucket(0.1, now=0.0)
    assert [bucket.take(now) for now in (0.0, 9.0, 10.0, 11.0, 100.0)] == [True, False, True, False, True]


def test_a_rate_of_nothing_is_no_limit() -> None:
    bucket = Bucket(0, now=0.0)
    assert all(bucket.take(0.0) for _ in range(1000))
    assert bucket.retry_after_ms() == 0


@given(st.lists(st.floats(0, 10), max_size=200).map(sorted))
def test_a_bucket_never_gives_more_than_its_rate(moments: list[float]) -> None:
    bucket = Bucket(5, now=0.0)
    taken = [at for at in moments if bucket.take(at)]
    for number, since in enumerate(taken):
        for until in taken[number:]:
            inside = sum(since <= at <= until for at in taken)
            assert inside <= 10 + 5 * (until - since) + 1e-6


def test_connections_are_counted_by_address_and_forgotten_with_it() -> None:
    connections = AddressCounter(2, 3)
    assert [connections.enter("a") for _ in range(3)] == [True, True, False]
    assert [connections.enter("b"), connections.enter("b")] == [True, False], "the process is full"
    connections.leave("a")
    connections.leave("a")
    connections.leave("b")
    assert connections.open == 0
    assert not connections._by_address


# Before a request is whole -----------------------------------------------------------------------------------------


def test_doors_close_for_one_address_and_never_for_a_proxy() -> None:
    doors = AddressCounter(2, is_proxy={"10.0.0.1"}.__contains__)
    assert [doors.enter("a") for _ in range(3)] == [True, True, False]
    assert all(doors.enter("10.0.0.1") for _ in range(100))
    doors.leave("a")
    assert doors.enter("a")
    assert all(AddressCounter(0).enter("a") for _ in range(100))


# Windows -----------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 6), st.sampled_from("abc"), st.integers(1, 5))))
def test_windows_count_what_came_in_the_newest(events: list[tuple[int, str, int]]) -> None:
    windows, newest, expected = Windows(), -1, Counter[str]()
    for window, name, amount in events:
        if window > newest or window < newest - 1:
            newest, expected = window, Counter()
        expected[name] += amount
        assert windows.add(name, amount, window) == expected[name]


def test_a_clock_that_was_ahead_leaves_no_window_that_never_ends() -> None:
    windows = Windows()
    assert [windows.add("a", 1, window) for window in (100, 100)] == [1, 2]
    assert windows.add("a", 1, 100 + 86_400) == 1, "a day ahead for a moment"
    assert [windows.add("a", 1, window) for window in (100, 100, 101, 102)] == [1, 2, 1, 1]


def test_a_clock_that_is_set_back_by_a_little_gives_nobody_a_second_window() -> None:
    windows = Windows()
    assert [windows.add("a", 1, window) for window in (100, 101, 100, 101)] == [1, 1, 2, 3]


def test_windows_are_bounded_and_newcomers_beyond_share_one_count() -> None:
    windows = Windows(most_names=2)
    assert [windows.add(name, 1, 0) for name in "abcde"] == [1, 1, 1, 2, 3]
    assert windows.add("a", 1, 0) == 2, "who was there keeps a count of their own"
    assert len(windows._counts) == 3


# Across processes --------------------------------------------------------------------------------------------------


class Counters:
    """A store that counts, until it is away or hangs."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.seconds: set[int] = set()
        self.away = self.hangs = False
        self.asked = 0

    async def count(self, amounts: Mapping[str, int], seconds: int) -> list[int]:
        self.asked += 1
        if self.hangs:
            await asyncio.Event().wait()
        if self.away:
            raise StoreUnavailable("gone")
        self.seconds.add(seconds)
        self.counts.update(amounts)
        return [self.counts[key] for key in amounts]


LIMIT = Limit("logins", 10, 60)


def throttles(counters: Counters, count: int, at: list[float]) -> list[RateLimits]:
    return [RateLimits(counters, lambda: at[0]) for _ in range(count)]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 6)), max_size=30))
def test_all_processes_together_admit_what_one_would(asks: list[tuple[int, int]]) -> None:
    async def play() -> int:
        three = throttles(Counters(), 3, [1000.0])
        return sum([(await three[process].admit(LIMIT, {"me": n}))["me"] for process, n in asks])

    wanted = sum(n for _, n in asks)
    assert asyncio.run(play()) <= min(10, wanted)


async def test_one_process_admits_up_to_the_limit_and_says_when_to_come_back() -> None:
    refused: list[str] = []
    throttle = RateLimits(Counters(), lambda: 1000.0, refused.append)
    for _ in range(10):
        await throttle.check(LIMIT, "me")
    with pytest.raises(RealtimeError) as caught:
        await throttle.check(LIMIT, "me")
    assert (caught.value.code, caught.value.retry_after_ms) == ("too_many", 20_000), "1000 is 40 s into its minute"
    assert refused == ["logins"]
    await throttle.check(LIMIT, "somebody else")


async def test_the_next_window_begins_anew() -> None:
    at = [1000.0]
    (throttle,) = throttles(Counters(), 1, at)
    assert (await throttle.admit(LIMIT, {"me": 25}))["me"] == 10
    assert (await throttle.admit(LIMIT, {"me": 1}))["me"] == 0
    at[0] = 1020.0
    assert (await throttle.admit(LIMIT, {"me": 25}))["me"] == 10


async def test_counters_are_named_as_documented_and_expire() -> None:
    counters = Counters()
    (throttle,) = throttles(counters, 1, [1000.0])
    await throttle.check(LIMIT, "10.0.0.1")
    assert set(counters.counts) == {"leaderboard:limit:logins:16:10.0.0.1"}
    assert counters.seconds == {120}


async def test_without_a_store_each_process_still_holds_the_limit() -> None:
    counters = Counters()
    counters.away = True
    for throttle in throttles(counters, 2, [1000.0]):
        assert (await throttle.admit(LIMIT, {"me": 25}))["me"] == 10
        assert (await throttle.admit(LIMIT, {"me": 1}))["me"] == 0


async def test_a_store_that_hangs_costs_a_moment_once() -> None:
    counters = Counters()
    counters.hangs = True
    (throttle,) = throttles(counters, 1, [1000.0])
    began = asyncio.get_running_loop().time()
    for _ in range(5):
        await throttle.check(LIMIT, "me")
    assert asyncio.get_running_loop().time() - began < 0.9
    assert counters.asked == 1


async def test_what_is_beyond_the_limit_here_is_no_question_for_the_store() -> None:
    counters = Counters()
    (throttle,) = throttles(counters, 1, [1000.0])
    for _ in range(1000):
        await throttle.admit(LIMIT, {"me": 1})
    assert counters.asked == 10


async def test_no_limit_asks_nobody() -> None:
    counters = Counters()
    (throttle,) = throttles(counters, 1, [1000.0])
    assert await throttle.admit(Limit("logins", 0, 60), {"me": 10**6}) == {"me": 10**6}
    assert counters.asked == 0


def test_an_account_s_counter_does_not_tell_its_address() -> None:
    assert account_key("Dev@Example.com ") == account_key("dev@example.com")
    assert "dev" not in account_key("dev@example.com")
    for odd in (None, 7, {"a": 1}, "\ud800", "x" * 10**6):
        assert len(account_key(odd)) == 32
