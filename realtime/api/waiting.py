"""Waiting requests: those that are answered when a board moves, or after a while that it did not.

Owns how many there are and when each is answered. Must never have a task for one that waits, read a page twice for
requests that are answered together, or leave one without an answer. Assumes that an exchange outlives the application's
call where it has a waiter.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple, Protocol, cast

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from realtime.api.board_pages import unchanged
from realtime.api.responses import error_response
from realtime.boards.board import TOP, Board
from realtime.broadcast.streams import Stream
from realtime.errors import RealtimeError
from realtime.people.identity import Identity
from realtime.wire.asgi import EXCHANGE
from realtime.wire.http_exchange import HttpExchange

log = logging.getLogger(__name__)

SLICE: Final = 50
"""Answers between two turns of the event loop."""

READINGS: Final = 2
"""Pages of one partition that are read at a time: who waits has time, and others read through the same connections."""

_FAILED: Final = RealtimeError("unavailable", "The board cannot be read now.", retry_after_ms=1_000)


class Asked(NamedTuple):
    """What a request asks for, or what is read for several."""

    name: str
    offset: int
    limit: int


AnswerTo = Callable[["Asked", Sequence["WaitingRequest"]], Awaitable[dict["WaitingRequest", Response]]]
"""Who makes the answers to requests that ask for parts of one stretch."""


class Following(Protocol):
    """Who keeps the streams."""

    def leave(self, stream: Stream) -> None: ...
    def stands_still(self, board: Board) -> bool: ...


class WaitingRequest:
    """What stands for the response to a request that is answered later: it sends nothing yet."""

    __slots__ = (
        "_exchange", "_send", "_stream", "_timer", "_waiting", "answer_to", "asked", "identity", "is_shown", "known",
    )  # fmt: skip

    def __init__(
        self,
        waiting: Waiting,
        stream: Stream,
        asked: Asked,
        identity: Identity | None,
        known: str | None,
        answer_to: AnswerTo,
    ) -> None:
        self.asked = asked
        self.answer_to = answer_to
        self.identity = identity
        self.known = known  # the tags that the client has
        self.is_shown = True  # whether a page answers it: else its time is over, and the board where it was
        self._waiting = waiting
        self._stream = stream
        self._timer: asyncio.TimerHandle | None = None
        self._exchange: HttpExchange | None = None
        self._send: Send | None = None

    def begin(self, seconds: float) -> None:
        """Waits from now on."""
        self._stream.wait(self, self.asked.name)
        self._timer = asyncio.get_running_loop().call_later(seconds, self._late)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Keeps what the answer goes to."""
        exchange = scope.get("extensions", {}).get(EXCHANGE)
        if not isinstance(exchange, HttpExchange):
            raise RuntimeError("serve with realtime.wire.http_connection")
        self._exchange, self._send = exchange, send
        exchange.waiter = self
        if exchange.gone:
            self.leave()

    @property
    def partition(self) -> str:
        """Where what it asks for is read."""
        return self._stream.board.leaderboard.partition

    @property
    def read_with(self) -> Asked | str | None:
        """Those alike in this are answered with one reading; None: with none. All within the top are parts of one
        stretch, but while the board stands still: then less of it may be known than somebody asks for."""
        if not self.is_shown:
            return None
        is_top = self.asked.offset + self.asked.limit <= TOP and not self._waiting.stands_still(self._stream)
        return self.asked.name if is_top else self.asked

    def wake(self) -> None:
        """The board has moved, or there is no more time: it is answered soon."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._stream.stop_waiting(self)
            self._waiting.woken(self)

    def _late(self) -> None:
        self.is_shown = self._waiting.stands_still(self._stream)
        self.wake()

    def leave(self) -> None:
        """The client is gone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._stream.stop_waiting(self)
            self.over()

    def over(self) -> None:
        """It waits no longer, however that came."""
        self._waiting.left(self._stream)

    async def answer(self, response: Response) -> None:
        """Sends the answer, where anybody is there to read it."""
        send, self._send = self._send, None
        if send is not None and self._exchange is not None and not self._exchange.gone:
            self._exchange.waiter = None
            # As nothing is written while a request waits, nothing is in the way, and this does not wait. What is left
            # unfinished ends as it would for any request.
            await self._exchange.run(lambda scope, receive, _: response(scope, receive, send), {"type": "http"})


class Waiting:
    """The requests that wait, `most` at a time. `run` must be running."""

    def __init__(self, following: Following, most: int) -> None:
        self._following = following
        self._most = most
        self._woken: list[WaitingRequest] = []
        self._wake = asyncio.Event()
        self._readings: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(READINGS))
        self.count = 0
        """How many wait, or are about to be answered."""

    def park(
        self,
        stream: Stream,
        asked: Asked,
        identity: Identity | None,
        known: str | None,
        seconds: float,
        answer_to: AnswerTo,
    ) -> Response:
        """A response that waits for the stream to move. Raises RealtimeError `too_many`. Nothing may be awaited between
        the look at the stream and this."""
        if self.count >= self._most:
            hint = "Too many requests wait here. Ask again without wait, or follow the board."
            raise RealtimeError("too_many", hint, retry_after_ms=5_000)
        self.count += 1
        request = WaitingRequest(self, stream, asked, identity, known, answer_to)
        request.begin(seconds)
        return cast(Response, request)

    def woken(self, request: WaitingRequest) -> None:
        """That one is to be answered."""
        self._woken.append(request)
        self._wake.set()

    def stands_still(self, stream: Stream) -> bool:
        """Whether nobody knows now if what the stream shows is still so."""
        return self._following.stands_still(stream.board)

    def left(self, stream: Stream) -> None:
        """One on that stream waits no longer."""
        self.count -= 1
        self._following.leave(stream)

    async def run(self) -> None:
        """Answers those that were woken. Never ends by itself."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._wake.wait()
                self._wake.clear()
                woken, self._woken = self._woken, []
                alike: defaultdict[Asked | str | None, list[WaitingRequest]] = defaultdict(list)
                for request in woken:
                    alike[request.read_with].append(request)
                for read_with, requests in alike.items():
                    group.create_task(self._answer(requests, is_read=read_with is not None))

    async def _answer(self, requests: Sequence[WaitingRequest], *, is_read: bool) -> None:
        """Answers requests that are alike, with a turn for others in between."""
        try:
            answers = await self._read(requests) if is_read else {}
            for place, request in enumerate(requests, 1):
                await request.answer(answers[request] if is_read else unchanged())
                if place % SLICE == 0:
                    await asyncio.sleep(0)
        finally:
            for request in requests:
                request.over()

    async def _read(self, requests: Sequence[WaitingRequest]) -> dict[WaitingRequest, Response]:
        """The answers to requests that ask for parts of one stretch. Raises nothing."""
        asked = [request.asked for request in requests]
        begin, end = min(one.offset for one in asked), max(one.offset + one.limit for one in asked)
        try:
            async with self._readings[requests[0].partition]:
                return await requests[0].answer_to(Asked(asked[0].name, begin, end - begin), requests)
        except Exception:
            log.exception("requests that waited could not be answered", extra={"action": "request"})
            return {request: error_response(_FAILED) for request in requests}
