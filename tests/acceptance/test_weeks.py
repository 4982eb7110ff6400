"""Boards through time: every week is whole, at both of its ends, in every process, and for whoever looks when.

A server, its stores, and clients that know nothing but the protocol. What time it is, a server takes from its clock;
tests of a week's end put that to the last one there was: for PostgreSQL every score is then one of the past, and the
store still holds both weeks.
"""

from __future__ import annotations

import asyncio
import csv
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from realtime.boards.board import ALL_TIME, CLOSED_EPOCH, CURRENT_WEEK, Board, week_at, week_of
from realtime.boards.submissions import Submission
from realtime.broadcast.reading import BoardReader
from realtime.broadcast.rollover import Rollover
from realtime.errors import RealtimeError
from realtime.intake import score_file
from realtime.intake.importer import Importer
from realtime.intake.recorder import Recorder
from realtime.ledger.archive import Archive
from realtime.ledger.ledger import Ledger
from realtime.ledger.views import Views
from realtime.repair.sweeper import Sweeper
from realtime.store.snapshots import SnapshotReader
from realtime.store.store import Store
from tests.support.clients import Client, asking
from tests.support.closed_weeks import views_of
from tests.support.databases import MakeUsers
from tests.support.keys import scores_key, version_key, versions_key
from tests.support.processes import environment, running
from tests.support.servers import SECRET, RunningServer, running_server
from tests.support.waiting import eventually

REAL = Path(__file__).parents[3] / "shared" / "data" / "score_events.csv"

MONDAY = datetime(2021, 1, 4, tzinfo=UTC)
"""The end of the week of 2020-12-28, which is week 53 of 2020 (ISO 8601) and lies in two years."""

LAST, NEXT = week_of(date(2020, 12, 28)), week_of(date(2021, 1, 4))
NOW = datetime(2100, 1, 1, tzinfo=UTC)
"""Long after every week that anything here is about."""

TICK = timedelta(microseconds=1)
ZONES = ("UTC", "Pacific/Kiritimati", "America/St_Johns")  # +14:00, and -03:30


def latest_end(server: RunningServer) -> tuple[Board, Board, datetime]:
    """The last end of a week there was: the week, the one after it, and the moment."""
    after = week_at(server.services.clock.now())
    return week_at(after.starts - TICK), after, after.starts


_sent = 0


async def submit(
    server: RunningServer, rows: Sequence[tuple[int, int]], moment: datetime, *, reason: str | None = None
) -> None:
    """Hands scores in as an admin who says when it was."""
    global _sent
    for start in range(0, len(rows), 1_000):
        body = []
        for user_id, points in rows[start : start + 1_000]:
            _sent += 1
            row = {"submission_id": f"w-{_sent}", "user_id": user_id, "score_added": points, "reason": reason}
            body.append(row | {"created_at": moment.isoformat()})
        answer = await server.http.post("/scores", json=body, headers=server.bearer(None, "admin"))
        assert {result["type"] for result in answer.json()["results"]} == {"accepted"}, answer.text


async def page(server: RunningServer, name: str, **query: int) -> dict[str, Any]:
    answer = await server.http.get(f"/boards/{name}", params=query)
    assert answer.status_code == 200, answer.text
    shown: dict[str, Any] = answer.json()
    return shown


def scores(shown: Mapping[str, Any]) -> dict[int, int]:
    return {entry["user_id"]: entry["score"] for entry in shown["entries"]}


async def amended(server: RunningServer, ledger: Ledger) -> None:
    """The worker has taken up everything: closed weeks are as the ledger says."""

    async def empty() -> bool:
        return (await ledger.outbox_state())[0] == 0

    archive = server.services.archive
    views = Views(archive, archive._closing)
    resync = server.services.accounts._resync
    sweeper = Sweeper(ledger, resync)  # type: ignore[arg-type]
    while await sweeper.sweep(older_than=0.0) or await views.settle():
        pass
    await eventually(empty)


