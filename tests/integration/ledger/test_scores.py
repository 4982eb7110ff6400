"""Scores of any leaderboard: one statement a mixture, and every board a plain fold over the log."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import orjson
import pytest

from realtime.boards.board import ALL_TIME, Board, week_at
from realtime.boards.catalogue import Catalogue
from realtime.boards.definitions import Definition, Season
from realtime.boards.standings import Profile, Row
from realtime.boards.submissions import Accepted, Outcome, Rejected, Span, Submission
from realtime.errors import CatalogueMoved, RowRefused, WindowsMissing
from realtime.intake.recorder import Recorder
from realtime.intake.recording import Recording
from realtime.ledger.leaderboards import Leaderboards
from realtime.ledger.ledger import Ledger
from realtime.ledger.mixture import Columns
from realtime.ledger.recorded import Cleared
from realtime.people.accounts import Accounts
from tests.support.databases import MakeUsers
from tests.support.leaderboards import agree_with_the_log, catalogue_of, define

LIMIT = 2**53 - 1
DAY = timedelta(days=1)

LAP = Definition(
    "lap", "Lap", operator="best", order="ascending", windows=("all_time", "day"), ties="first", metadata=True
)
POINTS = Definition("points", "Points", windows=("all_time", "week"))
LAST = Definition("lap-last", "Last lap", of="lap", operator="last", windows=("all_time", "month"))
RACES = Definition("races", "Races", operator="count", windows=("all_time",))
HIGH = Definition("high", "High", of="default", operator="best", windows=("all_time", "day"))


def to(
    leaderboard: str,
    user_id: int,
    name: str,
    score: int | None = 1,
    at: datetime | None = None,
    metadata: str | None = None,
    within: Span | None = None,
    with_all: bool = False,
) -> Submission:
    return Submission(user_id, name, score, None, at, leaderboard, metadata, within, with_all)


@pytest.fixture
async def directory(ledger: Ledger, sql: asyncpg.Connection) -> AsyncIterator[Leaderboards]:
    await define(sql, LAP, POINTS, LAST, RACES, HIGH)
    yield await catalogue_of(ledger)


@pytest.fixture
def recorder(ledger: Ledger, directory: Leaderboards) -> Recorder:
    return Recorder(ledger, directory)


async def outcomes(recorder: Recorder, *batch: Submission) -> list[Outcome]:
    recorded = await recorder.record(batch)
    by_submission = dict(recorded.outcomes)
    return [by_submission[one] for one in batch]


def words(found: Sequence[Outcome]) -> list[str]:
    return [("duplicate" if one.duplicate else "accepted") if isinstance(one, Accepted) else one.code for one in found]


def board(directory: Leaderboards, name: str) -> Board:
    found = directory.current.resolve(name, datetime.now(UTC))
    return found


# Outcomes --------------------------------------------------------------------------------------------------------


async def test_a_mixture_is_recorded_in_one_statement_and_each_is_answered_for_its_own_boards(
    recorder: Recorder, directory: Leaderboards, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    one, two = await make_users(2)
    found = await outcomes(
        recorder,
        to("lap", one, "a", 700, metadata='{"car":"gt"}'),
        to("points", one, "a", 5),
        to("default", two, "a", 9),
        to("races", two, "a", None),
        to("lap", two, "b", 650, with_all=True),
        to("default", one, "b", 3, with_all=True),
    )
    assert words(found) == ["accepted"] * 6
    now = await sql.fetchval("SELECT clock_timestamp()")
    day, week, month = (
        board(directory, f"{name}").id for name in ("lap:current_day", "points:current_week", "lap-last:current_month")
    )
    own = [one.scores if isinstance(one, Accepted) else None for one in found]
    assert own == [
        {"lap:all_time": 700, day: 700},
        {"points:all_time": 5, week: 5},
        None,
        {"races:all_time": 1},
        {"lap:all_time": 650, day: 650, "lap-last:all_time": 650, month: 650},
        {"all_time": 3, week_at(now).id: 3, "high:all_time": 3, board(directory, "high:current_day").id: 3},
    ]
    assert isinstance(found[2], Accepted) and (found[2].total_score, found[2].week_score) == (9, 9)
    assert [one.improved for one in found if isinstance(one, Accepted)] == [True, True, None, True, True, True]
    assert await agree_with_the_log(sql) == 2 * 2 + 2 + 2 * 2 + 1 + 2 * 2
    assert await sql.fetchval("SELECT count(*) FROM outbox") == 4, "one a source"


async def test_only_a_better_score_improves_and_the_answer_is_what_stands(
    recorder: Recorder, make_users: MakeUsers
) -> None:
    (user,) = await make_users(1)
    steps = [(700, 700, True), (800, 700, False), (700, 700, False), (650, 650, True)]
    for number, (score, stands, improved) in enumerate(steps):
        (found,) = await outcomes(recorder, to("lap", user, str(number), score))
        assert isinstance(found, Accepted) and found.scores is not None
        assert (found.scores["lap:all_time"], found.improved) == (stands, improved), number


async def test_the_same_again_is_a_duplicate_and_anything_else_under_its_id_a_conflict(
    recorder: Recorder, make_users: MakeUsers
) -> None:
    (user,) = await make_users(1)
    first = to("lap", user, "a", 700, metadata='{"car":"gt"}', with_all=True)
    (new,) = await outcomes(recorder, first)
    (again,) = await outcomes(recorder, first)
    assert isinstance(new, Accepted) and isinstance(again, Accepted)
    assert again == new._replace(duplicate=True)
    over = Span(None, datetime(2000, 1, 1, tzinfo=UTC))
    cases: list[tuple[Submission, str]] = [
        (to("lap", user, "a", 701, metadata='{"car":"gt"}'), "submission_conflict"),
        (to("lap", user, "a", 700, metadata='{"car":"gtx"}'), "submission_conflict"),
        (to("lap", user, "a", 700), "submission_conflict"),
        (to("lap", user, "a", 700, metadata='{"car":"gt"}', within=over), "duplicate"),
        (to("points", user, "a", 700), "accepted"),
        (to("default", user, "a", 700), "accepted"),
    ]
    for submission, expected in cases:
        assert words(await outcomes(recorder, submission)) == [expected], submission
    assert words(await outcomes(recorder, to("default", user, "a", 700, with_all=True))) == ["duplicate"]
    assert words(await outcomes(recorder, to("default", user, "a", 7, with_all=True))) == ["submission_conflict"]


async def test_a_window_guards_what_is_new_and_nothing_that_is_recorded(
    recorder: Recorder, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    (user,) = await make_users(1)
    now = await sql.fetchval("SELECT clock_timestamp()")
    hour = timedelta(hours=1)
    spans = {
        "over": (Span(now - 2 * hour, now - hour), "window_over"),
        "not begun": (Span(now + hour, now + 2 * hour), "window_not_begun"),
        "now": (Span(now - hour, now + hour), "accepted"),
        "for ever": (Span(None, None), "accepted"),
    }
    batch = [to("lap", user, name, 5, within=span) for name, (span, _) in spans.items()]
    assert words(await outcomes(recorder, *batch)) == [expected for _, expected in spans.values()]
    corrected = to("default", user, "then", 5, now - 90 * timedelta(minutes=1), within=spans["over"][0])
    assert words(await outcomes(recorder, corrected)) == ["accepted"], "its own moment counts, not when it comes"
    assert await sql.fetchval("SELECT count(*) FROM score_transactions") == 2
    await agree_with_the_log(sql)


async def test_a_mixture_takes_nobody_else_with_it(
    recorder: Recorder, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    good, banned, barred = await make_users(3)
    (source,) = await sql.fetchrow("SELECT id FROM leaderboards WHERE slug = 'lap'")
    await sql.execute("INSERT INTO heads (source, user_id, hidden) VALUES ($1, $2, true)", source, banned)
    now = await sql.fetchval("SELECT clock_timestamp()")
    batch = [
        to("lap", good, "a", 5),
        to("lap", banned, "a", 5),
        to("lap", 10**9, "a", 5),
        to("lap", good, "soon", 5, now + timedelta(minutes=1)),
        to("points", banned, "a", 5),
        to("nothing", good, "a", 5),
        to("lap-last", good, "a", 5),
    ]
    assert words(await outcomes(recorder, *batch)) == [
        "accepted", "forbidden", "unknown_user", "out_of_range", "accepted",
        "unknown_leaderboard", "unknown_leaderboard",
    ]  # fmt: skip
    assert barred not in {row["user_id"] for row in await sql.fetch("SELECT user_id FROM heads")}
    assert await sql.fetchval("SELECT count(*) FROM heads WHERE user_id = 1000000000") == 0
    await agree_with_the_log(sql)


async def test_a_sum_stays_in_its_range_and_takes_nobody_with_it(
    recorder: Recorder, ledger: Ledger, directory: Leaderboards, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    high, low, other = await make_users(3)
    assert (
        words(await outcomes(recorder, to("points", high, "a", LIMIT), to("points", low, "a", -LIMIT)))
        == ["accepted"] * 2
    )
    recorded = await ledger.record_scores(
        [
            to("points", high, "b", 1),
            to("points", low, "b", -1),
            to("points", other, "b", 1),
            to("points", high, "c", -1),
        ],
        directory.current,
    )
    assert [judged.outcome for judged in recorded.judged] == ["range", "range", "accepted", "accepted"], (
        "by one statement"
    )
    (far,) = await outcomes(recorder, to("points", high, "d", 2))
    assert isinstance(far, Rejected) and far.code == "out_of_range"
    long_ago = datetime(2020, 1, 1, tzinfo=UTC)
    (past,) = await outcomes(recorder, to("points", high, "e", 2, long_ago))
    assert words([past]) == ["out_of_range"], "of all time there is no more room"
    together = [to("points", other, "f", LIMIT - 10), to("points", other, "g", 10)]
    with pytest.raises(RowRefused):
        await ledger.record_scores(together, directory.current)
    assert sorted(words(await outcomes(recorder, *together))) == ["accepted", "out_of_range"]
    await agree_with_the_log(sql)


# The catalogue ---------------------------------------------------------------------------------------------------


async def test_a_batch_for_another_revision_records_nothing(
    ledger: Ledger, directory: Leaderboards, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    (user,) = await make_users(1)
    old = directory.current
    await sql.execute("UPDATE catalogue SET revision = revision + 1")
    with pytest.raises(CatalogueMoved):
        await ledger.record_scores([to("lap", user, "a")], old)
    with pytest.raises(CatalogueMoved):
        await ledger.record_batch([to("default", user, "a")], [], revision=old.revision)
    for table in ("score_transactions", "user_score_transactions", "heads", "user_total_scores", "outbox"):
        assert await sql.fetchval(f"SELECT count(*) FROM {table}") == 0, table
    recorder = Recorder(ledger, directory)
    assert words(await outcomes(recorder, to("lap", user, "a"))) == ["accepted"], "the catalogue is read anew"
    assert directory.current.revision == old.revision + 1


async def test_what_counts_beside_the_published_boards_is_never_recorded_without_them(
    ledger: Ledger, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    """A process has yet to hear of a leaderboard `of` default."""
    (user,) = await make_users(1)
    directory = await catalogue_of(ledger)
    recorder = Recorder(ledger, directory)
    await recorder.record([to("default", user, "a", 5)])
    assert await sql.fetchval("SELECT count(*) FROM scores") == 0
    await sql.execute("TRUNCATE user_score_transactions, user_total_scores, user_weekly_scores")
    await define(sql, HIGH)
    await recorder.record([to("default", user, "b", 7)])
    assert await agree_with_the_log(sql) == 2


async def test_a_window_without_a_row_is_made_before_anything_is_recorded_in_it(
    recorder: Recorder, ledger: Ledger, directory: Leaderboards, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    (user,) = await make_users(1)
    then = datetime(2019, 5, 5, 12, tzinfo=UTC)
    batch = [to("lap", user, "then", 5, then), to("lap", user, "now", 6)]
    with pytest.raises(WindowsMissing) as raised:
        await ledger.record_scores(batch, directory.current)
    assert raised.value.moments == [then] or set(raised.value.moments) == {then}
    assert await sql.fetchval("SELECT count(*) FROM score_transactions") == 0
    recorded = await recorder.record(batch)
    assert words([outcome for _, outcome in recorded.outcomes]) == ["accepted"] * 2
    closed = {one.id for one in recorded.closed}
    assert closed == {"lap:day_of_2019_05_05", "lap-last:month_of_2019_05"}
    answers = {one.submission_id: outcome for one, outcome in recorded.outcomes}
    then_answer, now_answer = answers["then"], answers["now"]
    assert isinstance(then_answer, Accepted) and isinstance(now_answer, Accepted)
    assert then_answer.scores == {"lap:all_time": 5, "lap:day_of_2019_05_05": 5}
    assert now_answer.scores is not None and "lap:day_of_2019_05_05" not in now_answer.scores
    await agree_with_the_log(sql)


async def test_no_window_is_made_for_what_is_refused(
    recorder: Recorder, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    user, banned = await make_users(2)
    await sql.execute("INSERT INTO heads (source, user_id, hidden) SELECT id, $1, true FROM leaderboards", banned)
    windows = "SELECT count(*) FROM windows"
    before = await sql.fetchval(windows)
    then, later = datetime(2019, 5, 5, 12, tzinfo=UTC), datetime(2090, 1, 1, tzinfo=UTC)
    refused = [
        to("lap", user, "future", 5, later),
        to("lap", banned, "banned", 5, then),
        to("lap", 10**9, "nobody", 5, then),
        to("lap", user, "over", 5, then, within=Span(None, then)),
    ]
    assert words(await outcomes(recorder, *refused)) == ["out_of_range", "forbidden", "unknown_user", "window_over"]
    assert await sql.fetchval(windows) == before
    assert words(await outcomes(recorder, *refused, to("lap", user, "then", 5, then - 400 * DAY)))[-1] == "accepted"
    names = await sql.fetch("SELECT name FROM windows WHERE ends < now() - interval '40 days' ORDER BY name")
    assert [name for (name,) in names] == ["day_of_2018_03_31", "month_of_2018_03"], "of what was recorded alone"


async def test_a_window_that_is_over_counts_what_changes_it(
    recorder: Recorder, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    (user,) = await make_users(1)
    then = datetime(2019, 5, 5, 12, tzinfo=UTC)
    versions = "SELECT name, version FROM windows WHERE ends < '2020-01-01' ORDER BY name"
    await recorder.record([to("lap", user, "a", 5, then)])
    assert [tuple(row) for row in await sql.fetch(versions)] == [("day_of_2019_05_05", 2), ("month_of_2019_05", 2)]
    await recorder.record([to("lap", user, "a", 5, then)])
    await recorder.record([to("lap", user, "now", 5)])
    assert [tuple(row) for row in await sql.fetch(versions)] == [("day_of_2019_05_05", 2), ("month_of_2019_05", 2)]
    await recorder.record([to("lap", user, "b", 4, then), to("lap", user, "c", 3, then)])
    assert [tuple(row) for row in await sql.fetch(versions)] == [("day_of_2019_05_05", 3), ("month_of_2019_05", 3)]


# Order of events -------------------------------------------------------------------------------------------------


async def test_of_one_batch_the_one_that_came_last_is_the_last(
    recorder: Recorder, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    """In the order of submission ids, which is that of the locks, it would be another."""
    (user,) = await make_users(1)
    await recorder.record([to("lap", user, name, score) for name, score in (("r-9", 700), ("r-10", 800), ("r-2", 900))])
    scores = await sql.fetch(
        "SELECT score FROM scores WHERE rule = (SELECT rule FROM leaderboards WHERE slug = 'lap-last')"
    )
    assert {score for (score,) in scores} == {900}
    log = await sql.fetch("SELECT submission_id FROM score_transactions ORDER BY id")
    assert [row[0] for row in log] == ["r-9", "r-10", "r-2"]


async def test_who_reached_a_score_first_stays_first_also_after_an_amendment(
    recorder: Recorder, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    (user,) = await make_users(1)
    now = await sql.fetchval("SELECT clock_timestamp()")
    hour = timedelta(hours=1)
    rule = "(SELECT rule FROM leaderboards WHERE slug = 'lap')"
    at = f'SELECT at FROM scores WHERE rule = {rule} ORDER BY "window" LIMIT 1'
    await recorder.record([to("lap", user, "a", 5, now - 10 * hour), to("lap", user, "b", 5, now - 5 * hour)])
    assert await sql.fetchval(at) == (now - 10 * hour - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    await recorder.record([to("lap", user, "c", 5, now - 20 * hour)])
    assert await sql.fetchval(at) == (now - 20 * hour - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    await agree_with_the_log(sql)


async def test_the_answer_is_of_the_locked_row_not_of_what_the_statement_saw(
    ledger: Ledger, directory: Leaderboards, sql: asyncpg.Connection, dsn: str, make_users: MakeUsers
) -> None:
    """70 is what the statement's snapshot has, and 90 is true."""
    (user,) = await make_users(1)
    recorder = Recorder(ledger, directory)
    high = Definition("top", "Top", operator="best", windows=("all_time",))
    await define(sql, high)
    await directory.refresh()
    await recorder.record([to("top", user, "a", 70)])
    other = await asyncpg.connect(dsn)
    try:
        await other.execute("BEGIN")
        source = await other.fetchval("SELECT id FROM leaderboards WHERE slug = 'top'")
        await other.execute("SELECT FROM heads WHERE source = $1 AND user_id = $2 FOR NO KEY UPDATE", source, user)
        waiting = asyncio.ensure_future(recorder.record([to("top", user, "b", 50)]))
        async with asyncio.timeout(10):
            while not await sql.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                assert not waiting.done()
        await other.execute(
            "UPDATE scores SET score = 90, version = 2 WHERE source = $1 AND user_id = $2", source, user
        )
        await other.execute("COMMIT")
        recorded = await waiting
    finally:
        await other.close()
    ((_, outcome),) = recorded.outcomes
    assert isinstance(outcome, Accepted)
    assert (outcome.scores, outcome.improved) == ({"top:all_time": 90}, False)
    (row,) = recorded.rows[board(directory, "top:all_time")]
    assert (row.version, row.score) == (2, 90)


