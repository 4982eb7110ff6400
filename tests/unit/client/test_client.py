"""The Python client against a server that does what the test says: lines that break, gaps, refusals."""

from __future__ import annotations

import asyncio
import html
import json
import re
import textwrap
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.server import ServerConnection, serve

from realtime.client import Accepted, Client, Refused, Rejected, Snapshot, Timing, connect
from realtime.client.connection import LONGEST_PAUSE, pause, socket_url
from tests.support.waiting import SECOND, eventually

PATIENCE = 10 * SECOND


class Server:
    """Takes lines one by one, for the test to speak on."""

    def __init__(self) -> None:
        self.lines: asyncio.Queue[Spoken] = asyncio.Queue()
        self.url = ""

    async def _take(self, connection: ServerConnection) -> None:
        line = Spoken(connection)
        await self.lines.put(line)
        await connection.wait_closed()

    async def next(self, *, greet: bool = True) -> Spoken:
        async with asyncio.timeout(PATIENCE):
            line = await self.lines.get()
        if greet:
            await line.say("hello", protocol=1, now="2026-11-23T10:00:00.000Z")
        return line


class Spoken:
    """One line, from the server's end."""

    def __init__(self, connection: ServerConnection) -> None:
        self.connection = connection

    async def say(self, kind: str, **fields: Any) -> None:
        await self.connection.send(json.dumps({"type": kind, **fields}))

    async def hears(self, kind: str) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE):
            message: dict[str, Any] = json.loads(await self.connection.recv())
        assert message.pop("type") == kind, message
        return message

    async def shows(self, version: int, board: str = "all_time", name: str | None = None) -> None:
        await self.say("subscribed", board=board, **{"as": name or board}, resumed=False)
        await self.say("snapshot", board=board, epoch="e", version=version, entries=[])

    async def moves(self, first: int, version: int, board: str = "all_time") -> None:
        await self.say("diff", board=board, epoch="e", version=version, upsert=[], remove=[], **{"from": first})

    async def ends(self, code: int = 1011) -> None:
        await self.connection.close(code)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    async with serve(made._take, "127.0.0.1", 0, close_timeout=0.1) as listening:
        made.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        yield made


class Time:
    """Time that passes only where the client sleeps; chance is always at its most."""

    def __init__(self) -> None:
        self.at = 1000.0
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 3))
        self.at += seconds
        await asyncio.sleep(0)

    @property
    def timing(self) -> Timing:
        return Timing(lambda: 1.0, lambda: self.at, self.sleep)


@pytest.fixture
def time() -> Time:
    return Time()


@asynccontextmanager
async def connected(server: Server, time: Time, token: str | None = None) -> AsyncIterator[tuple[Client, Spoken]]:
    async with connect(server.url, token=token, timing=time.timing, proxy=None) as client:
        yield client, await server.next()


async def seen(boards: AsyncIterator[Snapshot], count: int) -> list[int]:
    async with asyncio.timeout(PATIENCE):
        return [(await anext(boards)).version for _ in range(count)]


def accepted(message: dict[str, Any]) -> dict[str, Any]:
    known = {"user_id": 7, "total_score": 12, "week_score": 5, "duplicate": False}
    return {"submission_id": message["submission_id"], **known}


# Addresses and pauses --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_url", "found"),
    [
        ("http://localhost:8000", "ws://localhost:8000/ws"),
        ("https://scores.example/", "wss://scores.example/ws"),
        ("wss://scores.example/games/ws", "wss://scores.example/games/ws"),
        ("http://[::1]:80", "ws://[::1]:80/ws"),
        ("https://games.example/scores", "wss://games.example/scores/ws"),
        ("https://games.example/scores/", "wss://games.example/scores/ws"),
        ("https://games.example/scores/ws", "wss://games.example/scores/ws"),
        ("wss://games.example/live", "wss://games.example/live"),
    ],
)
def test_the_socket_of_a_server(given_url: str, found: str) -> None:
    assert socket_url(given_url) == found


@pytest.mark.parametrize("url", ["localhost:8000", "", "ftp://a/b", "http://"])
async def test_an_address_that_cannot_be_one_is_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="server's address"):
        async with connect(url):
            pass


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_a_pause_is_a_part_of_twice_the_last_up_to_30_s(attempt: int, part: float) -> None:
    assert 0 <= pause(attempt, part) <= min(2.0 ** min(attempt, 100), LONGEST_PAUSE)


