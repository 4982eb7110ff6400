"""Credentials on real connections: expiry, renewal, revocation, origins, proxies, headers, limits across processes."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import asyncpg
import httpx
import pytest
from websockets.exceptions import ConnectionClosed

from realtime.people.credentials import Credentials
from realtime.people.identity import Identity
from tests.support.clients import Client
from tests.support.databases import MakeUsers
from tests.support.servers import SECRET, RunningServer, running_server
from tests.support.waiting import PATIENCE

Serve = Callable[..., Any]


@pytest.fixture
async def serve(dsn: str, store_url: str, filled: None) -> Serve:
    """Another server on this test's stores, with settings of its own."""

    @asynccontextmanager
    async def start(**environment: str) -> AsyncIterator[RunningServer]:
        async with running_server(dsn, store_url, **environment) as server:
            yield server

    return start


async def refused(server: RunningServer, **options: Any) -> tuple[str, int | None]:
    """The code and the close code with which a handshake is turned away."""
    client = await server.client(**options)
    with pytest.raises(ConnectionClosed):
        await client.next()
    return client.greeting["code"], client.socket.close_code


# Time --------------------------------------------------------------------------------------------------------------


async def test_a_live_token_that_expires_says_so_and_keeps_its_public_board(
    server: RunningServer, make_users: MakeUsers
) -> None:
    (user_id,) = await make_users(1)
    client = await server.client(server.token(user_id, lifetime=2))
    await client.subscribe("all_time")
    message = await client.until("error")
    assert message["code"] == "expired"
    await client.send("submit", submission_id="late", score_added=1)
    answer = await client.until("rejected")
    assert (answer["code"], answer["submission_id"]) == ("expired", "late")
    game = await server.client(server.token(None, "submit:any"))
    await game.send("submit", submission_id="g", score_added=3, user_id=user_id)
    await client.shows("all_time", [(user_id, "player-1", 3)])


async def test_a_live_connection_renews_its_token(server: RunningServer, make_users: MakeUsers) -> None:
    (user_id,) = await make_users(1)
    client = await server.client(server.token(user_id, lifetime=2))
    assert (await client.until("authenticated"))["user_id"] == user_id
    renewed = await client.ask("auth", token=server.token(user_id, lifetime=100))
    assert renewed["type"] == "authenticated"
    await asyncio.sleep(2.5)  # past the first token's end
    await client.send("submit", submission_id="s", score_added=1)
    assert (await client.next())["type"] == "accepted", "and not a word of the old one's end"


async def test_after_expiry_a_new_token_is_enough(server: RunningServer, make_users: MakeUsers) -> None:
    (user_id,) = await make_users(1)
    client = await server.client(server.token(user_id, lifetime=1.5))
    await client.until("error", lambda message: message["code"] == "expired")
    await client.ask("auth", token=server.token(user_id))
    await client.send("submit", submission_id="s", score_added=1)
    assert (await client.until("accepted"))["user_id"] == user_id


async def test_a_bad_renewal_changes_nothing(server: RunningServer, make_users: MakeUsers) -> None:
    (user_id,) = await make_users(1)
    client = await server.client(server.token(user_id))
    await client.until("authenticated")
    assert (await client.ask("auth", token="x.y.z"))["code"] == "unauthorized"
    await client.send("submit", submission_id="s", score_added=1)
    assert (await client.next())["type"] == "accepted"


async def test_swapped_tokens_speak_for_their_own_users_alone(server: RunningServer, make_users: MakeUsers) -> None:
    one, two = await make_users(2)
    client = await server.client(server.token(one))
    await client.until("authenticated")
    await client.ask("auth", token=server.token(two))
    await client.send("submit", submission_id="s", score_added=1, user_id=one)
    assert (await client.next())["code"] == "forbidden"
    await client.send("submit", submission_id="s", score_added=1)
    assert (await client.next())["user_id"] == two