# What the store hears --------------------------------------------------------------------------------------------


async def test_the_store_hears_rows_with_moment_and_metadata_and_names_of_new_players(
    recorder: Recorder, directory: Leaderboards, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    (user,) = await make_users(names=["Ω"])
    recorded = await recorder.record([to("lap", user, "a", 700, metadata='{"car": "gt"}')])
    (row,) = recorded.rows[board(directory, "lap:all_time")]
    number, created = await sql.fetchrow("SELECT id, created_at FROM score_transactions")
    micros = (created - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert row == Row(user, 1, 700, (micros, number), '{"car": "gt"}')
    assert recorded.profiles == [Profile(user, 1, "Ω")]
    partition = directory.current.leaderboards["lap"].partition
    assert partition and list(recorded.outbox) == [partition]
    assert recorded.user_ids == [user]
    live = recorded.live_rows(datetime.now(UTC))
    assert {one.id for one in live} >= {"lap:all_time", "lap-last:all_time"}
    assert {one.leaderboard.source_slug for one in live} == {"lap"}, "nobody else's boards show a player for it"
    later = await recorder.record([to("lap", user, "b", 600)])
    assert later.profiles == [], "boards know them by now"


async def test_who_is_barred_from_a_derived_leaderboard_is_recorded_and_not_shown_there(
    recorder: Recorder, directory: Leaderboards, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    (user,) = await make_users(1)
    await recorder.record([to("lap", user, "a", 700), to("default", user, "a", 1)])
    await sql.execute("UPDATE heads SET hidden_on = ARRAY(SELECT id FROM leaderboards WHERE slug = 'lap-last')")
    await sql.execute("UPDATE user_total_scores SET hidden_on = ARRAY(SELECT id FROM leaderboards WHERE slug = 'high')")
    recorded = await recorder.record([to("lap", user, "b", 600), to("default", user, "b", 1)])
    shown = {one.id: rows[0].score for one, rows in recorded.rows.items() if one.window.kind == "all_time"}
    assert shown == {"all_time": 2, "lap:all_time": 600, "lap-last:all_time": None, "high:all_time": None}
    await agree_with_the_log(sql)


async def test_outbox_rows_go_with_the_next_statement_where_the_content_that_was_told_is_current(
    recorder: Recorder, ledger: Ledger, directory: Leaderboards, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    (user,) = await make_users(1)
    partition = directory.current.leaderboards["lap"].partition
    await sql.execute("INSERT INTO contents (partition, epoch) VALUES ($1, 'now')", partition)
    await sql.execute("INSERT INTO generation (epoch) VALUES ('published')")
    for epoch, stays in (("then", True), ("now", False), (None, False)):
        first = await recorder.record([to("lap", user, f"{epoch}-1", 5)])
        ids = first.outbox[partition]
        recorder.told(first, {partition: epoch})
        await recorder.record([to("lap", user, f"{epoch}-2", 5)])
        assert bool(await sql.fetchval("SELECT count(*) FROM outbox WHERE id = ANY ($1)", ids)) == stays, epoch
        await sql.execute("DELETE FROM outbox")
    first = await recorder.record([to("lap", user, "x", 5), to("default", user, "x", 5)])
    published = first.outbox[""]
    recorder.told(first, {partition: "now", "": "another"})
    await recorder.clear(others_alone=True)
    assert [row[0] for row in await sql.fetch("SELECT id FROM outbox")] == published
    await recorder.clear()
    assert [row[0] for row in await sql.fetch("SELECT id FROM outbox")] == published, "it was told to another"
    await ledger.clear_told([Cleared("", "published", published)])
    assert await sql.fetchval("SELECT count(*) FROM outbox") == 0


# Several at once -------------------------------------------------------------------------------------------------


async def test_batches_that_meet_end_and_count_everything_once(
    ledger: Ledger, directory: Leaderboards, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    users = await make_users(12)
    chosen = random.Random(16)
    slugs = ["lap", "points", "races", "default"]
    for round_ in range(6):  # new players in each: who makes a head, and who meets one that is just being made
        some = users[round_ * 2 : round_ * 2 + 4]
        names = [f"{round_}-{number}" for number in range(12)]
        every = [to(slug, user, name, 10) for slug in slugs for user in some for name in names]
        batches = [chosen.sample(every, 60) for _ in range(8)]
        recorders = [Recorder(ledger, directory) for _ in batches]
        async with asyncio.timeout(30):
            found = await asyncio.gather(*(one.record(batch) for one, batch in zip(recorders, batches, strict=True)))
        outcome = [words([out for _, out in one.outcomes]) for one in found]
        assert all(set(of) <= {"accepted", "duplicate"} for of in outcome)
        assert sum(of.count("accepted") for of in outcome) == len({one for batch in batches for one in batch})
    assert await sql.fetchval("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == 0
    await agree_with_the_log(sql)


# The law ---------------------------------------------------------------------------------------------------------


ZONES = ["UTC", "America/Havana", "Asia/Kolkata", "Pacific/Kiritimati"]


class Untold:
    """A store that is away: outbox rows stay."""

    async def each(self, user_ids: object) -> dict[str, str | None]:
        return {}


def definitions(chosen: random.Random, now: datetime) -> list[Definition]:
    """Some leaderboards, of their own submissions and of others'."""
    season = Season("now", (now - 3 * DAY).replace(microsecond=0), (now + 3 * DAY).replace(microsecond=0))
    found: list[Definition] = []
    for number in range(chosen.randrange(2, 6)):
        windows = ("all_time", *(kind for kind in ("day", "week", "month", "year", "season") if chosen.random() < 0.4))
        of = chosen.choice([None, None, "default", *(one.slug for one in found if one.of is None)])
        found.append(
            Definition(
                f"b{number}",
                f"B {number}",
                of=of,
                operator=chosen.choice(["sum", "best", "last", "count"]),
                order=chosen.choice(["ascending", "descending"]),
                windows=windows,
                zone=chosen.choice(ZONES),
                week_starts=chosen.choice(["monday", "sunday"]),
                seasons=(season,) if "season" in windows else (),
            )
        )
    if chosen.random() < 0.5:
        found.append(Definition("default", "Points", windows=("all_time", "day", "week")))
    return found


@pytest.mark.parametrize("seed", range(12))
async def test_every_board_is_a_plain_fold_over_the_log(
    ledger: Ledger, sql: asyncpg.Connection, make_users: MakeUsers, seed: int
) -> None:
    chosen = random.Random(seed)
    users = await make_users(6)
    now = await sql.fetchval("SELECT clock_timestamp()")
    wanted = definitions(chosen, now)
    await define(sql, *wanted)
    for one in wanted:
        for season in one.seasons:
            await sql.execute(
                "INSERT INTO windows (leaderboard, kind, starts, ends, name)"
                " SELECT id, 'season', $2, $3, $4 FROM leaderboards WHERE slug = $1",
                one.slug, season.starts, season.ends, f"season_{season.id}",
            )  # fmt: skip
    await sql.execute("UPDATE catalogue SET revision = revision + 1")
    directory = await catalogue_of(ledger)
    slugs = ["default", *(one.slug for one in wanted if one.of is None and one.slug != "default")]
    accepted: dict[tuple[str, int, str], Submission] = {}
    new: set[tuple[str, int, str]] = set()

    def some() -> Submission:
        slug = chosen.choice(slugs)
        if accepted and chosen.random() < 0.15:
            return chosen.choice(list(accepted.values()))
        is_count = slug != "default" and directory.current.leaderboards[slug].definition.operator == "count"
        score = None if is_count and chosen.random() < 0.7 else chosen.randrange(-20, 20)
        at = None if chosen.random() < 0.5 else now - chosen.random() * 40 * DAY
        metadata = chosen.choice([None, '{"a": 1}', '{"b": 2}'])
        return to(slug, chosen.choice(users), str(chosen.randrange(60)), score, at, metadata)

    accounts = Accounts(ledger, Untold(), None, directory)  # type: ignore[arg-type]

    async def something_else() -> None:
        """What happens to a person, or to a definition, while batches are under way."""
        user, slug = chosen.choice(users), chosen.choice([None, *(one.slug for one in wanted)])
        what = chosen.choice(["ban", "unban", "rename", "zone"])
        if what == "rename":
            await accounts.rename(user, f"name-{chosen.random()}")
        elif what == "zone" and slug not in (None, "default"):
            zone, starts = chosen.choice(ZONES), chosen.choice(["monday", "saturday"])
            changed = orjson.dumps({"zone": zone, "week_starts": starts}).decode()
            await sql.execute(
                "UPDATE leaderboards SET definition = definition || $2::jsonb WHERE slug = $1", slug, changed
            )
            await sql.execute(
                "SELECT stretch_windows(id, k) FROM leaderboards, unnest('{day,week,month,year}'::text[]) k"
                " WHERE slug = $1",
                slug,
            )
            await sql.execute("UPDATE catalogue SET revision = revision + 1")
        elif what in ("ban", "unban"):
            act = accounts.ban if what == "ban" else accounts.unban
            await act(user, actor="test", reason=None, leaderboard=slug)

    for _ in range(6):
        batches = []
        for _ in range(chosen.randrange(1, 4)):
            batch = {(one.leaderboard, one.user_id, one.submission_id): one for one in (some() for _ in range(25))}
            batches.append(list(batch.values()))
        recorders = [Recorder(ledger, directory) for _ in batches]
        meanwhile = asyncio.ensure_future(something_else())
        results = await asyncio.gather(*(r.record(b) for r, b in zip(recorders, batches, strict=True)))
        await meanwhile
        for recorded in results:
            for one, outcome in recorded.outcomes:
                key = one.leaderboard, one.user_id, one.submission_id
                if isinstance(outcome, Accepted):
                    assert outcome.duplicate or key not in new, "recorded twice"
                    new |= set() if outcome.duplicate else {key}
                    accepted.setdefault(key, one)
                else:
                    assert outcome.code in ("submission_conflict", "forbidden"), outcome
        await agree_with_the_log(sql)
        await _rows_are_the_ledgers(sql, results, directory.current)
    logs = "SELECT 'default', user_id, submission_id FROM user_score_transactions UNION ALL"
    others = (
        "SELECT l.slug, t.user_id, t.submission_id FROM score_transactions t JOIN leaderboards l ON l.id = t.source"
    )
    assert {tuple(row) for row in await sql.fetch(f"{logs} {others}")} == set(accepted) == new


async def _rows_are_the_ledgers(sql: asyncpg.Connection, results: Sequence[Recording], catalogue: Catalogue) -> None:
    """The newest row that any of these statements gave of a player on a board is what the ledger has."""
    newest: dict[tuple[Board, int], Row] = {}
    for recorded in results:
        for of, rows in recorded.rows.items():
            for row in rows:
                if row.version >= newest.get((of, row.user_id), row).version:
                    newest[of, row.user_id] = row
    for (of, user_id), row in newest.items():
        if of.is_published:
            if of == ALL_TIME:
                found: Any = await sql.fetchrow(
                    "SELECT version, total_score FROM user_total_scores WHERE user_id = $1", user_id
                )
            else:
                found = await sql.fetchrow(
                    "SELECT version, score FROM user_weekly_scores WHERE user_id = $1 AND week = $2", user_id, of.week
                )
            _is_shown(row, tuple(found))
            continue
        found = await sql.fetchrow(
            'SELECT version, score, at, at_id, metadata::text FROM scores'
            ' WHERE source = $1 AND rule = $2 AND "window" = $3 AND user_id = $4',
            of.leaderboard.source, of.leaderboard.rule, of.window.key, user_id,
        )  # fmt: skip
        _is_shown(row, (found[0], found[1], (found[2], found[3]), found[4]))


def _is_shown(row: Row, found: tuple[Any, ...]) -> None:
    """A row is what the ledger has, unless a ban has moved it on since; of whoever is hidden it says so."""
    assert row.version <= found[0]
    if row.version == found[0] and row.score is not None:
        assert tuple(row)[1 : 1 + len(found)] == found


# Standings that are being made ---------------------------------------------------------------------------------------


async def test_a_rule_that_is_being_made_gets_what_is_new_of_players_who_have_their_rows_and_of_new_ones(
    ledger: Ledger, directory: Leaderboards, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    built, waiting, new = await make_users(3)
    recorder = Recorder(ledger, directory)
    await recorder.record([to("lap", user, "before", 700) for user in (built, waiting)])
    definition = orjson.dumps(replace(LAP, operator="last").as_json()).decode()
    rule = await sql.fetchval(
        "WITH made AS (INSERT INTO rules (leaderboard, source, operator, ascending, kinds, definition, state)"
        " SELECT id, id, 'last', true, '{all_time}', $1::jsonb, 'building' FROM leaderboards WHERE slug = 'lap'"
        " RETURNING id, leaderboard)"
        " UPDATE leaderboards SET next_rule = made.id, round = round + 1 FROM made"
        " WHERE leaderboards.id = made.leaderboard RETURNING made.id",
        definition,
    )
    await sql.execute("UPDATE heads SET built = 1 WHERE user_id = $1", built)
    await sql.execute("UPDATE catalogue SET revision = revision + 1")
    recorded = await recorder.record([to("lap", user, "after", 800) for user in (built, waiting, new)])
    rows = await sql.fetch("SELECT user_id, score FROM scores WHERE rule = $1 ORDER BY user_id", rule)
    assert [tuple(row) for row in rows] == [(built, 800), (new, 800)], "of the one who waits the log has it"
    (beside,) = [of for of in recorded.rows if of.id == f"next:{rule}:lap:all_time"]
    assert [row.user_id for row in recorded.rows[beside]] == [built, new]
    assert beside in directory.current.written_boards(datetime.now(UTC))
    scores = [outcome.scores for _, outcome in recorded.outcomes if isinstance(outcome, Accepted)]
    assert [of and of["lap:all_time"] for of in scores] == [700, 700, 800], "people see what is shown"
    await agree_with_the_log(sql)


# Cost ------------------------------------------------------------------------------------------------------------


def _touched(plan: dict[str, Any]) -> Iterator[tuple[float, str]]:
    """How many rows each step of a plan has looked at, its parts' left out."""
    removed = sum(value for name, value in plan.items() if name.startswith("Rows Removed by"))
    yield plan["Actual Loops"] * (plan["Actual Rows"] + removed), f"{plan['Node Type']} {plan.get('Relation Name', '')}"
    for part in plan.get("Plans", ()):
        yield from _touched(part)


@pytest.mark.parametrize("leaderboards", [1, 300])
async def test_no_step_goes_through_a_batch_for_each_of_its_rows(
    ledger: Ledger, sql: asyncpg.Connection, make_users: MakeUsers, leaderboards: int
) -> None:
    """Planned while everything was empty, as it is after a restart; then the tables are filled."""
    users = await make_users(500)
    await define(sql, *(Definition(f"b{n}", "B", windows=("all_time", "day")) for n in range(leaderboards)))
    directory = await catalogue_of(ledger)
    chosen = random.Random(1)

    def batch(number: int) -> list[Submission]:
        slugs = [f"b{n}" for n in range(leaderboards)]
        return [to(chosen.choice(slugs), chosen.choice(users), f"{number}-{n}", n % 50) for n in range(1_000)]

    async with ledger.connection() as connection:
        explained = "EXPLAIN (ANALYZE, FORMAT JSON) " + ledger.query("record_scores")
        for number in range(5):
            args = Columns(batch(number), directory.current).args
            ((found,),) = await connection.fetch(explained, *args, "scores", directory.current.revision, [], [], [])
    most, step = max(_touched(orjson.loads(found)[0]["Plan"]))
    assert most <= 20 * 1_000, f"{step} has looked at {most} rows"
    await agree_with_the_log(sql)


async def test_outbox_rows_of_many_leaderboards_are_looked_at_a_few_times_each(
    ledger: Ledger, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    """Planned while the outbox was empty, as it is wherever all is well."""
    (user,) = await make_users(1)
    await define(sql, *(Definition(f"b{n}", "B") for n in range(200)))
    catalogue = (await catalogue_of(ledger)).current
    await sql.execute("VACUUM outbox")
    looked = "SELECT coalesce(idx_tup_fetch, 0) FROM pg_stat_xact_user_tables WHERE relname = 'outbox'"
    cleared: list[Cleared] = []
    async with ledger.connection() as connection:
        for number in range(4):
            batch = [to(f"b{n}", user, f"{number}", 1) for n in range(200)]
            async with connection.transaction():
                before = await connection.fetchval(looked)
                recorded = await ledger.record_scores(batch, catalogue, cleared, connection=connection)
                assert await connection.fetchval(looked) - before <= 5 * 200
            cleared = [Cleared("", None, [outbox_id for outbox_id, _ in recorded.outbox])]
    assert await sql.fetchval("SELECT count(*) FROM outbox") == 200, "those of the last"


def _locking(plan: dict[str, Any], table: str) -> Iterator[dict[str, dict[str, Any]]]:
    """The sides of joins whose inner one locks rows of a table."""
    sides = {part["Parent Relationship"]: part for part in plan.get("Plans", ())}
    inner = sides.get("Inner", {})
    while inner.get("Node Type") == "Subquery Scan":
        (inner,) = inner["Plans"]
    if inner.get("Node Type") == "LockRows" and inner["Plans"][0].get("Relation Name") == table:
        yield sides
    for part in plan.get("Plans", ()):
        yield from _locking(part, table)


@pytest.mark.parametrize("without", ["nothing", "nestloop", "hashjoin", "mergejoin"])
async def test_heads_are_locked_in_one_order_however_the_batch_is_planned(
    ledger: Ledger, sql: asyncpg.Connection, make_users: MakeUsers, without: str
) -> None:
    """Else two batches that meet end each other."""
    (user,) = await make_users(1)
    await define(sql, *(Definition(f"b{n}", "B") for n in range(2)))
    catalogue = (await catalogue_of(ledger)).current
    args = Columns([to("b0", user, "a", 1), to("b1", user, "b", 1)], catalogue).args
    explained = "EXPLAIN (FORMAT JSON) " + ledger.query("record_scores")
    async with ledger.connection() as connection, connection.transaction():
        if without != "nothing":
            await connection.execute(f"SET LOCAL enable_{without} = off")
        ((found,),) = await connection.fetch(explained, *args, "scores", catalogue.revision, [], [], [])
    (sides,) = _locking(orjson.loads(found)[0]["Plan"], "heads")
    assert sides["Outer"]["Node Type"] == "Sort"
