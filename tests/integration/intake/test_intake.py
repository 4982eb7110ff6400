"""Intake: every submission is answered once, with what is true, and nothing acknowledged is lost on the way out."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis

from realtime.boards.board import ALL_TIME, Board, week_at
from realtime.boards.parsing import parse_definition
from realtime.boards.standings import Row
from realtime.boards.submissions import Accepted, Outcome, Rejected, Submission
from realtime.errors import PartlyTold, StoreUnavailable
from realtime.intake import intake as module
from realtime.intake.batching import Batching
from realtime.intake.intake import AMENDED_AT_ONCE, STORING, Intake
from realtime.ledger.ledger import Ledger
from realtime.repair.rebuild import Rebuilder
from realtime.store.filling import Filling
from realtime.store.store import Store
from tests.support.closed_weeks import views_of
from tests.support.databases import Databases, MakeUsers
from tests.support.keys import scores_key
from tests.support.leaderboards import catalogue_of, define
from tests.support.stores import PrivateStore, make_ours
from tests.support.waiting import PATIENCE, eventually


class Counter:
    """How many statements there were, and how large."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, size: int, seconds: float) -> None:
        self.sizes.append(size)


def made(
    ledger: Ledger,
    store: Store,
    amend: Callable[[Collection[Board]], Awaitable[None]] | None = None,
    *,
    limit: int = 20_000,
    batching: Batching | None = None,
) -> Intake:
    amend = amend or views_of(ledger, store).amend
    return Intake(ledger, store, amend, ledger.clock.now, batching=batching or Batching(), limit=limit)


@asynccontextmanager
async def running(intake: Intake) -> AsyncIterator[Intake]:
    task = asyncio.get_running_loop().create_task(intake.run())
    try:
        yield intake
    finally:
        task.cancel()
        await asyncio.wait([task])


@pytest.fixture
async def intake(ledger: Ledger, store: Store) -> AsyncIterator[Intake]:
    async with running(made(ledger, store)) as working:
        yield working


def send(intake: Intake, user_id: int, name: str, score: int = 1, **fields: Any) -> asyncio.Future[Outcome]:
    """Hands in; the future fails where there is a second answer."""
    return hand_in(intake, Submission(user_id, name, score, fields.get("reason"), fields.get("at")))


def hand_in(intake: Intake, submission: Submission) -> asyncio.Future[Outcome]:
    answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    intake.submit(submission, answer.set_result)
    return answer


async def outcome_of(answer: asyncio.Future[Outcome]) -> Outcome:
    async with asyncio.timeout(PATIENCE):
        return await answer


async def outcomes_of(answers: list[asyncio.Future[Outcome]]) -> list[Outcome]:
    async with asyncio.timeout(PATIENCE):
        return await asyncio.gather(*answers)


def codes(outcomes: list[Outcome]) -> list[str]:
    return [
        outcome.code if isinstance(outcome, Rejected) else "duplicate" if outcome.duplicate else "accepted"
        for outcome in outcomes
    ]


