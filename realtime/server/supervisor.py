"""Supervision: no background task ends quietly.

Owns the tasks it was given: it logs a task that raises and starts it again, after a growing pause. Must never let one
that cannot keep going fall silent: that one takes the process down, with a clear last line. Assumes that a task may be
cancelled at any moment.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from realtime.errors import LedgerUnavailable, StoreUnavailable

log = logging.getLogger(__name__)

FIRST_PAUSE: Final = 0.2
LONGEST_PAUSE: Final = 5.0
"""Seconds before a failed task is started again: twice as many each time, from the first to the longest."""

HEALTHY_AFTER: Final = 30.0
"""Seconds without an error after which earlier ones are forgotten."""

CANCEL_AGAIN: Final = 0.5
"""Seconds after which a task that goes on is cancelled once more."""

TELL_AGAIN: Final = 60.0
"""Seconds after which the log says again what a task waits for."""

TOO_OFTEN: Final = 20
"""Unexpected errors in a row that end the process. A store that is away is expected, for as long as it takes."""


class Supervisor:
    """Runs tasks until `stop`. `on_hopeless` is called once, with the name of a task that cannot be kept going."""

    def __init__(self, on_hopeless: Callable[[str], None]) -> None:
        self._on_hopeless = on_hopeless
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.restarts = 0
        """Restarts of any task, ever."""

    def start(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Keeps `run` running under `name`."""
        self._tasks[name] = asyncio.get_running_loop().create_task(self._keep(name, run), name=name)

    async def _keep(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        loop = asyncio.get_running_loop()
        pause, failures, told_at = FIRST_PAUSE, 0, float("-inf")
        while True:
            began = loop.time()
            expected = False
            try:
                await run()
                log.error("%s ended by itself", name, extra={"action": "restart"})
            except (StoreUnavailable, LedgerUnavailable) as error:
                expected = True
                if loop.time() - told_at > TELL_AGAIN:
                    told_at = loop.time()
                    log.info("%s waits: %s", name, error, extra={"action": "restart"})
            except Exception:
                log.exception("%s failed", name, extra={"action": "restart"})
            if loop.time() - began > HEALTHY_AFTER:
                pause, failures, told_at = FIRST_PAUSE, 0, float("-inf")
            failures += 0 if expected else 1
            if failures > TOO_OFTEN:
                log.critical("%s fails again and again: this process ends", name, extra={"action": "end"})
                self._on_hopeless(name)
                return
            self.restarts += 1
            await asyncio.sleep(min(pause, 1.0) if expected else pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def stop(self) -> None:
        """Cancels every task until each has ended: a library in between may swallow a cancellation."""
        pending = set(self._tasks.values())
        while pending:
            for task in pending:
                task.cancel()
            _, pending = await asyncio.wait(pending, timeout=CANCEL_AGAIN)
