"""Engines: which stores this program works with, by what a store says of itself.

Owns the versions that are supported, and the sentence for all others. Must never guess: an engine that is known to say
that it is Redis, and is not, is named as what it is. Assumes the fields of INFO; every new connection brings them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

Version = tuple[int, ...]


class Supported(NamedTuple):
    """The versions of one engine that its tests ran on."""

    least: Version
    beyond: Version
    """The first that nobody has tried."""
    said: str


SUPPORTED: Final = {
    "Redis": Supported((6, 2), (9,), "Redis 6.2 to 8"),
    "Valkey": Supported((8,), (10,), "Valkey 8 and 9"),
    "Dragonfly": Supported((1, 40), (2,), "Dragonfly 1.40 and later versions of 1"),
}

_SAYS_OF_ITSELF: Final = {
    "dragonfly_version": "Dragonfly",
    "valkey_version": "Valkey",
    "kvrocks_version": "Kvrocks",
    "garnet_version": "Garnet",
}
"""The field in which an engine names itself; each of them has `redis_version` too, for clients that ask for that."""


class Engine(NamedTuple):
    """What a store is."""

    name: str
    version: Version
    """Empty where it does not say."""

    def __str__(self) -> str:
        return " ".join((self.name, ".".join(map(str, self.version)))).rstrip()

    @property
    def is_supported(self) -> bool:
        """Whether it is one of SUPPORTED."""
        supported = SUPPORTED.get(self.name)
        return supported is not None and supported.least <= self.version < supported.beyond


def engine_of(info: Mapping[str, str]) -> Engine:
    """Which store says this of itself (the fields of INFO)."""
    field = next((field for field in _SAYS_OF_ITSELF if field in info), "redis_version")
    name = _SAYS_OF_ITSELF.get(field, "Redis")
    if name == "Redis" and info.get("executable", "").endswith("keydb-server"):
        name = "KeyDB"
    found = re.search(r"\d+(\.\d+)*", info.get(field, ""))
    return Engine(name, tuple(map(int, found[0].split("."))) if found else ())


def unsupported(info: Mapping[str, str]) -> str | None:
    """Why a store is not one that this program works with, and what to do; None where it is."""
    engine = engine_of(info)
    if engine.is_supported:
        return None
    # Not `version ... of it`: an engine that says nothing of itself is told as such.
    what = f"it is {engine}" if engine.version else f"it does not say which version of {engine.name} it is"
    return f"{what}, which is not supported: {all_supported()} are. Point DRAGONFLY_URL at one of them."


def all_supported() -> str:
    """Every engine with its versions, for people."""
    return ", ".join(supported.said for supported in SUPPORTED.values())
