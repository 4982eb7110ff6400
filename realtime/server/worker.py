"""Worker: sweeps the outbox, makes views of closed weeks and standings, looks for drift; alone, or within a server.

Owns which tasks these are, and how a process without a server keeps them running. Must never decide anything: what to
do is the services'. Assumes open backends; several workers may run at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from realtime.boards.catalogue import Catalogue
from realtime.errors import TaskFailed
from realtime.ledger.builds import Builds
from realtime.ledger.ranked import RankedRows
from realtime.metrics import Figure, Metrics
from realtime.repair.backlog import Backlog
from realtime.repair.building import Building
from realtime.repair.comparison import Comparison
from realtime.repair.drift import Drift
from realtime.repair.keeping import Keeping
from realtime.repair.resync import Resync
from realtime.repair.showing import Showing
from realtime.repair.sweeper import Sweeper
from realtime.server.backends import Backends, Task, common_tasks, open_backends
from realtime.server.supervisor import Supervisor
from realtime.settings import Settings
from realtime.store.audit import Audit


class Worker:
    """Repairs what servers left undone, on open backends."""

    def __init__(self, backends: Backends, resync: Resync) -> None:
        self._backends = backends
        self._now = backends.ledger.clock.now
        audit = Audit(backends.store)
        comparison = Comparison(backends.ledger, audit, self._now)
        self._sweeper = Sweeper(backends.ledger, resync, backends.partitions.partitions_of)
        self._keeping = Keeping(backends.views)
        self._drift = Drift(
            comparison,
            backends.store,
            audit,
            resync,
            self._now,
            boards=lambda now: backends.leaderboards.current.live_boards(now),
        )
        builds = Builds(backends.ledger)
        rows = RankedRows(backends.ledger)
        showing = Showing(builds, backends.leaderboards, backends.store, rows, self._now)
        self._building = Building(backends.ledger, builds, showing)
        backends.leaderboards.on_change.append(self._look_for_builds)

    @property
    def differing(self) -> int:
        """Rows that differed between the stores at the last look."""
        return self._drift.differing

    def tasks(self) -> list[Task]:
        """The tasks to be kept running."""
        return [
            ("sweeper", self._sweeper.run),
            ("weeks", self._keeping.run),
            ("drift", self._drift.run),
            ("builds", self._building.run),
        ]

    def _look_for_builds(self, catalogue: Catalogue) -> None:
        if catalogue.making:
            self._building.hurry()

    def _waiting(self) -> float:
        return float(len(self._backends.leaderboards.current.making))

    def figures(self) -> list[Figure]:
        """What the metrics show of it."""
        sweeper, drift, views, building = self._sweeper, self._drift, self._backends.views, self._building
        return [
            ("counter", "outbox_replayed", "Changes brought to the store again", lambda: sweeper.resynced),
            ("gauge", "drift", "Rows that differed between the stores at the last look", lambda: drift.differing),
            ("counter", "drift_found", "Rows that differed, ever", lambda: drift.found),
            ("counter", "weeks_wrong", "Users whom closed weeks were wrong about, ever", lambda: views.wrong),
            ("counter", "drift_repaired", "Of these, repaired one by one", lambda: drift.repaired),
            ("gauge", "builds_waiting", "Standings that are being made, or wait for that", self._waiting),
            ("counter", "builds", "Standings that were made and are shown", lambda: building.built),
            ("counter", "builds_failed", "Standings that could not be made", lambda: building.failed),
        ]


async def run_worker(settings: Settings, stop: asyncio.Event) -> None:
    """The worker, until `stop`."""
    async with open_backends(settings) as backends:
        ledger = backends.ledger
        resync = Resync(ledger, backends.store, ledger.clock.now, boards=backends.partitions.boards_to_tell)
        worker = Worker(backends, resync)
        tasks = [*common_tasks(backends), *worker.tasks()]
        if settings.worker_metrics_port:
            backlog = Backlog(ledger)
            metrics = Metrics()
            metrics.read([*backends.figures(), *backlog.figures(), *worker.figures()])
            tasks += [("backlog", backlog.watch), ("lag", metrics.watch_lag)]
            metrics.serve(settings.host, settings.worker_metrics_port)
        await supervised(tasks, stop)


async def supervised(tasks: Sequence[Task], stop: asyncio.Event) -> None:
    """Keeps tasks running until `stop`. Raises TaskFailed where one cannot be kept going."""
    failed: list[str] = []

    def give_up(name: str) -> None:
        failed.append(name)
        stop.set()

    supervisor = Supervisor(give_up)
    for name, run in tasks:
        supervisor.start(name, run)
    try:
        await stop.wait()
    finally:
        await supervisor.stop()
    if failed:
        raise TaskFailed(failed[0])
