"""Plans: what has to happen so that leaderboards become those that are wanted, and in which order.

Owns that order: at no point is one `of` a leaderboard that takes no submissions. Must never do any of it. Assumes that
what is there, and what is wanted, go together each by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from realtime.boards.definitions import DEFAULT_SLUG, Definition, changes, needs_new_standings
from realtime.ledger.defined import Defined


class Stretched(NamedTuple):
    """A running window that ends otherwise under another zone, or another first day of the week."""

    window: str
    """Its name."""
    ends: datetime
    """As it is now."""
    until: datetime
    """As it will be, if the change is made now."""


@dataclass(frozen=True, slots=True)
class Change:
    """One leaderboard's way to another definition. `before` is None where it is new."""

    slug: str
    before: Definition | None
    wanted: Definition
    anew: tuple[str, ...]
    """Changed fields for which standings must be made anew."""
    stretched: tuple[Stretched, ...] = ()
    """Running windows that end otherwise."""

    @property
    def fields(self) -> list[str]:
        """The names of the fields that differ."""
        return [] if self.before is None else changes(self.before, self.wanted)


@dataclass(frozen=True, slots=True)
class Plan:
    """What applying a set of definitions does."""

    added: tuple[Change, ...]
    changed: tuple[Change, ...]
    removed: tuple[str, ...]
    """What is there and not wanted, where that is to be removed."""
    left: tuple[str, ...]
    """What is there and not wanted, and stays."""

    @property
    def is_empty(self) -> bool:
        """Whether everything is as it is wanted."""
        return not (self.added or self.changed or self.removed)


class Step(NamedTuple):
    """One step of a plan: a leaderboard is defined as `wanted`, or removed where that is None."""

    slug: str
    wanted: Definition | None


def plan_of(there: Mapping[str, Defined], wanted: Mapping[str, Definition], now: datetime, *, prune: bool) -> Plan:
    """What leads from what is there to what is wanted."""
    added, changed = [], []
    for slug, definition in wanted.items():
        before = there.get(slug)
        if before is None:
            added.append(Change(slug, None, definition, ()))
        elif before.definition != definition or before.failure:
            shown = before.shown or before.definition
            changed.append(
                Change(slug, before.definition, definition, tuple(needs_new_standings(shown, definition, now)))
            )
    others = tuple(slug for slug in there if slug not in wanted and slug != DEFAULT_SLUG)
    return Plan(tuple(added), tuple(changed), others if prune else (), () if prune else others)


def steps_of(there: Mapping[str, Definition], wanted: Mapping[str, Definition], *, prune: bool) -> list[Step]:
    """The steps, in an order in which each of them can be done.

    First those that take submissions from now on; then whatever ranks another's, which has one by now, and is nobody's
    source; then removals of such; only then may one that took submissions rank another's, or go.
    """

    def place(step: Step) -> int:
        is_derived = step.slug not in there or there[step.slug].is_derived
        if step.wanted is None:
            return 2 if is_derived else 4
        if not step.wanted.is_derived:
            return 0
        return 1 if is_derived else 3

    steps = [Step(slug, definition) for slug, definition in wanted.items()]
    if prune:
        steps += [Step(slug, None) for slug in there if slug not in wanted and slug != DEFAULT_SLUG]
    return sorted(steps, key=place)