async def test_an_identity_has_one_timer_and_nobody_has_none() -> None:
    class Holders:
        held: ClassVar[set[str]] = set()

        def hold(self, identity: Identity, lapse: object) -> None:
            self.held.add(str(identity.token_id))

        def release(self, lapse: object) -> None:
            self.held.clear()

    class Clock:
        def timestamp(self) -> float:
            return 1_000.0

    lapses: list[str] = []
    credentials = Credentials(Clock(), Holders(), lambda error: lapses.append(error.code))
    assert credentials._timer is None
    for name in ("a", "b"):
        credentials.take(Identity(7, frozenset({"submit"}), datetime.fromtimestamp(2_000, UTC), None, name))
        assert credentials._timer is not None
        assert Holders.held == {name}
    credentials.close()
    assert (credentials._timer, Holders.held, lapses) == (None, set(), [])
    credentials.take(Identity(7, frozenset({"submit"}), datetime.fromtimestamp(1_000, UTC)))
    assert (credentials.identity, credentials._timer, lapses) == (None, None, ["expired"])


# Private boards ----------------------------------------------------------------------------------------------------


async def test_what_may_no_longer_be_read_ends_with_the_token(serve: Serve, make_users: MakeUsers) -> None:
    (user_id,) = await make_users(1)
    async with serve(REALTIME_BOARDS="private") as server:
        client = await server.client(server.token(None, "read", lifetime=2))
        await client.subscribe("all_time")
        await client.subscribe("current_week")
        await client.send("watch", board="all_time", user_id=user_id)
        await client.until("rank")
        await client.until("error", lambda message: message["code"] == "expired")
        ended = {(m["type"], m.get("as", m["board"])) for m in [await client.next() for _ in range(3)]}
        assert ended == {("unsubscribed", "all_time"), ("unsubscribed", "current_week"), ("unwatched", "all_time")}
        game = await server.client(server.token(None, "submit:any"))
        await game.send("submit", submission_id="g", score_added=3, user_id=user_id)
        await game.until("accepted")
        await asyncio.sleep(0.2)  # several broadcasts
        assert await client.settled() == []
        assert (await client.ask("subscribe", board="all_time"))["code"] == "expired"


async def test_a_renewed_reader_keeps_what_it_may_still_read(serve: Serve, make_users: MakeUsers) -> None:
    (user_id,) = await make_users(1)
    async with serve(REALTIME_BOARDS="private") as server:
        client = await server.client(server.token(None, "read"))
        await client.subscribe("all_time")
        await client.subscribe("current_week")
        await client.send("watch", board="all_time", user_id=user_id)
        await client.until("rank")
        now = server.services.clock.now()
        lifetime = server.services.tokens.mint(None, ["read"], now, timedelta(minutes=1), boards=["all_time"])[0]
        await client.ask("auth", token=lifetime)
        assert (await client.until("unsubscribed"))["as"] == "current_week"
        assert await client.settled() == []
        game = await server.client(server.token(None, "submit:any"))
        await game.send("submit", submission_id="g", score_added=3, user_id=user_id)
        await client.shows("all_time", [(user_id, "player-1", 3)])
        await client.until("rank", lambda message: message["score"] == 3)


# Revocation --------------------------------------------------------------------------------------------------------


