"""Services: everything that routes may ask, in one value.

Owns nothing: `app` builds what is in it. Must never be reached by anything below the routes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from realtime.broadcast.broadcaster import Broadcaster
from realtime.broadcast.rank_feed import RankFeed
from realtime.broadcast.reading import BoardReader
from realtime.intake.admission import Admission
from realtime.intake.intake import Intake
from realtime.ledger.archive import Archive
from realtime.ledger.clock import Clock
from realtime.metrics import Metrics
from realtime.people.accounts import Accounts
from realtime.people.authentication import Authentication
from realtime.people.limits import Connections
from realtime.people.rate_limits import RateLimits
from realtime.people.tokens import Tokens
from realtime.settings import Settings
from realtime.wire.close_codes import CloseCode

_CLOSE_CODES: Final = frozenset({1000, 1001, 1005, 1006, *CloseCode})
"""The server's, and those that libraries and browsers use: every other would be a time series of its own."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether a process should get traffic. What is merely late or being repaired is told, and keeps nobody away: it
    is the same in every process."""

    why: dict[str, str]
    """What keeps it from serving, by part; empty where nothing does."""
    outbox_age_s: float
    """Age of the oldest change that the store may not have."""
    drift: int | None
    """Rows that differed between the stores at the last look; None where no worker is in this process."""


@dataclass(frozen=True, slots=True)
class Services:
    """What routes ask; built by `app`."""

    settings: Settings
    clock: Clock
    tokens: Tokens
    access: Authentication
    throttle: RateLimits
    admission: Admission
    intake: Intake
    broadcaster: Broadcaster
    ranks: RankFeed
    reading: BoardReader
    history: Archive
    accounts: Accounts
    connections: Connections
    ready: Callable[[], Awaitable[Readiness]]
    metrics: Metrics

    def refused(self, code: str) -> None:
        """Counts something that was refused."""
        self.metrics.refusals.labels(code).inc()

    def closed(self, code: int) -> None:
        """Counts a socket that has ended, with its close code; clients may make up their own."""
        self.metrics.closes.labels(str(int(code)) if code in _CLOSE_CODES else "other").inc()
