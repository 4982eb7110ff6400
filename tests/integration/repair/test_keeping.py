"""Keeping: closed weeks get their views, and keep them right, whatever was missed or failed before."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from realtime.boards.board import Board, week_of
from realtime.boards.submissions import Submission
from realtime.errors import LedgerUnavailable
from realtime.ledger.closing import view_of
from realtime.ledger.ledger import Ledger
from realtime.ledger.views import Views
from realtime.repair import keeping as module
from realtime.repair.keeping import Keeping
from realtime.store.store import Store
from tests.support.closed_weeks import views_of
from tests.support.databases import MakeUsers
from tests.support.waiting import PATIENCE

FIRST = datetime(2026, 3, 2, tzinfo=UTC)
WEEKS = [week_of(FIRST.date() + timedelta(weeks=n)) for n in range(8)]


async def play(ledger: Ledger, user: int, name: str = "") -> None:
    """One point in each of the weeks."""
    moments = [FIRST + timedelta(weeks=n) for n in range(len(WEEKS))]
    await ledger.record_batch([Submission(user, f"{name}{at}", 1, None, at) for at in moments], [])


async def test_the_worker_opens_what_closed_while_nobody_looked(
    ledger: Ledger, store: Store, sql: asyncpg.Connection, make_users: MakeUsers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after it was away for months, and whatever fails at first."""
    monkeypatch.setattr(module, "INTERVAL", 0.01)
    monkeypatch.setattr(module, "AT_ONCE", 3)
    (user,) = await make_users(1)
    await play(ledger, user)

    class Failing(Views):
        """Twice, at first."""

        failures = 2

        async def withdraw(self) -> None:
            if self.failures:
                self.failures -= 1
                raise LedgerUnavailable("away")

    views = views_of(ledger, store)
    running = asyncio.ensure_future(Keeping(Failing(views.archive, views.closing)).run())
    async with asyncio.timeout(PATIENCE):
        while await sql.fetchval("SELECT count(*) FROM closed_weeks WHERE holds = changes") < 8:
            await sql.execute("SELECT pg_sleep(0.01)")
    running.cancel()
    await asyncio.wait([running])
    assert {name for (name,) in await sql.fetch("SELECT matviewname FROM pg_matviews")} == {view_of(w) for w in WEEKS}


async def test_keeping_compares_one_week_after_the_other_and_makes_anew_what_is_wrong(
    ledger: Ledger, store: Store, sql: asyncpg.Connection, make_users: MakeUsers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "VERIFIED_EVERY", 1)
    (user,) = await make_users(1)
    await play(ledger, user)
    views = views_of(ledger, store)
    keeping = Keeping(views)
    assert await keeping.step() == len(WEEKS)
    assert (await views.archive.snapshot(WEEKS[5]))[0].scores == {user: 1}
    # What came in behind everybody's back, and a view that is gone.
    await sql.execute("UPDATE user_score_transactions SET score_added = 7 WHERE created_at = $1", WEEKS[5].starts)
    await sql.execute("UPDATE user_weekly_scores SET score = 7 WHERE week = $1", WEEKS[5].week)
    await sql.execute(f"DROP MATERIALIZED VIEW {view_of(WEEKS[6])}")
    for _ in range(2 * len(WEEKS)):
        await keeping.step()
    assert (await views.archive.snapshot(WEEKS[5]))[0].scores == {user: 7}, "and its cache as well"
    assert (views.wrong, await sql.fetchval(f"SELECT score FROM {view_of(WEEKS[6])}")) == (1, 1)


