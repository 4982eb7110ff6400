"""A server whose store is a real cluster: whatever it does, no command names two slots.

An engine that only looks like a cluster takes what names two tags, so a real one must show it. Every node counts the
errors that it answers with, and the commands that it runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from realtime.boards.leaderboard import partition_of
from tests.support.certificates import certified
from tests.support.databases import MakeUsers
from tests.support.processes import environment, running
from tests.support.redis_cluster import Cluster, redis_cluster, slot_of
from tests.support.redis_node import Node, redis_server
from tests.support.sentinels import sentinels
from tests.support.servers import SECRET, RunningServer, running_server
from tests.support.stores import GIVEN_STORE
from tests.support.waiting import eventually

pytestmark = [
    pytest.mark.skipif(bool(GIVEN_STORE), reason="it needs an engine of its own"),
    pytest.mark.skipif(redis_server() is None, reason="clusters and Sentinels need redis-server on PATH"),
]

TIMED: dict[str, Any] = {"operator": "best", "order": "ascending", "ties": "first", "metadata": True}
SUMS: dict[str, Any] = {"operator": "sum", "windows": ["all_time", "day", "week"]}
DEFINED: dict[str, dict[str, Any]] = {
    "slalom": TIMED,
    "luge": SUMS,
    "sprint": TIMED,
    "discus": SUMS,
    "marathon": SUMS,
    "relay": {"operator": "last"},
    "relay-count": {"of": "relay", "operator": "count", "ties": "last"},
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three primaries, which share the slots."""
    with redis_cluster(Path(tmp_path_factory.mktemp("cluster")), replicas=0) as made:
        yield made


def counted(nodes: list[Node], section: str, prefix: str) -> Counter[str]:
    """What nodes have counted, by name: errors by their first word, or commands."""
    found: Counter[str] = Counter()
    for node in nodes:
        for name, of_it in node.call("INFO", section).items():
            found[name.removeprefix(prefix)] += of_it.get("count", of_it.get("calls", 0))
    return found


async def put(server: RunningServer, slug: str, fields: dict[str, Any]) -> None:
    """Defines a leaderboard; returns once it is shown."""
    answer = await server.http.put(f"/leaderboards/{slug}", json=fields, headers=server.bearer(None, "admin"))
    assert answer.status_code in (200, 201), answer.text

    async def is_shown() -> bool:
        found = (await server.http.get(f"/leaderboards/{slug}")).json()
        board = await server.http.get(f"/boards/{slug}:all_time")
        return bool(found["state"] == "live" and board.status_code == 200 and not board.json()["stale"])

    await eventually(is_shown)


def row(slug: str, number: int, user_id: int, **more: Any) -> dict[str, Any]:
    field = "score_added" if slug == "default" or DEFINED[slug]["operator"] == "sum" else "score"
    there = {} if slug == "default" else {"leaderboard": slug}
    return {"submission_id": f"{slug}-{number}", "user_id": user_id, field: 10 + number % 50, **there, **more}


async def shows(server: RunningServer, board: str, users: set[int]) -> None:
    """Returns once a board shows these users."""

    async def it_does() -> bool:
        entries = (await server.http.get(f"/boards/{board}")).json()["entries"]
        return {entry["user_id"] for entry in entries} == users

    await eventually(it_does)


async def test_no_command_names_two_slots_whatever_a_deployment_does(
    dsn: str, cluster: Cluster, make_users: MakeUsers, tmp_path: Path
) -> None:
    users = await make_users(30)
    tags = {slug: f"{{{partition_of(slug, 16)}}}" for slug in DEFINED if "of" not in DEFINED[slug]}
    owners = {cluster.owner_of(tag) for tag in tags.values()}
    assert len(owners) == 3 and len({slot_of(tag) for tag in tags.values()}) > 3, "all of it would be on one node"
    env = environment(DATABASE_URL=dsn, DRAGONFLY_URL=cluster.url, REALTIME_SECRET=SECRET)
    async with running_server(dsn, cluster.url, REALTIME_REGISTRATION="open") as server:
        await everything(server, users)
        file = tmp_path / "scores.csv"
        lines = ["submission_id,user_id,score_added,leaderboard,created_at"]
        for number, slug in enumerate(("default", "luge", "discus") * 40):
            lines.append(f"i{number},{users[number % 30]},{number},{slug},2026-11-18T00:00:00Z")
        file.write_text("\n".join(lines) + "\n")
        for command in (("import", str(file)), ("rebuild",), ("check",)):
            async with running(*command, env=env) as ended:
                assert await ended.ends() == 0, (command, ended.lines, ended.errors)
        await shows(server, "luge:all_time", set(users))
        page = await server.http.get("/boards/all_time?limit=5")
        assert page.status_code == 200 and len(page.json()["entries"]) == 5
    errors = counted(cluster.nodes, "errorstats", "errorstat_")
    assert not errors.keys() - {"NOSCRIPT", "NOAUTH", "MOVED"}, errors
    commands = counted(cluster.nodes, "commandstats", "cmdstat_")
    assert commands["spublish"] > 0 and commands["ssubscribe"] >= 7, commands
    assert not commands.keys() & {"publish", "subscribe", "psubscribe"}, "patterns and plain channels know no slots"
    assert all(client.call("DBSIZE") > 0 for client in cluster.nodes), "it is not spread"


