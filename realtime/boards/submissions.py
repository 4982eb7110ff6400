"""Submissions and their outcomes: what may be asked of the ledger, and what it answered.

Owns the rules a submission must meet before it is queued, and the limits they rest on. Must never know who is
asking (rights are decided by the caller) nor what a user's total is (the ledger's). Assumes parsed JSON or CSV.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from realtime.errors import RealtimeError
from realtime.validation import ID_MAX, INT_MAX, INT_MIN, parse_moment, plain_text, whole_number

SUBMISSION_ID_LENGTH: Final = 64
REASON_LENGTH: Final = 255


CLOCK_GRACE: Final = timedelta(seconds=5)
"""How far ahead of PostgreSQL's clock a sender's may be: what lies further ahead lies in the future."""


class Submission(NamedTuple):
    """One score handed in. `created_at` is None for "when the ledger records it"."""

    user_id: int
    submission_id: str
    score_added: int
    reason: str | None
    created_at: datetime | None


class Accepted(NamedTuple):
    """The submission is committed, now or (`duplicate`) earlier. Scores are current, not of that moment."""

    submission_id: str
    user_id: int
    total_score: int
    week_score: int
    duplicate: bool


class Rejected(NamedTuple):
    """The submission changed nothing. `retry_after_ms` is None where repeating it is useless."""

    submission_id: str | None
    code: str
    message: str
    retry_after_ms: int | None = None

    @classmethod
    def of(cls, submission_id: str | None, error: RealtimeError) -> Rejected:
        """The outcome that says what `error` says."""
        return cls(submission_id, error.code, error.message, error.retry_after_ms)


Outcome = Accepted | Rejected


def submission_id_of(fields: Mapping[str, Any]) -> str | None:
    """The id to answer with, where there is a usable one."""
    try:
        return plain_text(fields.get("submission_id"), "submission_id", 1, SUBMISSION_ID_LENGTH)
    except RealtimeError:
        return None


def parse_submission(fields: Mapping[str, Any], own_user_id: int | None) -> Submission:
    """The submission that `fields` describe; `user_id` may be left out where `own_user_id` is given.

    An empty reason is none: a file of scores has one way to say either. Raises RealtimeError `bad_message` or
    `out_of_range`.
    """
    submission_id = plain_text(fields.get("submission_id"), "submission_id", 1, SUBMISSION_ID_LENGTH)
    score_added = whole_number(fields.get("score_added"), "score_added", INT_MIN, INT_MAX)
    reason = fields.get("reason")
    if reason is not None:
        reason = plain_text(reason, "reason", 0, REASON_LENGTH) or None
    user_id = fields.get("user_id")
    if user_id is None:
        if own_user_id is None:
            raise RealtimeError("bad_message", "user_id is missing, and the token names no user.")
        user_id = own_user_id
    else:
        user_id = whole_number(user_id, "user_id", 1, ID_MAX)
    created_at = fields.get("created_at")
    moment = None if created_at is None else parse_moment(created_at, "created_at")
    return Submission(user_id, submission_id, score_added, reason, moment)


