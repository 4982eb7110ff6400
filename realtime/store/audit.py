"""Audit: reads what the store holds of live boards row by row, whether it can be ours or not, and drops strays.

Owns the commands that compare the store with the ledger. Must never raise because of foreign content in a row (finding
it is the purpose), or drop a member whose version moved since it was read. Assumes that somebody else decides which
members are strays.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from realtime import resources
from realtime.boards.board import TOP, Board
from realtime.errors import EpochMoved
from realtime.store.members import DIGITS
from realtime.store.places import Place, Places
from realtime.store.pool import Command, Script, checked, executed, transaction
from realtime.store.replies import Held, as_text

if TYPE_CHECKING:
    from realtime.store.link import Link


class Links(Protocol):
    """What an audit needs of the store."""

    def link_of(self, name: str) -> Link: ...


class Audit:
    """Reads single rows of the store, and drops them. Raises StoreUnavailable and its kin."""

    def __init__(self, store: Links) -> None:
        self._store = store
        self._places: dict[str, Places] = {}
        self._forget = Script(resources.script("forget"))
        self._held = Script(resources.script("held"))

    def _of(self, board: Board) -> tuple[Link, Place]:
        name = board.leaderboard.partition
        link = self._store.link_of(name)
        places = self._places.get(name)
        if places is None:
            places = self._places[name] = Places(link.keys)
        return link, places.of(board)

    async def held(self, board: Board, user_ids: Sequence[int | bytes]) -> list[Held]:
        """What the store holds of users on a live board, all of one moment. Raises EpochMoved."""
        return await self._what_is_held(board, "users", user_ids)

    async def held_members(self, board: Board, members: Sequence[bytes]) -> list[Held]:
        """What the store holds under members of a live board, whatever they are called, and in the records of the users
        that they stand for, all of one moment. Raises EpochMoved."""
        return await self._what_is_held(board, "members", members)

    async def _what_is_held(self, board: Board, what: str, members: Sequence[int | bytes]) -> list[Held]:
        link, place = self._of(board)
        with link.mapped():
            if place.order.by_time:
                keys = [link.keys.epoch, place.versions, place.scores, place.metadata]
                (found,) = await link.checked.run(self._held, keys, [what, *members])
                epoch, records, scores, metadata = found
            else:
                commands: list[Command] = [
                    ("GET", link.keys.epoch),
                    ("HMGET", place.versions, *members),
                    ("ZMSCORE", place.scores, *members),
                ]
                if place.shows_metadata:
                    commands.append(("HMGET", place.metadata, *members))
                replies = checked(executed(await link.checked.exchange(*transaction(commands))))
                epoch, records, scores = replies[:3]
                metadata = replies[3] if place.shows_metadata else [None] * len(scores)
        _check_epoch(link, epoch)
        numbers = [None if score is None else float(score) for score in scores]
        rows = zip(records, numbers, metadata, strict=True)
        if not place.order.by_time:
            return [Held(record, score, b"", described) for record, score, described in rows]
        return [Held(*_split(record, score), described) for record, score, described in rows]

    async def held_profiles(self, user_ids: Sequence[int], partition: str = "") -> list[Held]:
        """What a partition holds of users' profiles. A key that is no hash has an empty version. Raises EpochMoved."""
        link = self._store.link_of(partition)
        with link.mapped():
            commands: list[Command] = [("GET", link.keys.epoch)]
            commands += [("HMGET", link.keys.user(user_id), "version", "username") for user_id in user_ids]
            epoch, *replies = executed(await link.checked.exchange(*transaction(commands)))
        _check_epoch(link, epoch)
        return [Held(*reply) if isinstance(reply, list) else Held(b"", None) for reply in replies]

    async def top_members(self, board: Board) -> list[bytes]:
        """The members at the top of a live board, whatever they are called."""
        link, place = self._of(board)
        with link.mapped():
            return list(await link.checked.ask(place.range, place.scores, 0, TOP - 1))

    async def scan(self, board: Board, cursor: int, count: int) -> tuple[int, set[bytes]]:
        """The next members of a live board's scores and fields of its versions, about `count`; begins and ends with
        cursor 0.

        One cursor goes through both keys: an even one goes on in the scores, an odd one in the versions.
        """
        link, place = self._of(board)
        position, of_versions = divmod(cursor, 2)
        scan = ("HSCAN", place.versions) if of_versions else ("ZSCAN", place.scores)
        with link.mapped():
            follows, pairs = await link.checked.ask(*scan, position, "COUNT", count)
            position = int(follows)
        return 2 * position + (of_versions if position else 1 - of_versions), set(pairs[::2])

    async def players(self, board: Board) -> int:
        """How many members have a place on a live board."""
        link, place = self._of(board)
        with link.mapped():
            return int(await link.checked.ask("ZCARD", place.scores))

    async def forget(
        self,
        board: Board,
        members: Mapping[bytes, bytes | None],
        user_ids: Sequence[int] = (),
        *,
        kept: Collection[bytes] = (),
    ) -> None:
        """Drops members of a live board whose record is still the one last seen, and the profiles of users.

        For members whom the ledger does not know, or that are no user ids. Where the moment decides between equal
        scores, a member may be a user's who has another one by the record: of those `kept` the record stays. Raises
        EpochMoved.
        """
        link, place = self._of(board)
        keys = [link.keys.epoch, link.keys.users_version, place.scores, place.version, place.versions, place.metadata]
        keys += map(link.keys.user, user_ids)
        by_time = place.order.by_time
        doomed = [_doomed(member, seen or b"", by_time, member in kept) for member, seen in members.items()]
        with link.mapped():
            args = [link.epoch or "", board.id, len(doomed), link.keys.announcing, place.reading]
            for column in zip(*doomed, strict=True):
                args += column
            (verdict,) = await link.checked.run(self._forget, keys, args)
        if verdict != b"ok":
            raise EpochMoved(None)


def _check_epoch(link: Link, epoch: bytes | None) -> None:
    if (as_text(epoch) or None) != link.epoch or not link.is_complete:
        raise EpochMoved(as_text(epoch) or None)


def _split(record: bytes | None, score: float | None) -> tuple[bytes | None, float | None, bytes]:
    """A record's version and digits with the score; a record of another form is all version."""
    version, _, digits = (record or b"").partition(b":")
    if record is None or not (digits == b"" or (digits.isdigit() and len(digits) == DIGITS)):
        return record, score, b""
    return version, score, digits


def _doomed(member: bytes, seen: bytes, by_time: bool, kept: bool) -> tuple[bytes, bytes, bytes, int]:
    """A member to be dropped, the field of `versions` that belongs to it, what stood there, and 1 if that goes too."""
    if not by_time:
        return member, member, seen, 1
    if len(member) > DIGITS:
        return member, member[DIGITS:], seen, int(not kept)
    # Found among the records, unless the record is another's: then it is a member without a moment.
    digits = b"" if kept else seen.partition(b":")[2]
    return digits + member, member, seen, int(not kept)
