"""Outgoing WebSocket frames: made once for a payload, shared by every connection.

Owns the bytes of a server's frames (RFC 6455, section 5.2) and their compressed twins (RFC 7692).
Must never know a socket, a clock or a connection; what it hands out never changes.
Assumes that a connection which wants compressed frames negotiated `server_no_context_takeover`: only
then does a frame not depend on what was sent before it, so that one compressed frame suits everybody.
"""

from __future__ import annotations

import zlib

__all__ = ["BINARY", "CLOSE", "CONT", "PING", "PONG", "TEXT", "Frame", "server_frame"]

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

# Payloads up to this many bytes get by with zlib's smaller tables, which are quicker to set up.
_SMALL_TABLES_BYTES = 2048


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
        memory = 5 if len(self.payload) <= _SMALL_TABLES_BYTES else 8
        encoder = zlib.compressobj(wbits=-window_bits, memLevel=memory)
        body = encoder.compress(self.payload) + encoder.flush(zlib.Z_SYNC_FLUSH)
        frame = server_frame(self.opcode, body[: -len(EMPTY_BLOCK)], rsv1=True)
        return frame if len(frame) < len(self.plain) else self.plain
