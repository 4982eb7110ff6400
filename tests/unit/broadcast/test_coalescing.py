"""Pacing: the first change at once, then one reading an interval, nothing lost; and the table is whole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from realtime.broadcast.coalescing import Coalescer
from realtime.broadcast.conflation import TABLE, Action, Event, Pace

BOARDS = ("a", "b", "c")
board = st.sampled_from(BOARDS)
states = st.tuples(st.sampled_from("ef"), st.integers(1, 4))
durations = st.floats(0, 0.2) | st.sampled_from([0.0, 0.05, 1.0, 100.0])


class Dirt(RuleBasedStateMachine):
    """Marks, takes and forgets boards at random times, beside the plainest account of what must hold."""

    @initialize(interval=st.sampled_from([0.001, 0.05, 1.0]))
    def begin(self, interval: float) -> None:
        self.interval = interval
        self.dirty = Coalescer[str](interval)
        self.now = 1000.0
        self.marked_at: dict[str, float] = {}  # unread changes
        self.news: dict[str, tuple[str, int] | None] = {}  # up to which state, None for any
        self.taken_at: dict[str, float] = {}
        self.free: set[str] = set()  # were read to no end while marked: a claim need not wait, what is due stays due

    @rule(seconds=durations)
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(board=board, state=st.none() | states)
    def mark(self, board: str, state: tuple[str, int] | None) -> None:
        self.dirty.mark(board, self.now, state)
        known = self.news.get(board, state)
        if board in self.marked_at and known is not None and state is not None and known[0] == state[0]:
            state = max(known, state)
        self.news[board] = None if known is None else state
        self.marked_at.setdefault(board, self.now)

    @rule(board=board, state=states)
    def see(self, board: str, state: tuple[str, int]) -> None:
        self.dirty.saw(board, state)
        news = self.news.get(board)
        if news is not None and news[0] == state[0] and news[1] <= state[1]:
            del self.marked_at[board], self.news[board]
            if board in self.free:
                self.free.discard(board)
                self.taken_at.pop(board, None)

    @rule(board=board)
    def claim(self, board: str) -> None:
        last = self.taken_at.get(board)
        may = board in self.free or last is None or self.now >= last + self.interval
        assert self.dirty.claim(board, self.now) == may
        if may:
            self.taken_at[board] = self.now
            self.free.discard(board)
            self.marked_at.pop(board, None)
            self.news.pop(board, None)

    @rule()
    def take(self) -> None:
        taken = self.dirty.take(self.now)
        assert len(set(taken)) == len(taken), "nothing twice"
        for board in taken:
            assert board in self.marked_at, "only what changed is read"
            last = self.taken_at.get(board)
            assert last is None or self.now >= last + self.interval, "at most one reading an interval"
            del self.marked_at[board], self.news[board]
            self.taken_at[board] = self.now
            self.free.discard(board)
        for board in self.marked_at:
            assert self.now < self.taken_at[board] + self.interval, f"{board} was due and was not taken"

    @rule(board=board)
    def turn_out_unchanged(self, board: str) -> None:
        self.dirty.unchanged(board)
        if board in self.marked_at:  # a due moment that is set already stays
            self.free.add(board)
        else:
            self.taken_at.pop(board, None)

    @rule(board=board)
    def forget(self, board: str) -> None:
        self.dirty.forget(board)
        self.marked_at.pop(board, None)
        self.news.pop(board, None)
        self.taken_at.pop(board, None)
        self.free.discard(board)

    @invariant()
    def next_due_is_the_soonest_moment_something_may_be_read(self) -> None:
        if not hasattr(self, "dirty"):
            return
        moments = [
            max(at, self.taken_at.get(board, at - self.interval) + self.interval)
            for board, at in self.marked_at.items()
        ]
        assert self.dirty.next_due == (pytest.approx(min(moments)) if moments else None)


TestDirt = Dirt.TestCase
TestDirt.settings = hypothesis_settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_the_first_change_is_due_at_once_and_the_next_an_interval_later() -> None:
    dirty = Coalescer[str](0.05)
    dirty.mark("a", 10.0)
    assert dirty.next_due == 10.0
    assert dirty.take(10.0) == ["a"]
    dirty.mark("a", 10.01)
    dirty.mark("a", 10.02)
    assert dirty.take(10.04) == []
    assert dirty.next_due == pytest.approx(10.05)
    assert dirty.take(10.05) == ["a"]
    assert dirty.take(99.0) == []
    dirty.mark("a", 100.0)
    assert dirty.take(100.0) == ["a"], "long after: at once again"


def test_a_board_that_turned_out_unchanged_does_not_delay_its_next_change() -> None:
    dirty = Coalescer[str](0.05)
    dirty.mark("a", 10.0)
    dirty.take(10.0)
    dirty.unchanged("a")
    dirty.mark("a", 10.01)
    assert dirty.take(10.01) == ["a"]


def test_a_board_is_read_for_an_announcement_only_of_what_was_not_seen() -> None:
    dirty = Coalescer[str](0.05)
    dirty.mark("a", 10.0, ("e", 5))
    dirty.saw("a", ("e", 4))
    dirty.saw("a", ("f", 9))
    assert dirty.next_due == 10.0, "an older state, or another epoch's, says nothing of this one"
    dirty.saw("a", ("e", 5))
    assert dirty.next_due is None
    dirty.mark("a", 11.0)
    dirty.saw("a", ("e", 99))
    assert dirty.take(11.0) == ["a"], "without a state it may be any"


def test_a_claimed_board_counts_as_read() -> None:
    dirty = Coalescer[str](0.05)
    dirty.mark("a", 10.0)
    assert dirty.claim("a", 10.0)
    assert dirty.next_due is None
    assert not dirty.claim("a", 10.04), "at most one reading an interval"
    dirty.mark("a", 10.04)
    assert dirty.next_due == pytest.approx(10.05)
    assert dirty.claim("a", 10.05)


def test_a_forgotten_board_is_not_read() -> None:
    dirty = Coalescer[str](0.05)
    dirty.mark("a", 10.0)
    dirty.forget("a")
    assert dirty.next_due is None
    assert dirty.take(11.0) == []
    dirty.mark("a", 11.0)
    assert dirty.take(11.0) == ["a"], "somebody wants it again"


def test_boards_do_not_wait_for_each_other() -> None:
    dirty = Coalescer[str](0.05)
    dirty.mark("a", 10.0)
    dirty.take(10.0)
    dirty.mark("a", 10.01)
    dirty.mark("b", 10.02)
    assert dirty.take(10.02) == ["b"]


def test_memory_does_not_grow_with_boards_that_were_read_once() -> None:
    dirty = Coalescer[int](0.05)
    for number in range(20_000):
        dirty.mark(number, number * 1.0)
        assert dirty.take(number * 1.0) == [number]
    assert len(dirty._read_at) < 3_000
    assert not dirty._heap and not dirty._due_at


def test_memory_does_not_grow_with_boards_marked_and_forgotten() -> None:
    """Somebody subscribes and leaves again and again, a thousand times a second."""
    dirty = Coalescer[int](0.05)
    for turn in range(20_000):
        now = turn / 1000
        dirty.mark(turn, now)
        dirty.take(now)
        dirty.mark(turn, now)  # due an interval later
        dirty.forget(turn)
    assert len(dirty._heap) <= 60
    assert not dirty._due_at


# The table -------------------------------------------------------------------------------------------------------

IMPOSSIBLE = {
    # The time-out is armed on becoming behind, and disarmed on leaving it.
    (Pace.FOLLOWING, Event.EXPIRED),
    (Pace.LOST, Event.EXPIRED),
}


def test_the_table_is_total_but_for_what_cannot_happen() -> None:
    assert TABLE.keys() == {(pace, event) for pace in Pace for event in Event} - IMPOSSIBLE


def test_who_is_lost_stays_lost_and_is_given_nothing() -> None:
    for (pace, _), (after, action) in TABLE.items():
        if pace is Pace.LOST:
            assert (after, action) == (Pace.LOST, Action.NOTHING)


def test_a_snapshot_comes_exactly_where_somebody_catches_up() -> None:
    for (pace, event), (after, action) in TABLE.items():
        catches_up = pace is Pace.BEHIND and after is Pace.FOLLOWING
        assert (action is Action.SNAPSHOT) == catches_up, (pace, event)
        assert (action is Action.CLOSE) == (event is Event.EXPIRED and after is Pace.LOST)
        assert (after is Pace.LOST) >= (event is Event.GONE)


@given(st.lists(st.sampled_from(Event), max_size=30))
def test_no_run_of_events_leaves_the_table(events: list[Event]) -> None:
    pace = Pace.FOLLOWING
    for event in events:
        if (pace, event) in IMPOSSIBLE:
            continue
        pace, _ = TABLE[pace, event]
