"""Diagnosis: looks whether this deployment can do what it promises, and says of each thing what to do.

Owns the list of what is looked at. Must never change anything, start anything, or say a secret. Assumes that servers
and workers may run meanwhile, or not at all.
"""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from realtime import resources
from realtime.errors import LedgerUnavailable, StartupError, StoreUnavailable
from realtime.ledger.ledger import Ledger
from realtime.server import listeners
from realtime.server.backends import CLOCKS_AGREE
from realtime.server.serving import files_needed
from realtime.store.engines import engine_of
from realtime.store.fitness import unfitness
from realtime.store.store import Store

if TYPE_CHECKING:
    from realtime.settings import Settings

PATIENCE: Final = 10.0
"""Seconds that one store may take to answer everything."""

OVERDUE: Final = 10.0
"""Seconds after which a change that the store may not have means that nobody sweeps."""

FULL: Final = 0.9
"""Share of a limit from which on it is nearly reached."""

LOST_STANDBY: Final = (
    "Nothing is recorded until one is back. See pg_stat_replication; bring the standby back, name one that is there in "
    "synchronous_standby_names, or empty that and give up the promise for as long (SELECT pg_reload_conf())."
)

Verdict = Literal["ok", "warning", "wrong"]


class Finding(NamedTuple):
    """One thing that was looked at."""

    verdict: Verdict
    about: str
    said: str
    """What was seen."""
    remedy: str = ""
    """What to do; empty where nothing is to be done."""


async def diagnose(settings: Settings) -> AsyncIterator[Finding]:
    """Everything in turn. Raises nothing that a deployment may be in want of."""
    for found in (*_host(settings), *_port(settings)):
        yield found
    ledger = Ledger(settings.database_url.reveal(), connections=2)
    store = Store(settings.dragonfly_url.reveal(), timeout=settings.store_timeout_s, connections=2)
    try:
        async for found in _patiently("PostgreSQL", lambda: _ledger(ledger, settings)):
            yield found
        if ledger.clock.is_set:
            store.link.timestamp = ledger.clock.timestamp
        async for found in _patiently("Store", lambda: _store(store)):
            yield found
    finally:
        await ledger.aclose()
        await store.aclose()


async def _patiently(about: str, look: Callable[[], Awaitable[list[Finding]]]) -> AsyncIterator[Finding]:
    variable = "DATABASE_URL" if about == "PostgreSQL" else "DRAGONFLY_URL"
    try:
        async with asyncio.timeout(PATIENCE):
            for found in await look():
                yield found
    except TimeoutError:
        yield Finding("wrong", about, f"it does not answer within {PATIENCE:g} s", f"See that it runs, and {variable}.")
    except (LedgerUnavailable, StoreUnavailable) as error:
        yield Finding("wrong", about, str(error), f"See that it runs, and {variable}.")


def _host(settings: Settings) -> Iterator[Finding]:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = files_needed(settings)
    said = f"a process may open {'any number of' if hard == resource.RLIM_INFINITY else hard} files, and needs {needed}"
    if hard == resource.RLIM_INFINITY or hard >= needed:
        yield Finding("ok", "Open files", said)
    else:
        remedy = "Raise the limit (LimitNOFILE= of systemd, ulimits of compose), or lower REALTIME_MAX_CONNECTIONS."
        yield Finding("warning", "Open files", said, remedy)


def _port(settings: Settings) -> Iterator[Finding]:
    about = f"Port {settings.port}"
    if settings.port == 0:
        return
    try:
        listeners.bound(settings.host, settings.port).close()
    except StartupError as error:
        yield Finding("ok", about, f"in use, by this program or another: {error}")
    else:
        yield Finding("ok", about, "free")


