"""From unit costs to machines: what `capacity` measures, multiplied out. Pure: the page and its test reckon by it too.

Owns the arithmetic of `web/docs/scaling.html`, and what a machine is there. Must never round before the end, nor hold a
figure of its own that is measured. Assumes that costs add up: cores are filled to HALF, so that a second machine may
die, and a peak may come.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import ceil
from typing import Final, NamedTuple

CORES: Final = 16
MEMORY_GB: Final = 64
NETWORK_GBIT: Final = 10
"""A machine, as every cloud has it."""

HALF: Final = 0.5
"""To which share a machine is filled, of cores, memory and network alike."""

HEADERS: Final = 52
"""Bytes of TCP (with its timestamps) and IPv4 around a frame: RFC 9293, RFC 7323, RFC 791."""

RATES: Final = (1, 4, 20)
"""Diffs a second of a board that changes all the time: REALTIME_BROADCAST_INTERVAL_MS of 1000, 250 and 50."""

VIEWERS: Final = (10_000, 1_000_000, 10_000_000)
SUBMISSIONS: Final = (1_000, 100_000)
PLAYERS: Final = (10_000_000, 100_000_000)


@dataclass(frozen=True)
class Costs:
    """What one of each costs, as it was measured; the page has these names in its rows."""

    delivery_us: float
    """Server CPU of one more frame to one more viewer."""
    change_server_us: float
    """Server CPU of one change of a board in a process, before anybody is written to: hearing, reading, diff, frame."""
    change_store_us: float
    """Store CPU of one more process that reads a changed board."""
    process_store_us: float
    """Store CPU a second of a process that shows nothing: looks, polls, what it tells the others."""
    diff_bytes: float
    """A compressed diff of five changed scores, frame and all, less HEADERS."""
    connection_us: float
    """Server CPU of one viewer who comes and gets a board."""
    viewer_kib: float
    """Memory of the process, an idle viewer."""
    kernel_kib: float
    """Memory of the system, an idle viewer's socket."""
    submission_server_us: float
    submission_ledger_us: float
    submission_store_us: float
    """CPU of one submission among many."""
    submission_wal_bytes: float
    submission_log_bytes: float
    """What it adds to the write-ahead log, and to the log of transactions with its indexes, for ever."""
    player_store_bytes: float
    """Memory of a player on two boards of the store, with the name."""
    player_ledger_bytes: float
    """Disk of a player in the ledger with two scores, indexes and all."""
    rebuild_us: float
    """CPU of a rebuild, a player: of one process and the store, which take turns; so its time on cores of their own."""


class Number(NamedTuple):
    """One number of the plan, and what it rests on."""

    case: str
    what: str
    value: str
    rests_on: str


def shown(value: float, unit: str = "") -> str:
    """A number with two digits that mean something: no plan is better than that."""
    digits = 0 if value >= 10 else 1 if value >= 1 else 2
    return f"{value:,.{digits}f}{unit}"


def machines(cores: float = 0.0, memory_gb: float = 0.0, gbit: float = 0.0) -> int:
    """How many carry all of that."""
    return max(1, ceil(max(cores / CORES, memory_gb / MEMORY_GB, gbit / NETWORK_GBIT) / HALF))


