"""Following boards of any leaderboard: what they are described by, and what happens as windows end and rules change."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from itertools import count
from typing import Any

import pytest

from tests.support.clients import Client
from tests.support.databases import MakeUsers
from tests.support.servers import RunningServer, running_server

LAP: dict[str, Any] = {
    "title": "Fastest lap",
    "operator": "best",
    "order": "ascending",
    "windows": ["all_time", "day"],
    "zone": "Europe/Berlin",
    "ties": "first",
    "format": {"kind": "duration", "unit": "ms"},
    "metadata": True,
}
_numbers = count(1)


@pytest.fixture
async def server(dsn: str, store_url: str) -> AsyncIterator[RunningServer]:
    async with running_server(dsn, store_url) as running:
        yield running


async def define(server: RunningServer, slug: str, definition: dict[str, Any]) -> None:
    """Defines a leaderboard; it is shown when this returns."""
    answer = await server.http.put(f"/leaderboards/{slug}", json=definition, headers=server.bearer(None, "admin"))
    assert answer.status_code in (200, 201), answer.text
    while answer.json()["state"] != "live":
        answer = await server.http.get(f"/leaderboards/{slug}", headers=server.bearer(None, "admin"))
    await server.services.leaderboards.look()


async def submit(server: RunningServer, slug: str, user: int, **fields: Any) -> dict[str, Any]:
    row = {"leaderboard": slug, "submission_id": f"s{next(_numbers)}", "user_id": user, **fields}
    answer = await server.http.post("/scores", json=row, headers=server.bearer(None, "submit:any"))
    return answer.json()  # type: ignore[no-any-return]


async def board(client: Client, name: str) -> list[tuple[Any, ...]]:
    """Rows of the next snapshot of a board."""
    message = await client.until("snapshot", lambda message: message["board"] == name)
    return [(entry["user_id"], entry["score"], entry.get("metadata")) for entry in message["entries"]]


async def test_a_board_is_described_and_its_changes_come_as_diffs_in_its_order(
    server: RunningServer, make_users: MakeUsers
) -> None:
    a, b = await make_users(2)
    await define(server, "lap", LAP)
    client = await server.client()
    await client.send("subscribe", board="lap:current_day")
    said = await client.until("subscribed")
    assert said["as"] == "lap:current_day" and said["board"].startswith("lap:day_of_")
    assert said["leaderboard"] == {
        "slug": "lap", "title": "Fastest lap", "order": "ascending", "ties": "first", "ranks": "competition",
        "format": {"kind": "duration", "unit": "ms"},
    }  # fmt: skip
    starts, ends = (datetime.fromisoformat(said["window"][name]) for name in ("starts", "ends"))
    assert said["window"]["kind"] == "day" and timedelta(hours=23) <= ends - starts <= timedelta(hours=25)
    assert await board(client, said["board"]) == []

    accepted = await submit(server, "lap", a, score=62_345, metadata={"car": "gt"})
    assert accepted["scores"] == {"lap:all_time": 62_345, said["board"]: 62_345} and accepted["improved"]
    diff = await client.until("diff")
    assert [(line["user_id"], line["score"], line["metadata"]) for line in diff["upsert"]] == [
        (a, 62_345, {"car": "gt"})
    ]
    await submit(server, "lap", b, score=62_345)
    diff = await client.until("diff")
    assert [line["user_id"] for line in diff["upsert"]] == [b] and diff["upsert"][0]["metadata"] is None
    assert not (await submit(server, "lap", a, score=70_000))["improved"]
    page = (await server.http.get(f"/boards/{said['board']}")).json()
    assert [(line["rank"], line["user_id"], line["score"]) for line in page["entries"]] == [
        (1, a, 62_345),
        (1, b, 62_345),
    ], "who got there first stands higher"


async def test_every_alias_moves_on_when_its_window_ends(server: RunningServer, make_users: MakeUsers) -> None:
    (a,) = await make_users(1)
    await define(server, "lap", LAP)
    client = await server.client()
    await client.send("subscribe", board="lap:current_day")
    before = await client.until("subscribed")
    await submit(server, "lap", a, score=62_345)
    await client.until("diff")
    server.travel(datetime.fromisoformat(before["window"]["ends"]))
    moved = await client.until("rollover")
    assert (moved["as"], moved["from"]) == ("lap:current_day", before["board"]) and moved["to"] > before["board"]
    described = await client.until("subscribed")
    assert described["board"] == moved["to"] and described["window"]["starts"] == before["window"]["ends"]
    assert await board(client, moved["to"]) == []


async def test_between_two_seasons_an_alias_stands_for_nothing_until_the_next_begins(
    server: RunningServer, make_users: MakeUsers
) -> None:
    now = server.services.clock.now()
    seasons = [
        {"id": name, "starts": str(now + timedelta(days=first)), "ends": str(now + timedelta(days=last))}
        for name, first, last in (("one", -1, 10), ("two", 20, 30))
    ]
    await define(server, "cup", {"operator": "sum", "windows": ["season"], "seasons": seasons})
    client = await server.client()
    await client.send("subscribe", board="cup:current_season")
    assert (await client.until("subscribed"))["board"] == "cup:season_one"
    await client.until("snapshot")
    server.travel(now + timedelta(days=11))
    ended = await client.until("rollover")
    assert (ended["from"], ended["to"]) == ("cup:season_one", None)
    refused = await (await server.client()).ask("subscribe", board="cup:current_season")
    assert (refused["type"], refused["code"]) == ("error", "unknown_board")
    server.travel(now + timedelta(days=21))
    begun = await client.until("rollover")
    assert begun["to"] == "cup:season_two"
    assert await board(client, "cup:season_two") == []


async def test_a_changed_order_is_told_with_a_snapshot_and_a_changed_rule_as_one_change(
    server: RunningServer, make_users: MakeUsers
) -> None:
    a, b = await make_users(2)
    await define(server, "lap", LAP)
    client, behind = await server.client(), await server.client()
    for one in (client, behind):
        await one.send("subscribe", board="lap:all_time")
        await one.until("snapshot")
    for user, score in ((a, 100), (b, 200), (a, 300)):
        await submit(server, "lap", user, score=score)
    await server.told()
    await client.settled()
    await define(server, "lap", LAP | {"order": "descending"})
    said = await client.until("subscribed")
    assert said["leaderboard"]["order"] == "descending" and not said["resumed"]
    assert [row[:2] for row in await board(client, "lap:all_time")] == [(a, 300), (b, 200)]
    assert [row[:2] for row in await board(behind, "lap:all_time")] == [(a, 300), (b, 200)]

    await define(server, "lap", LAP | {"order": "descending", "operator": "last"})
    await submit(server, "lap", b, score=150)
    await server.told()
    page = (await server.http.get("/boards/lap:all_time")).json()
    assert [(line["user_id"], line["score"]) for line in page["entries"]] == [(a, 300), (b, 150)]


async def test_a_removed_leaderboard_ends_for_its_followers_and_comes_back_from_its_log(
    server: RunningServer, make_users: MakeUsers
) -> None:
    (a,) = await make_users(1)
    await define(server, "lap", LAP)
    await submit(server, "lap", a, score=5_000)
    client = await server.client()
    await client.send("subscribe", board="lap:all_time")
    await client.until("snapshot")
    answer = await server.http.delete("/leaderboards/lap", headers=server.bearer(None, "admin"))
    assert answer.status_code in (200, 204), answer.text
    ended = await client.until("unsubscribed")
    assert ended["board"] == "lap:all_time"
    assert (await server.http.get("/boards/lap:all_time")).json()["error"]["code"] == "unknown_board"
    assert (await submit(server, "lap", a, score=1))["error"]["code"] == "unknown_leaderboard"
    await define(server, "lap", LAP)
    page = (await server.http.get("/boards/lap:all_time")).json()
    assert [(line["user_id"], line["score"]) for line in page["entries"]] == [(a, 5_000)]


async def test_a_watched_rank_is_told_in_the_sense_of_the_board(server: RunningServer, make_users: MakeUsers) -> None:
    a, b = await make_users(2)
    await define(server, "lap", LAP)
    await submit(server, "lap", a, score=60_000)
    await submit(server, "lap", b, score=61_500)
    await server.told()
    client = await server.client()
    rank = await client.ask("watch", board="lap:current_day", user_id=b)
    assert (rank["rank"], rank["score"], rank["players"], rank["to_next"]) == (2, 61_500, 2, 1_500)
    await submit(server, "lap", b, score=59_000)
    rank = await client.until("rank")
    assert (rank["rank"], rank["to_next"]) == (1, None)


async def test_a_log_of_another_leaderboard_is_read_and_a_private_one_shows_nothing(
    server: RunningServer, make_users: MakeUsers
) -> None:
    (a,) = await make_users(1)
    await define(server, "lap", LAP | {"visible": "private"})
    await submit(server, "lap", a, score=5_000)
    log = (
        await server.http.get(f"/users/{a}/transactions?leaderboard=lap", headers=server.bearer(None, "admin"))
    ).json()
    assert [(row["leaderboard"], row["score"]) for row in log["transactions"]] == [("lap", 5_000)]
    assert (await server.http.get(f"/users/{a}/transactions", headers=server.bearer(None, "admin"))).json() == {
        "user_id": a,
        "transactions": [],
    }
    for path in ("/boards/lap:all_time", "/boards?leaderboard=lap", f"/boards/lap:all_time/users/{a}"):
        assert (await server.http.get(path)).status_code == 401, path
        assert (await server.http.get(path, headers=server.bearer(None, "read"))).status_code == 200, path
    client = await server.client()
    for kind, fields in (("subscribe", {}), ("watch", {"user_id": a})):
        answer = await client.ask(kind, board="lap:all_time", **fields)
        assert (answer["type"], answer["code"]) == ("error", "unauthorized")
    await define(server, "last-lap", {"of": "lap", "operator": "last"})
    assert (await server.http.get("/boards/last-lap:all_time")).status_code == 401, "it shows the same players"
    assert "lap" not in (await server.http.get("/leaderboards")).text


async def test_a_leaderboard_that_becomes_private_is_followed_by_whoever_may_read_it_alone(
    server: RunningServer, make_users: MakeUsers
) -> None:
    (a,) = await make_users(1)
    now = server.services.clock.now()
    season = {"id": "one", "starts": str(now - timedelta(days=1)), "ends": str(now + timedelta(seconds=90))}
    rule = {"operator": "sum", "windows": ["all_time", "season"], "seasons": [season]}
    await define(server, "cup", rule)
    stranger, reader = await server.client(), await server.client(server.token(None, "read"))
    between = await server.client()
    await between.send("subscribe", board="cup:current_season")
    await between.until("snapshot")
    for client in (stranger, reader):
        await client.send("subscribe", board="all_time")
        await client.send("subscribe", board="cup:all_time")
        await client.until("snapshot", lambda message: message["board"] == "cup:all_time")
    await stranger.send("watch", board="cup:all_time", user_id=a)
    await stranger.until("rank")
    server.travel(now + timedelta(seconds=91))
    assert (await between.until("rollover"))["to"] is None
    await define(server, "cup", rule | {"visible": "private"})
    assert (await stranger.until("unsubscribed"))["board"] == "cup:all_time"
    assert (await stranger.until("unwatched"))["board"] == "cup:all_time"
    assert (await between.until("unsubscribed"))["as"] == "cup:current_season"
    await submit(server, "cup", a, score_added=5)
    assert [line["score"] for line in (await reader.until("diff"))["upsert"]] == [5]
    refused = await stranger.ask("subscribe", board="cup:all_time")
    assert (refused["type"], refused["code"]) == ("error", "unauthorized")


async def test_default_gets_further_windows_on_a_running_server_with_its_history(
    server: RunningServer, make_users: MakeUsers
) -> None:
    (a,) = await make_users(1)
    assert (await submit(server, "default", a, score_added=5))["total_score"] == 5
    await server.told()
    await define(server, "default", {"windows": ["all_time", "week", "month"]})
    page = (await server.http.get("/boards/current_month")).json()
    assert [(line["user_id"], line["score"]) for line in page["entries"]] == [(a, 5)]
    client = await server.client()
    await client.send("subscribe", board="current_month")
    await client.until("snapshot")
    assert (await submit(server, "default", a, score_added=7))["total_score"] == 12
    assert [line["score"] for line in (await client.until("diff"))["upsert"]] == [12]
    for board in ("all_time", "current_week", "current_month"):
        page = (await server.http.get(f"/boards/{board}")).json()
        assert [line["score"] for line in page["entries"]] == [12], board


async def test_the_previous_window_is_the_one_before_also_where_nobody_was_in_it(
    server: RunningServer, make_users: MakeUsers
) -> None:
    (a,) = await make_users(1)
    await define(server, "lap", LAP)
    current = (await server.http.get("/boards/lap:current_day")).json()["board"]
    now = server.services.clock.now()
    row = {"leaderboard": "lap", "submission_id": "old", "user_id": a, "score": 5_000}
    row["created_at"] = (now - timedelta(days=10)).isoformat()
    answer = await server.http.post("/scores", json=row, headers=server.bearer(None, "admin"))
    assert answer.json()["type"] == "accepted"
    previous = (await server.http.get("/boards/lap:previous_day")).json()
    assert previous["players"] == 0 and previous["board"] < current
    listed = (await server.http.get("/boards?leaderboard=lap")).json()["boards"]
    ends = {board["board"]: board["ends"] for board in listed}
    assert ends[previous["board"]] == next(board["starts"] for board in listed if board["board"] == current)
    for banned, players in (("POST", 0), ("DELETE", 1)):
        path, why = f"/users/{a}/ban", {"leaderboard": "lap"}
        await server.http.request(banned, path, json=why, headers=server.bearer(None, "admin"))
        listed = (await server.http.get("/boards?leaderboard=lap")).json()["boards"]
        assert sum(board["players"] for board in listed if board["closed"]) == players
    wrong = await server.http.post(f"/users/{a}/ban", json={"leaderbord": "lap"}, headers=server.bearer(None, "admin"))
    assert wrong.status_code == 400 and "leaderbord" in wrong.text


async def test_who_was_first_stands_at_the_edge_of_the_top_also_after_an_amendment(
    server: RunningServer, make_users: MakeUsers
) -> None:
    """A hundred and ten equal scores: the last ten are beyond the top, until it turns out that they were first."""
    users = await make_users(110)
    await define(server, "cup", {"operator": "best", "windows": ["all_time", "day"], "ties": "first"})
    client = await server.client()
    await client.send("subscribe", board="cup:all_time")
    await client.until("snapshot")
    began = server.services.clock.now() - timedelta(minutes=30)

    async def hand_in(user: int, at: datetime) -> None:
        row = {"leaderboard": "cup", "submission_id": f"{user}-{at:%H%M%S%f}", "user_id": user, "score": 100}
        row["created_at"] = at.isoformat()
        answer = await server.http.post("/scores", json=row, headers=server.bearer(None, "admin"))
        assert answer.json()["type"] == "accepted", answer.text

    async def shown(board: str) -> list[int]:
        return [line["user_id"] for line in (await server.http.get(f"/boards/{board}")).json()["entries"]]

    for place, user in enumerate(users):
        await hand_in(user, began + timedelta(seconds=place))
    await server.told()
    expected = list(users)
    assert await shown("cup:all_time") == expected[:100]
    for case, user in enumerate(users[100:], 1):
        await hand_in(user, began - timedelta(seconds=case))  # earlier than everybody, and than the case before
        expected.remove(user)
        expected.insert(0, user)
        await server.told()
        assert await shown("cup:all_time") == expected[:100], case
    await client.reaches("cup:all_time", (await server.http.get("/boards/cup:all_time")).json()["version"])
    held = client.follower.boards["cup:all_time"]
    assert {user for user, _, _ in held.lines} == set(expected[:100])
    server.travel(server.services.clock.now() + timedelta(days=2))  # and once the ledger answers for the day
    days = (await server.http.get("/boards?leaderboard=cup")).json()["boards"]
    closed = [board["board"] for board in days if board["closed"] and board["players"]]
    for board in closed:
        of_day = await shown(board)
        assert of_day == [user for user in expected if user in of_day][:100]
