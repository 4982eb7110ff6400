"""Spreading: a process that has far more clients than the others asks some of them to come back.

Owns the rule: when it is far more, how many are asked, and when asking is given up. Must never ask more than
`a_second`, nor go on where nobody goes elsewhere for it. Assumes that who comes back is led by somebody (the processes'
own port, a balancer) to where there are fewer, or at least to anybody.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Final, Protocol

from realtime.errors import LedgerUnavailable, StoreUnavailable

log = logging.getLogger(__name__)

INTERVAL: Final = 10.0
"""Seconds between two looks: who was asked has come back, somewhere, by the next."""

COME_BACK_MS: Final = 8_000
"""Milliseconds over which those who are asked spread."""

FAR_MORE: Final = 1.25
"""From how many times the mean on a process has far more."""

NEARLY: Final = 1.05
"""... and down to how many times the mean it then goes on asking."""

WORTH: Final = 100
"""Clients by which it must be beyond the mean, too."""

LONGEST_PAUSE: Final = 3_600.0
"""Seconds until it is tried again where nobody went elsewhere, at most: twice as long each time."""


class Boards(Protocol):
    """Who follows boards here."""

    def send_away(self, after_ms: int, most: int | None = None) -> int: ...


class Crowd(Protocol):
    """What the processes of a deployment tell each other."""

    async def tell(self, clients: int) -> Mapping[str, int]: ...
    async def leave(self) -> None: ...


def beyond(own: int, others: Collection[int], times: float = FAR_MORE) -> int:
    """By how many clients a process is beyond the mean of all; 0 where it has no more than `times` that."""
    mean = (own + sum(others)) / (1 + len(others))
    return int(own - mean) if own > times * mean and own - mean > WORTH else 0


class Spreading:
    """Tells the others how many clients are here, and asks some to come back where that is far more than they have.

    `clients` tells how many there are; `is_leaving` whether this process is about to end, which asks by itself.
    """

    def __init__(
        self,
        boards: Boards,
        crowd: Crowd,
        clients: Callable[[], int],
        is_leaving: Callable[[], bool],
        *,
        a_second: int,
    ) -> None:
        self._boards = boards
        self._crowd = crowd
        self._clients = clients
        self._is_leaving = is_leaving
        self._most = int(a_second * INTERVAL)
        self._pause = INTERVAL
        self._after = 0.0  # nobody is asked before that moment
        self._asked: tuple[int, int] | None = None  # how many were here when so many were asked, at the last look
        self._known: frozenset[str] = frozenset()  # the other processes
        self._is_moving = False  # whether there were far too many, and still are some
        self.moved = 0
        """Clients that were asked, ever."""

    def step(self, now: float, own: int, others: Mapping[str, int]) -> int:
        """Looks, in seconds of any clock that only goes on, and asks where it is time; returns how many."""
        if not self._known.issuperset(others):  # one that is new may well be where those who are asked come to
            self._pause, self._after, self._asked = INTERVAL, now, None
        self._known = frozenset(others)
        if self._asked is not None:
            before, asked = self._asked
            went = before - own >= asked / 2
            self._pause = INTERVAL if went else min(2 * self._pause, LONGEST_PAUSE)
            self._after = now if went else now + self._pause
            self._asked = None
        too_many = beyond(own, others.values(), NEARLY if self._is_moving else FAR_MORE)
        self._is_moving = too_many > 0
        wanted = min(too_many, self._most)
        if not wanted or now < self._after:
            return 0
        asked = self._boards.send_away(COME_BACK_MS, wanted)
        if asked:
            log.info(
                "%d clients more than elsewhere: %d are asked to come back", too_many, asked, extra={"action": "spread"}
            )
            self._asked = own, asked
            self.moved += asked
        return asked

    async def run(self) -> None:
        """Looks until this process leaves. Never ends by itself."""
        loop = asyncio.get_running_loop()
        due = 0.0
        while not self._is_leaving():
            if loop.time() >= due:
                due = loop.time() + INTERVAL
                with suppress(StoreUnavailable, LedgerUnavailable):
                    own = self._clients()
                    self.step(loop.time(), own, await self._crowd.tell(own))
            await asyncio.sleep(0.5)
        with suppress(StoreUnavailable):
            await self._crowd.leave()  # else its falling count would have the others ask theirs
        await asyncio.Event().wait()
