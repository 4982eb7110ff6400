"""The ledger: one statement a batch, right whatever is in it and whoever else is at it."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack, suppress
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from realtime.boards.board import ALL_TIME, week_at, week_of
from realtime.boards.catalogue import PUBLISHED
from realtime.boards.standings import Profile, Row, in_order
from realtime.boards.submissions import CLOCK_GRACE, Submission
from realtime.errors import LedgerUnavailable, RowRefused
from realtime.ledger.batch import columns
from realtime.ledger.clock import Clock
from realtime.ledger.ledger import Ledger, OutboxRow
from realtime.ledger.recorded import KNOWN, Judged, Recorded
from realtime.validation import INT_MAX, INT_MIN, TOTAL_MAX
from tests.support.databases import Databases, MakeUsers
from tests.support.keys import scores_key
from tests.support.waiting import PATIENCE

MONDAY = datetime(2026, 3, 2, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def submission(
    user_id: int, name: str, score: int = 1, reason: str | None = None, at: datetime | None = None
) -> Submission:
    return Submission(user_id, name, score, reason, at)


async def outcomes(ledger: Ledger, *batch: Submission) -> list[str]:
    return [row.outcome for row in (await ledger.record_batch(batch, [])).judged]


async def totals(sql: asyncpg.Connection) -> dict[int, int]:
    return dict(await sql.fetch("SELECT user_id, total_score FROM user_total_scores WHERE total_score IS NOT NULL"))


async def agrees(sql: asyncpg.Connection) -> None:
    """Totals and weeks are what the log adds up to."""
    assert await sql.fetch(
        "SELECT user_id, sum(score_added)::bigint FROM user_score_transactions GROUP BY 1 ORDER BY 1"
    ) == await sql.fetch("SELECT user_id, total_score FROM user_total_scores WHERE total_score IS NOT NULL ORDER BY 1")
    assert await sql.fetch(
        "SELECT date_trunc('week', created_at AT TIME ZONE 'UTC')::date, user_id, sum(score_added)::bigint"
        " FROM user_score_transactions GROUP BY 1, 2 ORDER BY 1, 2"
    ) == await sql.fetch("SELECT week, user_id, score FROM user_weekly_scores ORDER BY 1, 2")


# Outcomes --------------------------------------------------------------------------------------------------------


async def test_a_first_score_gives_totals_versions_and_what_boards_show(ledger: Ledger, make_users: MakeUsers) -> None:
    (user,) = await make_users(names=["Ω"])
    first = await ledger.record_batch([submission(user, "a", 100, "win")], [])
    week = week_at(ledger.clock.now())
    of_user = {user: Row(user, 1, 100)}
    ((outbox_id, _),) = first.outbox
    assert first == Recorded(
        judged=[Judged("accepted", 100, 100)],
        rows={ALL_TIME: of_user, week: of_user},
        profiles=[Profile(user, 1, "Ω")],
        new_to={1},
        outbox=[(outbox_id, "")],
    )
    second = await ledger.record_batch([submission(user, "b", -30)], [])
    assert second.judged == [Judged("accepted", 70, 70)]
    assert second.rows == {ALL_TIME: {user: Row(user, 2, 70)}, week: {user: Row(user, 2, 70)}}
    assert second.profiles == [], "boards know them by now"


async def test_each_row_of_a_batch_has_its_own_outcome_in_order(
    ledger: Ledger, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    good, banned, full, deleted = await make_users(4)
    await ledger.record_batch([submission(good, "old", 5, "r"), submission(full, "f")], [])
    await sql.execute("INSERT INTO user_total_scores (user_id, hidden) VALUES ($1, true)", banned)
    await sql.execute("UPDATE user_total_scores SET total_score = $2 WHERE user_id = $1", full, TOTAL_MAX)
    await sql.execute("UPDATE users SET deleted_at = now() WHERE id = $1", deleted)
    future = ledger.clock.now() + timedelta(minutes=1)
    batch = [
        (submission(good, "new", 7), "accepted"),
        (submission(good, "old", 5, "r"), "duplicate"),
        (submission(10**9, "x"), "unknown"),
        (submission(deleted, "x"), "unknown"),
        (submission(banned, "x"), "hidden"),
        (submission(full, "x", 1), "range"),
        (submission(full, "y", -1), "accepted"),
        (submission(good, "soon", 1, None, future), "future"),
        (submission(good, "late", 3, None, MONDAY), "accepted"),
    ]
    rows = (await ledger.record_batch([given for given, _ in batch], [])).judged
    assert [row.outcome for row in rows] == [expected for _, expected in batch]
    of_good = [row for row, (sent, _) in zip(rows, batch, strict=True) if sent.user_id == good]
    assert {row.total_score for row in of_good} == {15}, "all rows of a user show the same total"
    log = await sql.fetch("SELECT submission_id FROM user_score_transactions ORDER BY id")
    assert sorted(row[0] for row in log) == ["f", "late", "new", "old", "y"], "nothing refused has left a trace"


@pytest.mark.parametrize(
    ("score", "reason", "at", "outcome"),
    [
        (5, "r", None, "duplicate"),
        (5, "r", MONDAY, "duplicate"),
        (6, "r", None, "conflict"),
        (-5, "r", None, "conflict"),
        (5, "R", None, "conflict"),
        (5, None, None, "conflict"),
        (5, "", None, "conflict"),
        (5, "r", MONDAY + MICROSECOND, "conflict"),
        (5, "r", MONDAY + timedelta(milliseconds=1), "conflict"),
    ],
)
async def test_the_same_id_is_the_same_score_or_a_conflict(
    ledger: Ledger,
    sql: asyncpg.Connection,
    make_users: MakeUsers,
    score: int,
    reason: str | None,
    at: datetime | None,
    outcome: str,
) -> None:
    user, other = await make_users(2)
    await ledger.record_batch([submission(user, "a", 5, "r", MONDAY)], [])
    await ledger.record_batch([submission(user, "b", 10)], [])
    recorded = await ledger.record_batch([submission(user, "a", score, reason, at)], [])
    (row,) = recorded.judged
    assert row.outcome == outcome
    if outcome == "duplicate":
        assert (row.total_score, row.week_score) == (15, 5), "totals as they are now, in the week it counted for"
    assert not recorded.outbox, "nothing changed that a board shows"
    assert await outcomes(ledger, submission(other, "a", score, reason, at)) == ["accepted"], "ids are a user's own"
    assert (await totals(sql))[user] == 15


@pytest.mark.parametrize("action", ["ban", "deletion"])
async def test_a_score_sent_again_has_the_same_outcome_once_its_player_is_gone(
    ledger: Ledger, sql: asyncpg.Connection, make_users: MakeUsers, action: str
) -> None:
    (user,) = await make_users(1)
    await ledger.record_batch([submission(user, "a", 5)], [])
    if action == "deletion":
        await ledger.fetch("forget", user)
    else:
        await ledger.fetch("banned", user, 0)
    await ledger.fetch("player_held", user, None)
    await ledger.fetch("hidden_anew", user, None, action)
    again, other, new = (
        await ledger.record_batch([submission(user, "a", 5), submission(user, "b", 1), submission(user, "c", 2)], [])
    ).judged
    refused = "unknown" if action == "deletion" else "hidden"
    assert (again.outcome, again.total_score, again.week_score) == ("duplicate", 5, 5)
    assert [other.outcome, new.outcome] == [refused, refused]
    (conflict,) = (await ledger.record_batch([submission(user, "a", 6)], [])).judged
    assert conflict.outcome == "conflict"
    assert await sql.fetchval("SELECT total_score FROM user_total_scores WHERE user_id = $1", user) == 5


async def test_nothing_is_unknown_about_the_absence_of_a_reason(ledger: Ledger, make_users: MakeUsers) -> None:
    (user,) = await make_users(1)
    assert await outcomes(ledger, submission(user, "a", 5, None)) == ["accepted"]
    assert await outcomes(ledger, submission(user, "a", 5, None)) == ["duplicate"]


async def test_an_empty_reason_of_before_is_none(
    ledger: Ledger, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    (user,) = await make_users(1)
    assert await outcomes(ledger, submission(user, "a", 5, "")) == ["accepted"]
    assert await outcomes(ledger, submission(user, "a", 5, None)) == ["duplicate"]
    assert [twin.outcome for twin in await ledger.recorded_scores([submission(user, "a", 5)], PUBLISHED)] == [
        "duplicate"
    ]


@pytest.mark.parametrize(
    ("shown", "outcome"),
    [(123_456, "duplicate"), (123_000, "duplicate"), (123_400, "conflict"), (124_000, "conflict"), (0, "conflict")],
)
async def test_a_moment_that_lost_its_microseconds_is_the_same(
    ledger: Ledger, make_users: MakeUsers, shown: int, outcome: str
) -> None:
    (user,) = await make_users(1)
    await ledger.record_batch([submission(user, "a", 5, None, MONDAY.replace(microsecond=123_456))], [])
    again = submission(user, "a", 5, None, MONDAY.replace(microsecond=shown))
    assert await outcomes(ledger, again) == [outcome]
    assert [twin.outcome for twin in await ledger.recorded_scores([again], PUBLISHED)] == [outcome]


async def test_a_moment_a_little_ahead_is_a_clock_that_is_and_further_ahead_the_future(
    ledger: Ledger, make_users: MakeUsers
) -> None:
    (user,) = await make_users(1)
    for ahead, outcome in ((CLOCK_GRACE - timedelta(seconds=1), "accepted"), (CLOCK_GRACE * 2, "future")):
        moment = await ledger.fetch("judged")
        given = submission(user, outcome, 5, None, moment[0][0] + ahead)
        assert await outcomes(ledger, given) == [outcome]
    assert f"interval '{CLOCK_GRACE.seconds} seconds'" in ledger.query("record_batch"), "one grace everywhere"


async def test_ids_are_told_apart_to_the_byte(ledger: Ledger, make_users: MakeUsers) -> None:
    (user,) = await make_users(1)
    names = ["a", "A", "a ", "á", "a\u0301", "\u00e1x", "ß", "ss", "'", '"', "\\", "%s", "$1", "x" * 64, "🙂" * 64]
    batch = [submission(user, name) for name in names]
    assert set(await outcomes(ledger, *batch)) == {"accepted"}
    assert set(await outcomes(ledger, *batch)) == {"duplicate"}


async def test_a_user_who_was_banned_before_the_first_score_has_no_place_and_a_total_after(
    ledger: Ledger, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    (user,) = await make_users(1)
    await sql.execute("INSERT INTO user_total_scores (user_id, hidden) VALUES ($1, true)", user)
    assert (await ledger.standings_of([user], [ALL_TIME]))[ALL_TIME] == [Row(user, 1, None)]
    await sql.execute("UPDATE user_total_scores SET hidden = false WHERE user_id = $1", user)
    recorded = await ledger.record_batch([submission(user, "a", 5)], [])
    assert recorded.rows[ALL_TIME] == {user: Row(user, 2, 5)}


# Ranges ----------------------------------------------------------------------------------------------------------


async def test_totals_reach_their_bounds_and_not_beyond(
    ledger: Ledger, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    high, low = await make_users(2)
    await ledger.record_batch([submission(high, "a", 1), submission(low, "a", -1)], [])
    await sql.execute("UPDATE user_total_scores SET total_score = total_score * ($1::bigint - 10)", TOTAL_MAX)
    assert await outcomes(ledger, submission(high, "b", 10), submission(low, "b", -10)) == ["accepted"] * 2
    assert await totals(sql) == {high: TOTAL_MAX, low: -TOTAL_MAX}
    assert await outcomes(ledger, submission(high, "c", 1), submission(low, "c", -1)) == ["range"] * 2
    assert await outcomes(ledger, submission(high, "d", INT_MIN), submission(low, "d", INT_MAX)) == ["accepted"] * 2


async def test_rows_that_leave_the_range_together_fail_together_and_leave_nothing(
    ledger: Ledger, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    (user,) = await make_users(1)
    await ledger.record_batch([submission(user, "a", 1)], [])
    await sql.execute("UPDATE user_total_scores SET total_score = $1", TOTAL_MAX - 5)
    with pytest.raises(RowRefused):
        await ledger.record_batch([submission(user, "b", 4), submission(user, "c", 4)], [])
    assert await sql.fetchval("SELECT count(*) FROM user_score_transactions") == 1
    assert await totals(sql) == {user: TOTAL_MAX - 5}


async def test_a_weeks_score_is_bounded_as_the_total_is(
    ledger: Ledger, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    (user,) = await make_users(1)
    await ledger.record_batch([submission(user, "a", 1, None, MONDAY)], [])
    await sql.execute("UPDATE user_weekly_scores SET score = $1", TOTAL_MAX)
    with pytest.raises(RowRefused):
        await ledger.record_batch([submission(user, "b", 1, None, MONDAY)], [])
    assert await outcomes(ledger, submission(user, "b", 1)) == ["accepted"], "another week has room"


# Weeks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Pacific/Kiritimati", "Asia/Kolkata"])
async def test_a_score_counts_for_the_week_of_its_moment_in_utc_wherever_postgresql_is(
    dsn: str, sql: asyncpg.Connection, make_users: MakeUsers, zone: str
) -> None:
    database = dsn.rpartition("/")[2]
    await sql.execute(f"ALTER DATABASE \"{database}\" SET timezone = '{zone}'")
    (user,) = await make_users(1)
    ledger = Ledger(dsn)
    try:
        await ledger.open()
        async with ledger.connection() as connection:
            await connection.execute(f"SET timezone = '{zone}'")  # even if a pooler had put it back
        moments = {
            "first": (MONDAY, MONDAY),
            "last": (MONDAY + timedelta(days=7) - MICROSECOND, MONDAY),
            "before": (MONDAY - MICROSECOND, MONDAY - timedelta(days=7)),
            "after": (MONDAY + timedelta(days=7), MONDAY + timedelta(days=7)),
            "week 53": (datetime(2021, 1, 1, 12, tzinfo=UTC), datetime(2020, 12, 28, tzinfo=UTC)),
        }
        batch = [submission(user, name, 1, None, at) for name, (at, _) in moments.items()]
        recorded = await ledger.record_batch(batch, [])
        assert set(recorded.rows) == {ALL_TIME, *(week_of(monday.date()) for _, monday in moments.values())}
        assert [row.week_score for row in recorded.judged] == [2, 2, 1, 1, 1]
        now = await ledger.record_batch([submission(user, "now")], [])
        assert set(now.rows) == {ALL_TIME, week_at(ledger.clock.now())}
        stored = await sql.fetch("SELECT created_at FROM user_score_transactions ORDER BY id")
        assert {row[0] for row in stored} >= {at for at, _ in moments.values()}, "to the microsecond"
        await agrees(sql)
    finally:
        await ledger.aclose()


@hypothesis_settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.datetimes(datetime(1970, 1, 5), datetime(2026, 1, 1), timezones=st.just(UTC)), min_size=1, max_size=20)
)
async def test_the_ledger_and_the_boards_agree_on_the_week_of_any_moment(
    ledger: Ledger, make_users: MakeUsers, moments: list[datetime]
) -> None:
    (user,) = await make_users(1)
    batch = [submission(user, str(number), 1, None, at) for number, at in enumerate(moments)]
    recorded = await ledger.record_batch(batch, [])
    assert set(recorded.rows) == {ALL_TIME, *map(week_at, moments)}


async def test_one_batch_may_be_of_many_weeks(ledger: Ledger, sql: asyncpg.Connection, make_users: MakeUsers) -> None:
    users = await make_users(5)
    chance = random.Random(7)
    batch = [
        submission(
            chance.choice(users),
            str(n),
            chance.randint(-9, 9),
            None,
            MONDAY + timedelta(hours=chance.randint(0, 5_000)),
        )
        for n in range(500)
    ]
    recorded = await ledger.record_batch(batch, [])
    assert {row.outcome for row in recorded.judged} == {"accepted"}
    await agrees(sql)
    for week, *row in await sql.fetch("SELECT week, user_id, version, score FROM user_weekly_scores"):
        assert recorded.rows[week_of(week)][row[0]] == Row(*row)
    for sent, judged in zip(batch, recorded.judged, strict=True):
        assert sent.created_at is not None
        assert judged.week_score == recorded.rows[week_at(sent.created_at)][sent.user_id].score
    (outbox,) = await sql.fetch("SELECT kind, user_ids FROM outbox")
    assert outbox["kind"] == "scores"
    assert set(outbox["user_ids"]) == {sent.user_id for sent in batch}


# Whoever else is at it -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("same", "ends", "outcome"),
    [(True, "COMMIT", "duplicate"), (False, "COMMIT", "conflict"), (True, "ROLLBACK", "accepted")],
)
async def test_a_twin_in_an_unfinished_transaction_is_waited_for_and_looked_up(
    ledger: Ledger, dsn: str, sql: asyncpg.Connection, make_users: MakeUsers, same: bool, ends: str, outcome: str
) -> None:
    (user,) = await make_users(1)
    await sql.execute("BEGIN")
    mine = submission(user, "a", 5, "r")
    theirs = submission(user, "a", 5 if same else 6, "r")
    await sql.fetch(ledger.query("record_batch"), *columns([theirs]), [], "scores", None, None)
    recording = asyncio.ensure_future(ledger.record_batch([submission(user, "b", 10), mine], []))
    watcher = await asyncpg.connect(dsn)
    while not await watcher.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
        assert not recording.done(), "it waits for the other's end"
        await watcher.execute("SELECT pg_sleep(0.005)")
    await watcher.close()
    await sql.execute(ends)
    rows = (await recording).judged
    expected = "accepted" if ends == "ROLLBACK" else KNOWN
    assert [row.outcome for row in rows] == ["accepted", expected]
    if expected == KNOWN:
        (twin,) = await ledger.recorded_scores([mine], PUBLISHED)
        assert twin.outcome == outcome
        assert twin.total_score == 15 + (not same)
    await agrees(sql)


async def test_a_twin_that_vanished_is_told_as_gone(ledger: Ledger, make_users: MakeUsers) -> None:
    (user,) = await make_users(1)
    (twin,) = await ledger.recorded_scores([submission(user, "never", 5)], PUBLISHED)
    assert twin.outcome == "gone"


async def test_batches_of_the_same_users_in_any_order_never_deadlock_and_add_up(
    dsn: str, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    """Eight connections, each with its users in another order and twins all over."""
    users = await make_users(20)
    ledger = Ledger(dsn, connections=8)
    await ledger.open()
    chance = random.Random(11)
    accepted: dict[tuple[int, str], int] = {}

    async def hand_in(lane: int) -> None:
        for turn in range(12):
            batch = {}
            for _ in range(60):
                user = chance.choice(users)
                name = f"{turn}-{chance.randint(0, 40)}"  # others send some of these as well
                batch[user, name] = submission(user, name, len(name))
            given = list(batch.values())
            chance.shuffle(given)
            for row, sent in zip((await ledger.record_batch(given, [])).judged, given, strict=True):
                if row.outcome == "accepted":
                    assert (sent.user_id, sent.submission_id) not in accepted, "accepted twice"
                    accepted[sent.user_id, sent.submission_id] = sent.score_added
                else:
                    assert row.outcome in ("duplicate", KNOWN)

    try:
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*(hand_in(lane) for lane in range(8)))
    finally:
        await ledger.aclose()
    expected: dict[int, int] = {}
    for (user, _), score in accepted.items():
        expected[user] = expected.get(user, 0) + score
    assert await totals(sql) == expected
    await agrees(sql)


async def test_versions_count_every_change_of_their_own_row(
    dsn: str, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    (user,) = await make_users(1)
    ledger = Ledger(dsn, connections=6)
    await ledger.open()
    try:
        rows = await asyncio.gather(
            *(ledger.record_batch([submission(user, str(number), number)], []) for number in range(40))
        )
    finally:
        await ledger.aclose()
    seen = sorted((recorded.rows[ALL_TIME][user].version, recorded.judged[0].total_score or 0) for recorded in rows)
    assert [version for version, _ in seen] == list(range(1, 41)), "no version twice, none left out"
    assert seen[-1][1] == sum(range(40)), "the newest version has the newest total"


# The outbox ------------------------------------------------------------------------------------------------------


async def test_an_outbox_row_is_written_with_the_scores_and_removed_with_a_later_batch(
    ledger: Ledger, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    a, b = await make_users(2)
    ((first, _),) = (await ledger.record_batch([submission(a, "1")], [])).outbox
    assert await sql.fetchval("SELECT user_ids FROM outbox WHERE id = $1", first) == [a]
    ((second, _),) = (await ledger.record_batch([submission(b, "2")], [first])).outbox
    assert [row[0] for row in await sql.fetch("SELECT id FROM outbox")] == [second]
    await ledger.clear_outbox([second, 10**9])
    assert (await ledger.outbox_state())[0] == 0


async def test_outbox_rows_are_held_by_nobody_who_looks_at_them(ledger: Ledger, make_users: MakeUsers) -> None:
    (user,) = await make_users(1)
    await ledger.record_batch([submission(user, "1", 1, None, MONDAY)], [])
    assert await ledger.outbox(older_than=60, limit=10) == [], "it may be on its way"
    rows = await ledger.outbox(older_than=0, limit=10)
    assert rows == [OutboxRow(rows[0].id, "scores", [user])]
    assert await ledger.outbox(older_than=0, limit=10) == rows, "a sweeper that stands still keeps no other from it"
    await ledger.clear_outbox([rows[0].id])
    await ledger.clear_outbox([rows[0].id])
    assert await ledger.outbox_state() == (0, 0.0)


@pytest.mark.parametrize("kind", ["scores", "import"])
async def test_an_outbox_row_of_the_future_is_taken_at_once_and_no_older_than_now(
    ledger: Ledger, sql: asyncpg.Connection, kind: str
) -> None:
    """A clock that was an hour ahead for a moment: nobody waits for that hour."""
    await sql.execute(
        "INSERT INTO outbox (kind, user_ids, created_at) VALUES ($1, '{}', clock_timestamp() + interval '1 hour')", kind
    )
    assert await ledger.outbox_state() == (1, 0.0)
    assert [row.kind for row in await ledger.outbox(older_than=60, limit=10)] == [kind]


# What the store is told ------------------------------------------------------------------------------------------


async def test_standings_are_absolute_and_hide_whoever_is_hidden(
    ledger: Ledger, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    a, b = await make_users(2)
    await ledger.record_batch([submission(a, "1", 5, None, MONDAY), submission(b, "1", 7)], [])
    await sql.execute("UPDATE user_total_scores SET hidden = true, version = version + 1 WHERE user_id = $1", b)
    live = [ALL_TIME, week_of(MONDAY.date())]
    assert await ledger.standings_of([a, b, 10**9], live) == {
        ALL_TIME: [Row(a, 1, 5), Row(b, 2, None)],
        week_of(MONDAY.date()): [Row(a, 1, 5)],
    }
    assert await ledger.profiles_of([b]) == [Profile(b, 1, "player-2")]


@pytest.mark.every_store
async def test_the_three_orders_are_one(ledger: Ledger, sql: asyncpg.Connection, keys: Any, store: Any) -> None:
    """ZREVRANGE's, PostgreSQL's and ours, for ties of ids of every length and scores at both ends."""
    chance = random.Random(3)
    ids = {*range(1, 130), *(chance.randrange(1, 2**53) for _ in range(200)), 2**53 - 1, 9, 10, 99, 100}
    scores = {i: chance.choice([0, 1, -1, 5, 2**53, -(2**53), chance.randrange(-(2**53), 2**53)]) for i in ids}
    await keys.zadd(scores_key(ALL_TIME), {str(i): score for i, score in scores.items()})
    by_store = [int(i) for i in await keys.zrevrange(scores_key(ALL_TIME), 0, -1)]
    await sql.executemany("INSERT INTO user_total_scores (user_id, total_score) VALUES ($1, $2)", list(scores.items()))
    by_postgres = [
        row[0]
        for row in await sql.fetch(
            'SELECT user_id FROM user_total_scores ORDER BY total_score DESC, user_id::text COLLATE "C" DESC'
        )
    ]
    assert by_store == by_postgres == list(in_order(scores.items()))


# Being there -----------------------------------------------------------------------------------------------------


def test_a_clock_that_was_never_read_says_so() -> None:
    clock = Clock()
    assert not clock.is_set
    with pytest.raises(LedgerUnavailable):
        clock.now()
    clock.set(MONDAY, 1000.0)
    assert clock.is_set


async def test_the_clock_is_postgresqls(ledger: Ledger, sql: asyncpg.Connection) -> None:
    before = await sql.fetchval("SELECT clock_timestamp()")
    now = ledger.clock.now()
    after = await sql.fetchval("SELECT clock_timestamp()")
    slack = timedelta(seconds=0.5)
    assert before - slack <= now <= after + slack
    assert now.tzinfo is UTC


async def test_a_database_that_is_not_there_is_unavailable() -> None:
    ledger = Ledger("postgresql://nobody:x@127.0.0.1:1/none")
    with pytest.raises(LedgerUnavailable):
        await ledger.open()
    await ledger.aclose()


async def test_a_database_that_leaves_is_unavailable_and_comes_back(
    ledger: Ledger, databases: Databases, dsn: str, make_users: MakeUsers
) -> None:
    (user,) = await make_users(1)
    assert await outcomes(ledger, submission(user, "a")) == ["accepted"]
    killer = await asyncpg.connect(dsn)
    await killer.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await killer.close()
    seen = []
    for _ in range(9):  # each of the pool's connections may be met once
        try:
            seen += await outcomes(ledger, submission(user, "b"))
            break
        except LedgerUnavailable:
            continue
    assert seen == ["accepted"], "a cut connection is replaced"


async def test_connections_that_ended_while_nobody_used_them_cost_nobody_an_answer(
    ledger: Ledger, sql: asyncpg.Connection
) -> None:
    held: list[asyncpg.Connection] = []
    async with AsyncExitStack() as stack:
        for _ in range(4):
            held.append(await stack.enter_async_context(ledger.connection()))
        ended = [asyncio.Event() for _ in held]
        for connection, event in zip(held, ended, strict=True):
            connection.add_termination_listener(lambda _, event=event: event.set())
        pids = [connection.get_server_pid() for connection in held]
    await sql.execute("SELECT pg_terminate_backend(pid) FROM unnest($1::int[]) pid", pids)
    async with asyncio.timeout(PATIENCE):
        for event in ended:
            await event.wait()
    for _ in held:
        await ledger.fetch("judged")


async def test_a_connection_whose_last_words_were_heard_but_not_yet_its_end_is_unavailable(
    dsn: str, make_users: MakeUsers, sql: asyncpg.Connection
) -> None:
    """PostgreSQL ends a connection with an error, then closes it. Between the two asyncpg holds it for usable."""
    parts = urlsplit(dsn)
    last_words = asyncio.Event()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection(parts.hostname, parts.port)

        async def ask() -> None:
            while data := await reader.read(65_536):
                to_server.write(data)
            to_server.close()

        asking = asyncio.ensure_future(ask())
        while data := await from_server.read(65_536):
            writer.write(data)
            if b"57P01" in data:
                last_words.set()
        if last_words.is_set():
            await asking  # the end is not passed on: it is under way
        writer.close()
        await asking

    (user,) = await make_users(1)
    async with await asyncio.start_server(relay, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        account = parts.netloc.rpartition("@")[0]
        ledger = Ledger(urlunsplit(parts._replace(netloc=f"{account}@127.0.0.1:{port}")))
        try:
            await ledger.open()
            assert await outcomes(ledger, submission(user, "a")) == ["accepted"]
            await sql.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            async with asyncio.timeout(PATIENCE):
                await last_words.wait()
                for _ in range(10):
                    await asyncio.sleep(0)  # a turn of the loop: asyncpg reads them
                seen: list[str] = []
                while not seen:
                    with suppress(LedgerUnavailable):
                        seen = await outcomes(ledger, submission(user, "b"))
        finally:
            await ledger.aclose()
    assert seen == ["accepted"]


async def test_a_statement_of_the_serving_path_is_given_up_after_its_time(ledger: Ledger) -> None:
    async with ledger.connection() as connection:
        assert await connection.fetchval("SHOW statement_timeout") == "10s"
        assert await connection.fetchval("SHOW timezone") == "UTC"
        await connection.execute("SET statement_timeout = 50")
        with pytest.raises(asyncpg.QueryCanceledError):
            await connection.fetchval("SELECT pg_sleep(5)")
    with pytest.raises(LedgerUnavailable):
        async with ledger.connection() as connection:
            await connection.execute("SET statement_timeout = 50")
            await connection.fetchval("SELECT pg_sleep(5)")


async def test_a_ledger_that_is_closed_waits_for_what_is_under_way_and_no_longer(dsn: str) -> None:
    ledger = Ledger(dsn)
    await ledger.open()
    begun = asyncio.Event()

    async def a_moment() -> str:
        async with ledger.connection() as connection:
            begun.set()
            return str(await connection.fetchval("SELECT pg_sleep(0.2)::text || 'done'"))

    under_way = asyncio.create_task(a_moment())
    await begun.wait()
    async with asyncio.timeout(2):
        await ledger.aclose()
    assert await under_way == "done"
    with pytest.raises(LedgerUnavailable):
        await ledger.fetch("judged")


async def test_settings_that_make_commits_less_than_durable_are_told(ledger: Ledger, sql: asyncpg.Connection) -> None:
    warnings = await ledger.durability_warnings()
    off = {row[0] for row in await sql.fetch("SELECT name FROM pg_settings WHERE name = 'fsync' AND setting = 'off'")}
    assert all(any(name in warning for warning in warnings) for name in off)


async def test_epochs_are_never_given_out_twice(ledger: Ledger) -> None:
    given = await asyncio.gather(*(ledger.next_epoch("run-a") for _ in range(10)))
    assert sorted(given) == list(range(1, 11))
    assert await ledger.next_epoch("run-b") == 1


async def test_one_process_at_a_time_may_rebuild(ledger: Ledger, dsn: str) -> None:
    other = Ledger(dsn)
    await other.open()
    try:
        async with ledger.rebuild_lease() as held:
            assert held
            async with other.rebuild_lease() as refused:
                assert not refused
        async with other.rebuild_lease() as held:
            assert held, "it goes with its holder's transaction"
    finally:
        await other.aclose()


async def test_the_log_is_never_changed_by_a_batch(
    ledger: Ledger, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    (user,) = await make_users(1)
    await ledger.record_batch([submission(user, "a", 5, "r", MONDAY)], [])
    before = await sql.fetch("SELECT *, xmin FROM user_score_transactions")
    await ledger.record_batch([submission(user, "a", 5, "r"), submission(user, "b", 1)], [])
    await ledger.record_batch([submission(user, "a", 9, "other")], [])
    assert await sql.fetch("SELECT *, xmin FROM user_score_transactions WHERE submission_id = 'a'") == before


def test_dates_come_as_dates() -> None:
    """The week is a date wherever it goes: a moment would carry a zone along."""
    assert isinstance(week_of(MONDAY.date()).week, date)
