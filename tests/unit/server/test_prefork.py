"""Processes side by side: which are started when, and when it is time to give up."""

from __future__ import annotations

from pathlib import Path
from time import monotonic
from types import SimpleNamespace
from typing import Any

import pytest

from realtime.server import prefork
from realtime.server.prefork import FIRST_PAUSE, HEALTHY_AFTER, LONGEST_PAUSE, NOT_STARTED, Prefork
from realtime.settings import Settings


@pytest.fixture
def two(tmp_path: Path) -> Prefork:
    """Two places, nothing started."""
    made = Prefork(Settings.load({"REALTIME_PROCESSES": "2"}), lambda address: None)
    made._folder = tmp_path
    made._sockets = []
    return made


def die(of: Prefork, number: int, *, code: int = -9, lived: float = 0.0) -> float:
    """The child of a place was started `lived` seconds ago and is found dead; how long until the next is due."""
    place = of._places[number]
    child: Any = SimpleNamespace(pid=1, exitcode=code, is_alive=lambda: False)
    place.child, place.began = child, monotonic() - lived
    of._take_dead()
    assert place.child is None
    return place.due - monotonic()


def test_pause_doubles_with_each_death_up_to_a_limit(two: Prefork) -> None:
    two._answering = 2
    pauses = [die(two, 0) for _ in range(9)]
    expected = [min(FIRST_PAUSE * 2**number, LONGEST_PAUSE) for number in range(9)]
    assert pauses == pytest.approx(expected, abs=0.1)
    assert die(two, 1) == pytest.approx(FIRST_PAUSE, abs=0.1), "the other place has its own"


def test_child_that_lived_long_has_its_place_s_deaths_forgotten(two: Prefork) -> None:
    two._answering = 2
    for _ in range(5):
        die(two, 0)
    assert die(two, 0, lived=HEALTHY_AFTER + 1) == pytest.approx(FIRST_PAUSE, abs=0.1)


def test_child_that_cannot_start_ends_all_only_before_any_has_answered(two: Prefork) -> None:
    two._answering = 1
    die(two, 0, code=NOT_STARTED)
    assert not two._failed, "the settings are good: one has answered"
    two._answering = 0
    die(two, 0, code=NOT_STARTED)
    assert two._failed and two._is_over and two._patience == pytest.approx(0, abs=0.1)


def test_death_during_the_leave_brings_no_new_child(two: Prefork, monkeypatch: pytest.MonkeyPatch) -> None:
    two._answering = 2
    two._take_signal(15, None)
    due = two._places[0].due
    die(two, 0)
    assert two._places[0].due == due
    monkeypatch.setattr(prefork, "_FORK", None)  # nothing may be started
    two._start_due()
    assert two._is_over


def test_signal_is_passed_on_once_for_each_and_the_deadline_asks_no_more(two: Prefork) -> None:
    told: list[str] = []
    child: Any = SimpleNamespace(terminate=lambda: told.append("terminate"), kill=lambda: told.append("kill"))
    two._places[0].child = child
    two._pass_on()
    assert told == []
    two._take_signal(15, None)
    for _ in range(3):
        two._pass_on()
    assert told == ["terminate"]
    two._take_signal(2, None)
    two._pass_on()
    assert told == ["terminate", "terminate"], "a second signal hastens"
    two._deadline = monotonic()
    two._pass_on()
    assert told[2:] == ["kill"]
