"""A player's and a game server's half of the contract: scores in, by socket and by HTTP, each answered once."""

from __future__ import annotations

import json
import signal
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
from redis.asyncio import Redis

from realtime.boards.board import ALL_TIME, week_at
from realtime.people.tokens import Tokens, secret_keys
from tests.support.clients import Client
from tests.support.databases import MakeUsers
from tests.support.keys import scores_key
from tests.support.processes import environment, running
from tests.support.servers import SECRET, RunningServer
from tests.support.waiting import eventually


async def total(sql: asyncpg.Connection, user: int) -> int | None:
    found: int | None = await sql.fetchval("SELECT total_score FROM user_total_scores WHERE user_id = $1", user)
    return found


# By socket -------------------------------------------------------------------------------------------------------


async def test_one_s_own_scores(server: RunningServer, make_users: MakeUsers) -> None:
    (user,) = await make_users(1)
    player = await server.client(server.token(user))
    assert (await player.next())["type"] == "authenticated"
    accepted = {
        "type": "accepted",
        "submission_id": "m-81-p7",
        "user_id": user,
        "total_score": 100,
        "week_score": 100,
        "duplicate": False,
    }
    assert await player.ask("submit", submission_id="m-81-p7", score_added=100, reason="win") == accepted
    assert await player.ask("submit", submission_id="m-81-p7", score_added=100, reason="win", user_id=user) == {
        **accepted,
        "duplicate": True,
    }
    later = await player.ask("submit", submission_id="m-82-p7", score_added=5)
    assert (later["total_score"], later["week_score"]) == (105, 105)
    again = await player.ask("submit", submission_id="m-81-p7", score_added=100, reason="win")
    assert (again["total_score"], again["duplicate"]) == (105, True), "totals as they are now"
    other = await player.ask("submit", submission_id="m-81-p7", score_added=99, reason="win")
    assert (other["type"], other["code"], other["retry_after_ms"]) == ("rejected", "submission_conflict", None)


async def test_a_token_may_come_later(server: RunningServer, make_users: MakeUsers) -> None:
    (user,) = await make_users(1)
    player = await server.client()
    first = await player.ask("submit", submission_id="a", score_added=5)
    assert (first["type"], first["code"]) == ("rejected", "unauthorized")
    assert (await player.ask("auth", token=server.token(user)))["user_id"] == user
    assert (await player.ask("submit", submission_id="a", score_added=5))["type"] == "accepted"


async def test_a_token_that_is_none_is_unauthorized_and_the_connection_lives(server: RunningServer) -> None:
    viewer = await server.client()
    for token in ("", "x", "a.b.c", "é", "x" * 5_000, "\x00", "null", "\ud800"):
        answer = await viewer.ask("auth", token=token)
        assert (answer["type"], answer["code"]) == ("error", "unauthorized"), token
        assert len(token) < 5 or token not in json.dumps(answer), "no token in an answer"
        assert (await viewer.ask("ping"))["type"] == "pong"


async def test_a_bad_token_at_the_handshake_is_told_and_closed(server: RunningServer) -> None:
    client = await Client.connect(server.ws_url, "nonsense")
    assert (client.greeting["type"], client.greeting["code"]) == ("error", "unauthorized")
    await client.socket.wait_closed()
    assert client.socket.close_code == 4401


async def test_an_expired_token(server: RunningServer, make_users: MakeUsers) -> None:
    (user,) = await make_users(1)
    client = await Client.connect(server.ws_url, server.token(user, lifetime=-5))
    assert client.greeting["code"] == "expired"
    await client.socket.wait_closed()
    assert client.socket.close_code == 4401
    answer = await server.http.post(
        "/scores",
        json={"submission_id": "a", "score_added": 1},
        headers={"authorization": f"Bearer {server.token(user, lifetime=-5)}"},
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "expired")
    assert answer.headers["www-authenticate"] == "Bearer"


RIGHTS: list[tuple[list[str], dict[str, Any], str | None]] = [
    (["submit"], {}, None),
    (["submit"], {"score_added": -5}, "forbidden"),
    (["submit"], {"score_added": 0}, "forbidden"),
    (["submit"], {"user_id": "other"}, "forbidden"),
    (["submit"], {"created_at": "2026-03-02T00:00:00Z"}, "forbidden"),
    (["read"], {}, "forbidden"),
    (["submit:any"], {"user_id": "other"}, None),
    (["submit:any"], {"user_id": "other", "score_added": -5}, None),
    (["submit:any"], {"user_id": "other", "created_at": "2026-03-02T00:00:00Z"}, "forbidden"),
    (["admin"], {"user_id": "other", "created_at": "2026-03-02T00:00:00Z"}, None),
    (["admin"], {"user_id": "other", "created_at": "2999-03-02T00:00:00Z"}, "out_of_range"),
    (["admin"], {"user_id": "nobody"}, "unknown_user"),
]


