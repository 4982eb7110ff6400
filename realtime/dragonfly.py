"""The store: Dragonfly or anything that speaks its protocol, through redis-py.

Owns the connections, the Lua scripts and the layout of replies. Must never send a write twice by itself (redis-py's
retries are off: who may repeat a command is the caller's to know), use a command Dragonfly lacks, or hand out
redis-py's exceptions: they become `StoreUnavailable` and its kin here. Assumes RESP2 and bytes.

Every new connection compares the store's run with the one whose content we adopted (`adopt`). A store that
restarted, was replaced or failed over has another; its connections are refused with `StoreChanged` until the content
is verified or rebuilt. So no command ever meets content it was not meant for.

Where `adopt` finds the store away, or answering but of no use, commands are refused at once until it finds it well:
nobody waits for a time-out twice, and what can no longer be told changes is not shown as if it could.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import redis.asyncio as aioredis
import redis.exceptions as failures
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from realtime import boards, resources
from realtime.boards import Board
from realtime.errors import EpochMoved, ForeignContent, StartupError, StoreChanged, StoreUnavailable, StoreUnfit
from realtime.standings import Standing, standing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from realtime.standings import Profile, Row

log = logging.getLogger(__name__)

RANKED_A_CALL: Final = 250
"""Users ranked in one script call: about two milliseconds of the store's time on a board of a million."""

ROWS_A_CALL: Final = 1_000
"""Rows of one board, and profiles, in one script call: Lua's `unpack` ends at about 8,000 values."""

KEYS_A_CALL: Final = 5_000
"""Keys dropped in one script call, for the same reason."""


class Content(NamedTuple):
    """Which store this is and what it says it holds."""

    run: str
    """The server's own run, new at every start."""
    content_run: str | None
    """The run that the content was made for (`leaderboard:run`)."""
    epoch: str | None
    """The content's epoch, `filling:<next>` during a rebuild."""

    @property
    def is_ours(self) -> bool:
        """Whether the content, complete or being filled, was made for the run that holds it."""
        if self.epoch is None:
            return False
        run, _, n = self.epoch.removeprefix(boards.FILLING).partition("-")
        if run != self.run[:8] or not (n.isascii() and n.isalnum()):
            return False
        return self.epoch.startswith(boards.FILLING) or self.content_run == self.run

    @property
    def is_complete(self) -> bool:
        """Whether boards may be read from it."""
        return self.is_ours and not (self.epoch or "").startswith(boards.FILLING)


class Top(NamedTuple):
    """A board's top as the store had it at one moment."""

    version: int
    scores: dict[int, int]


@dataclass(frozen=True, slots=True)
class Reading:
    """One consistent look at the store: everything in it was true at the same moment."""

    epoch: str | None
    users_version: int
    tops: list[Top]
    names: dict[int, str]
    """The names asked for, where the store has them."""


class Page(NamedTuple):
    """A stretch of a board. `first_rank` is the competition rank of its first row."""

    epoch: str | None
    version: int
    players: int
    first_rank: int
    scores: dict[int, int]


class Around(NamedTuple):
    """A user's place with the rows around it; no scores where the user is not on the board."""

    epoch: str | None
    users_version: int
    version: int
    players: int
    place: int
    """Of the first row, from 0."""
    first_rank: int
    next_score: int | None
    """The least score above the user's."""
    scores: dict[int, int]


class Versions(NamedTuple):
    """What the 2-second poll compares."""

    epoch: str | None
    users: int
    boards: dict[Board, int]


class Held(NamedTuple):
    """What the store holds of a place on a board, or of a profile, as it stands there. None for nothing."""

    version: bytes | None
    value: float | bytes | None
    """The score, or the username."""


class Announcement(NamedTuple):
    """A message from `leaderboard:changes:*`; `board` is None for names."""

    board: str | None


@contextmanager
def _mapped() -> Iterator[None]:
    """redis-py's errors as ours."""
    try:
        yield
    except _WrongRun as error:
        raise StoreChanged(str(error)) from None
    except failures.ResponseError as error:
        text = str(error)
        if "WRONGTYPE" in text or "not an integer" in text or "not a valid float" in text:
            raise ForeignContent(text) from error
        raise StoreUnavailable(text) from error
    except (failures.RedisError, OSError, TimeoutError) as error:
        raise StoreUnavailable(str(error) or type(error).__name__) from error


