"""Readiness: whether this process should get traffic, and the reasons where it should not.

Owns the reasons and their sentences. Must never ask a store: a balancer asks all the time, and the answer is in memory.
Assumes that the health check, the rebuilder, the rollover and the backlog run.
"""

from __future__ import annotations

from collections.abc import Callable

from realtime.api.services import ReadinessReport
from realtime.broadcast.broadcaster import Broadcaster
from realtime.broadcast.rollover import Rollover
from realtime.repair.backlog import Backlog
from realtime.server.backends import Backends
from realtime.server.worker import Worker


class Readiness:
    """Says whether a process should get traffic. `is_leaving` says whether it is about to end; `worker` is the one in
    this process, if there is one."""

    def __init__(
        self,
        backends: Backends,
        broadcaster: Broadcaster,
        rollover: Rollover,
        backlog: Backlog,
        worker: Worker | None,
        is_leaving: Callable[[], bool],
    ) -> None:
        self._backends = backends
        self._broadcaster = broadcaster
        self._rollover = rollover
        self._backlog = backlog
        self._worker = worker
        self._is_leaving = is_leaving

    def _can_show_boards(self) -> bool:
        """Whether boards can be read. On a cluster those of any partition: where a node is lost every process lacks its
        partitions, and to take them all out of the traffic would lose the others too."""
        backends = self._backends
        if self._broadcaster.live and backends.store.is_complete:
            return True
        return backends.store.is_cluster and len(backends.partitions.incomplete) < len(backends.partitions.in_use)

    def check(self) -> ReadinessReport:
        """The reasons at this moment, and what is merely late or being repaired."""
        why: dict[str, str] = {}
        if self._is_leaving():
            why["leaving"] = "this process is about to end"
        if not self._can_show_boards():
            why["store"] = self._backends.trouble or "boards cannot be read, or are being rebuilt"
        ledger = self._backends.ledger
        if ledger.health.away is not None:
            why["database"] = f"PostgreSQL cannot be used: {ledger.health.away}"
        elif self._rollover.is_late(ledger.clock.instant()):
            why["rollover"] = "the week has changed, and this process has not"
        lags = self._backends.reads.lags()
        return ReadinessReport(why, self._backlog.age, lags, self._worker.differing if self._worker else None)
