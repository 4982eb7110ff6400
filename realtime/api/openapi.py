"""OpenAPI 3.1: what this server understands over HTTP, for programs.

Owns one table of operations. Must never describe a shape by itself: `schemas` does. Assumes that a test compares the
table with the routes, and the schemas with the code that validates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from realtime.api.requests import WAIT_SECONDS
from realtime.api.schemas import BOARD, INFO, SHAPES, SLUG, USER_ID, Schema, listed, named, text, whole
from realtime.boards.definitions import DEFAULT_SLUG
from realtime.errors import STATUS
from realtime.validation import ID_MAX

_AT: Final = {"board": BOARD, "user_id": USER_ID, "slug": SLUG}
"""What a part of a path may be."""

_LIMIT: Final = whole(1, 1_000) | {"default": 100}
_READING: Final = ("unauthorized", "expired", "forbidden")
"""Errors that a reader of boards may get where boards are private."""

_EVENTS: Final = "text/event-stream"
_LINE: Final = "text/plain"

POSITION: Final = text() | {"description": "epoch:version, or epoch:version:board; several with commas in between."}
WATCHED: Final = text() | {"description": "A user's id, or id@board for one of the boards alone."}

_OFFSET: Final = whole(0, ID_MAX) | {"default": 0}


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path. `errors` are codes beyond those that every operation may answer with."""

    method: str
    path: str
    about: str
    answer: str | None  # a shape's name, or a media type; None: nothing, or no JSON
    status: int = 200
    body: Schema | None = None
    query: tuple[tuple[str, Schema], ...] = ()
    headers: tuple[tuple[str, Schema], ...] = ()
    unchanged: bool = False  # whether it may say 304
    scope: str | None = None  # what the token must allow; None: no token is needed
    errors: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Its id in the document."""
        parts = [part.strip("{}") for part in self.path.split("/") if part]
        return "_".join([self.method, *parts]).replace(".", "_")


OPERATIONS: Final = (
    Operation(
        "get", "/boards", "Which boards a leaderboard has.", "Boards",
        query=(("leaderboard", SLUG | {"default": DEFAULT_SLUG}), ("limit", _LIMIT), ("offset", _OFFSET)),
        errors=("unknown_leaderboard", *_READING),
    ),
    Operation(
        "get", "/boards/{board}", "A stretch of a board; with wait, once it is no longer where since says.", "Page",
        query=(("limit", _LIMIT), ("offset", _OFFSET), ("wait", whole(0, WAIT_SECONDS) | {"default": 0}),
               ("since", POSITION)),
        headers=(("If-None-Match", text()),), unchanged=True, errors=("unknown_board", "too_many", *_READING),
    ),
    Operation(
        "get", "/boards/{board}/users/{user_id}", "One user's rank, and who is around.", "UserPage",
        query=(("neighbours", whole(0, 50) | {"default": 5}),), errors=("unknown_board", "unknown_user", *_READING),
    ),
    Operation(
        "get", "/boards/{board}/events", "Follow a board: a stream of events, whose data are a socket's messages.",
        _EVENTS, query=(("since", POSITION), ("watch", listed(WATCHED)), ("token", text())),
        headers=(("Last-Event-ID", POSITION),), errors=("unknown_board", "too_many", *_READING),
    ),
    Operation(
        "get", "/events", "Follow several boards on one stream.", _EVENTS, query=(
            ("board", listed(BOARD, 1)), ("since", POSITION), ("watch", listed(WATCHED)), ("token", text()),
        ), headers=(("Last-Event-ID", POSITION),), errors=("unknown_board", "too_many", *_READING),
    ),
    Operation(
        "get", "/chat", "Where a player stands, as one line for a chat bot.", _LINE, query=(
            ("user", text(0, about="a name, or a number; left out: who leads")), ("board", BOARD), ("token", text()),
        ), errors=_READING,
    ),
    Operation("get", "/leaderboards", "Which leaderboards there are.", "Leaderboards", errors=_READING),
    Operation("get", "/leaderboards/{slug}", "What a leaderboard is, and how far its standings are.", "Leaderboard",
              errors=("unknown_leaderboard", *_READING)),
    Operation("put", "/leaderboards/{slug}", "Define it, or change it; the same again changes nothing.", "Leaderboard",
              body=named("Definition"), scope="admin", errors=("bad_definition", "forbidden")),
    Operation("delete", "/leaderboards/{slug}", "Take its boards away; what was sent is kept.", None, 204,
              scope="admin", errors=("unknown_leaderboard", "conflict", "forbidden")),
    Operation(
        "post", "/scores", "Hand in one score, or up to 1,000.", "Outcome | Outcomes",
        body={"oneOf": [named("Submission"), listed(named("Submission"), 1, 1_000)]}, scope="submit",
        errors=(
            "unknown_user", "submission_conflict", "overloaded", "too_large", "forbidden", "unknown_leaderboard",
            "wrong_board", "window_over", "window_not_begun", "bad_metadata",
        ),
    ),
    Operation(
        "post", "/users", "Register.", "User", 201, named("Registration"), errors=("conflict", "forbidden", "too_many")
    ),
    Operation("post", "/sessions", "Sign in.", "Session", 200, named("Credentials"), errors=("too_many",)),
    Operation("get", "/users/me", "Oneself.", "Me", scope="submit", errors=("forbidden", "unknown_user")),
    Operation("patch", "/users/me", "Change one's name.", "Me", body=named("Rename"), scope="submit",
              errors=("unknown_user",)),
    Operation("delete", "/users/me", "Leave for good: name, address and rows on boards go.", None, 204, scope="submit",
              errors=("unknown_user",)),
    Operation("post", "/users/{user_id}/ban", "Take a player off every board, or off a leaderboard's.", "Banned",
              body=named("Ban"), scope="admin", errors=("forbidden", "unknown_user", "unknown_leaderboard")),
    Operation("delete", "/users/{user_id}/ban", "Bring a player back.", "Banned", body=named("Ban"), scope="admin",
              errors=("forbidden", "unknown_user", "unknown_leaderboard")),
    Operation(
        "get", "/users/{user_id}/transactions", "A user's log, newest first.", "Transactions", scope="submit",
        query=(("leaderboard", SLUG | {"default": DEFAULT_SLUG}), ("limit", _LIMIT), ("before", whole(1, ID_MAX))),
        errors=("forbidden", "unknown_user", "unknown_leaderboard"),
    ),
    Operation("get", "/healthz", "Whether the process is alive.", "Alive"),
    Operation("get", "/readyz", "Whether it should get traffic; 503 with the reasons where not.", "Ready"),
    Operation("get", "/metrics", "For Prometheus; of all processes on this port.", None),
    Operation("get", "/openapi.json", "This document.", None),
    Operation("get", "/asyncapi.json", "The socket's messages.", None),
)  # fmt: skip


def _answer(operation: Operation) -> dict[str, Any]:
    if operation.answer is None:
        return {"description": operation.about}
    if operation.answer in (_EVENTS, _LINE):
        return {"description": operation.about, "content": {operation.answer: {"schema": text()}}}
    names = operation.answer.split(" | ")
    schema = named(names[0]) if len(names) == 1 else {"oneOf": [named(name) for name in names]}
    return {"description": operation.about, "content": {"application/json": {"schema": schema}}}


def _errors(operation: Operation) -> dict[str, Any]:
    codes = {"unavailable", *operation.errors}
    if operation.body or operation.query or "{" in operation.path:
        codes |= {"bad_message", "out_of_range"}
    if operation.body:
        codes |= {"too_large"}
    if operation.method != "get":
        codes |= {"forbidden"}  # to pages of other origins, whoever they speak for
    if operation.scope or operation.path == "/sessions":
        codes |= {"unauthorized"}
    if operation.scope:
        codes |= {"expired"}
    by_status: dict[str, list[str]] = {}
    for code in sorted(codes):
        by_status.setdefault(str(STATUS[code]), []).append(code)
    content = {"application/json": {"schema": named("Error")}}
    return {status: {"description": ", ".join(names), "content": content} for status, names in by_status.items()}


def _operation(operation: Operation) -> dict[str, Any]:
    in_path = [part.strip("{}") for part in operation.path.split("/") if part.startswith("{")]
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.about,
        "parameters": [
            *({"name": name, "in": "path", "required": True, "schema": _AT[name]} for name in in_path),
            *({"name": name, "in": "query", "schema": schema} for name, schema in operation.query),
            *({"name": name, "in": "header", "schema": schema} for name, schema in operation.headers),
        ],
        "responses": {str(operation.status): _answer(operation), **_errors(operation)},
    }
    if operation.unchanged:
        described["responses"]["304"] = {"description": "You have it already, or it has not moved."}
    if operation.body:
        described["requestBody"] = {"required": True, "content": {"application/json": {"schema": operation.body}}}
    if operation.scope:
        described["security"] = [{"token": [operation.scope]}]
    return described


def openapi() -> dict[str, Any]:
    """The OpenAPI 3.1 document."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": INFO,
        "servers": [{"url": "."}],
        "paths": paths,
        "components": {
            "schemas": SHAPES,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
    }


