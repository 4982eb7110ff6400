"""Inquiry: asks several nodes the same at once, and hands out their answers as they come.

Owns the connections that this takes, one a node and inquiry, and who did not answer the last time. Must never wait for
a node longer than `patience`, or for any once its caller has heard enough. Assumes that what is asked changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection
from typing import Any, Final

import redis.exceptions as failures

from realtime.store.endpoints import Connector, Endpoint

LONGEST_PATIENCE: Final = 0.8
"""Seconds at most until a node that says nothing counts as away: what a failover costs a look."""

NODES_TOLD: Final = 64
"""Nodes at most of which metrics tell whether they are away."""

Answer = list[Any] | Exception
"""The replies to the commands, errors as values among them; or why there are none."""


class Inquiry:
    """Asks nodes through connections of its own."""

    def __init__(self, connector: Connector, *, timeout: float) -> None:
        self._connector = connector
        self.patience = min(LONGEST_PATIENCE, 0.4 * timeout)
        self._under_way: set[asyncio.Task[None]] = set()
        self.away: dict[str, float] = {}
        """1 for each node that did not answer when it was asked last, else 0."""

    async def ask(
        self, nodes: Collection[Endpoint], *commands: tuple[Any, ...]
    ) -> AsyncGenerator[tuple[Endpoint, Answer], None]:
        """Each node's answer, as soon as it is there. Whoever has heard enough closes this; the others are waited for
        all the same, to know who is away."""
        answers: asyncio.Queue[tuple[Endpoint, Answer]] = asyncio.Queue()
        for node in nodes:
            task = asyncio.create_task(self._ask(node, commands, answers))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
        for _ in nodes:
            yield await answers.get()

    async def aclose(self) -> None:
        """Ends what is under way."""
        tasks = list(self._under_way)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(
        self,
        node: Endpoint,
        commands: tuple[tuple[Any, ...], ...],
        answers: asyncio.Queue[tuple[Endpoint, Answer]],
    ) -> None:
        answer: Answer
        try:
            async with asyncio.timeout(self.patience):
                answer = await self._exchanged(node, commands)
        except (failures.RedisError, OSError, TimeoutError) as error:
            answer = error
        if str(node) in self.away or len(self.away) < NODES_TOLD:
            self.away[str(node)] = float(isinstance(answer, Exception))
        answers.put_nowait((node, answer))

    async def _exchanged(self, node: Endpoint, commands: tuple[tuple[Any, ...], ...]) -> list[Any]:
        connection: Any = self._connector.connection(node)
        replies: list[Any] = []
        try:
            await connection.connect()
            for command in commands:
                await connection.send_command(*command)
            for _ in commands:
                try:
                    replies.append(await connection.read_response())
                except failures.ResponseError as error:
                    replies.append(error)
        finally:
            await connection.disconnect(nowait=True)
        return replies
