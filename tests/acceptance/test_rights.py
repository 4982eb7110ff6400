"""Who may do what: one table over every route and every message type, and a server that is held to each cell of it.

A row is something one may ask for, a column somebody who asks. What is not in the table fails a test, and so does a row
for something there is not. `web/docs/rights.html` shows this one: `python -m tests.acceptance.test_rights` prints it.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import html
import json
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from starlette.routing import Route
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from realtime import resources
from realtime.api import documents, pages
from realtime.api import routes as endpoints
from realtime.api.sessions import Sessions
from realtime.people.tokens import Tokens, secret_keys
from realtime.wire import close_codes, messages
from tests.support.databases import Databases
from tests.support.servers import SECRET, RunningServer, running_server
from tests.support.stores import emptied
from tests.support.waiting import PATIENCE

PAGE = Path(__file__).parents[2] / "web/docs/rights.html"
AUDIENCE = "these-boards"
REFUSALS = {"unauthorized", "forbidden", "expired"}

GOOD = ("anonymous", "own user", "other user", "reader", "overlay", "game server", "admin")
BAD = {
    "expired": "expired",
    "wrong audience": "unauthorized",
    "algorithm none": "unauthorized",
    "public key as secret": "unauthorized",
    "foreign key": "unauthorized",
    "revoked": "unauthorized",
}
"""Tokens that are no good, though each claims every scope; and what they are told."""

WORDS = {"y": "yes", "a": "unauthorized", "f": "forbidden"}


@dataclass(frozen=True)
class Row:
    """Something one may ask for. `cells` has a letter for each of GOOD, then one for all of BAD: y, or n."""

    ask: str
    cells: str
    note: str = ""
    body: Callable[[int], Any] | None = None
    """What to send, made from the id of the user it is about."""
    modes: tuple[str, ...] = ("public", "private")

    @property
    def name(self) -> str:
        return f"{self.ask} ({self.note})" if self.note else self.ask

    def expected(self, who: str) -> str:
        if who in BAD:
            return "yes" if self.cells[-1] == "y" else BAD[who]
        return WORDS[self.cells[GOOD.index(who)]]


numbers = count(1)


def score(added: int, **fields: Any) -> Callable[[int], Any]:
    return lambda user_id: {
        "submission_id": f"s-{next(numbers)}", "user_id": user_id, "score_added": added, **fields
    }  # fmt: skip


PUBLIC, PRIVATE = ("public",), ("private",)
THIRD_USER = 2
LAST_WEEK = "2026-01-05T12:00:00Z"

# In the order of GOOD: anonymous, own user, other user, reader, overlay, game server, admin; then any bad token.
ROUTES = [
    Row("GET /boards", "yyyyyyy y", modes=PUBLIC),
    Row("GET /boards", "affyyfy n", "private boards", modes=PRIVATE),
    Row("GET /boards/{board}", "yyyyyyy y", modes=PUBLIC),
    Row("GET /boards/{board}", "affyyfy n", "private boards", modes=PRIVATE),
    Row("GET /boards/current_week", "affyffy n", "private boards, the overlay bound to another", modes=PRIVATE),
    Row("GET /boards/{board}/users/{user_id}", "yyyyyyy y", modes=PUBLIC),
    Row("GET /boards/{board}/users/{user_id}", "affyyfy n", "private boards", modes=PRIVATE),
    Row("GET /boards/{board}/events", "yyyyyyy n", modes=PUBLIC),
    Row("GET /boards/{board}/events", "affyyfy n", "private boards", modes=PRIVATE),
    Row("GET /boards/current_week/events", "affyffy n", "private boards, the overlay bound to another", modes=PRIVATE),
    Row("GET /events?board={board}", "yyyyyyy n", modes=PUBLIC),
    Row("GET /events?board={board}", "affyyfy n", "private boards", modes=PRIVATE),
    Row("GET /events?board={board}&board=current_week", "affyffy n", "private boards, the overlay bound to one",
        modes=PRIVATE),
    Row("GET /chat?board={board}", "yyyyyyy y", modes=PUBLIC),
    Row("GET /chat?board={board}", "affyyfy n", "private boards", modes=PRIVATE),
    Row("GET /leaderboards", "yyyyyyy y", modes=PUBLIC),
    Row("GET /leaderboards", "affyyfy n", "private boards", modes=PRIVATE),
    Row("GET /leaderboards/{slug}", "yyyyyyy y", modes=PUBLIC),
    Row("GET /leaderboards/{slug}", "affyyfy n", "private boards", modes=PRIVATE),
    Row("PUT /leaderboards/{slug}", "afffffy n", body=lambda user_id: {}),
    Row("DELETE /leaderboards/{slug}", "afffffy n"),
    Row("POST /scores", "ayfffyy n", "own score", body=score(5)),
    Row("POST /scores", "affffyy n", "a negative score", body=score(-5)),
    Row("POST /scores", "affffyy n", "somebody else's score", body=lambda user_id: score(5)(THIRD_USER)),
    Row("POST /scores", "afffffy n", "for another moment", score(5, created_at=LAST_WEEK)),
    Row("POST /scores", "ayfffyy n", "a list", body=lambda user_id: [score(5)(user_id)]),
    Row("POST /users", "yyyyyyy n", "registration open", body=lambda user_id: {}, modes=PUBLIC),
    Row("POST /users", "ffffffy n", "registration closed", body=lambda user_id: {}, modes=PRIVATE),
    Row("POST /sessions", "yyyyyyy y", body=lambda user_id: {}),
    Row("GET /users/me", "ayyffff n"),
    Row("PATCH /users/me", "ayyffff n", body=lambda user_id: {"username": f"renamed-{user_id}"}),
    Row("DELETE /users/me", "ayyffff n"),
    Row("POST /users/{user_id}/ban", "afffffy n"),
    Row("DELETE /users/{user_id}/ban", "afffffy n"),
    Row("GET /users/{user_id}/transactions", "ayffffy n"),
    *(
        Row(f"GET {path}", "yyyyyyy y")
        for path in (
            "/ws", "/healthz", "/readyz", "/metrics", "/openapi.json", "/asyncapi.json",
            "/", "/overlay", "/overlay/setup", "/play", "/docs", "/docs/{path:path}", "/static/{path:path}",
        )
    ),
]  # fmt: skip

MESSAGES = [
    Row("subscribe", "yyyyyyy n", body=lambda user_id: {"board": "all_time"}, modes=PUBLIC),
    Row("subscribe", "affyyfy n", "private boards", lambda user_id: {"board": "all_time"}, PRIVATE),
    Row("subscribe", "affyffy n", "private boards, the overlay bound to another",
        lambda user_id: {"board": "current_week"}, PRIVATE),
    Row("unsubscribe", "yyyyyyy n", body=lambda user_id: {"board": "all_time"}),
    Row("watch", "yyyyyyy n", body=lambda user_id: {"board": "all_time", "user_id": user_id}, modes=PUBLIC),
    Row("watch", "affyyfy n", "private boards", lambda user_id: {"board": "all_time", "user_id": user_id}, PRIVATE),
    Row("unwatch", "yyyyyyy n", body=lambda user_id: {"board": "all_time", "user_id": user_id}),
    Row("ping", "yyyyyyy n", body=lambda user_id: {}),
    Row("submit", "ayfffyy n", "own score", score(5)),
    Row("submit", "affffyy n", "a negative score", score(-5)),
    Row("submit", "affffyy n", "somebody else's score", lambda user_id: score(5)(THIRD_USER)),
    Row("submit", "afffffy n", "for another moment", score(5, created_at=LAST_WEEK)),
    Row("auth", "yyyyyyy n", body=lambda user_id: {}),
]  # fmt: skip


# The servers -------------------------------------------------------------------------------------------------------


@dataclass
class World:
    """A public and a private server on the same stores, in a loop of their own, and everybody's tokens."""

    run: Callable[[Coroutine[Any, Any, Any]], Any]
    servers: dict[str, RunningServer]
    dsn: str
    key: rsa.RSAPrivateKey
    other_user: int = 0
    revoked: str = field(default="", repr=False)

    async def new_user(self) -> int:
        connection = await asyncpg.connect(self.dsn)
        try:
            return int(await connection.fetchval("INSERT INTO users (username) VALUES ('somebody') RETURNING id"))
        finally:
            await connection.close()

    def token(self, who: str, user_id: int) -> str | None:
        """The token of `who`, where `user_id` is the user that the request is about."""
        now, hour = datetime.now(UTC), timedelta(hours=1)
        tokens = Tokens(secret_keys(SECRET), audience=AUDIENCE)
        every = ["submit", "submit:any", "read", "admin"]
        claims = {"sub": str(user_id), "scope": " ".join(every), "exp": now + hour, "aud": AUDIENCE}
        public = self.key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        made: dict[str, Callable[[], str | None]] = {
            "anonymous": lambda: None,
            "own user": lambda: tokens.mint(user_id, ["submit"], now, hour)[0],
            "other user": lambda: jwt.encode(  # signed with the key of the set: as good as ours
                {**claims, "sub": str(self.other_user), "scope": "submit"}, self.key, "RS256", {"kid": "one"}
            ),
            "reader": lambda: tokens.mint(None, ["read"], now, hour)[0],
            "overlay": lambda: tokens.mint(None, ["read"], now, hour, boards=["all_time"])[0],
            "game server": lambda: tokens.mint(None, ["submit:any"], now, hour)[0],
            "admin": lambda: tokens.mint(None, ["admin"], now, hour)[0],
            "expired": lambda: tokens.mint(user_id, every, now - 2 * hour, hour)[0],
            "wrong audience": lambda: jwt.encode({**claims, "aud": "other-boards"}, SECRET),
            "algorithm none": lambda: jwt.encode(claims, None, "none"),
            "public key as secret": lambda: _signed_with_public_key(claims, public),
            "foreign key": lambda: jwt.encode(claims, "another-secret" * 4),
            "revoked": lambda: self.revoked,
        }
        return made[who]()


