"""The `realtime` command.

Owns the list of modules with commands, and which error becomes one sentence and exit code 1. Must never do work by
itself: each command resolves its settings, builds what it needs, and shows what comes of it. Assumes that a module adds
its commands to `cli` when it is imported.
"""

from __future__ import annotations

import sys

from realtime import __version__
from realtime.boards.definitions import DefinitionError
from realtime.cli import maintenance, scores, serving, watching  # noqa: F401  # each adds its commands to `cli`
from realtime.cli.application import cli, say
from realtime.cli.leaderboards import leaderboards_cli
from realtime.cli.tokens import token_cli
from realtime.dev.instance import InstanceError
from realtime.errors import LedgerUnavailable, RealtimeError, StartupError, StoreUnavailable, TaskFailed

cli.add_typer(token_cli, name="token")
cli.add_typer(leaderboards_cli, name="leaderboards")


@cli.command()
def version() -> None:
    """Print the version."""
    say(__version__)


def main() -> None:
    """Runs the command; what went wrong is one sentence, and exit code 1."""
    try:
        cli()
    except (StartupError, TaskFailed, InstanceError, LedgerUnavailable, StoreUnavailable, RealtimeError) as error:
        print(f"realtime: {_sentence(error)}", file=sys.stderr, flush=True)
        raise SystemExit(1) from None


def _sentence(error: Exception) -> str:
    """What an error says, for people; of a store or database that is away a library says only how that showed."""
    if isinstance(error, DefinitionError):
        return "\n  ".join(["This cannot be defined:", *map(str, error.problems)])
    if isinstance(error, StoreUnavailable):
        return f"The store cannot be used: {error}"
    if isinstance(error, LedgerUnavailable):
        return f"PostgreSQL cannot be used: {error}"
    return str(error)
