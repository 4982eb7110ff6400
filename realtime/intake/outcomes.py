"""Outcomes: what a submission is answered, for each thing that may have become of it.

Owns the codes and the words. Must never know how that was found out. Assumes the ledger's words for outcomes, as
sql/queries/ledger.sql and scores.sql name them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from realtime.boards.leaderboard import DEFAULT
from realtime.boards.submissions import Accepted, Outcome, Rejected, Submission

RETRY_REFUSED_MS: Final = 10_000
"""After how long it may be worth trying again what PostgreSQL refused for reasons of its own."""

RETRY_UNAVAILABLE_MS: Final = 1_000
"""After how long it may be worth trying again what PostgreSQL could not record."""


def outcome_of(
    submission: Submission,
    outcome: str,
    total: int | None,
    week: int | None,
    scores: Mapping[str, int] | None = None,
    improved: bool | None = None,
) -> Outcome:
    """The outcome that the ledger's word for it means, with the user's scores of all time and of the week, and on
    whichever boards were asked for."""
    if outcome in ("accepted", "duplicate"):
        if scores is None:
            return Accepted(submission.submission_id, submission.user_id, total or 0, week or 0, outcome == "duplicate")
        return Accepted(
            submission.submission_id, submission.user_id, total or 0, week or 0, outcome == "duplicate", scores,
            improved, submission.leaderboard,
        )  # fmt: skip
    if outcome == "conflict":
        return conflict(submission)
    if outcome == "range":
        return out_of_range(submission)
    code, message = _REFUSALS[outcome]
    return Rejected(submission.submission_id, code, message)


_REFUSALS: Final = {
    "unknown": ("unknown_user", "There is no such user. Register the player before sending scores."),
    "hidden": ("forbidden", "This player is banned."),
    "future": ("out_of_range", "created_at lies in the future."),
    "window_over": ("window_over", "That board's window is over: this score does not count there any more."),
    "window_not_begun": ("window_not_begun", "That board's window has not begun: send this score when it has."),
    "removed": ("unknown_leaderboard", "There is no such leaderboard any more."),
}


def conflict(submission: Submission) -> Rejected:
    """The outcome of an id that stands for something else already."""
    message = "This submission_id stands for another score of the same user. Use a new id for a new score."
    return Rejected(submission.submission_id, "submission_conflict", message)


def refused(submission: Submission, *, for_good: bool) -> Rejected:
    """The outcome of a submission that PostgreSQL refuses for reasons of its own, now or `for_good`."""
    if for_good:
        message = "The database does not take this score, and will not: its log says why."
        return Rejected(submission.submission_id, "bad_message", message)
    message = "The database does not take this score now. Send it again, under the same submission_id."
    return Rejected(submission.submission_id, "unavailable", message, RETRY_REFUSED_MS)


def out_of_range(submission: Submission) -> Rejected:
    """The outcome of a score that would take the user's total too far."""
    what = "total" if submission.leaderboard == DEFAULT.slug else "score on some board"
    message = f"The user's {what} would leave the range of plus or minus 2^53."
    return Rejected(submission.submission_id, "out_of_range", message)


def unavailable(submission: Submission) -> Rejected:
    """The outcome of a submission that cannot be recorded now."""
    message = "Scores cannot be recorded now. Send this one again, under the same submission_id."
    return Rejected(submission.submission_id, "unavailable", message, RETRY_UNAVAILABLE_MS)
