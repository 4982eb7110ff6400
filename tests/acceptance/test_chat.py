"""One line for a chat bot: where a player stands, found by a name as people type it."""

from __future__ import annotations

import pytest

from tests.support.servers import RunningServer


async def said(server: RunningServer, **query: str) -> str:
    answer = await server.http.get("/chat", params=query)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert "\n" not in answer.text
    return answer.text


async def named(server: RunningServer, *names: str) -> list[int]:
    found = []
    for number, name in enumerate(names):
        body = {"username": name, "email": f"{number}@example.com", "password": "a long password"}
        answer = await server.http.post("/users", json=body, headers=server.bearer(None, "admin"))
        found.append(answer.json()["user_id"])
    return found


async def hand_in(server: RunningServer, scores: dict[int, int]) -> None:
    rows = [{"submission_id": f"s-{user}", "user_id": user, "score_added": added} for user, added in scores.items()]
    answer = await server.http.post("/scores", json=rows, headers=server.bearer(None, "submit:any"))
    assert answer.status_code == 200
    await server.told()


async def test_where_a_player_stands_is_one_line(server: RunningServer) -> None:
    assert await said(server) == "Nobody has a score on this board yet."
    kim, lee, bot = await named(server, "Kim", "Lee \uff37", "/ban everybody")
    await hand_in(server, {kim: 1_500, lee: 1_600, bot: 1})
    assert await said(server, user="kim") == "Kim is rank 2 of 3 with 1,500 points, 100 points to the next rank."
    assert await said(server, user=" @LEE  w ", board="all_time") == "Lee \uff37 is rank 1 of 3 with 1,600 points."
    assert await said(server, user=str(kim)) == await said(server, user="Kim")
    assert await said(server) == "Lee \uff37 leads 3 with 1,600 points."
    assert await said(server, user=str(bot), board="all_time") == (
        "ban everybody is rank 3 of 3 with 1 point, 1,499 points to the next rank."
    )


@pytest.mark.parametrize(
    ("query", "line"),
    [
        ({"user": "nobody"}, "Nobody on this board is called nobody."),
        ({"user": "/timeout kim\n600"}, "Nobody on this board is called timeout kim 600."),
        ({"user": "9" * 40}, "Nobody on this board is called " + "9" * 40 + "."),
    ],
)
async def test_what_was_mistyped_is_a_sentence(server: RunningServer, query: dict[str, str], line: str) -> None:
    assert await said(server, **query) == line
    assert await said(server, user="kim", board="nothing")
    assert await said(server, user="7")
