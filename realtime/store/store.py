"""The store: writes boards to Dragonfly, or anything that speaks its protocol, and reads them there.

Owns the commands and scripts of writes, consistent readings and caches, and their arguments. Its link owns connections,
and which content they may meet. Must never use a command that Dragonfly lacks, or repeat a write that may have been
done: the caller knows whether that is safe. Assumes that rows are absolute and carry versions. Every method raises
StoreUnavailable and its kin (see `realtime.errors`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import redis.exceptions as failures

from realtime import resources
from realtime.boards.board import CLOSED_EPOCH, TOP, Board
from realtime.boards.standings import Position, Standing, standing
from realtime.errors import EpochMoved, StoreChanged
from realtime.store.fitness import Content
from realtime.store.keys import (
    EPOCH_KEY,
    FILLING,
    LEDGER_KEY,
    USERS_VERSION_KEY,
    cache_key,
    channel,
    expire_at,
    scores_key,
    user_key,
    version_key,
    versions_key,
)
from realtime.store.link import Link
from realtime.store.outages import mapped
from realtime.store.pool import Command, Script, checked, executed, transaction
from realtime.store.replies import (
    Around,
    Expectation,
    Look,
    Page,
    Top,
    Versions,
    as_count,
    as_name,
    as_scores,
    as_text,
)

if TYPE_CHECKING:
    from realtime.boards.standings import Profile, Row
    from realtime.store.replies import Anew, ReadAfterWrite

RANKED_A_CALL: Final = 250
"""Users ranked in one script call: about two milliseconds of the store's time on a board of a million."""

ROWS_A_CALL: Final = 1_000
"""Rows of one board, and profiles, in one script call: Lua's `unpack` ends at about 8,000 values."""


