"""The store: Dragonfly or anything that speaks its protocol.

Owns the commands, the Lua scripts and their arguments; connections, and which content these may meet, are its link's.
Must never use a command that Dragonfly lacks, or repeat a write: whose to repeat it is, is the caller's to know. Every
method raises StoreUnavailable and its kin (see `realtime.errors`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import redis.exceptions as failures

from realtime import resources
from realtime.boards.board import CLOSED_EPOCH, LEDGER_KEY, TOP, Board
from realtime.boards.standings import Position, Standing, standing
from realtime.errors import EpochMoved, StoreChanged
from realtime.store.announcements import Announcement, as_announcement
from realtime.store.filling import KEYS_A_CALL
from realtime.store.fitness import Content
from realtime.store.keys import (
    CHANNEL_PATTERN,
    CHANNEL_PREFIX,
    EPOCH_KEY,
    FILLING,
    RUN_KEY,
    USERS_VERSION_KEY,
    cache_key,
    channel,
    expire_at,
    scores_key,
    user_key,
    version_key,
    versions_key,
)
from realtime.store.link import Link, mapped
from realtime.store.pool import Command, Script, checked, executed, transaction
from realtime.store.replies import (
    Around,
    Expectation,
    Held,
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

RANKED_A_CALL: Final = 250
"""Users ranked in one script call: about two milliseconds of the store's time on a board of a million."""

ROWS_A_CALL: Final = 1_000
"""Rows of one board, and profiles, in one script call: Lua's `unpack` ends at about 8,000 values."""


