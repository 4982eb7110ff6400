"""Ranks: what a watched user is told is where they stand, wherever that is, and no more often than it changes.

Real stores. The one fake is the connection, which keeps what is written to it. Turns are taken by calling `step` with a
time, so a second costs nothing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis.asyncio
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from realtime.boards.board import ALL_TIME, CURRENT_WEEK, Board, week_at
from realtime.boards.standings import Profile, Row, Standing
from realtime.boards.submissions import Submission
from realtime.broadcast.conflation import Event
from realtime.broadcast.rank_feed import RankFeed
from realtime.broadcast.reading import BoardReader
from realtime.broadcast.subscribers import Subscriber
from realtime.broadcast.watches import PASS
from realtime.errors import RealtimeError, StoreChanged
from realtime.intake.recorder import Recorder
from realtime.ledger.ledger import Ledger
from realtime.ledger.views import Views
from realtime.repair.resync import Resync
from realtime.store.filling import Filling
from realtime.store.reading import RANKED_A_CALL
from realtime.store.snapshots import SnapshotReader
from realtime.store.store import Store
from realtime.wire.frames import Frame
from tests.support.closed_weeks import views_of
from tests.support.databases import MakeUsers
from tests.support.keys import EPOCH_KEY, scores_key, versions_key
from tests.support.servers import RunningServer
from tests.support.stores import make_ours
from tests.support.waiting import PATIENCE

NOBODY = {"rank": None, "score": None, "to_next": None}


class Connection:
    """Takes everything, and keeps it."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.buffered = 0
        self.window = 0
        self.descriptor = -1
        self.on_descriptor: Callable[[int], None] | None = None

    def write(self, frame: Frame, sent: int = 0) -> int:
        self.frames.append(frame)
        return self.buffered

    def close(self, code: int, reason: str = "") -> None:
        raise AssertionError("nobody is closed here")

    def take(self) -> list[dict[str, Any]]:
        """What was written since the last time."""
        taken, self.frames = self.frames, []
        return [json.loads(frame.payload) for frame in taken]


def subscriber() -> tuple[Subscriber, Connection]:
    connection = Connection()
    return Subscriber(connection, buffer_limit=1_000, slow_after=60), connection


class Counted(SnapshotReader):
    """Counts what is asked of the store."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.asked: list[dict[Board, list[int]]] = []

    async def standings(self, wanted: Mapping[Board, Sequence[int]]) -> dict[Board, list[Standing]]:
        self.asked.append({board: list(user_ids) for board, user_ids in wanted.items()})
        return await super().standings(wanted)


@dataclass
class World:
    """Both stores, and the ranks over them. `now` is what time it is."""

    ledger: Ledger
    store: Store
    now: datetime
    live: Counted = field(init=False)
    views: Views = field(init=False)
    ranks: RankFeed = field(init=False)
    at: float = 0.0

    def __post_init__(self) -> None:
        self.live = Counted(self.store)
        self.views = views_of(self.ledger, self.store)
        self.ranks = RankFeed(self.live, self.views.archive, lambda: self.now, most=16, monotonic=lambda: self.at)

    async def turn(self, seconds: float = 1.0) -> None:
        """All turns that are due after so many seconds."""
        self.at += seconds
        for _ in range(3):
            await self.ranks.step(self.at)
            await self.ranks.step_closed(self.at)

    async def score(self, scores: Mapping[int, int], moment: datetime | None = None) -> None:
        """Adds to users' scores, in both stores."""
        begun = self.ledger.clock.timestamp()
        batch = [Submission(user, f"{begun}-{user}", points, None, moment) for user, points in scores.items()]
        recorded = await Recorder(self.ledger).record(batch)
        await self.store.tell(recorded.live_rows(self.now), recorded.profiles)
        await self.views.amend(recorded.closed)


@pytest.fixture
async def world(ledger: Ledger, store: Store) -> World:
    return World(ledger, store, ledger.clock.now())


