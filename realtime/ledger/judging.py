"""Judging: what a server is, asked of every new connection before anything else is.

Owns the one question. Must never be passed by: whoever opens a connection opens it through `hosts`. Assumes nothing of
the server but its version (see `versions`): it may be a standby, a primary that was replaced, or behind a pooler.
"""

from __future__ import annotations

from contextlib import nullcontext
from datetime import datetime
from time import monotonic
from typing import Any, Final, NamedTuple

import asyncpg

from realtime import resources
from realtime.ledger import bounds
from realtime.ledger.standing import Standing

_JUDGED: Final = resources.queries()["judged"]


class Judged(NamedTuple):
    """What a server says of itself, in the order of the query."""

    moment: datetime
    is_standby: bool
    cluster: int
    timeline: int | None
    """None on a standby."""
    is_read_only: bool
    log_position: int
    """Bytes of the log that are written; of a standby, that are replayed."""
    is_replicated: bool
    """Whether a commit waits for a standby."""
    pid: int
    """The process that answers: behind a pooler not the one that was connected to."""
    started: datetime
    """When the server was: two servers never were at the same microsecond."""
    asked: float
    answered: float
    """Monotonic seconds between which it said so."""

    @property
    def standing(self) -> Standing | None:
        """None for a standby."""
        return None if self.timeline is None else Standing(self.cluster, self.timeline)


async def judge(connection: asyncpg.Connection[Any], *, pooled: bool = True) -> Judged:
    """Asks the server what it is; `pooled` where a pooler stands in between, or may: then two trips may go two ways.

    Raises what asyncpg raises.
    """
    async with connection.transaction(isolation=bounds.ISOLATION) if pooled else nullcontext():
        asked = monotonic()
        row = await connection.fetchrow(_JUDGED, timeout=bounds.CONNECT)
        assert row is not None
        return Judged._make([*row, asked, monotonic()])
