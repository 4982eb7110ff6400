"""Draining: the order in which a server leaves.

Owns how long each step may take: first /readyz says no, so that a balancer looks away; then no new connection is taken
and each client is asked, at its own moment, to come back, which leads it elsewhere; then what is left is closed (1012).
Must never take longer than `longest_leave`, whatever clients and stores do.
"""

from __future__ import annotations

from typing import Final

from realtime.settings import Settings

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


def longest_leave(settings: Settings) -> float:
    """Seconds within which a process has ended after SIGTERM, always."""
    return settings.drain_s + settings.reconnect_spread_s + CLOSE_AFTER + SHUTDOWN_SECONDS + FLUSH_SECONDS
