"""People on boards: who comes, is renamed, corrected, banned, leaves, and in what order all that may happen.

A server, its stores, and clients that know nothing but the protocol. Where two things race, the ledger's own locks put
them in either order: nobody sleeps and hopes.
"""

from __future__ import annotations

import asyncio
import io
import random
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import asyncpg
import httpx
import pytest

from realtime.boards.board import ALL_TIME, CURRENT_WEEK, live_boards, week_at, week_of
from realtime.boards.submissions import Rejected, Submission
from realtime.intake import score_file
from realtime.intake.importer import Importer
from realtime.intake.recorder import Recorder
from realtime.ledger.ledger import Ledger
from realtime.ledger.views import Views
from realtime.people.accounts import Accounts
from realtime.people.passwords import Passwords
from realtime.repair.resync import Resync
from realtime.repair.sweeper import Sweeper
from realtime.store.store import Store
from tests.support.closed_weeks import views_of
from tests.support.databases import MakeUsers
from tests.support.keys import scores_key
from tests.support.servers import RunningServer
from tests.support.waiting import eventually

PAST = week_of(date(2021, 1, 4))
ADMIN = "admin"

_sent = 0


def next_id() -> str:
    global _sent
    _sent += 1
    return f"p-{_sent}"


async def submit(
    server: RunningServer, rows: Sequence[tuple[int, int]], moment: datetime | None = None, **fields: Any
) -> list[dict[str, Any]]:
    """Hands scores in as an admin; gives the outcomes."""
    body = [{"submission_id": next_id(), "user_id": user, "score_added": points, **fields} for user, points in rows]
    if moment is not None:
        body = [row | {"created_at": moment.isoformat()} for row in body]
    answer = await server.http.post("/scores", json=body, headers=server.bearer(None, ADMIN))
    results: list[dict[str, Any]] = answer.json()["results"]
    return results


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


async def lines(server: RunningServer, name: str) -> list[tuple[int, str, int]]:
    shown = (await server.http.get(f"/boards/{name}")).json()
    return [(entry["user_id"], entry["username"], entry["score"]) for entry in shown["entries"]]


async def amended(server: RunningServer, ledger: Ledger) -> None:
    """What the worker does in its own time, done now: closed weeks are as the ledger says."""
    archive, resync = server.services.archive, server.services.accounts._resync
    views = Views(archive, archive._closing)
    sweeper = Sweeper(ledger, resync)  # type: ignore[arg-type]
    while await sweeper.sweep(older_than=0.0) or await views.settle():
        pass

    async def empty() -> bool:
        return (await ledger.outbox_state())[0] == 0

    await eventually(empty)


# Coming ----------------------------------------------------------------------------------------------------------


async def test_somebody_registers_signs_in_plays_and_is_on_the_board(
    server: RunningServer, sql: asyncpg.Connection
) -> None:
    credentials = {"email": "Ada@Example.org", "password": "correct horse"}
    answer = await server.http.post("/users", json={**credentials, "username": "Ada"})
    assert answer.status_code == 201
    user_id = answer.json()["user_id"]
    assert answer.json() == {"user_id": user_id, "username": "Ada"}
    kept = await sql.fetchval("SELECT password_hash FROM users")
    assert kept.startswith("$argon2id$") and "horse" not in kept
    for email in ("ada@example.org", "ADA@EXAMPLE.ORG"):
        again = await server.http.post("/users", json={**credentials, "email": email, "username": "Eve"})
        assert code(again) == (409, "conflict")
        session = await server.http.post("/sessions", json={"email": email, "password": "correct horse"})
        assert session.status_code == 200
    for wrong in ({"password": "wrong horse"}, {"email": "eve@example.org"}):
        assert code(await server.http.post("/sessions", json=credentials | wrong)) == (401, "unauthorized")
    headers = {"authorization": f"Bearer {session.json()['token']}"}
    me = (await server.http.get("/users/me", headers=headers)).json()
    assert (me["user_id"], me["email"], me["username"], me["banned"]) == (user_id, "Ada@Example.org", "Ada", False)
    client = await server.client(session.json()["token"])
    await client.subscribe("all_time")
    await client.send("submit", submission_id="one", score_added=5)
    assert (await client.until("accepted"))["total_score"] == 5
    await client.shows("all_time", [(user_id, "Ada", 5)])


