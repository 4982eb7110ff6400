"""Streams, pages and waiting requests through real balancers: the sample nginx with its cache, and HAProxy."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from realtime.wire import event_stream
from tests.support.balancers import answering
from tests.support.clients import asking
from tests.support.databases import MakeUsers
from tests.support.events import EventClient
from tests.support.processes import free_port
from tests.support.servers import RunningServer, running_server
from tests.support.waiting import eventually

SAMPLE = Path(__file__).parents[2] / "web/docs/nginx.conf"
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin"
GZIP = {"accept_encoding": "gzip"}

HAPROXY = """
defaults
    mode http
    timeout connect 1s
    timeout client 60s
    timeout server 60s
    timeout tunnel 60s
frontend viewers
    bind {listen}
    http-request set-header X-Forwarded-For %[src]
    default_backend realtime
backend realtime
    balance leastconn
    server one {server}
"""


@pytest.fixture(autouse=True)
async def ended() -> AsyncIterator[None]:
    yield
    await EventClient.close_all()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that nginx's workers, who are nobody, may come to."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
async def server(dsn: str, store_url: str, filled: None) -> AsyncIterator[RunningServer]:
    async with running_server(dsn, store_url, REALTIME_TRUSTED_PROXIES="127.0.0.1") as started:
        yield started


@asynccontextmanager
async def proxied(kind: str, folder: Path, server: RunningServer) -> AsyncIterator[str]:
    """A balancer in front of the server; gives its address."""
    program = shutil.which(kind, path=PATH)
    if program is None or os.geteuid() != 0:
        pytest.skip(f"{kind} is not installed, or needs root: nothing is tried behind it")
    listen, behind = f"127.0.0.1:{free_port()}", server.base_url.removeprefix("http://")
    config = folder / f"{kind}.conf"
    if kind == "nginx":
        text = SAMPLE.read_text(encoding="utf-8").replace("listen 80 ", f"listen {listen} ").replace("#cache ", "")
        text = text.replace("/var/cache/realtime", str(folder / "pages"))
        config.write_text(re.sub(r"server 10\.0\.0\.\d:8000", f"server {behind}", text), encoding="utf-8")
        options = ["-p", str(folder), "-c", str(config)]
        options += ["-g", f"daemon off; pid {folder}/pid; error_log stderr error;"]
    else:
        config.write_text(HAPROXY.format(listen=listen, server=behind), encoding="utf-8")
        options = ["-db", "-f", str(config)]
    async with answering(program, options, listen) as address:
        yield address


async def submit(server: RunningServer, user: int, score: int, **fields: Any) -> None:
    row = {"submission_id": f"{user}-{score}", "user_id": user, "score_added": score, **fields}
    answer = await server.http.post("/scores", json=row, headers=server.bearer(None, "admin"))
    assert answer.json()["type"] == "accepted", answer.text
    await server.told()


@pytest.mark.parametrize("kind", ["nginx", "haproxy"])
async def test_streams_and_waiting_requests_go_through(
    server: RunningServer, make_users: MakeUsers, folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(event_stream, "COMMENT_SECONDS", 0.3)
    (a,) = await make_users(1)
    await submit(server, a, 5)
    async with proxied(kind, folder, server) as url:
        streams = [await EventClient.connect(url, "/boards/all_time/events", **headers) for headers in ({}, GZIP)]
        total = 5
        for stream, compressed in zip(streams, (False, True), strict=True):
            assert stream.status == 200 and (stream.headers.get("content-encoding") == "gzip") == compressed
            await stream.shows("all_time", [(a, "player-1", total)])
        for score in (7, 11):
            await submit(server, a, score)
            total += score
            for stream in streams:
                await stream.shows("all_time", [(a, "player-1", total)])
        for stream in streams:
            await stream.commented(stream.comments + 1)
            back = await stream.lost().again(url, "/boards/all_time/events")
            assert (await back.until("subscribed"))["resumed"]
        async with asking(url) as http:
            page = (await server.http.get("/boards/all_time")).json()
            target = f"/boards/all_time?wait=25&since={page['epoch']}:{page['version']}"
            tasks = [asyncio.ensure_future(http.get(target)) for _ in range(3)]
            await eventually(lambda: server.services.waiting.count == 3)
            await submit(server, a, 13)
            assert [(await task).json()["entries"][0]["score"] for task in tasks] == [total + 13] * 3
            held = page["version"] + 1
            unmoved = await http.get(f"/boards/all_time?wait=1&since={page['epoch']}:{held}")
            assert unmoved.status_code == 304
    await eventually(lambda: server.services.connections.open == 0)


async def test_a_cache_keeps_live_pages_a_second_and_closed_ones_for_long(
    server: RunningServer, make_users: MakeUsers, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = await make_users(2)
    late = {"created_at": "2021-01-01T00:00:00Z"}
    await submit(server, a, 5)
    await submit(server, a, 3, **late)
    asked: list[str] = []
    reader = type(server.services.board_reader)
    page_of = reader.page

    async def counted(self: Any, board: Any, offset: int, limit: int) -> Any:
        asked.append(board.id)
        return await page_of(self, board, offset, limit)

    monkeypatch.setattr(reader, "page", counted)
    async with proxied("nginx", folder, server) as url, asking(url) as http:
        closed = "/boards/week_of_2020_12_28"
        for target, board in (("/boards/all_time", "all_time"), (closed, "week_of_2020_12_28")):
            asked.clear()
            answers = await asyncio.gather(*(http.get(target) for _ in range(40)))
            assert {answer.status_code for answer in answers} == {200}
            assert len({answer.text for answer in answers}) == 1
            assert 1 <= asked.count(board) <= 3, "once for everybody, or once a second"
            tag = answers[0].headers["etag"]
            assert (await http.get(target, headers={"if-none-match": tag})).status_code == 304
        await submit(server, b, 9)
        await submit(server, b, 2, **late)

        async def moved() -> bool:
            return len((await http.get("/boards/all_time")).json()["entries"]) == 2

        await eventually(moved)
        assert len((await http.get(closed)).json()["entries"]) == 1, "kept, until its hour is over"
        amended = await server.http.get(closed, headers={"if-none-match": tag})
        assert amended.status_code == 200, "but its tag has moved"
    async with proxied("nginx", folder, server) as url, asking(url) as http:
        private = {"operator": "sum", "windows": ["all_time"], "visible": "private"}
        admin = server.bearer(None, "admin")
        assert (await server.http.put("/leaderboards/secret", json=private, headers=admin)).status_code in (200, 201)

        async def shown() -> bool:
            return (await http.get("/boards/secret:all_time", headers=admin)).status_code == 200

        await eventually(shown)
        assert (await http.get("/boards/secret:all_time")).status_code == 401, "a reader's page is nobody else's"