def _signed_with_public_key(claims: dict[str, Any], public: bytes) -> str:
    """What a careless verifier takes: HS256, with the public key, which everybody has, as its secret."""

    def part(data: bytes) -> bytes:
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    head = part(b'{"alg":"HS256","typ":"JWT","kid":"one"}')
    body = part(json.dumps({**claims, "exp": int(claims["exp"].timestamp())}).encode())
    signature = hmac.digest(public, head + b"." + body, "sha256")
    return b".".join((head, body, part(signature))).decode()


@pytest.fixture(scope="module")
def world(
    databases: Databases, store_servers: Callable[[str], str], program: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    key = rsa.generate_private_key(65537, 2048)
    jwk = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key()))
    jwks = tmp_path_factory.mktemp("keys") / "jwks.json"
    jwks.write_text(json.dumps({"keys": [{**jwk, "kid": "one", "alg": "RS256"}]}))
    name = databases.create()
    store_url = store_servers(program)
    emptied(store_url)
    common = {
        "REALTIME_TOKEN_AUDIENCE": AUDIENCE,
        "REALTIME_JWKS_FILE": str(jwks),
        "REALTIME_SUBMISSION_RATE": "0",
        "REALTIME_REGISTRATIONS_PER_ADDRESS": "0",
        "REALTIME_LOGINS_PER_ADDRESS": "0",
        "REALTIME_LOGINS_PER_ACCOUNT": "0",
    }
    # A loop of the module's own, on which servers and clients live on from test to test.
    runner = asyncio.Runner()
    stack = AsyncExitStack()
    dsn = databases.url_of(name)

    async def start() -> dict[str, RunningServer]:
        return {
            "public": await stack.enter_async_context(running_server(dsn, store_url, **common)),
            "private": await stack.enter_async_context(
                running_server(dsn, store_url, **common, REALTIME_BOARDS="private", REALTIME_REGISTRATION="closed")
            ),
        }

    try:
        world = World(runner.run, runner.run(start()), dsn, key)
        runner.run(_arrange(world))
        yield world
    finally:
        runner.run(stack.aclose())
        runner.close()
        databases.drop(name)


