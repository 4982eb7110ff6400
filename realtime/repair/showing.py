"""Showing: has the store show standings that were made.

Owns the way from rows in the ledger to boards that everybody follows: the store gets them beside what it shows, then
the ledger says that they count, then the store exchanges the two. Must never exchange what is not whole, or leave the
ledger believing that the store has heard of it. Assumes that whoever records a score tells the store of standings that
are being made too, guarded by the versions of rows.

The ledger goes first. Whoever dies between its word and the store's leaves a mark there, by which the next one catches
up: until then boards of that leaderboard wait, for the store has another rule than everybody names.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Final, Protocol

from realtime.boards.board import Board, board_in
from realtime.boards.catalogue import Catalogue, Making
from realtime.boards.definitions import Definition
from realtime.boards.leaderboard import Leaderboard
from realtime.boards.making import in_the_making
from realtime.boards.standings import Profile, Row
from realtime.boards.windows import Window
from realtime.errors import StoreChanged, StoreUnavailable
from realtime.ledger.builds import Build, Retired, Rule

PAGE: Final = 1_000
"""Rows that are read from the ledger in one statement, and told to the store in one call."""


class Builds(Protocol):
    """What showing needs of the ledger."""

    async def switch(self, build: Build, rule: Rule) -> bool: ...
    async def untold(self) -> list[str]: ...
    async def told(self, rule: int) -> None: ...
    async def recent_windows(self, leaderboard: int) -> list[Window]: ...


class Rows(Protocol):
    """The rows of boards, as the ledger has them."""

    def pages(self, board: Board, *, size: int) -> AsyncIterator[tuple[list[Row], list[Profile]]]: ...


class Leaderboards(Protocol):
    """Which leaderboards there are."""

    @property
    def current(self) -> Catalogue: ...
    async def refresh(self) -> None: ...
    def partition_of(self, source_slug: str) -> str: ...


class Content(Protocol):
    """What a partition of the store holds."""

    @property
    def epoch(self) -> str | None: ...
    @property
    def is_complete(self) -> bool: ...


class Partition(Protocol):
    """One partition of the store."""

    async def adopt(self) -> Content: ...


class Store(Protocol):
    """What showing needs of the store."""

    def partition(self, name: str) -> Partition: ...
    async def apply(
        self, rows: Mapping[Board, Sequence[Row]], profiles: Sequence[Profile] = (), *, epoch: str | None = None
    ) -> int: ...
    async def switch(
        self, made: Leaderboard, boards: Iterable[Board], gone: Iterable[Board] = (), *, epoch: str | None = None
    ) -> bool: ...
    async def discard(self, made: Leaderboard, boards: Iterable[Board], *, beside: bool = False) -> None: ...
    async def rules(self, partition: str, slugs: Sequence[str]) -> dict[str, str | None]: ...


class Showing:
    """Has standings shown that were made."""

    def __init__(
        self, builds: Builds, leaderboards: Leaderboards, store: Store, rows: Rows, now: Callable[[], datetime]
    ) -> None:
        self._builds = builds
        self._leaderboards = leaderboards
        self._store = store
        self._rows = rows
        self._now = now

    async def prepare(self, rules: Iterable[Rule]) -> None:
        """Drops what the store has of leaderboards that were removed, and are defined again by now: as long as it does,
        it takes no rows of standings that are made for them. Where it is away, `show` does. Raises LedgerUnavailable.
        """
        await self._leaderboards.refresh()
        makings = [self._leaderboards.current.making.get(rule.id) for rule in rules]
        with suppress(StoreUnavailable):
            for making in makings:
                if making is not None:
                    await self._drop_former(making.leaderboard)

    async def show(self, build: Build, rule: Rule) -> bool:
        """Has the standings of a rule shown; False where they are not whole, or others are wanted by now.

        Raises LedgerUnavailable, StoreUnavailable.
        """
        await self._leaderboards.refresh()
        catalogue = self._leaderboards.current
        making = catalogue.making.get(rule.id)
        if making is None:
            return False
        await self._drop_former(making.leaderboard)
        epoch = await self._fill(making)
        if not await self._builds.switch(build, rule):
            return False
        shown = catalogue.leaderboards[making.leaderboard.slug]
        await self._exchange(making, self._gone(catalogue, shown, making), epoch)
        return True

    async def _drop_former(self, made: Leaderboard) -> None:
        """Drops what the store may still have of a leaderboard that was removed, and is defined again by now."""
        if made.rule is not None:
            return
        await self._store.partition(made.partition).adopt()
        if (await self._store.rules(made.partition, [made.slug]))[made.slug] is not None:
            windows = await self._builds.recent_windows(made.id)
            await self._store.discard(made, [board_in(made, window) for window in windows])

    async def behind(self) -> list[str]:
        """Leaderboards whose standings count, and of which the store has not heard. Raises LedgerUnavailable."""
        return await self._builds.untold()

    async def catch_up(self, slug: str) -> None:
        """Tells the store what whoever died did not. Raises LedgerUnavailable, StoreUnavailable."""
        await self._leaderboards.refresh()
        catalogue = self._leaderboards.current
        leaderboard = catalogue.leaderboards.get(slug)
        if leaderboard is None or leaderboard.rule is None:
            return
        there = (await self._store.rules(leaderboard.partition, [slug]))[slug]
        if there == str(leaderboard.rule):
            await self._builds.told(leaderboard.rule)
            return
        before = int(there) if there is not None and there.isdigit() else None
        made = replace(leaderboard, rule=before, next_rule=leaderboard.rule)
        making = Making(made, catalogue.windows.get(leaderboard.id, ()))
        await self._exchange(making, [], await self._fill(making))

    async def forget(self, retired: Retired) -> None:
        """Drops what the store has of standings that are no more. Raises LedgerUnavailable, StoreUnavailable."""
        windows = await self._builds.recent_windows(retired.leaderboard)
        partition = self._leaderboards.partition_of(retired.source_slug)
        if not (await self._store.partition(partition).adopt()).is_complete:
            return  # whatever makes it anew does not bring them back
        made = Leaderboard(
            retired.slug,
            Definition(retired.slug, retired.slug),
            retired.leaderboard,
            None,
            retired.source,
            retired.source_slug,
            partition,
            retired.id,
        )
        boards = [board_in(made, window) for window in windows]
        await self._store.discard(made, boards, beside=True)
        if retired.is_removed:
            await self._store.discard(made, boards)

    async def _fill(self, making: Making) -> str:
        """Tells the store all rows of standings that it does not show yet; returns the epoch of the content that has
        them."""
        content = await self._store.partition(making.leaderboard.partition).adopt()
        if content.epoch is None or not content.is_complete:
            raise StoreChanged("its content is being made; then standings that wait are shown")
        for board in making.boards:
            if not board.is_closed(self._now()):
                beside = in_the_making(board, making.leaderboard)
                async for rows, profiles in self._rows.pages(beside, size=PAGE):
                    await self._store.apply({beside: rows}, profiles, epoch=content.epoch)
        return content.epoch

    async def _exchange(self, making: Making, gone: Iterable[Board], epoch: str) -> None:
        made, now = making.leaderboard, self._now()
        assert made.next_rule is not None
        boards = [board for board in making.boards if not board.is_closed(now)]
        await self._store.switch(made, boards, gone, epoch=epoch)
        await self._builds.told(made.next_rule)
        await self._leaderboards.refresh()

    def _gone(self, catalogue: Catalogue, shown: Leaderboard, making: Making) -> list[Board]:
        """Boards that only the old definition had."""
        kept, now = {board.id for board in making.boards}, self._now()
        windows: Sequence[Window] = catalogue.windows.get(shown.id, ())
        boards = [board_in(shown, window) for window in windows]
        return [board for board in boards if board.id not in kept and not board.is_closed(now)]
