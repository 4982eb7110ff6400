"""A viewer's half of the contract over server-sent events: what a socket shows, for whoever can only ask over HTTP."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from realtime.boards.board import week_at
from realtime.broadcast.conflation import Pace
from realtime.wire import event_stream
from tests.support.clients import metrics
from tests.support.databases import MakeUsers
from tests.support.events import EventClient, following_events
from tests.support.processes import environment, running
from tests.support.servers import SECRET, RunningServer, running_server
from tests.support.stores import PrivateStore
from tests.support.waiting import PATIENCE, eventually

TARGETS = (
    "/boards/all_time/events", "/boards/current_week/events", "/events?board=all_time&board=current_week",
)  # fmt: skip
GZIP = {"accept_encoding": "gzip"}


@pytest.fixture(autouse=True)
async def ended() -> AsyncIterator[None]:
    """No stream outlives its test, however that ends."""
    yield
    await EventClient.close_all()


async def submit(server: RunningServer, user: int, score: int, **fields: Any) -> None:
    row = {"submission_id": f"{user}-{score}-{json.dumps(fields)}", "user_id": user, "score_added": score, **fields}
    answer = await server.http.post("/scores", json=row, headers=server.bearer(None, "admin"))
    assert answer.json()["type"] == "accepted"


@pytest.mark.parametrize("headers", [{}, GZIP], ids=["plain", "gzip"])
async def test_a_stream_says_what_a_socket_says(
    server: RunningServer, make_users: MakeUsers, headers: dict[str, str]
) -> None:
    a, b = await make_users(2)
    await submit(server, a, 5)
    await server.told()
    socket = await server.client()
    await socket.send("subscribe", board="all_time", describe=True)
    await socket.shows("all_time", [(a, "player-1", 5)])
    async with following_events(server.base_url, "/boards/all_time/events", **headers) as stream:
        assert stream.status == 200 and stream.headers["content-type"].startswith("text/event-stream")
        assert stream.headers["x-accel-buffering"] == "no" and "no-store" in stream.headers["cache-control"]
        assert (stream.headers.get("content-encoding") == "gzip") == bool(headers)
        await stream.shows("all_time", [(a, "player-1", 5)])
        await submit(server, b, 9)
        await submit(server, a, 3)
        await stream.shows("all_time", [(b, "player-2", 9), (a, "player-1", 8)])
        await socket.shows("all_time", [(b, "player-2", 9), (a, "player-1", 8)])
        assert [m["type"] for m in stream.seen[:3]] == ["hello", "subscribed", "snapshot"]
        own = [m for m in stream.seen if m["type"] != "hello"]
        assert own == socket.seen[-len(own) :], "the same payloads"
        last = stream.seen[-1]
        assert stream.last_id == f"{last['epoch']}:{last['version']}"
        assert stream.retry_ms is not None and 1_000 <= stream.retry_ms <= 4_000


@pytest.mark.parametrize("headers", [{}, GZIP], ids=["plain", "gzip"])
async def test_a_stream_goes_on_at_the_exact_version(
    server: RunningServer, make_users: MakeUsers, headers: dict[str, str]
) -> None:
    a, b = await make_users(2)
    await submit(server, a, 5)
    await server.told()
    for place, target in enumerate(TARGETS):
        boards = max(1, target.count("board="))
        first = await EventClient.connect(server.base_url, target, **headers)
        stays = await EventClient.connect(server.base_url, target, **headers)
        for client in (first, stays):
            for _ in range(boards):
                await client.until("snapshot")
        same = await first.lost().again(server.base_url, target, **headers)
        for _ in range(boards):
            assert (await same.until("subscribed"))["resumed"]
        await submit(server, b, 100 + place)
        for client in (same, stays):
            for _ in range(boards):
                assert (await client.until("diff"))["version"] > 1
        assert set(same.last_id.split(",")) == set(stays.last_id.split(","))
        later = await first.again(server.base_url, target, **headers)
        for _ in range(boards):
            assert (await later.until("subscribed"))["resumed"]
            await later.until("diff")
        assert later.follower.snapshots == boards and later.follower.boards == stays.follower.boards
        assert set(later.last_id.split(",")) == set(stays.last_id.split(","))
        for client in (same, stays, later):
            client.close()


async def test_a_position_that_is_none_gets_a_snapshot(server: RunningServer, make_users: MakeUsers) -> None:
    (a,) = await make_users(1)
    await submit(server, a, 5)
    await server.told()
    week = (await server.http.get("/boards/current_week")).json()
    total = (await server.http.get("/boards/all_time")).json()
    epoch, version = total["epoch"], total["version"]
    assert (week["epoch"], week["version"]) == (epoch, version), "so alike may two boards' positions be"
    strangers = [
        "", "nonsense", "\xff\xfe", ":", f"{epoch}:", f"{epoch}:-1", f"{epoch}:{version}.0", "x" * 5000,
        f"{epoch}:{version + 1}", f"{epoch}:9007199254740993", f"other-1:{version}", f"{epoch}:{'9' * 400}",
        f"{epoch}:{version}:{week['board']}", f"{epoch}:{version}:lap:all_time", "," * 3000,
    ]  # fmt: skip
    for stranger in strangers:
        async with following_events(server.base_url, "/boards/all_time/events", last_event_id=stranger) as stream:
            assert not (await stream.until("subscribed"))["resumed"], stranger
            await stream.until("snapshot")
    for target in ("/boards/current_week/events", f"/boards/{week['board']}/events"):
        async with following_events(server.base_url, target, last_event_id=f"{epoch}:{version}") as stream:
            assert not (await stream.until("subscribed"))["resumed"], "a position of all_time"
    since = f"/boards/{week['board']}/events?since={epoch}:{version}"
    async with following_events(server.base_url, since) as stream:
        assert (await stream.until("subscribed"))["resumed"], "the address says of which board"
    async with following_events(server.base_url, since, last_event_id=f"{epoch}:{version + 3}") as stream:
        assert not (await stream.until("subscribed"))["resumed"], "the browser's word is the newer one"


async def test_watched_users_and_several_boards_share_a_stream(server: RunningServer, make_users: MakeUsers) -> None:
    a, b = await make_users(2)
    await submit(server, a, 5)
    await submit(server, b, 9)
    await server.told()
    target = f"/events?board=all_time&board=current_week&watch={a}&watch={b}@current_week"
    async with following_events(server.base_url, target) as stream:
        ranks = [await stream.until("rank") for _ in range(3)]
        week = stream.seen[-1]["board"] if stream.seen[-1]["board"] != "all_time" else ranks[0]["board"]
        assert {(rank["user_id"], rank["board"] == "all_time", rank["rank"]) for rank in ranks} == {
            (a, True, 2), (a, False, 2), (b, False, 1)
        } and week  # fmt: skip
        await submit(server, a, 50)
        changed = {(rank["user_id"], rank["rank"]) for rank in [await stream.until("rank") for _ in range(3)]}
        assert changed == {(a, 1), (b, 2)}
    for bad, code in (
        (f"/events?board=all_time&watch={a}@current_week", "bad_message"),
        ("/events?board=all_time&watch=kim", "bad_message"),
        ("/events?board=all_time&watch=0", "out_of_range"),
        ("/events", "bad_message"),
        ("/events?board=", "unknown_board"),
        ("/events?board=all_time&board=nowhere", "unknown_board"),
        ("/boards/week_of_1990_01_01/events", "unknown_board"),
        ("/events?board=all_time&board=week_of_1990_01_01", "unknown_board"),
        (f"/boards/{'x' * 300}/events", "unknown_board"),
        ("/boards/all_time/events?watch=" + "&watch=".join(map(str, range(1, 18))), "too_many"),
        ("/events?board=" + "&board=".join(f"week_of_x{n}" for n in range(65)), "too_many"),
    ):
        async with following_events(server.base_url, bad) as refused:
            assert (await refused.error())["code"] == code, bad


async def test_the_week_ends_on_the_same_stream(server: RunningServer, make_users: MakeUsers) -> None:
    (a,) = await make_users(1)
    await submit(server, a, 5)
    await server.told()
    week = week_at(server.services.clock.now())
    assert week.ends is not None
    stream = await EventClient.connect(server.base_url, "/boards/current_week/events")
    old = await stream.until("snapshot")
    server.travel(week.ends)
    told = await stream.until("rollover")
    assert (told["from"], told["to"]) == (week.id, week_at(week.ends).id)
    assert stream.last_id == f"{old['epoch']}:{old['version']}:{week.id}"
    # Who is lost before the new week's first snapshot holds the old week, whose version may be the new one's too.
    lost = await stream.lost().again(server.base_url, "/boards/current_week/events")
    assert not (await lost.until("subscribed"))["resumed"]
    assert (await lost.until("snapshot"))["board"] == told["to"]
    lost.close()


async def test_a_stream_that_follows_nothing_any_more_ends(
    server: RunningServer, make_users: MakeUsers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "COMMENT_SECONDS", 0.2)
    (a,) = await make_users(1)
    admin = server.bearer(None, "admin")
    rule = {"operator": "best", "windows": ["all_time"]}
    assert (await server.http.put("/leaderboards/lap", json=rule, headers=admin)).status_code in (200, 201)

    async def live() -> bool:
        return bool((await server.http.get("/leaderboards/lap", headers=admin)).json()["state"] == "live")

    await eventually(live)
    await submit(server, a, 5)
    for headers in ({}, GZIP):
        async with following_events(server.base_url, "/boards/all_time/events", **headers) as other:
            await other.commented(3)
    stream = await EventClient.connect(server.base_url, "/boards/lap:all_time/events")
    await stream.until("snapshot")
    assert (await server.http.delete("/leaderboards/lap", headers=admin)).status_code in (200, 204)
    assert (await stream.until("unsubscribed"))["board"] == "lap:all_time"
    assert (await stream.until("closing"))["code"] == 1000
    with pytest.raises(EOFError):
        await stream.next()
    again = await EventClient.connect(server.base_url, "/boards/lap:all_time/events")
    assert again.status == 404 and (await again.error())["code"] == "unknown_board", "which ends an EventSource"
    again.close()


async def test_a_private_board_is_followed_with_a_token_in_the_address_while_that_holds(
    dsn: str, store_url: str, filled: None, make_users: MakeUsers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "COMMENT_SECONDS", 0.2)
    (a,) = await make_users(1)
    async with running_server(dsn, store_url, REALTIME_BOARDS="private") as server:
        await submit(server, a, 5)
        target = "/boards/all_time/events"
        for token, status in (("", 401), ("?token=nonsense", 401), (f"?token={server.token(a)}", 403)):
            refused = await EventClient.connect(server.base_url, target + token)
            assert refused.status == status
            refused.close()
        good = f"{target}?token={server.token(None, 'read', lifetime=3)}"
        foreign = await EventClient.connect(server.base_url, good, origin="https://elsewhere.example")
        assert foreign.status == 403, "a page of another origin speaks for nobody"
        foreign.close()
        async with following_events(server.base_url, good) as stream:
            assert (await stream.until("authenticated"))["user_id"] is None
            await stream.until("snapshot")
            assert (await stream.until("error"))["code"] == "expired"
            assert (await stream.until("unsubscribed"))["board"] == "all_time"
            assert (await stream.until("closing"))["code"] == 1000


async def test_streams_count_as_sockets_do(dsn: str, store_url: str, filled: None) -> None:
    async with running_server(dsn, store_url, REALTIME_MAX_CONNECTIONS_PER_ADDRESS="2") as server:
        await server.client()
        stream = await EventClient.connect(server.base_url, "/boards/all_time/events")
        await stream.until("snapshot")
        refused = await EventClient.connect(server.base_url, "/boards/all_time/events")
        assert refused.status == 429 and refused.headers["retry-after"] == "10"
        assert (await refused.error())["code"] == "too_many"
        refused.close()
        samples = metrics((await server.http.get("/metrics")).text)
        assert samples['realtime_viewers{of="events"}'] == 1
        assert samples["realtime_connections"] == 2
        stream.lost()

        async def left() -> bool:
            return metrics((await server.http.get("/metrics")).text)["realtime_connections"] == 1

        await eventually(left)
        head = await server.http.head("/boards/all_time/events")
        assert head.status_code == 200 and head.headers["content-type"].startswith("text/event-stream")
        assert server.services.connections.open == 1


async def test_a_stream_that_is_not_read_is_conflated_and_then_closed(
    dsn: str, store_url: str, filled: None, make_users: MakeUsers
) -> None:
    users = await make_users(100)
    settings = {
        "REALTIME_SUBSCRIBER_BUFFER_BYTES": "8192",
        "REALTIME_SLOW_AFTER_S": "0.5",
        "REALTIME_BROADCAST_INTERVAL_MS": "1",
    }
    async with running_server(dsn, store_url, **settings) as server:
        slow = await EventClient.connect(server.base_url, "/boards/all_time/events", narrow=True)
        fast = await EventClient.connect(server.base_url, "/boards/all_time/events")
        for client in (slow, fast):
            await client.until("snapshot")
        slow.writer.transport.pause_reading()  # type: ignore[attr-defined]
        stop = asyncio.Event()

        async def play() -> None:
            number = 0
            while not stop.is_set():
                number += 1
                rows = [
                    {"submission_id": str(number), "user_id": user, "score_added": 1 + (user * number) % 90}
                    for user in users
                ]
                await server.http.post("/scores", json=rows, headers=server.bearer(None, "submit:any"))

        playing = asyncio.ensure_future(play())
        subscribers = server.services.broadcaster.following._subscribers
        async with asyncio.timeout(PATIENCE):
            while not any(subscriber.pace is Pace.LOST for subscriber in subscribers):
                await fast.next()
        stop.set()
        await playing
        await eventually(lambda: server.services.broadcaster.following.subscribers == 1)
        assert fast.follower.diffs > 5
        closes = metrics((await server.http.get("/metrics")).text)
        assert closes['realtime_closes_total{code="4408"}'] == 1
        for client in (slow, fast):
            client.close()


async def test_who_was_behind_gets_one_snapshot_and_goes_on(
    dsn: str, store_url: str, filled: None, make_users: MakeUsers
) -> None:
    users = await make_users(100)
    async with running_server(dsn, store_url, REALTIME_SUBSCRIBER_BUFFER_BYTES="8192") as server:
        targets = ("/boards/all_time/events", "/events?board=all_time&board=current_week")
        slow = [
            await EventClient.connect(server.base_url, target, narrow=True, **headers)
            for target in targets
            for headers in ({}, GZIP)
        ]
        for client in slow:
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        following = server.services.broadcaster.following
        number = 0
        async with asyncio.timeout(PATIENCE):
            while following.behind < len(slow):
                number += 1
                rows = [
                    {"submission_id": str(number), "user_id": user, "score_added": 1 + (user * number**2) % 9973}
                    for user in users
                ]
                await server.http.post("/scores", json=rows, headers=server.bearer(None, "submit:any"))
        await server.told()
        for client in slow:
            client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        last = {"submission_id": "last", "user_id": users[0], "score_added": 10**9}
        await server.http.post("/scores", json=[last], headers=server.bearer(None, "submit:any"))
        for client in slow:
            boards = {"all_time", "current_week"} if "," in client.last_id else {"all_time"}
            while not all(
                board.lines and board.lines[0][0] == users[0] and board.lines[0][2] >= 10**9
                for board in client.follower.boards.values()
            ) or not client.follower.boards:
                await client.next()
            assert client.follower.snapshots > len(boards), "what it missed was not kept for it"
            client.close()


async def test_what_a_client_still_says_is_nothing_and_bounded(server: RunningServer) -> None:
    stream = await EventClient.connect(server.base_url, "/boards/all_time/events")
    await stream.until("snapshot")
    stream.writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    await server.http.get("/healthz")
    assert server.services.connections.open == 1
    with pytest.raises((ConnectionError, EOFError)):
        while True:
            stream.writer.write(b"x" * 65536)
            await stream.writer.drain()
            await asyncio.sleep(0)
    await eventually(lambda: server.services.connections.open == 0)


async def test_http_1_0_follows_too(server: RunningServer) -> None:
    address = urlsplit(server.base_url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(b"GET /boards/all_time/events HTTP/1.0\r\n\r\n")
    async with asyncio.timeout(PATIENCE):
        text = await reader.readuntil(b'"type":"snapshot"')
    assert b"transfer-encoding" not in text and b"connection: close" in text
    writer.close()


async def test_a_server_that_leaves_asks_streams_to_come_back_and_they_go_on_exactly(
    dsn: str, store_url: str, filled: None, make_users: MakeUsers
) -> None:
    (a,) = await make_users(1)
    env = environment(
        DATABASE_URL=dsn, DRAGONFLY_URL=store_url, REALTIME_SECRET=SECRET, REALTIME_PORT="0",
        REALTIME_DRAIN_S="0", REALTIME_RECONNECT_SPREAD_S="0",
    )  # fmt: skip
    target = "/events?board=all_time&board=current_week"
    async with running_server(dsn, store_url) as other, running("serve", env=env) as command:
        stream = await EventClient.connect(await command.says("ready:"), target)
        for _ in range(2):
            await stream.until("snapshot")
        command.signal()
        assert (await stream.until("reconnect"))["after_ms"] > 0
        closing = await stream.until("closing")
        assert closing["code"] == 1012
        with pytest.raises(EOFError):
            await stream.next()
        assert await command.ends() == 0
        await submit(other, a, 5)
        await other.told()
        elsewhere = await stream.again(other.base_url, target)
        for _ in range(2):
            assert (await elsewhere.until("subscribed"))["resumed"] or elsewhere.last_id
        for board in ("all_time", week_at(other.services.clock.now()).id):
            await elsewhere.shows(board, [(a, "player-1", 5)])
        async with running("serve", env=env) as restarted:
            back = await elsewhere.lost().again(await restarted.says("ready:"), target)
            assert [(await back.until("subscribed"))["resumed"] for _ in range(2)] == [True, True]
            back.close()


async def test_a_store_that_dies_is_told_and_what_comes_after_is_a_fresh_start(
    dsn: str, private_store: PrivateStore, make_users: MakeUsers
) -> None:
    (a,) = await make_users(1)
    async with running_server(dsn, private_store.url, REALTIME_STORE_TIMEOUT_S="0.5") as server:
        await submit(server, a, 5)
        await server.told()
        stream = await EventClient.connect(server.base_url, "/boards/all_time/events")
        await stream.shows("all_time", [(a, "player-1", 5)])
        held = stream.last_id
        await asyncio.to_thread(private_store.kill)
        assert (await stream.until("status"))["live"] is False
        late = await EventClient.connect(server.base_url, "/boards/all_time/events", last_event_id=held)
        assert (await late.until("subscribed"))["resumed"], "the board stands still, and so does who follows it"
        assert (await late.until("status"))["live"] is False
        late.close()
        await asyncio.to_thread(private_store.start)
        assert (await stream.until("status"))["live"] is True
        await submit(server, a, 7)
        await stream.shows("all_time", [(a, "player-1", 12)])
        assert stream.last_id.split(":")[0] != held.split(":")[0]
        back = await EventClient.connect(server.base_url, "/boards/all_time/events", last_event_id=held)
        assert not (await back.until("subscribed"))["resumed"], "a position of the content before"
        for client in (back, stream):
            client.close()


async def test_a_browser_that_is_led_elsewhere_goes_though_nobody_reads_what_it_is_told(
    server: RunningServer,
) -> None:
    stream = await EventClient.connect(server.base_url, "/boards/all_time/events")
    await stream.until("snapshot")
    assert server.services.broadcaster.following.send_away(300) == 1
    assert (await stream.until("reconnect"))["after_ms"] == 300
    assert (await stream.until("closing"))["code"] == 1012
    with pytest.raises(EOFError):
        await stream.next()


async def test_a_reader_that_vanishes_is_reset_by_the_kernel(server: RunningServer) -> None:
    """No pong tells that somebody is there: what is not acknowledged for so long is."""
    stream = await EventClient.connect(server.base_url, "/boards/all_time/events")
    await stream.until("snapshot")
    (subscriber,) = server.services.broadcaster.following._subscribers
    sock = subscriber.connection.transport.get_extra_info("socket")  # type: ignore[attr-defined]
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 45_000


async def test_a_board_that_has_not_moved_is_not_forgotten_for_one_that_has(
    server: RunningServer, make_users: MakeUsers
) -> None:
    (a,) = await make_users(1)
    await submit(server, a, 3, created_at="2021-01-01T00:00:00Z")
    await server.told()
    target = "/events?board=all_time&board=week_of_2020_12_28"
    stays, stream = [await EventClient.connect(server.base_url, target) for _ in range(2)]
    for client in (stays, stream):
        for _ in range(2):
            await client.until("snapshot")
    stream.lost()
    await submit(server, a, 5)
    await server.told()
    moved = await stream.again(server.base_url, target)
    for _ in range(2):
        assert (await moved.until("subscribed"))["resumed"]
    await moved.shows("all_time", [(a, "player-1", 8)])
    await moved.positioned()
    assert len(moved.last_id.split(",")) == 2
    back = await moved.lost().again(server.base_url, target)
    for _ in range(2):
        assert (await back.until("subscribed"))["resumed"]
    assert back.follower.snapshots == 2