def command(dsn: str, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DATABASE_URL": dsn, "DRAGONFLY_URL": "redis://unused", "REALTIME_SECRET": SECRET}
    return subprocess.run(
        [sys.executable, "-m", "realtime", *arguments],
        env=environment, capture_output=True, text=True, input=stdin, timeout=60,
    )  # fmt: skip


async def test_no_token_is_made_that_has_expired_already(dsn: str) -> None:
    made = await asyncio.to_thread(command, dsn, "token", "--scope", "read", "--lifetime", "0")
    assert (made.returncode, made.stdout) == (2, "")
    assert "--lifetime" in made.stderr


async def test_a_revoked_token_ends_everywhere_within_two_seconds_and_leaves_a_row(
    serve: Serve, dsn: str, sql: asyncpg.Connection
) -> None:
    async with serve(REALTIME_BOARDS="private") as server:
        made = await asyncio.to_thread(
            command, dsn, "token", "--scope", "read", "--board", "all_time", "--lifetime", "5000"
        )
        token = made.stdout.splitlines()[-1]
        client = await server.client(token)
        await client.subscribe("all_time")
        done = await asyncio.to_thread(
            command, dsn, "token", "revoke", "-", "--reason", "seen on a stream", stdin=token
        )
        assert (done.returncode, done.stderr) == (0, "")
        async with asyncio.timeout(8):  # two seconds, on a machine of one's own
            message = await client.until("error")
        assert message["code"] == "unauthorized"
        assert "revoked" in message["message"]
        assert (await client.next())["type"] == "unsubscribed"
        assert await refused(server, token=token) == ("unauthorized", 4401)
        answer = await server.http.get("/boards/all_time", headers={"authorization": f"Bearer {token}"})
        assert answer.status_code == 401
        again = await asyncio.to_thread(command, dsn, "token", "revoke", token)
        assert again.returncode == 0, "can be repeated"
    ((actor, action, detail),) = await sql.fetch("SELECT actor, action, detail FROM audit")
    told = json.loads(detail)
    assert (action, told["reason"], told["boards"]) == ("revoke", "seen on a stream", ["all_time"])
    assert actor.startswith("operator:")
    assert token not in detail


def test_the_token_command_stays_as_it_was(dsn: str) -> None:
    made = command(dsn, "token", "--user-id", "7", "--scope", "submit")
    assert made.returncode == 0
    assert made.stdout.count("\n") == 1 and made.stdout.count(".") == 2
    assert command(dsn, "token", "--user-id", "7").returncode == 2
    assert command(dsn, "token", "--scope", "root").returncode == 1
    assert command(dsn, "token", "revoke", "x.y.z").returncode == 1


# Origins -----------------------------------------------------------------------------------------------------------

FOREIGN = {"origin": "https://evil.example"}


async def test_a_foreign_page_may_look_and_not_speak_for_anybody(server: RunningServer) -> None:
    client = await Client.connect(server.ws_url, origin="https://evil.example")
    await client.subscribe("all_time")
    assert (await client.ask("auth", token=server.token(7)))["code"] == "forbidden"
    await client.aclose()
    assert await refused(server, token=server.token(7), origin="https://evil.example") == ("forbidden", 4401)
    assert await refused(server, token=server.token(7), origin="null") == ("forbidden", 4401)
    url = f"{server.ws_url}?token={server.token(7)}"
    client = await Client.connect(url, origin="https://evil.example")
    assert client.greeting["code"] == "forbidden"


async def test_own_and_named_pages_may_speak(serve: Serve) -> None:
    async with serve(REALTIME_ORIGINS="https://game.example, http://localhost:5173/") as server:
        for origin in (server.base_url, "https://game.example", "http://localhost:5173"):
            client = await server.client(server.token(7), origin=origin)
            assert (await client.next())["type"] == "authenticated", origin
        for origin in ("https://game.example.evil.example", "http://game.example", "https://game.example:444"):
            assert await refused(server, token=server.token(7), origin=origin) == ("forbidden", 4401), origin


async def test_a_foreign_page_may_read_boards_and_send_nothing(serve: Serve) -> None:
    async with serve(REALTIME_ORIGINS="https://game.example") as server:
        for path in ("/boards", "/boards/all_time", "/boards/all_time/users/1"):
            answer = await server.http.get(path, headers=FOREIGN)
            assert answer.headers["access-control-allow-origin"] == "*", path
        preflight = await server.http.options("/boards/all_time", headers=FOREIGN)
        assert (preflight.status_code, preflight.headers["access-control-allow-methods"]) == (204, "GET")
        for path in ("/users/me", "/metrics", "/", "/healthz"):
            assert "access-control-allow-origin" not in (await server.http.get(path, headers=FOREIGN)).headers, path
        for method, path in (("POST", "/scores"), ("POST", "/sessions"), ("POST", "/users"), ("DELETE", "/users/me")):
            answer = await server.http.request(method, path, headers=FOREIGN, content=b"{}")
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")
            named = {"origin": "https://game.example"}
            assert (await server.http.request(method, path, headers=named, content=b"{}")).status_code != 403
        assert (await server.http.options("/scores", headers=FOREIGN)).status_code == 405
        named["access-control-request-method"] = "POST"
        preflight = await server.http.options("/scores", headers=named)
        assert preflight.status_code == 204
        assert preflight.headers["access-control-allow-origin"] == "https://game.example"
        assert "POST" in preflight.headers["access-control-allow-methods"]
        allowed = set(preflight.headers["access-control-allow-headers"].split(", "))
        assert allowed == {"authorization", "content-type", "if-none-match", "last-event-id"}
        answer = await server.http.post("/scores", headers=named, content=b"{}")
        assert answer.headers["access-control-allow-origin"] == "https://game.example", "and the page may read why not"


async def test_private_boards_are_shared_with_named_pages_alone(serve: Serve) -> None:
    async with serve(REALTIME_ORIGINS="https://game.example", REALTIME_BOARDS="private") as server:
        headers = server.bearer(None, "read")
        foreign = await server.http.get("/boards", headers={**headers, **FOREIGN})
        assert "access-control-allow-origin" not in foreign.headers
        named = await server.http.get("/boards", headers={**headers, "origin": "https://game.example"})
        assert named.headers["access-control-allow-origin"] == "https://game.example"
        assert named.headers["vary"] == "origin"


# Headers and proxies -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["/", "/play", "/overlay", "/boards", "/boards/x", "/nothing", "/users/me", "/healthz", "/static/x"],
)
async def test_every_response_tells_a_browser_what_it_may_do(server: RunningServer, path: str) -> None:
    answer = await server.http.get(path)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    if path == "/overlay":  # framed by whom it may be: streaming software has pages of schemes of its own
        assert "frame-ancestors" not in policy
    else:
        framed = {"/": "'self'"}.get(path, "'none'")
        assert policy.endswith(f"frame-ancestors {framed}")
    assert "strict-transport-security" not in answer.headers, "this is not TLS"
    assert "server" not in answer.headers


