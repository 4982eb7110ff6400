"""Imports, on real stores: what a file says is what every board shows, however often and however far it was read."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import io
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import redis.asyncio
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from realtime.api.people import entry_fields
from realtime.boards.board import ALL_TIME, week_at, week_of
from realtime.boards.submissions import CLOCK_GRACE, Submission, parse_submission
from realtime.intake import score_file
from realtime.intake.importer import Importer, Summary
from realtime.intake.score_file import BadRow
from realtime.ledger import closing
from realtime.ledger.closing import LOCK
from realtime.ledger.ledger import Ledger
from realtime.people.accounts import Accounts
from realtime.people.imported import imported_email
from realtime.people.passwords import Passwords
from realtime.repair.resync import Resync
from realtime.store.store import Store
from realtime.validation import INT_MAX, INT_MIN
from tests.support.closed_weeks import views_of
from tests.support.databases import MakeUsers
from tests.support.keys import scores_key
from tests.support.processes import Command, environment, running
from tests.support.servers import SECRET, RunningServer, running_server
from tests.support.waiting import SECOND, eventually

SAMPLE = Path(__file__).parents[2] / "fixtures" / "scores.csv"
REAL = Path(__file__).parents[4] / "shared" / "data" / "score_events.csv"
PATIENCE = 300 * SECOND
"""Seconds that importing a large file may take on a machine under load."""

HEADER = "submission_id,username,score_added,reason,created_at\n"


@dataclass
class Counted:
    """A plain count over a file: each id of each player once."""

    total: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    weeks: dict[date, dict[str, int]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(int)))

    @classmethod
    def of(cls, text: str) -> Counted:
        counted, seen = cls(), set()
        for row in csv.DictReader(io.StringIO(text)):
            if (row["username"], row["submission_id"]) in seen:
                continue
            seen.add((row["username"], row["submission_id"]))
            day = datetime.fromisoformat(row["created_at"]).astimezone(UTC).date()
            counted.total[row["username"]] += int(row["score_added"])
            counted.weeks[day - timedelta(days=day.weekday())][row["username"]] += int(row["score_added"])
        return counted


@contextmanager
def reading(text: str | bytes) -> Iterator[Any]:
    yield score_file.rows(io.BytesIO(text.encode() if isinstance(text, str) else text))


async def bring(ledger: Ledger, store: Store, text: str | bytes) -> tuple[Summary, dict[int, str]]:
    """Imports a file; gives the summary and what was wrong, by line."""
    bad: list[BadRow] = []
    importer = Importer(ledger, store, views_of(ledger, store), ledger.clock.now, bad.append)
    with reading(text) as rows:
        await importer.run(rows)
    await importer.settle()
    assert [row.line for row in bad] == sorted(row.line for row in bad)
    assert importer.summary.read == importer.summary.new + importer.summary.known + importer.summary.bad
    assert importer.summary.bad == len(bad)
    return importer.summary, dict(bad)


def row(submission_id: str = "a", player: str = "Ann", score: int = 5, at: str = "2024-02-28T10:00:00Z") -> str:
    return f"{submission_id},{player},{score},win,{at}\n"


def now_text(ledger: Ledger, ahead: timedelta = timedelta(seconds=-1)) -> str:
    """About now: our idea of PostgreSQL's clock may be ahead of it by a little."""
    return (ledger.clock.now() + ahead).isoformat()


async def ledger_says(sql: asyncpg.Connection) -> Counted:
    """What the tables have, by name."""
    counted = Counted()
    query = "SELECT username, total_score FROM user_total_scores JOIN users u ON u.id = user_id"
    for name, score in await sql.fetch(query):
        counted.total[name] = score
    query = "SELECT week, username, score FROM user_weekly_scores JOIN users u ON u.id = user_id"
    for week, name, score in await sql.fetch(query):
        counted.weeks[week][name] = score
    return counted


async def view_of(sql: asyncpg.Connection, week: date) -> dict[str, int]:
    view = closing.view_of(week_of(week))
    return dict(await sql.fetch(f"SELECT username, score FROM {view} v JOIN users u ON u.id = v.user_id"))


