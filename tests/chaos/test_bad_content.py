"""A store that holds what is not ours, or takes no writes: said clearly, never shown as right, and got over.

The real server in this process, on a store of the test's own.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import asyncpg
import pytest
import redis.asyncio

from realtime.boards.board import ALL_TIME
from tests.chaos.accounts import difference
from tests.support.clients import Client
from tests.support.databases import MakeUsers
from tests.support.keys import scores_key, version_key, versions_key
from tests.support.processes import environment
from tests.support.servers import SECRET, RunningServer, running_server
from tests.support.stores import PrivateStore
from tests.support.waiting import SECOND, eventually

PATIENCE = 20 * SECOND
"""Seconds that getting over it may take on a machine under load."""


class Place:
    """A server with ten players on its boards, and a viewer."""

    def __init__(self, server: RunningServer, users: Sequence[int], keys: redis.asyncio.Redis, dsn: str) -> None:
        self.server = server
        self.users = users
        self.keys = keys
        self._dsn = dsn
        self._sent = 0
        self.viewer: Client

    async def submit(self, score: int = 5) -> dict[str, Any]:
        """One score of the first player; what came back."""
        self._sent += 1
        row = {"submission_id": f"s-{self._sent}", "user_id": self.users[0], "score_added": score}
        began = monotonic()
        response = await self.server.http.post("/scores", json=row, headers=self.server.bearer(1, "submit:any"))
        assert monotonic() - began < 2.0, "a submission waited for the store"
        answer: dict[str, Any] = response.json()
        return answer

    async def board(self) -> dict[str, Any]:
        """The all-time board over HTTP."""
        response = await self.server.http.get("/boards/all_time")
        board: dict[str, Any] = response.json()
        return board

    async def gets_well(self) -> None:
        """Waits until the store is what PostgreSQL says, and everybody is shown that."""
        what: Any = None
        try:
            async with asyncio.timeout(PATIENCE):
                while True:
                    what = await difference(self._dsn, self.keys) or await self.board()
                    if type(what) is dict and not what.get("stale", True):
                        break
                    await asyncio.sleep(0.05)
                lines = [(entry["user_id"], entry["username"], entry["score"]) for entry in what["entries"]]
                await self.viewer.shows("all_time", lines)
        except TimeoutError:
            raise AssertionError(f"it did not get well: {what}") from None

    async def metric(self, name: str) -> float:
        """The value of a metric, labels included in its name."""
        shown = (await self.server.http.get("/metrics")).text
        return float(shown.split(f"\nrealtime_{name} ", 1)[1].split("\n", 1)[0])

    async def troubles(self) -> float:
        """What the metrics have counted of content that was not ours."""
        names = ('store_refusals_total{of="foreign"}', "rebuilds_total", "drift_found_total")
        return sum([await self.metric(name) for name in names])

    async def stands_still(self) -> None:
        """Waits until boards are said to stand still."""
        async with asyncio.timeout(PATIENCE):
            while True:
                if (await self.board())["stale"]:
                    break
                await asyncio.sleep(0.05)
            await self.viewer.until("status", lambda message: not message["live"])


@pytest.fixture
async def place(dsn: str, private_store: PrivateStore, make_users: MakeUsers) -> AsyncIterator[Place]:
    users = await make_users(10)
    async with opened(dsn, private_store, users) as made:
        yield made


@asynccontextmanager
async def opened(dsn: str, private_store: PrivateStore, users: Sequence[int]) -> AsyncIterator[Place]:
    async with (
        running_server(dsn, private_store.url) as server,
        redis.asyncio.Redis.from_url(private_store.url, decode_responses=True, encoding_errors="replace") as keys,
    ):
        rows = [{"submission_id": f"p-{user}", "user_id": user, "score_added": 10 * user} for user in users]
        await server.http.post("/scores", json=rows, headers=server.bearer(1, "submit:any"))
        made = Place(server, users, keys, dsn)
        made.viewer = await server.client()
        await made.viewer.subscribe("all_time")
        await made.gets_well()
        yield made


# Foreign content -------------------------------------------------------------------------------------------------

SCORES, VERSION, VERSIONS = scores_key(ALL_TIME), version_key(ALL_TIME), versions_key(ALL_TIME)

OTHER_TYPES = {
    "a board's scores": [("SET", SCORES, "x")],
    "a board's version": [("DEL", VERSION), ("LPUSH", VERSION, "x")],
    "a board's row versions": [("SET", VERSIONS, "x")],
    "a player": [("SET", "leaderboard:users:{user}", "x")],
    "the names' version": [("DEL", "leaderboard:version:users"), ("LPUSH", "leaderboard:version:users", "x")],
    "the epoch": [("DEL", "leaderboard:epoch"), ("LPUSH", "leaderboard:epoch", "x")],
    "the run": [("DEL", "leaderboard:run"), ("LPUSH", "leaderboard:run", "x")],
}
GARBAGE = {
    "a board's version": [("SET", VERSION, "many")],
    "a row's version": [("HSET", VERSIONS, "{user}", "many")],
    "the names' version": [("SET", "leaderboard:version:users", "\xff")],
    "a player's version": [("HSET", "leaderboard:users:{user}", "version", "many")],
    "a score without end": [("ZADD", SCORES, "inf", "{user}")],
    "a member that is no user": [("ZADD", SCORES, "7", "nobody")],
    "a user that is unknown": [("ZADD", SCORES, "7000000", "999999")],
    "the epoch": [("SET", "leaderboard:epoch", "\xfe\xff")],
    "nothing but scores": [("DEL", VERSION), ("DEL", VERSIONS), ("DEL", "leaderboard:users:{user}")],
    "a score too many": [("ZINCRBY", SCORES, "1000", "{user}")],
}
CASES = [(f"another type under {name}", commands) for name, commands in OTHER_TYPES.items()]
CASES += [(f"garbage: {name}", commands) for name, commands in GARBAGE.items()]

UNREADABLE = ("a board's scores", "a board's version", "the epoch", "a score without end", "a member that is no user")
"""Of what none can make a board. With anything else one can be read, and is right for all that a reader can see."""


async def spoil(place: Place, commands: Sequence[tuple[str, ...]]) -> None:
    for command in commands:
        arguments = [part.format(user=place.users[0]).encode("latin-1") for part in command]
        if command[0] == "SET":
            await place.keys.delete(arguments[1])
        await place.keys.execute_command(*arguments)


async def get_over(place: Place, name: str, commands: Sequence[tuple[str, ...]]) -> None:
    before = await place.troubles()
    await spoil(place, commands)
    assert (await place.submit())["type"] == "accepted", "PostgreSQL has it, whatever the store holds"
    board = await place.board()
    assert not name.endswith(UNREADABLE) or board["stale"], f"{name}: shown as right: {board}"
    await place.gets_well()
    assert not name.endswith(UNREADABLE) or await place.troubles() > before, f"{name}: no metric tells of it"


@pytest.mark.parametrize("half", [0, 1])
async def test_what_is_not_ours_is_got_over(
    half: int, dsn: str, private_store: PrivateStore, make_users: MakeUsers, caplog: pytest.LogCaptureFixture
) -> None:
    """One after the other on a store of a few servers' lives: rebuilds on suspicion come ever more rarely."""
    users = await make_users(10)
    for name, commands in CASES[half::2]:
        async with opened(dsn, private_store, users) as place:
            await get_over(place, name, commands)
    assert not [record for record in caplog.records if record.levelno >= logging.CRITICAL]


