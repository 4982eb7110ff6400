"""Parsing of definitions: what people write, in TOML or JSON, becomes a `Definition`, or a list of all that is wrong.

Owns what each field may be, what it is where it is left out, and the sentences about what it cannot be. Must never stop
at the first mistake, pass over a field that it does not know, or read a file. Assumes that the names of zones are given
by whoever can ask PostgreSQL; without them any name that looks like one passes, as for definitions that were checked
before.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, date, datetime, time
from difflib import get_close_matches
from itertools import pairwise
from typing import Any, Final

from realtime.boards.definitions import (
    DEFAULT_DEFINITION,
    DEFAULT_SLUG,
    KINDS,
    OPERATORS,
    ORDERS,
    RANKS,
    SCORE_MAX,
    SLUG,
    SUBMITTERS,
    TIES,
    VISIBLE,
    WEEKDAYS,
    Bounds,
    Definition,
    DefinitionError,
    Format,
    Problem,
    Season,
)
from realtime.errors import RealtimeError
from realtime.validation import INT_MAX, INT_MIN, parse_moment, plain_text, whole_number

TITLE_LENGTH: Final = 100
SEASONS: Final = 1_000
"""A leaderboard has at most so many."""

PLACES: Final = 6

_SEASON: Final = re.compile(r"[a-z0-9_]{1,32}\Z")
_ZONE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_+/-]*\Z")
_OFFSET: Final = re.compile(r"(?:UTC|GMT)?[+-]?[0-9:]+\Z", re.IGNORECASE)
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")

_OF_A_WINDOW: Final = re.compile(r"(all|day|week|month|year|season|current|previous)_.*\Z", re.DOTALL)
_TAKEN: Final = {"users": "the announcements of names", "next": "boards that are being made"}
"""Slugs that the store's keys need for something else."""

_FIELDS: Final = tuple(name for name in Definition.__dataclass_fields__ if name != "slug")
_OWN: Final = ("bounds", "submit", "metadata")
"""What only a leaderboard that takes submissions has."""
_OF_DEFAULT: Final = ("title", "bounds", "submit", "visible", "metadata", "windows")
"""What may be set of `default`."""
_OF_FORMAT: Final = {"integer": None, "decimal": "places", "duration": "unit"}


def parse_definition(slug: object, fields: object, *, zones: Collection[str] | None = None) -> Definition:
    """The definition that `fields` describe; those that are null count as left out. `zones` are the names that
    PostgreSQL knows.

    Raises DefinitionError with everything that is wrong. Whether `of` names a leaderboard is not looked at here, see
    `definition_sets`.
    """
    return _Parser(zones).definition(slug, fields)


def check_slug(slug: object) -> list[Problem]:
    """What keeps `slug` from naming a leaderboard."""
    if type(slug) is not str:
        return [Problem("slug", "A leaderboard's slug is a text.", "Use one like fastest-lap.")]
    if _OF_A_WINDOW.match(slug) or slug in KINDS:
        return [Problem("slug", f"{slug} is how a window is named.", "Use another slug, like fastest-lap.")]
    if slug in _TAKEN:
        return [Problem("slug", f"{slug} stands for {_TAKEN[slug]}.", f"Use another slug, like {slug}-board.")]
    if not SLUG.fullmatch(slug):
        do = "Use 1 to 32 of a-z, 0-9 and -, a letter first, like fastest-lap."
        return [Problem("slug", f"{slug!r} cannot be a slug.", do)]
    return []


def meant(text: str, names: Collection[str]) -> str:
    """A hint at the name that `text` is close to."""
    close = get_close_matches(text, names, 1)
    return f" Is {close[0]} meant?" if close else ""


