"""Listeners: the sockets that a server takes connections from.

Owns how an address is bound. Must never take a port that another program serves. Assumes that whoever binds a socket
makes it listen.
"""

from __future__ import annotations

import socket

from realtime.errors import StartupError


def address_of(listener: socket.socket) -> str:
    """The address of a bound socket, as a browser takes it."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def bound(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A socket at this address that does not listen yet; several processes may have `shared` ones.

    Raises StartupError where the address cannot be had.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise StartupError(f"Cannot listen on {host}: {error.strerror}. Correct REALTIME_HOST.") from None
    family, kind, _, _, address = found[0]
    made = socket.socket(family, kind)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        made.bind(address)
    except OSError as error:
        made.close()
        raise StartupError(
            f"Cannot listen on {host}, port {port}: {error.strerror}. Choose another port (REALTIME_PORT, --port)."
        ) from None
    return made
