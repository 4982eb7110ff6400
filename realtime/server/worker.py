"""The worker: sweeps the outbox, opens closed weeks, looks for drift; alone, or within a server.

Owns which tasks these are, and how a process without a server keeps them running. Must never decide anything: what to
do is the services'.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from realtime.errors import TaskFailed
from realtime.metrics import Metrics
from realtime.metrics import Reading as Measured
from realtime.repair.backlog import Backlog
from realtime.repair.comparison import Comparison
from realtime.repair.drift import Drift
from realtime.repair.keeping import Keeping
from realtime.repair.resync import Resync
from realtime.repair.sweeper import Sweeper
from realtime.server.backends import Backends, Task, common_tasks, open_backends
from realtime.server.supervisor import Supervisor
from realtime.settings import Settings
from realtime.store.audit import Audit


class Worker:
    """What the worker does, besides keeping clock and store."""

    def __init__(self, stores: Backends, resync: Resync) -> None:
        self._stores = stores
        self._now = stores.ledger.clock.now
        audit = Audit(stores.store.link)
        comparison = Comparison(stores.ledger, audit, self._now)
        self._sweeper = Sweeper(stores.ledger, resync)
        self._keeping = Keeping(stores.history)
        self._drift = Drift(comparison, stores.store, audit, resync, self._now)

    @property
    def differing(self) -> int:
        """Rows that differed between the stores at the last look."""
        return self._drift.differing

    def tasks(self) -> list[Task]:
        """To be kept running."""
        return [
            ("sweeper", self._sweeper.run),
            ("weeks", self._keeping.run),
            ("drift", self._drift.run),
        ]

    def readings(self) -> list[Measured]:
        """For the metrics."""
        sweeper, drift, history = self._sweeper, self._drift, self._stores.history
        return [
            ("counter", "outbox_replayed", "Changes brought to the store again", lambda: sweeper.resynced),
            ("gauge", "drift", "Rows that differed between the stores at the last look", lambda: drift.differing),
            ("counter", "drift_found", "Rows that differed, ever", lambda: drift.found),
            ("counter", "weeks_wrong", "Users whom closed weeks were wrong about, ever", lambda: history.wrong),
            ("counter", "drift_repaired", "Of these, repaired one by one", lambda: drift.repaired),
        ]


async def run_worker(settings: Settings, stop: asyncio.Event) -> None:
    """The worker, until `stop`."""
    async with open_backends(settings) as stores:
        worker = Worker(stores, Resync(stores.ledger, stores.store, stores.ledger.clock.now))
        tasks = [*common_tasks(stores), *worker.tasks()]
        if settings.worker_metrics_port:
            backlog = Backlog(stores.ledger)
            metrics = Metrics()
            metrics.read([*stores.readings(), *backlog.readings(), *worker.readings()])
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
