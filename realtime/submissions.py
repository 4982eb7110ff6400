"""Submissions and their outcomes: what may be asked of the ledger, and what it answered.

Owns the rules a submission must meet before it is queued, and the limits they rest on. Must never know who is
asking (rights are decided by the caller) nor what a user's total is (the ledger's). Assumes parsed JSON or CSV.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, NamedTuple

from realtime.errors import RealtimeError

INT_MIN: Final = -(2**31)
INT_MAX: Final = 2**31 - 1
"""A submission's score is PostgreSQL's INT."""

ID_MAX: Final = 2**53 - 1
"""User ids stay exact in JavaScript's numbers."""

TOTAL_MAX: Final = 2**53
"""A total stays within plus or minus this: a sorted set's score is a double."""

SUBMISSION_ID_LENGTH: Final = 64
REASON_LENGTH: Final = 255

EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""No score is older than this."""

CLOCK_GRACE: Final = timedelta(seconds=5)
"""How far ahead of PostgreSQL's clock a sender's may be: what lies further ahead lies in the future."""

_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,400}(?:\.[0-9]{1,400})?(?:[eE][+-]?[0-9]{1,4})?\Z")
"""A number as JSON and engines write it, short enough to be made exact."""

_LEAP_SECOND: Final = re.compile(r"(:59):60(?:[.,][0-9]+)?")


class Submission(NamedTuple):
    """One score handed in. `created_at` is None for "when the ledger records it"."""

    user_id: int
    submission_id: str
    score_added: int
    reason: str | None
    created_at: datetime | None


class Accepted(NamedTuple):
    """The submission is committed, now or (`duplicate`) earlier. Scores are current, not of that moment."""

    submission_id: str
    user_id: int
    total_score: int
    week_score: int
    duplicate: bool


class Rejected(NamedTuple):
    """The submission changed nothing. `retry_after_ms` is None where repeating it is useless."""

    submission_id: str | None
    code: str
    message: str
    retry_after_ms: int | None = None

    @classmethod
    def of(cls, submission_id: str | None, error: RealtimeError) -> Rejected:
        """The outcome that says what `error` says."""
        return cls(submission_id, error.code, error.message, error.retry_after_ms)


Outcome = Accepted | Rejected


def whole_number(value: Any, name: str, low: int, high: int) -> int:
    """`value` as an int within [low, high]; `bad_message` or `out_of_range` otherwise. True is no number.

    Engines with one type of number send 5.0 and mean 5. JSON's numbers are doubles (RFC 7493, section 2.2), and every
    bound here lies within those that are exact. Beyond the largest double, JSON is read as infinite.
    """
    if type(value) is not int:
        value = _whole_double(value, name)
    if not low <= value <= high:
        raise RealtimeError("out_of_range", f"{name} must be from {low} to {high}.")
    return value  # type: ignore[no-any-return]


def _whole_double(value: Any, name: str) -> Any:
    if type(value) is float and value.is_integer():
        return int(value)
    if type(value) is float and math.isinf(value):
        return value
    raise RealtimeError("bad_message", f"{name} must be a whole number.")


def written_number(text: str, name: str, low: int, high: int) -> int:
    """The same of a number that is written out, as in a query or a file; it is taken exactly."""
    if len(text) <= 20 and text.isascii() and text.isdigit():
        value: int | Decimal = int(text)
    elif not _NUMBER.match(text) or (value := Decimal(text)) != value.to_integral_value():
        raise RealtimeError("bad_message", f"{name} must be a whole number.")
    if not low <= value <= high:
        raise RealtimeError("out_of_range", f"{name} must be from {low} to {high}.")
    return int(value)


def plain_text(value: Any, name: str, shortest: int, longest: int) -> str:
    """`value` as text PostgreSQL can keep, of a length within [shortest, longest] characters."""
    if type(value) is not str:
        raise RealtimeError("bad_message", f"{name} must be a text.")
    if not shortest <= len(value) <= longest:
        raise RealtimeError("out_of_range", f"{name} must have {shortest} to {longest} characters.")
    if "\x00" in value:
        raise RealtimeError("bad_message", f"{name} must not contain a NUL character.")
    if not value.isascii():
        _encodable(value, name)
    return value


def _encodable(value: str, name: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RealtimeError("bad_message", f"{name} is not valid Unicode: it has a lone surrogate.") from None


def submission_id_of(fields: Mapping[str, Any]) -> str | None:
    """The id to answer with, where there is a usable one."""
    try:
        return plain_text(fields.get("submission_id"), "submission_id", 1, SUBMISSION_ID_LENGTH)
    except RealtimeError:
        return None


def parse_submission(fields: Mapping[str, Any], own_user_id: int | None) -> Submission:
    """The submission that `fields` describe; `user_id` may be left out where `own_user_id` is given.

    An empty reason is none: a file of scores has one way to say either. Raises RealtimeError `bad_message` or
    `out_of_range`.
    """
    submission_id = plain_text(fields.get("submission_id"), "submission_id", 1, SUBMISSION_ID_LENGTH)
    score_added = whole_number(fields.get("score_added"), "score_added", INT_MIN, INT_MAX)
    reason = fields.get("reason")
    if reason is not None:
        reason = plain_text(reason, "reason", 0, REASON_LENGTH) or None
    user_id = fields.get("user_id")
    if user_id is None:
        if own_user_id is None:
            raise RealtimeError("bad_message", "user_id is missing, and the token names no user.")
        user_id = own_user_id
    else:
        user_id = whole_number(user_id, "user_id", 1, ID_MAX)
    created_at = fields.get("created_at")
    moment = None if created_at is None else parse_moment(created_at, "created_at")
    return Submission(user_id, submission_id, score_added, reason, moment)


def parse_moment(value: Any, name: str) -> datetime:
    """An ISO 8601 moment with its zone, as UTC; naive ones are refused, for they mean something else on each host.

    "t" and "z" may be small (RFC 3339, section 5.6). A leap second counts as the last microsecond before it: in the
    same day, and the same week.
    """
    try:
        text = value.upper()
        moment = datetime.fromisoformat(_LEAP_SECOND.sub(r"\1:59.999999", text) if ":60" in text else text)
    except (AttributeError, TypeError, ValueError):
        raise RealtimeError("bad_message", f"{name} must be a moment like 2026-11-23T10:00:00Z.") from None
    if moment.tzinfo is None:
        raise RealtimeError("bad_message", f"{name} must name its zone, like 2026-11-23T10:00:00Z.")
    try:
        moment = moment.astimezone(UTC)
    except OverflowError:
        raise RealtimeError("out_of_range", f"{name} lies outside the calendar.") from None
    if moment < EARLIEST:
        raise RealtimeError("out_of_range", f"{name} lies before 1970.")
    return moment