async def fill(store: Store, scores: Mapping[int, int], board: Board = ALL_TIME, version: int = 1) -> None:
    """A board as a store has it, without a ledger."""
    profiles = [Profile(user_id, 1, f"player-{user_id}") for user_id in scores]
    await store.apply({board: [Row(user_id, version, score) for user_id, score in scores.items()]}, profiles)


def expected(scores: Mapping[int, int], user_id: int) -> Standing:
    """Standard competition ranks, counted one by one."""
    own = scores.get(user_id)
    if own is None:
        return Standing(None, None, len(scores), None)
    better = [score for score in scores.values() if score > own]
    return Standing(len(better) + 1, own, len(scores), min(better) - own if better else None)


# Where one stands --------------------------------------------------------------------------------------------------


@pytest.mark.every_store
@hypothesis_settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    scores=st.dictionaries(
        st.integers(1, 60), st.integers(-(2**53), 2**53) | st.integers(-3, 3), min_size=0, max_size=60
    )
)
def test_everybody_s_standing_is_the_one_counted_by_hand(scores: dict[int, int], store_url: str) -> None:
    async def check() -> None:
        store = Store(store_url)
        try:
            await store.adopt() if (await store.content()).is_ours else await make_ours(store)
            async with redis.asyncio.Redis.from_url(store_url) as client:
                await client.delete(scores_key(ALL_TIME), versions_key(ALL_TIME))
            await fill(store, scores)
            reader = SnapshotReader(store)
            found = await reader.standings({ALL_TIME: list(range(1, 62))})
            assert found[ALL_TIME] == [expected(scores, user_id) for user_id in range(1, 62)]
            for user_id in list(scores)[:3]:
                around, names = await reader.around(ALL_TIME, user_id, 2)
                order = sorted(scores, key=lambda i: (scores[i], str(i)), reverse=True)
                place = order.index(user_id)
                assert list(around.scores) == list(names) == order[max(0, place - 2) : place + 3]
                assert around.first_rank == expected(scores, order[max(0, place - 2)]).rank
                to_next = expected(scores, user_id).to_next
                assert around.next_score == (None if to_next is None else scores[user_id] + to_next)
        finally:
            await store.aclose()

    asyncio.run(check())


