"""Incoming WebSocket frames, as pure bytes.

Owns a client's bytes that are not yet a whole message. Must never know a socket or a clock, hold more of a client than
one message of the largest size (compressed, an eighth more), or work at it for longer than what is held is long.
Assumes that every compressed message stands for itself: compression without context takeover (RFC 7692).

What is right and wrong about a client's frames is as the `websockets` library has it, which tests hold this to, but for
three things. The library's parser keeps all that follows the end of a DEFLATE stream, outside every limit, and reads it
again with every fragment: here that is a violation. The library takes a ping or a close beside a large message in
fragments, and a message of the largest size that compressing made larger, for too large: here they are not.
"""

from __future__ import annotations

import sys
import zlib
from typing import NamedTuple

from websockets.exceptions import ProtocolError
from websockets.frames import Close, apply_mask  # type: ignore[attr-defined]  # in C where it was built

from realtime.wire.frames import BINARY, CLOSE, CONT, EMPTY_BLOCK, FIN, PING, PONG, RSV1, TEXT

_MASKED = 0x80

_RESERVED = 0x70

_OPCODES = frozenset((CONT, TEXT, BINARY, CLOSE, PING, PONG))

_COMPRESSED_HEADS = (FIN | RSV1 | TEXT, FIN | RSV1 | BINARY)

# What any frame, or part of a frame, counts as at least: taking it in costs as much as so many bytes of a message.
_LEAST_BYTES = 64


class Incoming(NamedTuple):
    """What a client sent: a whole TEXT (valid UTF-8) or BINARY message, a PING, a PONG or a CLOSE.

    `opcode` CONT says that a fragment, whose content is `payload`, was taken in and more is to come.
    """

    opcode: int
    payload: bytes


