"""Services: everything that routes may ask, in one value.

Owns nothing: `app` builds what is in it. Must never be reached by anything below the routes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from realtime.access import Access
from realtime.accounts import Accounts
from realtime.admission import Admission
from realtime.broadcaster import Broadcaster
from realtime.history import History
from realtime.intake import Intake
from realtime.limits import Connections
from realtime.metrics import Metrics
from realtime.postgres import Clock
from realtime.ranks import Ranks
from realtime.reading import Reading
from realtime.settings import Settings
from realtime.throttle import Throttle
from realtime.tokens import Tokens


@dataclass(frozen=True, slots=True)
class Services:
    """What routes ask; built by `app`."""

    settings: Settings
    clock: Clock
    tokens: Tokens
    access: Access
    throttle: Throttle
    admission: Admission
    intake: Intake
    broadcaster: Broadcaster
    ranks: Ranks
    reading: Reading
    history: History
    accounts: Accounts
    connections: Connections
    ready: Callable[[], Awaitable[dict[str, str]]]
    """What keeps the process from serving, by part; empty where nothing does."""
    metrics: Metrics

    def refused(self, code: str) -> None:
        """Counts something that was refused."""
        self.metrics.refusals.labels(code).inc()

    def closed(self, code: int) -> None:
        """Counts a socket that the server closed."""
        self.metrics.closes.labels(str(int(code))).inc()
