"""Credentials: who speaks on one connection, for as long as that holds.

Owns a connection's identity and the timer that ends it; a connection without an identity has no timer. Must never let
a lapsed identity be used, whichever comes first, the timer or the question. Assumes time is the ledger's: the loop's
timer only says when to look again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from realtime.errors import RealtimeError
from realtime.people.identity import Identity

LOOK_AGAIN: Final = 3_600.0
"""Most seconds of one timer: the ledger's clock may be set meanwhile."""


class Clock(Protocol):
    """What time it is, as the ledger says."""

    def timestamp(self) -> float: ...


class Holders(Protocol):
    """Who must be told when a token comes to an end before it expires."""

    def hold(self, identity: Identity, lapse: Callable[[RealtimeError], None]) -> None: ...
    def release(self, lapse: Callable[[RealtimeError], None]) -> None: ...


class Credentials:
    """Holds who speaks on one connection. `on_lapse` is told why, once, when an identity ends by itself."""

    __slots__ = ("_clock", "_expires", "_holders", "_identity", "_lapsed", "_on_lapse", "_timer", "trusted")

    def __init__(self, clock: Clock, holders: Holders, on_lapse: Callable[[RealtimeError], None]) -> None:
        self._clock = clock
        self._holders = holders
        self._on_lapse = on_lapse
        self._identity: Identity | None = None
        self._expires = 0.0  # seconds since 1970
        self._lapsed: RealtimeError | None = None  # why the last identity ended
        self._timer: asyncio.TimerHandle | None = None
        self.trusted = False
        """Whether it is a game server or an admin, who speaks for many."""

    @property
    def identity(self) -> Identity | None:
        """Who speaks now; None for nobody, and for somebody whose time is over."""
        if self._identity is not None and self._clock.timestamp() >= self._expires:
            self._expire()
        return self._identity

    def required(self) -> Identity | None:
        """The same, but a lapsed identity raises RealtimeError `expired` or `unauthorized`: it ended, unlike none."""
        identity = self.identity
        if self._lapsed is not None:
            raise self._lapsed
        return identity

    def take(self, identity: Identity) -> None:
        """From now on it is `identity` who speaks."""
        self.close()
        self._identity = identity
        self._expires = identity.expires_at.timestamp()
        self._lapsed = None
        self.trusted = identity.may("submit:any", "admin")
        self._holders.hold(identity, self._lapse)
        self._look_again()

    def close(self) -> None:
        """Nobody speaks any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._identity is not None:
            self._holders.release(self._lapse)
        self._identity, self.trusted = None, False

    def _look_again(self) -> None:
        left = self._expires - self._clock.timestamp()
        if left <= 0:
            self._expire()
        else:
            self._timer = asyncio.get_running_loop().call_later(min(left, LOOK_AGAIN), self._look_again)

    def _expire(self) -> None:
        self._lapse(RealtimeError("expired", "The token has expired. Send a new one with auth."))

    def _lapse(self, error: RealtimeError) -> None:
        self.close()
        self._lapsed = error
        self._on_lapse(error)
