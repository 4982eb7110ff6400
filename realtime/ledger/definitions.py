"""Definitions in the ledger: which leaderboards there are, and how one becomes another.

Owns the tables `leaderboards` and `rules`, and the rows of seasons in `windows`. Must never touch standings: where
others are needed it says so with a rule that is to be built, and whoever builds shows it. Assumes that definitions were
parsed (see `boards.parsing`), and that `while_nobody_is_hidden` keeps two of its transactions apart.

Each leaderboard changes in one transaction. Whatever breaks off a longer change, the same again goes on where it ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from time import monotonic
from typing import Any, Final, Protocol

import orjson

from realtime.boards.definition_sets import check_together
from realtime.boards.definitions import (
    DEFAULT_DEFINITION,
    DEFAULT_SLUG,
    Definition,
    DefinitionError,
    Problem,
    needs_new_standings,
)
from realtime.boards.leaderboard import DEFAULT
from realtime.errors import RealtimeError
from realtime.ledger import bounds
from realtime.ledger.bounds import Bounds
from realtime.ledger.defined import Defined, defined_of
from realtime.ledger.plans import Change, Plan, Step, Stretched, plan_of, steps_of


class Ledger(Protocol):
    """What definitions need of PostgreSQL."""

    def transaction(self, kind: Bounds = ...) -> AbstractAsyncContextManager[Any]: ...
    def query(self, name: str, source: int = ...) -> str: ...
    async def fetch(self, name: str, *args: Any) -> list[Any]: ...


class Definitions:
    """Reads and changes what leaderboards are."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._zones: frozenset[str] | None = None
        self._latest: dict[str, Defined] = {}
        self._latest_at = float("-inf")
        self._looking = asyncio.Lock()

    # Reading -------------------------------------------------------------------------------------------------------

    async def zones(self) -> frozenset[str]:
        """What PostgreSQL calls time zones. Raises LedgerUnavailable."""
        if self._zones is None:
            self._zones = frozenset(name for (name,) in await self._ledger.fetch("zones"))
        return self._zones

    async def all(self) -> dict[str, Defined]:
        """Every leaderboard there is, by slug. Raises LedgerUnavailable."""
        rows = await self._ledger.fetch("leaderboards")
        return {row["slug"]: defined_of(row) for row in rows if not row["is_removed"]}

    async def lately(self) -> dict[str, Defined]:
        """The same, as it was at most a second ago: for whoever may ask as often as they like. Raises
        LedgerUnavailable."""
        async with self._looking:
            if monotonic() - self._latest_at > LATELY:
                began = monotonic()
                self._latest = await self.all()
                self._latest_at = began
            return self._latest

    async def one(self, slug: str) -> Defined:
        """The leaderboard of that slug. Raises RealtimeError `unknown_leaderboard`, LedgerUnavailable."""
        found = (await self.all()).get(slug)
        if found is None:
            raise unknown_leaderboard(slug)
        return found

    async def plan(self, wanted: Mapping[str, Definition], now: datetime, *, prune: bool = False) -> Plan:
        """What `apply` would do. Raises LedgerUnavailable."""
        there = await self.all()
        plan = plan_of(there, wanted, now, prune=prune)
        changed = [
            replace(change, stretched=await self._stretched(there[change.slug], change.wanted))
            for change in plan.changed
        ]
        return replace(plan, changed=tuple(changed))

    async def _stretched(self, before: Defined, wanted: Definition) -> tuple[Stretched, ...]:
        """Running windows that `wanted` lets end at another moment."""
        kinds = _stretched_kinds(before.definition, wanted)
        if not kinds:
            return ()
        rows = await self._ledger.fetch("stretched", before.id, kinds, wanted.zone, wanted.week_starts)
        return tuple(Stretched(*row) for row in rows)

    # Changing ------------------------------------------------------------------------------------------------------

    async def apply(
        self,
        wanted: Mapping[str, Definition],
        *,
        actor: str,
        prune: bool = False,
        told: Callable[[Step], None] = lambda step: None,
    ) -> None:
        """Defines what is wanted, and with `prune` removes what is not; one leaderboard after the other.

        `told` hears of each step that is done. Raises DefinitionError before anything is done where the whole does not
        go together, and at the step of whoever's season has been otherwise; RealtimeError `conflict` where others
        change the same meanwhile; LedgerUnavailable.
        """
        there = await self.all()
        known = {slug: one.definition for slug, one in there.items() if not (prune and slug not in wanted)}
        if problems := check_together({**known, **wanted}, [*there, *wanted]):
            raise DefinitionError(problems)
        for step in steps_of({slug: one.definition for slug, one in there.items()}, wanted, prune=prune):
            one = there.get(step.slug)
            if step.wanted is None:
                await self.remove(step.slug, actor=actor)
            elif one is None or one.definition != step.wanted or one.lacks(step.wanted) != []:
                await self.put(step.wanted, actor=actor)
            told(step)

    async def put(self, definition: Definition, *, actor: str) -> Change | None:
        """Defines a leaderboard, or changes it; None where it is so already.

        Raises DefinitionError where it does not go together with the others or with what has been; LedgerUnavailable.
        """
        async with self._changing(actor) as change:
            return await change.put(definition)

    async def remove(self, slug: str, *, actor: str) -> None:
        """Takes a leaderboard's boards away; its transactions stay, and defining it again brings it back.

        Raises RealtimeError `unknown_leaderboard`, `conflict` where others are `of` it, `forbidden` for default;
        LedgerUnavailable.
        """
        async with self._changing(actor) as change:
            await change.remove(slug)

    async def rebuild(self, slug: str, *, actor: str) -> None:
        """Has a leaderboard's standings made anew from the log. Raises RealtimeError `unknown_leaderboard`,
        LedgerUnavailable."""
        async with self._changing(actor) as change:
            await change.rebuild(slug)

    @asynccontextmanager
    async def _changing(self, actor: str) -> AsyncIterator[_Change]:
        """A transaction in which nobody else defines leaderboards, and nobody is hidden."""
        async with self._ledger.transaction(bounds.DEFINING) as connection:
            await connection.execute("SELECT while_nobody_is_hidden()")
            now = await connection.fetchval("SELECT clock_timestamp()")
            rows = await connection.fetch(self._ledger.query("leaderboards"))
            yield _Change(self._ledger, connection, {row["slug"]: defined_of(row) for row in rows}, now, actor)
        self._latest_at = float("-inf")


