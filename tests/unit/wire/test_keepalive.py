"""Pings by a clock that the test turns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from realtime.wire.frames import PING, Frame
from realtime.wire.keepalive import Keepalive


class Clock:
    """A loop, as far as a keep-alive knows one: its time and one timer."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timer: tuple[float, Callable[[], None]] | None = None

    def time(self) -> float:
        return self.now

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Any:
        assert self.timer is None, "one timer at a time"
        self.timer = self.now + delay_s, callback
        return SimpleNamespace(cancel=self._cancel)

    def _cancel(self) -> None:
        self.timer = None

    def turn(self, until: float) -> None:
        """Everything that is due up to `until`."""
        while self.timer is not None and self.timer[0] <= until:
            (self.now, callback), self.timer = self.timer, None
            callback()
        self.now = until


class Client:
    """A connection, and what its client does about pings."""

    def __init__(self, interval: float, timeout: float | None, *, answers: bool) -> None:
        self.config = SimpleNamespace(ws_ping_interval=interval, ws_ping_timeout=timeout)
        self.clock = Clock()
        self.loop: asyncio.AbstractEventLoop = self.clock  # type: ignore[assignment]
        self.is_deaf = False
        self.answers = answers
        self.pinged: list[float] = []
        self.aborted: float | None = None
        self.keepalive = Keepalive(self)

    def write(self, frame: Frame, sent: int = 0) -> int:
        assert frame.opcode == PING
        self.pinged.append(self.clock.now)
        if self.answers:
            self.keepalive.pong(frame.payload)
        return 0

    def abort(self) -> None:
        self.aborted = self.clock.now
        self.keepalive.stop()


def test_a_client_that_answers_is_pinged_at_every_interval() -> None:
    client = Client(20.0, 20.0, answers=True)
    client.clock.turn(100.0)
    assert client.pinged[0] <= 20.0 and len(client.pinged) in (5, 6)
    assert all(later - sooner == pytest.approx(20.0) for sooner, later in pairwise(client.pinged))
    assert client.aborted is None


def test_a_client_that_does_not_answer_is_aborted_after_the_timeout_and_a_moment() -> None:
    client = Client(20.0, 5.0, answers=False)
    client.clock.turn(100.0)
    assert len(client.pinged) == 1
    assert client.aborted == pytest.approx(client.pinged[0] + 5.0 + 1.0)
    assert client.clock.timer is None


def test_a_pong_of_another_ping_does_not_count() -> None:
    client = Client(20.0, 5.0, answers=False)
    client.clock.turn(20.0)
    client.keepalive.pong(b"other")
    client.clock.turn(100.0)
    assert client.aborted is not None


def test_a_pong_in_the_last_moment_counts() -> None:
    client = Client(20.0, 5.0, answers=False)
    client.write = lambda frame, sent=0: sent_payloads.append(frame.payload) or 0  # type: ignore[method-assign,func-returns-value]
    sent_payloads: list[bytes] = []
    while not sent_payloads:
        client.clock.turn(client.clock.now + 0.5)
    client.clock.turn(client.clock.now + 5.1)
    client.keepalive.pong(sent_payloads[0])
    client.clock.turn(client.clock.now + 2.0)
    assert client.aborted is None


def test_nobody_is_aborted_while_nobody_reads_the_pong() -> None:
    client = Client(20.0, 5.0, answers=False)
    client.is_deaf = True
    client.clock.turn(1000.0)
    assert (len(client.pinged), client.aborted) == (1, None)
    client.is_deaf = False
    client.clock.turn(1020.0)
    assert client.aborted is not None


def test_nobody_is_aborted_where_no_pong_is_asked_for() -> None:
    client = Client(20.0, None, answers=False)
    client.clock.turn(100.0)
    assert len(client.pinged) in (5, 6) and client.aborted is None


def test_a_stopped_keepalive_has_no_timer() -> None:
    client = Client(20.0, 20.0, answers=True)
    client.keepalive.stop()
    assert client.clock.timer is None


def test_a_ping_whose_write_ends_the_connection_leaves_no_timer() -> None:
    client = Client(20.0, 20.0, answers=True)
    client.write = lambda frame, sent=0: client.abort() or -1  # type: ignore[method-assign,func-returns-value]
    client.clock.turn(100.0)
    assert client.aborted is not None and client.clock.timer is None
