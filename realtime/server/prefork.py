"""Prefork: several servers on one port, one a core.

Owns the children: starts them, starts again what dies (after a growing pause), passes signals on, and ends with them;
and their sockets, one for each, so that `steering` knows which is whose. Must never serve, log per request, or outlive
a deadline: a child that does not end in time is killed. Assumes Linux's SO_REUSEPORT; elsewhere the children share one
socket. Forks before any event loop or thread exists.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import wait
from multiprocessing.context import ForkProcess
from pathlib import Path
from time import monotonic
from typing import Final

from realtime.errors import StartupError, TaskFailed
from realtime.server import draining, listeners, serving
from realtime.server.app import create_app
from realtime.server.peers import Peers
from realtime.server.steering import AWAY, Attendance, Steering, turn_away
from realtime.settings import Settings

log = logging.getLogger(__name__)

FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 30.0
"""Seconds before a child that died is started again: doubled with each death."""

HEALTHY_AFTER: Final = 60.0
"""Seconds a child must live for its place's earlier deaths to be forgotten."""

STEER_INTERVAL: Final = 0.25
"""Seconds between two looks where newcomers are to be led."""

NOT_STARTED: Final = 3
"""Exit code of a child that could not start: the others cannot either."""

_FORK: Final = multiprocessing.get_context("fork")
_SPREADS: Final = sys.platform == "linux" and hasattr(socket, "SO_REUSEPORT")


@dataclass(slots=True)
class Place:
    """One of the places for a child: the child in it, or when the next is due (monotonic seconds)."""

    child: ForkProcess | None = None
    began: float = 0.0
    due: float = 0.0
    pause: float = FIRST_PAUSE


