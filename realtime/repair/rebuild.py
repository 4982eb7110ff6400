"""Rebuild: the store's content made anew from the ledger.

Owns the watch over which store answers, which content is current, and the filling. Must never let a half-filled store
pass for a whole one: its epoch says `filling:` until the last row is in. Assumes scripts go on meanwhile; versions keep
old rows from winning.

The order matters: first the epoch, then the ledger names it as the current one, then the old content goes, then the
ledger is read. What was committed before the reading is in it; what commits later brings a script of its own, under
the epoch it finds. An outbox row goes only where the content that was told is the one named: so what another store was
told, before or after, is in this one. The ledger is read in short statements, under a lease: of a process that stands
still meanwhile another takes it over within seconds, and what the first still tells the store under its own epoch is
refused.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Protocol

from realtime.boards.board import ALL_TIME, Board, told_boards
from realtime.boards.standings import Profile, Row
from realtime.errors import LedgerUnavailable, StoreChanged, StoreUnavailable, StoreUnfit
from realtime.store import keys

if TYPE_CHECKING:
    from realtime.store.fitness import Content

log = logging.getLogger(__name__)

WATCH_INTERVAL: Final = 1.0
"""Seconds between two looks at which store answers."""

HELPED: Final = 5.0
"""Seconds that content made anew must stand for the rebuild to have helped."""

LONGEST_PAUSE: Final = 60.0
"""Seconds at most until content that cannot be ours is made anew where that did not help. The pause doubles from 1 s:
somebody else may write under our names, and must not keep PostgreSQL busy."""

ABANDONED: Final = 15.0
"""Seconds without a sign of use until content that is named as current, and that is not what this process finds, counts
as lost. Whoever finds it says so every few seconds."""

STRAY: Final = "a process reaches another store, with %s where %s is current: see where DRAGONFLY_URL leads it"

CHUNK: Final = 1_000
"""Rows read from the ledger, and told to the store, at a time."""

AT_ONCE: Final = 3
"""Chunks told at once: while the store takes one in, the next is read and waits."""

Progress = Callable[[str, int], None]
"""Told a board's id and how many of its rows are in."""


class Ledger(Protocol):
    """What a rebuild needs of PostgreSQL."""

    async def fetch(self, name: str, *args: Any) -> list[Any]: ...
    def rebuild_lease(self) -> AbstractAsyncContextManager[bool]: ...
    async def next_epoch(self, run: str, after: int = 0) -> int: ...
    def pages(self, name: str, *args: Any, size: int) -> AsyncIterator[list[Any]]: ...


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
    async def begin_filling(self, run: str, epoch: str) -> bool: ...
    async def clear(self, epoch: str) -> None: ...
    async def apply(
        self, rows: Mapping[Board, Sequence[Row]], profiles: Sequence[Profile] = (), *, epoch: str | None = None
    ) -> int: ...
    async def end_filling(self, run: str, epoch: str, announced: Sequence[str]) -> bool: ...


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