async def _arrange(world: World) -> None:
    """Somebody else, and a token that was revoked."""
    world.other_user = await world.new_user()
    assert await world.new_user() == THIRD_USER
    tokens = Tokens(secret_keys(SECRET), audience=AUDIENCE)
    world.revoked, _ = tokens.mint(1, ["submit", "read", "admin"], datetime.now(UTC), timedelta(hours=1))
    identity = tokens.verify(world.revoked, datetime.now(UTC))
    for server in world.servers.values():
        await server.services.authentication.revocations.revoke(identity, actor="admin", reason="lost")


# The cells ---------------------------------------------------------------------------------------------------------


async def ask_http(world: World, mode: str, row: Row, who: str) -> str:
    """`yes`, or the code of the refusal."""
    user_id = await world.new_user()
    method, path = row.ask.split(" ")
    parts = {"{board}": "all_time", "{slug}": "sprint", "{user_id}": str(user_id), "{path:path}": "nothing-here"}
    for part, value in parts.items():
        path = path.replace(part, value)
    token = world.token(who, user_id)
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    body = None if row.body is None else row.body(user_id)
    http = world.servers[mode].http
    if "/events" in path:  # what is let in does not end
        async with http.stream(method, path, headers=headers) as answer:
            if answer.status_code == 200:
                return "yes"
            await answer.aread()
    else:
        answer = await http.request(method, path, headers=headers, json=body, timeout=20)
    assert answer.status_code < 500, answer.text
    assert token is None or token not in answer.text + str(answer.headers), "a token in an answer"
    kind = answer.headers.get("content-type", "")
    shown = answer.json() if answer.content and kind.startswith("application/json") else {}
    if type(body) is list and "results" in shown:
        (shown,) = shown["results"]
    code = shown.get("code") or shown.get("error", {}).get("code")
    if type(body) is not list:
        assert (answer.status_code in (401, 403)) == (code in REFUSALS), answer.text
    return code if code in REFUSALS else "yes"


