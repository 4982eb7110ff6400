"""Streams: whoever comes, goes, falls behind or drains, and however a pass is cut, a client ends with the newest board.

The one fake here is the connection, which records what is written to it and is as slow as the test wants.
"""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from typing import Any

import pytest
from hypothesis import note
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from realtime.boards.board import ALL_TIME, CLOSED_EPOCH, CURRENT_WEEK, Board, week_of
from realtime.boards.leaderboard import DEFAULT
from realtime.boards.standings import Position, Snapshot, in_order
from realtime.broadcast.conflation import Event, Pace
from realtime.broadcast.frame_cache import HELD, Advance
from realtime.broadcast.streams import Stream
from realtime.broadcast.subscribers import WAITING, Subscriber
from realtime.wire import messages
from tests.support.recorder import RecordingConnection

WEEK = week_of(date(2026, 11, 23))
LIMIT = 1_000  # bytes


def caught_up(subscriber: Subscriber) -> None:
    """What the broadcaster does for a subscriber that drained."""
    for subscription in subscriber.subscriptions:
        subscription.stream.serve(subscription)


def subscriber_on(connection: RecordingConnection, limit: int = LIMIT) -> Subscriber:
    return Subscriber(connection, buffer_limit=limit, slow_after=3600, on_drained=caught_up)


def snapshot(board: Board, version: int, rows: dict[int, tuple[int, str]], epoch: str = "x") -> Snapshot:
    ordered = in_order((user_id, score) for user_id, (score, _) in rows.items())
    return Snapshot(board.id, epoch, version, ordered, {i: rows[i][1] for i in ordered})


def finish(stream: Stream) -> None:
    while stream.remaining:
        stream.deliver(1_000)


def test_what_was_read_of_a_board_before_it_shows_metadata_is_not_it() -> None:
    """It may be of the same version, and would be taken for what is shown."""
    described = replace(DEFAULT, definition=replace(DEFAULT.definition, metadata=True))
    stream, read = Stream(ALL_TIME), snapshot(ALL_TIME, 1, {7: (3, "kim")})
    assert stream.is_shown_by(read)
    stream.redefine(Board(ALL_TIME.id, described, ALL_TIME.window._replace(key=5)))
    assert not stream.is_shown_by(read) and stream.is_shown_by(replace(read, metadata={7: None}))



content = st.dictionaries(
    st.integers(1, 12), st.tuples(st.integers(-2, 4), st.sampled_from(["a", "b", "c"])), max_size=8
)
changes = st.dictionaries(
    st.integers(1, 12), st.none() | st.tuples(st.integers(-2, 4), st.sampled_from(["a", "b", "c"])), max_size=3
)
boards = st.sampled_from([ALL_TIME, WEEK])


def in_loop(step: Callable[..., Any]) -> Callable[..., Any]:
    """A rule whose body runs inside the machine's loop, for timers want a running one; nothing in it waits."""

    @functools.wraps(step)
    def run(self: Streams, **arguments: Any) -> Any:
        async def work() -> Any:
            return step(self, **arguments)

        return self.runner.run(work())

    return run


