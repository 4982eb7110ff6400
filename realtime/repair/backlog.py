"""Backlog: counts what waits in the outbox.

Owns two figures for readiness and metrics: how many rows wait, and the age of the oldest. Must never make a reader wait
for PostgreSQL. Assumes that figures of the last 5 s are new enough.
"""

from __future__ import annotations

import asyncio
from typing import Final

from realtime.ledger.ledger import Ledger
from realtime.metrics import Figure

BACKLOG_INTERVAL: Final = 5.0
"""Seconds between two looks at the outbox."""


class Backlog:
    """How many changes waited for the store at the last look, and for how long."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._rows = 0
        self.age = 0.0
        """Age of the oldest row, in seconds."""

    async def watch(self) -> None:
        """Looks every BACKLOG_INTERVAL seconds. Never ends by itself."""
        while True:
            self._rows, self.age = await self._ledger.outbox_state()
            await asyncio.sleep(BACKLOG_INTERVAL)

    def figures(self) -> list[Figure]:
        """What the metrics show of it."""
        return [
            ("gauge", "outbox_rows", "Changes recorded that the store may not have", lambda: self._rows),
            ("gauge", "outbox_age_seconds", "Age of the oldest of these", lambda: self.age),
        ]
