"""Bad input: each is answered with its code and what to do, the connection lives on where it can, no store sees it."""

from __future__ import annotations

import json
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis
from websockets.exceptions import ConnectionClosed

from realtime.errors import STATUS
from realtime.validation import ID_MAX, INT_MAX, INT_MIN
from tests.support.clients import Client
from tests.support.databases import MakeUsers
from tests.support.servers import RunningServer

GOOD = {"submission_id": "good", "score_added": 5, "user_id": 1}


async def contents(sql: asyncpg.Connection, keys: Redis) -> tuple[Any, ...]:
    """All that the stores know of people and scores."""
    rows = [
        await sql.fetch(f"SELECT * FROM {table}")
        for table in ("users", "user_score_transactions", "user_total_scores", "user_weekly_scores", "outbox")
    ]
    known = [key for key in await keys.keys("*") if not key.startswith("leaderboard:limit:")]
    return rows, sorted(known)


@pytest.fixture
async def untouched(server: RunningServer, sql: asyncpg.Connection, keys: Redis, make_users: MakeUsers) -> Any:
    """One user, nothing else; checked again at the end."""
    assert await make_users(1) == [1]
    before = await contents(sql, keys)
    yield
    assert await contents(sql, keys) == before


@pytest.fixture
async def client(server: RunningServer, untouched: None) -> Client:
    """With every right there is: what is refused is refused for what it is."""
    client = await server.client(server.token(1, "submit:any", "admin"))
    await client.next()
    return client


async def lives_on(client: Client) -> None:
    assert (await client.ask("ping"))["type"] == "pong"


# Messages --------------------------------------------------------------------------------------------------------

MESSAGES = [
    ("nonsense", "bad_message", "JSON object"),
    ("", "bad_message", "JSON object"),
    ("[]", "bad_message", "JSON object"),
    ("null", "bad_message", "JSON object"),
    ('"subscribe"', "bad_message", "JSON object"),
    ("5", "bad_message", "JSON object"),
    ("NaN", "bad_message", "JSON object"),
    ('{"type":"ping"', "bad_message", "JSON object"),
    ('{"type":"ping"}{"type":"ping"}', "bad_message", "JSON object"),
    ("[" * 30_000, "bad_message", "JSON object"),
    ("{}", "bad_message", '"type"'),
    ('{"type":null}', "bad_message", '"type"'),
    ('{"type":["subscribe"]}', "bad_message", '"type"'),
    ('{"type":"dance"}', "unknown_type", "subscribe"),
    ('{"type":"\\ud800"}', "unknown_type", "subscribe"),
    ('{"type":"SUBSCRIBE","board":"all_time"}', "unknown_type", "subscribe"),
    ('{"type":"subscribe"}', "bad_message", '"board"'),
    ('{"type":"subscribe","board":null}', "bad_message", '"board"'),
    ('{"type":"subscribe","board":{"id":"all_time"}}', "bad_message", '"board"'),
    ('{"type":"subscribe","board":""}', "unknown_board", "all_time"),
    ('{"type":"subscribe","board":"nonsense"}', "unknown_board", "all_time"),
    ('{"type":"subscribe","board":"all_time\\u0000"}', "unknown_board", "all_time"),
    ('{"type":"subscribe","board":"\\ud800"}', "unknown_board", "all_time"),
    ('{"type":"subscribe","board":"Ω"}', "unknown_board", "all_time"),
    ('{"type":"subscribe","board":"' + "x" * 60_000 + '"}', "unknown_board", "all_time"),
    ('{"type":"subscribe","board":"week_of_2026_11_24"}', "unknown_board", "week_of_2026_11_23"),
    ('{"type":"subscribe","board":"week_of_2024_02_30"}', "unknown_board", "calendar"),
    ('{"type":"subscribe","board":"week_of_2999_12_30"}', "unknown_board", "not begun"),
    ('{"type":"subscribe","board":"week_of_1999_01_04"}', "unknown_board", "that old"),
    ('{"type":"subscribe","board":"week_of_2026_11_23; DROP TABLE users"}', "unknown_board", "all_time"),
    ('{"type":"subscribe","board":"leaderboard:epoch"}', "unknown_board", "all_time"),
    ('{"type":"subscribe","board":"all_time","since":"x"}', "bad_message", "since"),
    ('{"type":"subscribe","board":"all_time","since":{"epoch":"x","version":1.5}}', "bad_message", "since"),
    ('{"type":"subscribe","board":"all_time","since":[]}', "bad_message", "since"),
    ('{"type":"unsubscribe","board":"all_time"}', "unknown_board", "subscription"),
    ('{"type":"unsubscribe","board":"\\ud800"}', "unknown_board", "all_time"),
    ('{"type":"auth"}', "bad_message", "token"),
    ('{"type":"auth","token":{}}', "bad_message", "token"),
    ('{"type":"auth","token":"\\ud800"}', "unauthorized", "token"),
    ('{"type":"watch","board":"all_time"}', "bad_message", "user_id"),
    ('{"type":"watch","board":"all_time","user_id":0}', "out_of_range", "user_id"),
    ('{"type":"watch","board":"all_time","user_id":99999999999999999999}', "out_of_range", "user_id"),
    ('{"type":"watch","board":"nonsense","user_id":1}', "unknown_board", "all_time"),
    ('{"type":"unwatch","board":"all_time","user_id":7}', "unknown_user", "watched"),
]


