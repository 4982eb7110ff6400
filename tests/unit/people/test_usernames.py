"""Usernames: many scripts, nothing that misleads."""

from __future__ import annotations

from itertools import pairwise

import emoji
import pytest
import unicodedata2
from hypothesis import given
from hypothesis import strategies as st

from realtime.errors import RealtimeError
from realtime.people.usernames import check_username


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
        "ক\u09cd\u200cষ",  # Bengali keeps two letters apart
        "র\u200d\u09cd\u09afাব",  # and joins below: ya-phalaa
        "ක\u0dca\u200dෂ",  # Sinhala
        "അവൻ അവന\u0d4d\u200d",  # Malayalam's chillu as it was written before it had letters of its own
        "ಸೂರ\u200d\u0ccdಯ",  # Kannada keeps its ra whole
        "شاه\u200d",  # Kurdish shows the letter as if it went on
        "ខ្មែរ",  # Khmer stacks letters
        "မန္တလေး အင်္ဂါ",  # so does Burmese
        "ᠮᠣᠩᠭᠣᠯ",
        "ᠠ\u180b",  # Mongolian chooses a shape
        "ᠬᠠᠷ\u180eᠠ",
        "👩\u200d🚀",  # so does an astronaut
        "\U0001fa77",  # an emoji that is younger than some interpreters' tables
        "Mia\U0001fa77",
        "\U0001fae8\U0001fac6",
        "❤\ufe0f",
        "❤\ufe0e",
        "⭐\ufe0f Star",  # some keyboards say "as an emoji" though it is one anyway
        "1\ufe0f\u20e3#\ufe0f\u20e3",
        "👍🏽",
        "👩🏽\u200d🚀",
        "👨\u200d👩\u200d👧\u200d👦",
        "👁\ufe0f\u200d🗨\ufe0f",
        "🏳\ufe0f\u200d🌈 🏴\u200d☠\ufe0f",
        "🇺🇦🇵🇱",
        "🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",  # Scotland
        "\u0600123",  # an Arabic sign below numbers: a format by its category, and seen
        "\U0001e4d0\U00011f04",  # scripts that are younger still
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
        ("\ufffc", "bad_message"),
        ("a\ufffcb", "bad_message"),
        ("ad\U0001d173min", "bad_message"),
        ("admin\U000e0100", "bad_message"),  # a selector behind a letter
        ("ad\ufe0fmin", "bad_message"),
        ("ad\ufe00min", "bad_message"),
        ("葛\U000e0100", "bad_message"),
        ("ad\u180bmin", "bad_message"),
        ("ad\u180emin", "bad_message"),
        ("ad\u200dmin", "bad_message"),  # joiners where nothing joins
        ("ad\u200cmin", "bad_message"),
        ("admin\u200d", "bad_message"),
        ("\u200cadmin", "bad_message"),
        ("אב\u200dגד", "bad_message"),
        ("د\u200cا", "bad_message"),  # noqa: RUF001 -  # these two are apart anyway
        ("ن\u200dن", "bad_message"),  # and these together
        ("ن\u200c\u200cن", "bad_message"),
        ("ن\u200d\u200d", "bad_message"),
        ("क\u200dष", "bad_message"),  # without a virama
        ("क्\u200d\u200dष", "bad_message"),
        ("ad\u094d\u200cmin", "bad_message"),  # a virama of no letter
        ("ad\u094d\u200dmin", "bad_message"),
        ("ad\u1039min", "bad_message"),  # a stacker of no letters
        ("ad\u17d2min", "bad_message"),
        ("ខ\u17d2", "bad_message"),
        ("ad\u2d7fmin", "bad_message"),
        ("日\u200d本", "bad_message"),
        ("👩\u200d", "bad_message"),
        ("👩\u200da", "bad_message"),
        ("👩\u200d👩", "bad_message"),  # no emoji that Unicode lists: seen as two
        ("👩\u200d\u200d🚀", "bad_message"),
        ("👩\ufe0f", "bad_message"),
        ("❤\ufe0f\ufe0f", "bad_message"),
        ("1\ufe0f", "bad_message"),
        ("🏴\U000e0067\U000e0062", "bad_message"),  # a flag that does not end
        ("🏴\U000e007f", "bad_message"),
        ("👍\U000e0041\U000e007f", "bad_message"),
        ("\u115f", "bad_message"),
        ("\u1160", "bad_message"),
        ("\uffa0", "bad_message"),
        ("가\u3164", "bad_message"),
        ("\u17b4", "bad_message"),
        ("\u2800", "bad_message"),
        ("\U0001d159", "bad_message"),
        ("a\U0001d159", "bad_message"),
        ("\U00013441", "bad_message"),
        ("\U00013442a", "bad_message"),
        ("a\U00016fe4", "bad_message"),
        ("a\u061cb", "bad_message"),
        ("a\u034fb", "bad_message"),
        ("a\ufff0b", "bad_message"),  # none yet, and to be shown as nothing when it is one
        ("a\ufff9b\ufffac\ufffb", "bad_message"),
        ("a\U0001bca0b", "bad_message"),
        ("a\U000e0fffb", "bad_message"),
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


def test_what_is_refused_is_named() -> None:
    with pytest.raises(RealtimeError, match=r"U\+1D173 is one where it stands\.$"):
        check_username("क्\u200dष \U0001d173")


def test_every_emoji_that_unicode_lists_is_a_name() -> None:
    """A part of one, as a skin's colour, is seen too when it stands alone."""
    for sequence in emoji.EMOJI_DATA:
        assert check_username(sequence) == sequence


UNSEEN = "\u200c\u200d\ufe0e\ufe0f\u180b\U000e0067\U000e007f"


@given(st.text(st.sampled_from(UNSEEN + "aन्षन\u0930👩🚀❤🏴1\u20e3نر\u064b "), max_size=12))
def test_what_cannot_be_seen_stands_beside_nothing_but_what_it_belongs_to(name: str) -> None:
    try:
        check_username(name)
    except RealtimeError:
        return
    assert name[0] not in UNSEEN
    for before, character in pairwise(name):
        if character in UNSEEN:
            assert before not in "a ", "a letter that stays as it is, whatever follows it"
        if character in "\u200c\u200d":
            assert before not in "\u200c\u200d"


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
    assert not any(unicodedata2.category(character) in {"Cc", "Cs", "Zl", "Zp"} for character in taken)
    assert any(unicodedata2.category(character)[0] in "LNPS" for character in taken)
    assert not any(unicodedata2.bidirectional(c) in {"RLO", "LRO", "RLE", "LRE", "PDF"} for c in taken)