async def test_an_address_is_shown_to_its_owner_alone(
    server: RunningServer, caplog: pytest.LogCaptureFixture, keys: Any
) -> None:
    caplog.set_level("DEBUG", "realtime")
    person = {"email": "ada@example.org", "password": "correct horse", "username": "Ada"}
    seen = [await server.http.post("/users", json=person), await server.http.post("/sessions", json=person)]
    user_id = seen[0].json()["user_id"]
    for again in ({}, {"password": "wrong horse"}):
        seen += [await server.http.post(path, json=person | again) for path in ("/users", "/sessions")]
    await submit(server, [(user_id, 5)])
    await submit(server, [(user_id, 5)], PAST.starts)
    await server.told()
    client = await server.client()
    for name in ("all_time", CURRENT_WEEK, PAST.id):
        await client.subscribe(name)
        await client.send("watch", board=name, user_id=user_id)
    await client.until("rank")
    own, other, admin = server.bearer(user_id), server.bearer(user_id + 1), server.bearer(None, ADMIN)
    paths = ["/boards", "/boards/all_time", f"/boards/{PAST.id}", f"/boards/all_time/users/{user_id}", "/metrics"]
    for headers in (own, other, admin):
        for path in (*paths, f"/users/{user_id}/transactions", *(["/users/me"] if headers is not own else [])):
            seen.append(await server.http.get(path, headers=headers))
    seen.append(await server.http.post(f"/users/{user_id}/ban", headers=admin))
    assert not [answer.url for answer in seen if "@" in answer.text + str(answer.headers)]
    assert not [message for message in client.seen if "@" in str(message)]
    assert not [record for record in caplog.records if "example.org" in record.getMessage()]
    cached = await keys.get(f"leaderboard:cache_top_100:{PAST.id}")
    stored = [await keys.hgetall(f"leaderboard:users:{user_id}"), cached]
    assert all(stored) and "example.org" not in str([stored, await keys.keys("*")])
    assert (await server.http.get("/users/me", headers=own)).json()["email"] == "ada@example.org"


# Names -----------------------------------------------------------------------------------------------------------


async def rename(server: RunningServer, user_id: int, username: Any) -> httpx.Response:
    return await server.http.patch("/users/me", json={"username": username}, headers=server.bearer(user_id))


async def test_a_rename_is_everywhere_at_once(server: RunningServer, make_users: MakeUsers, keys: Any) -> None:
    a, b = await make_users(2)
    await submit(server, [(a, 5), (b, 9)])
    await submit(server, [(a, 5)], PAST.starts)
    client = await server.client()
    for name in ("all_time", CURRENT_WEEK, PAST.id):
        await client.subscribe(name)
    week = week_at(server.services.clock.now()).id
    await client.shows("all_time", [(a, "player-1", 10), (b, "player-2", 9)])
    await client.shows(week, [(b, "player-2", 9), (a, "player-1", 5)])
    await client.shows(PAST.id, [(a, "player-1", 5)])
    snapshots = client.follower.snapshots
    assert (await rename(server, a, "Zoë 🏆")).json()["username"] == "Zoë 🏆"
    await client.shows("all_time", [(a, "Zoë 🏆", 10), (b, "player-2", 9)])
    await client.shows(week, [(b, "player-2", 9), (a, "Zoë 🏆", 5)])
    await client.shows(PAST.id, [(a, "Zoë 🏆", 5)])
    assert client.follower.snapshots == snapshots, "a rename is a diff"
    assert await keys.hget(f"leaderboard:users:{a}", "username") == "Zoë 🏆"
    for name in ("all_time", CURRENT_WEEK, PAST.id):
        assert (a, "Zoë 🏆") in [line[:2] for line in await lines(server, name)]
        user = (await server.http.get(f"/boards/{name}/users/{a}")).json()
        assert user["username"] == "Zoë 🏆"


async def test_renames_that_race_leave_one_name_everywhere(
    server: RunningServer, make_users: MakeUsers, sql: asyncpg.Connection, keys: Any
) -> None:
    a, b = await make_users(2)
    await submit(server, [(a, 5), (b, 4)])
    for week in range(10):
        await submit(server, [(a, 1), (b, 1)], PAST.starts + timedelta(weeks=week))
    await amended(server, server.services.archive._ledger)  # type: ignore[arg-type]
    await server.http.get(f"/boards/{PAST.id}")
    client = await server.client()
    for name in ("all_time", PAST.id):
        await client.subscribe(name)
    answers = await asyncio.gather(*(rename(server, (a, b)[n % 2], f"name-{n}") for n in range(40)))
    assert {answer.status_code for answer in answers} == {200}
    kept = dict(await sql.fetch("SELECT id, username FROM users"))
    for user in (a, b):
        assert await keys.hget(f"leaderboard:users:{user}", "username") == kept[user]
    await client.shows("all_time", [(a, kept[a], 15), (b, kept[b], 14)])
    await client.shows(PAST.id, [(user, kept[user], 1) for user in sorted((a, b), key=str, reverse=True)])


