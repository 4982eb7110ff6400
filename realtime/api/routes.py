"""Routes: all of HTTP but pages and documents, and what becomes of an exception that leaves a route.

Owns the answer to every exception. Must never hold state or reach a store by itself. Assumes that a route reads, asks a
service and writes: `boards`, `events`, `leaderboards`, `scores`, `people` and `health` own one noun each.
"""

from __future__ import annotations

import logging
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import Scope

from realtime.api import sockets
from realtime.api.boards import BoardRoutes
from realtime.api.chat import ChatRoutes
from realtime.api.events import EventRoutes
from realtime.api.health import HealthRoutes
from realtime.api.leaderboards import LeaderboardRoutes
from realtime.api.people import PeopleRoutes
from realtime.api.responses import error_response
from realtime.api.scores import ScoreRoutes
from realtime.api.services import Services
from realtime.api.sessions import Sessions
from realtime.errors import LedgerUnavailable, RealtimeError, StoreUnavailable

log = logging.getLogger(__name__)


NOTHING_HERE: Final = "There is nothing at this address. /openapi.json lists what there is, and /docs explains it."


def routes(services: Services, sessions: Sessions) -> list[BaseRoute]:
    """Everything over HTTP but the pages and documents."""
    kinds = (BoardRoutes, ChatRoutes, LeaderboardRoutes, ScoreRoutes, PeopleRoutes, HealthRoutes)
    return [
        *sockets.routes(),
        *EventRoutes(services, sessions).routes(),
        *(route for kind in kinds for route in kind(services).routes()),
    ]


async def on_error(request: Request, error: Exception) -> Response:
    """Any exception that leaves a route, in the one shape of an error."""
    if isinstance(error, RealtimeError):
        services: Services = request.app.state.services
        services.refused(error.code)
        return error_response(error)
    if isinstance(error, (LedgerUnavailable, StoreUnavailable)):
        return error_response(RealtimeError("unavailable", "This cannot be done now.", retry_after_ms=1_000))
    if isinstance(error, HTTPException):
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "bad_message")
        detail = NOTHING_HERE if error.status_code == 404 else str(error.detail)
        response = error_response(RealtimeError(code, detail))
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