class Store:
    """Writes boards and reads them, through one process's `link` to the store."""

    def __init__(self, url: str, *, timeout: float = 2.0, connections: int = 8) -> None:
        self.link = Link(url, timeout=timeout, connections=connections)
        self._checked = self.link.checked
        self._apply = Script(resources.script("apply"))
        self._page = Script(resources.script("page"))
        self._around = Script(resources.script("around"))
        self._ranks = resources.script("ranks")
        self._cache = Script(resources.script("cache_week"))

    async def aclose(self) -> None:
        """Closes every connection."""
        await self.link.aclose()

    # Which content it is ------------------------------------------------------------------------------------------

    @property
    def run(self) -> str | None:
        """The run of the store whose content was adopted last."""
        return self.link.run

    @property
    def epoch(self) -> str | None:
        """The epoch of the content that was adopted last."""
        return self.link.epoch

    @property
    def distrusted(self) -> str | None:
        """The epoch of content that must not be used, though it says that it is ours; None where there is none."""
        return self.link.distrusted

    @property
    def is_complete(self) -> bool:
        """Whether the adopted content may be read."""
        return self.link.is_complete

    @property
    def is_fit(self) -> bool:
        """Whether commands are let through: nothing is known that speaks against the store."""
        return self.link.complaint is None

    async def info(self) -> dict[str, str]:
        """See `Link.info`."""
        return await self.link.info()

    async def content(self) -> Content:
        """See `Link.content`."""
        return await self.link.content()

    async def adopt(self) -> Content:
        """See `Link.adopt`."""
        return await self.link.adopt()

    @property
    def told(self) -> str | None:
        """The epoch that the adopted content has, or will have once it is complete: a write now becomes part of it."""
        epoch = self.link.epoch
        return None if epoch is None else epoch.removeprefix(FILLING)

    def distrust(self, why: str = "foreign") -> None:
        """See `Link.distrust`."""
        self.link.distrust(why)

    def leave(self, epoch: str) -> None:
        """See `Link.leave`."""
        self.link.leave(epoch)

    @property
    def ledger_seen(self) -> str | None:
        """What the store remembered of the ledger at the last look."""
        return self.link.ledger

    async def remember_ledger(self, seen: str) -> None:
        """Makes the store remember how far the ledger has come, also through rebuilds."""
        with mapped():
            await self._checked.ask("SET", LEDGER_KEY, seen)

    # Writing -------------------------------------------------------------------------------------------------

    async def tell(
        self,
        rows: Mapping[Board, Sequence[Row]],
        profiles: Sequence[Profile] = (),
        *,
        anew: Anew | None = None,
        read_after_write: ReadAfterWrite | None = None,
    ) -> str | None:
        """Applies what the ledger has committed to whichever content is current; returns that content's epoch.

        Where that is other content by now, `anew` reads rows and profiles once more: the ledger may have been restored
        meanwhile, and what was read before that would count as newer. Raises StoreUnavailable (EpochMoved without an
        `anew`), and LedgerUnavailable from it. Safe to repeat.
        """
        told = self.told
        try:
            await self.apply(rows, profiles, read_after_write=read_after_write)
        except EpochMoved:
            await self.adopt()
            if anew is None:
                raise
            told = self.told
            rows, profiles = await anew()
            await self.apply(rows, profiles, read_after_write=read_after_write)
        return told

    async def apply(
        self,
        rows: Mapping[Board, Sequence[Row]],
        profiles: Sequence[Profile] = (),
        *,
        epoch: str | None = None,
        read_after_write: ReadAfterWrite | None = None,
    ) -> int:
        """Applies absolute rows and profiles, each guarded by its version, and announces the boards whose top changed.

        A board without rows is looked at too: it may show a renamed user. `epoch` names content that is being filled;
        without it the adopted content is meant. `read_after_write` is asked before each script call what to read in
        the same exchange, right behind the write. Returns how many rows were new to the store. Raises EpochMoved where
        the content is of another epoch: then that call wrote nothing. Safe to repeat.
        """
        applied = 0
        chunks = max((len(part) for part in [*rows.values(), profiles]), default=0)
        for start in range(0, chunks, ROWS_A_CALL):
            end = start + ROWS_A_CALL
            part = {board: list(islice(of_board, start, end)) for board, of_board in rows.items()}
            expected = read_after_write(part) if read_after_write is not None else None
            look: Look | None = None
            try:
                done, look = await self._apply_part(part, profiles[start:end], epoch or self.epoch, expected)
            finally:
                if expected is not None:
                    expected.fulfil(look)
            applied += done
        return applied

    async def _apply_part(
        self,
        rows: Mapping[Board, Sequence[Row]],
        profiles: Sequence[Profile],
        epoch: str | None,
        expected: Expectation | None,
    ) -> tuple[int, Look | None]:
        keys: list[str] = [EPOCH_KEY, USERS_VERSION_KEY]
        args: list[Any] = [epoch or "", len(rows), len(profiles)]
        for board, of_board in rows.items():
            keys += (scores_key(board), version_key(board), versions_key(board))
            args += (board.id, self._expire_at(board))
            args.append(" ".join([str(row.user_id) for row in of_board]))
            args.append(" ".join([str(row.version) for row in of_board]))
            args.append(" ".join(["-" if row.score is None else str(row.score) for row in of_board]))
        if profiles:
            keys += [user_key(profile.user_id) for profile in profiles]
            args.append(" ".join([str(profile.user_id) for profile in profiles]))
            args.append(" ".join([str(profile.version) for profile in profiles]))
            args += [profile.username for profile in profiles]
        behind = transaction(_look_commands(expected.wanted, expected.names_of)) if expected else ()
        with self.link.mapped():
            (verdict, value), *replies = await self._checked.run(self._apply, keys, args, *behind)
            if verdict == b"epoch":
                raise EpochMoved(as_text(value) or None)
            if expected is None:
                return int(value), None
            return int(value), _look_of(expected.wanted, expected.names_of, executed(replies))

    def _expire_at(self, board: Board) -> int:
        """When a board's keys expire by the store's clock: not before they are due by the ledger's clock either."""
        return expire_at(board) and expire_at(board) + max(0, int(self.link.ahead or 0))

    async def count(self, amounts: Mapping[str, int], seconds: int) -> list[int]:
        """Adds amounts to counters, which expire `seconds` after the last addition; returns each new total, in order.

        Raises ForeignContent where one of the keys is no counter: then all of them begin anew, and boards stay trusted.
        """
        commands: list[Command] = []
        for key, amount in amounts.items():
            commands += (("INCRBY", key, amount), ("EXPIRE", key, seconds))
        with mapped():
            try:
                return [int(total) for total in checked(await self._checked.exchange(*commands))[::2]]
            except failures.ResponseError:
                await self._checked.ask("DEL", *amounts)
                raise

    # Reading -------------------------------------------------------------------------------------------------

    async def read(self, wanted: Sequence[Board], names_of: Collection[int] = ()) -> Look:
        """The tops and versions of boards and the names of some users, all of the same moment (one MULTI)."""
        with self.link.mapped():
            replies = await self._checked.exchange(*transaction(_look_commands(wanted, names_of)))
            return _look_of(wanted, names_of, executed(replies))

    async def page(self, board: Board, offset: int, limit: int) -> Page:
        """`limit` rows of a board from place `offset` (from 0) on, in one script call."""
        with self.link.mapped():
            keys = [EPOCH_KEY, USERS_VERSION_KEY, version_key(board), scores_key(board)]
            (found,) = await self._checked.run(self._page, keys, [offset, offset + limit - 1])
            epoch, users, version, players, above, reply = found
            counters = as_count(users), as_count(version)
            return Page(as_text(epoch) or None, *counters, int(players), int(above) + 1, as_scores(reply))

    async def around(self, board: Board, user_id: int, neighbours: int) -> Around:
        """A user's row with `neighbours` rows on each side, in one script call."""
        with self.link.mapped():
            keys = [EPOCH_KEY, USERS_VERSION_KEY, version_key(board), scores_key(board)]
            (found,) = await self._checked.run(self._around, keys, [user_id, neighbours])
            epoch, users, version, players, place, above, next_score, reply = found
            scores = as_scores(reply)
            counters = as_count(users), as_count(version)
            return Around(as_text(epoch) or None, *counters, players, place, above + 1, next_score, scores)

    async def standings(self, wanted: Mapping[Board, Sequence[int]]) -> tuple[str | None, dict[Board, list[Standing]]]:
        """Where users stand, board by board, and the epoch that held all the while; in one round trip.

        Each script call is of one moment and names one key, so that Dragonfly runs it where the key is. The epoch is
        therefore read before and after all of them. Raises StoreChanged where it moved.
        """
        calls = [
            (board, user_ids[start : start + RANKED_A_CALL])
            for board, user_ids in wanted.items()
            for start in range(0, len(user_ids), RANKED_A_CALL)
        ]
        with self.link.mapped():
            before, *replies, after = checked(
                await self._checked.exchange(
                    ("GET", EPOCH_KEY),
                    *(("EVAL", self._ranks, 1, scores_key(board), " ".join(map(str, ids))) for board, ids in calls),
                    ("GET", EPOCH_KEY),
                )
            )
        if before != after:
            raise StoreChanged("the store's content changed during a reading")
        found: dict[Board, list[Standing]] = {board: [] for board in wanted}
        for (board, _), (players, *values) in zip(calls, replies, strict=True):
            rows = zip(values[::3], values[1::3], values[2::3], strict=True)
            found[board] += [standing(score, above, following, players) for score, above, following in rows]
        return as_text(before), found

    async def versions(self, of: Sequence[Board]) -> Versions:
        """The epoch and change counters, in one MGET: the poll compares them with what was last shown."""
        with self.link.mapped():
            epoch, users, *versions = await self._checked.ask(
                "MGET", EPOCH_KEY, USERS_VERSION_KEY, *(version_key(board) for board in of)
            )
            counters = [as_count(version) for version in versions]
            return Versions(as_text(epoch), as_count(users), dict(zip(of, counters, strict=True)))

    # Closed weeks --------------------------------------------------------------------------------------------

    async def cached_week(self, board: Board) -> tuple[bytes | None, Position]:
        """A closed week's cached JSON, None where there is none, and the position of names at the same moment."""
        with self.link.mapped():
            value, users, epoch = await self._checked.ask(
                "MGET", cache_key(board), USERS_VERSION_KEY, EPOCH_KEY
            )
            return value if isinstance(value, bytes) else None, Position(as_text(epoch), as_count(users))

    async def cache_week(self, board: Board, version: int, names_at: Position, value: bytes) -> None:
        """Caches a closed week's JSON, unless a newer one is there or names have moved since `names_at`."""
        with self.link.mapped():
            keys = [cache_key(board), USERS_VERSION_KEY, EPOCH_KEY]
            args = [version, names_at.version, names_at.epoch or "", value]
            await self._checked.run(self._cache, keys, args)

    async def announce(self, board: Board, version: int) -> None:
        """Says that a closed week's top has a new version."""
        with self.link.mapped():
            message = f'{{"epoch":"{CLOSED_EPOCH}","version":{version}}}'
            await self._checked.ask("PUBLISH", channel(board), message)


def _look_commands(wanted: Sequence[Board], names_of: Collection[int]) -> list[Command]:
    """The commands of a look: a transaction runs them as one."""
    return [
        ("MGET", EPOCH_KEY, USERS_VERSION_KEY, *(version_key(board) for board in wanted)),
        *(("ZREVRANGE", scores_key(board), 0, TOP - 1, "WITHSCORES") for board in wanted),
        *map(_name_of, names_of),
    ]


def _look_of(wanted: Sequence[Board], names_of: Collection[int], replies: list[Any]) -> Look:
    """The look that the replies to these commands give."""
    (epoch, users_version, *versions), *found = checked(replies)
    tops = [Top(as_count(version), as_scores(top)) for version, top in zip(versions, found, strict=False)]
    of_users = zip(names_of, found[len(wanted) :], strict=True)
    names = {user_id: as_name(name) for user_id, name in of_users if name is not None}
    return Look(as_text(epoch), as_count(users_version), tops, names)


def _name_of(user_id: int) -> Command:
    return ("HGET", user_key(user_id), "username")
