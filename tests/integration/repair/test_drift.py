"""Drift, on real stores: damage is found and healed, and a busy healthy store is never called wrong."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import pytest
import redis.asyncio

from realtime.boards import board as boards
from realtime.boards.board import ALL_TIME, Board, week_at, week_of
from realtime.boards.standings import Row
from realtime.boards.submissions import Submission
from realtime.errors import EpochMoved
from realtime.intake.recorder import Recorder
from realtime.ledger.closing import view_of
from realtime.ledger.ledger import Ledger
from realtime.repair import comparison, drift
from realtime.repair.comparison import Comparison, Finding, Kind
from realtime.repair.drift import SEARCH_AGAIN, SHOWN, Drift, Report, check
from realtime.repair.resync import Resync
from realtime.store import audit
from realtime.store.audit import Audit
from realtime.store.filling import Filling
from realtime.store.store import Store
from tests.support.closed_weeks import views_of
from tests.support.databases import MakeUsers
from tests.support.keys import EPOCH_KEY, cache_key, scores_key, user_key, versions_key
from tests.support.processes import environment, running
from tests.support.servers import SECRET, RunningServer
from tests.support.waiting import PATIENCE, eventually

Keys = redis.asyncio.Redis
SCORES, VERSIONS = scores_key(ALL_TIME), versions_key(ALL_TIME)


async def no_time(seconds: float) -> None:
    """Between two looks nothing need happen: order alone decides."""


async def soon(seconds: float) -> None:
    await asyncio.sleep(0.02)


class Scored:
    """Users with scores, in both stores, and ways to give them more."""

    def __init__(self, ledger: Ledger, store: Store, ids: list[int]) -> None:
        self.ledger = ledger
        self.store = store
        self.ids = ids
        self._recorder = Recorder(ledger)
        self._number = 0

    async def score(self, user_ids: Collection[int], points: int = 10, *, tell: bool = True) -> None:
        """Records a score of each, and brings it to the store (or, with `tell` false, dies before)."""
        batch: list[Submission] = []
        for user_id in user_ids:
            self._number += 1
            batch.append(Submission(user_id, f"s{self._number}", points, None, None))
        recorded = await self._recorder.record(batch)
        if tell:
            told = await self.store.tell(recorded.live_rows(self.ledger.clock.now()), recorded.profiles)
            self._recorder.told(recorded, {"": told})
            await self._recorder.clear()

    @property
    def comparison(self) -> Comparison:
        return Comparison(self.ledger, Audit(self.store), self.ledger.clock.now)

    def drift(self, sleep: Callable[[float], Awaitable[None]] = no_time) -> Drift:
        now = self.ledger.clock.now
        resync = Resync(self.ledger, self.store, now)
        return Drift(self.comparison, self.store, Audit(self.store), resync, now, sleep)

    async def check(self) -> dict[str, Report]:
        """Every live board's report, by id."""
        live = boards.live_boards(self.ledger.clock.now())
        return {board.id: await check(self.comparison, board, sleep=no_time) for board in live}

    async def differing(self) -> list[Finding]:
        return [finding for report in (await self.check()).values() for finding in report.shown]


@pytest.fixture
async def scored(ledger: Ledger, store: Store, make_users: MakeUsers) -> Scored:
    """A dozen users, with 10, 20, 30 ... points."""
    made = Scored(ledger, store, await make_users(12))
    for place, user_id in enumerate(made.ids, 1):
        await made.score([user_id], 10 * place)
    return made


Damage = Callable[[Keys, list[int]], Awaitable[Any]]

