"""Routes of boards: which there are, a stretch of one, one user on one.

Owns how boards look over HTTP. Must never hold state or reach a store by itself. Assumes that services raise
RealtimeError for a board or a user that nobody knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from realtime.api import board_pages
from realtime.api.board_pages import BoardPage, unchanged
from realtime.api.requests import PAGE_LIMIT, WAIT_SECONDS, number_in_query, user_in_path
from realtime.api.responses import error_response, json_response
from realtime.api.services import Services
from realtime.api.waiting import Asked, WaitingRequest
from realtime.boards.board import Board
from realtime.boards.catalogue import CURRENT, is_alias
from realtime.boards.leaderboard import DEFAULT, Leaderboard
from realtime.broadcast.pages import Page
from realtime.errors import LedgerUnavailable, RealtimeError, StoreUnavailable
from realtime.people.identity import Identity
from realtime.validation import ID_MAX
from realtime.wire import messages, positions

NEIGHBOURS_LIMIT: Final = 50

_UNAVAILABLE: Final = RealtimeError("unavailable", "The board cannot be read now.", retry_after_ms=1_000)


class BoardRoutes:
    """The routes below `/boards`."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def routes(self) -> list[BaseRoute]:
        """The three routes."""
        return [
            Route("/boards", self.list_boards, methods=["GET"]),
            Route("/boards/{board}", self.read_board, methods=["GET"]),
            Route("/boards/{board}/users/{user_id}", self.read_user, methods=["GET"]),
        ]

    async def list_boards(self, request: Request) -> Response:
        """A leaderboard's closed boards, newest first; on the first page those that are live before them."""
        limit = number_in_query(request, "limit", 100, 1, PAGE_LIMIT)
        offset = number_in_query(request, "offset", 0, 0, ID_MAX)
        slug = request.query_params.get("leaderboard", DEFAULT.slug)
        now = self._services.clock.now()
        identity = self._reader(request)
        directory = self._services.leaderboards
        await directory.look_up(slug)
        leaderboard = directory.current.leaderboard(slug)
        permissions = self._services.authentication.permissions
        permissions.list_boards(identity)
        if leaderboard.definition.visible == "private":
            permissions.see(identity, leaderboard.definition)
        closed, total = await self._closed(leaderboard, now, offset, limit)
        live = directory.current.live_boards(now) if not offset else []
        readable = [board for board in live if board.slug == slug and self._may_read(identity, board)]
        pages = [await self._services.board_reader.page(board, 0, 1) for board in readable]
        listed = [
            _listed(board, page.players, closed=False, alias=self._alias_of(board, now))
            for board, page in zip(readable, pages, strict=True)
        ]
        listed += [_listed(board, players, closed=True) for board, players in closed if self._may_read(identity, board)]
        kind = "closed_weeks" if leaderboard.id == DEFAULT.id else "closed_boards"
        return json_response(
            {"boards": listed, kind: total, "offset": offset, "limit": limit, "now": messages.moment(now)}
        )

    async def _closed(
        self, leaderboard: Leaderboard, now: datetime, offset: int, limit: int
    ) -> tuple[list[tuple[Board, int]], int]:
        """Closed boards with their players, and how many there are; of `default` the weeks, then other kinds."""
        others, total = await self._services.closed_boards.listed(leaderboard, offset, limit)
        closed = [(one.board, one.players) for one in others]
        if leaderboard.id != DEFAULT.id:
            return closed, total
        weeks, of_weeks = await self._services.archive.listed(now, offset, limit)
        return [(week.board, week.players) for week in weeks] + closed, of_weeks + total

    def _alias_of(self, board: Board, now: datetime) -> str | None:
        """The alias that stands for a board now; None for all time, and for one that ended a moment ago."""
        if board.ends is None:
            return None
        alias = board.id.removesuffix(board.window.name) + CURRENT + board.window.kind
        try:
            return alias if self._services.leaderboards.resolve(alias, now) == board else None
        except RealtimeError:
            return None

    async def read_board(self, request: Request) -> Response:
        """A stretch of a board."""
        identity = self._reader(request)
        board = await self._readable(request, identity)
        limit = number_in_query(request, "limit", 100, 1, PAGE_LIMIT)
        offset = number_in_query(request, "offset", 0, 0, ID_MAX)
        seconds = number_in_query(request, "wait", 0, 0, WAIT_SECONDS)
        known = request.headers.get("if-none-match")
        asked = Asked(request.path_params["board"], offset, limit)
        since = positions.read(request.query_params.get("since", ""), board.id).get(board.id)
        if since is not None and (later := await self._later(since, asked, identity, known, seconds)) is not None:
            return later
        return self._shown(await self._services.board_reader.page(board, offset, limit), asked, board).response(known)

    async def _later(
        self, since: messages.Since, asked: Asked, identity: Identity | None, known: str | None, seconds: int
    ) -> Response | None:
        """The answer to somebody who holds that position of a board; None where there is something else to show now."""
        try:
            following = self._services.broadcaster.following
            async with following.at_hand(asked.name) as stream:
                latest = stream.latest
                if latest is None or (latest.board, *latest.position) != (since.board, since.epoch, since.version):
                    return None
                if not seconds:  # whether a board that stands still is where it was, nobody knows
                    return None if following.stands_still(stream.board) else unchanged()
                return self._services.waiting.park(stream, asked, identity, known, seconds, self._answer_to)
        except RealtimeError as error:
            if error.code != "unavailable":
                raise
            return None  # what there is to show is stale, and says so

    def _shown(self, page: Page, asked: Asked, board: Board) -> BoardPage:
        """What was asked for, as it is shown."""
        permissions = self._services.authentication.permissions
        return board_pages.made(
            page,
            offset=asked.offset,
            limit=asked.limit,
            by_alias=is_alias(asked.name),
            is_public=permissions.may_read(None, asked.name, board, self._services.clock.now()),
        )

    async def _answer_to(
        self, stretch: Asked, requests: Sequence[WaitingRequest]
    ) -> dict[WaitingRequest, Response]:
        """Answers to those who have waited for parts of a stretch: by now it is another board's, or not everybody's."""
        try:
            board = await self._services.leaderboards.find(stretch.name, self._services.clock.now())
            page = await self._services.board_reader.page(board, stretch.offset, stretch.limit)
        except RealtimeError as error:
            return {request: self._refusal(error) for request in requests}
        except (LedgerUnavailable, StoreUnavailable):
            return {request: self._refusal(_UNAVAILABLE) for request in requests}
        shown: dict[Asked, BoardPage] = {}
        for asked in {request.asked for request in requests}:
            begin = asked.offset - stretch.offset
            part = replace(page, entries=page.entries[begin : begin + asked.limit])
            shown[asked] = self._shown(part, asked, board)
        return {request: self._answer_one(request, board, shown[request.asked]) for request in requests}

    def _answer_one(self, request: WaitingRequest, board: Board, page: BoardPage) -> Response:
        now, identity = self._services.clock.now(), request.identity
        try:
            if identity is not None and identity.expires_at <= now:
                raise RealtimeError("expired", "The token has expired.")
            self._services.authentication.permissions.read(identity, request.asked.name, board, now)
        except RealtimeError as error:
            return self._refusal(error)
        return page.response(request.known)

    def _refusal(self, error: RealtimeError) -> Response:
        self._services.refused(error.code)
        return error_response(error)

    async def read_user(self, request: Request) -> Response:
        """One user on a board: rank, score, points to the next rank, and neighbours on each side."""
        board = await self._readable(request, self._reader(request))
        user_id = user_in_path(request)
        neighbours = number_in_query(request, "neighbours", 5, 0, NEIGHBOURS_LIMIT)
        return json_response(await self._services.board_reader.user(board, user_id, neighbours))

    def _may_read(self, identity: Identity | None, board: Board) -> bool:
        return self._services.authentication.permissions.may_read(identity, board.id, board, self._services.clock.now())

    async def _readable(self, request: Request, identity: Identity | None) -> Board:
        """The board that the path names, where whoever asks may read it."""
        name, now = request.path_params["board"], self._services.clock.now()
        board = await self._services.leaderboards.find(name, now)
        self._services.authentication.permissions.read(identity, name, board, now)
        return board

    def _reader(self, request: Request) -> Identity | None:
        """Who wants to read, where that matters: what everybody may see needs no good token."""
        authentication = self._services.authentication
        return authentication.identity(request) if authentication.permissions.restrict_reading else None


def _listed(board: Board, players: int, *, closed: bool, alias: str | None = None) -> dict[str, Any]:
    starts, ends = board.window.starts, board.window.ends
    return {
        "board": board.id,
        "alias": alias,
        "closed": closed,
        "players": players,
        "starts": None if starts is None else messages.moment(starts),
        "ends": None if ends is None else messages.moment(ends),
    }