async def test_renames_during_a_broadcast_tear_nothing(
    server: RunningServer, make_users: MakeUsers, sql: asyncpg.Connection
) -> None:
    users = await make_users(120)
    await submit(server, [(user, 100 + place) for place, user in enumerate(users)])
    viewers = [await server.client() for _ in range(3)]
    for viewer in viewers:
        await viewer.subscribe("all_time")

    async def play() -> None:
        for _ in range(30):
            await submit(server, [(random.choice(users), random.randint(1, 40)) for _ in range(5)])

    async def change_names() -> None:
        for number in range(30):
            assert (await rename(server, random.choice(users), f"name {number}")).status_code == 200

    await asyncio.gather(play(), play(), change_names(), change_names())
    rows = await sql.fetch(
        "SELECT user_id, username, total_score FROM user_total_scores JOIN users u ON u.id = user_id"
    )
    top = sorted(map(tuple, rows), key=lambda row: (row[2], str(row[0])), reverse=True)[:100]
    for viewer in viewers:  # each has held every diff against the one before, in order
        await viewer.shows("all_time", top)


NAMES_REFUSED = {
    "": "out_of_range",
    "x" * 65: "out_of_range",
    "x" * 10_000: "out_of_range",
    " " * 5: "bad_message",
    "\u3000\u00a0": "bad_message",
    " Ada": "bad_message",
    "Ada\n": "bad_message",
    "A\x00da": "bad_message",
    "A\x1b[31mda": "bad_message",
    "A\x85da": "bad_message",
    "\u202eadA": "bad_message",
    "Ada\u2066": "bad_message",
    "A\u200bda": "bad_message",
    "\ufeffAda": "bad_message",
    "A\u2028da": "bad_message",
    "A\U000e0041da": "bad_message",
    "\u200d": "bad_message",
}


async def test_names_that_mislead_are_refused_and_kept_nowhere(
    server: RunningServer, make_users: MakeUsers, sql: asyncpg.Connection
) -> None:
    (a,) = await make_users(1)
    person = {"email": "a@example.org", "password": "correct horse"}
    for name, why in NAMES_REFUSED.items():
        for answer in (
            await rename(server, a, name),
            await server.http.post("/users", json={**person, "username": name}),
        ):
            assert answer.json()["error"]["code"] == why, ascii(name)
            assert answer.status_code == {"out_of_range": 422, "bad_message": 400}[why]
    for wrong in (None, 5, ["x"], {"a": 1}, True):
        assert code(await rename(server, a, wrong)) == (400, "bad_message")
    raw = b'{"username":"\xff\xfe"}'
    assert (await server.http.patch("/users/me", content=raw, headers=server.bearer(a))).status_code == 400
    lone = b'{"username":"\\ud800"}'
    assert (await server.http.patch("/users/me", content=lone, headers=server.bearer(a))).status_code == 400
    assert await sql.fetch("SELECT username FROM users") == [("player-1",)]
    # What is only strange is a name.
    for name in ("<img src=x onerror=alert(1)>", "Ω≈ç√", "محمد", "א", "👩‍👩‍👧", "می‌خواهم", "' OR 1=1 --", "x" * 64):
        assert (await rename(server, a, name)).status_code == 200, name
        assert (await server.http.get("/users/me", headers=server.bearer(a))).json()["username"] == name
    assert (await server.http.get("/users/me", headers=server.bearer(a))).headers["content-type"] == "application/json"


# Corrections -----------------------------------------------------------------------------------------------------


