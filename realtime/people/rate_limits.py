"""Rate limits that hold across processes.

Owns the counters under `leaderboard:limit:*` in the store, the only content of it that PostgreSQL could not rebuild;
each expires soon after its window. Must never fail a request because the store is away: then this process's own counts
decide, so that a limit holds for each process by itself. Must never keep an e-mail address: names of counters are
digests where they would be personal.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from realtime.errors import RealtimeError, StoreUnavailable
from realtime.people.limits import Windows

STORE_PATIENCE: Final = 0.25
"""Seconds that a count may take: beyond, the store counts as away."""

STORE_PAUSE: Final = 1.0
"""Seconds for which it is then not asked."""


class Counters(Protocol):
    """What this needs of the store."""

    async def count(self, amounts: Mapping[str, int], seconds: int) -> list[int | None]: ...


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `most` of something in each window of `seconds`; 0 for any number."""

    name: str
    most: int
    seconds: int


class RateLimits:
    """Counts, and refuses what is beyond a limit. `timestamp` is the ledger's time in seconds; `on_refused` is told a
    limit's name."""

    def __init__(
        self, store: Counters, timestamp: Callable[[], float], on_refused: Callable[[str], None] = lambda name: None
    ) -> None:
        self._store = store
        self._timestamp = timestamp
        self._on_refused = on_refused
        self._own: dict[str, Windows] = {}  # this process's counts, by limit
        self._away_until = 0.0  # the loop's seconds

    async def check(self, limit: Limit, who: str) -> None:
        """Counts one for `who`. Raises RealtimeError `too_many` beyond the limit."""
        if not (await self.admit(limit, {who: 1}))[who]:
            raise self.refusal(limit)

    def refusal(self, limit: Limit) -> RealtimeError:
        """What is said beyond a limit: when its window ends."""
        self._on_refused(limit.name)
        left = limit.seconds - self._timestamp() % limit.seconds
        span = "a second" if limit.seconds == 1 else f"in {limit.seconds} seconds"
        most = f"At most {limit.most} {limit.name.replace('_', ' ')} {span}."
        return RealtimeError("too_many", most, retry_after_ms=max(1, int(1000 * left)))

    async def admit(self, limit: Limit, wanted: Mapping[str, int]) -> dict[str, int]:
        """How many of what each one wants are within the limit; they are counted."""
        if limit.most == 0:
            return dict(wanted)
        window = int(self._timestamp() // limit.seconds)
        own = self._own.setdefault(limit.name, Windows())
        # One's own count first: what is beyond the limit here already is no question for the store.
        admitted = {who: _within(limit, own.add(who, n, window), n) for who, n in wanted.items()}
        asked = {who: n for who, n in admitted.items() if n}
        for who, total in (await self._count(limit, window, asked)).items():
            admitted[who] = _within(limit, total, asked[who])
        return admitted

    async def _count(self, limit: Limit, window: int, amounts: Mapping[str, int]) -> dict[str, int]:
        """Everybody's counts after these were added; nothing where the store is away, or the node that has them."""
        loop = asyncio.get_running_loop()
        if not amounts or loop.time() < self._away_until:
            return {}
        keys = {f"leaderboard:limit:{limit.name}:{window}:{who}": n for who, n in amounts.items()}
        try:
            async with asyncio.timeout(STORE_PATIENCE):
                totals = await self._store.count(keys, 2 * limit.seconds)
        except (StoreUnavailable, TimeoutError):
            self._away_until = loop.time() + STORE_PAUSE
            return {}
        return {who: total for who, total in zip(amounts, totals, strict=True) if total is not None}


def _within(limit: Limit, total: int, amount: int) -> int:
    """How many of `amount`, the last of `total`, are within the limit."""
    return max(0, min(amount, limit.most - (total - amount)))


def account_key(email: object) -> str:
    """The name of a counter for an account, from which nobody reads the address."""
    return hashlib.sha256(str(email).strip().lower().encode(errors="replace")).hexdigest()[:32]
