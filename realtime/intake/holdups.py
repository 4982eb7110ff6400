"""Hold-ups: submissions of players whose rows somebody else has locked.

Owns those submissions while they wait, and which players they are of. Must never let them wait beyond `PATIENCE`, or
anybody else wait with them. Assumes that such a lock is rare and short: a ban under way, an import; seconds at most of
a process that stands still, for PostgreSQL ends what that has begun.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from realtime.errors import LedgerUnavailable
from realtime.intake.duplicates import Waiting

if TYPE_CHECKING:
    from realtime.boards.submissions import Submission

log = logging.getLogger(__name__)

PATIENCE: Final = 8.0
"""Seconds from its arrival that a submission waits: longer than PostgreSQL bears a transaction that stands still."""

LOOK: Final = 0.25
"""Seconds between two looks whether a lock is gone."""


class Player(NamedTuple):
    """Whose rows are locked: somebody on one leaderboard."""

    leaderboard: str
    """The slug of the one that scores are handed in to."""
    user_id: int

    @classmethod
    def of(cls, submission: Submission) -> Player:
        """Whoever a submission is of."""
        return cls(submission.leaderboard, submission.user_id)


class Holdups:
    """Keeps submissions of locked players. `locked` says which players still are; `record` takes submissions of those
    that seem free, and may hand them in here again; `refuse` answers those that have waited long enough."""

    def __init__(
        self,
        locked: Callable[[Collection[Player]], Awaitable[Collection[Player]]],
        record: Callable[[Sequence[Waiting]], Awaitable[None]],
        refuse: Callable[[Waiting], None],
    ) -> None:
        self._locked = locked
        self._record = record
        self._refuse = refuse
        self._held: dict[Player, list[Waiting]] = {}  # none for one who is locked, and whose all were refused
        self.count = 0
        """Submissions that wait, or are being recorded after they did."""
        self.looking: asyncio.Task[None] | None = None
        """Looks whether locks are gone, as long as there are any."""

    def __contains__(self, submission: Submission) -> bool:
        """Whether somebody is locked whom a submission is of."""
        return Player.of(submission) in self._held

    def __bool__(self) -> bool:
        return bool(self._held)

    def take(self, waiting: Waiting) -> None:
        """Lets a submission wait: its player is locked."""
        self._held.setdefault(Player.of(waiting[0]), []).append(waiting)
        self.count += 1
        if self.looking is None:
            log.warning("player %d is locked by somebody", waiting[0].user_id, extra={"action": "holdup"})
            self.looking = asyncio.get_running_loop().create_task(self._look())

    def close(self) -> None:
        """Forgets who is locked. Nothing must wait any more."""
        if self.looking is not None:
            self.looking.cancel()
        self._held.clear()

    async def _look(self) -> None:
        try:
            while self._held:
                await asyncio.sleep(LOOK)
                try:
                    await self._go_on()
                except Exception as error:  # whoever waits must be answered in the end
                    log.error("cannot look after locked players", exc_info=error, extra={"action": "holdup"})
        finally:
            self.looking = None

    async def _go_on(self) -> None:
        """Refuses what has waited long enough, and has recorded what need not wait any longer."""
        try:
            locked = set(await self._locked(list(self._held)))
        except LedgerUnavailable:
            locked = set(self._held)
        since = asyncio.get_running_loop().time() - PATIENCE
        free: list[Waiting] = []
        for player, held in self._held.items():
            self.count -= len(held)
            self._held[player] = []
            for waiting in held:
                if waiting[2] <= since:
                    self._refuse(waiting)
                elif player in locked:
                    self.take(waiting)
                else:
                    free.append(waiting)
        if free:
            self.count += len(free)  # until they are answered: nobody may end meanwhile
            try:
                await self._record(free)  # what came meanwhile waits for the next look
            finally:
                self.count -= len(free)
        for player in [player for player, held in self._held.items() if not held and player not in locked]:
            del self._held[player]