class Streams(RuleBasedStateMachine):
    """Two boards; clients who follow one, the other or both, under one name or two."""

    clients = Bundle("clients")

    @initialize(first=content, second=content)
    def begin(self, first: Any, second: Any) -> None:
        self.runner = asyncio.Runner()
        self.rows = {ALL_TIME: dict(first), WEEK: dict(second)}
        self.streams = {board: Stream(board) for board in self.rows}
        self.timeline = dict.fromkeys(self.rows, 0)  # moves where an epoch's versions went back
        self.held: dict[tuple[Subscriber, str], int] = {}  # the timeline of what a client holds
        self.epochs = 0
        for board in self.rows:
            assert self.streams[board].advance(self.newest(board, 1)) is Advance.FIRST

    def newest(self, board: Board, version: int) -> Snapshot:
        return snapshot(board, version, self.rows[board], f"e{self.epochs}")

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            try:
                self.settle()
            finally:
                self.runner.close()

    # Clients come and go -----------------------------------------------------------------------------------------

    @rule(target=clients, count=st.integers(1, 4))
    def connect(self, count: int) -> Any:
        return multiple(*(subscriber_on(RecordingConnection()) for _ in range(count)))

    @rule(target=clients, board=boards, count=st.integers(3, 7))
    @in_loop
    def crowd(self, board: Board, count: int) -> Any:
        arrived = [subscriber_on(RecordingConnection()) for _ in range(count)]
        for client in arrived:
            self.streams[board].add(client, board.id, None)
            self.remember(client)
        return multiple(*arrived)

    @rule(client=clients, board=boards, alias=st.sampled_from(["id", CURRENT_WEEK]), resume=st.booleans())
    @in_loop
    def subscribe(self, client: Subscriber, board: Board, alias: str, resume: bool) -> None:
        if not client.is_open:
            return
        stream = self.streams[board]
        follower = client.connection.follower
        subscribed = any(s.stream is stream for s in client.subscriptions)
        known = follower.boards.get(board.id)
        since = None
        if resume and known and not subscribed and self.held.get((client, board.id)) == self.timeline[board]:
            since = messages.Since(known.epoch, known.version)
        before = len(client.connection.messages)
        stream.add(client, board.id if alias == "id" else alias, since)
        said = client.connection.messages[before:]
        assert said[0]["type"] == "subscribed"
        assert len(said) <= 2, "at most one answer besides"
        if since is None:
            assert not said[0]["resumed"]
        elif said[0]["resumed"]:
            assert [message["type"] for message in said[1:]] in ([], ["diff"])
            current = (since.epoch, since.version) == (stream.latest.epoch, stream.latest.version)
            assert len(said) == (1 if current or client.pace is not Pace.FOLLOWING else 2)
        self.remember(client)

    @rule(client=clients, data=st.data())
    @in_loop
    def unsubscribe(self, client: Subscriber, data: st.DataObject) -> None:
        names = [alias for subscription in client.subscriptions for alias in sorted(subscription.aliases)]
        if names:
            alias = data.draw(st.sampled_from(names))
            subscription = client.subscription(alias)
            assert subscription is not None
            subscription.stream.drop_alias(subscription, alias)

    @rule(client=consumes(clients))
    @in_loop
    def leave(self, client: Subscriber) -> None:
        client.connection.is_closed = True
        client.gone()
        for subscription in list(client.subscriptions):
            subscription.stream.remove(subscription)
        assert not client.subscriptions

    @rule(client=clients, board=boards)
    @in_loop
    def be_moved(self, client: Subscriber, board: Board) -> None:
        """A rollover subscribes people who did not ask."""
        if client.is_open:
            self.streams[board].join(client, CURRENT_WEEK)
            self.remember(client)

    # Clients are slow ----------------------------------------------------------------------------------------

    @rule(client=clients)
    def stall(self, client: Subscriber) -> None:
        client.connection.stalled = True

    @rule(client=clients)
    @in_loop
    def drain(self, client: Subscriber) -> None:
        was_behind = client.pace is Pace.BEHIND
        before = len(client.connection.messages)
        client.connection.stalled, client.connection.buffered = False, 0
        client.drained()
        if was_behind:
            assert client.pace is Pace.FOLLOWING
            for message in client.connection.messages[before:]:
                assert message["type"] in ("snapshot", "diff")
            assert len(client.connection.messages) - before <= len(client.subscriptions)
        self.remember(client)

    @rule(client=clients)
    @in_loop
    def expire(self, client: Subscriber) -> None:
        if client.pace is Pace.BEHIND:
            client.step(Event.EXPIRED)
            assert client.connection.closed_with == (4408, "too slow")

    # Boards move ---------------------------------------------------------------------------------------------

    @rule(board=boards, change=changes, steps=st.integers(1, 3))
    def change(self, board: Board, change: dict[int, Any], steps: int) -> None:
        rows = self.rows[board]
        for user_id, row in change.items():
            if row is None:
                rows.pop(user_id, None)
            else:
                rows[user_id] = row
        stream = self.streams[board]
        assert stream.latest is not None
        assert stream.advance(self.newest(board, stream.latest.version + steps)) is Advance.CHANGED

    @rule(board=boards)
    def look_again(self, board: Board) -> None:
        stream = self.streams[board]
        state, remaining = stream.states.newest, stream.remaining
        assert stream.latest is not None
        assert stream.advance(self.newest(board, stream.latest.version)) is Advance.UNCHANGED
        assert (stream.states.newest, stream.remaining) == (state, remaining)

    @rule(rows=content, version=st.integers(0, 5))
    def rebuild(self, rows: dict[int, Any], version: int) -> None:
        """A new epoch, its versions anywhere; for every board at once."""
        self.epochs += 1
        for board, stream in self.streams.items():
            self.rows[board] = dict(rows)
            assert stream.advance(self.newest(board, version)) is Advance.CHANGED

    @rule(board=boards, rows=content)
    def go_back(self, board: Board, rows: dict[int, Any]) -> None:
        stream = self.streams[board]
        assert stream.latest is not None
        if stream.latest.version > 1:
            self.rows[board] = dict(rows)
            self.timeline[board] += 1
            assert stream.advance(self.newest(board, stream.latest.version - 1)) is Advance.BACKWARDS

    @rule(board=boards, budget=st.integers(1, 6))
    @in_loop
    def deliver(self, board: Board, budget: int) -> None:
        stream = self.streams[board]
        remaining = stream.remaining
        done = stream.deliver(budget)
        assert done.written + done.skipped <= done.visited <= budget
        assert stream.remaining == (remaining - done.visited if stream.subscriptions else 0)
        self.remember_all()

    def remember(self, client: Subscriber) -> None:
        for subscription in client.subscriptions:
            board = subscription.stream.board
            self.held[client, board.id] = self.timeline[board]

    def remember_all(self) -> None:
        for stream in self.streams.values():
            for subscription in stream.subscriptions:
                if subscription.state == stream.states.newest:
                    self.held[subscription.subscriber, stream.board.id] = self.timeline[stream.board]

    # What must hold ------------------------------------------------------------------------------------------

    @invariant()
    @precondition(lambda self: hasattr(self, "streams"))
    def places_are_in_order_and_no_pass_forgets_anybody(self) -> None:
        for stream in self.streams.values():
            for place, subscription in enumerate(stream.subscriptions):
                assert subscription.place == place
                assert subscription.aliases
                assert subscription in subscription.subscriber.subscriptions
                if not stream.remaining and subscription.subscriber.pace is Pace.FOLLOWING:
                    assert subscription.state == stream.states.newest, "a pass is over, and somebody was left out"
            assert len(stream.states) <= HELD

    @invariant()
    @precondition(lambda self: hasattr(self, "streams"))
    def who_is_behind_is_owed_a_whole_board(self) -> None:
        for stream in self.streams.values():
            for subscription in stream.subscriptions:
                client = subscription.subscriber
                assert client.connection.buffered <= LIMIT or client.pace is not Pace.FOLLOWING

    @rule()
    @in_loop
    def settle(self) -> None:
        """Everybody reads on, every pass ends: then every client holds the newest board."""
        clients = {s.subscriber for stream in self.streams.values() for s in stream.subscriptions}
        for client in clients:
            client.connection.stalled, client.connection.buffered = False, 0
            client.drained()
        for stream in self.streams.values():
            finish(stream)
        for board, stream in self.streams.items():
            latest = stream.latest
            assert latest is not None
            for subscription in stream.subscriptions:
                client = subscription.subscriber
                if client.is_open:
                    note(f"{board.id}: {client.connection.messages}")
                    shown = client.connection.follower.boards[board.id]
                    assert (shown.epoch, shown.version) == (latest.epoch, latest.version)
                    assert shown.lines == [tuple(entry) for entry in latest.entries]
        self.remember_all()