async def test_points_are_taken_back_and_the_log_keeps_both(
    server: RunningServer, make_users: MakeUsers, sql: asyncpg.Connection
) -> None:
    a, b = await make_users(2)
    client = await server.client()
    await client.subscribe("all_time")
    await submit(server, [(a, 10), (b, 7)])
    await client.shows("all_time", [(a, "player-1", 10), (b, "player-2", 7)])
    row = {"submission_id": "back", "user_id": a, "score_added": -4, "reason": "replayed"}
    for headers, expected in (
        (server.bearer(a), (403, "forbidden")),
        (server.bearer(b), (403, "forbidden")),
        (server.bearer(None, "read"), (403, "forbidden")),
        ({}, (401, "unauthorized")),
    ):
        assert code(await server.http.post("/scores", json=row, headers=headers)) == expected
    taken = await server.http.post("/scores", json=row, headers=server.bearer(None, "submit:any"))
    assert taken.json()["total_score"] == 6
    diffs = client.follower.diffs
    await client.shows("all_time", [(b, "player-2", 7), (a, "player-1", 6)])
    assert client.follower.diffs == diffs + 1, "everybody sees one diff"
    log = (await server.http.get(f"/users/{a}/transactions", headers=server.bearer(a))).json()["transactions"]
    assert [(entry["score_added"], entry["reason"]) for entry in log] == [(-4, "replayed"), (10, None)]


async def test_who_drops_out_of_the_top_and_who_moves_up_are_one_diff(
    server: RunningServer, make_users: MakeUsers
) -> None:
    users = await make_users(102)
    await submit(server, [(user, 1_000 - place) for place, user in enumerate(users)])
    client = await server.client()
    await client.send("watch", board="all_time", user_id=users[0])
    await client.until("rank", lambda message: message["players"] == 102)
    await client.subscribe("all_time")
    before = client.follower.boards["all_time"].version
    await submit(server, [(users[0], -500)], reason="cheated")
    diff = await client.until("diff")
    assert (diff["from"], diff["remove"]) == (before, [users[0]])
    assert diff["upsert"] == [{"user_id": users[100], "username": "player-101", "score": 900}]
    rank = await client.until("rank")
    assert (rank["rank"], rank["score"], rank["to_next"]) == (102, 500, 399)
    last = (await server.http.get(f"/boards/all_time/users/{users[0]}?neighbours=1")).json()
    assert [(line["rank"], line["user_id"]) for line in last["neighbours"]] == [(101, users[101]), (102, users[0])]


async def test_only_an_admin_says_when_and_leaves_a_trace(
    server: RunningServer, ledger: Ledger, make_users: MakeUsers, sql: asyncpg.Connection
) -> None:
    (a,) = await make_users(1)
    row = {"submission_id": "then", "user_id": a, "score_added": 5, "created_at": "2021-01-06T12:00:00Z"}
    for scope in ("submit", "submit:any"):
        assert code(await server.http.post("/scores", json=row, headers=server.bearer(a, scope))) == (403, "forbidden")
    assert await sql.fetchval("SELECT count(*) FROM audit") == 0
    answer = await server.http.post("/scores", json=row, headers=server.bearer(a, ADMIN))
    assert (answer.json()["total_score"], answer.json()["week_score"]) == (5, 5)
    actor, action, user_id, detail = await sql.fetchrow("SELECT actor, action, user_id, detail FROM audit")
    assert (actor, action, user_id) == (f"user:{a}", "correct", a) and "2021-01-06T12:00:00" in detail
    await server.told()
    assert await lines(server, PAST.id) == [(a, "player-1", 5)]
    assert await lines(server, CURRENT_WEEK) == []
    bad = {
        "2021-01-06T12:00:00": "bad_message",  # of which zone?
        "yesterday": "bad_message",
        "1969-12-31T23:59:59Z": "out_of_range",
        "9999-12-31T23:59:59Z": "out_of_range",
        "0001-01-01T00:00:00+14:00": "out_of_range",
        1_610_000_000: "bad_message",
    }
    for moment, why in bad.items():
        body = row | {"submission_id": next_id(), "created_at": moment}
        refused = await server.http.post("/scores", json=body, headers=server.bearer(None, ADMIN))
        assert refused.json()["error"]["code"] == why, moment


async def test_a_log_is_paged_and_one_s_own(server: RunningServer, make_users: MakeUsers) -> None:
    a, b = await make_users(2)
    for start in range(0, 250, 50):
        await submit(server, [(a, 1 + start + number) for number in range(50)])
        await submit(server, [(b, 1)])
    seen: list[int] = []
    query = {"limit": 60}
    while True:
        answer = await server.http.get(f"/users/{a}/transactions", params=query, headers=server.bearer(a))
        part = answer.json()["transactions"]
        if not part:
            break
        seen += [entry["score_added"] for entry in part]
        assert len(part) <= 60
        query["before"] = part[-1]["id"]
    assert len(seen) == 250 and sorted(seen) == list(range(1, 251))
    path = f"/users/{a}/transactions"
    assert (await server.http.get(path, headers=server.bearer(None, ADMIN))).status_code == 200
    assert code(await server.http.get(path, headers=server.bearer(b))) == (403, "forbidden")
    assert code(await server.http.get(path)) == (401, "unauthorized")
    for bad in ("limit=0", "limit=1001", "before=0", "before=99999999999999999999"):
        assert code(await server.http.get(f"{path}?{bad}", headers=server.bearer(a))) == (422, "out_of_range")
    absent = await server.http.get(f"/users/{b + 1}/transactions", headers=server.bearer(None, ADMIN))
    assert code(absent) == (404, "unknown_user")
    for user in ("0", "9223372036854775808", "x", "1 OR 1=1"):
        answer = await server.http.get(f"/users/{user}/transactions", headers=server.bearer(None, ADMIN))
        assert answer.status_code in (400, 422), user


