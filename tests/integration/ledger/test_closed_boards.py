"""Closed boards: for every order, tie and rank what a plain sort of the rows gives; cached as long as it is true."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import NamedTuple

import asyncpg
import pytest

from realtime.boards.board import Board, board_in
from realtime.boards.definitions import Definition
from realtime.boards.leaderboard import Leaderboard
from realtime.boards.standings import ranks
from realtime.boards.submissions import Submission
from realtime.boards.windows import Window
from realtime.errors import LedgerUnavailable
from realtime.intake.recorder import Recorder
from realtime.ledger.closed_boards import ClosedBoards
from realtime.ledger.ledger import Ledger
from realtime.store.announcements import Announcements
from realtime.store.filling import Filling
from realtime.store.store import Store
from tests.support.closed_weeks import Behind
from tests.support.databases import MakeUsers
from tests.support.leaderboards import catalogue_of, define
from tests.support.waiting import PATIENCE

RULE, SOURCE = 7, 5
STARTS = datetime(2026, 11, 23, tzinfo=UTC)
ENDS = STARTS + timedelta(days=1)


class Row(NamedTuple):
    user_id: int
    score: int
    at: int
    at_id: int


def definition(order: str, ties: str, style: str) -> Definition:
    return Definition("sprint", "Sprint", order=order, ties=ties, ranks=style, windows=("day",), metadata=True)


def in_order(rows: list[Row], of: Definition) -> list[Row]:
    """Written on purpose in another way than the program does it."""
    sign = 1 if of.is_ascending else -1
    if of.ties == "user_id":
        by_id = sorted(rows, key=lambda row: str(row.user_id), reverse=not of.is_ascending)
        return sorted(by_id, key=lambda row: sign * row.score)
    by_time = sorted(rows, key=lambda row: (row.at, row.at_id), reverse=of.ties == "last")
    return sorted(by_time, key=lambda row: sign * row.score)


def rank_of(place: int, shown: list[Row], style: str) -> int:
    scores = [row.score for row in shown]
    if style == "ordinal":
        return place + 1
    if style == "dense" and place < 100:
        return list(dict.fromkeys(scores)).index(scores[place]) + 1
    return scores.index(scores[place]) + 1


@pytest.fixture
async def window(sql: asyncpg.Connection) -> Window:
    await sql.execute(
        "INSERT INTO leaderboards (id, slug, source, definition, rule) VALUES ($1, 'sprint', $1, '{}', $2)",
        SOURCE,
        RULE,
    )
    key = await sql.fetchval(
        "INSERT INTO windows (leaderboard, kind, starts, ends, name) VALUES ($1, 'day', $2, $3, 'day_of_2026_11_23')"
        " RETURNING id",
        SOURCE, STARTS, ENDS,
    )  # fmt: skip
    return Window("day", "day_of_2026_11_23", STARTS, ENDS, key)


async def filled(sql: asyncpg.Connection, window: Window, users: list[int], chance: random.Random) -> list[Row]:
    """Rows with many equal scores, some at one moment."""
    rows = [
        Row(user, chance.choice([1, 1, 2, 3, 2**53 - 1, -5, chance.randrange(50)]), chance.randrange(5), number)
        for number, user in enumerate(users, 1)
    ]
    await sql.executemany(
        'INSERT INTO scores (source, rule, "window", user_id, score, at, at_id, metadata)'
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        [(SOURCE, RULE, window.key, *row, '{"car": "gt"}' if row.user_id % 2 else None) for row in rows],
    )
    return rows


def board_of(window: Window, of: Definition) -> Board:
    return board_in(Leaderboard("sprint", of, SOURCE, RULE, SOURCE, "sprint"), window)


@pytest.mark.parametrize("seed", range(2))
async def test_every_order_gives_what_a_plain_sort_gives(
    ledger: Ledger, store: Store, sql: asyncpg.Connection, window: Window, make_users: MakeUsers, seed: int
) -> None:
    chance = random.Random(seed)
    users = await make_users(260)
    rows = await filled(sql, window, users, chance)
    hidden, hidden_here = chance.sample(users, 5), chance.sample(users, 5)
    for user in users:
        places = [SOURCE] if user in hidden_here else []
        await sql.execute("INSERT INTO heads VALUES ($1, $2, $3, $4)", SOURCE, user, user in hidden, places)
    there = [row for row in rows if row.user_id not in {*hidden, *hidden_here}]
    boards = ClosedBoards(ledger, store)
    choices = product(("ascending", "descending"), ("user_id", "first", "last"), ("competition", "dense", "ordinal"))
    for order, ties, style in choices:
        of = definition(order, ties, style)
        board, shown = board_of(window, of), in_order(there, of)
        for offset, limit in [(0, 100), (3, 7), (95, 20), (240, 50), (1000, 5)]:
            page = await boards.page(board, offset, limit)
            expected = shown[offset : offset + limit]
            assert [(line.user_id, line.score) for line in page.lines] == [(row.user_id, row.score) for row in expected]
            assert page.players == len(there)
            if expected:
                better = {row.score for row in shown if (row.score < expected[0].score) == of.is_ascending}
                better.discard(expected[0].score)
                assert page.above == sum(row.score in better for row in shown)
                assert page.scores_above == (len(better) if offset < 100 else 0)
        wanted = [row.user_id for row in chance.sample(shown, 20)] + hidden[:1] + hidden_here[:1]
        _, standings = await boards.standings(board, wanted)
        for user, found in zip(wanted, standings, strict=True):
            place = next((n for n, row in enumerate(shown) if row.user_id == user), None)
            if place is None:
                assert found == (None, None, len(there), None)
                continue
            score = shown[place].score
            better_scores = [
                row.score for row in shown if row.score != score and (row.score < score) == of.is_ascending
            ]
            to_next = min((abs(other - score) for other in better_scores), default=None)
            assert found == (rank_of(place, shown, style), score, len(there), to_next)
        user = shown[57].user_id
        around = await boards.around(board, user, 3)
        assert around is not None and around.place == 54
        assert [line.user_id for line in around.page.lines] == [row.user_id for row in shown[54:61]]
        assert await boards.around(board, hidden[0], 3) is None
    assert ranks([5, 5, 4, 3], 1, "dense") == [1, 1, 2, 3]


async def test_the_cache_is_used_while_nothing_moved_and_not_after_a_change_a_rename_or_another_rule(
    ledger: Ledger, store: Store, sql: asyncpg.Connection, window: Window, make_users: MakeUsers
) -> None:
    users = await make_users(3)
    for place, user in enumerate(users, 1):
        await sql.execute("INSERT INTO heads VALUES ($1, $2)", SOURCE, user)
        await sql.execute(
            'INSERT INTO scores (source, rule, "window", user_id, score, at, at_id) VALUES ($1, $2, $3, $4, $5, 1, $5)',
            SOURCE, RULE, window.key, user, place,
        )  # fmt: skip
    board = board_of(window, definition("ascending", "first", "competition"))
    boards = ClosedBoards(ledger, store)
    first, players = await boards.snapshot(board)
    assert players == 3 and list(first.scores.items()) == [(user, n) for n, user in enumerate(users, 1)]
    assert first.at == {user: (1, n) for n, user in enumerate(users, 1)} and first.metadata == dict.fromkeys(users)

    await sql.execute("UPDATE scores SET score = 9 WHERE user_id = $1", users[0])  # by nobody's leave
    assert (await boards.snapshot(board))[0] == first, "it is from the cache"
    await sql.execute("UPDATE windows SET version = version + 1")
    second, _ = await boards.snapshot(board)
    assert second.version == first.version + 1 and list(second.scores)[-1] == users[0]

    await sql.execute("UPDATE users SET username = 'other' WHERE id = $1", users[1])
    await sql.execute("UPDATE catalogue SET shown = shown + 1")
    third, _ = await boards.snapshot(board)
    assert third.version == second.version + 1 and third.names[users[1]] == "other"

    await sql.execute("UPDATE leaderboards SET rule = rule + 1 WHERE id = $1", SOURCE)
    made_anew = replace(board.leaderboard, rule=RULE + 1)
    fourth, _ = await boards.snapshot(board_in(made_anew, window))
    assert fourth.scores == {} and fourth.version == third.version + 1, "without a word in the window's row"
    assert await boards.versions([board]) == {board: fourth.version}


async def test_a_standby_that_is_behind_takes_nothing_back(
    ledger: Ledger, store: Store, sql: asyncpg.Connection, window: Window, make_users: MakeUsers
) -> None:
    users = await make_users(3)
    for place, user in enumerate(users, 1):
        await sql.execute("INSERT INTO heads VALUES ($1, $2)", SOURCE, user)
        await sql.execute(
            'INSERT INTO scores (source, rule, "window", user_id, score, at, at_id) VALUES ($1, $2, $3, $4, $5, 1, $5)',
            SOURCE, RULE, window.key, user, place,
        )  # fmt: skip
    board = board_of(window, definition("ascending", "first", "competition"))
    boards = ClosedBoards(ledger, store, Behind(ledger))
    before = await boards.page(board, 1, 2)
    around = await boards.around(board, users[1], 1)
    assert around is not None and around.page.version == before.version
    await sql.execute("UPDATE windows SET version = version + 1")
    assert await boards.page(board, 1, 2) == before, "nobody has heard of it"
    (version,) = (await boards.versions([board])).values()
    assert version == before.version + 1
    around = await boards.around(board, users[1], 1)
    _, standings = await boards.standings(board, users)
    assert around is not None and around.page.version == version and len(standings) == 3
    assert (await boards.page(board, 1, 2)).version == version


async def test_rows_of_another_rule_than_is_shown_have_no_version(
    ledger: Ledger, store: Store, sql: asyncpg.Connection, window: Window, make_users: MakeUsers
) -> None:
    """Whoever has not heard of a new rule yet must not show, or keep, what was before as the version that it made."""
    users = await make_users(2)
    await filled(sql, window, users, random.Random(1))
    for user in users:
        await sql.execute("INSERT INTO heads VALUES ($1, $2)", SOURCE, user)
    board = board_of(window, definition("ascending", "first", "competition"))
    boards = ClosedBoards(ledger, store)
    assert (await boards.snapshot(board))[1] == 2
    await sql.execute("UPDATE leaderboards SET rule = rule + 1 WHERE id = $1", SOURCE)
    for reading in (boards.snapshot(board), boards.page(board, 0, 9), boards.around(board, users[0], 1),
                    boards.standings(board, users)):  # fmt: skip
        with pytest.raises(LedgerUnavailable, match="another rule"):
            await reading
    shown = board_in(replace(board.leaderboard, rule=RULE + 1), window)
    assert (await boards.snapshot(shown))[0].scores == {}


async def test_an_empty_window_is_an_empty_board(ledger: Ledger, store: Store, window: Window) -> None:
    boards = ClosedBoards(ledger, store)
    board = board_of(window._replace(key=-1), definition("descending", "first", "competition"))
    snapshot, players = await boards.snapshot(board)
    assert (snapshot.scores, players, (await boards.page(board, 0, 10)).lines) == ({}, 0, [])


async def test_a_window_in_which_nobody_was_shows_whoever_is_brought_in_later(
    ledger: Ledger, store: Store, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    """Whoever knows that it was empty still asks: nobody is told of windows that are made for the past."""
    (user,) = await make_users(1)
    await define(sql, Definition("lap", "Lap", windows=("all_time", "day")))
    directory = await catalogue_of(ledger)
    closed, now = ClosedBoards(ledger, store), ledger.clock.now()
    first, then = now - timedelta(days=20), now - timedelta(days=10)
    await Recorder(ledger, directory).record([Submission(user, "a", 5, None, first, "lap")])
    board = await directory.find(f"lap:day_of_{then:%Y_%m_%d}", now)
    assert (await closed.snapshot(board))[0].scores == {}
    await Recorder(ledger, directory).record([Submission(user, "b", 7, None, then, "lap")])
    assert (await closed.snapshot(board))[0].scores == {user: 7}
    assert [line.score for line in (await closed.page(board, 0, 9)).lines] == [7]
    found = await closed.around(board, user, 3)
    assert found is not None and found.page.players == 1
    version, (standing,) = await closed.standings(board, [user])
    assert (standing.score, version) == (7, (await closed.versions([board]))[board])


async def test_boards_are_listed_newest_first_with_their_players(
    ledger: Ledger, store: Store, sql: asyncpg.Connection, window: Window, make_users: MakeUsers
) -> None:
    await filled(sql, window, await make_users(4), random.Random(1))
    for days in (1, 2):
        await sql.execute(
            "INSERT INTO windows (leaderboard, kind, starts, ends, name) VALUES ($1, 'day', $2, $3, $4)",
            SOURCE, STARTS - timedelta(days=days), ENDS - timedelta(days=days), f"day_of_2026_11_{23 - days}",
        )  # fmt: skip
    leaderboard = board_of(window, definition("descending", "first", "competition")).leaderboard
    boards = ClosedBoards(ledger, store)
    listed, total = await boards.listed(leaderboard, 0, 2)
    assert total == 3
    assert [(one.board.id, one.players) for one in listed] == [
        ("sprint:day_of_2026_11_23", 4),
        ("sprint:day_of_2026_11_22", 0),
    ]
    assert await boards.listed(leaderboard, 5, 2) == ([], 3)


async def test_whoever_follows_a_closed_board_hears_of_a_correction(
    ledger: Ledger, store: Store, sql: asyncpg.Connection, make_users: MakeUsers
) -> None:
    (user,) = await make_users(1)
    await define(sql, Definition("lap", "Lap", windows=("all_time", "day")))
    directory = await catalogue_of(ledger)
    closed = ClosedBoards(ledger, store)
    then = await sql.fetchval("SELECT now() - interval '10 days'")
    recorded = await Recorder(ledger, directory).record([Submission(user, "a", 5, None, then, "lap")])
    (board,) = recorded.closed
    assert board.window.kind == "day" and board.is_closed(ledger.clock.now())
    partition = store.partition(board.leaderboard.partition)
    run = (await partition.link.content()).run
    assert await Filling(partition.link).begin(run, "first") and await Filling(partition.link).end(run, "first", [])
    await partition.adopt()
    announcements = Announcements(store.link, store.link_of)
    async with asyncio.timeout(PATIENCE), announcements.hearing(board.leaderboard.partition) as heard:
        await closed.amend(recorded.closed)
        async for announcement in heard:
            if announcement.board == board.id:
                break
    assert announcement.position is not None
    assert announcement.position.version == (await closed.versions([board]))[board]
    assert (await closed.snapshot(board))[0].scores == {user: 5}
