"""Building: makes the standings that definitions need, and has them shown.

Owns when a build begins, how fast it goes, and in which order its steps come. Must never take more than its share
of PostgreSQL while scores come in, or do anything that cannot be broken off. Assumes that `ledger.builds` does each
step in one transaction, and that several processes may do this: one at a time does, under a lease, and the steps are
right even where two do.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from datetime import datetime
from functools import partial
from time import monotonic
from typing import Final, Protocol

from realtime.errors import LedgerUnavailable, StoreUnavailable
from realtime.ledger.builds import Build, Chunk, Lacking, Overflow, Retired, Rule
from realtime.repair.attempts import Attempts

log = logging.getLogger(__name__)

CLEARED_EVERY: Final = 60
"""Looks that find nothing to build between two for rows of windows that are no more."""

INTERVAL: Final = 1.0
"""Seconds between two looks that found nothing to build."""

PAUSE: Final = 0.05
"""Seconds between two looks at transactions that have to end first."""

LONG: Final = 60.0
"""Seconds of waiting for others after which the log says so."""

CHUNK_S: Final = 0.2
"""Seconds that a transaction of a walk should take while nobody else records scores."""

BUSY_CHUNK_S: Final = 0.05
"""The same while somebody does: whoever hands in a score of one of its players waits for so long at most."""

REST: Final = 1.5
"""How long a walk rests between two transactions while scores come in, as a multiple of what the last one took."""

FIRST: Final = 50
LEAST: Final = 10
MOST: Final = 20_000
"""Players in one transaction."""


class Ledger(Protocol):
    """What building needs of PostgreSQL by itself."""

    def build_lease(self) -> AbstractAsyncContextManager[bool]: ...


class Builds(Protocol):
    """The steps of a build."""

    async def waiting(self) -> list[Build]: ...
    async def writers(self, known: list[str] | None = None) -> list[str]: ...
    async def begin(self, build: Build) -> tuple[int, int]: ...
    async def refresh(self, build: Build) -> None: ...
    async def make_windows(self, build: Build, moments: Sequence[datetime]) -> None: ...
    async def chunk(self, build: Build, after: int, limit: int) -> Chunk: ...
    async def fail(self, rule: Rule, why: str) -> None: ...
    async def retired(self) -> list[Retired]: ...
    async def clear(self, retired: Retired) -> bool: ...
    async def bury(self, retired: Retired) -> None: ...
    async def clear_dropped(self) -> bool: ...


class Showing(Protocol):
    """Whoever has standings shown that are made."""

    async def prepare(self, rules: Iterable[Rule]) -> None: ...
    async def show(self, build: Build, rule: Rule) -> bool: ...
    async def behind(self) -> list[str]: ...
    async def catch_up(self, slug: str) -> None: ...
    async def forget(self, retired: Retired) -> None: ...


class Building:
    """Builds whatever is to be built, one source after the other."""

    def __init__(self, ledger: Ledger, builds: Builds, showing: Showing) -> None:
        self._ledger = ledger
        self._builds = builds
        self._showing = showing
        self._pace = Pace()
        self._attempts = Attempts()
        self._hurry = asyncio.Event()
        self._idle = 0  # looks in a row that found nothing to build
        self.built = 0
        """Standings that this process has made and had shown."""
        self.failed = 0
        """Standings that this process has given up."""

    def hurry(self) -> None:
        """Something is to be built: the next look is at once."""
        self._hurry.set()

    async def run(self) -> None:
        """Looks until cancelled."""
        while True:
            self._hurry.clear()
            busy = False
            try:
                busy = await self.step(monotonic())
            except (LedgerUnavailable, StoreUnavailable) as error:
                log.debug("cannot build standings: %s", error)
                self._hurry.clear()  # a step hurries by what it reads: what failed is not tried without a pause
            with suppress(TimeoutError):
                async with asyncio.timeout(0 if busy else INTERVAL):
                    await self._hurry.wait()

    async def step(self, now: float | None = None) -> bool:
        """Builds what there is to build, or clears away some of what is no more; whether there may be more to do.

        Each thing goes its own way: one that fails keeps no other from being done, and rests, by the clock whose moment
        is `now`, longer each time; without a moment nothing rests. Raises LedgerUnavailable, StoreUnavailable once all
        others are done: then the next step goes on.
        """
        behind, waiting = await self._showing.behind(), await self._builds.waiting()
        retired = [] if waiting else await self._builds.retired()
        works: dict[Hashable, Callable[[], Awaitable[None]]] = {
            **{("behind", slug): partial(self._showing.catch_up, slug) for slug in behind},
            **{(build.source, build.round): partial(self.build, build) for build in waiting},
            **{("retired", one.id): partial(self._clear_away, one) for one in retired},
        }
        if not works:
            return await self._clear_dropped()
        self._attempts.keep(works.keys())
        due = [what for what in works if now is None or self._attempts.is_due(what, now)]
        # What is no more goes bit by bit: what is to be built soon does not wait for all of it.
        later = [what for what in due if what in {("retired", one.id) for one in retired}][1:]
        due = [what for what in due if what not in later]
        async with self._ledger.build_lease() as is_held:
            if not is_held:
                return False
            failures: list[Exception] = []
            for what in due:
                try:
                    await works[what]()
                except Exception as error:
                    log.debug("%s failed: %s", what, error)
                    failures.append(error)
                    self._attempts.failed(what, now or 0.0)
                else:
                    self._attempts.succeeded(what)
        # What nobody expects goes before what happens.
        failures.sort(key=lambda error: isinstance(error, LedgerUnavailable | StoreUnavailable))
        if failures:
            raise failures[0]
        return bool(due)

    async def _clear_away(self, retired: Retired) -> None:
        """Removes some of what is left of standings that are no more, and forgets them once nothing is."""
        if not await self._builds.clear(retired):
            await self._showing.forget(retired)
            await self._builds.bury(retired)

    async def _clear_dropped(self) -> bool:
        """Clears away rows of windows that are no more; looks for such seldom, for it looks at every window."""
        self._idle += 1
        if self._idle % CLEARED_EVERY != 1:
            return False
        found = await self._builds.clear_dropped()
        if found:
            self._idle = 0
        return found

    async def build(self, build: Build) -> None:
        """Makes the standings of one source, and has them shown. Raises LedgerUnavailable, StoreUnavailable."""
        done, todo = await self._builds.begin(build)
        words = "building standings of %s: %d of %d players are done"
        log.info(words, build.slug, done, todo, extra={"action": "build"})
        await self._showing.prepare(build.rules)
        await self._wait_for_writers(build)
        while build.rules:
            if any(rule.kinds for rule in build.rules):
                await self._walk(build)
            shown = [rule for rule in build.rules if await self._showing.show(build, rule)]
            self.built += len(shown)
            for rule in shown:
                log.info("standings of %s are shown", rule.slug, extra={"action": "build"})
            await self._builds.refresh(build)  # what is left has heads that came unmarked, or another rule is wanted
            await self._showing.prepare(build.rules)

    async def _wait_for_writers(self, build: Build) -> None:
        """Waits until all have ended who may record scores without knowing the rules."""
        since, told = monotonic(), False
        writers = await self._builds.writers()
        while writers and (writers := await self._builds.writers(writers)):
            if monotonic() - since > LONG and not told:
                told = True
                words = "building %s waits for transactions of others: see pg_stat_activity"
                log.warning(words, build.slug, extra={"action": "build"})
            await asyncio.sleep(PAUSE)

    async def _walk(self, build: Build) -> None:
        """Makes the rows of all players whose heads are not marked."""
        after = 0
        while build.rules:
            began = monotonic()
            try:
                chunk = await self._builds.chunk(build, after, self._pace.size)
            except Lacking as lacking:
                await self._builds.make_windows(build, lacking.moments)
                continue
            except Overflow as overflow:
                self.failed += 1
                words = "standings of %s cannot be made: %s"
                log.error(words, overflow.rule.slug, overflow.message, extra={"action": "build"})
                await self._builds.fail(overflow.rule, overflow.message)
                await self._builds.refresh(build)
                continue
            if chunk.last is None:
                return
            after = chunk.last
            await asyncio.sleep(self._pace.take(monotonic() - began, chunk))


class Pace:
    """How many players a transaction takes, and how long a walk rests after it."""

    def __init__(self) -> None:
        self.size = FIRST
        self._recorded: int | None = None

    def take(self, took: float, chunk: Chunk) -> float:
        """What follows from a transaction that took so many seconds: how long to rest."""
        is_busy = self._recorded is not None and chunk.recorded != self._recorded
        self._recorded = chunk.recorded
        wanted = BUSY_CHUNK_S if is_busy else CHUNK_S
        if chunk.heads == self.size or took > wanted:
            factor = min(max(wanted / max(took, 0.001), 0.25), 1.25 if is_busy else 2.0)
            self.size = min(max(int(self.size * factor), LEAST), MOST)
        return took * REST if is_busy else 0.0