EVERYTHING = """SELECT 'total' AS what, user_id::text AS a, ''::text AS b, total_score::text AS c, version
        FROM user_total_scores
    UNION ALL SELECT 'week', week::text, user_id::text, score::text, version FROM user_weekly_scores
    UNION ALL SELECT 'user', id::text, username, email, version FROM users
    UNION ALL SELECT 'row', user_id::text, submission_id, created_at::text, id FROM user_score_transactions
    UNION ALL SELECT 'closed', week::text, players::text, '', version FROM closed_weeks
    UNION ALL SELECT 'outbox', kind, '', '', id FROM outbox
    UNION ALL SELECT 'next user', '', '', '', last_value FROM users_id_seq ORDER BY 1, 2, 3"""


async def everything(sql: asyncpg.Connection, keys: redis.asyncio.Redis) -> tuple[list[Any], dict[str, Any]]:
    """All that could move: every row with its version, every key of the store."""
    held: dict[str, Any] = {}
    async for key in keys.scan_iter("leaderboard:*"):
        held[key] = await keys.dump(key) if await keys.type(key) != "string" else await keys.get(key)
    return [tuple(one) for one in await sql.fetch(EVERYTHING)], held


# What a file says ------------------------------------------------------------------------------------------------


async def test_the_ledger_has_what_a_plain_count_gives(ledger: Ledger, store: Store, sql: asyncpg.Connection) -> None:
    text = SAMPLE.read_text(encoding="utf-8")
    summary, bad = await bring(ledger, store, text)
    assert (summary.read, summary.new, summary.known, bad) == (44, 43, 1, {})
    assert await ledger_says(sql) == Counted.of(text)
    assert summary.players == len(Counted.of(text).total)
    first, without_reason = await sql.fetchrow(
        "SELECT min(created_at), count(*) FILTER (WHERE reason IS NULL) FROM user_score_transactions"
    )
    assert (first, without_reason) == (datetime(2024, 2, 26, tzinfo=UTC), 12)
    assert await sql.fetchval("SELECT count(*) FROM outbox") == 0


async def test_again_changes_nothing_at_all(
    ledger: Ledger, store: Store, sql: asyncpg.Connection, keys: redis.asyncio.Redis
) -> None:
    text = SAMPLE.read_text(encoding="utf-8") + row("now", at=now_text(ledger))
    await bring(ledger, store, text)
    await views_of(ledger, store).open_all(100)
    before = await everything(sql, keys)
    summary, bad = await bring(ledger, store, text)
    assert (summary.new, summary.known, summary.players, bad) == (0, 45, 0, {})
    assert await everything(sql, keys) == before


async def test_the_second_half_joins_the_first(ledger: Ledger, store: Store, sql: asyncpg.Connection) -> None:
    text = SAMPLE.read_text(encoding="utf-8")
    half = "".join(text.splitlines(keepends=True)[:20])
    await bring(ledger, store, half)
    summary, _ = await bring(ledger, store, text)
    assert (summary.new, summary.known) == (24, 20)
    assert await ledger_says(sql) == Counted.of(text)


async def test_more_rows_than_a_batch_and_ids_that_come_again(
    ledger: Ledger, store: Store, sql: asyncpg.Connection
) -> None:
    lines = [row(f"s{n % 1500}", f"p{n % 7}", n % 7 + 1, f"2024-0{n % 7 + 1}-01T00:00:00Z") for n in range(10_500)]
    text = HEADER + "".join(lines)
    summary, bad = await bring(ledger, store, text)
    assert (summary.read, summary.new, summary.known, bad) == (10_500, 10_500, 0, {})
    assert await ledger_says(sql) == Counted.of(text)
    summary, bad = await bring(ledger, store, HEADER + "".join(lines + lines))
    assert (summary.new, summary.known, bad) == (0, 21_000, {})