async def test_even_a_failure_carries_the_headers(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*arguments: object) -> None:
        raise ZeroDivisionError("a secret of the inside")

    monkeypatch.setattr(server.services.board_reader, "page", broken)
    answer = await server.http.get("/boards/all_time")
    assert answer.status_code == 500
    assert "inside" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_forwarded_headers_count_from_trusted_addresses_alone(serve: Serve) -> None:
    forged = {"x-forwarded-for": "203.0.113.9", "x-forwarded-proto": "https"}
    async with serve(REALTIME_LOGINS_PER_ADDRESS="3", REALTIME_LOGINS_PER_ACCOUNT="0") as server:
        codes = [
            (await server.http.post("/sessions", json={}, headers={**forged, "x-forwarded-for": f"203.0.113.{n}"}))
            for n in range(4)
        ]
        assert [answer.status_code for answer in codes] == [400, 400, 400, 429], "a new name each time gains nothing"
        assert "strict-transport-security" not in codes[0].headers
    settings = {"REALTIME_TRUSTED_PROXIES": "127.0.0.1", "REALTIME_LOGINS_PER_ADDRESS": "3"}
    async with serve(**settings, REALTIME_LOGINS_PER_ACCOUNT="0") as server:
        answer = await server.http.post("/sessions", json={}, headers=forged)
        assert answer.headers["strict-transport-security"] == "max-age=31536000"
        for client in ("198.51.100.1", "198.51.100.2"):
            # Only what the proxy itself added counts, which is the last.
            chain = {"x-forwarded-for": f"10.9.8.7, {client}"}
            found = [(await server.http.post("/sessions", json={}, headers=chain)).status_code for _ in range(4)]
            assert found == [400, 400, 400, 429]


# Limits ------------------------------------------------------------------------------------------------------------


async def test_a_user_s_scores_are_limited_across_processes(serve: Serve, make_users: MakeUsers) -> None:
    (user_id,) = await make_users(1)
    async with serve(REALTIME_SUBMISSION_RATE="10") as one, serve(REALTIME_SUBMISSION_RATE="10") as two:
        for attempt in count():
            second = await _second_begins(one)
            rows = [{"submission_id": f"s{attempt}-{n}", "score_added": 1} for n in range(20)]
            answers = await asyncio.gather(
                one.http.post("/scores", json=rows[:10], headers=one.bearer(user_id)),
                two.http.post("/scores", json=rows[10:], headers=two.bearer(user_id)),
            )
            if int(one.services.clock.timestamp()) == second:  # else some were counted in the next
                break
        results = [result for answer in answers for result in answer.json()["results"]]
        assert sum(result["type"] == "accepted" for result in results) == 10
        refusals = [result for result in results if result["type"] == "rejected"]
        assert {result["code"] for result in refusals} == {"too_many"}
        assert all(0 < result["retry_after_ms"] <= 1000 for result in refusals)
        metrics = [(await server.http.get("/metrics")).text for server in (one, two)]
        assert any('realtime_limited_total{limit="submissions_of_one_user"}' in text for text in metrics)
        game = await one.http.post(
            "/scores", headers=one.bearer(None, "submit:any"),
            json=[{"submission_id": f"g{n}", "score_added": 1, "user_id": user_id} for n in range(50)],
        )  # fmt: skip
        assert all(result["type"] == "accepted" for result in game.json()["results"]), "a game server speaks for many"


