"""Schemas: every shape that is sent or received, as JSON Schema (2020-12), made from the limits that validation uses.

Owns one fragment a field and one schema a shape; the documents put them together. Must never state a number of its own.
Assumes that readers ignore unknown fields, as the protocol says: no schema forbids any.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import TypeAdapter

from realtime import __version__
from realtime.boards import definitions
from realtime.boards.board import CURRENT_WEEK, TOP
from realtime.boards.definitions import KINDS, OPERATORS, ORDERS, RANKS, SUBMITTERS, TIES, VISIBLE, WEEKDAYS
from realtime.boards.parsing import PLACES, TITLE_LENGTH
from realtime.boards.submissions import METADATA_BYTES, REASON_LENGTH, SUBMISSION_ID_LENGTH
from realtime.broadcast.pages import Page, UserPage
from realtime.errors import STATUS
from realtime.people.passwords import PASSWORD_LENGTH
from realtime.people.usernames import USERNAME_LENGTH
from realtime.validation import ID_MAX, INT_MAX, INT_MIN, TOTAL_MAX
from realtime.wire.messages import BOARD_LENGTH, PROTOCOL

Schema = dict[str, Any]

_TEXT: Final = r"^[^\u0000]*$"
"""PostgreSQL keeps no NUL."""


def whole(low: int | None = None, high: int | None = None, about: str = "") -> Schema:
    """A whole number within bounds."""
    bounds = {"minimum": low, "maximum": high}
    return _about({"type": "integer"} | {name: bound for name, bound in bounds.items() if bound is not None}, about)


def text(shortest: int = 0, longest: int | None = None, about: str = "") -> Schema:
    """Text of so many characters."""
    return _about({"type": "string", "minLength": shortest} | ({"maxLength": longest} if longest else {}), about)


def constant(value: Any) -> Schema:
    """This value and no other."""
    return {"const": value}


def nullable(schema: Schema) -> Schema:
    """What `schema` allows, or null."""
    return schema | {"type": [schema["type"], "null"]}


def listed(items: Schema, least: int = 0, most: int | None = None) -> Schema:
    """A list of at least `least` and at most `most` items."""
    return {"type": "array", "items": items, "minItems": least} | ({"maxItems": most} if most else {})


def shape(about: str, required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None) -> Schema:
    """An object with these fields."""
    return {
        "type": "object",
        "description": about,
        "properties": {**required, **(optional or {})},
        "required": list(required),
    }


def named(name: str) -> Schema:
    """The schema of this name in SHAPES, where a document has its schemas."""
    return {"$ref": f"#/components/schemas/{name}"}


def _about(schema: Schema, about: str) -> Schema:
    return schema | ({"description": about} if about else {})


# Fields ----------------------------------------------------------------------------------------------------------

USER_ID: Final = whole(1, ID_MAX)
SUBMISSION_ID: Final = text(1, SUBMISSION_ID_LENGTH, "of your choice; the same again changes nothing") | {
    "pattern": _TEXT
}
SCORE_ADDED: Final = whole(INT_MIN, INT_MAX, "negative only with `submit:any` or `admin`")
REASON: Final = nullable(text(0, REASON_LENGTH) | {"pattern": _TEXT})
SCORE: Final = whole(-TOTAL_MAX, TOTAL_MAX)
BOARD: Final = text(
    1,
    BOARD_LENGTH,
    f"`all_time`, `week_of_YYYY_MM_DD` (a Monday), or an alias as `{CURRENT_WEEK}`; of another leaderboard with its "
    "slug in front: `sprint:day_of_YYYY_MM_DD`",
)
EPOCH: Final = text(1, about="names a generation of content; versions count within one")
VERSION: Final = whole(0)
USERNAME: Final = text(1, USERNAME_LENGTH)
MOMENT: Final = {"type": "string", "format": "date-time"}
CODE: Final = {"enum": list(STATUS)}
WAIT: Final = nullable(whole(0, about="try again after so many milliseconds; null or absent: trying again is useless"))
PASSWORD: Final = text(*PASSWORD_LENGTH)
EMAIL: Final = text(3, 254)

SLUG: Final = {"type": "string", "pattern": f"^{definitions.SLUG.pattern}$"}
AT: Final = listed(whole(-ID_MAX, ID_MAX), 2, 2) | {
    "description": "on boards where time decides between equal scores: the smaller stands higher"
}
METADATA: Final = {
    "type": ["object", "null"],
    "description": f"the counting submission's; at most {METADATA_BYTES} bytes as JSON",
}
DESCRIPTION: Final = {
    "leaderboard": shape(
        "How its boards are ordered, ranked and written; of `default` only where the client asked to `describe`.",
        {
            "slug": SLUG, "title": text(), "order": {"enum": list(ORDERS)}, "ties": {"enum": list(TIES)},
            "ranks": {"enum": list(RANKS)},
            "format": shape(
                "", {"kind": {"enum": ["integer", "decimal", "duration"]}},
                {"places": whole(0), "unit": {"enum": ["s", "ms"]}},
            ),
        },
    ),
    "window": shape(
        "Which time it counts.", {"kind": {"enum": list(KINDS)}, "starts": nullable(MOMENT), "ends": nullable(MOMENT)}
    ),
}  # fmt: skip

_SUBMISSION_OPTIONAL: Final = {
    "leaderboard": nullable(SLUG | {"description": "left out: `default`"}),
    "score_added": whole(-ID_MAX, ID_MAX, "what is added, where scores are summed"),
    "score": whole(-ID_MAX, ID_MAX, "what was reached, where the best or the last counts; in the smallest unit"),
    "metadata": METADATA,
    "board": nullable(BOARD | {"description": "it counts in this window or not at all"}),
    "with": {"description": "`all`: the outcome names every leaderboard's scores"},
    "reason": REASON,
    "user_id": nullable(USER_ID | {"description": "whose score; left out: the token's own user"}),
    "created_at": {"type": ["string", "null"], "format": "date-time", "description": "with its zone; `admin` only"},
}
_ENTRY: Final = {"user_id": USER_ID, "username": USERNAME, "score": SCORE}
_ENTRY_OPTIONAL: Final = {"at": AT, "metadata": METADATA}


def _submission(schema: Schema) -> Schema:
    """A submission to any leaderboard; `default` adds up whole numbers of 32 bits."""
    published = {"properties": {"leaderboard": {"enum": [definitions.DEFAULT_SLUG, None]}}}
    return schema | {"if": published, "then": {"required": ["score_added"], "properties": {"score_added": SCORE_ADDED}}}


def _accepted(schema: Schema) -> Schema:
    """An outcome of any leaderboard; of `default` it has the totals."""
    return schema | {"if": {"not": {"required": ["leaderboard"]}}, "then": {"required": ["total_score", "week_score"]}}


def message(
    kind: str, about: str, required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None
) -> Schema:
    """A message of the wire: a shape that names its type."""
    return shape(about, {"type": constant(kind), **required}, optional)


# Messages --------------------------------------------------------------------------------------------------------

FROM_CLIENT: Final[dict[str, Schema]] = {
    "subscribe": message(
        "subscribe", "Follow a board, from `since` on where you still hold that state.", {"board": BOARD},
        {"since": {"type": ["object", "null"], "required": ["epoch", "version"],
                   "properties": {"board": BOARD, "epoch": {"type": "string"}, "version": whole(0, ID_MAX)}},
         "describe": {"description": "true: say which leaderboard and window it is, also of `default`"}},
    ),
    "unsubscribe": message("unsubscribe", "Follow it no more.", {"board": BOARD}),
    "auth": message("auth", "Say who you are; also at the handshake.", {"token": text()}),
    "submit": _submission(
        message("submit", "Hand in a score.", {"submission_id": SUBMISSION_ID}, _SUBMISSION_OPTIONAL)
    ),
    "watch": message("watch", "Follow one user's rank, wherever it is.", {"board": BOARD, "user_id": USER_ID}),
    "unwatch": message("unwatch", "Follow it no more.", {"board": BOARD, "user_id": USER_ID}),
    "ping": message("ping", "Is anybody there?", {}),
}  # fmt: skip

FROM_SERVER: Final[dict[str, Schema]] = {
    "hello": message("hello", "The first message.", {"protocol": constant(PROTOCOL), "now": MOMENT}),
    "subscribed": message(
        "subscribed", "Which board the name stands for; `resumed`: what you hold is where it goes on.",
        {"board": BOARD, "as": BOARD, "resumed": {"type": "boolean"}}, DESCRIPTION,
    ),
    "unsubscribed": message("unsubscribed", "It is over.", {"board": BOARD, "as": BOARD}),
    "snapshot": message(
        "snapshot", "A board in full, in order.",
        {"board": BOARD, "epoch": EPOCH, "version": VERSION,
         "entries": listed(shape("", _ENTRY, _ENTRY_OPTIONAL), 0, TOP)},
    ),
    "diff": message(
        "diff", "From version `from`, which you hold, to `version`. Apply by id, sort by the leaderboard's order; that "
        "of `default` is the score and then the id as text, both descending.",
        {"board": BOARD, "epoch": EPOCH, "from": VERSION, "version": VERSION,
         "upsert": listed(shape("`username` only where you cannot know it", {"user_id": USER_ID, "score": SCORE},
                                {"username": USERNAME, **_ENTRY_OPTIONAL}), 0, TOP),
         "remove": listed(USER_ID, 0, TOP)},
    ),
    "accepted": _accepted(message(
        "accepted", "Committed. Scores are as they are now.",
        {"submission_id": SUBMISSION_ID, "user_id": USER_ID, "duplicate": {"type": "boolean"}},
        {"total_score": SCORE, "week_score": SCORE, "leaderboard": SLUG,
         "scores": {"type": "object", "additionalProperties": SCORE, "description": "by board"},
         "improved": {"type": ["boolean", "null"], "description": "whether this submission is a counting one now"},
         "live": constant(False) | {"description": "boards will show it later: the store is away"}},
    )),
    "rejected": message(
        "rejected", "It changed nothing.",
        {"submission_id": nullable(SUBMISSION_ID), "code": CODE, "message": text(), "retry_after_ms": WAIT},
    ),
    "rank": message(
        "rank", "A watched user's standing; nulls while they are not on the board.",
        {"board": BOARD, "user_id": USER_ID, "rank": nullable(whole(1)), "score": nullable(SCORE),
         "players": whole(0), "to_next": nullable(whole(0))},
    ),
    "rollover": message(
        "rollover", "The alias stands for another window, or for none until the next season begins.",
        {"as": BOARD, "from": BOARD, "to": nullable(BOARD)},
    ),
    "status": message(
        "status", "Whether boards move; false: what you hold may be old.", {"live": {"type": "boolean"}},
        {"board": BOARD | {"description": "the one that is meant; without it those of `default` and of leaderboards "
                                          "`of` it are"}},
    ),
    "reconnect": message(
        "reconnect", "Come back on a new connection at a random moment within this time: this server leaves.",
        {"after_ms": whole(0)},
    ),
    "closing": message(
        "closing", "The last message of a stream of events: what a socket's close frame says.",
        {"code": whole(1000, 4999), "reason": {"type": "string"}},
    ),
    "authenticated": message("authenticated", "Who you are.", {"user_id": nullable(USER_ID), "expires_at": MOMENT}),
    "unwatched": message("unwatched", "It is over.", {"board": BOARD, "user_id": USER_ID}),
    "error": message(
        "error", "Something could not be done.", {"code": CODE, "message": text()},
        {"board": BOARD, "retry_after_ms": WAIT},
    ),
    "pong": message("pong", "The answer to ping.", {"now": MOMENT}),
}  # fmt: skip


# HTTP ------------------------------------------------------------------------------------------------------------


def _of(kind: type) -> Schema:
    """The schema of what a dataclass is written as."""
    schema = TypeAdapter(kind).json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    return schema


def _definitions(kind: type) -> dict[str, Schema]:
    found: dict[str, Schema] = TypeAdapter(kind).json_schema(ref_template="#/components/schemas/{model}")["$defs"]
    return found


_USER: Final = {"user_id": USER_ID, "username": USERNAME}

_PROBLEMS: Final = listed(
    shape("Of `bad_definition`, everything that is wrong at once.", {"field": text(), "wrong": text(), "do": text()})
)

DEFINITION: Final = shape(
    "What a leaderboard ranks, by which rule, in which windows. What is left out is as published.",
    {},
    {
        "title": text(1, TITLE_LENGTH),
        "of": SLUG | {"description": "ranks that one's submissions; then without bounds, submit and metadata"},
        "operator": {"enum": list(OPERATORS)},
        "order": {"enum": list(ORDERS), "description": "which score is better"},
        "windows": listed({"enum": list(KINDS)}, 1),
        "zone": text(1, about="a name of PostgreSQL's list, as Europe/Berlin"),
        "week_starts": {"enum": list(WEEKDAYS)},
        "ties": {"enum": list(TIES), "description": "who stands higher with the same score"},
        "ranks": {"enum": list(RANKS)},
        "format": shape(
            "How pages write a score.", {"kind": {"enum": ["integer", "decimal", "duration"]}},
            {"places": whole(0, PLACES), "unit": {"enum": ["s", "ms"]}},
        ),
        "bounds": shape("Of one submission.", {}, {"min": SCORE, "max": SCORE}),
        "submit": {"enum": list(SUBMITTERS)},
        "visible": {"enum": list(VISIBLE)},
        "metadata": {"type": "boolean", "description": "rows show the counting submission's metadata"},
        "seasons": listed(shape("Half-open.", {"id": text(1, 32), "starts": MOMENT, "ends": MOMENT})),
    },
)

LEADERBOARD: Final = shape(
    "A leaderboard. While it is building it shows what it showed before.",
    {
        "slug": SLUG, "definition": named("Definition"), "state": {"enum": ["live", "building"]},
        "progress": {"type": "number", "minimum": 0, "maximum": 1}, "boards": listed(BOARD),
    },
    {"failure": text(about="why the last standings could not be made")},
)

SHAPES: Final[dict[str, Schema]] = {
    **_definitions(Page),
    "Page": _of(Page),
    "UserPage": _of(UserPage),
    "Submission": _submission(shape("A score.", {"submission_id": SUBMISSION_ID}, _SUBMISSION_OPTIONAL)),
    "Accepted": FROM_SERVER["accepted"],
    "Rejected": FROM_SERVER["rejected"],
    "Outcome": {"oneOf": [named("Accepted"), named("Rejected")]},
    "Outcomes": shape("One for each submission, in order.", {"results": listed(named("Outcome"))}),
    "Error": shape(
        "What went wrong.",
        {"error": shape("", {"code": CODE, "message": text()}, {"retry_after_ms": WAIT, "problems": _PROBLEMS})},
    ),
    "Boards": shape(
        "What is live, then what is closed, newest first.",
        {
            "boards": listed(
                shape(
                    "",
                    {"board": BOARD, "alias": {"type": ["string", "null"]}, "closed": {"type": "boolean"},
                     "players": whole(0), "starts": nullable(MOMENT), "ends": nullable(MOMENT)},
                )
            ),
            "offset": whole(0), "limit": whole(1), "now": MOMENT,
        },
        {"closed_weeks": whole(0, about="of `default`: how many there are"),
         "closed_boards": whole(0, about="of another leaderboard: how many there are")},
    ),
    "Definition": DEFINITION,
    "Leaderboard": LEADERBOARD,
    "Leaderboards": shape("In the order in which they were defined.", {"leaderboards": listed(named("Leaderboard"))}),
    "Registration": shape("A new user.", {"email": EMAIL, "password": PASSWORD, "username": USERNAME}),
    "User": shape("A user.", _USER),
    "Credentials": shape("Who signs in.", {"email": EMAIL, "password": PASSWORD}),
    "Session": shape("A token for one's own scores.", {"token": text(), "expires_at": MOMENT, "user_id": USER_ID}),
    "Rename": shape("A new name.", {"username": USERNAME}),
    "Me": shape(
        "Oneself.",
        {**_USER, "email": {"type": ["string", "null"]}, "created_at": MOMENT, "banned": {"type": "boolean"}},
    ),
    "Ban": shape(
        "Why, and from where: from every board without a leaderboard.",
        {},
        {"reason": {"type": ["string", "null"]}, "leaderboard": {"type": ["string", "null"]}},
    ),
    "Banned": shape(
        "As it is now.", {"user_id": USER_ID, "banned": {"type": "boolean"}}, {"leaderboard": {"type": "string"}}
    ),
    "Transactions": shape(
        "Newest first.",
        {"user_id": USER_ID,
         "transactions": listed(
             shape(
                 "",
                 {"id": whole(1), "user_id": USER_ID, "submission_id": SUBMISSION_ID, "reason": REASON,
                  "created_at": MOMENT},
                 {"score_added": nullable(SCORE), "score": nullable(SCORE), "leaderboard": SLUG},
             )
         )},
    ),
    "Alive": shape("The process answers.", {"status": constant("alive")}),
    "Ready": shape(
        "Whether it should get traffic; `why` not, by part. What the stores' difference was at the last look.",
        {"ready": {"type": "boolean"}, "why": {"type": "object", "additionalProperties": {"type": "string"}},
         "outbox_age_s": {"type": "number", "minimum": 0},
         "read_lag_s": {"type": "object", "additionalProperties": nullable({"type": "number", "minimum": 0})},
         "drift": nullable(whole(0, about="rows; null where no worker is in this process"))},
    ),
}  # fmt: skip


INFO: Final = {
    "title": "realtime",
    "version": __version__,
    "description": "Live leaderboards, pushed. Readers ignore fields and types they do not know.",
    "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
}