async def test_a_user_id_names_a_user_who_is_there(
    ledger: Ledger, store: Store, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    (user_id,) = await make_users(names=["Ann"])
    text = "submission_id,user_id,username,score_added,created_at\n"
    text += f"a,{user_id},,5,2024-02-28T10:00:00Z\nb,,Ann,7,2024-02-28T10:00:00Z\n"
    text += f"c,{user_id + 1000},,9,2024-02-28T10:00:00Z\n"
    summary, bad = await bring(ledger, store, text)
    assert (summary.new, summary.players) == (2, 1)
    assert bad == {4: "unknown_user: There is no such user. Register the player before sending scores."}
    assert await sql.fetchval("SELECT total_score FROM user_total_scores WHERE user_id = $1", user_id) == 5


texts = st.text(st.sampled_from(list("ab,;\"'\t\r\n =\\é\u0301🙂")), max_size=12)
moments = st.datetimes(datetime(1970, 1, 2), datetime(2026, 1, 1), timezones=st.just(UTC))
submissions = st.lists(
    st.tuples(
        texts.filter(bool), st.integers(INT_MIN, INT_MAX), st.none() | texts, st.none() | st.booleans() | moments
    ),
    min_size=1,
    max_size=12,
    unique_by=lambda one: one[0],
)


@hypothesis_settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(given_scores=submissions, separator=st.sampled_from([",", ";", "\t"]), quoting=st.sampled_from([0, 1]))
async def test_what_is_read_of_a_log_can_be_handed_in_and_changes_nothing(
    ledger: Ledger,
    store: Store,
    sql: asyncpg.Connection,
    keys: redis.asyncio.Redis,
    given_scores: list[tuple[str, int, str | None, Any]],
    separator: str,
    quoting: Any,
) -> None:
    user = await sql.fetchval("INSERT INTO users (username) VALUES ('Ann') RETURNING id")
    batch = [
        parse_submission(
            {
                "submission_id": name,
                "score_added": score,
                "reason": reason,
                "created_at": at.isoformat() if isinstance(at, datetime) else None,
            },
            user,
        )
        for name, score, reason, at in given_scores
    ]
    await ledger.record_batch(batch, [])
    await sql.execute("UPDATE user_score_transactions SET reason = '' WHERE reason IS NULL AND id % 2 = 0")  # of before
    log = [entry_fields(user, entry) for entry in await Accounts(ledger, store, None).entries(user, None, 1_000)]  # type: ignore[arg-type]
    assert len(log) == len(batch)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, log[0], delimiter=separator, quoting=quoting)
    writer.writeheader()
    writer.writerows(log)
    before = await everything(sql, keys)
    summary, bad = await bring(ledger, store, text.getvalue())
    assert (summary.read, summary.new, summary.known, bad) == (len(batch), 0, len(batch), {})
    for entry in log:  # as it is in JSON as well
        again = parse_submission(entry, None)
        assert [one.outcome for one in (await ledger.record_batch([again], [])).judged] == ["duplicate"]
    assert await everything(sql, keys) == before


async def test_a_moment_a_little_ahead_is_no_bad_row(ledger: Ledger, store: Store) -> None:
    text = HEADER + row("a", at=now_text(ledger, CLOCK_GRACE / 2)) + row("b", at=now_text(ledger, CLOCK_GRACE * 2))
    summary, bad = await bring(ledger, store, text)
    assert (summary.new, bad) == (1, {3: "created_at lies in the future."})


# Who they are ----------------------------------------------------------------------------------------------------


async def test_a_name_that_somebody_registered_inherits_nothing(
    ledger: Ledger, store: Store, sql: asyncpg.Connection
) -> None:
    own = await sql.fetchval("INSERT INTO users (email, username) VALUES ('ann@example.com', 'Ann') RETURNING id")
    await bring(ledger, store, HEADER + row())
    assert await sql.fetchval("SELECT count(*) FROM user_total_scores WHERE user_id = $1", own) == 0
    imported = await sql.fetchrow("SELECT * FROM users WHERE id <> $1", own)
    assert (imported["username"], imported["email"]) == ("Ann", imported_email("Ann"))
    assert imported["password_hash"] is None, "nobody can sign in as them"
    local, domain = imported["email"].split("@")
    assert domain == "imported.invalid" and len(local) == 64, "an address's local part has at most 64 octets"


