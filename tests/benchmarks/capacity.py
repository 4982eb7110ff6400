"""What one delivery, connection, submission and player costs here, and what that makes of machines: `scaling.html`.

`python -m tests.benchmarks capacity`; `python -m tests.benchmarks.capacity --page` puts both tables into the page. All
costs are measured in one run: CPU time by the kernel's clocks, memory as the system counts it, bytes as they arrive.
What they come to is `plan`, which measures nothing. Assumes gcc, for an audience that costs next to nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import html
import json
import re
import resource
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import redis
import uvloop

from tests.benchmarks import plan, submissions
from tests.benchmarks.harness import Server, Table, cpu_seconds, machine, median, server
from tests.benchmarks.plan import Costs
from tests.benchmarks.served import HZ, PLAYERS, Served, audience, built_floor
from tests.benchmarks.usage import Parties

CLIENTS = 2_000
GROUPS = 3
WINDOWS = 3
SECONDS = 3.0
ROWS = 5
"""Scores that change with each diff."""

ROUNDS = 3
"""Rebuilds, of which the one that took least counts: the worker and others use the machine too."""

MANY = 200_000
"""Players of which one is weighed."""

PAGE = Path(__file__).parents[2] / "web/docs/scaling.html"


# Viewers -----------------------------------------------------------------------------------------------------------


async def _changes(served: Served, seconds: float) -> None:
    """HZ times a second ROWS scores of the top 50 change at once."""
    loop = asyncio.get_running_loop()
    due, socket = loop.time(), served._submitter
    for _ in range(int(seconds * HZ)):
        due += 1 / HZ
        await asyncio.sleep(max(0.0, due - loop.time()))
        for _ in range(ROWS):
            served._turn += 1
            message = {
                "type": "submit", "submission_id": f"c{served._turn}", "user_id": PLAYERS - served._turn % 50,
                "score_added": 1,
            }  # fmt: skip
            await socket.send(json.dumps(message))
        for _ in range(ROWS):
            if "accepted" not in str(await socket.recv()):
                raise SystemExit("not accepted")


def _kernel_kib() -> float:
    """What the system holds for itself: slabs, and what sockets buffer."""
    slab = re.search(r"^Slab:\s+(\d+)", Path("/proc/meminfo").read_text(), re.M)
    pages = re.search(r"^TCP:.* mem (\d+)", Path("/proc/net/sockstat").read_text(), re.M)
    assert slab is not None and pages is not None
    return int(slab[1]) + 4 * int(pages[1])


def _viewers(folder: Path) -> dict[str, float]:
    found: dict[str, list[float]] = {}

    def add(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)

    with ExitStack() as stack, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        floor = built_floor(folder)
        served = Served(stack, runner)
        store = served.beside.store_pid

        def spent(seconds: float, act: Callable[[], object]) -> tuple[float, float]:
            """CPU seconds of the measured process and of the store in a window."""
            before = served.cpu_seconds(), cpu_seconds(store)
            act()
            time.sleep(0.2)
            return served.cpu_seconds() - before[0], cpu_seconds(store) - before[1]

        def change() -> None:
            runner.run(_changes(served, SECONDS))

        served.wait_idle()
        for _ in range(WINDOWS):
            _, store_idle = spent(SECONDS, lambda: time.sleep(SECONDS))
            add("process_store_us", store_idle / SECONDS / 2 * 1e6)  # two processes are there: this one, and `up`
            unseen = spent(SECONDS, change)
            with audience(floor, served.port, 1, 2):
                served.wait_for("realtime_subscribers", 1)
                before = served.metrics()["realtime_deliveries_total"]
                seen = spent(SECONDS, change)
                changes = served.metrics()["realtime_deliveries_total"] - before  # a busy machine makes one of two
            served.wait_for("realtime_subscribers", 0)
            add("change_server_us", (seen[0] - unseen[0]) / changes * 1e6)
            add("change_store_us", (seen[1] - unseen[1]) / changes * 1e6)
        with ExitStack() as groups:
            for group in range(GROUPS + 1):
                resident, kernel, used = served.resident_kib(), _kernel_kib(), served.cpu_seconds()
                crowd = groups.enter_context(audience(floor, served.port, CLIENTS, 2))
                there = CLIENTS * (group + 1)
                served.wait_idle()
                used = served.cpu_seconds() - used  # before it is asked: an answer costs as much as many viewers
                served.wait_for("realtime_subscribers", there)
                if not group:  # the first brings what every later one finds: buffers, caches, the snapshot
                    first = crowd
                    continue
                add("connection_us", used / CLIENTS * 1e6)
                add("viewer_kib", (served.resident_kib() - resident) / CLIENTS)
                add("kernel_kib", (_kernel_kib() - kernel) / CLIENTS / 2)  # both ends are here
        served.wait_for("realtime_subscribers", 0)
        with audience(floor, served.port, CLIENTS, 2) as crowd:
            served.wait_for("realtime_subscribers", CLIENTS)
            served.wait_idle()
            change()
            for _ in range(WINDOWS):
                delivered = served.metrics()["realtime_deliveries_total"]
                bytes_before = crowd.received()
                used, _ = spent(SECONDS, change)
                deliveries = served.metrics()["realtime_deliveries_total"] - delivered
                changes = deliveries / CLIENTS
                alone = median(found["change_server_us"]) * changes / 1e6
                add("delivery_us", (used - alone) / deliveries * 1e6)
                add("diff_bytes", (crowd.received() - bytes_before) / deliveries)
    del first
    return {name: max(0.0, median(values)) for name, values in found.items()}


# Submissions -------------------------------------------------------------------------------------------------------


async def _submissions() -> dict[str, float]:
    with server() as target:
        connection = await asyncpg.connect(target.database_url)
        await connection.execute(
            f"INSERT INTO users (username) SELECT 'player ' || g FROM generate_series(1, {submissions.USERS}) g"
        )
        token = target.token("submit:any", user_id=1)
        parties = Parties(target)
        log_size = "SELECT pg_total_relation_size('user_score_transactions')"
        recorded = "SELECT count(*) FROM user_score_transactions"
        await submissions.over_http(target, token)
        costs, wal_each = [], []
        size, count = await connection.fetchval(log_size), await connection.fetchval(recorded)
        for _ in range(WINDOWS):
            wal, rows, before = (
                await connection.fetchval("SELECT pg_current_wal_lsn()"), await connection.fetchval(recorded),
                parties.used(),
            )  # fmt: skip
            await submissions.over_http(target, token)
            await asyncio.sleep(1)  # the store is told behind the answer
            used = parties.used().since(before)
            made = await connection.fetchval(recorded) - rows
            costs.append(used.each(made))
            wal_each.append(await connection.fetchval("SELECT pg_current_wal_lsn() - $1::pg_lsn", wal) / made)
        grown = await connection.fetchval(log_size) - size
        log_each = grown / (await connection.fetchval(recorded) - count)
        await connection.close()
    return {
        "submission_server_us": median([cost.server for cost in costs]),
        "submission_ledger_us": median([cost.postgres for cost in costs]),
        "submission_store_us": median([cost.store for cost in costs]),
        "submission_wal_bytes": float(median(wal_each)),
        "submission_log_bytes": log_each,
    }


# Players -----------------------------------------------------------------------------------------------------------

_FILL = """
INSERT INTO users (username) SELECT 'player ' || g FROM generate_series(1, $1::int) g
""", """
INSERT INTO user_total_scores (user_id, total_score) SELECT g, (g::bigint * 7919) % 1000003
FROM generate_series(1, $1::int) g
""", """
INSERT INTO user_weekly_scores (week, user_id, score)
SELECT date_trunc('week', clock_timestamp() AT TIME ZONE 'UTC')::date, g, (g::bigint * 7919) % 1009
FROM generate_series(1, $1::int) g
"""
_SIZE = """
SELECT pg_total_relation_size('users') + pg_total_relation_size('user_total_scores')
       + pg_total_relation_size('user_weekly_scores')
