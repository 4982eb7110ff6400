"""Reading: what the content of one partition holds, each time of one moment.

Owns the commands and scripts of readings and caches, and their arguments. Must never use a command that Dragonfly
lacks, or give out rows of a board that are made by another rule than its caller knows. Assumes that the link checks
which content it meets. Every method raises StoreUnavailable and its kin.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from realtime import resources
from realtime.boards.board import CLOSED_EPOCH, TOP, Board
from realtime.boards.standings import Position, Standing, standing
from realtime.errors import DefinitionMoved, StoreChanged
from realtime.store.keys import EXPIRY_GRACE, Keys
from realtime.store.places import Place, Places
from realtime.store.pool import Command, Script, checked, executed, transaction
from realtime.store.replies import (
    Around,
    Look,
    Page,
    Top,
    Versions,
    as_count,
    as_metadata,
    as_name,
    as_rows,
    as_scores,
    as_text,
)

if TYPE_CHECKING:
    from realtime.store.link import Link

RANKED_A_CALL: Final = 250
"""Users ranked in one script call: about two milliseconds of the store's time on a board of a million."""

_TOP: Final = resources.script("top")


class Reading:
    """Reads boards through one partition's `link`."""

    def __init__(self, link: Link, places: Places) -> None:
        self._link = link
        self._keys = link.keys
        self._places = places
        self._page = Script(resources.script("page"))
        self._around = Script(resources.script("around"))
        self._ranks = resources.script("ranks")
        self._cache = Script(resources.script("cache_week"))

    async def read(self, wanted: Sequence[Board], names_of: Collection[int] = ()) -> Look:
        """The tops and versions of boards and the names of some users, all of the same moment (one MULTI)."""
        places = [self._places.of(board) for board in wanted]
        with self._link.mapped():
            commands = transaction(look_commands(self._keys, places, names_of))
            return look_of(places, names_of, executed(await self._link.checked.exchange(*commands)))

    async def page(self, board: Board, offset: int, limit: int) -> Page:
        """`limit` rows of a board from place `offset` (from 0) on, in one script call."""
        place = self._places.of(board)
        with self._link.mapped():
            args = [offset, offset + limit - 1, place.reading]
            (found,) = await self._link.checked.run(self._page, self._keys_of(place), args)
            epoch, users, version, players, better, reply, rule, dense, metadata = found
            _check_rule(place, rule, epoch)
            counters = as_count(users), as_count(version)
            scores, at = as_rows(reply, place.order)
            described = as_metadata(scores, metadata) if place.shows_metadata else None
            found = as_text(epoch) or None, *counters, int(players), int(better) + 1, scores, at, described
            return Page(*found, int(dense) or None)

    async def around(self, board: Board, user_id: int, neighbours: int) -> Around:
        """A user's row with `neighbours` rows on each side, in one script call."""
        place = self._places.of(board)
        with self._link.mapped():
            keys = self._keys_of(place) + ([] if place.is_published else [place.versions])
            (found,) = await self._link.checked.run(self._around, keys, [user_id, neighbours, place.reading])
            epoch, users, version, players, first, better, next_score, reply, rule, dense, metadata = found
            _check_rule(place, rule, epoch)
            counters = as_count(users), as_count(version), players, first, better + 1
            scores, at = as_rows(reply, place.order)
            described = as_metadata(scores, metadata) if place.shows_metadata else None
            return Around(as_text(epoch) or None, *counters, next_score, scores, at, described, dense or None)

    def _keys_of(self, place: Place) -> list[str]:
        keys = [self._keys.epoch, self._keys.users_version, place.version, place.scores]
        return keys if place.definition is None else [*keys, place.definition, place.metadata]

    async def standings(self, wanted: Mapping[Board, Sequence[int]]) -> tuple[str | None, dict[Board, list[Standing]]]:
        """Where users stand, board by board, and the epoch that held all the while; in one round trip.

        Each script call is of one moment and names as few keys as it can, so that Dragonfly runs it where the key is.
        The epoch, and by which rules boards are made, is therefore read before and after all of them. Raises
        StoreChanged where that moved.
        """
        places = {board: self._places.of(board) for board in wanted}
        calls = [
            (board, user_ids[start : start + RANKED_A_CALL])
            for board, user_ids in wanted.items()
            for start in range(0, len(user_ids), RANKED_A_CALL)
        ]
        of_rules = [place for place in places.values() if place.definition is not None]
        look = ("MGET", self._keys.epoch, *(place.definition for place in of_rules))
        with self._link.mapped():
            exchange = self._link.checked.exchange
            commands = [self._ranking(places[board], user_ids) for board, user_ids in calls]
            before, *replies, after = checked(await exchange(look, *commands, look))
        if before != after:
            raise StoreChanged("the store's content changed during a reading")
        for place, rule in zip(of_rules, before[1:], strict=True):
            _check_rule(place, rule, before[0])
        found: dict[Board, list[Standing]] = {board: [] for board in wanted}
        for (board, _), (players, *values) in zip(calls, replies, strict=True):
            rows = zip(values[::3], values[1::3], values[2::3], strict=True)
            found[board] += [standing(score, above, following, players) for score, above, following in rows]
        return as_text(before[0]), found

    def _ranking(self, place: Place, user_ids: Sequence[int]) -> Command:
        keys = (2, place.scores, place.versions) if place.order.by_time else (1, place.scores)
        return ("EVAL", self._ranks, *keys, " ".join(map(str, user_ids)), place.reading)

    async def versions(self, of: Sequence[Board]) -> Versions:
        """The epoch and change counters, in one MGET: the poll compares them with what was last shown."""
        with self._link.mapped():
            epoch, users, *versions = await self._link.checked.ask(
                "MGET", self._keys.epoch, self._keys.users_version, *(self._places.of(board).version for board in of)
            )
            counters = [as_count(version) for version in versions]
            return Versions(as_text(epoch), as_count(users), dict(zip(of, counters, strict=True)))

    async def rules(self, slugs: Sequence[str]) -> dict[str, str | None]:
        """By which rule the boards of each leaderboard are made; None where the content has none."""
        with self._link.mapped():
            found = await self._link.checked.ask("MGET", *map(self._keys.definition, slugs)) if slugs else []
            return dict(zip(slugs, map(as_text, found), strict=True))

    # Closed boards -------------------------------------------------------------------------------------------

    async def cached(self, board: Board) -> tuple[bytes | None, Position]:
        """A closed board's cached JSON, None where there is none, and the position of names at the same moment."""
        with self._link.mapped():
            value, users, epoch = await self._link.checked.ask(
                "MGET", self._keys.cache(board), self._keys.users_version, self._keys.epoch
            )
            return value if isinstance(value, bytes) else None, Position(as_text(epoch), as_count(users))

    async def cache(self, board: Board, version: int, names_at: Position, value: bytes) -> None:
        """Caches a closed board's JSON, unless a newer one is there or names have moved since `names_at`.

        Of published weeks it stays; of all others as long as the board's other keys would, for nobody counts them.
        """
        seconds = 0 if board.is_published else int(EXPIRY_GRACE.total_seconds())
        with self._link.mapped():
            keys = [self._keys.cache(board), self._keys.users_version, self._keys.epoch]
            args = [version, names_at.version, names_at.epoch or "", value, seconds]
            await self._link.checked.run(self._cache, keys, args)

    async def announce(self, board: Board, version: int) -> None:
        """Says that a closed board's top has a new version."""
        with self._link.mapped():
            named = f'"board":"{board.id}",' if self._keys.tag else ""
            message = f'{{{named}"epoch":"{CLOSED_EPOCH}","version":{version}}}'
            command = "SPUBLISH" if self._keys.clustered else "PUBLISH"
            await self._link.checked.ask(command, self._keys.channel_of(board), message)


