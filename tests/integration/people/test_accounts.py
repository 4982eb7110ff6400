"""Accounts: people come, are renamed, banned, shown again and leave, in both stores, whoever else is at it."""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
import unicodedata
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import argon2
import asyncpg
import pytest
from redis.asyncio import Redis

from realtime.boards.board import ALL_TIME
from realtime.boards.submissions import Rejected, Submission
from realtime.dev import postgres, process
from realtime.dev.postgres import start_postgres
from realtime.errors import RealtimeError
from realtime.intake.recorder import Recorder
from realtime.ledger import migrations
from realtime.ledger.ledger import Ledger
from realtime.people.accounts import Accounts, check_email
from realtime.people.passwords import Passwords
from realtime.repair.resync import Resync
from realtime.store.store import Store
from tests.support.databases import FAST_POSTGRES, MakeUsers
from tests.support.keys import scores_key, user_key, version_key
from tests.support.waiting import PATIENCE

PASSWORD = "correct horse"


@pytest.fixture
async def passwords() -> AsyncIterator[Passwords]:
    """The real ones, as cheap as the algorithm can be."""
    made = Passwords()
    made._hasher = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    made._nobody = made._hasher.hash("nobody")
    yield made
    made.close()


@pytest.fixture
def accounts(ledger: Ledger, store: Store, passwords: Passwords) -> Accounts:
    return Accounts(ledger, Resync(ledger, store, ledger.clock.now), passwords)


async def refusal(work: object) -> RealtimeError:
    with pytest.raises(RealtimeError) as caught:
        await work  # type: ignore[misc]
    return caught.value


async def record(ledger: Ledger, store: Store, user: int, name: str = "a", score: int = 5) -> str:
    """A submission all the way; gives `accepted` or the code."""
    recording = await Recorder(ledger).record([Submission(user, name, score, None, None)])
    await store.tell(recording.live_rows(ledger.clock.now()), recording.profiles)
    ((_, outcome),) = recording.outcomes
    return outcome.code if isinstance(outcome, Rejected) else "accepted"


# Coming ----------------------------------------------------------------------------------------------------------


async def test_somebody_registers_and_signs_in(accounts: Accounts, sql: asyncpg.Connection) -> None:
    user = await accounts.register("Ada@Example.org", PASSWORD, "Ada")
    assert await accounts.sign_in("ada@example.ORG", PASSWORD) == user
    person = await accounts.person(user)
    assert (person.email, person.username, person.banned) == ("Ada@Example.org", "Ada", False)
    kept = await sql.fetchval("SELECT password_hash FROM users WHERE id = $1", user)
    assert kept.startswith("$argon2id$") and PASSWORD not in kept


