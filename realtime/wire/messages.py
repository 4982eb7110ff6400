"""Wire protocol v1: JSON text messages over a WebSocket.

Owns parsing of what clients send and encoding of what they get. Must never do I/O, read a clock, or raise anything but
RealtimeError on any input. Assumes that the UTF-8 of a message was checked already (RFC 6455, section 8.1).

Encoders give payload bytes; `frames.Frame` makes them ready for the socket once for all receivers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson

from realtime.boards.board import Board, no_such_board
from realtime.boards.definitions import DEFAULT_SLUG
from realtime.boards.standings import Diff, Snapshot, Upsert
from realtime.boards.submissions import Accepted, Outcome, Rejected
from realtime.errors import RealtimeError
from realtime.validation import ID_MAX, whole_number

PROTOCOL: Final = 1
"""The version that `hello` announces."""

BOARD_LENGTH: Final = 80
"""No board's id or alias is longer, or more than ASCII."""


@dataclass(frozen=True, slots=True)
class Since:
    """The state a client still holds."""

    epoch: str
    version: int
    board: str | None = None
    """The board it is of; None where that is not said, as by clients that know their boards by id alone."""


@dataclass(frozen=True, slots=True)
class Subscribe:
    """A client wants to follow a board."""

    board: str
    since: Since | None
    describe: bool = False
    """Whether `subscribed` says what leaderboard and window it is, also of the published ones."""


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """A client no longer wants to follow a board."""

    board: str


@dataclass(frozen=True, slots=True)
class Auth:
    """A client says who it is."""

    token: str


@dataclass(frozen=True, slots=True)
class Submit:
    """A client hands in a score. Who it is decides what the fields may mean (`submissions.parse_submission`)."""

    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Watch:
    """A client wants to hear of a user's rank on a board."""

    board: str
    user_id: int


@dataclass(frozen=True, slots=True)
class Unwatch:
    """A client no longer wants to hear of a user's rank on a board."""

    board: str
    user_id: int


@dataclass(frozen=True, slots=True)
class Ping:
    """A client asks whether anybody is there."""


Message = Subscribe | Unsubscribe | Auth | Submit | Watch | Unwatch | Ping


