"""What a username may be.

Owns the one rule for every way a name comes in: registration, rename, import. Must never change a name silently.
Assumes that pages show names as text and isolate their direction; this rule keeps out what misleads even so.
"""

from __future__ import annotations

import unicodedata
from typing import Any, Final

from realtime.errors import RealtimeError
from realtime.submissions import plain_text

USERNAME_LENGTH: Final = 64

_REFUSED_CATEGORIES: Final = frozenset({"Cc", "Cs", "Cn", "Co", "Zl", "Zp"})
_REFUSED_FORMATS: Final = frozenset(
    # Bidi overrides, embeddings and isolates (UAX 9), which can turn a neighbour's text around; invisible
    # operators, fillers and tags. Joiners (U+200C, U+200D) stay: Persian, Hindi and emoji need them.
    "\u200b\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2060\u2061\u2062\u2063\u2064"
    "\u2066\u2067\u2068\u2069\u206a\u206b\u206c\u206d\u206e\u206f\ufeff\ufff9\ufffa\ufffb\u00ad\u180e"
    "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"
)


def check_username(value: Any) -> str:
    """`value` where it can be a username: 1 to 64 characters, something to see, nothing that misleads.

    Raises RealtimeError `bad_message` or `out_of_range`.
    """
    name = plain_text(value, "username", 1, USERNAME_LENGTH)
    for character in name:
        tag = "\U000e0000" <= character <= "\U000e007f"
        if character in _REFUSED_FORMATS or tag or unicodedata.category(character) in _REFUSED_CATEGORIES:
            raise RealtimeError(
                "bad_message", "username must not contain control, direction or invisible characters."
            )
    if name != name.strip():
        raise RealtimeError("bad_message", "username must not begin or end with a space.")
    if not any(unicodedata.category(character)[0] in "LNPS" for character in name):
        raise RealtimeError("bad_message", "username must contain something to see.")
    return name
