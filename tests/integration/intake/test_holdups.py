"""Locks of somebody else's: only the submissions that meet one wait for it, and none for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from realtime.boards.submissions import Accepted, Outcome, Rejected, Submission
from realtime.intake import holdups
from realtime.intake.batching import Batching
from realtime.intake.holdups import Holdups, Player, Waiting
from realtime.intake.intake import Intake
from realtime.ledger.ledger import Ledger
from realtime.store.store import Store
from tests.support.closed_weeks import views_of
from tests.support.databases import MakeUsers
from tests.support.waiting import PATIENCE, eventually


@pytest.fixture
async def lanes(dsn: str) -> AsyncIterator[Ledger]:
    """A ledger as a server has it: with connections that only record."""
    opened = Ledger(dsn, connections=5, lanes=2)
    await opened.open()
    yield opened
    await opened.aclose()


@pytest.fixture
async def intake(lanes: Ledger, store: Store) -> AsyncIterator[Intake]:
    amend = views_of(lanes, store).amend
    made = Intake(lanes, store, amend, lanes.clock.now, batching=Batching(lanes=2), limit=1_000)
    task = asyncio.create_task(made.run())
    yield made
    task.cancel()
    await asyncio.wait([task])


def send(intake: Intake, user_id: int, name: str) -> asyncio.Future[Outcome]:
    answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    intake.submit(Submission(user_id, name, 1, None, None), answer.set_result)
    return answer


async def accepted(*answers: asyncio.Future[Outcome]) -> None:
    async with asyncio.timeout(PATIENCE):
        assert [type(outcome) for outcome in await asyncio.gather(*answers)] == [Accepted] * len(answers)


async def held(intake: Intake, count: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while intake.waiting != count:  # noqa: ASYNC110 - it is another process that holds it up
            await asyncio.sleep(0.01)


@asynccontextmanager
async def lock(dsn: str, statement: str, *args: object) -> AsyncIterator[None]:
    """Somebody else's transaction, open for the block."""
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction():
            await connection.execute(statement, *args)
            yield
    finally:
        await connection.close()


LOCKS = {
    "a total": "SELECT FROM user_total_scores WHERE user_id = $1 FOR UPDATE",
    "a week's score": "SELECT FROM user_weekly_scores WHERE user_id = $1 FOR UPDATE",
    "a total that is just being made": "INSERT INTO user_total_scores (user_id, total_score) VALUES ($1, 5)",
    "a score under the same id": "INSERT INTO user_score_transactions (user_id, submission_id, score_added, created_at)"
    " VALUES ($1, 'a', 1, now())",
}


@pytest.mark.parametrize("kind", LOCKS)
async def test_only_the_player_whose_row_is_locked_waits(
    intake: Intake, dsn: str, make_users: MakeUsers, kind: str
) -> None:
    locked, *others = await make_users(40)
    known = others if "made" in kind or "id" in kind else [locked, *others]
    await accepted(*(send(intake, user, "first") for user in known))
    async with lock(dsn, LOCKS[kind], locked):
        together = [send(intake, user, "a") for user in (*others, locked)]
        await accepted(*together[:-1])
        await held(intake, 1)
        later = [send(intake, user, "b") for user in (locked, *others)]
        await accepted(*later[1:])
        assert not together[-1].done() and not later[0].done()
    await accepted(later[0])
    async with asyncio.timeout(PATIENCE):
        assert isinstance(await together[-1], Accepted)
    assert intake.waiting == 0


async def test_a_lock_that_stays_costs_its_player_an_answer_in_the_end_and_nobody_else(
    intake: Intake, dsn: str, make_users: MakeUsers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holdups, "PATIENCE", 0.5)
    locked, other = await make_users(2)
    await accepted(send(intake, locked, "first"))
    async with lock(dsn, LOCKS["a total"], locked):
        waiting = send(intake, locked, "a"), send(intake, locked, "a")
        async with asyncio.timeout(PATIENCE):
            outcomes = await asyncio.gather(*waiting)
        assert [outcome.code for outcome in outcomes if isinstance(outcome, Rejected)] == ["unavailable"] * 2
        assert all(outcome.retry_after_ms for outcome in outcomes if isinstance(outcome, Rejected))
        await accepted(send(intake, other, "a"))
    await accepted(send(intake, locked, "a"))


async def test_a_locked_table_holds_everybody_up_and_lets_them_go(
    intake: Intake, dsn: str, make_users: MakeUsers
) -> None:
    users = await make_users(20)
    async with lock(dsn, "LOCK TABLE user_total_scores IN SHARE MODE"):
        answers = [send(intake, user, "a") for user in users]
        await held(intake, len(users))
    await accepted(*answers)


async def test_what_waits_for_a_lock_when_the_server_ends_is_answered(
    intake: Intake, dsn: str, make_users: MakeUsers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holdups, "PATIENCE", 0.5)
    (locked,) = await make_users(1)
    await accepted(send(intake, locked, "first"))
    async with lock(dsn, LOCKS["a total"], locked):
        answer = send(intake, locked, "a")
        async with asyncio.timeout(PATIENCE):
            await intake.drain()
        assert answer.done()


async def test_no_more_wait_for_a_lock_than_the_queue_holds(
    lanes: Ledger, store: Store, dsn: str, make_users: MakeUsers
) -> None:
    (locked,) = await make_users(1)
    small = Intake(lanes, store, views_of(lanes, store).amend, lanes.clock.now, batching=Batching(), limit=10)
    task = asyncio.create_task(small.run())
    await accepted(send(small, locked, "first"))
    async with lock(dsn, LOCKS["a total"], locked):
        first = send(small, locked, "a")
        await held(small, 1)
        more = [send(small, locked, str(number)) for number in range(12)]
        refused = [answer.result() for answer in more if answer.done()]
        assert [outcome.code for outcome in refused if isinstance(outcome, Rejected)] == ["overloaded"] * 3
    await accepted(first, *(answer for answer in more[:9]))
    task.cancel()
    await asyncio.wait([task])


