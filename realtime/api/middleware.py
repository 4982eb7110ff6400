"""Middleware: what every response says to a browser, and which pages may speak for somebody.

Owns response headers, CORS and the judgement of origins. Must never decide what an identity may do (`permissions`
does), nor believe a forwarded header. Assumes that the server in front of this (uvicorn's ProxyHeadersMiddleware, set
up in `server.serving`) has put the client's address and scheme into the scope where a trusted proxy named them, and
nowhere else.

Plain ASGI: sockets pass through untouched. Tokens are sent in a header or a message, never in a cookie, so no page can
borrow a visitor's rights; the check of origins is the second lock on that door.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from starlette._utils import get_route_path
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from realtime.errors import RealtimeError
from realtime.origins import Origins

DEFAULTS: Final = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",  # an address may carry an overlay's token
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}
"""What a response says unless its route says otherwise: pages have a policy of their own."""

STRICT_TRANSPORT: Final = "max-age=31536000"
PREFLIGHT_SECONDS: Final = "600"
READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class Security:
    """The outermost layer around the application. `refuse` answers what may not pass."""

    def __init__(
        self, app: ASGIApp, origins: Origins, *, private: bool, refuse: Callable[[Scope, RealtimeError], ASGIApp]
    ) -> None:
        self._app = app
        self._origins = origins
        self._private = private
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        request = Headers(scope=scope)
        shared = self._sharing(scope, request)

        async def send_secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in DEFAULTS.items():
                    headers.setdefault(name, value)
                if scope["scheme"] == "https":
                    headers["strict-transport-security"] = STRICT_TRANSPORT
                for name, value in shared.items():
                    headers.setdefault(name, value)
                if self._origins.are_named:
                    headers.add_vary_header("origin")
            await send(message)

        app = self._app
        if shared and scope["method"] == "OPTIONS":
            app = _preflight
        elif scope["method"] not in READING and not self._origins.trusts(request):
            hint = "This page is of another origin: name it in REALTIME_ORIGINS."
            app = self._refuse(scope, RealtimeError("forbidden", hint))
        await app(scope, receive, send_secured)

    def _sharing(self, scope: Scope, request: Headers) -> dict[str, str]:
        """What lets pages of other origins in: all of them to read public boards, those named to everything."""
        origin, path = request.get("origin", ""), get_route_path(scope)
        is_of_boards = path in ("/boards", "/events") or path.startswith("/boards/")
        if self._origins.names(origin):
            methods = "GET, POST, PATCH, DELETE"
        elif is_of_boards and scope["method"] in READING and not self._private:
            origin, methods = "*", "GET"
        else:
            return {}
        return {
            "access-control-allow-origin": origin,
            "access-control-allow-methods": methods,
            "access-control-allow-headers": "authorization, content-type, if-none-match, last-event-id",
            "access-control-expose-headers": "etag, retry-after",
            "access-control-max-age": PREFLIGHT_SECONDS,
        }


async def _preflight(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})
