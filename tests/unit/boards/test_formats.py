"""Formats: the same text for a score as in the pages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.boards.definitions import SCORE_MAX, Format
from realtime.boards.formats import format_score

FORMATS = json.loads((Path(__file__).parents[2] / "fixtures/leaderboards.json").read_text(encoding="utf-8"))["formats"]


@pytest.mark.parametrize("example", FORMATS, ids=lambda example: "-".join(map(str, example["format"].values())))
def test_a_score_is_written_as_the_pages_write_it(example: dict[str, Any]) -> None:
    for score, text in example["scores"]:
        assert format_score(Format(**example["format"]), score) == text


formats = st.builds(
    Format, st.just("decimal"), places=st.integers(0, 6)
) | st.sampled_from([Format(), Format("duration", unit="s"), Format("duration", unit="ms")])  # fmt: skip


@given(formats, st.integers(-SCORE_MAX, SCORE_MAX), st.integers(-SCORE_MAX, SCORE_MAX))
def test_two_scores_never_look_alike(format: Format, one: int, other: int) -> None:
    assert (format_score(format, one) == format_score(format, other)) == (one == other)
