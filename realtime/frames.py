"""WebSocket frames, outgoing and incoming, as pure bytes.

Owns the bytes of a server's frames (RFC 6455, section 5.2) and their compressed twins (RFC 7692), made once
for a payload and shared by every connection; and a client's bytes that are not yet a whole message.
Must never know a socket, a clock or a connection; never holds more of a client than one message of the
largest size.
Assumes that compression is negotiated without context takeover in either direction: only then does a
message not depend on the one before, so that one compressed frame suits everybody.

Ordinary incoming frames (whole messages, pings, pongs) are taken apart here; everything else is handed, frame
by frame, to the parser of the `websockets` library, whose judgement stands.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterable
from typing import NamedTuple, cast

from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Close, apply_mask  # type: ignore[attr-defined]  # in C where it was built
from websockets.frames import Frame as JudgedFrame
from websockets.protocol import SERVER, Protocol

__all__ = [
    "BINARY",
    "CLOSE",
    "CONT",
    "PING",
    "PONG",
    "TEXT",
    "Answer",
    "Burst",
    "Deframer",
    "Frame",
    "Incoming",
    "Joined",
    "ViolationError",
    "server_frame",
]

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

_MASKED = 0x80
_OPCODES = frozenset((CONT, TEXT, BINARY, CLOSE, PING, PONG))
_COMPRESSED_HEADS = (FIN | RSV1 | TEXT, FIN | RSV1 | BINARY)


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


class Incoming(NamedTuple):
    """What a client sent: a whole TEXT (valid UTF-8) or BINARY message, a PING, a PONG or a CLOSE.

    `opcode` CONT says that a fragment of `payload`'s length was taken in and more is to come.
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
        "_ended",
        "_judge",
        "_max_size",
        "_message",
        "_message_opcode",
        "_position",
        "inflating",
    )

    def __init__(self, max_size: int | None, inflating: bool) -> None:
        self._max_size = sys.maxsize if max_size is None else max_size
        self.inflating = inflating
        # Arrived and not yet taken: everything from `_position` on. Empty bytes while nothing waits.
        self._bytes: bytes | bytearray = b""
        self._position = 0
        self._ended = False
        # Only while a message comes in fragments: its parser, what there is of it, its opcode.
        self._judge: Protocol | None = None
        self._message = bytearray()
        self._message_opcode = TEXT

    @property
    def waiting_bytes(self) -> int:
        """Bytes that arrived and were not yet taken."""
        return len(self._bytes) - self._position

    def feed(self, data: bytes) -> None:
        """Take in what arrived."""
        if self._ended:
            return
        self._trim()
        if isinstance(self._bytes, bytearray):
            self._bytes += data
        else:
            self._bytes = data

    def end(self) -> None:
        """Forget everything that arrived, and whatever comes."""
        self._ended = True
        self._bytes, self._position, self._judge, self._message = b"", 0, None, bytearray()

    def next(self) -> Incoming | None:
        """The next event, or None when more bytes are needed.

        Raises ViolationError, after which the client must not be listened to any more.
        """
        data, position = self._bytes, self._position
        left = len(data) - position
        if left < 2:
            self._trim()
            return None
        head = data[position]
        length = data[position + 1] - _MASKED
        if length < 126:
            start = position + 6
        elif left < (4 if length == 126 else 10):
            self._trim()
            return None
        elif length == 126:
            start = position + 8
            length = int.from_bytes(data[position + 2 : position + 4], "big")
        else:
            start = position + 14
            length = int.from_bytes(data[position + 2 : position + 10], "big")
        stop = start + length
        if length < 0 or head & 0x0F not in _OPCODES or length > self._room():
            # Refused for its header alone, before any of its payload is kept.
            header = data[position : position + 2 if length < 0 else start - 4]
            self._judged(header)
        if stop > len(data):
            self._trim()
            return None
        self._position = stop
        if self._judge is None and (head == FIN | TEXT or head == FIN | BINARY):
            payload = apply_mask(data[start:stop], data[start - 4 : start])
            return self._whole(head & 0x0F, payload)
        if (head == FIN | PING or head == FIN | PONG) and length < 126:
            return Incoming(head & 0x0F, apply_mask(data[start:stop], data[start - 4 : start]))
        if self.inflating and self._judge is None and head in _COMPRESSED_HEADS:
            inflated = self._inflate(apply_mask(data[start:stop], data[start - 4 : start]))
            if inflated is not None:
                return self._whole(head & 0x0F, inflated)
        return self._judged(data[position:stop])

    def _room(self) -> int:
        """Bytes which the message that is coming in may still take."""
        taken = None if self._judge is None else self._judge.current_size
        return self._max_size - (taken or 0)

    def _trim(self) -> None:
        """Keep only what is not yet taken: a small rest must not hold a large chunk."""
        if self._position == len(self._bytes):
            self._bytes = b""
        elif isinstance(self._bytes, bytes):
            self._bytes = bytearray(memoryview(self._bytes)[self._position :])
        else:
            del self._bytes[: self._position]
        self._position = 0

    @staticmethod
    def _whole(opcode: int, payload: bytes) -> Incoming:
        if opcode == TEXT and not payload.isascii():
            try:
                payload.decode()
            except UnicodeDecodeError as error:
                raise ViolationError(1007, f"{error.reason} at position {error.start}") from None
        return Incoming(opcode, payload)

    def _inflate(self, payload: bytes) -> bytes | None:
        """The decompressed message, or None where the parser of `websockets` must say what is wrong."""
        decoder = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
        try:
            inflated = decoder.decompress(payload + EMPTY_BLOCK, min(self._max_size, sys.maxsize))
        except zlib.error:
            return None
        return None if decoder.unconsumed_tail else inflated

    def _judged(self, data: bytes | bytearray) -> Incoming:
        """Let `websockets` judge a whole frame, or a header that it refuses."""
        judge = self._judge
        if judge is None:
            judge = Protocol(SERVER, max_size=None if self._max_size == sys.maxsize else self._max_size)
            if self.inflating:
                judge.extensions = [PerMessageDeflate(True, True, zlib.MAX_WBITS, zlib.MAX_WBITS)]
        judge.receive_data(data)
        frames = judge.events_received()
        if judge.parser_exc is not None or not frames:
            close = judge.close_sent or Close(1002, "")
            raise ViolationError(int(close.code), close.reason)
        frame = cast(JudgedFrame, frames[0])  # whole frames go in one by one
        # Between messages there is nothing to remember: an idle connection keeps no parser.
        self._judge = judge if judge.current_size is not None else None
        return self._assembled(frame)

    def _assembled(self, frame: JudgedFrame) -> Incoming:
        opcode, payload = int(frame.opcode), bytes(frame.data)
        if opcode in (CLOSE, PING, PONG):
            return Incoming(opcode, payload)
        if opcode != CONT:
            self._message_opcode = opcode
        self._message += payload
        if not frame.fin:
            return Incoming(CONT, payload)
        message, self._message = bytes(self._message), bytearray()
        return self._whole(self._message_opcode, message)


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
