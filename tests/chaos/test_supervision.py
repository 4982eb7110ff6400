"""Supervision: a task that dies is started again, one that cannot be kept going ends its process and says so."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from realtime.errors import LedgerUnavailable, StoreUnavailable
from realtime.server import supervisor as supervision
from realtime.server.supervisor import Supervisor
from tests.support.processes import environment
from tests.support.servers import SECRET
from tests.support.waiting import PATIENCE


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(supervision, "LONGEST_PAUSE", 0.004)


async def test_a_task_that_dies_or_ends_is_started_again(hurried: None, caplog: pytest.LogCaptureFixture) -> None:
    began: list[float] = []
    well = asyncio.Event()

    async def run() -> None:
        began.append(asyncio.get_running_loop().time())
        if len(began) == 1:
            raise ValueError("a bug")
        if len(began) == 2:
            return
        well.set()
        await asyncio.Event().wait()

    supervisor = Supervisor(lambda name: pytest.fail(name))
    supervisor.start("poll", run)
    await asyncio.wait_for(well.wait(), 5)
    assert supervisor.restarts == 2
    assert ["a bug" in (record.exc_text or "") for record in caplog.records if record.message == "poll failed"] == [
        True
    ]
    assert [record for record in caplog.records if record.message == "poll ended by itself"]
    await supervisor.stop()
    assert len(began) == 3


async def test_pauses_grow_and_a_store_that_is_away_is_waited_for_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def measured(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    monkeypatch.setattr(supervision.asyncio, "sleep", measured)
    often = asyncio.Event()

    async def run() -> None:
        if len(pauses) > 5 * supervision.TOO_OFTEN:
            often.set()
            await asyncio.Event().wait()
        raise (StoreUnavailable if len(pauses) % 2 else LedgerUnavailable)("away")

    supervisor = Supervisor(lambda name: pytest.fail(name))
    supervisor.start("listen", run)
    await asyncio.wait_for(often.wait(), 5)
    await supervisor.stop()
    assert pauses[:4] == [0.2, 0.4, 0.8, 1.0] and max(pauses) == 1.0


async def test_one_that_cannot_be_kept_going_is_given_up(hurried: None) -> None:
    given_up: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    tries = 0

    async def run() -> None:
        nonlocal tries
        tries += 1
        raise ValueError("a bug that stays")

    supervisor = Supervisor(given_up.set_result)
    supervisor.start("sweeper", run)
    assert await asyncio.wait_for(given_up, 5) == "sweeper"
    await supervisor.stop()
    assert tries == supervision.TOO_OFTEN + 1


SABOTAGED = """
from realtime.broadcast.changes import Changes
from realtime.cli.main import main
from realtime.repair.sweeper import Sweeper
from realtime.server import supervisor
async def broken(self): raise ValueError("a bug that stays")
Sweeper.run = Changes.poll = broken
supervisor.FIRST_PAUSE = supervisor.LONGEST_PAUSE = 0.001
main()
"""


@pytest.mark.parametrize(("command", "task"), [("worker", "sweeper"), ("serve", "poll")])
async def test_a_process_whose_task_goes_on_failing_ends_and_its_last_line_says_why(
    command: str, task: str, dsn: str, store_url: str, filled: None
) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        SABOTAGED,
        command,
        env=environment(
            DATABASE_URL=dsn,
            DRAGONFLY_URL=store_url,
            REALTIME_SECRET=SECRET,
            REALTIME_PORT="0",
            REALTIME_DRAIN_S="0",
            REALTIME_RECONNECT_SPREAD_S="0",
        ),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(PATIENCE):
            _, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    lines = errors.decode().strip().splitlines()
    assert process.returncode == 1, errors.decode()
    assert lines[-1].startswith("realtime: ") and f"'{task}'" in lines[-1], lines[-3:]
    assert [line for line in lines if '"CRITICAL"' in line and task in line]