def look_commands(keys: Keys, wanted: Sequence[Place], names_of: Collection[int]) -> list[Command]:
    """The commands of a look: a transaction runs them as one."""
    of_rules = [place.definition for place in wanted if place.definition is not None]
    counters = [place.version for place in wanted]
    return [
        ("MGET", keys.epoch, keys.users_version, *counters, *of_rules),
        *map(_top_of, wanted),
        *(("HGET", keys.user(user_id), "username") for user_id in names_of),
    ]


def _top_of(place: Place) -> Command:
    if place.shows_metadata:
        return ("EVAL", _TOP, 2, place.scores, place.metadata, place.reading)
    return (place.range, place.scores, 0, TOP - 1, "WITHSCORES")


def look_of(wanted: Sequence[Place], names_of: Collection[int], replies: list[Any]) -> Look:
    """The look that the replies to these commands give. Raises DefinitionMoved."""
    (epoch, users_version, *counters), *found = checked(replies)
    if rules := counters[len(wanted) :]:
        _check_rules(wanted, rules, epoch)
    tops = [_top(*one) for one in zip(wanted, counters, found, strict=False)]
    of_users = zip(names_of, found[len(wanted) :], strict=True)
    names = {user_id: as_name(name) for user_id, name in of_users if name is not None}
    return Look(as_text(epoch), as_count(users_version), tops, names)


def _top(place: Place, version: Any, reply: Any) -> Top:
    if place.definition is None:
        return Top(as_count(version), as_scores(reply))
    metadata: Sequence[Any] | None = None
    if place.shows_metadata:
        reply, metadata = reply
    scores, at = as_rows(reply, place.order)
    return Top(as_count(version), scores, at, None if metadata is None else as_metadata(scores, metadata))


def _check_rules(wanted: Iterable[Place], rules: Sequence[Any], epoch: Any) -> None:
    of_rules = [place for place in wanted if place.definition is not None]
    for place, rule in zip(of_rules, rules, strict=True):
        _check_rule(place, rule, epoch)


def _check_rule(place: Place, rule: Any, epoch: Any) -> None:
    """Raises DefinitionMoved where the store has the board by another rule than the caller knows."""
    if place.definition is not None and (as_text(rule) or "") != place.rule:
        raise DefinitionMoved(place.definition.rpartition(":")[2], as_text(rule) or None, as_text(epoch) or None)