async def test_more_users_than_one_call_takes_come_in_the_order_asked(store: Store) -> None:
    scores = {user_id: user_id // 3 for user_id in range(1, 2 * RANKED_A_CALL + 50)}
    await fill(store, scores)
    week = week_at(datetime(2026, 11, 25, tzinfo=UTC))
    await fill(store, {7: 1, 8: 2}, week)
    asked = [*reversed(scores), 999_999]
    found = await SnapshotReader(store).standings({ALL_TIME: asked, week: [8, 9, 7]})
    assert found[ALL_TIME] == [expected(scores, user_id) for user_id in asked]
    assert found[week] == [Standing(1, 2, 2, None), Standing(None, None, 2, None), Standing(2, 1, 2, 1)]


async def test_standings_of_a_content_that_changes_meanwhile_are_none(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(store, {1: 10, 2: 20})
    exchange = store.link.checked.exchange

    async def interrupted(first: Any, *others: Any) -> list[Any]:
        before, _, *replies = await exchange(first, ("SET", EPOCH_KEY, "another"), *others)
        return [before, *replies]

    monkeypatch.setattr(store.link.checked, "exchange", interrupted)
    with pytest.raises(StoreChanged):
        await SnapshotReader(store).standings({ALL_TIME: [1]})


# Telling -----------------------------------------------------------------------------------------------------------


async def test_a_rank_comes_at_once_and_then_only_when_it_changed(world: World, make_users: MakeUsers) -> None:
    a, b, c = await make_users(3)
    await world.score({a: 30, b: 20, c: 10})
    one, told = subscriber()
    world.ranks.watch(one, "all_time", b)
    await world.turn(0)
    rank = {"type": "rank", "board": "all_time", "user_id": b}
    assert told.take() == [rank | {"rank": 2, "score": 20, "players": 3, "to_next": 10}]
    await world.turn()
    await world.turn()
    assert told.take() == []
    await world.score({a: 5})
    await world.turn()
    assert told.take() == [rank | {"rank": 2, "score": 20, "players": 3, "to_next": 15}]
    await world.score({b: 15})
    await world.turn()
    assert told.take() == [rank | {"rank": 1, "score": 35, "players": 3, "to_next": None}]


async def test_at_most_one_message_a_second(world: World, make_users: MakeUsers) -> None:
    a, b = await make_users(2)
    await world.score({a: 1_000, b: 1})
    one, told = subscriber()
    other, told_other = subscriber()
    world.ranks.watch(one, "all_time", a)
    await world.turn(0)
    for number in range(41):
        await world.score({b: 1, a: -1})
        if number == 5:
            world.ranks.watch(other, "all_time", a)  # while somebody watches already: told what is known, at once
            assert len(told_other.frames) == 1
        await world.turn(0.125)
    assert len(told.take()) == 1 + 5
    assert len(told_other.take()) == 1 + 4  # and the next not before a second is over


async def test_watchers_of_one_user_share_the_reading_and_the_frame(world: World, make_users: MakeUsers) -> None:
    (a,) = await make_users(1)
    everybody = [subscriber() for _ in range(50)]
    for one, _ in everybody:
        world.ranks.watch(one, "all_time", a)
    await world.turn(0)
    assert world.live.asked == [{ALL_TIME: [a]}]
    frames = [connection.frames for _, connection in everybody]
    assert all(len(of) == 1 and of[0] is frames[0][0] for of in frames)
    assert world.ranks.watched == 1


async def test_nobody_watches_and_nothing_is_read(world: World, make_users: MakeUsers) -> None:
    (a,) = await make_users(1)
    one, told = subscriber()
    world.ranks.watch(one, "all_time", a)
    world.ranks.watch(one, CURRENT_WEEK, a)
    await world.turn(0)
    world.ranks.remove(one)
    told.take()
    world.live.asked.clear()
    await world.turn()
    assert world.ranks.watched == 0 and world.live.asked == [] and told.take() == []
    assert world.ranks.watched_by(one) == []


async def test_who_is_not_on_the_board_has_no_rank_until_they_are(world: World, make_users: MakeUsers) -> None:
    a, b = await make_users(2)
    await world.score({a: 7})
    one, told = subscriber()
    world.ranks.watch(one, "all_time", b)
    world.ranks.watch(one, "all_time", 999_999)
    await world.turn(0)
    first, second = told.take()
    assert {first["user_id"], second["user_id"]} == {b, 999_999}
    assert all(message.items() >= {**NOBODY, "players": 1}.items() for message in (first, second))
    await world.score({b: 3})
    await world.turn()
    of_b = next(message for message in told.take() if message["user_id"] == b)
    assert (of_b["rank"], of_b["score"], of_b["players"], of_b["to_next"]) == (2, 3, 2, 4)


async def test_the_number_of_watches_is_bounded(world: World) -> None:
    one, _ = subscriber()
    for user_id in range(1, 17):
        world.ranks.watch(one, "all_time", user_id)
    world.ranks.watch(one, "all_time", 3)  # again: no more than before
    with pytest.raises(RealtimeError) as error:
        world.ranks.watch(one, "all_time", 17)
    assert error.value.code == "too_many"
    with pytest.raises(RealtimeError):
        world.ranks.watch(one, CURRENT_WEEK, 3)
    assert world.ranks.unwatch(one, "all_time", 5) == ALL_TIME
    world.ranks.watch(one, CURRENT_WEEK, 3)
    assert world.ranks.unwatch(one, "all_time", 5) is None


async def test_asking_again_is_answered_again(world: World, make_users: MakeUsers) -> None:
    (a,) = await make_users(1)
    one, told = subscriber()
    world.ranks.watch(one, "all_time", a)
    await world.turn(0)
    world.ranks.watch(one, "all_time", a)
    assert len(told.take()) == 2
    await world.turn()
    assert told.take() == []


async def test_an_id_and_the_alias_are_two_names_of_one_watch(world: World, make_users: MakeUsers) -> None:
    (a,) = await make_users(1)
    week = week_at(world.now)
    one, told = subscriber()
    world.ranks.watch(one, week.id, a)
    await world.turn(0)
    assert [message["board"] for message in told.take()] == [week.id]
    world.ranks.watch(one, CURRENT_WEEK, a)
    told.take()
    await world.score({a: 5})
    await world.turn()
    assert [message["board"] for message in told.take()] == [week.id]
    assert world.ranks.unwatch(one, week.id, a) == week
    await world.score({a: 5})
    await world.turn()
    assert [message["score"] for message in told.take()] == [10]
    assert world.ranks.unwatch(one, CURRENT_WEEK, a) == week
    assert world.ranks.watched == 0


async def test_many_are_read_in_passes_each_once_a_second(world: World) -> None:
    everybody = [subscriber() for _ in range(PASS // 8 + 20)]
    for number, (one, _) in enumerate(everybody):
        for offset in range(16):
            world.ranks.watch(one, "all_time", 16 * number + offset + 1)
    users = 16 * len(everybody)
    assert users > 2 * PASS
    await world.turn(0)
    assert sum(len(connection.take()) for _, connection in everybody) == users
    assert [len(asked[ALL_TIME]) for asked in world.live.asked] == [PASS, PASS, users - 2 * PASS]
    world.live.asked.clear()
    await world.turn(0.5)
    assert world.live.asked == []
    await world.turn(0.5)
    assert sum(len(asked[ALL_TIME]) for asked in world.live.asked) == users


async def test_who_is_behind_is_left_alone_and_then_told_the_newest(world: World, make_users: MakeUsers) -> None:
    (a,) = await make_users(1)
    one, told = subscriber()
    world.ranks.watch(one, "all_time", a)
    await world.turn(0)
    told.take()
    one.step(Event.FILLED)
    for _ in range(3):
        await world.score({a: 1})
        await world.turn()
    assert told.take() == []
    one.drained()
    await world.turn()
    assert [message["score"] for message in told.take()] == [3]


# Through time ------------------------------------------------------------------------------------------------------


async def test_who_watches_the_current_week_follows_it(world: World, make_users: MakeUsers) -> None:
    a, b = await make_users(2)
    last, this = week_at(world.now - timedelta(days=7)), week_at(world.now)
    world.now = last.ends - timedelta(seconds=1)
    await world.score({a: 9, b: 4}, world.now - timedelta(days=1))
    one, told = subscriber()
    other, told_other = subscriber()
    world.ranks.watch(one, CURRENT_WEEK, b)
    world.ranks.watch(other, last.id, b)
    await world.turn(0)
    assert [message["board"] for message in told.take()] == [last.id]
    told_other.take()
    world.now = this.starts
    await world.turn()
    assert [(m["board"], m["rank"], m["players"]) for m in told.take()] == [(this.id, None, 0)]
    await world.score({b: 2}, this.starts)
    await world.turn()
    assert [(m["board"], m["rank"], m["score"]) for m in told.take()] == [(this.id, 1, 2)]
    assert told_other.take() == []
    assert world.ranks.unwatch(one, CURRENT_WEEK, b) == this


async def test_a_week_that_closes_under_its_watchers_goes_on_from_its_view(world: World, make_users: MakeUsers) -> None:
    a, b = await make_users(2)
    week = week_at(world.now - timedelta(days=7))
    world.now = week.ends + timedelta(seconds=119)
    await world.score({a: 9, b: 4}, week.starts)
    one, told = subscriber()
    world.ranks.watch(one, week.id, b)
    await world.turn(0)
    assert [(m["rank"], m["to_next"]) for m in told.take()] == [(2, 5)]
    world.now = week.ends + timedelta(seconds=120)
    await world.turn()
    await world.turn()
    assert told.take() == []
    await world.score({b: 6}, week.starts)
    await world.turn()
    assert [(m["rank"], m["score"], m["to_next"], m["players"]) for m in told.take()] == [(1, 10, None, 2)]


async def test_a_closed_week_s_ranks_move_with_amendments_and_bans(
    world: World, make_users: MakeUsers, sql: Any
) -> None:
    users = await make_users(5)
    week = week_at(world.now - timedelta(days=21))
    await world.score({user: 10 * place for place, user in enumerate(users)}, week.starts)
    one, told = subscriber()
    world.ranks.watch(one, week.id, users[2])
    world.ranks.watch(one, week.id, 999_999)
    await world.turn(0)
    assert {(m["user_id"], m["rank"], m["score"], m["players"], m["to_next"]) for m in told.take()} == {
        (users[2], 3, 20, 5, 10),
        (999_999, None, None, 5, None),
    }
    await world.turn()
    assert told.take() == []
    await sql.execute("UPDATE user_total_scores SET hidden = true WHERE user_id = $1", users[3])
    await sql.execute("UPDATE closed_weeks SET version = version + 1")
    await world.turn()
    of_user = next(m for m in told.take() if m["user_id"] == users[2])
    assert (of_user["rank"], of_user["players"], of_user["to_next"]) == (2, 4, 20)
    await world.score({users[2]: 100}, week.starts)
    await world.turn()
    assert [(m["rank"], m["score"], m["to_next"]) for m in told.take()] == [(1, 120, None)]


async def test_weeks_that_are_none_are_refused(world: World, make_users: MakeUsers) -> None:
    (a,) = await make_users(1)
    await world.score({a: 1}, world.now - timedelta(days=14))
    one, told = subscriber()
    for name in ("week_of_2024_02_30", "week_of_2026_11_24", EPOCH_KEY, "current_week' --", "all_time "):
        with pytest.raises(RealtimeError) as error:
            world.ranks.watch(one, name, a)
        assert error.value.code == "unknown_board"
    with pytest.raises(RealtimeError):
        world.ranks.watch(one, week_at(world.now + timedelta(days=7)).id, a)
    world.ranks.watch(one, "week_of_1999_01_04", a)  # only the ledger knows that there are no scores that old
    await world.turn(0)
    (message,) = told.take()
    assert (message["type"], message["code"], message["board"]) == ("error", "unknown_board", "week_of_1999_01_04")
    assert world.ranks.watched == 0


# When the store is away ----------------------------------------------------------------------------------------------


async def test_of_a_store_being_filled_only_this_is_told(world: World, make_users: MakeUsers, keys: Any) -> None:
    (a,) = await make_users(1)
    await world.score({a: 4})
    one, told = subscriber()
    world.ranks.watch(one, "all_time", a)
    await world.turn(0)
    told.take()
    run = (await world.store.content()).run
    assert await Filling(world.store.link).begin(run, f"{run[:8]}-7")
    await keys.delete(scores_key(ALL_TIME), versions_key(ALL_TIME))
    await world.turn()
    late, told_late = subscriber()
    for name in ("all_time", CURRENT_WEEK):
        world.ranks.watch(late, name, a)
    await world.turn(0.2)
    await world.turn()
    await world.turn()
    assert told.take() == []
    refusals = told_late.take()
    assert [(m["type"], m["code"]) for m in refusals] == [("error", "unavailable")] * 2, "once for each that was asked"
    assert {m["board"] for m in refusals} == {"all_time", CURRENT_WEEK}, "by the name it was asked by"
    world.ranks.watch(late, CURRENT_WEEK, a)
    await world.turn()
    assert [m["board"] for m in told_late.take()] == [CURRENT_WEEK]  # asking again is answered again
    await Resync(world.ledger, world.store, lambda: world.now).users([a])
    assert await Filling(world.store.link).end(run, f"{run[:8]}-7", [])
    await world.turn()
    await world.turn()
    assert told.take() == []  # the same as before
    assert [(m["type"], m["rank"], m["score"]) for m in told_late.take()] == [("rank", 1, 4)] * 2


# Over HTTP and the socket --------------------------------------------------------------------------------------------


async def submit(server: RunningServer, rows: Sequence[tuple[int, int]], moment: datetime | None = None) -> None:
    """Hands scores in as a game server, or as an admin who says when it was."""
    body: list[dict[str, Any]] = [
        {"submission_id": f"s-{server.services.clock.timestamp()}-{n}", "user_id": user_id, "score_added": points}
        for n, (user_id, points) in enumerate(rows)
    ]
    if moment is not None:
        body = [row | {"created_at": moment.isoformat()} for row in body]
    scope = "submit:any" if moment is None else "admin"
    for start in range(0, len(body), 1_000):
        part = body[start : start + 1_000]
        answer = await server.http.post("/scores", json=part, headers=server.bearer(None, scope))
        assert {result["type"] for result in answer.json()["results"]} == {"accepted"}


async def shown(server: RunningServer, user_id: int, players: int) -> None:
    """Until both live boards have so many players: what was acknowledged is in the store a moment later."""
    client = await server.client()
    for name in ("all_time", CURRENT_WEEK):
        await client.send("watch", board=name, user_id=user_id)
        await client.until("rank", lambda message: message["players"] == players)
    await client.aclose()


async def test_socket_page_and_user_agree_on_every_rank(server: RunningServer, make_users: MakeUsers) -> None:
    users = await make_users(130)
    past = week_at(server.services.clock.now() - timedelta(days=28))
    for moment in (None, past.starts + timedelta(days=2)):
        await submit(server, [(user, 1 + place // 3) for place, user in enumerate(users)], moment)
    await shown(server, users[0], 130)
    for name in ("all_time", CURRENT_WEEK, past.id):
        page = (await server.http.get(f"/boards/{name}?limit=1000")).json()
        scores = {entry["user_id"]: entry["score"] for entry in page["entries"]}
        assert len(scores) == 130
        for place, entry in list(enumerate(page["entries"]))[::7]:
            rank, score, players, to_next = expected(scores, entry["user_id"])
            user = (await server.http.get(f"/boards/{name}/users/{entry['user_id']}?neighbours=4")).json()
            assert user.pop("neighbours") == page["entries"][max(0, place - 4) : place + 5]
            assert user == {
                **{key: page[key] for key in ("board", "epoch", "version", "players", "stale")},
                **entry,
                "to_next": to_next,
            }
            client = await server.client()
            await client.send("watch", board=name, user_id=entry["user_id"])
            assert await client.until("rank") == {
                "type": "rank", "board": page["board"], "user_id": entry["user_id"],
                "rank": rank, "score": score, "players": players, "to_next": to_next,
            }  # fmt: skip
            await client.aclose()


async def test_neighbours_are_bounded_and_a_stranger_is_none(server: RunningServer, make_users: MakeUsers) -> None:
    (a,) = await make_users(1)
    await submit(server, [(a, 5)])
    cases = {
        f"/boards/all_time/users/{a}?neighbours=51": (422, "out_of_range"),
        f"/boards/all_time/users/{a}?neighbours=-1": (422, "out_of_range"),
        f"/boards/all_time/users/{a}?neighbours=x": (400, "bad_message"),
        "/boards/all_time/users/9223372036854775808": (422, "out_of_range"),
        "/boards/all_time/users/0": (422, "out_of_range"),
        "/boards/all_time/users/1;DROP": (400, "bad_message"),
        "/boards/all_time/users/4711": (404, "unknown_user"),
        f"/boards/week_of_2024_02_30/users/{a}": (404, "unknown_board"),
        f"/boards/week_of_1999_01_04/users/{a}": (404, "unknown_board"),
    }
    for path, (status, code) in cases.items():
        answer = await server.http.get(path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), path
    for neighbours in (0, 50):
        answer = await server.http.get(f"/boards/all_time/users/{a}?neighbours={neighbours}")
        assert [line["user_id"] for line in answer.json()["neighbours"]] == [a]


async def test_a_user_with_neighbours_is_one_round_trip(
    server: RunningServer, make_users: MakeUsers, keys: Any
) -> None:
    users = await make_users(30)
    await submit(server, [(user, place) for place, user in enumerate(users, 1)])
    await shown(server, users[0], 30)
    path = f"/boards/all_time/users/{users[15]}"
    first = (await server.http.get(path)).json()  # whoever was shown before is known by name from then on
    async with keys.monitor() as monitor:
        assert (await server.http.get(path)).json() == first
        await keys.echo("that was it")
        seen = []
        while (command := await monitor.next_command())["command"] != "ECHO that was it":
            seen.append(command)
    asked = [c["command"] for c in seen if c["client_type"] != "lua" and not _is_watch(c["command"])]
    assert len(asked) == 1 and asked[0].startswith("EVALSHA"), asked
    assert first["neighbours"][5]["username"] == "player-16"


def _is_watch(command: str) -> bool:
    """What every process asks for by itself, once in a while."""
    return command.startswith(("INFO", "MGET leaderboard:run", "MGET leaderboard:epoch", "PING", "HELLO"))


async def test_the_connection_s_end_ends_its_watches(server: RunningServer, make_users: MakeUsers) -> None:
    (a,) = await make_users(1)
    client = await server.client()
    await client.send("watch", board="all_time", user_id=a)
    await client.until("rank")
    assert server.services.rank_feed.watched == 1
    assert await client.ask("unwatch", board=CURRENT_WEEK, user_id=a) == {
        "type": "error", "code": "unknown_user", "message": "This user is not watched on that board.",
        "board": CURRENT_WEEK,
    }  # fmt: skip
    await client.aclose()
    async with asyncio.timeout(PATIENCE):
        while server.services.rank_feed.watched:  # noqa: ASYNC110  (there is no event to wait for)
            await asyncio.sleep(0)


async def test_a_change_far_below_the_top_is_pushed_within_a_second_or_so(
    server: RunningServer, make_users: MakeUsers
) -> None:
    users = await make_users(150)
    await submit(server, [(user, 1_000 - place) for place, user in enumerate(users)])
    last = users[-1]
    client = await server.client()
    await client.send("watch", board="all_time", user_id=last)
    first = await client.until("rank")
    assert (first["rank"], first["players"], first["to_next"]) == (150, 150, 1)
    await submit(server, [(last, 1)])
    second = await client.until("rank")
    assert (second["rank"], second["score"], second["to_next"]) == (149, 852, 1)


async def test_while_the_store_is_away_the_last_top_answers_and_says_so(
    ledger: Ledger, store: Store, make_users: MakeUsers
) -> None:
    world = World(ledger, store, ledger.clock.now())
    users = await make_users(4)
    await world.score(dict(zip(users, (40, 30, 30, 10), strict=True)))
    reading = BoardReader(world.live, world.views.archive, lambda: world.now)
    await reading.page(ALL_TIME, 0, 100)
    run = (await store.content()).run
    assert await Filling(store.link).begin(run, f"{run[:8]}-9")
    page = await reading.user(ALL_TIME, users[3], 1)
    assert (page.stale, page.rank, page.score, page.to_next) == (True, 4, 10, 20)
    assert [line.rank for line in page.neighbours] == [2, 4]
    with pytest.raises(RealtimeError) as error:
        await reading.user(ALL_TIME, 4711, 1)
    assert error.value.code == "unknown_user"
    with pytest.raises(RealtimeError) as error:
        await reading.user(week_at(world.now), users[0], 1)
    assert error.value.code == "unavailable"


async def test_what_is_remembered_is_the_newest_reading_not_the_last_to_arrive(
    ledger: Ledger, store: Store, make_users: MakeUsers
) -> None:
    world = World(ledger, store, ledger.clock.now())
    (user,) = await make_users(1)
    await world.score({user: 40})
    reading = BoardReader(world.live, world.views.archive, lambda: world.now)
    await reading.page(ALL_TIME, 0, 100)
    expected = reading.expect([ALL_TIME], [user])
    readings = []
    for score in (1, 2):
        await world.score({user: score})
        readings.append(await store.read([ALL_TIME], expected.names_of))
    for later_first in reversed(readings):
        assert reading.take(expected, later_first)
    store.distrust()
    page = await reading.page(ALL_TIME, 0, 100)
    assert (page.stale, [line.score for line in page.entries]) == (True, [43])