"""


def _rebuilt(target: Server) -> float:
    """CPU seconds of a rebuild: of the process that makes it, and of the store, which take turns."""

    def used() -> float:
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        return ended.ru_utime + ended.ru_stime + cpu_seconds(target.store_pid)

    before = used()
    target.rebuild()
    return used() - before


async def _players() -> dict[str, float]:
    with server() as target:
        connection = await asyncpg.connect(target.database_url)
        with redis.Redis.from_url(target.dragonfly_url) as keys:
            empty_s = min(_rebuilt(target) for _ in range(ROUNDS))
            memory = int(keys.info("memory")["used_memory"])
            size = await connection.fetchval(_SIZE)
            for statement in _FILL:
                await connection.execute(statement, MANY, timeout=600)
            took = min(_rebuilt(target) for _ in range(ROUNDS))
            weight = int(keys.info("memory")["used_memory"]) - memory
        disk = await connection.fetchval(_SIZE) - size
        await connection.close()
    return {
        "player_store_bytes": weight / MANY,
        "player_ledger_bytes": disk / MANY,
        "rebuild_us": (took - empty_s) / MANY * 1e6,
    }


# The tables --------------------------------------------------------------------------------------------------------


@contextmanager
def _folder() -> Any:
    with tempfile.TemporaryDirectory(prefix="realtime-capacity-") as name:
        yield Path(name)


def measured() -> Costs:
    """What each costs, on this machine."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        submitted, played = runner.run(_submissions()), runner.run(_players())
    with _folder() as folder:
        viewed = _viewers(folder)
    return Costs(**viewed, **submitted, **played)


