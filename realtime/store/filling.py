"""Filling: marks the store's content as being made anew, drops what was there, and makes the new content current.

Owns the three steps around a rebuild's writes. Must never drop, or make current, what a later rebuild has filled.
Assumes that nobody reads content whose epoch begins with `filling:`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from realtime import resources
from realtime.errors import StoreChanged
from realtime.store.pool import Script

if TYPE_CHECKING:
    from realtime.store.link import Link

KEYS_A_CALL: Final = 5_000
"""Keys dropped in one script call: Lua's `unpack` ends at about 8,000 values."""


class Filling:
    """Begins, clears and ends a filling. Raises StoreUnavailable and its kin."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._keys = link.keys
        self._begin = Script(resources.script("begin_filling"))
        self._clear = Script(resources.script("clear"))
        self._define = Script(resources.script("define"))
        self._end = Script(resources.script("end_filling"))

    async def begin(self, run: str, epoch: str) -> bool:
        """Marks the content as being filled for `epoch`; False where a later rebuild went ahead."""
        await self._link.turn_to(run)
        self._link.accept()  # whatever content was there is about to go
        with self._link.mapped():
            return await self._link.checked.run(self._begin, [self._keys.epoch], [epoch]) == [b"ok"]

    async def clear(self, epoch: str) -> None:
        """Drops all content of the partition, some thousand keys at a time.

        The epoch, what the store remembers of the ledger, and the counters of limits stay. Raises StoreChanged where
        the store is no longer filled for `epoch`: a rebuild that hung must not drop what the next one has filled.
        """
        kept, pattern = self._keys.kept, self._keys.pattern
        cursor = 0
        with self._link.mapped():
            while True:
                follows, keys = await self._link.checked.ask("SCAN", cursor, "MATCH", pattern, "COUNT", 1_000)
                cursor, doomed = int(follows), [key for key in keys if not key.startswith(kept)]
                for start in range(0, len(doomed), KEYS_A_CALL):
                    part = doomed[start : start + KEYS_A_CALL]
                    if await self._link.checked.run(self._clear, [self._keys.epoch, *part], [epoch]) != [b"ok"]:
                        raise StoreChanged("another rebuild went ahead")
                if cursor == 0:
                    return

    async def define(self, epoch: str, rules: Mapping[str, int]) -> None:
        """Says by which rule the boards of each leaderboard (by slug) are made: whoever knows another tells nothing.

        Raises StoreChanged where the store is no longer filled for `epoch`.
        """
        if not rules:
            return
        keys = [self._keys.epoch, *map(self._keys.definition, rules)]
        with self._link.mapped():
            if await self._link.checked.run(self._define, keys, [epoch, *rules.values()]) != [b"ok"]:
                raise StoreChanged("another rebuild went ahead")

    async def end(self, run: str, epoch: str, announced: Sequence[str]) -> bool:
        """Makes `epoch` current and announces it; False where the store is no longer filled for it."""
        with self._link.mapped():
            keys, args = [self._keys.epoch, self._keys.run], [epoch, run, self._keys.announcing, *announced]
            return await self._link.checked.run(self._end, keys, args) == [b"ok"]
