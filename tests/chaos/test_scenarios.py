"""The scenarios in their short form. The long one is run by hand: `python -m tests.chaos --rounds 50`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos import scenarios
from tests.chaos.deployment import KeptStore, Stores


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores[KeptStore]]:
    """Both stores with their users: killed, stopped and started by one scenario after the other."""
    if os.environ.get("DATABASE_URL") or os.environ.get("DRAGONFLY_URL"):
        pytest.skip("the stores that were given are not ours to kill")
    made = scenarios.prepare(Path(tmp_path_factory.mktemp("chaos")))
    try:
        yield made
    finally:
        made.stop()


@pytest.mark.parametrize("scenario", scenarios.ALL, ids=lambda scenario: scenario.__name__)
async def test_nothing_is_lost_and_nothing_counted_twice(
    scenario: scenarios.Scenario, stores: Stores[KeptStore]
) -> None:
    outcome = await scenario(stores, scenarios.SHORT)
    print(outcome)
    outcome.check()