async def test_a_bad_message_is_answered_and_the_connection_lives(client: Client) -> None:
    for text, code, says in MESSAGES:
        await client.raw(text)
        answer = await client.next()
        assert (answer["type"], answer["code"]) == ("error", code), (text[:80], answer)
        assert says in answer["message"], (text[:80], answer)
        assert len(json.dumps(answer)) < 1_000, "an answer is no echo"
        await lives_on(client)


async def test_a_bad_message_is_answered_with_the_board_it_is_about(client: Client) -> None:
    bad: dict[str, dict[str, Any]] = {
        "subscribe": {"since": 5}, "unsubscribe": {}, "watch": {"user_id": "7"}, "unwatch": {"user_id": 2**64},
    }  # fmt: skip
    for kind, fields in bad.items():
        for board in ("all_time", "current_week", "nonsense"):
            assert (await client.ask(kind, board=board, **fields))["board"] == board, kind
        for unreadable in (5, None, "x" * 81, "\ud800"):  # what cannot be said again
            await client.raw(json.dumps({"type": kind, "board": unreadable, **fields}))
            assert "board" not in await client.next(), kind
    assert "board" not in await client.ask("auth", board="all_time", token=5), "that is about the connection"


# Submissions -----------------------------------------------------------------------------------------------------

SUBMISSIONS: list[tuple[dict[str, Any], str, str]] = [
    ({"submission_id": None}, "bad_message", "submission_id"),
    ({"submission_id": 7}, "bad_message", "submission_id"),
    ({"submission_id": ""}, "out_of_range", "1 to 64"),
    ({"submission_id": "x" * 65}, "out_of_range", "1 to 64"),
    ({"submission_id": "a\x00b"}, "bad_message", "NUL"),
    ({"submission_id": "a\ud800"}, "bad_message", "surrogate"),
    ({"score_added": None}, "bad_message", "score_added"),
    ({"score_added": "5"}, "bad_message", "whole number"),
    ({"score_added": True}, "bad_message", "whole number"),
    ({"score_added": 0.5}, "bad_message", "whole number"),
    ({"score_added": [5]}, "bad_message", "whole number"),
    ({"score_added": INT_MAX + 1}, "out_of_range", str(INT_MAX)),
    ({"score_added": INT_MIN - 1}, "out_of_range", str(INT_MIN)),
    ({"score_added": 10**30}, "out_of_range", str(INT_MAX)),
    ({"reason": "x" * 256}, "out_of_range", "255"),
    ({"reason": 5}, "bad_message", "reason"),
    ({"reason": "\x00"}, "bad_message", "NUL"),
    ({"reason": "\udc00"}, "bad_message", "surrogate"),
    ({"user_id": "1"}, "bad_message", "user_id"),
    ({"user_id": 1.5}, "bad_message", "user_id"),
    ({"user_id": 0}, "out_of_range", "user_id"),
    ({"user_id": -1}, "out_of_range", "user_id"),
    ({"user_id": ID_MAX + 1}, "out_of_range", "user_id"),
    ({"user_id": 2**63}, "out_of_range", "user_id"),
    ({"user_id": 2**64}, "out_of_range", "user_id"),
    ({"user_id": ID_MAX}, "unknown_user", "Register"),
    ({"user_id": 2}, "unknown_user", "Register"),
    ({"created_at": 5}, "bad_message", "created_at"),
    ({"created_at": "now"}, "bad_message", "created_at"),
    ({"created_at": "2026-11-23T10:00:00"}, "bad_message", "zone"),
    ({"created_at": "2999-11-23T10:00:00Z"}, "out_of_range", "future"),
    ({"created_at": "9999-12-31T23:59:59Z"}, "out_of_range", "future"),
    ({"created_at": "1900-01-01T00:00:00Z"}, "out_of_range", "1970"),
]


