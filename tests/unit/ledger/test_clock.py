"""The clock: between bounds, never ahead, never back a little, and in a week until PostgreSQL says it is over."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from time import monotonic

import pytest

from realtime.errors import LedgerUnavailable
from realtime.ledger.clock import STEP, Clock

THURSDAY = datetime(2026, 12, 3, 12, tzinfo=UTC)
MONDAY = datetime(2026, 12, 7, tzinfo=UTC)
TICK = timedelta(microseconds=1)
SECOND = timedelta(seconds=1)


def test_before_it_was_asked_it_says_so() -> None:
    clock = Clock()
    assert not clock.is_set
    for tells in (clock.now, clock.instant, clock.timestamp):
        with pytest.raises(LedgerUnavailable):
            tells()
    clock.take(THURSDAY, 1.0, 1.0)
    assert clock.is_set


def test_an_answer_that_was_long_under_way_makes_it_no_earlier_than_it_was_at_least() -> None:
    clock = Clock()
    answered = monotonic()
    clock.take(THURSDAY, answered - 9, answered)
    assert clock.uncertainty == pytest.approx(9)
    assert THURSDAY <= clock.now() <= THURSDAY + timedelta(seconds=monotonic() - answered)


def test_the_best_answer_counts_and_a_worse_one_changes_nothing() -> None:
    clock = Clock()
    answered = monotonic()
    clock.take(THURSDAY, answered - 0.001, answered)
    best = clock.timestamp() - monotonic()
    clock.take(THURSDAY + SECOND, answered - 8, answered + 1)
    assert clock.uncertainty < 0.0031, "wider by a millisecond a second, on each side"
    assert clock.timestamp() - monotonic() == pytest.approx(best, abs=0.002)


def test_a_clock_that_was_set_forward_is_followed() -> None:
    clock = Clock()
    at = monotonic()
    clock.take(THURSDAY, at, at)
    clock.take(THURSDAY + timedelta(hours=1), at, at)
    assert clock.now() >= THURSDAY + timedelta(hours=1)


def test_a_clock_that_was_set_back_a_little_is_waited_for() -> None:
    clock = Clock()
    at = monotonic()
    clock.take(THURSDAY, at, at)
    before = clock.now()
    clock.take(THURSDAY - timedelta(seconds=STEP / 2), at, at)
    assert clock.now() == before == clock.now()


def test_a_clock_that_was_set_back_far_is_followed() -> None:
    clock = Clock()
    at = monotonic()
    clock.take(MONDAY + SECOND, at, at)
    assert clock.now() >= MONDAY
    clock.take(MONDAY - timedelta(hours=1), at, at)
    assert clock.now() < MONDAY - timedelta(minutes=59)


def test_a_week_is_not_over_before_postgresql_has_said_so() -> None:
    clock = Clock()
    at = monotonic() - 5
    clock.take(MONDAY - SECOND, at, at)
    assert clock.now() == MONDAY - TICK
    assert clock.instant() >= MONDAY + 4 * SECOND, "tokens expire, whether PostgreSQL answers or not"
    clock.take(MONDAY - TICK, monotonic() - 9, monotonic())
    assert clock.now() == MONDAY - TICK
    clock.take(MONDAY, monotonic() - 9, monotonic())
    assert clock.now() >= MONDAY
    clock.take(MONDAY - TICK, monotonic() - 9, monotonic())
    assert clock.now() >= MONDAY, "and never back"


def test_what_a_test_sets_is_all_it_knows() -> None:
    clock = Clock()
    clock.take(MONDAY, monotonic() - 1, monotonic())
    clock.set(THURSDAY, monotonic())
    assert THURSDAY <= clock.now() < THURSDAY + 60 * SECOND
    assert clock.uncertainty == 0