class Rebuilder:
    """Keeps the store's content ours: watches, and fills when need be."""

    def __init__(
        self,
        ledger: Ledger,
        store: Store,
        now: Callable[[], datetime],
        *,
        chunk: int = CHUNK,
        at_once: int = AT_ONCE,
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._now = now
        self._chunk = chunk
        self._at_once = at_once
        # Of distrusted content: its epoch, when it is due, after what pause, and when last made anew (loop's seconds).
        self._doubted: str | None = None
        self._due = self._pause = 0.0
        self._made_at = float("-inf")
        self._shown = False  # whether this process has ever met complete content
        # Of content named as current that is not what is found: when it was last used, and seen to be (loop's seconds).
        self._last_named: str | None = None
        self.stray: str | None = None
        """The epoch of content that is not the current one, and that another process reaches in its place."""
        self._used_at: datetime | None = None
        self._used_seen = 0.0
        self.rebuilds = 0
        """Rebuilds this process completed."""
        self.trouble: str | None = None
        """Why the store takes no rebuild though it answers; None where it does, or is not used at all."""
        self.settled = asyncio.Event()
        """Set once the content was found complete, or it turned out that this cannot be known yet."""

    async def watch(self) -> None:
        """Looks every second which store answers, and rebuilds where its content is not ours. Never ends by itself."""
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
        """Most of what may be in the way is told by those who meet it first; not what a rebuild alone may not do."""
        log.debug("cannot look after the store: %s", error)
        trouble = error.reason if isinstance(error, StoreUnfit) and self._store.is_fit else None
        if trouble is not None and trouble != self.trouble:
            log.error("the store cannot be used: %s", error, extra={"action": "rebuild"})
        self.trouble = trouble

    async def look(self) -> bool:
        """Whether the content had to be rebuilt, and was, by this process.

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
        """The epoch of the content that is current: this, where nobody has said so of any yet."""
        ((epoch, used_at, used_lately, stray),) = await self._ledger.fetch("content_named_now")
        if stray not in (None, self.stray, content.epoch):
            log.warning(STRAY, stray, epoch, extra={"action": "store"})
        self.stray = None if stray == content.epoch else stray
        if epoch != self._last_named:
            if self._last_named:
                self._store.leave(self._last_named)
            self._last_named = epoch
        if epoch is None or (epoch == content.epoch and not used_lately):
            await self._ledger.fetch("content_used", content.epoch)
        if used_at != self._used_at:
            self._used_at, self._used_seen = used_at, asyncio.get_running_loop().time()
        return content.epoch if epoch is None else str(epoch)

    async def _replace(self, content: Content, named: str | None) -> bool:
        """What to do about complete content that is not the current one: whether it was made anew."""
        if named:
            if (await self._store.adopt()).epoch != content.epoch:
                return False  # it was just being made anew
            self._store.distrust("superseded")
            if self.stray is None:
                await self._ledger.fetch("content_strayed", content.epoch)
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
        """Fills the store from the ledger; False where another process does so already, or did meanwhile.

        Complete content is left alone, but for that of the epoch `instead_of`, or with `force`. Raises
        StoreUnavailable, LedgerUnavailable: then the store stays marked, and anybody may begin again.
        """
        async with self._ledger.rebuild_lease() as held:
            if not held:
                return False
            content = await self._store.adopt()
            if content.is_complete and not force and content.epoch != instead_of:
                return False
            ((claim,),) = await self._ledger.fetch("content_claimed")
            n = await self._ledger.next_epoch(content.run, epoch_number(content.epoch, content.run))
            epoch = epoch_name(content.run, n)
            # What a store holds when we first look at it was shown to nobody here yet; later it is taken from somebody.
            level = logging.WARNING if self._shown else logging.INFO
            log.log(level, "rebuilding the store's content as %s", epoch, extra={"action": "rebuild"})
            if not await self._store.begin_filling(content.run, epoch):
                raise StoreChanged("another rebuild went ahead")
            if not await self._ledger.fetch("content_named", epoch, claim):
                raise StoreChanged("another store's rebuild went ahead")
            await self._store.adopt()
            await self._store.clear(epoch)
            live = told_boards(self._now())
            await self._fill(live, epoch, progress)
            announced = [*(board.id for board in live), "users"]
            if not await self._store.end_filling(content.run, epoch, announced):
                raise StoreChanged("another rebuild went ahead")
        await self._store.adopt()
        self.rebuilds += 1
        self._shown = True
        log.log(level, "the store's content is complete as %s", epoch, extra={"action": "rebuild"})
        return True

    async def _fill(self, live: Sequence[Board], epoch: str, progress: Progress) -> None:
        for board in live:
            if board is ALL_TIME:
                chunks = self._ledger.pages("all_totals", size=self._chunk)
            else:
                chunks = self._ledger.pages("all_of_week", board.week, size=self._chunk)
            done = 0
            under_way: deque[asyncio.Task[int]] = deque()
            try:
                async for records in chunks:
                    under_way.append(asyncio.create_task(self._tell(board, records, keys.FILLING + epoch)))
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

    async def _tell(self, board: Board, records: Sequence[Any], epoch: str) -> int:
        """Tells the store records of a board; returns how many."""
        rows = [Row(record[0], record[1], record[2]) for record in records]
        profiles = [Profile(r[0], r[4], r[3]) for r in records] if board is ALL_TIME else []
        await self._store.apply({board: rows}, profiles, epoch=epoch)
        return len(rows)