async def test_a_bad_submission_is_rejected_by_socket_and_by_http(server: RunningServer, client: Client) -> None:
    headers = server.bearer(1, "submit:any", "admin")
    for change, code, says in SUBMISSIONS:
        row = {**GOOD, **change}
        await client.raw(json.dumps({"type": "submit", **row}))
        answer = await client.next()
        assert (answer["type"], answer["code"]) == ("rejected", code), (change, answer)
        assert says in answer["message"], (change, answer)
        assert answer["submission_id"] == (row["submission_id"] if "submission_id" not in change else None)
        assert answer["retry_after_ms"] is None
        await lives_on(client)
        by_http = await server.http.post("/scores", content=json.dumps(row), headers=headers)
        assert (by_http.status_code, by_http.json()["error"]["code"]) == (STATUS[code], code), change
        assert by_http.json()["error"]["message"] == answer["message"]
        in_a_list = await server.http.post("/scores", content=json.dumps([row]), headers=headers)
        assert in_a_list.status_code == 200
        assert in_a_list.json()["results"] == [answer]


async def test_a_good_one_among_bad_ones_counts(server: RunningServer, make_users: MakeUsers) -> None:
    (user,) = await make_users(1)
    client = await server.client(server.token(user, "submit:any"))
    for change, _, _ in SUBMISSIONS[:10]:
        await client.raw(json.dumps({"type": "submit", **GOOD, **change}))
    await client.send("submit", **GOOD)
    assert (await client.until("accepted"))["submission_id"] == "good"


# Size ------------------------------------------------------------------------------------------------------------


async def test_a_message_of_two_megabytes_costs_its_connection_and_nothing_else(
    server: RunningServer, client: Client
) -> None:
    other = await server.client()
    await client.raw(json.dumps({"type": "subscribe", "board": "x" * 2_000_000}))
    answer = await client.next()
    assert (answer["type"], answer["code"]) == ("error", "too_large")
    assert "65536" in answer["message"].replace(",", "")
    with pytest.raises(ConnectionClosed):
        await client.next()
    assert client.socket.close_code == 1009
    await lives_on(other)