TestStreams = Streams.TestCase
TestStreams.settings = hypothesis_settings(max_examples=150, stateful_step_count=50, deadline=None)


# One by one ------------------------------------------------------------------------------------------------------


@pytest.fixture
def stream() -> Iterator[Stream]:
    made = Stream(ALL_TIME)
    made.advance(snapshot(ALL_TIME, 10, {1: (5, "a"), 2: (3, "b")}))
    yield made


def test_a_subscriber_is_told_its_board_and_given_a_snapshot(stream: Stream) -> None:
    connection = RecordingConnection()
    stream.add(subscriber_on(connection), "all_time", None)
    assert connection.kinds() == ["subscribed", "snapshot"]
    assert connection.messages[0] == {
        "type": "subscribed",
        "board": "all_time",
        "as": "all_time",
        "resumed": False,
    }


def test_a_since_equal_to_now_is_resumed_and_gets_nothing_else(stream: Stream) -> None:
    connection = RecordingConnection()
    stream.add(subscriber_on(connection), "all_time", messages.Since("x", 10))
    assert connection.messages == [{"type": "subscribed", "board": "all_time", "as": "all_time", "resumed": True}]


def test_a_since_still_held_gets_the_diff_from_exactly_there(stream: Stream) -> None:
    stream.advance(snapshot(ALL_TIME, 12, {1: (5, "a"), 2: (9, "b")}))
    stream.advance(snapshot(ALL_TIME, 13, {2: (9, "b"), 3: (4, "c")}))
    connection = RecordingConnection()
    connection.follower.take(json.loads(messages.snapshot(snapshot(ALL_TIME, 10, {1: (5, "a"), 2: (3, "b")}))))
    stream.add(subscriber_on(connection), "all_time", messages.Since("x", 10))
    assert connection.kinds() == ["subscribed", "diff"]
    assert connection.messages[0]["resumed"] is True
    assert connection.messages[1] == {
        "type": "diff",
        "board": "all_time",
        "epoch": "x",
        "from": 10,
        "version": 13,
        "upsert": [{"user_id": 2, "score": 9}, {"user_id": 3, "username": "c", "score": 4}],
        "remove": [1],
    }


