"""Submissions and their outcomes: what may be asked of the ledger, and what it answered.

Owns the rules a submission must meet before it is queued, and the limits they rest on. Must never know who is
asking (rights are decided by the caller) nor what a user's total is (the ledger's). Assumes parsed JSON or CSV.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from math import isfinite
from typing import Any, Final, NamedTuple

import orjson

from realtime.boards.catalogue import PUBLISHED, Catalogue, is_alias, split_id
from realtime.boards.definitions import DEFAULT_SLUG, SCORE_MAX
from realtime.boards.leaderboard import DEFAULT, Leaderboard
from realtime.boards.windows import read_name
from realtime.errors import RealtimeError
from realtime.validation import EARLIEST, ID_MAX, INT_MAX, INT_MIN, parse_moment, plain_text, whole_number

SUBMISSION_ID_LENGTH: Final = 64
REASON_LENGTH: Final = 255

METADATA_BYTES: Final = 256
"""At most, as JSON without spaces in UTF-8."""

LATEST: Final = datetime(9999, 12, 30, tzinfo=UTC)

_FIELDS: Final = frozenset(
    {
        "type", "leaderboard", "submission_id", "score", "score_added", "reason", "user_id", "created_at", "metadata",
        "board", "with",
    }
)  # fmt: skip

CLOCK_GRACE: Final = timedelta(seconds=5)
"""How far ahead of PostgreSQL's clock a sender's may be: what lies further ahead lies in the future."""


class Span(NamedTuple):
    """A stretch of time, half-open; None for no end on that side."""

    starts: datetime | None
    ends: datetime | None


class Submission(NamedTuple):
    """One score handed in. `created_at` is None for "when the ledger records it"."""

    user_id: int
    submission_id: str
    score_added: int | None
    """What is added, or the score that was reached; None where a leaderboard counts submissions and got no score."""
    reason: str | None
    created_at: datetime | None
    leaderboard: str = DEFAULT_SLUG
    """The slug of the leaderboard that it is handed in to."""
    metadata: str | None = None
    """A JSON object, as short as it can be written; at most METADATA_BYTES."""
    within: Span | None = None
    """The window in which alone it may be recorded; None where it counts whenever that is."""
    with_all: bool = False
    """Whether the outcome names the scores of leaderboards `of` this one too."""


class Accepted(NamedTuple):
    """The submission is committed, now or (`duplicate`) earlier. Scores are current, not of that moment."""

    submission_id: str
    user_id: int
    total_score: int
    """Of `default`; 0 for every other leaderboard, whose scores are in `scores`."""
    week_score: int
    duplicate: bool
    scores: Mapping[str, int] | None = None
    """By board's id; None where only `default`'s were asked for."""
    improved: bool | None = None
    """Whether it is now a counting one; None where that was not asked."""
    leaderboard: str = DEFAULT_SLUG
    """The slug of the leaderboard that it was handed in to."""


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


def _never_asked() -> datetime:
    """The time for who knows the published boards alone, which are all at hand."""
    return datetime(2000, 1, 1, tzinfo=UTC)


def parse_submission(
    fields: Mapping[str, Any],
    own_user_id: int | None,
    catalogue: Catalogue = PUBLISHED,
    now: Callable[[], datetime] = _never_asked,
) -> Submission:
    """The submission that `fields` describe; `user_id` may be left out where `own_user_id` is given.

    `catalogue` says which leaderboards there are, and `now` which windows have begun. An empty reason is none: a file
    of scores has one way to say either. Raises RealtimeError `bad_message`, `out_of_range`, `unknown_leaderboard`,
    `wrong_board`, `unknown_board`, `bad_metadata`.
    """
    submission_id = plain_text(fields.get("submission_id"), "submission_id", 1, SUBMISSION_ID_LENGTH)
    slug = fields.get("leaderboard")
    leaderboard = catalogue.default if slug is None else _leaderboard(slug, catalogue)
    if leaderboard.slug == DEFAULT_SLUG:
        added = fields.get("score_added")
        if added is None:
            raise _unscored(fields)
        score: int | None = whole_number(added, "score_added", INT_MIN, INT_MAX)
        if leaderboard.definition.bounds is not None:
            check_score(score, leaderboard)
    else:
        score = _score(fields, leaderboard)
        check_score(score, leaderboard)
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
    metadata, board, answer = fields.get("metadata"), fields.get("board"), fields.get("with")
    if answer is not None and answer != "all":
        raise RealtimeError("bad_message", 'with can be "all", or be left out.')
    return Submission(
        user_id,
        submission_id,
        score,
        reason,
        moment,
        leaderboard.slug,
        None if metadata is None else written_metadata(metadata),
        None if board is None else _within(board, leaderboard, catalogue, now),
        answer is not None,
    )


def _unscored(fields: Mapping[str, Any]) -> RealtimeError:
    """Of a submission to `default`: fields that it does not know it passes over, and names where one is missing."""
    unknown = sorted(f"{name!a}" for name in map(str, fields.keys() - (_FIELDS - {"score"})))
    hint = f"; there is no field {', '.join(unknown)} here" if unknown else ""
    return RealtimeError("bad_message", f"score_added is missing{hint}.")


def _leaderboard(slug: Any, catalogue: Catalogue) -> Leaderboard:
    if type(slug) is not str:
        raise RealtimeError("bad_message", "leaderboard must be the slug of one, as a text.")
    return catalogue.source(slug)


def _score(fields: Mapping[str, Any], leaderboard: Leaderboard) -> int | None:
    """The score of a submission to another leaderboard than `default`, which knows every field."""
    operator = leaderboard.definition.operator
    right, wrong = ("score_added", "score") if operator == "sum" else ("score", "score_added")
    if wrong in fields:
        raise RealtimeError("bad_message", f"{leaderboard.slug} takes {right}, not {wrong}.")
    if unknown := fields.keys() - _FIELDS:
        known = ", ".join(sorted(_FIELDS - {"type", wrong}))
        raise RealtimeError("bad_message", f"There is no field {min(map(str, unknown))!a}. Known are {known}.")
    if operator == "count" and fields.get(right) is None:
        return None
    return whole_number(fields.get(right), right, -SCORE_MAX, SCORE_MAX)


def check_score(score: int | None, leaderboard: Leaderboard) -> None:
    """Raises RealtimeError `bad_message` where a leaderboard needs a score, `out_of_range` for one it does not take."""
    if score is None and leaderboard.definition.operator != "count":
        raise RealtimeError("bad_message", f"{leaderboard.slug} needs a score.")
    if leaderboard.slug == DEFAULT.slug and score is not None and not INT_MIN <= score <= INT_MAX:
        raise RealtimeError("out_of_range", f"score_added must be from {INT_MIN} to {INT_MAX}.")
    bounds = leaderboard.definition.bounds
    if bounds is not None and score is not None and not bounds.min <= score <= bounds.max:
        name = "score_added" if leaderboard.definition.operator == "sum" else "score"
        raise RealtimeError("out_of_range", f"{name} must be from {bounds.min} to {bounds.max} on {leaderboard.slug}.")


def written_metadata(value: Any) -> str:
    """A submission's metadata as JSON, as short as it can be written. Raises RealtimeError `bad_metadata`."""
    if type(value) is not dict:
        raise RealtimeError("bad_metadata", "metadata must be a JSON object.")
    try:
        text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
    except (orjson.JSONEncodeError, UnicodeError):
        raise RealtimeError("bad_metadata", "metadata must be JSON in valid Unicode.") from None
    if len(text.encode()) > METADATA_BYTES:
        raise RealtimeError("bad_metadata", f"metadata must be at most {METADATA_BYTES} bytes as JSON.")
    _check_numbers(value)
    if "\\u0000" in text:
        raise RealtimeError("bad_metadata", "metadata must not contain a NUL character.")
    return text


