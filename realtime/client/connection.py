"""A line to a server: one connection after another, for ever.

Owns the socket of the moment, what is yet to be sent on it, and when to try again. Must never come back in step with
everybody else, let reading wait for writing, or keep anything for the next connection: whoever uses it says anew what
is to be said. Assumes wire protocol v1: a server greets first.
"""

from __future__ import annotations

import asyncio
import logging
import random as chance
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import orjson
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_socket
from websockets.exceptions import ConnectionClosed, WebSocketException

log = logging.getLogger(__name__)

HELLO_TIMEOUT: Final = 10.0
"""Seconds in which a server must open the socket, and then greet."""

PING_INTERVAL: Final = 15.0
"""Seconds between pings, and until one without an answer means that the line is dead."""

LONGEST_PAUSE: Final = 30.0
HEALTHY_AFTER: Final = 15.0
"""Seconds a line must have held for earlier attempts to be forgotten."""

PATIENCE: Final[Mapping[int | None, int]] = {1012: 2, 4401: 5, 4429: 5}
"""Attempts to count as made when the server closes with this code."""

MESSAGE_BYTES: Final = 2**20
"""The longest message there may be; a snapshot has some ten thousand."""

Message = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Timing:
    """Chance and time, for a test to take over."""

    random: Callable[[], float] = chance.random
    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


def pause(attempt: int, part: float) -> float:
    """Seconds before the next attempt after `attempt` failed ones: a random `part` (0 to 1) of 1, 2, 4 ... 30."""
    return part * min(LONGEST_PAUSE, 2.0 ** min(attempt, 10))


def socket_url(url: str) -> str:
    """The socket's address for a server's, which may have a prefix, or for the socket's own. Raises ValueError."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # it repeats the address, which may hold a password
        parts, port = urlsplit(""), 0
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    if scheme not in ("ws", "wss") or not parts.hostname or port == 0:
        raise ValueError("That is no server's address: use one like http://HOST:PORT or wss://HOST/ws.")
    prefix = parts.path.rstrip("/")
    is_sockets = prefix.endswith("/ws") or (prefix and parts.scheme == scheme)
    return urlunsplit(parts._replace(scheme=scheme, path=parts.path if is_sockets else f"{prefix}/ws"))


def place_of(url: str) -> str:
    """Scheme, host and port of an address: what of it may be shown."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def is_loopback(url: str) -> bool:
    """Whether an address leads to this machine, which no proxy can reach in our place."""
    host = urlsplit(url).hostname or ""
    try:
        address = ip_address(host)
    except ValueError:
        return host.removesuffix(".").endswith("localhost")
    return address.is_loopback or address.is_unspecified


class ReconnectingConnection:
    """Keeps one connection to a server open, and makes it anew where it breaks. `hear` is told every message; of each
    connection the first is its `hello`."""

    def __init__(self, url: str, hear: Callable[[Message], None], timing: Timing, options: Mapping[str, Any]) -> None:
        self._url = socket_url(url)
        self._hear = hear
        self._timing = timing
        self._options = {
            "max_size": MESSAGE_BYTES,
            "open_timeout": HELLO_TIMEOUT,
            "ping_interval": PING_INTERVAL,
            "ping_timeout": PING_INTERVAL,
            "close_timeout": 1,
            **({"proxy": None} if is_loopback(self._url) else {}),
            **options,
        }
        self._socket: ClientConnection | None = None
        self.opened = asyncio.Event()
        """Set while there is a line: the server has greeted."""
        self._greeted_at = 0.0  # on the last connection that was
        self._back_at: float | None = None  # when to come back, where the server asked us to
        self._outgoing: deque[Message] = deque()
        self._wake = asyncio.Event()
        self._later: set[asyncio.Task[None]] = set()

    @property
    def is_open(self) -> bool:
        """Whether the server has greeted, and the connection is not known to be broken."""
        return self.opened.is_set()

    def send(self, message: Message) -> None:
        """Sends soon, in order; nothing where there is no line."""
        if self.is_open:
            self._outgoing.append(message)
            self._wake.set()

    def leave(self, within: float) -> None:
        """The server goes away in that many seconds. Everybody hears the same, so each takes a random moment before it:
        then, or as soon as the server closes, the line is given up, and opened again no sooner than at that moment.
        """
        wait, socket = self._timing.random() * within, self._socket
        self._back_at = self._timing.now() + wait
        if socket is not None:
            self.after(wait, lambda: self._start(socket.close()))

    def after(self, seconds: float, work: Callable[[], object]) -> None:
        """Does `work` in that time, unless the line is ended before."""

        async def later() -> None:
            await self._timing.sleep(seconds)
            work()

        self._start(later())

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def run(self) -> None:
        """Holds connections until cancelled."""
        attempt = 0
        try:
            while True:
                code = await self._hold()
                now = self._timing.now()
                if self.is_open and now - self._greeted_at > HEALTHY_AFTER:
                    attempt = 0
                self.opened.clear()
                attempt = max(attempt, PATIENCE.get(code, 0))
                back_at, self._back_at = self._back_at, None
                wait = pause(attempt, self._timing.random()) if back_at is None else max(back_at - now, 0.0)
                attempt += 1
                log.info("no line (%s): the next attempt is in %.1f s", code, wait, extra={"action": "reconnect"})
                await self._timing.sleep(wait)
        finally:
            for task in self._later:
                task.cancel()

    async def _hold(self) -> int | None:
        """One connection, from opening to its end. Gives the code that closed it, None where it never stood."""
        try:
            async with open_socket(self._url, **self._options) as socket:
                self._outgoing.clear()
                self._socket = socket
                sending = asyncio.get_running_loop().create_task(self._send_on(socket))
                try:
                    await self._listen(socket)
                finally:
                    self._socket = None
                    sending.cancel()
            return socket.close_code
        except (OSError, TimeoutError, WebSocketException) as error:
            log.debug("no line: %s", error)
            return None

    async def _listen(self, socket: ClientConnection) -> None:
        try:
            async with asyncio.timeout(HELLO_TIMEOUT):
                hello = await socket.recv()
            self._greeted_at = self._timing.now()
            self.opened.set()
            self._hear(orjson.loads(hello))
            async for text in socket:
                self._hear(orjson.loads(text))
        except ConnectionClosed:
            pass

    async def _send_on(self, socket: ClientConnection) -> None:
        try:
            while True:
                while self._outgoing:
                    await socket.send(orjson.dumps(self._outgoing.popleft()), text=True)
                self._wake.clear()
                await self._wake.wait()
        except ConnectionClosed:
            pass  # who listens finds out as well
