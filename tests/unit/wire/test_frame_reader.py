"""What a client sends, read by hand: a connection that only records, a transport that only counts."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from realtime.wire import frame_reader
from realtime.wire.deframer import Incoming, ViolationError
from realtime.wire.frame_reader import BY_APP, BY_OUTPUT, BY_QUEUE, FrameReader
from realtime.wire.frames import CLOSE, CONT, PING, PONG, TEXT
from realtime.wire.lifecycle import CLOSING, OPEN
from tests.support.connections import client_frame


class Loop:
    """A loop, as far as a reader knows one: its time, its next turn, one timer."""

    def __init__(self) -> None:
        self.now = 0.0
        self.soon: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self.timer: tuple[float, Callable[[int], None], int] | None = None

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Callable[..., None], *arguments: Any) -> None:
        self.soon.append((callback, arguments))

    def call_later(self, delay_s: float, callback: Callable[[int], None], messages: int) -> Any:
        assert self.timer is None, "one timer at a time"
        self.timer = self.now + delay_s, callback, messages
        return SimpleNamespace(cancel=self._cancel)

    def _cancel(self) -> None:
        self.timer = None

    def turn(self) -> None:
        due, self.soon = self.soon, []
        for callback, arguments in due:
            callback(*arguments)

    def ring(self) -> None:
        """The timer is due."""
        assert self.timer is not None
        (self.now, callback, messages), self.timer = self.timer, None
        callback(messages)


class Transport:
    def __init__(self) -> None:
        self.is_reading = True
        self.is_over = False

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True

    def is_closing(self) -> bool:
        return self.is_over


class Recorded:
    """A connection: what it was told to do."""

    def __init__(self, ws_max_size: int | None = 4096) -> None:
        self.config = SimpleNamespace(ws_max_size=ws_max_size)
        self.clock, self.pipe = Loop(), Transport()
        self.loop: asyncio.AbstractEventLoop = self.clock  # type: ignore[assignment]
        self.transport: asyncio.Transport = self.pipe  # type: ignore[assignment]
        self.state = OPEN
        self.buffered_bytes = 0
        self.heard: list[Incoming] = []
        self.failed: tuple[int, str] | None = None
        self.hung_up = self.lingers = False
        self.then: Callable[[], None] = lambda: None
        self.reader = FrameReader(self)

    def act(self, incoming: Incoming) -> None:
        self.heard.append(incoming)
        self.then()

    def fail(self, code: int, reason: str) -> None:
        self.failed = code, reason

    def hang_up(self) -> None:
        self.hung_up = True

    def linger(self) -> None:
        self.lingers = True

    def receive(self, data: bytes) -> None:
        """As the connection does it."""
        self.reader.deframer.feed(data)
        if not self.reader.stops:
            self.reader.take()


def texts(connection: Recorded) -> list[bytes]:
    return [payload for opcode, payload in connection.heard if opcode == TEXT]


def test_what_arrived_is_acted_on_at_once_and_in_order() -> None:
    connection = Recorded()
    connection.receive(client_frame(TEXT, b"one") + client_frame(TEXT, b"two"))
    assert texts(connection) == [b"one", b"two"] and connection.clock.timer is None


def test_a_stopped_reader_hands_over_nothing_until_its_last_cause_is_gone() -> None:
    connection = Recorded()
    connection.reader.stop(BY_APP)
    connection.reader.stop(BY_QUEUE)
    connection.receive(client_frame(TEXT, b"one"))
    connection.reader.start(BY_APP)
    connection.clock.turn()
    assert not connection.heard and not connection.pipe.is_reading
    connection.reader.start(BY_QUEUE)
    assert not connection.heard, "not within the call: the caller may be in the midst of something"
    connection.clock.turn()
    assert texts(connection) == [b"one"] and connection.pipe.is_reading


def test_a_cause_that_never_was_starts_nothing() -> None:
    connection = Recorded()
    connection.reader.stop(BY_APP)
    connection.reader.start(BY_QUEUE)
    connection.clock.turn()
    assert connection.reader.stops == BY_APP and not connection.pipe.is_reading


def test_an_event_that_stops_reading_is_the_last_of_the_read() -> None:
    connection = Recorded()
    connection.then = lambda: connection.reader.stop(BY_APP)
    connection.receive(client_frame(TEXT, b"one") + client_frame(TEXT, b"two"))
    assert texts(connection) == [b"one"]


def test_a_turn_takes_so_many_events_and_leaves_the_rest_for_the_next() -> None:
    connection, most = Recorded(), frame_reader._TURN_EVENTS
    connection.receive(client_frame(TEXT, b"x") * (most + 1))
    assert len(connection.heard) == most and connection.reader.is_deaf
    connection.clock.turn()  # the turn of the others
    connection.clock.turn()
    assert len(connection.heard) == most + 1 and not connection.reader.stops


def test_reading_stops_while_too_much_waits_to_be_written_and_is_not_deaf() -> None:
    connection = Recorded()
    connection.buffered_bytes = frame_reader._OUTPUT_BYTES + 1
    connection.receive(client_frame(PING, b""))
    assert connection.reader.stops == BY_OUTPUT and not connection.reader.is_deaf


def test_a_violation_fails_the_connection() -> None:
    connection = Recorded()
    connection.receive(client_frame(CONT, b"of nothing"))
    assert connection.failed == (1002, "unexpected continuation frame")


def test_a_violation_found_by_the_connection_fails_it_too() -> None:
    connection = Recorded()

    def refuse() -> None:
        raise ViolationError(1003, "text messages only")

    connection.then = refuse
    connection.receive(client_frame(TEXT, b"x"))
    assert connection.failed == (1003, "text messages only")


def test_what_brings_nothing_adds_up_over_reads_and_is_forgotten_after_its_span() -> None:
    crumbs = client_frame(PONG, b"") * 100
    patient, flooded = Recorded(), Recorded()
    for _ in range(20):
        patient.receive(crumbs)
        patient.clock.now += frame_reader._IDLE_S + 1
        flooded.receive(crumbs)
        flooded.clock.now += 0.1
    assert patient.failed is None
    assert flooded.failed == (1008, "too many frames that bring nothing")


def test_a_message_that_is_the_same_when_its_time_is_over_fails() -> None:
    connection = Recorded()
    connection.receive(client_frame(TEXT, b"slow")[:-1])
    connection.clock.ring()
    assert connection.clock.now == frame_reader._MESSAGE_S
    assert connection.failed == (1008, "a message takes too long")


def test_a_large_message_has_longer() -> None:
    size = int(10 * frame_reader._MESSAGE_S * frame_reader._MESSAGE_BYTES_S)
    connection = Recorded(ws_max_size=size)
    connection.receive(client_frame(TEXT, b"slow")[:-1])
    assert connection.clock.timer is not None
    assert connection.clock.timer[0] == pytest.approx(10 * frame_reader._MESSAGE_S)


def test_a_message_of_any_size_has_any_time() -> None:
    connection = Recorded(ws_max_size=None)
    connection.receive(client_frame(TEXT, b"slow")[:-1])
    assert connection.clock.timer is None


def test_nobody_is_too_slow_whom_nobody_reads() -> None:
    connection = Recorded()
    connection.receive(client_frame(TEXT, b"slow")[:-1])
    connection.reader.stop(BY_APP)
    connection.clock.ring()
    assert connection.failed is None and connection.clock.timer is not None
    connection.reader.start(BY_APP)
    connection.clock.ring()
    assert connection.failed is not None


def test_a_timer_that_is_due_after_the_message_ends_says_nothing() -> None:
    connection, frame = Recorded(), client_frame(TEXT, b"slow")
    connection.receive(frame[:-1])
    connection.receive(frame[-1:])
    connection.clock.ring()
    assert connection.failed is None and connection.clock.timer is None


def test_after_our_close_frame_the_clients_is_looked_for_and_nothing_else_is_heard() -> None:
    connection = Recorded()
    connection.state = CLOSING
    connection.reader.closing()
    connection.receive(client_frame(TEXT, b"before it heard"))
    connection.clock.turn()
    assert not connection.heard and not connection.hung_up and connection.pipe.is_reading
    connection.reader.take_leave(client_frame(TEXT, b"still") + client_frame(CLOSE, b"\x03\xe8"))
    assert connection.hung_up and not connection.heard


def test_a_close_frame_that_came_before_ours_went_is_found() -> None:
    connection = Recorded()
    connection.state = CLOSING
    connection.reader.closing()
    connection.receive(client_frame(CLOSE, b"\x03\xe8"))
    connection.clock.turn()
    assert connection.hung_up


def test_after_a_violation_no_close_frame_is_looked_for() -> None:
    connection = Recorded()
    connection.reader.violated()
    connection.reader.take_leave(client_frame(CLOSE, b"\x03\xe8"))
    assert not connection.hung_up


def test_what_comes_after_the_end_is_bounded() -> None:
    connection = Recorded()
    connection.reader.violated()
    connection.reader.take_leave(b"x" * frame_reader._LATE_BYTES)
    assert connection.pipe.is_reading and not connection.lingers
    connection.reader.take_leave(b"x")
    assert not connection.pipe.is_reading and connection.lingers


def test_a_lost_connection_is_let_go_and_asked_for_nothing() -> None:
    connection = Recorded()
    reader, gone = connection.reader, weakref.ref(connection)
    connection.receive(client_frame(TEXT, b"slow")[:-1])
    loop = connection.clock
    reader.stop(BY_APP)
    reader.start(BY_APP)  # it would read on in the next turn
    reader.lost()
    assert loop.timer is None
    gc.disable()
    try:
        del connection
        assert gone() is None, "nobody but the collector could tell"
    finally:
        gc.enable()
    reader.stop(BY_QUEUE)
    reader.start(BY_QUEUE)
    loop.turn()
    assert reader.is_deaf


def test_a_connection_lost_while_it_closes_is_not_awaited() -> None:
    connection = Recorded()
    connection.state = CLOSING
    connection.reader.closing()
    connection.reader.lost()
    connection.clock.turn()
    assert not connection.hung_up