async def _second_begins(server: RunningServer) -> int:
    """Waits until there is time enough in a second's window; which one that is."""
    into = server.services.clock.timestamp() % 1
    if into > 0.5:
        await asyncio.sleep(1.01 - into)
    return int(server.services.clock.timestamp())


async def test_limits_hold_without_the_store(dsn: str, private_store: Any, make_users: MakeUsers) -> None:
    (user_id,) = await make_users(1)
    async with running_server(dsn, private_store.url, REALTIME_SUBMISSION_RATE="10") as server:
        async with asyncio.timeout(PATIENCE):
            while (await server.http.get("/readyz")).status_code != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await asyncio.to_thread(private_store.kill)
        rows = [{"submission_id": f"s{n}", "score_added": 1} for n in range(25)]
        await _second_begins(server)
        answer = await server.http.post("/scores", json=rows, headers=server.bearer(user_id), timeout=20)
        accepted = [result for result in answer.json()["results"] if result["type"] == "accepted"]
        assert len(accepted) == 10
        await asyncio.to_thread(private_store.start)


async def test_registrations_are_limited_by_address(serve: Serve) -> None:
    async with serve(REALTIME_REGISTRATIONS_PER_ADDRESS="2") as server:
        codes = [(await server.http.post("/users", json={})).status_code for _ in range(3)]
        assert codes == [400, 400, 429]
        answer = await server.http.post("/users", json={})
        assert int(answer.headers["retry-after"]) > 0
        assert answer.json()["error"]["retry_after_ms"] > 0
        as_admin = await server.http.post("/users", json={}, headers=server.bearer(None, "admin"))
        assert as_admin.status_code == 400, "an admin is not counted"


async def test_logins_are_limited_by_account_wherever_they_come_from(serve: Serve, keys: Any) -> None:
    async with serve(REALTIME_LOGINS_PER_ADDRESS="0", REALTIME_LOGINS_PER_ACCOUNT="2") as server:

        async def login(email: str) -> int:
            return (await server.http.post("/sessions", json={"email": email})).status_code

        assert [await login("dev@example.com"), await login("DEV@example.com ")] == [400, 400]
        assert await login("dev@example.com") == 429
        assert await login("other@example.com") == 400
        names = [name async for name in keys.scan_iter("leaderboard:limit:*")]
        assert names and not any("example" in name for name in names)
        assert all([0 < await keys.ttl(name) <= 120 for name in names])


async def test_a_largest_score_can_be_set(serve: Serve, make_users: MakeUsers) -> None:
    (user_id,) = await make_users(1)
    async with serve(REALTIME_MAX_SCORE="1000") as server:
        client = await server.client(server.token(user_id))
        await client.until("authenticated")
        await client.send("submit", submission_id="a", score_added=1000)
        assert (await client.next())["type"] == "accepted"
        await client.send("submit", submission_id="b", score_added=1001)
        assert (await client.next())["code"] == "out_of_range"


# What is written down ----------------------------------------------------------------------------------------------


async def test_bans_corrections_and_deletions_leave_rows(
    server: RunningServer, make_users: MakeUsers, sql: asyncpg.Connection
) -> None:
    one, two = await make_users(2)
    admin = server.bearer(9, "admin")
    await server.http.post(f"/users/{one}/ban", json={"reason": "cheats"}, headers=admin)
    await server.http.delete(f"/users/{one}/ban", headers=admin)
    correction = {"submission_id": "c", "user_id": two, "score_added": -3, "reason": "bug",
                  "created_at": "2026-01-05T12:00:00Z"}  # fmt: skip
    assert (await server.http.post("/scores", json=correction, headers=admin)).status_code == 200
    await server.http.delete("/users/me", headers=server.bearer(two))
    rows = await sql.fetch("SELECT actor, action, user_id, detail::text FROM audit ORDER BY id")
    assert [tuple(row)[:3] for row in rows] == [
        ("user:9", "ban", one),
        ("user:9", "unban", one),
        ("user:9", "correct", two),
        (f"user:{two}", "delete", two),
    ]
    assert json.loads(rows[0]["detail"]) == {"reason": "cheats"}
    assert json.loads(rows[2]["detail"])["reason"] == "bug"


