"""Routes of streams of events: from a request to a session that nobody speaks in but the server.

Owns what a request for a stream may ask for, and who gets one. Must never await once a connection counts, but for the
answer's head, nor do anything that a session does: what is asked for becomes the messages that a socket would send.
Assumes that `wire.http_connection` serves the request.

A browser gives an EventSource no header but Last-Event-ID: so a token may stand in the address, as a socket's may.
"""

from __future__ import annotations

import random
from asyncio import TaskGroup
from contextlib import AsyncExitStack
from typing import Final, NamedTuple

from starlette.requests import Request
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from realtime.api.services import Services
from realtime.api.sessions import Sessions
from realtime.boards.board import no_such_board
from realtime.errors import RealtimeError, first_of
from realtime.people.identity import Identity
from realtime.validation import ID_MAX, written_number
from realtime.wire import messages, positions
from realtime.wire.asgi import EXCHANGE
from realtime.wire.event_stream import COMMENT_SECONDS
from realtime.wire.http_exchange import HttpExchange
from realtime.wire.messages import BOARD_LENGTH

NOTHING_LEFT: Final = 1000
"""The code with which a stream ends that follows nothing any more: what it followed is gone, or its rights are."""

COME_BACK_MS: Final = (1_000, 4_000)
"""When a browser comes back after a stream has ended: each client at a moment of its own."""

_HEAD: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store, no-transform"),
    (b"x-accel-buffering", b"no"),  # nginx would hold back what is no whole buffer
    (b"vary", b"accept-encoding"),
]


class Asked(NamedTuple):
    """What a request asks for."""

    boards: list[str]
    watched: list[messages.Watch]
    held: dict[str, messages.Since]
    """The positions that the client is at, by board."""
    gzip: bool


