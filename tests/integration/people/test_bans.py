"""Bans of the deployment and of leaderboards: nobody who is banned is shown, whoever else is at it."""

from __future__ import annotations

import asyncio
import random

import asyncpg
import pytest

from realtime.boards.definitions import Definition
from realtime.boards.submissions import Accepted, Submission
from realtime.errors import RealtimeError
from realtime.intake.recorder import Recorder
from realtime.ledger.leaderboards import Leaderboards
from realtime.ledger.ledger import Ledger
from realtime.people.accounts import Accounts
from tests.support.databases import MakeUsers
from tests.support.leaderboards import agree_with_the_log, catalogue_of, define
from tests.support.waiting import PATIENCE

LAP = Definition("lap", "Lap", operator="best", order="ascending", windows=("all_time", "day"))
LAST = Definition("lap-last", "Last lap", of="lap", operator="last")
POINTS = Definition("points", "Points", windows=("all_time", "week"))
HIGH = Definition("high", "High", of="default", operator="best")


class Untold:
    """A store that is away: the outbox rows stay."""

    async def each(self, user_ids: object) -> dict[str, str | None]:
        return {}


@pytest.fixture
async def directory(ledger: Ledger, sql: asyncpg.Connection) -> Leaderboards:
    await define(sql, LAP, LAST, POINTS, HIGH)
    return await catalogue_of(ledger)


@pytest.fixture
def accounts(ledger: Ledger, directory: Leaderboards) -> Accounts:
    return Accounts(ledger, Untold(), None, directory)  # type: ignore[arg-type]


@pytest.fixture
def recorder(ledger: Ledger, directory: Leaderboards) -> Recorder:
    return Recorder(ledger, directory)


def to(slug: str, user_id: int, name: str, score: int = 5) -> Submission:
    return Submission(user_id, name, score, None, None, slug)


async def answers(recorder: Recorder, user: int, name: str) -> dict[str, str]:
    """What a submission to each leaderboard that takes them is answered."""
    batch = [to(slug, user, name) for slug in ("default", "lap", "points")]
    found = (await recorder.record(batch)).outcomes
    return {one.leaderboard: "accepted" if isinstance(out, Accepted) else out.code for one, out in found}


async def shown(sql: asyncpg.Connection, user: int) -> set[str]:
    """The leaderboards on which a user is shown."""
    rows = await sql.fetch(
        "SELECT DISTINCT l.slug FROM scores s JOIN rules r ON r.id = s.rule JOIN leaderboards l ON l.id = r.leaderboard"
        " JOIN heads h ON h.source = s.source AND h.user_id = s.user_id"
        " WHERE s.user_id = $1 AND NOT h.hidden AND NOT l.id = ANY (h.hidden_on)"
        " UNION SELECT l.slug FROM user_total_scores t JOIN leaderboards l ON l.source = 1"
        " WHERE t.user_id = $1 AND t.total_score IS NOT NULL AND NOT t.hidden AND NOT l.id = ANY (t.hidden_on)",
        user,
    )
    return {slug for (slug,) in rows}


EVERYWHERE = {"default", "high", "lap", "lap-last", "points"}


@pytest.mark.parametrize(
    ("leaderboard", "hidden", "refused"),
    [
        (None, EVERYWHERE, {"default", "lap", "points"}),
        ("default", {"default", "high"}, {"default"}),
        ("high", {"high"}, set()),
        ("lap", {"lap", "lap-last"}, {"lap"}),
        ("lap-last", {"lap-last"}, set()),
        ("points", {"points"}, {"points"}),
    ],
)
async def test_a_ban_holds_where_it_was_spoken_and_on_what_is_of_it(
    accounts: Accounts,
    recorder: Recorder,
    sql: asyncpg.Connection,
    make_users: MakeUsers,
    leaderboard: str | None,
    hidden: set[str],
    refused: set[str],
) -> None:
    user, other = await make_users(2)
    for one in (user, other):
        assert set((await answers(recorder, one, "before")).values()) == {"accepted"}
    for _ in range(2):
        await accounts.ban(user, actor="test", reason="cheating", leaderboard=leaderboard)
        assert await shown(sql, user) == EVERYWHERE - hidden
        assert (await accounts.person(user)).banned == (leaderboard is None)
    assert await shown(sql, other) == EVERYWHERE
    said = await answers(recorder, user, "while banned")
    assert {slug for slug, outcome in said.items() if outcome == "forbidden"} == refused
    assert await sql.fetchval("SELECT count(*) FROM audit") == 1
    for _ in range(2):
        await accounts.unban(user, actor="test", reason=None, leaderboard=leaderboard)
        assert await shown(sql, user) == EVERYWHERE
    assert set((await answers(recorder, user, "after")).values()) == {"accepted"}
    await agree_with_the_log(sql)


