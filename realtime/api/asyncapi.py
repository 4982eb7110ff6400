"""AsyncAPI 3.0: what this server understands on its socket, for programs.

Owns what each close code means to a client. Must never describe a shape by itself: `schemas` does. Assumes that a test
compares the messages with the code that parses them.
"""

from __future__ import annotations

from typing import Any, Final

from realtime.api.schemas import FROM_CLIENT, FROM_SERVER, INFO, Schema
from realtime.wire.close_codes import CloseCode

CLOSE_CODES: Final[dict[CloseCode, str]] = {
    CloseCode.BROKEN: "What came is no WebSocket frame, or cannot be decompressed: this is a mistake in the client.",
    CloseCode.NOT_TEXT: "You sent a binary message: messages are text.",
    CloseCode.NOT_UTF8: "A text message was not UTF-8: this is a mistake in the client.",
    CloseCode.IDLE_FLOOD: "Too many pings, pongs or empty fragments: come back later, and send fewer.",
    CloseCode.TOO_LARGE: "A message was too long: come back, and do not send it again.",
    CloseCode.FAILED: "The server made a mistake: come back.",
    CloseCode.RESTART: "The server restarts: come back, at a random moment within what `reconnect` said.",
    CloseCode.AUTHENTICATION: "The token is no good: come back with another.",
    CloseCode.TOO_SLOW: "You did not read for too long: come back and get a snapshot.",
    CloseCode.LIMITS: "A limit was passed: come back later.",
}


def asyncapi() -> dict[str, Any]:
    """The AsyncAPI 3.0 document."""
    both = {**FROM_CLIENT, **FROM_SERVER}
    messages = {kind: {"name": kind, "title": kind, "payload": schema} for kind, schema in both.items()}
    channel = "#/channels/socket"
    codes = "\n".join(f"- {int(code)}: {meaning}" for code, meaning in CLOSE_CODES.items())

    def operation(action: str, kinds: dict[str, Schema]) -> dict[str, Any]:
        return {
            "action": action,
            "channel": {"$ref": channel},
            "messages": [{"$ref": f"{channel}/messages/{kind}"} for kind in kinds],
        }

    return {
        "asyncapi": "3.0.0",
        "info": INFO,
        "defaultContentType": "application/json",
        "channels": {
            "socket": {
                "address": "/ws",
                "description": f"One JSON object a text message. Close codes:\n{codes}",
                "messages": {kind: {"$ref": f"#/components/messages/{kind}"} for kind in messages},
            }
        },
        "operations": {"hear": operation("receive", FROM_CLIENT), "say": operation("send", FROM_SERVER)},
        "components": {"messages": messages},
    }