async def test_one_week_that_cannot_be_brought_up_to_date_keeps_no_other_from_it(
    ledger: Ledger, store: Store, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    (user,) = await make_users(1)
    await play(ledger, user)
    keeping = Keeping(views_of(ledger, store))
    await keeping.step()
    await play(ledger, user, "more")
    async with sql.transaction():
        await sql.execute(f"REFRESH MATERIALIZED VIEW {view_of(WEEKS[0])}")  # nobody else can, until this ends
        with pytest.raises(LedgerUnavailable, match="lock timeout"):
            await keeping.step()
    right = await sql.fetch("SELECT week FROM closed_weeks WHERE told = changes ORDER BY week")
    assert [week for (week,) in right] == [board.week for board in WEEKS[1:]]
    assert await keeping.step() == 1


async def test_a_week_that_is_never_brought_up_to_date_keeps_no_other_from_being_closed_or_compared(
    ledger: Ledger, store: Store, sql: asyncpg.Connection, make_users: MakeUsers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its view may be somebody else's since a restore."""
    monkeypatch.setattr(module, "VERIFIED_EVERY", 1)
    (user,) = await make_users(1)
    stuck, wrong, late = WEEKS[0], WEEKS[1], WEEKS[2]
    views = views_of(ledger, store)
    keeping = Keeping(views)
    await ledger.record_batch([Submission(user, w.id, 1, None, w.starts) for w in (stuck, wrong)], [])
    await keeping.step()
    keeping._verified = None
    fill = views.closing.fill

    async def failing(board: Board) -> None:
        if board == stuck:
            raise LedgerUnavailable("permission denied")
        await fill(board)

    monkeypatch.setattr(views.closing, "fill", failing)
    await ledger.record_batch([Submission(user, w.id + "more", 1, None, w.starts) for w in (stuck, late)], [])
    await sql.execute("UPDATE user_score_transactions SET score_added = 7 WHERE created_at = $1", wrong.starts)
    await sql.execute("UPDATE user_weekly_scores SET score = 7 WHERE week = $1", wrong.week)
    for _ in range(2):
        with pytest.raises(LedgerUnavailable, match="denied"):
            await keeping.step()
    assert await sql.fetchval("SELECT holds = changes FROM closed_weeks WHERE week = $1", late.week)
    assert (await views.archive.snapshot(wrong))[0].scores == {user: 7}


async def test_a_role_that_may_make_no_temporary_table_makes_views_anew(
    ledger: Ledger, store: Store, sql: asyncpg.Connection, make_users: MakeUsers, monkeypatch: pytest.MonkeyPatch
) -> None:
    (user,) = await make_users(1)
    await play(ledger, user)
    views, board = views_of(ledger, store), WEEKS[0]
    first = (await views.archive.snapshot(board))[0]
    await play(ledger, user, "more")
    refused = ledger.query("week_counted").replace("has_database_privilege(current_database(), 'TEMP')", "false")
    monkeypatch.setitem(ledger._sql, "week_counted", refused)
    await views.amend([board])
    later = (await views.archive.snapshot(board))[0]
    assert (later.scores, later.version) == ({user: 2}, first.version + 1)


async def test_what_the_store_did_not_hear_of_it_hears_later(
    ledger: Ledger, store: Store, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    """Who fills a view may die before the cache follows."""
    (user,) = await make_users(1)
    await play(ledger, user)
    views, board = views_of(ledger, store), WEEKS[0]
    await views.archive.snapshot(board)
    await play(ledger, user, "more")
    await views.closing.fill(board)
    assert (await views.archive.snapshot(board))[0].scores == {user: 1}
    assert await Keeping(views_of(ledger, store)).step() == len(WEEKS)
    assert (await views.archive.snapshot(board))[0].scores == {user: 2}
    assert await sql.fetchval("SELECT count(*) FROM closed_weeks WHERE told = holds") == len(WEEKS)


async def test_a_week_is_not_told_by_what_was_told_to_content_that_is_no_longer_current(
    ledger: Ledger, store: Store, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    """The store that took over may have cached the week as it was before."""
    (user,) = await make_users(1)
    await play(ledger, user)
    views, board = views_of(ledger, store), WEEKS[0]
    assert await Keeping(views).step() == len(WEEKS)
    named = "INSERT INTO generation (epoch) VALUES ($1) ON CONFLICT (one) DO UPDATE SET epoch = excluded.epoch"
    await sql.execute(named, "another-1")
    await play(ledger, user, "more")
    await views.amend([board])
    assert await views.closing.behind(100, among=[board]) == [board], "for whoever reaches the other"
    await sql.execute(named, store.told)
    await views.amend([board])
    assert await views.closing.behind(100, among=[board]) == []


async def test_a_cache_that_was_never_told_is_found_by_comparing(
    ledger: Ledger, store: Store, sql: asyncpg.Connection, make_users: MakeUsers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "VERIFIED_EVERY", 1)
    (user,) = await make_users(1)
    await play(ledger, user)
    views, board = views_of(ledger, store), WEEKS[0]
    assert await Keeping(views).step() == len(WEEKS)
    await views.archive.snapshot(board)
    await play(ledger, user, "more")
    await views.closing.fill(board)
    await sql.execute("UPDATE closed_weeks SET told = holds")
    later = views_of(ledger, store)
    assert (await later.archive.snapshot(board))[0].scores == {user: 1}, "an old cache, of which nobody thinks any more"
    await Keeping(later).step()
    assert (await later.archive.snapshot(board))[0].scores == {user: 2}
