"""What can go wrong, as values: a stable code, a sentence for people, a hint when to try again.

Owns the list of codes and the HTTP status of each. Must never carry a secret or a foreign library's text:
messages are shown to clients as they stand. Assumes that callers raise the most specific code there is.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final

STATUS: Final[dict[str, int]] = {
    "bad_message": 400,
    "bad_definition": 422,
    "too_large": 413,
    "unknown_type": 400,
    "unknown_board": 404,
    "unknown_leaderboard": 404,
    "unknown_user": 404,
    "wrong_board": 400,
    "window_over": 409,
    "window_not_begun": 409,
    "bad_metadata": 422,
    "out_of_range": 422,
    "submission_conflict": 409,
    "overloaded": 503,
    "unavailable": 503,
    "unauthorized": 401,
    "forbidden": 403,
    "expired": 401,
    "too_many": 429,
    "conflict": 409,
    "not_found": 404,
    "method_not_allowed": 405,
}
"""HTTP status by code. `conflict`, `not_found` and `method_not_allowed` occur over HTTP alone."""


class RealtimeError(Exception):
    """Something a client is told: `code` for programs, `message` for people.

    `retry_after_ms` is a hint when the same request may succeed, or None where repeating it is useless. `board` is the
    board's name in a message that could not be read further.
    """

    board: str | None = None

    def __init__(self, code: str, message: str, *, retry_after_ms: int | None = None) -> None:
        assert code in STATUS, code
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after_ms = retry_after_ms

    @property
    def status(self) -> int:
        """The HTTP status that fits the code."""
        return STATUS[self.code]


class Unavailable(Exception):
    """Something cannot be used now. `reason` says why, for people: in the log with the foreign library's words behind
    it, where clients may read it alone.
    """

    def __init__(self, words: str, reason: str | None = None) -> None:
        super().__init__(words if reason is None or reason == words else f"{reason}: {words}")
        self.reason = reason or words


class StoreUnavailable(Unavailable):
    """The store did not answer in time, refused the connection, or answered with an error."""


class StoreUnfit(StoreUnavailable):
    """The store answers, but cannot be used: it refuses us, may drop keys, is a replica, or takes no writes."""


class StoreChanged(StoreUnavailable):
    """The store is not the one whose content we know: empty, restarted, replaced or failed over."""


class ForeignContent(StoreChanged):
    """A key holds what we never wrote: another type, or no number where one belongs."""


class EpochMoved(StoreChanged):
    """A script was refused: the store's content has another epoch than the caller expected.

    `epoch` is what the store holds now; None where it holds none.
    """

    def __init__(self, epoch: str | None) -> None:
        super().__init__(f"the store's content is of epoch {epoch!r}")
        self.epoch = epoch


class DefinitionMoved(StoreChanged):
    """The store's boards of a leaderboard are made by another rule than the caller knows: it was redefined.

    `rule` is the number that the store has, None where it has none, in content of `epoch`. A newer catalogue says what
    that rule is; where the content is another as well, that counts.
    """

    def __init__(self, slug: str, rule: str | None, epoch: str | None) -> None:
        super().__init__(f"the store's boards of {slug} are made by rule {rule!r}")
        self.slug = slug
        self.rule = rule
        self.epoch = epoch


class PartlyTold(StoreUnavailable):
    """Some partitions of the store have what was told, and some could not be told.

    `told` holds, by partition, the epoch of the content that has it; `untold` the partitions that may lack it.
    """

    def __init__(self, words: str, told: dict[str, str | None], untold: Collection[str]) -> None:
        super().__init__(words)
        self.told = told
        self.untold = untold


class LedgerUnavailable(Unavailable):
    """PostgreSQL did not answer in time or refused the connection."""


class NotPrimary(LedgerUnavailable):
    """A server of PostgreSQL answers, and must not be used: it is a standby, or was replaced by a promoted one."""


class LedgerLocked(LedgerUnavailable):
    """A statement waited in vain for a lock of somebody else's; nothing of it was done."""


class LedgerConflict(LedgerUnavailable):
    """PostgreSQL ended a transaction that others were in the way of; nothing of it was done, and the same again may
    succeed."""


class TransactionConflict(Exception):
    """Two transactions met, and PostgreSQL ended this one: the same again may succeed."""


class CatalogueMoved(Exception):
    """Definitions or windows are others by now than a statement was put together for; nothing of it was done."""


class WindowsMissing(Exception):
    """Submissions to `sources` at `moments` count in windows that have no row yet; nothing was recorded."""

    def __init__(self, sources: Sequence[int], moments: Sequence[datetime]) -> None:
        super().__init__(f"{len(moments)} moments have no window")
        self.sources = sources
        self.moments = moments


class RowRefused(Exception):
    """PostgreSQL refuses what a statement holds. Of a statement for many rows it does not say which one it means."""

    def __init__(self, words: str, *, out_of_range: bool, for_good: bool) -> None:
        super().__init__(words)
        self.out_of_range = out_of_range
        """Whether a sum would leave its range."""
        self.for_good = for_good
        """Whether it is the content, so that PostgreSQL will say so again."""


class NotOver(LedgerUnavailable):
    """PostgreSQL says that a week has not ended, whatever our estimate of its clock is: the store answers for it."""


class LedgerRefused(LedgerUnavailable):
    """PostgreSQL answers, and lets nobody in by this address: waiting does not help."""


class StartupError(Exception):
    """The process cannot start as it is set up. The message says what to change."""


class LedgerUnfit(LedgerRefused, StartupError):
    """PostgreSQL answers, and must not be used: its version or its encoding is not supported.

    Where a process starts, it starts no further; one that is at work waits until it meets another.
    """


class TaskFailed(Exception):
    """A background task cannot be kept going: better no process than one that lies."""

    def __init__(self, name: str) -> None:
        super().__init__(f"The task {name!r} failed again and again, so this process ended. Why is in the log.")


def first_of(errors: BaseException) -> BaseException:
    """The first error of a group, however deep it lies; any other error is itself."""
    while isinstance(errors, BaseExceptionGroup):
        errors = errors.exceptions[0]
    return errors
