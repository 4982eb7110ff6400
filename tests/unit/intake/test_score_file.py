"""Score files: what a row means, and that no file stops the reading."""

from __future__ import annotations

import io
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.errors import RealtimeError
from realtime.intake.score_file import LINE_LENGTH, RECORD_LINES, BadRow, FileRow, rows

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
        (b"a,Ann,1e-1,x,2020-01-01T00:00:00Z", "score_added must be a whole number."),
        (b"a,Ann,,x,2020-01-01T00:00:00Z", "score_added must be a whole number."),
        (b"a,Ann,1\x00,x,2020-01-01T00:00:00Z", "score_added must be a whole number."),
        (b"a,Ann,1e400,x,2020-01-01T00:00:00Z", "score_added must be from -2147483648 to 2147483647."),
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
        (b"\xff\xfes\x00u\x00\n", "not UTF-8 but, it seems, UTF-16"),
        (HEADER.decode().encode("utf-16-le"), "UTF-16"),
        (b"\xfe\xff" + HEADER.decode().encode("utf-16-be"), "UTF-16"),
        (b"submission_id,username,score_added,created_at,caf\xe9\n", "not UTF-8"),
        (b"submission_id;username;score_added\n", "missing are created_at."),
        (b"submission_id\tusername\tscore_added\tcreated_at\tgrade\n", "'grade' is not known"),
        (b"submission_id|username|score_added|created_at\n", "with commas, semicolons or tabs in between"),
        (b"submission_id,username;score_added;created_at\n", "missing are"),
        (b"x" * (LINE_LENGTH + 1), f"the line has more than {LINE_LENGTH} characters"),
    ],
)
def test_a_file_whose_header_is_none_is_refused_and_says_why(file: bytes, says: str) -> None:
    with pytest.raises(RealtimeError) as error:
        list(rows(io.BytesIO(file)))
    assert error.value.code == "bad_message"
    assert says in error.value.message


def test_a_line_is_the_same_whatever_ends_it_and_wherever_that_falls() -> None:
    """Text is read in pieces, and a carriage return may be the last of one."""
    for end in (b"\n", b"\r\n", b"\r"):
        for length in (*range(LINE_LENGTH - 4, LINE_LENGTH + 5), *range(8_186, 8_197)):
            long = b"z,Ann,5," + b"r" * length
            found = read(long[:length] + end + GOOD[:-1] + end, HEADER[:-1] + end)
            assert [row.line for row in found] == [2, 3], (end, length)
            says = "columns" if length <= LINE_LENGTH else f"the line has more than {LINE_LENGTH} characters"
            assert isinstance(found[0], BadRow) and says in found[0].cause, (end, length)
            assert isinstance(found[1], FileRow)


def test_a_reason_keeps_its_line_ends_wherever_they_fall() -> None:
    for before in range(4_000, 4_100):
        pad = b"a" * (before % 60 + 1) + b",Ann,1,x,2020-01-01T00:00:00Z\n"
        body = pad * (before // len(pad)) + b'b,Ann,1,"one\r\ntwo\rthree\n",2020-01-01T00:00:00Z\n'
        last = read(body)[-1]
        assert isinstance(last, FileRow) and last.reason == "one\r\ntwo\rthree\n"


def test_a_row_may_be_nothing_but_line_ends() -> None:
    body = b'"' + b"\n" * 64 + b'",Ann,1,"' + b"\n" * 255 + b'",2020-01-01T00:00:00Z\n'
    (only,) = read(body)
    assert isinstance(only, FileRow) and (len(only.submission_id), len(only.reason or "")) == (64, 255)


def test_a_first_line_may_be_quoted_whatever_parts_it() -> None:
    for separator in (",", ";", "\t"):
        names = HEADER.decode().strip().split(",")
        header = separator.join(f'"{name}"' for name in names).encode() + b"\n"
        assert [type(row) for row in read(GOOD.replace(b",", separator.encode()), header)] == [FileRow]


@pytest.mark.parametrize("separator", [";", "\t"])
def test_what_parts_the_columns_is_told_by_the_first_line(separator: str) -> None:
    def parted(text: bytes) -> bytes:
        return text.replace(b",", separator.encode()).replace(b"\n", b"\r\n")

    body = parted(GOOD) + parted(b'b,"Bo ""the"" other",7,,2020-01-01T00:00:00Z\n')
    first, second = read(body, b"\xef\xbb\xbf" + parted(HEADER))
    assert first == FileRow(2, "Ann", "s-1", 5, "win", datetime(2020, 1, 1, tzinfo=UTC))
    assert isinstance(second, FileRow) and (second.line, second.player) == (3, 'Bo "the" other')


def test_where_a_point_may_part_thousands_it_is_not_guessed_what_it_means() -> None:
    assert [row[3] for row in read(b"a,Ann,1.000,,2020-01-01T00:00:00Z\n" + GOOD)] == [1, 5]
    header = HEADER.replace(b",", b";")
    assert causes(b"a;Ann;1.000;;2020-01-01T00:00:00Z\na;Ann;1e3;;2020-01-01T00:00:00Z\n", header) == [
        (2, "score_added must be a whole number, without a point.")
    ]


def test_a_row_with_nothing_in_its_cells_is_none() -> None:
    body = b",,,,\r\n" + GOOD + b',"", ,\t,\n,,\n;\n\n' + GOOD
    found = read(body)
    assert [(type(row), row.line) for row in found] == [(FileRow, 3), (BadRow, 6), (FileRow, 8)]


def test_columns_without_a_name_are_left_alone_as_long_as_they_are_empty() -> None:
    header = b"submission_id,username,,score_added,reason,created_at,,\n"
    good = b"s-1,Ann,,5,win,2020-01-01T00:00:00Z,,\n"
    found = read(good + good.replace(b",,\n", b",note,\n") + good, header)
    assert [row.line for row in found] == [2, 3, 4]
    assert found[1] == BadRow(3, "something stands in a column that has no name")
    assert found[0] == FileRow(2, "Ann", "s-1", 5, "win", datetime(2020, 1, 1, tzinfo=UTC))


def test_a_log_as_it_is_read_is_a_file() -> None:
    header = b"id,submission_id,score_added,reason,created_at,user_id\n"
    assert read(b"81,s-1,5.0,,2020-01-01T00:00:00.123456Z,7\n", header) == [
        FileRow(2, 7, "s-1", 5, None, datetime(2020, 1, 1, 0, 0, 0, 123_456, tzinfo=UTC))
    ]


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
