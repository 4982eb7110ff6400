"""Unsent bytes: what the kernel takes for a client that does not read, and for how long.

Owns two options of a socket. Must never fail where a system or a family of sockets does not have them. Without a limit
the kernel takes megabytes, long outdated when they are read, and nobody knows that the client is behind.
"""

from __future__ import annotations

import asyncio
import socket

__all__ = ["bound_unanswered", "bound_unsent"]

_USER_TIMEOUT = getattr(socket, "TCP_USER_TIMEOUT", None)
_INTERNET = (socket.AF_INET, socket.AF_INET6) if hasattr(socket, "TCP_NOTSENT_LOWAT") else ()


def bound_unsent(transport: asyncio.Transport, most_bytes: int) -> None:
    """Lets so many bytes at most wait in the kernel until the client's window opens (tcp(7), TCP_NOTSENT_LOWAT)."""
    sock = transport.get_extra_info("socket")
    if sock.family in _INTERNET:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, most_bytes)


def bound_unanswered(transport: asyncio.Transport, seconds: float) -> None:
    """Resets a connection whose other side has acknowledged nothing for so long (tcp(7), TCP_USER_TIMEOUT): it is gone
    without a word, or its window stays closed."""
    sock = transport.get_extra_info("socket")
    if _USER_TIMEOUT is not None and sock.family in _INTERNET:
        sock.setsockopt(socket.IPPROTO_TCP, _USER_TIMEOUT, int(seconds * 1000))
