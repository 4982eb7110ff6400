"""Leaderboards over HTTP: looked at, defined, changed, removed, with everything that is wrong told at once."""

from __future__ import annotations

from typing import Any

import asyncpg
import jsonschema
import pytest

from realtime.api.openapi import openapi
from realtime.boards.definitions import DEFAULT_DEFINITION
from tests.support.databases import MakeUsers
from tests.support.servers import RunningServer, running_server
from tests.support.waiting import eventually

SPRINT = {"title": "Sprint", "operator": "best", "order": "ascending", "windows": ["all_time", "day"]}

POINTS = {"operator": "best", "windows": ["all_time", "day"]}


def valid(answer: dict[str, Any], name: str) -> bool:
    document = openapi()
    schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
    jsonschema.validate(answer, schema)
    return True


@pytest.fixture
def admin(server: RunningServer) -> dict[str, str]:
    return server.bearer(None, "admin")


async def is_live(server: RunningServer, slug: str) -> bool:
    return bool((await server.http.get(f"/leaderboards/{slug}")).json()["state"] == "live")


async def test_a_deployment_begins_with_default(server: RunningServer) -> None:
    answer = await server.http.get("/leaderboards")
    (default,) = answer.json()["leaderboards"]
    assert answer.status_code == 200 and valid(answer.json(), "Leaderboards")
    assert default["definition"] == DEFAULT_DEFINITION.as_json()
    assert (default["state"], default["progress"], default["boards"][0]) == ("live", 1.0, "all_time")
    assert default["boards"][1].startswith("week_of_") and len(default["boards"]) == 2


async def test_a_leaderboard_is_defined_shown_changed_and_removed(server: RunningServer, admin: dict[str, str]) -> None:
    path = "/leaderboards/sprint"
    made = await server.http.put(path, json=SPRINT, headers=admin)
    assert made.status_code == 200 and valid(made.json(), "Leaderboard")
    assert made.json()["definition"].items() >= SPRINT.items()
    await eventually(lambda: is_live(server, "sprint"))
    one = (await server.http.get(path)).json()
    assert one["progress"] == 1.0 and one["boards"][0] == "sprint:all_time"
    assert one["boards"][1].startswith("sprint:day_of_")
    assert [each["slug"] for each in (await server.http.get("/leaderboards")).json()["leaderboards"]] == [
        "default",
        "sprint",
    ]
    # What it says is what may be sent again: nothing changes.
    again = await server.http.put(path, json=one["definition"], headers=admin)
    assert again.json() == one
    changed = await server.http.put(path, json={**SPRINT, "operator": "last"}, headers=admin)
    assert changed.json()["definition"]["operator"] == "last"
    await eventually(lambda: is_live(server, "sprint"))
    gone = await server.http.delete(path, headers=admin)
    assert (gone.status_code, gone.content) == (204, b"")
    for answer in (await server.http.get(path), await server.http.delete(path, headers=admin)):
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_leaderboard")


async def test_everything_that_is_wrong_is_told_in_one_body(server: RunningServer, admin: dict[str, str]) -> None:
    body = {"operator": "max", "zone": "UTC+3", "bounds": {"min": 2**60}, "colour": "red"}
    answer = await server.http.put("/leaderboards/sprint", json=body, headers=admin)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (422, "bad_definition") and valid(answer.json(), "Error")
    assert {problem["field"] for problem in error["problems"]} == {"operator", "zone", "bounds.min", "colour"}
    assert all(problem["wrong"] and problem["do"] for problem in error["problems"])
    for slug, fields, field in [
        ("current_week", {}, "slug"), ("Sprint", {}, "slug"), ("sprint", {"of": "nobody"}, "sprint.of"),
        ("default", {"operator": "best"}, "operator"), ("sprint", [], ""), ("sprint", {"zone": "berlin"}, "zone"),
    ]:  # fmt: skip
        answer = await server.http.put(f"/leaderboards/{slug}", json=fields, headers=admin)
        assert answer.status_code == 422, (slug, fields)
        assert answer.json()["error"]["problems"][0]["field"] == field
    assert len((await server.http.get("/leaderboards")).json()["leaderboards"]) == 1


