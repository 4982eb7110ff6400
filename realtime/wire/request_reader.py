"""Requests out of bytes: one after another, each with its own body and no other.

Owns where a request ends. Must never know a socket, nor keep more than one head or one trailer section that is not
whole. Assumes that its caller asks for the next request only when the one before is answered. Pure.

Two readers, and no third: a body whose length is known is counted here, one in chunks is h11's. Trailer fields are read
past: they are never header fields (RFC 9110, section 6.5.1).
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Final

import h11

from realtime.wire import heads
from realtime.wire.heads import BadRequestError, Request

CHUNKS: Final = 16_384
"""Most chunks of a body: each costs as much as a kilobyte of one that is not chopped up."""

_SLICE: Final = 16 * 1024
_BLANK_LINE: Final = re.compile(rb"\n\r?\n")
_BLANK_LINES: Final = re.compile(rb"(?:\r\n)*+")
_FIRST: Final = frozenset(b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")


class Mark(Enum):
    """What else `next` may answer."""

    END = "the body is whole"


END: Final = Mark.END


class RequestReader:
    """Feed it what arrives, then ask `next` until it needs more.

    Raises BadRequestError, after which it must not be asked again.
    """

    __slots__ = ("_bytes", "_chunked", "_chunks", "_fed", "_in_body", "_left", "_position", "_searched")

    def __init__(self) -> None:
        # Arrived and not yet taken: everything from `_position` on.
        self._bytes: bytes | bytearray = b""
        self._position = 0
        self._searched = 0  # up to where no end of the head was found
        self._in_body = False
        self._left = 0  # bytes of the body that are still to come, where that is known
        self._chunked: h11.Connection | None = None  # where it is not
        self._chunks = 0
        self._fed = b""  # what it was given last

    @property
    def waiting_bytes(self) -> int:
        """Bytes that arrived and were not yet taken."""
        return len(self._bytes) - self._position

    def feed(self, data: bytes) -> None:
        """Take in what arrived."""
        if not self.waiting_bytes:
            self._bytes, self._position, self._searched = data, 0, 0
        elif isinstance(self._bytes, bytearray):
            self._trim()
            self._bytes += data
        else:
            self._bytes = bytearray(memoryview(self._bytes)[self._position :])
            self._bytes += data
            self._searched = max(0, self._searched - self._position)
            self._position = 0

    def next(self) -> Request | bytes | Mark | None:
        """A request; then, where it has a body, what there is of that; then END. None while more bytes are needed."""
        if not self._in_body:
            return self._request()
        if self._chunked is not None:
            return self._chunk(self._chunked)
        if not self._left:
            self._in_body = False
            return END
        part = self._taken(min(self._left, self.waiting_bytes))
        self._left -= len(part)
        return part or None

    def rest(self) -> bytes:
        """Everything that follows a request that ended HTTP."""
        return self._taken(self.waiting_bytes)

    def _request(self) -> Request | None:
        self._skip_blank_lines()
        if not self.waiting_bytes:
            return None
        if self._bytes[self._position] not in _FIRST and self._bytes[self._position :] != b"\r":
            raise BadRequestError(400, "This is no HTTP request.")
        found = _BLANK_LINE.search(self._bytes, self._searched)
        size = (found.end() if found else len(self._bytes)) - self._position
        if size > heads.BYTES:
            raise BadRequestError(431, f"A request's head may have at most {heads.BYTES} bytes.")
        if found is None:
            self._searched = max(self._position, len(self._bytes) - 2)
            return None
        data = self._taken(size)
        head = heads.ordinary(data)
        if head is None:
            head, self._chunked = heads.unusual(data)
            self._chunks, self._fed = 0, b""
        request = heads.understood(head)
        if request.length is not None:
            self._left, self._chunked = request.length, None
        self._in_body = request.length != 0
        return request

    def _skip_blank_lines(self) -> None:
        """Those that some clients send behind a body (RFC 9112, section 2.2)."""
        if self.waiting_bytes and self._bytes[self._position] == 13:
            found = _BLANK_LINES.match(self._bytes, self._position)
            assert found is not None
            self._position = found.end()
            self._searched = max(self._searched, self._position)

    def _chunk(self, reader: h11.Connection) -> bytes | Mark | None:
        """The next part of a body in chunks."""
        while True:
            try:
                event = reader.next_event()
            except h11.RemoteProtocolError as error:
                raise BadRequestError(error.error_status_hint, "The body's chunks cannot be read.") from None
            if isinstance(event, h11.Data):
                self._chunks += event.chunk_start
                if self._chunks > CHUNKS:
                    raise BadRequestError(413, f"A body may come in at most {CHUNKS} chunks.")
                return bytes(event.data)
            if isinstance(event, h11.EndOfMessage):
                behind, _ = reader.trailing_data
                if not self._fed.removesuffix(behind).endswith(b"\r\n\r\n"):  # h11 lets a bare LF end it
                    raise BadRequestError(400, "A body in chunks ends with an empty line.")
                self._bytes, self._position, self._searched = behind + self.rest(), 0, 0
                self._chunked, self._in_body = None, False
                return END
            if not self.waiting_bytes:
                return None
            part = self._taken(min(_SLICE, self.waiting_bytes))
            self._fed = self._fed[-3:] + part
            reader.receive_data(part)

    def _taken(self, size: int) -> bytes:
        """The next `size` bytes."""
        end = self._position + size
        part = bytes(self._bytes[self._position : end])
        self._position = self._searched = end
        self._trim()
        return part

    def _trim(self) -> None:
        """Forgets what was taken."""
        if self._position == len(self._bytes):
            self._bytes, self._position, self._searched = b"", 0, 0
        elif isinstance(self._bytes, bytearray) and self._position > _SLICE:
            del self._bytes[: self._position]
            self._searched -= self._position
            self._position = 0
