"""Endpoints: HTTP routes and the WebSocket handler, thin.

Owns the shapes of requests and responses, and nothing else: every route reads, asks a service, writes. Must never hold
state or reach a store by itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Final

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import Scope
from starlette.websockets import WebSocket

from realtime import boards, wire
from realtime.access import Access, address_of
from realtime.accounts import Accounts
from realtime.admission import Admission
from realtime.boards import ALL_TIME, Board
from realtime.broadcaster import Broadcaster
from realtime.connection import Connection
from realtime.errors import LedgerUnavailable, RealtimeError, StoreUnavailable
from realtime.frames import Frame
from realtime.history import History
from realtime.intake import Intake
from realtime.limits import Connections
from realtime.metrics import Metrics
from realtime.postgres import Clock
from realtime.ranks import Ranks
from realtime.reading import Reading
from realtime.rights import unknown
from realtime.session import Limits, Session
from realtime.settings import Settings
from realtime.streams import Subscriber
from realtime.submissions import (
    ID_MAX,
    Accepted,
    Outcome,
    Rejected,
    parse_submission,
    submission_id_of,
    whole_number,
)
from realtime.throttle import Limit, Throttle, account
from realtime.tokens import Identity, Tokens

log = logging.getLogger(__name__)

PAGE_LIMIT: Final = 1_000
LIST_LIMIT: Final = 1_000
NEIGHBOURS_LIMIT: Final = 50


@dataclass(frozen=True, slots=True)
class Services:
    """What routes ask; built by `app`."""

    settings: Settings
    clock: Clock
    tokens: Tokens
    access: Access
    throttle: Throttle
    admission: Admission
    intake: Intake
    broadcaster: Broadcaster
    ranks: Ranks
    reading: Reading
    history: History
    accounts: Accounts
    connections: Connections
    ready: Callable[[], Awaitable[dict[str, str]]]
    """What keeps the process from serving, by part; empty where nothing does."""
    metrics: Metrics

    def refused(self, code: str) -> None:
        """Counts something that was refused."""
        self.metrics.refusals.labels(code).inc()

    def closed(self, code: int) -> None:
        """Counts a socket that the server closed."""
        self.metrics.closes.labels(str(int(code))).inc()


# Shapes ----------------------------------------------------------------------------------------------------------


def json_response(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """`value` as JSON that no cache keeps."""
    return Response(
        orjson.dumps(value),
        status,
        media_type="application/json",
        headers={"cache-control": "no-store", **(headers or {})},
    )


def error_response(error: RealtimeError) -> Response:
    """An error in the one shape there is, with the hint when to try again."""
    fields: dict[str, Any] = {"code": error.code, "message": error.message}
    headers: dict[str, str] = {}
    if error.retry_after_ms is not None:
        fields["retry_after_ms"] = error.retry_after_ms
        headers["retry-after"] = str(max(1, -(-error.retry_after_ms // 1000)))
    if error.code in ("unauthorized", "expired"):
        headers["www-authenticate"] = "Bearer"
    return json_response({"error": fields}, error.status, headers)


def rejection_response(outcome: Rejected) -> Response:
    """One refused submission: its outcome, and the error as everywhere."""
    error = RealtimeError(outcome.code, outcome.message, retry_after_ms=outcome.retry_after_ms)
    response = error_response(error)
    body = {**wire.outcome_fields(outcome, live=True), **orjson.loads(response.body)}
    headers = {name: value for name, value in response.headers.items() if name != "content-length"}
    return json_response(body, error.status, headers)


async def on_error(request: Request, error: Exception) -> Response:
    """Any exception that leaves a route, in that shape."""
    if isinstance(error, RealtimeError):
        services: Services = request.app.state.services
        services.refused(error.code)
        return error_response(error)
    if isinstance(error, (LedgerUnavailable, StoreUnavailable)):
        return error_response(RealtimeError("unavailable", "This cannot be done now.", retry_after_ms=1_000))
    if isinstance(error, HTTPException):
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "bad_message")
        response = error_response(RealtimeError(code, str(error.detail)))
        response.status_code = error.status_code
        response.headers.update(error.headers or {})
        return response
    log.exception("a request failed", exc_info=error, extra={"action": "request"})
    response = error_response(RealtimeError("unavailable", "Something went wrong here.", retry_after_ms=1_000))
    response.status_code = 500
    return response


def refusal(scope: Scope, error: RealtimeError) -> Response:
    """The answer to a request that never reaches a route."""
    services: Services = scope["app"].state.services
    services.refused(error.code)
    return error_response(error)


async def body_of(request: Request, limit: int) -> Any:
    """The request's JSON. Raises RealtimeError `too_large` or `bad_message`."""
    return wire.loads(await bytes_of(request, limit))


