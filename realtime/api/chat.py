"""Route for chat bots: where a player stands, as one plain line.

Owns the sentence. Must never answer more than one line, or with anything that a chat would take for a command. Assumes
a bot that shows whatever text it gets, and shows nothing but a number where the status is an error: so what a viewer
may have mistyped is a sentence as well.
"""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from realtime.api.requests import PAGE_LIMIT
from realtime.api.services import Services
from realtime.boards.board import CURRENT_WEEK, Board
from realtime.boards.definitions import Definition
from realtime.boards.formats import format_score
from realtime.errors import RealtimeError
from realtime.people.normal_forms import alike
from realtime.people.usernames import USERNAME_LENGTH
from realtime.validation import ID_MAX

MISTYPED: Final = frozenset({"unknown_board", "unknown_leaderboard", "unknown_user"})
"""What somebody in a chat can put right."""


class ChatRoutes:
    """The route `/chat`."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def routes(self) -> list[BaseRoute]:
        """The one route."""
        return [Route("/chat", self.answer, methods=["GET"])]

    async def answer(self, request: Request) -> Response:
        """Where a player stands on a board, for `?user=` a name or number, and `&board=`; without a user, who leads."""
        asked = " ".join(request.query_params.get("user", "").split())[:USERNAME_LENGTH].removeprefix("@")
        name = request.query_params.get("board", CURRENT_WEEK)
        try:
            line = await self._line(request, name, asked)
        except RealtimeError as error:
            if error.code not in MISTYPED:
                raise
            line = error.message
        return PlainTextResponse(" ".join(line.split()), headers={"cache-control": "no-store"})

    async def _line(self, request: Request, name: str, asked: str) -> str:
        authentication, now = self._services.authentication, self._services.clock.now()
        identity = authentication.at_handshake(request) if authentication.permissions.restrict_reading else None
        board = await self._services.leaderboards.find(name, now)
        authentication.permissions.read(identity, name, board, now)
        if not asked:
            return await self._leader(board)
        user_id = int(asked) if asked.isascii() and asked.isdigit() and 0 < int(asked) <= ID_MAX else None
        if user_id is None:
            page = await self._services.board_reader.page(board, 0, PAGE_LIMIT)
            wanted = alike(asked)
            user_id = next((line.user_id for line in page.entries if alike(line.username) == wanted), None)
            if user_id is None:
                where = f"among the first {PAGE_LIMIT:,}" if page.players > PAGE_LIMIT else "on this board"
                return f"Nobody {where} is called {_plain(asked)}."
        one = await self._services.board_reader.user(board, user_id, 0)
        definition = board.leaderboard.definition
        score = _score(definition, one.score)
        behind = "" if one.to_next is None else f", {_score(definition, one.to_next)} to the next rank"
        return f"{_plain(one.username)} is rank {one.rank} of {one.players:,} with {score}{behind}."

    async def _leader(self, board: Board) -> str:
        page = await self._services.board_reader.page(board, 0, 1)
        if not page.entries:
            return "Nobody has a score on this board yet."
        first, definition = page.entries[0], board.leaderboard.definition
        return f"{_plain(first.username)} leads {page.players:,} with {_score(definition, first.score)}."


def _plain(name: str) -> str:
    """A name that begins no command of a chat."""
    return name.lstrip("/!.") or "somebody"


def _score(definition: Definition, score: int) -> str:
    if definition.format.kind == "integer":
        return f"{score:,} point{'' if abs(score) == 1 else 's'}"
    return format_score(definition.format, score)
