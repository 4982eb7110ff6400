"""Spreading: who is asked to come back, how many, and when it is given up."""

from __future__ import annotations

from itertools import pairwise

import pytest

from realtime.broadcast.spreading import FAR_MORE, INTERVAL, LONGEST_PAUSE, NEARLY, WORTH, Spreading, beyond


class Boards:
    """Follows how many were asked; has so many subscribers."""

    def __init__(self, subscribers: int = 100_000) -> None:
        self.subscribers = subscribers
        self.asked: list[int] = []

    def send_away(self, after_ms: int, most: int | None = None) -> int:
        assert 0 < after_ms < INTERVAL * 1000, "all are back at the next look"
        self.asked.append(min(self.subscribers, most or 0))
        return self.asked[-1]


class Nobody:
    async def tell(self, clients: int) -> dict[str, int]:
        return {}

    async def leave(self) -> None:
        pass


def spreading(boards: Boards, a_second: int = 10_000) -> Spreading:
    return Spreading(boards, Nobody(), lambda: 0, lambda: False, a_second=a_second)


@pytest.mark.parametrize(
    ("own", "others", "more"),
    [
        (1_000, [], 0),
        (1_000, [1_000, 1_000], 0),
        (1_200, [1_000, 900], 0),
        (2_000, [1_000, 0], 1_000),
        (0, [2_000, 1_000], 0),
        (667, [667, 667, 0], 166),
        (90, [0, 0], 0),
        (WORTH + 1, [0] * 9, 0),
        (WORTH * 2, [0] * 9, 180),
    ],
)
def test_far_more_is_a_share_and_a_number_beyond_the_mean(own: int, others: list[int], more: int) -> None:
    assert beyond(own, others) == more
    assert not more or own > FAR_MORE * (own + sum(others)) / (1 + len(others))


def test_no_more_are_asked_than_may_be_a_second() -> None:
    boards = Boards()
    assert spreading(boards, a_second=30).step(0, 30_000, {"b": 0}) == 30 * INTERVAL
    assert spreading(boards).step(0, 30_000, {"b": 0}) == 15_000


def test_it_goes_on_while_they_go_elsewhere_until_all_are_alike() -> None:
    boards, rule = Boards(), None
    rule = spreading(boards, a_second=100)
    counts = [8_000, 2_000]
    for look in range(20):
        asked = rule.step(look * INTERVAL, counts[0], {"b": counts[1]})
        counts[0] -= asked
        counts[1] += asked
    assert 5_000 <= counts[0] <= NEARLY * 5_000, "down to the mean, nearly, and not just below what is far"
    assert rule.moved == sum(boards.asked) == 8_000 - counts[0]
    assert boards.asked == [1_000] * 3, "each time as many as may be"
    assert rule.step(1_000, 6_200, {"b": 5_000}) == 0, "nearly even is left alone"


def test_it_is_given_up_for_longer_and_longer_where_they_all_come_back() -> None:
    boards = Boards()
    rule = spreading(boards, a_second=30)
    asked_at = []
    now = 0.0
    while now < 30_000:
        if rule.step(now, 8_000, {"b": 2_000}):
            asked_at.append(now)
        now += INTERVAL
    pauses = [later - earlier for earlier, later in pairwise(asked_at)]
    assert pauses[:3] == [30, 50, 90], "a look, and then twice the pause of before"
    assert max(pauses) == LONGEST_PAUSE + INTERVAL
    assert rule.step(now + 2 * LONGEST_PAUSE, 8_000, {"b": 2_000})
    assert rule.step(now + 2 * LONGEST_PAUSE + INTERVAL, 7_700, {"b": 2_300}), "they go again: at once"


def test_nobody_is_asked_where_nobody_follows_a_board() -> None:
    boards = Boards(subscribers=0)
    rule = spreading(boards)
    assert rule.step(0, 8_000, {"b": 0}) == 0
    assert rule.moved == 0


def test_a_process_that_is_new_is_worth_another_try() -> None:
    rule = spreading(Boards(), a_second=30)
    now = 0.0
    for _ in range(1_000):  # one of two is where nobody comes: given up for long
        rule.step(now, 8_000, {"b": 0})
        now += INTERVAL
    assert not any(rule.step(now + look * INTERVAL, 8_000, {"b": 0}) for look in range(20))
    assert rule.step(now + 20 * INTERVAL, 8_000, {"b": 0, "c": 0}) == 300
