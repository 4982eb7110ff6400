"""Routes of boards: which there are, a stretch of one, one user on one.

Owns how boards look over HTTP. Must never hold state or reach a store by itself. Assumes that services raise
RealtimeError for a board or a user that nobody knows.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from realtime.api.requests import PAGE_LIMIT, number_in_query, user_in_path
from realtime.api.responses import json_response
from realtime.api.services import Services
from realtime.boards.board import Board
from realtime.boards.catalogue import CURRENT
from realtime.boards.leaderboard import DEFAULT, Leaderboard
from realtime.errors import RealtimeError
from realtime.people.identity import Identity
from realtime.validation import ID_MAX
from realtime.wire import messages

NEIGHBOURS_LIMIT: Final = 50


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
        board = await self._readable(request)
        limit = number_in_query(request, "limit", 100, 1, PAGE_LIMIT)
        offset = number_in_query(request, "offset", 0, 0, ID_MAX)
        return json_response(await self._services.board_reader.page(board, offset, limit))

    async def read_user(self, request: Request) -> Response:
        """One user on a board: rank, score, points to the next rank, and neighbours on each side."""
        board = await self._readable(request)
        user_id = user_in_path(request)
        neighbours = number_in_query(request, "neighbours", 5, 0, NEIGHBOURS_LIMIT)
        return json_response(await self._services.board_reader.user(board, user_id, neighbours))

    def _may_read(self, identity: Identity | None, board: Board) -> bool:
        return self._services.authentication.permissions.may_read(identity, board.id, board, self._services.clock.now())

    async def _readable(self, request: Request) -> Board:
        """The board that the path names, where whoever asks may read it."""
        name, now = request.path_params["board"], self._services.clock.now()
        identity = self._reader(request)
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