DAMAGES: dict[str, tuple[Damage, Kind]] = {
    "a score by hand": (lambda keys, ids: keys.zadd(SCORES, {str(ids[0]): 99_999}), Kind.OTHER),
    "a broken score by hand": (lambda keys, ids: keys.zadd(SCORES, {str(ids[0]): 10.5}), Kind.OTHER),
    "an endless score": (lambda keys, ids: keys.zadd(SCORES, {str(ids[0]): "inf"}), Kind.OTHER),
    "a place taken away": (lambda keys, ids: keys.zrem(SCORES, ids[3]), Kind.OTHER),
    "the whole board gone": (lambda keys, ids: keys.delete(SCORES), Kind.OTHER),
    "a version lost": (lambda keys, ids: keys.hdel(VERSIONS, str(ids[4])), Kind.OTHER),
    "all versions lost": (lambda keys, ids: keys.delete(VERSIONS), Kind.OTHER),
    "an older version": (lambda keys, ids: keys.hset(VERSIONS, str(ids[4]), "0"), Kind.OTHER),
    "a version that is no number": (lambda keys, ids: keys.hset(VERSIONS, str(ids[4]), "x"), Kind.STRAY),
    "a name by hand": (lambda keys, ids: keys.hset(user_key(ids[5]), "username", "evil"), Kind.OTHER),
    "a name that is no UTF-8": (lambda keys, ids: keys.hset(user_key(ids[5]), "username", b"\xff"), Kind.OTHER),
    "a hash lost": (lambda keys, ids: keys.delete(user_key(ids[6])), Kind.OTHER),
    "a hash of another type": (lambda keys, ids: _retype(keys, user_key(ids[6])), Kind.STRAY),
    "a hash's version that is no number": (
        lambda keys, ids: keys.hset(user_key(ids[6]), "version", "x"),
        Kind.STRAY,
    ),
    "somebody unknown": (lambda keys, ids: keys.zadd(SCORES, {"987654": 50}), Kind.STRAY),
    "no user at all": (lambda keys, ids: keys.zadd(SCORES, {"x\ny": 50, "007": 1}), Kind.STRAY),
    "a version of nobody": (lambda keys, ids: keys.hset(VERSIONS, "987654", "3"), Kind.STRAY),
}


async def _retype(keys: Keys, key: str) -> None:
    await keys.delete(key)
    await keys.set(key, "not ours")


@pytest.mark.every_store
@pytest.mark.parametrize("name", DAMAGES)
async def test_damage_is_found_and_healed(scored: Scored, keys: Keys, name: str) -> None:
    assert await scored.differing() == []
    damage, kind = DAMAGES[name]
    await damage(keys, scored.ids)
    found = await scored.differing()
    assert found and {finding.kind for finding in found} == {kind}
    assert all(str(finding).isprintable() for finding in found)
    drift = scored.drift()
    for _ in range(4):
        await drift.step()
    assert await scored.differing() == []
    assert drift.differing == 0, "nothing is left"
    assert drift.found == drift.repaired >= len(found)
    assert scored.store.distrusted is None
    scores = await keys.zrange(SCORES, 0, -1, withscores=True)
    assert sorted(scores) == sorted((str(user_id), 10 * place) for place, user_id in enumerate(scored.ids, 1))
    names = [await keys.hgetall(user_key(user_id)) for user_id in scored.ids]
    assert [name["username"] for name in names] == [f"player-{n}" for n in range(1, 13)]


async def test_of_the_week_as_well(scored: Scored, keys: Keys) -> None:
    week = week_at(scored.ledger.clock.now())
    await keys.zadd(scores_key(week), {str(scored.ids[0]): 5, "987654": 3})
    assert [(finding.board, finding.kind) for finding in await scored.differing()] == [
        (week, Kind.OTHER),
        (week, Kind.STRAY),
    ]
    await scored.drift().step()
    assert await scored.differing() == []
    assert await keys.exists(user_key(scored.ids[0])), "a stray of a week takes no name away"


