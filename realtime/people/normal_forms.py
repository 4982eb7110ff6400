"""Normal forms: the ways in which one text can be written (UAX 15).

Owns which writings are one text, by tables that are the same on every Python. Must never be what a text goes through on
its way to where it is kept: what somebody wrote stays as it is; this is for comparing.
"""

from __future__ import annotations

import unicodedata2


def composed(text: str) -> str:
    """`text` in normal form C: the same for every way to write it."""
    return unicodedata2.normalize("NFC", text)  # type: ignore[no-any-return]


def alike(text: str) -> str:
    """`text` for comparing as people do who type it: whatever its case, width and form."""
    return unicodedata2.normalize("NFKC", unicodedata2.normalize("NFKC", text).casefold())  # type: ignore[no-any-return]


def writings(text: str) -> list[str]:
    """`text` as it is, composed, and decomposed; each once. Plain ASCII has one."""
    if text.isascii():
        return [text]
    return list(dict.fromkeys((text, composed(text), unicodedata2.normalize("NFD", text))))
