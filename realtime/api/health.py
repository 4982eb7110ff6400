"""Routes for those who run this: is it alive, should it get traffic, what does it count.

Owns these three answers over HTTP. Must never ask a store: balancers and Prometheus ask all the time. Assumes that
readiness and metrics are read from memory.
"""

from __future__ import annotations

from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from realtime.api.responses import json_response
from realtime.api.services import Services


class HealthRoutes:
    """The routes `/healthz`, `/readyz` and `/metrics`."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def routes(self) -> list[BaseRoute]:
        """The three routes."""
        return [
            Route("/healthz", self.alive, methods=["GET"]),
            Route("/readyz", self.ready, methods=["GET"]),
            Route("/metrics", self.exposition, methods=["GET"]),
        ]

    async def alive(self, request: Request) -> Response:
        """The process answers."""
        return json_response({"status": "alive"})

    async def ready(self, request: Request) -> Response:
        """Whether this process should get traffic, and if not, why."""
        report = self._services.readiness.check()
        body = {"ready": not report.why, **asdict(report)}
        return json_response(body, 503 if report.why else 200)

    async def exposition(self, request: Request) -> Response:
        """Metrics in the text format of Prometheus."""
        return Response(self._services.metrics.exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")
