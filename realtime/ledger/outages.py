"""Outages: what asyncpg's errors say about PostgreSQL, for all who only need to know that it cannot be used now.

Owns which errors those are, how often each cause was met, and the one line in the log for it. Must never write that
line for every statement that fails: one a cause and minute. Assumes that `health` tells of a PostgreSQL that is away.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from ssl import SSLError
from time import monotonic
from typing import TYPE_CHECKING, Final, NamedTuple

import asyncpg

from realtime.errors import (
    LedgerConflict,
    LedgerLocked,
    LedgerRefused,
    LedgerUnavailable,
    LedgerUnfit,
    NotPrimary,
    RowRefused,
    TransactionConflict,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger(__name__)

AGAIN: Final = 60.0
"""Seconds after which a cause that is still met is told again."""

CAUSES: Final = {
    "full": "has no room, or cannot write",
    "slow": "is too slow",
    "locked": "kept somebody waiting for a lock that others hold",
    "read_only": "takes no writes",
    "schema": "lacks a table",
    "refused": "lets nobody in, or not everywhere",
    "unfit": "must not be used",
    "replaced": "is not the primary, or no longer",
    "away": "is away",
}
"""Why PostgreSQL cannot be used now, as metrics and people are told."""


class _Kind(NamedTuple):
    """Errors that mean the same."""

    cause: str
    reason: str
    """For people, without asyncpg's words: these may name users and tables."""
    errors: tuple[type[BaseException], ...]
    raises: type[LedgerUnavailable] = LedgerUnavailable


_CONFLICTS: Final = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)

_KINDS: Final = (
    _Kind(
        "refused",
        "it refuses the user or the password of DATABASE_URL, or this host",
        (asyncpg.InvalidAuthorizationSpecificationError,),
        raises=LedgerRefused,
    ),
    _Kind(
        "refused",
        "it has no database of the name in DATABASE_URL",
        (asyncpg.InvalidCatalogNameError,),
        raises=LedgerRefused,
    ),
    _Kind(
        "refused",
        "permission denied: the user of DATABASE_URL lacks rights",
        (asyncpg.InsufficientPrivilegeError,),
        raises=LedgerRefused,
    ),
    _Kind(
        "refused",
        "an option of DATABASE_URL, or where it says nothing a PG variable of the environment, is wrong",
        (asyncpg.ClientConfigurationError,),
        raises=LedgerRefused,
    ),
    _Kind(
        "away",
        "no server of DATABASE_URL is what target_session_attrs asks for",
        (asyncpg.TargetServerAttributeNotMatched,),
    ),
    _Kind(
        "schema",
        "it is not migrated: run `realtime migrate`",
        (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError),
    ),
    _Kind("away", "it has no connection left", (asyncpg.TooManyConnectionsError,)),
    _Kind("full", "it has no room, or cannot write", (asyncpg.InsufficientResourcesError, asyncpg.PostgresIOError)),
    _Kind("locked", "it ended one of two who waited for each other", _CONFLICTS, LedgerConflict),
    _Kind("locked", "others hold a lock that is needed", (asyncpg.LockNotAvailableError,), LedgerLocked),
    _Kind(
        "slow",
        "it does not answer in time",
        (
            asyncpg.QueryCanceledError,
            asyncpg.TransactionTimeoutError,
            asyncpg.IdleInTransactionSessionTimeoutError,  # it is our side that stood still
            TimeoutError,
        ),
    ),
    _Kind("read_only", "it takes no writes", (asyncpg.ReadOnlySQLTransactionError,)),
    _Kind(
        "away",
        "it is starting or stopping",
        (asyncpg.CannotConnectNowError, asyncpg.AdminShutdownError, asyncpg.CrashShutdownError),
    ),
    _Kind("away", "TLS fails: see sslmode in DATABASE_URL, and the server's certificate", (SSLError,)),
    _Kind(
        "away",
        "the connection broke",
        # The last is used between the server's last words and the connection's end.
        (asyncpg.PostgresConnectionError, asyncpg.InterfaceError, asyncpg.InternalClientError),
    ),
    _Kind("away", "it cannot be reached", (OSError,)),
)
"""What asyncpg raises, the first that fits."""

_ALL: Final = tuple(error for kind in _KINDS for error in kind.errors)


def _kind(error: BaseException) -> _Kind:
    return next(kind for kind in _KINDS if isinstance(error, kind.errors))


@contextmanager
def mapped() -> Iterator[None]:
    """asyncpg's errors for "not now" as ours."""
    try:
        yield
    except _ALL as error:
        kind = _kind(error)
        raise kind.raises(str(error) or type(error).__name__, kind.reason) from error


_OUT_OF_RANGE: Final = (asyncpg.CheckViolationError, asyncpg.NumericValueOutOfRangeError)
_FOR_GOOD: Final = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.WithCheckOptionViolationError,
    asyncpg.PLPGSQLError,  # a trigger of the operator's
)
"""What PostgreSQL says of a row's content. Anything else may be over when the row comes again."""

_RANGE_CONSTRAINTS: Final = "_exact_in_a_double"
"""How constraints end that keep sums within their range."""


@contextmanager
def judged() -> Iterator[None]:
    """asyncpg's errors about what a statement holds as ours; those for "not now" pass.

    Rights are judged as content is: a trigger of the operator's may refuse one row for them.
    """
    try:
        yield
    except asyncpg.InsufficientPrivilegeError as error:
        raise RowRefused(str(error), out_of_range=False, for_good=False) from error
    except _CONFLICTS as error:
        raise TransactionConflict(str(error)) from error
    except _ALL:
        raise
    except asyncpg.PostgresError as error:
        named = getattr(error, "constraint_name", None)
        raise RowRefused(
            str(error),
            out_of_range=_is_out_of_range(error, named),
            for_good=isinstance(error, _FOR_GOOD),
        ) from error


def _is_out_of_range(error: asyncpg.PostgresError, constraint: str | None) -> bool:
    if isinstance(error, asyncpg.InternalServerError):  # so Citus passes on what one of its nodes says
        return _RANGE_CONSTRAINTS in str(error)
    return isinstance(error, _OUT_OF_RANGE) and (constraint is None or constraint.endswith(_RANGE_CONSTRAINTS))


def _cause_of(error: LedgerUnavailable) -> str:
    if isinstance(error, LedgerUnfit):
        return "unfit"
    if isinstance(error, NotPrimary):
        return "replaced"
    return _kind(error.__cause__).cause if isinstance(error.__cause__, _ALL) else "away"


class Outages:
    """Counts the outages that one process met, and tells of them."""

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
            self._take(_cause_of(error), error)
            raise

    def _take(self, cause: str, error: LedgerUnavailable) -> None:
        self.counts[cause] += 1
        if cause != "away" and monotonic() - self._told_at[cause] > AGAIN:
            self._told_at[cause] = monotonic()
            log.error("PostgreSQL %s: %s", CAUSES[cause], error, extra={"action": "ledger"})
