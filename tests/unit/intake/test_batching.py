"""Batching: no waiting when idle, full batches under load, never too many at once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.intake.batching import Batching, halves

rules = st.builds(Batching, largest=st.integers(1, 1_000), lanes=st.integers(1, 8), worthwhile=st.integers(1, 1_000))


@given(rules, st.integers(1, 100_000))
def test_when_nothing_is_in_flight_whatever_waits_goes_at_once(rule: Batching, waiting: int) -> None:
    assert rule.take(waiting, 0) == min(waiting, rule.largest)


@given(rules, st.integers(0, 100_000), st.integers(0, 20))
def test_no_batch_is_too_large_and_no_lane_too_many(rule: Batching, waiting: int, in_flight: int) -> None:
    taken = rule.take(waiting, in_flight)
    assert 0 <= taken <= min(waiting, rule.largest)
    if in_flight >= rule.lanes:
        assert taken == 0
    if taken and in_flight:
        assert waiting >= rule.worthwhile, "a further statement is worth its commit"


@given(rules, st.lists(st.integers(0, 1_500), min_size=1, max_size=8))
def test_everything_that_arrives_is_taken_in_the_end(rule: Batching, arrivals: list[int]) -> None:
    """Arrivals come while statements run; each turn one of those in flight ends."""
    waiting, in_flight, recorded = 0, 0, 0
    for arrived in [*arrivals, *[0] * (sum(arrivals) + rule.lanes)]:
        in_flight = max(0, in_flight - 1)
        waiting += arrived
        while taken := rule.take(waiting, in_flight):
            waiting, in_flight, recorded = waiting - taken, in_flight + 1, recorded + taken
        assert in_flight <= rule.lanes
        assert in_flight or not waiting, "somebody waits, and nothing runs"
    assert recorded == sum(arrivals)


def test_a_trickle_beside_a_running_statement_waits_for_it() -> None:
    rule = Batching(largest=1_000, lanes=2, worthwhile=250)
    assert rule.take(249, 1) == 0
    assert rule.take(250, 1) == 250
    assert rule.take(5_000, 1) == 1_000
    assert rule.take(5_000, 2) == 0


@given(st.integers(2, 1_000))
def test_halves_are_both_smaller_and_together_the_whole(count: int) -> None:
    items = list(range(count))
    first, second = (items[part] for part in halves(count))
    assert first and second
    assert first + second == items
    assert abs(len(first) - len(second)) <= 1


@pytest.mark.parametrize("bad", [0, 1, 500, 999])
def test_halving_finds_one_bad_row_in_a_batch_of_a_thousand_in_few_statements(bad: int) -> None:
    statements = 0
    found: list[int] = []

    def record(rows: list[int]) -> None:
        nonlocal statements
        statements += 1
        if bad not in rows:
            return
        if len(rows) == 1:
            found.append(rows[0])
            return
        for part in halves(len(rows)):
            record(rows[part])

    record(list(range(1_000)))
    assert found == [bad]
    assert statements <= 2 * 10 + 1
