"""Log check: whether the standings of leaderboards are what their logs give.

Owns the comparison, which computes every row anew. Must never change a row, or read a log for anybody but an operator:
it reads all of it. Assumes that a batch writes log and rows in one transaction: one statement sees both as they were at
one moment.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from realtime.boards.leaderboard import Leaderboard
from realtime.ledger.bounds import VIEW, Bounds


class Ledger(Protocol):
    """What the comparison needs of PostgreSQL."""

    def transaction(self, kind: Bounds = ...) -> AbstractAsyncContextManager[Any]: ...
    def query(self, name: str, source: int = ...) -> str: ...
    async def fetch(self, name: str, *args: Any) -> list[Any]: ...


class LogCheck:
    """Compares standings with logs. Raises LedgerUnavailable."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def kinds(self, leaderboard: Leaderboard) -> list[str]:
        """The kinds of windows whose standings are made from its log; none of the published boards."""
        rows = await self._ledger.fetch("rule_kinds", leaderboard.rule) if leaderboard.is_live else []
        return [kind for (kinds,) in rows for kind in kinds]

    async def differing(self, leaderboard: Leaderboard) -> int:
        """Rows of a leaderboard's standings that are not what its log gives; the published boards apart."""
        definition, query, found = leaderboard.definition, self._ledger.query, 0
        for kind in await self.kinds(leaderboard):
            async with self._ledger.transaction(VIEW) as connection:
                (windows,) = await connection.fetch(query("build_windows"), leaderboard.id, kind)
                args = leaderboard.source, leaderboard.rule, *windows, definition.operator, definition.is_ascending
                compared = query("ranked_compared", leaderboard.source)
                found += await connection.fetchval(compared, *args, timeout=VIEW.statement)
        return found
