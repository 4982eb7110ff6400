"""Backlog: how much waits in the outbox.

Owns one number for readiness and metrics, asked for now and then. Must never hold up whoever reads it.
"""

from __future__ import annotations

import asyncio
from typing import Final

from realtime.ledger.ledger import Ledger
from realtime.metrics import Reading as Measured

BACKLOG_INTERVAL: Final = 5.0
"""Seconds between two looks at what waits in the ledger for the store."""


class Backlog:
    """How much waits in the ledger for its way to the store, as last looked."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._rows = 0
        self.age = 0.0  # seconds, of the oldest

    async def watch(self) -> None:
        """Looks now and then. Never ends by itself."""
        while True:
            self._rows, self.age = await self._ledger.outbox_state()
            await asyncio.sleep(BACKLOG_INTERVAL)

    def readings(self) -> list[Measured]:
        """For the metrics."""
        return [
            ("gauge", "outbox_rows", "Changes recorded that the store may not have", lambda: self._rows),
            ("gauge", "outbox_age_seconds", "Age of the oldest of these", lambda: self.age),
        ]