# Bans ------------------------------------------------------------------------------------------------------------


async def test_a_ban_hides_and_refuses_and_is_lifted_without_loss(
    server: RunningServer, ledger: Ledger, make_users: MakeUsers, sql: asyncpg.Connection
) -> None:
    a, b = await make_users(2)
    await submit(server, [(a, 10), (b, 5)])
    await submit(server, [(a, 2), (b, 1)], PAST.starts)
    week = week_at(server.services.clock.now()).id
    client = await server.client()
    for name in ("all_time", CURRENT_WEEK, PAST.id):
        await client.subscribe(name)
    both = {
        "all_time": [(a, "player-1", 12), (b, "player-2", 6)],
        week: [(a, "player-1", 10), (b, "player-2", 5)],
        PAST.id: [(a, "player-1", 2), (b, "player-2", 1)],
    }
    for name, shown in both.items():
        await client.shows(name, shown)
    path, admin = f"/users/{a}/ban", server.bearer(b, ADMIN)
    assert code(await server.http.post(path, headers=server.bearer(a))) == (403, "forbidden")
    assert code(await server.http.post(path)) == (401, "unauthorized")
    assert code(await server.http.post("/users/4711/ban", headers=admin)) == (404, "unknown_user")
    for _ in range(2):  # again: the same
        answer = await server.http.post(path, headers=admin, json={"reason": "bot"})
        assert answer.json() == {"user_id": a, "banned": True}
    for name, shown in both.items():
        await client.shows(name, shown[1:])
        page = (await server.http.get(f"/boards/{name}")).json()
        assert (page["players"], [entry["rank"] for entry in page["entries"]]) == (1, [1])
        assert code(await server.http.get(f"/boards/{name}/users/{a}")) == (404, "unknown_user")
        neighbours = (await server.http.get(f"/boards/{name}/users/{b}")).json()["neighbours"]
        assert [line["user_id"] for line in neighbours] == [b]
    await client.send("watch", board=PAST.id, user_id=a)
    assert (await client.until("rank"))["rank"] is None
    (refused,) = await submit(server, [(a, 1)])
    assert (refused["type"], refused["code"]) == ("rejected", "forbidden")
    assert (await server.http.get("/users/me", headers=server.bearer(a))).json()["banned"] is True
    answer = await server.http.delete(path, headers=admin)
    assert answer.json() == {"user_id": a, "banned": False}
    for name, shown in both.items():
        await client.shows(name, shown)
    (accepted,) = await submit(server, [(a, 1)])
    assert accepted["total_score"] == 13
    audit = await sql.fetch("SELECT actor, action, user_id, detail::text FROM audit WHERE action IN ('ban', 'unban')")
    assert [tuple(row) for row in audit] == [
        (f"user:{b}", "ban", a, '{"reason": "bot"}'),  # once: the second changed nothing
        (f"user:{b}", "unban", a, "{}"),
    ]


# Leaving ---------------------------------------------------------------------------------------------------------


