"""Outgoing messages in every encoding there is, as pure bytes.

Owns the bytes of a server's frames (RFC 6455, section 5.2), their compressed twins (RFC 7692), and the same as events
(`sse`), made once for a payload and shared by every connection. Must never know a socket, a clock or a connection.
Assumes that compression is negotiated without context takeover in either direction: only then does a message not depend
on the one before, so that one compressed frame suits everybody.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from realtime.wire import sse

__all__ = [
    "BINARY", "CLOSE", "CONT", "PING", "PONG", "TEXT", "Answer", "Burst", "Frame", "Joined", "server_frame",
]  # fmt: skip

# Opcodes, RFC 6455, section 11.8.
CONT, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

FIN, RSV1 = 0x80, 0x40

# What ends a flushed block and is left away on the wire (RFC 7692, section 7.2.1).
EMPTY_BLOCK = b"\x00\x00\xff\xff"

# zlib makes raw streams for windows of 2**9 to 2**15 bytes, and never looks back further than
# the window less this many bytes (MIN_LOOKAHEAD in deflate.h).
_SMALLEST_WINDOW_BITS, _LARGEST_WINDOW_BITS = 9, 15
_LOOKAHEAD_BYTES = 262

_NOT_YET: tuple[None, ...] = (None,) * _LARGEST_WINDOW_BITS

# Of a message that is not compressed: the encodings that are no WebSocket's, and how many are.
_NO_EVENTS: tuple[None, ...] = (None,) * (_SMALLEST_WINDOW_BITS - 1)
_WINDOWS = _LARGEST_WINDOW_BITS - _SMALLEST_WINDOW_BITS + 1

# Payloads below this many bytes are not worth the try: JSON that short does not repeat itself.
_SMALLEST_DEFLATED_BYTES = 48

# Payloads up to so many bytes, of which zlib keeps every symbol at this memLevel (2**(memLevel + 6) of them). At 9 it
# clears 128 KiB first, which takes five times as long as all the rest of a one-row diff.
_SHORT_BYTES, _SHORT_MEM_LEVEL = 2048, 5


def server_frame(opcode: int, payload: bytes, *, rsv1: bool = False) -> bytes:
    """The final, unmasked frame a server sends (RFC 6455, section 5.2)."""
    head = FIN | opcode | (RSV1 if rsv1 else 0)
    length = len(payload)
    if length < 126:
        return bytes((head, length)) + payload
    if length < 65536:
        return bytes((head, 126)) + length.to_bytes(2, "big") + payload
    return bytes((head, 127)) + length.to_bytes(8, "big") + payload


class Frame:
    """A message, ready for every connection: plain, and compressed once for each size of window, and as an event.

    `payload` is the whole message, UTF-8 for TEXT. `position` is where a client is after it, as `positions` writes
    that; empty where it moves nobody. Control frames are never compressed (RFC 7692, 6.1), and are no events.
    """

    __slots__ = ("by_encoding", "opcode", "payload", "plain", "position")

    def __init__(self, payload: bytes, opcode: int = TEXT, position: bytes = b"") -> None:
        self.payload = payload
        self.opcode = opcode
        self.position = position
        # What to send to a connection by its encoding: 0 for a WebSocket without compression, 9 to 15 for one that
        # negotiated a window of so many bits, and those of `sse`.
        # Public for the loop over all connections, which looks here before it asks `encoded`.
        self.plain = server_frame(opcode, payload)
        self.by_encoding: list[bytes | None] = [self.plain, *_NOT_YET]

    def encoded(self, encoding: int) -> bytes:
        """The bytes for a connection with that encoding; the plain frame where compressing does not make it smaller."""
        known = self.by_encoding[encoding]
        if known is None:
            known = self._event(encoding) if sse.is_event(encoding) else self._deflate(encoding)
            self.by_encoding[encoding] = known
        return known

    def _deflate(self, window_bits: int) -> bytes:
        """The frame for a connection that negotiated a window of 2**window_bits bytes, 9 to 15 (RFC 7692)."""
        if self.opcode >= CLOSE or len(self.payload) < _SMALLEST_DEFLATED_BYTES:
            return self.plain
        # In a window that holds all of the message a larger one finds nothing more: share its bytes.
        enough = max(_SMALLEST_WINDOW_BITS, (len(self.payload) + _LOOKAHEAD_BYTES).bit_length())
        if window_bits > enough:
            return self.encoded(enough)
        # Short matches are not worth their distances in messages as short as these: filtered, 3 % smaller.
        memory = _SHORT_MEM_LEVEL if len(self.payload) <= _SHORT_BYTES else 9
        encoder = zlib.compressobj(wbits=-window_bits, memLevel=memory, strategy=zlib.Z_FILTERED)
        body = encoder.compress(self.payload) + encoder.flush(zlib.Z_SYNC_FLUSH)
        frame = server_frame(self.opcode, body[: -len(EMPTY_BLOCK)], rsv1=True)
        return frame if len(frame) < len(self.plain) else self.plain

    def _event(self, encoding: int) -> bytes:
        return sse.event(encoding, self.payload, self.position, self._blocks() if sse.is_gzip(encoding) else None)

    def _blocks(self) -> bytes | None:
        """The payload as it is compressed for a WebSocket, less the frame's head; None where it is not."""
        frame = self.encoded(_LARGEST_WINDOW_BITS)
        if not frame[0] & RSV1:
            return None
        head = {126: 4, 127: 10}.get(frame[1], 2)
        return frame[head:] + EMPTY_BLOCK


class Answer(Frame):
    """A short message for one connection alone, uncompressed: nobody shares the cost of an encoder."""

    __slots__ = ()

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        self.opcode = TEXT
        self.position = b""
        self.plain = plain = server_frame(TEXT, payload)
        self.by_encoding = [plain, *_NO_EVENTS, *[plain] * _WINDOWS]


class Burst(Frame):
    """Several answers in one write."""

    __slots__ = ("_payloads",)

    def __init__(self, payloads: Sequence[bytes]) -> None:
        self._payloads = payloads
        self.payload = self.plain = plain = b"".join([server_frame(TEXT, payload) for payload in payloads])
        self.opcode = TEXT
        self.position = b""
        self.by_encoding = [plain, *_NO_EVENTS, *[plain] * _WINDOWS]

    def _event(self, encoding: int) -> bytes:
        return b"".join([sse.event(encoding, payload) for payload in self._payloads])


class Joined(Frame):
    """Several frames in one write, each as it would go by itself."""

    __slots__ = ("frames",)

    def __init__(self, *frames: Frame) -> None:
        self.frames = frames
        self.position = b""
        self.by_encoding = [None] * (_LARGEST_WINDOW_BITS + 1)

    def encoded(self, encoding: int) -> bytes:
        """All of them, each by what it has for that encoding."""
        return b"".join([frame.encoded(encoding) for frame in self.frames])
