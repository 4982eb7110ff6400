"""Clients that never forget what they sent, and viewers that never give up.

Owns what was sent and what was acknowledged. Must never share code with the server: what a client may rely on is all it
knows. A submission without an answer is sent again under its id, as often as it takes, and one in ten that was answered
is sent again all the same.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter, deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from tests.support.following import Follower
from tests.support.waiting import SECOND

IN_FLIGHT = 20
REPLY_PATIENCE = 15 * SECOND
"""Seconds until a client takes its connection for dead."""

AGAIN = 0.1
"""Seconds between two tries."""

_BROKEN = (OSError, TimeoutError, WebSocketException, httpx.HTTPError)


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back for one submission, when (monotonic seconds), and after how long."""

    at: float
    took: float
    kind: str
    """`accepted`, or the code it was refused with."""
    live: bool


@dataclass
class Tally:
    """What all clients together sent, and what they were told."""

    prefix: str
    users: int
    generator: random.Random
    sent: dict[str, tuple[int, int]] = field(default_factory=dict)
    """User and score by submission id."""
    acknowledged: set[str] = field(default_factory=set)
    replies: list[Reply] = field(default_factory=list)
    closing: bool = False
    """No new submissions: what is unanswered is still sent again."""

    def make(self) -> dict[str, Any]:
        """A submission never sent before."""
        submission_id = f"{self.prefix}-{len(self.sent)}"
        user_id, score = self.generator.randint(1, self.users), self.generator.randint(-20, 100)
        self.sent[submission_id] = user_id, score
        return self.fields(submission_id)

    def fields(self, submission_id: str) -> dict[str, Any]:
        user_id, score = self.sent[submission_id]
        return {"submission_id": submission_id, "user_id": user_id, "score_added": score, "reason": "chaos"}

    def take(self, answer: dict[str, Any], took: float) -> bool:
        """Takes an answer in; whether the submission is done with."""
        accepted = answer.get("code") is None
        kind = "accepted" if accepted else answer["code"]
        self.replies.append(Reply(monotonic(), took, kind, answer.get("live", True)))
        if accepted:
            known = answer["submission_id"] in self.acknowledged
            assert answer["duplicate"] or not known, f"{answer['submission_id']} was recorded twice"
            self.acknowledged.add(answer["submission_id"])
            return self.generator.random() > 0.1
        assert kind in ("unavailable", "overloaded"), answer
        assert answer["retry_after_ms"] > 0, "a refusal without a hint"
        return False

    def since(self, moment: float, until: float = float("inf")) -> list[Reply]:
        """Replies that came between two moments."""
        return [reply for reply in self.replies if moment <= reply.at < until]

    def refused(self) -> Counter[str]:
        return Counter(reply.kind for reply in self.replies if reply.kind != "accepted")


class SocketSender:
    """Sends over WebSocket, some in flight at once."""

    def __init__(self, tally: Tally, base_url: str, token: str) -> None:
        self._tally = tally
        self._url = base_url.replace("http", "ws", 1) + "/ws"
        self._token = token
        self._open: dict[str, float] = {}  # submission id -> when it was sent last

    async def run(self) -> None:
        while not (self._tally.closing and not self._open):
            try:
                headers = {"authorization": f"Bearer {self._token}"}
                async with connect(
                    self._url,
                    additional_headers=headers,
                    proxy=None,
                    open_timeout=5,
                    ping_interval=None,
                    close_timeout=0.1,
                ) as socket:
                    await self._converse(socket)
            except _BROKEN:
                await asyncio.sleep(AGAIN)

    async def _converse(self, socket: ClientConnection) -> None:
        again = deque((0.0, submission_id) for submission_id in self._open)  # when to send it again
        while True:
            while again and again[0][0] <= monotonic():
                await self._send(socket, self._tally.fields(again.popleft()[1]))
            while len(self._open) < IN_FLIGHT and not self._tally.closing:
                await self._send(socket, self._tally.make())
            if not self._open:
                return
            try:
                async with asyncio.timeout(AGAIN if again else REPLY_PATIENCE):
                    message = json.loads(await socket.recv())
            except TimeoutError:
                if again:
                    continue
                raise
            if message["type"] in ("accepted", "rejected"):
                submission_id = message["submission_id"]
                if self._tally.take(message, monotonic() - self._open[submission_id]):
                    del self._open[submission_id]
                else:
                    again.append((monotonic() + AGAIN, submission_id))

    async def _send(self, socket: ClientConnection, fields: dict[str, Any]) -> None:
        self._open[fields["submission_id"]] = monotonic()
        await socket.send(json.dumps({"type": "submit", **fields}))