async def bytes_of(request: Request, limit: int) -> bytes:
    """The request's body. Raises RealtimeError `too_large` or `bad_message`."""
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit:
                raise RealtimeError("too_large", f"The body may have at most {limit} bytes.")
            chunks.append(chunk)
    except ClientDisconnect:
        raise RealtimeError("bad_message", "The body ended early.") from None
    return b"".join(chunks)


def _object(value: Any) -> dict[str, Any]:
    if type(value) is not dict:
        raise RealtimeError("bad_message", "The body must be a JSON object.")
    return value


def _number(request: Request, name: str, default: int, low: int, high: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    return _as_number(text, name, low, high)


def _as_number(text: str, name: str, low: int, high: int) -> int:
    if not (text.isascii() and text.removeprefix("-").isdigit() and len(text) <= 20):
        raise RealtimeError("bad_message", f"{name} must be a whole number.")
    return whole_number(int(text), name, low, high)


@dataclass(frozen=True, slots=True)
class AccountLimits:
    """How often one may register and sign in; see the settings of the same names."""

    registrations: Limit
    logins: Limit
    logins_of_account: Limit

    @classmethod
    def of(cls, settings: Settings) -> AccountLimits:
        return cls(
            Limit("registrations", settings.registrations_per_address, 3_600),
            Limit("logins", settings.logins_per_address, 60),
            Limit("logins_of_one_account", settings.logins_per_account, 60),
        )


# Routes ----------------------------------------------------------------------------------------------------------


class Endpoints:
    """The routes over `Services`."""

    def __init__(self, services: Services) -> None:
        self._s = services
        self._limits = AccountLimits.of(services.settings)

    def routes(self) -> list[BaseRoute]:
        """Everything but the pages."""
        return [
            WebSocketRoute("/ws", self.socket),
            Route("/boards", self.list_boards, methods=["GET"]),
            Route("/boards/{board}", self.read_board, methods=["GET"]),
            Route("/boards/{board}/users/{user_id}", self.read_user, methods=["GET"]),
            Route("/scores", self.submit, methods=["POST"]),
            Route("/users", self.register, methods=["POST"]),
            Route("/sessions", self.sign_in, methods=["POST"]),
            Route("/users/me", self.me, methods=["GET", "PATCH", "DELETE"]),
            Route("/users/{user_id}/ban", self.ban, methods=["POST", "DELETE"]),
            Route("/users/{user_id}/transactions", self.transactions, methods=["GET"]),
            Route("/healthz", self.alive, methods=["GET"]),
            Route("/readyz", self.ready, methods=["GET"]),
            Route("/metrics", self.exposition, methods=["GET"]),
        ]

    # Boards --------------------------------------------------------------------------------------------------

    async def list_boards(self, request: Request) -> Response:
        """Closed weeks, newest first; on the first page all time and the current week before them."""
        limit = _number(request, "limit", 100, 1, PAGE_LIMIT)
        offset = _number(request, "offset", 0, 0, ID_MAX)
        now = self._s.clock.now()
        identity = self._reader(request)
        self._s.access.rights.list_boards(identity)
        weeks, total = await self._s.history.listed(now, offset, limit)
        weeks = [week for week in weeks if self._may_read(identity, week.board)]
        current_boards = [board for board in boards.live_boards(now) if not offset and self._may_read(identity, board)]
        live = [await self._s.reading.page(board, 0, 1) for board in current_boards]
        current = boards.week_at(now)
        listed = [
            {
                "board": page.board,
                "alias": boards.CURRENT_WEEK if page.board == current.id else None,
                "closed": False,
                "players": page.players,
                "starts": None if board is ALL_TIME else wire.moment(board.starts),
                "ends": None if board.ends is None else wire.moment(board.ends),
            }
            for board, page in zip(current_boards, live, strict=True)
        ]
        listed += [
            {
                "board": week.board.id,
                "alias": None,
                "closed": True,
                "players": week.players,
                "starts": wire.moment(week.board.starts),
                "ends": wire.moment(week.board.ends) if week.board.ends else None,
            }
            for week in weeks
        ]
        return json_response(
            {"boards": listed, "closed_weeks": total, "offset": offset, "limit": limit, "now": wire.moment(now)}
        )

    async def read_board(self, request: Request) -> Response:
        """A stretch of a board."""
        board = self._readable(request)
        limit = _number(request, "limit", 100, 1, PAGE_LIMIT)
        offset = _number(request, "offset", 0, 0, ID_MAX)
        return json_response(await self._s.reading.page(board, offset, limit))

    async def read_user(self, request: Request) -> Response:
        """One user on a board: rank, score, points to the next rank, and neighbours on each side."""
        board = self._readable(request)
        user_id = _as_number(request.path_params["user_id"], "user_id", 1, ID_MAX)
        neighbours = _number(request, "neighbours", 5, 0, NEIGHBOURS_LIMIT)
        return json_response(await self._s.reading.user(board, user_id, neighbours))

    def _may_read(self, identity: Identity | None, board: Board) -> bool:
        return self._s.access.rights.may_read(identity, board.id, board, self._s.clock.now())

    def _readable(self, request: Request) -> Board:
        """The board that the path names, where whoever asks may read it."""
        name, now = request.path_params["board"], self._s.clock.now()
        identity = self._reader(request)
        board = boards.resolve(name, now)
        self._s.access.rights.read(identity, name, board, now)
        return board

    def _reader(self, request: Request) -> Identity | None:
        """Who wants to read, where that matters: what everybody may see needs no good token."""
        return self._s.access.identity(request) if self._s.access.rights.private else None

    # Scores --------------------------------------------------------------------------------------------------

    async def submit(self, request: Request) -> Response:
        """One submission, or up to 1,000 of them."""
        identity = self._s.access.identity(request)
        if identity is None:
            raise unknown()
        body = await body_of(request, self._s.settings.max_body_bytes)
        if type(body) is dict:
            (outcome,) = await self._record([body], identity)
            if isinstance(outcome, Rejected):
                return rejection_response(outcome)
            return json_response(self._fields(outcome))
        if type(body) is not list or not 1 <= len(body) <= LIST_LIMIT:
            raise RealtimeError("bad_message", f"Send one submission, or a list of 1 to {LIST_LIMIT}.")
        outcomes = await self._record(body, identity)
        return json_response({"results": [self._fields(outcome) for outcome in outcomes]})

    def _fields(self, outcome: Outcome) -> dict[str, Any]:
        return wire.outcome_fields(outcome, self._s.intake.live or not isinstance(outcome, Accepted))

    async def _record(self, rows: list[Any], identity: Identity) -> list[Outcome]:
        """The outcome of each row, in order; a bad one is answered alone."""
        results: list[Outcome | None] = [None] * len(rows)
        left = len(rows)
        done = asyncio.get_running_loop().create_future()

        def answer(place: int, outcome: Outcome) -> None:
            nonlocal left
            results[place] = outcome
            if isinstance(outcome, Rejected):
                self._s.refused(outcome.code)
            left -= 1
            if left == 0 and not done.done():
                done.set_result(None)

        for place, row in enumerate(rows):
            try:
                fields = _object(row)
                submission = parse_submission(fields, identity.user_id)
                self._s.access.rights.submit(identity, submission)
            except RealtimeError as error:
                known = submission_id_of(row) if type(row) is dict else None
                answer(place, Rejected.of(known, error))
                continue
            self._s.admission.submit(identity, submission, partial(answer, place))
        await done
        return [outcome for outcome in results if outcome is not None]

    # People --------------------------------------------------------------------------------------------------

    async def register(self, request: Request) -> Response:
        """A new user, where registration is open or an admin asks."""
        identity = self._s.access.identity(request)
        self._s.access.rights.register(identity)
        body = _object(await body_of(request, self._s.settings.max_message_bytes))
        if identity is None or not identity.may("admin"):
            await self._s.throttle.check(self._limits.registrations, address_of(request))
        user_id = await self._s.accounts.register(body.get("email"), body.get("password"), body.get("username"))
        return json_response({"user_id": user_id, "username": body["username"]}, 201)

    async def sign_in(self, request: Request) -> Response:
        """A token for one's own scores."""
        body = _object(await body_of(request, self._s.settings.max_message_bytes))
        await self._s.throttle.check(self._limits.logins, address_of(request))
        await self._s.throttle.check(self._limits.logins_of_account, account(body.get("email")))
        user_id = await self._s.accounts.sign_in(body.get("email"), body.get("password"))
        return json_response(self._token(user_id), 201)

    def _token(self, user_id: int) -> dict[str, Any]:
        lifetime = timedelta(seconds=self._s.settings.token_lifetime_s)
        scopes = ["submit", "read"] if self._s.access.rights.private else ["submit"]
        token, expires_at = self._s.tokens.mint(user_id, scopes, self._s.clock.now(), lifetime)
        return {"token": token, "expires_at": wire.moment(expires_at), "user_id": user_id}

    async def me(self, request: Request) -> Response:
        """Oneself: look, rename, leave for good."""
        user_id = self._s.access.rights.own_user(self._s.access.identity(request))
        if request.method == "PATCH":
            body = _object(await body_of(request, self._s.settings.max_message_bytes))
            await self._s.accounts.rename(user_id, body.get("username"))
        if request.method == "DELETE":
            await self._s.accounts.delete(user_id, actor=f"user:{user_id}")
            return Response(status_code=204)
        person = await self._s.accounts.person(user_id)
        return json_response(
            {
                "user_id": person.user_id,
                "email": person.email,
                "username": person.username,
                "created_at": wire.moment(person.created_at),
                "banned": person.banned,
            }
        )

    async def ban(self, request: Request) -> Response:
        """Hides a player from every board, or shows them again."""
        identity = self._s.access.rights.administer(self._s.access.identity(request))
        user_id = _as_number(request.path_params["user_id"], "user_id", 1, ID_MAX)
        raw = await bytes_of(request, self._s.settings.max_message_bytes)
        reason = _object(wire.loads(raw)).get("reason") if raw else None
        act = self._s.accounts.ban if request.method == "POST" else self._s.accounts.unban
        await act(user_id, actor=identity.actor, reason=reason)
        return json_response({"user_id": user_id, "banned": request.method == "POST"})

    async def transactions(self, request: Request) -> Response:
        """A user's log, newest first; `before` pages on."""
        identity = self._s.access.identity(request)
        if identity is None:
            raise unknown()
        user_id = _as_number(request.path_params["user_id"], "user_id", 1, ID_MAX)
        self._s.access.rights.see_log(identity, user_id)
        limit = _number(request, "limit", 100, 1, PAGE_LIMIT)
        before = _number(request, "before", ID_MAX, 1, ID_MAX)
        entries = await self._s.accounts.entries(user_id, before, limit)
        rows = [
            {
                "id": entry.id,
                "submission_id": entry.submission_id,
                "score_added": entry.score_added,
                "reason": entry.reason,
                "created_at": wire.moment(entry.created_at),
            }
            for entry in entries
        ]
        return json_response({"user_id": user_id, "transactions": rows})

    # Health --------------------------------------------------------------------------------------------------

    async def alive(self, request: Request) -> Response:
        """The process answers."""
        return json_response({"status": "alive"})

    async def ready(self, request: Request) -> Response:
        """Whether this process should get traffic, and if not, why."""
        why = await self._s.ready()
        return json_response({"ready": not why, "why": why}, 503 if why else 200)

    async def exposition(self, request: Request) -> Response:
        """Metrics in the text format of Prometheus."""
        return Response(self._s.metrics.exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")

    # The socket ----------------------------------------------------------------------------------------------

    async def socket(self, websocket: WebSocket) -> None:
        """Accepts, and leaves the connection to its session: from then on there is no task for it."""
        connection = websocket.scope["extensions"].get("realtime.connection")
        if not isinstance(connection, Connection):
            raise RuntimeError("serve with uvicorn --ws realtime.connection:Connection")
        address = address_of(websocket)
        await websocket.accept()
        # From here on nothing is awaited: what is counted now is sure to be counted off when the connection ends.
        try:
            identity = self._s.access.at_handshake(websocket)
        except RealtimeError as error:
            return self._turn_away(connection, wire.CloseCode.AUTHENTICATION, error)
        if not self._s.connections.enter(address):
            full = RealtimeError("too_many", "Too many connections. Come back later.", retry_after_ms=10_000)
            return self._turn_away(connection, wire.CloseCode.LIMITS, full)
        settings = self._s.settings
        subscriber = Subscriber(
            connection,
            buffer_limit=settings.subscriber_buffer_bytes,
            slow_after=settings.slow_after_s,
            on_drained=self._s.broadcaster.caught_up,
            on_closed=self._s.closed,
        )
        session = Session(
            subscriber,
            self._s.broadcaster,
            self._s.ranks,
            self._s.admission,
            self._s.access.verifier(websocket),
            self._s.clock,
            identity=identity,
            rights=self._s.access.rights,
            holders=self._s.access.revocations,
            limits=Limits(settings.max_subscriptions, settings.message_rate),
            refused=self._s.refused,
        )

        def closed() -> None:
            self._s.connections.leave(address)
            session.closed()

        connection.on_text = session.receive
        connection.on_drain = subscriber.drained
        connection.on_closed = closed
        connection.detach()
        session.greet()

    def _turn_away(self, connection: Connection, code: int, error: RealtimeError) -> None:
        self._s.refused(error.code)
        self._s.closed(code)
        connection.write(Frame(wire.error(error)))
        connection.close(code, error.code)
