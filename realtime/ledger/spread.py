"""Spread: what is otherwise where the leaderboards' tables are spread over the nodes of a Citus deployment.

Owns the form in which a query for one source reaches that source's node, and how a batch for one source is recorded:
first what the coordinator knows of it, then all of it where the source is. Must never let one statement touch two
sources' tables, or default's and another's: Citus refuses most of them. Assumes sql/spread.sql, and that everything of
default, and of what is `of` it, is on the coordinator, in the tables of any other deployment.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Protocol

from realtime.boards.leaderboard import DEFAULT
from realtime.ledger.recorded import Cleared

if TYPE_CHECKING:
    import asyncpg

    from realtime.boards.catalogue import Catalogue
    from realtime.boards.submissions import Submission

_TABLES: Final = re.compile(r"\b(FROM|JOIN|INTO|UPDATE|USING) (heads|score_transactions|scores|outbox)\b")
_OF_DEFAULT: Final = re.compile(r"^.*-- default$\n?", re.MULTILINE)

REMEMBERED: Final = 100_000
"""Rows of the outbox whose source is remembered: far more than wait for the store in a healthy deployment."""


Told = tuple[int, str, str | None]
"""A row of the outbox that the store has, with the partition whose content has it, and that content's epoch."""


def of_one_source(text: str) -> str:
    """A query for any source as one for a source that is spread: without the lines that end in `-- default`."""
    return _TABLES.sub(r"\1 spread.\2", _OF_DEFAULT.sub("", text)).replace("(SELECT FROM", "(SELECT 1 FROM")