# Both ends of a week ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zone", ZONES)
async def test_a_week_has_its_first_and_last_microsecond(
    dsn: str, store_url: str, filled: None, make_users: MakeUsers, sql: asyncpg.Connection, zone: str
) -> None:
    database = await sql.fetchval("SELECT current_database()")
    await sql.execute(f"ALTER DATABASE {database} SET timezone = '{zone}'")
    a, b, c, d = await make_users(4)
    async with running_server(dsn, store_url) as server:
        await submit(server, [(a, 1)], LAST.starts)
        await submit(server, [(b, 2)], MONDAY - TICK)
        await submit(server, [(c, 4)], MONDAY)
        await submit(server, [(d, 8)], datetime(2020, 12, 31, 23, 59, 59, 999_999, UTC))
        await submit(server, [(d, 16)], datetime(2021, 1, 1, tzinfo=UTC))
        await submit(server, [(d, 32)], LAST.starts - TICK)
        await server.told()
        before = week_of(date(2020, 12, 21))
        assert scores(await page(server, LAST.id)) == {d: 24, b: 2, a: 1}
        assert scores(await page(server, NEXT.id)) == {c: 4}
        assert scores(await page(server, before.id)) == {d: 32}
        # And where the view was there before the score came.
        await submit(server, [(a, 100)], MONDAY - TICK)
        await amended(server, server.services.archive._ledger)  # type: ignore[arg-type]
        assert scores(await page(server, LAST.id)) == {a: 101, d: 24, b: 2}
        assert scores(await page(server, NEXT.id)) == {c: 4}


@pytest.mark.parametrize("zone", ZONES[1:])
async def test_the_host_s_time_zone_changes_nothing(
    dsn: str, store_url: str, filled: None, make_users: MakeUsers, sql: asyncpg.Connection, zone: str
) -> None:
    (a,) = await make_users(1)
    variables = {
        "DATABASE_URL": dsn, "DRAGONFLY_URL": store_url, "REALTIME_SECRET": SECRET, "REALTIME_PORT": "0", "TZ": zone,
        "PGTZ": zone,
    }  # fmt: skip
    async with running("serve", env=environment(**variables)) as command:
        base_url = await command.says("ready:")
        async with running("token", "--scope", "admin", env=environment(**variables)) as minting:
            assert await minting.ends() == 0
            token = minting.lines[-1]
        async with asking(base_url) as http:
            headers = {"authorization": f"Bearer {token}"}
            now = await sql.fetchval("SELECT clock_timestamp()")
            week = week_at(now)
            last = week_at(week.starts - TICK)
            rows = [("now", 1, None), ("last", 2, week.starts - TICK), ("first", 4, week.starts)]
            for name, points, moment in rows:
                row = {"submission_id": name, "user_id": a, "score_added": points}
                row |= {} if moment is None else {"created_at": moment.isoformat()}
                assert (await http.post("/scores", json=row, headers=headers)).status_code == 200

            async def shows(name: str, score: int) -> bool:
                return scores((await http.get(f"/boards/{name}")).json()) == {a: score}

            await eventually(lambda: shows(CURRENT_WEEK, 5))
            await eventually(lambda: shows(week.id, 5))
            await eventually(lambda: shows(last.id, 2))
            listed = (await http.get("/boards")).json()["boards"]
            assert [(b["board"], b["alias"]) for b in listed][:2] == [("all_time", None), (week.id, CURRENT_WEEK)]
            assert listed[1]["starts"] == week.starts.strftime("%Y-%m-%dT00:00:00.000Z")


async def test_a_score_counts_for_the_moment_it_was_made_however_late_it_commits(
    ledger: Ledger, make_users: MakeUsers, sql: asyncpg.Connection
) -> None:
    (a,) = await make_users(1)
    await Recorder(ledger).record([Submission(a, "first", 1, None, None)])
    lock = sql.transaction()
    await lock.start()
    await sql.execute("SELECT 1 FROM user_total_scores WHERE user_id = $1 FOR UPDATE", a)
    held = asyncio.create_task(Recorder(ledger).record([Submission(a, "second", 1, None, None)]))

    async def waits() -> bool:
        return bool(await sql.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))

    await eventually(waits)
    released = await sql.fetchval("SELECT clock_timestamp()")
    await lock.rollback()
    await held
    made = await sql.fetchval("SELECT created_at FROM user_score_transactions WHERE submission_id = 'second'")
    week = await sql.fetchval("SELECT week FROM user_weekly_scores")
    assert made < released, "the moment of the commit would be another week's, around midnight"
    assert week == week_at(made).week


# The change ------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def two_servers(dsn: str, store_url: str) -> AsyncIterator[tuple[RunningServer, RunningServer]]:
    async with running_server(dsn, store_url) as one, running_server(dsn, store_url) as other:
        yield one, other


