"""A crowd: viewers and submitters on `realtime.client`, as a deployment meets them, and an audience of lean viewers.

Owns what it counts: connections by the second, outcomes, what each viewer last saw. Must never give up a submission,
nor look into a server.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection

from realtime.client import Accepted, Client, Snapshot, connect
from tests.support.waiting import eventually


class Crowd:
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
            sys.executable, "-m", "tests.acceptance.audience", str(at.hostname), str(at.port), str(count),
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
        async with asyncio.timeout(60):
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
async def crowd(url: str) -> AsyncIterator[Crowd]:
    """A crowd at this address, gone at the end of the block."""
    made = Crowd(url)
    try:
        yield made
    finally:
        await made.aclose()