class Spread:
    """Queries, and batches, for sources that are spread."""

    def __init__(self, queries: Mapping[str, str]) -> None:
        self._sql = queries
        self._forms: dict[str, str] = {}
        self._sources: OrderedDict[int, int] = OrderedDict()  # by row of the outbox
        self._told: dict[int, list[Told]] = {}  # by source, rows that its next statement is to remove

    def query(self, name: str) -> str:
        """The text of a query, for one source that is not default."""
        if name not in self._forms:
            text = self._sql.get(f"{name}_spread")
            self._forms[name] = of_one_source(self._sql[name]) if text is None else text
        return self._forms[name]

    def of_batch(self, batch: Sequence[Submission], catalogue: Catalogue) -> Spread | None:
        """This, where what takes the submissions of a batch is spread; all of them are of one source."""
        return None if catalogue.leaderboards[batch[0].leaderboard].source == DEFAULT.id else self

    # Batches ---------------------------------------------------------------------------------------------------------

    async def recorded(self, connection: asyncpg.Connection[Any], args: Sequence[Any]) -> list[Any]:
        """What `record_scores` would answer to these arguments; all of them are of one source, which is spread.

        In the transaction that is open.
        """
        source = args[6][0]
        told = self._told.pop(source, [])
        try:
            return await self._recorded(connection, source, args[:12], told)
        except BaseException:
            self.told(told)
            raise

    async def _recorded(
        self, connection: asyncpg.Connection[Any], source: int, args: Sequence[Any], told: Sequence[Told]
    ) -> list[Any]:
        users, ids, scores, reasons, metadata, at, _, moments, starts, ends, kind, revision = args
        cleared = [[one[place] for one in told] for place in range(3)]
        prepared = await connection.fetchrow(
            self._sql["spread_prepared"], source, moments, starts, ends, kind, revision, users, *cleared
        )
        if prepared is None:
            self.told(told)
            return []
        row: Any = await connection.fetchrow(
            self._sql["spread_record"], source, self._sql["spread_recorded"], prepared["cleared"],
            prepared["lock_timeout"], users, ids, scores, reasons, metadata, at, prepared["known"], prepared["ids"],
            moments, prepared["moments"], prepared["states"], prepared["micros"], prepared["firsts"],
            prepared["lasts"], prepared["lacks"], prepared["rules"] or [], prepared["windows"] or [],
            prepared["operators"] or [], prepared["buildings"] or [], prepared["round"], kind, prepared["outbox_id"],
        )  # fmt: skip
        lacking = row["lacking_places"]
        over = _over(prepared, set(row["fresh_places"] or ()))
        if over:
            ended = [one[0] for one in over], [one[1] for one in over]
            await connection.execute(self._sql["spread_ended"], *ended)
        names = await connection.fetch(self._sql["spread_named"], row["new_users"]) if row["new_users"] else ()
        pending = [prepared["outbox_id"]] if row["fresh_places"] else None
        for one in pending or ():
            self.remember(one, source)
        return [
            {
                **_NOTHING,
                **row,
                "week": prepared["week"],
                "moments": prepared["micros"],
                "lacking_sources": [source for _ in lacking] if lacking else None,
                "lacking_moments": [prepared["moments"][place - 1] for place in lacking] if lacking else None,
                "new_sources": [source for _ in names],
                "new_users": [one["user_id"] for one in names],
                "usernames": [one["username"] for one in names],
                "user_versions": [one["version"] for one in names],
                **{name: [one[place] for one in over] for place, name in enumerate(_OVER)},
                "outbox_ids": pending,
                "outbox_sources": pending and [source],
            }
        ]

    async def locked(
        self, connection: asyncpg.Connection[Any], players: Collection[tuple[int, int]]
    ) -> set[tuple[int, int]]:
        """Those players, each by source and user id, whose head somebody else has locked. In the transaction that is
        open."""
        locked: set[tuple[int, int]] = set()
        for source in sorted({source for source, _ in players if source != DEFAULT.id}):
            asked = [user_id for of, user_id in players if of == source]
            there = {user_id for (user_id,) in await connection.fetch(self._sql["spread_heads_of"], source, asked)}
            free = {user_id for (user_id,) in await connection.fetch(self._sql["spread_free"], source, asked)}
            locked |= {(source, user_id) for user_id in there - free}
        return locked

    async def recorded_scores(
        self, connection: asyncpg.Connection[Any], args: Sequence[Any]
    ) -> list[Any]:
        """What the query `recorded_scores` would answer to these arguments; all of them are of one source."""
        *given, sources = args
        source = sources[0]
        found = await connection.fetch(self._sql["spread_log"], source, *given)
        moments = sorted({row["created_at"] for row in found if row["created_at"] is not None})
        windows = await connection.fetch(self._sql["spread_windows"], source, moments) if moments else ()
        rules, keys = ([row[name] for row in windows] for name in ("rule", "window"))
        scores = await connection.fetch(self._sql["spread_scores"], source, given[0], rules, keys) if rules else ()
        by_row = {(row["user_id"], row["rule"], row["window"]): row for row in scores}
        answer: list[Any] = []
        for user_id, row in zip(given[0], found, strict=True):
            counting = [
                (window["leaderboard"], window["name"], score["score"], score["at_id"])
                for window in windows
                if moments[window["place"] - 1] == row["created_at"]
                and (score := by_row.get((user_id, window["rule"], window["window"]))) is not None
            ]
            lists = {name: [one[place] for one in counting] for place, name in enumerate(_COUNTING)}
            answer.append({**row, **lists, "total_score": None, "week_score": None})
        return answer

    def over(self, row: Mapping[str, Any]) -> tuple[list[int], list[int]] | None:
        """The windows that are over, and that a batch has changed: leaderboards and numbers; None for none."""
        return (row["over_leaderboards"], row["over_windows"]) if row["over_windows"] else None

    # The outbox ------------------------------------------------------------------------------------------------------

    def remember(self, row: int, source: int) -> None:
        """A row of the outbox is of that source."""
        self._sources[row] = source
        if len(self._sources) > REMEMBERED:
            self._sources.popitem(last=False)

    def found(self, rows: Sequence[Any]) -> Sequence[Any]:
        """Remembers of rows that were read of which source each is; gives them back."""
        for row in rows:
            self.remember(row["id"], row["source"])
        return rows

    def told(self, rows: Iterable[Told]) -> None:
        """The store has these rows. Of which source one is that is not remembered, the sweeper knows."""
        for row in rows:
            if (source := self._sources.get(row[0])) is not None:
                self._told.setdefault(source, []).append(row)

    def kept(self, cleared: Iterable[tuple[str, str | None, Sequence[int]]]) -> list[Cleared]:
        """Of rows that the store has, those that are default's; the others wait for the next statement of theirs."""
        of_default: list[Cleared] = []
        for partition, epoch, ids in cleared:
            if partition:
                self.told((row, partition, epoch) for row in ids)
            else:
                of_default.append(Cleared(partition, epoch, ids))
        return of_default

    async def clear(self, connection: asyncpg.Connection[Any]) -> None:
        """Removes the rows that the store has, source by source. In the transaction that is open."""
        told, self._told = self._told, {}
        try:
            for source, rows in told.items():
                await self._clear(connection, source, rows)
        except BaseException:
            self.told(row for rows in told.values() for row in rows)
            raise

    async def _clear(self, connection: asyncpg.Connection[Any], source: int, rows: Sequence[Told]) -> None:
        ids = await connection.fetchval(
            self._sql["spread_outbox_told"], *([row[place] for row in rows] for place in range(3))
        )
        free = await connection.fetch(self._sql["spread_outbox_free"], source, ids)
        if free:
            await connection.execute(self._sql["spread_outbox_removed"], source, [row for (row,) in free])


