"""The documents against the code: every route, every message, and what validation takes and refuses."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.routing import Route

from realtime.api import documents, schemas, sockets
from realtime.api import routes as endpoints
from realtime.api.asyncapi import CLOSE_CODES, asyncapi
from realtime.api.openapi import OPERATIONS, openapi
from realtime.api.schemas import FROM_CLIENT, FROM_SERVER, SHAPES
from realtime.boards.board import week_of
from realtime.boards.standings import Diff, Order, Snapshot, Upsert
from realtime.boards.submissions import Accepted, parse_submission
from realtime.errors import STATUS, RealtimeError
from realtime.settings import Settings
from realtime.validation import INT_MAX
from realtime.wire import close_codes, messages
from tests.support.servers import RunningServer

NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)
WEEK = week_of(date(2026, 11, 23))


def valid(value: Any, schema: dict[str, Any]) -> bool:
    return bool(jsonschema.Draft202012Validator({**schema, "components": {"schemas": SHAPES}}).is_valid(value))


def test_every_route_is_in_the_document_and_the_document_has_no_other() -> None:
    routes = [*endpoints.routes(SimpleNamespace(settings=Settings.load({})), None), *documents.routes()]  # type: ignore[arg-type]
    there = {
        (route.path, method.lower())
        for route in routes
        if isinstance(route, Route) and route.include_in_schema
        for method in (route.methods or ())
        if method != "HEAD"
    }
    assert {(operation.path, operation.method) for operation in OPERATIONS} == there
    assert asyncapi()["channels"]["socket"]["address"] == sockets.PATH


def test_every_message_a_client_may_send_is_in_the_document() -> None:
    assert set(FROM_CLIENT) == {"submit", *messages._READERS}


SAID = [
    messages.hello(NOW),
    messages.subscribed(WEEK, "current_week", True),
    messages.subscribed(WEEK, "current_week", True, describe=True),
    messages.unsubscribed(WEEK.id, "current_week"),
    messages.snapshot(Snapshot("all_time", "x-1", 3, {7: 5, 1: 5}, {7: "a", 1: "b"})),
    messages.snapshot(Snapshot("x:all_time", "x-1", 3, {7: 5}, {7: "a"}, Order(True, "first"), {7: (9, 2)}, {7: "{}"})),
    messages.diff(Diff("all_time", "x-1", 3, 4, [Upsert(7, None, 6), Upsert(2, "new", 1)], [1])),
    messages.diff(Diff("x:all_time", "x-1", 3, 4, [Upsert(7, None, 6, (-9, -2), '{"car":"gt"}')], [], True)),
    messages.outcome(Accepted("s", 7, 100, 50, False), live=True),
    messages.outcome(Accepted("s", 7, 100, 50, True), live=False),
    messages.outcome(Accepted("s", 7, 0, 0, False, {"x:all_time": 9}, True, "x"), live=True),
    messages.rejected(None, RealtimeError("bad_message", "No.")),
    messages.rejected("s", RealtimeError("overloaded", "Later.", retry_after_ms=10)),
    messages.error(RealtimeError("unknown_board", "No."), "nowhere"),
    messages.error(RealtimeError("too_many", "Later.", retry_after_ms=10)),
    messages.authenticated(None, NOW),
    messages.status(False),
    messages.rollover("current_week", week_of(date(2026, 11, 16)), WEEK),
    messages.rollover("x:current_season", week_of(date(2026, 11, 16)), None),
    messages.reconnect(500),
    messages.closing(4408, "too slow"),
    messages.rank(WEEK, 7, 3, 100, 9, 12),
    messages.rank(WEEK, 7, None, None, 9, None),
    messages.unwatched(WEEK, 7),
    messages.pong(NOW),
]


@pytest.mark.parametrize("payload", SAID, ids=lambda payload: json.loads(payload)["type"])
def test_what_the_server_says_is_as_documented(payload: bytes) -> None:
    message = json.loads(payload)
    schema = FROM_SERVER[message["type"]]
    jsonschema.validate(message, schema)
    assert set(message) <= set(schema["properties"]), "a field that the document does not know"
    for name in schema["required"]:
        assert not valid({key: value for key, value in message.items() if key != name}, schema)


def test_every_message_of_the_server_is_tried_here() -> None:
    assert {json.loads(payload)["type"] for payload in SAID} == set(FROM_SERVER)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=70)
numbers = st.integers(-(2**33), 2**33) | st.sampled_from([INT_MAX, INT_MAX + 1, -(2**31), -(2**31) - 1, 2**53, 0, 1])
values = texts | numbers | st.none() | st.booleans() | st.floats(0.1, 0.9) | st.lists(st.none(), max_size=1)


@given(
    st.fixed_dictionaries(
        {},
        optional={"submission_id": texts | values, "score_added": numbers | values, "reason": texts | values,
                  "user_id": numbers | values, "extra": values},
    )
)  # fmt: skip
def test_the_schema_of_a_submission_takes_exactly_what_validation_takes(fields: dict[str, Any]) -> None:
    try:
        parse_submission(fields, own_user_id=1)
        taken = True
    except RealtimeError:
        taken = False
    assert valid(fields, SHAPES["Submission"]) == taken
    assert valid({"type": "submit", **fields}, FROM_CLIENT["submit"]) == taken


@given(st.sampled_from(sorted(messages._READERS)), st.dictionaries(
    st.sampled_from(["board", "user_id", "token", "since"]),
    values | st.just("all_time") | st.fixed_dictionaries({}, optional={"epoch": values, "version": values}),
))  # fmt: skip
def test_the_schemas_of_messages_take_exactly_what_parsing_takes(kind: str, fields: dict[str, Any]) -> None:
    message = {"type": kind, **fields}
    board = fields.get("board")
    if isinstance(board, str) and not (1 <= len(board) <= messages.BOARD_LENGTH and board.isascii()):
        return  # a name, but of no board: told apart later, by `unknown_board`
    try:
        messages.parse(json.dumps(message).encode())
        taken = True
    except RealtimeError:
        taken = False
    assert valid(message, FROM_CLIENT[kind]) == taken


def test_every_code_and_close_code_is_in_the_documents() -> None:
    assert set(schemas.CODE["enum"]) == set(STATUS)
    assert set(CLOSE_CODES) == set(close_codes.CloseCode)
    told = asyncapi()["channels"]["socket"]["description"]
    assert all(str(int(code)) in told for code in close_codes.CloseCode)


def test_every_reference_leads_somewhere() -> None:
    for document in (openapi(), asyncapi()):
        stack: list[Any] = [document]
        while stack:
            one = stack.pop()
            if isinstance(one, dict):
                if "$ref" in one:
                    found = document
                    for part in one["$ref"].removeprefix("#/").split("/"):
                        found = found[part]
                stack.extend(one.values())
            elif isinstance(one, list):
                stack.extend(one)


async def test_answers_of_the_real_server_are_as_documented(server: RunningServer, make_users: Any) -> None:
    (user,) = await make_users(1)
    paths = (await server.http.get("/openapi.json")).json()["paths"]
    assert (await server.http.get("/asyncapi.json")).json() == json.loads(json.dumps(asyncapi()))
    account = {"email": "a@example.com", "password": "long enough", "username": "anna"}
    mine, admin = server.bearer(user), server.bearer(None, "admin")
    score = {"submission_id": "s", "score_added": 5}
    asked: list[tuple[str, str, str, dict[str, Any]]] = [
        ("post", "/scores", "/scores", {"json": score, "headers": mine}),
        ("post", "/scores", "/scores", {"json": [score, {}], "headers": mine}),
        ("post", "/scores", "/scores", {"json": {}, "headers": mine}),
        ("post", "/scores", "/scores", {"json": score}),
        ("get", "/boards", "/boards", {}),
        ("get", "/boards/{board}", "/boards/all_time", {}),
        ("get", "/boards/{board}", "/boards/nowhere", {}),
        ("get", "/boards/{board}", "/boards/all_time?limit=0", {}),
        ("get", "/boards/{board}/users/{user_id}", f"/boards/all_time/users/{user}", {}),
        ("post", "/users", "/users", {"json": account}),
        ("post", "/users", "/users", {"json": account}),
        ("post", "/sessions", "/sessions", {"json": account}),
        ("post", "/sessions", "/sessions", {"json": {**account, "password": "other than that"}}),
        ("get", "/users/me", "/users/me", {"headers": mine}),
        ("patch", "/users/me", "/users/me", {"json": {"username": "berta"}, "headers": mine}),
        ("get", "/users/{user_id}/transactions", f"/users/{user}/transactions", {"headers": mine}),
        ("post", "/users/{user_id}/ban", f"/users/{user}/ban", {"json": {"reason": "x"}, "headers": admin}),
        ("post", "/users/{user_id}/ban", f"/users/{user}/ban", {"headers": mine}),
        ("delete", "/users/{user_id}/ban", f"/users/{user}/ban", {"headers": admin}),
        ("delete", "/users/me", "/users/me", {"headers": mine}),
        ("get", "/healthz", "/healthz", {}),
        ("get", "/readyz", "/readyz", {}),
    ]
    for method, path, address, options in asked:
        answer = await server.http.request(method, address, **options)
        documented = paths[path][method]["responses"]
        assert str(answer.status_code) in documented, f"{method} {address}: {answer.status_code} {answer.text}"
        content = documented[str(answer.status_code)].get("content")
        if content and answer.status_code != 204:
            schema = content["application/json"]["schema"]
            assert valid(answer.json(), schema), f"{method} {address}: {answer.text}"
        if answer.status_code >= 400:
            assert answer.json()["error"]["code"] in documented[str(answer.status_code)]["description"]
