"""Routes of people: registering, signing in, oneself, bans, a user's log.

Owns how people look over HTTP, and how often one may try. Must never hold state or reach a store by itself. Assumes
that `accounts` checks what a name, an address and a password may be.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from realtime.api.requests import PAGE_LIMIT, bytes_of, json_of, number_in_query, object_of, user_in_path
from realtime.api.responses import json_response
from realtime.api.services import Services
from realtime.boards.leaderboard import DEFAULT, Leaderboard
from realtime.errors import RealtimeError
from realtime.people.accounts import Entry
from realtime.people.authentication import client_address
from realtime.people.permissions import unknown
from realtime.people.rate_limits import Limit, account_key
from realtime.settings import Settings
from realtime.validation import ID_MAX
from realtime.wire import messages


@dataclass(frozen=True, slots=True)
class AccountLimits:
    """How often one may register and sign in; see the settings of the same names."""

    registrations: Limit
    logins: Limit
    logins_of_account: Limit

    @classmethod
    def of(cls, settings: Settings) -> AccountLimits:
        return cls(
            Limit("registrations", settings.registrations_per_address, 3_600),
            Limit("logins", settings.logins_per_address, 60),
            Limit("logins_of_one_account", settings.logins_per_account, 60),
        )


def entry_fields(user_id: int, entry: Entry, leaderboard: Leaderboard = DEFAULT) -> dict[str, Any]:
    """A row of a log as it is shown: whoever hands it in again, here or in a file, changes nothing."""
    where = {} if leaderboard.slug == DEFAULT.slug else {"leaderboard": leaderboard.slug}
    return {
        "id": entry.id,
        **where,
        "user_id": user_id,
        "submission_id": entry.submission_id,
        "score_added" if leaderboard.definition.operator == "sum" else "score": entry.score_added,
        "reason": entry.reason or None,
        "created_at": messages.exact_moment(entry.created_at),
    }


class PeopleRoutes:
    """The routes below `/users` and `/sessions`."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._limits = AccountLimits.of(services.settings)

    def routes(self) -> list[BaseRoute]:
        """The five routes."""
        return [
            Route("/users", self.register, methods=["POST"]),
            Route("/sessions", self.sign_in, methods=["POST"]),
            Route("/users/me", self.me, methods=["GET", "PATCH", "DELETE"]),
            Route("/users/{user_id}/ban", self.ban, methods=["POST", "DELETE"]),
            Route("/users/{user_id}/transactions", self.transactions, methods=["GET"]),
        ]

    async def register(self, request: Request) -> Response:
        """A new user, where registration is open or an admin asks."""
        identity = self._services.authentication.identity(request)
        self._services.authentication.permissions.register(identity)
        body = object_of(await json_of(request, self._services.settings.max_message_bytes))
        if identity is None or not identity.may("admin"):
            await self._services.rate_limits.check(self._limits.registrations, client_address(request))
        user_id = await self._services.accounts.register(body.get("email"), body.get("password"), body.get("username"))
        return json_response({"user_id": user_id, "username": body["username"]}, 201)

    async def sign_in(self, request: Request) -> Response:
        """A token for one's own scores."""
        body = object_of(await json_of(request, self._services.settings.max_message_bytes))
        await self._services.rate_limits.check(self._limits.logins, client_address(request))
        await self._services.rate_limits.check(self._limits.logins_of_account, account_key(body.get("email")))
        user_id = await self._services.accounts.sign_in(body.get("email"), body.get("password"))
        return json_response(self._token(user_id))

    def _token(self, user_id: int) -> dict[str, Any]:
        lifetime = timedelta(seconds=self._services.settings.token_lifetime_s)
        scopes = ["submit", "read"] if self._services.authentication.permissions.private else ["submit"]
        generation = self._services.authentication.revocations.generation
        token, expires_at = self._services.tokens.mint(
            user_id, scopes, self._services.clock.now(), lifetime, generation=generation
        )
        return {"token": token, "expires_at": messages.moment(expires_at), "user_id": user_id}

    async def me(self, request: Request) -> Response:
        """Oneself: look, rename, leave for good."""
        user_id = self._services.authentication.permissions.own_user(self._services.authentication.identity(request))
        if request.method == "PATCH":
            body = object_of(await json_of(request, self._services.settings.max_message_bytes))
            await self._services.accounts.rename(user_id, body.get("username"))
        if request.method == "DELETE":
            await self._services.accounts.delete(user_id, actor=f"user:{user_id}")
            return Response(status_code=204)
        person = await self._services.accounts.person(user_id)
        return json_response(
            {
                "user_id": person.user_id,
                "email": person.email,
                "username": person.username,
                "created_at": messages.moment(person.created_at),
                "banned": person.banned,
            }
        )

    async def ban(self, request: Request) -> Response:
        """Hides a player from every board, or from a leaderboard's, or shows them again."""
        identity = self._services.authentication.permissions.administer(self._services.authentication.identity(request))
        user_id = user_in_path(request)
        raw = await bytes_of(request, self._services.settings.max_message_bytes)
        body = object_of(messages.loads(raw)) if raw else {}
        if wrong := body.keys() - {"leaderboard", "reason"}:  # a slip must not ban from every board
            raise RealtimeError("bad_message", f"There is no field {min(wrong)!a}: use leaderboard and reason.")
        leaderboard = body.get("leaderboard")
        if leaderboard is not None and type(leaderboard) is not str:
            raise RealtimeError("bad_message", "leaderboard must be the slug of one, as a text.")
        act = self._services.accounts.ban if request.method == "POST" else self._services.accounts.unban
        await act(user_id, actor=identity.actor, reason=body.get("reason"), leaderboard=leaderboard)
        where = {} if leaderboard is None else {"leaderboard": leaderboard}
        return json_response({"user_id": user_id, **where, "banned": request.method == "POST"})

    async def transactions(self, request: Request) -> Response:
        """A user's log, newest first; `before` pages on."""
        identity = self._services.authentication.identity(request)
        if identity is None:
            raise unknown()
        user_id = user_in_path(request)
        self._services.authentication.permissions.see_log(identity, user_id)
        limit = number_in_query(request, "limit", 100, 1, PAGE_LIMIT)
        before = number_in_query(request, "before", ID_MAX, 1, ID_MAX)
        slug = request.query_params.get("leaderboard", DEFAULT.slug)
        await self._services.leaderboards.look_up(slug)
        source = self._services.leaderboards.current.source(slug)
        entries = await self._services.accounts.entries(user_id, before, limit, source.id)
        rows = [entry_fields(user_id, entry, source) for entry in entries]
        return json_response({"user_id": user_id, "transactions": rows})