async def test_connections_stay_open_across_the_change_in_every_process(
    dsn: str, store_url: str, filled: None, make_users: MakeUsers
) -> None:
    a, b = await make_users(2)
    async with two_servers(dsn, store_url) as servers:
        last, new, monday = latest_end(servers[0])
        for server in servers:
            witness = await server.client()
            await witness.subscribe(CURRENT_WEEK)
            server.travel(monday - timedelta(hours=1))
            assert (await witness.until("rollover"))["to"] == last.id
        await submit(servers[0], [(a, 10), (b, 5)], monday - timedelta(hours=2))
        clients: list[Client] = []
        for server in servers:
            client = await server.client()
            assert (await client.subscribe(CURRENT_WEEK))["board"] == last.id
            await client.subscribe("all_time")
            await client.shows(last.id, [(a, "player-1", 10), (b, "player-2", 5)])
            await client.send("watch", board=CURRENT_WEEK, user_id=b)
            assert (await client.until("rank"))["rank"] == 2
            by_id = await server.client()
            await by_id.subscribe(last.id)
            clients += (client, by_id)
        for server in servers:
            server.travel(monday - timedelta(milliseconds=200))
        for client in clients[::2]:
            message = await client.until("rollover")
            assert message == {"type": "rollover", "as": CURRENT_WEEK, "from": last.id, "to": new.id}
            snapshot = await client.until("snapshot")
            assert (snapshot["board"], snapshot["entries"]) == (new.id, [])
            rank = await client.until("rank")
            assert (rank["board"], rank["rank"], rank["players"]) == (new.id, None, 0)
        # Scores of both sides of midnight, handed in after it.
        await submit(servers[1], [(b, 7)], monday - TICK)
        await submit(servers[1], [(a, 3)], monday)
        for client in clients[::2]:
            await client.shows(new.id, [(a, "player-1", 3)])
            await client.shows("all_time", [(a, "player-1", 13), (b, "player-2", 12)])
            assert [m for m in await client.settled() if m.get("board") == last.id] == []
            assert (await client.ask("unsubscribe", board=CURRENT_WEEK))["board"] == new.id
        for client in clients[1::2]:
            await client.shows(last.id, [(b, "player-2", 12), (a, "player-1", 10)])
        # Two minutes later the view answers for it, to who follows it by its id too.
        for server in servers:
            server.travel(monday + timedelta(seconds=119))
        for client in clients[1::2]:
            await client.until("snapshot", lambda message: message["epoch"] == CLOSED_EPOCH)
            assert client.follower.boards[last.id].lines == [(b, "player-2", 12), (a, "player-1", 10)]


async def test_a_week_s_keys_expire_eight_days_after_its_end(
    server: RunningServer, make_users: MakeUsers, keys: Any
) -> None:
    (a,) = await make_users(1)
    now = server.services.clock.now()
    week = week_at(now)
    client = await server.client()
    await client.subscribe(CURRENT_WEEK)
    await submit(server, [(a, 1)], max(week.starts, now - timedelta(seconds=1)))
    await client.shows(week.id, [(a, "player-1", 1)])
    assert week.ends is not None
    left = (week.ends + timedelta(days=8) - now).total_seconds()
    for key in (scores_key(week), version_key(week), versions_key(week)):
        assert abs(await keys.ttl(key) - left) < 30
    assert await keys.ttl(scores_key(ALL_TIME)) == -1


async def test_who_subscribes_between_a_week_s_end_and_its_view_is_moved_to_the_view(
    dsn: str, store_url: str, filled: None, make_users: MakeUsers
) -> None:
    (a,) = await make_users(1)
    async with running_server(dsn, store_url) as server:
        last, _, monday = latest_end(server)
        marked: list[str] = []

        class Boards:
            """Who is told."""

            def aliases(self) -> list[tuple[str, Board | None]]:
                return []

            def boards(self) -> list[Board]:
                return [last]

            def roll_over(self, alias: str, before: Board | None, after: Board | None) -> None:
                raise AssertionError("no week ends here")

        async def ask() -> None:
            raise AssertionError("nobody is to be asked")

        server.travel(monday + timedelta(seconds=60))
        await submit(server, [(a, 1)], monday - TICK)
        client = await server.client()
        await client.subscribe(last.id)
        await client.shows(last.id, [(a, "player-1", 1)])
        assert client.follower.boards[last.id].epoch != CLOSED_EPOCH
        # A process that begins in that time knows of the week as well.
        late = Rollover(Boards(), lambda board: marked.append(board.id), server.services.clock.now, ask)
        late.step(monday + timedelta(seconds=60))
        late.step(monday + timedelta(seconds=119))
        assert marked == []
        late.step(monday + timedelta(seconds=120))
        late.step(monday + timedelta(seconds=121))
        assert marked == [last.id]
        server.travel(monday + timedelta(seconds=119.5))
        await client.until("snapshot", lambda message: message["epoch"] == CLOSED_EPOCH)