async def test_names_that_look_alike_are_other_players(ledger: Ledger, store: Store, sql: asyncpg.Connection) -> None:
    names = ["Ann", "ann", "ANN", "Bj\u00f6rk", "Bjork", "Bj\u04e7rk"]
    summary, _ = await bring(ledger, store, HEADER + "".join(row(player=name) for name in names))
    assert (summary.new, summary.players) == (6, 6)


@pytest.mark.parametrize("apart", [False, True], ids=["in one file", "in two"])
@pytest.mark.parametrize("turned", [False, True])
async def test_a_name_is_one_player_however_its_accents_are_written(
    ledger: Ledger, store: Store, sql: asyncpg.Connection, apart: bool, turned: bool
) -> None:
    names = ["Zo\u00eb \uac00", "Zoe\u0308 \u1100\u1161", "Zo\u00eb \u1100\u1161"]
    rows = [row(f"z{place}", name) for place, name in enumerate(names[::-1] if turned else names)]
    texts = [HEADER + one for one in rows] if apart else [HEADER + "".join(rows)]
    made = [(await bring(ledger, store, text))[0].players for text in texts]
    assert sum(made) == 1
    assert await sql.fetchval("SELECT total_score FROM user_total_scores") == 15
    assert await sql.fetchval("SELECT username FROM users") in names, "as somebody wrote it"
    for text in texts:
        summary, bad = await bring(ledger, store, text)
        assert (summary.new, summary.players, bad) == (0, 0, {})


async def test_players_whom_an_earlier_version_made_of_one_name_stay_who_they_are(
    ledger: Ledger, store: Store, sql: asyncpg.Connection, keys: redis.asyncio.Redis
) -> None:
    for name in ("Zo\u00eb", "Zoe\u0308", "Lu\u0308"):  # by what they were written with
        email = f"{hashlib.sha256(name.encode()).hexdigest()}@imported.invalid"
        await sql.execute("INSERT INTO users (email, username) VALUES ($1, $2)", email, name)
    text = HEADER + row("a", "Zo\u00eb", 1) + row("b", "Zoe\u0308", 2) + row("c", "L\u00fc", 4)
    text += row("d", "Lu\u0308", 8)
    summary, bad = await bring(ledger, store, text)
    assert (summary.new, summary.players, bad) == (4, 0, {})
    assert (await ledger_says(sql)).total == {"Zo\u00eb": 1, "Zoe\u0308": 2, "Lu\u0308": 12}
    before = await everything(sql, keys)
    summary, bad = await bring(ledger, store, text)
    assert (summary.known, bad) == (4, {})
    assert await everything(sql, keys) == before


async def test_a_renamed_player_keeps_their_history(ledger: Ledger, store: Store, sql: asyncpg.Connection) -> None:
    await bring(ledger, store, HEADER + row())
    user_id = await sql.fetchval("UPDATE users SET username = 'Other', version = version + 1 RETURNING id")
    summary, _ = await bring(ledger, store, HEADER + row("b"))
    assert summary.players == 0
    assert await sql.fetchval("SELECT total_score FROM user_total_scores WHERE user_id = $1", user_id) == 10


async def test_a_deleted_player_does_not_come_back(ledger: Ledger, store: Store, sql: asyncpg.Connection) -> None:
    await bring(ledger, store, HEADER + row() + row("b", "Bo"))
    user_id = await sql.fetchval("SELECT id FROM users WHERE username = 'Ann'")
    passwords = Passwords()
    accounts = Accounts(ledger, Resync(ledger, store, ledger.clock.now), passwords)
    await accounts.delete(user_id, actor="test")
    passwords.close()
    summary, bad = await bring(ledger, store, HEADER + row() + row("b", "Bo") + row("c"))
    assert (summary.new, summary.known, summary.players) == (0, 2, 0), "what is there is there"
    assert bad == {4: "deleted: this player was deleted here, and does not come back by an import."}
    assert await sql.fetchval("SELECT count(*) FROM users WHERE username = 'Ann'") == 0
    assert await sql.fetchval("SELECT hidden FROM user_total_scores WHERE user_id = $1", user_id)