def loads(raw: bytes | str, hint: str = "Send JSON in UTF-8.") -> Any:
    """JSON as Python values. Raises RealtimeError `bad_message`.

    A lone surrogate makes strict parsers refuse the whole text; read leniently, only the field that holds it is
    refused, and the other rows of a list live on.
    """
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        try:
            return json.loads(raw, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            raise RealtimeError("bad_message", f"This is not JSON. {hint}") from None


def _refuse_constant(name: str) -> Any:
    raise ValueError(name)


def parse(raw: bytes) -> Message:
    """The message in a text frame's payload.

    Raises RealtimeError `bad_message`, `unknown_type`, `unknown_board`, `out_of_range`, with the board where that could
    be read; unknown fields are ignored.
    """
    fields = loads(raw, "Send one JSON object a message.")
    if type(fields) is not dict:
        raise RealtimeError("bad_message", "A message must be a JSON object.")
    kind = fields.get("type")
    if kind == "submit":
        return Submit(fields)
    if type(kind) is not str:
        raise RealtimeError("bad_message", 'A message needs a text field "type".')
    read = _READERS.get(kind)
    if read is None:
        raise RealtimeError("unknown_type", f"Unknown type. Known are: submit, {', '.join(_READERS)}.")
    return read(fields)


def _board(fields: Mapping[str, Any]) -> str:
    board = fields.get("board")
    if type(board) is not str:
        raise RealtimeError("bad_message", 'The message needs a text field "board".')
    if len(board) > BOARD_LENGTH or not board.isascii():
        # Refused here because answers name the board: what cannot be said again must not come in.
        raise no_such_board()
    return board


def _user_id(fields: Mapping[str, Any]) -> int:
    return whole_number(fields.get("user_id"), "user_id", 1, ID_MAX)


def _on_board(fields: Mapping[str, Any], read: Callable[[str], Message]) -> Message:
    """A message about a board; what else is wrong with it is said of that board."""
    board = _board(fields)
    try:
        return read(board)
    except RealtimeError as error:
        error.board = board
        raise


def _since(value: Any) -> Since | None:
    if value is None:
        return None
    epoch, version = (value.get("epoch"), value.get("version")) if type(value) is dict else (None, None)
    if type(epoch) is not str or version is None:
        raise RealtimeError("bad_message", 'since must be {"epoch":text,"version":number}.')
    board = value.get("board")
    if not (board is None or type(board) is str):
        raise RealtimeError("bad_message", "since.board must be the id of the board it is of.")
    return Since(epoch, whole_number(version, "since.version", 0, ID_MAX), board)


def _subscribe(fields: Mapping[str, Any], board: str) -> Subscribe:
    return Subscribe(board, _since(fields.get("since")), fields.get("describe") is True)


def _auth(fields: Mapping[str, Any]) -> Auth:
    token = fields.get("token")
    if type(token) is not str:
        raise RealtimeError("bad_message", 'auth needs a text field "token".')
    return Auth(token)


_READERS: Final[dict[str, Callable[[Mapping[str, Any]], Message]]] = {
    "subscribe": lambda fields: _on_board(fields, lambda board: _subscribe(fields, board)),
    "unsubscribe": lambda fields: Unsubscribe(_board(fields)),
    "auth": _auth,
    "watch": lambda fields: _on_board(fields, lambda board: Watch(board, _user_id(fields))),
    "unwatch": lambda fields: _on_board(fields, lambda board: Unwatch(board, _user_id(fields))),
    "ping": lambda fields: Ping(),
}


def moment(value: datetime) -> str:
    """A moment (aware, UTC) as the wire shows it: ISO 8601, milliseconds, Z."""
    return value.strftime("%Y-%m-%dT%H:%M:%S.") + f"{value.microsecond // 1000:03}Z"


def exact_moment(value: datetime) -> str:
    """The same with all that PostgreSQL keeps, its microseconds: what is read so can be handed in again."""
    return value.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def hello(now: datetime) -> bytes:
    """The first message of a connection."""
    return orjson.dumps({"type": "hello", "protocol": PROTOCOL, "now": moment(now)})


def pong(now: datetime) -> bytes:
    """The answer to a ping."""
    return orjson.dumps({"type": "pong", "now": moment(now)})


def subscribed(board: Board, alias: str, resumed: bool, *, describe: bool = False) -> bytes:
    """Which board `alias` stands for now, and whether what the client holds is current; of all but the published ones,
    and with `describe` of those too, what leaderboard and window it is."""
    fields: dict[str, Any] = {"type": "subscribed", "board": board.id, "as": alias, "resumed": resumed}
    if describe or board.slug != DEFAULT_SLUG:
        fields |= description(board)
    return orjson.dumps(fields)


def description(board: Board) -> dict[str, Any]:
    """What a client needs to show a board: how it is ordered, ranked and written, and which time it counts."""
    definition, window = board.leaderboard.definition, board.window
    return {
        "leaderboard": {
            "slug": board.leaderboard.slug,
            "title": definition.title,
            "order": definition.order,
            "ties": definition.ties,
            "ranks": definition.ranks,
            "format": definition.format.as_json(),
        },
        "window": {
            "kind": window.kind,
            "starts": None if window.starts is None else moment(window.starts),
            "ends": None if window.ends is None else moment(window.ends),
        },
    }


def unsubscribed(board_id: str, alias: str) -> bytes:
    return orjson.dumps({"type": "unsubscribed", "board": board_id, "as": alias})


def snapshot(value: Snapshot) -> bytes:
    """A board in full."""
    names = value.names
    entries: list[dict[str, Any]] = [
        {"user_id": user_id, "username": names[user_id], "score": score} for user_id, score in value.scores.items()
    ]
    if value.at:
        for entry in entries:
            entry["at"] = value.at[entry["user_id"]]
    if value.metadata is not None:
        for entry in entries:
            entry["metadata"] = _json(value.metadata[entry["user_id"]])
    return orjson.dumps(
        {
            "type": "snapshot",
            "board": value.board,
            "epoch": value.epoch,
            "version": value.version,
            "entries": entries,
        }
    )


def _json(text: str | None) -> Any:
    """JSON that is written already, as a part of other JSON."""
    return None if text is None else orjson.Fragment(text)


def diff(value: Diff) -> bytes:
    """What changed on a board; a username only where the client cannot know it."""
    return orjson.dumps(
        {
            "type": "diff",
            "board": value.board,
            "epoch": value.epoch,
            "from": value.from_version,
            "version": value.version,
            "upsert": [_line(line, value.shows_metadata) for line in value.upsert],
            "remove": value.remove,
        }
    )


def _line(line: Upsert, shows_metadata: bool) -> dict[str, Any]:
    user_id, username, score, at, metadata = line
    fields: dict[str, Any] = {"user_id": user_id, "score": score}
    if username is not None:
        fields = {"user_id": user_id, "username": username, "score": score}
    if at is not None:
        fields["at"] = at
    if shows_metadata:
        fields["metadata"] = _json(metadata)
    return fields


def outcome_fields(value: Outcome, live: bool) -> dict[str, Any]:
    """An outcome as a JSON object, the same over socket and HTTP. `live` False: boards will show it later."""
    if isinstance(value, Accepted):
        fields: dict[str, Any]
        if value.leaderboard == DEFAULT_SLUG:
            fields = {
                "type": "accepted",
                "submission_id": value.submission_id,
                "user_id": value.user_id,
                "total_score": value.total_score,
                "week_score": value.week_score,
                "duplicate": value.duplicate,
            }
        else:
            fields = {
                "type": "accepted",
                "submission_id": value.submission_id,
                "user_id": value.user_id,
                "leaderboard": value.leaderboard,
                "duplicate": value.duplicate,
            }
        if value.scores is not None:
            fields["scores"] = value.scores
            fields["improved"] = value.improved
        if not live:
            fields["live"] = False
        return fields
    return {
        "type": "rejected",
        "submission_id": value.submission_id,
        "code": value.code,
        "message": value.message,
        "retry_after_ms": value.retry_after_ms,
    }


def outcome(value: Outcome, live: bool) -> bytes:
    """The answer to `submit`."""
    return orjson.dumps(outcome_fields(value, live))


def rejected(submission_id: str | None, error: RealtimeError) -> bytes:
    """The answer to a `submit` that never reached the queue."""
    return outcome(Rejected.of(submission_id, error), live=True)


def error(problem: RealtimeError, board: str | None = None) -> bytes:
    """The answer to anything else that cannot be done."""
    fields: dict[str, Any] = {"type": "error", "code": problem.code, "message": problem.message}
    if board is not None:
        fields["board"] = board
    if problem.retry_after_ms is not None:
        fields["retry_after_ms"] = problem.retry_after_ms
    return orjson.dumps(fields)


def authenticated(user_id: int | None, expires_at: datetime) -> bytes:
    return orjson.dumps({"type": "authenticated", "user_id": user_id, "expires_at": moment(expires_at)})


def status(live: bool, board_id: str | None = None) -> bytes:
    """Whether boards move: False while the store is away and what is shown may be old. `board_id` names the one that is
    meant; without it those of `default`, and of leaderboards `of` it, are."""
    fields: dict[str, Any] = {"type": "status", "live": live}
    if board_id is not None:
        fields["board"] = board_id
    return orjson.dumps(fields)


def rollover(alias: str, before: Board, after: Board | None) -> bytes:
    """What an alias stands for from now on; None for nothing, as between two seasons."""
    return orjson.dumps({"type": "rollover", "as": alias, "from": before.id, "to": after.id if after else None})


def reconnect(after_ms: int) -> bytes:
    """Please come back after this long: the server is about to leave."""
    return orjson.dumps({"type": "reconnect", "after_ms": after_ms})


def closing(code: int, reason: str) -> bytes:
    """The last message of a stream of events: what a socket's close frame says."""
    return orjson.dumps({"type": "closing", "code": code, "reason": reason})


def rank(board: Board, user_id: int, rank: int | None, score: int | None, players: int, to_next: int | None) -> bytes:
    """A user's own standing; `rank` and `score` are None while they are not on the board, `to_next` for the first."""
    return orjson.dumps(
        {
            "type": "rank",
            "board": board.id,
            "user_id": user_id,
            "rank": rank,
            "score": score,
            "players": players,
            "to_next": to_next,
        }
    )


def unwatched(board: Board, user_id: int) -> bytes:
    return orjson.dumps({"type": "unwatched", "board": board.id, "user_id": user_id})
