"""Usernames: many scripts, nothing that misleads."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.errors import RealtimeError
from realtime.usernames import check_username


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "dev-0001",
        "x" * 64,
        "<b>bold</b>",  # text, and shown as text
        "Robert'); DROP TABLE users;--",
        "J. R. R. Tolkien",
        "Ελένη",
        "محمد",
        "نمی\u200cدانم",  # noqa: RUF001 - Persian needs the non-joiner
        "क्\u200dष",  # Hindi needs the joiner
        "👩\u200d🚀",  # so does an astronaut
        "日本語",
        "é",
        "e\u0301",  # a combining accent after its letter
        "1 + 1",
        "-_-",
        "…",
    ],
)
def test_names_people_have_are_taken_as_they_are(name: str) -> None:
    assert check_username(name) == name


@pytest.mark.parametrize(
    ("name", "code"),
    [
        (None, "bad_message"),
        (5, "bad_message"),
        (["a"], "bad_message"),
        ("", "out_of_range"),
        ("x" * 65, "out_of_range"),
        ("x" * 10_000, "out_of_range"),
        ("a\x00b", "bad_message"),
        ("a\nb", "bad_message"),
        ("a\x1b[31mb", "bad_message"),
        ("a\x7f", "bad_message"),
        ("a\x85b", "bad_message"),
        ("a\ud800", "bad_message"),
        ("evil\u202egnp.exe", "bad_message"),  # the classic override
        ("a\u2066b\u2069", "bad_message"),
        ("a\u200fb", "bad_message"),
        ("ad\u200bmin", "bad_message"),  # looks like admin
        ("ad\u00admin", "bad_message"),
        ("\u3164", "bad_message"),  # a letter by its category, and nothing to see
        ("a\u2800b", "bad_message"),
        ("ad\u2060min", "bad_message"),
        ("ad\ufeffmin", "bad_message"),
        ("a\U000e0041", "bad_message"),  # a tag
        ("a\u2028b", "bad_message"),
        ("a\u2029b", "bad_message"),
        ("a\ue000", "bad_message"),  # private use
        ("a\uffff", "bad_message"),  # no character
        (" ", "bad_message"),
        ("   ", "bad_message"),
        (" a", "bad_message"),
        ("a ", "bad_message"),
        ("\u00a0a", "bad_message"),
        ("\u3000", "bad_message"),
        ("\u200d\u200d", "bad_message"),  # joiners alone: nothing to see
        ("\u0301", "bad_message"),  # an accent alone
    ],
)
def test_names_that_mislead_or_break_are_refused(name: object, code: str) -> None:
    with pytest.raises(RealtimeError) as caught:
        check_username(name)
    assert caught.value.code == code
    assert "username" in caught.value.message


@given(st.text(st.characters(codec=None, categories=None), max_size=70))
def test_whatever_passes_can_be_stored_and_seen(name: str) -> None:
    try:
        taken = check_username(name)
    except RealtimeError as error:
        assert error.code in ("bad_message", "out_of_range")
        return
    assert taken == name, "never changed silently"
    assert 1 <= len(taken) <= 64
    taken.encode()
    assert not any(unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} for character in taken)
    assert any(unicodedata.category(character)[0] in "LNPS" for character in taken)
    assert not any(unicodedata.bidirectional(c) in {"RLO", "LRO", "RLE", "LRE", "PDF"} for c in taken)
