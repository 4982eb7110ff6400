"""Limits: how much one client may ask for.

Owns the counters. Must never read a clock (`now` is an argument, monotonic seconds) nor grow with what clients do
beyond one entry for each address that is connected, or a fixed number of names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from math import inf


class Bucket:
    """A token bucket: `rate` messages a second, twice as many (at least one) at once. A rate of 0 allows everything.

    What counts as several is let in whole where there is room for one, and those after it wait for as long.
    """

    __slots__ = ("_at", "_most", "_rate", "_tokens")

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._most = self._tokens = max(1.0, 2 * rate)
        self._at = now

    def take(self, now: float, count: int = 1) -> bool:
        """Whether one more message is within the limit; it is counted then, as so many."""
        if self._rate == 0:
            return True
        self._tokens = min(self._most, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= count
        return True

    def retry_after_ms(self, place: int = 1) -> int:
        """When the next message will be within the limit; or that in a later `place`, if all before it come as well."""
        return 0 if self._rate == 0 else max(1, int(1000 * (place - self._tokens) / self._rate))


class Windows:
    """Counts within windows of time, by who is counted. Only one window, the newest, is remembered.

    Beyond `most_names` in one window, everybody new shares one count: an attacker with many names gains nothing.
    """

    def __init__(self, most_names: int = 100_000) -> None:
        self._most_names = most_names
        self._window = -1
        self._counts: Counter[str] = Counter()

    def add(self, name: str, amount: int, window: int) -> int:
        """Adds to a count; what it is then.

        The window just before the newest counts as the newest, for a clock is set by little now and then. One further
        back says that the clock was wrong before: it is the newest from then on.
        """
        if window != self._window and window != self._window - 1:
            self._window = window
            self._counts.clear()
        if len(self._counts) >= self._most_names and name not in self._counts:
            name = ""
        self._counts[name] += amount
        return self._counts[name]


class AddressCounter:
    """Open connections, of all addresses and of each.

    Args:
        most_an_address: connections of one address; 0 allows any number.
        most: connections of all addresses together.
        is_proxy: says which addresses are of trusted proxies, through which everybody comes.
    """

    def __init__(
        self, most_an_address: int, most: float = inf, is_proxy: Callable[[str], bool] = lambda address: False
    ) -> None:
        self._most_an_address = most_an_address
        self._most = most
        self._is_proxy = is_proxy
        self._by_address: Counter[str] = Counter()
        self.open = 0

    def enter(self, address: str) -> bool:
        """Whether one more connection of `address` is within the limits; it is counted then."""
        if self.open >= self._most:
            return False
        if 0 < self._most_an_address <= self._by_address[address] and not self._is_proxy(address):
            return False
        self.open += 1
        self._by_address[address] += 1
        return True

    def leave(self, address: str) -> None:
        """One connection of `address` is gone, or no longer counted here."""
        self.open -= 1
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]