@pytest.mark.parametrize("since", [("x", 9), ("x", 11), ("y", 10), ("", 10), ("x", -1), ("x", 2**70)])
def test_any_other_since_gets_a_snapshot(stream: Stream, since: tuple[str, int]) -> None:
    connection = RecordingConnection()
    stream.add(subscriber_on(connection), "all_time", messages.Since(*since))
    assert connection.kinds() == ["subscribed", "snapshot"]


@pytest.mark.parametrize(
    ("alias", "named", "resumed"),
    [
        (WEEK.id, None, True),
        (CURRENT_WEEK, None, False),
        (CURRENT_WEEK, WEEK.id, True),
        (CURRENT_WEEK, "week_of_2026_11_16", False),
        (CURRENT_WEEK, CURRENT_WEEK, False),
        (WEEK.id, "week_of_2026_11_16", False),
    ],
)
def test_a_state_of_another_board_is_no_state_of_this_one(alias: str, named: str | None, resumed: bool) -> None:
    """Weeks share an epoch and count from the same number: who asks by the alias says which week it holds."""
    stream = Stream(WEEK)
    stream.advance(snapshot(WEEK, 10, {1: (5, "a")}))
    connection = RecordingConnection()
    connection.follower.take(json.loads(messages.snapshot(snapshot(WEEK, 10, {1: (5, "a")}))))
    stream.add(subscriber_on(connection), alias, messages.Since("x", 10, named))
    assert connection.messages[0]["resumed"] is resumed
    assert connection.kinds()[1:] == ([] if resumed else ["snapshot"])


def test_a_version_is_held_for_a_while_and_not_for_ever(stream: Stream) -> None:
    for version in range(11, 10 + HELD):
        stream.advance(snapshot(ALL_TIME, version, {1: (version, "a")}))
    stream.advance(snapshot(ALL_TIME, 10 + HELD, {1: (99, "a")}))
    too_old, oldest = RecordingConnection(), RecordingConnection()
    stream.add(subscriber_on(too_old), "all_time", messages.Since("x", 10))
    assert too_old.kinds() == ["subscribed", "snapshot"]
    oldest.follower.take(json.loads(messages.snapshot(snapshot(ALL_TIME, 11, {1: (11, "a")}))))
    stream.add(subscriber_on(oldest), "all_time", messages.Since("x", 11))
    assert oldest.kinds() == ["subscribed", "diff"]


def test_a_second_subscribe_gets_a_fresh_snapshot(stream: Stream) -> None:
    connection = RecordingConnection()
    client = subscriber_on(connection)
    stream.add(client, "all_time", None)
    stream.add(client, "all_time", None)
    assert connection.kinds() == ["subscribed", "snapshot"] * 2
    assert len(stream.subscriptions) == 1