# Closed weeks ----------------------------------------------------------------------------------------------------


async def test_a_closed_week_is_followed_like_any_board(
    server: RunningServer, ledger: Ledger, make_users: MakeUsers, keys: Any
) -> None:
    users = await make_users(102)
    await submit(server, [(user, 1_000 - place) for place, user in enumerate(users)], NEXT.starts)
    await server.told()
    client = await server.client()
    await client.subscribe(NEXT.id)
    board = client.follower.boards[NEXT.id]
    assert board.epoch == CLOSED_EPOCH and len(board.scores) == 100
    version = board.version
    # Somebody drops out by a correction, and the one below moves up: one diff says both.
    await submit(server, [(users[0], -999)], NEXT.starts, reason="cheated")
    await amended(server, ledger)
    diff = await client.until("diff")
    assert (diff["from"], diff["remove"]) == (version, [users[0]])
    assert diff["upsert"] == [{"user_id": users[100], "username": "player-101", "score": 900}]
    # Who comes back with what they have gets the same difference, or nothing.
    again = await server.client()
    await again.send("subscribe", board=NEXT.id, since={"epoch": CLOSED_EPOCH, "version": diff["version"]})
    assert (await again.until("subscribed"))["resumed"] is True
    behind = await server.client()
    behind.follower.boards[NEXT.id] = type(board)(
        CLOSED_EPOCH, version, {u: 1_000 - i for i, u in enumerate(users[:100])},
        {u: f"player-{i + 1}" for i, u in enumerate(users[:100])},
    )  # fmt: skip
    await behind.send("subscribe", board=NEXT.id, since={"epoch": CLOSED_EPOCH, "version": version})
    assert (await behind.until("diff"))["version"] == diff["version"]
    # Beyond the top, too: ranks, neighbours, and the cache that everybody reads from.
    last = (await server.http.get(f"/boards/{NEXT.id}/users/{users[0]}?neighbours=1")).json()
    assert (last["rank"], last["score"], last["to_next"], last["players"]) == (102, 1, 898, 102)
    assert [line["user_id"] for line in last["neighbours"]] == [users[101], users[0]]
    cached = await keys.get(f"leaderboard:cache_top_100:{NEXT.id}")
    assert f'"version":{diff["version"]}' in cached and f'"user_id":{users[0]},' not in cached


async def test_weeks_that_cannot_be_are_refused_clearly(server: RunningServer, make_users: MakeUsers) -> None:
    (a,) = await make_users(1)
    await submit(server, [(a, 1)], NEXT.starts)
    await server.told()
    after = week_at(server.services.clock.now() + timedelta(days=7)).id
    cases = {
        LAST.id: "no scores that old",
        "week_of_0001_01_01": "no scores that old",
        after: "not begun",
        "week_of_9999_12_27": "not begun",
        "week_of_2021_01_05": NEXT.id,
        "week_of_2024_02_30": "calendar",
        "week_of_2021_13_01": "calendar",
        "week_of_0000_01_03": "calendar",
        "week_of_2021_1_4": "no such board",
        "WEEK_OF_2021_01_04": "no such board",
        "week_of_2021_01_04 ": "no such board",
        "week_of_\uff12\uff10\uff12\uff11_01_04": "no such board",
        'week_of_2021_01_04"; DROP TABLE users; --': "no such board",
        "leaderboard:epoch": "no such board",
        "all_time\r\nFLUSHALL": "no such board",
        "*": "no such board",
        "a" * 10_000: "no such board",
    }
    client = await server.client()
    for name, why in cases.items():
        await client.send("subscribe", board=name)
        refused = await client.next()
        assert (refused["type"], refused["code"]) == ("error", "unknown_board"), name
        assert why in refused["message"]
        answer = await server.http.get("/boards/" + "".join(f"%{byte:02X}" for byte in name.encode()))
        assert answer.status_code == 404 and answer.json()["error"]["code"] == "unknown_board", name
    listed = (await server.http.get("/boards")).json()["boards"]
    assert [board["board"] for board in listed if board["closed"]] == [NEXT.id]


