"""Closed weeks: what reads them and what keeps them right, over one ledger and one store, as a process has them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from realtime.ledger.archive import Archive
from realtime.ledger.closing import Closing
from realtime.ledger.ledger import Ledger
from realtime.ledger.views import Views
from realtime.store.store import Store


def views_of(ledger: Ledger, store: Store) -> Views:
    """What makes the views of closed weeks; they are read through its `archive`."""
    closing = Closing(ledger)
    return Views(Archive(ledger, store, closing), closing)


class Behind:
    """Reads from a standby that stands still: to each query it says for good what it said first, and where that does
    not fit, the primary is asked."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._said: dict[tuple[Any, ...], Sequence[Any]] = {}

    async def read(self, query: str, *args: Any, fits: Callable[[Sequence[Any]], bool] = bool) -> Sequence[Any]:
        said = self._said.setdefault((query, *map(str, args)), await self._primary(query, *args))
        return said if fits(said) else await self._primary(query, *args)

    async def _primary(self, query: str, *args: Any) -> Sequence[Any]:
        async with self._ledger.connection() as connection:
            rows: Sequence[Any] = await connection.fetch(query, *args)
            return rows