async def test_what_is_healed_is_shown(
    server: RunningServer, make_users: MakeUsers, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    for pause in ("INTERVAL", "SECOND_LOOK"):
        monkeypatch.setattr(drift, pause, 0.05)
    first, second = await make_users(names=["Ann", "Bo"])
    headers = server.bearer(None, "submit:any")
    rows = [
        {"user_id": user_id, "submission_id": "a", "score_added": points}
        for user_id, points in ((first, 5), (second, 7))
    ]
    assert (await server.http.post("/scores", json=rows, headers=headers)).status_code == 200
    client = await server.client()
    await client.subscribe("all_time")
    await client.shows("all_time", [(second, "Bo", 7), (first, "Ann", 5)])
    # Nobody is told of this: the board moves when it is healed, for somebody may have read it meanwhile.
    for damage in (
        keys.zadd(SCORES, {str(first): 1_000}),
        keys.zrem(SCORES, second),
        keys.delete(user_key(first)),
        keys.hset(user_key(second), "username", "evil"),
        keys.zadd(SCORES, {"987654": 500}),
    ):
        before = client.follower.boards["all_time"].version
        await damage
        await client.reaches("all_time", before + 1)
        late = await server.client()
        await late.subscribe("all_time")
        await client.shows("all_time", [(second, "Bo", 7), (first, "Ann", 5)])
        await late.shows("all_time", [(second, "Bo", 7), (first, "Ann", 5)])


# What telling does not heal --------------------------------------------------------------------------------------


async def test_a_store_ahead_of_the_ledger_is_rebuilt(scored: Scored, sql: asyncpg.Connection) -> None:
    # As after the ledger went back to a backup.
    await sql.execute("UPDATE user_total_scores SET version = 0, total_score = 1 WHERE user_id = $1", scored.ids[2])
    (finding,) = await scored.differing()
    assert finding.kind is Kind.AHEAD
    drift = scored.drift()
    await drift.step()
    assert (scored.store.distrusted, drift.repaired, drift.found) == (scored.store.epoch, 0, 1)


async def test_a_key_of_another_type_is_rebuilt(scored: Scored, keys: Keys) -> None:
    await _retype(keys, SCORES)
    searching = asyncio.ensure_future(scored.drift(soon).run())
    try:
        await eventually(lambda: scored.store.distrusted is not None)
    finally:
        while not searching.done():  # wait_for of Python 3.11, inside redis-py, loses a cancellation now and then
            searching.cancel()
            await asyncio.wait({searching}, timeout=0.2)


async def test_nothing_is_compared_with_a_store_that_is_being_filled(scored: Scored) -> None:
    content = await scored.store.content()
    assert await Filling(scored.store.link).begin(content.run, content.run[:8] + "-9")
    with pytest.raises(EpochMoved):
        await scored.check()
    await scored.store.adopt()
    with pytest.raises(EpochMoved):
        await scored.check()


# No false alarm --------------------------------------------------------------------------------------------------


async def test_what_is_on_its_way_is_no_difference(scored: Scored) -> None:
    await scored.score(scored.ids[:3], tell=False)
    report = (await scored.check())["all_time"]
    assert (report.compared, report.differing, report.waiting) == (12, 0, 3)
    drift = scored.drift()
    await drift.step()
    assert (drift.differing, drift.found, drift.waiting) == (0, 0, 6), "all time and the week"


class Interrupted:
    """A ledger at which, before each reading of standings, something else happens."""

    def __init__(self, ledger: Ledger, before: Callable[[int], Awaitable[None]]) -> None:
        self._ledger = ledger
        self._before = before
        self.readings = 0

    def apart(self, sources: Collection[int]) -> Sequence[int]:
        return self._ledger.apart(sources)

    async def fetch(self, name: str, *args: Any, source: int = 1) -> list[Any]:
        return await self._ledger.fetch(name, *args, source=source)

    async def waiting_of(self, user_ids: Collection[int]) -> set[int]:
        return await self._ledger.waiting_of(user_ids)

    async def standings_of(self, user_ids: Collection[int], live: Sequence[Board]) -> dict[Board, list[Row]]:
        rows = await self._ledger.standings_of(user_ids, live)
        self.readings += 1
        await self._before(self.readings)
        return rows

    async def profiles_of(self, user_ids: Collection[int]) -> list[Any]:
        return await self._ledger.profiles_of(user_ids)


async def test_a_user_who_scores_between_the_readings_is_no_difference(scored: Scored) -> None:
    async def more(reading: int) -> None:
        await scored.score(scored.ids, 1)

    looking = Comparison(Interrupted(scored.ledger, more), Audit(scored.store), scored.ledger.clock.now)
    suspects = await looking.suspects(ALL_TIME, scored.ids)
    assert suspects == scored.ids, "the first look cannot tell"
    assert await looking.confirmed(ALL_TIME, suspects) == []


async def test_a_player_who_appears_between_the_readings_is_no_stray(scored: Scored, make_users: MakeUsers) -> None:
    newcomers = await make_users(names=["late", "later"])

    async def more(reading: int) -> None:
        if reading == 1:
            await scored.score(newcomers)

    looking = Comparison(Interrupted(scored.ledger, more), Audit(scored.store), scored.ledger.clock.now)
    assert await looking.confirmed(ALL_TIME, newcomers) == []


async def test_real_drift_of_a_busy_user_is_found_all_the_same(scored: Scored, keys: Keys) -> None:
    """The store stays behind while the ledger moves on: nothing is on its way, and nothing comes."""
    await scored.score(scored.ids[:1], 1)
    await keys.hset(VERSIONS, str(scored.ids[0]), "1")
    await keys.zadd(SCORES, {str(scored.ids[0]): 3})

    async def others(reading: int) -> None:
        await scored.score(scored.ids[1:], 1)

    looking = Comparison(Interrupted(scored.ledger, others), Audit(scored.store), scored.ledger.clock.now)
    assert [finding.user_id for finding in await looking.confirmed(ALL_TIME, scored.ids)] == [scored.ids[0]]


async def test_under_load_nothing_is_found(scored: Scored) -> None:
    chance = random.Random(7)
    stop = asyncio.Event()

    async def play() -> None:
        while not stop.is_set():
            await scored.score(chance.sample(scored.ids, 4), chance.randrange(1, 9))

    players = [asyncio.ensure_future(play()) for _ in range(3)]
    drift = scored.drift()
    rounds = waiting = 0
    async with asyncio.timeout(PATIENCE):
        while rounds < 25:
            for board in boards.live_boards(scored.ledger.clock.now()):
                report = await check(scored.comparison, board, sleep=soon)
                assert report.differing == 0, report.shown
                waiting += report.waiting
            await drift.step()
            rounds += 1
    stop.set()
    await asyncio.gather(*players)
    assert drift.found == 0
    assert await scored.differing() == []


# Pages, windows, counts ------------------------------------------------------------------------------------------


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "PAGE", 3)
    monkeypatch.setattr("realtime.repair.drift.PAGE", 3)
    monkeypatch.setattr("realtime.repair.drift.SUSPECTS", 4)