def _check_numbers(value: Any) -> None:
    """Raises RealtimeError `bad_metadata` for a number that PostgreSQL would write at length, or not at all."""
    if type(value) is float and not (isfinite(value) and "e" not in repr(value)):
        raise RealtimeError("bad_metadata", "metadata must hold numbers that can be written without an exponent.")
    for part in value.values() if type(value) is dict else value if type(value) is list else ():
        _check_numbers(part)


def _season(name: str, ranking: Leaderboard) -> Span:
    """When a season runs, by the definition: where none is near, it is not at hand."""
    for season in ranking.definition.seasons:
        if name == f"season_{season.id}":
            return Span(season.starts, season.ends)
    known = ", ".join(season.id for season in ranking.definition.seasons[-5:])
    raise RealtimeError("unknown_board", f"{ranking.slug} has no such season. Its last ones are: {known or 'none'}.")


def _within(board_id: Any, leaderboard: Leaderboard, catalogue: Catalogue, now: Callable[[], datetime]) -> Span:
    """The time in which a submission must be recorded to count on the board that it names."""
    wrong = RealtimeError("wrong_board", f"board must be the id of a board of {leaderboard.slug}, or of one `of` it.")
    if type(board_id) is not str or is_alias(board_id):
        raise wrong
    slug, name = split_id(board_id)
    ranking = catalogue.leaderboards.get(slug)
    if ranking is None or ranking.source != leaderboard.id:
        raise wrong
    board = catalogue.parse(board_id)
    if board is not None:
        return Span(board.window.starts, board.window.ends)
    try:
        said = read_name(name)
    except ValueError:
        raise wrong from None
    if said is None or said.kind not in ranking.definition.windows:
        raise wrong
    if said.first_day is None:
        return _season(name, ranking)
    # A window of the calendar that is not at hand was over long ago, or is yet to come: no score counts in it.
    return Span(None, EARLIEST) if said.first_day <= now().date() else Span(LATEST, None)