WORDS = {
    "delivery_us": ("one more frame to one more viewer, server CPU", "µs"),
    "change_server_us": ("one change of a board in a process, before anybody is written to, server CPU", "µs"),
    "change_store_us": ("one more process that reads a changed board, store CPU", "µs"),
    "process_store_us": ("one process that shows nothing, a second, store CPU", "µs"),
    "diff_bytes": ("a diff of five changed scores, compressed, as it arrives", "bytes"),
    "connection_us": ("a viewer who comes and gets the board, server CPU", "µs"),
    "viewer_kib": ("an idle viewer, memory of the process", "KiB"),
    "kernel_kib": ("an idle viewer, memory of the system", "KiB"),
    "submission_server_us": ("a submission in lists of 1,000, server CPU", "µs"),
    "submission_ledger_us": ("the same, PostgreSQL's CPU", "µs"),
    "submission_store_us": ("the same, store CPU", "µs"),
    "submission_wal_bytes": ("the same, write-ahead log", "bytes"),
    "submission_log_bytes": ("the same, log of transactions with its indexes", "bytes"),
    "player_store_bytes": ("a player on two boards with the name, memory of the store", "bytes"),
    "player_ledger_bytes": ("the same, disk of PostgreSQL", "bytes"),
    "rebuild_us": ("the same, CPU of a rebuild: of the process that makes it and of the store, which take turns", "µs"),
}
"""What each figure is, and its unit."""


def tables(costs: Costs) -> list[Table]:
    """The costs, and the plan that they make."""
    each = Table("What one costs", ("figure", "what it is", "measured", "unit"))
    for name, (words, unit) in WORDS.items():
        each.add(name, words, f"{getattr(costs, name):.4g}", unit)
    plans = Table("What that makes of machines", ("case", "what", "number", "rests on"))
    for number in plan.everything(costs):
        plans.add(*number)
    return [each, plans]


def run() -> list[Table]:
    """The tables of this benchmark."""
    return tables(measured())


def costs_of(page: str) -> Costs:
    """The costs that the page shows."""
    rows = re.findall(r"<tr><td><code>(\w+)</code></td><td>[^<]*</td><td class=\"n\">([\d.e+]+)</td>", page)
    return Costs(**{name: float(value) for name, value in rows})


def rows_of(costs: Costs) -> str:
    """The rows of the page's first table."""
    return "\n".join(
        f'<tr><td><code>{name}</code></td><td>{html.escape(words)}</td><td class="n">{getattr(costs, name):.4g}</td>'
        f"<td>{unit}</td></tr>"
        for name, (words, unit) in WORDS.items()
    )


def plan_of(costs: Costs) -> str:
    """The rows of the page's second table."""
    lines, before = [], ""
    for number in plan.everything(costs):
        if number.case != before:
            before = number.case
            lines.append(f'<tr><th colspan="3" scope="rowgroup">{html.escape(number.case)}</th></tr>')
        lines.append(
            f'<tr><td>{html.escape(number.what)}</td><td class="n">{html.escape(number.value)}</td>'
            f"<td>{html.escape(number.rests_on)}</td></tr>"
        )
    return "\n".join(lines)


def written(page: str, costs: Costs, where: str) -> str:
    """The page with these figures."""
    for name, rows in (("costs-measured", rows_of(costs)), ("plan-reckoned", plan_of(costs))):
        page, count = re.subn(rf'(<tbody id="{name}">\n).*?(</tbody>)', rf"\g<1>{rows}\n\g<2>", page, flags=re.DOTALL)
        assert count == 1, name
    return re.sub(r'(<span id="machine">).*?(</span>)', rf"\g<1>{html.escape(where)}\g<2>", page)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", action="store_true", help="put the tables into web/docs/scaling.html")
    found = measured()
    for table in tables(found):
        table.show()
    if parser.parse_args().page:
        # By what the page shows, and not by what lies behind it: whoever reads it can reckon it again.
        shown = written(PAGE.read_text(encoding="utf-8"), found, machine())
        PAGE.write_text(written(shown, costs_of(shown), machine()), encoding="utf-8")