async def test_a_check_goes_through_every_page_both_ways(scored: Scored, keys: Keys, small_pages: None) -> None:
    for user_id in scored.ids[::2]:
        await keys.zincrby(SCORES, 1, str(user_id))
    await keys.zadd(SCORES, {f"9{n:05}": n for n in range(40)})
    report = (await scored.check())["all_time"]
    assert (report.compared, report.differing) == (12, 46)
    assert len(report.shown) == SHOWN


async def test_the_window_comes_round_to_everybody(
    scored: Scored, keys: Keys, small_pages: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "TOP", 1)
    await keys.zadd(SCORES, {str(scored.ids[4]): 1, str(scored.ids[10]): 2})
    drift = scored.drift()
    found = []
    for _ in range(5):
        await drift.step()
        found.append(drift.found)
    assert found == [0, 1, 1, 2, 2], "three users a step, round and round"


async def test_another_number_of_players_starts_a_search_of_its_own(
    scored: Scored, keys: Keys, small_pages: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "TOP", 1)
    drift = scored.drift()
    await drift.step()
    await drift.count(0.0)
    await keys.zrem(SCORES, scored.ids[7])
    await drift.count(10.0)
    assert (drift.found, drift.repaired) == (1, 1)
    assert await scored.differing() == []
    await keys.zrem(SCORES, scored.ids[7])
    await drift.count(20.0)
    assert drift.found == 1, "not again so soon: the window gets there"
    await drift.count(11.0 + SEARCH_AGAIN)
    assert drift.found == 2


# The command -----------------------------------------------------------------------------------------------------


CLOSED = ["closed weeks: 0 compared, 0 differences.", "log: every user's weeks added up, 0 differences."]


