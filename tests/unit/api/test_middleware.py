"""What every response says, and which pages may speak for somebody: requests by hand, no server."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from realtime.api.middleware import DEFAULTS, Security
from realtime.errors import RealtimeError
from realtime.origins import Origins

OWN, NAMED, STRANGE = "https://boards.example", "https://game.example", "https://other.example"


class Application:
    """An application that answers with these headers."""

    def __init__(self, headers: dict[str, str]) -> None:
        self.headers = headers
        self.calls: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.calls.append(scope["type"])
        headers = [(name.encode(), value.encode()) for name, value in self.headers.items()]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"hello"})


def refuse(scope: Scope, error: RealtimeError) -> ASGIApp:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 403, "headers": [(b"x-code", error.code.encode())]})
        await send({"type": "http.response.body", "body": b""})

    return answer


async def asked(
    method: str,
    path: str,
    origin: str | None = None,
    *,
    named: str = "",
    private: bool = False,
    scheme: str = "https",
    answers: dict[str, str] | None = None,
    **headers: str,
) -> tuple[int, dict[str, str], list[str]]:
    """Status and headers of the answer, and what reached the application."""
    inner = Application(answers or {})
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        raise AssertionError("nobody reads a body here")

    fields = {"host": "boards.example", **({"origin": origin} if origin else {}), **headers}
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in fields.items()]
    scope: dict[str, Any] = {
        "type": "http", "method": method, "path": path, "root_path": "", "scheme": scheme, "headers": raw,
    }  # fmt: skip
    await Security(inner, Origins(named), private=private, refuse=refuse)(scope, receive, send)
    return sent[0]["status"], {name.decode(): value.decode() for name, value in sent[0]["headers"]}, inner.calls


async def test_every_response_has_the_headers_that_its_route_does_not_set() -> None:
    policy = "default-src 'self'"
    _, headers, _ = await asked("GET", "/", answers={"content-security-policy": policy})
    assert headers["content-security-policy"] == policy
    assert {name: headers[name] for name in DEFAULTS} == {**DEFAULTS, "content-security-policy": policy}


@pytest.mark.parametrize(("scheme", "is_strict"), [("https", True), ("http", False)])
async def test_strict_transport_is_said_where_there_is_any(scheme: str, is_strict: bool) -> None:
    _, headers, _ = await asked("GET", "/", scheme=scheme)
    assert ("strict-transport-security" in headers) == is_strict


@pytest.mark.parametrize("path", ["/boards", "/boards/all_time", "/boards/all_time/events", "/events"])
async def test_every_page_may_read_public_boards(path: str) -> None:
    status, headers, calls = await asked("GET", path, STRANGE)
    assert (status, headers["access-control-allow-origin"], calls) == (200, "*", ["http"])
    assert headers["access-control-allow-methods"] == "GET"


@pytest.mark.parametrize(
    ("path", "private"), [("/boards/all_time", True), ("/users/me", False), ("/boardsandmore", False)]
)
async def test_no_other_page_may_read_what_is_not_public(path: str, private: bool) -> None:
    _, headers, _ = await asked("GET", path, STRANGE, private=private)
    assert "access-control-allow-origin" not in headers


async def test_a_page_that_is_named_may_do_everything() -> None:
    status, headers, calls = await asked("POST", "/scores", NAMED, named=NAMED, private=True)
    assert (status, calls) == (200, ["http"])
    assert headers["access-control-allow-origin"] == NAMED
    assert (
        "POST" in headers["access-control-allow-methods"] and "retry-after" in headers["access-control-expose-headers"]
    )
    assert headers["vary"] == "origin"


async def test_caches_are_told_that_origins_matter_also_where_this_one_does_not() -> None:
    _, named, _ = await asked("GET", "/", named=NAMED, answers={"vary": "accept"})
    _, unnamed, _ = await asked("GET", "/")
    assert {part.strip().lower() for part in named["vary"].split(",")} == {"accept", "origin"}
    assert "vary" not in unnamed


@pytest.mark.parametrize("method", ["POST", "PATCH", "DELETE"])
async def test_a_strange_page_changes_nothing(method: str) -> None:
    status, headers, calls = await asked(method, "/scores", STRANGE, named=NAMED)
    assert (status, headers["x-code"], calls) == (403, "forbidden", [])
    assert headers["x-content-type-options"] == "nosniff", "a refusal is a response as well"


@pytest.mark.parametrize("origin", [None, OWN])
async def test_the_servers_own_pages_and_programs_change_what_they_may(origin: str | None) -> None:
    status, _, calls = await asked("POST", "/scores", origin)
    assert (status, calls) == (200, ["http"])


async def test_a_preflight_is_answered_here_and_only_for_pages_that_are_let_in() -> None:
    status, headers, calls = await asked("OPTIONS", "/scores", NAMED, named=NAMED)
    assert (status, headers["access-control-max-age"], calls) == (204, "600", [])
    assert "authorization" in headers["access-control-allow-headers"]
    status, headers, calls = await asked("OPTIONS", "/scores", STRANGE, named=NAMED)
    assert (status, calls) == (200, ["http"]) and "access-control-allow-origin" not in headers


async def test_a_route_may_say_itself_who_reads_it() -> None:
    _, headers, _ = await asked("GET", "/boards", STRANGE, answers={"access-control-allow-origin": OWN})
    assert headers["access-control-allow-origin"] == OWN


@pytest.mark.parametrize("kind", ["websocket", "lifespan"])
async def test_what_is_no_request_passes_untouched(kind: str) -> None:
    sent: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": f"{scope['type']}.anything"})

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        raise AssertionError("nothing comes")

    await Security(app, Origins(), private=True, refuse=refuse)({"type": kind}, receive, send)
    assert sent == [{"type": f"{kind}.anything"}]
