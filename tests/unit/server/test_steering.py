"""Steering: who has the fewest gets the most, and the kernel does what the program says."""

from __future__ import annotations

import os
import socket
import sys
from collections import Counter
from contextlib import ExitStack, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.server.listeners import bound
from realtime.server.steering import AWAY, LEAST_ROOM, SILENT, Attendance, Steering, program, shares, turn_away, waiting

places = st.lists(st.just(AWAY) | st.integers(0, 100_000), min_size=1, max_size=12)


@given(places, st.integers(1, 10_000))
def test_newcomers_fill_the_lowest_first_until_all_are_level(counts: list[int], room: int) -> None:
    given_out = shares(counts, room)
    there = [count for count in counts if count != AWAY]
    if not there:
        assert not any(given_out)
        return
    assert room <= sum(given_out) < room + len(counts), "rounding gives each one more at most"
    filled = [count + share for count, share in zip(counts, given_out, strict=True)]
    surface = {level for level, share in zip(filled, given_out, strict=True) if share}
    assert len(surface) == 1
    level = surface.pop()
    assert all(share == 0 for count, share in zip(counts, given_out, strict=True) if count in (AWAY, level))
    assert all(count >= level for count, share in zip(counts, given_out, strict=True) if not share and count != AWAY)


@given(places.filter(lambda counts: any(shares(counts, LEAST_ROOM))), st.integers(LEAST_ROOM, 10_000))
def test_a_program_gives_each_place_its_share(counts: list[int], room: int) -> None:
    wanted = shares(counts, room)
    (_, _, _, _), (_, _, _, mask), *rest = program(wanted)
    found: Counter[int] = Counter()
    before = 0
    while rest:  # `if drawn < operand: return place`, one after another; the last without an if
        edge, rest = (rest[0][3], rest[1:]) if len(rest) > 1 else (mask + 1, rest)
        found[rest[0][3]] += edge - before
        before, rest = edge, rest[1:]
    for place, share in enumerate(wanted):
        assert found[place] == pytest.approx((mask + 1) * share / sum(wanted), abs=1)


def test_attendance_is_seen_by_a_process_that_was_forked() -> None:
    attendance = Attendance(3)
    assert attendance.counts() == [AWAY] * 3
    if not (child := os.fork()):
        attendance.tell(1, 70_000)
        os._exit(0)
    os.waitpid(child, 0)
    assert attendance.counts() == [AWAY, 70_000, AWAY]


def test_a_process_that_says_nothing_for_long_gets_no_newcomers_until_it_speaks() -> None:
    now = 1_000.0
    attendance = Attendance(2, lambda: now)
    attendance.tell(0, 10)
    attendance.tell(1, 500)
    now += SILENT
    assert attendance.counts() == [10, 500], "a busy one may be late"
    now += 0.1
    attendance.tell(1, 501)
    assert attendance.counts() == [AWAY, 501]
    assert shares(attendance.counts(), LEAST_ROOM)[0] == 0
    attendance.tell(0, 11)
    assert attendance.counts() == [11, 501]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere processes share one socket")
def test_the_kernel_leads_newcomers_to_whoever_has_the_fewest() -> None:
    with ExitStack() as stack:
        listeners = [stack.enter_context(bound("127.0.0.1", 0, shared=True))]
        address = listeners[0].getsockname()
        listeners += [stack.enter_context(bound(*address, shared=True)) for _ in range(2)]
        for listener in listeners:
            listener.listen(512)
            listener.setblocking(False)
        attendance = Attendance(3)
        steering = Steering(listeners, attendance)

        def came(number: int) -> list[int]:
            clients = [stack.enter_context(socket.create_connection(address)) for _ in range(number)]
            taken = []
            for listener in listeners:
                count = 0
                with suppress(BlockingIOError):
                    while True:
                        listener.accept()[0].close()
                        count += 1
                taken.append(count)
            assert sum(taken) == len(clients)
            return taken

        steering.look()  # nobody is there: the kernel's own choice
        assert min(came(120)) > 10
        for place, clients in enumerate((500, 500, 100)):
            attendance.tell(place, clients)
        for _ in range(60):  # that so many came at once is long ago
            steering.look()
        assert came(100) == [0, 0, 100]
        attendance.tell(2, AWAY)
        steering.look()
        _, _, none = came(120)
        assert none == 0, "whoever leaves gets nobody"
        attendance.tell(2, 500)
        steering.look()
        assert min(came(300)) > 50, "all alike are served alike"


def test_who_waits_where_nobody_is_is_turned_away_at_once() -> None:
    with bound("127.0.0.1", 0) as listener:
        listener.listen()
        listener.setblocking(False)
        with socket.create_connection(listener.getsockname()) as client:
            client.settimeout(10)
            assert waiting(listener) == 1
            turn_away(listener)
            assert waiting(listener) == 0
            assert client.recv(1) == b""