async def test_a_client_tries_for_ever_with_growing_pauses(time: Time) -> None:
    async with serve(lambda _: asyncio.sleep(0), "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
    async with connect(f"http://127.0.0.1:{port}", timing=time.timing, proxy=None):
        await eventually(lambda: len(time.slept) >= 9)
    assert time.slept[:9] == [1, 2, 4, 8, 16, 30, 30, 30, 30]


# Boards ----------------------------------------------------------------------------------------------------------


async def test_a_board_goes_on_where_it_was_after_the_line_broke(server: Server, time: Time) -> None:
    async with connected(server, time) as (client, line):
        async with aclosing(client.subscribe("all_time")) as boards:
            reading = asyncio.ensure_future(seen(boards, 3))
            assert await line.hears("subscribe") == {"board": "all_time"}
            await line.shows(1)
            await line.moves(1, 2)
            await asyncio.sleep(0)
            await line.ends()
            line = await server.next()
            assert await line.hears("subscribe") == {"board": "all_time", "since": {"epoch": "e", "version": 2}}
            await line.say("subscribed", board="all_time", **{"as": "all_time"}, resumed=True)
            await line.moves(2, 5)
            assert await reading == [1, 2, 5]


async def test_a_missing_diff_is_answered_by_asking_for_a_snapshot_once(server: Server, time: Time) -> None:
    async with connected(server, time) as (client, line):
        async with aclosing(client.subscribe("all_time")) as boards:
            reading = asyncio.ensure_future(seen(boards, 3))
            await line.hears("subscribe")
            await line.shows(1)
            await line.moves(2, 3)
            await line.moves(3, 4)
            assert await line.hears("subscribe") == {"board": "all_time"}, "without since: only a snapshot helps"
            await line.shows(4)
            await line.moves(4, 5)
            assert await reading == [1, 4, 5]


async def test_two_readers_share_a_subscription_and_the_last_one_ends_it(server: Server, time: Time) -> None:
    async with connected(server, time) as (client, line):
        first, second = client.subscribe("all_time"), client.subscribe("all_time")
        reading = asyncio.ensure_future(seen(first, 1))
        await line.hears("subscribe")
        await line.shows(4)
        assert await reading == [4]
        assert await seen(second, 1) == [4], "what is known is there at once"
        await first.aclose()
        await second.aclose()
        assert await line.hears("unsubscribe") == {"board": "all_time"}


async def test_the_current_week_moves_on_by_itself(server: Server, time: Time) -> None:
    old, new = "week_of_2026_11_16", "week_of_2026_11_23"
    async with connected(server, time) as (client, line):
        async with aclosing(client.subscribe("current_week")) as boards:
            reading = asyncio.ensure_future(seen(boards, 3))
            await line.hears("subscribe")
            await line.shows(9, old, "current_week")
            await line.say("rollover", **{"as": "current_week", "from": old, "to": new})
            await line.moves(9, 10, old)
            await line.say("snapshot", board=new, epoch="e", version=1, entries=[])
            await line.moves(1, 2, new)
            assert await reading == [9, 1, 2]


async def test_a_week_that_ended_while_away_is_not_resumed(server: Server, time: Time) -> None:
    old, new = "week_of_2026_11_16", "week_of_2026_11_23"
    async with connected(server, time) as (client, line):
        async with aclosing(client.subscribe("current_week")) as boards:
            reading = asyncio.ensure_future(seen(boards, 2))
            await line.hears("subscribe")
            await line.shows(3, old, "current_week")
            await line.ends()
            line = await server.next()
            await line.hears("subscribe")
            # The new week happens to be at the version that the client holds of the old one.
            await line.say("subscribed", board=new, **{"as": "current_week"}, resumed=True)
            assert await line.hears("subscribe") == {"board": "current_week"}
            await line.shows(3, new, "current_week")
            assert await reading == [3, 3]


SPRINT = {"slug": "sprint", "title": "Sprint", "order": "ascending", "ties": "user_id", "ranks": "competition"}


def described(day: int) -> dict[str, Any]:
    starts, ends = (f"2026-11-{at}T00:00:00.000Z" for at in (day, day + 1))
    rule = SPRINT | {"format": {"kind": "duration", "unit": "ms"}}
    return {"leaderboard": rule, "window": {"kind": "day", "starts": starts, "ends": ends}}


async def test_a_board_of_any_leaderboard_is_described_ordered_and_moves_on(server: Server, time: Time) -> None:
    name, today, tomorrow = "sprint:current_day", "sprint:day_of_2026_11_23", "sprint:day_of_2026_11_24"
    entries = [{"user_id": 1, "username": "a", "score": 60_000}]
    added = [{"user_id": 2, "username": "b", "score": 59_000}]
    async with connected(server, time) as (client, line):
        assert client.description(name) is None
        async with aclosing(client.subscribe(name)) as boards:
            reading = asyncio.ensure_future(anext(boards))
            assert await line.hears("subscribe") == {"board": name}
            await line.say("subscribed", board=today, **{"as": name}, resumed=False, **described(23))
            await line.say("snapshot", board=today, epoch="e", version=1, entries=entries)
            await reading
            change = {"board": today, "epoch": "e", "from": 1, "version": 2, "upsert": added, "remove": []}
            await line.say("diff", **change)
            board = await anext(boards)
            description = client.description(name)
            assert description is not None and description.ends is not None and description.ends.day == 24
            assert board.ranks == [1, 2]
            assert [description.text(entry.score) for entry in board.entries] == ["0:59.000", "1:00.000"]
            await line.say("rollover", **{"as": name, "from": today, "to": tomorrow})
            await line.say("subscribed", board=tomorrow, **{"as": name}, resumed=False, **described(24))
            await line.say("snapshot", board=tomorrow, epoch="e", version=0, entries=[])
            assert (await anext(boards)).board == tomorrow
            description = client.description(name)
            assert description is not None and description.ends is not None and description.ends.day == 25


async def test_between_seasons_nothing_comes_also_over_a_break(server: Server, time: Time) -> None:
    name, spring, summer = "sprint:current_season", "sprint:season_spring", "sprint:season_summer"
    async with connected(server, time) as (client, line):
        async with aclosing(client.subscribe(name)) as boards:
            reading = asyncio.ensure_future(seen(boards, 2))
            await line.hears("subscribe")
            await line.shows(7, spring, name)
            await line.say("rollover", **{"as": name, "from": spring, "to": None})
            await line.ends()
            line = await server.next()
            assert await line.hears("subscribe") == {"board": name}, "of no board there is nothing to go on from"
            await line.say("error", code="unknown_board", message="That season has not begun.", board=name)
            await line.hears("subscribe")
            assert time.slept[-1] == 100, "now and then"
            await line.shows(1, summer, name)
            assert await reading == [7, 1]


async def test_the_first_leaderboards_boards_go_by_their_published_ids_and_are_described_on_demand(
    server: Server, time: Time
) -> None:
    old, new = "week_of_2026_11_16", "week_of_2026_11_23"
    async with connected(server, time) as (client, line):
        async with aclosing(client.subscribe("default:current_week", describe=True)) as boards:
            reading = asyncio.ensure_future(seen(boards, 1))
            assert await line.hears("subscribe") == {"board": "current_week", "describe": True}
            await line.shows(3, old, "current_week")
            assert await reading == [3]
            await line.say("rollover", **{"as": "current_week", "from": old, "to": new})
            asked = await line.hears("subscribe")
            assert asked["describe"], "until when the next week runs is said only where it is asked"


@pytest.mark.parametrize("name", ["nothing", "sprint:current_season"])
async def test_a_board_there_is_not_ends_the_loop_and_a_passing_trouble_does_not(
    server: Server, time: Time, name: str
) -> None:
    async with connected(server, time) as (client, line):
        async with aclosing(client.subscribe(name)) as boards:
            reading = asyncio.ensure_future(seen(boards, 1))
            await line.hears("subscribe")
            await line.say("error", code="unavailable", message="Later.", board=name, retry_after_ms=1000)
            await line.hears("subscribe")
            assert time.slept == [10]
            await line.say("error", code="unknown_board", message="There is none.", board=name)
            with pytest.raises(Refused) as refused:
                await reading
            assert refused.value.code == "unknown_board"


async def test_a_client_says_when_boards_stand_still(server: Server, time: Time) -> None:
    async with connected(server, time) as (client, line):
        await client.connected()
        assert client.is_connected and not client.stale
        await line.say("status", live=False)
        await line.say("something_new", field=1)
        await eventually(lambda: client.stale)
        await line.say("status", live=True)
        await eventually(lambda: not client.stale)
        async with aclosing(client.subscribe("sprint:current_day")) as boards:
            reading = asyncio.ensure_future(anext(boards))
            await line.hears("subscribe")
            board = "sprint:day_of_2026_11_30"
            await line.say("subscribed", board=board, resumed=False, **{"as": "sprint:current_day"})
            await line.say("status", live=False, board="sprint:day_of_2026_11_29")
            await line.say("status", live=False, board=board)
            await eventually(lambda: client.stale)
            await line.say("rollover", to="sprint:day_of_2026_12_01", **{"as": "sprint:current_day", "from": board})
            await eventually(lambda: not client.stale)
            await line.say("status", live=False, board="sprint:day_of_2026_12_01")
            await eventually(lambda: client.stale)
            await line.ends()
            await server.next()
            await eventually(lambda: not client.stale)
            reading.cancel()
            await asyncio.wait([reading])


async def test_the_example_of_the_documents_runs(
    server: Server, time: Time, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parents[3] / "web/docs/leaderboards.html").read_text(encoding="utf-8")
    (code,) = re.findall(r'id="python-example"><code>(.*?)</code>', page, re.DOTALL)
    program = html.unescape(code).replace("https://scores.example", server.url)
    scope: dict[str, Any] = {"token": "t"}
    exec("async def example():\n" + textwrap.indent(program, "    "), scope)
    running = asyncio.ensure_future(scope["example"]())
    line = await server.next()
    assert await line.hears("auth") == {"token": "t"}
    await line.say("authenticated", user_id=7, expires_at="2026-11-24T10:00:00.000Z")
    message = await line.hears("submit")
    said = {"submission_id": message["submission_id"], "user_id": 7, "leaderboard": "lap", "duplicate": False}
    await line.say("accepted", **said, scores={"lap:all_time": 62_345}, improved=True)
    name, today = "lap:current_day", "lap:day_of_2026_11_23"
    assert await line.hears("subscribe") == {"board": name}
    await line.say("subscribed", board=today, **{"as": name}, resumed=False, **described(23))
    entries = [{"user_id": 7, "username": "kim", "score": 62_345}]
    await line.say("snapshot", board=today, epoch="e", version=1, entries=entries)
    shown = ""

    def is_shown() -> bool:
        nonlocal shown
        shown += capsys.readouterr().out
        return "until" in shown

    await eventually(is_shown)
    assert "improved=True" in shown and "1 kim 1:02.345\nuntil 2026-11-24 00:00:00+00:00" in shown
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


# Submissions -----------------------------------------------------------------------------------------------------


async def test_what_was_not_answered_is_sent_again_under_the_same_id(server: Server, time: Time) -> None:
    async with connected(server, time) as (client, line):
        outcome = asyncio.ensure_future(client.submit(5, reason="win", user_id=7))
        first = await line.hears("submit")
        assert first["score_added"] == 5 and first["reason"] == "win" and first["user_id"] == 7
        await line.ends()
        line = await server.next()
        assert await line.hears("submit") == first
        await line.say("accepted", **accepted(first), live=False)
        assert await outcome == Accepted(first["submission_id"], 7, 12, 5, False)


async def test_a_submission_names_its_leaderboard_and_what_else_was_given(server: Server, time: Time) -> None:
    async with connected(server, time) as (client, line):
        more = {"leaderboard": "sprint", "metadata": {"car": "gt"}, "board": "sprint:current_day"}
        outcome = asyncio.ensure_future(client.submit(score=62_345, submission_id="r-9", with_all=True, **more))
        sent = {"submission_id": "r-9", "score": 62_345, "with": "all", **more}
        assert await line.hears("submit") == sent
        scores = {"sprint:all_time": 61_200}
        said = {"submission_id": "r-9", "user_id": 7, "leaderboard": "sprint", "duplicate": False}
        await line.say("accepted", **said, scores=scores, improved=False)
        assert await outcome == Accepted("r-9", 7, 0, 0, False, scores, False, "sprint")


async def test_a_refusal_that_time_heals_is_waited_out(server: Server, time: Time) -> None:
    async with connected(server, time) as (client, line):
        outcome = asyncio.ensure_future(client.submit(5, submission_id="mine"))
        assert await line.hears("submit") == {"submission_id": "mine", "score_added": 5}
        await line.say("rejected", submission_id="mine", code="overloaded", message="Later.", retry_after_ms=700)
        await line.hears("submit")
        assert time.slept == [1.4], "what the server said, and up to as much again"
        refusal = {"submission_id": "mine", "code": "unknown_user", "message": "Who?", "retry_after_ms": None}
        await line.say("rejected", **refusal)
        assert await outcome == Rejected(**refusal)


async def test_submissions_wait_for_the_token_to_be_taken(server: Server, time: Time) -> None:
    async with connected(server, time, token="t") as (client, line):
        outcome = asyncio.ensure_future(client.submit(5))
        assert await line.hears("auth") == {"token": "t"}
        await line.say("error", code="unavailable", message="Later.", retry_after_ms=1000)
        assert await line.hears("auth") == {"token": "t"}
        await line.say("authenticated", user_id=7, expires_at="2026-11-24T10:00:00.000Z")
        message = await line.hears("submit")
        await line.say("accepted", **accepted(message))
        assert isinstance(await outcome, Accepted)


async def test_a_refused_token_leaves_no_submission_without_an_answer(server: Server, time: Time) -> None:
    async with connected(server, time, token="old") as (client, line):
        outcome = asyncio.ensure_future(client.submit(5))
        await line.hears("auth")
        await line.say("error", code="expired", message="Too old.")
        message = await line.hears("submit")
        refusal = {"submission_id": message["submission_id"], "code": "unauthorized", "message": "Who?"}
        await line.say("rejected", **refusal, retry_after_ms=None)
        rejected = await outcome
        assert isinstance(rejected, Rejected) and rejected.code == "unauthorized"
        client.authenticate("new")
        assert await line.hears("auth") == {"token": "new"}


async def test_the_same_id_twice_at_once_is_asked_one_after_the_other(server: Server, time: Time) -> None:
    async with connected(server, time) as (client, line):
        first = asyncio.ensure_future(client.submit(5, submission_id="a"))
        second = asyncio.ensure_future(client.submit(6, submission_id="a"))
        assert (await line.hears("submit"))["score_added"] == 5
        await line.say("accepted", **accepted({"submission_id": "a"}))
        assert isinstance(await first, Accepted)
        assert (await line.hears("submit"))["score_added"] == 6
        refusal = {"submission_id": "a", "code": "submission_conflict", "message": "Another.", "retry_after_ms": None}
        await line.say("rejected", **refusal)
        assert await second == Rejected(**refusal)


async def test_who_still_waits_when_the_client_is_closed_is_told(server: Server, time: Time) -> None:
    async with connected(server, time) as (client, line):
        outcome = asyncio.ensure_future(client.submit(5))
        board = asyncio.ensure_future(anext(client.subscribe("all_time")))
        await line.hears("subscribe")
        await line.hears("submit")
    for waiting in (outcome, board):
        with pytest.raises(Refused, match="closed"):
            await waiting
    with pytest.raises(Refused, match="closed"):
        await client.submit(5)


# Lines -----------------------------------------------------------------------------------------------------------


async def test_asked_to_leave_it_goes_at_a_moment_of_its_own_and_is_back_at_once(server: Server, time: Time) -> None:
    async with connected(server, time) as (client, line):
        outcome = asyncio.ensure_future(client.submit(5))
        await line.hears("submit")
        await line.say("reconnect", after_ms=1800)
        line = await server.next()
        assert time.slept == [1.8, 0], "it left by itself, and no pause came on top"
        message = await line.hears("submit")
        await line.say("accepted", **accepted(message))
        assert isinstance(await outcome, Accepted)


async def test_closed_before_that_moment_it_comes_back_at_it(server: Server) -> None:
    time = Time()
    gate = asyncio.Event()

    async def sleep(seconds: float) -> None:
        time.slept.append(round(seconds, 3))
        if len(time.slept) == 1:
            await gate.wait()  # the moment itself

    async with connect(server.url, timing=Timing(lambda: 1.0, lambda: time.at, sleep), proxy=None):
        line = await server.next()
        await line.say("reconnect", after_ms=1800)
        await eventually(lambda: bool(time.slept))
        time.at += 0.5
        await line.ends(1012)
        await server.next()
    assert time.slept == [1.8, 1.3]


@pytest.mark.parametrize(("code", "first"), [(1012, 4), (4401, 30), (4429, 30), (1011, 1)])
async def test_some_close_codes_ask_for_patience(server: Server, time: Time, code: int, first: float) -> None:
    async with connected(server, time) as (_, line):
        await line.ends(code)
        await server.next()
    assert time.slept == [first]


async def test_a_line_that_held_lets_earlier_trouble_be_forgotten(server: Server, time: Time) -> None:
    async with connected(server, time) as (client, line):
        for _ in range(3):
            await line.ends()
            line = await server.next()
            await client.connected()
        time.at += 60
        await line.ends()
        await server.next()
    assert time.slept == [1, 2, 4, 1]


async def test_a_server_that_does_not_greet_is_left(
    server: Server, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("realtime.client.connection.HELLO_TIMEOUT", 0.05)
    async with connect(server.url, timing=time.timing, proxy=None) as client:
        await server.next(greet=False)
        await server.next()
        async with asyncio.timeout(PATIENCE):
            await client.connected()
