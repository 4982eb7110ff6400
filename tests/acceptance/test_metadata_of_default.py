"""Metadata on the boards of `default`: those of all time and of the weeks show it as any other leaderboard's do.

What must be shown is computed from the log: of each player and window the metadata of the last submission, by moment
and id. Everything is read as people read it, and compared with the same boards as they were before.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import asyncpg
import orjson
import pytest

from realtime.boards.board import ALL_TIME, week_at
from realtime.cli import maintenance
from realtime.repair.comparison import Comparison
from realtime.server.backends import open_backends
from realtime.store.audit import Audit
from tests.support.clients import Client
from tests.support.databases import MakeUsers
from tests.support.servers import RunningServer, running_server
from tests.support.waiting import eventually

NOW = datetime.now(UTC)
LONG_AGO = week_at(NOW - timedelta(days=14)).starts + timedelta(days=3)
CLOSED = week_at(LONG_AGO).id
_numbers = count(1)


@pytest.fixture
async def server(dsn: str, store_url: str, caplog: pytest.LogCaptureFixture) -> AsyncIterator[RunningServer]:
    """A server in which nothing had to be mended in the end: what is looked for later would hide what went wrong."""
    async with running_server(dsn, store_url) as running:
        yield running
    assert not [record.getMessage() for record in caplog.records if "rows that differ" in record.getMessage()]


async def define(server: RunningServer, **fields: Any) -> None:
    """Defines `default`; what that makes anew is shown when this returns."""
    admin = server.bearer(None, "admin")
    answer = await server.http.put("/leaderboards/default", json=fields, headers=admin)
    assert answer.status_code == 200, answer.text
    while answer.json()["state"] != "live":
        answer = await server.http.get("/leaderboards/default", headers=admin)
    await server.services.leaderboards.look()


async def submit(
    server: RunningServer, user: int, points: int, car: str | None = None, **fields: Any
) -> dict[str, Any]:
    """A submission; `at` is when it was made."""
    row: dict[str, Any] = {"submission_id": f"s{next(_numbers)}", "user_id": user, "score_added": points, **fields}
    if car is not None:
        row["metadata"] = {"car": car}
    if "at" in row:
        row["created_at"] = row.pop("at").isoformat()
    answer = await server.http.post("/scores", json=row, headers=server.bearer(None, "submit:any", "admin"))
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


_BOARD = """
SELECT rank() OVER (ORDER BY score DESC) AS rank, user_id, score, metadata FROM (
    SELECT t.user_id, sum(t.score_added)::bigint AS score,
           (array_agg(t.metadata::text ORDER BY t.created_at DESC, t.id DESC))[1] AS metadata
    FROM user_score_transactions t JOIN users u ON u.id = t.user_id
    WHERE u.deleted_at IS NULL AND NOT EXISTS (SELECT FROM bans b WHERE b.user_id = t.user_id)
          AND $1 IN ('all_time', to_char(date_trunc('week', t.created_at AT TIME ZONE 'UTC'), '"week_of_"YYYY_MM_DD'))
    GROUP BY t.user_id
) AS summed ORDER BY score DESC, user_id::text COLLATE "C" DESC
"""

Lines = list[tuple[int, int, int, Any]]
"""Rank, user, score and metadata."""


async def expected(sql: asyncpg.Connection, board: str) -> Lines:
    """A board as the log has it."""
    rows = await sql.fetch(_BOARD, board)
    return [(r["rank"], r["user_id"], r["score"], r["metadata"] and orjson.loads(r["metadata"])) for r in rows]


def lines(entries: list[dict[str, Any]]) -> Lines:
    return [(entry["rank"], entry["user_id"], entry["score"], entry["metadata"]) for entry in entries]


async def page(server: RunningServer, board: str, **query: Any) -> dict[str, Any]:
    answer = await server.http.get(f"/boards/{board}", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


async def agree(server: RunningServer, sql: asyncpg.Connection) -> None:
    """Every board is the log's: as a page, from further down, around a user, and to a follower who comes now."""
    await server.told()
    for board in ("all_time", week_at(NOW).id, week_at(NOW - timedelta(days=7)).id, CLOSED):
        truth = await expected(sql, board)

        async def is_shown(board: str = board, truth: Lines = truth) -> bool:
            return lines((await page(server, board))["entries"]) == truth

        await eventually(is_shown)
        assert lines((await page(server, board, offset=1))["entries"]) == truth[1:]
        for _, user, score, metadata in truth[:2]:
            user_page = (await server.http.get(f"/boards/{board}/users/{user}")).json()
            assert user_page["score"] == score and lines(user_page["neighbours"]) == truth
            assert metadata == next(row[3] for row in truth if row[1] == user)
        client = await server.client()
        await client.send("subscribe", board=board)
        snapshot = await client.until("snapshot")
        assert [(e["user_id"], e["score"], e["metadata"]) for e in snapshot["entries"]] == [row[1:] for row in truth]
        await client.aclose()


