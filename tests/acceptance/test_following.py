"""A viewer's half of the contract, through a real server and real sockets: since, aliases, diffs, rollover."""

from __future__ import annotations

import asyncio
import json
import random
import socket
from datetime import datetime, timedelta

import pytest
from redis.asyncio import Redis
from websockets.exceptions import ConnectionClosed

from realtime.boards.board import week_at
from realtime.broadcast.conflation import Pace
from tests.support.clients import Client
from tests.support.databases import MakeUsers
from tests.support.servers import RunningServer, running_server
from tests.support.waiting import PATIENCE


async def scored(server: RunningServer, client: Client, user: int, score: int) -> None:
    """Hands in for somebody, through a game server's socket; when this returns, boards can show it."""
    scored.number = getattr(scored, "number", 0) + 1  # type: ignore[attr-defined]
    name = f"s{scored.number}"  # type: ignore[attr-defined]
    await client.send("submit", submission_id=name, user_id=user, score_added=score)
    answer = await client.until("accepted", lambda message: message["submission_id"] == name)
    assert answer["user_id"] == user
    await server.told()


@pytest.fixture
async def game(server: RunningServer) -> Client:
    """A game server: hands in for everyone."""
    return await server.client(server.token(None, "submit:any"))


async def test_the_first_words(server: RunningServer, make_users: MakeUsers) -> None:
    viewer = await server.client()
    assert viewer.greeting["type"] == "hello" and viewer.greeting["protocol"] == 1
    said = datetime.fromisoformat(viewer.greeting["now"])
    assert abs(said - server.services.clock.now()) < timedelta(seconds=10)
    (user,) = await make_users(1)
    player = await server.client(server.token(user))
    welcome = await player.next()
    assert (welcome["type"], welcome["user_id"]) == ("authenticated", user)
    assert datetime.fromisoformat(welcome["expires_at"]) > said
    by_query = await Client.connect(f"{server.ws_url}?token={server.token(user)}")
    assert (await by_query.next())["user_id"] == user
    await by_query.aclose()


async def test_a_snapshot_then_diffs_in_board_order_with_names_where_unknown(
    server: RunningServer, game: Client, make_users: MakeUsers
) -> None:
    a, b, c = await make_users(names=["Ada", "Bob", "<b>Cyd</b>"])
    await scored(server, game, a, 10)
    viewer = await server.client()
    assert await viewer.ask("subscribe", board="all_time") == {
        "type": "subscribed",
        "board": "all_time",
        "as": "all_time",
        "resumed": False,
    }
    await viewer.shows("all_time", [(a, "Ada", 10)])
    snapshot = viewer.seen[-1]
    assert set(snapshot) == {"type", "board", "epoch", "version", "entries"}
    assert len(snapshot["epoch"]) <= 12
    await scored(server, game, b, 30)
    await viewer.shows("all_time", [(b, "Bob", 30), (a, "Ada", 10)])
    diff = viewer.seen[-1]
    assert diff == {
        "type": "diff",
        "board": "all_time",
        "epoch": snapshot["epoch"],
        "from": snapshot["version"],
        "version": diff["version"],
        "upsert": [{"user_id": b, "username": "Bob", "score": 30}],
        "remove": [],
    }
    await scored(server, game, a, 25)
    await viewer.shows("all_time", [(a, "Ada", 35), (b, "Bob", 30)])
    assert viewer.seen[-1]["upsert"] == [{"user_id": a, "score": 35}]
    await scored(server, game, c, 35)
    lines = sorted([(a, "Ada", 35), (c, "<b>Cyd</b>", 35)], key=lambda line: str(line[0]), reverse=True)
    await viewer.shows("all_time", [*lines, (b, "Bob", 30)])


async def test_versions_have_no_gap_under_load_and_every_viewer_ends_the_same(
    server: RunningServer, game: Client, make_users: MakeUsers
) -> None:
    users = await make_users(140)
    chance = random.Random(9)
    viewers = [await server.client() for _ in range(4)]
    for viewer in viewers:
        await viewer.subscribe("all_time")
        await viewer.subscribe("current_week")
    total = dict.fromkeys(users, 0)
    for number in range(600):
        user, score = chance.choice(users), chance.randint(-5, 20)
        await game.send("submit", submission_id=f"n{number}", user_id=user, score_added=score)
        total[user] += score
    for _ in range(600):
        await game.until("accepted")
    await server.told()
    expected = sorted(
        ((user, score) for user, score in total.items()), key=lambda pair: (pair[1], str(pair[0])), reverse=True
    )
    played = {json.loads(json.dumps(user)) for user in users}
    assert played
    page = (await server.http.get("/boards/all_time?limit=1000")).json()
    shown = [(entry["user_id"], entry["score"]) for entry in page["entries"]]
    assert shown == [pair for pair in expected if pair[0] in {entry["user_id"] for entry in page["entries"]}]
    top = [(entry["user_id"], entry["username"], entry["score"]) for entry in page["entries"][:100]]
    week = week_at(server.services.clock.now()).id
    for viewer in viewers:  # the follower asserts that no diff starts anywhere else than where it is
        await viewer.shows("all_time", top)
        await viewer.shows(week, top)
        assert viewer.follower.diffs > 0


