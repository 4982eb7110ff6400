"""Session: one client's conversation, over a socket or a stream of events.

Owns what one client may do and has asked for. Must never await in `receive`: what takes time is a task of the session,
bounded in number, cancelled with it. Assumes that the connection hands over whole, valid text messages one by one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final, Protocol

from realtime.boards.board import Board
from realtime.boards.catalogue import Catalogue, NotAtHand, split_id
from realtime.boards.submissions import Outcome, Rejected, Submission, parse_submission, submission_id_of
from realtime.boards.windows import ALWAYS
from realtime.broadcast.subscribers import Subscriber
from realtime.errors import LedgerUnavailable, RealtimeError
from realtime.people.credentials import Credentials, Holders
from realtime.people.identity import Identity
from realtime.people.limits import Bucket
from realtime.people.permissions import Permissions, unknown
from realtime.wire import close_codes, messages
from realtime.wire.frames import Answer, Burst, Frame

log = logging.getLogger(__name__)

FLOODS: Final = 200
"""Messages beyond the rate, in a row, after which a client is closed."""

MESSAGE_BYTES: Final = 4096
"""A longer message counts as several, towards the rate and the floods: what it costs grows with it."""

TASKS: Final = 64
"""Subscriptions and the like that one client may have under way."""


_UNAVAILABLE: Final = RealtimeError("unavailable", "This cannot be done now. Try again.", retry_after_ms=1_000)


class Clock(Protocol):
    """What time it is, as the ledger says."""

    def now(self) -> datetime: ...
    def timestamp(self) -> float: ...


class Boards(Protocol):
    """What a session needs of those who follow boards."""

    def subscribe_now(
        self, subscriber: Subscriber, alias: str, since: messages.Since | None, *, describe: bool
    ) -> bool: ...
    async def subscribe(
        self, subscriber: Subscriber, alias: str, since: messages.Since | None, *, describe: bool
    ) -> None: ...
    def unsubscribe(self, subscriber: Subscriber, alias: str) -> Board | None: ...
    def waiting_for(self, subscriber: Subscriber) -> list[str]: ...
    def remove(self, subscriber: Subscriber) -> None: ...


class Watches(Protocol):
    """What a session needs of the rank feed."""

    def watch(self, subscriber: Subscriber, alias: str, user_id: int) -> None: ...
    def unwatch(self, subscriber: Subscriber, alias: str, user_id: int) -> Board | None: ...
    def watched_by(self, subscriber: Subscriber) -> list[tuple[str, int]]: ...
    def remove(self, subscriber: Subscriber) -> None: ...


class Scores(Protocol):
    """Where a session's submissions go."""

    def is_live(self, outcome: Outcome) -> bool: ...
    def submit(self, identity: Identity, submission: Submission, reply: Callable[[Outcome], None]) -> None: ...