async def followed(client: Client, board: str) -> dict[int, Any]:
    """Metadata by user of the board's next snapshot."""
    snapshot = await client.until("snapshot", lambda message: message["board"] == board)
    return {entry["user_id"]: entry["metadata"] for entry in snapshot["entries"]}


async def test_what_was_handed_in_before_is_shown_too_and_stays_right_whatever_is_amended(
    server: RunningServer, make_users: MakeUsers, sql: asyncpg.Connection
) -> None:
    a, b, c = await make_users(3)
    for at in (LONG_AGO, NOW - timedelta(days=7), NOW):
        await submit(server, a, 10, "gt", at=at)
        await submit(server, b, 20, at=at)
    await page(server, CLOSED)
    for hours in range(1, 7):  # each moves the version of the week's view
        await submit(server, a, 1, "f1", at=LONG_AGO - timedelta(hours=hours))
        await eventually(lambda score=10 + hours: scored(server, CLOSED, a, score))
    await server.told()
    before = {board: await page(server, board) for board in ("all_time", CLOSED)}
    assert all("metadata" not in entry for entry in before["all_time"]["entries"])
    client = await server.client()
    await client.subscribe("all_time")
    closed_client = await server.client()
    await closed_client.subscribe(CLOSED)

    await define(server, metadata=True)
    assert await followed(client, "all_time") == {a: {"car": "gt"}, b: None}
    assert await followed(closed_client, CLOSED) == {a: {"car": "gt"}, b: None}
    await agree(server, sql)
    for board, shown in before.items():
        now = await page(server, board)
        assert (now["epoch"], now["players"]) == (shown["epoch"], shown["players"])
        assert now["version"] > shown["version"], "one version stands for one content"

    # Only what is shown beside a score changes: a diff all the same. Points, and who is new, as before.
    await submit(server, b, 0, "kart")
    diff = await client.until("diff")
    assert [(line["user_id"], line["score"], line["metadata"]) for line in diff["upsert"]] == [(b, 60, {"car": "kart"})]
    accepted = await submit(server, c, 5, "bike")
    assert (accepted["total_score"], accepted["week_score"]) == (5, 5) and "scores" not in accepted
    diff = await client.until("diff")
    assert [line["user_id"] for line in diff["upsert"]] == [c] and diff["upsert"][0]["metadata"] == {"car": "bike"}
    await submit(server, a, 1)
    diff = await client.until("diff")
    assert [(line["user_id"], line["metadata"]) for line in diff["upsert"]] == [(a, None)]
    await agree(server, sql)

    # A correction of the past is the last of its week or is not, and never of all time.
    await submit(server, a, -2, "van", at=LONG_AGO + timedelta(minutes=1))
    diff = await closed_client.until("diff")
    assert [(line["user_id"], line["metadata"]) for line in diff["upsert"]] == [(a, {"car": "van"})]
    await submit(server, b, 3, "tram", at=LONG_AGO - timedelta(hours=2))
    await agree(server, sql)

    admin = server.bearer(None, "admin")
    assert (await server.http.post(f"/users/{b}/ban", json={}, headers=admin)).status_code < 300
    await agree(server, sql)
    assert (await server.http.delete(f"/users/{b}/ban", headers=admin)).status_code < 300
    await agree(server, sql)
    renamed = await server.http.patch("/users/me", json={"username": "Zoë"}, headers=server.bearer(a))
    assert renamed.status_code == 200
    await client.until("diff", lambda message: any(line.get("username") == "Zoë" for line in message["upsert"]))
    for board in ("all_time", CLOSED):
        await eventually(lambda board=board: named(server, board, a, "Zoë"))
    assert (await server.http.delete("/users/me", headers=server.bearer(a))).status_code < 300
    await agree(server, sql)

    # Operators see nothing wrong, and content that is made anew is the same.
    said: list[str] = []
    assert await maintenance.compare(server.services.settings, said.append), said
    assert any(line.startswith("default, log: every score made anew, 0 ") for line in said)
    epoch = (await page(server, "all_time"))["epoch"]
    async with open_backends(server.services.settings) as backends:
        # Who looks for drift and has not heard of the change compares nothing.
        await backends.store.adopt()
        comparison = Comparison(backends.ledger, Audit(backends.store), backends.ledger.clock.now)
        assert await comparison.suspects(ALL_TIME, [b]) == [b] and await comparison.confirmed(ALL_TIME, [b]) == []
        # And who reads the week's view takes what is kept of the board for nothing of its own.
        of_view, _ = await backends.archive.snapshot(week_at(LONG_AGO))
        versions = await backends.archive.versions([week_at(LONG_AGO)])
        assert of_view.version == versions[week_at(LONG_AGO)] < (await page(server, CLOSED))["version"]
        assert await backends.rebuilder.rebuild(force=True)
    await agree(server, sql)
    assert (await page(server, "all_time"))["epoch"] != epoch

    # The published tables, and the views of weeks, go on.
    totals = await sql.fetch("SELECT user_id, total_score FROM user_total_scores WHERE NOT hidden ORDER BY 1")
    assert [tuple(row) for row in totals] == sorted(row[1:3] for row in await expected(sql, "all_time"))


