"""Members: what stands for a user in a board's Sorted Set, and what is kept beside it.

Owns both forms. Must never lose a digit of a score or a moment. Assumes that the store orders equal scores by member.

Where the user id decides between equal scores, the member is the user id, and `versions` has the row's version. Where
the moment decides, 32 digits stand in front of the user id: 16 of the microseconds since 1970, 16 of the transaction's
number, both complemented (subtracted from sixteen nines) where the store's order is the other way round; and `versions`
has `version:digits`, by which a script finds the member that it replaces.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from realtime.boards.standings import At, Order

DIGITS: Final = 32
"""In front of the user id."""

_MOST: Final = 10**16 - 1
"""The greatest number of 16 digits: microseconds until the year 2286."""


def is_complemented(order: Order) -> bool:
    """Whether the digits run against time. An ascending board is read from the least member on, a descending one from
    the greatest; who stands higher must come first."""
    return order.ascending == (order.ties == "last")


def digits_of(at: At, complemented: bool) -> str:
    """The 32 digits of a moment. What lies beyond sixteen digits counts as the end of them."""
    micros, number = at
    micros = 0 if micros < 0 else min(micros, _MOST)
    number = 0 if number < 0 else min(number, _MOST)
    if complemented:
        micros, number = _MOST - micros, _MOST - number
    return f"{micros:016}{number:016}"


def at_of(digits: bytes, complemented: bool) -> At:
    """The moment that 32 digits stand for. Raises ValueError."""
    if len(digits) != DIGITS or not digits.isdigit():
        raise ValueError("a member does not begin with a moment")
    micros, number = int(digits[:16]), int(digits[16:])
    return (_MOST - micros, _MOST - number) if complemented else (micros, number)


def split(members: Sequence[bytes], order: Order) -> tuple[list[bytes], list[At]]:
    """User ids, unparsed, and moments of members of a board where the moment decides. Raises ValueError."""
    complemented = is_complemented(order)
    return [m[DIGITS:] for m in members], [at_of(m[:DIGITS], complemented) for m in members]
