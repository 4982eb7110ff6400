"""Drift: searches the store for rows that differ from the ledger, whatever the cause, and repairs them.

Owns the search (in full for `realtime check`, a little all the time for the worker) and the repair. Must never load
PostgreSQL or the store noticeably, repair what is only on its way, or keep telling a store that telling does not heal:
then it asks for a rebuild. Assumes that `comparison` finds only what is a difference.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol

from realtime.boards.board import ALL_TIME, Board, live_boards
from realtime.errors import EpochMoved, LedgerUnavailable, StoreUnavailable
from realtime.repair.comparison import PAGE, Comparison, Finding, Kind
from realtime.store.snapshots import by_partition

log = logging.getLogger(__name__)

SECOND_LOOK: Final = 1.0
"""Seconds between a suspicion and the second look."""

INTERVAL: Final = 2.0
"""Seconds between two steps of the worker's search."""

COUNT_INTERVAL: Final = 30.0
"""Seconds between two comparisons of how many players a board has."""

SEARCH_PAUSE: Final = 0.02
"""Seconds for which the worker pauses after each page of a search in full."""

SEARCH_AGAIN: Final = 600.0
"""Seconds between two searches of a board in full that the worker makes because the numbers do not agree."""

SUSPECTS: Final = 10_000
"""Suspects of a search in full that are collected for one second look."""

SHOWN: Final = 20
"""Findings that a report keeps."""

OTHERS: Final = 8
"""Boards that are not published, and are looked at in one step or count: they take turns, however many there are."""

Sleep = Callable[[float], Awaitable[None]]
Take = Callable[[Sequence[Finding]], Awaitable[None]]


# All rows, once -------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Report:
    """What a search of one board found."""

    board: Board
    compared: int = 0
    """Users whom the ledger has on it."""
    differing: int = 0
    waiting: int = 0
    """Findings of users with a change on its way: no differences."""
    shown: list[Finding] = field(default_factory=list)
    """The first SHOWN differences."""

    def take(self, findings: Iterable[Finding]) -> None:
        """Counts findings, and keeps the first differences."""
        for finding in findings:
            if finding.kind is Kind.WAITING:
                self.waiting += 1
                continue
            self.differing += 1
            if len(self.shown) < SHOWN:
                self.shown.append(finding)


async def check(
    comparison: Comparison,
    board: Board,
    progress: Callable[[str, int], None] = lambda board, compared: None,
    sleep: Sleep = asyncio.sleep,
) -> Report:
    """Compares a live board from end to end, both ways. Raises StoreUnavailable and its kin, LedgerUnavailable."""
    report = Report(board)

    async def take(findings: Sequence[Finding]) -> None:
        report.take(findings)

    async for compared in _search(comparison, board, take, sleep):
        report.compared += compared
        progress(board.id, report.compared)
    return report


async def _search(comparison: Comparison, board: Board, take: Take, sleep: Sleep) -> AsyncIterator[int]:
    """Compares a live board both ways and hands findings to `take`; yields how many users each page compared."""
    suspects: list[int] = []
    after = 0
    while page := await comparison.page(board, after):
        after = page[-1]
        suspects += await comparison.suspects(board, page)
        if len(suspects) >= SUSPECTS:
            await _look_again(comparison, board, suspects, take, sleep)
        yield len(page)
    await _look_again(comparison, board, suspects, take, sleep)
    cursor, strays = await comparison.strays(board, 0)
    await take(strays)
    while cursor:
        cursor, strays = await comparison.strays(board, cursor)
        await take(strays)
        yield 0


async def _look_again(comparison: Comparison, board: Board, suspects: list[int], take: Take, sleep: Sleep) -> None:
    if suspects:
        await sleep(SECOND_LOOK)
    while suspects:
        await take(await comparison.confirmed(board, suspects[:PAGE]))
        del suspects[:PAGE]


# A few rows, all the time ------------------------------------------------------------------------------------------


class Link(Protocol):
    """What the repair needs of one partition's content."""

    @property
    def is_complete(self) -> bool: ...
    def distrust(self) -> None: ...


class Store(Protocol):
    """What the repair needs of the store."""

    def link_of(self, name: str) -> Link: ...


class Strays(Protocol):
    """Where strays are dropped."""

    async def forget(
        self,
        board: Board,
        members: Mapping[bytes, bytes | None],
        user_ids: Sequence[int] = (),
        *,
        kept: Collection[bytes] = (),
    ) -> None: ...


class Resync(Protocol):
    """What heals rows."""

    async def each(self, user_ids: Collection[int], partition: str | None = None) -> object: ...


@dataclass(slots=True)
class _Place:
    """How far the worker's search has come on one board."""

    after: int = 0
    """The user id that was compared last."""
    cursor: int = 0
    """The cursor of the scan through the store."""
    searched_at: float = float("-inf")
    """When the board was last searched in full (monotonic seconds)."""