_COUNTING: Final = ("leaderboards", "names", "scores", "at_ids")
_OVER: Final = ("over_leaderboards", "over_windows", "over_kinds", "over_names", "over_starts", "over_ends")
_NOTHING: Final = dict.fromkeys(
    ("users", "totals", "versions", "hidden", "week_users", "weeks", "week_scores", "week_versions", "closed_weeks")
)
"""What is of default, in an answer that is not."""


class Ledger(Protocol):
    """What asking of all sources needs of PostgreSQL."""

    async def fetch(self, name: str, *args: Any) -> list[Any]: ...


async def failed_with_rows(ledger: Ledger, after: timedelta) -> list[Any]:
    """What `retired_rules` says of standings that could not be made, and that have rows, of sources that are spread."""
    failed = await ledger.fetch("spread_failed", after)
    return [row for row in failed if (await ledger.fetch("spread_has_rows", row["source"], row["id"]))[0][0]]


async def dropped_with_rows(ledger: Ledger, after: timedelta) -> list[tuple[int, int, int]]:
    """What `dropped_windows` says of sources that are spread: a source, rule and window."""
    for source, rule, windows in await ledger.fetch("spread_undefined", after):
        for (window,) in await ledger.fetch("spread_dropped", source, rule, windows):
            return [(source, rule, window)]
    return []


def apart(sources: Collection[int]) -> list[int]:
    """Of some sources one for each statement that it takes to ask of all of them."""
    others = [source for source in sources if source != DEFAULT.id][:1]
    return [DEFAULT.id, *others] if DEFAULT.id in sources else others


def parted(batch: Sequence[Submission], catalogue: Catalogue) -> list[Sequence[Submission]]:
    """A batch by the sources of its submissions, each in its order."""
    parts: dict[int | None, list[Submission]] = {}
    for one in batch:
        leaderboard = catalogue.leaderboards.get(one.leaderboard)
        parts.setdefault(None if leaderboard is None else leaderboard.source, []).append(one)
    return list(parts.values())


def _over(prepared: Mapping[str, Any], places: Collection[int]) -> list[tuple[Any, ...]]:
    """The windows that are over and have changed: leaderboard, number, kind, name, start and end of each."""
    names = "target_places", "ended", "leaderboards", "windows", "kinds", "names", "starts", "ends"
    targets = zip(*(prepared[name] or () for name in names), strict=True)
    return sorted({target[2:] for target in targets if target[1] and target[0] in places}, key=lambda one: one[:2])