class EventRoutes:
    """The routes `/boards/{board}/events` and `/events`."""

    def __init__(self, services: Services, sessions: Sessions) -> None:
        self._services = services
        self._sessions = sessions

    def routes(self) -> list[BaseRoute]:
        """The two routes."""
        return [
            Route("/boards/{board}/events", self, methods=["GET"]),
            Route("/events", self, methods=["GET"]),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers with a stream, and leaves the connection to its session: from then on there is no task for it."""
        request = Request(scope, receive)
        exchange = scope.get("extensions", {}).get(EXCHANGE)
        if not isinstance(exchange, HttpExchange):
            raise RuntimeError("serve with realtime.wire.http_connection")
        identity = self._services.authentication.at_handshake(request)
        asked = self._asked(request)
        for name in {*asked.boards, *(watch.board for watch in asked.watched)}:
            await self._check(identity, name)
        async with AsyncExitStack() as stack:
            await self._await_boards(stack, asked.boards)
            head = [*_HEAD, (b"content-encoding", b"gzip")] if asked.gzip else _HEAD
            start = {"type": "http.response.start", "status": 200, "headers": head}
            if request.method == "HEAD":
                await send(start)
                return await send({"type": "http.response.body"})
            address = self._sessions.count(request)
            try:
                await send(start)
            except BaseException:
                self._sessions.uncount(address)
                raise
            if not self._begin(request, exchange, asked, identity, address):
                self._sessions.uncount(address)

    async def _check(self, identity: Identity | None, name: str) -> None:
        """Raises RealtimeError where there is no such board, or it may not be read: sooner than a stream begins."""
        now = self._services.clock.now()
        board = await self._services.leaderboards.find(name, now)
        self._services.authentication.permissions.read(identity, name, board, now)

    async def _await_boards(self, stack: AsyncExitStack, names: list[str]) -> None:
        """Returns when there is something to show of every board, and keeps that at hand."""
        following = self._services.broadcaster.following
        if len(names) == 1:
            await stack.enter_async_context(following.at_hand(names[0]))
            return
        try:
            async with TaskGroup() as group:
                for name in names:
                    group.create_task(stack.enter_async_context(following.at_hand(name)))
        except ExceptionGroup as errors:  # not `except*`: what is raised there comes in a group again
            refused, mistakes = errors.split(RealtimeError)
            if refused is None or mistakes is not None:
                raise
            raise first_of(refused) from None

    def _begin(
        self, request: Request, exchange: HttpExchange, asked: Asked, identity: Identity | None, address: str
    ) -> bool:
        """Makes a session of the request; False where nobody is there any more. Nothing is awaited from here on."""
        taken = exchange.become_stream()
        if taken is None:
            return False
        stream, head = taken
        session, subscriber = self._sessions.begin(request, stream, identity, address)

        def beat() -> None:
            if session.is_over:
                stream.close(NOTHING_LEFT, "nothing to follow any more")

        stream.on_beat = beat
        is_one = len(asked.boards) == 1
        stream.begin(
            head,
            session.greeting(),
            gzip=asked.gzip,
            come_back_ms=random.randint(*COME_BACK_MS),  # noqa: S311
            gone_after_s=self._services.settings.slow_after_s + COMMENT_SECONDS,
            own_position=None if is_one else subscriber.position,
        )
        # As `subscriber` is told of nothing but the stream's own descriptor, what is followed from here on is its.
        for name in asked.boards:
            session.ask(messages.Subscribe(name, self._since(name, asked.held), describe=True))
        stream.tell_position()
        for watch in asked.watched:
            session.ask(watch)
        return True

    def _since(self, name: str, held: dict[str, messages.Since]) -> messages.Since | None:
        """What the client holds of what `name` stands for."""
        try:
            return held.get(self._services.leaderboards.resolve(name, self._services.clock.now()).id)
        except RealtimeError:
            return None

    # What is asked for ---------------------------------------------------------------------------------------

    def _asked(self, request: Request) -> Asked:
        """Raises RealtimeError `bad_message`, `unknown_board`, `out_of_range`, `too_many`."""
        query, settings = request.query_params, self._services.settings
        path = request.path_params.get("board")
        boards = list(dict.fromkeys([path] if path is not None else query.getlist("board")))
        if not boards:
            raise RealtimeError("bad_message", "Name the boards to follow: /events?board=all_time&board=current_week.")
        if len(boards) > settings.max_subscriptions:
            raise RealtimeError("too_many", f"At most {settings.max_subscriptions} subscriptions a connection.")
        if any(len(board) > BOARD_LENGTH or not board.isascii() for board in boards):
            raise no_such_board()
        watched = [watch for text in query.getlist("watch") for watch in _watches(text, boards)]
        if len(watched) > settings.max_watches:
            raise RealtimeError("too_many", f"At most {settings.max_watches} watches a connection.")
        return Asked(boards, watched, _held(request, boards), _takes_gzip(request.headers.get("accept-encoding", "")))


def _watches(text: str, boards: list[str]) -> list[messages.Watch]:
    """`7` is a user on each of the boards, `7@lap:current_day` one on that board alone."""
    user, at, board = text.partition("@")
    user_id = written_number(user, "watch", 1, ID_MAX)
    if at and board not in boards:
        raise RealtimeError("bad_message", f"watch={user_id}@... must name one of the boards that are followed.")
    return [messages.Watch(name, user_id) for name in ([board] if at else boards)]


def _held(request: Request, boards: list[str]) -> dict[str, messages.Since]:
    """What the client holds. A browser's own word is the newer one; what is no position is as good as none."""
    last = request.headers.get("last-event-id")
    if last is not None:
        return positions.read(last)
    since = request.query_params.get("since", "")
    return positions.read(since, boards[0]) if len(boards) == 1 else positions.read(since)


def _takes_gzip(accepted: str) -> bool:
    """Whether a client takes gzip (RFC 9110, section 12.5.3)."""
    weights: dict[str, str] = {}
    for part in accepted.lower().split(","):
        coding, _, parameters = part.partition(";")
        weights[coding.strip()] = parameters.replace(" ", "")
    weight = weights.get("gzip", weights.get("x-gzip", weights.get("*", "q=0")))
    return not (weight.startswith("q=0") and weight.strip("q=0.") == "")
