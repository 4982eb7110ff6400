"""Sets of definitions: a file of leaderboards, and what must be right between them.

Owns how a TOML document becomes definitions, and they one, and whom `of` may name. Must never stop at the first
mistake, or read a file. Assumes that `parsing` judges each definition by itself.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping
from typing import Any

import orjson

from realtime.boards.definitions import DEFAULT_SLUG, Definition, DefinitionError, Problem
from realtime.boards.parsing import meant, parse_definition


def parse_definitions(
    tables: Mapping[str, object], *, zones: Collection[str] | None = None, known: Mapping[str, Definition] | None = None
) -> dict[str, Definition]:
    """The definitions of a set by slug, `known` being those that are there besides.

    Raises DefinitionError with everything that is wrong with any of them.
    """
    parsed: dict[str, Definition] = {}
    problems: list[Problem] = []
    for slug, fields in tables.items():
        try:
            parsed[slug] = parse_definition(slug, fields, zones=zones)
        except DefinitionError as error:
            problems += [problem.within(slug) for problem in error.problems]
    wrong = tables.keys() - parsed.keys()
    problems += check_together({**(known or {}), **parsed}, parsed, ignored=wrong)
    if problems:
        raise DefinitionError(problems)
    return parsed


def read_definitions(
    text: str, *, zones: Collection[str] | None = None, known: Mapping[str, Definition] | None = None
) -> dict[str, Definition]:
    """The definitions of a TOML document, one table each. Raises DefinitionError."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise DefinitionError([Problem("", f"This is no TOML: {error}.", "Mend it there.")]) from None
    return parse_definitions(tables, zones=zones, known=known)


def written_definition(definition: Definition) -> str:
    """A definition as a table of a TOML document; read again, it is equal."""
    fields = definition.as_json()
    seasons = fields.pop("seasons", ())
    lines = [f"[{definition.slug}]", *(f"{name} = {_toml(value)}" for name, value in fields.items())]
    for season in seasons:
        lines += [f"[[{definition.slug}.seasons]]", f"id = {_toml(season['id'])}"]
        lines += [f"{name} = {season[name]}" for name in ("starts", "ends")]  # TOML has moments of its own
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    """A text, number, truth, list or table, in TOML, on one line."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {_toml(of)}" for name, of in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return orjson.dumps(value).decode()  # a text of JSON is one of TOML: no title holds DEL


def check_together(
    everything: Mapping[str, Definition], changed: Collection[str], *, ignored: Collection[str] = ()
) -> list[Problem]:
    """What is wrong between definitions: those of `changed` and whatever is `of` them, among `everything` that will be
    there. Slugs that are `ignored` count as right."""
    problems: list[Problem] = []
    for slug, definition in everything.items():
        of = definition.of
        if of is None or of in ignored or (slug not in changed and of not in changed and of in everything):
            continue
        source = everything.get(of)
        if source is None and of != DEFAULT_SLUG:
            do = f"Define {of}, or name another.{meant(of, everything)}"
            problems.append(Problem("of", f"There is no leaderboard {of}.", do).within(slug))
        elif source is not None and source.of is not None:
            wrong = f"{of} takes no submissions: it is itself of {source.of}."
            problems.append(Problem("of", wrong, f"Name one that takes its own, as {source.of}.").within(slug))
    return problems
