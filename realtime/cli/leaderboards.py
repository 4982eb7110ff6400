"""The commands that define leaderboards: list, show, plan, apply, remove, rebuild.

Owns how definitions, plans and progress look in a terminal. Must never build anything: a worker does, and
goes on where this command was broken off. Assumes that results are for people: programs ask `GET /leaderboards`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Annotated, Any, Final

import orjson
import typer

from realtime import resources
from realtime.boards.definition_sets import read_definitions, written_definition
from realtime.boards.definitions import Definition, DefinitionError, Problem
from realtime.cli import progress
from realtime.cli.application import DEFAULT_DATA_DIR, DataDir, cli, operator, resolve, run, say
from realtime.errors import StartupError
from realtime.ledger.defined import Defined
from realtime.ledger.definitions import Definitions
from realtime.ledger.leaderboards import Leaderboards
from realtime.ledger.ledger import Ledger
from realtime.ledger.plans import Change, Plan, Step
from realtime.settings import Settings

leaderboards_cli = typer.Typer(no_args_is_help=True, help="Define leaderboards, and see how far they are.")

LOOK: Final = 0.2
"""Seconds between two looks at a build."""

NOBODY: Final = 15.0
"""Seconds without progress after which nobody seems to build."""

File = Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="TOML, a table a leaderboard.")]
Slug = Annotated[str, typer.Argument(help="The leaderboard's slug.")]
Prune = Annotated[bool, typer.Option("--prune", help="Remove leaderboards that the file does not have.")]
AsJson = Annotated[bool, typer.Option("--json", help="As `GET /leaderboards/{slug}` has it.")]
Wait = Annotated[bool, typer.Option(help="Wait until the standings are made and shown.")]


@cli.command()
def init(
    file: Annotated[Path, typer.Argument(dir_okay=False, help="Where to write it.")] = Path("leaderboards.toml"),
) -> None:
    """Write a file of leaderboards with a comment on every field, to be changed and applied."""
    sample = resources.folder("web") / "docs" / "leaderboards.toml"
    try:
        with file.open("x", encoding="utf-8") as new:
            new.write(sample.read_text(encoding="utf-8"))
    except FileExistsError:
        raise StartupError(f"{file} is there already: name another one, or move it away.") from None
    except OSError as error:
        raise StartupError(f"{file} cannot be written: {error.strerror}.") from None
    say(f"{file} is written. Change it, then: realtime leaderboards plan {file}")


@leaderboards_cli.command("list")
def list_all(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Every leaderboard: what it ranks, in which windows, and whether it is shown."""

    async def work() -> list[Defined]:
        async with _opened(resolve(data_dir, "DATABASE_URL")) as ledger:
            return list((await Definitions(ledger).all()).values())

    head = ("SLUG", "TITLE", "RANKS", "WINDOWS", "STATE")
    found: list[Defined] = run(work())
    rows = [(one.slug, one.definition.title, _rule(one.definition), _windows(one), _state(one)) for one in found]
    for line in _columns([head, *rows]):
        say(line)