async def _ledger(ledger: Ledger, settings: Settings) -> list[Finding]:
    await ledger.open()
    (row,) = await ledger.fetch("diagnosis")
    said = f"PostgreSQL {row['version']}, {row['encoding']}, {row['bytes'] / 2**20:,.0f} MiB"
    found = [Finding("ok", "PostgreSQL", said)]
    found += [
        Finding("warning", "Durability", warning, "Set it on in postgresql.conf.")
        for warning in await ledger.durability_warnings()
    ]
    ((waiting, seconds),) = await ledger.fetch("commits_waiting")
    found.append(_standbys(row["standbys"], row["commits"], row["standbys_there"], waiting, seconds))
    found.append(_connections(row["connections"], row["connections_allowed"], settings))
    there = {path.stem for path in (resources.folder("sql") / "migrations").iterdir() if path.suffix == ".sql"}
    found.append(await _migrations(ledger, there, row["is_migrated"]))
    if found[-1].verdict == "ok":
        found.append(await _outbox(ledger))
    ahead = time.time() - ledger.clock.timestamp()
    found.append(_clock("Clock of this host", ahead))
    return found


def _standbys(names: str, commits: str, there: int | None, waiting: int, seconds: float) -> Finding:
    if names and (there == 0 or (waiting and seconds > OVERDUE)):
        said = f"commits wait for {names}, and none of these follows; {waiting} wait, the oldest for {seconds:.0f} s"
        return Finding("wrong", "Standby", said, LOST_STANDBY)
    if not names:
        remedy = "With a synchronous standby nothing acknowledged is lost with a machine: see Operations."
        return Finding("ok", "Standby", "no synchronous standby", remedy)
    if commits in ("on", "remote_apply", "remote_write"):
        return Finding("ok", "Standby", f"a commit waits for {names}")
    remedy = "Set synchronous_commit = on."
    return Finding("warning", "Standby", f"a commit waits for no standby (synchronous_commit {commits})", remedy)


def _connections(used: int, allowed: int, settings: Settings) -> Finding:
    wanted = (settings.processes + 1) * (settings.database_connections + 1)
    said = f"{used} of {allowed} connections in use; the processes of this host and a worker open up to {wanted}"
    if wanted <= allowed * FULL:
        return Finding("ok", "Connections", said)
    remedy = "Raise max_connections of PostgreSQL, or lower REALTIME_DATABASE_CONNECTIONS."
    return Finding("warning", "Connections", said, remedy)


async def _migrations(ledger: Ledger, there: set[str], is_migrated: bool) -> Finding:
    applied = {row["migration_id"] for row in await ledger.fetch("migrations_applied")} if is_migrated else set()
    if missing := sorted(there - applied):
        return Finding("wrong", "Schema", f"{', '.join(missing)} not applied", "Run `realtime migrate`.")
    if newer := sorted(applied - there):
        remedy = "Update realtime on this host."
        return Finding("warning", "Schema", f"of a newer version: {', '.join(newer)}", remedy)
    return Finding("ok", "Schema", "up to date")


async def _outbox(ledger: Ledger) -> Finding:
    waiting, age = await ledger.outbox_state()
    if (age or 0) <= OVERDUE:
        return Finding("ok", "Outbox", "the store has heard of every change of long ago")
    said = f"{waiting} changes wait for the store, the oldest for {age:.0f} s"
    return Finding("wrong", "Outbox", said, "See that a worker runs (`realtime worker`), and that the store is used.")


async def _store(store: Store) -> list[Finding]:
    info = await store.info()
    engine = str(engine_of(info))
    if problem := unfitness(info):
        return [Finding("wrong", "Store", problem)]
    found = [Finding("ok", "Store", engine)]
    content = await store.content()
    if content.is_complete:
        found.append(Finding("ok", "Content", f"complete, epoch {content.epoch}"))
    else:
        remedy = "A server or worker makes it anew from PostgreSQL; where none runs, start one."
        found.append(Finding("warning", "Content", "not complete, or not made for this run", remedy))
    used, most = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    if most and used > most * FULL:
        remedy = "Give the store more memory: full, it takes no writes."
        found.append(Finding("warning", "Memory", f"{used / most:.0%} of maxmemory in use", remedy))
    if store.link.ahead is not None:
        found.append(_clock("Clock of the store's host", store.link.ahead))
    return found


def _clock(about: str, ahead: float) -> Finding:
    said = f"{abs(ahead):.1f} s {'ahead of' if ahead >= 0 else 'behind'} PostgreSQL's"
    if abs(ahead) <= CLOCKS_AGREE:
        return Finding("ok", about, said)
    return Finding("warning", about, said, "Keep all hosts' clocks by NTP.")