def test_alias_and_id_are_one_stream_and_one_diff() -> None:
    stream = Stream(WEEK)
    stream.advance(snapshot(WEEK, 1, {1: (5, "a")}))
    connection = RecordingConnection()
    client = subscriber_on(connection)
    stream.add(client, CURRENT_WEEK, None)
    stream.add(client, WEEK.id, None)
    stream.advance(snapshot(WEEK, 2, {1: (6, "a")}))
    finish(stream)
    assert connection.kinds() == ["subscribed", "snapshot", "subscribed", "snapshot", "diff"]
    subscription = client.subscription(CURRENT_WEEK)
    assert subscription is client.subscription(WEEK.id) and subscription is not None
    stream.drop_alias(subscription, CURRENT_WEEK)
    stream.advance(snapshot(WEEK, 3, {1: (7, "a")}))
    finish(stream)
    assert connection.kinds()[-1] == "diff", "the id is still there"
    stream.drop_alias(subscription, WEEK.id)
    assert not stream.subscriptions and not client.subscriptions
    assert stream.is_unused


def test_one_frame_serves_everybody_at_the_same_state(stream: Stream) -> None:
    connections = [RecordingConnection() for _ in range(50)]
    for connection in connections:
        stream.add(subscriber_on(connection), "all_time", None)
    assert len({id(connection.frames[-1]) for connection in connections}) == 1, "the snapshot, too, is made once"
    stream.advance(snapshot(ALL_TIME, 11, {1: (6, "a")}))
    finish(stream)
    assert len({id(connection.frames[-1]) for connection in connections}) == 1


def _crowd(stream: Stream, count: int) -> list[RecordingConnection]:
    connections = [RecordingConnection() for _ in range(count)]
    for connection in connections:
        stream.add(subscriber_on(connection), "all_time", None)
    return connections


def test_who_takes_a_leavers_place_behind_the_passs_back_is_not_forgotten(stream: Stream) -> None:
    connections = _crowd(stream, 6)
    stream.advance(snapshot(ALL_TIME, 11, {1: (6, "a"), 2: (3, "b")}))
    stream.deliver(3)
    stream.remove(stream.subscriptions[1])  # the last, not yet visited, moves to a place that was
    finish(stream)
    for connection in connections[:1] + connections[2:]:
        assert connection.kinds() == ["subscribed", "snapshot", "diff"]


def test_a_slice_keeps_to_its_budget_also_after_many_have_left(stream: Stream) -> None:
    connections = _crowd(stream, 6)
    stream.advance(snapshot(ALL_TIME, 11, {1: (6, "a"), 2: (3, "b")}))
    finish(stream)
    for _ in range(3):
        stream.remove(stream.subscriptions[-1])
    stream.advance(snapshot(ALL_TIME, 12, {1: (7, "a"), 2: (3, "b")}))
    before = sum(len(connection.frames) for connection in connections)
    assert stream.deliver(1).written == 1
    assert sum(len(connection.frames) for connection in connections) == before + 1
    finish(stream)
    assert [connection.follower.boards["all_time"].version for connection in connections] == [12] * 3 + [11] * 3


def test_newer_state_replaces_what_a_slice_has_not_yet_written(stream: Stream) -> None:
    connections = [RecordingConnection() for _ in range(6)]
    for connection in connections:
        stream.add(subscriber_on(connection), "all_time", None)
    stream.advance(snapshot(ALL_TIME, 11, {1: (6, "a"), 2: (3, "b")}))
    done = stream.deliver(3)
    assert (done.written, done.visited, done.skipped) == (3, 3, 0)
    assert done.payload_bytes == 3 * len(connections[0].frames[-1].payload)
    stream.advance(snapshot(ALL_TIME, 12, {1: (7, "a"), 2: (3, "b")}))
    finish(stream)
    diffs = [[(m["from"], m["version"]) for m in c.messages if m["type"] == "diff"] for c in connections]
    assert diffs == [[(10, 11), (11, 12)]] * 3 + [[(10, 12)]] * 3


