"""Routes of leaderboards: which there are, what each is, and how it becomes another.

Owns how definitions look over HTTP. Must never hold state or reach a store by itself. Assumes that services raise
RealtimeError for a leaderboard that nobody knows, and DefinitionError for a definition that cannot be.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from realtime.api.requests import json_of
from realtime.api.responses import json_response
from realtime.api.services import Services
from realtime.boards.definitions import Definition
from realtime.boards.parsing import parse_definition
from realtime.ledger.defined import Defined
from realtime.ledger.definitions import unknown_leaderboard
from realtime.people.identity import Identity


class LeaderboardRoutes:
    """The routes below `/leaderboards`."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def routes(self) -> list[BaseRoute]:
        """The two routes."""
        return [
            Route("/leaderboards", self.list_all, methods=["GET"]),
            Route("/leaderboards/{slug}", self.one, methods=["GET", "PUT", "DELETE"]),
        ]

    async def list_all(self, request: Request) -> Response:
        """Every leaderboard that whoever asks may see, in the order in which they were defined."""
        everything = await self._services.definitions.lately()
        permissions = self._services.authentication.permissions
        identity = self._reader(request, everything.values())
        permissions.list_boards(identity)
        seen = [one for one in everything.values() if permissions.may_see(identity, self._seen_as(one))]
        return json_response({"leaderboards": [self._fields(one) for one in seen]})

    async def one(self, request: Request) -> Response:
        """One leaderboard: look, define, remove."""
        slug = request.path_params["slug"]
        if request.method == "GET":
            return await self._read(request, slug)
        authentication = self._services.authentication
        identity = authentication.permissions.administer(authentication.identity(request))
        if request.method == "DELETE":
            await self._services.definitions.remove(slug, actor=identity.actor)
            await self._services.leaderboards.refresh()
            return Response(status_code=204)
        body = await json_of(request, self._services.settings.max_message_bytes)
        zones = await self._services.definitions.zones()
        await self._services.definitions.put(parse_definition(slug, body, zones=zones), actor=identity.actor)
        await self._services.leaderboards.refresh()
        return json_response(self._fields(await self._services.definitions.one(slug)))

    async def _read(self, request: Request, slug: str) -> Response:
        permissions = self._services.authentication.permissions
        one = (await self._services.definitions.lately()).get(slug)
        if one is None:
            if permissions.private:
                permissions.list_boards(self._services.authentication.identity(request))
            raise unknown_leaderboard(slug)
        permissions.see(self._reader(request, [one]), self._seen_as(one))
        return json_response(self._fields(one))

    def _seen_as(self, one: Defined) -> Definition:
        """A definition with what it has from the leaderboard that it is `of`: who may see it."""
        known = self._services.leaderboards.current.leaderboards.get(one.slug)
        return one.definition if known is None else replace(one.definition, visible=known.definition.visible)

    def _reader(self, request: Request, asked: Iterable[Defined]) -> Identity | None:
        """Who wants to read, where that matters: what everybody may see needs no good token."""
        authentication = self._services.authentication
        permissions = authentication.permissions
        if all(permissions.may_see(None, self._seen_as(one)) for one in asked):
            return None
        return authentication.identity(request)

    def _fields(self, one: Defined) -> dict[str, Any]:
        now = self._services.clock.now()
        boards = self._services.leaderboards.current.current_boards(one.slug, now)
        return one.as_json(board.id for board in boards)
