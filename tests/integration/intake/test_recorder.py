"""Recording: a batch comes home whatever is in it, and the store is told what is true."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis

from realtime.boards.board import ALL_TIME, week_at
from realtime.boards.catalogue import Catalogue
from realtime.boards.standings import Profile
from realtime.boards.submissions import Accepted, Outcome, Rejected, Submission
from realtime.errors import LedgerUnavailable, StoreUnavailable, TransactionConflict
from realtime.intake.recorder import ATTEMPTS, Recorder
from realtime.intake.recording import Recording
from realtime.ledger.ledger import Ledger
from realtime.ledger.recorded import Recorded
from realtime.store.store import Store
from realtime.validation import TOTAL_MAX
from tests.support.databases import MakeUsers
from tests.support.keys import scores_key
from tests.support.stores import make_ours
from tests.support.waiting import PATIENCE


def submission(user_id: int, name: str, score: int = 1, at: datetime | None = None) -> Submission:
    return Submission(user_id, name, score, None, at)


def by_id(outcomes: Sequence[tuple[Submission, Outcome]]) -> dict[tuple[int, str], Outcome]:
    found = {(given.user_id, given.submission_id): outcome for given, outcome in outcomes}
    assert len(found) == len(outcomes), "each exactly once"
    return found


def owe(recorder: Recorder, outbox_id: int) -> None:
    """The store has heard of a row of the outbox, which a statement is to remove."""
    recording = Recording()
    recording.outbox[""] = [outbox_id]
    recorder.told(recording, {"": None})


class Beside(Ledger):
    """The real ledger, with something done before chosen statements: what a concurrent process might do."""

    def __init__(self, dsn: str) -> None:
        super().__init__(dsn)
        self.before: list[Any] = []
        self.statements = 0

    async def record_batch(self, batch: Sequence[Submission], cleared: Sequence[int], **options: Any) -> Recorded:
        self.statements += 1
        if self.before and (act := self.before.pop(0)) is not None:
            await act()
        return await super().record_batch(batch, cleared, **options)


@pytest.fixture
async def beside(dsn: str) -> Any:
    ledger = Beside(dsn)
    await ledger.open()
    yield ledger
    await ledger.aclose()


async def near_the_end(sql: asyncpg.Connection, user: int, room: int) -> None:
    """Leaves `room` points between the user's total and its bound."""
    await sql.execute("INSERT INTO user_total_scores (user_id, total_score) VALUES ($1, $2)", user, TOTAL_MAX - room)


