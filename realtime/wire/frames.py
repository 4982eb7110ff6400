"""Outgoing WebSocket frames, as pure bytes.

Owns the bytes of a server's frames (RFC 6455, section 5.2) and their compressed twins (RFC 7692), made once for a
payload and shared by every connection. Must never know a socket, a clock or a connection.
Assumes that compression is negotiated without context takeover in either direction: only then does a message not depend
on the one before, so that one compressed frame suits everybody.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable

__all__ = ["BINARY", "CLOSE", "CONT", "PING", "PONG", "TEXT", "Answer", "Burst", "Frame", "Joined", "server_frame"]

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
    """A message, ready for every connection: plain, and compressed once for each size of window.

    `payload` is the whole message, UTF-8 for TEXT. Control frames are never compressed (RFC 7692, 6.1).
    """

    __slots__ = ("by_window", "opcode", "payload", "plain")

    def __init__(self, payload: bytes, opcode: int = TEXT) -> None:
        self.payload = payload
        self.opcode = opcode
        # What to send to a connection by its window in bits; entry 0 is for those without compression.
        # Public for the loop over all connections, which looks here before it asks `deflated`.
        self.plain = server_frame(opcode, payload)
        self.by_window: list[bytes | None] = [self.plain, *_NOT_YET]

    def deflated(self, window_bits: int) -> bytes:
        """The frame for a connection that negotiated a window of 2**window_bits bytes, 9 to 15 (RFC 7692).

        The plain frame where compressing does not make it smaller.
        """
        known = self.by_window[window_bits]
        if known is None:
            known = self._deflate(window_bits)
            self.by_window[window_bits] = known
        return known

    def _deflate(self, window_bits: int) -> bytes:
        if self.opcode >= CLOSE or len(self.payload) < _SMALLEST_DEFLATED_BYTES:
            return self.plain
        # In a window that holds all of the message a larger one finds nothing more: share its bytes.
        enough = max(_SMALLEST_WINDOW_BITS, (len(self.payload) + _LOOKAHEAD_BYTES).bit_length())
        if window_bits > enough:
            return self.deflated(enough)
        # Short matches are not worth their distances in messages as short as these: filtered, 3 % smaller.
        memory = _SHORT_MEM_LEVEL if len(self.payload) <= _SHORT_BYTES else 9
        encoder = zlib.compressobj(wbits=-window_bits, memLevel=memory, strategy=zlib.Z_FILTERED)
        body = encoder.compress(self.payload) + encoder.flush(zlib.Z_SYNC_FLUSH)
        frame = server_frame(self.opcode, body[: -len(EMPTY_BLOCK)], rsv1=True)
        return frame if len(frame) < len(self.plain) else self.plain


class Answer(Frame):
    """A short message for one connection alone, uncompressed: nobody shares the cost of an encoder."""

    __slots__ = ()

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        self.opcode = TEXT
        self.plain = server_frame(TEXT, payload)
        self.by_window = [self.plain] * (_LARGEST_WINDOW_BITS + 1)


class Burst(Frame):
    """Several answers in one write."""

    __slots__ = ()

    def __init__(self, payloads: Iterable[bytes]) -> None:
        self.payload = self.plain = b"".join([server_frame(TEXT, payload) for payload in payloads])
        self.opcode = TEXT
        self.by_window = [self.plain] * (_LARGEST_WINDOW_BITS + 1)


class Joined(Frame):
    """Several frames in one write, each as it would go by itself."""

    __slots__ = ("frames",)

    def __init__(self, *frames: Frame) -> None:
        self.frames = frames
        self.by_window = [None] * (_LARGEST_WINDOW_BITS + 1)

    def deflated(self, window_bits: int) -> bytes:
        """All of them, each by what it has for that window, 0 for none."""
        return b"".join([frame.deflated(window_bits) for frame in self.frames])
