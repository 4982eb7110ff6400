"""A container's health check: `python -m realtime.healthcheck` asks this machine's server whether it is alive.

Owns where that is: address and port of the settings, so that an image need not repeat them. Must never go through a
proxy, nor import the server: it runs every few seconds. Assumes the server's own environment. Exit code 0 where the
server answers, else 1 and why.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException
from typing import Final

from realtime.errors import StartupError
from realtime.settings import Settings

PATIENCE: Final = 2.0
"""Seconds that an answer may take."""

_EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where to ask, not where to listen
"""What to ask where a server listens on all addresses."""


def trouble(environment: Mapping[str, str]) -> str | None:
    """Why the server of these settings is not well; None where it is."""
    try:
        settings = Settings.load(environment)
    except StartupError as error:
        return str(error)
    if not settings.port:
        return "REALTIME_PORT is 0: the port is known to the server alone. Name one."
    host = _EVERYWHERE.get(settings.host, settings.host)
    connection = HTTPConnection(host, settings.port, timeout=PATIENCE)
    try:
        connection.request("GET", "/healthz")
        status = connection.getresponse().status
    except (OSError, HTTPException) as error:
        return f"No answer from {host}, port {settings.port}: {error or type(error).__name__}"
    finally:
        connection.close()
    return None if status == 200 else f"{host}, port {settings.port}, answers {status}."


def main() -> None:
    """Ends the process with what is found."""
    raise SystemExit(trouble(os.environ))


if __name__ == "__main__":
    main()
