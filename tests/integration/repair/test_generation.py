"""Generation: a ledger that was restored, cloned or promoted is noticed, and gives out nothing for a second time."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis

from realtime.boards.definitions import Definition
from realtime.boards.submissions import Accepted, Submission
from realtime.dev.postgres import start_postgres
from realtime.errors import LedgerUnavailable, NotPrimary, RealtimeError
from realtime.intake.importer import Importer
from realtime.intake.recorder import Recorder
from realtime.ledger import migrations
from realtime.ledger.ledger import Ledger
from realtime.ledger.standing import Standing
from realtime.people.accounts import Accounts
from realtime.people.identity import Generation, Identity
from realtime.people.passwords import Passwords
from realtime.people.revocation import Revocations
from realtime.repair.generation import Generations, Seen
from realtime.repair.rebuild import Rebuilder
from realtime.repair.resync import Resync
from realtime.store.filling import Filling
from realtime.store.store import Store
from tests.support.databases import MakeUsers
from tests.support.keys import EPOCH_KEY, LEDGER_KEY
from tests.support.leaderboards import catalogue_of, define
from tests.support.waiting import eventually

ELSEWHERE = "UPDATE generation SET place = 'another:' || place"
PROMOTED = "UPDATE generation SET place = regexp_replace(place, '[^:]*$', '00000000')"
LATER = datetime(2099, 1, 1, tzinfo=UTC)


async def looked(ledger: Ledger, store: Store) -> Generations:
    """What a process knows that has just been started."""
    await store.adopt()
    generations = Generations(ledger, store)
    await generations.look()
    return generations


async def test_a_new_ledger_begins_once_and_every_process_knows_it(ledger: Ledger, store: Store) -> None:
    first = await looked(ledger, store)
    second = await looked(ledger, store)
    assert first.current == second.current
    assert first.current.mark and first.current.restored_at is None


@pytest.mark.parametrize(("change", "forgetful"), [(ELSEWHERE, True), (PROMOTED, False)])
async def test_a_copy_gives_out_nothing_twice_and_a_promotion_that_lacks_nothing_ends_no_tokens(
    ledger: Ledger, store: Store, sql: asyncpg.Connection, make_users: MakeUsers, change: str, forgetful: bool
) -> None:
    users = await make_users(3)
    await ledger.record_batch([Submission(users[0], "a", 5, None, None)], [])
    await sql.execute("INSERT INTO closed_weeks (week, version) VALUES ('2026-03-02', 2)")
    before = await looked(ledger, store)
    mark = before.current.mark
    await before.look()
    await store.adopt()  # the store remembers how far the ledger had come
    await sql.execute(change)
    await before.look()
    assert (before.current.mark != mark, before.current.restored_at is not None) == (forgetful, forgetful)
    (user,) = await make_users(1)
    assert user > 10**12, "more than one a millisecond are never made"
    recorded = await ledger.record_batch([Submission(user, "a", 5, None, None)], [])
    assert recorded.outbox[0][0] > 10**12
    assert await sql.fetchval("SELECT max(id) FROM user_score_transactions") > 10**12
    await sql.execute("INSERT INTO closed_weeks (week) VALUES ('2026-03-09')")
    versions = await sql.fetch("SELECT version FROM closed_weeks")
    assert all(10**12 < row["version"] < 2**53 for row in versions), "of weeks that had one, and of weeks that had none"
    assert await ledger.next_epoch("run") > 1296
    await before.look()
    assert before.current == (await looked(ledger, store)).current, "noticed once"


async def test_of_other_leaderboards_a_copy_gives_out_nothing_twice_either(
    ledger: Ledger, store: Store, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    (user,) = await make_users(1)
    await define(sql, Definition("lap", "Lap", windows=("all_time", "day")))
    recorder = Recorder(ledger, await catalogue_of(ledger))
    submission = Submission(user, "a", 5, None, None, "lap")
    await recorder.record([submission])
    before = await looked(ledger, store)
    revision = await sql.fetchval("SELECT revision FROM catalogue")
    await sql.execute(ELSEWHERE)
    await before.look()
    moved = await sql.fetchrow("SELECT revision, shown FROM catalogue")
    # By the clock: the same backup may be restored twice, and what the first was changed to is not known to the second.
    assert moved["revision"] > max(revision, 10**12) and 10**12 < moved["shown"] < 2**52
    ((_, outcome),) = (await recorder.record([submission._replace(submission_id="b")])).outcomes
    assert isinstance(outcome, Accepted)
    assert await sql.fetchval("SELECT max(id) FROM score_transactions") > 10**12
    await define(sql, Definition("new", "New"))
    assert await sql.fetchval("SELECT max(id) FROM windows") > 10**12
    assert await sql.fetchval("SELECT max(id) FROM rules") > 1_000


async def test_a_score_of_another_leaderboard_that_is_gone_shows_a_restored_ledger(
    ledger: Ledger, store: Store, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    (user,) = await make_users(1)
    await define(sql, Definition("lap", "Lap"))
    was = await sql.fetchval("SELECT last_value FROM score_transactions_id_seq")
    generations = await looked(ledger, store)
    recorder = Recorder(ledger, await catalogue_of(ledger))
    await recorder.record([Submission(user, str(n), 5, None, None, "lap") for n in range(5)])
    await generations.look()
    await store.adopt()
    mark = generations.current.mark
    await sql.execute(f"SELECT setval('score_transactions_id_seq', {was}, false); TRUNCATE score_transactions, scores")
    await generations.look()
    assert generations.current.mark != mark


async def test_a_promotion_of_which_nobody_knows_what_it_lacks_is_a_restore(
    ledger: Ledger, store: Store, keys: Redis, sql: asyncpg.Connection
) -> None:
    before = await looked(ledger, store)
    mark = before.current.mark
    await keys.delete(LEDGER_KEY)
    await store.adopt()
    await sql.execute(PROMOTED)
    await before.look()
    assert before.current.mark != mark


@pytest.mark.parametrize("text", ["", "x", "a:b:c", "1:2", "m:-1:5", "m:1:" + "9" * 50, "m:1:2:3"])
def test_what_the_store_remembers_may_be_anything(text: str) -> None:
    assert Seen.parse(text) is None
    for seen in (Seen("m", 1, 2), Seen("m", 1, 2, Standing(7_577_000_000_000_000_000, 3), 4, 5)):
        assert Seen.parse(str(seen)) == seen


async def test_an_id_is_given_out_only_where_the_ledger_is_known_to_be(
    ledger: Ledger, store: Store, sql: asyncpg.Connection
) -> None:
    """Before any process has noticed: the statement itself looks."""
    generations = await looked(ledger, store)
    passwords = Passwords()
    accounts = Accounts(ledger, Resync(ledger, store, ledger.clock.now), passwords)
    await sql.execute(ELSEWHERE)
    with pytest.raises(LedgerUnavailable):
        await accounts.register("a@example.com", "password", "a")
    with pytest.raises(LedgerUnavailable):
        await ledger.next_epoch("run")
    importer = Importer(ledger, store, _nobody, ledger.clock.now, print)
    with pytest.raises(LedgerUnavailable):
        await importer._players.of(["Ann"])
    assert await sql.fetchval("SELECT count(*) FROM users") == 0
    await generations.look()
    assert await accounts.register("a@example.com", "password", "a") > 10**12
    with pytest.raises(RealtimeError, match="taken"):
        await accounts.register("a@example.com", "password", "a")
    passwords.close()


async def _nobody(*args: Any) -> None:
    raise AssertionError("no week is amended")


async def test_a_restored_ledger_is_followed_at_once_by_everybody_in_the_store(
    ledger: Ledger, store: Store, keys: Redis, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    """Also players far from the top, and also where nobody restarts the store."""
    users = await make_users(300)
    await ledger.record_batch([Submission(user, "a", 1000 - n, None, None) for n, user in enumerate(users)], [])
    rebuilder = Rebuilder(ledger, store, Filling(store.link), ledger.clock.now)
    await rebuilder.rebuild(force=True)
    generations = await looked(ledger, store)
    epochs = {store.epoch}
    for _ in range(2):  # the same backup twice: what followed upon the first time is not repeated either
        await sql.execute("DELETE FROM user_score_transactions WHERE user_id = $1", users[-1])
        await sql.execute("DELETE FROM user_total_scores WHERE user_id = $1", users[-1])
        await sql.execute("TRUNCATE store_epochs")
        await Generations.restored(ledger)
        await keys.delete(EPOCH_KEY)
        assert await rebuilder.look() is True
        assert await keys.zscore("leaderboard:user_scores:all_time", users[-1]) is None
        assert store.epoch not in epochs
        epochs.add(store.epoch)
    await generations.look()
    assert generations.current.restored_at is not None


@pytest.mark.parametrize(("lacking_s", "forgetful"), [(5, False), (3_600, True)])
async def test_a_promoted_standby_that_was_a_moment_behind_ends_no_tokens(
    ledger: Ledger, store: Store, sql: asyncpg.Connection, make_users: MakeUsers, lacking_s: int, forgetful: bool
) -> None:
    (user,) = await make_users(1)
    generations = await looked(ledger, store)
    await sql.execute("UPDATE generation SET used_at = clock_timestamp()")
    await ledger.record_batch([Submission(user, "lost", 5, None, None)], [])
    await generations.look()
    await store.adopt()
    mark = generations.current.mark
    await sql.execute("TRUNCATE user_score_transactions; DELETE FROM users")
    await sql.execute(f"UPDATE generation SET used_at = used_at - interval '{lacking_s} seconds'")
    await sql.execute(PROMOTED)
    await generations.look()
    assert (generations.current.mark != mark) == forgetful


async def test_a_server_of_an_earlier_timeline_is_taken_where_an_operator_says_that_it_was_restored(
    ledger: Ledger, store: Store, dsn: str
) -> None:
    generations = await looked(ledger, store)
    seen = Seen.parse(store.ledger_seen)
    if seen is None:
        await store.adopt()
        seen = Seen.parse(store.ledger_seen)
    assert seen is not None and seen.standing is not None
    later = Standing(seen.standing.cluster, seen.standing.timeline + 2)
    await store.remember_ledger(str(replace(seen, standing=later)), *later, seen.term)
    await store.adopt()
    with pytest.raises(NotPrimary):
        await generations.look()
    with pytest.raises(NotPrimary):
        await ledger.fetch("judged")
    command = Ledger(dsn)  # a process of its own, which reaches no store
    await command.open()
    await Generations.restored(command)
    started = await looked(command, store)  # servers are started after that, and see that it is later
    assert started.current.restored_at is not None
    await store.adopt()
    with suppress(NotPrimary):  # one that went on hears of it from the store
        await generations.look()
    await generations.look()
    assert await ledger.fetch("judged") and generations.current == started.current
    await command.aclose()


async def test_it_is_taken_by_a_server_whose_health_is_looked_after(ledger: Ledger, store: Store) -> None:
    generations = await looked(ledger, store)
    await generations.look()
    await store.adopt()
    restored = Seen.parse(store.ledger_seen)
    assert restored is not None and restored.standing is not None
    ledger.hear(Standing(restored.standing.cluster, restored.standing.timeline + 2), restored.term)
    await ledger.health.beat()
    assert ledger.health.away is not None, "whoever asks is refused before any server is asked"
    later = replace(restored, term=restored.term + 1)  # as whoever saw `realtime restored` has the store remember it
    await store.remember_ledger(str(later), *restored.standing, later.term)
    await store.adopt()
    with suppress(LedgerUnavailable):
        await generations.look()
    await ledger.health.beat()
    assert ledger.health.away is None and ledger.standing == restored.standing


# A copy of the files ---------------------------------------------------------------------------------------------


@asynccontextmanager
async def served(folder: Path, **settings: str) -> AsyncIterator[Ledger]:
    manager = start_postgres(folder, settings={"fsync": "off", **settings})
    running = await asyncio.to_thread(manager.__enter__)
    ledger = Ledger(running.url)

    async def is_promoted() -> bool:
        with suppress(NotPrimary):
            await migrations.migrate(running.url)
            return True
        return False

    try:
        await eventually(is_promoted)
        await ledger.open()
        yield ledger
    finally:
        await ledger.aclose()
        await asyncio.to_thread(manager.__exit__, None, None, None)


async def register(ledger: Ledger, name: str) -> int:
    ((user,),) = await ledger.fetch("register", f"{name}@example.com", "hash", name)
    return int(user)


@pytest.fixture
def parent() -> Iterator[Path]:
    """A folder in which PostgreSQL's own account finds its way."""
    with tempfile.TemporaryDirectory(prefix="realtime-copied-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.parametrize("promoted", [False, True])
async def test_a_copy_of_the_files_is_noticed_by_what_the_store_remembers(
    store: Store, parent: Path, promoted: bool
) -> None:
    original, copy = parent / "original", parent / "copy"
    async with served(original) as ledger:
        mark = (await looked(ledger, store)).current.mark
        await register(ledger, "before")
    await asyncio.to_thread(_copy, original, copy)
    async with served(original) as ledger:
        alice = await register(ledger, "alice")
        await looked(ledger, store)
    if promoted:
        signal = copy / "postgres/recovery.signal"
        signal.touch()
        shutil.chown(signal, (copy / "postgres").stat().st_uid, (copy / "postgres").stat().st_gid)
    async with served(copy, **({"restore_command": "false"} if promoted else {})) as ledger:
        place = (await ledger.fetch("generation"))[0]
        assert (place["here"] != place["place"]) == promoted, "only a promotion leaves a trace of its own"
        restored = await looked(ledger, store)
        assert restored.current.mark != mark
        assert await register(ledger, "bob") > alice + 10**6


def _copy(original: Path, copy: Path) -> None:
    shutil.copytree(original, copy, symlinks=True, ignore=shutil.ignore_patterns("postmaster.pid", "*.sock*"))
    for path in [original, *original.rglob("*")]:
        if (there := copy / path.relative_to(original)).exists():
            shutil.chown(there, path.stat().st_uid, path.stat().st_gid)


# Tokens ----------------------------------------------------------------------------------------------------------


def identity(**fields: Any) -> Identity:
    return Identity(7, frozenset({"submit"}), LATER, **fields)


RESTORED = datetime(2026, 11, 23, 10, 0, 0, 500_000, tzinfo=UTC)
AT = RESTORED.timestamp()


@pytest.mark.parametrize(
    ("now", "token", "good"),
    [
        (Generation("b"), {"generation": "b"}, True),
        (Generation("b"), {"generation": "a"}, False),
        (Generation("b"), {}, True),
        (Generation("b", RESTORED), {"generation": "b", "issued_at": AT - 86_400}, True),
        (Generation("b", RESTORED), {"generation": "a", "issued_at": AT + 86_400}, False),
        (Generation("b", RESTORED), {"issued_at": AT - 2}, False),
        (Generation("b", RESTORED), {"issued_at": int(AT)}, True),
        (Generation("b", RESTORED), {}, False),
    ],
    ids=str,
)
async def test_a_token_counts_in_its_generation_alone(
    ledger: Ledger, now: Generation, token: dict[str, Any], good: bool
) -> None:
    revocations = Revocations(ledger, lambda: now)
    if good:
        assert revocations.check(identity(**token))
    else:
        with pytest.raises(RealtimeError) as caught:
            revocations.check(identity(**token))
        assert caught.value.code == "unauthorized"


async def test_whoever_speaks_with_a_token_from_before_a_restore_is_told(ledger: Ledger) -> None:
    generation = Generation("a")
    revocations = Revocations(ledger, lambda: generation)
    told: list[str] = []
    for name in ("a", "b"):
        revocations.hold(identity(generation=name), lambda error, name=name: told.append(name))  # type: ignore[misc]
    await revocations.refresh()
    assert told == [], "nothing has changed"
    generation = Generation("b", RESTORED)
    await revocations.refresh()
    assert told == ["a"]


async def test_a_revocation_that_did_not_reach_the_promoted_ledger_is_put_back(
    ledger: Ledger, sql: asyncpg.Connection
) -> None:
    generation = Generation("a", None, "here:1")
    revocations = Revocations(ledger, lambda: generation)
    await revocations.revoke(identity(token_id="t"), actor="admin", reason=None)
    await sql.execute("TRUNCATE revoked_tokens")
    generation = Generation("a", None, "here:2")
    await revocations.refresh()
    assert await sql.fetchval("SELECT expires_at FROM revoked_tokens WHERE token_id = 't'") == LATER
    with pytest.raises(RealtimeError):
        revocations.check(identity(token_id="t"))


async def test_a_revocation_outlives_a_clock_that_was_ahead(ledger: Ledger, sql: asyncpg.Connection) -> None:
    revocations = Revocations(ledger)
    await revocations.revoke(identity(token_id="t"), actor="admin", reason=None)
    await sql.execute("UPDATE revoked_tokens SET expires_at = clock_timestamp() - interval '9 days'")
    await revocations.revoke(identity(token_id="u"), actor="admin", reason=None)
    assert await sql.fetchval("SELECT count(*) FROM revoked_tokens") == 2