async def test_only_an_admin_defines_and_removes(server: RunningServer) -> None:
    for token in (None, server.bearer(7), server.bearer(None, "submit:any"), server.bearer(None, "read")):
        for method in ("PUT", "DELETE"):
            answer = await server.http.request(method, "/leaderboards/sprint", json=SPRINT, headers=token)
            assert answer.status_code == (401 if token is None else 403), (token, method)


async def test_what_cannot_be_removed_is_told(server: RunningServer, admin: dict[str, str]) -> None:
    await server.http.put("/leaderboards/sprint", json=SPRINT, headers=admin)
    await server.http.put("/leaderboards/last", json={"of": "sprint", "operator": "last"}, headers=admin)
    answer = await server.http.delete("/leaderboards/sprint", headers=admin)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "conflict")
    answer = await server.http.delete("/leaderboards/default", headers=admin)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")


async def test_a_private_leaderboard_is_shown_to_whoever_may_read_it(
    server: RunningServer, admin: dict[str, str]
) -> None:
    await server.http.put("/leaderboards/sprint", json={**SPRINT, "visible": "private"}, headers=admin)
    reader, player = server.bearer(None, "read"), server.bearer(7)
    for headers, status, seen in [(None, 401, 1), (player, 403, 1), (reader, 200, 2), (admin, 200, 2)]:
        assert (await server.http.get("/leaderboards/sprint", headers=headers)).status_code == status
        listed = await server.http.get("/leaderboards", headers=headers)
        assert (listed.status_code, len(listed.json()["leaderboards"])) == (200, seen)


async def test_another_process_knows_within_two_seconds(
    server: RunningServer, admin: dict[str, str], dsn: str, store_url: str, sql: asyncpg.Connection
) -> None:
    async with running_server(dsn, store_url) as other:
        await server.http.put("/leaderboards/sprint", json=SPRINT, headers=admin)

        async def is_known() -> bool:
            answer = await other.http.get("/leaderboards/sprint")
            return answer.status_code == 200 and "sprint" in other.services.leaderboards.current.leaderboards

        await eventually(is_known)


async def test_what_was_sent_counts_on_leaderboards_that_come_later_and_by_rules_that_change(
    server: RunningServer, admin: dict[str, str], make_users: MakeUsers
) -> None:
    """From the first lap to a leaderboard over history, and to another rule, before the eyes of a follower."""
    one, other = await make_users(2)
    await server.http.put("/leaderboards/sprint", json=POINTS, headers=admin)
    await eventually(lambda: is_live(server, "sprint"))
    follower = await server.client()
    await follower.send("subscribe", board="sprint:all_time")
    described = await follower.until("subscribed")
    assert described["leaderboard"]["order"] == "descending"
    laps = [(one, 62_345), (one, 65_000), (one, 61_200), (other, 61_900)]
    rows = [
        {"leaderboard": "sprint", "submission_id": f"lap-{number}", "user_id": user_id, "score": lap}
        for number, (user_id, lap) in enumerate(laps)
    ]
    outcomes = (await server.http.post("/scores", json=rows, headers=admin)).json()["results"]
    assert [outcome["type"] for outcome in outcomes] == ["accepted"] * 4

    async def shown(board: str) -> list[tuple[int, int]]:
        answer = (await server.http.get(f"/boards/{board}")).json()
        return [(entry["user_id"], entry["score"]) for entry in answer.get("entries", ())]

    async def shows(board: str, *wanted: tuple[int, int]) -> None:
        async def does() -> bool:
            return await shown(board) == list(wanted)

        await eventually(does)

    await shows("sprint:all_time", (one, 65_000), (other, 61_900))
    await server.http.put("/leaderboards/laps", json={"of": "sprint", "operator": "count"}, headers=admin)
    await shows("laps:all_time", (one, 3), (other, 1))
    await follower.until("diff", lambda diff: {"user_id": other, "score": 61_900} in _scores(diff))
    await server.http.put("/leaderboards/sprint", json={**POINTS, "operator": "last"}, headers=admin)
    change = await follower.until("diff", lambda diff: {"user_id": one, "score": 61_200} in _scores(diff))
    assert _scores(change) == [{"user_id": one, "score": 61_200}], "an ordinary change, of what is other"
    await shows("sprint:all_time", (other, 61_900), (one, 61_200))
    await shows("sprint:current_day", (other, 61_900), (one, 61_200))


def _scores(diff: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"user_id": one["user_id"], "score": one["score"]} for one in diff["upsert"]]
