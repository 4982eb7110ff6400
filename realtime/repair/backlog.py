"""Backlog: counts what waits: changes in the outbox, and commits for a synchronous standby.

Owns these figures for readiness and metrics: how many rows wait, the age of the oldest, and how long the oldest commit
has. Must never make a reader wait for PostgreSQL. Assumes that figures of the last 5 s are new enough.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from realtime.ledger.ledger import Ledger
from realtime.metrics import Figure

log = logging.getLogger(__name__)

BACKLOG_INTERVAL: Final = 5.0
"""Seconds between two looks at the outbox."""


LONG_WAIT: Final = 5.0
"""Seconds after which a commit waits for a standby that is not there."""

LOST_STANDBY: Final = (
    "commits have waited for a synchronous standby for %.0f s, and nothing is recorded until one follows: see "
    "pg_stat_replication and synchronous_standby_names"
)


class Backlog:
    """How many changes waited for the store at the last look, and for how long."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._rows = 0
        self.age = 0.0
        """Age of the oldest row, in seconds."""
        self._commit = 0.0  # seconds that the oldest commit has waited for a standby

    async def watch(self) -> None:
        """Looks every BACKLOG_INTERVAL seconds. Never ends by itself."""
        while True:
            self._rows, self.age = await self._ledger.outbox_state()
            ((_, waited),) = await self._ledger.fetch("commits_waiting")
            if waited > LONG_WAIT >= self._commit:
                log.error(LOST_STANDBY, waited, extra={"action": "standby"})
            self._commit = waited
            await asyncio.sleep(BACKLOG_INTERVAL)

    def figures(self) -> list[Figure]:
        """What the metrics show of it."""
        return [
            ("gauge", "outbox_rows", "Changes recorded that the store may not have", lambda: self._rows),
            ("gauge", "outbox_age_seconds", "Age of the oldest of these", lambda: self.age),
            ("gauge", "commit_wait_seconds", "How long a commit has waited for a standby", lambda: self._commit),
        ]
