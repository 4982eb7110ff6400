"""Boards over plain HTTP: not sent twice to whoever has them, kept by caches as long as may be, and awaited."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from realtime.api import requests
from realtime.api.board_pages import BoardPage
from realtime.api.waiting import READINGS
from realtime.boards.board import week_at
from tests.support.clients import metrics
from tests.support.databases import MakeUsers
from tests.support.servers import RunningServer, running_server
from tests.support.stores import PrivateStore
from tests.support.waiting import PATIENCE, eventually

CLOSED = "/boards/week_of_2020_12_28"


async def submit(server: RunningServer, scores: dict[int, int], **fields: Any) -> None:
    rows = [
        {"submission_id": f"{user}-{score}-{json.dumps(fields)}", "user_id": user, "score_added": score, **fields}
        for user, score in scores.items()
    ]
    answer = await server.http.post("/scores", json=rows, headers=server.bearer(None, "admin"))
    assert {outcome["type"] for outcome in answer.json()["results"]} == {"accepted"}
    await server.told()


async def moved(server: RunningServer, target: str, tag: str) -> httpx.Response:
    """The answer once it has another tag."""
    found: list[httpx.Response] = []

    async def is_other() -> bool:
        found.append(await server.http.get(target))
        return found[-1].headers["etag"] != tag

    await eventually(is_other)
    return found[-1]


async def test_whoever_has_a_page_is_not_sent_it_again(server: RunningServer, make_users: MakeUsers) -> None:
    a, b = await make_users(2)
    await submit(server, {a: 5})
    await submit(server, {a: 5}, created_at=datetime(2021, 1, 1, tzinfo=UTC).isoformat())
    week = week_at(server.services.clock.now()).id
    for target in ("/boards/all_time", f"/boards/{week}", "/boards/current_week", CLOSED):
        first = await server.http.get(target)
        page, tag = first.json(), first.headers["etag"]
        position = f"{page['epoch']}:{page['version']}"
        assert tag == (f'"{position}"' if page["board"] == "all_time" else f'"{position}:{page["board"]}"')
        kept = first.headers["cache-control"]
        assert ("s-maxage=3600" if target == CLOSED else "max-age=0, s-maxage=1") in kept and "public" in kept
        for known in (tag, f"W/{tag}", f'"x", {tag}', "*"):
            again = await server.http.get(target, headers={"if-none-match": known})
            assert (again.status_code, again.content) == (304, b""), known
            assert (again.headers["etag"], again.headers["cache-control"]) == (tag, kept)
        for strange in ("", '"', "nonsense", '"x"', tag.strip('"'), "\u00e9"):
            again = await server.http.get(target, headers={"if-none-match": strange.encode()})
            assert again.status_code == 200, strange
        late = {"created_at": datetime(2021, 1, 1, tzinfo=UTC).isoformat()} if target == CLOSED else {}
        await submit(server, {b: 7 + len(target)}, **late)
        assert len((await moved(server, target, tag)).json()["entries"]) == 2, "an amendment moves a closed one's"
        again = await server.http.get(target, headers={"if-none-match": tag})
        assert again.status_code == 200


async def test_what_the_version_does_not_tell_is_in_the_tag(server: RunningServer, make_users: MakeUsers) -> None:
    users = await make_users(130)
    await submit(server, {user: 1_000 - place for place, user in enumerate(users[:120])})
    targets = ("/boards/all_time", "/boards/all_time?limit=1", "/boards/all_time?offset=100")
    before = {target: await server.http.get(target) for target in targets}
    assert len({answer.headers["etag"] for answer in before.values()}) == 3
    await submit(server, {users[120]: 1})
    for target, first in before.items():
        after = await server.http.get(target, headers={"if-none-match": first.headers["etag"]})
        assert after.json()["version"] == first.json()["version"], "the top has not moved"
        assert (after.status_code, after.json()["players"]) == (200, 121)


async def test_a_private_page_is_kept_by_nobody(dsn: str, store_url: str, filled: None) -> None:
    async with running_server(dsn, store_url, REALTIME_BOARDS="private") as server:
        reader = server.bearer(None, "read")
        answer = await server.http.get("/boards/all_time", headers=reader)
        assert answer.headers["cache-control"] == "private, no-store"
        again = await server.http.get("/boards/all_time", headers=reader | {"if-none-match": answer.headers["etag"]})
        assert (again.status_code, again.headers["cache-control"]) == (304, "private, no-store")
        assert (await server.http.get("/boards/all_time", headers={"if-none-match": "*"})).status_code == 401


async def waits(server: RunningServer, target: str, **options: Any) -> asyncio.Task[httpx.Response]:
    """A request that the server has, and does not answer."""
    before = server.services.waiting.count
    task = asyncio.ensure_future(server.http.get(target, **options))
    await eventually(lambda: server.services.waiting.count > before or task.done())
    assert not task.done(), task.result().text
    return task


def since(page: dict[str, Any], *, named: bool = False) -> str:
    position = f"{page['epoch']}:{page['version']}"
    return f"since={position}:{page['board']}" if named else f"since={position}"


async def test_a_request_waits_until_the_board_moves(server: RunningServer, make_users: MakeUsers) -> None:
    a, b = await make_users(2)
    late = {"created_at": datetime(2021, 1, 1, tzinfo=UTC).isoformat()}
    await submit(server, {a: 5})
    await submit(server, {a: 5}, **late)
    for target, fields in (("/boards/all_time", {}), ("/boards/current_week", {}), (CLOSED, late)):
        page = (await server.http.get(target)).json()
        for named in (False, True):
            waiting = [await waits(server, f"{target}?wait=25&{since(page, named=named)}") for _ in range(3)]
            waiting.append(await waits(server, f"{target}?wait=25&limit=1&{since(page, named=named)}"))
            await submit(server, {b: 7 + len(target) + named}, **fields)
            for place, task in enumerate(waiting):
                answer = await task
                assert answer.status_code == 200 and answer.headers["etag"]
                assert len(answer.json()["entries"]) == (1 if place == 3 else 2)
                assert answer.json()["version"] > page["version"]
            held = (await server.http.get(f"{target}?wait=25&{since(page)}")).json()
            assert held["version"] > page["version"], "it has moved already"
            page = held
        assert (await server.http.get(f"{target}?{since(page)}")).status_code == 304, "without wait at once"
    await eventually(lambda: server.services.waiting.count == 0)
    assert not server.services.broadcaster.following.boards()


async def test_a_board_that_does_not_move_is_told_after_the_wait(
    server: RunningServer, make_users: MakeUsers
) -> None:
    page = (await server.http.get("/boards/all_time")).json()
    answer = await server.http.get(f"/boards/all_time?wait=1&{since(page)}")
    assert (answer.status_code, answer.content, answer.headers["cache-control"]) == (304, b"", "no-store")
    samples = metrics((await server.http.get("/metrics")).text)
    assert samples['realtime_viewers{of="request"}'] == 0
    for wait, code in (("x", "bad_message"), ("-1", "out_of_range"), ("56", "out_of_range"), ("1.5", "bad_message"),
                       ("", "bad_message"), ("9" * 400, "out_of_range")):  # fmt: skip
        refused = await server.http.get(f"/boards/all_time?wait={wait}&{since(page)}")
        assert refused.json()["error"]["code"] == code, wait
    strangers = ["", "x", f"{page['epoch']}:{page['version'] + 1}", f"other:{page['version']}",
                 f"{page['epoch']}:{page['version']}:current_week"]  # fmt: skip
    for stranger in strangers:
        answer = await server.http.get(f"/boards/all_time?wait=25&since={stranger}")
        assert answer.status_code == 200, "what is not the board's position is answered at once"
    assert (await server.http.get("/boards/all_time?wait=25")).status_code == 200


async def test_the_week_ends_for_those_who_wait(server: RunningServer, make_users: MakeUsers) -> None:
    week = week_at(server.services.clock.now())
    assert week.ends is not None
    page = (await server.http.get("/boards/current_week")).json()
    by_alias = await waits(server, f"/boards/current_week?wait=25&{since(page)}")
    by_id = await waits(server, f"/boards/{week.id}?wait=25&{since(page)}")
    server.travel(week.ends)
    assert (await by_alias).json()["board"] == week_at(week.ends).id
    assert not by_id.done()
    by_id.cancel()
    await eventually(lambda: server.services.waiting.count == 0)


async def test_a_leaderboard_that_ends_or_hides_is_told(server: RunningServer, make_users: MakeUsers) -> None:
    admin = server.bearer(None, "admin")
    rule = {"operator": "best", "windows": ["all_time"]}

    async def define(definition: dict[str, Any]) -> None:
        answer = await server.http.put("/leaderboards/lap", json=definition, headers=admin)
        assert answer.status_code in (200, 201), answer.text

        async def live() -> bool:
            return bool((await server.http.get("/leaderboards/lap", headers=admin)).json()["state"] == "live")

        await eventually(live)
        await server.services.leaderboards.look()

    (a,) = await make_users(1)
    await define(rule)
    page = (await server.http.get("/boards/lap:all_time")).json()
    target = f"/boards/lap:all_time?wait=25&{since(page)}"
    stranger = await waits(server, target)
    await define(rule | {"visible": "private"})
    row = {"leaderboard": "lap", "submission_id": "one", "user_id": a, "score": 5}
    await server.http.post("/scores", json=row, headers=admin)
    assert (await stranger).status_code == 401
    page = (await server.http.get("/boards/lap:all_time", headers=admin)).json()
    reader = await waits(server, f"/boards/lap:all_time?wait=25&{since(page)}", headers=admin)
    assert (await server.http.delete("/leaderboards/lap", headers=admin)).status_code in (200, 204)
    await server.services.leaderboards.look()
    assert (await reader).json()["error"]["code"] == "unknown_board"


async def test_a_store_that_is_away_is_told_to_those_who_wait(
    dsn: str, private_store: PrivateStore, make_users: MakeUsers
) -> None:
    (a,) = await make_users(1)
    async with running_server(dsn, private_store.url, REALTIME_STORE_TIMEOUT_S="0.5") as server:
        await submit(server, {a: 5})
        page = (await server.http.get("/boards/all_time")).json()
        task = await waits(server, f"/boards/all_time?wait=25&{since(page)}")
        await asyncio.to_thread(private_store.kill)
        answer = await task
        assert answer.json()["stale"] and answer.headers["cache-control"] == "no-store"
        assert "etag" not in answer.headers
        again = await server.http.get(f"/boards/all_time?wait=25&{since(page)}")
        assert again.json()["stale"], "nobody knows whether it moves"
        await asyncio.to_thread(private_store.start)

        async def is_back() -> bool:
            answer = await server.http.get("/boards/all_time")
            return answer.status_code == 200 and not answer.json()["stale"]

        await eventually(is_back)
        page = (await server.http.get("/boards/all_time")).json()
        task = await waits(server, f"/boards/all_time?wait=25&{since(page)}")
        await submit(server, {a: 6})
        assert (await task).json()["entries"][0]["score"] == 11
        await (await server.client()).subscribe("all_time")  # others follow it all the while
        page = (await server.http.get("/boards/all_time")).json()
        await asyncio.to_thread(private_store.kill)
        await eventually(lambda: not server.services.broadcaster.live)
        for wait in (0, 1):
            again = await server.http.get(f"/boards/all_time?wait={wait}&{since(page)}")
            assert again.status_code == 200 and again.json()["stale"], "304 would say that it is live"
            assert "etag" not in again.headers
        task = await waits(server, f"/boards/all_time?wait=55&{since(page)}")
        await asyncio.to_thread(private_store.start)
        assert not (await task).json()["stale"], "it moves again"


async def connected(server: RunningServer, target: str, count: int) -> list[tuple[Any, asyncio.StreamWriter]]:
    """So many requests, none of them read."""
    address = urlsplit(server.base_url)

    async def one() -> tuple[Any, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        writer.write(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return reader, writer

    return [await one() for _ in range(count)]


async def test_those_who_wait_are_bounded_in_number_and_cost_little(
    dsn: str, store_url: str, filled: None, make_users: MakeUsers, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = 600
    (a,) = await make_users(1)
    options = {"REALTIME_MAX_WAITING": str(many), "REALTIME_MAX_CONNECTIONS_PER_ADDRESS": "0"}
    async with running_server(dsn, store_url, **options) as server:
        await submit(server, {a: 5})
        page = (await server.http.get("/boards/all_time")).json()
        target = f"/boards/all_time?wait=55&{since(page)}"
        tasks_before = len(asyncio.all_tasks())
        waiting = await connected(server, target, many)
        await eventually(lambda: server.services.waiting.count == many)
        assert len(asyncio.all_tasks()) <= tasks_before + 2, "a task for none of them"
        refused = await server.http.get(target)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "5")
        assert refused.json()["error"]["code"] == "too_many"
        reads: list[int] = []
        reader = server.services.board_reader
        page_of = reader.page

        async def counted(board: Any, offset: int, limit: int) -> Any:
            reads.append(1)
            return await page_of(board, offset, limit)

        monkeypatch.setattr(type(reader), "page", lambda self, *asked: counted(*asked))
        for _, writer in waiting[: many // 2]:
            writer.transport.abort()
        await eventually(lambda: server.services.waiting.count == many - many // 2)
        await submit(server, {a: 7})
        async with asyncio.timeout(PATIENCE):
            for stream, _ in waiting[many // 2 :]:
                assert b" 200 " in await stream.readline()
        assert len(reads) <= 3, "read once for all"
        await eventually(lambda: server.services.waiting.count == 0)
        for _, writer in waiting:
            writer.close()
        assert not server.services.broadcaster.following.boards()


async def test_whatever_differs_is_read_a_few_at_a_time_and_what_is_of_the_top_once(
    server: RunningServer, make_users: MakeUsers, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = await make_users(130)
    await submit(server, {user: 1_000 - place for place, user in enumerate(users)})
    page = (await server.http.get("/boards/all_time")).json()
    stretches = [(offset, 10) for offset in range(0, 90, 9)] + [(offset, 5) for offset in range(98, 120, 3)]
    tasks = [
        await waits(server, f"/boards/all_time?wait=55&offset={offset}&limit={limit}&{since(page)}")
        for offset, limit in stretches
    ]
    reader, under_way, most, read = server.services.board_reader, 0, 0, 0
    page_of = reader.page

    async def counted(board: Any, offset: int, limit: int) -> Any:
        nonlocal under_way, most, read
        under_way, read = under_way + 1, read + 1
        most = max(most, under_way)
        try:
            return await page_of(board, offset, limit)
        finally:
            under_way -= 1

    with monkeypatch.context() as patched:
        patched.setattr(type(reader), "page", lambda self, *asked: counted(*asked))
        await submit(server, {users[5]: 7_000})
        answers = await asyncio.gather(*tasks)
    assert most <= READINGS
    assert read == 1 + sum(offset + limit > 100 for offset, limit in stretches)
    for (offset, limit), answer in zip(stretches, answers, strict=True):
        now = await server.http.get(f"/boards/all_time?offset={offset}&limit={limit}")
        assert (answer.content, answer.headers["etag"]) == (now.content, now.headers["etag"])


async def test_what_fails_leaves_nobody_without_an_answer(
    server: RunningServer, make_users: MakeUsers, monkeypatch: pytest.MonkeyPatch
) -> None:
    (a,) = await make_users(1)
    await submit(server, {a: 5})

    async def moves(count: int) -> list[asyncio.Task[httpx.Response]]:
        page = (await server.http.get("/boards/all_time")).json()
        return [await waits(server, f"/boards/all_time?wait=55&{since(page)}") for _ in range(count)]

    async def fails(*asked: Any) -> Any:
        raise RuntimeError("unforeseen")

    tasks = await moves(3)
    with monkeypatch.context() as patched:
        patched.setattr(type(server.services.board_reader), "page", fails)
        await submit(server, {a: 6})
        for answer in await asyncio.gather(*tasks):
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
            assert answer.headers["retry-after"] == "1"
    tasks = await moves(3)
    good = BoardPage.response
    broken: list[str | None] = []

    def breaks_once(self: BoardPage, known: str | None) -> Any:
        if broken:
            return good(self, known)
        broken.append(known)
        return fails

    with monkeypatch.context() as patched:
        patched.setattr(BoardPage, "response", breaks_once)
        await submit(server, {a: 7})
        statuses = [answer.status_code for answer in await asyncio.gather(*tasks)]
    assert sorted(statuses) == [200, 200, 500]
    assert server.services.waiting.count == 0


async def test_a_client_that_hangs_up_half_way_and_a_server_that_stops_end_the_wait(
    dsn: str, store_url: str, filled: None
) -> None:
    async with running_server(dsn, store_url) as server:
        page = (await server.http.get("/boards/all_time")).json()
        target = f"/boards/all_time?wait=55&{since(page)}"
        ((half, writer), (whole, other)) = await connected(server, target, 2)
        await eventually(lambda: server.services.waiting.count == 2)
        writer.write_eof()
        async with asyncio.timeout(PATIENCE):
            assert b" 200 " in await half.readline(), "what was asked for is answered"
        assert server.services.waiting.count <= 1
    async with asyncio.timeout(PATIENCE):
        assert b" 200 " in await whole.readline()
        assert b"connection: close" in await whole.readuntil(b"\r\n\r\n")
    for end in (writer, other):
        end.close()


def test_a_wait_ends_before_proxies_give_up() -> None:
    assert requests.WAIT_SECONDS < 60
