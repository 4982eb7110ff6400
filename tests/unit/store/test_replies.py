"""What the store says, as values of ours; and what cannot be ours is called foreign, never passed on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.errors import ForeignContent
from realtime.store.replies import as_count, as_name, as_scores, as_text
from realtime.validation import ID_MAX, TOTAL_MAX


def flat(*rows: tuple[int, object]) -> list[bytes]:
    """A reply to ZREVRANGE WITHSCORES."""
    return [str(part).encode() for row in rows for part in row]


def test_scores_keep_the_order_of_the_reply() -> None:
    scores = as_scores(flat((7, 30), (2, 20), (9, 20), (1, -5)))
    assert list(scores.items()) == [(7, 30), (2, 20), (9, 20), (1, -5)]


def test_an_empty_board_has_no_scores() -> None:
    assert as_scores([]) == {}


@pytest.mark.parametrize(
    ("written", "score"), [("12", 12), ("1e3", 1000), ("-0", 0), ("12.0", 12), ("9.007199254740992e+15", TOTAL_MAX)]
)
def test_a_whole_number_is_one_however_the_store_writes_doubles(written: str, score: int) -> None:
    assert as_scores(flat((1, 10**15), (2, written))) == {1: 10**15, 2: score}


@given(st.lists(st.tuples(st.integers(1, ID_MAX), st.integers(-TOTAL_MAX, TOTAL_MAX)), unique_by=lambda row: row[0]))
def test_whatever_we_could_have_written_is_read(rows: list[tuple[int, int]]) -> None:
    rows.sort(key=lambda row: -row[1])
    assert list(as_scores(flat(*rows)).items()) == rows


@pytest.mark.parametrize(
    "reply",
    [
        flat((1, "1.5")),
        flat((1, 10), (2, "1.5")),
        flat((1, "inf")),
        flat((1, "-inf")),
        flat((1, "nan")),
        flat((1, "many")),
        flat((1, TOTAL_MAX + 1)),
        flat((1, 0), (2, -TOTAL_MAX - 1)),
        flat((0, 1)),
        flat((-4, 1)),
        flat((ID_MAX + 1, 1)),
        [b"a player", b"1"],
        [b"\xff\xfe", b"1"],
        flat((1, 1))[:1],
    ],
)
def test_what_is_no_board_of_ours_is_foreign(reply: list[bytes]) -> None:
    with pytest.raises(ForeignContent):
        as_scores(reply)


def test_a_missing_counter_is_zero() -> None:
    assert (as_count(None), as_count(b""), as_count(b"17")) == (0, 0, 17)


def test_a_counter_that_counts_nothing_is_foreign() -> None:
    with pytest.raises(ForeignContent):
        as_count(b"1.5")


def test_a_text_is_read_whatever_bytes_it_has() -> None:
    assert (as_text(None), as_text(b"abc-1"), as_text("abc-1")) == (None, "abc-1", "abc-1")
    assert as_text(b"\xff") == "\N{REPLACEMENT CHARACTER}"


def test_a_name_is_read_as_it_was_written_and_others_are_foreign() -> None:
    assert as_name("Zoë 🏆".encode()) == "Zoë 🏆"
    with pytest.raises(ForeignContent):
        as_name(b"Zo\xeb")
