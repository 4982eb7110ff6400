"""Formats: how a score in the smallest unit is written for people.

Owns the text of a score: `1:02.345`, `12.50`. Must never round or group: what is shown is exact, and the same in every
place. Assumes a definition's format; pages do the same in JavaScript, from the same examples.
"""

from __future__ import annotations

from realtime.boards.definitions import Format


def format_score(format: Format, score: int) -> str:
    """`score` as people read it. A duration is `m:ss`, with hours `h:mm:ss`, in milliseconds with three digits more."""
    sign, amount = ("-", -score) if score < 0 else ("", score)
    if format.kind == "decimal" and format.places:
        whole, part = divmod(amount, 10**format.places)
        return f"{sign}{whole}.{part:0{format.places}}"
    if format.kind == "duration":
        return sign + _duration(amount, format.unit == "ms")
    return f"{sign}{amount}"


def _duration(amount: int, in_ms: bool) -> str:
    seconds, ms = divmod(amount, 1_000) if in_ms else (amount, 0)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    text = f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
    return f"{text}.{ms:03}" if in_ms else text
