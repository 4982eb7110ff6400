"""Clients of the tests: one on `websockets`, which keeps every message and follows boards as viewers do; and HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect

from tests.support.following import Follower, Message
from tests.support.waiting import PATIENCE


class Client:
    """One connection. Messages are taken in by `next` and its kin, in order, and checked by the follower."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.follower = Follower()
        self.seen: list[Message] = []
        self.greeting: Message = {}

    @classmethod
    async def connect(cls, url: str, token: str | None = None, **options: Any) -> Client:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        socket = await connect(url, additional_headers=headers, proxy=None, **{"max_size": None, **options})
        client = cls(socket)
        client.greeting = await client.next()
        return client

    async def send(self, kind: str, **fields: Any) -> None:
        await self.socket.send(json.dumps({"type": kind, **fields}))

    async def raw(self, text: str | bytes) -> None:
        await self.socket.send(text)

    async def next(self) -> Message:
        """The next message."""
        async with asyncio.timeout(PATIENCE):
            message: Message = json.loads(await self.socket.recv())
        self.seen.append(message)
        self.follower.take(message)
        return message

    async def until(self, kind: str, matches: Callable[[Message], bool] = lambda message: True) -> Message:
        """The next message of a type (for which `matches` holds); those before it are taken in as well."""
        while True:
            message = await self.next()
            if message["type"] == kind and matches(message):
                return message

    async def ask(self, kind: str, **fields: Any) -> Message:
        """Sends, and gives the next message."""
        await self.send(kind, **fields)
        return await self.next()

    async def settled(self) -> list[Message]:
        """What came until the answer to a ping sent now."""
        await self.send("ping")
        before = len(self.seen)
        await self.until("pong")
        return self.seen[before:-1]

    async def subscribe(self, board: str, **fields: Any) -> Message:
        """Subscribes; gives `subscribed`, with the first snapshot taken in where one is due."""
        await self.send("subscribe", board=board, **fields)
        answer = await self.until("subscribed")
        if not answer["resumed"]:
            await self.until("snapshot", lambda message: message["board"] == answer["board"])
        return answer

    async def reaches(self, board: str, version: int) -> None:
        """Takes messages in until the board it follows is at `version` or later."""
        while board not in self.follower.boards or self.follower.boards[board].version < version:
            await self.next()

    async def shows(self, board: str, lines: list[tuple[int, str, int]]) -> None:
        """Takes messages in until the board it follows is `lines`."""
        while board not in self.follower.boards or self.follower.boards[board].lines != lines:
            await self.next()

    async def aclose(self) -> None:
        await self.socket.close()


@asynccontextmanager
async def asking(base_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """An HTTP client that keeps no connection from one request to the next."""
    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=base_url, trust_env=False, limits=limits, timeout=PATIENCE) as http:
        yield http


def metrics(http_text: str) -> dict[str, float]:
    """The samples of an exposition, by name and labels as written."""
    lines = [line for line in http_text.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}
