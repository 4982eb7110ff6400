"""Incoming WebSocket frames: a client's bytes in, whole messages and control frames out.

Owns the bytes of a frame that is not yet whole and the message that is not yet whole. Ordinary frames
(whole messages, pings, pongs) are taken apart here; everything else is handed, frame by frame, to the
parser of the `websockets` library, whose judgement stands.
Must never know a socket, a clock or a connection; never holds more than one message of the largest size.
Assumes that a compressed message does not depend on the one before (`client_no_context_takeover`).
"""

from __future__ import annotations

import sys
import zlib
from typing import NamedTuple, cast

from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Close
from websockets.frames import Frame as JudgedFrame
from websockets.protocol import SERVER, Protocol
from websockets.speedups import apply_mask

from realtime.frames import BINARY, CLOSE, CONT, EMPTY_BLOCK, FIN, PING, PONG, RSV1, TEXT

__all__ = ["Deframer", "Incoming", "ViolationError"]

_MASKED = 0x80
_OPCODES = frozenset((CONT, TEXT, BINARY, CLOSE, PING, PONG))
_COMPRESSED_HEADS = (FIN | RSV1 | TEXT, FIN | RSV1 | BINARY)


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
