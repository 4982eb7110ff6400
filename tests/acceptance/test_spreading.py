"""Viewers spread over processes: as they come, and again after a process was started anew."""

from __future__ import annotations

import os
import signal

import psutil
import pytest

from tests.support.clients import asking, metrics
from tests.support.crowd import players
from tests.support.processes import environment, running
from tests.support.servers import SECRET
from tests.support.waiting import eventually

PROCESSES = 4
VIEWERS = 2_000
MEAN = VIEWERS / PROCESSES


def clients_by_process(parent: int, port: int) -> list[int]:
    """How many connections each serving process has."""
    found = []
    for child in psutil.Process(parent).children():
        there = child.net_connections("tcp")
        found.append(sum(1 for one in there if one.status == "ESTABLISHED" and one.laddr.port == port))
    return found


@pytest.fixture
def serving(dsn: str, store_url: str, filled: None) -> dict[str, str]:
    return environment(
        DATABASE_URL=dsn, DRAGONFLY_URL=store_url, REALTIME_SECRET=SECRET, REALTIME_PORT="0", REALTIME_DRAIN_S="0",
        REALTIME_MAX_CONNECTIONS_PER_ADDRESS="0",
    )  # fmt: skip


async def test_viewers_are_even_as_they_come_and_again_after_a_process_was_killed(serving: dict[str, str]) -> None:
    async with running("serve", "--processes", str(PROCESSES), env=serving) as command:
        url = await command.says("ready:")
        port = int(url.rsplit(":", 1)[1])

        def counts() -> list[int]:
            return clients_by_process(command.pid, port)

        async with players(url) as people:
            await people.fill(VIEWERS)
            print("as they came:", came := counts())
            assert max(came) - min(came) < 0.2 * MEAN, "half of what chance alone gives at times"
            victim = psutil.Process(command.pid).children()[0].pid
            os.kill(victim, signal.SIGKILL)
            await command.says("another takes its place", errors=True)

            def is_even() -> bool:
                now = counts()
                all_are_there = len(now) == PROCESSES and sum(now) >= VIEWERS
                return all_are_there and max(now) < 1.25 * MEAN and min(now) > 0.5 * MEAN

            await eventually(is_even)
            print("after the kill:", counts())
            report = await people.report()
            assert report["viewers"] == VIEWERS
            async with asking(url) as http:

                async def moved() -> float:
                    return metrics((await http.get("/metrics")).text)["realtime_moved_total"]

                print("asked to move:", await moved())
        assert await command.stop() == 0