async def test_bans_add_up_and_the_end_of_one_ends_no_other(
    accounts: Accounts, recorder: Recorder, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    (user,) = await make_users(1)
    await answers(recorder, user, "before")
    bans = [None, "default", "lap", "lap-last", "high"]
    covered: dict[str | None, set[str]] = {
        None: EVERYWHERE, "default": {"default", "high"}, "lap": {"lap", "lap-last"}, "lap-last": {"lap-last"},
        "high": {"high"},
    }  # fmt: skip
    chosen, held = random.Random(3), set[str | None]()
    for _ in range(40):
        which = chosen.choice(bans)
        if which in held:
            await accounts.unban(user, actor="test", reason=None, leaderboard=which)
        else:
            await accounts.ban(user, actor="test", reason=None, leaderboard=which)
        held ^= {which}
        assert await shown(sql, user) == EVERYWHERE - set().union(*(covered[one] for one in held)), held


async def test_who_is_banned_before_they_have_a_score_is_refused_everywhere_also_on_what_is_new(
    accounts: Accounts, recorder: Recorder, directory: Leaderboards, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    user, gone = await make_users(2)
    await accounts.ban(user, actor="test", reason=None)
    await accounts.delete(gone, actor="test")
    await define(sql, Definition("new", "New"))
    await sql.execute("SELECT hide_from_source(id) FROM leaderboards WHERE slug = 'new'")
    await directory.refresh()
    assert set((await answers(recorder, user, "a")).values()) == {"forbidden"}
    assert set((await answers(recorder, gone, "a")).values()) == {"unknown_user"}
    for one, code in ((user, "forbidden"), (gone, "unknown_user")):
        ((_, outcome),) = (await recorder.record([to("new", one, "a")])).outcomes
        assert not isinstance(outcome, Accepted) and outcome.code == code
    await accounts.unban(user, actor="test", reason=None)
    assert set((await answers(recorder, user, "b")).values()) == {"accepted"}
    assert await sql.fetchval("SELECT count(*) FROM scores WHERE user_id = $1", gone) == 0


async def test_what_a_server_of_before_hid_stays_hidden(
    accounts: Accounts, recorder: Recorder, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    """It knows of no bans but the column."""
    (user,) = await make_users(1)
    await answers(recorder, user, "before")
    await sql.execute("UPDATE user_total_scores SET hidden = true WHERE user_id = $1", user)
    assert (await accounts.person(user)).banned
    await accounts.ban(user, actor="test", reason=None, leaderboard="lap")
    await accounts.unban(user, actor="test", reason=None, leaderboard="lap")
    assert "default" not in await shown(sql, user)
    await accounts.unban(user, actor="test", reason=None)
    assert await shown(sql, user) == EVERYWHERE


async def test_every_change_moves_what_closed_boards_are_versioned_by_and_tells_each_source_that_shows_the_user(
    accounts: Accounts, recorder: Recorder, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    (user,) = await make_users(1)
    await recorder.record([to("lap", user, "a"), to("default", user, "a")])
    await sql.execute("DELETE FROM outbox")
    versions = await sql.fetch('SELECT rule, "window", version FROM scores ORDER BY 1, 2')

    async def shown_by() -> int:
        return int(await sql.fetchval("SELECT shown FROM catalogue"))

    async def told() -> dict[str, list[str]]:
        rows = await sql.fetch("DELETE FROM outbox o USING leaderboards l WHERE l.id = o.source RETURNING kind, slug")
        found: dict[str, list[str]] = {}
        for kind, slug in rows:
            found.setdefault(kind, []).append(slug)
        return {kind: sorted(slugs) for kind, slugs in found.items()}

    before = await shown_by()
    await accounts.rename(user, "another")
    assert (await shown_by(), await told()) == (before + 1, {"rename": ["default", "lap"]})
    await accounts.rename(user, "another")
    assert (await shown_by(), await told()) == (before + 1, {}), "the same name changes nothing"
    await accounts.ban(user, actor="test", reason=None)
    assert (await shown_by(), await told()) == (before + 2, {"ban": ["default", "lap"]})
    later = await sql.fetch('SELECT rule, "window", version FROM scores ORDER BY 1, 2')
    assert [row[2] for row in later] == [row[2] + 1 for row in versions], "no batch of before brings a ghost back"
    await accounts.unban(user, actor="test", reason=None)
    await accounts.ban(user, actor="test", reason=None, leaderboard="lap-last")
    assert (await shown_by(), await told()) == (before + 4, {"unban": ["default", "lap"], "ban": ["lap"]})
    await accounts.delete(user, actor="test")
    assert (await shown_by(), await told()) == (before + 5, {"deletion": ["default", "lap"]})


async def test_a_row_of_a_window_that_closed_long_ago_keeps_its_version(
    accounts: Accounts, recorder: Recorder, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    (user,) = await make_users(1)
    then = await sql.fetchval("SELECT now() - interval '40 days'")
    await recorder.record([Submission(user, "then", 5, None, then, "lap")])
    await accounts.ban(user, actor="test", reason=None)
    rows = await sql.fetch('SELECT w.kind, s.version FROM scores s JOIN windows w ON w.id = s."window"')
    assert {(row[0], row[1]) for row in rows} == {("all_time", 2), ("day", 1)}


async def test_a_batch_that_read_the_user_before_the_ban_is_refused_by_it(
    ledger: Ledger, recorder: Recorder, sql: asyncpg.Connection, dsn: str, make_users: MakeUsers
) -> None:
    (user,) = await make_users(1)
    await recorder.record([to("lap", user, "a")])
    await sql.execute("BEGIN; SELECT while_sources_stay()")
    await sql.fetch(ledger.query("player_held"), user, None)
    late = asyncio.ensure_future(recorder.record([to("lap", user, "late")]))
    watcher = await asyncpg.connect(dsn)
    async with asyncio.timeout(PATIENCE):
        while not await watcher.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            assert not late.done()
    await watcher.close()
    await sql.execute(ledger.query("banned"), user, 0)
    await sql.fetch(ledger.query("hidden_anew"), user, None, "ban")
    await sql.execute("COMMIT")
    ((_, outcome),) = (await late).outcomes
    assert not isinstance(outcome, Accepted) and outcome.code == "forbidden"
    assert await sql.fetchval("SELECT count(*) FROM score_transactions") == 1


async def test_a_first_score_that_meets_the_ban_brings_no_ghost(
    ledger: Ledger, recorder: Recorder, sql: asyncpg.Connection, dsn: str, make_users: MakeUsers
) -> None:
    """There is no head yet that the batch could have locked: the ban is just making it."""
    user, other = await make_users(2)
    await sql.execute("BEGIN; SELECT while_sources_stay()")
    await sql.fetch(ledger.query("player_held"), user, None)
    late = asyncio.ensure_future(recorder.record([to("lap", other, "first"), to("lap", user, "first")]))
    watcher = await asyncpg.connect(dsn)
    async with asyncio.timeout(PATIENCE):
        while not await watcher.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            assert not late.done()
    await watcher.close()
    await sql.execute(ledger.query("banned"), user, 0)
    await sql.fetch(ledger.query("hidden_anew"), user, None, "ban")
    await sql.execute("COMMIT")
    found = {one.user_id: outcome for one, outcome in (await late).outcomes}
    assert isinstance(found[other], Accepted)
    refused = found[user]
    assert not isinstance(refused, Accepted) and refused.code == "forbidden"
    assert [row[0] for row in await sql.fetch("SELECT user_id FROM score_transactions")] == [other]


async def test_bans_and_batches_that_meet_all_end(
    accounts: Accounts, ledger: Ledger, directory: Leaderboards, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    users = await make_users(8)
    chosen = random.Random(5)

    async def submit(lane: int) -> None:
        recorder = Recorder(ledger, directory)
        for number in range(15):
            batch = [to(slug, user, f"{lane}-{number}") for slug in ("lap", "points", "default") for user in users]
            chosen.shuffle(batch)
            await recorder.record(batch[:14])

    async def ban(user: int) -> None:
        for which in (None, "lap", "lap-last", "high", "default"):
            await accounts.ban(user, actor="test", reason=None, leaderboard=which)
            await accounts.rename(user, f"{which}-{user}")
            await accounts.unban(user, actor="test", reason=None, leaderboard=which)

    async with asyncio.timeout(60):
        await asyncio.gather(*(submit(lane) for lane in range(3)), *(ban(user) for user in users[:3]))
    assert await sql.fetchval("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == 0
    for user in users:
        assert not await sql.fetchval("SELECT bool_or(hidden) FROM heads WHERE user_id = $1", user)
    await agree_with_the_log(sql)


async def waits(dsn: str, *, count: int = 1) -> None:
    """Returns when so many statements wait for a lock."""
    watcher = await asyncpg.connect(dsn)
    async with asyncio.timeout(PATIENCE):
        while await watcher.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted") < count:
            pass
    await watcher.close()


async def test_a_ban_takes_what_is_there_before_what_it_makes_as_a_batch_does(
    accounts: Accounts, recorder: Recorder, sql: asyncpg.Connection, dsn: str, make_users: MakeUsers
) -> None:
    """The batch holds a head of the banned player that was there, and is about to make the one that comes before it."""
    other, user = await make_users(2)
    await recorder.record([to("points", user, "there")])
    await sql.execute("BEGIN")
    await sql.execute(
        "INSERT INTO heads (source, user_id) SELECT id, $1 FROM leaderboards WHERE slug = 'lap'", other
    )
    batch = [to("points", user, "a"), to("lap", other, "a"), to("lap", user, "a")]
    recording = asyncio.ensure_future(recorder.record(batch))
    await waits(dsn)
    ban = asyncio.ensure_future(accounts.ban(user, actor="test", reason=None))
    await waits(dsn, count=2)
    await sql.execute("ROLLBACK")
    await asyncio.gather(recording, ban)
    assert all(isinstance(outcome, Accepted) for _, outcome in recording.result().outcomes)
    assert await sql.fetchval("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == 0
    assert await shown(sql, user) == set()


async def test_a_change_that_postgresql_ends_for_another_is_done_again(
    accounts: Accounts, sql: asyncpg.Connection, dsn: str, make_users: MakeUsers
) -> None:
    """Somebody with statements of their own takes the locks the other way round."""
    (user,) = await make_users(1)
    await sql.execute("INSERT INTO user_total_scores (user_id) VALUES ($1)", user)
    await sql.execute("SET deadlock_timeout = '1h'; BEGIN")  # it is not this one that looks, and is ended
    await sql.execute("SELECT FROM users WHERE id = $1 FOR UPDATE", user)
    ban = asyncio.ensure_future(accounts.ban(user, actor="test", reason=None))
    await waits(dsn)
    held = asyncio.ensure_future(sql.execute("SELECT FROM user_total_scores WHERE user_id = $1 FOR UPDATE", user))
    await held
    await sql.execute("COMMIT")
    await ban
    assert await sql.fetchval("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == 1
    assert await sql.fetchval("SELECT hidden FROM user_total_scores WHERE user_id = $1", user)


async def test_a_rename_waits_for_a_first_score_and_tells_its_source_too(
    accounts: Accounts,
    ledger: Ledger,
    directory: Leaderboards,
    sql: asyncpg.Connection,
    dsn: str,
    make_users: MakeUsers,
) -> None:
    (user,) = await make_users(names=["before"])
    async with ledger.transaction() as connection:
        recorded = await ledger.record_scores([to("lap", user, "a")], directory.current, connection=connection)
        assert [one.username for one in recorded.profiles] == ["before"]
        rename = asyncio.ensure_future(accounts.rename(user, "after"))
        await waits(dsn)
    await rename
    sources = "SELECT l.slug FROM outbox o JOIN leaderboards l ON l.id = o.source WHERE o.kind = 'rename' ORDER BY 1"
    assert [slug for (slug,) in await sql.fetch(sources)] == ["default", "lap"]


async def test_the_first_score_of_a_player_whose_head_a_ban_has_made_brings_the_name(
    accounts: Accounts, recorder: Recorder, make_users: MakeUsers
) -> None:
    (user,) = await make_users(names=["Ada"])
    await accounts.ban(user, actor="test", reason=None)
    await accounts.unban(user, actor="test", reason=None)
    first = await recorder.record([to("lap", user, "a")])
    assert [one.username for one in first.profiles] == ["Ada"]
    assert (await recorder.record([to("lap", user, "b", 4)])).profiles == []


async def test_nobody_is_banned_from_what_is_not_there(
    accounts: Accounts, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    (user,) = await make_users(1)
    with pytest.raises(RealtimeError) as raised:
        await accounts.ban(user, actor="test", reason=None, leaderboard="nothing")
    assert raised.value.code == "unknown_leaderboard"
    assert await sql.fetchval("SELECT count(*) FROM bans") == 0