async def test_the_edge_of_the_hundred(server: RunningServer, game: Client, make_users: MakeUsers) -> None:
    users = await make_users(103)
    outcomes = (
        await server.http.post(
            "/scores",
            json=[
                {"submission_id": "start", "user_id": user, "score_added": 1000 - place}
                for place, user in enumerate(users)
            ],
            headers=server.bearer(None, "submit:any"),
        )
    ).json()["results"]
    assert {outcome["type"] for outcome in outcomes} == {"accepted"}
    await server.told()
    viewer = await server.client()
    await viewer.subscribe("all_time")
    board = viewer.follower.boards["all_time"]
    assert list(board.scores) == users[:100]
    at = board.version
    await scored(server, game, users[102], 1)  # place 103 moves below the edge: nobody sees anything
    assert await viewer.settled() == []
    await scored(server, game, users[102], 500)
    await viewer.reaches("all_time", at + 1)
    assert viewer.seen[-1]["remove"] == [users[99]]
    assert [entry["user_id"] for entry in viewer.seen[-1]["upsert"]] == [users[102]]
    assert viewer.seen[-1]["version"] == at + 1
    await scored(server, game, users[0], -900)  # the first drops out by a correction, and another moves up
    await viewer.reaches("all_time", at + 2)
    assert viewer.seen[-1]["remove"] == [users[0]]
    assert [entry["user_id"] for entry in viewer.seen[-1]["upsert"]] == [users[99]]
    assert "username" in viewer.seen[-1]["upsert"][0], "who comes back is a newcomer"


# Names and aliases -----------------------------------------------------------------------------------------------


async def test_an_alias_and_its_board_are_two_subscriptions_on_one_stream(
    server: RunningServer, game: Client, make_users: MakeUsers
) -> None:
    (user,) = await make_users(1)
    week = week_at(server.services.clock.now()).id
    viewer = await server.client()
    assert await viewer.subscribe("current_week") == {
        "type": "subscribed",
        "board": week,
        "as": "current_week",
        "resumed": False,
    }
    assert (await viewer.subscribe(week))["as"] == week
    assert viewer.follower.snapshots == 2, "a second subscribe gets a fresh snapshot"
    await scored(server, game, user, 5)
    await viewer.shows(week, [(user, "player-1", 5)])
    assert viewer.follower.diffs == 1, "one stream, one diff"
    assert await viewer.ask("unsubscribe", board="current_week") == {
        "type": "unsubscribed",
        "board": week,
        "as": "current_week",
    }
    await scored(server, game, user, 5)
    await viewer.shows(week, [(user, "player-1", 10)])
    assert (await viewer.ask("unsubscribe", board=week))["type"] == "unsubscribed"
    await scored(server, game, user, 5)
    again = await server.client()
    await again.subscribe(week)
    assert again.follower.boards[week].scores == {user: 15}
    assert await viewer.settled() == [], "the stream ended with the last of its names"
    assert (await viewer.ask("unsubscribe", board=week))["code"] == "unknown_board"


@pytest.mark.parametrize(
    ("kinds", "ends_subscribed"),
    [
        (["subscribe", "unsubscribe"], False),
        (["subscribe", "unsubscribe", "subscribe"], True),
        (["subscribe", "subscribe", "unsubscribe"], False),
        (["subscribe", "unsubscribe", "unsubscribe"], False),
    ],
)
async def test_messages_act_in_their_order_however_fast_they_come(
    server: RunningServer, game: Client, make_users: MakeUsers, kinds: list[str], ends_subscribed: bool
) -> None:
    (user,) = await make_users(1)
    viewer = await server.client()
    for kind in kinds:
        await viewer.send(kind, board="all_time")
    if ends_subscribed:
        await viewer.until("snapshot")
    await viewer.settled()
    await scored(server, game, user, 5)
    other = await server.client()
    await other.subscribe("all_time")
    await asyncio.sleep(0.05)
    messages = await viewer.settled()
    assert [message["type"] for message in messages] == (["diff"] if ends_subscribed else [])


async def test_a_board_asked_for_again_counts_once_against_the_limit(dsn: str, store_url: str, filled: None) -> None:
    async with running_server(dsn, store_url, REALTIME_MAX_SUBSCRIPTIONS="2") as server:
        viewer = await server.client()
        for board in ("all_time", "all_time", "current_week", "current_week"):
            await viewer.send("subscribe", board=board)
        for _ in range(4):
            await viewer.until("snapshot")
        week = week_at(server.services.clock.now()).id
        assert (await viewer.ask("subscribe", board=week))["code"] == "too_many"


