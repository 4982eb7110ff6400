"""Standings: their laws, and the fixtures that the browser's reducer is held to as well."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from realtime.boards.standings import Diff, Entry, Snapshot, Upsert, apply, diff, in_order, ranks
from tests.support.following import Follower

FIXTURES = json.loads((Path(__file__).parents[2] / "fixtures" / "board_messages.json").read_text())

# Few ids and scores, so that boards overlap and ties are common; some at the far ends.
user_ids = st.integers(1, 120) | st.sampled_from([9, 10, 99, 100, 2**53 - 1])
scores = st.integers(-3, 3) | st.integers(-(2**53), 2**53)
names = st.sampled_from(["a", "b", "Ω", "<b>"])
rows = st.dictionaries(user_ids, st.tuples(scores, names), max_size=100)


def snapshot(content: dict[int, tuple[int, str]], version: int, epoch: str = "x") -> Snapshot:
    ordered = in_order((user_id, score) for user_id, (score, _) in content.items())
    return Snapshot("all_time", epoch, version, ordered, {user_id: content[user_id][1] for user_id in content})


@given(rows, rows)
@example({}, {})
@example({9: (1, "a"), 10: (1, "b")}, {10: (1, "a"), 9: (1, "b")})
def test_applying_the_difference_gives_the_later_one(before: Any, after: Any) -> None:
    a, b = snapshot(before, 3), snapshot(after, 8)
    result = apply(a, diff(a, b))
    assert result == b
    assert list(result.scores.items()) == list(b.scores.items()), "in board order as well"


@given(rows, rows, rows)
def test_differences_follow_each_other(first: Any, second: Any, third: Any) -> None:
    a, b, c = snapshot(first, 1), snapshot(second, 2), snapshot(third, 3)
    assert apply(apply(a, diff(a, b)), diff(b, c)) == apply(a, diff(a, c)) == c


@given(rows, rows)
def test_a_difference_says_what_changed_and_nothing_else(before: Any, after: Any) -> None:
    change = diff(snapshot(before, 3), snapshot(after, 8))
    assert (change.from_version, change.version) == (3, 8)
    assert set(change.remove) == before.keys() - after.keys()
    said = {upsert.user_id: upsert for upsert in change.upsert}
    assert said.keys() == {user_id for user_id, row in after.items() if before.get(user_id) != row}
    for user_id, upsert in said.items():
        score, name = after[user_id]
        knows = user_id in before and before[user_id][1] == name
        assert upsert == Upsert(user_id, None if knows else name, score)
    places = list(snapshot(after, 8).scores)
    assert [upsert.user_id for upsert in change.upsert] == [i for i in places if i in said]


@given(rows)
def test_the_difference_from_oneself_is_empty_also_where_names_are_one_object(content: Any) -> None:
    a = snapshot(content, 3)
    b = Snapshot(a.board, a.epoch, 4, dict(a.scores), a.names)
    for later in (b, Snapshot(a.board, a.epoch, 4, dict(a.scores), dict(a.names))):
        assert diff(a, later) == Diff("all_time", "x", 3, 4, [], [])


@given(rows, rows, st.sampled_from(["board", "epoch", "version"]))
def test_a_difference_that_starts_elsewhere_is_refused(before: Any, after: Any, wrong: str) -> None:
    a, b = snapshot(before, 3), snapshot(after, 8)
    other = {
        "board": Snapshot("week_of_2026_11_23", "x", 3, a.scores, a.names),
        "epoch": snapshot(before, 3, epoch="y"),
        "version": snapshot(before, 4),
    }[wrong]
    with pytest.raises(ValueError, match="starts at"):
        apply(other, diff(a, b))


@given(st.lists(scores, max_size=50))
def test_ranks_are_one_more_than_the_number_of_better_scores(given_scores: list[int]) -> None:
    ordered = sorted(given_scores, reverse=True)
    assert ranks(ordered) == [1 + sum(better > score for better in ordered) for score in ordered]


def test_ranks_skip_after_a_tie_and_may_begin_anywhere() -> None:
    assert ranks([9, 8, 8, 7, 7, 7, 1]) == [1, 2, 2, 4, 4, 4, 7]
    assert ranks([5, 5, 4], first=11) == [11, 11, 13]
    assert ranks([]) == []


@given(st.dictionaries(user_ids, scores, max_size=100))
def test_order_is_score_then_id_as_text_both_descending(content: dict[int, int]) -> None:
    ordered = in_order(content.items())
    assert ordered == content
    for (user_id, score), (next_id, next_score) in pairwise(ordered.items()):
        assert score > next_score or (score == next_score and str(user_id) > str(next_id))


def test_nine_stands_before_ten() -> None:
    assert list(in_order([(10, 8), (9, 8), (100, 8)])) == [9, 100, 10]


def test_a_snapshot_gives_its_lines() -> None:
    assert snapshot({1: (5, "a"), 2: (7, "b")}, 1).entries == [Entry(2, "b", 7), Entry(1, "a", 5)]


# The same fixtures as the browser's reducer (tests/unit/web/js/board.test.js): both halves agree on what messages mean.


def _as_snapshot(state: dict[str, Any]) -> Snapshot:
    entries = state["entries"]
    return Snapshot(
        state["board"],
        state["epoch"],
        state["version"],
        in_order((entry["user_id"], entry["score"]) for entry in entries),
        {entry["user_id"]: entry["username"] for entry in entries},
    )


def _as_diff(message: dict[str, Any]) -> Diff:
    upsert = [Upsert(u["user_id"], u.get("username"), u["score"]) for u in message["upsert"]]
    return Diff(message["board"], message["epoch"], message["from"], message["version"], upsert, message["remove"])


def _fits(fixture: dict[str, Any]) -> bool:
    """Whether the fixture is about a diff that a server can have sent to somebody who is where it starts."""
    start, message = fixture["start"], fixture["message"]
    if message["type"] != "diff" or start is None or fixture["expect"] == "gap":
        return False
    there = {entry["user_id"] for entry in start["entries"]}
    return (
        message["board"] == start["board"] and message["from"] == start["version"] and set(message["remove"]) <= there
    )


@pytest.mark.parametrize("fixture", [pytest.param(f, id=f["name"]) for f in FIXTURES if _fits(f)])
def test_a_shared_fixture_means_here_what_it_means_in_the_browser(fixture: dict[str, Any]) -> None:
    result = apply(_as_snapshot(fixture["start"]), _as_diff(fixture["message"]))
    assert result == _as_snapshot(fixture["expect"])
    assert [e.user_id for e in result.entries] == [e["user_id"] for e in fixture["expect"]["entries"]]
    assert ranks(result.scores.values()) == fixture["ranks"]


GAPS = [f for f in FIXTURES if f["expect"] == "gap"]


@pytest.mark.parametrize("fixture", [pytest.param(f, id=f["name"]) for f in GAPS])
def test_the_tests_own_follower_sees_every_gap_that_the_browser_sees(fixture: dict[str, Any]) -> None:
    follower = Follower()
    if fixture["start"] is not None:
        follower.take({"type": "snapshot", **fixture["start"]})
    with pytest.raises(AssertionError):
        follower.take(fixture["message"])
