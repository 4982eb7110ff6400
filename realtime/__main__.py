"""`python -m realtime` is the `realtime` command.

Owns what SIGTERM means until the command that was asked for says so itself: its modules take a while to be read, and a
process that is told to end meanwhile has done nothing yet. Must never import anything before that. Assumes that it is
what the process begins with.
"""

import signal
import sys
from types import FrameType
from typing import Final

SERVICES: Final = ("serve", "worker", "up")
"""Commands that end well where they are told to end; all others are broken off by it."""


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(0 if sys.argv[1:2] and sys.argv[1] in SERVICES else 128 + number)


def main() -> None:
    """Runs the command."""
    signal.signal(signal.SIGTERM, _leave)
    from realtime.cli.main import main as command

    command()


if __name__ == "__main__":
    main()
