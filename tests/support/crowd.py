"""Crowds: many at once, as a deployment meets them. There are two, which differ on purpose.

`Players` are on `realtime.client`, with an audience of lean viewers beside them: they show what users of it see. The
`Insistent` speak the protocol themselves and share no code with the server: what a client may rely on is all they know.
They never forget what they sent, and never give up looking. A submission without an answer is sent again under its id,
as often as it takes, and one in ten that was answered is sent again all the same.

Owns what was sent, what was acknowledged, and what each viewer last saw. Must never give up a submission, nor look into
a server.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

import httpx
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as connect_socket
from websockets.exceptions import WebSocketException

from realtime.client import Accepted, Client, Snapshot, connect
from tests.support.following import Follower
from tests.support.waiting import PATIENCE, SECOND, eventually

IN_FLIGHT = 20
REPLY_PATIENCE = 15 * SECOND
"""Seconds until a client takes its connection for dead."""

AGAIN = 0.1
"""Seconds between two tries."""

FOLLOWED = ("all_time", "current_week")
"""Boards that a viewer follows where nothing else is said."""

BROKEN = (OSError, TimeoutError, WebSocketException, httpx.HTTPError)


# On the client of the project ------------------------------------------------------------------------------------


class Players:
    """Viewers of `all_time`, and submitters of one point at a time."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.connects: Counter[int] = Counter()  # by second
        self.boards: list[Snapshot | None] = []
        self.accepted: dict[int, int] = {}  # user -> points acknowledged
        self.outcomes: Counter[str] = Counter()
        self._stack = AsyncExitStack()
        self._tasks: list[asyncio.Task[None]] = []
        self._submitting = asyncio.Event()
        self._audience: asyncio.subprocess.Process | None = None
        self._submitters: list[asyncio.Task[None]] = []

    def _connection(self, *args: Any, **options: Any) -> ClientConnection:
        self.connects[int(time.monotonic())] += 1
        return ClientConnection(*args, **options)

    async def _client(self, token: str | None = None) -> Client:
        return await self._stack.enter_async_context(
            connect(self._url, token=token, proxy=None, create_connection=self._connection)
        )

    async def view(self, count: int) -> None:
        """So many more viewers, each with the board before its eyes."""
        for _ in range(count):
            place = len(self.boards)
            self.boards.append(None)
            self._tasks.append(asyncio.ensure_future(self._watch(await self._client(), place)))
            if place % 50 == 49:
                await asyncio.sleep(0.05)
        await eventually(lambda: None not in self.boards, 60)

    async def _watch(self, client: Client, place: int) -> None:
        async for board in client.subscribe("all_time"):
            self.boards[place] = board

    async def fill(self, count: int) -> None:
        """So many lean viewers besides, in a process of their own: full ones would be all that a machine does."""
        at = urlsplit(self._url)
        self._audience = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.support.audience", str(at.hostname), str(at.port), str(count),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=2**20, cwd=Path(__file__).parents[2],
        )  # fmt: skip

        async def all_agree() -> bool:
            return (await self.report())["agreeing"] == count

        await eventually(all_agree, 60)

    async def report(self) -> dict[str, Any]:
        """What the audience has to say; see `audience`."""
        if self._audience is None:
            return {"viewers": 0, "agreeing": 0, "scores": {}, "connects": {}, "closes": {}, "lateness": {}}
        assert self._audience.stdin is not None and self._audience.stdout is not None
        self._audience.stdin.write(b"\n")
        report: dict[str, Any] = json.loads(await self._audience.stdout.readline())
        assert not report["wrong"], report["wrong"]
        return report

    async def moved(self, since: float = 0.0) -> Counter[int]:
        """Everybody's attempts to connect by second, from a moment on."""
        theirs = {int(second): count for second, count in (await self.report())["connects"].items()}
        both = self.connects + Counter(theirs)
        return Counter({second: count for second, count in both.items() if second >= int(since)})

    async def submit(self, token: str, users: list[int], each_second: float) -> None:
        """From now on so many submissions a second, spread over users, until `finish`."""
        client = await self._client(token)
        self._submitters.append(asyncio.ensure_future(self._submit(client, users, each_second)))

    async def _submit(self, client: Client, users: list[int], each_second: float) -> None:
        loop = asyncio.get_running_loop()
        waiting: set[asyncio.Task[None]] = set()
        due, n = loop.time(), 0
        while not self._submitting.is_set():
            task = asyncio.ensure_future(self._one(client, users[n % len(users)]))
            waiting.add(task)
            task.add_done_callback(waiting.discard)
            n += 1
            due += 1 / each_second
            await asyncio.sleep(max(0.0, due - loop.time()))
        await asyncio.gather(*waiting)

    async def _one(self, client: Client, user: int) -> None:
        outcome = await client.submit(1, user_id=user)
        self.outcomes[type(outcome).__name__] += 1
        if isinstance(outcome, Accepted):
            self.accepted[user] = self.accepted.get(user, 0) + 1

    async def finish(self) -> None:
        """No more submissions; returns when each has its outcome."""
        self._submitting.set()
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*self._submitters)

    async def all_show(self, scores: dict[int, int], patience: float = 60) -> None:
        """Returns when every viewer's board is `scores`."""

        async def they_do() -> bool:
            report = await self.report()
            theirs = {int(user): score for user, score in report["scores"].items()}
            return report["agreeing"] == report["viewers"] and (theirs == scores or not report["viewers"])

        await eventually(lambda: all(board and dict(board.scores) == scores for board in self.boards), patience)
        await eventually(they_do, patience)

    async def aclose(self) -> None:
        for task in [*self._tasks, *self._submitters]:
            task.cancel()
        await asyncio.gather(*self._tasks, *self._submitters, return_exceptions=True)
        await self._stack.aclose()
        if self._audience is not None:
            self._audience.kill()
            await self._audience.wait()


