"""Leaderboards for benchmarks: defined as an operator defines them, and shown once whoever builds has made them.

Owns a connection to the ledger of a running instance. Must never write a rule or a window by itself. Assumes that a
worker runs there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from realtime.boards.parsing import parse_definition
from realtime.ledger.definitions import Definitions
from realtime.ledger.ledger import Ledger
from tests.benchmarks.harness import Server
from tests.support.waiting import eventually

PATIENCE = 600.0
"""Seconds for standings to be made, and for what is recorded to be shown."""

_UNSHOWN = """
SELECT EXISTS (SELECT FROM leaderboards WHERE removed_at IS NULL AND (next_rule IS NOT NULL OR rule IS NULL))
"""
_TABLES = "user_total_scores, user_weekly_scores, heads, scores, outbox, rules, leaderboards"


class Operator:
    """Whoever defines leaderboards. `sql` is a bare connection to the same database."""

    def __init__(self, ledger: Ledger, sql: asyncpg.Connection[Any]) -> None:
        self.sql = sql
        self._definitions = Definitions(ledger)

    async def define(self, slugs: Iterable[str], **fields: Any) -> None:
        """Leaderboards of these slugs, all alike; returns once all that were ever defined are shown."""
        for slug in slugs:
            definition = parse_definition(slug, {"title": slug, **fields})
            await self._definitions.put(definition, actor="benchmark")
        await self.shown()

    async def rebuild(self, slug: str) -> None:
        """Has standings made anew; returns once that has begun."""
        await self._definitions.rebuild(slug, actor="benchmark")

    async def shown(self) -> None:
        """Returns once nothing is being made."""

        async def is_shown() -> bool:
            return not await self.is_building()

        await eventually(is_shown, PATIENCE)

    async def is_building(self) -> bool:
        """Whether standings are being made, or are yet to be shown by the store."""
        return bool(await self.sql.fetchval(_UNSHOWN))

    async def tidy(self) -> None:
        """Sees to it that a window begins without what the one before left behind, in the store either."""
        await eventually(lambda: self.sql.fetchval("SELECT NOT EXISTS (SELECT FROM outbox)"), PATIENCE)
        await self.sql.execute("DELETE FROM scores WHERE rule IN (SELECT id FROM rules WHERE state = 'retired')")
        await self.sql.execute(f"VACUUM {_TABLES}")


@asynccontextmanager
async def operator_of(target: Server) -> AsyncIterator[Operator]:
    """Whoever defines leaderboards of a running instance, for the block."""
    ledger = Ledger(target.database_url, connections=2)
    await ledger.open()
    sql = await asyncpg.connect(target.database_url)
    try:
        yield Operator(ledger, sql)
    finally:
        await sql.close()
        await ledger.aclose()
