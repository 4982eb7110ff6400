"""Rebuild: makes the store's content anew from the ledger.

Owns the watch over which store answers and which content is current, and the rebuild. Must never let a half-filled
store pass for a whole one: its epoch says `filling:` until the last row is in. Assumes that writes go on meanwhile, and
that versions keep old rows from winning.

The order matters. First the store gets the epoch, then the ledger names it as the current one, then the old content
goes, then the rebuild reads the ledger. A change that was committed before that reading is in it; a later change brings
a write of its own, under the epoch that it finds. An outbox row is removed only where the content that was told is the
one that the ledger names: so what another store was told, before or after, is in this one too. The rebuild reads the
ledger in short statements, under a lease. Where a process stands still with it, another takes the lease over within
seconds, and the store refuses what the first still tells it under its own epoch.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Protocol

from realtime.boards.board import ALL_TIME, Board, told_boards
from realtime.boards.standings import Profile, Row
from realtime.errors import LedgerUnavailable, StoreChanged, StoreUnavailable, StoreUnfit
from realtime.repair.claims import Claims
from realtime.store import keys

if TYPE_CHECKING:
    from realtime.store.fitness import Content

log = logging.getLogger(__name__)

WATCH_INTERVAL: Final = 1.0
"""Seconds between two looks at which store answers."""

HELPED: Final = 5.0
"""Seconds for which rebuilt content must stay trusted for the rebuild to count as a help."""

LONGEST_PAUSE: Final = 60.0
"""Seconds at most between two rebuilds of content that cannot be ours, where they do not help. The pause doubles from
1 s: a stranger who writes under our keys must not keep PostgreSQL busy."""

ABANDONED: Final = 15.0
"""Seconds without a sign of use after which content that the ledger names as current, and that this process does not
find, counts as lost. Every process that finds it says so every few seconds."""

STRAY: Final = "a process reaches another store, with %s where %s is current: see where DRAGONFLY_URL leads it"

CHUNK: Final = 1_000
"""Rows that are read from the ledger in one page and told to the store in one write."""

AT_ONCE: Final = 3
"""Chunks that are told at once: while the store takes one in, the next is read and waits."""

Progress = Callable[[str, int], None]
"""Is told a board's id and how many of its rows are in."""


class Ledger(Protocol):
    """What a rebuild needs of PostgreSQL."""

    def apart(self, sources: Collection[int]) -> Sequence[int]: ...
    async def fetch(self, name: str, *args: Any, source: int = ...) -> list[Any]: ...
    def rebuild_lease(self, partition: str = "") -> AbstractAsyncContextManager[bool]: ...
    async def next_epoch(self, run: str, after: int = 0) -> int: ...
    def pages(self, name: str, *args: Any, size: int) -> AsyncIterator[list[Any]]: ...


class RankedRows(Protocol):
    """Where the rows of boards are read that are not published."""

    def pages(self, board: Board, *, size: int) -> AsyncIterator[tuple[list[Row], list[Profile]]]: ...


class Store(Protocol):
    """What a rebuild needs of the store."""

    @property
    def distrusted(self) -> str | None: ...
    @property
    def is_complete(self) -> bool: ...
    @property
    def is_fit(self) -> bool: ...

    async def adopt(self) -> Content: ...
    def distrust(self, why: str = "foreign") -> None: ...
    def leave(self, epoch: str) -> None: ...
    async def apply(
        self, rows: Mapping[Board, Sequence[Row]], profiles: Sequence[Profile] = (), *, epoch: str | None = None
    ) -> int: ...


class Filling(Protocol):
    """The steps around a rebuild's writes."""

    async def begin(self, run: str, epoch: str) -> bool: ...
    async def clear(self, epoch: str) -> None: ...
    async def define(self, epoch: str, rules: Mapping[str, int]) -> None: ...
    async def end(self, run: str, epoch: str, announced: Sequence[str]) -> bool: ...


def epoch_name(run: str, n: int) -> str:
    """`<first 8 characters of the run>-<n>`, n in base 36: at most 12 characters up to 46,655 rebuilds of one run."""
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    text = ""
    while n:
        n, digit = divmod(n, 36)
        text = digits[digit] + text
    return f"{run[:8]}-{text or '0'}"


def epoch_number(epoch: str | None, run: str) -> int:
    """The n of an epoch, complete or not, of that run; 0 where it is none."""
    mine, _, n = (epoch or "").removeprefix(keys.FILLING).partition("-")
    return int(n, 36) if mine == run[:8] and n.isascii() and n.isalnum() and len(n) <= 8 else 0


Boards = Callable[[], Awaitable[Sequence[Board]]]
"""Says which boards the content has, as the ledger has it now. Raises LedgerUnavailable."""


