"""How evenly viewers are spread over processes: as they come, after one was killed, and once they have been moved.

`python -m tests.benchmarks spread`. Audiences that come back as the protocol asks, each to an address of the loopback
of its own (a client has some 28,000 ports to one), follow one board of a `realtime serve --processes 4`. Connections
are counted by the kernel (`/proc`), by process.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import psutil

from tests.benchmarks.harness import Table, server
from tests.support.processes import REALTIME

PROCESSES = 4
VIEWERS = int(os.environ.get("BENCH_SPREAD_VIEWERS", "40000"))
AN_AUDIENCE = 10_000
PATIENCE = 900.0
ROOT = Path(__file__).parents[2]


def _listening(children: list[psutil.Process]) -> list[int]:
    """Descriptors of sockets of each, less those that it had before anybody came."""
    return [len(list(Path(f"/proc/{child.pid}/fd").iterdir())) for child in children]


class _Served:
    def __init__(self, pid: int) -> None:
        self._parent = psutil.Process(pid)
        self._bare = min(_listening(self._parent.children()))  # connections to the stores come and go beside it

    def counts(self) -> list[int]:
        """Viewers of each process, and a few connections to the stores."""
        return [max(0, count - self._bare) for count in _listening(self._parent.children())]

    def kill_one(self) -> None:
        os.kill(self._parent.children()[0].pid, signal.SIGKILL)

    def until(self, holds: object, seconds: float = PATIENCE) -> float:
        """How long it took until `holds(counts)`."""
        began = time.monotonic()
        while not holds(self.counts()):  # type: ignore[operator]
            if time.monotonic() - began > seconds:
                print(f"after {seconds:.0f} s: {self.counts()}", flush=True)
                break
            time.sleep(0.5)
        return time.monotonic() - began


def _shown(counts: list[int]) -> str:
    return ", ".join(f"{count:,}" for count in sorted(counts))


def run() -> list[Table]:
    """The table of this benchmark."""
    table = Table(f"{VIEWERS:,} viewers of one board, {PROCESSES} processes", ("when", "by process", "seconds"))
    mean = VIEWERS / PROCESSES
    with ExitStack() as stack:
        beside = stack.enter_context(server(REALTIME_MOVE_A_SECOND="0"))  # it takes no part: nobody is led to it
        settings = {
            "REALTIME_HOST": "0.0.0.0", "REALTIME_PORT": "0", "REALTIME_MAX_CONNECTIONS_PER_ADDRESS": "0",
            "REALTIME_MAX_CONNECTIONS": "100000", "REALTIME_PING_INTERVAL_S": "120", "REALTIME_DRAIN_S": "0",
            "REALTIME_MOVE_A_SECOND": "30",
        }  # fmt: skip
        log = stack.enter_context(Path(beside.data_dir, "serve.log").open("w"))
        command = [*REALTIME, "serve", "--processes", str(PROCESSES), "--data-dir", str(beside.data_dir)]
        serving = subprocess.Popen(
            command, env={**beside.program.env, **settings}, stdout=subprocess.PIPE, stderr=log, text=True
        )
        stack.callback(serving.wait)
        stack.callback(serving.terminate)
        assert serving.stdout is not None
        port = next(line for line in serving.stdout if line.startswith("ready: ")).rsplit(":", 1)[1].strip()
        served = _Served(serving.pid)
        began = time.monotonic()
        for number in range(VIEWERS // AN_AUDIENCE):
            words = ["-m", "tests.support.audience", f"127.0.0.{number + 2}", port, str(AN_AUDIENCE)]
            audience = subprocess.Popen([sys.executable, *words], stdin=-1, stdout=subprocess.DEVNULL, cwd=ROOT)
            stack.callback(audience.wait)
            stack.callback(audience.kill)
        served.until(lambda counts: sum(counts) >= VIEWERS)
        table.add("as they came", _shown(served.counts()), time.monotonic() - began)
        served.kill_one()
        took = served.until(lambda counts: len(counts) == PROCESSES and sum(counts) >= VIEWERS)
        table.add("one was killed, and all are back", _shown(served.counts()), took)
        took = served.until(lambda counts: max(counts) < 1.25 * mean and min(counts) > 0.7 * mean)
        ended = Path(log.name).read_text().count("a serving process ended")
        if ended != 1:
            print(f"{ended} processes ended: {Path(log.name).read_text()[-4000:]}", flush=True)
        table.add("the others have sent on whom they had too many", _shown(served.counts()), took)
    return [table]


if __name__ == "__main__":
    for made in run():
        made.show()