class _WrongRun(failures.ConnectionError):
    """This connection leads to another run than the one whose content we adopted."""


def _parse_info(raw: Any) -> dict[str, str]:
    if isinstance(raw, dict):  # redis-py parsed it
        return {str(name): str(value) for name, value in raw.items()}
    return dict(line.split(":", 1) for line in raw.decode().splitlines() if ":" in line)


def run_of(info: Mapping[str, str]) -> str:
    """The server's run: `run_id`, or on Dragonfly `master_replid`. Both are new at every start."""
    run = info.get("run_id") or info.get("master_replid")
    if not run:
        raise StoreUnavailable("the store does not tell its run (INFO has neither run_id nor master_replid)")
    return run


def unfitness(info: Mapping[str, str]) -> str | None:
    """Why a store must not be used, by its own account: it may drop keys by itself, or is not the one to write to."""
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction" or info.get("cache_mode", "store") == "cache":
        return (
            f"The store may evict keys (maxmemory-policy {policy}). Boards would lose players silently. "
            "Set maxmemory-policy to noeviction (Dragonfly: start without --cache_mode)."
        )
    if info.get("role", "master") not in ("master", "active-replica"):
        return "The store is a read-only replica. Point DRAGONFLY_URL at its primary."
    return None


def check_fitness(info: Mapping[str, str]) -> None:
    """Raises StartupError where the store must not be used."""
    if problem := unfitness(info):
        raise StartupError(problem)


class _Refused(failures.ConnectionError):
    """No connection is given out."""


class _Gate(aioredis.BlockingConnectionPool):
    """A pool that gives out no connection while there is a `refusal`."""

    refusal: str | None = None

    async def get_connection(self, *args: Any, **options: Any) -> Any:
        """As the pool's own. Raises ConnectionError at once where there is a refusal."""
        if self.refusal is not None:
            raise _Refused(self.refusal)
        return await super().get_connection(*args, **options)  # type: ignore[no-untyped-call]