class HttpSender:
    """Sends over HTTP, lists and single ones in turn."""

    def __init__(self, tally: Tally, base_url: str, token: str) -> None:
        self._tally = tally
        self._base_url = base_url
        self._token = token
        self._open: set[str] = set()

    async def run(self) -> None:
        async with httpx.AsyncClient(
            base_url=self._base_url,
            headers={"authorization": f"Bearer {self._token}"},
            timeout=REPLY_PATIENCE,
            trust_env=False,
        ) as http:
            while not (self._tally.closing and not self._open):
                if not self._open:
                    size = self._tally.generator.choice([1, IN_FLIGHT])
                    self._open = {self._tally.make()["submission_id"] for _ in range(size)}
                try:
                    await self._exchange(http)
                except _BROKEN:
                    await asyncio.sleep(AGAIN)

    async def _exchange(self, http: httpx.AsyncClient) -> None:
        rows = [self._tally.fields(submission_id) for submission_id in sorted(self._open)]
        began = monotonic()
        response = await http.post("/scores", json=rows if len(rows) > 1 else rows[0])
        took = monotonic() - began
        body = response.json()
        if "results" not in body and "submission_id" not in body:
            assert response.status_code == 503, body  # all of it: the server is leaving, or has no room
            return await asyncio.sleep(AGAIN)
        for answer in body.get("results", [body]):
            if self._tally.take(answer, took):
                self._open.discard(answer["submission_id"])
        if self._open:
            await asyncio.sleep(AGAIN)


class Viewer:
    """Follows boards, comes back when it is thrown out, and holds the server to the protocol all the while."""

    def __init__(self, base_url: str, boards: Sequence[str] = ("all_time", "current_week")) -> None:
        self._url = base_url.replace("http", "ws", 1) + "/ws"
        self._boards = boards
        self.follower = Follower()
        self.statuses: list[tuple[float, bool]] = []
        """When a status came, and what it said."""
        self.connections = 0

    async def run(self) -> None:
        while True:
            try:
                async with connect(
                    self._url,
                    proxy=None,
                    open_timeout=5,
                    ping_interval=1,
                    ping_timeout=5,
                    close_timeout=0.1,
                    max_size=None,
                ) as socket:
                    self.connections += 1
                    for board in self._boards:
                        await self._subscribe(socket, board)
                    await self._follow(socket)
            except _BROKEN:
                await asyncio.sleep(AGAIN)

    async def _subscribe(self, socket: ClientConnection, board: str) -> None:
        known = self.follower.boards.get(board)
        since = {"since": {"epoch": known.epoch, "version": known.version}} if known else {}
        await socket.send(json.dumps({"type": "subscribe", "board": board, **since}))

    async def _follow(self, socket: ClientConnection) -> None:
        async for raw in socket:
            message = json.loads(raw)
            self.follower.take(message)
            if message["type"] == "status":
                self.statuses.append((monotonic(), message["live"]))
            elif message["type"] == "error":
                assert message["code"] == "unavailable", message
                await asyncio.sleep(AGAIN)
                await self._subscribe(socket, message["board"])


@dataclass
class Crowd:
    """Senders and viewers at work."""

    tally: Tally
    viewers: list[Viewer]
    senders: list[asyncio.Task[None]]
    watching: list[asyncio.Task[None]]

    def check(self) -> None:
        """Raises what a client found wrong."""
        for task in (*self.senders, *self.watching):
            if task.done():
                task.result()

    async def finish(self, patience: float = 60.0) -> None:
        """No new submissions; returns when every one that was sent has been acknowledged."""
        self.tally.closing = True
        async with asyncio.timeout(patience):
            await asyncio.gather(*self.senders)
        self.check()


@asynccontextmanager
async def crowd(
    tally: Tally, addresses: Sequence[str], token: str, *, sockets: int = 4, https: int = 2, viewers: int = 2
) -> AsyncIterator[Crowd]:
    """A crowd at work on all servers, gone when the block ends."""
    kinds = [SocketSender] * sockets + [HttpSender] * https
    senders = [kind(tally, addresses[n % len(addresses)], token) for n, kind in enumerate(kinds)]
    watching = [Viewer(addresses[n % len(addresses)]) for n in range(viewers)]
    loop = asyncio.get_running_loop()
    made = Crowd(
        tally,
        watching,
        [loop.create_task(sender.run()) for sender in senders],
        [loop.create_task(viewer.run()) for viewer in watching],
    )
    try:
        yield made
    finally:
        for task in (*made.senders, *made.watching):
            task.cancel()
        await asyncio.gather(*made.senders, *made.watching, return_exceptions=True)
