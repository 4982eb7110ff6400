"""Primary: the way to a store of which one node takes the writes and the others are its replicas.

Owns which node that was last. Must never send anybody to a node on the word of a moment ago where a connection failed
meanwhile. Assumes that `find` (`nodes` and `sentinels` have one each) asks the nodes themselves.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final

import redis.exceptions as failures

from realtime.store.endpoints import Connection, Connector, Endpoint
from realtime.store.inquiry import NODES_TOLD
from realtime.store.way import ELSEWHERE, Elsewhere, Known

log = logging.getLogger(__name__)

OTHER_NODE: Final = "the node is not the primary, or not yet: a failover may be under way"


class PrimaryWay:
    """Every partition's: all of them are on the primary."""

    has_choice = True
    is_cluster = False

    def __init__(
        self,
        connector: Connector,
        find: Callable[[], Awaitable[Endpoint]],
        judge: Callable[[str, bool], None] = lambda run, is_superseded: None,
    ) -> None:
        self._connector = connector
        self._find = find
        self._judge = judge
        self._primaries: dict[str, float] = {}
        self.known = Known(self._found)

    async def _found(self) -> Endpoint:
        before, primary = self.known.last, await self._find()
        if primary != before:
            log.info("the store's primary is %s", primary, extra={"action": "store"})
            self._primaries = dict.fromkeys(list(self._primaries)[1 - NODES_TOLD :], 0.0) | {str(primary): 1.0}
        return primary

    def primaries(self) -> dict[str, float]:
        """1 for the address of the primary, 0 for those that were it before."""
        return dict(self._primaries)

    async def connection(self, *, fresh: bool = False) -> Connection:
        """See `Way.connection`."""
        return self._connector.connection(await self.known.get(fresh=fresh))

    def doubt(self) -> None:
        """See `Way.doubt`."""
        self.known.doubt()

    def take(self, error: failures.ResponseError) -> failures.ResponseError:
        """See `Way.take`."""
        if not isinstance(error, ELSEWHERE):
            return error
        self.known.doubt()
        return Elsewhere(OTHER_NODE) if isinstance(error, failures.ReadOnlyError) else error

    def judge(self, run: str, *, is_superseded: bool) -> None:
        """See `Way.judge`."""
        self._judge(run, is_superseded)