async def test_who_may_hand_in_what(server: RunningServer, make_users: MakeUsers, sql: asyncpg.Connection) -> None:
    """By socket and by HTTP the same."""
    user, other = await make_users(2)
    names = {"other": other, "nobody": 10**9}
    for number, (scopes, fields, code) in enumerate(RIGHTS):
        row = {"score_added": 5, **fields}
        if "user_id" in row:
            row["user_id"] = names[row["user_id"]]
        player = await server.client(server.token(user, *scopes))
        await player.next()
        before = await sql.fetchval("SELECT count(*) FROM user_score_transactions")
        by_socket = await player.ask("submit", submission_id=f"socket-{number}", **row)
        name = f"http-{number}"
        headers = server.bearer(user, *scopes)
        by_http = await server.http.post("/scores", json={"submission_id": name, **row}, headers=headers)
        after = await sql.fetchval("SELECT count(*) FROM user_score_transactions")
        if code is None:
            assert (by_socket["type"], by_http.status_code) == ("accepted", 200), (scopes, fields)
            assert after == before + 2
        else:
            assert (by_socket["type"], by_socket["code"]) == ("rejected", code), (scopes, fields)
            assert by_http.json()["error"]["code"] == code
            assert (by_http.json()["code"], by_http.json()["submission_id"]) == (code, name)
            assert after == before


async def test_many_in_flight_are_each_answered_once(
    server: RunningServer, make_users: MakeUsers, sql: asyncpg.Connection, keys: Redis
) -> None:
    users = await make_users(20)
    games = [await server.client(server.token(None, "submit:any")) for _ in range(4)]
    for lane, game in enumerate(games):
        await game.next()
        for number in range(250):
            user = users[(number * 7 + lane) % 20]
            await game.send("submit", submission_id=f"{lane}-{number}", user_id=user, score_added=2)
    for lane, game in enumerate(games):
        answers = [await game.until("accepted") for _ in range(250)]
        assert {answer["submission_id"] for answer in answers} == {f"{lane}-{n}" for n in range(250)}
    assert await sql.fetchval("SELECT sum(total_score) FROM user_total_scores") == 2_000
    viewer = await server.client()
    await viewer.subscribe("all_time")
    while sum(viewer.follower.boards["all_time"].scores.values()) < 2_000:
        await viewer.next()
    stored = await keys.zrange(scores_key(ALL_TIME), 0, -1, withscores=True)
    assert sum(score for _, score in stored) == 2_000


# By HTTP ---------------------------------------------------------------------------------------------------------


async def test_one_object_and_a_list(server: RunningServer, make_users: MakeUsers) -> None:
    user, other = await make_users(2)
    one = await server.http.post("/scores", json={"submission_id": "a", "score_added": 5}, headers=server.bearer(user))
    assert (one.status_code, one.json()["total_score"], one.json()["type"]) == (200, 5, "accepted")
    rows = [
        {"submission_id": "b", "user_id": user, "score_added": 7},
        {"submission_id": "x" * 65, "user_id": user, "score_added": 7},
        "nonsense",
        {"submission_id": "c", "user_id": 10**9, "score_added": 1},
        {"submission_id": "a", "user_id": user, "score_added": 5},
        {"submission_id": "d", "user_id": other, "score_added": 2**31},
        {"submission_id": "e", "user_id": other, "score_added": -9, "reason": "correction"},
        {"submission_id": "f", "user_id": other, "score_added": 1, "reason": "\ud800"},
    ]
    body = json.dumps(rows)
    many = await server.http.post("/scores", content=body, headers=server.bearer(None, "submit:any"))
    assert many.status_code == 200
    results = many.json()["results"]
    shown = [result.get("code") or ("duplicate" if result["duplicate"] else "accepted") for result in results]
    assert shown == [
        "accepted",
        "out_of_range",
        "bad_message",
        "unknown_user",
        "duplicate",
        "out_of_range",
        "accepted",
        "bad_message",
    ]
    assert [result["submission_id"] for result in results] == ["b", None, None, "c", "a", "d", "e", "f"]
    assert results[0]["total_score"] == results[4]["total_score"] == 12


