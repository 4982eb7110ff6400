"""What the ledger has of a leaderboard: its numbers, its definitions, and how far its standings are.

Owns how a row of the query `leaderboards` is read. Must never ask PostgreSQL anything. Assumes that definitions were
checked before they were kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

import orjson

from realtime.boards.definitions import Definition, needs_new_standings
from realtime.boards.parsing import parse_definition

REMEMBERED: Final = 8_192
"""Definitions that are parsed once."""


@dataclass(frozen=True, slots=True)
class Defined:
    """A leaderboard as the ledger has it."""

    id: int
    slug: str
    source: int
    source_slug: str
    definition: Definition
    """What is wanted."""
    is_removed: bool
    rule: int | None
    """The standings that are shown; None while there are none."""
    next_rule: int | None
    """Those that are being made in their place."""
    shown: Definition | None
    """The definition of the standings that are shown."""
    coming: Definition | None
    """The definition of those that are being made."""
    progress: float
    """How much of them is made, 0 to 1; 1 where nothing is being made."""
    failure: str | None
    """Why the last ones could not be made."""

    @property
    def is_building(self) -> bool:
        """Whether standings are being made."""
        return self.next_rule is not None

    def as_json(self, boards: Iterable[str]) -> dict[str, Any]:
        """What people and programs are told of it, with the ids of its boards that run now."""
        fields: dict[str, Any] = {
            "slug": self.slug,
            "definition": self.definition.as_json(),
            "state": "building" if self.is_building or self.rule is None else "live",
            "progress": round(self.progress, 4),
            "boards": list(boards),
        }
        if self.failure is not None:
            fields["failure"] = self.failure
        return fields

    def lacks(self, wanted: Definition, now: datetime | None = None) -> list[str] | None:
        """The fields for which other standings must be made than those that are shown, or are being made; None where
        there are neither. Without `now`, any other season is one."""
        made = self.coming or self.shown
        return None if made is None else needs_new_standings(made, wanted, now)

    @property
    def made_anew_for(self) -> list[str]:
        """The fields for which other standings are made than those that are shown; empty where the same are."""
        return [] if self.coming is None or self.shown is None else needs_new_standings(self.shown, self.coming)


def defined_of(row: Any) -> Defined:
    """A row of the query `leaderboards`."""
    slug = row["slug"]
    todo = row["todo"] or 0
    return Defined(
        row["id"],
        slug,
        row["source"],
        row["source_slug"],
        _read(slug, row["definition"]),
        row["is_removed"],
        row["rule"],
        row["next_rule"],
        None if row["shown"] is None else _read(slug, row["shown"]),
        None if row["next"] is None else _read(slug, row["next"]),
        1.0 if row["next_rule"] is None else min((row["done"] or 0) / todo, 1.0) if todo else 0.0,
        row["failure"],
    )


@lru_cache(REMEMBERED)
def _read(slug: str, text: str) -> Definition:
    """A definition as it is kept. Whoever reads one reads all of them: the same text is parsed once."""
    return parse_definition(slug, orjson.loads(text))
