"""Filling: the store's content made anew, under an epoch that nobody reads yet.

Owns the marks around it. Must never drop what a later rebuild has filled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    pass


KEYS_A_CALL: Final = 5_000
"""Keys dropped in one script call, for the same reason."""
