"""An audience: thousands of viewers of one board in a process of their own, each as little as a viewer can be.

`python -m tests.support.audience HOST PORT COUNT`; each line on standard input is answered with a report in JSON. A
viewer comes back as the protocol asks and holds the server to its chain of versions; what a message says is looked at
once for all who got the same bytes. Must never share code with the server, nor with the full clients beside it.
"""

from __future__ import annotations

import asyncio
import json
import random
import struct
import sys
import time
from collections import Counter
from functools import lru_cache
from typing import Any, cast

import uvloop

BOARD = "all_time"
CONNECTS_AT_ONCE = 100
"""Viewers that arrive in one twentieth of a second, at first."""

STATES_HELD = 2_000
"""A minute's, from three servers."""

TEXT, CLOSE, PING, PONG = 0x1, 0x8, 0x9, 0xA

State = tuple[str, int]
"""Epoch and version."""


@lru_cache(maxsize=4096)
def understood(payload: bytes) -> dict[str, Any]:
    """A message: parsed once, however many get it."""
    message: dict[str, Any] = json.loads(payload)
    return message


class Boards:
    """The board at each state that somebody has seen: made once a distinct message, and the same by every way."""

    def __init__(self, wrong: list[str]) -> None:
        self._wrong = wrong
        self._scores: dict[State, dict[int, int]] = {}  # the oldest first
        self._seen: dict[bytes, None] = {}

    def take(self, message: dict[str, Any], payload: bytes) -> None:
        """Takes a `snapshot` or `diff`, unless one of these very bytes was taken before."""
        if payload in self._seen:
            return
        self._seen[payload] = None
        state = message["epoch"], message["version"]
        if message["type"] == "snapshot":
            scores = {entry["user_id"]: entry["score"] for entry in message["entries"]}
        else:
            scores = dict(self._scores[message["epoch"], message["from"]])
            scores.update((upsert["user_id"], upsert["score"]) for upsert in message["upsert"])
            for user_id in message["remove"]:
                del scores[user_id]
        if self._scores.setdefault(state, scores) != scores:
            self._wrong.append(f"two boards at {state}: {payload[:120].decode()}")
        for held in (self._scores, self._seen):
            if len(held) > STATES_HELD:
                del held[next(iter(held))]  # type: ignore[attr-defined]

    def at(self, state: State | None) -> dict[int, int]:
        """The board at a state."""
        return self._scores[state] if state else {}


class Audience:
    """All viewers, and what they count together."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.connects: Counter[int] = Counter()  # attempts, by second
        self.closes: Counter[str] = Counter()
        self.lateness: dict[int, float] = {}  # of this process's loop, in seconds, by second
        self.wrong: list[str] = []
        self.boards = Boards(self.wrong)
        self.viewers: list[Viewer] = []

    async def fill(self, count: int) -> None:
        for number in range(count):
            viewer = Viewer(self)
            self.viewers.append(viewer)
            viewer.come()
            if number % CONNECTS_AT_ONCE == CONNECTS_AT_ONCE - 1:
                await asyncio.sleep(0.05)

    async def watch_lateness(self) -> None:
        """How far what is counted here may be off. Never ends by itself."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + 0.1
            await asyncio.sleep(0.1)
            second = int(time.monotonic())
            self.lateness[second] = max(round(loop.time() - due, 2), self.lateness.get(second, 0.0))

    def report(self) -> dict[str, Any]:
        """Everything there is to say."""
        states = Counter(viewer.state for viewer in self.viewers)
        (most, count), *_ = states.most_common(1)
        return {
            "viewers": len(self.viewers),
            "agreeing": count,  # on `scores`
            "scores": self.boards.at(most),
            "connects": self.connects,
            "closes": self.closes,
            "lateness": self.lateness,
            "wrong": self.wrong[:10],
        }