async def test_a_week_without_scores_is_empty_and_not_listed(server: RunningServer, make_users: MakeUsers) -> None:
    (a,) = await make_users(1)
    await submit(server, [(a, 1)], LAST.starts)
    await server.told()
    shown = await page(server, NEXT.id)
    assert (shown["entries"], shown["players"], shown["epoch"], shown["stale"]) == ([], 0, CLOSED_EPOCH, False)
    client = await server.client()
    await client.subscribe(NEXT.id)
    assert client.follower.boards[NEXT.id].lines == []
    answer = await server.http.get(f"/boards/{NEXT.id}/users/{a}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_user")
    listed = (await server.http.get("/boards")).json()
    assert listed["closed_weeks"] == 1 and NEXT.id not in [board["board"] for board in listed["boards"]]


async def test_ten_thousand_equal_scores_are_paged_without_gap_or_repeat(
    server: RunningServer, ledger: Ledger, make_users: MakeUsers
) -> None:
    users = await make_users(10_000)
    now = server.services.clock.now()
    for moment in (now - timedelta(milliseconds=1), NEXT.starts):
        await submit(server, [(user, 5) for user in users], moment)
    await amended(server, ledger)
    expected = sorted(users, key=str, reverse=True)
    for name in (NEXT.id, "all_time", week_at(now).id):
        seen: list[int] = []
        for offset in range(0, 10_000, 1_000):
            shown = await page(server, name, limit=1_000, offset=offset)
            assert {entry["rank"] for entry in shown["entries"]} == {1} and shown["players"] == 10_000
            seen += [entry["user_id"] for entry in shown["entries"]]
        assert seen == expected
        middle = (await server.http.get(f"/boards/{name}/users/{expected[5_000]}?neighbours=2")).json()
        assert (middle["rank"], middle["to_next"]) == (1, None)
        assert [line["user_id"] for line in middle["neighbours"]] == expected[4_998:5_003]
        beyond = await page(server, name, limit=1_000, offset=10_000)
        assert (beyond["entries"], beyond["players"]) == ([], 10_000)
    refused = await server.http.get("/boards/all_time?limit=1001")
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "out_of_range")


async def test_the_list_of_boards_is_paged(server: RunningServer, make_users: MakeUsers) -> None:
    a, b = await make_users(2)
    weeks = [week_of(LAST.week + timedelta(weeks=number)) for number in range(7) if LAST.week]
    for number, week in enumerate(weeks):
        await submit(server, [(a, 1), (b, 1)] if number % 2 else [(a, 1)], week.starts)
    await server.told()
    await server.http.post(f"/users/{b}/ban", headers=server.bearer(None, "admin"))
    await page(server, weeks[1].id)
    live, closed = [], []
    for offset in range(0, 9, 3):
        listed = (await server.http.get("/boards", params={"limit": 3, "offset": offset})).json()
        assert (listed["closed_weeks"], listed["limit"], listed["offset"]) == (7, 3, offset)
        live += [board for board in listed["boards"] if not board["closed"]]
        closed += [board for board in listed["boards"] if board["closed"]]
    assert [board["board"] for board in closed] == [week.id for week in reversed(weeks)]
    assert {board["players"] for board in closed} == {1}, "nobody counts who is not shown"
    assert closed[0]["starts"] == weeks[-1].starts.strftime("%Y-%m-%dT00:00:00.000Z")
    assert [board["board"] for board in live] == ["all_time", week_at(server.services.clock.now()).id]


# The worker ------------------------------------------------------------------------------------------------------


