"""Fitness: judges whether a store may hold the boards, and whether its content was made for it.

Owns what is read of INFO, and what makes content ours. Must never accept a store that may drop keys by itself. Assumes
INFO as Dragonfly, Redis and Valkey write it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from realtime.errors import StartupError, StoreUnavailable
from realtime.store import keys
from realtime.store.engines import unsupported


class Content(NamedTuple):
    """Which store answers, and which content it says it holds."""

    run: str
    """The store's own run, new at every start."""
    content_run: str | None
    """The run that the content was made for (`leaderboard:run`)."""
    epoch: str | None
    """The content's epoch, `filling:<next>` during a rebuild."""
    ledger: str | None = None
    """How far the ledger was last seen to have come, as `repair.generation` writes it."""

    @property
    def is_ours(self) -> bool:
        """Whether the content, complete or being filled, was made for the run that holds it."""
        if self.epoch is None:
            return False
        run, _, n = self.epoch.removeprefix(keys.FILLING).partition("-")
        if run != self.run[:8] or not (n.isascii() and n.isalnum()):
            return False
        return self.epoch.startswith(keys.FILLING) or self.content_run == self.run

    @property
    def is_complete(self) -> bool:
        """Whether boards may be read from the content."""
        return self.is_ours and not (self.epoch or "").startswith(keys.FILLING)


def parse_info(raw: bytes) -> dict[str, str]:
    """The fields of a reply to INFO; section headings are left out."""
    return dict(line.split(":", 1) for line in raw.decode().splitlines() if ":" in line)


def run_of(info: Mapping[str, str]) -> str:
    """The run of a store that takes writes: `run_id`, or on Dragonfly `master_replid`. Both are new at every start.

    A Redis that was promoted has the same `run_id` as before, and may have been a primary, then a replica, and be one
    again, with content that lacks what the other had taken: there it is `master_replid`, new at every promotion. (It is
    new once more where no replica came for `repl-backlog-ttl`: the content is then made anew a second time.) What a
    replica tells is none of its own: Dragonfly's tells its primary's.
    """
    run = info.get("run_id")
    if run is None or info.get("master_replid2", "").strip("0"):
        run = info.get("master_replid", run)
    if not run:
        raise StoreUnavailable("the store does not tell its run (INFO has neither run_id nor master_replid)")
    return run


def unfitness(info: Mapping[str, str]) -> str | None:
    """Why a store must not be used: it is of a kind or version that nobody tried, says that it may drop keys by itself,
    or takes no writes; None where it may."""
    if problem := unsupported(info):
        return problem
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction" or info.get("cache_mode", "store") == "cache":
        return (
            f"it may evict keys (maxmemory-policy {policy}), and boards would lose players silently. "
            "Set maxmemory-policy to noeviction (Dragonfly: start without --cache_mode)."
        )
    if is_replica(info):
        return "it is a read-only replica. Point DRAGONFLY_URL at its primary."
    return None


def is_replica(info: Mapping[str, str]) -> bool:
    """Whether a store follows another one: it takes no writes, and shows what it has heard so far."""
    return info.get("role", "master") not in ("master", "active-replica")


def may_scatter_tags(info: Mapping[str, str]) -> bool:
    """Whether a store may keep keys of one hash tag on several threads: Dragonfly does, where nobody forbade it."""
    return "dragonfly_version" in info and info.get("thread_count", "2") != "1"


def is_scattered(told: Iterable[object]) -> bool | None:
    """Whether keys lie on several threads, by what `DEBUG OBJECT` says of each; None where it does not say.

    Dragonfly: `encoding:raw bucket_id:3 slot:0 shard:1`.
    """
    shards = {match[1] for match in map(_shard_in, told) if match}
    return len(shards) > 1 if shards else None


def _shard_in(said: object) -> re.Match[bytes] | None:
    return re.search(rb"\bshard:(\d+)", said) if isinstance(said, bytes) else None


def check_fitness(info: Mapping[str, str]) -> None:
    """Raises StartupError where the store must not be used."""
    if problem := unfitness(info):
        raise StartupError(f"The store cannot be used: {problem}")
