"""Builds without a store: standings are shown where the ledger says so.

As a program it builds until nothing waits, and may be killed at any point: `python -m tests.support.building URL`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable

from realtime.ledger.builds import Build, Builds, Retired, Rule
from realtime.ledger.ledger import Ledger
from realtime.repair.building import Building


class InTheLedger:
    """Shows standings to whoever asks the ledger."""

    def __init__(self, builds: Builds) -> None:
        self._builds = builds

    async def prepare(self, rules: Iterable[Rule]) -> None:
        """Nobody has anything of before."""

    async def show(self, build: Build, rule: Rule) -> bool:
        return await self._builds.switch(build, rule)

    async def behind(self) -> list[str]:
        return await self._builds.untold()

    async def catch_up(self, slug: str) -> None:
        """Nobody need be told."""

    async def forget(self, retired: Retired) -> None:
        """Nobody was told."""


def building_of(ledger: Ledger) -> Building:
    builds = Builds(ledger)
    return Building(ledger, builds, InTheLedger(builds))


async def build_all(ledger: Ledger) -> None:
    """Builds until nothing waits."""
    builds, building = Builds(ledger), building_of(ledger)
    while await builds.waiting():
        await building.step()


async def main(dsn: str) -> None:
    ledger = Ledger(dsn, connections=2)
    await ledger.open()
    print("building", flush=True)
    await build_all(ledger)
    await ledger.aclose()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