async def test_a_player_is_made_only_for_a_row_that_may_count(
    ledger: Ledger, store: Store, sql: asyncpg.Connection
) -> None:
    await bring(ledger, store, HEADER + row(player="Future", at=now_text(ledger, timedelta(days=1))) + "x,Bad,1.5,,\n")
    assert await sql.fetchval("SELECT count(*) FROM users") == 0


# What is wrong ---------------------------------------------------------------------------------------------------


async def test_every_bad_row_is_named_and_the_others_count(
    ledger: Ledger, store: Store, sql: asyncpg.Connection
) -> None:
    banned, rich = await _people(ledger, store, sql)
    lines = [
        row("ok"),
        "short,Ann,5\n",
        row("ok", score=6),
        row("later", at=now_text(ledger, timedelta(minutes=5))),
        row("b", "Banned"),
        row("r", "Rich", 2**31 - 1),
        row("x", "a" * 65),
        row("y", " Ann"),
        '"open,Ann,1,,\n',
        row("ok2"),
        row("ok2"),
        row("ok", "Rich", -5),
    ]
    text = (HEADER + "".join(lines)).encode() + b"z,\xff,1,,2024-02-28T10:00:00Z\n"
    summary, bad = await bring(ledger, store, text)
    assert {line: cause.split(":")[0] for line, cause in bad.items()} == {
        3: "it has 3 columns, the first line 5",
        4: "submission_conflict",
        5: "created_at lies in the future.",
        6: "forbidden",
        7: "out_of_range",
        8: "username must have 1 to 64 characters.",
        9: "username must not begin or end with a space.",
        10: "not CSV",
        14: "not UTF-8",
    }
    assert (summary.new, summary.known) == (3, 1)
    counted = await ledger_says(sql)
    assert counted.total["Ann"] == 10
    assert await sql.fetchval("SELECT total_score FROM user_total_scores WHERE user_id = $1", rich) == 2**53 - 6
    assert await sql.fetchval("SELECT total_score FROM user_total_scores WHERE user_id = $1", banned) == 5


async def _people(ledger: Ledger, store: Store, sql: asyncpg.Connection) -> tuple[int, int]:
    """A banned player, and one who is near the end of what a total can hold."""
    await bring(ledger, store, HEADER + row("0", "Banned") + row("0", "Rich"))
    ids = dict(await sql.fetch("SELECT username, id FROM users"))
    passwords = Passwords()
    accounts = Accounts(ledger, Resync(ledger, store, ledger.clock.now), passwords)
    await accounts.ban(ids["Banned"], actor="test", reason=None)
    passwords.close()
    await sql.execute("UPDATE user_total_scores SET total_score = $2 WHERE user_id = $1", ids["Rich"], 2**53 - 1)
    return ids["Banned"], ids["Rich"]


async def test_an_id_whose_content_changed_is_a_conflict_across_batches(ledger: Ledger, store: Store) -> None:
    filler = "".join(row(f"f{n}") for n in range(1_200))
    _, bad = await bring(ledger, store, HEADER + row("a") + filler + row("a", at="2024-02-28T10:00:01Z"))
    assert list(bad) == [1203] and bad[1203].startswith("submission_conflict: ")


# Both stores -----------------------------------------------------------------------------------------------------


async def test_live_boards_have_it_when_it_ends(ledger: Ledger, store: Store, keys: redis.asyncio.Redis) -> None:
    text = SAMPLE.read_text(encoding="utf-8") + row("now", "Mira", 1_000_000, now_text(ledger))
    await bring(ledger, store, text)
    week = week_at(ledger.clock.now())
    scores = dict(await keys.zrange(scores_key(ALL_TIME), 0, -1, withscores=True))
    names = {user_id: await keys.hget(f"leaderboard:users:{user_id}", "username") for user_id in scores}
    assert {names[user_id]: score for user_id, score in scores.items()} == Counted.of(text).total
    assert [score for _, score in await keys.zrange(scores_key(week), 0, -1, withscores=True)] == [1_000_000]
    assert not await keys.exists(scores_key(week_of(date(2024, 2, 26)))), "a closed week is its view's alone"


