"""`realtime.client` against a real server: what its first example promises, and what a restart leaves of it."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import asyncpg
import pytest

from realtime.boards.board import week_at
from realtime.client import Accepted, Outcome, Refused, Rejected, Snapshot, Timing, connect
from tests.support.databases import MakeUsers
from tests.support.processes import free_port
from tests.support.servers import RunningServer, running_server
from tests.support.waiting import SECOND, eventually

PATIENCE = 30 * SECOND

NO_WAITING = Timing(random=lambda: 0.02)
"""Chance at nearly its least: pauses of some 20 ms, growing."""


async def test_a_score_goes_in_and_the_board_moves(server: RunningServer, make_users: MakeUsers) -> None:
    (ann,) = await make_users(names=["Ann"])
    async with asyncio.timeout(PATIENCE), connect(server.base_url, token=server.token(ann), proxy=None) as client:
        async with aclosing(client.subscribe("current_week")) as boards:
            empty = await anext(boards)
            assert empty.scores == {} and empty.board == week_at(server.services.clock.now()).id
            outcome = await client.submit(100, reason="win", submission_id="m-1")
            assert outcome == Accepted("m-1", ann, 100, 100, False)
            moved = await anext(boards)
            assert [(entry.username, entry.score) for entry in moved.entries] == [("Ann", 100)]
            assert (moved.epoch, moved.version) == (empty.epoch, empty.version + 1)
            assert empty.scores == {}, "a board that was given out never changes"
        assert await client.submit(100, reason="win", submission_id="m-1") == Accepted("m-1", ann, 100, 100, True)
        assert (await _rejected(client.submit(5, submission_id="m-1"))).code == "submission_conflict"
        assert (await _rejected(client.submit(-5))).code == "forbidden"
        assert (await _rejected(client.submit(2**31))).code == "out_of_range"
        assert (await _rejected(client.submit(5, user_id=ann + 1))).code == "forbidden"


async def _rejected(outcome: object) -> Rejected:
    result: Outcome = await outcome  # type: ignore[misc]
    assert isinstance(result, Rejected) and result.retry_after_ms is None
    return result


async def test_many_boards_and_readers_on_one_line(server: RunningServer, make_users: MakeUsers) -> None:
    users = await make_users(3)
    token = server.token(None, "submit:any")
    async with asyncio.timeout(PATIENCE), connect(server.base_url, token=token, proxy=None) as client:
        week = week_at(server.services.clock.now()).id

        async def until(name: str, players: int) -> Snapshot:
            async with aclosing(client.subscribe(name)) as boards:
                async for board in boards:
                    if len(board.scores) == players:
                        return board
            raise AssertionError("the loop never ends by itself")

        readers = [asyncio.ensure_future(until(name, 3)) for name in ("all_time", "current_week", week, "all_time")]
        outcomes = await asyncio.gather(*(client.submit(n + 1, user_id=users[n % 3]) for n in range(60)))
        assert all(isinstance(outcome, Accepted) for outcome in outcomes)
        assert [board.board for board in await asyncio.gather(*readers)] == ["all_time", week, week, "all_time"]
        with pytest.raises(Refused) as refused:
            await until("week_of_2026_11_24", 0)
        assert refused.value.code == "unknown_board"
        with pytest.raises(Refused):
            await until("nonsense", 0)


async def test_a_token_that_is_none_and_a_better_one(server: RunningServer, make_users: MakeUsers) -> None:
    (ann,) = await make_users(1)
    async with asyncio.timeout(PATIENCE), connect(server.base_url, token="nonsense", proxy=None) as client:
        assert (await _rejected(client.submit(5))).code == "unauthorized"
        async with aclosing(client.subscribe("all_time")) as boards:
            await anext(boards)  # to look one needs no token
        client.authenticate(server.token(ann))
        while isinstance(outcome := await client.submit(5), Rejected):
            assert outcome.code == "unauthorized", "sent before the new token was taken"
        assert outcome.user_id == ann


async def test_a_message_rate_costs_nothing_but_time(
    dsn: str, store_url: str, filled: None, make_users: MakeUsers, sql: asyncpg.Connection
) -> None:
    """What comes beyond the rate is refused under its own id or board, and is asked again when its turn has come."""
    (ann,) = await make_users(1)
    async with running_server(dsn, store_url, REALTIME_MESSAGE_RATE="40", REALTIME_SUBMISSION_RATE="0") as server:
        url, token = server.base_url, server.token(ann)
        async with asyncio.timeout(PATIENCE), connect(url, token=token, timing=NO_WAITING, proxy=None) as client:
            outcomes = asyncio.gather(*(client.submit(1) for _ in range(150)))
            await asyncio.sleep(0)  # all of them are on their way first: the subscription is beyond the rate as well
            async with aclosing(client.subscribe("all_time")) as boards:
                async for board in boards:
                    if board.scores == {ann: 150}:
                        break
            assert {type(outcome) for outcome in await outcomes} == {Accepted}
        refused = (await server.http.get("/metrics")).text
        assert 'code="too_many"' in refused
    assert await sql.fetchval("SELECT count(*) FROM user_score_transactions") == 150


async def test_a_restart_costs_nothing_but_time(
    dsn: str, store_url: str, filled: None, make_users: MakeUsers, sql: asyncpg.Connection
) -> None:
    """Scores are handed in all the time; the server ends and another begins, twice. Each counts once, and the board
    that was held goes on."""
    (ann,) = await make_users(names=["Ann"])
    port = str(free_port())
    told = {"REALTIME_PORT": port, "REALTIME_DRAIN_S": "0", "REALTIME_RECONNECT_SPREAD_S": "0.2"}
    seen: list[Snapshot] = []
    stop = asyncio.Event()

    async with asyncio.timeout(4 * PATIENCE):
        async with running_server(dsn, store_url, **told) as server:
            token = server.token(ann)
        async with connect(f"http://127.0.0.1:{port}", token=token, timing=NO_WAITING, proxy=None) as client:
            assert not client.is_connected

            async def play() -> int:
                handed_in = 0
                while not stop.is_set():
                    outcome = await client.submit(1, submission_id=f"s-{handed_in}")
                    assert isinstance(outcome, Accepted), outcome
                    handed_in += 1
                return handed_in

            async def watch() -> None:
                async with aclosing(client.subscribe("all_time")) as boards:
                    async for board in boards:
                        seen.append(board)

            playing, watching = asyncio.ensure_future(play()), asyncio.ensure_future(watch())
            for life in range(3):
                async with running_server(dsn, store_url, **told):
                    enough = len(seen) + 20
                    await eventually(lambda enough=enough: len(seen) >= enough or playing.done() or watching.done())
                    if life == 2 or playing.done():
                        stop.set()
                        handed_in = await playing
                        await eventually(lambda final={ann: handed_in}: seen[-1].scores == final)
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
    assert await sql.fetchval("SELECT count(*) FROM user_score_transactions") == handed_in
    states = [(board.epoch, board.version, board.scores[ann]) for board in seen if board.scores]
    assert states == sorted(states, key=lambda state: state[2]), "never back"
    assert len({version for _, version, _ in states}) == len(states), "nothing twice"
