"""The table of a connection's states keeps its own rules."""

from __future__ import annotations

from itertools import product

import pytest

from realtime.wire.lifecycle import TABLE, Event, State


def reachable(start: State) -> set[State]:
    """Every state that some events lead to, `start` included."""
    found, left = {start}, [start]
    while left:
        state = left.pop()
        for (before, _), after in TABLE.items():
            if before is state and after not in found:
                found.add(after)
                left.append(after)
    return found


def test_every_state_can_be_reached_and_has_an_end() -> None:
    assert reachable(State.CONNECTING) == set(State)
    assert all(State.LOST in reachable(state) for state in State)


def test_no_state_is_entered_again_after_it_was_left() -> None:
    for (before, _), after in TABLE.items():
        assert after is before or before not in reachable(after)


def test_a_request_becomes_a_websocket_once_or_never() -> None:
    assert [before for (before, _), after in TABLE.items() if after is State.OPEN] == [State.CONNECTING]
    assert State.OPEN not in reachable(State.REFUSED)


def test_a_close_frame_goes_once_and_only_from_an_open_connection() -> None:
    assert [pair for pair in TABLE if pair[1] is Event.CLOSE] == [(State.OPEN, Event.CLOSE)]


def test_any_connection_can_be_ended_at_any_time() -> None:
    assert {state for state, event in TABLE if event is Event.END} == set(State)


def test_a_connection_is_lost_once() -> None:
    assert {state for state, event in TABLE if event is Event.LOSE} == set(State) - {State.LOST}


@pytest.mark.parametrize(("state", "event"), sorted(set(product(State, Event)) - set(TABLE), key=str))
def test_a_pair_that_cannot_happen_raises(state: State, event: Event) -> None:
    with pytest.raises(KeyError):
        TABLE[state, event]