async def test_the_command_compares_closed_weeks_with_what_was_recorded(
    ledger: Ledger, store: Store, keys: Keys, dsn: str, store_url: str, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    users = await make_users(3)
    monday = datetime.fromisoformat("2026-03-02T00:00:00+00:00")
    weeks = [week_of((monday + timedelta(weeks=n)).date()) for n in range(5)]
    batch = [Submission(user, week.id, 5, None, week.starts) for user in users for week in weeks]
    await ledger.record_batch(batch, [])
    archive = views_of(ledger, store).archive
    for week in weeks:
        await archive.snapshot(week)
    await sql.execute("DELETE FROM outbox")
    # Everything by the hands of others, but for the last, which is on its way.
    changed = "UPDATE user_weekly_scores SET score = 6 WHERE week = $1 AND user_id <> $2"
    await sql.execute(changed, weeks[1].week, users[0])
    await sql.execute(f"DROP MATERIALIZED VIEW {view_of(weeks[2])}")
    cached = str(await keys.get(cache_key(weeks[3])))
    await keys.set(cache_key(weeks[3]), cached.replace('"score":5', '"score":4', 1))
    await ledger.record_batch([Submission(users[0], "late", 1, None, weeks[4].starts)], [])
    await Resync(ledger, store, ledger.clock.now).users(users)
    variables = {"DATABASE_URL": dsn, "DRAGONFLY_URL": store_url, "REALTIME_SECRET": SECRET}
    async with running("check", program=[sys.executable, "-m", "realtime"], env=environment(**variables)) as command:
        assert await command.ends() == 1
    assert command.lines[2:] == [
        "closed weeks: 5 compared, 3 differences, 1 on their way.",
        f"  {weeks[1].id} is wrong about 2 users.",
        f"  {weeks[2].id} is wrong about 3 users.",
        f"  {weeks[3].id} is wrong about 1 user.",
        "log: every user's weeks added up, 2 differences.",
        "A worker repairs this, or `realtime rebuild`.",
        "Scores were changed behind the server's back: nothing repairs that.",
    ]


async def test_the_command_prints_what_differs_and_ends_with_1(
    scored: Scored, keys: Keys, dsn: str, store_url: str
) -> None:
    variables = {"DATABASE_URL": dsn, "DRAGONFLY_URL": store_url, "REALTIME_SECRET": SECRET}

    async def checked(*, errors: bool = False) -> tuple[int, list[str]]:
        program = [sys.executable, "-m", "realtime"]
        async with running("check", program=program, env=environment(**variables)) as command:
            return await command.ends(), command.errors if errors else command.lines

    week = week_at(scored.ledger.clock.now()).id
    assert await checked() == (
        0,
        ["all_time: 12 users compared, 0 differences.", f"{week}: 12 users compared, 0 differences.", *CLOSED],
    )
    await keys.zadd(SCORES, {str(scored.ids[0]): 11, "x": 5})
    await scored.score(scored.ids[3:5], tell=False)
    code, lines = await checked()
    assert code == 1
    user, stray = f"  all_time, user {scored.ids[0]}: ", "  all_time, member 'x': "
    assert lines == [
        "all_time: 12 users compared, 2 differences, 2 on their way.",
        f"{week}: 12 users compared, 0 differences, 2 on their way.",
        *CLOSED,
        user + "PostgreSQL has 10 (version 1), the store 11 (version 1), which differs.",
        stray + "PostgreSQL has nobody like that, the store 5 (version none), which should not be there.",
        "A worker repairs this, or `realtime rebuild`.",
    ]

    healed = "a server or worker that runs makes it anew, or `realtime rebuild`"
    await keys.set(SCORES, "no board")
    code, lines = await checked(errors=True)
    said = f"realtime: The store cannot be used: something else wrote under the leaderboard's keys; {healed}"
    assert (code, lines[-1]) == (1, said), "in our words, not the store's"
    await keys.delete(EPOCH_KEY)
    code, lines = await checked(errors=True)
    assert (code, lines[-1]) == (1, f"realtime: The store cannot be used: its content is not complete; {healed}")
    variables["DRAGONFLY_URL"] = "redis://127.0.0.1:1/0"
    code, lines = await checked(errors=True)
    assert code == 1 and "onnect" in lines[-1], "that it is away is all that can be said"


def test_a_closed_week_is_none_of_our_business() -> None:
    now = datetime.fromisoformat("2026-11-23T00:01:59+00:00")
    assert [board.id for board in boards.live_boards(now)] == ["all_time", "week_of_2026_11_23", "week_of_2026_11_16"]
