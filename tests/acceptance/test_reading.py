"""A reader's half of the contract: boards over HTTP, live from the store, closed from their views, old ones marked."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis

from realtime.boards.board import ALL_TIME, week_at
from tests.support.databases import MakeUsers
from tests.support.servers import RunningServer, running_server
from tests.support.stores import PrivateStore
from tests.support.waiting import PATIENCE, eventually


async def scores(server: RunningServer, given: dict[int, int], at: datetime | None = None) -> None:
    """Hands scores in and waits until the board has them: they are acknowledged a moment before."""
    rows: list[dict[str, Any]] = [
        {"submission_id": f"{user}-{score}-{at}", "user_id": user, "score_added": score}
        for user, score in given.items()
    ]
    for row in rows:
        if at is not None:
            row["created_at"] = at.isoformat()
    answer = await server.http.post("/scores", json=rows, headers=server.bearer(None, "admin"))
    outcomes = answer.json()["results"]
    assert {outcome["type"] for outcome in outcomes} == {"accepted"}
    totals = {(outcome["user_id"], outcome["total_score"]) for outcome in outcomes}

    async def shown() -> bool:
        entries = (await server.http.get("/boards/all_time?limit=1000")).json()["entries"]
        return totals <= {(entry["user_id"], entry["score"]) for entry in entries}

    await server.told()
    await eventually(shown)


async def test_a_board_by_pages_with_ranks_across_ties(server: RunningServer, make_users: MakeUsers) -> None:
    users = await make_users(230)
    given = {user: 1 + (user * 7919) % 40 for user in users}
    await scores(server, given)
    order = sorted(given, key=lambda user: (given[user], str(user)), reverse=True)
    for board in ("all_time", "current_week"):
        lines = []
        for offset in range(0, 260, 60):
            page = (await server.http.get(f"/boards/{board}?limit=60&offset={offset}")).json()
            assert set(page) == {"board", "epoch", "version", "players", "stale", "entries"}
            assert (page["players"], page["stale"]) == (230, False)
            lines += page["entries"]
        assert [line["user_id"] for line in lines] == order
        assert [line["rank"] for line in lines] == [1 + sum(s > given[user] for s in given.values()) for user in order]
        assert [line["username"] for line in lines] == [f"player-{user - users[0] + 1}" for user in order]
    assert len((await server.http.get("/boards/all_time")).json()["entries"]) == 100, "a hundred unless asked"
    assert len((await server.http.get("/boards/all_time?limit=1000")).json()["entries"]) == 230
    assert (await server.http.get("/boards/all_time?offset=9007199254740991")).json()["entries"] == []


async def test_a_live_board_touches_no_postgresql(
    server: RunningServer, make_users: MakeUsers, sql: asyncpg.Connection
) -> None:
    (user,) = await make_users(1)
    await scores(server, {user: 5})
    await sql.execute("ALTER TABLE users RENAME TO nobody_looks_here")
    await sql.execute("ALTER TABLE user_total_scores RENAME TO nor_here")
    page = await server.http.get("/boards/all_time")
    assert [line["score"] for line in page.json()["entries"]] == [5]
    await sql.execute("ALTER TABLE nobody_looks_here RENAME TO users")
    await sql.execute("ALTER TABLE nor_here RENAME TO user_total_scores")


async def test_the_boards_there_are(server: RunningServer, make_users: MakeUsers) -> None:
    a, b = await make_users(2)
    await scores(server, {a: 5})
    long_ago = datetime(2021, 1, 1, tzinfo=UTC)
    await scores(server, {a: 1, b: 2}, long_ago)
    listed = (await server.http.get("/boards")).json()
    week = week_at(server.services.clock.now())
    shown = {board["board"]: board for board in listed["boards"]}
    assert shown["all_time"]["players"] == 2 and shown["all_time"]["starts"] is None
    assert (shown[week.id]["alias"], shown[week.id]["closed"], shown[week.id]["players"]) == ("current_week", False, 1)
    assert datetime.fromisoformat(shown[week.id]["ends"]) == week.ends
    assert (shown["week_of_2020_12_28"]["closed"], shown["week_of_2020_12_28"]["players"]) == (True, 2)
    assert listed["closed_weeks"] == 1
    paged = (await server.http.get("/boards?limit=1&offset=1")).json()
    assert [board["board"] for board in paged["boards"] if board["closed"]] == []


async def test_one_user_with_neighbours(server: RunningServer, make_users: MakeUsers) -> None:
    users = await make_users(30)
    given = {user: 10 * (1 + place // 2) for place, user in enumerate(users)}  # pairs
    for at in (None, datetime(2021, 1, 1, tzinfo=UTC)):
        await scores(server, given, at)
    order = sorted(given, key=lambda user: (given[user], str(user)), reverse=True)
    middle = order[15]
    for board, factor in (("all_time", 2), ("current_week", 1), ("week_of_2020_12_28", 1)):
        page = (await server.http.get(f"/boards/{board}/users/{middle}?neighbours=3")).json()
        assert page["rank"] == 1 + sum(score > given[middle] for score in given.values())
        assert (page["score"], page["to_next"], page["players"]) == (given[middle] * factor, 10 * factor, 30)
        assert [line["user_id"] for line in page["neighbours"]] == order[12:19]
        first = (await server.http.get(f"/boards/{board}/users/{order[0]}?neighbours=0")).json()
        assert (first["rank"], first["to_next"]) == (1, None)


async def test_a_closed_week_is_followed_and_amended_like_any_board(
    server: RunningServer, make_users: MakeUsers
) -> None:
    a, b = await make_users(2)
    then = datetime(2021, 1, 1, tzinfo=UTC)
    await scores(server, {a: 5}, then)
    viewer = await server.client()
    await viewer.subscribe("week_of_2020_12_28")
    assert viewer.follower.boards["week_of_2020_12_28"].lines == [(a, "player-1", 5)]
    await scores(server, {b: 9}, then)
    await viewer.shows("week_of_2020_12_28", [(b, "player-2", 9), (a, "player-1", 5)])
    assert viewer.follower.snapshots == 1 and viewer.follower.diffs >= 1, "an amendment is a diff"


async def test_while_the_store_is_away_boards_are_the_last_seen_and_say_so(
    dsn: str, private_store: PrivateStore, make_users: MakeUsers, sql: asyncpg.Connection
) -> None:
    (user,) = await make_users(1)
    async with running_server(dsn, private_store.url, REALTIME_STORE_TIMEOUT_S="0.3") as server:
        async with asyncio.timeout(PATIENCE):
            while (await server.http.get("/readyz")).status_code != 200:
                await sql.execute("SELECT pg_sleep(0.05)")
        await scores(server, {user: 5})
        viewer = await server.client()
        await viewer.subscribe("all_time")
        await viewer.shows("all_time", [(user, "player-1", 5)])
        assert (await server.http.get("/boards/all_time")).json()["stale"] is False
        await asyncio.to_thread(private_store.kill)
        page = (await server.http.get("/boards/all_time")).json()
        assert (page["stale"], [line["score"] for line in page["entries"]]) == (True, [5])
        assert (await viewer.until("status"))["live"] is False
        player = await server.client(server.token(user))
        await player.next()
        accepted, sent = {"live": True}, 0
        while accepted.get("live", True):  # from the first that could not be told on
            sent += 1
            accepted = await player.ask("submit", submission_id=f"meanwhile-{sent}", score_added=7)
            assert (accepted["type"], accepted["total_score"]) == ("accepted", 5 + 7 * sent)
        assert (await server.http.get("/readyz")).status_code == 503
        assert (await server.http.get("/healthz")).status_code == 200
        beyond = (await server.http.get("/boards/all_time?offset=500&limit=1000")).json()
        assert (beyond["stale"], beyond["players"], beyond["entries"]) == (True, 1, []), "all of the board was seen"
        refused = await server.http.get("/boards/current_week")  # which nobody has looked at
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")
        assert refused.headers["retry-after"] == "1"
        await asyncio.to_thread(private_store.start)
        async with asyncio.timeout(PATIENCE):
            await viewer.until("status", lambda message: message["live"])
            await viewer.shows("all_time", [(user, "player-1", 5 + 7 * sent)])
        page = (await server.http.get("/boards/all_time")).json()
        assert (page["stale"], [line["score"] for line in page["entries"]]) == (False, [5 + 7 * sent])


async def test_somebody_elses_key_in_place_of_a_board_is_got_over(
    server: RunningServer, make_users: MakeUsers, keys: Redis
) -> None:
    (user,) = await make_users(1)
    await scores(server, {user: 5})
    viewer = await server.client()
    await viewer.subscribe("all_time")
    await keys.zadd("leaderboard:user_scores:all_time", {str(user): float("inf")})
    await keys.incr("leaderboard:version:all_time")
    await keys.publish("leaderboard:changes:all_time", "{}")
    assert (await viewer.until("status"))["live"] is False, "no wrong board is shown as right"
    await server.services.accounts.rename(user, "still here")
    async with asyncio.timeout(PATIENCE):
        await viewer.until("status", lambda message: message["live"])
        await viewer.shows("all_time", [(user, "still here", 5)])


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_health(server: RunningServer, path: str) -> None:
    answer = await server.http.get(path)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"


async def test_a_week_s_bounds_are_told(server: RunningServer) -> None:
    listed = (await server.http.get("/boards")).json()
    now = datetime.fromisoformat(listed["now"])
    (current,) = [board for board in listed["boards"] if board["alias"] == "current_week"]
    starts, ends = (datetime.fromisoformat(current[name]) for name in ("starts", "ends"))
    assert starts <= now < ends
    assert ends - starts == timedelta(days=7) and starts.weekday() == 0


async def test_the_store_is_read_once_for_all_who_ask_at_the_same_moment(
    server: RunningServer, make_users: MakeUsers, keys: Redis
) -> None:
    users = await make_users(50)
    await scores(server, {user: user for user in users})

    async def readings() -> int:
        return sum(one["calls"] for name, one in (await keys.info("commandstats")).items() if "zrevrange" in name)

    async def asked(times: int) -> int:
        """Readings of the board that so many requests at once come to."""
        before, reader = await readings(), server.services.board_reader
        pages = await asyncio.gather(*(reader.page(ALL_TIME, 0, 100) for _ in range(times)))
        assert all(len(page.entries) == 50 for page in pages)
        return await readings() - before

    alone = await asked(1)
    assert alone >= 1, "it counts what it should"
    assert await asked(60) == 2 * alone, "one that was under way, and one for all who asked meanwhile"