def unknown_leaderboard(slug: str) -> RealtimeError:
    """What is said of a slug that nobody knows."""
    return RealtimeError("unknown_leaderboard", f"There is no leaderboard {slug!a} here.")


def _written(definition: Definition) -> str:
    return orjson.dumps(definition.as_json()).decode()


def kinds_of(definition: Definition) -> list[str]:
    """The kinds of windows whose standings are kept in `scores`: those of default that are published have tables of
    their own, which know no metadata. What once is in `scores` stays there, see the queries `rule_kept` and
    `rule_begun`."""
    is_published = definition.slug == DEFAULT_SLUG and not definition.metadata
    published = DEFAULT_DEFINITION.windows if is_published else ()
    return [kind for kind in definition.windows if kind not in published]


def _stretched_kinds(before: Definition, wanted: Definition) -> list[str]:
    """The kinds of windows whose running one ends by another rule than it began by."""
    kinds = [kind for kind in before.windows if kind in wanted.windows and kind not in ("all_time", "season")]
    if before.zone != wanted.zone:
        return kinds
    return [kind for kind in kinds if kind == "week"] if before.week_starts != wanted.week_starts else []


LATELY: Final = 1.0
"""Seconds for which what was read is shown."""

SOON: Final = timedelta(seconds=15)
"""What lies no further ahead may have scores: a sender's clock may be ahead."""

_AT_ONCE: Final = ("zone", "week_starts", "bounds", "submit", "visible")
"""Fields of a definition that count before the standings are made that others need."""


