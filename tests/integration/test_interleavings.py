"""All of it, simulated: whatever is delayed, reordered, lost, killed or restored, boards come to equal PostgreSQL.

Several processes over one real PostgreSQL and two real stores; see `tests.support.simulation` for what may happen to
them, and for what must be true.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.simulation import Simulation, simulate, simulated
from tests.support.world import World


@pytest.fixture
def world(dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with simulated(Simulation, World, dsn, tmp_path, monkeypatch):
        yield


def test_boards_come_to_equal_the_ledger_whatever_happens(world: None) -> None:
    simulate(Simulation, 60, 40, derandomize=True)


@pytest.mark.long
def test_boards_come_to_equal_the_ledger_whatever_happens_for_long(world: None) -> None:
    simulate(Simulation, 3_000, 60, derandomize=False)


def test_a_name_that_comes_late_moves_the_boards_of_a_week_that_has_begun_meanwhile(world: None) -> None:
    """An unban, sent before the week began, brings the name of a user whom the week shows without one by then."""
    state = Simulation()
    state.begin()
    state.ban(of=0, user_id=9, banned=False, at_once=False)
    state.time_passes()
    state.batch(of=0, made=[(9, "a", 0, True)], at_once=True)
    state.versions_stand()
    state.teardown()