async def test_reads_that_take_every_connection_leave_intake_its_own(
    intake: Intake, lanes: Ledger, make_users: MakeUsers
) -> None:
    (user,) = await make_users(1)
    async with asyncio.TaskGroup() as group:
        reading = [group.create_task(_read(lanes)) for _ in range(20)]
        await asyncio.sleep(0)
        await accepted(*(send(intake, user, str(number)) for number in range(10)))
        await lanes.health.beat()
        assert lanes.clock.uncertainty < 5, "nor does what time it is wait for one"
        assert not any(task.done() for task in reading)
        for task in reading:
            task.cancel()


async def _read(ledger: Ledger) -> None:
    async with ledger.connection() as connection:
        await connection.fetchval("SELECT pg_sleep(8)")


async def test_a_part_of_what_waited_that_fails_keeps_no_other_from_its_answer(
    lanes: Ledger, store: Store, dsn: str, make_users: MakeUsers, monkeypatch: pytest.MonkeyPatch
) -> None:
    (locked,) = await make_users(1)
    batching = Batching(lanes=2, largest=2)
    small = Intake(lanes, store, views_of(lanes, store).amend, lanes.clock.now, batching=batching, limit=100)
    task = asyncio.create_task(small.run())
    await accepted(send(small, locked, "first"))
    async with lock(dsn, LOCKS["a total"], locked):
        answers = [send(small, locked, str(number)) for number in range(6)]
        await eventually(lambda: small._holdups.count == 6)
        record_batch = lanes.record_batch

        async def failing(*args: Any, **options: Any) -> Any:
            monkeypatch.undo()
            raise ZeroDivisionError

        monkeypatch.setattr(lanes, "record_batch", failing)
    async with asyncio.timeout(PATIENCE):
        outcomes = await asyncio.gather(*answers)
    assert [type(outcome) for outcome in outcomes] == [Rejected] * 2 + [Accepted] * 4
    assert lanes.record_batch == record_batch, "it failed once"
    task.cancel()
    await asyncio.wait([task])


async def test_what_waited_is_answered_where_its_recording_is_given_up(
    lanes: Ledger, store: Store, make_users: MakeUsers, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = await make_users(5)
    batching = Batching(lanes=2, largest=2)
    small = Intake(lanes, store, views_of(lanes, store).amend, lanes.clock.now, batching=batching, limit=100)
    outcomes: list[Outcome] = []
    began = asyncio.Event()

    async def endless(*args: Any, **options: Any) -> Any:
        began.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(lanes, "record_batch", endless)
    waited = [(Submission(user, "a", 1, None, None), outcomes.append, 0.0) for user in users]
    recording = asyncio.create_task(small._process_held(waited))
    async with asyncio.timeout(PATIENCE):
        await began.wait()
        recording.cancel()
        await asyncio.wait([recording])
    assert [outcome.code for outcome in outcomes if isinstance(outcome, Rejected)] == ["unavailable"] * 5


async def test_an_end_while_what_waited_is_recorded_waits_for_its_answers(
    lanes: Ledger, store: Store, dsn: str, make_users: MakeUsers, monkeypatch: pytest.MonkeyPatch
) -> None:
    (locked,) = await make_users(1)
    small = Intake(lanes, store, views_of(lanes, store).amend, lanes.clock.now, batching=Batching(lanes=2), limit=100)
    task = asyncio.create_task(small.run())
    await accepted(send(small, locked, "first"))
    record_batch, recording, go_on = lanes.record_batch, asyncio.Event(), asyncio.Event()

    async def slow(*args: Any, **options: Any) -> Any:
        recording.set()
        await go_on.wait()
        return await record_batch(*args, **options)

    async with lock(dsn, LOCKS["a total"], locked):
        answer = send(small, locked, "a")
        await eventually(lambda: small._holdups.count == 1)
        monkeypatch.setattr(lanes, "record_batch", slow)
    async with asyncio.timeout(PATIENCE):
        await recording.wait()
        draining = asyncio.create_task(small.drain())
        await asyncio.wait([draining], timeout=2 * holdups.LOOK)
        assert not draining.done() and not answer.done()
        go_on.set()
        await draining
    await accepted(answer)
    task.cancel()
    await asyncio.wait([task])


async def test_what_cannot_be_looked_after_is_answered_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong in between."""
    monkeypatch.setattr(holdups, "LOOK", 0.001)
    monkeypatch.setattr(holdups, "PATIENCE", 0.2)
    refused: list[Waiting] = []
    failures = 3

    async def locked(players: object) -> set[Player]:
        nonlocal failures
        if failures:
            failures -= 1
            raise ZeroDivisionError
        return {Player.of(waiting[0])}

    async def record(batch: object) -> None:
        raise AssertionError("they are locked")

    waiting = (Submission(7, "a", 1, None, None), lambda outcome: None, asyncio.get_running_loop().time())
    kept = Holdups(locked, record, refused.append)
    kept.take(waiting)
    assert waiting[0] in kept and kept.count == 1
    async with asyncio.timeout(PATIENCE):
        while not refused:  # noqa: ASYNC110 - a fifth of a second
            await asyncio.sleep(0.01)
    assert refused == [waiting] and kept.count == 0 and waiting[0] in kept
    kept.close()
    assert not kept