class _Change:
    """One change of one leaderboard, in an open transaction."""

    def __init__(
        self, ledger: Ledger, connection: Any, everything: Mapping[str, Defined], now: datetime, actor: str
    ) -> None:
        self._ledger = ledger
        self._connection = connection
        self._now = now
        self._actor = actor
        self._known = everything
        self._there = {slug: one for slug, one in everything.items() if not one.is_removed}
        self._rounds: set[int] = set()
        """Sources whose heads are to be marked anew."""

    async def put(self, wanted: Definition) -> Change | None:
        self._check(wanted)
        before = self._there.get(wanted.slug)
        known = self._known.get(wanted.slug)
        if before is not None and before.definition == wanted and before.lacks(wanted, self._now) == []:
            return None
        if known is not None:
            await self._run("failure_mended", known.id)
        moves = before is not None and before.definition.of != wanted.of
        if before is not None and moves:
            await self._run("rules_retired", before.id, True)
        of = None if wanted.of is None else self._there[wanted.of].id
        (row,) = await self._run("leaderboard_defined", wanted.slug, _written(wanted), of)
        number, source = row
        if before is None or moves:
            await self._hide(number, source)
        await self._seasons(number, wanted)
        if known is not None:
            await self._stretch(number, known.definition, wanted)
        anew = ["of"] if moves else await self._standings(number, source, None if moves else before, wanted)
        if moves:
            await self._begin(number, source, wanted)
        for query in ("windows_of_now", "windows_of_next"):  # else the first score would wait for them
            await self._run(query, number, kinds_of(wanted))
        change = Change(wanted.slug, None if before is None else before.definition, wanted, tuple(anew))
        await self._done("define", {"leaderboard": wanted.slug, "definition": wanted.as_json(), "anew": anew})
        return change

    async def remove(self, slug: str) -> None:
        one = self._named(slug)
        if slug == DEFAULT_SLUG:
            raise RealtimeError("forbidden", "default cannot be removed: it is what every deployment has.")
        if of_it := [other.slug for other in self._there.values() if other.definition.of == slug]:
            names = ", ".join(of_it)
            raise RealtimeError("conflict", f"{names} ranks the submissions of {slug}. Remove {names} first.")
        await self._run("rules_retired", one.id, True)
        await self._run("leaderboard_removed", one.id)
        await self._done("remove", {"leaderboard": slug, "definition": one.definition.as_json()})

    async def rebuild(self, slug: str) -> None:
        one = self._named(slug)
        await self._begin(one.id, one.source, one.definition)
        await self._done("rebuild", {"leaderboard": slug})

    def _named(self, slug: str) -> Defined:
        if slug not in self._there:
            raise unknown_leaderboard(slug)
        return self._there[slug]

    def _check(self, wanted: Definition) -> None:
        everything = {slug: one.definition for slug, one in self._there.items()} | {wanted.slug: wanted}
        if problems := check_together(everything, [wanted.slug]):
            raise DefinitionError(problems)

    # What a change consists of -------------------------------------------------------------------------------------

    async def _standings(self, number: int, source: int, before: Defined | None, wanted: Definition) -> list[str]:
        """Sees to it that there are standings by the wanted definition, or that they are made; what for."""
        shown = None if before is None else before.shown
        anew = [] if shown is None else needs_new_standings(shown, wanted, self._now)
        if before is not None and shown is not None and not anew:
            if before.is_building:
                await self._run("rules_retired", number, False)
            await self._run("rule_kept", before.rule, _written(wanted), kinds_of(wanted))
        else:
            if before is not None and shown is not None:
                going_on = replace(shown, **{name: getattr(wanted, name) for name in _AT_ONCE})
                await self._run("rule_kept", before.rule, _written(going_on), kinds_of(shown))
            if before is not None and before.coming is not None and self._goes_on(before, wanted):
                await self._run("rule_kept", before.next_rule, _written(wanted), kinds_of(wanted))
            else:
                await self._begin(number, source, wanted)
        if shown is not None and wanted.metadata and not shown.metadata:
            await self._describe_derived(number)
        return anew

    def _goes_on(self, before: Defined, wanted: Definition) -> bool:
        """Whether the build that is under way makes what is wanted. It knows windows by their numbers, which stretching
        them changes."""
        moved = before.definition.zone != wanted.zone or before.definition.week_starts != wanted.week_starts
        return not moved and not before.lacks(wanted, self._now)

    async def _describe_derived(self, source: int) -> None:
        """Those that are `of` a source show metadata where it does: their rows in the store lack it so far."""
        for one in self._there.values():
            if one.source == source != one.id:
                await self._begin(one.id, source, one.coming or one.definition)

    async def _begin(self, number: int, source: int, definition: Definition) -> None:
        """Standings of a leaderboard are to be made. Others of the same source that were being made begin anew, under
        other numbers: heads are walked once for all of them."""
        if source not in self._rounds:
            self._rounds.add(source)
            for one in self._there.values():
                if one.source == source and one.id != number and one.coming is not None:
                    await self._new_rule(one.id, one.coming)
        await self._new_rule(number, definition)

    async def _new_rule(self, number: int, definition: Definition) -> None:
        await self._run("rules_retired", number, False)
        kinds, ascending = kinds_of(definition), definition.is_ascending
        await self._run("rule_begun", number, _written(definition), definition.operator, ascending, kinds)

    async def _hide(self, number: int, source: int) -> None:
        """Whoever is banned is so on a leaderboard that is new as well, and nobody else is on one that is back."""
        if source == number and number != 1:
            ((hidden,),) = await self._run("hidden_from_source", number)
            await self._run("source_shown", number, hidden, source=source)
            await self._run("source_hidden", number, hidden, source=source)
        elif source == 1 and number != 1:
            await self._run("derived_shown_of_default", number)
            await self._run("derived_hidden_of_default", number)
        elif source != number:
            ((banned,),) = await self._run("banned_from", number)
            await self._run("derived_shown", number, source, banned, source=source)
            await self._run("derived_hidden", number, source, banned, source=source)

    async def _stretch(self, number: int, before: Definition, wanted: Definition) -> None:
        """The running windows end by the new zone, or on the new first day of the week."""
        if before.zone == wanted.zone and before.week_starts == wanted.week_starts:
            return
        for kind in ("day", "week", "month", "year"):
            if before.zone != wanted.zone or kind == "week":
                await self._connection.execute("SELECT stretch_windows($1, $2)", number, kind)

    async def _seasons(self, number: int, wanted: Definition) -> None:
        """Brings the rows of seasons to the definition. Raises DefinitionError where one has been otherwise."""
        if "season" not in wanted.windows:
            return
        rows = {row["name"]: row for row in await self._run("seasons", number)}
        seasons = {f"season_{season.id}": season for season in wanted.seasons}
        problems: list[Problem] = []
        for name, row in rows.items():
            if row["has_begun"]:
                season = seasons.get(name)
                problems += _been(name, row, None if season is None else (season.starts, season.ends), self._now)
        if problems:
            raise DefinitionError(problem.within(wanted.slug) for problem in problems)
        gone = [
            name
            for name, row in rows.items()
            if not row["has_begun"]
            and (name not in seasons or (seasons[name].starts, seasons[name].ends) != (row["starts"], row["ends"]))
        ]
        await self._run("seasons_gone", number, gone)
        for name, season in seasons.items():
            row = rows.get(name)
            if row is None or name in gone:
                await self._run("season_made", number, name, season.starts, season.ends)
            elif row["ends"] != season.ends:
                await self._run("season_ends", number, name, season.ends)

    async def _done(self, action: str, detail: Mapping[str, Any]) -> None:
        if self._rounds:
            await self._run("round_begun", sorted(self._rounds))
        await self._run("definition_audit", self._actor, action, orjson.dumps(detail).decode())
        await self._run("revision_moved")

    async def _run(self, name: str, *args: Any, source: int = DEFAULT.id) -> list[Any]:
        return list(await self._connection.fetch(self._ledger.query(name, source), *args))


def _been(name: str, row: Any, wanted: tuple[datetime, datetime] | None, now: datetime) -> Iterable[Problem]:
    """What is wrong with a season that has begun, as it is wanted."""
    called = name.removeprefix("season_")
    starts, ends = (row[end].isoformat().replace("+00:00", "Z") for end in ("starts", "ends"))
    if wanted is None:
        yield Problem("seasons", f"{called} has begun, and stays.", f"Keep it: it starts {starts} and ends {ends}.")
        return
    if wanted[0] != row["starts"]:
        yield Problem("seasons", f"{called} has begun: its start is fixed.", f"Use {starts}.")
    if wanted[1] != row["ends"] and row["has_ended"]:
        yield Problem("seasons", f"{called} has ended: its end is fixed.", f"Use {ends}.")
    elif wanted[1] != row["ends"] and wanted[1] <= now + SOON:
        yield Problem("seasons", f"{called} cannot end at a moment that may have scores.", "Use a later one.")
