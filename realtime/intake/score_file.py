"""Score files: submissions as CSV (RFC 4180), row by row; semicolons or tabs may part the columns, as spreadsheets do.

Owns what a file's columns mean and the rules of each field. Must never hold more than one row, however long a line is
or wherever a quote stays open, and never stop at a bad row: it becomes a value that says why. Assumes a header line, by
which columns and what parts them are known, and UTF-8; a byte order mark is skipped.
"""

from __future__ import annotations

import csv
import io
from collections import deque
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import lru_cache
from typing import BinaryIO, Final, NamedTuple, TextIO

from realtime.boards.definitions import SCORE_MAX
from realtime.boards.submissions import REASON_LENGTH, SUBMISSION_ID_LENGTH
from realtime.errors import RealtimeError
from realtime.people.usernames import check_username
from realtime.validation import ID_MAX, INT_MAX, INT_MIN, parse_moment, plain_text, written_number

REQUIRED: Final = ("submission_id", "score_added", "created_at")
"""Columns there must be; in the place of `score_added` there may be `score`."""

COLUMNS: Final = (
    "submission_id", "username", "user_id", "score_added", "score", "reason", "created_at", "leaderboard", "metadata",
    "id",
)  # fmt: skip
"""Columns there may be. `id` is what a user's log calls its rows: such a log can be handed in, and needs none."""

SEPARATORS: Final = ",;\t"
"""What may part the columns."""

HEADER: Final = (
    "submission_id, username (or user_id), score_added (or score), created_at, and where there is one, reason, "
    "leaderboard, metadata"
)
"""What the first line must name, as people are told."""

LINE_LENGTH: Final = 4_096
"""Characters of a line beyond which it is skipped: far more than the fields may have."""

RECORD_LINES: Final = REASON_LENGTH + SUBMISSION_ID_LENGTH + 1
"""Lines one row may take (its texts may be nothing but line ends), after which its quote counts as never closed."""


class FileRow(NamedTuple):
    """One submission. `player` is a username, or the id of an existing user."""

    line: int
    player: str | int
    submission_id: str
    score_added: int | None
    """None where the cell is empty: for leaderboards that count."""
    reason: str | None
    created_at: datetime
    leaderboard: str | None = None
    """A slug; None where the row names none."""
    metadata: str | None = None
    """JSON."""


class BadRow(NamedTuple):
    """A row that says nothing usable. `line` is the number of its first line in the file, from 1."""

    line: int
    cause: str


def rows(file: BinaryIO, *, of_another: bool = False) -> Iterator[FileRow | BadRow]:
    """The rows of a file, in order; a line with nothing in it, or in none of its cells, is none.

    `of_another` says that rows which name no leaderboard are of another than `default`. Raises RealtimeError
    `bad_message` for an unusable header.
    """
    text = io.TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline="")
    try:
        lines = _Lines(text)
        columns = _columns(lines)._replace(is_of_another=of_another)
        reader = csv.reader(lines, delimiter=columns.separator, strict=True)
        while (record := _record(reader, lines)) is not None:
            if isinstance(record, BadRow):
                yield record
            elif any(map(str.strip, record.cells)):
                yield _row(record, columns)
    finally:
        if not file.closed:
            text.detach()  # or it would close the file with itself


class _Record(NamedTuple):
    line: int
    cells: list[str]


class _Lines:
    """Lines of a text for `csv`: bounded, and those of an unfinished row can be given back."""

    def __init__(self, text: TextIO) -> None:
        self.number = 0  # of the line given out last
        self._text = text
        self._ended_with_return = False  # the last line read ended with a carriage return, and no line feed yet
        self._taken: list[str] = []  # lines of the row being read
        self._returned: deque[str] = deque()

    def __iter__(self) -> _Lines:
        return self

    def begin(self) -> int:
        """A row begins; gives the number of its first line."""
        self._taken.clear()
        return self.number + 1

    def __next__(self) -> str:
        if len(self._taken) == RECORD_LINES:
            raise csv.Error("a quote is not closed")
        line = self._returned.popleft() if self._returned else self._piece()
        if not line:
            raise StopIteration
        self.number += 1
        self._taken.append(line)
        if len(line) > LINE_LENGTH and len(line.rstrip("\r\n")) > LINE_LENGTH:
            while line and not line.endswith(("\n", "\r")):
                line = self._piece()
            raise csv.Error(f"the line has more than {LINE_LENGTH} characters")
        return line

    def _piece(self) -> str:
        """A line with its end, or as much of it as is too long already: that may end within a line's end."""
        piece = self._text.readline(LINE_LENGTH + 2)
        if self._ended_with_return and piece == "\n":
            piece = self._text.readline(LINE_LENGTH + 2)
        self._ended_with_return = piece.endswith("\r")
        return piece

    def give_back(self) -> None:
        """Of the row being read, only the first line counts as read."""
        rest = self._taken[1:]
        self._returned.extendleft(reversed(rest))
        self.number -= len(rest)


def _record(reader: Iterator[list[str]], lines: _Lines) -> _Record | BadRow | None:
    """The next row, None at the end. A row that is no CSV costs its first line alone."""
    number = lines.begin()
    try:
        cells = next(reader)
    except StopIteration:
        return None
    except csv.Error as error:
        lines.give_back()
        return BadRow(number, f"not CSV: {_said(error)}")
    for cell in cells:
        if not cell.isascii() and _holds_escapes(cell):
            return BadRow(number, "not UTF-8")
    return _Record(number, cells)