async def test_a_foreign_writer_that_does_not_stop_costs_little(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    async def write() -> None:
        while True:
            await spoil(place, OTHER_TYPES["a board's scores"])
            await asyncio.sleep(0.2)

    writing = asyncio.ensure_future(write())
    await place.stands_still()
    for _ in range(12):
        assert (await place.submit())["type"] == "accepted"
        await asyncio.sleep(0.25)
    writing.cancel()
    rebuilds = [record.message for record in caplog.records if "rebuilding the store's content" in record.message]
    assert 1 <= len(rebuilds) <= 3, "a rebuild every second would be a loop"
    await place.gets_well()


# No writes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["full", "replica", "evicts"])
async def test_a_store_that_takes_no_writes_is_not_shown_as_right(
    how: str, place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    keys = place.keys
    if how == "full":
        await keys.config_set("maxmemory", 1)
    elif how == "replica":
        await keys.execute_command("REPLICAOF", "127.0.0.1", "1")
    else:
        await keys.config_set("maxmemory-policy", "allkeys-lru")
    await place.stands_still()
    answers = [await place.submit() for _ in range(3)]
    assert [answer["type"] for answer in answers] == ["accepted"] * 3
    assert answers[-1]["live"] is False

    async def is_refused() -> bool:
        return await place.metric('store_refused{of="unfit"}') == 1

    await eventually(is_refused)  # a new connection may have met it before the look of each second did
    says = {"full": "memory", "replica": "replica", "evicts": "noeviction"}[how]
    assert [record for record in caplog.records if "cannot be used" in record.message and says in record.message]
    if how == "full":
        await keys.config_set("maxmemory", "1gb")
    elif how == "replica":
        await keys.execute_command("REPLICAOF", "NO", "ONE")
    else:
        await keys.config_set("maxmemory-policy", "noeviction")
    await place.gets_well()

    async def is_live() -> bool:
        return bool((await place.submit()).get("live", True))

    await eventually(is_live)  # content is made anew first where a replica is promoted, and then boards move again
    assert await place.metric('store_refused{of="unfit"}') == 0
    assert await place.metric('store_refusals_total{of="unfit"}') == 1


@pytest.mark.parametrize(("setting", "says"), [("evicts", "noeviction"), ("replica", "read-only replica")])
async def test_such_a_store_is_refused_at_the_start(
    setting: str, says: str, dsn: str, private_store: PrivateStore
) -> None:
    async with redis.asyncio.Redis.from_url(private_store.url) as keys:
        if setting == "evicts":
            await keys.config_set("maxmemory-policy", "volatile-lru")
        else:
            await keys.execute_command("REPLICAOF", "127.0.0.1", "1")
    urls = {"DATABASE_URL": dsn, "DRAGONFLY_URL": private_store.url}
    for command in ("serve", "worker"):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "realtime",
            command,
            env=environment(**urls, REALTIME_SECRET=SECRET, REALTIME_PORT="0"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(30):
                _, errors = await process.communicate()
        except TimeoutError:
            process.send_signal(signal.SIGKILL)
            raise
        assert process.returncode == 1, errors
        last = errors.decode().strip().splitlines()[-1]
        assert says in last and last.startswith("realtime: "), errors.decode()


# A ledger that went back -----------------------------------------------------------------------------------------


async def test_a_postgresql_from_a_backup_is_told_and_the_store_follows(
    place: Place, dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What the store has of it is newer than what PostgreSQL says, which is right all the same."""
    await place.submit(1_000)
    await place.gets_well()
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction():
            await connection.execute("DELETE FROM user_score_transactions WHERE submission_id LIKE 's-%'")
            for table, column in (("user_total_scores", "total_score"), ("user_weekly_scores", "score")):
                await connection.execute(
                    f"UPDATE {table} SET version = version - 1, {column} = {column} - 1000 WHERE user_id = $1",
                    place.users[0],
                )
    finally:
        await connection.close()
    await place.gets_well()
    assert place.viewer.follower.boards["all_time"].scores[place.users[0]] == 10 * place.users[0]
    assert [record for record in caplog.records if "ahead" in record.message]
