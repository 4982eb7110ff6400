"""The client's boards: the same fixtures as the browser's reducer, and the server's own inverse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.boards import standings
from realtime.boards.standings import Snapshot
from realtime.client.boards import BOARDS_HELD, FollowedBoard, Gap, Reader, Refused, board_after
from realtime.wire import messages

FIXTURES = json.loads((Path(__file__).parents[2] / "fixtures" / "board_messages.json").read_text(encoding="utf-8"))


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