def _said(error: csv.Error) -> str:
    return "a quote is not closed" if "unexpected end" in str(error) else str(error)


def _holds_escapes(cell: str) -> bool:
    try:
        cell.encode()
    except UnicodeEncodeError:
        return True
    return False


class _Columns(NamedTuple):
    separator: str
    width: int
    places: dict[str, int]
    """Where each column is; those without a name are empty."""
    is_of_another: bool = False
    """Whether rows that name no leaderboard are of another than the published one."""


def _columns(lines: _Lines) -> _Columns:
    """What the first line says: of the ways to part it that fit, there is one. Raises RealtimeError `bad_message`."""
    lines.begin()
    try:
        line = next(lines, "")
    except csv.Error as error:
        raise _unusable(f"not CSV: {error}") from None
    if line.startswith(("\udcff\udcfe", "\udcfe\udcff")) or "\x00" in line:
        raise _unusable("the file is not UTF-8 but, it seems, UTF-16. Save it as CSV in UTF-8")
    if not line:
        raise _unusable("it is empty")
    problems: list[tuple[int, str]] = []
    for separator in SEPARATORS:
        try:
            (names,) = csv.reader([line], delimiter=separator, strict=True)
        except csv.Error as error:
            problems.append((0, f"not CSV: {_said(error)}"))
            continue
        names = [name.strip() for name in names]
        problem = _problem(names)
        if problem is None:
            return _Columns(separator, len(names), {name: place for place, name in enumerate(names) if name})
        problems.append((len(set(COLUMNS) & set(names)), problem))
    # Told as it looks by what finds most names in it; by commas where nothing does.
    raise _unusable(max(problems, key=lambda found: found[0])[1])


def _problem(names: Sequence[str]) -> str | None:
    """What keeps a first line with these names from being one; spreadsheets add empty ones."""
    named = [name for name in names if name]
    missing = [name for name in REQUIRED if name not in named and not (name == "score_added" and "score" in named)]
    if "username" not in named and "user_id" not in named:
        missing.append("username (or user_id)")
    unknown = [name for name in named if name not in COLUMNS]
    if any(_holds_escapes(name) for name in named):
        return "not UTF-8"
    if missing:
        return f"missing are {', '.join(missing)}"
    if unknown:
        return f"{', '.join(map(ascii, unknown))} is not known"
    if "score_added" in named and "score" in named:
        return "score_added and score are both there: which of them counts is not known"
    return "a column is there twice" if len(set(named)) != len(named) else None


def _unusable(cause: str) -> RealtimeError:
    words = f"The file's first line must name the columns {HEADER}, with commas, semicolons or tabs in between"
    return RealtimeError("bad_message", f"{words}; {cause}.")


def _row(record: _Record, columns: _Columns) -> FileRow | BadRow:
    line, cells = record
    width, places = columns.width, columns.places
    if len(cells) != width:
        return BadRow(line, f"it has {len(cells)} columns, the first line {width}")
    if len(places) < width and any(cells[place] for place in range(width) if place not in places.values()):
        return BadRow(line, "something stands in a column that has no name")
    try:
        reason = plain_text(_cell(cells, places, "reason"), "reason", 0, REASON_LENGTH)
        return FileRow(
            line,
            _player(cells, columns),
            plain_text(cells[places["submission_id"]], "submission_id", 1, SUBMISSION_ID_LENGTH),
            _score(cells, columns),
            reason or None,
            parse_moment(cells[places["created_at"]], "created_at"),
            _cell(cells, places, "leaderboard") or None,
            _cell(cells, places, "metadata") or None,
        )
    except RealtimeError as error:
        return BadRow(line, error.message)


def _score(cells: Sequence[str], columns: _Columns) -> int | None:
    """The number of a row. How far it may go is the leaderboard's; of the published one it is an INT."""
    name = "score" if "score" in columns.places else "score_added"
    text = cells[columns.places[name]]
    if not text and ("leaderboard" in columns.places or columns.is_of_another):
        return None
    if _cell(cells, columns.places, "leaderboard") or columns.is_of_another:
        return _whole(text, columns.separator, name, -SCORE_MAX, SCORE_MAX)
    return _whole(text, columns.separator, name, INT_MIN, INT_MAX)


def _cell(cells: Sequence[str], places: dict[str, int], name: str) -> str:
    place = places.get(name)
    return "" if place is None else cells[place]


def _player(cells: Sequence[str], columns: _Columns) -> str | int:
    if user_id := _cell(cells, columns.places, "user_id"):
        return _whole(user_id, columns.separator, "user_id", 1, ID_MAX)
    return _username(_cell(cells, columns.places, "username"))


@lru_cache(maxsize=10_000)
def _username(value: str) -> str:
    return check_username(value)


def _whole(text: str, separator: str, name: str, low: int, high: int) -> int:
    if separator != "," and "." in text:  # written where commas part whole from fraction, 1.000 is a thousand
        raise RealtimeError("bad_message", f"{name} must be a whole number, without a point.")
    return written_number(text, name, low, high)