@pytest.mark.parametrize(
    ("scope", "fields"),
    [
        ("admin", {"score_added": 3, "created_at": "2026-01-05T12:00:00Z"}),
        ("admin", {"score_added": -3}),
        ("submit:any", {"score_added": -3}),
    ],
)
async def test_corrections_over_a_socket_are_written_down_too(
    server: RunningServer, make_users: MakeUsers, sql: asyncpg.Connection, scope: str, fields: dict[str, Any]
) -> None:
    (user_id,) = await make_users(1)
    client = await server.client(server.token(None, scope))
    await client.until("authenticated")
    await client.send("submit", submission_id="good", user_id=user_id, score_added=5)
    await client.send("submit", submission_id="c", user_id=user_id, reason="undone", **fields)
    assert [(await client.next())["type"] for _ in range(2)] == ["accepted"] * 2
    ((actor, action, about, detail),) = await sql.fetch("SELECT actor, action, user_id, detail FROM audit")
    assert (actor[:6], action, about) == ("token:", "correct", user_id)
    told = json.loads(detail)
    assert (told["submission_id"], told["score_added"], told["reason"]) == ("c", fields["score_added"], "undone")


# Secrets stay secret -----------------------------------------------------------------------------------------------


async def test_a_token_is_in_no_answer_and_no_log(
    server: RunningServer, caplog: pytest.LogCaptureFixture, make_users: MakeUsers
) -> None:
    caplog.set_level(logging.DEBUG)
    good, bad = server.token(7), "eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjF9.c2lnbmF0dXJl"
    for token in (good, bad):
        seen = []
        for path in ("/", "/docs", "/overlay", "/boards", "/ws", "/nothing", "/static/x", "/%00"):
            answer = await server.http.get(path, params={"token": token})
            seen.append(answer.text + str(answer.headers))
        answer = await server.http.get("/users/me", headers={"authorization": f"Bearer {token}"})
        seen.append(answer.text + str(answer.headers))
        client = await Client.connect(f"{server.ws_url}?token={token}")
        seen.append(json.dumps(client.greeting))
        if client.greeting["type"] == "hello":
            seen.append(json.dumps(await client.ask("auth", token=token + "x")))
        await client.aclose()
        seen += [json.dumps(message) for message in client.seen]
        assert not [text for text in seen if token in text]
    own = [record for record in caplog.records if record.name.partition(".")[0] in ("realtime", "uvicorn")]
    assert not [record for record in own if good in record.getMessage() or bad in record.getMessage()]


def test_serve_refuses_to_start_without_a_proper_secret(dsn: str, store_url: str, tmp_path: Path) -> None:
    environment = {**os.environ, "DATABASE_URL": dsn, "DRAGONFLY_URL": store_url}
    for secret in ("", "short", "x" * 31):
        done = subprocess.run(
            [sys.executable, "-m", "realtime", "serve", "--data-dir", str(tmp_path)],
            env={**environment, "REALTIME_SECRET": secret}, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 1
        assert "REALTIME_SECRET" in done.stderr
        assert done.stderr.count("\n") == 2, "that settings are wrong, and in one sentence which: no traceback"
        assert not secret or secret not in done.stderr


async def test_no_such_user_and_a_wrong_password_sound_the_same(server: RunningServer) -> None:
    person = {"email": "dev@example.com", "password": "correct horse", "username": "dev"}
    assert (await server.http.post("/users", json=person)).status_code == 201
    wrong = [
        await server.http.post("/sessions", json={"email": email, "password": "wrong horse"})
        for email in ("dev@example.com", "nobody@example.com")
    ]
    assert {answer.status_code for answer in wrong} == {401}
    assert wrong[0].content == wrong[1].content
    pairs = [(await _work(server, "dev"), await _work(server, "nobody")) for _ in range(4)]
    known, unknown = map(min, zip(*pairs, strict=True))
    assert 0.5 < known / unknown < 2


async def _work(server: RunningServer, name: str) -> float:
    """Seconds of the processor that an answer costs, however busy the machine is: nearly all of it is the hash."""
    began = time.process_time()
    answer = await server.http.post("/sessions", json={"email": f"{name}@example.com", "password": "wrong horse"})
    assert answer.status_code == 401, httpx.codes(answer.status_code)
    return time.process_time() - began
