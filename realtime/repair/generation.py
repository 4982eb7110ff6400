"""Generation: notices a ledger that is a copy, and keeps it from giving out again what was given out already.

Owns the watch for such a ledger: restored from a backup, cloned, or promoted in place of the one before. A copy has
forgotten what was given out since it was made: ids of users, versions of closed weeks, epochs. Must never give any of
these out twice: before anything is given out, all counters move on, beyond what can have been given out. Must never end
tokens where the ledger lacks nothing that tokens rest on. Assumes that an operator says `realtime restored` where a
copy leaves no trace.

Two traces show a copy: its place (the cluster, the database, the table, the timeline), and what the store remembers of
the ledger, where that names a user or score that the ledger lacks. The same memory shows a primary that was replaced
and does not know it, to a process that reaches no other: of the same cluster, it is of an earlier timeline.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from dataclasses import dataclass
from typing import Any, Final, Protocol

from realtime.errors import LedgerUnavailable, NotPrimary, StoreUnavailable
from realtime.ledger.standing import Standing
from realtime.people.identity import Generation

log = logging.getLogger(__name__)

INTERVAL: Final = 1.0
"""Seconds between two looks."""

MOMENT_MS: Final = 60_000
"""Milliseconds of the ledger's life that a promoted standby may lack without ending tokens. Signs of life are some
seconds apart."""


class Ledger(Protocol):
    """What the watch needs of PostgreSQL."""

    async def fetch(self, name: str, *args: Any) -> list[Any]: ...
    def hear(self, standing: Standing, term: int) -> None: ...


class Store(Protocol):
    """What the watch needs of the store."""

    @property
    def ledger_seen(self) -> str | None: ...
    async def remember_ledger(self, seen: str, cluster: int, timeline: int, term: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Seen:
    """How far a ledger was seen to have come."""

    mark: str
    users: int
    scores: int
    standing: Standing | None = None
    """Which primary it was; None where that was not written down, by an older version."""
    term: int = 0
    """A number that moves on with each restore and failover that was noticed."""
    used_ms: int = 0
    """The last sign of life in it, in milliseconds since 1970; 0 for none."""

    @classmethod
    def of(cls, row: Any) -> Seen:
        """What the query `generation` says of a primary."""
        cluster, timeline = row["here"].split(":")[0], row["here"].rpartition(":")[2]
        standing = Standing(int(cluster), int(timeline, 16))
        return cls(row["mark"] or "", row["users"], row["scores"], standing, row["term"], row["used_ms"])

    @classmethod
    def parse(cls, text: str | None) -> Seen | None:
        """Parses what `str` makes; None for any other text."""
        mark, *numbers = (text or "").split(":")
        if len(numbers) not in (2, 6) or not all(one.isascii() and one.isdigit() and len(one) < 20 for one in numbers):
            return None
        users, scores, *more = map(int, numbers)
        return cls(mark, users, scores, Standing(*more[:2]), *more[2:]) if more else cls(mark, users, scores)

    def __str__(self) -> str:
        parts = [self.mark, self.users, self.scores]
        if self.standing is not None:
            parts += [*self.standing, self.term, self.used_ms]
        return ":".join(map(str, parts))

    def replaces(self, other: Seen) -> bool:
        """Whether a server was promoted in the place of that one since. One that was restored and said to be is of a
        later term, whatever its timeline is."""
        return self.standing is not None and self.standing.replaces(other.standing) and self.term >= other.term


class Generations:
    """Watches the ledger's generation. `current` is the one seen last."""

    def __init__(self, ledger: Ledger, store: Store) -> None:
        self._ledger = ledger
        self._store = store
        self.current = Generation()

    async def run(self) -> None:
        """Looks every second. Never ends by itself."""
        while True:
            try:
                await self.look()
            except LedgerUnavailable as error:
                log.debug("cannot look after the ledger's generation: %s", error)
            await asyncio.sleep(INTERVAL)

    @staticmethod
    async def restored(ledger: Ledger) -> None:
        """Renews the ledger because an operator says that it was restored. Raises LedgerUnavailable."""
        (row,) = await ledger.fetch("generation")
        if row["mark"] is None:
            await ledger.fetch("generation_begun", secrets.token_hex(6))
            (row,) = await ledger.fetch("generation")
        await _renewed(ledger, row, forgetful=True)

    async def look(self) -> None:
        """Looks where the ledger is, and moves its counters on where it is a copy. Raises LedgerUnavailable."""
        # The store is asked first: the ledger that was seen then has at least what the store remembers.
        before = Seen.parse(self._store.ledger_seen)
        try:
            (row,) = await self._ledger.fetch("generation")
        except LedgerUnavailable:  # the one that answers may be one that was restored, and said to be
            self._hear(before)
            raise
        if row["here"] is None:
            raise NotPrimary("it is a standby")
        seen = Seen.of(row)
        if before is not None and before.replaces(seen):
            self._hear(before)
            raise NotPrimary("a server that was promoted in its place was seen")
        self._hear(seen)
        if row["place"] is None:
            await self._ledger.fetch("generation_begun", secrets.token_hex(6))
        elif (forgetful := _forgetful(row, before)) or row["here"] != row["place"]:
            await self._renew(row, forgetful=forgetful)
        else:
            self.current = Generation(row["mark"], row["restored_at"], row["place"])
            await self._remember(seen, before)
            return
        await self.look()

    def _hear(self, seen: Seen | None) -> None:
        if seen is not None and seen.standing is not None:
            self._ledger.hear(seen.standing, seen.term)

    async def _renew(self, row: Any, *, forgetful: bool) -> None:
        if await _renewed(self._ledger, row, forgetful=forgetful):
            if forgetful:
                log.warning(
                    "PostgreSQL was restored: people must sign in again, and tokens of operators be made anew",
                    extra={"action": "restored"},
                )
            else:
                log.warning("PostgreSQL has failed over, and lacks nothing that was seen", extra={"action": "restored"})

    async def _remember(self, seen: Seen, before: Seen | None) -> None:
        if seen == before:
            return
        try:
            await self._store.remember_ledger(str(seen), *(seen.standing or Standing(0, 0)), seen.term)
        except StoreUnavailable as error:
            log.debug("the store remembers nothing of the ledger: %s", error)


def _forgetful(row: Any, before: Seen | None) -> bool:
    """Whether the ledger lacks something that it had, or may lack it: a revocation, or a user."""
    is_there = row["here"] == row["place"]
    if before is None or before.mark != row["mark"]:
        return not is_there
    promoted = not is_there and row["here"].rpartition(":")[0] == row["place"].rpartition(":")[0]
    if promoted and before.used_ms and row["used_ms"] and before.used_ms - row["used_ms"] <= MOMENT_MS:
        return False  # a standby that was a little behind: processes that went on know what was revoked last
    if is_there and before.standing is not None and row["term"] > before.term:
        return False  # that was judged since
    return before.users > row["users"] or before.scores > row["scores"] or not (is_there or promoted)


async def _renewed(ledger: Ledger, row: Any, *, forgetful: bool) -> bool:
    """Moves all counters on, and with `forgetful` ends all tokens; False where somebody else had done so already."""
    mark = secrets.token_hex(6) if forgetful else None
    return bool(await ledger.fetch("generation_renewed", row["mark"], row["place"], mark))
