"""Shared readings: many who ask at once are one reading, and nobody gets what was read before they asked."""

from __future__ import annotations

import asyncio

import pytest

from realtime.broadcast.shared_readings import SharedReadings


class Source:
    """Something that changes; each reading takes until it is let go, and gives what was there when it began."""

    def __init__(self) -> None:
        self.value = 0
        self.begun: list[asyncio.Future[None]] = []
        self.fails = False

    async def read(self) -> int:
        seen, gate = self.value, asyncio.get_running_loop().create_future()
        self.begun.append(gate)
        await gate
        if self.fails:
            raise ValueError(seen)
        return seen


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def readings() -> SharedReadings[str, int]:
    return SharedReadings()


async def test_who_asks_meanwhile_shares_the_next_reading_and_sees_what_was_written_before_they_asked(
    source: Source, readings: SharedReadings[str, int]
) -> None:
    first = asyncio.ensure_future(readings.read("a", source.read))
    await turns()
    source.value = 1
    others = [asyncio.ensure_future(readings.read("a", source.read)) for _ in range(100)]
    await turns()
    assert len(source.begun) == 1
    source.begun[0].set_result(None)
    assert await first == 0
    await turns()
    assert len(source.begun) == 2, "one for all hundred"
    source.value = 2
    late = asyncio.ensure_future(readings.read("a", source.read))
    await turns()
    source.begun[1].set_result(None)
    assert await asyncio.gather(*others) == [1] * 100
    await turns()
    source.begun[2].set_result(None)
    assert await late == 2
    assert not readings._under_way and not readings._next, "nothing is kept"


async def test_other_things_are_read_beside_it(source: Source, readings: SharedReadings[str, int]) -> None:
    both = [asyncio.ensure_future(readings.read(key, source.read)) for key in "ab"]
    await turns()
    assert len(source.begun) == 2
    for gate in source.begun:
        gate.set_result(None)
    await asyncio.gather(*both)


async def test_an_error_is_everybody_s_who_shared_it_and_the_next_reading_is_a_new_one(
    source: Source, readings: SharedReadings[str, int]
) -> None:
    source.fails = True
    asked = [asyncio.ensure_future(readings.read("a", source.read)) for _ in range(5)]
    for number in range(2):
        await turns()
        source.begun[number].set_result(None)
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(one, ValueError) for one in found)
    source.fails = False
    again = asyncio.ensure_future(readings.read("a", source.read))
    await turns()
    source.begun[2].set_result(None)
    assert await again == 0


async def test_who_goes_away_takes_the_reading_from_nobody(source: Source, readings: SharedReadings[str, int]) -> None:
    first, second, third = (asyncio.ensure_future(readings.read("a", source.read)) for _ in range(3))
    await turns()
    first.cancel()
    await turns()
    second.cancel()
    await turns()
    source.begun[1].set_result(None)
    assert await third == 0
