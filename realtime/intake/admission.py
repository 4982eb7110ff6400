"""Admission: what must happen before a submission is queued.

Owns submissions that wait for that: those of people, which are counted against a limit that holds across processes, and
corrections (points taken back, and an admin's scores of the past), which are written down first: the log of scores does
not say who took them back. All others go straight to intake. Must never hold more submissions than its limit, or leave
one unanswered. Assumes that the caller checked what the sender may do.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, Protocol

import orjson

from realtime.boards.leaderboard import DEFAULT
from realtime.boards.submissions import Outcome, Rejected, Submission
from realtime.errors import LedgerUnavailable, RealtimeError
from realtime.intake.duplicates import Reply
from realtime.people.identity import Identity
from realtime.people.rate_limits import Limit, RateLimits

log = logging.getLogger(__name__)

AT_ONCE: Final = 1_000
"""Submissions that are counted or written down together."""


class Intake(Protocol):
    """Where admitted submissions go."""

    def is_live(self, outcome: Outcome) -> bool: ...
    def submit(self, submission: Submission, reply: Reply) -> None: ...
    def overloaded(self, submission_id: str) -> Rejected: ...


class Ledger(Protocol):
    """What admission needs of PostgreSQL."""

    async def fetch(self, name: str, *args: Any) -> list[Any]: ...


class Candidate(NamedTuple):
    """One submission that waits for its admission, and who asks."""

    submission: Submission
    reply: Reply
    actor: str
    corrects: bool


class Admission:
    """Admits submissions to intake, once they are counted or written down. `run` must be running."""

    def __init__(self, intake: Intake, throttle: RateLimits, ledger: Ledger, *, limit: Limit, room: int) -> None:
        self._intake = intake
        self._throttle = throttle
        self._ledger = ledger
        self._limit = limit
        self._room = room
        self._waiting: deque[Candidate] = deque()  # oldest first; never longer than `room`
        self._wake = asyncio.Event()

    def is_live(self, outcome: Outcome) -> bool:
        """Whether boards show soon what came of a submission."""
        return self._intake.is_live(outcome)

    def submit(self, identity: Identity, submission: Submission, reply: Reply) -> None:
        """Takes a submission; `reply` gets its outcome."""
        corrects = submission.created_at is not None or (
            submission.leaderboard == DEFAULT.slug and (submission.score_added or 0) < 0
        )
        counted = self._limit.most > 0 and not identity.may("submit:any", "admin")
        if not corrects and not counted:
            self._intake.submit(submission, reply)
        elif len(self._waiting) >= self._room:
            reply(self._intake.overloaded(submission.submission_id))
        else:
            self._waiting.append(Candidate(submission, reply, identity.actor, corrects))
            self._wake.set()

    async def run(self) -> None:
        """Admits what waits until cancelled; then answers what is left."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._waiting:
                    await self._admit([self._waiting.popleft() for _ in range(min(AT_ONCE, len(self._waiting)))])
        finally:
            for one in self._waiting:
                _refuse(one, _unavailable())
            self._waiting.clear()

    async def _admit(self, batch: Sequence[Candidate]) -> None:
        left = deque(batch)
        try:
            corrections = [one for one in batch if one.corrects]
            if corrections:
                await self._write_down(corrections)
            counted = Counter(_counted_as(one.submission) for one in batch if not one.corrects)
            within = await self._throttle.admit(self._limit, counted)
            while left:
                self._decide(left.popleft(), within)
        except LedgerUnavailable:
            pass
        finally:
            for one in left:
                _refuse(one, _unavailable())

    def _decide(self, one: Candidate, within: dict[str, int]) -> None:
        if not one.corrects:
            who = _counted_as(one.submission)
            if within[who] == 0:
                _refuse(one, self._throttle.refusal(self._limit))
                return
            within[who] -= 1
        self._intake.submit(one.submission, one.reply)

    async def _write_down(self, corrections: Sequence[Candidate]) -> None:
        """Who hands in what for when, before it counts: a correction without its row must not be."""
        rows = [(one.actor, one.submission.user_id, _told(one.submission)) for one in corrections]
        await self._ledger.fetch("audit_corrections", *map(list, zip(*rows, strict=True)))


def _counted_as(submission: Submission) -> str:
    """Under what name a submission is counted: each user has a limit of their own on each leaderboard."""
    user = str(submission.user_id)
    return user if submission.leaderboard == DEFAULT.slug else f"{user}:{submission.leaderboard}"


def _told(submission: Submission) -> str:
    return orjson.dumps(
        {
            "submission_id": submission.submission_id,
            "score_added": submission.score_added,
            "created_at": submission.created_at,
            "reason": submission.reason,
        }
    ).decode()


def _refuse(one: Candidate, error: RealtimeError) -> None:
    one.reply(Rejected.of(one.submission.submission_id, error))


def _unavailable() -> RealtimeError:
    return RealtimeError("unavailable", "This cannot be recorded now. Try again.", retry_after_ms=1_000)
