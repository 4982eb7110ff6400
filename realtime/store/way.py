"""Way: where new connections for one partition lead at this moment.

Owns what every way must answer, the two errors that say that a way leads elsewhere, and how something that was found
out is kept. Must never decide by itself where a primary is. Assumes that whoever opens a connection tells the way what
became of it: a connection that breaks, or a node that says that it is not the one, makes the way doubtful.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from math import inf
from typing import Final, Generic, Protocol, TypeVar

import redis.exceptions as failures

from realtime.store.endpoints import Connection

FRESH: Final = 0.5
"""Seconds for which what was found out is good enough for a look: the looks of many partitions ask once."""

ELSEWHERE: Final = (
    failures.AskError,  # also "moved"
    failures.ClusterDownError,
    failures.MasterDownError,
    failures.ReadOnlyError,
    failures.BusyLoadingError,
)
"""Replies of a node that is not, or not now, the one that has the content: the command was not run."""


class Lost(failures.ConnectionError):
    """No node is known now that could have the content. Its words are for people."""


class Elsewhere(failures.ResponseError):
    """The node has not, or not now, what was asked for, and the command was not run. Its words are for people."""


class Way(Protocol):
    """One partition's."""

    has_choice: bool
    """Whether it may lead to another node by itself: then a replica is only the wrong one of several nodes."""

    is_cluster: bool
    """Whether keys are spread over nodes by their tags, and each name has one."""

    async def connection(self, *, fresh: bool = False) -> Connection:
        """A connection, not yet opened, to the node that has the content; with `fresh` as it is now, and not as it was
        last known. Raises Lost and its kin."""
        ...

    def doubt(self) -> None:
        """A connection could not be opened, or broke: the next one is led as it is then."""
        ...

    def take(self, error: failures.ResponseError) -> failures.ResponseError:
        """What a node's error means here; one that says that the content is elsewhere is remembered."""
        ...

    def judge(self, run: str, *, is_superseded: bool) -> None:
        """The content of that run is the deployment's, or another store's is."""
        ...


Found = TypeVar("Found")


class Known(Generic[Found]):
    """What `find` found out last. It is asked again where that is old or doubtful: once, however many wait."""

    def __init__(self, find: Callable[[], Awaitable[Found]]) -> None:
        self._find = find
        self._doubted = True
        self._found_at = -inf  # the loop's seconds at which the last finding began
        self._finding: asyncio.Task[Found] | None = None
        self.last: Found | None = None
        """What was found last; None before anything was."""

    def doubt(self) -> None:
        """What was found may be wrong by now."""
        self._doubted = True

    async def get(self, *, fresh: bool = False) -> Found:
        """What is known; with `fresh` what is not older than FRESH. Raises what `find` raises."""
        now = asyncio.get_running_loop().time()
        if self.last is not None and not self._doubted and not (fresh and now - self._found_at > FRESH):
            return self.last
        if self._finding is None:
            self._doubted, self._found_at = False, now
            self._finding = asyncio.create_task(self._found())
            self._finding.add_done_callback(_retrieved)
        return await asyncio.shield(self._finding)

    async def _found(self) -> Found:
        try:
            self.last = await self._find()
        except BaseException:
            self._doubted = True
            raise
        finally:
            self._finding = None
        return self.last

    async def aclose(self) -> None:
        """Ends a finding that is under way."""
        if self._finding is not None:
            self._finding.cancel()
            await asyncio.gather(self._finding, return_exceptions=True)


def _retrieved(task: asyncio.Task[Found]) -> None:
    """Whoever waited has been told, or has gone: an error without a waiter is nothing to complain of."""
    if not task.cancelled():
        task.exception()
