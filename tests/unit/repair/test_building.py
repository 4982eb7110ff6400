"""Building: in which order its steps come, and how it leaves room for others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime

import pytest

from realtime.errors import LedgerUnavailable, StoreUnavailable
from realtime.ledger.builds import Build, Chunk, Lacking, Overflow, Retired, Rule
from realtime.repair import building as module
from realtime.repair.building import BUSY_CHUNK_S, CHUNK_S, FIRST, LEAST, MOST, REST, Building, Pace

SUM = Rule(7, 2, "sprint", "sum", False, ["all_time"])
BEST = Rule(8, 3, "best", "best", False, ["all_time"])


class Steps:
    """Ledger, builds and store in one, which remember what was asked of them."""

    def __init__(self, heads: int = 3, rules: Sequence[Rule] = (SUM,)) -> None:
        self.asked: list[str] = []
        self.left = {rule.id: rule for rule in rules}
        self.heads = heads
        self.done = 0
        self.lease = True
        self.writers_left = 0
        self.to_clear: list[Retired] = []
        self.rows = 0
        self.unmarked = 0
        self.raises: list[Exception] = []
        self.untold: list[str] = []
        self.more: list[Build] = []

    @asynccontextmanager
    async def build_lease(self) -> AsyncIterator[bool]:
        yield self.lease

    async def waiting(self) -> list[Build]:
        return self.more + ([Build(2, "sprint", 1, [], {})] if self.left else [])

    async def writers(self, known: list[str] | None = None) -> list[str]:
        self.asked.append("writers")
        self.writers_left -= 1
        return ["9/1"] if self.writers_left >= 0 else []

    async def begin(self, build: Build) -> tuple[int, int]:
        self.asked.append("begin")
        build.rules = list(self.left.values())
        return self.done, self.heads

    async def refresh(self, build: Build) -> None:
        build.rules = list(self.left.values())

    async def make_windows(self, build: Build, moments: Sequence[datetime]) -> None:
        self.asked.append("windows")

    async def chunk(self, build: Build, after: int, limit: int) -> Chunk:
        if self.raises:
            raise self.raises.pop(0)
        if self.done == self.heads:
            return Chunk(None, 0, 0)
        self.asked.append("chunk")
        self.done += 1
        return Chunk(self.done, 1, 0)

    async def fail(self, rule: Rule, why: str) -> None:
        self.asked.append(f"fail {rule.slug}")
        del self.left[rule.id]

    async def prepare(self, rules: Iterable[Rule]) -> None:
        pass

    async def show(self, build: Build, rule: Rule) -> bool:
        if self.unmarked:
            self.unmarked -= 1
            self.heads += 1
            return False
        self.asked.append(f"show {rule.slug}")
        del self.left[rule.id]
        return True

    async def behind(self) -> list[str]:
        return self.untold

    async def catch_up(self, slug: str) -> None:
        self.asked.append(f"catch up {slug}")
        self.untold.remove(slug)

    async def retired(self) -> list[Retired]:
        return self.to_clear

    async def clear(self, retired: Retired) -> bool:
        self.asked.append("clear")
        self.rows -= 1
        return self.rows >= 0

    async def forget(self, retired: Retired) -> None:
        self.asked.append("forget")

    async def bury(self, retired: Retired) -> None:
        self.asked.append("bury")
        self.to_clear.remove(retired)

    async def clear_dropped(self) -> bool:
        return False


def building_of(steps: Steps) -> Building:
    return Building(steps, steps, steps)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE", 0)
    monkeypatch.setattr(module, "INTERVAL", 0)


async def test_the_walk_begins_once_older_writers_have_ended_and_ends_before_anything_is_shown() -> None:
    steps = Steps(rules=(SUM, BEST))
    steps.writers_left = 2
    steps.untold = ["other"]
    assert await building_of(steps).step()
    assert steps.asked == [
        "catch up other", "begin", "writers", "writers", "writers", "chunk", "chunk", "chunk", "show sprint",
        "show best",
    ]  # fmt: skip


async def test_windows_that_are_missing_are_made_and_the_walk_goes_on() -> None:
    steps = Steps()
    steps.raises = [Lacking([datetime(2026, 1, 1, tzinfo=UTC)])]
    await building_of(steps).step()
    assert steps.asked[2:] == ["windows", "chunk", "chunk", "chunk", "show sprint"]


async def test_standings_that_cannot_be_made_keep_no_others_from_being_made() -> None:
    steps = Steps(rules=(SUM, BEST))
    steps.raises = [Overflow(SUM, "Too much.")]
    building = building_of(steps)
    await building.step()
    assert steps.asked[2:] == ["fail sprint", "chunk", "chunk", "chunk", "show best"]
    assert (building.built, building.failed) == (1, 1)


async def test_what_always_fails_keeps_nothing_else_waiting_and_rests_longer_each_time() -> None:
    steps = Steps()
    poison = Build(9, "poison", 1, [], {})
    steps.more = [poison]
    begin, tried = steps.begin, 0

    async def failing(build: Build) -> tuple[int, int]:
        nonlocal tried
        if build is not poison:
            return await begin(build)
        tried += 1
        raise StoreUnavailable("its partition is away")

    steps.begin = failing  # type: ignore[method-assign]
    building = building_of(steps)
    with pytest.raises(StoreUnavailable):
        await building.step(0.0)
    assert steps.asked[-1] == "show sprint", "others are done all the same"
    when = []
    for second in range(1, 16):
        with suppress(StoreUnavailable):
            before = tried
            assert not await building.step(float(second))
        if tried > before:
            when.append(second)
    assert when == [1, 3, 7, 15]
    poison.round += 1
    with pytest.raises(StoreUnavailable):
        await building.step(16.0)
    assert tried == 6, "what is wanted now has not failed yet"


async def test_heads_that_came_unmarked_are_walked_before_standings_are_shown() -> None:
    steps = Steps()
    steps.unmarked = 2
    await building_of(steps).step()
    assert steps.asked.count("chunk") == 5 and steps.asked[-1] == "show sprint"


async def test_without_windows_of_its_own_there_is_nothing_to_walk() -> None:
    steps = Steps(rules=(SUM._replace(kinds=[]),))
    await building_of(steps).step()
    assert "chunk" not in steps.asked and steps.asked[-1] == "show sprint"


async def test_one_process_builds_at_a_time() -> None:
    steps = Steps()
    steps.lease = False
    assert not await building_of(steps).step()
    assert steps.asked == []


async def test_what_is_no_more_is_cleared_away_bit_by_bit_and_forgotten_at_last() -> None:
    steps = Steps(rules=())
    steps.to_clear = [Retired(5, 2, 2, "sprint", "sprint", None, False)]
    steps.rows = 2
    building = building_of(steps)
    while await building.step():
        pass
    assert steps.asked == ["clear", "clear", "clear", "forget", "bury"]


async def test_it_goes_on_after_an_outage_and_looks_at_once_when_it_is_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "INTERVAL", 3600)
    steps = Steps(rules=())
    steps.raises = [LedgerUnavailable("away")]
    building = building_of(steps)
    running = asyncio.ensure_future(building.run())
    await asyncio.sleep(0)
    assert steps.asked == []
    steps.left = {SUM.id: SUM}
    async with asyncio.timeout(10):
        while steps.left:
            building.hurry()
            await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait([running])
    assert steps.asked.count("begin") == 2, "the first was broken off"


# Pace ----------------------------------------------------------------------------------------------------------------


def test_alone_it_takes_as_many_players_as_fit_into_a_transaction_and_rests_not() -> None:
    pace = Pace()
    for _ in range(20):
        assert pace.take(CHUNK_S / 10, Chunk(1, pace.size, 5)) == 0
    assert pace.size == MOST
    assert pace.take(CHUNK_S * 2, Chunk(1, MOST, 5)) == 0
    assert pace.size == MOST // 2


def test_while_scores_come_in_it_takes_less_and_rests_longer_than_it_worked() -> None:
    pace = Pace()
    assert pace.take(CHUNK_S, Chunk(1, FIRST, 100)) == 0
    assert pace.take(CHUNK_S, Chunk(1, FIRST, 101)) == pytest.approx(CHUNK_S * REST)
    assert pace.size == int(FIRST * BUSY_CHUNK_S / CHUNK_S)
    for number in range(50):
        pace.take(60, Chunk(1, 1, 102 + number))
    assert pace.size == LEAST, "a player who sent millions takes what they take"


def test_a_last_chunk_that_was_not_full_says_nothing_about_the_size() -> None:
    pace = Pace()
    pace.take(0.001, Chunk(1, 3, 5))
    assert pace.size == FIRST