async def test_who_leaves_is_gone_and_others_keep_what_is_theirs(
    server: RunningServer, ledger: Ledger, sql: asyncpg.Connection, keys: Any
) -> None:
    ids = []
    for name in ("ada", "bob"):
        person = {"email": f"{name}@example.org", "password": "correct horse", "username": name}
        ids.append((await server.http.post("/users", json=person)).json()["user_id"])
    a, b = ids
    await submit(server, [(a, 10), (b, 5)])
    await submit(server, [(a, 3), (b, 1)], PAST.starts)
    client = await server.client()
    for name in ("all_time", CURRENT_WEEK, PAST.id):
        await client.subscribe(name)
    await client.shows("all_time", [(a, "ada", 13), (b, "bob", 6)])
    await client.shows(PAST.id, [(a, "ada", 3), (b, "bob", 1)])
    headers = server.bearer(a)
    for _ in range(3):  # it can be repeated
        assert (await server.http.delete("/users/me", headers=headers)).status_code == 204
    await client.shows("all_time", [(b, "bob", 6)])
    await client.shows(week_at(server.services.clock.now()).id, [(b, "bob", 5)])
    await client.shows(PAST.id, [(b, "bob", 1)])
    assert code(await server.http.get("/users/me", headers=headers)) == (404, "unknown_user")
    assert code(await rename(server, a, "ada")) == (404, "unknown_user")
    signing_in = {"email": "ada@example.org", "password": "correct horse"}
    assert code(await server.http.post("/sessions", json=signing_in)) == (401, "unauthorized")
    for method in ("POST", "DELETE"):
        unban = await server.http.request(method, f"/users/{a}/ban", headers=server.bearer(None, ADMIN))
        assert code(unban) == (404, "unknown_user")
    (refused,) = await submit(server, [(a, 1)])
    assert refused["code"] == "unknown_user"
    row = await sql.fetchrow("SELECT email, password_hash, username, deleted_at FROM users WHERE id = $1", a)
    assert (row["email"], row["password_hash"], row["username"]) == (None, None, "deleted")
    assert await keys.hget(f"leaderboard:users:{a}", "username") == "deleted"
    everything = [value for key in await keys.keys("leaderboard:cache_top_100:*") for value in [await keys.get(key)]]
    assert "ada" not in "".join(everything)
    assert await sql.fetchval("SELECT sum(score_added) FROM user_score_transactions WHERE user_id = $1", b) == 6
    # The address is free again; who takes it is somebody else.
    person = {"email": "ada@example.org", "password": "correct horse", "username": "ada"}
    assert (await server.http.post("/users", json=person)).json()["user_id"] not in ids
    assert code(await server.http.delete("/users/me", headers=server.bearer(4711))) == (404, "unknown_user")
    assert await sql.fetchval("SELECT count(*) FROM user_total_scores WHERE user_id = 4711") == 0


