"""`realtime simulate`: a file's scores, or invented ones, played live; and what followers see of it."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from realtime.boards.standings import Order
from realtime.client import Snapshot, connect
from realtime.client import boards as followed
from tests.support.processes import Command, environment, running
from tests.support.servers import SECRET, RunningServer
from tests.support.waiting import SECOND

SAMPLE = Path(__file__).parents[1] / "fixtures" / "scores.csv"
REAL = Path(__file__).parents[3] / "shared" / "data" / "score_events.csv"
HEADER = "submission_id,username,score_added,reason,created_at\n"

PATIENCE = 300 * SECOND
"""Seconds that playing a large file may take on a machine under load."""


@asynccontextmanager
async def simulating(dsn: str, url: str, *arguments: str) -> AsyncIterator[Command]:
    variables = {"DATABASE_URL": dsn, "REALTIME_SECRET": SECRET}
    program = [sys.executable, "-m", "realtime"]
    async with running(
        "simulate", "--url", url, *arguments, program=program, env=environment(**variables)
    ) as command:
        yield command


async def ends(command: Command) -> int:
    async with asyncio.timeout(PATIENCE):
        await command.process.wait()
    return await command.ends()


Lines = list[tuple[int, str, int]]


class Followers:
    """Three who look at one board: by diffs alone, through `realtime.client`, and afresh again and again."""

    def __init__(self, server: RunningServer, board: str) -> None:
        self._server = server
        self._board = board
        self.by_diffs: dict[int, Lines] = {}
        self.by_client: dict[int, Lines] = {}
        self.fresh: dict[int, Lines] = {}
        self.diffs = 0
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Followers:
        first = await self._server.client()
        await first.subscribe(self._board)
        self._first = first
        self._tasks = [asyncio.ensure_future(work) for work in (self._follow(), self._iterate(), self._look())]
        return self

    async def __aexit__(self, *error: object) -> None:
        for task in self._tasks:
            task.cancel()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        failures = [r for r in results if isinstance(r, BaseException) and not isinstance(r, asyncio.CancelledError)]
        assert not failures, failures

    async def _follow(self) -> None:
        """The test's own follower: it raises at a gap, or at anything told twice."""
        held = self._first.follower.boards
        while True:
            self.by_diffs[held[self._board].version] = held[self._board].lines
            await self._first.next()
            self.diffs = self._first.follower.diffs

    async def _iterate(self) -> None:
        async with connect(self._server.base_url, proxy=None) as client:
            async with aclosing(client.subscribe(self._board)) as boards:
                async for board in boards:
                    self.by_client[board.version] = _lines(board)

    async def _look(self) -> None:
        while True:
            late = await self._server.client()
            await late.subscribe(self._board)
            board = late.follower.boards[self._board]
            self.fresh[board.version] = board.lines
            await late.aclose()

    async def reach(self, version: int) -> None:
        """Waits until all three have seen that version or a later one."""
        async with asyncio.timeout(30):
            while True:
                seen = (self.by_diffs, self.by_client, self.fresh)
                if all(boards and max(boards) >= version for boards in seen):
                    return
                for task in self._tasks:
                    if task.done():
                        task.result()
                await asyncio.sleep(0.02)


def _lines(board: Snapshot) -> Lines:
    return [(entry.user_id, entry.username, entry.score) for entry in board.entries]