class Store:
    """What one process asks of the store and tells it, through its `link`."""

    def __init__(self, url: str, *, timeout: float = 2.0, connections: int = 8) -> None:
        self.link = Link(url, timeout=timeout, connections=connections)
        self._checked = self.link.checked
        self.expect: Callable[[Mapping[Board, Sequence[Row]]], Expectation | None] = lambda written: None
        """Asked before a write to boards what is to be read right behind it, in the same exchange."""
        self._apply = Script(resources.script("apply"))
        self._page = Script(resources.script("page"))
        self._around = Script(resources.script("around"))
        self._ranks = resources.script("ranks")
        self._cache = Script(resources.script("cache_week"))
        self._forget = Script(resources.script("forget"))
        self._begin = Script(resources.script("begin_filling"))
        self._clear = Script(resources.script("clear"))
        self._end = Script(resources.script("end_filling"))

    async def aclose(self) -> None:
        """Closes every connection."""
        await self.link.aclose()

    # Which content? ------------------------------------------------------------------------------------------

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
        """The epoch whose content cannot be ours, though it says so."""
        return self.link.distrusted

    @property
    def is_complete(self) -> bool:
        """Whether the adopted content may be read."""
        return self.link.is_complete

    @property
    def is_fit(self) -> bool:
        """Whether nothing is known that speaks against its use."""
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
        """The epoch that the adopted content has, or will have once it is complete: what was told now is part of it."""
        return None if self.epoch is None else self.epoch.removeprefix(FILLING)

    def distrust(self, why: str = "foreign") -> None:
        """See `Link.distrust`."""
        self.link.distrust(why)

    def leave(self, epoch: str) -> None:
        """See `Link.leave`."""
        self.link.leave(epoch)

    @property
    def ledger_seen(self) -> str | None:
        """What the store remembered of the ledger when it was last looked at."""
        return self.link.ledger

    async def remember_ledger(self, seen: str) -> None:
        """Keeps what was seen of the ledger, also through rebuilds."""
        with mapped():
            await self._checked.ask("SET", LEDGER_KEY, seen)

    # Writing -------------------------------------------------------------------------------------------------

    async def apply(
        self, rows: Mapping[Board, Sequence[Row]], profiles: Sequence[Profile] = (), *, epoch: str | None = None
    ) -> int:
        """Applies absolute rows and profiles, each guarded by its version; announces what boards show of it.

        Boards named with no rows are still looked at: a renamed user may be shown there. Returns how many rows were
        new to the store. Raises EpochMoved where the content is of another epoch than adopted: nothing was written
        by that call. Safe to repeat.
        """
        applied = 0
        chunks = max((len(part) for part in [*rows.values(), profiles]), default=0)
        for start in range(0, chunks, ROWS_A_CALL):
            end = start + ROWS_A_CALL
            part = {board: list(islice(of_board, start, end)) for board, of_board in rows.items()}
            expected = self.expect(part) if epoch is None else None  # what is being filled nobody reads
            reading: Look | None = None
            try:
                done, reading = await self._apply_part(part, profiles[start:end], epoch or self.epoch, expected)
            finally:
                if expected is not None:
                    expected.fulfil(reading)
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
        reading = transaction(_reading(expected.wanted, expected.names_of)) if expected else ()
        with self.link.mapped():
            (verdict, value), *replies = await self._checked.run(self._apply, keys, args, *reading)
            if verdict == b"epoch":
                raise EpochMoved(as_text(value) or None)
            if expected is None:
                return int(value), None
            return int(value), _read(expected.wanted, expected.names_of, executed(replies))

    def _expire_at(self, board: Board) -> int:
        """When a board's keys expire, by the store's clock: not before it is due by that and by the ledger's."""
        return expire_at(board) and expire_at(board) + max(0, int(self.link.ahead or 0))

    async def count(self, amounts: Mapping[str, int], seconds: int) -> list[int]:
        """Adds to counters that expire `seconds` after the last addition; what each is then, in order.

        Raises ForeignContent where one of them is no counter: then they begin anew, and no board is doubted for it.
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
        """The tops of boards with versions, and the names of some users, all of the same moment (one MULTI)."""
        with self.link.mapped():
            replies = await self._checked.exchange(*transaction(_reading(wanted, names_of)))
            return _read(wanted, names_of, executed(replies))

    async def page(self, board: Board, offset: int, limit: int) -> Page:
        """`limit` rows of a board from place `offset` on, in one call."""
        with self.link.mapped():
            keys = [EPOCH_KEY, USERS_VERSION_KEY, version_key(board), scores_key(board)]
            (found,) = await self._checked.run(self._page, keys, [offset, offset + limit - 1])
            epoch, users, version, players, above, reply = found
            counters = as_count(users), as_count(version)
            return Page(as_text(epoch) or None, *counters, int(players), int(above) + 1, as_scores(reply))

    async def around(self, board: Board, user_id: int, neighbours: int) -> Around:
        """A user's row with `neighbours` on each side, in one call."""
        with self.link.mapped():
            keys = [EPOCH_KEY, USERS_VERSION_KEY, version_key(board), scores_key(board)]
            (found,) = await self._checked.run(self._around, keys, [user_id, neighbours])
            epoch, users, version, players, place, above, next_score, reply = found
            scores = as_scores(reply)
            counters = as_count(users), as_count(version)
            return Around(as_text(epoch) or None, *counters, players, place, above + 1, next_score, scores)

    async def standings(self, wanted: Mapping[Board, Sequence[int]]) -> tuple[str | None, dict[Board, list[Standing]]]:
        """Where users stand, board by board, and the epoch that held all the while; in one round trip.

        Each call is of one moment and names one key, that Dragonfly may run it where the key is; so the epoch is asked
        before and after. Raises StoreChanged where it moved.
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
        """Epoch and change counters in one MGET: what the poll compares with what was last shown."""
        with self.link.mapped():
            epoch, users, *versions = await self._checked.ask(
                "MGET", EPOCH_KEY, USERS_VERSION_KEY, *(version_key(board) for board in of)
            )
            counters = [as_count(version) for version in versions]
            return Versions(as_text(epoch), as_count(users), dict(zip(of, counters, strict=True)))

    # Looking for drift ---------------------------------------------------------------------------------------

    async def held(self, board: Board, members: Sequence[int | bytes]) -> list[Held]:
        """What is held of members of a live board, all of one moment. Raises EpochMoved."""
        with self.link.mapped():
            commands = (
                ("GET", EPOCH_KEY),
                ("HMGET", versions_key(board), *members),
                ("ZMSCORE", scores_key(board), *members),
            )
            epoch, versions, scores = checked(executed(await self._checked.exchange(*transaction(commands))))
        self._check_epoch(epoch)
        numbers = (None if score is None else float(score) for score in scores)
        return [Held(version, score) for version, score in zip(versions, numbers, strict=True)]

    async def held_profiles(self, user_ids: Sequence[int]) -> list[Held]:
        """What is held of users besides scores; where that is no hash, its version is empty. Raises EpochMoved."""
        with self.link.mapped():
            commands: list[Command] = [("GET", EPOCH_KEY)]
            commands += [("HMGET", user_key(user_id), "version", "username") for user_id in user_ids]
            epoch, *replies = executed(await self._checked.exchange(*transaction(commands)))
        self._check_epoch(epoch)
        return [Held(*reply) if isinstance(reply, list) else Held(b"", None) for reply in replies]

    def _check_epoch(self, epoch: bytes | None) -> None:
        if as_text(epoch) != self.epoch or not self.is_complete:
            raise EpochMoved(as_text(epoch))

    async def top_members(self, board: Board) -> list[bytes]:
        """Who is at the top of a live board, whatever they are called."""
        with self.link.mapped():
            return list(await self._checked.ask("ZREVRANGE", scores_key(board), 0, TOP - 1))

    async def scan(self, board: Board, cursor: int, count: int) -> tuple[int, set[bytes]]:
        """Who a live board has scores or versions of, some `count` at a time; begins and ends with cursor 0.

        Both keys are gone through in one: an even cursor goes on in the scores, an odd one in the versions.
        """
        position, of_versions = divmod(cursor, 2)
        scan = ("HSCAN", versions_key(board)) if of_versions else ("ZSCAN", scores_key(board))
        with self.link.mapped():
            follows, pairs = await self._checked.ask(*scan, position, "COUNT", count)
            position = int(follows)
        return 2 * position + (of_versions if position else 1 - of_versions), set(pairs[::2])

    async def players(self, board: Board) -> int:
        """How many have a place on a live board."""
        with self.link.mapped():
            return int(await self._checked.ask("ZCARD", scores_key(board)))

    async def forget(self, board: Board, members: Mapping[bytes, bytes | None], user_ids: Sequence[int] = ()) -> None:
        """Drops members of a live board where the version last seen of each still stands, and the hashes of users.

        For what the ledger knows nothing of, and for what is no number. Raises EpochMoved.
        """
        keys = [EPOCH_KEY, USERS_VERSION_KEY, scores_key(board), version_key(board), versions_key(board)]
        keys += map(user_key, user_ids)
        seen = [version or b"" for version in members.values()]
        with self.link.mapped():
            args = [self.epoch or "", board.id, len(seen), *members, *seen]
            (verdict,) = await self._checked.run(self._forget, keys, args)
        if verdict != b"ok":
            raise EpochMoved(None)

    # Closed weeks --------------------------------------------------------------------------------------------

    async def cached_week(self, board: Board) -> tuple[bytes | None, Position]:
        """A closed week's cached JSON, and the state of names at the same moment."""
        with self.link.mapped():
            value, users, epoch = await self._checked.ask(
                "MGET", cache_key(board), USERS_VERSION_KEY, EPOCH_KEY
            )
            return value if isinstance(value, bytes) else None, Position(as_text(epoch), as_count(users))

    async def cache_week(self, board: Board, version: int, names_at: Position, value: bytes) -> None:
        """Keeps a closed week's JSON, unless a newer one is there or names have moved since `names_at`."""
        with self.link.mapped():
            keys = [cache_key(board), USERS_VERSION_KEY, EPOCH_KEY]
            args = [version, names_at.version, names_at.epoch or "", value]
            await self._checked.run(self._cache, keys, args)

    async def announce(self, board: Board, version: int) -> None:
        """Says that a closed week shows something else."""
        with self.link.mapped():
            message = f'{{"epoch":"{CLOSED_EPOCH}","version":{version}}}'
            await self._checked.ask("PUBLISH", channel(board), message)

    # Hearing -------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def announcements(self) -> AsyncIterator[AsyncIterator[Announcement]]:
        """Listens to `leaderboard:changes:*`, subscribed before the block is entered.

        The iterator ends with StoreUnavailable when the connection breaks or stays silent against a ping for longer
        than the time-out: a half-open connection is found.
        """
        with self.link.mapped():
            async with aclosing(self._checked.listen(CHANNEL_PATTERN, self.link.timeout)) as messages:
                await anext(messages)
                yield self._heard(messages)

    async def _heard(self, messages: AsyncIterator[list[bytes]]) -> AsyncIterator[Announcement]:
        with self.link.mapped():
            async for _, channel, text in messages:
                yield as_announcement(channel.decode(errors="replace").removeprefix(CHANNEL_PREFIX), text)

    # Rebuilding ----------------------------------------------------------------------------------------------

    async def begin_filling(self, run: str, epoch: str) -> bool:
        """Marks the content as being filled for `epoch`; False where a later rebuild went ahead."""
        await self.link.turn_to(run)
        self.link.accept()  # whatever was there is about to go
        with self.link.mapped():
            return await self._checked.run(self._begin, [EPOCH_KEY], [epoch]) == [b"ok"]

    async def clear(self, epoch: str) -> None:
        """Drops all content but the epoch, what is remembered of the ledger, and the limits' counters, some thousand
        keys at a time.

        Raises StoreChanged where `epoch` is no longer what is filled: a rebuild that hung must not drop what the one
        after it has filled.
        """
        kept = (EPOCH_KEY.encode(), LEDGER_KEY.encode(), b"leaderboard:limit:")
        cursor = 0
        with self.link.mapped():
            while True:
                follows, keys = await self._checked.ask("SCAN", cursor, "MATCH", "leaderboard:*", "COUNT", 1_000)
                cursor, doomed = int(follows), [key for key in keys if not key.startswith(kept)]
                for start in range(0, len(doomed), KEYS_A_CALL):
                    part = doomed[start : start + KEYS_A_CALL]
                    if await self._checked.run(self._clear, [EPOCH_KEY, *part], [epoch]) != [b"ok"]:
                        raise StoreChanged("another rebuild went ahead")
                if cursor == 0:
                    return

    async def end_filling(self, run: str, epoch: str, announced: Sequence[str]) -> bool:
        """Makes `epoch` current and announces it; False where this rebuild is no longer the one that fills."""
        with self.link.mapped():
            keys = [EPOCH_KEY, RUN_KEY]
            return await self._checked.run(self._end, keys, [epoch, run, *announced]) == [b"ok"]


def _reading(wanted: Sequence[Board], names_of: Collection[int]) -> list[Command]:
    """The commands of a reading, to be run as one."""
    return [
        ("MGET", EPOCH_KEY, USERS_VERSION_KEY, *(version_key(board) for board in wanted)),
        *(("ZREVRANGE", scores_key(board), 0, TOP - 1, "WITHSCORES") for board in wanted),
        *map(_name_of, names_of),
    ]


def _read(wanted: Sequence[Board], names_of: Collection[int], replies: list[Any]) -> Look:
    """What these commands found."""
    (epoch, users_version, *versions), *found = checked(replies)
    tops = [Top(as_count(version), as_scores(top)) for version, top in zip(versions, found, strict=False)]
    of_users = zip(names_of, found[len(wanted) :], strict=True)
    names = {user_id: as_name(name) for user_id, name in of_users if name is not None}
    return Look(as_text(epoch), as_count(users_version), tops, names)


def _name_of(user_id: int) -> Command:
    return ("HGET", user_key(user_id), "username")