class Racing:
    """One user's total, locked, so that what comes waits in the order in which it came."""

    def __init__(self, sql: asyncpg.Connection) -> None:
        self._sql = sql
        self._tasks: list[asyncio.Task[Any]] = []

    async def run(self, user_id: int, *works: Callable[[], Awaitable[Any]]) -> list[Any]:
        """Starts each work when the one before it waits, then lets all go; gives their results."""
        async with self._sql.transaction():
            await self._sql.execute("SELECT 1 FROM user_total_scores WHERE user_id = $1 FOR UPDATE", user_id)
            for number, work in enumerate(works, 1):
                self._tasks.append(asyncio.ensure_future(work()))
                await eventually(lambda number=number: self._waiting(number))  # type: ignore[misc]
        return await asyncio.gather(*self._tasks)

    async def _waiting(self, number: int) -> bool:
        return bool(await self._sql.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted") >= number)


@pytest.mark.parametrize("deleted_first", [False, True])
@pytest.mark.parametrize("ends_with", ["delete", "ban"])
async def test_a_late_batch_brings_nobody_back(
    ledger: Ledger, store: Store, dsn: str, make_users: MakeUsers, sql: asyncpg.Connection, keys: Any,
    deleted_first: bool, ends_with: str,
) -> None:  # fmt: skip
    a, b = await make_users(2)
    resync = Resync(ledger, store, ledger.clock.now)
    passwords = Passwords()
    accounts = Accounts(ledger, resync, passwords)
    recorder = Recorder(ledger)

    async def record(*users: int) -> Any:
        recorded = await recorder.record([Submission(user, next_id(), 10, None, None) for user in users])
        await store.tell(recorded.live_rows(ledger.clock.now()), recorded.profiles)
        return recorded.outcomes

    async def end() -> None:
        if ends_with == "delete":
            await accounts.delete(a, actor=f"user:{a}")
        else:
            await accounts.ban(a, actor="admin", reason=None)

    try:
        await record(a, b)
        batch = lambda: record(a, b)  # noqa: E731
        await Racing(sql).run(a, *((end, batch) if deleted_first else (batch, end)))
    finally:
        passwords.close()
    assert await keys.zscore(scores_key(ALL_TIME), a) is None
    assert await keys.zscore(scores_key(ALL_TIME), b) == 20
    week = week_at(ledger.clock.now())
    assert await keys.zscore(scores_key(week), a) is None and await keys.zscore(scores_key(week), b) == 20
    # Nor does anything that is told again afterwards, in any order: a resync, another batch, a rebuild from rows.
    await resync.users([a, b])
    ((_, refused),) = await record(a)
    assert isinstance(refused, Rejected) and refused.code == ("unknown_user" if ends_with == "delete" else "forbidden")
    assert await keys.zrange(scores_key(ALL_TIME), 0, -1) == [str(b)]


async def test_a_batch_that_reaches_the_store_after_the_deletion_brings_nobody_back(
    ledger: Ledger, store: Store, make_users: MakeUsers, keys: Any
) -> None:
    a, b = await make_users(2)
    passwords = Passwords()
    accounts = Accounts(ledger, Resync(ledger, store, ledger.clock.now), passwords)
    recorded = await Recorder(ledger).record([Submission(user, next_id(), 10, None, None) for user in (a, b)])
    try:
        await accounts.delete(a, actor=f"user:{a}")
    finally:
        passwords.close()
    await store.tell(recorded.live_rows(ledger.clock.now()), recorded.profiles)
    for board in live_boards(ledger.clock.now())[:2]:
        assert await keys.zrange(scores_key(board), 0, -1) == [str(b)]
    assert await keys.hget(f"leaderboard:users:{a}", "username") == "deleted"


async def test_a_lifted_ban_and_a_deletion_that_race_end_with_the_deletion(
    ledger: Ledger, store: Store, make_users: MakeUsers, sql: asyncpg.Connection, keys: Any
) -> None:
    (a,) = await make_users(1)
    await Recorder(ledger).record([Submission(a, next_id(), 10, None, None)])
    passwords = Passwords()
    accounts = Accounts(ledger, Resync(ledger, store, ledger.clock.now), passwords)

    async def delete() -> None:
        await accounts.delete(a, actor="admin")

    async def lift() -> str:
        try:
            await accounts.unban(a, actor="admin", reason=None)
        except Exception as error:
            return str(error)
        return ""

    try:
        await accounts.ban(a, actor="admin", reason=None)
        _, refusal = await Racing(sql).run(a, delete, lift)
    finally:
        passwords.close()
    assert "no such user" in refusal
    assert await sql.fetchval("SELECT hidden FROM user_total_scores WHERE user_id = $1", a) is True
    assert await keys.zscore(scores_key(ALL_TIME), a) is None


async def test_people_in_the_same_weeks_change_at_once_without_a_deadlock(
    server: RunningServer, ledger: Ledger, make_users: MakeUsers
) -> None:
    users = await make_users(8)
    weeks = [week_of(PAST.starts.date() + timedelta(weeks=number)) for number in range(12)]
    for week in weeks:
        await submit(server, [(user, 5) for user in random.sample(users, len(users))], week.starts)
    await amended(server, ledger)
    for week in weeks:
        await server.http.get(f"/boards/{week.id}")
    admin = server.bearer(None, ADMIN)
    for round_ in range(5):
        works: list[Awaitable[httpx.Response]] = [rename(server, user, f"name {user} {round_}") for user in users]
        for user in users:
            works.append(server.http.request("DELETE" if round_ % 2 else "POST", f"/users/{user}/ban", headers=admin))
        random.shuffle(works)
        assert {answer.status_code for answer in await asyncio.gather(*works)} == {200}
    shown = sorted(users, key=str, reverse=True)
    for user in users:
        await server.http.delete(f"/users/{user}/ban", headers=admin)
    for week in weeks:
        assert await lines(server, week.id) == [(user, f"name {user} 4", 5) for user in shown]


async def test_who_leaves_during_an_import_stays_away(
    ledger: Ledger, store: Store, sql: asyncpg.Connection, keys: Any
) -> None:
    rows = [
        f"event-{number},dev-{number % 7},{1 + number % 5},commit,{moment:%Y-%m-%dT%H:%M:%SZ}"
        for number in range(6_000)
        for moment in [datetime(2021, 1, 1, tzinfo=UTC) + timedelta(minutes=7 * number)]
    ]
    text = "\n".join(["submission_id,username,score_added,reason,created_at", *rows, ""])
    views = views_of(ledger, store)
    passwords = Passwords()
    accounts = Accounts(ledger, Resync(ledger, store, ledger.clock.now), passwords)
    bad: list[Any] = []
    leaving: list[asyncio.Task[None]] = []
    gone = 0

    async def leave() -> None:
        await accounts.delete(gone, actor=f"user:{gone}")

    importer = Importer(ledger, store, views, ledger.clock.now, bad.append)

    def after_a_batch() -> None:
        if importer.summary.read == 2_000:
            leaving.append(asyncio.ensure_future(leave()))

    try:
        await importer.run(iter([]))
        await Importer(ledger, store, views, ledger.clock.now, bad.append).run(_file(text, 1_000))
        gone = await sql.fetchval("SELECT id FROM users WHERE username = 'dev-3'")
        await views.archive.snapshot(week_of(date(2021, 1, 4)))
        await importer.run(_file(text), after_a_batch)
        await asyncio.gather(*leaving)
        await importer.settle()
    finally:
        passwords.close()
    assert len(leaving) == 1 and bad and all("deleted" in row.cause for row in bad)
    assert await keys.zscore(scores_key(ALL_TIME), gone) is None
    assert await keys.zcard(scores_key(ALL_TIME)) == 6
    for (week,) in await sql.fetch("SELECT DISTINCT week FROM user_weekly_scores"):
        page = await views.archive.page(week_of(week), 0, 1_000)
        assert page.players == 6 and gone not in [line.user_id for line in page.lines]
    others = await sql.fetchval("SELECT sum(score_added) FROM user_score_transactions WHERE user_id <> $1", gone)
    assert others == sum(1 + number % 5 for number in range(6_000) if number % 7 != 3)
    # Importing all of it again changes nothing, and brings nobody back.
    again = Importer(ledger, store, views, ledger.clock.now, lambda row: None)
    await again.run(_file(text))
    await again.settle()
    assert again.summary.new == 0 and await keys.zscore(scores_key(ALL_TIME), gone) is None
    assert await sql.fetchval("SELECT count(*) FROM users WHERE username IN ('dev-3', 'deleted')") == 1


def _file(text: str, rows: int | None = None) -> Any:
    lines = text.encode().splitlines(keepends=True)
    return score_file.rows(io.BytesIO(b"".join(lines if rows is None else lines[: rows + 1])))


# Bad input -------------------------------------------------------------------------------------------------------


async def test_ids_and_scores_beyond_their_range_are_refused(
    server: RunningServer, make_users: MakeUsers, sql: asyncpg.Connection
) -> None:
    (a,) = await make_users(1)
    client = await server.client(server.token(None, ADMIN))
    await client.until("authenticated")
    cases: list[tuple[dict[str, Any], str]] = [
        ({"user_id": 2**53}, "out_of_range"),
        ({"user_id": 2**63}, "out_of_range"),
        ({"user_id": 10**30}, "out_of_range"),
        ({"user_id": 0}, "out_of_range"),
        ({"user_id": -1}, "out_of_range"),
        ({"user_id": "1"}, "bad_message"),
        ({"user_id": 1.5}, "bad_message"),
        ({"user_id": 4711}, "unknown_user"),
        ({"score_added": 2**31}, "out_of_range"),
        ({"score_added": -(2**31) - 1}, "out_of_range"),
        ({"score_added": True}, "bad_message"),
        ({"score_added": "5"}, "bad_message"),
        ({"submission_id": ""}, "out_of_range"),
        ({"submission_id": "x" * 65}, "out_of_range"),
        ({"submission_id": "a\x00b"}, "bad_message"),
        ({"reason": "x" * 256}, "out_of_range"),
        ({"reason": "\x00"}, "bad_message"),
        ({"reason": 5}, "bad_message"),
    ]
    for changed, why in cases:
        row = {"submission_id": next_id(), "user_id": a, "score_added": 1, **changed}
        answer = await server.http.post("/scores", json=row, headers=server.bearer(None, ADMIN))
        assert answer.json()["error"]["code"] == why, changed
        await client.send("submit", **row)
        assert (await client.until("rejected"))["code"] == why, changed
    assert await sql.fetchval("SELECT count(*) FROM user_score_transactions") == 0


async def test_strange_text_is_kept_as_it_came_and_is_only_text(server: RunningServer, make_users: MakeUsers) -> None:
    (a,) = await make_users(1)
    reasons = ["'; DROP TABLE users; --", "<script>alert(1)</script>", "\u202edrow", "%s %d {0} ${x}", "🏆" * 255]
    for reason in reasons:
        (outcome,) = await submit(server, [(a, 1)], reason=reason)
        assert outcome["type"] == "accepted"
    answer = await server.http.get(f"/users/{a}/transactions", headers=server.bearer(a))
    assert [entry["reason"] for entry in answer.json()["transactions"]] == reasons[::-1]
    assert answer.headers["content-type"] == "application/json"
