"""Exchange: what a route takes from a request and gives as a response.

Owns their shapes: JSON that no cache keeps, one shape of error, numbers and bodies within bounds. Must never know what
a route does with them.
"""

from __future__ import annotations

from typing import Any, Final

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from realtime import wire
from realtime.errors import RealtimeError
from realtime.submissions import ID_MAX, Rejected, written_number

PAGE_LIMIT: Final = 1_000
"""Rows of one page."""


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
    body = {**wire.outcome_fields(outcome, live=True), **orjson.loads(response.body)}
    headers = {name: value for name, value in response.headers.items() if name != "content-length"}
    return json_response(body, error.status, headers)


async def json_of(request: Request, limit: int) -> Any:
    """The request's JSON. Raises RealtimeError `too_large` or `bad_message`."""
    return wire.loads(await bytes_of(request, limit))


async def bytes_of(request: Request, limit: int) -> bytes:
    """The request's body. Raises RealtimeError `too_large` or `bad_message`."""
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit:
                raise RealtimeError("too_large", f"The body may have at most {limit} bytes. Send it in parts.")
            chunks.append(chunk)
    except ClientDisconnect:
        raise RealtimeError("bad_message", "The body ended early.") from None
    return b"".join(chunks)


def object_of(value: Any, what: str = "The body") -> dict[str, Any]:
    """A body, or a row of one, that must be a JSON object. Raises RealtimeError `bad_message`."""
    if type(value) is not dict:
        raise RealtimeError("bad_message", f"{what} must be a JSON object.")
    return value


def number_in_query(request: Request, name: str, default: int, low: int, high: int) -> int:
    """A whole number that may be in the query. Raises RealtimeError `bad_message`, `out_of_range`."""
    text = request.query_params.get(name)
    if text is None:
        return default
    return written_number(text, name, low, high)


def user_in_path(request: Request) -> int:
    """The user that the path names."""
    return written_number(request.path_params["user_id"], "user_id", 1, ID_MAX)
