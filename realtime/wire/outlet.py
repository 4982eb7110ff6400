"""An outlet: where ready bytes go to one client.

Owns the order of what is written, and whether it goes straight to the socket or waits in the transport. Must never
block, await or raise in `write`. Assumes an event loop (asyncio's or uvloop's) whose transports try to send at once
where their buffer is empty, and that nobody else writes to its transport.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from realtime.wire.frames import Frame
from realtime.wire.unsent import bound_unsent

__all__ = ["CLOSED", "THROUGH", "UNSENT_BYTES", "Outlet"]

# In place of a file descriptor: nothing may be written; only the transport may write.
CLOSED, THROUGH = -1, -2

UNSENT_BYTES = 32 * 1024
"""Bytes that may wait in the kernel until the client's window opens."""


class Outlet(asyncio.Protocol):
    """One client's side of a transport that frames are written to, whatever carries them.

    Its user may set these, which are called synchronously:

    - `on_drain()`: everything that waited to be written has gone to the kernel.
    - `on_closed()`: the connection is gone; called once, whatever the cause.
    - `on_descriptor(descriptor)`: `descriptor` is another now. Where it is not negative, nothing waits to be
      written, and a frame (`frame.encoded(encoding)`) may be written there with os.write instead of `write`;
      what that leaves unwritten goes to `write` at once. It is negative before the socket is closed.
    """

    __slots__ = (
        "_direct", "close_code", "descriptor", "encoding", "on_closed", "on_descriptor", "on_drain", "transport",
    )  # fmt: skip

    def __init__(self) -> None:
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # until connection_made
        self.on_drain: Callable[[], None] | None = None
        self.on_closed: Callable[[], None] | None = None
        self.on_descriptor: Callable[[int], None] | None = None
        # Why it ended; 1006 while nobody said.
        self.close_code = 1006
        # Which bytes of a frame are for this client: see `Frame.by_encoding`.
        self.encoding = 0
        # Where `write` writes: the socket while the transport's buffer is empty, else THROUGH or CLOSED.
        self.descriptor = CLOSED
        # What `descriptor` is while the buffer is empty: the socket, or THROUGH for TLS.
        self._direct = THROUGH

    def write(self, frame: Frame, sent: int = 0) -> int:
        """Send a frame now, less its first `sent` bytes, which are written. Never raises, never waits.

        Returns the bytes that wait in this process to be sent to this client: 0 when the kernel has
        them all; -1 when nothing can be written (not yet accepted, closing, gone).
        """
        data = frame.by_encoding[self.encoding] or frame.encoded(self.encoding)
        return self._send(data[sent:] if sent else data)

    def _send(self, data: bytes) -> int:
        """The same for bytes that are ready."""
        if self.descriptor >= 0:
            try:
                sent = os.write(self.descriptor, data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self.abort()
                return -1
            if sent == len(data):
                return 0
            data = data[sent:]
        if self.descriptor == CLOSED or self.transport.is_closing():
            return -1
        self.transport.write(data)
        return self.transport.get_write_buffer_size()

    def lead_away(self, within_s: float) -> None:
        """The client was asked to come back on another connection within so long: nothing, where it goes by itself."""

    def abort(self) -> None:
        """End at once; what waits to be written is lost."""
        self._point(CLOSED)
        self.transport.abort()

    def _begin_writing(self, first: bytes, *, direct: bool = True) -> None:
        """Sends the first bytes; from then on frames may be written, straight to the socket where `direct`."""
        secure = self.transport.get_extra_info("sslcontext") is not None
        bound_unsent(self.transport, UNSENT_BYTES)
        if direct and not secure:
            self._direct = self.transport.get_extra_info("socket").fileno()
        # The transport tells when its buffer is no longer empty and when it is empty again. (A TLS
        # transport compares with "at least", so that 0 would mean "always".)
        self._point(self._direct)
        self.transport.set_write_buffer_limits(high=1 if secure else 0, low=0)
        self.transport.write(first)

    def _point(self, descriptor: int) -> None:
        """Where frames are written from now on."""
        if descriptor != self.descriptor:
            self.descriptor = descriptor
            if self.on_descriptor is not None:
                self.on_descriptor(descriptor)

    def pause_writing(self) -> None:
        """The transport's buffer is no longer empty."""
        if self.descriptor != CLOSED:
            self._point(THROUGH)

    def resume_writing(self) -> None:
        """The transport's buffer is empty again."""
        if self.descriptor != CLOSED:
            self._point(self._direct)
            if self.on_drain is not None:
                self._call_back(self.on_drain)

    def _call_back(self, callback: Callable[..., None], *arguments: object) -> None:
        callback(*arguments)
