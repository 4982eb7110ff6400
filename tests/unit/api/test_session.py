"""One socket's conversation: what is answered, in which order, and what is never asked of anybody."""

from __future__ import annotations

import asyncio
import gc
import json
import weakref
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from realtime.api.session import FLOODS, MESSAGE_BYTES, TASKS, Limits, Session
from realtime.boards.board import Board, resolve
from realtime.boards.catalogue import Catalogue, Directory
from realtime.boards.definitions import Definition
from realtime.boards.leaderboard import DEFAULT, Leaderboard
from realtime.boards.submissions import Accepted, Outcome, Rejected, Submission
from realtime.broadcast.subscribers import Subscriber
from realtime.errors import LedgerUnavailable, RealtimeError
from realtime.people.identity import Identity
from realtime.people.permissions import Permissions
from realtime.wire.close_codes import CloseCode
from realtime.wire.frames import Frame
from realtime.wire.messages import Since

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
WEEK = "week_of_2026_03_02"


class Connection:
    """What a session writes to: the messages of each write, and how it was closed."""

    def __init__(self) -> None:
        self.encoding, self.descriptor = 0, -1
        self.transport_kind = "websocket"
        self.on_descriptor: Callable[[int], None] | None = None
        self.writes: list[list[dict[str, Any]]] = []
        self.closed_with: tuple[int, str] | None = None

    def write(self, frame: Frame, sent: int = 0) -> int:
        data, messages = frame.plain, []
        while data:  # frames of a server: a head, perhaps a longer length, no mask
            start, size = (4, int.from_bytes(data[2:4], "big")) if data[1] == 126 else (2, data[1])
            messages.append(json.loads(data[start : start + size]))
            data = data[start + size :]
        self.writes.append(messages)
        return 0

    def lead_away(self, within_s: float) -> None:
        """It goes by itself."""

    def close(self, code: int, reason: str = "") -> None:
        self.closed_with = code, reason


class Around:
    """All that is around a session: boards, watches, scores, tokens, the clock."""

    def __init__(self, **options: Any) -> None:
        self.time = NOW
        self.connection = Connection()
        self.subscriber = Subscriber(self.connection, buffer_limit=1000, slow_after=1.0)
        self.first_state_is_here = True
        self.first_state: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.subscribed: list[tuple[str, Since | None]] = []
        self.watched: list[tuple[str, int]] = []
        self.handed_in: list[tuple[Identity, Submission, Callable[[Outcome], None]]] = []
        self.held: list[Callable[[RealtimeError], None]] = []
        self.refused: list[str] = []
        self.removed = 0
        self.live = True
        self.tokens: dict[str, Identity | Exception] = {}
        self.session = Session(
            self.subscriber, self, Watches(self), self, Known(), self.verify, self,
            identity=options.get("identity"), permissions=options.get("permissions", Permissions()), holders=self,
            limits=options.get("limits", Limits(max_subscriptions=3, message_rate=0)), refused=self.refused.append,
        )  # fmt: skip

    def is_live(self, outcome: Outcome) -> bool:
        return self.live or not isinstance(outcome, Accepted)

    # The clock, and who holds tokens.

    def now(self) -> datetime:
        return self.time

    def timestamp(self) -> float:
        return self.time.timestamp()

    def hold(self, identity: Identity, lapse: Callable[[RealtimeError], None]) -> None:
        self.held.append(lapse)

    def release(self, lapse: Callable[[RealtimeError], None]) -> None:
        self.held.remove(lapse)

    def verify(self, token: str) -> Identity:
        found = self.tokens[token]
        if isinstance(found, Exception):
            raise found
        return found

    # Boards.

    def subscribe_now(self, subscriber: Subscriber, alias: str, since: Since | None, *, describe: bool) -> bool:
        if not self.first_state_is_here:
            return False
        self._add(alias, since)
        return True

    async def subscribe(self, subscriber: Subscriber, alias: str, since: Since | None, *, describe: bool) -> None:
        await asyncio.shield(self.first_state)
        self._add(alias, since)

    def _add(self, alias: str, since: Since | None) -> None:
        self.subscribed.append((alias, since))
        self.subscriber.subscriptions.append(Place(alias))  # type: ignore[arg-type]

    def unsubscribe(self, subscriber: Subscriber, alias: str) -> Board | None:
        for place in self.subscriber.subscriptions:
            if alias in place.aliases:
                self.subscriber.subscriptions.remove(place)
                return resolve(alias, self.time)
        return None

    def waiting_for(self, subscriber: Subscriber) -> list[str]:
        return []

    def remove(self, subscriber: Subscriber) -> None:
        self.removed += 1

    # Scores.

    def submit(self, identity: Identity, submission: Submission, reply: Callable[[Outcome], None]) -> None:
        self.handed_in.append((identity, submission, reply))

    # What a client does and hears.

    def say(self, kind: str, **fields: Any) -> list[dict[str, Any]]:
        """Says something; what is answered at once."""
        before = len(self.connection.writes)
        self.session.receive(json.dumps({"type": kind, **fields}).encode())
        return [message for write in self.connection.writes[before:] for message in write]

    def heard(self) -> list[dict[str, Any]]:
        return [message for write in self.connection.writes for message in write]