async def test_rows_that_leave_the_range_together_are_answered_alone(
    beside: Beside, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    users = await make_users(40)
    rich = users[17]
    await near_the_end(sql, rich, 10)
    batch = [submission(user, "a", 7) for user in users] + [submission(rich, "b", 7)]
    outcomes = by_id((await Recorder(beside).record(batch)).outcomes)
    assert len(outcomes) == len(batch)
    refused = {key: outcome for key, outcome in outcomes.items() if isinstance(outcome, Rejected)}
    assert len(refused) == 1, "one of the two fits"
    ((user, _), outcome) = refused.popitem()
    assert user == rich
    assert outcome.code == "out_of_range" and outcome.retry_after_ms is None
    assert await sql.fetchval("SELECT count(*) FROM user_score_transactions") == 40
    assert await sql.fetchval("SELECT total_score FROM user_total_scores WHERE user_id = $1", rich) == TOTAL_MAX - 3
    assert beside.statements < 20, "found by halving, not one by one"


async def test_one_bad_row_in_a_thousand_costs_the_others_nothing(
    beside: Beside, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    users = await make_users(999)
    rich = users[500]
    await near_the_end(sql, rich, 0)
    # As this statement saw it there was room; by the time it adds, another has taken it.
    await sql.execute("UPDATE user_total_scores SET total_score = 0 WHERE user_id = $1", rich)

    async def another_takes_the_room() -> None:
        await sql.execute("UPDATE user_total_scores SET total_score = $2 WHERE user_id = $1", rich, TOTAL_MAX)

    beside.before = [another_takes_the_room]
    outcomes = by_id((await Recorder(beside).record([submission(user, "a") for user in users])).outcomes)
    assert [key for key, outcome in outcomes.items() if isinstance(outcome, Rejected)] == [(rich, "a")]
    assert await sql.fetchval("SELECT count(*) FROM user_score_transactions") == 998


REFUSALS = {
    "a trigger": (
        """CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN IF NEW.reason = 'odd' THEN RAISE EXCEPTION 'not this one'; END IF; RETURN NEW; END $$;
           CREATE TRIGGER refusing BEFORE INSERT ON user_score_transactions FOR EACH ROW EXECUTE FUNCTION refuse()""",
        "bad_message",
    ),
    "a rule for texts": (
        "ALTER TABLE user_score_transactions ADD CONSTRAINT odd CHECK (reason IS DISTINCT FROM 'odd')",
        "bad_message",
    ),
    "a text that cannot be converted": (
        "ALTER TABLE user_score_transactions ADD CONSTRAINT odd"
        " CHECK (convert_to(coalesce(reason, ''), 'LATIN1') IS NOT NULL)",
        "bad_message",
    ),
    "rights of a row": (
        """CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN IF NEW.reason = 'odd' THEN RAISE insufficient_privilege; END IF; RETURN NEW; END $$;
           CREATE TRIGGER refusing BEFORE INSERT ON user_score_transactions FOR EACH ROW EXECUTE FUNCTION refuse()""",
        "unavailable",
    ),
}


@pytest.fixture
async def ruled(sql: asyncpg.Connection) -> AsyncIterator[asyncpg.Connection]:
    """A connection by which rules may be made that go with the test."""
    yield sql
    await sql.execute("DROP FUNCTION IF EXISTS refuse CASCADE")
    await sql.execute("ALTER TABLE user_score_transactions DROP CONSTRAINT IF EXISTS odd")


@pytest.mark.parametrize(("rule", "code"), REFUSALS.values(), ids=list(REFUSALS))
async def test_whatever_postgresql_says_of_one_row_the_others_are_recorded(
    rule: str, code: str, beside: Beside, ruled: asyncpg.Connection, make_users: MakeUsers
) -> None:
    users = await make_users(60)
    await ruled.execute(rule)
    odd = "odd \U0001fa77" if "LATIN1" in rule else "odd"
    batch = [submission(user, "a") for user in users]
    batch[41] = batch[41]._replace(reason=odd)
    outcomes = by_id((await Recorder(beside).record(batch)).outcomes)
    ((key, refused),) = [(key, one) for key, one in outcomes.items() if isinstance(one, Rejected)]
    assert key == (users[41], "a") and refused.code == code
    assert (refused.retry_after_ms is None) == (code == "bad_message"), "whether to send it again"
    assert await ruled.fetchval("SELECT count(*) FROM user_score_transactions") == 59
    assert beside.statements < 20, "found by halving, not one by one"


async def test_a_user_in_two_halves_ends_on_the_boards_as_in_the_ledger(
    beside: Beside, store: Store, keys: Redis, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    """What is gained in the first half and lost in the second leaves the score as it was before both."""
    steady, rich = await make_users(2)
    await beside.record_batch([submission(steady, "before", 50)], [])
    await near_the_end(sql, rich, 1)
    await store.apply(await beside.standings_of([steady], [ALL_TIME, week_at(beside.clock.now())]))
    batch = [
        submission(steady, "up", 5),
        submission(rich, "1", 1),
        submission(rich, "2", 1),
        submission(steady, "down", -5),
    ]
    result = await Recorder(beside).record(batch)
    assert sum(isinstance(outcome, Rejected) for _, outcome in result.outcomes) == 1, "it was cut into halves"
    await store.tell(result.live_rows(beside.clock.now()), result.profiles)
    assert await sql.fetchval("SELECT total_score FROM user_total_scores WHERE user_id = $1", steady) == 50
    assert await keys.zscore(scores_key(ALL_TIME), steady) == 50
    assert await keys.zscore(scores_key(week_at(beside.clock.now())), steady) == 50


async def test_no_user_is_told_twice_of_one_board(
    beside: Beside, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    users = await make_users(6)
    await near_the_end(sql, users[0], 3)
    chance = random.Random(5)
    batch = [submission(chance.choice(users), str(n), chance.choice([1, 2, -1])) for n in range(60)]
    result = await Recorder(beside).record(batch)
    for board, rows in result.rows.items():
        assert len({row.user_id for row in rows}) == len(rows), board.id
    assert len({profile.user_id for profile in result.profiles}) == len(result.profiles)
    table = dict(await sql.fetch("SELECT user_id, version FROM user_total_scores"))
    assert {row.user_id: row.version for row in result.rows[ALL_TIME]} == {
        user: version for user, version in table.items() if any(given.user_id == user for given in batch)
    }


@pytest.mark.parametrize("score", [5, 6])
async def test_a_twin_gets_its_outcome_from_the_second_look(
    beside: Beside, dsn: str, sql: asyncpg.Connection, make_users: MakeUsers, score: int
) -> None:
    user, other = await make_users(2)
    await sql.execute("BEGIN")
    theirs = submission(user, "a", 5)
    await sql.fetch(beside.query("record_batch"), [user], ["a"], [5], [None], [None], [], "scores", None, None)
    recorder = Recorder(beside)
    recording_both = asyncio.ensure_future(recorder.record([submission(user, "a", score), submission(other, "b", 9)]))
    await until_somebody_waits(dsn)
    await sql.execute("COMMIT")
    outcomes = by_id((await recording_both).outcomes)
    assert outcomes[other, "b"] == Accepted("b", other, 9, 9, False)
    mine = outcomes[user, "a"]
    if score == theirs.score_added:
        assert mine == Accepted("a", user, 5, 5, True)
    else:
        assert isinstance(mine, Rejected) and mine.code == "submission_conflict"


async def test_a_twin_that_is_gone_when_it_is_looked_up_is_recorded_after_all(
    beside: Beside, dsn: str, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    (user,) = await make_users(1)
    await sql.execute("BEGIN")
    await sql.fetch(beside.query("record_batch"), [user], ["a"], [5], [None], [None], [], "scores", None, None)
    original, committed = beside.recorded_scores, asyncio.Event()

    async def after_it_went(batch: Sequence[Submission], catalogue: Catalogue) -> Any:
        await committed.wait()  # here too: one connection does one thing at a time
        await sql.execute("DELETE FROM user_score_transactions")
        return await original(batch, catalogue)

    beside.recorded_scores = after_it_went  # type: ignore[method-assign]
    recording_it = asyncio.ensure_future(Recorder(beside).record([submission(user, "a", 5)]))
    await until_somebody_waits(dsn)
    await sql.execute("COMMIT")
    committed.set()
    ((_, outcome),) = (await recording_it).outcomes
    assert isinstance(outcome, Accepted) and not outcome.duplicate
    assert await sql.fetchval("SELECT count(*) FROM user_score_transactions") == 1


async def until_somebody_waits(dsn: str) -> None:
    watcher = await asyncpg.connect(dsn)
    try:
        async with asyncio.timeout(PATIENCE):
            while not await watcher.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                await watcher.execute("SELECT pg_sleep(0.005)")
    finally:
        await watcher.close()


async def test_a_deadlock_is_tried_again_and_nothing_is_recorded_twice(
    beside: Beside, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    users = await make_users(3)

    async def lose() -> None:
        raise TransactionConflict("deadlock detected")

    beside.before = [lose, lose, None]
    recorder = Recorder(beside)
    owe(recorder, 10**9)
    result = await recorder.record([submission(user, "a") for user in users])
    assert {type(outcome) for _, outcome in result.outcomes} == {Accepted}
    assert await sql.fetchval("SELECT count(*) FROM user_score_transactions") == 3
    assert not recorder._told.partitions, "what was to be cleared went along in the end"


async def test_deadlocks_without_end_are_unavailable(beside: Beside, make_users: MakeUsers) -> None:
    (user,) = await make_users(1)

    async def lose() -> None:
        raise TransactionConflict("deadlock detected")

    beside.before = [lose] * (ATTEMPTS + 1)
    recorder = Recorder(beside)
    owe(recorder, 5)
    with pytest.raises(LedgerUnavailable):
        await recorder.record([submission(user, "a")])
    assert recorder._told.partitions, "still owed"
    result = await recorder.record([submission(user, "a")])
    assert [type(outcome) for _, outcome in result.outcomes] == [Accepted]


@pytest.mark.parametrize("error", [LedgerUnavailable("away"), asyncio.CancelledError(), RuntimeError("a fault")])
async def test_whatever_goes_wrong_nothing_owed_is_forgotten(
    beside: Beside, make_users: MakeUsers, error: BaseException
) -> None:
    (user,) = await make_users(1)

    async def fail() -> None:
        raise error

    beside.before = [fail]
    recorder = Recorder(beside)
    owe(recorder, 5)
    with pytest.raises(type(error)):
        await recorder.record([submission(user, "a")])
    assert recorder._told.partitions


async def test_refusals_name_their_reason(beside: Beside, sql: asyncpg.Connection, make_users: MakeUsers) -> None:
    good, banned, full = await make_users(3)
    await sql.execute("INSERT INTO user_total_scores (user_id, hidden) VALUES ($1, true)", banned)
    await near_the_end(sql, full, 0)
    batch = [
        submission(10**9, "a"),
        submission(banned, "a"),
        submission(full, "a"),
        submission(good, "a", 1, datetime(2999, 1, 1, tzinfo=UTC)),
    ]
    outcomes = [outcome for _, outcome in (await Recorder(beside).record(batch)).outcomes]
    assert [outcome.code for outcome in outcomes if isinstance(outcome, Rejected)] == [
        "unknown_user",
        "forbidden",
        "out_of_range",
        "out_of_range",
    ]
    for outcome in outcomes:
        assert isinstance(outcome, Rejected) and outcome.message.endswith(".") and outcome.retry_after_ms is None


# Telling the store -----------------------------------------------------------------------------------------------


async def test_the_store_is_told_what_changed_on_live_boards_alone(
    beside: Beside, store: Store, keys: Redis, make_users: MakeUsers
) -> None:
    (user,) = await make_users(names=["Ω"])
    long_ago = datetime(2020, 12, 31, tzinfo=UTC)
    result = await Recorder(beside).record([submission(user, "now", 5), submission(user, "then", 7, long_ago)])
    now = beside.clock.now()
    await store.tell(result.live_rows(now), result.profiles)
    assert await keys.zscore(scores_key(ALL_TIME), user) == 12
    assert await keys.zscore(scores_key(week_at(now)), user) == 5
    assert not await keys.exists(scores_key(week_at(long_ago))), "its view answers for a closed week"
    assert await keys.hget(f"leaderboard:users:{user}", "username") == "Ω"
    assert result.profiles == [Profile(user, 1, "Ω")]


async def test_a_moved_epoch_is_adopted_and_told_again(
    beside: Beside, store: Store, keys: Redis, make_users: MakeUsers
) -> None:
    (user,) = await make_users(1)
    recorder = Recorder(beside)
    result = await recorder.record([submission(user, "a", 5)])
    old = store.epoch
    other = Store(str(keys_url(keys)))
    try:
        await make_ours(other, 2)
        assert store.epoch == old, "this process has not heard of it"
        now = beside.clock.now()
        await store.tell(result.live_rows(now), result.profiles, anew=lambda: recorder.anew(result, now))
    finally:
        await other.aclose()
    assert await keys.zscore(scores_key(ALL_TIME), user) == 5


def keys_url(keys: Redis) -> str:
    known = keys.connection_pool.connection_kwargs
    return f"redis://:{known['password']}@{known['host']}:{known['port']}/0"


async def test_a_store_that_nobody_filled_is_not_told(beside: Beside, store_url: str, make_users: MakeUsers) -> None:
    (user,) = await make_users(1)
    result = await Recorder(beside).record([submission(user, "a", 5)])
    store = Store(store_url)
    try:
        with pytest.raises(StoreUnavailable):
            await store.tell(result.live_rows(beside.clock.now()), result.profiles)
    finally:
        await store.aclose()


async def test_a_week_is_closed_by_what_postgresql_says_and_by_no_clock(
    beside: Beside, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    (user,) = await make_users(1)
    counting, withdrawn, unheard = (datetime(2026, 3, day, tzinfo=UTC) for day in (2, 9, 16))
    await sql.execute("INSERT INTO closed_weeks (week) VALUES ($1)", counting.date())
    await sql.execute("INSERT INTO closed_weeks (week, changes) VALUES ($1, NULL)", withdrawn.date())
    batch = [submission(user, f"{at}", 1, at) for at in (counting, withdrawn, unheard)]
    closed = (await Recorder(beside).record(batch)).closed
    assert [board.week for board in closed] == [counting.date()]
    assert await sql.fetch("SELECT changes FROM closed_weeks ORDER BY week") == [(1,), (None,)]
    assert (await Recorder(beside).record(batch)).closed == [], "what is there already changes nothing"
