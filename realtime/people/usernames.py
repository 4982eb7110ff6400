"""What a username may be.

Owns the one rule for every way a name comes in: registration, rename, import. Must never change a name silently, nor
depend on how old the interpreter's tables are. Assumes that pages show names as text and isolate their direction; this
rule keeps out what misleads even so.

What cannot be seen is told by its properties, not by a list that ages. It may stay where it makes a difference to the
eye: within an emoji that Unicode lists, and as a joiner in the scripts that are written with them.
"""

from __future__ import annotations

from typing import Any, Final

import emoji
import regex

from realtime.errors import RealtimeError
from realtime.validation import plain_text

USERNAME_LENGTH: Final = 64

_CLUSTER: Final = regex.compile(r"\X")  # what people take for one character (UAX 29)

_UNSEEN: Final = regex.compile(
    # Controls, formats, private use, unassigned, line ends, and what Unicode says to show as nothing; but for formats
    # that enclose numbers and are seen. What stacks letters, and is nothing by itself. Then what is blank by its shape,
    # of which no property tells: object replacement, blanks of Braille and of hieroglyphs, null notehead, filler of
    # Khitan, joiners of Tifinagh letters and of Brahmi numbers.
    r"[[\p{C}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}--\p{Prepended_Concatenation_Mark}]"
    r"\p{InSC=Invisible_Stacker}\uFFFC\u2800\U00013441\U00013442\U0001D159\U00016FE4\u2D7F\U0001107F]",
    regex.V1,
)

_INDIC: Final = r"[\p{L}--\p{InSC=Other}]\p{M}*"  # a letter of a script that writes syllables, and its marks

_JOINERS: Final = regex.compile(
    # Non-joiner (RFC 5892, appendix A.1): behind an Indic letter's virama, or between letters that would join.
    rf"(?<={_INDIC}\p{{ccc=Virama}})\u200C"
    r"|(?<=[\p{jt=L}\p{jt=D}]\p{jt=T}*)\u200C(?=\p{jt=T}*[\p{jt=R}\p{jt=D}])"
    # Joiner: beside a virama (A.2; before it, as in Bengali ya-phalaa), or for the shape of a letter that joins to one
    # that is not there, as at the end of Kurdish words.
    rf"|(?<={_INDIC}\p{{ccc=Virama}})\u200D|(?<={_INDIC})\u200D(?=\p{{ccc=Virama}})"
    r"|(?<=[\p{jt=L}\p{jt=D}]\p{jt=T}*)\u200D(?!\p{jt=T}*+[\p{jt=L}\p{jt=R}\p{jt=D}\p{jt=C}])"
    # One letter below another, as in Khmer.
    rf"|(?<={_INDIC})\p{{InSC=Invisible_Stacker}}(?=[\p{{L}}--\p{{InSC=Other}}])"
    # Mongolian chooses between the shapes of a letter by selectors of its own.
    r"|(?<=[\p{Script=Mongolian}&&\p{L}])[\u180B-\u180D\u180F]"
    r"|(?<=[\p{Script=Mongolian}&&\p{L}])\u180E(?=[\p{Script=Mongolian}&&\p{L}])",
    regex.V1,
)

_SEEN: Final = regex.compile(r"[\p{L}\p{N}\p{P}\p{S}]")


def check_username(value: Any) -> str:
    """`value` where it can be a username: 1 to 64 characters, something to see, nothing that misleads.

    Raises RealtimeError `bad_message` or `out_of_range`.
    """
    name = plain_text(value, "username", 1, USERNAME_LENGTH)
    if not (name.isascii() and name.isprintable()):
        _check_seen(name)
    if name != name.strip():
        raise RealtimeError("bad_message", "username must not begin or end with a space.")
    if not _SEEN.search(name):
        raise RealtimeError("bad_message", "username must contain something to see.")
    return name


def _check_seen(name: str) -> None:
    plain = _CLUSTER.sub(lambda found: "*" if _is_emoji(found[0]) else found[0], name)
    if unseen := _UNSEEN.search(_JOINERS.sub("", plain)):
        raise RealtimeError(
            "bad_message",
            "username must not contain control, direction or invisible characters: "
            f"U+{ord(unseen[0]):04X} is one where it stands.",
        )


def _is_emoji(cluster: str) -> bool:
    """Whether Unicode lists it as an emoji, or as a character that has two shapes, with a selector for one of them."""
    if emoji.is_emoji(cluster):
        return True
    return cluster[1:] in ("\ufe0e", "\ufe0f") and "variant" in emoji.EMOJI_DATA.get(cluster[0], {})
