"""Requests: what a route takes from a request.

Owns how a body, a number in the query and a user in the path are read, and their bounds. Must never know what a route
does with them. Assumes that whatever is wrong leaves the route as a RealtimeError.
"""

from __future__ import annotations

from typing import Any, Final

from starlette.requests import ClientDisconnect, Request

from realtime.errors import RealtimeError
from realtime.validation import ID_MAX, written_number
from realtime.wire import messages

PAGE_LIMIT: Final = 1_000
"""Rows of one page."""

WAIT_SECONDS: Final = 55
"""A request waits so long at most: proxies give up after 60."""


async def json_of(request: Request, limit: int) -> Any:
    """The request's JSON. Raises RealtimeError `too_large` or `bad_message`."""
    return messages.loads(await bytes_of(request, limit))


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
    """The user that the path names. Raises RealtimeError `bad_message`, `out_of_range`."""
    return written_number(request.path_params["user_id"], "user_id", 1, ID_MAX)
