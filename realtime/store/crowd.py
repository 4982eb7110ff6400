"""Crowd: how many clients each process of the deployment has, as they tell each other through the store.

Owns the key of that, and when what a process said no longer counts. Must never be waited for: a process that cannot
tell or hear serves on. Assumes that a process tells more often than WORD_S.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from realtime.store.link import Link

WORD_S: Final = 25.0
"""Seconds for which the word of a process counts."""

FORGOTTEN_S: Final = 60
"""Seconds after which it is dropped; the whole key where nobody tells any more."""


class Crowd:
    """The counts of all processes. `process` is this one's name; `timestamp` tells the ledger's time in seconds. Raises
    StoreUnavailable and its kin, LedgerUnavailable before the clock was read."""

    def __init__(self, link: Link, process: str, timestamp: Callable[[], float]) -> None:
        self._link = link
        self._process = process
        self._timestamp = timestamp

    async def tell(self, clients: int) -> dict[str, int]:
        """Says how many this process has; returns how many each of the others has, by its name. One exchange."""
        now, key = self._timestamp(), self._link.keys.crowd
        with self._link.mapped():
            *_, told = await self._link.checked.exchange(
                ("HSET", key, self._process, f"{clients} {now:.0f}"),
                ("EXPIRE", key, FORGOTTEN_S),
                ("HGETALL", key),
            )
            if isinstance(told, Exception):
                raise told
            pairs = zip(told[::2], told[1::2], strict=True)
            words = {name.decode(errors="replace"): _word(value) for name, value in pairs}
            doomed = [name for name, (_, at) in words.items() if at < now - FORGOTTEN_S]
            if doomed:
                await self._link.checked.ask("HDEL", key, *doomed)
        return {name: count for name, (count, at) in words.items() if name != self._process and at > now - WORD_S}

    async def leave(self) -> None:
        """This process takes no more part."""
        with self._link.mapped():
            await self._link.checked.ask("HDEL", self._link.keys.crowd, self._process)


def _word(value: bytes) -> tuple[int, float]:
    """Count and moment; long ago where it is no word of ours."""
    count, _, at = value.partition(b" ")
    try:
        return int(count), float(at)
    except ValueError:
        return 0, 0.0