async def test_a_list_has_up_to_a_thousand(
    server: RunningServer, make_users: MakeUsers, sql: asyncpg.Connection
) -> None:
    (user,) = await make_users(1)
    rows = [{"submission_id": str(n), "user_id": user, "score_added": 1} for n in range(1_001)]
    headers = server.bearer(None, "submit:any")
    refused = await server.http.post("/scores", json=rows, headers=headers)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "bad_message")
    assert "1000" in refused.json()["error"]["message"]
    assert await total(sql, user) is None
    taken = await server.http.post("/scores", json=rows[:1_000], headers=headers)
    assert len(taken.json()["results"]) == 1_000
    assert await total(sql, user) == 1_000
    assert (await server.http.post("/scores", json=[], headers=headers)).status_code == 400


async def test_an_admin_s_moment_decides_the_week(server: RunningServer, make_users: MakeUsers) -> None:
    (user,) = await make_users(1)
    now = server.services.clock.now()
    week = week_at(now)
    rows = [
        {"submission_id": "first", "user_id": user, "score_added": 1, "created_at": week.starts.isoformat()},
        {
            "submission_id": "before",
            "user_id": user,
            "score_added": 10,
            "created_at": (week.starts - timedelta(microseconds=1)).isoformat(),
        },
    ]
    answer = await server.http.post("/scores", json=rows, headers=server.bearer(user, "admin"))
    assert [row["week_score"] for row in answer.json()["results"]] == [1, 10]
    await server.told()
    board = (await server.http.get(f"/boards/{week.id}")).json()
    assert [entry["score"] for entry in board["entries"]] == [1]
    last = week_at(week.starts - timedelta(days=1))
    board = (await server.http.get(f"/boards/{last.id}")).json()
    assert (board["epoch"], [entry["score"] for entry in board["entries"]]) == ("closed", [10])


# Whatever dies afterwards ----------------------------------------------------------------------------------------


async def test_what_was_acknowledged_stands_when_the_server_is_killed(
    dsn: str, store_url: str, filled: None, make_users: MakeUsers, sql: asyncpg.Connection, keys: Redis
) -> None:
    """kill -9 in the middle of it, then another process on the same stores: nothing is lost, nothing counts twice.

    What was committed, but not yet told to the store, is told by the worker: sent again it is a duplicate, and says
    nothing to the store.
    """
    users = await make_users(5)
    stores = {"DATABASE_URL": dsn, "DRAGONFLY_URL": store_url, "REALTIME_SECRET": SECRET}
    env = environment(**stores, REALTIME_PORT="0", REALTIME_DRAIN_S="0")
    token, _ = Tokens(secret_keys(SECRET)).mint(None, ["submit:any"], datetime.now(UTC), timedelta(hours=1))

    async def play(address: str) -> Client:
        game = await Client.connect(address.replace("http", "ws", 1) + "/ws", token)
        for number in range(400):
            await game.send("submit", submission_id=str(number), user_id=users[number % 5], score_added=3)
        return game

    async with running("worker", env=env) as worker:
        async with running("serve", env=env) as server:
            game = await play(await server.says("ready:"))
            acknowledged = {(await game.until("accepted"))["submission_id"] for _ in range(60)}
            server.signal(signal.SIGKILL)
            await server.ends()
            game.socket.transport.abort()  # type: ignore[attr-defined]
        rows = {row[0] for row in await sql.fetch("SELECT submission_id FROM user_score_transactions")}
        assert acknowledged <= rows, "an acknowledged submission is committed"

        async with running("serve", env=env) as server:
            game = await play(await server.says("ready:"))
            answers = [await game.until("accepted") for _ in range(400)]
            recorded_now = {answer["submission_id"] for answer in answers if not answer["duplicate"]}
            assert recorded_now == {str(number) for number in range(400)} - rows
            await game.aclose()
            assert await server.stop() == 0
        totals = dict(await sql.fetch("SELECT user_id, total_score FROM user_total_scores"))
        assert totals == dict.fromkeys(users, 240)

        async def stored() -> dict[int, float]:
            return {int(user): score for user, score in await keys.zrange(scores_key(ALL_TIME), 0, -1, withscores=True)}

        async def shown() -> bool:
            return await stored() == totals and not await sql.fetchval("SELECT count(*) FROM outbox")

        await eventually(shown)
        assert await worker.stop() == 0


