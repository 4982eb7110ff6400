"""The log check: standings that were made from a log are what it gives, and whatever was changed in them is counted."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from realtime.boards.parsing import parse_definition
from realtime.ledger.definitions import Definitions
from realtime.ledger.leaderboards import Leaderboards
from realtime.ledger.ledger import Ledger
from realtime.ledger.log_check import LogCheck
from tests.support.building import build_all
from tests.support.databases import MakeUsers

NOW = datetime.now(UTC)


@pytest.mark.parametrize("source", ["default", "sprint"])
@pytest.mark.parametrize("order", ["ascending", "descending"])
@pytest.mark.parametrize("operator", ["sum", "best", "last", "count"])
async def test_every_operator(
    ledger: Ledger, sql: asyncpg.Connection, make_users: MakeUsers, operator: str, order: str, source: str
) -> None:
    chance, users = random.Random(operator + order), await make_users(8)
    definitions = Definitions(ledger)
    leaderboards, check = Leaderboards(ledger, definitions, partitions=16), LogCheck(ledger)
    if source == "sprint":
        await definitions.put(parse_definition("sprint", {}), actor="test")
    (number,) = await sql.fetchrow("SELECT id FROM leaderboards WHERE slug = $1", source)
    for turn in range(120):
        args = chance.choice(users), f"s{turn}", chance.randint(-5, 5), NOW - timedelta(hours=chance.randint(0, 100))
        if source == "default":
            await sql.execute(
                "INSERT INTO user_score_transactions (user_id, submission_id, score_added, created_at)"
                " VALUES ($1, $2, $3, $4)", *args)  # fmt: skip
            await sql.execute("INSERT INTO user_total_scores (user_id) VALUES ($1) ON CONFLICT DO NOTHING", args[0])
        else:
            await sql.execute(
                "INSERT INTO score_transactions (source, user_id, submission_id, score, created_at)"
                " VALUES ($1, $2, $3, $4, $5)", number, *args)  # fmt: skip
            await sql.execute(
                "INSERT INTO heads (source, user_id) VALUES ($1, $2) ON CONFLICT DO NOTHING", number, args[0]
            )
    fields = {"of": source, "operator": operator, "order": order, "windows": ["all_time", "day"]}
    await definitions.put(parse_definition("other", fields), actor="test")
    await build_all(ledger)
    await leaderboards.refresh()
    other = leaderboards.current.leaderboards["other"]
    assert other.is_live and await check.differing(other) == 0
    rows = await sql.fetch('SELECT "window", user_id FROM scores WHERE rule = $1 ORDER BY random() LIMIT 3', other.rule)
    changes = ("UPDATE scores SET score = score + 100", "UPDATE scores SET at = at + 1", "DELETE FROM scores")
    for count, (change, (window, user_id)) in enumerate(zip(changes, rows, strict=True), 1):
        await sql.execute(f'{change} WHERE rule = $1 AND "window" = $2 AND user_id = $3', other.rule, window, user_id)
        assert await check.differing(other) == count
    assert await check.differing(leaderboards.current.default) == 0