@leaderboards_cli.command()
def show(slug: Slug, as_json: AsJson = False, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """One leaderboard: how far its standings are, its boards, and its definition as `apply` takes it."""

    async def work() -> tuple[Defined, list[str]]:
        async with _opened(resolve(data_dir, "DATABASE_URL")) as ledger:
            definitions = Definitions(ledger)
            one = await definitions.one(slug)
            directory = Leaderboards(ledger, definitions, partitions=1)  # no board's name depends on it
            await directory.refresh()
            return one, [board.id for board in directory.current.current_boards(slug, ledger.clock.now())]

    one, boards = run(work())
    for line in [orjson.dumps(one.as_json(boards)).decode()] if as_json else _told(one, boards):
        say(line)


@leaderboards_cli.command()
def plan(file: File, prune: Prune = False, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Say what `apply` would do, and do nothing."""
    text = _text(file)

    async def work() -> Plan:
        async with _opened(resolve(data_dir, "DATABASE_URL")) as ledger:
            definitions = Definitions(ledger)
            wanted = await _wanted(text, definitions, prune)
            return await definitions.plan(wanted, ledger.clock.now(), prune=prune)

    for line in _planned(run(work())):
        say(line)


@leaderboards_cli.command()
def apply(file: File, prune: Prune = False, wait: Wait = True, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Make leaderboards what a file says; safe to repeat, to break off and to resume.

    Standings that a change needs are made from the log beside those that are shown, by a worker (or `up`) that
    runs; then they are exchanged at one moment.
    """
    text = _text(file)

    async def work() -> bool:
        async with _opened(resolve(data_dir, "DATABASE_URL")) as ledger:
            definitions = Definitions(ledger)
            wanted = await _wanted(text, definitions, prune)
            planned = await definitions.plan(wanted, ledger.clock.now(), prune=prune)
            touched = {change.slug for change in (*planned.added, *planned.changed)}

            def told(step: Step) -> None:
                if step.wanted is None:
                    say(f"- {step.slug} is removed.")
                elif step.slug in touched:
                    say(f"{'+' if step.slug in {one.slug for one in planned.added} else '~'} {step.slug} is defined.")

            await definitions.apply(wanted, actor=operator(), prune=prune, told=told)
            if planned.is_empty:
                say("Nothing to do: everything is as the file has it.")
            return await _made(definitions, wanted) if wait else True

    if not run(work()):
        raise typer.Exit(1)


@leaderboards_cli.command()
def remove(slug: Slug, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Take a leaderboard's boards away; what was sent is kept, and defining it again brings it back."""

    async def work() -> None:
        async with _opened(resolve(data_dir, "DATABASE_URL")) as ledger:
            await Definitions(ledger).remove(slug, actor=operator())

    run(work())
    say(f"{slug} is removed. Its submissions are kept: define it again, and it is back.")


@leaderboards_cli.command()
def rebuild(slug: Slug, wait: Wait = True, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Make a leaderboard's standings anew from the log, beside those that are shown."""

    async def work() -> bool:
        async with _opened(resolve(data_dir, "DATABASE_URL")) as ledger:
            definitions = Definitions(ledger)
            await definitions.rebuild(slug, actor=operator())
            return await _made(definitions, [slug]) if wait else True

    if not run(work()):
        raise typer.Exit(1)


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[Ledger]:
    ledger = Ledger(settings.database_url.reveal(), connections=2)
    try:
        await ledger.open()
        yield ledger
    finally:
        await ledger.aclose()


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise DefinitionError([Problem("", f"{file} is not UTF-8.", "Save it as UTF-8.")]) from None


async def _wanted(text: str, definitions: Definitions, prune: bool) -> dict[str, Definition]:
    """The definitions of a file, which go together with those that stay. Raises DefinitionError."""
    known = {} if prune else {slug: one.definition for slug, one in (await definitions.all()).items()}
    return read_definitions(text, zones=await definitions.zones(), known=known)


async def _made(definitions: Definitions, slugs: Collection[str]) -> bool:
    """Waits until standings are made, with a bar each; whether all could be."""
    known: dict[str, tuple[float, int | None]] = {}
    since = monotonic()
    everything: dict[str, Defined] = {}
    with progress.shares() as bars:
        while True:
            everything = await definitions.all()
            ours = [everything[slug] for slug in slugs if slug in everything]
            for one in ours:
                if known.get(one.slug, (one.progress, one.next_rule)) != (one.progress, one.next_rule):
                    since = monotonic()
                if one.is_building or one.slug in known:
                    known[one.slug] = one.progress, one.next_rule
                    bars.show(one.slug, int(one.progress * 1_000), 1_000, "" if one.is_building else _state(one))
            if not any(one.is_building for one in ours):
                break
            if monotonic() - since > NOBODY:
                bars.say("Nobody seems to build: start `realtime worker` (or `realtime up`), it goes on there.")
                return False
            await asyncio.sleep(LOOK)
    failed = [one for one in ours if one.failure is not None]
    for one in failed:
        say(f"{one.slug} could not be made: {one.failure}")
    if known and not failed:
        say("Everything is made and shown.")
    return not failed


# What it looks like ----------------------------------------------------------------------------------------------


def _rule(definition: Definition) -> str:
    of = "" if definition.of is None else f" of {definition.of}"
    return f"{definition.operator}{of}, {definition.order}"


def _windows(one: Defined) -> str:
    return " ".join(one.definition.windows)


def _state(one: Defined) -> str:
    if one.is_building:
        return f"building, {one.progress:.0%}"
    if one.failure is not None:
        return "failed" if one.rule is None else "live, the change failed"
    return "live"


def _columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()


def _told(one: Defined, boards: Sequence[str]) -> Iterator[str]:
    yield f"# state   {_state(one)}"
    if one.failure is not None:
        yield f"#         {one.failure}"
    if one.coming is not None and one.shown is not None:
        yield f"#         shown as before until then; made anew for {', '.join(one.made_anew_for) or 'a rebuild'}"
    for number, board in enumerate(boards):
        yield f"# {'' if number else 'boards':<6}  {board}"
    yield from written_definition(one.definition).splitlines()


def _moment(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _value(value: Any) -> str:
    return orjson.dumps(value).decode()


def _planned(planned: Plan) -> Iterator[str]:
    for change in planned.added:
        yield f"+ {change.slug}: new; {_rule(change.wanted)}; {' '.join(change.wanted.windows)}"
    for change in planned.changed:
        yield f"~ {change.slug}"
        yield from _changed(change)
    for slug in planned.removed:
        yield f"- {slug}: its boards go, what was sent is kept"
    for slug in planned.left:
        yield f"  {slug}: not in the file, stays (--prune removes it)"
    if planned.is_empty:
        yield "Nothing to do: everything is as the file has it."


def _changed(change: Change) -> Iterator[str]:
    before = {} if change.before is None else change.before.as_json()
    after = change.wanted.as_json()
    for name in change.fields:
        yield f"    {name}: {_value(before.get(name))} becomes {_value(after.get(name))}"
    for window, ends, until in change.stretched:
        yield f"    {window} ends {_moment(until)}, not {_moment(ends)}"
    if change.anew:
        yield f"    standings are made anew, for: {', '.join(change.anew)}"
    elif not change.fields:
        yield "    standings are made anew: the last ones could not be made"