async def test_a_worker_that_was_down_over_a_monday_is_missed_by_nobody(
    dsn: str, store_url: str, filled: None, ledger: Ledger, make_users: MakeUsers, sql: asyncpg.Connection
) -> None:
    a, b = await make_users(2)
    variables = {
        "DATABASE_URL": dsn, "DRAGONFLY_URL": store_url, "REALTIME_SECRET": SECRET, "REALTIME_PORT": "0",
    }  # fmt: skip
    async with running("serve", env=environment(**variables)) as command:
        base_url = await command.says("ready:")
        for number, week in enumerate((LAST, NEXT)):
            await Recorder(ledger).record([Submission(a, f"a{number}", 10, None, week.starts)])
        async with asking(base_url) as http:
            first = (await http.get(f"/boards/{LAST.id}")).json()
            assert scores(first) == {a: 10} and first["epoch"] == CLOSED_EPOCH
            # An amendment waits in the outbox: what is shown is old, but never wrong in itself.
            await Recorder(ledger).record([Submission(b, "b", 20, None, LAST.starts)])
            assert scores((await http.get(f"/boards/{LAST.id}")).json()) == {a: 10}
            # Then the worker comes; two, by mistake or for safety.
            async with running("worker", env=environment(**variables)), running("worker", env=environment(**variables)):

                async def done() -> bool:
                    shown = (await http.get(f"/boards/{LAST.id}")).json()
                    opened = await sql.fetchval("SELECT count(*) FROM closed_weeks")
                    return scores(shown) == {a: 10, b: 20} and opened == 2 and await ledger.outbox_state() == (0, 0.0)

                await eventually(done)


async def test_workers_and_first_requests_at_once_make_each_view_once(
    ledger: Ledger, store: Store, dsn: str, make_users: MakeUsers, sql: asyncpg.Connection
) -> None:
    (a,) = await make_users(1)
    weeks = [week_of(LAST.week + timedelta(weeks=number)) for number in range(30) if LAST.week]
    await Recorder(ledger).record([Submission(a, week.id, 1, None, week.starts) for week in weeks])
    other = Ledger(dsn)
    await other.open()
    try:
        all_views = [views_of(ledger, store), views_of(other, store)]
        await asyncio.gather(
            *(views.open_all(100) for views in all_views),
            *(views.archive.snapshot(week) for week in weeks[::5] for views in all_views),
        )
    finally:
        await other.aclose()
    assert await sql.fetch("SELECT week, version FROM closed_weeks ORDER BY 1") == [(week.week, 1) for week in weeks]
    views = await sql.fetchval("SELECT count(*) FROM pg_matviews WHERE matviewname LIKE 'leaderboard_week_of_%'")
    assert views == len(weeks)


# Real events -----------------------------------------------------------------------------------------------------


class Untouchable:
    """A database that is not to be touched."""

    def connection(self) -> Any:
        raise AssertionError("the database is touched")

    query = fetch = connection


COUNTED = """
    WITH days AS (
        SELECT (created_at AT TIME ZONE 'UTC')::date AS day, user_id, score_added FROM user_score_transactions
    ), of_week AS (
        SELECT day - (extract(isodow FROM day)::int - 1) AS monday, user_id, sum(score_added) AS score
        FROM days GROUP BY 1, 2
    )
    SELECT own.monday, 1 + count(*) FILTER (WHERE other.score > own.score), own.user_id, own.score
    FROM of_week own JOIN of_week other USING (monday) GROUP BY 1, 3, 4
"""
"""Everybody's rank in every week without a window, a view, or any table that the server derives."""