# Since -----------------------------------------------------------------------------------------------------------


async def test_since_gives_nothing_the_diff_or_a_snapshot(
    server: RunningServer, game: Client, make_users: MakeUsers
) -> None:
    (user,) = await make_users(1)
    await scored(server, game, user, 5)
    keeper, viewer = await server.client(), await server.client()
    for client in (keeper, viewer):
        await client.subscribe("all_time")
    held = viewer.follower.boards["all_time"]
    since = {"epoch": held.epoch, "version": held.version}
    await viewer.aclose()

    back = await server.client()
    back.follower = viewer.follower
    assert (await back.ask("subscribe", board="all_time", since=since))["resumed"] is True
    assert await back.settled() == [], "as it is now: nothing else"
    await back.aclose()

    await scored(server, game, user, 7)
    await keeper.shows("all_time", [(user, "player-1", 12)])
    back = await server.client()
    back.follower = viewer.follower
    assert (await back.ask("subscribe", board="all_time", since=since))["resumed"] is True
    diff = await back.next()
    assert (diff["type"], diff["from"], diff["upsert"]) == ("diff", since["version"], [{"user_id": user, "score": 12}])

    for other in ({**since, "epoch": "other-1"}, {**since, "version": since["version"] + 50}):
        stranger = await server.client()
        assert (await stranger.subscribe("all_time", since=other))["resumed"] is False
        assert stranger.follower.boards["all_time"].scores == {user: 12}


async def test_a_client_that_comes_back_to_another_process_is_right_there_too(
    server: RunningServer, game: Client, dsn: str, store_url: str, make_users: MakeUsers
) -> None:
    (user,) = await make_users(1)
    await scored(server, game, user, 5)
    async with running_server(dsn, store_url) as other:
        there = await other.client()
        await there.subscribe("all_time")
        held = there.follower.boards["all_time"]
        since = {"epoch": held.epoch, "version": held.version}
        await scored(server, game, user, 7)
        await there.shows("all_time", [(user, "player-1", 12)])
        here = await server.client()
        await here.subscribe("all_time", since=since)
        assert here.follower.boards["all_time"].version == there.follower.boards["all_time"].version
        back = await other.client()
        assert (await back.ask("subscribe", board="all_time", since=since))["resumed"] is True


# Rollover --------------------------------------------------------------------------------------------------------


async def test_the_week_ends_without_a_reconnect(
    server: RunningServer, game: Client, make_users: MakeUsers, keys: Redis
) -> None:
    (user,) = await make_users(1)
    now = server.services.clock.now()
    week = week_at(now)
    assert week.ends is not None
    following = week_at(week.ends)
    await scored(server, game, user, 5)
    by_alias, by_id = await server.client(), await server.client()
    await by_alias.subscribe("current_week")
    await by_id.subscribe(week.id)
    server.travel(week.ends)
    told = await by_alias.until("rollover")
    assert told == {"type": "rollover", "as": "current_week", "from": week.id, "to": following.id}
    snapshot = await by_alias.until("snapshot")
    assert (snapshot["board"], snapshot["entries"]) == (following.id, [])
    answer = await by_id.ask("subscribe", board="current_week")
    assert answer["board"] == following.id, "who asks now gets the new week"
    assert [message["type"] for message in by_id.seen if message["type"] == "rollover"] == []
    late = await server.client()
    assert (await late.subscribe(week.id))["board"] == week.id
    assert late.follower.boards[week.id].scores == {user: 5}


# Slow viewers ----------------------------------------------------------------------------------------------------


async def test_who_does_not_read_is_conflated_and_then_closed(
    dsn: str, store_url: str, filled: None, make_users: MakeUsers
) -> None:
    users = await make_users(100)
    settings = {
        "REALTIME_SUBSCRIBER_BUFFER_BYTES": "8192",
        "REALTIME_SLOW_AFTER_S": "0.5",
        "REALTIME_BROADCAST_INTERVAL_MS": "1",
    }
    async with running_server(dsn, store_url, **settings) as server:
        narrow = socket.socket()
        narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)  # what the kernel takes in unread
        narrow.setblocking(False)
        host, port = server.base_url.removeprefix("http://").split(":")
        await asyncio.get_running_loop().sock_connect(narrow, (host, int(port)))
        slow = await server.client(max_queue=1, compression=None, sock=narrow)
        fast = await server.client()
        for client in (slow, fast):
            await client.subscribe("all_time")
        slow.socket.transport.pause_reading()  # type: ignore[attr-defined]
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
                await fast.next()  # goes on as if nothing were
        stop.set()
        await playing
        assert fast.follower.diffs > 5
        slow.socket.transport.resume_reading()  # type: ignore[attr-defined]
        with pytest.raises(ConnectionClosed):
            while True:
                await slow.next()
        assert slow.socket.close_code == 4408
        assert slow.follower.diffs < fast.follower.diffs, "what it missed was not kept for it"
