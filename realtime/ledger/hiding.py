"""Hiding: what changes at once for a user on all leaderboards, or on those of one source.

Owns the steps of a ban, a deletion and a renaming that touch standings, where they lie on one node and where they are
spread. Must never lock the total before a head on one node, or a head before the total where they are spread: that
keeps two changes of one user apart. Assumes an open transaction, which has called while_sources_stay() before it
hides anybody, and `held` before `anew`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from realtime.boards.leaderboard import DEFAULT
from realtime.ledger.spread import Spread


class Ledger(Protocol):
    """What hiding needs of PostgreSQL."""

    spread: Spread | None

    def query(self, name: str) -> str: ...
    async def fetch(self, name: str, *args: Any) -> list[Any]: ...


class Hiding:
    """These steps."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def held(self, connection: Any, user_id: int, sources: Sequence[int] | None) -> None:
        """Locks what every batch of a user needs on sources (None: on all): what is there first, then what is made for
        it, as batches do."""
        query, here = self._ledger.query, self._here(sources)
        await connection.fetch(query("heads_held"), user_id, here)
        await connection.fetch(query("player_held"), user_id, here)
        if self._ledger.spread is not None:
            rows = await connection.fetch(query("spread_hiding"), user_id, sources)
            if rows:
                of = [row["source"] for row in rows], [row["round"] for row in rows]
                await connection.execute(query("spread_held"), user_id, *of)

    async def anew(
        self, connection: Any, user_id: int, sources: Sequence[int] | None, kind: str
    ) -> list[tuple[int, int]]:
        """Hides or shows a user on sources (None: on all) as bans and deletion say; the rows of the outbox, each with
        its source."""
        hidden = self._ledger.query("hidden_anew")
        pending = _pairs(await connection.fetch(hidden, user_id, self._here(sources), kind))
        if self._ledger.spread is not None:
            pending += await self._there(connection, user_id, sources, kind)
        return pending

    async def renamed(self, connection: Any, user_id: int) -> list[tuple[int, int]]:
        """A user has just been given another name: the rows of the outbox, each with its source."""
        query = self._ledger.query
        pending = _pairs(await connection.fetch(query("renamed"), user_id))
        if self._ledger.spread is not None and (every := await connection.fetchval(query("spread_sources"))):
            found = await connection.fetch(query("spread_sources_of_heads"), every, [user_id])
            pending += await self._pending(connection, "rename", user_id, [source for (source,) in found])
        return pending

    async def committed(self) -> None:
        """What was changed is committed. Raises LedgerUnavailable."""
        if self._ledger.spread is not None:
            # Once more: who read a closed board in between, saw its new version, and may have seen it as it was before.
            await self._ledger.fetch("spread_shown_moved")

    def _here(self, sources: Sequence[int] | None) -> Sequence[int] | None:
        """The sources whose tables are on the coordinator."""
        if self._ledger.spread is None:
            return sources
        return [DEFAULT.id] if sources is None or DEFAULT.id in sources else []

    async def _there(
        self, connection: Any, user_id: int, sources: Sequence[int] | None, kind: str
    ) -> list[tuple[int, int]]:
        query = self._ledger.query
        rows = await connection.fetch(query("spread_hiding"), user_id, sources)
        alike: dict[tuple[bool, tuple[int, ...]], list[int]] = {}
        for row in rows:
            alike.setdefault((row["hidden"], tuple(row["hidden_on"])), []).append(row["source"])
        for (hidden, hidden_on), of in alike.items():
            await connection.execute(query("spread_hidden"), user_id, of, hidden, list(hidden_on))
        every = [row["source"] for row in rows]
        live = await connection.fetchrow(query("spread_live"), every)
        if live["rules"] is None:
            return []
        moved = await connection.fetch(query("spread_rows_moved"), user_id, every, live["rules"], live["windows"])
        return await self._pending(connection, kind, user_id, {source for (source,) in moved})

    async def _pending(
        self, connection: Any, kind: str, user_id: int, sources: Iterable[int]
    ) -> list[tuple[int, int]]:
        of = sorted(sources)
        if not of:
            return []
        ids = await connection.fetchval(self._ledger.query("spread_outbox_ids"), len(of))
        await connection.execute(self._ledger.query("spread_pending"), kind, user_id, ids, of)
        assert self._ledger.spread is not None
        for row, source in zip(ids, of, strict=True):
            self._ledger.spread.remember(row, source)
        return list(zip(ids, of, strict=True))


def _pairs(rows: Iterable[Any]) -> list[tuple[int, int]]:
    return [(row["id"], row["source"]) for row in rows]