def _counted() -> tuple[dict[date, dict[str, int]], dict[str, int]]:
    """The file, added up with nothing but the language's own means."""
    weeks: dict[date, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    total: dict[str, int] = defaultdict(int)
    with REAL.open(newline="") as lines:
        for row in csv.DictReader(lines):
            day = datetime.fromisoformat(row["created_at"]).astimezone(UTC).date()
            weeks[day - timedelta(days=day.isoweekday() - 1)][row["username"]] += int(row["score_added"])
            total[row["username"]] += int(row["score_added"])
    return weeks, total


def _ranked(of: Mapping[int, int]) -> list[tuple[int, int, int]]:
    """(rank, user id, score) in board order; ranks counted one by one."""
    ordered = sorted(of.items(), key=lambda pair: (pair[1], str(pair[0])), reverse=True)
    return [(1 + sum(score > own for score in of.values()), user_id, own) for user_id, own in ordered]


@dataclass
class Real:
    """All of the file, imported and its closed weeks opened, beside its own count."""

    archive: Archive
    closed: list[date]
    weeks: dict[date, list[tuple[int, int, int]]]
    """Monday to (rank, user id, score) in board order."""
    total: list[tuple[int, int, int]]
    names: dict[int, str]
    opened: int
    seconds: float


@pytest.fixture
async def real(ledger: Ledger, store: Store, sql: asyncpg.Connection) -> Real:
    if not REAL.exists():
        pytest.skip(f"{REAL.name} is not here")
    views, now = views_of(ledger, store), ledger.clock.now()
    importer = Importer(ledger, store, views, ledger.clock.now, lambda bad: pytest.fail(str(bad)))
    with REAL.open("rb") as file:
        await importer.run(score_file.rows(file))
    await importer.settle()
    assert importer.summary.new == 50_351
    began, opened = time.perf_counter(), 0
    while count := await views.open_all(100):
        opened += count
    took = time.perf_counter() - began
    ids: dict[str, int] = dict(await sql.fetch("SELECT username, id FROM users"))
    weeks, total = _counted()
    of_weeks = {week: _ranked({ids[name]: score for name, score in of.items()}) for week, of in weeks.items()}
    return Real(
        views.archive,
        sorted(week for week in weeks if week_of(week).is_closed(now)),
        of_weeks,
        _ranked({ids[name]: score for name, score in total.items()}),
        {user_id: name for name, user_id in ids.items()},
        opened,
        took,
    )


async def test_every_week_of_the_real_events_is_as_independent_counts_say(
    real: Real, store: Store, sql: asyncpg.Connection, keys: Any, record_property: Any
) -> None:
    record_property("opened", f"{real.opened} closed weeks in {real.seconds:.1f} s")
    assert real.opened == len(real.closed) and real.seconds < 180
    by_sql: dict[date, set[tuple[int, int, int]]] = defaultdict(set)
    for week, rank, user_id, score in await sql.fetch(COUNTED):
        by_sql[week].add((rank, user_id, int(score)))
    for week in real.closed:
        assert by_sql[week] == set(real.weeks[week])
        await _shows(real, week_of(week), real.weeks[week])
    live = await store.page(ALL_TIME, 0, 2_000)
    assert list(live.scores.items()) == [(user, score) for _, user, score in real.total]
    listed, count = await real.archive.listed(NOW, 0, 2_000)
    players = {week.board.week: week.players for week in listed}
    assert count == len(real.weeks) and players == {week: len(of) for week, of in real.weeks.items()}
    with pytest.raises(RealtimeError):
        await real.archive.page(week_of(min(real.weeks) - timedelta(days=7)), 0, 1)
    await _one_round_trip_each(real, store, keys)


async def _shows(real: Real, board: Board, expected: list[tuple[int, int, int]]) -> None:
    """Page, standings and top of a closed week are what was counted; the top is cached from then on."""
    shown = await real.archive.page(board, 0, 1_000)
    assert shown.players == len(expected)
    assert [(line.rank, line.user_id, line.score) for line in shown.lines] == expected
    assert all(line.username == real.names[line.user_id] for line in shown.lines)
    _, standings = await real.archive.standings(board, [user for _, user, _ in expected])
    assert [(standing.rank, standing.score) for standing in standings] == [(r, s) for r, _, s in expected]
    snapshot, players = await real.archive.snapshot(board)
    assert players == len(expected) and list(snapshot.scores) == [user for _, user, _ in expected[:100]]


async def _one_round_trip_each(real: Real, store: Store, keys: Any) -> None:
    """Reading a cached week asks the store once, and the database not at all."""
    reading = BoardReader(SnapshotReader(store), views_of(Untouchable(), store).archive, lambda: NOW)  # type: ignore[arg-type]
    some = real.closed[::50]
    async with keys.monitor() as monitor:
        for week in some[::2]:
            page = await reading.page(week_of(week), 0, 100)
            assert [(line.rank, line.user_id, line.score) for line in page.entries] == real.weeks[week][:100]
        for week in some[1::2]:
            rank, user_id, score = real.weeks[week][0]
            user = await reading.user(week_of(week), user_id, 5)
            assert (user.rank, user.score, user.players) == (rank, score, len(real.weeks[week]))
        await keys.echo("that was it")
        asked: list[str] = []
        while (command := (await monitor.next_command())["command"]) != "ECHO that was it":
            asked.append(command)
    of_weeks = [command for command in asked if command.startswith("MGET leaderboard:cache_top_100:")]
    assert len(of_weeks) == len(some)
    assert len(asked) - len(of_weeks) <= 3, "besides, a new connection's greeting"
