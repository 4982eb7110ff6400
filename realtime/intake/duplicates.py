"""Duplicates: submissions of one batch that carry the same id.

Owns which of them is recorded, and what the others are answered. Must never decide what became of the one that is
recorded. Assumes that a submission waits with its reply.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from realtime.boards.submissions import Accepted, Outcome, Submission
from realtime.intake.outcomes import conflict

Reply = Callable[[Outcome], None]
"""Takes a submission's outcome. Called on the event loop, once, soon after commit; must not block or raise."""

Waiting = tuple[Submission, Reply, float]
"""A submission, its reply, and when it arrived, in the loop's seconds."""


class First:
    """What came first under an id of a user in a batch, with what came under the same id after it."""

    __slots__ = ("others", "same", "submission")

    def __init__(self, waiting: Waiting) -> None:
        self.submission = waiting[0]
        self.same = [waiting]
        self.others: list[Waiting] = []  # with other content

    def answer(self, outcome: Outcome) -> None:
        """Tells everybody who handed in this content."""
        self.same[0][1](outcome)
        if len(self.same) > 1:
            for _, reply, _ in self.same[1:]:
                reply(again(outcome))


Key = tuple[int, str, str]
"""What a submission is known by: its user, its id, and its leaderboard."""


def grouped(batch: Iterable[Waiting]) -> dict[Key, First]:
    """What came first under each key, in the order of the batch."""
    firsts: dict[Key, First] = {}
    for waiting in batch:
        submission = waiting[0]
        key = submission.user_id, submission.submission_id, submission.leaderboard
        first = firsts.get(key)
        if first is None:
            firsts[key] = First(waiting)
        elif submission == first.submission:
            first.same.append(waiting)
        else:
            first.others.append(waiting)
    return firsts


def again(outcome: Outcome) -> Outcome:
    """What is said of the same once more."""
    return outcome._replace(duplicate=True) if isinstance(outcome, Accepted) else outcome


def beside(other: Submission, first: Submission, outcome: Outcome) -> Outcome:
    """What is said of other content under an id that is taken; a moment may be left out, as in the ledger's rule, and
    a window has nothing to say of what is recorded."""
    if isinstance(outcome, Accepted) and _content(other) in (
        _content(first),
        _content(first._replace(created_at=None)),
    ):
        return again(outcome)
    return conflict(other)


def _content(submission: Submission) -> Submission:
    """What two submissions have in common that are the same."""
    return submission._replace(within=None, with_all=False)