async def scored(server: RunningServer, board: str, user: int, score: int) -> bool:
    return any((e["user_id"], e["score"]) == (user, score) for e in (await page(server, board))["entries"])


async def named(server: RunningServer, board: str, user: int, name: str) -> bool:
    return any(e["user_id"] == user and e["username"] == name for e in (await page(server, board))["entries"])


async def test_off_is_at_once_and_on_again_is_what_was_handed_in_meanwhile(
    server: RunningServer, make_users: MakeUsers, sql: asyncpg.Connection
) -> None:
    a, b = await make_users(2)
    await define(server, metadata=True)
    await submit(server, a, 10, "gt")
    await submit(server, a, 10, "gt", at=LONG_AGO)
    await agree(server, sql)
    client = await server.client()
    await client.subscribe("current_week")
    await define(server)
    snapshot = await client.until("snapshot")
    assert [(entry["user_id"], entry["score"]) for entry in snapshot["entries"]] == [(a, 10)]
    assert "metadata" not in snapshot["entries"][0]
    for board in ("all_time", "current_week", CLOSED):
        assert [entry["metadata"] for entry in (await page(server, board))["entries"]] == [None]
    await submit(server, b, 7, "f1")
    await submit(server, b, 7, "f1", at=LONG_AGO)
    assert "metadata" not in (await client.until("diff"))["upsert"][0]
    said: list[str] = []
    assert await maintenance.compare(server.services.settings, said.append), said
    assert any(line.startswith("default, log: every score made anew, 0 ") for line in said)
    await define(server, windows=["day"])  # made anew, and still by no tables that lack what comes back
    await submit(server, b, 7, "van", at=LONG_AGO - timedelta(hours=1))
    await define(server, windows=["day"], metadata=True)
    await agree(server, sql)


async def test_followers_go_on_into_the_next_week(server: RunningServer, make_users: MakeUsers) -> None:
    (a,) = await make_users(1)
    await define(server, metadata=True)
    client = await server.client()
    answer = await client.subscribe("current_week", describe=True)
    assert answer["leaderboard"]["slug"] == "default" and answer["window"]["kind"] == "week"
    await submit(server, a, 10, "gt")
    assert (await client.until("diff"))["upsert"][0]["metadata"] == {"car": "gt"}
    server.travel(week_at(NOW).ends)  # type: ignore[arg-type]
    moved = await client.until("rollover")
    assert (moved["from"], moved["to"]) == (week_at(NOW).id, week_at(NOW + timedelta(days=7)).id)
    assert (await client.until("snapshot"))["board"] == moved["to"]
    assert lines((await page(server, moved["from"]))["entries"]) == [(1, a, 10, {"car": "gt"})]
    server.travel(week_at(NOW).ends + timedelta(seconds=121))  # type: ignore[operator]
    assert lines((await page(server, "previous_week"))["entries"]) == [(1, a, 10, {"car": "gt"})]