class Place:
    def __init__(self, alias: str) -> None:
        self.aliases = {alias}


class Known(Directory):
    """The published boards, and nobody to ask for others."""

    async def look_up(self, slug: str) -> None:
        pass


class Watches:
    """The watches of one subscriber."""

    def __init__(self, around: Around) -> None:
        self._around = around

    def watch(self, subscriber: Subscriber, alias: str, user_id: int) -> None:
        self._around.watched.append((alias, user_id))

    def unwatch(self, subscriber: Subscriber, alias: str, user_id: int) -> Board | None:
        if (alias, user_id) not in self._around.watched:
            return None
        self._around.watched.remove((alias, user_id))
        return resolve(alias, self._around.time)

    def watched_by(self, subscriber: Subscriber) -> list[tuple[str, int]]:
        return list(self._around.watched)

    def remove(self, subscriber: Subscriber) -> None:
        self._around.removed += 1


def identity(
    *scopes: str, user_id: int | None = 7, seconds: float = 3600, boards: frozenset[str] | None = None
) -> Identity:
    return Identity(user_id, frozenset(scopes), NOW + timedelta(seconds=seconds), boards)


SCORE = {"submission_id": "s1", "score_added": 5}


async def test_the_first_words_are_hello_and_who_speaks() -> None:
    around = Around(identity=identity("submit"))
    around.subscriber.write(around.session.greeting())
    (write,) = around.connection.writes
    assert [message["type"] for message in write] == ["hello", "authenticated"]
    stranger = Around()
    stranger.subscriber.write(stranger.session.greeting())
    assert [message["type"] for message in stranger.heard()] == ["hello"]


@pytest.mark.parametrize(
    ("raw", "code"),
    [(b"no json", "bad_message"), (b"[]", "bad_message"), (b'{"type":"sing"}', "unknown_type"), (b"{}", "bad_message")],
)
async def test_what_is_wrong_is_answered_and_counted_and_ends_nothing(raw: bytes, code: str) -> None:
    around = Around()
    around.session.receive(raw)
    assert [message["code"] for message in around.heard()] == [code] == around.refused
    assert around.say("ping")[0]["type"] == "pong" and around.connection.closed_with is None


async def test_a_mistake_about_a_board_names_it() -> None:
    around = Around()
    assert around.say("watch", board="all_time", user_id="x")[0]["board"] == "all_time"
    assert around.say("unsubscribe", board="all_time")[0] | {"message": ""} == {
        "type": "error", "code": "unknown_board", "message": "", "board": "all_time",
    }  # fmt: skip


# Subscriptions ---------------------------------------------------------------------------------------------------


async def test_a_board_at_hand_is_subscribed_without_a_task() -> None:
    around = Around()
    around.say("subscribe", board="all_time", since={"epoch": "e", "version": 3})
    assert around.subscribed == [("all_time", Since("e", 3))]
    assert not around.session._tasks


