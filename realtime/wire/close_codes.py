"""Close codes: why the server ended a connection (RFC 6455, section 7.4).

Owns their numbers. Must never give a published number another meaning. Assumes that clients decide by the code whether
to come back.
"""

from __future__ import annotations

from enum import IntEnum


class CloseCode(IntEnum):
    """Why the server closed (RFC 6455, section 7.4; 4000 to 4999 are an application's own)."""

    BROKEN = 1002
    """What came is no WebSocket frame, or cannot be decompressed."""
    NOT_TEXT = 1003
    """A binary message: messages are text."""
    NOT_UTF8 = 1007
    """A text message, or what its compression held, that is none."""
    IDLE_FLOOD = 1008
    """Frames that bring no message nearer, without end: pings, pongs, crumbs; or a message that takes too long."""
    TOO_LARGE = 1009
    """A message longer than may be."""
    FAILED = 1011
    """The server made a mistake: come back."""
    RESTART = 1012
    """The server restarts: come back, at the moment that `reconnect` named."""
    AUTHENTICATION = 4401
    """The token at the handshake is no good: come back with another."""
    TOO_SLOW = 4408
    """The client did not read for too long: come back and get a snapshot."""
    LIMITS = 4429
    """A limit was passed: come back later."""