class Store:
    """One process's way to the store. `run` and `epoch` name the content that was adopted last."""

    def __init__(self, url: str, *, timeout: float = 2.0, connections: int = 8) -> None:
        self.run: str | None = None
        self.epoch: str | None = None
        self.distrusted: str | None = None
        """The epoch whose content cannot be ours, though it says so; None while there is none such."""
        self._timeout = timeout
        options: dict[str, Any] = {
            "protocol": 2,
            "retry": Retry(NoBackoff(), 0),
            "socket_timeout": timeout,
            "socket_connect_timeout": timeout,
            "socket_keepalive": True,
            "health_check_interval": 0,
            "driver_info": None,  # no CLIENT SETINFO: two commands a connection that nobody reads
        }
        self._gate: _Gate = _Gate.from_url(
            url, max_connections=connections, timeout=timeout, redis_connect_func=self._on_connect, **options
        )
        self._checked = aioredis.Redis.from_pool(self._gate)
        self._free = aioredis.Redis.from_pool(
            aioredis.BlockingConnectionPool.from_url(url, max_connections=2, timeout=timeout, **options)
        )
        self._apply = self._checked.register_script(resources.script("apply"))
        self._page = self._checked.register_script(resources.script("page"))
        self._around = self._checked.register_script(resources.script("around"))
        self._ranks = resources.script("ranks")
        self._cache = self._checked.register_script(resources.script("cache_week"))
        self._forget = self._checked.register_script(resources.script("forget"))
        self._begin = self._checked.register_script(resources.script("begin_filling"))
        self._clear = self._checked.register_script(resources.script("clear"))
        self._end = self._checked.register_script(resources.script("end_filling"))

    async def aclose(self) -> None:
        """Closes every connection."""
        await self._checked.aclose()
        await self._free.aclose()

    # Which store is this? ------------------------------------------------------------------------------------

    async def _on_connect(self, connection: Any) -> None:
        await connection.on_connect()
        await connection.send_command("INFO")
        run = run_of(_parse_info(await connection.read_response()))
        if run != self.run:
            raise _WrongRun(f"the store's run is {run[:8]}, its adopted content is of {(self.run or 'none')[:8]}")

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        """redis-py's errors as ours; foreign content is distrusted."""
        try:
            with _mapped():
                yield
        except ForeignContent:
            self.distrust()
            raise

    async def info(self) -> dict[str, str]:
        """The store's own account of itself (INFO), section headings left out."""
        with self._mapped():
            return _parse_info(await self._free.info())

    async def content(self) -> Content:
        """Which store answers now, and what it says it holds. Adopts nothing. Raises StoreUnfit.

        Whether it takes writes is tried with one that changes nothing: an empty text written into the epoch's.
        """
        info = await self.info()
        run = run_of(info)
        if problem := unfitness(info):
            raise StoreUnfit(problem)
        with self._mapped():
            async with self._free.pipeline(transaction=False) as pipe:
                pipe.mget(boards.RUN_KEY, boards.EPOCH_KEY)
                pipe.setrange(boards.EPOCH_KEY, 0, "")
                values, written = await pipe.execute(raise_on_error=False)
            if isinstance(values, Exception):
                raise values
        if isinstance(written, Exception) and "WRONGTYPE" not in str(written):
            raise StoreUnfit(f"The store takes no writes: {written}")
        return Content(run, _text(values[0]), _text(values[1]))

    async def adopt(self) -> Content:
        """Looks which content there is, and lets commands through where it was made for the run that holds it.

        Raises StoreUnavailable, StoreUnfit: until it succeeds again, every command is refused at once.
        """
        try:
            content = await self.content()
        except StoreUnavailable as error:
            self._refuse(str(error))
            raise
        if self.distrusted is None or content.epoch != self.distrusted:  # else it is the same as ever
            self._accept()
        if content.is_ours:
            await self._turn_to(content.run)
            self.epoch = content.epoch
        else:
            self.epoch = None
        return content

    def distrust(self) -> None:
        """What was adopted cannot be ours: commands are refused until it is made anew, for its boards may be wrong."""
        self.distrusted = self.epoch
        self._refuse("its content cannot be ours")

    def _refuse(self, why: str) -> None:
        if self._gate.refusal is None:
            log.error("the store cannot be used: %s", why, extra={"action": "store"})
        self._gate.refusal = why

    def _accept(self) -> None:
        if self._gate.refusal is not None:
            log.warning("the store can be used again", extra={"action": "store"})
        self._gate.refusal = self.distrusted = None

    async def _turn_to(self, run: str) -> None:
        """Lets connections to this run through, and no other any more: one in use may lead to a store that was left."""
        if run != self.run:
            self.run = run
            with self._mapped():
                await self._gate.disconnect()

    @property
    def is_complete(self) -> bool:
        """Whether the adopted content may be read."""
        return self._gate.refusal is None and self.epoch is not None and not self.epoch.startswith(boards.FILLING)

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
            applied += await self._apply_part(part, profiles[start:end], epoch or self.epoch)
        return applied

    async def _apply_part(
        self, rows: Mapping[Board, Sequence[Row]], profiles: Sequence[Profile], epoch: str | None
    ) -> int:
        keys: list[str] = [boards.EPOCH_KEY, boards.USERS_VERSION_KEY]
        args: list[Any] = [epoch or "", len(rows), len(profiles)]
        for board, of_board in rows.items():
            keys += (board.scores_key, board.version_key, board.versions_key)
            args += (board.id, board.expire_at, len(of_board))
            args += [row.user_id for row in of_board]
            args += [row.version for row in of_board]
            args += ["" if row.score is None else row.score for row in of_board]
        for profile in profiles:
            keys.append(boards.user_key(profile.user_id))
            args += profile
        with self._mapped():
            verdict, value = await self._apply(keys=keys, args=args)
        if verdict == b"epoch":
            raise EpochMoved(_text(value) or None)
        return int(value)

    async def count(self, amounts: Mapping[str, int], seconds: int) -> list[int]:
        """Adds to counters that expire `seconds` after the last addition; what each is then, in order.

        Raises ForeignContent where one of them is no counter: then they begin anew, and no board is doubted for it.
        """
        with _mapped():
            try:
                async with self._checked.pipeline(transaction=False) as pipe:
                    for key, amount in amounts.items():
                        pipe.incrby(key, amount)
                        pipe.expire(key, seconds)
                    return [int(total) for total in (await pipe.execute())[::2]]
            except failures.ResponseError:
                await self._checked.delete(*amounts)
                raise

    # Reading -------------------------------------------------------------------------------------------------

    async def read(self, wanted: Sequence[Board], names_of: Collection[int] = ()) -> Reading:
        """The tops of boards with versions, and the names of some users, all of the same moment (one MULTI)."""
        with self._mapped():
            async with self._checked.pipeline(transaction=True) as pipe:
                pipe.mget(boards.EPOCH_KEY, boards.USERS_VERSION_KEY, *(board.version_key for board in wanted))
                for board in wanted:
                    pipe.execute_command("ZREVRANGE", board.scores_key, 0, boards.TOP - 1, "WITHSCORES")
                for user_id in names_of:
                    pipe.hget(boards.user_key(user_id), "username")
                (epoch, users_version, *versions), *replies = await pipe.execute()
            tops = [
                Top(_count(version), _scores(reply)) for version, reply in zip(versions, replies, strict=False)
            ]
            names = {
                user_id: _name(name)
                for user_id, name in zip(names_of, replies[len(wanted) :], strict=True)
                if name is not None
            }
            return Reading(_text(epoch), _count(users_version), tops, names)

    async def page(self, board: Board, offset: int, limit: int) -> Page:
        """`limit` rows of a board from place `offset` on, in one call."""
        with self._mapped():
            epoch, version, players, above, reply = await self._page(
                keys=[boards.EPOCH_KEY, board.version_key, board.scores_key], args=[offset, offset + limit - 1]
            )
            return Page(_text(epoch) or None, _count(version), int(players), int(above) + 1, _scores(reply))

    async def around(self, board: Board, user_id: int, neighbours: int) -> Around:
        """A user's row with `neighbours` on each side, in one call."""
        with self._mapped():
            epoch, users, version, players, place, above, next_score, reply = await self._around(
                keys=[boards.EPOCH_KEY, boards.USERS_VERSION_KEY, board.version_key, board.scores_key],
                args=[user_id, neighbours],
            )
            scores = _scores(reply)
            counters = _count(users), _count(version)
            return Around(_text(epoch) or None, *counters, players, place, above + 1, next_score, scores)

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
        with self._mapped():
            async with self._checked.pipeline(transaction=False) as pipe:
                pipe.get(boards.EPOCH_KEY)
                for board, user_ids in calls:
                    pipe.eval(self._ranks, 1, board.scores_key, " ".join(map(str, user_ids)))
                pipe.get(boards.EPOCH_KEY)
                before, *replies, after = await pipe.execute()
        if before != after:
            raise StoreChanged("the store's content changed during a reading")
        found: dict[Board, list[Standing]] = {board: [] for board in wanted}
        for (board, _), (players, *values) in zip(calls, replies, strict=True):
            rows = zip(values[::3], values[1::3], values[2::3], strict=True)
            found[board] += [standing(score, above, following, players) for score, above, following in rows]
        return _text(before), found

    async def names(self, user_ids: Collection[int]) -> dict[int, str]:
        """The names of users, where the store has them."""
        if not user_ids:
            return {}
        with self._mapped():
            async with self._checked.pipeline(transaction=False) as pipe:
                for user_id in user_ids:
                    pipe.hget(boards.user_key(user_id), "username")
                replies = await pipe.execute()
            return {i: _name(name) for i, name in zip(user_ids, replies, strict=True) if name is not None}

    async def versions(self, of: Sequence[Board]) -> Versions:
        """Epoch and change counters in one MGET: what the poll compares with what was last shown."""
        with self._mapped():
            epoch, users, *versions = await self._checked.mget(
                boards.EPOCH_KEY, boards.USERS_VERSION_KEY, *(board.version_key for board in of)
            )
            counters = [_count(version) for version in versions]
            return Versions(_text(epoch), _count(users), dict(zip(of, counters, strict=True)))

    # Looking for drift ---------------------------------------------------------------------------------------

    async def held(self, board: Board, members: Sequence[int | bytes]) -> list[Held]:
        """What is held of members of a live board, all of one moment. Raises EpochMoved."""
        with self._mapped():
            async with self._checked.pipeline(transaction=True) as pipe:
                pipe.get(boards.EPOCH_KEY)
                pipe.hmget(board.versions_key, members)
                pipe.execute_command("ZMSCORE", board.scores_key, *members)
                epoch, versions, scores = await pipe.execute()
        self._check_epoch(epoch)
        return [Held(version, score) for version, score in zip(versions, scores, strict=True)]

    async def held_profiles(self, user_ids: Sequence[int]) -> list[Held]:
        """What is held of users besides scores; where that is no hash, its version is empty. Raises EpochMoved."""
        with self._mapped():
            async with self._checked.pipeline(transaction=True) as pipe:
                pipe.get(boards.EPOCH_KEY)
                for user_id in user_ids:
                    pipe.hmget(boards.user_key(user_id), "version", "username")
                epoch, *replies = await pipe.execute(raise_on_error=False)
        self._check_epoch(epoch)
        return [Held(*reply) if isinstance(reply, list) else Held(b"", None) for reply in replies]

    def _check_epoch(self, epoch: bytes | None) -> None:
        if _text(epoch) != self.epoch or not self.is_complete:
            raise EpochMoved(_text(epoch))

    async def top_members(self, board: Board) -> list[bytes]:
        """Who is at the top of a live board, whatever they are called."""
        with self._mapped():
            found: Any = await self._checked.zrevrange(board.scores_key, 0, boards.TOP - 1)
            return list(found)

    async def scan(self, board: Board, cursor: int, count: int) -> tuple[int, set[bytes]]:
        """Who a live board has scores or versions of, some `count` at a time; begins and ends with cursor 0.

        Both keys are gone through in one: an even cursor goes on in the scores, an odd one in the versions.
        """
        position, of_versions = divmod(cursor, 2)
        found: set[Any]
        with self._mapped():
            if of_versions:
                position, fields = await self._checked.hscan(board.versions_key, position, count=count)
                found = set(fields)
            else:
                position, rows = await self._checked.zscan(board.scores_key, position, count=count)
                found = {row[0] for row in rows}
        return 2 * position + (of_versions if position else 1 - of_versions), found

    async def players(self, board: Board) -> int:
        """How many have a place on a live board."""
        with self._mapped():
            return int(await self._checked.zcard(board.scores_key))

    async def forget(self, board: Board, members: Mapping[bytes, bytes | None], user_ids: Sequence[int] = ()) -> None:
        """Drops members of a live board where the version last seen of each still stands, and the hashes of users.

        For what the ledger knows nothing of, and for what is no number. Raises EpochMoved.
        """
        keys = [boards.EPOCH_KEY, boards.USERS_VERSION_KEY, board.scores_key, board.version_key, board.versions_key]
        keys += map(boards.user_key, user_ids)
        seen = [version or b"" for version in members.values()]
        with self._mapped():
            verdict = await self._forget(keys=keys, args=[self.epoch or "", board.id, len(seen), *members, *seen])
        if verdict != b"ok":
            raise EpochMoved(None)

    # Closed weeks --------------------------------------------------------------------------------------------

    async def cached_week(self, board: Board) -> tuple[bytes | None, int]:
        """A closed week's cached JSON, and `version:users` of the same moment."""
        with self._mapped():
            value, users = await self._checked.mget(board.cache_key, boards.USERS_VERSION_KEY)
            return value if isinstance(value, bytes) else None, _count(users)

    async def cache_week(self, board: Board, version: int, users_version: int, value: bytes) -> None:
        """Keeps a closed week's JSON, unless a newer one is there or names have moved since `users_version`."""
        with self._mapped():
            keys = [board.cache_key, boards.USERS_VERSION_KEY]
            await self._cache(keys=keys, args=[version, users_version, value])

    async def announce(self, board: Board, version: int) -> None:
        """Says that a closed week shows something else."""
        with self._mapped():
            message = f'{{"epoch":"{boards.CLOSED_EPOCH}","version":{version}}}'
            await self._checked.publish(board.channel, message)

    # Hearing -------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def announcements(self) -> AsyncIterator[AsyncIterator[Announcement]]:
        """Listens to `leaderboard:changes:*`, subscribed before the block is entered.

        The iterator ends with StoreUnavailable when the connection breaks or stays silent against a ping for longer
        than the time-out: a half-open connection is found.
        """
        with self._mapped():
            async with self._checked.pubsub() as pubsub:
                await pubsub.psubscribe(boards.CHANNEL_PATTERN)
                confirmation = await pubsub.get_message(timeout=self._timeout)
                if confirmation is None:
                    raise StoreUnavailable("the store did not confirm the subscription")
                yield self._listen(pubsub)

    async def _listen(self, pubsub: Any) -> AsyncIterator[Announcement]:
        pinged = False
        with self._mapped():
            while True:
                message = await pubsub.get_message(timeout=self._timeout)
                if message is None:
                    if pinged:
                        raise StoreUnavailable("the subscription is silent")
                    await asyncio.wait_for(pubsub.ping(), self._timeout)
                    pinged = True
                    continue
                pinged = False
                if message["type"] == "pmessage":
                    name = message["channel"].decode(errors="replace").removeprefix(boards.CHANNEL_PREFIX)
                    yield Announcement(None if name == "users" else name)

    # Rebuilding ----------------------------------------------------------------------------------------------

    async def begin_filling(self, run: str, epoch: str) -> bool:
        """Marks the content as being filled for `epoch`; False where a later rebuild went ahead."""
        await self._turn_to(run)
        self._accept()  # whatever was there is about to go
        with self._mapped():
            return bool(await self._begin(keys=[boards.EPOCH_KEY], args=[epoch]) == b"ok")

    async def clear(self, epoch: str) -> None:
        """Drops all content but the epoch and the limits' counters, some thousand keys at a time.

        Raises StoreChanged where `epoch` is no longer what is filled: a rebuild that hung must not drop what the one
        after it has filled.
        """
        kept = (boards.EPOCH_KEY.encode(), b"leaderboard:limit:")
        cursor = 0
        with self._mapped():
            while True:
                cursor, keys = await self._checked.scan(cursor, match="leaderboard:*", count=1_000)
                doomed = [key for key in keys if isinstance(key, bytes) and not key.startswith(kept)]
                for start in range(0, len(doomed), KEYS_A_CALL):
                    part = doomed[start : start + KEYS_A_CALL]
                    if await self._clear(keys=[boards.EPOCH_KEY, *part], args=[epoch]) != b"ok":
                        raise StoreChanged("another rebuild went ahead")
                if cursor == 0:
                    return

    async def end_filling(self, run: str, epoch: str, announced: Sequence[str]) -> bool:
        """Makes `epoch` current and announces it; False where this rebuild is no longer the one that fills."""
        with self._mapped():
            keys = [boards.EPOCH_KEY, boards.RUN_KEY]
            return bool(await self._end(keys=keys, args=[epoch, run, *announced]) == b"ok")


def _text(value: Any) -> str | None:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _scores(reply: Sequence[Any]) -> dict[int, int]:
    """ZREVRANGE WITHSCORES under RESP2, in its order. Scores are doubles that hold whole numbers."""
    try:
        return {int(user_id): _whole(score) for user_id, score in zip(reply[::2], reply[1::2], strict=True)}
    except (ValueError, OverflowError) as error:
        raise ForeignContent(str(error)) from error


def _whole(score: bytes) -> int:
    number = float(score)
    whole = int(number)
    if whole != number:
        raise ValueError(f"no whole score: {number}")
    return whole


def _count(counter: Any) -> int:
    """A counter as it is kept; a missing one is 0."""
    try:
        return int(counter or 0)
    except ValueError as error:
        raise ForeignContent(str(error)) from error


def _name(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError as error:
        raise ForeignContent(str(error)) from error
