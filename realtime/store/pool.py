"""Pool: lends connections to the store, each for one exchange: commands go out in one write, replies come in order.

Owns the connections of one way, who waits for one, and how long a store may be silent. Must never send a command
twice, except a script that the store says it does not know; must never lend a connection that has unread replies.
Assumes RESP2. Raises redis-py's exceptions; `outages.mapped` maps them to ours.

redis-py makes connections, their handshake and the parsing of replies. This module does not use its client: its pool,
its pipelines and a task for each write take three times as long as the exchange itself (183 us of processor time for a
MULTI of two commands, where all of it takes 46), and that at every broadcast.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import hiredis
import redis.exceptions as failures

from realtime.store.endpoints import Connection
from realtime.store.way import ELSEWHERE, Way

Command = tuple[Any, ...]
"""A command's name and its arguments."""

PATIENCE_RENEWED: Final = 16
"""Replies after which the time-out begins anew: the store is not silent, and no single command takes a time-out."""


class Refused(failures.ConnectionError):
    """The pool lends no connection."""


class Script:
    """A Lua script, called by its digest."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    def call(self, keys: Sequence[str], args: Sequence[Any]) -> Command:
        """The command that runs it where the store knows it."""
        return ("EVALSHA", self._digest, len(keys), *keys, *args)

    def introduction(self, call: Command) -> Command:
        """The command that runs it where the store does not know it yet; the store knows it from then on."""
        return ("EVAL", self.text, *call[2:])


class Pool:
    """Up to `limit` connections by `way`. `greet` is awaited with each new one; its borrower meets what it raises.

    Without `keep` each exchange opens a connection of its own: it meets whichever store answers there now.
    """

    refusal: str | None = None
    """Why the pool lends no connection; None while it lends them."""

    def __init__(
        self,
        way: Way,
        *,
        limit: int,
        timeout: float,
        greet: Callable[[Connection], Awaitable[None]] | None = None,
        keep: bool = True,
    ) -> None:
        self.timeout = timeout  # seconds until a store that says nothing counts as away
        self._way = way
        self._greet = greet
        self._keep = keep
        self._places = asyncio.Semaphore(limit)
        self._idle: list[Connection] = []  # the one used last is the next
        self._lent: set[Connection] = set()

    async def disconnect(self) -> None:
        """Closes every connection, also under those who use them."""
        idle, self._idle = self._idle, []
        for connection in (*idle, *self._lent):
            await connection.disconnect(nowait=True)  # one that hangs must not keep the others

    async def exchange(self, *commands: Command) -> list[Any]:
        """The replies to commands, errors as values among them.

        Raises ConnectionError, TimeoutError: then it is not known what was done.
        """
        replies: list[Any] = []
        is_elsewhere = False
        try:
            async with asyncio.timeout(self.timeout) as patience, self._connection() as connection:
                await connection.send_packed_command(_packed(commands), check_health=False)
                for number in range(1, len(commands) + 1):
                    try:
                        replies.append(await connection.read_response())
                    except failures.ResponseError as error:
                        replies.append(self._way.take(error))
                        is_elsewhere = is_elsewhere or isinstance(error, ELSEWHERE)
                    if number % PATIENCE_RENEWED == 0:
                        patience.reschedule(asyncio.get_running_loop().time() + self.timeout)
                if is_elsewhere:  # the next exchange asks the way again
                    await connection.disconnect(nowait=True)
        except TimeoutError:
            raise failures.TimeoutError(f"no answer in {self.timeout:g} s") from None
        return replies

    async def ask(self, *command: Any) -> Any:
        """The reply to one command. Raises ResponseError and as `exchange` does."""
        return checked(await self.exchange(command))[0]

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Any], *behind: Command) -> list[Any]:
        """The reply to a script, and to commands sent with it that are run after it, errors as values among these.

        Raises as `ask` does.
        """
        call = script.call(keys, args)
        replies = await self.exchange(call, *behind)
        if isinstance(replies[0], failures.NoScriptError):
            replies = await self.exchange(script.introduction(call), *behind)
        checked(replies[:1])
        return replies

    async def listen(self, pattern: str, silence: float, *, sharded: bool = False) -> AsyncGenerator[list[bytes], None]:
        """Messages of the channels that match, as [pattern, channel, text]; an empty one first, once it is subscribed.

        With `sharded` it is the one channel of that name, on a cluster. Raises ConnectionError where the node has lost
        its slot, TimeoutError where the store does not answer the subscription within the time-out, or a ping
        after `silence` seconds without a message: so a connection of which one half is gone is found.
        """
        async with self._connection() as connection:
            try:
                async with asyncio.timeout(self.timeout):
                    await connection.send_command("SSUBSCRIBE" if sharded else "PSUBSCRIBE", pattern)
                    await connection.read_response()
                yield []
                pinged = False
                while True:
                    message = await connection.read_response(timeout=silence)
                    if message is None:
                        if pinged or not connection.is_connected:  # a write would connect it anew, to hear nothing
                            raise TimeoutError("the subscription is silent")
                        async with asyncio.timeout(self.timeout):
                            await connection.send_command("PING")
                    pinged = message is None
                    if message is not None and message[0] == b"pmessage":
                        yield message[1:]
                    elif message is not None and message[0] == b"smessage":
                        yield [message[1], *message[1:]]
                    elif message is not None and message[0] == b"sunsubscribe":
                        raise failures.ConnectionError("the channel is on another node")
            except failures.ResponseError as error:
                raise self._way.take(error) from error
            finally:  # a connection on which messages arrive is of no use for commands
                await connection.disconnect(nowait=True)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        if self.refusal is not None:
            raise Refused(self.refusal)
        async with self._places:
            connection = await self._ready()
            self._lent.add(connection)
            try:
                yield connection
            except BaseException:
                self._way.doubt()
                await connection.disconnect(nowait=True)  # replies may be under way
                raise
            finally:
                self._lent.discard(connection)
                if not self._keep:
                    await connection.disconnect(nowait=True)
                elif connection.is_connected:
                    self._idle.append(connection)

    async def _ready(self) -> Any:
        while self._idle:
            connection: Any = self._idle.pop()
            # redis-py sees that the other side closed it meanwhile, but not that it was reset.
            if connection.is_connected and not connection._writer.is_closing() and not await connection.can_read():
                return connection
            await connection.disconnect(nowait=True)
        async with asyncio.timeout(self.timeout):  # who listens has no other
            connection = await self._way.connection(fresh=not self._keep)
            try:
                await connection.connect()
                if self._greet is not None:
                    await self._greet(connection)
            except BaseException:
                self._way.doubt()
                await connection.disconnect(nowait=True)
                raise
        return connection


def _packed(commands: Iterable[Command]) -> bytes:
    """The bytes of commands, made in C; redis-py's connections make them in Python, six times as slowly."""
    return b"".join(map(hiredis.pack_command, commands))


def transaction(commands: Iterable[Command]) -> tuple[Command, ...]:
    """These commands as one transaction."""
    return ("MULTI",), *commands, ("EXEC",)


def executed(replies: list[Any]) -> list[Any]:
    """The replies to a transaction's commands, errors as values; raises where the store did not run it."""
    *queued, done = replies
    checked(queued)
    checked([done])
    return list(done)


def checked(replies: list[Any]) -> list[Any]:
    """These replies; raises the first error among them."""
    for reply in replies:
        if isinstance(reply, failures.ResponseError):
            raise reply
    return replies