async def test_a_board_that_takes_time_does_not_hold_up_what_comes_behind_it() -> None:
    around = Around()
    around.first_state_is_here = False
    around.say("subscribe", board="all_time")
    assert around.say("ping")[0]["type"] == "pong" and not around.subscribed
    around.first_state.set_result(None)
    await asyncio.gather(*around.session._tasks)
    assert around.subscribed == [("all_time", None)]
    await asyncio.sleep(0)
    assert not around.session._tasks


async def test_unsubscribing_ends_what_has_not_come_yet() -> None:
    around = Around()
    around.first_state_is_here = False
    around.say("subscribe", board="current_week")
    (task,) = around.session._tasks
    (answer,) = around.say("unsubscribe", board="current_week")
    assert (answer["type"], answer["board"], answer["as"]) == ("unsubscribed", WEEK, "current_week")
    await asyncio.wait([task])
    assert task.cancelled() and not around.subscribed


@pytest.mark.parametrize(
    ("error", "code"),
    [(RealtimeError("unknown_board", "No."), "unknown_board"), (LedgerUnavailable("gone"), "unavailable"),
     (ZeroDivisionError(), "unavailable")],
)  # fmt: skip
async def test_a_subscription_that_fails_later_is_answered(error: Exception, code: str) -> None:
    around = Around()
    around.first_state_is_here = False
    around.say("subscribe", board="all_time")
    around.first_state.set_exception(error)
    await asyncio.wait(list(around.session._tasks))
    (answer,) = around.heard()
    assert (answer["code"], answer["board"]) == (code, "all_time")
    assert ("retry_after_ms" in answer) == (code == "unavailable")


async def test_more_boards_than_are_allowed_are_refused_and_the_same_one_again_is_not() -> None:
    around = Around(limits=Limits(max_subscriptions=2, message_rate=0))
    around.first_state_is_here = False
    for board in ("all_time", "current_week", "all_time"):
        assert not around.say("subscribe", board=board)
    (answer,) = around.say("subscribe", board=WEEK)
    assert answer["code"] == "too_many" and "2 subscriptions" in answer["message"]


async def test_no_client_has_more_under_way_than_a_bound() -> None:
    around = Around()
    around.first_state_is_here = False
    answers = [around.say("subscribe", board="all_time") for _ in range(TASKS + 1)]
    assert not any(answers[:-1]) and answers[-1][0]["code"] == "too_many"
    assert len(around.session._tasks) == TASKS
    around.session.closed()


async def test_an_end_cancels_what_is_under_way_and_leaves_nothing_for_the_collector() -> None:
    around = Around(identity=identity("submit"))
    around.first_state_is_here = False
    around.say("subscribe", board="all_time")
    tasks = list(around.session._tasks)
    around.session.closed()
    await asyncio.wait(tasks)
    assert all(task.cancelled() for task in tasks)
    assert not around.held and around.removed == 2 and not around.subscriber.is_open
    await asyncio.sleep(0)
    gone = weakref.ref(around.session)
    tasks.clear()
    gc.disable()
    try:
        del around.session
        assert gone() is None
    finally:
        gc.enable()


# Rates -----------------------------------------------------------------------------------------------------------


async def test_messages_beyond_the_rate_are_refused_and_a_flood_is_closed() -> None:
    around = Around(limits=Limits(max_subscriptions=3, message_rate=1e-6))
    kinds = [around.say("ping")[0]["type"] for _ in range(2)]
    assert kinds == ["pong", "error"]
    assert around.heard()[-1]["code"] == "too_many" and around.heard()[-1]["retry_after_ms"] > 0
    for _ in range(FLOODS):
        assert around.connection.closed_with is None
        around.say("ping")
    assert around.connection.closed_with == (CloseCode.LIMITS, "too many messages")


async def test_a_long_message_counts_as_several() -> None:
    around = Around(limits=Limits(max_subscriptions=3, message_rate=1))
    around.say("ping", filler="x" * (FLOODS * MESSAGE_BYTES))
    around.say("ping", filler="x" * (FLOODS * MESSAGE_BYTES))
    assert around.connection.closed_with is not None


