"""Validation: what a number, a text or a moment from outside may be.

Owns the bounds that PostgreSQL, the store and JavaScript share. Must never accept what one of them would change.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from realtime.errors import RealtimeError

INT_MIN: Final = -(2**31)

INT_MAX: Final = 2**31 - 1
"""A submission's score is PostgreSQL's INT."""

ID_MAX: Final = 2**53 - 1
"""User ids stay exact in JavaScript's numbers."""

TOTAL_MAX: Final = 2**53
"""A total stays within plus or minus this: a sorted set's score is a double."""

EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""No score is older than this."""

_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,400}(?:\.[0-9]{1,400})?(?:[eE][+-]?[0-9]{1,4})?\Z")
"""A number as JSON and engines write it, short enough to be made exact."""

_LEAP_SECOND: Final = re.compile(r"(:59):60(?:[.,][0-9]+)?")


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
    raise _wrong(value, name, "a whole number")


def _wrong(value: Any, name: str, right: str) -> RealtimeError:
    return RealtimeError("bad_message", f"{name} is missing." if value is None else f"{name} must be {right}.")


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
        raise _wrong(value, name, "a text")
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