@asynccontextmanager
async def players(url: str) -> AsyncIterator[Players]:
    """Players at this address, gone at the end of the block."""
    made = Players(url)
    try:
        yield made
    finally:
        await made.aclose()


# On the bare protocol -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back for one submission, when (monotonic seconds), and after how long."""

    at: float
    took: float
    kind: str
    """`accepted`, or the code it was refused with."""
    live: bool
    leaderboard: str


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
    forgets: bool = False
    """Whether the ledger may have lost what it acknowledged: then it may be recorded again."""
    closing: bool = False
    """No new submissions: what is unanswered is still sent again."""
    leaderboards: Sequence[str] = ("default",)
    """To which of these a submission goes is left to chance."""
    resting: int = 0
    """So many of the users score no more: nothing that comes later makes good what is lost of theirs."""
    elsewhere: dict[str, str] = field(default_factory=dict)
    """The leaderboard of a submission by its id, where it is another than `default`."""

    def make(self) -> dict[str, Any]:
        """A submission never sent before."""
        submission_id = f"{self.prefix}-{len(self.sent)}"
        user_id, score = self.generator.randint(1, self.users - self.resting), self.generator.randint(-20, 100)
        self.sent[submission_id] = user_id, score
        if len(self.leaderboards) > 1:
            self.elsewhere[submission_id] = self.generator.choice(self.leaderboards)
        return self.fields(submission_id)

    def fields(self, submission_id: str) -> dict[str, Any]:
        user_id, score = self.sent[submission_id]
        slug = self.elsewhere.get(submission_id)
        there = {} if slug is None else {"leaderboard": slug}
        return {"submission_id": submission_id, "user_id": user_id, "score_added": score, "reason": "chaos", **there}

    def take(self, answer: dict[str, Any], took: float) -> bool:
        """Takes an answer in; whether the submission is done with."""
        accepted = answer.get("code") is None
        kind = "accepted" if accepted else answer["code"]
        where = self.elsewhere.get(answer["submission_id"], "default")
        self.replies.append(Reply(monotonic(), took, kind, answer.get("live", True), where))
        if accepted:
            known = answer["submission_id"] in self.acknowledged
            assert answer["duplicate"] or not known or self.forgets, f"{answer['submission_id']} was recorded twice"
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
                async with connect_socket(
                    self._url,
                    additional_headers=headers,
                    proxy=None,
                    open_timeout=5,
                    ping_interval=None,
                    close_timeout=0.1,
                ) as socket:
                    await self._converse(socket)
            except BROKEN:
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
                except BROKEN:
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

    def __init__(self, base_url: str, boards: Sequence[str]) -> None:
        self._url = base_url.replace("http", "ws", 1) + "/ws"
        self.boards = boards
        self.follower = Follower()
        self.statuses: list[tuple[float, bool]] = []
        """When a status came, and what it said."""
        self.connections = 0
        self.diffs: list[float] = []
        """When a diff came (monotonic seconds)."""

    async def run(self) -> None:
        while True:
            try:
                async with connect_socket(
                    self._url,
                    proxy=None,
                    open_timeout=5,
                    ping_interval=1,
                    ping_timeout=5,
                    close_timeout=0.1,
                    max_size=None,
                ) as socket:
                    self.connections += 1
                    for board in self.boards:
                        await self._subscribe(socket, board)
                    await self._follow(socket)
            except BROKEN:
                await asyncio.sleep(AGAIN)

    async def _subscribe(self, socket: ClientConnection, board: str) -> None:
        known = self.follower.boards.get(board)
        since = {"since": {"epoch": known.epoch, "version": known.version}} if known else {}
        await socket.send(json.dumps({"type": "subscribe", "board": board, **since}))

    async def _follow(self, socket: ClientConnection) -> None:
        async for raw in socket:
            message = json.loads(raw)
            self.follower.take(message)
            if message["type"] == "diff":
                self.diffs.append(monotonic())
            elif message["type"] == "status":
                self.statuses.append((monotonic(), message["live"]))
            elif message["type"] == "error":
                assert message["code"] == "unavailable", message
                await asyncio.sleep(AGAIN)
                await self._subscribe(socket, message["board"])


@dataclass
class Insistent:
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
async def insistent(
    tally: Tally,
    addresses: Sequence[str],
    token: str,
    *,
    sockets: int = 4,
    https: int = 2,
    viewers: Sequence[Sequence[str]] = (FOLLOWED, FOLLOWED),
) -> AsyncIterator[Insistent]:
    """A crowd at work on all servers, gone when the block ends; `viewers` has the boards that each one follows."""
    kinds = [SocketSender] * sockets + [HttpSender] * https
    senders = [kind(tally, addresses[n % len(addresses)], token) for n, kind in enumerate(kinds)]
    watching = [Viewer(addresses[n % len(addresses)], boards) for n, boards in enumerate(viewers)]
    loop = asyncio.get_running_loop()
    made = Insistent(
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