async def test_a_closed_week_that_has_its_view_is_refreshed_once(
    ledger: Ledger, store: Store, sql: asyncpg.Connection
) -> None:
    text = SAMPLE.read_text(encoding="utf-8")
    await bring(ledger, store, text)
    views = views_of(ledger, store)
    assert await views.open_all(100) == 4
    more = "".join(row(f"m{n}", f"p{n % 9}", 3, f"2024-03-{n % 28 + 1:02}T00:00:00Z") for n in range(3_500))
    await bring(ledger, store, HEADER + more)
    versions = dict(await sql.fetch("SELECT week, version FROM closed_weeks"))
    assert versions[date(2024, 2, 26)] == versions[date(2024, 3, 4)] == versions[date(2024, 3, 18)] == 2
    assert versions[date(2024, 4, 1)] == 1, "not in the second file"
    assert date(2024, 3, 11) not in versions, "not opened by importing"
    both = Counted.of(text + more)
    for week in versions:
        assert await view_of(sql, week) == both.weeks[week]
    snapshot, players = await views.archive.snapshot(week_of(date(2024, 3, 18)))
    assert players == len(both.weeks[date(2024, 3, 18)])
    shown = {snapshot.names[user_id]: score for user_id, score in snapshot.scores.items()}
    assert shown == both.weeks[date(2024, 3, 18)]


async def test_an_import_waits_for_nobody_who_makes_a_view_and_nothing_is_lost(
    ledger: Ledger, store: Store, dsn: str, sql: asyncpg.Connection
) -> None:
    await bring(ledger, store, HEADER + row())
    views = views_of(ledger, store)
    await views.open_all(100)
    board = week_of(date(2024, 2, 26))
    assert board.week is not None
    other = await asyncpg.connect(dsn)
    making = other.transaction()
    await making.start()
    await other.execute("SELECT pg_advisory_xact_lock($1)", LOCK + board.week.toordinal())
    await bring(ledger, store, HEADER + row("b", "Bo"))
    assert await view_of(sql, board.week) == {"Ann": 5}
    await making.rollback()
    await other.close()
    await bring(ledger, store, HEADER + row("b", "Bo"))
    assert await view_of(sql, board.week) == {"Ann": 5, "Bo": 5}


async def test_a_living_import_s_weeks_are_left_alone_and_a_dead_one_s_are_the_worker_s(
    ledger: Ledger, store: Store, sql: asyncpg.Connection
) -> None:
    await bring(ledger, store, HEADER + row())
    views, week = views_of(ledger, store), date(2024, 2, 26)
    await views.open_all(100)
    importer = Importer(ledger, store, views, ledger.clock.now, lambda row: None)
    with reading(HEADER + row("b", "Bo") + "".join(row(f"f{n}", "Cy") for n in range(1_500))) as rows:
        await importer.run(rows)  # and then it dies
    assert await views.settle() == 0
    assert await view_of(sql, week) == {"Ann": 5}
    # A clock that was ahead must not leave them alone for long: only two minutes count, from whichever clock there is.
    await sql.execute("UPDATE closed_weeks SET quiet_until = quiet_until + interval '1 year'")
    assert await views.settle() == 1
    assert await view_of(sql, week) == {"Ann": 5, "Bo": 5, "Cy": 7_500}


async def test_a_correction_during_an_import_is_shown_at_once(
    ledger: Ledger, store: Store, sql: asyncpg.Connection
) -> None:
    await bring(ledger, store, HEADER + row())
    views, week = views_of(ledger, store), date(2024, 2, 26)
    await views.open_all(100)
    importer = Importer(ledger, store, views, ledger.clock.now, lambda row: None)
    with reading(HEADER + row("b", "Bo")) as rows:
        await importer.run(rows)
    user = await sql.fetchval("SELECT id FROM users WHERE username = 'Ann'")
    await ledger.record_batch([Submission(user, "c", 2, None, datetime(2024, 2, 28, tzinfo=UTC))], [])
    assert await views.settle() == 1
    assert await view_of(sql, week) == {"Ann": 7, "Bo": 5}


