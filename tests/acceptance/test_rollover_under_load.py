"""Monday under load: nobody hears `rollover` before the new week has begun, and what they send then counts for it.

PostgreSQL's clock is set to a moment before midnight, again and again, a week further each time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from realtime.boards.board import parse_board, week_at
from tests.support.clients import Client
from tests.support.servers import RunningServer, running_server
from tests.support.shifted import ShiftedPostgres

BEFORE = timedelta(seconds=1.5)
"""How long before midnight it is when a round begins: the server's clock is asked every second."""


YEARS = 10 * 365 * 86_400.0
"""Seconds that tokens live: weeks pass here."""


@asynccontextmanager
async def load(server: RunningServer, users: list[int]) -> AsyncIterator[None]:
    """Scores in large lists, reads that take connections, and questions whether the server is ready, all the time."""
    admin = {"authorization": f"Bearer {server.token(None, 'submit:any', 'admin', lifetime=YEARS)}"}
    sent = 0

    async def submit() -> None:
        nonlocal sent
        while True:
            sent += 1
            body = [{"submission_id": f"load-{sent}", "user_id": user, "score_added": 1} for user in users]
            (await server.http.post("/scores", json=body, headers=admin)).raise_for_status()

    async def ask(path: str) -> None:
        while True:
            await server.http.get(path, headers=admin)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(submit()) for _ in range(3)]
        tasks += [group.create_task(ask(path)) for path in ("/readyz", f"/users/{users[0]}/transactions", "/boards")]
        yield
        for task in tasks:
            task.cancel()


async def heard(viewer: Client, sql: asyncpg.Connection, number: int) -> tuple[datetime, str, datetime]:
    """The next `rollover`: the week it names, and the moments when it was heard and when a score sent then counts."""
    told = await viewer.until("rollover")
    moment = await sql.fetchval("SELECT clock_timestamp()")
    await viewer.send("submit", submission_id=f"first-{number}", score_added=1)
    await viewer.until("accepted", lambda message: message["submission_id"] == f"first-{number}")
    counted = await sql.fetchval(
        "SELECT created_at FROM user_score_transactions WHERE submission_id = $1", f"first-{number}"
    )
    assert told["from"] < told["to"], "never back"
    return moment, told["to"], counted


@pytest.mark.parametrize("rounds", [3, pytest.param(50, marks=pytest.mark.long)])
async def test_nobody_hears_of_a_week_before_postgresql_says_that_it_has_begun(
    shifted: ShiftedPostgres, shifted_sql: asyncpg.Connection, store_url: str, record_property: Any, rounds: int
) -> None:
    first = datetime(2026, 12, 7, tzinfo=UTC)
    shifted.to(first - timedelta(hours=1))
    users = [row[0] for row in await shifted_sql.fetch(
        "INSERT INTO users (username) SELECT 'player-' || g FROM generate_series(1, 200) g RETURNING id"
    )]  # fmt: skip
    late: list[float] = []
    async with running_server(shifted.url, store_url, REALTIME_SUBMISSION_RATE="0") as server:
        token = server.token(users[0], lifetime=YEARS)
        viewer = await server.client(token)
        await viewer.subscribe("current_week")
        async with load(server, users):
            for number in range(rounds):
                monday = first + timedelta(weeks=number)
                shifted.to(monday - BEFORE)
                while True:
                    moment, to, counted = await heard(viewer, shifted_sql, len(viewer.seen))
                    begun = parse_board(to).starts
                    assert begun <= moment, "it has begun by PostgreSQL's clock"
                    assert week_at(counted).id == to, "what was sent upon hearing of it counts for it"
                    if begun == monday:
                        late.append((moment - monday).total_seconds())
                        break
                page = (await server.http.get("/boards/current_week")).json()
                assert page["board"] == to, "pages follow the same decision"
    assert len(late) == rounds
    record_property("late_s", sorted(late))
