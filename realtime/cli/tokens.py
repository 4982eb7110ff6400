"""The commands that make and revoke tokens.

Owns their options and sentences. Must never log a token or put one into an error: it is the last line printed. Assumes
that whoever may read the secret may make any token.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from realtime.boards.catalogue import check_name
from realtime.boards.definitions import SLUG
from realtime.cli.application import DEFAULT_DATA_DIR, DataDir, operator, resolve, run, say
from realtime.ledger.ledger import Ledger
from realtime.people.revocation import Revocations
from realtime.people.tokens import Tokens
from realtime.validation import ID_MAX

token_cli = typer.Typer(invoke_without_command=True)


@token_cli.callback()
def token(
    context: typer.Context,
    scope: Annotated[
        list[str] | None, typer.Option(help="submit, submit:any, read, admin; may be given again.")
    ] = None,
    user_id: Annotated[int | None, typer.Option(min=1, max=ID_MAX, help="The user the token speaks for.")] = None,
    board: Annotated[
        list[str] | None, typer.Option(help="Bind it to this board, as for an overlay; may be given again.")
    ] = None,
    leaderboard: Annotated[
        list[str] | None, typer.Option(help="Bind it to this leaderboard; may be given again.")
    ] = None,
    lifetime: Annotated[int, typer.Option(min=1, help="Seconds it lives.")] = 86_400,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Make a token; it is the last line printed."""
    context.obj = data_dir
    if context.invoked_subcommand is not None:
        return
    if not scope:
        raise typer.BadParameter("Say what it is for: --scope submit, submit:any, read or admin.", context)
    settings = resolve(data_dir, "REALTIME_SECRET")
    scopes = [name for given in scope for name in given.replace(",", " ").split()]
    if scopes == ["submit"] and user_id is None:
        typer.echo("This token can submit nothing: `submit` is for the user it speaks for, --user-id N.", err=True)
    for name in board or ():
        check_name(name, datetime.now(UTC))
    for slug in leaderboard or ():
        if not SLUG.fullmatch(slug):
            raise typer.BadParameter(f"No leaderboard can be called {slug!a}.", context)
    span = timedelta(seconds=lifetime)
    text, _ = Tokens.of(settings).mint(
        user_id, scopes, datetime.now(UTC), span, boards=board or (), leaderboards=leaderboard or ()
    )
    say(text)


@token_cli.command()
def revoke(
    context: typer.Context,
    given: Annotated[str, typer.Argument(metavar="TOKEN", help="The token; - reads it from standard input.")],
    reason: Annotated[str | None, typer.Option(help="Why, for the audit log.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the development instance.")] = None,
) -> None:
    """Take a token back before it expires; servers know within two seconds."""
    settings = resolve(data_dir or context.obj, "DATABASE_URL", "REALTIME_SECRET")
    text = sys.stdin.read().strip() if given == "-" else given

    async def work() -> None:
        ledger = Ledger(settings.database_url.reveal(), connections=1)
        try:
            await ledger.open()
            identity = Tokens.of(settings).verify(text, ledger.clock.now())
            await Revocations(ledger).revoke(identity, actor=operator(), reason=reason)
        finally:
            await ledger.aclose()

    run(work())
    say("The token is revoked.")