async def compare_while_played(
    server: RunningServer,
    dsn: str,
    sql: asyncpg.Connection,
    path: Path,
    expected: int,
    rate: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heard: dict[str, int] = {"snapshot": 0, "diff": 0}
    plain = followed.board_after

    def counted(board: Snapshot | None, message: Any, order: Order) -> Snapshot:
        heard[message["type"]] += 1
        return plain(board, message, order)

    monkeypatch.setattr(followed, "board_after", counted)
    async with Followers(server, "all_time") as seen:
        async with simulating(dsn, server.base_url, str(path), "--rate", str(rate)) as command:
            assert await ends(command) == 0, command.errors
        (line,) = command.lines
        assert line.startswith(f"{expected} sent: {expected} accepted, 0 rejected, 0 bad rows left out; ")
        await server.told()
        page = (await server.http.get("/boards/all_time")).json()
        await seen.reach(page["version"])
    assert heard["snapshot"] == 1, "one at the beginning; all else were diffs without a gap"
    last = page["version"]
    final = [(entry["user_id"], entry["username"], entry["score"]) for entry in page["entries"]]
    assert seen.by_diffs[last] == seen.by_client[last] == seen.fresh[last] == final
    compared = 0
    for version, lines in seen.fresh.items():
        for boards in (seen.by_diffs, seen.by_client):
            if version in boards:
                compared += 1
                assert boards[version] == lines, f"version {version}"
    both = seen.by_diffs.keys() & seen.by_client.keys()
    assert all(seen.by_diffs[version] == seen.by_client[version] for version in both)
    assert seen.diffs > 5 and compared > 5, (seen.diffs, compared)  # a slow machine conflates more
    top = await sql.fetch(
        """SELECT user_id, username, total_score FROM user_total_scores JOIN users u ON u.id = user_id
        ORDER BY total_score DESC, user_id::text COLLATE "C" DESC LIMIT 100"""
    )
    assert final == [tuple(one) for one in top]


@pytest.mark.skipif(not REAL.exists(), reason="the real score events are not on this machine")
@pytest.mark.parametrize(
    ("count", "rate"), [(3_000, 1_000), pytest.param(60_000, 2_000, marks=pytest.mark.long)], ids=["last", "all"]
)
async def test_who_follows_the_diffs_has_at_every_version_what_a_fresh_look_shows(
    server: RunningServer,
    dsn: str,
    sql: asyncpg.Connection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    count: int,
    rate: int,
) -> None:
    header, *events = REAL.read_text(encoding="utf-8").splitlines()
    path = tmp_path / "events.csv"
    path.write_text("\n".join([header, *events[-count:]]) + "\n", encoding="utf-8")
    await compare_while_played(server, dsn, sql, path, len(events[-count:]), rate, monkeypatch)


async def test_the_same_file_again_moves_the_boards_again(
    server: RunningServer, dsn: str, sql: asyncpg.Connection
) -> None:
    for times in (1, 2):
        async with simulating(dsn, server.base_url, str(SAMPLE), "--rate", "1000") as command:
            assert await ends(command) == 0, command.errors
        assert command.lines[0].startswith("44 sent: 44 accepted, 0 rejected, ")
        assert await sql.fetchval("SELECT count(*) FROM user_score_transactions") == 44 * times
    assert await sql.fetchval("SELECT count(*) FROM users") == 7, "players are made once"
    assert await sql.fetchval("SELECT min(created_at) > now() - interval '10 minutes' FROM user_score_transactions")


async def test_bad_rows_are_named_and_refusals_counted(
    server: RunningServer, dsn: str, sql: asyncpg.Connection, tmp_path: Path
) -> None:
    path = tmp_path / "scores.csv"
    path.write_text(
        "submission_id,user_id,username,score_added,created_at\n"
        "a,,Ann,5,2024-01-01T00:00:00Z\nb,,Ann,x,2024-01-01T00:00:00Z\nc,99,,5,2024-01-01T00:00:00Z\n",
        encoding="utf-8",
    )
    async with simulating(dsn, server.base_url, str(path), "--rate", "100") as command:
        assert await ends(command) == 1
    assert command.lines[0].startswith("2 sent: 1 accepted, 1 rejected (1 unknown_user), 1 bad rows left out; ")
    assert "line 3: score_added must be a whole number." in command.errors


@pytest.mark.parametrize("wish", [signal.SIGINT, signal.SIGTERM])
async def test_invented_players_play_until_they_are_told_to_stop(
    server: RunningServer, dsn: str, sql: asyncpg.Connection, wish: signal.Signals
) -> None:
    client = await server.client()
    await client.subscribe("current_week")
    async with simulating(dsn, server.base_url, "--players", "5", "--rate", "200") as command:
        for _ in range(5):
            await client.until("diff")
        command.signal(wish)
        assert await command.ends() == 0
    sent = int(command.lines[0].split()[0])
    assert command.lines[0].startswith(f"{sent} sent: {sent} accepted, 0 rejected")
    assert await sql.fetchval("SELECT count(*) FROM user_score_transactions") == sent
    assert await sql.fetchval("SELECT count(*) FROM users") <= 5


async def test_the_rate_is_kept(server: RunningServer, dsn: str) -> None:
    async with simulating(dsn, server.base_url, "--limit", "60", "--rate", "30") as command:
        assert await ends(command) == 0
    achieved = float(command.lines[0].split()[-3])
    assert 15 < achieved < 33, "never faster; how much slower is the machine's business"


async def test_without_a_server_it_says_so(dsn: str, tmp_path: Path) -> None:
    async with simulating(dsn, "nowhere:1") as command:
        assert await command.ends() == 1
    assert any("no server's address" in line for line in command.errors)
    env = environment(DATABASE_URL=dsn, REALTIME_SECRET=SECRET)
    program = [sys.executable, "-m", "realtime"]
    async with running("simulate", "--data-dir", str(tmp_path), program=program, env=env) as command:
        assert await command.ends() == 1
    assert any("--url" in line for line in command.errors)


async def test_the_second_terminal_needs_nothing_but_the_folder(tmp_path: Path) -> None:
    """`up` in one terminal; import, simulate and check in another."""
    folder = ["--data-dir", str(tmp_path / "data")]
    program, env = [sys.executable, "-m", "realtime"], environment()
    async with running("up", "--port", "0", *folder, program=program, env=env) as server:
        await server.says("ready: ")
        expected = {
            ("import", str(SAMPLE)): "44 read: 43 new, 1 already there, 0 bad; 7 players made.",
            ("simulate", "--limit", "40", "--rate", "400", "--players", "10"): "40 sent: 40 accepted, 0 rejected",
            ("simulate", str(SAMPLE), "--rate", "400"): "44 sent: 44 accepted, 0 rejected",
            ("check",): "all_time: ",
        }
        for arguments, says in expected.items():
            async with running(*arguments, *folder, program=program, env=env) as command:
                assert await ends(command) == 0, command.errors
            assert command.lines[0].startswith(says)
        assert await server.stop() == 0
    warned = [line for line in server.errors if '"WARNING"' in line]
    assert not [line for line in warned if "Applying" in line or "rebuilding" in line], "a first start is no trouble"
    async with running("simulate", *folder, program=program, env=env) as command:
        assert await command.ends() == 1, "the address of a server that is gone is none"