class Prefork:
    """Runs as many servers as the settings say. `on_ready` is told the address when all answer for the first time."""

    def __init__(self, settings: Settings, on_ready: Callable[[str], None]) -> None:
        self._settings = settings
        self._on_ready = on_ready
        self._places = [Place() for _ in range(settings.processes)]
        self._answering = 0  # children that have said they answer, ever
        self._signals = self._passed_on = 0
        self._deadline = float("inf")
        self._failed = False
        self._attendance = Attendance(settings.processes)

    def run(self) -> bool:
        """Serves until a signal; False where no process could start."""
        with ExitStack() as stack:
            self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="realtime-metrics-")))
            self._sockets = [stack.enter_context(one) for one in self._listening()]
            self._steering = Steering(self._sockets, self._attendance)
            # A child writes a byte to the first when it answers; it ends when the second does: when we are gone.
            self._ready, self._tell_ready = os.pipe()
            self._life, self._alive = os.pipe()
            wakeup, wake = os.pipe()
            for end in (self._ready, wakeup, wake):
                os.set_blocking(end, False)
            for end in (self._ready, self._tell_ready, self._life, self._alive, wakeup, wake):
                stack.callback(os.close, end)
            signal.set_wakeup_fd(wake)
            stack.callback(signal.set_wakeup_fd, -1)
            for number in (signal.SIGINT, signal.SIGTERM):
                before = signal.signal(number, self._take_signal)
                stack.callback(signal.signal, number, before)
            while not self._is_over:
                self._start_due()
                children = [place.child.sentinel for place in self._places if place.child]
                wait([self._ready, wakeup, *children], self._patience)
                _emptied(wakeup)
                self._take_ready()
                self._take_dead()
                self._pass_on()
                self._steer()
        return not self._failed

    @property
    def _stopping(self) -> bool:
        return self._signals > 0 or self._failed

    @property
    def _is_over(self) -> bool:
        return self._stopping and not any(place.child for place in self._places)

    @property
    def _patience(self) -> float | None:
        """Seconds until something is due by the clock."""
        dues = [place.due for place in self._places if not place.child and not self._stopping]
        next_due = min([*dues, self._deadline, monotonic() + (STEER_INTERVAL if self._answering else float("inf"))])
        return None if next_due == float("inf") else max(0.0, next_due - monotonic())

    def _listening(self) -> list[socket.socket]:
        """A socket for each place, which listens: connections wait there until somebody is in it."""
        host, made = self._settings.host, [listeners.bound(self._settings.host, self._settings.port, shared=_SPREADS)]
        port = made[0].getsockname()[1]
        made += [listeners.bound(host, port, shared=True) for _ in self._places[1:] if _SPREADS]
        for one in made:
            one.listen(serving.BACKLOG)
            one.setblocking(False)
        return made

    def _steer(self) -> None:
        """Leads those who come next to where the fewest are, and nobody to where nobody is."""
        if self._stopping or not _SPREADS:
            return
        self._steering.look()
        if any(count != AWAY for count in self._attendance.counts()):
            for place, listener in zip(self._places, self._sockets, strict=True):
                if place.child is None:
                    turn_away(listener)

    # Children ------------------------------------------------------------------------------------------------

    def _start_due(self) -> None:
        for number, place in enumerate(self._places):
            if place.child is None and not self._stopping and place.due <= monotonic():
                place.child = _FORK.Process(target=self._serve, args=(number,))
                place.began = monotonic()
                place.child.start()

    def _serve(self, place: int) -> None:
        """The child's life, in a process group of its own: a terminal's Ctrl-C is the parent's to pass on."""
        os.setpgrp()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        os.close(self._alive)
        threading.Thread(target=self._end_with_parent, daemon=True).start()
        listener = self._sockets[place if _SPREADS else 0]
        for other in self._sockets:
            if other is not listener:
                other.close()
        peers = Peers(self._folder, str(os.getpid()), partial(self._attendance.tell, place))
        app = create_app(self._settings, with_worker=False, peers=peers)
        try:
            started = serving.run(
                app, self._settings, lambda address: _tell(self._tell_ready), listener=listener
            )
        except (StartupError, TaskFailed) as error:
            print(f"realtime: {error}", file=sys.stderr, flush=True)
            sys.exit(NOT_STARTED if isinstance(error, StartupError) else 1)
        sys.exit(0 if started else NOT_STARTED)

    def _end_with_parent(self) -> None:
        os.read(self._life, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    def _take_ready(self) -> None:
        before = self._answering
        self._answering += _emptied(self._ready)
        if before < len(self._places) <= self._answering:
            self._on_ready(listeners.address_of(self._sockets[0]))

    def _take_dead(self) -> None:
        for number, place in enumerate(self._places):
            child = place.child
            if child is None or child.is_alive():
                continue
            place.child = None
            self._attendance.tell(number, AWAY)
            assert child.pid is not None
            Peers(self._folder, str(child.pid)).retire()
            if self._stopping:
                continue
            if child.exitcode == NOT_STARTED and not self._answering:
                self._failed = True
                self._deadline = monotonic()
                continue
            if monotonic() - place.began > HEALTHY_AFTER:
                place.pause = FIRST_PAUSE
            place.due = monotonic() + place.pause
            place.pause = min(2 * place.pause, LONGEST_PAUSE)
            log.error(
                "a serving process ended (exit code %s); another takes its place", child.exitcode,
                extra={"action": "process", "child": child.pid},
            )  # fmt: skip

    # The end -------------------------------------------------------------------------------------------------

    def _take_signal(self, number: int, frame: object) -> None:
        self._signals += 1

    def _pass_on(self) -> None:
        """Ends the children: a signal for each that came, and at the deadline without asking."""
        overdue = self._stopping and monotonic() >= self._deadline
        if not overdue and self._signals == self._passed_on:
            return
        if not self._passed_on:
            for listener in self._sockets:  # the children's own are the last: closed when they say so
                listener.close()
            self._deadline = min(self._deadline, monotonic() + draining.longest_leave(self._settings) + 5)
        self._passed_on = self._signals
        for place in self._places:
            if place.child is not None:
                (place.child.kill if overdue else place.child.terminate)()


def _emptied(end: int) -> int:
    """Takes everything from a pipe; how many bytes there were."""
    try:
        return len(os.read(end, 4096))
    except BlockingIOError:
        return 0


def _tell(end: int) -> None:
    os.write(end, b"!")