async def test_one_score_goes_all_the_way(
    intake: Intake, keys: Redis, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    (user,) = await make_users(names=["Ω"])
    assert await outcome_of(send(intake, user, "a", 100, reason="win")) == Accepted("a", user, 100, 100, False)
    await intake.drain()
    assert await keys.zscore(scores_key(ALL_TIME), user) == 100
    assert await keys.hget(f"leaderboard:users:{user}", "username") == "Ω"
    assert await sql.fetchval("SELECT count(*) FROM outbox") == 0
    assert intake.live and intake.waiting == 0


async def test_alone_nothing_waits_and_under_load_statements_grow(
    ledger: Ledger,
    store: Store,
    sql: asyncpg.Connection,
    keys: Redis,
    make_users: MakeUsers,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "STORING", 3_000)  # however slow this machine is, the store does not hang
    users = await make_users(50)
    intake = made(ledger, store)
    intake.on_batch = statements = Counter()
    chance = random.Random(1)
    async with running(intake):
        await outcome_of(send(intake, users[0], "first"))
        assert statements.sizes == [1], "at once, with whatever there is"
        sent = [send(intake, chance.choice(users), str(number), number % 7) for number in range(3_000)]
        assert set(codes(await outcomes_of(sent))) == {"accepted"}
        await intake.drain()
    assert sum(statements.sizes) == 3_001
    assert len(statements.sizes) <= 10, statements.sizes
    assert max(statements.sizes) <= 1_000
    totals = {str(row[0]): row[1] for row in await sql.fetch("SELECT user_id, total_score FROM user_total_scores")}
    assert sum(totals.values()) == 1 + sum(number % 7 for number in range(3_000))
    assert dict(await keys.zrange(scores_key(ALL_TIME), 0, -1, withscores=True)) == totals
    week = week_at(ledger.clock.now())
    assert dict(await keys.zrange(scores_key(week), 0, -1, withscores=True)) == totals


async def test_the_same_id_in_one_batch_counts_once(
    intake: Intake, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    user, other = await make_users(2)
    answers = [send(intake, user, "a", 5), send(intake, user, "a", 5), send(intake, other, "a", 5)]
    answers += [send(intake, user, "a", 6), send(intake, user, "a", 5, reason="other")]
    outcomes = await outcomes_of(answers)
    assert codes(outcomes) == ["accepted", "duplicate", "accepted", "submission_conflict", "submission_conflict"]
    assert outcomes[0] == Accepted("a", user, 5, 5, False) and outcomes[1] == Accepted("a", user, 5, 5, True)
    assert await sql.fetchval("SELECT count(*) FROM user_score_transactions") == 2


async def test_the_same_id_while_the_first_is_still_on_its_way_counts_once(
    dsn: str, store: Store, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    """From four processes at once."""
    users = await make_users(10)
    ledgers = [Ledger(dsn) for _ in range(4)]
    for ledger in ledgers:
        await ledger.open()
    intakes = [made(ledger, store, batching=Batching(20, 2, 1)) for ledger in ledgers]
    tasks = [asyncio.get_running_loop().create_task(intake.run()) for intake in intakes]
    sent = {(user, str(name)): [] for user in users for name in range(20)}
    chance = random.Random(2)
    for intake in intakes:
        for user, name in chance.sample(sorted(sent), len(sent)):
            sent[user, name].append(send(intake, user, name, 3))
    for key, answers in sent.items():
        outcomes = codes(await outcomes_of(answers))
        assert sorted(outcomes) == ["accepted", "duplicate", "duplicate", "duplicate"], key
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    rows = await sql.fetch("SELECT total_score FROM user_total_scores")
    assert [row[0] for row in rows] == [60] * 10
    for ledger in ledgers:
        await ledger.aclose()


async def test_an_id_whose_first_try_was_refused_is_free_also_in_the_same_batch(
    intake: Intake, make_users: MakeUsers
) -> None:
    """Nothing stands under that id, so the second is no conflict: its sender would give up a score for nothing."""
    (user,) = await make_users(1)
    answers = [
        send(intake, user, "a", 5, at=datetime(2999, 1, 1, tzinfo=UTC)),
        send(intake, user, "a", 5),
        send(intake, user, "a", 5),
        send(intake, user, "a", 6),
    ]
    outcomes = await outcomes_of(answers)
    assert codes(outcomes) == ["out_of_range", "accepted", "duplicate", "submission_conflict"]


async def test_a_flood_under_one_id_costs_two_statements(intake: Intake, make_users: MakeUsers) -> None:
    (user,) = await make_users(1)
    await outcome_of(send(intake, user, "a", 5))
    intake.on_batch = statements = Counter()
    outcomes = codes(await outcomes_of([send(intake, user, "a", score) for score in range(100, 900)]))
    assert set(outcomes) == {"submission_conflict"}
    assert len(statements.sizes) <= 3


async def test_the_moment_may_be_left_out_when_a_score_is_sent_again(intake: Intake, make_users: MakeUsers) -> None:
    (user,) = await make_users(1)
    at = datetime(2026, 3, 2, tzinfo=UTC)
    together = [send(intake, user, "a", 5, at=at), send(intake, user, "a", 5), send(intake, user, "a", 5, at=at)]
    assert codes(await outcomes_of(together)) == ["accepted", "duplicate", "duplicate"]
    alone = [codes([await outcome_of(send(intake, user, "a", 5, **fields))]) for fields in ({}, {"at": at})]
    assert alone == [["duplicate"], ["duplicate"]]


async def test_a_bad_row_is_answered_alone(intake: Intake, sql: asyncpg.Connection, make_users: MakeUsers) -> None:
    users = await make_users(20)
    answers = [send(intake, user, "a", 5) for user in users]
    answers.insert(7, send(intake, 10**9, "a", 5))
    outcomes = codes(await outcomes_of(answers))
    assert outcomes.pop(7) == "unknown_user"
    assert set(outcomes) == {"accepted"}
    assert await sql.fetchval("SELECT count(*) FROM user_score_transactions") == 20


async def test_beyond_the_limit_one_is_told_when_to_come_again(
    ledger: Ledger, store: Store, make_users: MakeUsers
) -> None:
    (user,) = await make_users(1)
    intake = made(ledger, store, limit=5)
    answers = [send(intake, user, str(number)) for number in range(8)]
    assert intake.waiting == 5
    assert not intake.room(1)
    for answer in answers[5:]:
        refused = answer.result()
        assert isinstance(refused, Rejected) and refused.code == "overloaded"
        assert refused.retry_after_ms is not None and 100 <= refused.retry_after_ms <= 5_000
    assert not answers[0].done()
    async with running(intake):
        assert codes(await outcomes_of(answers[:5])) == ["accepted"] * 5
        assert codes(await outcomes_of([send(intake, user, "5")])) == ["accepted"], "under the same id, later"


async def test_leaving_records_and_answers_what_is_left(
    ledger: Ledger, store: Store, sql: asyncpg.Connection, keys: Redis, make_users: MakeUsers
) -> None:
    users = await make_users(10)
    intake = made(ledger, store, batching=Batching(10, 1, 1))
    task = asyncio.get_running_loop().create_task(intake.run())
    await asyncio.sleep(0)
    answers = [send(intake, user, str(number)) for user in users for number in range(10)]
    task.cancel()
    await asyncio.wait([task])
    assert all(answer.done() for answer in answers)
    assert set(codes([answer.result() for answer in answers])) == {"accepted"}
    assert await sql.fetchval("SELECT count(*) FROM user_score_transactions") == 100
    assert await keys.zcard(scores_key(ALL_TIME)) == 10
    assert await sql.fetchval("SELECT count(*) FROM outbox") == 0, "and what the store has is owed by nobody"


class SlowStore(Store):
    """A store that is told nothing until `go_on` is set."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.go_on = asyncio.Event()
        self.asked = 0

    async def apply(self, *args: Any, **options: Any) -> int:
        self.asked += 1
        await self.go_on.wait()
        return await super().apply(*args, **options)


async def test_leaving_tells_a_slow_store_all_batches_however_many_are_on_their_way(
    ledger: Ledger, store_url: str, sql: asyncpg.Connection, keys: Redis, make_users: MakeUsers
) -> None:
    users = await make_users(3 * STORING)
    store = SlowStore(store_url)
    await make_ours(store)
    try:
        intake = made(ledger, store, batching=Batching(1, 1, 1))
        async with running(intake):
            answers = [send(intake, user, "while serving") for user in users]
            assert set(codes(await outcomes_of(answers))) == {"accepted"}
            assert store.asked == STORING, "while it serves, the sweeper gets what comes beside a store that hangs"
            store.go_on.set()
            await intake.drain()
            store.go_on.clear()
            for user in users:
                send(intake, user, "at the end", 2)

            async def is_recorded() -> bool:
                recorded = await sql.fetchval("SELECT count(*) FROM user_score_transactions") == 6 * STORING
                if recorded:
                    store.go_on.set()
                return bool(recorded)

            telling = asyncio.get_running_loop().create_task(eventually(is_recorded))
        await telling
        assert store.asked == 4 * STORING
        assert dict(await keys.zrange(scores_key(ALL_TIME), 0, -1, withscores=True)) == {str(user): 3 for user in users}
        left = await sql.fetchval("SELECT count(*) FROM outbox")
        assert left == 2 * STORING, "which the sweeper finds: the end adds nothing to it"
    finally:
        store.go_on.set()
        await store.aclose()


async def test_a_ledger_that_is_away_is_told_at_once_and_needs_no_restart(
    dsn: str, databases: Databases, store: Store, make_users: MakeUsers
) -> None:
    (user,) = await make_users(1)
    ledger = Ledger(dsn)
    await ledger.open()
    name = dsn.rpartition("/")[2]
    try:
        async with running(made(ledger, store)) as intake:
            await outcome_of(send(intake, user, "before"))
            admin = await asyncpg.connect(databases.url_of("postgres"))
            try:
                kill = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
                await admin.execute(kill)
                await admin.execute(f'ALTER DATABASE "{name}" RENAME TO "{name}_away"')
                for attempt in range(4):
                    refused = await outcome_of(send(intake, user, "meanwhile"))
                    assert isinstance(refused, Rejected) and refused.code == "unavailable", attempt
                    assert refused.retry_after_ms == 1_000
            finally:
                await admin.execute(f'ALTER DATABASE "{name}_away" RENAME TO "{name}"')
                await admin.close()
            assert codes([await outcome_of(send(intake, user, "meanwhile"))]) == ["accepted"]
    finally:
        await ledger.aclose()


async def test_a_store_that_is_away_holds_nobody_up_and_gets_it_later(
    ledger: Ledger, private_store: PrivateStore, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    (user,) = await make_users(1)
    store = Store(private_store.url, timeout=0.5)
    await make_ours(store)
    try:
        async with running(made(ledger, store)) as intake:
            await outcome_of(send(intake, user, "a", 1))
            await intake.drain()
            await asyncio.to_thread(private_store.kill)
            assert codes([await outcome_of(send(intake, user, "b", 2))]) == ["accepted"]
            await intake.drain()
            assert not intake.live
            assert await sql.fetchval("SELECT count(*) FROM outbox") == 1, "the sweeper will find it"
            await asyncio.to_thread(private_store.start)
            assert codes([await outcome_of(send(intake, user, "c", 4))]) == ["accepted"]
            await intake.drain()
            assert not intake.live, "it is another run: nothing is written until its content is ours"
            await Rebuilder(ledger, store, Filling(store.link), ledger.clock.now).rebuild()
            await outcome_of(send(intake, user, "d", 8))
            await intake.drain()
            assert intake.live
            assert (await store.read([ALL_TIME])).tops[0].scores == {user: 15}
    finally:
        await store.aclose()


async def nobody(boards: Collection[Board]) -> None:
    """There is no closed week to amend."""


class Told:
    """A store of which some partitions are away."""

    is_complete = True

    def __init__(self) -> None:
        self.away: set[str] = set()

    def is_complete_in(self, partition: str) -> bool:
        return True

    async def tell_each(self, rows: Mapping[Board, Sequence[Row]], *_: object, **__: object) -> dict[str, str | None]:
        names = {board.leaderboard.partition for board in rows}
        if self.away & names:
            raise PartlyTold("away", {name: "e" for name in names - self.away}, sorted(self.away & names))
        return dict.fromkeys(names, "e")


async def test_accepted_says_of_its_own_partition_alone_whether_boards_show_it(
    ledger: Ledger, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    await define(sql, *(parse_definition(slug, {"operator": "last"}) for slug in ("lap", "sprint")))
    directory = await catalogue_of(ledger)
    partitions = {slug: directory.current.leaderboard(slug).partition for slug in ("default", "lap", "sprint")}
    assert len(set(partitions.values())) == 3
    (user,) = await make_users(1)
    store, batching = Told(), Batching()
    working = Intake(ledger, store, nobody, ledger.clock.now, batching=batching, limit=9, directory=directory)
    async with running(working) as intake:

        async def live(name: str) -> dict[str, bool]:
            sent = [Submission(user, name, 1, None, None, slug) for slug in partitions]
            outcomes = await outcomes_of([hand_in(intake, one) for one in sent])
            assert codes(outcomes) == ["accepted"] * 3
            await intake.drain()
            return {slug: intake.is_live(outcome) for slug, outcome in zip(partitions, outcomes, strict=True)}

        assert await live("a") == {"default": True, "lap": True, "sprint": True}
        store.away = {partitions["lap"]}
        assert await live("b") == {"default": True, "lap": False, "sprint": True}
        assert await sql.fetchval("SELECT count(*) FROM outbox") == 1, "what the others have is done"
        store.away = {""}
        assert await live("c") == {"default": False, "lap": True, "sprint": True}
        store.away = set()
        assert await live("d") == {"default": True, "lap": True, "sprint": True}


class Hanging(Told):
    """A store of which some partitions do not answer, until `go_on` is set."""

    def __init__(self, *partitions: str) -> None:
        super().__init__()
        self.hanging = set(partitions)
        self.go_on = asyncio.Event()
        self.asked: list[set[str]] = []

    async def tell_each(self, rows: Mapping[Board, Sequence[Row]], *_: object, **__: object) -> dict[str, str | None]:
        names = {board.leaderboard.partition for board in rows}
        self.asked.append(names)
        if self.hanging & names:
            await self.go_on.wait()
        return dict.fromkeys(names, "e")


@pytest.mark.parametrize("together", [False, True], ids=["batches of its own", "batches of several"])
async def test_a_partition_that_hangs_holds_up_no_other(
    ledger: Ledger, sql: asyncpg.Connection, make_users: MakeUsers, monkeypatch: pytest.MonkeyPatch, together: bool
) -> None:
    monkeypatch.setattr(module, "HELD", 0.0)
    await define(sql, *(parse_definition(slug, {"operator": "last"}) for slug in ("lap", "sprint")))
    directory = await catalogue_of(ledger)
    lap = directory.current.leaderboard("lap").partition
    (user,) = await make_users(1)
    store = Hanging(lap)
    working = Intake(ledger, store, nobody, ledger.clock.now, batching=Batching(), limit=99, directory=directory)
    async with running(working) as intake:
        for number in range(STORING):
            slugs = ("lap", "sprint") if together else ("lap",)
            sent = [Submission(user, f"{number}", 1, None, None, slug) for slug in slugs]
            assert set(codes(await outcomes_of([hand_in(intake, one) for one in sent]))) == {"accepted"}
        assert sum(lap in names for names in store.asked) == STORING
        assert codes([await outcome_of(send(intake, user, "other"))]) == ["accepted"]
        await eventually(lambda: {""} in store.asked)
        if not together:
            assert codes([await outcome_of(hand_in(intake, Submission(user, "more", 1, None, None, "lap")))])
            assert sum(lap in names for names in store.asked) == STORING, "what hangs gets no more"
        store.go_on.set()
        await intake.drain()


async def test_a_store_that_hangs_keeps_no_batch_from_the_ledger(
    ledger: Ledger, private_store: PrivateStore, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    (user,) = await make_users(1)
    store = Store(private_store.url, timeout=1.0)
    await make_ours(store)
    try:
        async with running(made(ledger, store)) as intake:
            await outcome_of(send(intake, user, "a"))
            os.kill(private_store.running.pid, signal.SIGSTOP)
            try:
                began = asyncio.get_running_loop().time()
                for number in range(30):
                    assert codes([await outcome_of(send(intake, user, str(number)))]) == ["accepted"]
                took = asyncio.get_running_loop().time() - began
                assert took < 20.0, "one time-out each would be 30 s"
            finally:
                os.kill(private_store.running.pid, signal.SIGCONT)
        assert await sql.fetchval("SELECT total_score FROM user_total_scores") == 31
    finally:
        await store.aclose()


async def test_outbox_rows_go_with_the_next_batch_or_a_moment_later(
    intake: Intake, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    (user,) = await make_users(1)
    await outcome_of(send(intake, user, "a"))
    await intake.drain()
    await outcome_of(send(intake, user, "b"))

    async def is_cleared() -> bool:
        return await sql.fetchval("SELECT count(*) FROM outbox") == 0

    await eventually(is_cleared)


LONG_AGO = datetime(2021, 1, 3, 23, 59, 59, 999999, UTC)


async def test_what_changes_closed_weeks_is_amended_at_once_and_else_left_to_the_worker(
    ledger: Ledger, store: Store, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    (user,) = await make_users(1)
    amended: list[Collection[date | None]] = []
    trouble: list[Exception] = []
    go_on = asyncio.Event()

    async def amend(boards: Collection[Board]) -> None:
        amended.append([board.week for board in boards])
        await go_on.wait()
        if trouble:
            raise trouble.pop()

    last = datetime(2020, 12, 28).date()
    weeks = [last - timedelta(weeks=number) for number in range(AMENDED_AT_ONCE + 1)]
    await sql.execute("INSERT INTO closed_weeks (week, holds) SELECT unnest($1::date[]), 0", weeks)
    intake = made(ledger, store, amend)
    stored: list[float] = []
    intake.on_stored = stored.append
    async with running(intake):
        unclosed = send(intake, user, "z", 5, at=LONG_AGO - timedelta(weeks=60))
        assert codes([await outcome_of(unclosed)]) == ["accepted"]
        assert codes([await outcome_of(send(intake, user, "a", 5, at=LONG_AGO))]) == ["accepted"]
        await eventually(lambda: asyncio.sleep(0, amended))
        assert amended == [[last]], "what has no view yet needs none anew"
        # What comes meanwhile is the worker's, and so is what more weeks are changed by.
        stored.clear()
        assert codes([await outcome_of(send(intake, user, "b", 5, at=LONG_AGO - timedelta(weeks=1)))]) == ["accepted"]
        await eventually(lambda: asyncio.sleep(0, stored))
        go_on.set()
        await intake.drain()
        await outcomes_of([send(intake, user, f"c{n}", 1, at=LONG_AGO - timedelta(weeks=n)) for n in range(len(weeks))])
        await intake.drain()
        assert amended == [[last]]
        trouble.append(StoreUnavailable("away"))
        for name in ("d", "e"):
            await outcome_of(send(intake, user, name, 5, at=LONG_AGO))
            await intake.drain()
        assert amended == [[last]] * 3
    counted = await sql.fetch("SELECT week, changes FROM closed_weeks ORDER BY week DESC LIMIT 3")
    assert counted == [(weeks[0], 4), (weeks[1], 2), (weeks[2], 1)], "whoever amends them: they say what they lack"
    assert await sql.fetchval("SELECT count(*) FROM outbox") == 0
