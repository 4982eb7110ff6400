"""Requests out of bytes: one after another, each with its own body and no other.

Owns where a request ends. Must never know a socket, nor keep more than one head or one trailer section that is not
whole. Assumes that its caller asks for the next request only when the one before is answered. Pure.

Bodies in chunks are read here too, line by line and each line once: h11 tries ends of chunk heads and of trailer
fields at every space before what is wrong, for seconds. Trailer fields are read past: they are never header fields
(RFC 9110, section 6.5.1).
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Final

from realtime.wire import heads
from realtime.wire.heads import BadRequestError, Request

CHUNKS: Final = 16_384
"""Most chunks of a body: each costs as much as a kilobyte of one that is not chopped up."""

_SLICE: Final = 16 * 1024
_BLANK_LINE: Final = re.compile(rb"\n\r?\n")
_BLANK_LINES: Final = re.compile(rb"(?:\r\n)*+")
_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,16})[\t ]*+(?:;[\t -~\x80-\xff]*+)?\r\n")
_CUT: Final = "The body's chunks cannot be read."
_FIRST: Final = frozenset(b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")


class Mark(Enum):
    """What else `next` may answer."""

    END = "the body is whole"


END: Final = Mark.END


class _Line(Enum):
    """What the next line of a body in chunks must be."""

    CHUNK = "a chunk's head"
    AFTER = "the end of a chunk"
    TRAILER = "a trailer field, or the end"


class RequestReader:
    """Feed it what arrives, then ask `next` until it needs more.

    Raises BadRequestError, after which it must not be asked again.
    """

    __slots__ = ("_bytes", "_chunks", "_due", "_in_body", "_left", "_position", "_searched", "_trailer")

    def __init__(self) -> None:
        # Arrived and not yet taken: everything from `_position` on.
        self._bytes: bytes | bytearray = b""
        self._position = 0
        self._searched = 0  # up to where no end of the head, or of a line, was found
        self._in_body = False
        self._left = 0  # bytes that are still to come of the body, or of a chunk of it
        self._due: _Line | None = None  # only within a body in chunks: the line behind those bytes
        self._chunks = 0
        self._trailer: tuple[int, int] = 0, 0  # its fields and bytes

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
        while not self._left:
            if self._due is None:
                self._in_body = False
                return END
            line = self._line()
            if line is None:
                return None
            self._due = self._behind(self._due, line)
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
        request = heads.understood(heads.unusual(data) if head is None else head)
        if request.length is None:
            self._due, self._chunks, self._trailer = _Line.CHUNK, 0, (0, 0)
        else:
            self._left = request.length
        self._in_body = request.length != 0
        return request

    def _skip_blank_lines(self) -> None:
        """Those that some clients send behind a body (RFC 9112, section 2.2)."""
        if self.waiting_bytes and self._bytes[self._position] == 13:
            found = _BLANK_LINES.match(self._bytes, self._position)
            assert found is not None
            self._position = found.end()
            self._searched = max(self._searched, self._position)

    def _line(self) -> bytes | None:
        """The next line of a body in chunks, with its end."""
        end = self._bytes.find(b"\n", self._searched) + 1
        size = (end or len(self._bytes)) - self._position
        if size > heads.BYTES:
            raise BadRequestError(431, f"A chunk's head may have at most {heads.BYTES} bytes, and so may a trailer.")
        if not end:
            self._searched = len(self._bytes)
            return None
        return self._taken(size)

    def _behind(self, due: _Line, line: bytes) -> _Line | None:
        """What must follow this line, behind the bytes that it announces; None where it ends the body."""
        if due is _Line.CHUNK:
            found = _CHUNK.fullmatch(line)
            if found is None:
                raise BadRequestError(400, _CUT)
            self._left = int(found[1], 16)
            if not self._left:
                return _Line.TRAILER
            self._chunks += 1
            if self._chunks > CHUNKS:
                raise BadRequestError(413, f"A body may come in at most {CHUNKS} chunks.")
            return _Line.AFTER
        if line == b"\r\n":
            return _Line.CHUNK if due is _Line.AFTER else None
        if due is _Line.AFTER or not heads.FIELD.fullmatch(line):
            raise BadRequestError(400, _CUT)
        fields, size = self._trailer = self._trailer[0] + 1, self._trailer[1] + len(line)
        if fields > heads.FIELDS or size > heads.BYTES:
            raise BadRequestError(431, f"A trailer may have at most {heads.FIELDS} fields, and {heads.BYTES} bytes.")
        return due

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
