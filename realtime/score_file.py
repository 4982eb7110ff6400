"""Score files: submissions as CSV (RFC 4180), row by row.

Owns what a file's columns mean and the rules of each field. Must never hold more than one row, however long a line is
or wherever a quote stays open, and never stop at a bad row: it becomes a value that says why. Assumes a header line and
UTF-8; a byte order mark is skipped.
"""

from __future__ import annotations

import csv
import io
import re
from collections import deque
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import lru_cache
from typing import BinaryIO, Final, NamedTuple, TextIO

from realtime.errors import RealtimeError
from realtime.submissions import (
    ID_MAX,
    INT_MAX,
    INT_MIN,
    REASON_LENGTH,
    SUBMISSION_ID_LENGTH,
    parse_moment,
    plain_text,
    whole_number,
)
from realtime.usernames import check_username

REQUIRED: Final = ("submission_id", "score_added", "created_at")
COLUMNS: Final = ("submission_id", "username", "user_id", "score_added", "reason", "created_at")
HEADER: Final = "submission_id, username (or user_id), score_added, created_at, and where there is one, reason"
"""What the first line must name, as people are told."""

LINE_LENGTH: Final = 4_096
"""Characters of a line beyond which it is skipped: far more than the fields may have."""

RECORD_LINES: Final = 300
"""Lines one row may take (a reason may hold line ends), after which its quote counts as never closed."""

_WHOLE = re.compile(r"[+-]?[0-9]{1,20}\Z", re.ASCII)


class FileRow(NamedTuple):
    """One submission. `player` is a username, or the id of an existing user."""

    line: int
    player: str | int
    submission_id: str
    score_added: int
    reason: str | None
    created_at: datetime


class BadRow(NamedTuple):
    """A row that says nothing usable. `line` is the number of its first line in the file, from 1."""

    line: int
    cause: str


def rows(file: BinaryIO) -> Iterator[FileRow | BadRow]:
    """The rows of a file, in order; empty lines are none. Raises RealtimeError `bad_message` for an unusable header."""
    text = io.TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline="")
    try:
        lines = _Lines(text)
        reader = csv.reader(lines, strict=True)
        places = _places(_record(reader, lines))
        while (record := _record(reader, lines)) is not None:
            if isinstance(record, BadRow):
                yield record
            elif record.cells:
                yield _row(record, places)
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
        line = self._returned.popleft() if self._returned else self._text.readline(LINE_LENGTH)
        if not line:
            raise StopIteration
        self.number += 1
        self._taken.append(line)
        if len(line) == LINE_LENGTH and not line.endswith(("\n", "\r")):
            self._skip_rest()
            raise csv.Error(f"the line has more than {LINE_LENGTH} characters")
        return line

    def _skip_rest(self) -> None:
        while (piece := self._text.readline(LINE_LENGTH)) and not piece.endswith(("\n", "\r")):
            pass

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
        cause = "a quote is not closed" if "unexpected end" in str(error) else str(error)
        return BadRow(number, f"not CSV: {cause}")
    for cell in cells:
        if not cell.isascii() and _holds_escapes(cell):
            return BadRow(number, "not UTF-8")
    return _Record(number, cells)


def _holds_escapes(cell: str) -> bool:
    try:
        cell.encode()
    except UnicodeEncodeError:
        return True
    return False


def _places(header: _Record | BadRow | None) -> dict[str, int]:
    """Where each column is. Raises RealtimeError `bad_message`."""
    if not isinstance(header, _Record):
        cause = "it is empty" if header is None else header.cause
        raise RealtimeError("bad_message", f"The file's first line must name the columns; {cause}.")
    names = [name.strip() for name in header.cells]
    missing = [name for name in REQUIRED if name not in names]
    unknown = [name for name in names if name not in COLUMNS]
    if "username" not in names and "user_id" not in names:
        missing.append("username (or user_id)")
    if missing or unknown or len(set(names)) != len(names):
        problem = (
            f"missing are {', '.join(missing)}" if missing
            else f"{', '.join(map(ascii, unknown))} is not known" if unknown
            else "a column is there twice"
        )  # fmt: skip
        raise RealtimeError(
            "bad_message", f"The file's first line must name the columns {HEADER}; {problem}."
        )
    return {name: place for place, name in enumerate(names)}


def _row(record: _Record, places: dict[str, int]) -> FileRow | BadRow:
    line, cells = record
    if len(cells) != len(places):
        return BadRow(line, f"it has {len(cells)} columns, the first line {len(places)}")
    try:
        reason = plain_text(_cell(cells, places, "reason"), "reason", 0, REASON_LENGTH)
        return FileRow(
            line,
            _player(cells, places),
            plain_text(cells[places["submission_id"]], "submission_id", 1, SUBMISSION_ID_LENGTH),
            _whole(cells[places["score_added"]], "score_added", INT_MIN, INT_MAX),
            reason or None,
            parse_moment(cells[places["created_at"]], "created_at"),
        )
    except RealtimeError as error:
        return BadRow(line, error.message)


def _cell(cells: Sequence[str], places: dict[str, int], name: str) -> str:
    place = places.get(name)
    return "" if place is None else cells[place]


def _player(cells: Sequence[str], places: dict[str, int]) -> str | int:
    if user_id := _cell(cells, places, "user_id"):
        return _whole(user_id, "user_id", 1, ID_MAX)
    return _username(_cell(cells, places, "username"))


@lru_cache(maxsize=10_000)
def _username(value: str) -> str:
    return check_username(value)


def _whole(text: str, name: str, low: int, high: int) -> int:
    if not _WHOLE.match(text):
        raise RealtimeError("bad_message", f"{name} must be a whole number.")
    return whole_number(int(text), name, low, high)