class Rebuilder:
    """Watches over one partition's content, and rebuilds it where it is not ours.

    `boards` says which boards it has, `ranked` where those are read that are not published; without either it has the
    published ones alone.
    """

    def __init__(
        self,
        ledger: Ledger,
        store: Store,
        filling: Filling,
        now: Callable[[], datetime],
        *,
        partition: str = "",
        boards: Boards | None = None,
        ranked: RankedRows | None = None,
        chunk: int = CHUNK,
        at_once: int = AT_ONCE,
    ) -> None:
        self._ledger = ledger
        self._claims = Claims(ledger, partition)
        self._store = store
        self._filling = filling
        self._now = now
        self._partition = partition
        self._boards = boards or self._published
        self._ranked = ranked
        self._chunk = chunk
        self._at_once = at_once
        # Of distrusted content: its epoch, when its rebuild is due, after what pause, and when the last one ended
        # (the loop's seconds).
        self._doubted: str | None = None
        self._due = self._pause = 0.0
        self._made_at = float("-inf")
        self._shown = False  # whether this process has ever met complete content
        # Of content that the ledger names as current and this process does not find: its epoch, when it was last used,
        # and when this process saw that (the loop's seconds).
        self._last_named: str | None = None
        self.stray: str | None = None
        """The epoch of content that another process reaches in place of the current one; None where none does."""
        self._used_at: datetime | None = None
        self._used_seen = 0.0
        self.rebuilds = 0
        """Rebuilds this process completed."""
        self.trouble: str | None = None
        """Why the store takes no rebuild though it answers; None where it takes one, or is not used at all."""
        self.settled = asyncio.Event()
        """Set once the content was found complete, or it turned out that nobody can know yet."""

    async def watch(self) -> None:
        """Looks every second which store answers, and rebuilds its content where it is not ours.

        Never ends by itself.
        """
        while True:
            try:
                await self.look()
                self.trouble = None
                if self._store.is_complete:
                    self.settled.set()
            except (StoreUnavailable, LedgerUnavailable) as error:
                self._explain(error)
                self.settled.set()
            await asyncio.sleep(WATCH_INTERVAL)

    def _explain(self, error: StoreUnavailable | LedgerUnavailable) -> None:
        """Logs what keeps only a rebuild from the store. Whoever meets any other trouble first logs it."""
        log.debug("cannot look after the store: %s", error)
        trouble = error.reason if isinstance(error, StoreUnfit) and self._store.is_fit else None
        if trouble is not None and trouble != self.trouble:
            log.error("the store cannot be used: %s", error, extra={"action": "rebuild"})
        self.trouble = trouble

    async def look(self) -> bool:
        """Looks once; returns whether this process rebuilt the content.

        Raises StoreUnavailable, LedgerUnavailable.
        """
        content = await self._store.adopt()
        if not content.is_complete:
            return await self.rebuild()
        self._shown = True
        named = await self._named(content)
        if named != content.epoch:
            return await self._replace(content, named)
        if content.epoch != self._store.distrusted:
            return False
        now = asyncio.get_running_loop().time()
        if content.epoch != self._doubted:
            self._doubted = content.epoch
            helped = now - self._made_at > HELPED
            self._pause = 0.0 if helped else min(max(2 * self._pause, 1.0), LONGEST_PAUSE)
            self._due = now + self._pause
        if now < self._due:
            return False
        rebuilt = await self.rebuild(instead_of=content.epoch)
        self._made_at = asyncio.get_running_loop().time()
        return rebuilt

    async def _named(self, content: Content) -> str | None:
        """The epoch that the ledger names as current; this content's epoch where it names none yet."""
        epoch, used_at, used_lately, stray = await self._claims.named_now()
        if stray not in (None, self.stray, content.epoch):
            log.warning(STRAY, stray, epoch, extra={"action": "store"})
        self.stray = None if stray == content.epoch else stray
        if epoch != self._last_named:
            if self._last_named:
                self._store.leave(self._last_named)
            self._last_named = epoch
        if epoch is None or (epoch == content.epoch and not used_lately):
            await self._claims.used(content.epoch)
        if used_at != self._used_at:
            self._used_at, self._used_seen = used_at, asyncio.get_running_loop().time()
        return content.epoch if epoch is None else str(epoch)

    async def _replace(self, content: Content, named: str | None) -> bool:
        """Deals with complete content that is not the current one; returns whether this process rebuilt it."""
        if named:
            if (await self._store.adopt()).epoch != content.epoch:
                return False  # somebody has just rebuilt it
            self._store.distrust("superseded")
            if self.stray is None:
                await self._claims.strayed(content.epoch)
            if asyncio.get_running_loop().time() - self._used_seen < ABANDONED:
                return False
        return await self.rebuild(instead_of=content.epoch)

    async def rebuild(
        self,
        *,
        force: bool = False,
        instead_of: str | None = None,
        progress: Progress = lambda board, rows: None,
    ) -> bool:
        """Fills the store from the ledger; returns False where another process does so, or has done so meanwhile.

        Complete content stays as it is, except content of the epoch `instead_of`, and except with `force`. Raises
        StoreUnavailable, LedgerUnavailable: then the store stays marked, and anybody may begin again.
        """
        async with self._ledger.rebuild_lease(self._partition) as held:
            if not held:
                return False
            content = await self._store.adopt()
            if content.is_complete and not force and content.epoch != instead_of:
                return False
            claim = await self._claims.claimed()
            n = await self._ledger.next_epoch(content.run, epoch_number(content.epoch, content.run))
            epoch = epoch_name(content.run, n)
            # Nobody here has seen content that is replaced at the first look; later, people lose what they see.
            level = logging.WARNING if self._shown else logging.INFO
            log.log(level, "rebuilding %s as %s", self._what, epoch, extra={"action": "rebuild"})
            if not await self._filling.begin(content.run, epoch):
                raise StoreChanged("another rebuild went ahead")
            if not await self._claims.named(epoch, claim):
                raise StoreChanged("another store's rebuild went ahead")
            await self._store.adopt()
            await self._filling.clear(epoch)
            live = await self._boards()
            await self._filling.define(epoch, _rules(live))
            await self._fill(live, epoch, progress)
            announced = [*(board.id for board in live), "users"]
            if not await self._filling.end(content.run, epoch, announced):
                raise StoreChanged("another rebuild went ahead")
        await self._store.adopt()
        self.rebuilds += 1
        self._shown = True
        log.log(level, "%s is complete as %s", self._what, epoch, extra={"action": "rebuild"})
        return True

    @property
    def _what(self) -> str:
        return f"partition {self._partition} of the store" if self._partition else "the store's content"

    async def _published(self) -> Sequence[Board]:
        return told_boards(self._now())

    async def _fill(self, live: Sequence[Board], epoch: str, progress: Progress) -> None:
        naming = naming_boards(live)
        for board in live:
            done = 0
            under_way: deque[asyncio.Task[int]] = deque()
            try:
                async for rows, profiles in self._pages(board):
                    told = self._tell(board, rows, profiles if board in naming else [], keys.FILLING + epoch)
                    under_way.append(asyncio.create_task(told))
                    if len(under_way) == self._at_once:
                        done += await under_way.popleft()
                        progress(board.id, done)
                while under_way:
                    done += await under_way.popleft()
                    progress(board.id, done)
            finally:
                for task in under_way:
                    task.cancel()
                await asyncio.gather(*under_way, return_exceptions=True)

    async def _pages(self, board: Board) -> AsyncIterator[tuple[list[Row], list[Profile]]]:
        """The rows of a board and what it shows of their users, a chunk at a time."""
        if not board.is_published:
            assert self._ranked is not None
            async for rows, profiles in self._ranked.pages(board, size=self._chunk):
                yield rows, profiles
        elif board is ALL_TIME:
            async for records in self._ledger.pages("all_totals", size=self._chunk):
                profiles = [Profile(record[0], record[4], record[3]) for record in records]
                yield [Row(record[0], record[1], record[2]) for record in records], profiles
        else:
            async for records in self._ledger.pages("all_of_week", board.week, size=self._chunk):
                yield [Row(record[0], record[1], record[2]) for record in records], []

    async def _tell(self, board: Board, rows: Sequence[Row], profiles: Sequence[Profile], epoch: str) -> int:
        """Tells the store rows of a board; returns how many."""
        await self._store.apply({board: rows}, profiles, epoch=epoch)
        return len(rows)


def _rules(boards: Sequence[Board]) -> dict[str, int]:
    """The rules by which boards that are not published are made, by their leaderboards' slugs."""
    leaderboards = {board.leaderboard.slug: board.leaderboard for board in boards if not board.is_published}
    return {slug: one.rule for slug, one in leaderboards.items() if one.rule is not None and one.rule_in_store}


def naming_boards(boards: Collection[Board]) -> set[Board]:
    """The boards on which all players of a partition are, each as seldom as may be: the published one of all time, or
    in other partitions each leaderboard's, and all of its boards where it has none."""
    of_all_time = {board.leaderboard.id for board in boards if board.window.kind == ALL_TIME.window.kind}
    if ALL_TIME in boards:
        return {ALL_TIME}
    return {b for b in boards if b.leaderboard.id not in of_all_time or b.window.kind == ALL_TIME.window.kind}
