"""Audit: reads what the store holds of live boards row by row, whether it can be ours or not, and drops strays.

Owns the commands that compare the store with the ledger. Must never raise because of foreign content in a row (finding
it is the purpose), or drop a member whose version moved since it was read. Assumes that somebody else decides which
members are strays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from realtime import resources
from realtime.boards.board import TOP, Board
from realtime.errors import EpochMoved
from realtime.store.keys import EPOCH_KEY, USERS_VERSION_KEY, scores_key, user_key, version_key, versions_key
from realtime.store.pool import Command, Script, checked, executed, transaction
from realtime.store.replies import Held, as_text

if TYPE_CHECKING:
    from realtime.store.link import Link


class Audit:
    """Reads single rows of the store, and drops them. Raises StoreUnavailable and its kin."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._forget = Script(resources.script("forget"))

    async def held(self, board: Board, members: Sequence[int | bytes]) -> list[Held]:
        """What the store holds of members of a live board, all of one moment. Raises EpochMoved."""
        with self._link.mapped():
            commands = (
                ("GET", EPOCH_KEY),
                ("HMGET", versions_key(board), *members),
                ("ZMSCORE", scores_key(board), *members),
            )
            epoch, versions, scores = checked(executed(await self._link.checked.exchange(*transaction(commands))))
        self._check_epoch(epoch)
        numbers = (None if score is None else float(score) for score in scores)
        return [Held(version, score) for version, score in zip(versions, numbers, strict=True)]

    async def held_profiles(self, user_ids: Sequence[int]) -> list[Held]:
        """What the store holds of users' profiles. A key that is no hash has an empty version. Raises EpochMoved."""
        with self._link.mapped():
            commands: list[Command] = [("GET", EPOCH_KEY)]
            commands += [("HMGET", user_key(user_id), "version", "username") for user_id in user_ids]
            epoch, *replies = executed(await self._link.checked.exchange(*transaction(commands)))
        self._check_epoch(epoch)
        return [Held(*reply) if isinstance(reply, list) else Held(b"", None) for reply in replies]

    def _check_epoch(self, epoch: bytes | None) -> None:
        if as_text(epoch) != self._link.epoch or not self._link.is_complete:
            raise EpochMoved(as_text(epoch))

    async def top_members(self, board: Board) -> list[bytes]:
        """The members at the top of a live board, whatever they are called."""
        with self._link.mapped():
            return list(await self._link.checked.ask("ZREVRANGE", scores_key(board), 0, TOP - 1))

    async def scan(self, board: Board, cursor: int, count: int) -> tuple[int, set[bytes]]:
        """The next members of a live board's scores and versions, about `count`; begins and ends with cursor 0.

        One cursor goes through both keys: an even one goes on in the scores, an odd one in the versions.
        """
        position, of_versions = divmod(cursor, 2)
        scan = ("HSCAN", versions_key(board)) if of_versions else ("ZSCAN", scores_key(board))
        with self._link.mapped():
            follows, pairs = await self._link.checked.ask(*scan, position, "COUNT", count)
            position = int(follows)
        return 2 * position + (of_versions if position else 1 - of_versions), set(pairs[::2])

    async def players(self, board: Board) -> int:
        """How many members have a place on a live board."""
        with self._link.mapped():
            return int(await self._link.checked.ask("ZCARD", scores_key(board)))

    async def forget(self, board: Board, members: Mapping[bytes, bytes | None], user_ids: Sequence[int] = ()) -> None:
        """Drops members of a live board whose version is still the one last seen, and the profiles of users.

        For members whom the ledger does not know, or that are no user ids. Raises EpochMoved.
        """
        keys = [EPOCH_KEY, USERS_VERSION_KEY, scores_key(board), version_key(board), versions_key(board)]
        keys += map(user_key, user_ids)
        seen = [version or b"" for version in members.values()]
        with self._link.mapped():
            args = [self._link.epoch or "", board.id, len(seen), *members, *seen]
            (verdict,) = await self._link.checked.run(self._forget, keys, args)
        if verdict != b"ok":
            raise EpochMoved(None)
