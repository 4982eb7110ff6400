"""Several leaderboards on a running server: each is fed, followed and read, and what one loses stops no other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from realtime.boards.leaderboard import partition_of
from realtime.boards.parsing import parse_definition
from realtime.ledger.definitions import Definitions
from realtime.ledger.ledger import Ledger
from tests.support.clients import Client
from tests.support.databases import MakeUsers
from tests.support.servers import RunningServer
from tests.support.waiting import eventually

SPRINT: dict[str, Any] = {"operator": "best", "order": "ascending", "ties": "first", "metadata": True}


async def defined(server: RunningServer, ledger: Ledger, slug: str, **fields: Any) -> None:
    """Returns when the server shows the leaderboard's boards."""
    await Definitions(ledger).put(parse_definition(slug, fields), actor="test")

    async def is_shown() -> bool:
        found = await server.http.get(f"/boards/{slug}:all_time")
        return found.status_code == 200

    await eventually(is_shown)


@pytest.fixture
async def game(server: RunningServer) -> AsyncIterator[Client]:
    """A game server: hands in for everyone."""
    yield await server.client(server.token(None, "submit:any"))


async def sent(game: Client, leaderboard: str, name: str, user: int, score: int, **fields: Any) -> dict[str, Any]:
    await game.send("submit", leaderboard=leaderboard, submission_id=name, user_id=user, score=score, **fields)
    return await game.until("accepted", lambda message: message["submission_id"] == name)


async def shown(viewer: Client, kind: str, board: str) -> dict[str, Any]:
    return await viewer.until(kind, lambda message: message["board"] == board)


async def test_a_leaderboard_of_its_own_partition_is_fed_followed_and_read(
    server: RunningServer, ledger: Ledger, game: Client, keys: Redis, make_users: MakeUsers
) -> None:
    one, other, third = await make_users(names=["Ada", "Bob", "Cyd"])
    await defined(server, ledger, "sprint", **SPRINT)
    viewer = await server.client()
    await viewer.send("subscribe", board="sprint:all_time")
    assert (await shown(viewer, "snapshot", "sprint:all_time"))["entries"] == []
    accepted = await sent(game, "sprint", "a", one, 62_345, metadata={"car": "gt"})
    assert accepted["scores"] == {"sprint:all_time": 62_345} and accepted["improved"] is True
    (line,) = (await shown(viewer, "diff", "sprint:all_time"))["upsert"]
    assert (line["user_id"], line["username"], line["score"], line["metadata"]) == (one, "Ada", 62_345, {"car": "gt"})
    assert len(line["at"]) == 2
    await sent(game, "sprint", "b", other, 62_345)
    await shown(viewer, "diff", "sprint:all_time")
    await sent(game, "sprint", "c", third, 60_000)
    await shown(viewer, "diff", "sprint:all_time")
    page = (await server.http.get("/boards/sprint:all_time")).json()
    assert [(e["user_id"], e["score"], e["rank"]) for e in page["entries"]] == [
        (third, 60_000, 1), (one, 62_345, 2), (other, 62_345, 2)
    ]  # fmt: skip
    own = (await server.http.get(f"/boards/sprint:all_time/users/{other}")).json()
    assert (own["rank"], own["to_next"]) == (2, 2_345)
    tag = f"{{{partition_of('sprint', 16)}}}"
    assert await keys.zcard(f"{tag}leaderboard:user_scores:sprint:all_time") == 3
    assert await keys.exists("leaderboard:user_scores:all_time") == 0


async def test_a_partition_that_is_lost_comes_back_and_stops_no_other(
    server: RunningServer, ledger: Ledger, game: Client, keys: Redis, make_users: MakeUsers
) -> None:
    one, other = await make_users(2)
    await defined(server, ledger, "sprint", **SPRINT)
    await defined(server, ledger, "marathon", operator="sum")
    assert partition_of("sprint", 16) != partition_of("marathon", 16)
    await sent(game, "sprint", "a", one, 9)
    await game.send("submit", leaderboard="marathon", submission_id="b", user_id=one, score_added=5)
    await game.until("accepted")
    viewer = await server.client()
    for board in ("sprint:all_time", "marathon:all_time", "all_time"):
        await viewer.send("subscribe", board=board)
        await shown(viewer, "snapshot", board)
    before = await keys.get("leaderboard:epoch"), (await server.http.get("/boards/marathon:all_time")).json()["epoch"]
    tag = f"{{{partition_of('sprint', 16)}}}"
    await keys.delete(*[key async for key in keys.scan_iter(f"{tag}*")])
    for number in range(3):
        await game.send("submit", leaderboard="marathon", submission_id=f"m{number}", user_id=other, score_added=1)
        await shown(viewer, "diff", "marathon:all_time")
        await game.send("submit", submission_id=f"d{number}", user_id=other, score_added=1)
        await shown(viewer, "diff", "all_time")
    await sent(game, "sprint", "c", other, 8)

    async def is_back() -> bool:
        entries = (await server.http.get("/boards/sprint:all_time")).json()["entries"]
        return [(entry["user_id"], entry["score"]) for entry in entries] == [(other, 8), (one, 9)]

    await eventually(is_back)
    assert await keys.zcard(f"{tag}leaderboard:user_scores:sprint:all_time") == 2
    after = await keys.get("leaderboard:epoch"), (await server.http.get("/boards/marathon:all_time")).json()["epoch"]
    assert after == before
    assert (await server.http.get("/readyz")).status_code == 200


async def test_a_rename_is_shown_on_boards_of_every_partition(
    server: RunningServer, ledger: Ledger, game: Client, make_users: MakeUsers
) -> None:
    one, other = await make_users(names=["Ada", "Bob"])
    await defined(server, ledger, "sprint", **SPRINT)
    await sent(game, "sprint", "a", one, 9)
    await sent(game, "sprint", "b", other, 8)
    viewer = await server.client()
    await viewer.send("subscribe", board="sprint:all_time")
    await shown(viewer, "snapshot", "sprint:all_time")
    renamed = await server.http.patch("/users/me", json={"username": "Adele"}, headers=server.bearer(one))
    assert renamed.status_code == 200
    (line,) = (await shown(viewer, "diff", "sprint:all_time"))["upsert"]
    assert (line["user_id"], line["username"]) == (one, "Adele")