async def everything(server: RunningServer, users: list[int]) -> None:
    """Whatever clients, operators and people do that reaches the store."""
    for slug, fields in DEFINED.items():
        await put(server, slug, fields)
    viewer = await server.client()
    boards = ["all_time", "current_week", *(f"{slug}:all_time" for slug in DEFINED), "luge:current_day"]
    for board in boards:
        await viewer.send("subscribe", board=board)
        await viewer.until("snapshot")
    await viewer.send("watch", board="marathon:all_time", user_id=users[3])
    sources = [slug for slug in DEFINED if "of" not in DEFINED[slug]] + ["default"]
    # Lists that name every leaderboard, and single ones over a socket.
    rows = [row(slug, number, user) for number, user in enumerate(users) for slug in sources]
    answer = await server.http.post("/scores", json=rows, headers=server.bearer(1, "submit:any"))
    assert answer.status_code == 200 and all("code" not in one for one in answer.json()["results"]), answer.text
    game = await server.client(server.token(None, "submit:any"))
    for slug in sources:
        await game.send("submit", **row(slug, 1_000, users[0], **({"with": "all"} if slug == "relay" else {})))
        await game.until("accepted")
    seen: set[str] = set()
    while not seen >= {"all_time", *(f"{slug}:all_time" for slug in DEFINED)}:
        seen.add((await viewer.until("diff"))["board"])
    for board in ("all_time", *(f"{slug}:all_time" for slug in DEFINED)):
        await shows(server, board, set(users))
        own = await server.http.get(f"/boards/{board}/users/{users[7]}?neighbours=3")
        assert own.status_code == 200 and own.json()["rank"], own.text
        page = await server.http.get(f"/boards/{board}?offset=10&limit=10")
        assert len(page.json()["entries"]) == 10
    # A closed week, with what somebody hands in late.
    late = (datetime.now(UTC) - timedelta(days=9)).isoformat()
    rows = [row("default", 2_000 + number, user, created_at=late) for number, user in enumerate(users)]
    assert (await server.http.post("/scores", json=rows, headers=server.bearer(1, "admin"))).status_code == 200
    listed = (await server.http.get("/boards")).json()["boards"]
    for board in listed:
        assert (await server.http.get(f"/boards/{board['board'] if isinstance(board, dict) else board}")).is_success
    # People: names on every board, bans, limits of who signs in.
    renamed = await server.http.patch("/users/me", json={"username": "Adele"}, headers=server.bearer(users[1]))
    assert renamed.status_code == 200, renamed.text
    for board in ("all_time", "sprint:all_time", "relay-count:all_time"):

        async def is_renamed(board: str = board) -> bool:
            return "Adele" in (await server.http.get(f"/boards/{board}")).text

        await eventually(is_renamed)
    admin = server.bearer(None, "admin")
    assert (await server.http.post(f"/users/{users[2]}/ban", json={}, headers=admin)).is_success
    for board in ("all_time", "luge:all_time", "slalom:all_time"):
        await shows(server, board, set(users) - {users[2]})
    assert (await server.http.delete(f"/users/{users[2]}/ban", headers=admin)).is_success
    for number in range(3):
        given = {"email": "adele@example.org", "password": f"wrong-password-{number}"}
        assert (await server.http.post("/sessions", json=given)).status_code in (401, 429)
    # Another rule, made beside the old one; and a leaderboard that goes.
    await put(server, "discus", {**SUMS, "operator": "best"})
    await shows(server, "discus:all_time", set(users))
    await put(server, "discus", SUMS)
    gone = await server.http.delete("/leaderboards/relay-count", headers=admin)
    assert gone.is_success, gone.text


async def test_both_engines_are_reached_over_tls(dsn: str, make_users: MakeUsers, tmp_path: Path) -> None:
    (user,) = await make_users(1)
    certificate = certified(tmp_path)
    engines = (
        lambda: redis_cluster(tmp_path / "cluster", replicas=0, tls=certificate),
        lambda: sentinels(tmp_path / "sentinels", tls=certificate, sentinel_password="of-who-watches"),
    )
    for number, start in enumerate(engines):
        with start() as engine:
            assert engine.url.startswith("rediss+")
            async with running_server(dsn, engine.url) as server:
                await put(server, "luge", SUMS)
                rows = [row("default", number, user), row("luge", number, user)]
                answer = await server.http.post("/scores", json=rows, headers=server.bearer(1, "submit:any"))
                assert answer.status_code == 200, answer.text
                await shows(server, "all_time", {user})
                await shows(server, "luge:all_time", {user})
