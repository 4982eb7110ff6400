"""Services: everything that routes may ask, in one value.

Owns the list of services and two counts that routes make, of refusals and of closes. Must never be imported by a lower
room. Assumes that `server.assembly` builds every service.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from realtime.api.waiting import Waiting
from realtime.broadcast.broadcaster import Broadcaster
from realtime.broadcast.rank_feed import RankFeed
from realtime.broadcast.reading import BoardReader
from realtime.intake.admission import Admission
from realtime.intake.intake import Intake
from realtime.ledger.archive import Archive
from realtime.ledger.clock import Clock
from realtime.ledger.closed_boards import ClosedBoards
from realtime.ledger.definitions import Definitions
from realtime.ledger.leaderboards import Leaderboards
from realtime.metrics import Metrics
from realtime.people.accounts import Accounts
from realtime.people.authentication import Authentication
from realtime.people.limits import AddressCounter
from realtime.people.rate_limits import RateLimits
from realtime.people.tokens import Tokens
from realtime.settings import Settings
from realtime.wire.close_codes import CloseCode

_CLOSE_CODES: Final = frozenset({1000, 1001, 1005, 1006, *CloseCode})
"""The server's, and those that libraries and browsers use: every other would be a time series of its own."""


@dataclass(frozen=True, slots=True)
class ReadinessReport:
    """Whether a process should get traffic. What is merely late or being repaired is told, and keeps nobody away: it
    is the same in every process."""

    why: dict[str, str]
    """What keeps it from serving, by part; empty where nothing does."""
    outbox_age_s: float
    """Age of the oldest change that the store may not have."""
    read_lag_s: dict[str, float | None]
    """Of each standby that is read from, by its place in the setting, the seconds by which it is behind; None where it
    is not asked."""
    drift: int | None
    """Rows that differed between the stores at the last look; None where no worker is in this process."""


class Readiness(Protocol):
    """Who knows whether this process should get traffic."""

    def check(self) -> ReadinessReport: ...


@dataclass(frozen=True, slots=True)
class Services:
    """What routes ask; `server.assembly` builds it."""

    settings: Settings
    clock: Clock
    leaderboards: Leaderboards
    tokens: Tokens
    authentication: Authentication
    rate_limits: RateLimits
    admission: Admission
    intake: Intake
    broadcaster: Broadcaster
    rank_feed: RankFeed
    board_reader: BoardReader
    archive: Archive
    closed_boards: ClosedBoards
    definitions: Definitions
    accounts: Accounts
    connections: AddressCounter
    waiting: Waiting
    readiness: Readiness
    metrics: Metrics

    def refused(self, code: str) -> None:
        """Counts something that was refused."""
        self.metrics.refusals.labels(code).inc()

    def closed(self, code: int) -> None:
        """Counts a socket that has ended, with its close code; clients may make up their own."""
        self.metrics.closes.labels(str(int(code)) if code in _CLOSE_CODES else "other").inc()
