"""The commands that look at a deployment from outside: top and doctor.

Owns how they look, and their exit codes. Must never change anything. Assumes that `top` reads what every process shows
to Prometheus, and that `server.diagnosis` knows what to look at.
"""

from __future__ import annotations

import http.client
import json
import time
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from realtime.cli.application import DEFAULT_DATA_DIR, DataDir, cli, gathered, run, say
from realtime.dev import instance
from realtime.errors import StartupError
from realtime.metrics import samples
from realtime.server.diagnosis import Finding, diagnose
from realtime.settings import STORES, Settings

SIGNS: Final = {"ok": ("ok", "green"), "warning": ("warning", "yellow"), "wrong": ("wrong", "red")}

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
"""Values by name and labels."""


# doctor ----------------------------------------------------------------------------------------------------------


@cli.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Look whether this deployment can do what it promises, and say what to do; exit code 1 where it cannot.

    A warning is no failure.
    """
    console = Console(highlight=False, soft_wrap=True)
    worst = False

    def show(found: Finding) -> None:
        nonlocal worst
        worst = worst or found.verdict == "wrong"
        if as_json:
            say(json.dumps(found._asdict()))
            return
        sign, colour = SIGNS[found.verdict]
        line = Text.assemble((f"{sign:<8}", colour), (f"{found.about}: ", "bold"), found.said)
        console.print(line)
        if found.remedy:
            console.print(Text(f"{'':<8}{found.remedy}", style="dim"))

    async def work(settings: Settings) -> None:
        async for found in diagnose(settings):
            show(found)

    try:
        settings = Settings.load(gathered(data_dir)[0], STORES)
    except StartupError as error:
        for line in str(error).splitlines()[1:] or [str(error)]:
            show(Finding("wrong", "Settings", line.strip(), "See web/docs/settings.html, or `realtime settings`."))
    else:
        show(Finding("ok", "Settings", "every variable is understood"))
        run(work(settings))
    if worst:
        raise typer.Exit(1)


# top -------------------------------------------------------------------------------------------------------------


@cli.command()
def top(
    address: Annotated[
        str | None, typer.Argument(help="Where a server answers. [default: the development instance]")
    ] = None,
    every: Annotated[float, typer.Option(min=0.2, help="Seconds between two looks.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Look twice, a second apart, and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a look.")] = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Watch boards, viewers, submissions, lag and stores live, of all processes on a port together."""
    url = address or _address_of(data_dir)
    before, at = scraped(url), time.monotonic()
    if once:
        every = 1.0

    def look() -> dict[str, Any]:
        nonlocal before, at
        time.sleep(every)
        after, now = scraped(url), time.monotonic()
        seen = summary(before, after, now - at)
        before, at = after, now
        return seen

    try:
        if as_json or once:
            while True:
                seen = look()
                if as_json:
                    say(json.dumps(seen))
                else:
                    Console(highlight=False).print(drawn(url, seen))
                if once:
                    return
        with Live(Text(f"{url}: looking"), refresh_per_second=4, screen=True) as live:
            while True:
                live.update(drawn(url, look()))
    except KeyboardInterrupt:
        return


def _address_of(data_dir: Path) -> str:
    found = instance.address_of(data_dir)
    if found is None:
        raise StartupError("No server is known here: give its address, as in `realtime top http://127.0.0.1:8000`.")
    return found