class Drift:
    """Compares the tops and a moving window of all other rows, every few seconds, and repairs what differs."""

    def __init__(
        self,
        comparison: Comparison,
        store: Store,
        strays: Strays,
        resync: Resync,
        now: Callable[[], datetime],
        sleep: Sleep = asyncio.sleep,
        boards: Callable[[datetime], Sequence[Board]] = live_boards,
    ) -> None:
        self._comparison = comparison
        self._boards = boards
        self._store = store
        self._strays = strays
        self._resync = resync
        self._now = now
        self._sleep = sleep
        self._places: dict[Board, _Place] = {}
        self._turn = self._counting_turn = 0  # the next of the boards that take turns
        self._counted_at = float("-inf")
        self.differing = 0
        """Differences found by the last step."""
        self.waiting = 0
        """Findings of the last step that were only on their way."""
        self.found = 0
        """Differences found, ever."""
        self.repaired = 0
        """Differences that were told to the store again or dropped from it. The others took a rebuild."""

    async def run(self) -> None:
        """Searches until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._sleep(INTERVAL)
            try:
                await self.step()
                if loop.time() - self._counted_at > COUNT_INTERVAL:
                    self._counted_at = loop.time()
                    await self.count(loop.time())
            except EpochMoved:
                continue  # a rebuild is under way, or just over
            except (StoreUnavailable, LedgerUnavailable) as error:
                log.debug("cannot look for drift: %s", error)

    async def step(self) -> None:
        """Compares the next rows of live boards: of every published one, and of some others, which take turns.

        One content that cannot be compared keeps no other from it. Raises StoreUnavailable and its kin,
        LedgerUnavailable, once all were tried.
        """
        self._live()
        taken, self._turn = _turns(self._places, self._turn)
        self.differing = self.waiting = 0
        failed: StoreUnavailable | None = None
        for partition, boards in by_partition(taken).items():
            if not self._store.link_of(partition).is_complete:
                continue
            try:
                await self._take(await self._compared(boards))
            except StoreUnavailable as error:
                failed = failed or error
        if failed is not None:
            raise failed

    def _live(self) -> None:
        live = self._boards(self._now())
        self._places = {board: self._places.get(board) or _Place() for board in live}

    async def _compared(self, boards: Sequence[Board]) -> list[Finding]:
        """What differs in the next rows of boards."""
        suspects: dict[Board, set[int]] = {}
        findings: list[Finding] = []
        for board in boards:
            place = self._places[board]
            seen, strays = await self._comparison.top(board)
            page = await self._comparison.page(board, place.after)
            place.after = page[-1] if page else 0
            suspects[board] = {*seen, *await self._comparison.suspects(board, page)}
            place.cursor, more = await self._comparison.strays(board, place.cursor)
            findings += {finding.member: finding for finding in (*strays, *more)}.values()
        if any(suspects.values()):
            await self._sleep(SECOND_LOOK)
        for board, user_ids in suspects.items():
            if user_ids:
                findings += await self._comparison.confirmed(board, sorted(user_ids))
        return findings

    async def count(self, at: float) -> None:
        """Compares how many players each board has, and searches in full where the numbers do not agree.

        `at` is the time in monotonic seconds. Raises StoreUnavailable and its kin, LedgerUnavailable.
        """
        taken, self._counting_turn = _turns(self._places, self._counting_turn)
        for board in taken:
            place = self._places[board]
            if (
                at - place.searched_at < SEARCH_AGAIN
                or not self._store.link_of(board.leaderboard.partition).is_complete
            ):
                continue
            if await self._comparison.counts_agree(board):
                continue
            place.searched_at = at
            log.info("%s may have drifted: searching it", board.id, extra={"action": "drift"})
            async for _ in _search(self._comparison, board, self._take, self._sleep):
                await self._sleep(SEARCH_PAUSE)

    async def _take(self, findings: Sequence[Finding]) -> None:
        differing = [finding for finding in findings if finding.kind is not Kind.WAITING]
        self.waiting += len(findings) - len(differing)
        self.differing += len(differing)
        self.found += len(differing)
        if differing:
            log.warning("rows that differ: %d, first: %s", len(differing), differing[0], extra={"action": "drift"})
            await self._repair(differing)

    async def _repair(self, findings: Sequence[Finding]) -> None:
        for partition, of in _by_partition(findings).items():
            if any(finding.kind is Kind.AHEAD for finding in of):
                self._store.link_of(partition).distrust()
            else:
                await self._repair_in(partition, of)

    async def _repair_in(self, partition: str, findings: Sequence[Finding]) -> None:
        strays = [finding for finding in findings if finding.kind is Kind.STRAY]
        for board in {finding.board: None for finding in strays}:
            of_board = [finding for finding in strays if finding.board == board]
            for start in range(0, len(of_board), PAGE):
                part = of_board[start : start + PAGE]
                users = [f.user_id for f in part if f.user_id is not None] if board == ALL_TIME else []
                seen = {finding.member: finding.seen for finding in part}
                kept = {finding.member for finding in part if finding.is_leftover}
                await self._strays.forget(board, seen, users, kept=kept)
        user_ids = {finding.user_id for finding in findings if finding.user_id is not None}
        await self._resync.each(user_ids, partition)
        self.repaired += len(findings)


def _by_partition(findings: Iterable[Finding]) -> dict[str, list[Finding]]:
    found: dict[str, list[Finding]] = {}
    for finding in findings:
        found.setdefault(finding.board.leaderboard.partition, []).append(finding)
    return found


def _turns(boards: Iterable[Board], turn: int) -> tuple[list[Board], int]:
    """The published boards with those of the others whose turn it is, and the next turn."""
    every = list(boards)
    published = [board for board in every if board.is_published]
    others = [board for board in every if not board.is_published]
    first = turn if turn < len(others) else 0
    return published + others[first : first + OTHERS], first + OTHERS