async def test_an_address_is_taken_once_without_regard_to_case(accounts: Accounts, sql: asyncpg.Connection) -> None:
    await accounts.register("ada@example.org", PASSWORD, "Ada")
    assert (await refusal(accounts.register("ADA@example.org", PASSWORD, "Eve"))).code == "conflict"
    again = [accounts.register("bob@example.org", PASSWORD, f"Bob {n}") for n in range(3)]
    results = await asyncio.gather(*again, return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["RealtimeError", "RealtimeError", "int"]
    assert await sql.fetchval("SELECT count(*) FROM users") == 2


@pytest.mark.parametrize(
    "email",
    [
        None, 5, "", "a", "a@", "@a", "a b@c.d", "a@b@c", "a@-b.c", "a@b..c", "a\n@b.c", "a@b.c\n", "ä@b.c",
        "a@b.c\x00", "x" * 251 + "@b.c", "somebody@imported.invalid", "somebody@IMPORTED.invalid", "a@b.c'--\ud800",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(email: object) -> None:
    with pytest.raises(RealtimeError) as caught:
        check_email(email)
    assert caught.value.code in ("bad_message", "out_of_range")


@pytest.mark.parametrize("email", ["a@b.c", "a.b+c@d-e.example", "o'brien@example.org", "x@localhost"])
def test_what_is_an_address_is_taken(email: str) -> None:
    assert check_email(email) == email


@pytest.mark.parametrize(
    ("password", "username"),
    [
        (None, "a"),
        ("short", "a"),
        ("x" * 1025, "a"),
        ("\x00" * 9, "a"),
        ("\ud800" * 9, "a"),
        (PASSWORD, ""),
        (PASSWORD, " "),
    ],
)
async def test_a_refused_registration_leaves_nothing(
    accounts: Accounts, sql: asyncpg.Connection, password: object, username: object
) -> None:
    assert (await refusal(accounts.register("a@b.c", password, username))).code in ("bad_message", "out_of_range")
    assert await sql.fetchval("SELECT count(*) FROM users") == 0


async def test_a_wrong_password_and_no_such_person_sound_the_same(accounts: Accounts, make_users: MakeUsers) -> None:
    user = await accounts.register("ada@example.org", PASSWORD, "Ada")
    await make_users(1)  # imported: no address, no password
    refusals = [
        await refusal(accounts.sign_in("ada@example.org", "wrong password")),
        await refusal(accounts.sign_in("nobody@example.org", PASSWORD)),
    ]
    await accounts.delete(user, actor="test")
    refusals.append(await refusal(accounts.sign_in("ada@example.org", PASSWORD)))
    assert {(error.code, error.message) for error in refusals} == {
        ("unauthorized", "The e-mail address or the password is wrong.")
    }


@pytest.mark.parametrize(
    ("chosen", "typed"),
    [
        ("pa\u0308sswo\u0308rd", "p\u00e4ssw\u00f6rd"),  # as one system's keyboard writes it, and as another's
        ("p\u00e4ssw\u00f6rd", "pa\u0308sswo\u0308rd"),
        ("\uac00\ub098\ub2e4\ub77c\ub9c8\ubc14\uc0ac\uc544", unicodedata.normalize("NFD", "가나다라마바사아")),
        ("correct\u00a0horse", "correct horse"),
        ("correct horse", "correct\u3000horse"),
        ("\U0001fa77 horse\u0301 ", "\U0001fa77 hors\u00e9 "),
    ],
)
async def test_a_password_is_the_same_however_a_keyboard_writes_it(
    accounts: Accounts, passwords: Passwords, sql: asyncpg.Connection, chosen: str, typed: str
) -> None:
    user = await accounts.register("ada@example.org", chosen, "Ada")
    for given in (chosen, typed):
        assert await accounts.sign_in("ada@example.org", given) == user
    assert (await refusal(accounts.sign_in("ada@example.org", typed + "x"))).code == "unauthorized"
    # An earlier version hashed what came.
    await sql.execute("UPDATE users SET password_hash = $1", passwords._hasher.hash(chosen))
    for given in (chosen, typed) if "\u3000" not in typed and "\u00a0" not in chosen else (chosen,):
        assert await accounts.sign_in("ada@example.org", given) == user
    assert (await refusal(accounts.sign_in("ada@example.org", chosen + "x"))).code == "unauthorized"


@pytest.mark.parametrize("password", ["a\u0308" * 7, "x" * 1025, "\u00e4" * 1025, "x" * 5000])
async def test_a_passwords_length_is_that_of_its_characters(accounts: Accounts, password: str) -> None:
    assert (await refusal(accounts.register("ada@example.org", password, "Ada"))).code == "out_of_range"


async def test_the_longest_password_may_come_in_parts(accounts: Accounts) -> None:
    user = await accounts.register("ada@example.org", "\u00e4" * 1024, "Ada")
    assert await accounts.sign_in("ada@example.org", "a\u0308" * 1024) == user


async def test_of_several_users_with_one_address_each_signs_in_as_they_wrote_it(
    accounts: Accounts, passwords: Passwords, sql: asyncpg.Connection
) -> None:
    """A locale may have told their addresses apart when they came."""
    await sql.execute("DROP INDEX users_email")
    try:
        for place, email in enumerate(("Ada@I.example", "ada@i.example", "ADA@I.example")):
            query = "INSERT INTO users (email, password_hash, username, email_place) VALUES ($1, $2, 'x', $3)"
            await sql.execute(query, email, passwords._hasher.hash(f"{email} has this"), place)
        first, second, third = (row[0] for row in await sql.fetch("SELECT id FROM users ORDER BY id"))
        for email, user in (("Ada@I.example", first), ("ada@i.example", second), ("ADA@I.example", third)):
            assert await accounts.sign_in(email, f"{email} has this") == user
        assert await accounts.sign_in("aDA@i.example", "Ada@I.example has this") == first
        await accounts.delete(first, actor="test")
        assert (await refusal(accounts.register("aDA@i.example", PASSWORD, "Eve"))).code == "conflict"
        assert await accounts.sign_in("aDA@i.example", "ada@i.example has this") == second
    finally:
        await sql.execute("TRUNCATE users; CREATE UNIQUE INDEX users_email ON users (lower(email))")


TURKISH = "tr_TR.UTF-8"


@pytest.fixture
def turkish_postgres(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URL of a PostgreSQL that knows a Turkish locale, made for it where the machine can make one."""
    with tempfile.TemporaryDirectory(prefix="realtime-turkish-") as folder:
        Path(folder).chmod(0o755)  # who runs PostgreSQL may be another user
        try:
            made = subprocess.run(["localedef", "-i", "tr_TR", "-f", "UTF-8", f"{folder}/{TURKISH}"], check=False)
        except FileNotFoundError:
            pytest.skip("no locale can be made here")
        if made.returncode:
            pytest.skip("the sources of locales are not on this machine")
        variables = {**process.environment(), "LOCPATH": folder}
        for module in (process, postgres):
            monkeypatch.setattr(module, "environment", lambda: variables)
        with start_postgres(Path(folder) / "data", settings=FAST_POSTGRES) as running:
            yield running.url


async def test_an_address_has_one_account_also_where_the_letter_i_has_two_cases_of_its_own(
    turkish_postgres: str, store: Store, passwords: Passwords
) -> None:
    connection = await asyncpg.connect(turkish_postgres)
    await connection.execute(f"CREATE DATABASE turkish TEMPLATE template0 ENCODING 'UTF8' LOCALE '{TURKISH}'")
    await connection.close()
    dsn = urlunsplit(urlsplit(turkish_postgres)._replace(path="/turkish"))
    await migrations.migrate(dsn)
    connection = await asyncpg.connect(dsn)
    assert await connection.fetchval("SELECT lower('I')") == "\u0131"
    await connection.close()
    ledger = Ledger(dsn)
    await ledger.open()
    try:
        accounts = Accounts(ledger, Resync(ledger, store, ledger.clock.now), passwords)
        user = await accounts.register("IDA@I.example", PASSWORD, "Ida")
        assert (await refusal(accounts.register("ida@i.example", PASSWORD, "Eve"))).code == "conflict"
        assert await accounts.sign_in("ida@I.EXAMPLE", PASSWORD) == user
    finally:
        await ledger.aclose()


# Renames ---------------------------------------------------------------------------------------------------------


async def test_a_rename_reaches_both_stores(
    accounts: Accounts, ledger: Ledger, store: Store, keys: Redis, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    (user,) = await make_users(names=["before"])
    await record(ledger, store, user)
    shown = int(str(await keys.get(version_key(ALL_TIME))))
    await accounts.rename(user, "after")
    assert await sql.fetchval("SELECT username FROM users") == "after"
    assert await keys.hgetall(user_key(user)) == {"user_id": str(user), "username": "after", "version": "2"}
    assert int(str(await keys.get(version_key(ALL_TIME)))) == shown + 1
    assert await sql.fetchval("SELECT count(*) FROM outbox WHERE kind = 'rename'") == 0, "the store has it"
    await accounts.rename(user, "after")
    assert await sql.fetchval("SELECT version FROM users") == 2, "the same name is no change"


async def test_renames_that_race_end_with_the_ledger_s(
    accounts: Accounts,
    ledger: Ledger,
    store: Store,
    store_url: str,
    keys: Redis,
    sql: asyncpg.Connection,
    make_users: MakeUsers,
) -> None:
    (user,) = await make_users(1)
    await record(ledger, store, user)
    other = Store(store_url)
    await other.adopt()
    elsewhere = Accounts(ledger, Resync(ledger, other, ledger.clock.now), None)  # type: ignore[arg-type]
    await asyncio.gather(*((accounts if n % 2 else elsewhere).rename(user, f"name {n}") for n in range(24)))
    name, version = await sql.fetchrow("SELECT username, version FROM users")
    assert await keys.hmget(user_key(user), "username", "version") == [name, str(version)]
    assert version == 25
    await other.aclose()


async def test_nobody_is_renamed_who_is_not_there(accounts: Accounts, make_users: MakeUsers) -> None:
    (user,) = await make_users(1)
    await accounts.delete(user, actor="test")
    for gone in (user, 10**9):
        assert (await refusal(accounts.rename(gone, "ghost"))).code == "unknown_user"
    assert (await refusal(accounts.rename(user, "\u202eghost"))).code == "bad_message"


# Bans ------------------------------------------------------------------------------------------------------------


async def test_a_ban_hides_and_refuses_and_is_lifted_with_all_that_was_theirs(
    accounts: Accounts, ledger: Ledger, store: Store, keys: Redis, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    user, other = await make_users(2)
    for somebody in (user, other):
        assert await record(ledger, store, somebody) == "accepted"
    versions = []
    for _ in range(2):
        await accounts.ban(user, actor="user:1", reason="cheating")
        assert await keys.zrange(scores_key(ALL_TIME), 0, -1) == [str(other)]
        versions.append(await keys.get(version_key(ALL_TIME)))
    assert versions[0] == versions[1], "nobody is sent a diff without a change"
    assert await record(ledger, store, user, "b") == "forbidden"
    assert (await accounts.person(user)).banned
    for _ in range(2):
        await accounts.unban(user, actor="user:1", reason=None)
        assert await keys.zscore(scores_key(ALL_TIME), user) == 5
    assert await record(ledger, store, user, "b") == "accepted"
    assert await keys.zscore(scores_key(ALL_TIME), user) == 10
    audit = await sql.fetch("SELECT actor, action, user_id, detail FROM audit ORDER BY id")
    assert [(row["actor"], row["action"], row["user_id"]) for row in audit] == [
        ("user:1", action, user) for action in ("ban", "unban")
    ], "what changed nothing leaves no row"
    assert "cheating" in audit[0]["detail"]


async def test_a_ban_before_the_first_score(
    accounts: Accounts, ledger: Ledger, store: Store, keys: Redis, make_users: MakeUsers
) -> None:
    (user,) = await make_users(1)
    await accounts.ban(user, actor="test", reason=None)
    assert await record(ledger, store, user) == "forbidden"
    assert await keys.zscore(scores_key(ALL_TIME), user) is None
    await accounts.unban(user, actor="test", reason=None)
    assert await keys.zscore(scores_key(ALL_TIME), user) is None, "no score, no place"
    assert await record(ledger, store, user) == "accepted"
    assert await keys.hget(user_key(user), "username") == "player-1"


async def test_a_batch_that_read_the_user_before_the_ban_brings_no_ghost(
    accounts: Accounts,
    ledger: Ledger,
    store: Store,
    keys: Redis,
    dsn: str,
    sql: asyncpg.Connection,
    make_users: MakeUsers,
) -> None:
    """The ban holds the total's lock; the batch has read everything else and waits."""
    (user,) = await make_users(1)
    await record(ledger, store, user)
    await sql.execute("BEGIN")
    await sql.execute("SELECT while_sources_stay()")
    await sql.fetch(ledger.query("player_held"), user, None)
    late = asyncio.ensure_future(Recorder(ledger).record([Submission(user, "late", 7, None, None)]))
    watcher = await asyncpg.connect(dsn)
    async with asyncio.timeout(PATIENCE):
        while not await watcher.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            await watcher.execute("SELECT pg_sleep(0.005)")
    await watcher.close()
    await sql.execute(ledger.query("banned"), user, 0)
    outbox_id = await sql.fetchval(ledger.query("hidden_anew"), user, None, "ban")
    await sql.execute("COMMIT")
    recording = await late
    assert [row.score for row in recording.rows[ALL_TIME]] == [None], "it knows by now"
    await Resync(ledger, store, ledger.clock.now).users([user])
    await store.tell(recording.live_rows(ledger.clock.now()), recording.profiles)
    await ledger.clear_outbox([outbox_id])
    assert await keys.zscore(scores_key(ALL_TIME), user) is None
    await store.tell(recording.live_rows(ledger.clock.now()), recording.profiles)
    assert await keys.zscore(scores_key(ALL_TIME), user) is None


# Leaving ---------------------------------------------------------------------------------------------------------


async def test_who_leaves_is_gone_for_good_and_others_keep_what_is_theirs(
    accounts: Accounts, ledger: Ledger, store: Store, keys: Redis, sql: asyncpg.Connection, passwords: Passwords
) -> None:
    user = await accounts.register("ada@example.org", PASSWORD, "Ada")
    other = await accounts.register("bob@example.org", PASSWORD, "Bob")
    for somebody in (user, other):
        await record(ledger, store, somebody)
    for _ in range(2):
        await accounts.delete(user, actor="self")
        assert await keys.zrange(scores_key(ALL_TIME), 0, -1) == [str(other)]
    assert await record(ledger, store, user, "late") == "unknown_user"
    assert (await refusal(accounts.person(user))).code == "unknown_user"
    assert (await refusal(accounts.ban(user, actor="test", reason=None))).code == "unknown_user"
    assert (await refusal(accounts.unban(user, actor="test", reason=None))).code == "unknown_user"
    row = await sql.fetchrow("SELECT email, password_hash, username FROM users WHERE id = $1", user)
    assert tuple(row) == (None, None, "deleted")
    assert "Ada" not in str(await keys.hgetall(user_key(user)))
    assert await sql.fetchval("SELECT count(*) FROM user_score_transactions WHERE user_id = $1", user) == 1
    assert await sql.fetchval("SELECT count(*) FROM audit WHERE action = 'delete'") == 1, "left once"
    assert await accounts.register("ada@example.org", PASSWORD, "Ada again") != user, "the address is free again"


async def test_nobody_leaves_who_never_came(accounts: Accounts, sql: asyncpg.Connection) -> None:
    """An id that will be somebody's one day must not be hidden before they come."""
    assert (await refusal(accounts.delete(10**6, actor="test"))).code == "unknown_user"
    assert await sql.fetchval("SELECT count(*) FROM user_total_scores") == 0
    assert await sql.fetchval("SELECT count(*) FROM outbox") == 0


# Passwords -------------------------------------------------------------------------------------------------------


async def test_a_storm_of_logins_is_told_to_come_later(accounts: Accounts, passwords: Passwords) -> None:
    """One hash at a time; who does not get a turn soon hears so soon."""
    passwords._hasher = argon2.PasswordHasher(time_cost=4, memory_cost=65_536, parallelism=1)
    storm = [accounts.sign_in(f"{n}@example.org", PASSWORD) for n in range(60)]
    results = await asyncio.gather(*storm, return_exceptions=True)
    codes = [result.code for result in results if isinstance(result, RealtimeError)]
    assert len(codes) == 60
    assert set(codes) == {"unauthorized", "overloaded"}
    assert codes.count("overloaded") > 40
    for result in results:
        if isinstance(result, RealtimeError) and result.code == "overloaded":
            assert result.retry_after_ms == 1_000


async def test_who_goes_away_during_a_hash_keeps_nobody_from_theirs(accounts: Accounts) -> None:
    await accounts.register("ada@example.org", PASSWORD, "Ada")
    leaving = asyncio.ensure_future(accounts.sign_in("ada@example.org", PASSWORD))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.wait([leaving])
    async with asyncio.timeout(PATIENCE):
        assert await accounts.sign_in("ada@example.org", PASSWORD)
