"""Leaderboards: the catalogue of one process, kept up with the ledger.

Owns which catalogue is current here, and the windows of long ago that somebody has asked for. Must never compute where
a window begins, nor ask PostgreSQL for what is at hand. Assumes that every change of a definition, a rule or a window
moves the catalogue's revision in its own transaction.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any, Final, Protocol

from realtime.boards.board import Board, board_in, no_such_board
from realtime.boards.catalogue import PUBLISHED, Catalogue, Directory, Making, NotAtHand
from realtime.boards.definitions import Definition
from realtime.boards.leaderboard import Leaderboard, partition_of
from realtime.boards.windows import Window, name_of, read_name
from realtime.errors import LedgerUnavailable
from realtime.ledger.defined import Defined
from realtime.ledger.definitions import Definitions
from realtime.validation import EARLIEST

log = logging.getLogger(__name__)

INTERVAL: Final = 1.0
"""Seconds between two looks at the revision: every process knows of a change within two."""

KEPT_EVERY: Final = 20
"""Looks between two that make sure of the windows to come."""

FOUND: Final = 10_000
"""Windows of long ago that are remembered."""


class Ledger(Protocol):
    """What the catalogue needs of PostgreSQL."""

    async def fetch(self, name: str, *args: Any) -> list[Any]: ...


class Leaderboards(Directory):
    """The directory that knows what PostgreSQL knows. `on_change` is told every new catalogue."""

    def __init__(self, ledger: Ledger, definitions: Definitions, *, partitions: int) -> None:
        super().__init__(PUBLISHED)
        self._ledger = ledger
        self._definitions = definitions
        self._partitions = partitions
        self._found: OrderedDict[tuple[int, str], Window] = OrderedDict()
        self._refreshing = asyncio.Lock()
        self._looking_up = asyncio.Lock()
        self._looked_at = 0.0  # the loop's seconds: when the last look for a slug began
        self.on_change: list[Callable[[Catalogue], None]] = []

    # Keeping up ------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Looks every second whether the catalogue has moved, and makes sure of windows to come, until cancelled."""
        looks, kept_at = 0, -1
        while True:
            with suppress(LedgerUnavailable):
                if looks % KEPT_EVERY == 0 or kept_at != self.current.revision:  # a new leaderboard has none yet
                    await self._ledger.fetch("windows_kept")
                    kept_at = self.current.revision
                await self.look()
                looks += 1
            await asyncio.sleep(INTERVAL)

    async def look_soon(self) -> None:
        """Something shows that there may be a newer catalogue: looks for it. Never raises."""
        with suppress(LedgerUnavailable):
            await self.look()

    async def look(self) -> None:
        """Reads the catalogue anew where its revision has moved. Raises LedgerUnavailable."""
        ((revision,),) = await self._ledger.fetch("catalogue_revision")
        if revision != self.current.revision:
            await self.refresh()

    async def refresh(self) -> None:
        """Reads the catalogue anew. Raises LedgerUnavailable."""
        before = self.current
        async with self._refreshing:
            if self.current is not before:
                return  # somebody has just done so
            ((revision,),) = await self._ledger.fetch("catalogue_revision")
            defined = await self._definitions.all()
            rows = await self._ledger.fetch("windows_near")
            # What is read later may be newer than the revision: then the next look reads it once more.
            self.current = self._catalogue(revision, defined, rows)
            self._found.clear()
        log.debug("the catalogue is at revision %d", revision, extra={"action": "catalogue"})
        for tell in self.on_change:
            tell(self.current)

    def partition_of(self, source_slug: str) -> str:
        """The partition of all leaderboards that rank the submissions of `source_slug`."""
        return partition_of(source_slug, self._partitions)

    def _catalogue(self, revision: int, defined: Mapping[str, Defined], rows: Iterable[Any]) -> Catalogue:
        of_rules: dict[int, list[Window]] = {}
        for row in rows:
            window = Window(row["kind"], row["name"], row["starts"], row["ends"], row["id"])
            of_rules.setdefault(row["rule"], []).append(window)
        leaderboards: dict[str, Leaderboard] = {}
        windows: dict[int, list[Window]] = {}
        making: dict[int, Making] = {}
        for slug, one in defined.items():
            leaderboard = self._known(one, one.shown or one.coming or one.definition, defined)
            before = self.current.leaderboards.get(slug)
            leaderboards[slug] = before if before == leaderboard and before is not None else leaderboard
            if one.rule is not None:
                windows[one.id] = _of(leaderboard.definition, of_rules.get(one.rule, ()))
            if one.next_rule is not None and one.coming is not None:
                made = self._known(one, one.coming, defined)
                making[one.next_rule] = Making(made, _of(made.definition, of_rules.get(one.next_rule, ())))
        return Catalogue(revision, leaderboards, windows, making)

    def _known(self, one: Defined, definition: Definition, others: Mapping[str, Defined]) -> Leaderboard:
        source = others.get(one.source_slug)
        if source is not None and source is not one:
            # Whose submissions it ranks, decides what these bring along, and who sees them where it does not say so.
            of = source.shown or source.definition
            definition = replace(definition, metadata=of.metadata, visible=definition.visible or of.visible)
        partition = self.partition_of(one.source_slug)
        return Leaderboard(
            one.slug, definition, one.id, one.rule, one.source, one.source_slug, partition, one.next_rule
        )

    # Finding ---------------------------------------------------------------------------------------------------------

    def resolve(self, text: object, now: datetime) -> Board:
        """The board that an id or an alias stands for at `now`, also of a window that somebody has found.

        Raises RealtimeError `unknown_board`, and NotAtHand.
        """
        try:
            return self.current.resolve(text, now)
        except NotAtHand as error:
            window = error.leaderboard and self._found.get((error.leaderboard.id, error.window))
            if not window or error.leaderboard is None:
                raise
            return board_in(error.leaderboard, window)

    async def find(self, text: object, now: datetime) -> Board:
        """The same, also of windows that are not at hand. Raises RealtimeError `unknown_board`, LedgerUnavailable."""
        try:
            return self.resolve(text, now)
        except NotAtHand as error:
            if error.leaderboard is None:
                await self.look_up(error.slug)
                if error.slug not in self.current.leaderboards:
                    words = f"There is no such board: no leaderboard is called {error.slug}."
                    raise no_such_board(f"{words} Use all_time, or see /leaderboards.") from None
                return await self.find(text, now)
            return await self._find(error.leaderboard, error.window, now)

    async def look_up(self, slug: str) -> None:
        """Makes sure that PostgreSQL does not know a slug either that is not known here. One look does for all who ask
        meanwhile. Raises LedgerUnavailable."""
        asked = asyncio.get_running_loop().time()
        async with self._looking_up:
            if slug in self.current.leaderboards or self._looked_at >= asked:
                return
            began = asyncio.get_running_loop().time()
            await self.look()
            self._looked_at = began

    async def _find(self, leaderboard: Leaderboard, name: str, now: datetime) -> Board:
        rows = await self._ledger.fetch("window_named", leaderboard.id, name)
        if not _of(leaderboard.definition, [Window(*row) for row in rows]):
            rows = []  # one that is not shown yet
        window = Window(*rows[0]) if rows else await self._empty(leaderboard, name, now)
        self._found[leaderboard.id, name] = window
        if len(self._found) > FOUND:
            self._found.popitem(last=False)
        return board_in(leaderboard, window)

    async def _empty(self, leaderboard: Leaderboard, name: str, now: datetime) -> Window:
        """A window in which nobody was, between the first score and now."""
        said = read_name(name)
        assert said is not None, "the catalogue has read it"
        if said.first_day is None:
            raise no_such_board(f"{leaderboard.slug} has no such season.")
        if name != name_of(said.kind, said.first_day):
            raise no_such_board()
        if said.first_day > now.date() + timedelta(days=1):
            raise no_such_board(f"That {said.kind} has not begun.")
        if said.first_day.year < EARLIEST.year:
            raise no_such_board("There are no scores that old.")
        definition = leaderboard.definition
        args = leaderboard.id, said.kind, definition.zone, definition.week_starts, said.first_day
        rows = await self._ledger.fetch("window_on", *args)
        if not rows:
            raise no_such_board(f"There is no such {said.kind} in {definition.zone}.")
        ((day, starts, ends, has_begun, is_too_old),) = rows
        if day != said.first_day:
            raise no_such_board(_begins(leaderboard, said.kind, day))
        if not has_begun:
            raise no_such_board(f"That {said.kind} has not begun.")
        if is_too_old:
            raise no_such_board("There are no scores that old.")
        return Window(said.kind, name, starts, ends, -1)


def _of(definition: Definition, windows: Iterable[Window]) -> list[Window]:
    """Those of windows that a definition has: the row of a season is there before the season is shown."""
    seasons = {f"season_{season.id}" for season in definition.seasons}
    return [window for window in windows if window.kind != "season" or window.name in seasons]


def _begins(leaderboard: Leaderboard, kind: str, day: date) -> str:
    name = f"{leaderboard.slug}:{name_of(kind, day)}".removeprefix("default:")
    return f"No {kind} begins on that day: use {name}."
