"""Whether a broadcast holds others back: submissions and health checks beside 10,000 subscribers, and beside 50,000.

`python -m tests.benchmarks fairness`. On one server, in windows that alternate: quiet, and with a board changing 20
times a second before everybody. All the while one socket submits scores of a player below the top, one after the
other, and /healthz is asked; both are timed. So many deliveries are more than one core can do: the server then sends
fewer, newer diffs, and the question is what is left for the others.

More sockets than a user may open files for are made up: in the second server each of 10,000 stands in five places of
the board's list, and every pass writes to all 50,000.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import uvloop

from realtime.broadcast.frame_cache import NOTHING_WRITTEN
from realtime.broadcast.streams import Stream
from realtime.broadcast.subscribers import Subscriber, Subscription
from realtime.cli.main import main as run_realtime
from tests.benchmarks.harness import Table
from tests.benchmarks.served import Served, audience, authenticated, built_floor, submitted

CLIENTS = 10_000
PLACES = 5
"""Of each client, in the second server."""

WINDOW = 4.0
WINDOWS = 3

_numbers = count()


async def _submissions(served: Served, until: float) -> list[float]:
    """Seconds each took, from sending it to its answer."""
    found: list[float] = []
    async with await authenticated(f"{served.ws_url}?token={served.token}") as socket:
        while time.monotonic() < until:
            began = time.perf_counter()
            await submitted(socket, f"f{next(_numbers)}", user_id=1)
            found.append(time.perf_counter() - began)
            await asyncio.sleep(0.02)
    return found


async def _health(served: Served, until: float) -> list[float]:
    """Seconds each answer took, on one kept connection."""
    found: list[float] = []
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    while time.monotonic() < until:
        began = time.perf_counter()
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(head.partition(b"content-length:")[2].partition(b"\r\n")[0]))
        found.append(time.perf_counter() - began)
        await asyncio.sleep(0.02)
    writer.close()
    return found


async def _window(served: Served, *, broadcasting: bool) -> tuple[list[float], list[float]]:
    until = time.monotonic() + WINDOW
    changing = served.changes(WINDOW) if broadcasting else asyncio.sleep(WINDOW)
    submissions, health, _ = await asyncio.gather(_submissions(served, until), _health(served, until), changing)
    return submissions, health


def _share(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def serve_in_many_places() -> None:
    """`realtime`, but each subscription stands in PLACES places of its stream's lists."""
    alone = Stream._append

    def append(stream: Stream, subscriber: Subscriber, alias: str) -> Subscription:
        for _ in range(1, PLACES):
            stream.subscriptions.append(Subscription(subscriber, stream, alias, len(stream.subscriptions)))
            stream.written.append(NOTHING_WRITTEN)
            stream.encodings.append(subscriber.connection.encoding)
            stream.descriptors.append(subscriber.connection.descriptor)
        return alone(stream, subscriber, alias)

    Stream._append = append  # type: ignore[method-assign]
    run_realtime()


def _beside(places: int, program: str) -> Table:
    found: dict[bool, tuple[list[float], list[float]]] = {False: ([], []), True: ([], [])}
    diffs = 0.0
    with (
        tempfile.TemporaryDirectory() as folder,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ExitStack() as stack,
    ):
        served = Served(stack, runner, program=program)
        stack.enter_context(audience(built_floor(Path(folder)), served.port, CLIENTS))
        served.wait_for("realtime_subscribers", places * CLIENTS)
        served.change(2.0)
        for _ in range(WINDOWS):
            for broadcasting, (submissions, health) in found.items():
                served.wait_idle()
                before = served.metrics()["realtime_deliveries_total"]
                times = runner.run(_window(served, broadcasting=broadcasting))
                submissions += times[0]
                health += times[1]
                diffs += served.metrics()["realtime_deliveries_total"] - before
    title = f"Beside a broadcast to {places * CLIENTS:,}, ms"
    table = Table(title, ("what", "quiet", "broadcasting", "beyond quiet"))
    for place, name in enumerate(("submission to its answer", "/healthz")):
        for words, share in (("median", 0.5), ("p99", 0.99)):
            quiet, busy = (_share(found[kind][place], share) * 1000 for kind in (False, True))
            table.add(f"{name}, {words}", quiet, busy, busy - quiet)
    table.add("diffs a second to each subscriber", 0, diffs / (places * CLIENTS) / (WINDOW * WINDOWS), "")
    return table


def run() -> list[Table]:
    """The tables of this benchmark."""
    return [_beside(1, "realtime"), _beside(PLACES, "tests.benchmarks.fairness")]


if __name__ == "__main__":
    serve_in_many_places()
