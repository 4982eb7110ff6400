"""Simulation: scores of a file, or invented ones, played as live submissions over real sockets.

Owns the pace and the tally. Must never send an id twice: each run has a prefix of its own, so that the same file moves
the boards again. Assumes a server that answers sooner or later; while it is slower than the pace, the pace gives way.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, islice
from random import Random
from typing import Final, NamedTuple, Protocol

from realtime.boards.definitions import DEFAULT_DEFINITION, DEFAULT_SLUG, Definition
from realtime.boards.submissions import Accepted, Outcome
from realtime.intake.score_file import BadRow, FileRow

LOOKED_UP: Final = 200
"""Players found or made at a time."""

UNANSWERED: Final = 1_000
"""Submissions under way at a time: more than enough for full batches, few enough for any server's queue."""

LAST_WAIT: Final = 5.0
"""Seconds that a cancelled run waits for outcomes."""


class Play(NamedTuple):
    """A score to be played. `player` is a name, or the id of an existing user."""

    player: str | int
    score: int | None
    """What is added, or the score that was reached; None where submissions are counted."""
    reason: str | None
    leaderboard: str = DEFAULT_SLUG
    is_added: bool = True
    """Whether the score is added to what was there."""


class Players(Protocol):
    """Who plays."""

    async def of(self, usernames: Collection[str]) -> dict[str, int]: ...


class Client(Protocol):
    """What a simulation needs of `realtime.client`."""

    async def submit(
        self,
        score_added: int | None,
        *,
        score: int | None,
        leaderboard: str | None,
        reason: str | None,
        user_id: int | None,
        submission_id: str | None,
    ) -> Outcome: ...


@dataclass(slots=True)
class Tally:
    """What a simulation came to so far."""

    sent: int = 0
    accepted: int = 0
    refusals: Counter[str] = field(default_factory=Counter)
    """Rejected submissions by code."""
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Submissions answered a second."""
        return (self.accepted + self.refusals.total()) / self.seconds if self.seconds else 0.0


def plays(
    rows: Iterable[FileRow | BadRow], on_bad: Callable[[BadRow], None], definitions: Mapping[str, Definition], slug: str
) -> Iterator[Play]:
    """The scores of a file, in order; bad rows are told and left out. Those that name no leaderboard are of `slug`."""
    for row in rows:
        if isinstance(row, BadRow):
            on_bad(row)
        else:
            of = row.leaderboard or slug
            is_added = of not in definitions or definitions[of].operator == "sum"
            yield Play(row.player, row.score_added, row.reason, of, is_added)


_FIRST: Final = "Amber Brisk Calm Dusty Early Fair Gentle Happy Ivory Jolly Keen Lucky Mellow Noble Opal Quiet".split()
_SECOND: Final = "Badger Crane Dingo Egret Fox Gecko Heron Ibis Jay Koala Lynx Marten Otter Puffin Raven Stoat".split()


def invented(
    players: int, random: Random, definition: Definition = DEFAULT_DEFINITION, *, eager: float = 3.0
) -> Iterator[Play]:
    """Endless scores of invented players: a few play most, the more so the greater `eager` is (1: all alike), and most
    scores are small, within what is taken."""
    names = [_name(number) for number in range(players)]
    bounds, operator = definition.bounds, definition.operator
    low, high = (1, 1_000) if bounds is None else (bounds.min, bounds.max)
    if bounds is None and definition.format.unit is not None:
        low, high = (20, 600) if definition.format.unit == "s" else (20_000, 600_000)
    while True:
        player = int(players * random.random() ** eager)
        if (low, high) == (1, 1_000):
            score = min(int(random.lognormvariate(2.5, 1.2)) + 1, high)
        else:
            score = low + int((high - low) * min(random.lognormvariate(-2.0, 0.6), 1.0))
        yield Play(
            names[player], None if operator == "count" else score, "simulated", definition.slug, operator == "sum"
        )


def _name(number: int) -> str:
    lap, place = divmod(number, len(_FIRST) * len(_SECOND))
    name = f"{_FIRST[place % len(_FIRST)]} {_SECOND[(place // len(_FIRST) + place) % len(_SECOND)]}"
    return f"{name} {lap + 1}" if lap else name


class Simulation:
    """One run. `run_id` begins every submission id."""

    def __init__(
        self,
        clients: Sequence[Client],
        players: Players,
        run_id: str,
        *,
        rate: float,
        now: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.tally = Tally()
        self._clients = clients
        self._players = players
        self._run_id = run_id
        self._rate = rate  # submissions a second
        self._now = now
        self._sleep = sleep
        self._under_way: set[asyncio.Task[None]] = set()
        self._room = asyncio.Semaphore(UNANSWERED)

    async def run(self, scores: Iterator[Play], progress: Callable[[], None] = lambda: None) -> None:
        """Plays every score at the rate, and waits for the last outcome; only a moment for those when cancelled."""
        began = self._now()
        patience: float | None = LAST_WAIT
        numbers = count()
        try:
            while part := list(islice(scores, LOOKED_UP)):
                users = await self._players.of({play.player for play in part if isinstance(play.player, str)})
                for play, number in zip(part, numbers, strict=False):
                    await self._until(began + number / self._rate)
                    await self._room.acquire()
                    self._start(number, play, users)
                    self.tally.seconds = self._now() - began
                    progress()
            patience = None
        finally:
            if self._under_way:
                _, unanswered = await asyncio.wait(self._under_way, timeout=patience)
                for task in unanswered:  # nobody waits for their outcomes any more
                    task.cancel()
            self.tally.seconds = self._now() - began
            progress()

    async def _until(self, moment: float) -> None:
        wait = moment - self._now()
        if wait > 0:
            await self._sleep(wait)

    def _start(self, number: int, play: Play, users: dict[str, int]) -> None:
        user_id = play.player if isinstance(play.player, int) else users[play.player]
        task = asyncio.get_running_loop().create_task(self._play(number, play, user_id))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        self.tally.sent += 1

    async def _play(self, number: int, play: Play, user_id: int) -> None:
        client = self._clients[number % len(self._clients)]
        try:
            outcome = await client.submit(
                play.score if play.is_added else None,
                score=None if play.is_added else play.score,
                leaderboard=None if play.leaderboard == DEFAULT_SLUG else play.leaderboard,
                reason=play.reason,
                user_id=user_id,
                submission_id=f"{self._run_id}-{number}",
            )
        finally:
            self._room.release()
        if isinstance(outcome, Accepted):
            self.tally.accepted += 1
        else:
            self.tally.refusals[outcome.code] += 1
