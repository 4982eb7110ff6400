"""A connection of the tests: it records what is written to it, and is as slow as the test wants."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from realtime.wire.frames import Frame, Joined
from tests.support.following import Follower


def parts(frame: Frame) -> Iterable[Frame]:
    """What is in one write, each a message."""
    return frame.frames if isinstance(frame, Joined) else (frame,)


class RecordingConnection:
    """A connection: takes frames, and hands them to the client's board at once, for they arrive in that order."""

    def __init__(self) -> None:
        self.follower = Follower()
        self.frames: list[Frame] = []
        self.messages: list[dict[str, Any]] = []
        self.stalled = False
        self.buffered = 0
        self.is_closed = False
        self.closed_with: tuple[int, str] | None = None
        self.encoding = 0
        self.transport_kind = "websocket"
        self.descriptor = -1
        self.on_descriptor: Callable[[int], None] | None = None

    def write(self, frame: Frame, sent: int = 0) -> int:
        assert not sent, "there is no descriptor to write to"
        if self.is_closed:
            return -1
        for part in parts(frame):
            self.frames.append(part)
            message = json.loads(part.payload)
            self.messages.append(message)
            self.follower.take(message)
            if self.stalled:
                self.buffered += len(part.plain)
        return self.buffered

    def lead_away(self, within_s: float) -> None:
        """It goes by itself."""

    def close(self, code: int, reason: str = "") -> None:
        self.closed_with = (code, reason)
        self.is_closed = True

    def kinds(self) -> list[str]:
        return [message["type"] for message in self.messages]
