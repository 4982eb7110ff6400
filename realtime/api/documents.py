"""Documents: the routes of `/openapi.json` and `/asyncapi.json`.

Owns the bytes of both, which it makes once. Must never ask a service. Assumes that neither document depends on
settings.
"""

from __future__ import annotations

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from realtime.api.asyncapi import asyncapi
from realtime.api.openapi import openapi


def routes() -> list[BaseRoute]:
    """The two routes, with their documents."""
    return [_route("/openapi.json", orjson.dumps(openapi())), _route("/asyncapi.json", orjson.dumps(asyncapi()))]


def _route(path: str, document: bytes) -> Route:
    async def show(request: Request) -> Response:
        return Response(document, media_type="application/json", headers={"access-control-allow-origin": "*"})

    return Route(path, show, methods=["GET"])