async def test_a_body_of_many_megabytes_is_too_large(server: RunningServer, untouched: None) -> None:
    headers = server.bearer(1, "submit:any", "admin")
    for path in ("/scores", "/users", "/sessions"):
        answer = await server.http.post(path, content=b"[" + b" " * 5_000_000 + b"]", headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large"), path
    assert (await server.http.get("/healthz")).status_code == 200


async def test_binary_messages_are_refused(server: RunningServer, client: Client) -> None:
    await client.raw(b'{"type":"ping"}')
    with pytest.raises(ConnectionClosed):
        await client.next()
    assert client.socket.close_code == 1003


async def test_too_many_subscriptions(client: Client) -> None:
    for _ in range(100):  # each waits for its first state; so many may be under way
        await client.send("subscribe", board="week_of_2026_03_02")
    codes = [(await client.until("error"))["code"] for _ in range(100)]
    assert set(codes) == {"unknown_board", "too_many"}
    await client.settled()
    await lives_on(client)


# HTTP ------------------------------------------------------------------------------------------------------------


REQUESTS: list[tuple[str, str, bytes | None, int, str]] = [
    ("POST", "/scores", b"", 400, "bad_message"),
    ("POST", "/scores", b"nonsense", 400, "bad_message"),
    ("POST", "/scores", b"\xff\xfe", 400, "bad_message"),
    ("POST", "/scores", b"5", 400, "bad_message"),
    ("POST", "/scores", b'"x"', 400, "bad_message"),
    ("POST", "/scores", b"null", 400, "bad_message"),
    ("POST", "/scores", b"[]", 400, "bad_message"),
    ("POST", "/users", b"[]", 400, "bad_message"),
    ("POST", "/users", b"{}", 400, "bad_message"),
    ("POST", "/users", b'{"email":"a@b.c","password":"12345678","username":"\\ud800"}', 400, "bad_message"),
    ("POST", "/users", b'{"email":"a@b.c","password":"12345678","username":"a\\u0000"}', 400, "bad_message"),
    ("POST", "/users", b'{"email":"a@b.c","password":"short","username":"a"}', 422, "out_of_range"),
    ("POST", "/users", b'{"email":"nonsense","password":"12345678","username":"a"}', 400, "bad_message"),
    ("POST", "/sessions", b"{}", 400, "bad_message"),
    ("POST", "/sessions", b'{"email":5,"password":"12345678"}', 400, "bad_message"),
    ("GET", "/boards/nonsense", None, 404, "unknown_board"),
    ("GET", "/boards/week_of_2026_11_24", None, 404, "unknown_board"),
    ("GET", "/boards/week_of_2999_12_30", None, 404, "unknown_board"),
    ("GET", "/boards/week_of_1999_01_04", None, 404, "unknown_board"),
    ("GET", "/boards/all_time%00", None, 404, "unknown_board"),
    ("GET", "/boards/%27%3B%20DROP%20TABLE%20users", None, 404, "unknown_board"),
    ("GET", "/boards/all_time?limit=0", None, 422, "out_of_range"),
    ("GET", "/boards/all_time?limit=1001", None, 422, "out_of_range"),
    ("GET", "/boards/all_time?limit=x", None, 400, "bad_message"),
    ("GET", "/boards/all_time?limit=", None, 400, "bad_message"),
    ("GET", "/boards/all_time?limit=1e-3", None, 400, "bad_message"),
    ("GET", "/boards/all_time?limit=1e4", None, 422, "out_of_range"),
    ("GET", "/boards/all_time?offset=-1", None, 422, "out_of_range"),
    ("GET", "/boards/all_time?offset=99999999999999999999999", None, 422, "out_of_range"),
    ("GET", "/boards/all_time?limit=%D9%A3", None, 400, "bad_message"),
    ("GET", "/boards?limit=x", None, 400, "bad_message"),
    ("GET", "/boards/all_time/users/0", None, 422, "out_of_range"),
    ("GET", "/boards/all_time/users/x", None, 400, "bad_message"),
    ("GET", "/boards/all_time/users/1", None, 404, "unknown_user"),
    ("GET", "/users/99999999999999999999/transactions", None, 422, "out_of_range"),
    ("POST", "/users/x/ban", b"", 400, "bad_message"),
    ("POST", "/users/999999/ban", b"", 404, "unknown_user"),
    ("GET", "/nothing/here", None, 404, "not_found"),
    ("GET", "/static/js/nothing.js", None, 404, "not_found"),
    ("GET", "/docs/nothing", None, 404, "not_found"),
    ("GET", "/boards/", None, 404, "not_found"),
    ("PUT", "/scores", b"{}", 405, "method_not_allowed"),
    ("DELETE", "/boards/all_time", None, 405, "method_not_allowed"),
]


async def test_a_bad_request_is_answered_in_the_one_shape(server: RunningServer, untouched: None) -> None:
    headers = server.bearer(1, "submit:any", "admin")
    for method, path, content, status, code in REQUESTS:
        answer = await server.http.request(method, path, content=content, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), (method, path, answer.text)
        assert set(answer.json()["error"]) <= {"code", "message", "retry_after_ms"}
        assert answer.json()["error"]["message"]
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["cache-control"] == "no-store"


async def test_a_bad_authorization_is_no_authorization(server: RunningServer, untouched: None) -> None:
    for authorization in ("Bearer", "Bearer x", "Basic eDp5", "x", "Bearer a.b.c", "bearer é", "Bearer a b"):
        headers = {"authorization": authorization.encode("latin-1")}
        for body in (GOOD, [GOOD]):
            answer = await server.http.post("/scores", json=body, headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized"), authorization
