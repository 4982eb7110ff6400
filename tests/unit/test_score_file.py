"""Score files: what a row means, and that no file stops the reading."""

from __future__ import annotations

import io
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.errors import RealtimeError
from realtime.score_file import LINE_LENGTH, RECORD_LINES, BadRow, FileRow, rows

HEADER = b"submission_id,username,score_added,reason,created_at\n"
GOOD = b"s-1,Ann,5,win,2020-01-01T00:00:00Z\n"


def read(body: bytes, header: bytes = HEADER) -> list[FileRow | BadRow]:
    return list(rows(io.BytesIO(header + body)))


def causes(body: bytes, header: bytes = HEADER) -> list[tuple[int, str]]:
    return [(row.line, row.cause) for row in read(body, header) if isinstance(row, BadRow)]


def test_a_row() -> None:
    assert read(GOOD) == [FileRow(2, "Ann", "s-1", 5, "win", datetime(2020, 1, 1, tzinfo=UTC))]


def test_the_header_names_the_columns_in_any_order_and_may_have_a_byte_order_mark() -> None:
    header = b"\xef\xbb\xbfcreated_at,user_id,score_added,username,submission_id\n"
    moment = datetime(2019, 12, 31, 22, 30, tzinfo=UTC)
    assert read(b"2020-01-01T00:30:00+02:00,,-7,Bj\xc3\xb6rk,a\n2020-01-01T00:30:00+02:00,12,7,,b\n", header) == [
        FileRow(2, "Björk", "a", -7, None, moment),
        FileRow(3, 12, "b", 7, None, moment),
    ]


def test_quotes_line_ends_and_empty_lines() -> None:
    body = b'"a","A ""B"", C",1,"two\r\nlines",2020-01-01T00:00:00Z\r\n\r\n' + GOOD
    first, second = read(body)
    assert isinstance(first, FileRow) and (first.line, first.player, first.reason) == (2, 'A "B", C', "two\r\nlines")
    assert second.line == 5


@pytest.mark.parametrize(
    ("row", "cause"),
    [
        (b"a,Ann,1,x", "it has 4 columns, the first line 5"),
        (b"a,Ann,1,x,2020-01-01T00:00:00Z,", "it has 6 columns, the first line 5"),
        (b"a,Ann,1,\xff,2020-01-01T00:00:00Z", "not UTF-8"),
        (b"a,Ann\x00,1,x,2020-01-01T00:00:00Z", "username must not contain a NUL character."),
        (b"a, Ann,1,x,2020-01-01T00:00:00Z", "username must not begin or end with a space."),
        (b"a,,1,x,2020-01-01T00:00:00Z", "username must have 1 to 64 characters."),
        (b"a," + b"n" * 65 + b",1,x,2020-01-01T00:00:00Z", "username must have 1 to 64 characters."),
        (b",Ann,1,x,2020-01-01T00:00:00Z", "submission_id must have 1 to 64 characters."),
        (b"a" * 65 + b",Ann,1,x,2020-01-01T00:00:00Z", "submission_id must have 1 to 64 characters."),
        (b"a,Ann,1," + b"x" * 256 + b",2020-01-01T00:00:00Z", "reason must have 0 to 255 characters."),
        (b"a,Ann,1.5,x,2020-01-01T00:00:00Z", "score_added must be a whole number."),
        (b"a,Ann,1_0,x,2020-01-01T00:00:00Z", "score_added must be a whole number."),
        ("a,Ann,\u0661,x,2020-01-01T00:00:00Z".encode(), "score_added must be a whole number."),
        (b"a,Ann,2147483648,x,2020-01-01T00:00:00Z", "score_added must be from -2147483648 to 2147483647."),
        (b"a,Ann,1,x,", "created_at must be a moment like 2026-11-23T10:00:00Z."),
        (b"a,Ann,1,x,2020-01-01 00:00:00", "created_at must name its zone, like 2026-11-23T10:00:00Z."),
        (b"a,Ann,1,x,1969-12-31T23:59:59Z", "created_at lies before 1970."),
        (b"a,Ann,1,x,0001-01-01T00:00:00+14:00", "created_at lies outside the calendar."),
    ],
)
def test_a_bad_row_is_named_with_its_line_and_costs_nothing_else(row: bytes, cause: str) -> None:
    found = read(GOOD + row + b"\n" + GOOD)
    assert [type(one) for one in found] == [FileRow, BadRow, FileRow]
    assert found[1] == BadRow(3, cause)


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_an_open_quote_costs_its_own_line_alone(end: bytes) -> None:
    found = read(b'"open,Ann,1,x,2020-01-01T00:00:00Z\n' + GOOD * (RECORD_LINES + 5) + b'"again,Ann' + end)
    assert [row for row in found if isinstance(row, BadRow)] == [
        BadRow(2, "not CSV: a quote is not closed"),
        BadRow(RECORD_LINES + 8, "not CSV: a quote is not closed"),
    ]
    assert [row.line for row in found if isinstance(row, FileRow)] == list(range(3, RECORD_LINES + 8))


def test_an_endless_line_is_never_held() -> None:
    class Endless(io.RawIOBase):
        """A header, 64 MiB of one line, a good line; counts what is asked for at once."""

        left = 64 * 2**20
        most = 0

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: bytearray) -> int:
            if self.most == 0:
                self.most = 1
                buffer[: len(HEADER)] = HEADER
                return len(HEADER)
            if self.left > 0:
                size = min(len(buffer), self.left)
                buffer[:size] = b"x" * size
                self.left -= size
                self.most = max(self.most, size)
                return size
            if self.left == 0:
                self.left = -1
                buffer[: len(GOOD) + 1] = b"\n" + GOOD
                return len(GOOD) + 1
            return 0

    found = list(rows(io.BufferedReader(Endless())))
    assert found[0] == BadRow(2, f"not CSV: the line has more than {LINE_LENGTH} characters")
    assert [row.line for row in found] == [2, 3]


@pytest.mark.parametrize(
    ("file", "says"),
    [
        (b"", "it is empty"),
        (b"\n" + HEADER, "missing are submission_id, score_added, created_at, username (or user_id)"),
        (b"submission_id,score_added,created_at\n", "missing are username (or user_id)"),
        (b"submission_id,username,score_added,when\n", "missing are created_at"),
        (b"submission_id,username,score_added,created_at,grade\n", "'grade' is not known"),
        (b"submission_id,username,username,score_added,created_at\n", "a column is there twice"),
        (b'"submission_id\n', "a quote is not closed"),
        (b"\xff\xfes\x00u\x00\n", "not UTF-8"),
    ],
)
def test_a_file_whose_header_is_none_is_refused_and_says_why(file: bytes, says: str) -> None:
    with pytest.raises(RealtimeError) as error:
        list(rows(io.BytesIO(file)))
    assert error.value.code == "bad_message"
    assert says in error.value.message


@given(st.lists(st.sampled_from([b'"', b",", b"\n", b"\r", b"a", b"1", b"\xff", b"\x00", GOOD, b"-5"]), max_size=60))
def test_no_file_stops_the_reading_and_no_line_is_named_twice(pieces: list[bytes]) -> None:
    found = read(b"".join(pieces))
    lines = [row.line for row in found]
    assert lines == sorted(set(lines))
    assert all(line >= 2 for line in lines)


def test_the_file_stays_open() -> None:
    file = io.BytesIO(HEADER + GOOD)
    assert len(list(rows(file))) == 1
    assert not file.closed