class ViolationError(Exception):
    """The client broke the protocol: the connection must be failed (RFC 6455, section 7.1.7)."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class Deframer:
    """Feed it what arrives, then ask `next` until there is nothing more.

    Args:
        max_size: largest message in bytes, decompressed; None for no limit.
        inflating: whether permessage-deflate was negotiated.
    """

    __slots__ = (
        "_bytes",
        "_decoder",
        "_ended",
        "_grown",
        "_max_size",
        "_message",
        "_opcode",
        "_position",
        "_room",
        "idle_bytes",
        "inflating",
        "messages",
    )

    def __init__(self, max_size: int | None, inflating: bool) -> None:
        self._max_size = sys.maxsize if max_size is None else max_size
        self.inflating = inflating
        # Arrived and not yet taken: everything from `_position` on. Empty bytes while nothing waits.
        self._bytes: bytes | bytearray = b""
        self._position = 0
        self._grown = _LEAST_BYTES  # by how much, when more of one frame came
        self._ended = False
        # Only while a message comes in fragments: its opcode (CONT: there is none), what there is of it, and
        # what decompresses it.
        self._opcode = CONT
        self._message = bytearray()
        self._decoder: zlib._Decompress | None = None
        # Bytes which the message that is coming in may still take.
        self._room = self._max_size
        # What was taken in and brought no message nearer, in bytes: every frame counts as _LEAST_BYTES at least,
        # less what it brings. Pings, pongs, crumbs, and compressed forms that say nothing. Whoever asks `next`
        # bounds it. Whole messages are counted by whoever gets them.
        self.idle_bytes = 0
        # Whole messages so far.
        self.messages = 0

    @property
    def waiting_bytes(self) -> int:
        """Bytes that arrived and were not yet taken."""
        return len(self._bytes) - self._position

    @property
    def is_between(self) -> bool:
        """Whether nothing is here of a message, or a frame, of which more is to come."""
        return self._position == len(self._bytes) and not self._opcode

    def feed(self, data: bytes) -> None:
        """Take in what arrived."""
        if self._ended:
            return
        self._trim()
        if isinstance(self._bytes, bytearray):
            self._bytes += data
            self._grown = len(data)
        else:
            self._bytes = data

    def end(self) -> bytes:
        """Forget everything that arrived, and whatever comes. Returns what was not taken."""
        rest = bytes(memoryview(self._bytes)[self._position :])
        self._ended = True
        self._bytes, self._position = b"", 0
        self._forget_message()
        return rest

    def next(self) -> Incoming | None:
        """The next event, or None when more bytes are needed.

        Raises ViolationError, after which the client must not be listened to any more.
        """
        data, position = self._bytes, self._position
        left = len(data) - position
        if left < 2:
            self._wait()
            return None
        head = data[position]
        length = data[position + 1] - _MASKED
        if length < 126:
            start = position + 6
        elif left < (4 if length == 126 else 10):
            self._wait()
            return None
        elif length == 126:
            start = position + 8
            length = int.from_bytes(data[position + 2 : position + 4], "big")
        else:
            start = position + 14
            length = int.from_bytes(data[position + 2 : position + 10], "big")
        if length < 0 or head & 0x0F not in _OPCODES or length > self._room:
            self._check_header(head, length)
        stop = start + length
        if stop > len(data):
            self._wait()
            return None
        self._position = stop
        payload = apply_mask(data[start:stop], data[start - 4 : start])
        if not self._opcode:
            if head == FIN | TEXT or head == FIN | BINARY:
                return self._whole(head & 0x0F, payload)
            if head in _COMPRESSED_HEADS and self.inflating:
                return self._whole(head & 0x0F, self._inflated(_decoder(), payload, last=True))
        if head & 0x0F >= CLOSE:
            return self._control(head, payload)
        return self._fragment(head, payload)

    def _wait(self) -> None:
        """More bytes are needed."""
        if self._position == 0 and isinstance(self._bytes, bytearray):  # nothing came of those that came last
            self._count_idle(0, self._grown)
            self._grown = _LEAST_BYTES
        self._trim()

    def _trim(self) -> None:
        """Keep only what is not yet taken: a small rest must not hold a large chunk."""
        if self._position == len(self._bytes):
            self._bytes = b""
        elif isinstance(self._bytes, bytes):
            self._bytes = bytearray(memoryview(self._bytes)[self._position :])
        else:
            del self._bytes[: self._position]
        self._position = 0

    def _count_idle(self, taken: int, brought: int) -> None:
        """Account for bytes that complete no message, less the bytes of a message that they brought.

        An eighth more than it brings is within what compressing does to bytes that cannot be compressed.
        """
        idle = max(_LEAST_BYTES, taken - (taken >> 3)) - brought
        if idle > 0:
            self.idle_bytes += idle

    # What is wrong is told in the order, and with the codes and words, of the `websockets` library.

    def _check_header(self, head: int, length: int) -> None:
        """Refuse a frame before any of its payload is kept."""
        opcode = head & 0x0F
        if opcode not in _OPCODES:
            raise ViolationError(1002, "invalid opcode")
        if length < 0:
            raise ViolationError(1002, "incorrect masking")
        room = self._room
        if opcode >= CLOSE:  # takes nothing from the message beside it
            room = self._max_size
        elif self._decoder if opcode == CONT else head & RSV1 and self.inflating:
            room = _compressed_at_most(room)
        if length > room:
            raise self._too_large(length)

    def _too_large(self, length: int | None = None) -> ViolationError:
        size = "" if length is None else f" with {length} bytes"
        after = f" after reading {len(self._message)} bytes" if self._opcode else ""
        return ViolationError(1009, f"frame{size}{after} exceeds limit of {self._max_size} bytes")

    def _control(self, head: int, payload: bytes) -> Incoming:
        if head & _RESERVED:
            raise ViolationError(1002, "reserved bits must be 0")
        if len(payload) > 125:
            raise ViolationError(1002, "control frame too long")
        if not head & FIN:
            raise ViolationError(1002, "fragmented control frame")
        if head & 0x0F == CLOSE:
            self._check_close(payload)
        self._count_idle(len(payload), 0)
        return Incoming(head & 0x0F, payload)

    def _check_close(self, payload: bytes) -> None:
        try:
            Close.parse(payload)
        except ProtocolError as error:
            raise ViolationError(1002, str(error)) from None
        except UnicodeDecodeError as error:
            raise _not_utf8(error) from None
        if self._opcode:
            raise ViolationError(1002, "incomplete fragmented message")

    def _fragment(self, head: int, payload: bytes) -> Incoming:
        """Take in a part of a message, or say what is wrong with it."""
        opcode, last, taken = head & 0x0F, bool(head & FIN), len(payload)
        decoder = None
        if self.inflating:
            decoder = self._decoder if opcode == CONT else _decoder() if head & RSV1 else None
        if decoder is not None:
            if opcode == CONT and head & RSV1:
                raise ViolationError(1002, "RSV1 bit set in continuation frame")
            head &= ~RSV1
            payload = self._inflated(decoder, payload, last=last)
        if head & _RESERVED:
            raise ViolationError(1002, "reserved bits must be 0")
        if opcode == CONT and not self._opcode:
            raise ViolationError(1002, "unexpected continuation frame")
        if opcode != CONT and self._opcode:
            raise ViolationError(1002, "expected a continuation frame")
        self._message += payload
        if last:
            opcode, message = self._opcode, bytes(self._message)
            self._forget_message()
            return self._whole(opcode, message)
        self._count_idle(taken, len(payload))
        self._room -= len(payload)
        self._opcode, self._decoder = self._opcode or opcode, decoder
        return Incoming(CONT, payload)

    def _forget_message(self) -> None:
        """Between messages there is nothing to remember: an idle connection keeps no decoder."""
        self._opcode, self._message, self._decoder, self._room = CONT, bytearray(), None, self._max_size

    def _whole(self, opcode: int, payload: bytes) -> Incoming:
        if opcode == TEXT and not payload.isascii():
            try:
                payload.decode()
            except UnicodeDecodeError as error:
                raise _not_utf8(error) from None
        self.messages += 1
        return Incoming(opcode, payload)

    def _inflated(self, decoder: zlib._Decompress, payload: bytes, *, last: bool) -> bytes:
        """What a frame adds to a compressed message; `last` with the end of that.

        A message is one DEFLATE stream. Behind a block that ends it (BFINAL) there may be the first byte of the empty
        block of which the rest is left away (RFC 7692, section 7.2.3.4), and nothing else: a decoder reads no further.
        """
        try:
            # No room at all would be no limit.
            inflated = decoder.decompress(payload + EMPTY_BLOCK if last else payload, self._room or 1)
        except zlib.error:
            raise ViolationError(1002, "decompression failed") from None
        if decoder.unconsumed_tail or len(inflated) > self._room:
            raise self._too_large()
        if decoder.eof:
            behind = decoder.unused_data[: -len(EMPTY_BLOCK)] if last else decoder.unused_data
            if behind not in (b"", b"\0"):
                raise ViolationError(1002, "data behind the end of what is compressed")
        if last and len(payload) > len(inflated) + _LEAST_BYTES:
            self._count_idle(len(payload), len(inflated) + _LEAST_BYTES)
        return inflated


class Farewell:
    """What a client still sends after our last word: passed over unread, up to its own close frame.

    A client may have sent much before it heard; whoever feeds this bounds `spent_bytes`.
    """

    __slots__ = ("_header", "_skip", "is_listening", "spent_bytes")

    def __init__(self, *, is_listening: bool = True) -> None:
        # Whether the close frame is looked for: not behind a violation, where nobody knows what is a frame.
        self.is_listening = is_listening
        # What came, every frame counted as _LEAST_BYTES at least.
        self.spent_bytes = 0
        # The beginning of a header or of the close frame, and the bytes of another payload that are still to come.
        self._header, self._skip = b"", 0

    def feed(self, data: bytes, most_bytes: int) -> bool:
        """Take in what arrived, until `spent_bytes` are more than `most_bytes`; whether the close frame has come."""
        self.spent_bytes += len(data)
        if not self.is_listening:
            return False
        data, position = self._header + data, self._skip
        while (left := len(data) - position) >= 2 and self.spent_bytes <= most_bytes:
            length, size = data[position + 1] & 0x7F, 6
            if length >= 126:
                size = 8 if length == 126 else 14
                if left < size:
                    break
                length = int.from_bytes(data[position + 2 : position + size - 4], "big")
            stop = position + size + length
            if data[position] & 0x0F == CLOSE and length < 126:
                if stop <= len(data):
                    return True
                break
            position = stop
            self.spent_bytes += max(0, _LEAST_BYTES - length)
        self._header, self._skip = data[position:], max(0, position - len(data))
        return False


def _decoder() -> zlib._Decompress:
    return zlib.decompressobj(wbits=-zlib.MAX_WBITS)


def _compressed_at_most(size: int) -> int:
    """Bytes to which compressing may swell so many: zlib's own bound (deflateBound in deflate.c), and a little."""
    return size + (size >> 3) + (size >> 7) + 64


def _not_utf8(error: UnicodeDecodeError) -> ViolationError:
    return ViolationError(1007, f"{error.reason} at position {error.start}")
