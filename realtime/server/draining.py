"""Draining: the order in which a server leaves.

Owns how long each step may take: first /readyz says no, so that a balancer looks away; then no new connection is taken
and each client is asked, at its own moment, to come back, which leads it elsewhere; then what is left is closed (1012).
Must never take longer than `longest_leave`, whatever clients and stores do. Assumes that /readyz says no already.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from realtime.settings import Settings
from realtime.wire import messages
from realtime.wire.close_codes import CloseCode
from realtime.wire.frames import Frame

log = logging.getLogger(__name__)

SHUTDOWN_SECONDS: Final = 5
"""Seconds that open requests get after the last client was closed."""

FLUSH_SECONDS: Final = 15
"""Seconds that intake and the stores get after that."""

LEAVING_A_SECOND: Final = 100
"""Clients asked to leave in a second while they are few; many share `reconnect_spread_s`."""

COME_BACK_MS: Final = 500
"""What `reconnect` says: the moment itself is the client's own already."""

CLOSE_AFTER: Final = 2.0
"""Seconds from `reconnect` to the close frame, for clients that do not go by themselves."""

SLICE_SECONDS: Final = 0.05
"""Seconds between two groups of clients that are asked to leave."""


def longest_leave(settings: Settings) -> float:
    """Seconds within which a process has ended after SIGTERM, always."""
    return settings.drain_s + settings.reconnect_spread_s + CLOSE_AFTER + SHUTDOWN_SECONDS + FLUSH_SECONDS


class Client(Protocol):
    """One connection that has to leave."""

    def write(self, frame: Frame) -> int: ...
    def close(self, code: int) -> None: ...


class Draining:
    """Leads a server's clients elsewhere. `hasten` ends every wait that is under way or still to come."""

    def __init__(self, settings: Settings) -> None:
        self._drain_s = settings.drain_s
        self._reconnect_spread_s = settings.reconnect_spread_s
        self._hurry = asyncio.Event()

    def hasten(self) -> None:
        """Makes `leave` wait no longer. To be called in the loop."""
        self._hurry.set()

    async def leave(self, clients: Callable[[], Sequence[Client]], close_listeners: Callable[[], None]) -> None:
        """Waits until balancers have seen it, calls `close_listeners`, asks each client to come back, and closes those
        that stay. `clients` tells who is connected at that moment."""
        log.info("leaving: balancers see it now", extra={"action": "leave"})
        await self._pause(self._drain_s)
        close_listeners()
        asked = list(clients())
        random.shuffle(asked)
        seconds = min(self._reconnect_spread_s, len(asked) / LEAVING_A_SECOND)
        log.info("asking %d clients to come back", len(asked), extra={"action": "leave", "seconds": seconds})
        await self._ask(asked, seconds)
        await self._ask(list(set(clients()).difference(asked)), 0.0)  # whose handshakes were still under way
        loop = asyncio.get_running_loop()
        until = loop.time() + CLOSE_AFTER
        while clients() and not self._hurry.is_set() and loop.time() < until:
            await self._pause(SLICE_SECONDS)

    async def _ask(self, clients: Sequence[Client], seconds: float) -> None:
        """Asks each client at a moment of its own, and closes it a little later."""
        loop = asyncio.get_running_loop()
        frame = Frame(messages.reconnect(COME_BACK_MS))
        slices = max(1, round(seconds / SLICE_SECONDS))
        for n in range(slices):
            for client in clients[n::slices]:
                if client.write(frame) >= 0:
                    loop.call_later(CLOSE_AFTER, client.close, CloseCode.RESTART)
            await self._pause(seconds / slices)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._hurry.wait()
        except TimeoutError:
            pass
