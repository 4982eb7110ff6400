"""Responses: what a route answers with.

Owns JSON that no cache keeps, and the one shape of an error. Must never know what a route does. Assumes that an error's
message is fit for whoever asked.
"""

from __future__ import annotations

from typing import Any

import orjson
from starlette.responses import Response

from realtime.boards.definitions import DefinitionError
from realtime.boards.submissions import Rejected
from realtime.errors import RealtimeError
from realtime.wire import messages


def json_response(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """`value` as JSON that no cache keeps."""
    return Response(
        orjson.dumps(value),
        status,
        media_type="application/json",
        headers={"cache-control": "no-store", **(headers or {})},
    )


def error_response(error: RealtimeError) -> Response:
    """An error in the one shape there is, with the hint when to try again."""
    fields: dict[str, Any] = {"code": error.code, "message": error.message}
    headers: dict[str, str] = {}
    if isinstance(error, DefinitionError):
        fields["problems"] = [problem._asdict() for problem in error.problems]
    if error.retry_after_ms is not None:
        fields["retry_after_ms"] = error.retry_after_ms
        headers["retry-after"] = str(max(1, -(-error.retry_after_ms // 1000)))
    if error.code in ("unauthorized", "expired"):
        headers["www-authenticate"] = "Bearer"
    return json_response({"error": fields}, error.status, headers)


def rejection_response(outcome: Rejected) -> Response:
    """One refused submission: its outcome, and the error as everywhere."""
    error = RealtimeError(outcome.code, outcome.message, retry_after_ms=outcome.retry_after_ms)
    response = error_response(error)
    body = {**messages.outcome_fields(outcome, live=True), **orjson.loads(response.body)}
    headers = {name: value for name, value in response.headers.items() if name != "content-length"}
    return json_response(body, error.status, headers)