async def ask_socket(world: World, mode: str, row: Row, who: str) -> str:
    """The same over a socket, the token given at the handshake; for `auth`, in the message."""
    user_id = await world.new_user()
    token = world.token(who, user_id)
    by_message = row.ask == "auth"
    headers = {} if token is None or by_message else {"authorization": f"Bearer {token}"}
    url = world.servers[mode].ws_url
    async with connect(url, additional_headers=headers, proxy=None) as socket:
        message = {"type": row.ask, **(row.body(user_id) if row.body else {})}
        if by_message:
            message["token"] = token or world.token("own user", user_id)
        first = json.loads(await socket.recv())
        if first["type"] == "error":  # turned away
            with pytest.raises(ConnectionClosed):
                await socket.recv()
            assert (socket.close_code, socket.close_reason) == (close_codes.CloseCode.AUTHENTICATION, first["code"])
            return str(first["code"])
        assert first["type"] == "hello"
        await socket.send(json.dumps(message))
        await socket.send('{"type":"ping"}')
        return await _verdict(socket, row.ask)


async def _verdict(socket: ClientConnection, kind: str) -> str:
    """What the answer to a message comes to; where it has none of its own, that to the ping after it."""
    ends = ("accepted", "rejected") if kind == "submit" else ("pong",)
    while True:
        answer = json.loads(await socket.recv())
        if answer.get("code") in REFUSALS:
            return str(answer["code"])
        if answer["type"] in ends:
            return "yes"


def everybody(world: World, ask: Callable[..., Coroutine[Any, Any, str]], mode: str, row: Row) -> dict[str, str]:
    """What each one is told."""

    async def all_of_them() -> dict[str, str]:
        async with asyncio.timeout(PATIENCE):
            return {who: await ask(world, mode, row, who) for who in (*GOOD, *BAD)}

    found: dict[str, str] = world.run(all_of_them())
    return found


def cases(rows: list[Row]) -> list[Any]:
    return [pytest.param(mode, row, id=f"{mode}: {row.name}") for row in rows for mode in row.modes]


@pytest.mark.parametrize(("mode", "row"), cases(ROUTES))
def test_a_route_is_open_to_whom_the_table_says(world: World, mode: str, row: Row) -> None:
    found = everybody(world, ask_http, mode, row)
    assert found == {who: row.expected(who) for who in (*GOOD, *BAD)}


@pytest.mark.parametrize(("mode", "row"), cases(MESSAGES))
def test_a_message_is_open_to_whom_the_table_says(world: World, mode: str, row: Row) -> None:
    found = everybody(world, ask_socket, mode, row)
    assert found == {who: row.expected(who) for who in (*GOOD, *BAD)}


def test_every_route_is_in_the_table_and_nothing_else(world: World) -> None:
    routes = [
        *endpoints.routes(world.servers["public"].services, Sessions(world.servers["public"].services)),
        *documents.routes(),
        *pages.routes(resources.folder("web")),
    ]
    there: set[str] = set()
    for route in routes:
        assert isinstance(route, Route)
        there |= {f"{method} {route.path}" for method in (route.methods or set()) - {"HEAD"}}
    listed = {row.ask.partition("?")[0] for row in ROUTES if "/boards/current_week" not in row.ask}
    assert there == listed


def test_every_message_type_is_in_the_table_and_nothing_else() -> None:
    assert {row.ask for row in MESSAGES} == {"submit", *messages._READERS}


# The page ----------------------------------------------------------------------------------------------------------


def as_html() -> str:
    """The table as it stands in the documentation."""
    head = ["asked for", *GOOD, "bad token"]
    lines = ["<table>", "<thead>", "<tr>", *(f"<th>{name}</th>" for name in head), "</tr>", "</thead>", "<tbody>"]
    for row in [*ROUTES, *MESSAGES]:
        about = f"<code>{row.ask}</code>" + (f" {row.note}" if row.note else "")
        cells = ["yes" if row.expected(who) == "yes" else f"<code>{row.expected(who)}</code>" for who in GOOD]
        last = "yes" if row.cells[-1] == "y" else "no"
        lines += ["<tr>", *(f"<td>{cell}</td>" for cell in [about, *cells, last]), "</tr>"]
    return "\n".join([*lines, "</tbody>", "</table>"])


def test_the_documentation_shows_this_table() -> None:
    assert as_html() in html.unescape(PAGE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    print(as_html())
