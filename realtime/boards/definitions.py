"""Definitions: what a leaderboard ranks, by which rule, in which windows, as one value.

Owns the fields of a definition, their canonical JSON, and which change of them needs standings made anew. Must never
ask a database or a clock: the names of zones and the moment are arguments. Assumes that `boards.parsing` makes them of
what people write, so that a value here is right.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from realtime.errors import RealtimeError

SCORE_MAX: Final = 2**53 - 1
"""A score stays within plus or minus this: exact as a double, in a sorted set and in JavaScript."""

OPERATORS: Final = ("sum", "best", "last", "count")
ORDERS: Final = ("descending", "ascending")
KINDS: Final = ("all_time", "day", "week", "month", "year", "season")
WEEKDAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
TIES: Final = ("user_id", "first", "last")
RANKS: Final = ("competition", "dense", "ordinal")
SUBMITTERS: Final = ("players", "servers")
VISIBLE: Final = ("public", "private")

SLUG: Final = re.compile(r"[a-z][a-z0-9-]{0,31}")
"""What a leaderboard is called, as a whole."""

DEFAULT_SLUG: Final = "default"
"""The leaderboard that every deployment has."""


class Problem(NamedTuple):
    """One thing that is wrong with a definition."""

    field: str
    """The field, as in `bounds.min`; of a set of definitions with the slug in front; "" for all of it."""
    wrong: str
    """A sentence."""
    do: str
    """A sentence that says what helps."""

    def __str__(self) -> str:
        return f"{self.field}: {self.wrong} {self.do}" if self.field else f"{self.wrong} {self.do}"

    def within(self, slug: str) -> Problem:
        """The same, of the definition called `slug` among others."""
        return self._replace(field=f"{slug}.{self.field}" if self.field else slug)


class DefinitionError(RealtimeError):
    """Definitions that cannot be taken as they are. `problems` has everything that is wrong with them, in order."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        assert self.problems
        super().__init__("bad_definition", " ".join(map(str, self.problems)))


@dataclass(frozen=True, slots=True)
class Format:
    """How a score is shown to people. `places` is of `decimal`, `unit` (`s` or `ms`) of `duration`; else None."""

    kind: str = "integer"
    places: int | None = None
    unit: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The fields that its kind has."""
        fields = {"kind": self.kind, "places": self.places, "unit": self.unit}
        return {name: value for name, value in fields.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one submission may be, in the smallest unit, both ends included."""

    min: int
    max: int


@dataclass(frozen=True, slots=True)
class Season:
    """A stretch of time with a name, `[starts, ends)`, in UTC."""

    id: str
    starts: datetime
    ends: datetime

    def as_json(self) -> dict[str, Any]:
        """With moments of RFC 3339."""
        return {"id": self.id, "starts": _written(self.starts), "ends": _written(self.ends)}


@dataclass(frozen=True, slots=True)
class Definition:
    """What a leaderboard is. Values are those of the tuples above; windows are in the order of KINDS, seasons in that
    of time."""

    slug: str
    title: str
    of: str | None = None
    """The leaderboard whose submissions it ranks; None: its own."""
    operator: str = "sum"
    order: str = "descending"
    windows: tuple[str, ...] = ("all_time",)
    zone: str = "UTC"
    week_starts: str = "monday"
    ties: str = "user_id"
    ranks: str = "competition"
    format: Format = Format()
    bounds: Bounds | None = None
    """None: whatever a score may be. Of a derived one, what its source has counts."""
    submit: str = "players"
    visible: str | None = None
    """None: as the deployment's boards are."""
    metadata: bool = False
    seasons: tuple[Season, ...] = ()

    @property
    def is_derived(self) -> bool:
        """Whether it ranks another leaderboard's submissions."""
        return self.of is not None

    @property
    def is_ascending(self) -> bool:
        """Whether the smaller score is the better one."""
        return self.order == "ascending"

    def as_json(self) -> dict[str, Any]:
        """The definition as it is kept and shown: read again, it is equal. What a derived one cannot have, and what
        is not set, is left out."""
        fields: dict[str, Any] = {"title": self.title}
        if self.of is not None:
            fields["of"] = self.of
        fields |= {
            "operator": self.operator,
            "order": self.order,
            "windows": list(self.windows),
            "zone": self.zone,
            "week_starts": self.week_starts,
            "ties": self.ties,
            "ranks": self.ranks,
            "format": self.format.as_json(),
        }
        if self.bounds is not None:
            fields["bounds"] = {"min": self.bounds.min, "max": self.bounds.max}
        if self.of is None:
            fields |= {"submit": self.submit, "metadata": self.metadata}
        if self.visible is not None:
            fields["visible"] = self.visible
        if self.seasons:
            fields["seasons"] = [season.as_json() for season in self.seasons]
        return fields


DEFAULT_DEFINITION: Final = Definition(DEFAULT_SLUG, "Leaderboard", windows=("all_time", "week"))
"""What `default` is where nobody has defined it: the published rule."""


def changes(old: Definition, new: Definition) -> list[str]:
    """The names of the fields that differ, in the order of the fields."""
    names = Definition.__dataclass_fields__
    return [name for name in names if name != "slug" and getattr(old, name) != getattr(new, name)]


def needs_new_standings(old: Definition, new: Definition, now: datetime | None = None) -> list[str]:
    """The names of those changed fields for which standings must be made anew from the log; empty where none must.

    `operator`, `order` and `ties` decide what a row holds or how it is kept in the store. A window that is added has
    no rows yet. Metadata that is shown from now on may lie in the log. A season needs rows where it differs in time
    that has begun by `now`; without `now`, wherever it differs. Windows that begin later, in another zone or on another
    weekday, begin without rows.
    """
    return [name for name in changes(old, new) if _needs_new(name, old, new, now)]


def _needs_new(name: str, old: Definition, new: Definition, now: datetime | None) -> bool:
    if name == "windows":
        return not set(new.windows) <= set(old.windows)
    if name == "metadata":
        return new.metadata
    if name == "seasons":
        return "season" in new.windows and _differ(old.seasons, new.seasons, now)
    return name in ("of", "operator", "order", "ties")


def _differ(old: Iterable[Season], new: Iterable[Season], now: datetime | None) -> bool:
    """Whether a season of `new` holds time, begun by `now`, that none of the same name held."""
    before = {season.id: season for season in old}
    for season in new:
        known = before.get(season.id)
        if known == season:
            continue
        if now is None or (known is None and season.starts <= now):
            return True
        if known is not None and (
            (known.starts != season.starts and min(known.starts, season.starts) <= now)
            or (known.ends != season.ends and min(known.ends, season.ends) <= now)
        ):
            return True
    return False


def _written(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