class Leaderboards(Protocol):
    """What a session needs of the catalogue."""

    @property
    def current(self) -> Catalogue: ...
    def resolve(self, text: object, now: datetime) -> Board: ...
    async def find(self, text: object, now: datetime) -> Board: ...
    async def look_up(self, slug: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """What one connection may ask for; see the settings of the same names."""

    max_subscriptions: int
    message_rate: float


class Session:
    """Talks with one client: takes its messages, answers through `subscriber`. `refused` is told the code of everything
    that was refused."""

    def __init__(
        self,
        subscriber: Subscriber,
        boards: Boards,
        watches: Watches,
        scores: Scores,
        leaderboards: Leaderboards,
        verify: Callable[[str], Identity],
        clock: Clock,
        *,
        identity: Identity | None,
        permissions: Permissions,
        holders: Holders,
        limits: Limits,
        refused: Callable[[str], None],
    ) -> None:
        self._subscriber = subscriber
        self._boards = boards
        self._watches = watches
        self._scores = scores
        self._leaderboards = leaderboards
        self._verify = verify
        self._clock = clock
        self._permissions = permissions
        self._limits = limits
        self._refused = refused
        self._bucket = Bucket(limits.message_rate, asyncio.get_running_loop().time())
        self._floods = 0  # messages beyond the rate, in a row
        # Subscriptions whose first state has not come yet, with the names they were asked for by.
        self._tasks: dict[asyncio.Task[None], str] = {}
        self._answers: list[bytes] = []  # to submissions; written together at the end of the loop's turn
        self._is_closed = False
        self._credentials = Credentials(clock, holders, self._lapsed)
        if identity is not None:
            self._credentials.take(identity)

    # Coming and going ----------------------------------------------------------------------------------------

    def greeting(self) -> Frame:
        """The first words."""
        words = [messages.hello(self._clock.now())]
        identity = self._credentials.identity
        if identity is not None:
            words.append(messages.authenticated(identity.user_id, identity.expires_at))
        return Burst(words)

    def closed(self) -> None:
        """The connection is gone."""
        self._is_closed = True
        self._subscriber.gone()
        self._credentials.close()
        self._boards.remove(self._subscriber)
        self._watches.remove(self._subscriber)
        for task in self._tasks:
            task.cancel()
        del self._credentials  # they hold on to this, as this to them: together they would wait for the collector

    def _write(self, payload: bytes) -> None:
        self._subscriber.write(Answer(payload))

    # Messages ------------------------------------------------------------------------------------------------

    def receive(self, raw: bytes) -> None:
        """Takes one message. What is wrong with it is answered; nothing is raised."""
        message: messages.Message | None = None
        try:
            excess = self._excess(1 + len(raw) // MESSAGE_BYTES)
            message = messages.parse(raw)  # also beyond the rate: the answer says which submission or board it is about
            if type(message) is messages.Submit:
                self._submit(message.fields, excess)
            elif excess is not None:
                raise excess
            else:
                self._dispatch(message)
        except NotAtHand:
            self._find(message)
        except RealtimeError as error:
            self._refuse(error, getattr(message, "board", error.board))

    def ask(self, message: messages.Message) -> None:
        """Takes a message that did not come as text: what a request for a stream of events asks for."""
        try:
            self._dispatch(message)
        except NotAtHand:
            self._find(message)
        except RealtimeError as error:
            self._refuse(error, getattr(message, "board", error.board))

    @property
    def is_over(self) -> bool:
        """Whether nothing is followed, watched, or about to be."""
        return not (
            self._aliases()
            or self._boards.waiting_for(self._subscriber)
            or self._watches.watched_by(self._subscriber)
        )

    def violated(self, code: int, reason: str) -> None:
        """The client broke the protocol, and is closed with that code after this."""
        if code == close_codes.CloseCode.TOO_LARGE:
            self._refuse(RealtimeError("too_large", f"The message is too large: {reason}. Send less at a time."), None)

    def _excess(self, count: int) -> RealtimeError | None:
        """Counts a message (no game server's, which speaks for many); what to say where it is beyond the rate."""
        if self._credentials.trusted or self._bucket.take(asyncio.get_running_loop().time(), count):
            self._floods = 0
            return None
        self._floods += count
        if self._floods > FLOODS:
            self._subscriber.connection.close(close_codes.CloseCode.LIMITS, "too many messages")
        hint = self._bucket.retry_after_ms(self._floods)
        return RealtimeError(
            "too_many", f"At most {self._limits.message_rate:g} messages a second.", retry_after_ms=hint
        )

    def _refuse(self, error: RealtimeError, board: str | None) -> None:
        self._refused(error.code)
        self._write(messages.error(error, board))

    def _dispatch(self, message: messages.Message) -> None:
        match message:
            case messages.Ping():
                self._write(messages.pong(self._clock.now()))
            case messages.Subscribe(board, since, describe):
                self._subscribe(board, since, describe)
            case messages.Unsubscribe(board):
                self._unsubscribe(board)
            case messages.Watch(board, user_id):
                self._check_readable(board)
                self._watches.watch(self._subscriber, board, user_id)
            case messages.Unwatch(board, user_id):
                self._unwatch(board, user_id)
            case messages.Auth(token):
                self._authenticate(token)

    def _authenticate(self, token: str) -> None:
        try:
            identity = self._verify(token)
        except LedgerUnavailable:
            raise RealtimeError("unavailable", "Tokens cannot be checked now.", retry_after_ms=1_000) from None
        self._credentials.take(identity)
        self._write(messages.authenticated(identity.user_id, identity.expires_at))
        self.drop_unreadable()

    # Rights --------------------------------------------------------------------------------------------------

    def _lapsed(self, error: RealtimeError) -> None:
        """The token's time is over: what needed it ends, what everybody may have goes on."""
        self._refuse(error, None)
        self.drop_unreadable()

    def _check_readable(self, alias: str) -> None:
        """Raises RealtimeError where the client may not see that board now."""
        if self._permissions.restrict_reading:
            now = self._clock.now()
            self._check_board(alias, self._leaderboards.resolve(alias, now), now)

    def _check_board(self, alias: str, board: Board, now: datetime) -> None:
        if not self._permissions.may_read(None, alias, board, now):  # what everybody may have needs no token
            self._permissions.read(self._credentials.required(), alias, board, now)

    def drop_unreadable(self) -> None:
        """Ends subscriptions and watches of boards that the client may no longer see: rights, or boards, are others."""
        if not self._permissions.restrict_reading:
            return
        for alias in self._aliases().union(self._boards.waiting_for(self._subscriber)):
            if not self._is_readable(alias):
                with suppress(RealtimeError):  # a token that has lapsed this moment has ended it
                    self._unsubscribe(alias)
        for alias, user_id in self._watches.watched_by(self._subscriber):
            if not self._is_readable(alias):
                with suppress(RealtimeError):
                    self._unwatch(alias, user_id)

    def _is_readable(self, alias: str) -> bool:
        """Whether the client may go on with what it has asked for by that name, be it not at hand, or nothing now."""
        now = self._clock.now()
        try:
            try:
                board = self._leaderboards.resolve(alias, now)
            except RealtimeError:
                board = Board(alias, self._leaderboards.current.leaderboard(split_id(alias)[0]), ALWAYS)
            self._check_board(alias, board, now)
        except RealtimeError:
            return False
        return True

    def _aliases(self) -> set[str]:
        """By what names boards are followed, or are about to be."""
        followed = (subscription.aliases for subscription in self._subscriber.subscriptions)
        return set(self._tasks.values()).union(*followed)

    def _subscribe(self, board: str, since: messages.Since | None, describe: bool) -> None:
        names = self._aliases()
        if len(self._tasks) >= TASKS or (board not in names and len(names) >= self._limits.max_subscriptions):
            raise RealtimeError("too_many", f"At most {self._limits.max_subscriptions} subscriptions a connection.")
        self._check_readable(board)
        if not self._boards.subscribe_now(self._subscriber, board, since, describe=describe):
            self._start(board, partial(self._boards.subscribe, self._subscriber, board, since, describe=describe))

    def _start(self, board: str, work: Callable[[], Awaitable[None]]) -> None:
        """Begins what takes time and is about a board."""
        task = asyncio.get_running_loop().create_task(self._finish(board, work))
        self._tasks[task] = board
        task.add_done_callback(lambda task: self._tasks.pop(task, None))

    def _find(self, message: messages.Message | None) -> None:
        """Begins to look for the board that a message is about: it is not at hand."""
        assert isinstance(message, messages.Subscribe | messages.Watch)
        if len(self._tasks) >= TASKS:
            self._refuse(RealtimeError("too_many", f"At most {TASKS} boards at a time."), message.board)
        else:
            self._start(message.board, partial(self._found, message))

    async def _found(self, message: messages.Subscribe | messages.Watch) -> None:
        await self._leaderboards.find(message.board, self._clock.now())
        self._dispatch(message)

    def _unsubscribe(self, alias: str) -> None:
        """Ends a subscription, also one whose first state has not come yet: messages act in their order."""
        awaited = [task for task, asked in self._tasks.items() if asked == alias]
        for task in awaited:
            task.cancel()
            del self._tasks[task]
        board = self._boards.unsubscribe(self._subscriber, alias)
        if board is None and not awaited:
            raise RealtimeError("unknown_board", "There is no subscription of that board.")
        self._write(messages.unsubscribed(board.id if board else self._id_of(alias), alias))

    def _id_of(self, name: str) -> str:
        """The id of the board that a name stands for: itself, where it is not at hand."""
        try:
            return self._leaderboards.resolve(name, self._clock.now()).id
        except RealtimeError:
            return name

    def _unwatch(self, alias: str, user_id: int) -> None:
        board = self._watches.unwatch(self._subscriber, alias, user_id)
        if board is None:
            raise RealtimeError("unknown_user", "This user is not watched on that board.")
        self._write(messages.unwatched(board, user_id))

    async def _finish(self, board: str, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except RealtimeError as error:
            self._refuse(error, board)
        except LedgerUnavailable:
            self._refuse(_UNAVAILABLE, board)
        except Exception:
            log.exception("a message could not be answered", extra={"action": "session"})
            self._refuse(_UNAVAILABLE, board)

    # Submissions ---------------------------------------------------------------------------------------------

    def _submit(self, fields: Mapping[str, Any], excess: RealtimeError | None, *, may_look_up: bool = True) -> None:
        try:
            if excess is not None:
                raise excess
            identity = self._credentials.required()
            if identity is None:
                raise unknown()
            catalogue = self._leaderboards.current
            submission = parse_submission(fields, identity.user_id, catalogue, self._clock.now)
            self._permissions.submit(identity, submission, catalogue.leaderboards[submission.leaderboard])
        except RealtimeError as error:
            if error.code == "unknown_leaderboard" and may_look_up and len(self._tasks) < TASKS:
                slug = fields["leaderboard"]
                return self._start(slug, partial(self._looked_up, slug, fields))
            self._refused(error.code)
            self._write(messages.rejected(submission_id_of(fields), error))
            return
        self._scores.submit(identity, submission, self._reply)

    async def _looked_up(self, slug: str, fields: Mapping[str, Any]) -> None:
        """Hands in a score to a leaderboard that this process did not know."""
        try:
            await self._leaderboards.look_up(slug)
        except LedgerUnavailable:
            self._write(messages.rejected(submission_id_of(fields), _UNAVAILABLE))
        else:
            self._submit(fields, None, may_look_up=False)

    def _reply(self, outcome: Outcome) -> None:
        if self._is_closed:
            return  # nobody is there to be told
        outcome = self._permissions.told(self._credentials.identity, outcome)
        if type(outcome) is Rejected:
            self._refused(outcome.code)
        if not self._answers:
            asyncio.get_running_loop().call_soon(self._flush_answers)
        self._answers.append(messages.outcome(outcome, self._scores.is_live(outcome)))

    def _flush_answers(self) -> None:
        answers, self._answers = self._answers, []
        self._subscriber.write(Burst(answers))