class _Parser:
    """Parses one definition, and collects what is wrong with it."""

    def __init__(self, zones: Collection[str] | None) -> None:
        self._zones = zones
        self._problems: list[Problem] = []

    def definition(self, slug: object, fields: object) -> Definition:
        self._problems += check_slug(slug)
        if not isinstance(fields, Mapping):
            self._wrong("", "A definition is a table of fields.", "Begin one with [slug], or send a JSON object.")
            raise DefinitionError(self._problems)
        given = {name: value for name, value in fields.items() if value is not None}
        self._look_at_names(given, _FIELDS, "")
        assert isinstance(slug, str) or self._problems
        if slug == DEFAULT_SLUG:
            parsed = self._default(given)
        else:
            parsed = self._other(str(slug), given)
        if self._problems:
            raise DefinitionError(self._problems)
        return parsed

    def _default(self, given: Mapping[str, Any]) -> Definition:
        """The published leaderboard, of which little can be set; the published values may be written down."""
        published = DEFAULT_DEFINITION.as_json()
        for name in given.keys() & set(_FIELDS) - set(_OF_DEFAULT):
            if given[name] != published.get(name, []):
                self._wrong(
                    name, "That of default is the published one.", "Leave it out, or define another leaderboard."
                )
        if "windows" in given:
            windows = self._windows(given)
            if "season" in windows:
                self._wrong("windows", "default has no seasons.", "Leave season out, or define one `of` default.")
        else:
            windows = ()
        return Definition(
            DEFAULT_SLUG,
            self._title(given, DEFAULT_DEFINITION.title),
            windows=tuple(kind for kind in KINDS if kind in (*DEFAULT_DEFINITION.windows, *windows)),
            bounds=self._bounds(given, INT_MIN, INT_MAX),
            submit=self._choice(given, "submit", SUBMITTERS, "players"),
            visible=self._choice(given, "visible", VISIBLE, "") or None,
            metadata=self._flag(given, "metadata"),
        )

    def _other(self, slug: str, given: Mapping[str, Any]) -> Definition:
        of = self._of(slug, given)
        if of is not None:
            for name in _OWN:
                if name in given:
                    self._wrong(name, f"This one ranks the submissions of {of}.", f"Set it there: [{of}].")
        windows = self._windows(given)
        return Definition(
            slug,
            self._title(given, slug),
            of=of,
            operator=self._choice(given, "operator", OPERATORS, "sum"),
            order=self._choice(given, "order", ORDERS, "descending"),
            windows=windows,
            zone=self._zone(given),
            week_starts=self._choice(given, "week_starts", WEEKDAYS, "monday"),
            ties=self._choice(given, "ties", TIES, "user_id"),
            ranks=self._choice(given, "ranks", RANKS, "competition"),
            format=self._format(given),
            bounds=self._bounds(given, -SCORE_MAX, SCORE_MAX) if of is None else None,
            submit=self._choice(given, "submit", SUBMITTERS, "players") if of is None else "players",
            visible=self._choice(given, "visible", VISIBLE, "") or None,
            metadata=self._flag(given, "metadata") if of is None else False,
            seasons=self._seasons(given, windows),
        )

    # One field each ------------------------------------------------------------------------------------------------

    def _title(self, given: Mapping[str, Any], default: str) -> str:
        if "title" not in given:
            return default
        try:
            title = plain_text(given["title"], "It", 1, TITLE_LENGTH)
        except RealtimeError as error:
            self._wrong("title", error.message, f"Write 1 to {TITLE_LENGTH} characters.")
            return default
        if _CONTROL.search(title) or title != title.strip():
            self._wrong("title", "It holds control characters, or spaces around it.", "Leave them out.")
        return title

    def _of(self, slug: str, given: Mapping[str, Any]) -> str | None:
        if "of" not in given:
            return None
        of = given["of"]
        if type(of) is not str:
            self._wrong("of", "It is the slug of another leaderboard.", 'Write it as a text, like of = "sprint".')
        elif of == slug:
            self._wrong("of", "A leaderboard is not of itself.", "Leave it out: it then ranks its own submissions.")
        elif check_slug(of):
            self._wrong("of", f"{of!r} cannot be a slug.", "Name a leaderboard that takes its own submissions.")
        else:
            return of
        return DEFAULT_SLUG  # wrong already: whatever else can be said is said of a derived one

    def _windows(self, given: Mapping[str, Any]) -> tuple[str, ...]:
        value = given.get("windows", ["all_time"])
        some = f"Write a list of some of {_either(KINDS)}."
        if type(value) is not list or not value:
            self._wrong("windows", "It is a list with at least one window.", some)
            return ("all_time",)
        for kind in value:
            if kind not in KINDS:
                self._wrong("windows", f"There is no window {kind!r}.", some + meant(str(kind), KINDS))
            elif value.count(kind) > 1:
                self._wrong("windows", f"{kind} is there more than once.", "Name each window once.")
                break
        return tuple(kind for kind in KINDS if kind in value)

    def _zone(self, given: Mapping[str, Any]) -> str:
        zone = given.get("zone", "UTC")
        use = "Use a name like Europe/Berlin."
        if type(zone) is not str:
            self._wrong("zone", "It is the name of a time zone.", use)
        elif zone == "UTC":
            return "UTC"
        elif self._zones is not None and zone not in self._zones and _OFFSET.match(zone):
            self._wrong("zone", f"{zone!r} is no name of a time zone: what it means, systems do not agree on.", use)
        elif not _ZONE.match(zone) or (self._zones is not None and zone not in self._zones):
            self._wrong("zone", f"PostgreSQL knows no time zone {zone!r}.", use + meant(zone, self._zones or ()))
        else:
            return zone
        return "UTC"

    def _format(self, given: Mapping[str, Any]) -> Format:
        fields = self._table(given, "format", 'Write it like { kind = "decimal", places = 2 }.')
        if fields is None:
            return Format()
        self._look_at_names(fields, ("kind", "places", "unit"), "format.")
        if "kind" not in fields:
            self._wrong("format.kind", "It is missing.", f"Use {_either(tuple(_OF_FORMAT))}.")
            return Format()
        kind = self._choice(fields, "kind", tuple(_OF_FORMAT), "integer", "format.")
        if fields["kind"] not in _OF_FORMAT:
            return Format()
        for name in ("places", "unit"):
            if name in fields and _OF_FORMAT[kind] != name:
                self._wrong(f"format.{name}", f"A score shown as {kind} has none.", "Leave it out.")
        if kind == "decimal":
            return Format(kind, places=self._number(fields, "places", "format.", 0, PLACES))
        if kind == "duration":
            if "unit" not in fields:
                self._wrong("format.unit", "It is missing.", "Use s or ms: what a score of 1 is.")
            return Format(kind, unit=self._choice(fields, "unit", ("s", "ms"), "s", "format."))
        return Format(kind)

    def _bounds(self, given: Mapping[str, Any], low: int, high: int) -> Bounds | None:
        fields = self._table(given, "bounds", "Write it like { min = 0, max = 1000 }.")
        if fields is None:
            return None
        self._look_at_names(fields, ("min", "max"), "bounds.")
        least = self._number(fields, "min", "bounds.", low, high, low)
        most = self._number(fields, "max", "bounds.", low, high, high)
        if not fields.keys() & {"min", "max"}:
            self._wrong("bounds", "It sets no bound.", "Give min, max or both, or leave it out.")
        elif least > most:
            self._wrong("bounds", f"min ({least}) is greater than max ({most}): nothing fits.", "Exchange them.")
        return Bounds(least, most)

    def _seasons(self, given: Mapping[str, Any], windows: Sequence[str]) -> tuple[Season, ...]:
        value = given.get("seasons", [])
        if type(value) is not list:
            self._wrong("seasons", "It is a list of seasons.", "Write each as [[slug.seasons]], with id, starts, ends.")
            return ()
        if len(value) > SEASONS:
            self._wrong("seasons", f"There are {len(value)}.", f"A leaderboard has at most {SEASONS}.")
            return ()
        found = [season for n, fields in enumerate(value) if (season := self._season(n, fields)) is not None]
        if value and "season" not in windows:
            self._wrong("windows", "There are seasons, but no window for them.", "Add season to windows.")
        if "season" in windows and not value:
            do = "Add one, with id, starts and ends, or leave season out of windows."
            self._wrong("seasons", "The window season is there, and no season.", do)
        ids = [season.id for season in found]
        for name in dict.fromkeys(name for name in ids if ids.count(name) > 1):
            self._wrong("seasons", f"{name} is there more than once.", "Give each season an id of its own.")
        found.sort(key=lambda season: season.starts)
        latest: Season | None = None
        for one, other in pairwise(found):
            latest = one if latest is None or one.ends > latest.ends else latest
            if other.starts < latest.ends:
                wrong = f"{latest.id} and {other.id} overlap."
                self._wrong("seasons", wrong, f"End {latest.id} by the time at which {other.id} starts.")
        return tuple(found)

    def _season(self, n: int, fields: object) -> Season | None:
        place = f"seasons[{n}]"
        if not isinstance(fields, Mapping):
            self._wrong(place, "A season is a table.", "Give it id, starts and ends.")
            return None
        given = {name: value for name, value in fields.items() if value is not None}
        self._look_at_names(given, ("id", "starts", "ends"), f"{place}.")
        name = given.get("id")
        if type(name) is not str or not _SEASON.match(name):
            self._wrong(f"{place}.id", "This cannot be a season's id.", "Use 1 to 32 of a-z, 0-9 and _.")
            name = None
        starts = self._moment(given, "starts", place)
        ends = self._moment(given, "ends", place)
        if starts is None or ends is None:
            return None
        if starts >= ends:
            self._wrong(f"{place}.ends", "It does not lie after starts.", "Give a later moment.")
            return None
        return None if name is None else Season(name, starts, ends)

    # Kinds of value ------------------------------------------------------------------------------------------------

    def _wrong(self, field: str, wrong: str, do: str) -> None:
        self._problems.append(Problem(field, wrong, do))

    def _look_at_names(self, given: Mapping[str, Any], known: Sequence[str], prefix: str) -> None:
        for name in given:
            if name not in known:
                do = f"The fields are {', '.join(known)}.{meant(str(name), known)}"
                self._wrong(f"{prefix}{name}", "There is no such field.", do)

    def _choice(
        self, given: Mapping[str, Any], name: str, values: Sequence[str], default: str, prefix: str = ""
    ) -> str:
        value = given.get(name, default)
        if name not in given or (type(value) is str and value in values):
            return str(value)
        self._wrong(f"{prefix}{name}", f"It cannot be {_shown(value)}.", f"Use {_either(values)}.")
        return default

    def _flag(self, given: Mapping[str, Any], name: str) -> bool:
        value = given.get(name, False)
        if type(value) is not bool:
            self._wrong(name, f"It cannot be {_shown(value)}.", "Use true or false, without quotes.")
        return bool(value)

    def _number(
        self, given: Mapping[str, Any], name: str, prefix: str, low: int, high: int, default: int | None = None
    ) -> int:
        if name not in given and default is not None:
            return default
        if name not in given:
            self._wrong(f"{prefix}{name}", "It is missing.", f"Use a whole number from {low} to {high}.")
            return low
        try:
            return whole_number(given[name], "It", low, high)
        except RealtimeError as error:
            self._wrong(f"{prefix}{name}", error.message, f"Use a whole number from {low} to {high}.")
            return low if default is None else default

    def _table(self, given: Mapping[str, Any], name: str, do: str) -> dict[str, Any] | None:
        value = given.get(name)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            self._wrong(name, "It is a table.", do)
            return None
        return {key: inner for key, inner in value.items() if inner is not None}

    def _moment(self, given: Mapping[str, Any], name: str, place: str) -> datetime | None:
        value = given.get(name)
        do = "Use a moment with its offset, like 2026-03-01T00:00:00+01:00."
        if value is None:
            self._wrong(f"{place}.{name}", "It is missing.", do)
            return None
        if isinstance(value, (date, time)):  # TOML has kinds of their own for these
            value = value.isoformat()
        try:
            return parse_moment(value, "It").astimezone(UTC)
        except RealtimeError as error:
            self._wrong(f"{place}.{name}", error.message, do)
            return None


def _either(values: Sequence[str]) -> str:
    return f"{', '.join(values[:-1])} or {values[-1]}"


def _shown(value: object) -> str:
    """A wrong value as people wrote it, short."""
    text = repr(value)
    return text if len(text) <= 40 else text[:40] + "…"
