"""Failovers of PostgreSQL in their short form. The long one is run by hand: `python -m tests.chaos`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos import ledger_failovers
from tests.chaos.scenarios import SHORT
from tests.support.replicated import lacking


@pytest.fixture(scope="module")
def stores() -> Iterator[ledger_failovers.Replicated]:
    """A pair of servers and a store: promoted and turned round by one scenario after the other."""
    if os.environ.get("DRAGONFLY_URL"):
        pytest.skip("the store that was given is not ours to kill")
    if (why := lacking(namespaces=True)) is not None:
        pytest.skip(why)
    with tempfile.TemporaryDirectory(prefix="realtime-failovers-") as folder:
        with ledger_failovers.prepared(Path(folder)) as made:
            yield made


@pytest.mark.parametrize("scenario", ledger_failovers.BRIEF, ids=lambda scenario: scenario.__name__)
async def test_a_failover_loses_nothing_acknowledged_and_counts_nothing_twice(
    scenario: ledger_failovers.Scenario, stores: ledger_failovers.Replicated
) -> None:
    outcome = await scenario(stores, SHORT)
    print(outcome)
    outcome.check()
