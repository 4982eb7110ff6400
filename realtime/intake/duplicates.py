"""Duplicates: submissions of one batch that carry the same id.

Owns which of them is recorded, and what the others are answered. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

from realtime.boards.submissions import Accepted, Outcome, Submission
from realtime.intake import recorder
from realtime.intake.holdups import Waiting


class _First:
    """What came first under an id of a user in a batch, with what came under the same id after it."""

    __slots__ = ("others", "same", "submission")

    def __init__(self, waiting: Waiting) -> None:
        self.submission = waiting[0]
        self.same = [waiting]
        self.others: list[Waiting] = []  # with other content

    def answer(self, outcome: Outcome) -> None:
        self.same[0][1](outcome)
        for _, reply, _ in self.same[1:]:
            reply(_again(outcome))


def _grouped(batch: Iterable[Waiting]) -> dict[tuple[int, str], _First]:
    firsts: dict[tuple[int, str], _First] = {}
    for waiting in batch:
        submission = waiting[0]
        key = submission.user_id, submission.submission_id
        first = firsts.get(key)
        if first is None:
            firsts[key] = _First(waiting)
        elif submission == first.submission:
            first.same.append(waiting)
        else:
            first.others.append(waiting)
    return firsts


def _again(outcome: Outcome) -> Outcome:
    """What is said of the same once more."""
    return outcome._replace(duplicate=True) if isinstance(outcome, Accepted) else outcome


def _beside(other: Submission, first: Submission, outcome: Outcome) -> Outcome:
    """What is said of other content under an id that is taken; a moment may be left out, as in the ledger's rule."""
    if isinstance(outcome, Accepted) and other == first._replace(created_at=None):
        return _again(outcome)
    return recorder.conflict(other)