class Viewer(asyncio.Protocol):
    """One viewer; its connections come one after another."""

    def __init__(self, audience: Audience) -> None:
        self._audience = audience
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._greeted = False
        self._attempt = 0
        self._back_at: float | None = None  # when to come back, where the server asked
        self._coming: asyncio.Task[None] | None = None
        self.state: State | None = None

    def come(self) -> None:
        """One attempt at a connection."""
        self._audience.connects[int(time.monotonic())] += 1
        self._coming = asyncio.ensure_future(self._come())

    async def _come(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: self, self._audience.host, self._audience.port)
        except OSError:
            self._again()

    def _again(self) -> None:
        """After a break: at the moment that was agreed on, or after a random, growing pause."""
        loop = asyncio.get_running_loop()
        wait = random.random() * min(30, 2**self._attempt)
        if self._back_at is not None:
            wait = max(0.0, self._back_at - loop.time())
        self._attempt, self._back_at = self._attempt + 1, None
        loop.call_later(wait, self.come)

    # The connection ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast(asyncio.Transport, transport)
        self._buffer, self._greeted = b"", False
        transport.write(
            b"GET /ws HTTP/1.1\r\nHost: audience\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._again()

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        if not self._greeted:
            head, end, buffer = buffer.partition(b"\r\n\r\n")
            if not end:
                self._buffer = head
                return
            if not head.startswith(b"HTTP/1.1 101 "):
                self._audience.closes[head[:12].decode()] += 1
                self._leave()
                return
            self._greeted, self._attempt = True, 0
            since = {"since": {"epoch": self.state[0], "version": self.state[1]}} if self.state else {}
            self._send(TEXT, json.dumps({"type": "subscribe", "board": BOARD, **since}).encode())
        start = 0
        while (end_of := _frame(buffer, start)) is not None:
            begin, end_at = end_of
            self._frame(buffer[start] & 0x0F, buffer[begin:end_at])
            start = end_at
        self._buffer = buffer[start:]

    def _frame(self, kind: int, payload: bytes) -> None:
        if kind == TEXT:
            self._hear(understood(payload), payload)
        elif kind == PING:
            self._send(PONG, payload)
        elif kind == CLOSE:
            self._audience.closes[str(struct.unpack("!H", payload[:2])[0])] += 1
            self._send(CLOSE, payload[:2])
            self._leave()

    def _send(self, kind: int, payload: bytes) -> None:
        if self._transport is not None:  # masked with zeros, which leave the payload as it is
            length = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + struct.pack("!H", len(payload))
            self._transport.write(bytes([0x80 | kind]) + length + bytes(4) + payload)

    def _leave(self) -> None:
        if self._transport is not None:
            self._transport.close()

    # Messages ------------------------------------------------------------------------------------------------

    def _hear(self, message: dict[str, Any], payload: bytes) -> None:
        kind = message["type"]
        if kind in ("snapshot", "diff"):
            if kind == "diff" and (message["epoch"], message["from"]) != self.state:
                self._audience.wrong.append(f"at {self.state}: {payload[:120].decode()}")
            self.state = message["epoch"], message["version"]
            self._audience.boards.take(message, payload)
        elif kind == "reconnect":
            loop = asyncio.get_running_loop()
            self._back_at = loop.time() + random.random() * message["after_ms"] / 1000
            loop.call_at(self._back_at, self._leave)
        elif kind == "error":
            self._audience.wrong.append(payload.decode())


def _frame(buffer: bytes, start: int) -> tuple[int, int] | None:
    """Where the payload of the frame at `start` begins and ends; None where it is not all there."""
    if len(buffer) < start + 2:
        return None
    length, begin = buffer[start + 1], start + 2
    if length >= 126:
        size = 2 if length == 126 else 8
        if len(buffer) < begin + size:
            return None
        length = int.from_bytes(buffer[begin : begin + size])
        begin += size
    return (begin, begin + length) if len(buffer) >= begin + length else None


async def main(host: str, port: int, count: int) -> None:
    audience = Audience(host, port)
    await audience.fill(count)
    watching = asyncio.ensure_future(audience.watch_lateness())
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while await lines.readline():
        print(json.dumps(audience.report()), flush=True)
    watching.cancel()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
