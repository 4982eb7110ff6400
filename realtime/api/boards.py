"""Routes of boards: which there are, a stretch of one, one user on one.

Owns how boards look over HTTP. Must never hold state or reach a store by itself. Assumes that services raise
RealtimeError for a board or a user that nobody knows.
"""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from realtime.api.requests import PAGE_LIMIT, number_in_query, user_in_path
from realtime.api.responses import json_response
from realtime.api.services import Services
from realtime.boards.board import ALL_TIME, CURRENT_WEEK, Board, live_boards, week_at
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
        """Closed weeks, newest first; on the first page all time and the current week before them."""
        limit = number_in_query(request, "limit", 100, 1, PAGE_LIMIT)
        offset = number_in_query(request, "offset", 0, 0, ID_MAX)
        now = self._services.clock.now()
        identity = self._reader(request)
        self._services.authentication.permissions.list_boards(identity)
        weeks, total = await self._services.archive.listed(now, offset, limit)
        weeks = [week for week in weeks if self._may_read(identity, week.board)]
        current_boards = [board for board in live_boards(now) if not offset and self._may_read(identity, board)]
        live = [await self._services.board_reader.page(board, 0, 1) for board in current_boards]
        current = week_at(now)
        listed = [
            {
                "board": page.board,
                "alias": CURRENT_WEEK if page.board == current.id else None,
                "closed": False,
                "players": page.players,
                "starts": None if board is ALL_TIME else messages.moment(board.starts),
                "ends": None if board.ends is None else messages.moment(board.ends),
            }
            for board, page in zip(current_boards, live, strict=True)
        ]
        listed += [
            {
                "board": week.board.id,
                "alias": None,
                "closed": True,
                "players": week.players,
                "starts": messages.moment(week.board.starts),
                "ends": messages.moment(week.board.ends) if week.board.ends else None,
            }
            for week in weeks
        ]
        return json_response(
            {"boards": listed, "closed_weeks": total, "offset": offset, "limit": limit, "now": messages.moment(now)}
        )

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