def scraped(url: str) -> Samples:
    """What `/metrics` of a server shows now. Raises StartupError where it shows none."""
    parts = urlsplit(url if "//" in url else f"http://{url}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise StartupError(f"{url!a} is no address of a server: write it as http://127.0.0.1:8000.")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    try:
        connection = kind(parts.hostname, parts.port, timeout=10)
        try:
            connection.request("GET", f"{parts.path.rstrip('/').removesuffix('/metrics')}/metrics")
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
    except (OSError, http.client.HTTPException, UnicodeDecodeError) as error:
        raise StartupError(f"No server answers at {url}: {error}.") from None
    if answer.status != 200 or "realtime_" not in text:
        raise StartupError(f"{url} shows no metrics of this program (status {answer.status}).")
    return samples(text)


def summary(before: Samples, after: Samples, seconds: float) -> dict[str, Any]:
    """What an operator wants to know of two looks: rates a second between them, and figures of the second."""

    def values(of: Samples, name: str) -> dict[str, float]:
        found = [(labels, value) for (there, labels), value in of.items() if there == f"realtime_{name}"]
        return {labels[0][1] if labels else "": value for labels, value in found}

    def now(name: str) -> float:
        return sum(values(after, name).values())

    def by(name: str) -> dict[str, float]:
        return {label: value for label, value in values(after, name).items() if value}

    def rates(name: str) -> dict[str, float]:
        was = values(before, name)
        found = {label: (value - was.get(label, 0.0)) / seconds for label, value in values(after, name).items()}
        return {label: round(value, 1) for label, value in found.items() if value > 0}

    def rate(name: str) -> float:
        return round(sum(rates(name).values()), 1)

    def quantile(name: str, share: float) -> float | None:
        return _quantile(_grown(f"realtime_{name}_bucket", before, after), share)

    def ms(name: str) -> dict[str, float | None]:
        found = {"p50": quantile(name, 0.5), "p99": quantile(name, 0.99)}
        return {key: None if value is None else round(value * 1_000, 1) for key, value in found.items()}

    return {
        "connections": now("connections"),
        "boards_followed": now("boards_followed"),
        "followers": by("followers"),
        "behind": now("behind"),
        "live": now("live"),
        "accepted_a_second": rates("accepted_total"),
        "waiting": now("submissions_waiting"),
        "deliveries_a_second": rate("deliveries_total"),
        "delivered_bytes_a_second": rate("delivered_bytes_total"),
        "refusals_a_second": rates("refusals_total"),
        "submission_to_diff_ms": ms("submit_to_diff_seconds"),
        "commit_ms": ms("commit_seconds"),
        "store_ms": ms("store_seconds"),
        "loop_lag_ms": ms("loop_lag_seconds"),
        "outbox": {"rows": now("outbox_rows"), "age_seconds": round(now("outbox_age_seconds"), 1)},
        "database_away": now("database_away"),
        "store_refused": by("store_refused"),
        "partitions_incomplete": now("store_partitions_incomplete"),
        "drift": now("drift"),
        "builds_waiting": now("builds_waiting"),
    }


def _grown(name: str, before: Samples, after: Samples) -> list[tuple[float, float]]:
    """By how much each bucket of a histogram grew: (upper bound, count)."""
    of = [(labels, value) for (found, labels), value in after.items() if found == name]
    grown = [(float(dict(labels)["le"]), value - before.get((name, labels), 0.0)) for labels, value in of]
    return sorted(grown)


def _quantile(buckets: list[tuple[float, float]], share: float) -> float | None:
    """The upper bound of the bucket that holds the quantile; None where nothing was counted, infinity left out."""
    total = buckets[-1][1] if buckets else 0.0
    if not total:
        return None
    bound = next(bound for bound, count in buckets if count >= share * total)
    return bound if bound != float("inf") else buckets[-2][0]


def drawn(url: str, seen: dict[str, Any]) -> Group:
    """One look, for a terminal."""
    stores = [
        f"PostgreSQL away in {seen['database_away']:g}" if seen["database_away"] else "PostgreSQL answers",
        f"store refused: {', '.join(seen['store_refused'])}" if seen["store_refused"] else "store in use",
    ]
    if seen["partitions_incomplete"]:
        stores.append(f"{seen['partitions_incomplete']:g} partitions incomplete")
    if seen["builds_waiting"]:
        stores.append(f"{seen['builds_waiting']:g} standings being made")
    figures = Table.grid(padding=(0, 2))
    latency, lag = seen["submission_to_diff_ms"], seen["loop_lag_ms"]
    megabytes = seen["delivered_bytes_a_second"] / 1e6
    for name, value in (
        ("viewers", f"{seen['connections']:,.0f} connections, {seen['boards_followed']:,.0f} boards followed"),
        ("behind", f"{seen['behind']:,.0f}"),
        ("submissions", f"{sum(seen['accepted_a_second'].values()):,.1f} a second, {seen['waiting']:,.0f} waiting"),
        ("deliveries", f"{seen['deliveries_a_second']:,.0f} a second, {megabytes:,.2f} MB"),
        ("to diff", f"{_ms(latency['p50'])} / {_ms(latency['p99'])}   (p50 / p99, at most)"),
        ("loop lag", f"{_ms(lag['p50'])} / {_ms(lag['p99'])}"),
        ("outbox", f"{seen['outbox']['rows']:,.0f} rows, the oldest {seen['outbox']['age_seconds']:g} s"),
        ("refused", ", ".join(f"{code} {rate:g}/s" for code, rate in seen["refusals_a_second"].items()) or "nothing"),
        ("stores", "; ".join(stores)),
    ):
        figures.add_row(Text(name, style="bold"), value)
    boards = Table("leaderboard", "followers", "submissions a second", box=None, pad_edge=False)
    for slug in sorted(seen["followers"].keys() | seen["accepted_a_second"].keys()):
        followers, accepted = seen["followers"].get(slug, 0), seen["accepted_a_second"].get(slug, 0)
        boards.add_row(slug, f"{followers:,.0f}", f"{accepted:,.1f}")
    return Group(Text(url, style="bold"), figures, Text(""), boards)


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:g} ms"
