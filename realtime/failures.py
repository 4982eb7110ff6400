"""Failures: what asyncpg's errors say about PostgreSQL, for all who only need to know that it cannot be used now.

Owns which errors those are, how often each cause was met, and the one line in the log for it. Must never write that
line for every statement that fails: one a cause and minute. Assumes that the pulse tells of a PostgreSQL that is away.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Final

import asyncpg

from realtime.errors import LedgerLocked, LedgerRefused, LedgerUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger(__name__)

AGAIN: Final = 60.0
"""Seconds after which a cause that is still met is told again."""

_REFUSED: Final = (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError)
"""What says that it may be used by others, or under another name."""

_FULL: Final = (asyncpg.InsufficientResourcesError, asyncpg.PostgresIOError)
_LOCKED: Final = (asyncpg.LockNotAvailableError,)
_SLOW: Final = (
    asyncpg.QueryCanceledError,
    asyncpg.TransactionTimeoutError,
    asyncpg.IdleInTransactionSessionTimeoutError,  # it is our side that stood still
    TimeoutError,
)
_READ_ONLY: Final = (asyncpg.ReadOnlySQLTransactionError,)
_SCHEMA: Final = (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError)

_AWAY: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # used between the server's last words and the connection's end
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    OSError,
)

CAUSES: Final = {
    "full": "has no room, or cannot write",
    "slow": "is too slow",
    "locked": "kept somebody waiting for a lock that others hold",
    "read_only": "takes no writes",
    "schema": "lacks a table",
    "away": "is away",
}
"""Why PostgreSQL cannot be used now, as metrics and people are told."""


@contextmanager
def mapped() -> Iterator[None]:
    """asyncpg's errors for "not now" as ours."""
    try:
        yield
    except _REFUSED as error:
        raise LedgerRefused(str(error)) from error
    except _SCHEMA as error:
        raise LedgerUnavailable(f"{error}: is it migrated? (`realtime migrate`)") from error
    except _LOCKED as error:
        raise LedgerLocked(str(error)) from error
    except (*_FULL, *_SLOW, *_READ_ONLY, *_AWAY) as error:
        raise LedgerUnavailable(str(error) or type(error).__name__) from error


def _cause(error: BaseException | None) -> str:
    if isinstance(error, asyncpg.TooManyConnectionsError):
        return "away"
    causes = (("full", _FULL), ("slow", _SLOW), ("locked", _LOCKED), ("read_only", _READ_ONLY), ("schema", _SCHEMA))
    return next((cause for cause, kinds in causes if isinstance(error, kinds)), "away")


class Failures:
    """Those that one process met."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(CAUSES, 0.0)
        """How often PostgreSQL could not be used, by cause."""
        self._told_at = dict.fromkeys(CAUSES, float("-inf"))

    @contextmanager
    def mapped(self) -> Iterator[None]:
        """asyncpg's errors for "not now" as ours, counted and told."""
        try:
            with mapped():
                yield
        except LedgerUnavailable as error:
            self._take(_cause(error.__cause__), error)
            raise

    def _take(self, cause: str, error: LedgerUnavailable) -> None:
        self.counts[cause] += 1
        if cause != "away" and monotonic() - self._told_at[cause] > AGAIN:
            self._told_at[cause] = monotonic()
            log.error("PostgreSQL %s: %s", CAUSES[cause], error, extra={"action": "ledger"})