async def test_what_a_dead_import_owed_the_next_one_pays(ledger: Ledger, store: Store, sql: asyncpg.Connection) -> None:
    await bring(ledger, store, HEADER + row())
    views = views_of(ledger, store)
    await views.open_all(100)
    dead = Importer(ledger, store, views, ledger.clock.now, lambda row: None)
    text = HEADER + "".join(row(f"f{n}", "Cy") for n in range(2_500))
    with reading(text) as rows:
        await dead.run(rows)
    await bring(ledger, store, text)
    assert await view_of(sql, date(2024, 2, 26)) == {"Ann": 5, "Cy": 12_500}


async def test_without_a_store_the_rows_wait_for_a_worker(ledger: Ledger, sql: asyncpg.Connection) -> None:
    away = Store("redis://127.0.0.1:1/0", timeout=0.2)
    importer = Importer(ledger, away, views_of(ledger, away), ledger.clock.now, lambda row: None)
    with reading(HEADER + row()) as rows:
        await importer.run(rows)
    await importer.settle()
    assert (importer.summary.new, importer.summary.untold) == (1, 1)
    assert await sql.fetchval("SELECT array_agg(kind) FROM outbox") == ["import"]
    await away.aclose()


# Beside a server -------------------------------------------------------------------------------------------------


async def test_who_follows_a_board_sees_it_fill(server: RunningServer, ledger: Ledger, store_url: str) -> None:
    follower = await server.client()
    await follower.subscribe("all_time")
    await follower.subscribe("current_week")
    store = Store(store_url)
    await store.adopt()
    try:
        text = SAMPLE.read_text(encoding="utf-8") + row("now", "Mira", 3, now_text(ledger))
        await bring(ledger, store, text)
        expected = sorted(Counted.of(text).total.items())
        week = week_at(ledger.clock.now()).id
        boards = follower.follower.boards

        def shown() -> bool:
            return sorted((name, score) for _, name, score in boards["all_time"].lines) == expected

        while not (shown() and boards[week].lines):
            await follower.next()
        assert [line[1:] for line in boards[week].lines] == [("Mira", 3)]
        diffs = follower.follower.diffs
        assert diffs >= 2
        await bring(ledger, store, text)
        assert await follower.settled() == [], "again, and nobody hears of it"
    finally:
        await store.aclose()


async def ends(command: Command) -> int:
    """The exit code of a command that has much to do."""
    async with asyncio.timeout(PATIENCE):
        await command.process.wait()
    return await command.ends()


def importing(dsn: str, store_url: str, path: Path) -> Any:
    variables = {"DATABASE_URL": dsn, "DRAGONFLY_URL": store_url, "REALTIME_SECRET": SECRET}
    program = [sys.executable, "-m", "realtime"]
    return running("import", str(path), program=program, env=environment(**variables))


async def test_the_command_says_what_it_did_and_ends_with_1_where_a_row_was_bad(
    dsn: str, store_url: str, filled: None, tmp_path: Path
) -> None:
    path = tmp_path / "scores.csv"
    path.write_text(HEADER + row() + row("b", "Bo") + row("b", "Bo"), encoding="utf-8")
    async with importing(dsn, store_url, path) as command:
        assert await command.ends() == 0
    assert command.lines == ["3 read: 2 new, 1 already there, 0 bad; 2 players made."]
    path.write_text(HEADER + row() + row("c", score=7) + "d,Bo,x,,\n" + row("b", "Bo", 6), encoding="utf-8")
    async with importing(dsn, store_url, path) as command:
        assert await command.ends() == 1
    assert command.lines == ["4 read: 1 new, 1 already there, 2 bad; 0 players made."]
    assert "line 4: score_added must be a whole number." in command.errors
    assert any(line.startswith("line 5: submission_conflict: ") for line in command.errors)
    path.write_text("name,points\n", encoding="utf-8")
    async with importing(dsn, store_url, path) as command:
        assert await command.ends() == 1
    assert command.lines == [] and any("must name the columns" in line for line in command.errors)