def of_viewers(costs: Costs, viewers: int, rate: int) -> list[Number]:
    """So many viewers of one board, with so many diffs a second."""
    case = f"{viewers:,} viewers, {rate} a second"
    deliveries = viewers * rate
    of_one = max(1.0, (HALF * 1e6 / rate - costs.change_server_us) / costs.delivery_us)  # viewers, half a core of them
    processes = ceil(viewers / of_one)
    cores = (deliveries * costs.delivery_us + processes * rate * costs.change_server_us) / 1e6
    gbit = deliveries * (costs.diff_bytes + HEADERS) * 8 / 1e9
    memory = viewers * (costs.viewer_kib + costs.kernel_kib) / 1024**2
    needed = machines(cores, memory, gbit)
    of_board = processes * rate * costs.change_store_us / 1e6
    store = of_board + processes * costs.process_store_us / 1e6
    back = viewers / needed * costs.connection_us / 1e6 / (max(needed - 1, 1) * CORES * HALF)
    return [
        Number(
            case, "cores busy with it", shown(cores),
            f"{shown(costs.delivery_us)} µs a delivery, {shown(costs.change_server_us)} µs a process and diff",
        ),
        Number(case, "network", shown(gbit, " Gbit/s"), f"{shown(costs.diff_bytes)} + {HEADERS} bytes a delivery"),
        Number(
            case, "memory", shown(memory, " GB"),
            f"{shown(costs.viewer_kib)} + {shown(costs.kernel_kib)} KiB a viewer, process and system",
        ),
        Number(case, "serving machines", f"{needed:,}", "the most of these three"),
        Number(case, "serving processes", f"{processes:,}", "a core each, half filled, or less"),
        Number(
            case, "of one core of the store", shown(100 * store, " %"),
            f"{shown(costs.change_store_us)} µs a process and diff, "
            f"{shown(costs.process_store_us)} µs a process and second",
        ),
        Number(
            case, "seconds until all are back when a machine dies", shown(back),
            f"{shown(costs.connection_us)} µs a viewer who comes, on the half that is free",
        ),
    ]  # fmt: skip


def of_submissions(costs: Costs, rate: int) -> list[Number]:
    """So many submissions a second, spread over leaderboards."""
    case = f"{rate:,} submissions a second"
    server, ledger, store = (
        rate * us / 1e6
        for us in (costs.submission_server_us, costs.submission_ledger_us, costs.submission_store_us)
    )
    wal = rate * costs.submission_wal_bytes / 1e6
    day = rate * costs.submission_log_bytes * 86_400 / 1e9
    nodes = max(1, ceil(store / HALF))
    return [
        Number(case, "cores of serving processes", shown(server), f"{shown(costs.submission_server_us)} µs each"),
        Number(case, "serving machines", f"{machines(server):,}", "cores"),
        Number(case, "cores of PostgreSQL", shown(ledger), f"{shown(costs.submission_ledger_us)} µs each"),
        Number(
            case, "machines of PostgreSQL, and as many standbys", f"{machines(ledger):,}",
            "cores; more than one are Citus workers",
        ),
        Number(case, "write-ahead log", shown(wal, " MB/s"), f"{shown(costs.submission_wal_bytes)} bytes each"),
        Number(
            case, "log of transactions, a day", shown(day, " GB"),
            f"{shown(costs.submission_log_bytes)} bytes each, with indexes",
        ),
        Number(case, "cores of the store", shown(store), f"{shown(costs.submission_store_us)} µs each"),
        Number(case, "masters of the store, and as many replicas", f"{nodes:,}", "a core each, half filled"),
    ]  # fmt: skip


def of_players(costs: Costs, players: int) -> list[Number]:
    """So many players, each on two boards."""
    case = f"{players:,} players"
    store = players * costs.player_store_bytes / 1e9
    ledger = players * costs.player_ledger_bytes / 1e9
    masters = machines(memory_gb=store)
    rebuild = players * costs.rebuild_us / 1e6
    return [
        Number(case, "memory of the store", shown(store, " GB"), f"{shown(costs.player_store_bytes)} bytes each"),
        Number(
            case, "masters of the store, and as many replicas", f"{masters:,}",
            f"{MEMORY_GB} GB each, half filled: a rebuild and a snapshot take their time's worth",
        ),
        Number(case, "disk of PostgreSQL", shown(ledger, " GB"), f"{shown(costs.player_ledger_bytes)} bytes each"),
        Number(
            case, "minutes of a rebuild of all, one partition after another", shown(rebuild / 60),
            f"{shown(costs.rebuild_us)} µs each; partitions by as many processes divide it",
        ),
    ]  # fmt: skip


def everything(costs: Costs) -> list[Number]:
    """The whole plan."""
    return [
        *(number for viewers in VIEWERS for rate in RATES for number in of_viewers(costs, viewers, rate)),
        *(number for rate in SUBMISSIONS for number in of_submissions(costs, rate)),
        *(number for players in PLAYERS for number in of_players(costs, players)),
    ]


NAMES: Final = tuple(field.name for field in fields(Costs))