async def test_a_submission_beyond_the_rate_is_refused_by_its_id() -> None:
    around = Around(identity=identity("submit"), limits=Limits(max_subscriptions=3, message_rate=1))
    for _ in range(2):
        around.say("ping")
    (answer,) = around.say("submit", **SCORE)
    assert (answer["type"], answer["submission_id"], answer["code"]) == ("rejected", "s1", "too_many")
    assert not around.handed_in


async def test_a_game_server_has_no_rate() -> None:
    around = Around(identity=identity("submit:any", user_id=None), limits=Limits(max_subscriptions=3, message_rate=1))
    assert {around.say("ping")[0]["type"] for _ in range(300)} == {"pong"}


# Submissions -----------------------------------------------------------------------------------------------------


async def test_a_submission_without_a_token_is_refused_and_goes_nowhere() -> None:
    around = Around()
    (answer,) = around.say("submit", **SCORE)
    assert (answer["type"], answer["code"], answer["submission_id"]) == ("rejected", "unauthorized", "s1")
    assert not around.handed_in and around.refused == ["unauthorized"]


async def test_a_submission_of_somebody_elses_is_refused() -> None:
    around = Around(identity=identity("submit"))
    (answer,) = around.say("submit", **SCORE, user_id=8)
    assert answer["code"] == "forbidden" and not around.handed_in


async def test_answers_to_submissions_go_out_together_at_the_end_of_a_turn() -> None:
    around = Around(identity=identity("submit"))
    for number in range(3):
        around.say("submit", submission_id=f"s{number}", score_added=1)
    assert not around.heard()
    for _, submission, reply in around.handed_in[:2]:
        reply(Accepted(submission.submission_id, 7, 10, 10, False))
    around.handed_in[2][2](Rejected("s2", "unavailable", "Later.", 1_000))
    assert not around.connection.writes
    await asyncio.sleep(0)
    (write,) = around.connection.writes
    assert [message["type"] for message in write] == ["accepted", "accepted", "rejected"]
    assert around.refused == ["unavailable"]


async def test_an_answer_that_comes_after_the_end_is_for_nobody_and_breaks_nothing() -> None:
    """It comes from a batch in which others wait for theirs."""
    around = Around(identity=identity("submit"))
    around.say("submit", **SCORE)
    around.session.closed()
    ((_, submission, reply),) = around.handed_in
    reply(Accepted(submission.submission_id, submission.user_id, 5, 5, False))
    await asyncio.sleep(0)
    assert around.connection.writes == []


async def test_accepted_says_whether_it_will_be_shown_soon() -> None:
    around = Around(identity=identity("submit"))
    around.say("submit", **SCORE)
    for live in (True, False):
        around.live = live
        around.handed_in[0][2](Accepted("s1", 7, 10, 10, False))
        await asyncio.sleep(0)
        assert around.heard()[-1].get("live", True) is live


# Who speaks ------------------------------------------------------------------------------------------------------


async def test_a_token_may_come_later_and_another_takes_its_place() -> None:
    around = Around()
    around.tokens = {"mine": identity("submit"), "theirs": identity("submit", user_id=8)}
    assert around.say("auth", token="mine")[0]["user_id"] == 7
    assert around.say("auth", token="theirs")[0]["user_id"] == 8
    around.say("submit", **SCORE)
    assert around.handed_in[0][1].user_id == 8 and len(around.held) == 1


@pytest.mark.parametrize(
    ("error", "code"),
    [(RealtimeError("unauthorized", "No."), "unauthorized"), (LedgerUnavailable("gone"), "unavailable")],
)
async def test_a_token_that_cannot_be_taken_leaves_the_one_before(error: Exception, code: str) -> None:
    around = Around(identity=identity("submit"))
    around.tokens = {"bad": error}
    assert around.say("auth", token="bad")[0]["code"] == code
    assert not around.say("submit", **SCORE) and around.handed_in


