"""Route of scores: one submission, or a list.

Owns the order of outcomes in an answer. Must never hold state or reach a store by itself. Assumes that admission
answers every submission.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from realtime.api.requests import json_of, object_of
from realtime.api.responses import json_response, rejection_response
from realtime.api.services import Services
from realtime.boards.submissions import Outcome, Rejected, parse_submission, submission_id_of
from realtime.errors import RealtimeError
from realtime.people.identity import Identity
from realtime.people.permissions import unknown
from realtime.wire import messages

LIST_LIMIT: Final = 1_000


class ScoreRoutes:
    """The route `/scores`."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def routes(self) -> list[BaseRoute]:
        """The one route."""
        return [Route("/scores", self.submit, methods=["POST"])]

    async def submit(self, request: Request) -> Response:
        """One submission, or up to 1,000 of them."""
        identity = self._services.authentication.identity(request)
        if identity is None:
            raise unknown()
        body = await json_of(request, self._services.settings.max_body_bytes)
        if type(body) is dict:
            (outcome,) = await self._record([body], identity)
            if isinstance(outcome, Rejected):
                return rejection_response(outcome)
            return json_response(messages.outcome_fields(outcome, self._services.intake.is_live(outcome)))
        if type(body) is not list or not 1 <= len(body) <= LIST_LIMIT:
            raise RealtimeError("bad_message", f"Send one submission, or a list of 1 to {LIST_LIMIT}.")
        outcomes = await self._record(body, identity)
        is_live = self._services.intake.is_live
        return json_response({"results": [messages.outcome_fields(one, is_live(one)) for one in outcomes]})

    async def _record(self, rows: list[Any], identity: Identity) -> list[Outcome]:
        """The outcome of each row, in order; a bad one is answered alone."""
        results: list[Outcome | None] = [None] * len(rows)
        left = len(rows)
        done = asyncio.get_running_loop().create_future()

        def answer(place: int, outcome: Outcome) -> None:
            nonlocal left
            results[place] = permissions.told(identity, outcome)
            if isinstance(outcome, Rejected):
                self._services.refused(outcome.code)
            left -= 1
            if left == 0 and not done.done():
                done.set_result(None)

        directory, permissions = self._services.leaderboards, self._services.authentication.permissions
        for place, row in enumerate(rows):
            try:
                fields = object_of(row, "A row of the list")
                if type(slug := fields.get("leaderboard")) is str:
                    await directory.look_up(slug)
                catalogue = directory.current
                submission = parse_submission(fields, identity.user_id, catalogue, self._services.clock.now)
                permissions.submit(identity, submission, catalogue.leaderboard(submission.leaderboard))
            except RealtimeError as error:
                known = submission_id_of(row) if type(row) is dict else None
                answer(place, Rejected.of(known, error))
                continue
            self._services.admission.submit(identity, submission, partial(answer, place))
        await done
        return [outcome for outcome in results if outcome is not None]