async def test_killed_anywhere_and_begun_again_it_comes_to_the_same(
    server: RunningServer, dsn: str, store_url: str, sql: asyncpg.Connection, tmp_path: Path
) -> None:
    def at(n: int) -> str:
        return f"20{10 + n % 9}-0{n % 9 + 1}-1{n % 7}T0{n % 5}:00:00Z"

    lines = [row(f"s{n}", f"p{n % 400}", n % 90 + 1, at(n)) for n in range(12_000)]
    path = tmp_path / "scores.csv"
    path.write_text(HEADER + "".join(lines), encoding="utf-8")
    kills = 0
    for threshold in (1, 3_000, 7_000, 11_500):
        async with importing(dsn, store_url, path) as command:

            async def far_enough(threshold: int = threshold, command: Command = command) -> bool:
                count = await sql.fetchval("SELECT count(*) FROM user_score_transactions")
                return count >= threshold or command.process.returncode is not None

            await eventually(far_enough)
            if command.process.returncode is None:
                command.process.kill()
                kills += 1
    assert kills >= 2, "it was never killed in the middle"
    async with importing(dsn, store_url, path) as command:
        assert await ends(command) == 0
    counted = Counted.of(HEADER + "".join(lines))
    assert await ledger_says(sql) == counted

    async def settled() -> bool:
        return await sql.fetchval("SELECT count(*) FROM outbox") == 0

    await eventually(settled)  # the killed ones' last rows: the sweeper's
    page = (await server.http.get("/boards/all_time?limit=1000")).json()
    assert {entry["username"]: entry["score"] for entry in page["entries"]} == counted.total
    for week in list(counted.weeks)[:20]:
        page = (await server.http.get(f"/boards/{week_of(week).id}?limit=1000")).json()
        assert {entry["username"]: entry["score"] for entry in page["entries"]} == counted.weeks[week]


@pytest.mark.skipif(not REAL.exists(), reason="the real score events are not on this machine")
async def test_the_real_events_are_on_every_board_what_a_plain_count_says(
    dsn: str, store_url: str, filled: None, sql: asyncpg.Connection
) -> None:
    text = REAL.read_text(encoding="utf-8")
    counted = Counted.of(text)
    assert len(counted.total) == 1_762 and len(counted.weeks) > 900
    async with running_server(dsn, store_url) as server:  # with the worker, which opens weeks meanwhile
        async with importing(dsn, store_url, REAL) as command:
            assert await ends(command) == 0
        assert command.lines == ["50351 read: 50351 new, 0 already there, 0 bad; 1762 players made."]
        await _shows("all_time", counted.total, server)
        for week, players in counted.weeks.items():
            await _shows(week_of(week).id, players, server)
            assert await view_of(sql, week) == players
        refreshed = await sql.fetchval("SELECT max(version) FROM closed_weeks")
        assert refreshed <= 2, "made by the worker or at the first read, and refreshed at most once"
        versions = await sql.fetch("SELECT week, version FROM closed_weeks ORDER BY week")
        async with importing(dsn, store_url, REAL) as command:
            assert await ends(command) == 0
        assert command.lines == ["50351 read: 0 new, 50351 already there, 0 bad; 0 players made."]
        assert await sql.fetch("SELECT week, version FROM closed_weeks ORDER BY week") == versions


async def _shows(board: str, players: dict[str, int], server: RunningServer) -> None:
    """Every line of a board over HTTP: names, scores, order and ranks."""
    entries: list[dict[str, Any]] = []
    while len(entries) < len(players):
        page = (await server.http.get(f"/boards/{board}?limit=1000&offset={len(entries)}")).json()
        assert page["players"] == len(players) and page["entries"], board
        entries += page["entries"]
    assert {entry["username"]: entry["score"] for entry in entries} == players, board
    keys = [(entry["score"], str(entry["user_id"])) for entry in entries]
    assert keys == sorted(keys, reverse=True), board
    assert [entry["rank"] for entry in entries] == list(_ranks(entries)), board


def _ranks(entries: Iterable[dict[str, Any]]) -> Iterator[int]:
    rank, score = 0, None
    for place, entry in enumerate(entries, 1):
        if entry["score"] != score:
            rank, score = place, entry["score"]
        yield rank
