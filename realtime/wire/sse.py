"""Server-sent events, as pure bytes (HTML Standard, section 9.2), plain and compressed (RFC 1952).

Owns how a message is written on a stream of events. Must never know a socket, a clock or a connection.
Assumes that a message is one line, as JSON without white space is, and that a stream's compressed bytes are one gzip
member that has no end: a head, then blocks (RFC 1951) of which none looks back into another event. So what one event
is compressed to suits every stream, at any place of it, and is the very body that a WebSocket's compressed frame has.
"""

from __future__ import annotations

from typing import Final

__all__ = ["GZIP", "GZIP_HEAD", "OWN", "OWN_GZIP", "PLAIN", "comment", "event", "is_event", "is_gzip", "stored"]

# Encodings of a frame on streams of events, beside 0 for a WebSocket's plain frames and 9 to 15 for compressed ones.
# The OWN ones leave the position to the stream, which says it in words of its own.
PLAIN, GZIP, OWN, OWN_GZIP = 1, 2, 3, 4

GZIP_HEAD: Final = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
"""What a compressed stream begins with: deflate, no name, no time, no system."""

_LARGEST_STORED: Final = 0xFFFF
_PREFIX: Final = b"data: "
_END: Final = b"\n\n"


def is_event(encoding: int) -> bool:
    """Whether that encoding is one of events."""
    return PLAIN <= encoding <= OWN_GZIP


def is_gzip(encoding: int) -> bool:
    """Whether it is a compressed one of events."""
    return encoding in (GZIP, OWN_GZIP)


def stored(data: bytes) -> bytes:
    """Bytes as blocks that are not compressed (RFC 1951, section 3.2.4), where blocks begin at a byte."""
    blocks = []
    for start in range(0, len(data), _LARGEST_STORED):
        part = data[start : start + _LARGEST_STORED]
        size = len(part)
        blocks.append(b"\x00%b%b%b" % (size.to_bytes(2, "little"), (size ^ 0xFFFF).to_bytes(2, "little"), part))
    return b"".join(blocks)


def event(encoding: int, payload: bytes, position: bytes = b"", deflated: bytes | None = None) -> bytes:
    """A message as an event, with the position that a client is at after it, where it moves that.

    `deflated` is the payload as blocks that end at a byte; None where compressing does not make it smaller.
    """
    before = b"id: %b\n%b" % (position, _PREFIX) if position and encoding in (PLAIN, GZIP) else _PREFIX
    if encoding in (PLAIN, OWN):
        return b"%b%b%b" % (before, payload, _END)
    if deflated is None:
        return stored(b"%b%b%b" % (before, payload, _END))
    return b"%b%b%b" % (stored(before), deflated, stored(_END))


def line(encoding: int, text: bytes) -> bytes:
    """A line of an event, or several, as they stand."""
    return stored(text) if is_gzip(encoding) else text


def comment(encoding: int) -> bytes:
    """What keeps proxies from thinking that nobody is there; no client shows it to anybody."""
    return line(encoding, b":\n\n")
