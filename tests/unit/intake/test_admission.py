"""Admission: what must happen before a submission is queued, happens; and whoever asks is answered once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from realtime.boards.submissions import Accepted, Outcome, Rejected, Submission
from realtime.errors import LedgerUnavailable
from realtime.intake.admission import Admission, Reply
from realtime.people.identity import Identity
from realtime.people.rate_limits import Limit, RateLimits
from tests.support.waiting import eventually

LIMIT = Limit("submissions", 3, 60)
NEVER = datetime(2100, 1, 1, tzinfo=UTC)
PLAYER = Identity(7, frozenset({"submit"}), NEVER)
GAME = Identity(None, frozenset({"submit:any"}), NEVER, token_id="game")


class Here:
    """Everything around an admission: it keeps the order in which it is told things."""

    def __init__(self, room: int = 100) -> None:
        self.happened: list[tuple[str, str]] = []
        self.outcomes: dict[str, list[Outcome]] = {}
        self.ledger_gone = False
        self.ledger_hangs = False
        self.live = True
        throttle = RateLimits(self, lambda: 0.0)
        self.admission = Admission(self, throttle, self, limit=LIMIT, room=room)

    def submit(self, submission: Submission, reply: Reply) -> None:
        self.happened.append(("queued", submission.submission_id))
        reply(Accepted(submission.submission_id, submission.user_id, 0, 0, False))

    def is_live(self, outcome: Outcome) -> bool:
        return self.live

    def overloaded(self, submission_id: str) -> Rejected:
        return Rejected(submission_id, "overloaded", "Too much waits.", 1_000)

    async def count(self, amounts: Mapping[str, int], seconds: int) -> list[int]:
        return list(amounts.values())

    async def fetch(self, name: str, *args: Any) -> list[Any]:
        if self.ledger_hangs:
            await asyncio.Event().wait()
        if self.ledger_gone:
            raise LedgerUnavailable("gone")
        self.happened += [
            ("written down", f"{actor} {orjson.loads(told)['submission_id']}")
            for actor, _, told in zip(*args, strict=True)
        ]
        return []

    def hand_in(self, name: str, score: int, who: Identity = PLAYER, at: datetime | None = None, user: int = 7) -> None:
        outcomes = self.outcomes.setdefault(name, [])
        self.admission.submit(who, Submission(user, name, score, None, at), outcomes.append)

    def answers(self) -> dict[str, str]:
        """What each was answered; nobody was answered twice."""
        assert all(len(outcomes) == 1 for outcomes in self.outcomes.values()), self.outcomes
        return {name: getattr(outcome, "code", "accepted") for name, (outcome,) in self.outcomes.items()}

    async def all_answered(self) -> None:
        await eventually(lambda: all(self.outcomes.values()))


@asynccontextmanager
async def running(here: Here) -> AsyncIterator[None]:
    task = asyncio.ensure_future(here.admission.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(
    ("score", "at"), [(-5, None), (5, datetime(2021, 1, 1, tzinfo=UTC))], ids=["taken back", "of the past"]
)
async def test_correction_is_written_down_before_it_counts(score: int, at: datetime | None) -> None:
    here = Here()
    async with running(here):
        here.hand_in("a", score, GAME, at)
        await here.all_answered()
    assert here.happened == [("written down", "token:game a"), ("queued", "a")]


async def test_correction_that_cannot_be_written_down_does_not_count() -> None:
    here = Here()
    here.ledger_gone = True
    async with running(here):
        here.hand_in("a", -5, GAME)
        await here.all_answered()
        assert (here.happened, here.answers()) == ([], {"a": "unavailable"})
        here.ledger_gone = False
        here.hand_in("b", -5, GAME)
        await here.all_answered()
    assert here.happened == [("written down", "token:game b"), ("queued", "b")], "it goes on afterwards"


async def test_person_is_held_to_the_limit_and_nobody_pays_for_another() -> None:
    here = Here()
    async with running(here):
        for number in range(5):
            here.hand_in(f"own-{number}", 1)
        here.hand_in("another's", 1, user=8)
        await here.all_answered()
    assert here.answers() == {
        "own-0": "accepted", "own-1": "accepted", "own-2": "accepted", "own-3": "too_many", "own-4": "too_many",
        "another's": "accepted",
    }  # fmt: skip
    (refused,) = here.outcomes["own-4"]
    assert isinstance(refused, Rejected) and refused.retry_after_ms == 60_000


async def test_game_server_s_score_waits_for_nothing() -> None:
    here = Here()
    here.hand_in("a", 5, GAME)
    assert here.happened == [("queued", "a")], "nothing runs here: it went straight on"


async def test_what_finds_no_room_is_answered_at_once() -> None:
    here = Here(room=2)
    for name in ("a", "b", "c"):
        here.hand_in(name, 1)
    assert [outcome.code for outcome in here.outcomes["c"] if isinstance(outcome, Rejected)] == ["overloaded"]
    async with running(here):
        await here.all_answered()
    assert here.answers() == {"a": "accepted", "b": "accepted", "c": "overloaded"}


async def test_nobody_is_left_without_an_answer_at_the_end() -> None:
    here = Here()
    here.ledger_hangs = True
    async with running(here):
        here.hand_in("under way", -5, GAME)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        here.hand_in("waits", 1)
    assert here.answers() == {"under way": "unavailable", "waits": "unavailable"}
    assert here.happened == []