async def test_who_is_behind_gets_nothing_until_drained_and_then_one_snapshot(stream: Stream) -> None:
    connection = RecordingConnection()
    client = subscriber_on(connection, limit=10)
    stream.add(client, "all_time", None)
    connection.stalled = True
    for version in range(11, 60):
        stream.advance(snapshot(ALL_TIME, version, {1: (version, "a"), 2: (3, "b")}))
        finish(stream)
    assert client.pace is Pace.BEHIND
    assert connection.kinds() == ["subscribed", "snapshot", "diff"], "the one that filled it was the last"
    assert client.subscriptions[0].state == WAITING
    connection.stalled, connection.buffered = False, 0
    client.drained()
    assert connection.kinds()[3:] == ["snapshot"]
    assert connection.follower.boards["all_time"].version == 59


async def test_behind_for_too_long_is_closed_with_its_own_code(stream: Stream) -> None:
    connection = RecordingConnection()
    connection.stalled = True
    client = Subscriber(connection, buffer_limit=10, slow_after=0.0, on_drained=caught_up)
    stream.add(client, "all_time", None)
    assert client.pace is Pace.BEHIND
    await asyncio.sleep(0)
    await asyncio.sleep(0)  # the timer of no seconds
    assert client.pace is Pace.LOST
    assert connection.closed_with == (4408, "too slow")
    client.drained()
    assert connection.kinds() == ["subscribed", "snapshot"], "what filled it was the last"


async def test_who_drains_in_time_is_not_closed(stream: Stream) -> None:
    connection = RecordingConnection()
    connection.stalled = True
    client = Subscriber(connection, buffer_limit=10, slow_after=0.0, on_drained=caught_up)
    stream.add(client, "all_time", None)
    connection.stalled, connection.buffered = False, 0
    client.drained()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert client.pace is Pace.FOLLOWING
    assert connection.closed_with is None
    assert connection.kinds() == ["subscribed", "snapshot", "snapshot"]


def test_a_new_epoch_is_a_fresh_start_for_everybody(stream: Stream) -> None:
    connection = RecordingConnection()
    stream.add(subscriber_on(connection), "all_time", None)
    assert stream.advance(snapshot(ALL_TIME, 2, {1: (5, "a")}, epoch="y")) is Advance.CHANGED
    finish(stream)
    assert connection.kinds() == ["subscribed", "snapshot", "snapshot"]
    assert stream.advance(snapshot(ALL_TIME, 1, {1: (5, "a")}, epoch="y")) is Advance.BACKWARDS
    finish(stream)
    assert connection.kinds()[-1] == "snapshot"


async def test_waiting_for_a_state_ends_with_the_first_snapshot() -> None:
    stream = Stream(ALL_TIME)
    assert not stream.is_current and stream.is_unused
    waiting = asyncio.ensure_future(stream.wait_current())
    await asyncio.sleep(0)
    assert not waiting.done()
    assert stream.advance(snapshot(ALL_TIME, 0, {})) is Advance.FIRST
    await waiting


def test_deliveries_are_counted_as_written_not_as_visited(stream: Stream) -> None:
    connections = [RecordingConnection() for _ in range(4)]
    clients = [subscriber_on(connection) for connection in connections]
    for client in clients:
        stream.add(client, "all_time", None)
    connections[0].is_closed = True
    clients[0].gone()
    stream.advance(snapshot(ALL_TIME, 11, {}))
    done = stream.deliver(100)
    assert (done.written, done.visited) == (3, 4)
    assert stream.remaining == 0


def test_what_a_board_has_shown_is_known_by_epoch_and_version_and_never_of_a_closed_week() -> None:
    stream = Stream(ALL_TIME)
    assert not stream.has_shown(Position("e", 0))
    stream.advance(Snapshot(ALL_TIME.id, "e", 5, {}, {}))
    assert [stream.has_shown(Position("e", version)) for version in (4, 5, 6)] == [True, True, False]
    assert not stream.has_shown(Position("f", 4)), "another epoch's versions say nothing"
    stream.advance(Snapshot(ALL_TIME.id, CLOSED_EPOCH, 5, {}, {}))
    assert not stream.has_shown(Position(CLOSED_EPOCH, 4)), "it may have gone back"