async def test_a_lapsed_token_is_said_once_and_refuses_from_then_on() -> None:
    around = Around(identity=identity("submit", seconds=60))
    around.time += timedelta(seconds=61)
    answers = around.say("submit", **SCORE)
    assert [message["code"] for message in answers] == ["expired", "expired"]
    assert [message["type"] for message in answers] == ["error", "rejected"]
    assert [message["code"] for message in around.say("submit", **SCORE)] == ["expired"]
    assert not around.handed_in and around.say("ping")[0]["type"] == "pong"


async def test_a_revoked_token_ends_what_needed_it_and_nothing_else() -> None:
    around = Around(identity=identity("submit"))
    around.say("subscribe", board="all_time")
    (lapse,) = around.held
    lapse(RealtimeError("unauthorized", "The token was revoked."))
    assert [message["code"] for message in around.heard()] == ["unauthorized"]
    assert around.subscriber.subscriptions, "everybody may see public boards"


# Private boards --------------------------------------------------------------------------------------------------

PRIVATE = Permissions(private=True)


async def test_private_boards_are_not_for_strangers() -> None:
    around = Around(permissions=PRIVATE)
    assert around.say("subscribe", board="all_time")[0]["code"] == "unauthorized"
    assert around.say("watch", board="all_time", user_id=7)[0]["code"] == "unauthorized"
    assert not around.subscribed and not around.watched


async def test_another_token_ends_what_it_may_not_see() -> None:
    around = Around(identity=identity("read"), permissions=PRIVATE)
    for board in ("all_time", "current_week"):
        around.say("subscribe", board=board)
        around.say("watch", board=board, user_id=7)
    around.tokens = {"narrow": identity("read", boards=frozenset({"all_time"}))}
    answers = around.say("auth", token="narrow")
    assert [message["type"] for message in answers] == ["authenticated", "unsubscribed", "unwatched"]
    assert {message["board"] for message in answers[1:]} == {WEEK}
    assert [place.aliases for place in around.subscriber.subscriptions] == [{"all_time"}]
    assert around.watched == [("all_time", 7)]


async def test_a_lapse_ends_every_private_board_also_one_that_has_not_come_yet() -> None:
    around = Around(identity=identity("read", seconds=60), permissions=PRIVATE)
    around.say("subscribe", board="all_time")
    around.first_state_is_here = False
    around.say("subscribe", board="current_week")
    around.time += timedelta(seconds=61)
    around.held[0](RealtimeError("expired", "It is over."))
    assert sorted(message["type"] for message in around.heard()) == ["error", "unsubscribed", "unsubscribed"]
    await asyncio.sleep(0)
    assert not around.subscriber.subscriptions and not around.session._tasks


async def test_a_lapse_leaves_what_everybody_may_see_where_something_else_is_private() -> None:
    secret = Definition("secret", "Secret", visible="private")
    known = Catalogue(leaderboards={"default": DEFAULT, "secret": Leaderboard("secret", secret, 2, 2, 2, "secret")})
    rights = Permissions(directory=Directory(known))
    assert rights.restrict_reading
    around = Around(identity=identity("submit"), permissions=rights)
    around.say("subscribe", board="all_time")
    around.held[0](RealtimeError("expired", "It is over."))
    assert [message["type"] for message in around.heard()] == ["error"]
    assert around.say("subscribe", board="current_week") == [] and len(around.subscriber.subscriptions) == 2


async def test_too_large_a_message_is_said_before_the_end_and_other_violations_are_not() -> None:
    around = Around()
    around.session.violated(1002, "invalid opcode")
    assert not around.heard()
    around.session.violated(CloseCode.TOO_LARGE, "frame with 9 bytes exceeds limit of 8 bytes")
    assert around.heard()[0]["code"] == "too_large"


async def test_watching_nobody_ends_in_an_answer() -> None:
    around = Around()
    assert around.say("unwatch", board="all_time", user_id=7)[0]["code"] == "unknown_user"
    around.say("watch", board="all_time", user_id=7)
    assert around.say("unwatch", board="all_time", user_id=7)[0]["type"] == "unwatched"