# Engines with one type of number, clocks that are ahead, logs ------------------------------------------------------


async def test_whole_numbers_may_be_written_as_doubles_wherever_one_is_taken(
    server: RunningServer, make_users: MakeUsers
) -> None:
    (user,) = await make_users(1)
    headers = server.bearer(None, "submit:any", "admin")
    one = await server.http.post(
        "/scores", content=f'{{"submission_id":"a","user_id":{user}.0,"score_added":5.0}}', headers=headers
    )
    assert (one.status_code, one.json()["total_score"], one.json()["user_id"]) == (200, 5, user)
    rows = ",".join(
        f'{{"submission_id":"{number}","user_id":{user},"score_added":{number}}}'
        for number in ("1e2", "-3.0", "-0.0", "5.5", "1e400", "2147483648.0", "9007199254740993.0")
    )
    several = await server.http.post("/scores", content=f"[{rows}]", headers=headers)
    outcomes = [row.get("code", row["type"]) for row in several.json()["results"]]
    assert outcomes == ["accepted"] * 3 + ["bad_message"] + ["out_of_range"] * 3
    again = await server.http.post(
        "/scores", json={"submission_id": "a", "user_id": user, "score_added": 5}, headers=headers
    )
    assert (again.json()["duplicate"], again.json()["total_score"]) == (True, 102)
    for path, status in (
        (f"/boards/all_time/users/{user}.0?neighbours=1e0", 200),
        ("/boards/all_time?limit=5.0&offset=0e0", 200),
        (f"/users/{user}.0/transactions?before=1e15&limit=10.0", 200),
        ("/boards/all_time?limit=5.5", 400),
        ("/boards/all_time?limit=nan", 400),
        ("/boards/all_time?limit=1e400", 422),
        (f"/boards/all_time/users/{user}.5", 400),
        ("/boards/all_time/users/9007199254740993.0", 422),
    ):
        assert (await server.http.get(path, headers=headers)).status_code == status, path


async def test_a_socket_takes_them_too(server: RunningServer, make_users: MakeUsers) -> None:
    (user,) = await make_users(1)
    player = await server.client(server.token(user, "submit"))
    await player.subscribe("all_time")
    accepted = await player.ask("submit", submission_id="a", score_added=5.0, user_id=float(user))
    assert (accepted["type"], accepted["total_score"]) == ("accepted", 5)
    await player.shows("all_time", [(user, "player-1", 5)])
    await player.send("watch", board="all_time", user_id=float(user))
    assert (await player.until("rank"))["rank"] == 1
    held = player.follower.boards["all_time"]
    back = await server.client()
    back.follower = player.follower
    since = {"epoch": held.epoch, "version": float(held.version)}
    assert (await back.ask("subscribe", board="all_time", since=since))["resumed"] is True


async def test_an_admin_s_clock_may_be_a_little_ahead(server: RunningServer, make_users: MakeUsers) -> None:
    (user,) = await make_users(1)
    for ahead, status in ((timedelta(milliseconds=700), 200), (timedelta(seconds=30), 422)):
        at = (server.services.clock.now() + ahead).isoformat().lower()
        row = {"submission_id": str(ahead), "user_id": user, "score_added": 5, "created_at": at}
        answer = await server.http.post("/scores", json=row, headers=server.bearer(None, "admin"))
        assert answer.status_code == status, answer.text


async def test_a_log_says_all_and_can_be_handed_in_again(
    server: RunningServer, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    (user,) = await make_users(1)
    for number, reason in enumerate((None, "", "win"), 1):
        row = {"submission_id": f"s-{number}", "score_added": number, "reason": reason}
        assert (await server.http.post("/scores", json=row, headers=server.bearer(user))).status_code == 200
    kept = {name: at for name, at in await sql.fetch("SELECT submission_id, created_at FROM user_score_transactions")}
    log = (await server.http.get(f"/users/{user}/transactions", headers=server.bearer(user))).json()["transactions"]
    shown = {row["submission_id"]: datetime.fromisoformat(row["created_at"]) for row in log}
    assert shown == kept, "to the microsecond"
    again = await server.http.post("/scores", json=log, headers=server.bearer(None, "admin"))
    assert [(row["type"], row["duplicate"]) for row in again.json()["results"]] == [("accepted", True)] * 3
    assert await total(sql, user) == 6
