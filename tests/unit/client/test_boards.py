"""The client's boards: the same fixtures as the browser's reducer, and the server's own inverse."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.boards import standings
from realtime.boards.standings import Order, Snapshot
from realtime.client.boards import BOARDS_HELD, FollowedBoard, Gap, Reader, Refused, board_after
from realtime.client.descriptions import description_in, order_of
from realtime.wire import messages

FOLDER = Path(__file__).parents[2] / "fixtures"
FIXTURES = json.loads((FOLDER / "board_messages.json").read_text(encoding="utf-8"))
LEADERBOARDS = json.loads((FOLDER / "leaderboards.json").read_text(encoding="utf-8"))


def board(fields: dict[str, Any] | None) -> Snapshot | None:
    return None if fields is None else board_after(None, {"type": "snapshot", **fields})


@pytest.mark.parametrize("case", FIXTURES, ids=lambda case: case["name"])
def test_a_followed_board_agrees_with_the_browser(case: dict[str, Any]) -> None:
    start = board(case["start"])
    if case["expect"] == "gap":
        with pytest.raises(Gap):
            board_after(start, case["message"])
        return
    found = board_after(start, case["message"])
    assert found == board(case["expect"])
    assert list(found.scores) == [entry["user_id"] for entry in case["expect"]["entries"]]
    assert standings.ranks(found.scores.values()) == case["ranks"]


@pytest.mark.parametrize("case", LEADERBOARDS["messages"], ids=lambda case: case["name"])
def test_a_described_board_agrees_with_the_browser(case: dict[str, Any]) -> None:
    order = order_of(description_in(case["description"]))
    found = board_after(board_after(None, case["start"], order), case["message"])
    shown = found.metadata or {}
    entries = [
        {"user_id": user_id, "username": found.names[user_id], "score": score, "at": list(found.at[user_id])}
        | ({"metadata": json.loads(text)} if (text := shown.get(user_id)) else {})
        for user_id, score in found.scores.items()
    ]
    assert entries == case["entries"]
    assert found.ranks == case["ranks"]


@pytest.mark.parametrize("case", LEADERBOARDS["orders"], ids=lambda case: case["name"])
def test_order_and_ranks_are_the_browsers(case: dict[str, Any]) -> None:
    for style, expected in case["ranks"].items():
        order = Order(case["leaderboard"]["order"] == "ascending", case["leaderboard"]["ties"], style)
        at = {entry["user_id"]: tuple(entry["at"]) for entry in case["entries"] if "at" in entry}
        found = standings.in_order(((entry["user_id"], entry["score"]) for entry in case["entries"]), order, at)
        assert list(found) == case["order"]
        assert standings.ranks(found.values(), style=style) == expected


def lap(user_id: int, score: int, at: int, metadata: object = None) -> dict[str, Any]:
    return {"user_id": user_id, "username": f"n{user_id}", "score": score, "at": [at, user_id], "metadata": metadata}


def test_a_board_that_was_empty_learns_that_it_shows_metadata() -> None:
    order = Order(ascending=True, ties="first")
    empty = board_after(None, snapshot(1), order)
    assert empty.metadata is None
    after = board_after(empty, diff(1, 2) | {"upsert": [lap(1, 50, 3, {"car": "gt"}), lap(2, 50, 2)]})
    assert (list(after.scores), after.metadata) == ([2, 1], {2: None, 1: '{"car":"gt"}'})


def test_what_is_held_is_put_in_the_order_that_a_new_description_says() -> None:
    said = LEADERBOARDS["messages"][0]["description"]
    other = {"leaderboard": said["leaderboard"] | {"order": "descending"}, "window": said["window"]}
    followed = FollowedBoard("all_time")
    followed.stands_for("all_time", description_in(said))
    followed.take(snapshot(1) | {"entries": [lap(1, 40, 1), lap(2, 50, 2)]})
    followed.stands_for("all_time", description_in(other))
    assert followed.resumed() and followed.board is not None
    assert (list(followed.board.scores), followed.board.ranks) == ([2, 1], [1, 2])


def test_an_order_for_which_moments_are_missing_needs_a_snapshot() -> None:
    followed = FollowedBoard("all_time")
    followed.take(snapshot(1) | {"entries": [{"user_id": 1, "username": "a", "score": 5}]})
    followed.stands_for("all_time", description_in(LEADERBOARDS["messages"][0]["description"]))
    assert not followed.resumed()


def test_a_description_says_how_scores_are_written_and_until_when_it_runs() -> None:
    description = description_in(LEADERBOARDS["messages"][0]["description"])
    assert description is not None and description.text(62_345) == "1:02.345"
    assert (description.slug, description.kind) == ("sprint", "day")
    assert description.ends == datetime(2026, 11, 30, 23, tzinfo=UTC)
    assert description_in({"type": "subscribed", "board": "all_time"}) is None


def test_what_a_later_server_may_say_is_kept_and_written_as_a_whole_number() -> None:
    rule = {"slug": "x", "title": "X", "order": "descending", "ties": "user_id", "ranks": "competition"}
    description = description_in({"leaderboard": rule | {"format": {"kind": "stars"}}, "window": {"kind": "lap"}})
    assert description is not None and description.text(-5) == "-5" and description.kind == "lap"


scores = st.dictionaries(st.integers(1, 30), st.integers(-5, 50), max_size=12)


@given(scores, scores, st.sets(st.integers(1, 30)))
def test_what_the_server_writes_leads_to_what_the_server_has(
    before: dict[int, int], after: dict[int, int], renamed: set[int]
) -> None:
    old = Snapshot("all_time", "e", 1, standings.in_order(before.items()), {i: f"n{i}" for i in before})
    names = {i: f"new{i}" if i in renamed else f"n{i}" for i in after}
    new = Snapshot("all_time", "e", 2, standings.in_order(after.items()), names)
    told = board_after(None, orjson.loads(messages.snapshot(old)))
    assert told == old
    assert board_after(told, orjson.loads(messages.diff(standings.diff(old, new)))) == new
    assert told == old, "a board that was given out never changes"


def snapshot(version: int, board: str = "all_time") -> dict[str, Any]:
    return {"type": "snapshot", "board": board, "epoch": "e", "version": version, "entries": []}


def diff(first: int, version: int) -> dict[str, Any]:
    fields = {"epoch": "e", "from": first, "version": version, "upsert": [], "remove": []}
    return {"type": "diff", "board": "all_time", **fields}


async def test_a_reader_sees_every_board_and_one_far_behind_the_newest() -> None:
    followed, reader = FollowedBoard("all_time"), Reader()
    followed.readers.add(reader)
    followed.take(snapshot(0))
    for version in range(5):
        followed.take(diff(version, version + 1))
    assert [(await reader.next()).version for _ in range(6)] == [0, 1, 2, 3, 4, 5]
    for version in range(5, 5 + 3 * BOARDS_HELD):
        followed.take(diff(version, version + 1))
    seen = [(await reader.next()).version for _ in range(BOARDS_HELD)]
    assert seen == list(range(6 + 2 * BOARDS_HELD, 6 + 3 * BOARDS_HELD))


async def test_nothing_is_shown_twice() -> None:
    followed, reader = FollowedBoard("all_time"), Reader()
    followed.readers.add(reader)
    followed.take(snapshot(3))
    assert followed.take(diff(2, 3)), "heard before"
    followed.refuse(Refused("closed", "over"))
    assert (await reader.next()).version == 3
    with pytest.raises(Refused) as refused:
        await reader.next()
    assert refused.value.code == "closed"


def test_a_gap_asks_once_for_a_snapshot() -> None:
    followed = FollowedBoard("all_time")
    assert followed.take(diff(1, 2)), "the first snapshot is under way"
    followed.take(snapshot(2))
    assert not followed.take(diff(3, 4)), "ask for a snapshot"
    followed.asking = True
    assert followed.take(diff(4, 5)), "it was asked for"
    followed.take(snapshot(7))
    assert followed.board is not None and followed.board.version == 7 and not followed.asking


def test_a_name_that_stands_for_another_board_forgets_the_old_one() -> None:
    followed = FollowedBoard("current_week")
    followed.stands_for("week_of_2026_11_16")
    followed.take(snapshot(5, "week_of_2026_11_16"))
    followed.stands_for("week_of_2026_11_16")
    assert followed.board is not None
    followed.stands_for("week_of_2026_11_23")
    assert followed.board is None
