"""The catalogue: what ids and aliases stand for, for leaderboards and windows of every kind."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from realtime.boards.board import ALL_TIME, week_of
from realtime.boards.catalogue import PUBLISHED, Catalogue, Directory, NotAtHand, check_name, is_alias, split_id
from realtime.boards.definitions import DEFAULT_DEFINITION, Definition
from realtime.boards.leaderboard import DEFAULT, Leaderboard, partition_of
from realtime.boards.windows import Window
from realtime.errors import RealtimeError

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def day(offset: int, key: int) -> Window:
    starts = datetime(2026, 11, 30, 5, tzinfo=UTC) + offset * DAY
    return Window(
        "day",
        f"day_of_2026_{11 if offset < 1 else 12}_{30 + offset if offset < 1 else offset:02}",
        starts,
        starts + DAY,
        key,
    )


SPRINT = Leaderboard(
    "sprint", Definition("sprint", "Sprint", windows=("all_time", "day", "season")), 2, 20, 2, "sprint", "p03"
)
MAKING = Leaderboard("making", Definition("making", "Making"), 3, None, 3, "making", "p01", 30)
WINDOWS = {
    2: [
        Window("all_time", "all_time", None, None, 1),
        day(-1, 10),
        day(0, 11),
        day(1, 12),
        Window("season", "season_autumn", NOW - 50 * DAY, NOW - 2 * DAY, 20),
        Window("season", "season_winter", NOW + 2 * DAY, NOW + 60 * DAY, 21),
    ]
}
HERE = Catalogue(7, {"default": DEFAULT, "sprint": SPRINT, "making": MAKING}, WINDOWS)


@pytest.mark.parametrize(
    ("text", "board"),
    [
        ("all_time", "all_time"),
        ("default:all_time", "all_time"),
        ("current_week", "week_of_2026_11_30"),
        ("default:previous_week", "week_of_2026_11_23"),
        ("week_of_2020_01_06", "week_of_2020_01_06"),
        ("sprint:all_time", "sprint:all_time"),
        ("sprint:current_day", "sprint:day_of_2026_11_30"),
        ("sprint:previous_day", "sprint:day_of_2026_11_29"),
        ("sprint:day_of_2026_11_29", "sprint:day_of_2026_11_29"),
        ("sprint:previous_season", "sprint:season_autumn"),
        ("sprint:season_autumn", "sprint:season_autumn"),
    ],
)
def test_a_name_stands_for_a_board(text: str, board: str) -> None:
    assert HERE.resolve(text, NOW).id == board
    assert Directory(HERE).resolve(text, NOW).id == board


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("sprint:current_week", "sprint has sprint:all_time, sprint:current_day, sprint:current_season"),
        ("sprint:week_of_2026_11_30", "sprint has"),
        ("sprint:current_season", "no current season"),
        ("sprint:season_winter", "not begun"),
        ("sprint:day_of_2026_12_01", "not begun"),
        ("sprint:day_of_2026_02_30", "calendar"),
        ("sprint:current_all_time", "sprint has"),
        ("sprint:", "no such board"),
        ("making:all_time", "being made"),
        ("Sprint:all_time", "no such board"),
        ("a:b:all_time", "no such board"),
        ("day_of_2026_11_30", "Use all_time"),
        (None, "no such board"),
        (7, "no such board"),
    ],
)
def test_what_stands_for_no_board_says_why(text: object, why: str) -> None:
    with pytest.raises(RealtimeError) as caught:
        HERE.resolve(text, NOW)
    assert caught.value.code == "unknown_board" and not isinstance(caught.value, NotAtHand)
    assert why.lower() in caught.value.message.lower()


@pytest.mark.parametrize(("text", "leaderboard"), [("sprint:day_of_2024_01_01", SPRINT), ("other:all_time", None)])
def test_what_only_the_ledger_knows_is_not_at_hand(text: str, leaderboard: Leaderboard | None) -> None:
    with pytest.raises(NotAtHand) as caught:
        HERE.resolve(text, NOW)
    assert caught.value.leaderboard is leaderboard
    assert f"{caught.value.slug}:{caught.value.window}" == text


def test_the_next_edge_is_the_next_end_or_start_of_any_window() -> None:
    assert HERE.edge_after(NOW) == day(0, 11).ends
    assert HERE.edge_after(NOW + DAY) == day(1, 12).ends
    assert PUBLISHED.edge_after(NOW) == week_of(date(2026, 12, 7)).starts
    assert HERE.edge_after(NOW + 70 * DAY) == week_of(date(2027, 2, 15)).starts


def test_live_boards_are_those_whose_window_is_open_or_ended_a_moment_ago() -> None:
    def others(now: datetime) -> set[str]:
        return {board.id for board in HERE.live_boards(now) if not board.is_published}

    assert others(NOW) == {"sprint:all_time", "sprint:day_of_2026_11_30"}
    ended = day(0, 11).ends
    assert ended is not None
    both = {"sprint:all_time", "sprint:day_of_2026_11_30", "sprint:day_of_2026_12_01"}
    assert others(ended) == both == others(ended + timedelta(seconds=119))
    assert others(ended + timedelta(seconds=120)) == both - {"sprint:day_of_2026_11_30"}
    told = {board.id for board in HERE.told_boards(NOW) if not board.is_published}
    assert told == {"sprint:all_time", "sprint:day_of_2026_11_30", "sprint:day_of_2026_12_01", "sprint:season_winter"}


def test_a_board_of_before_is_called_as_it_is_now_or_is_gone() -> None:
    renamed = replace(SPRINT, definition=replace(SPRINT.definition, title="Other", windows=("day",)))
    later = Catalogue(8, {"default": DEFAULT, "sprint": renamed}, {2: WINDOWS[2][1:4]})
    today = HERE.resolve("sprint:current_day", NOW)
    now_called = later.now_called(today)
    assert now_called == today and now_called is not None and now_called.leaderboard is renamed
    assert later.now_called(HERE.resolve("sprint:all_time", NOW)) is None, "it has no such window any more"
    assert Catalogue(9).now_called(today) is None, "the leaderboard was removed"
    assert later.now_called(ALL_TIME) == ALL_TIME


def test_published_boards_have_what_the_deployment_defines_of_default() -> None:
    mine = replace(DEFAULT, definition=replace(DEFAULT_DEFINITION, title="Points", visible="private"))
    here = Catalogue(1, {"default": mine})
    assert here.resolve("current_week", NOW).leaderboard.definition.title == "Points"
    assert here.resolve("all_time", NOW) == ALL_TIME and here.has_private
    assert PUBLISHED.resolve("all_time", NOW) is ALL_TIME


def test_ids_and_aliases_are_told_apart_and_names_checked() -> None:
    assert split_id("sprint:current_day") == ("sprint", "current_day")
    assert split_id("current_day") == ("default", "current_day")
    assert is_alias("sprint:previous_week") and not is_alias("sprint:day_of_2026_11_30")
    for name in ("sprint:current_day", "all_time", "current_week", "x:season_1", "day_of_2026_11_30"):
        check_name(name, NOW)
    for name in ("Sprint:all_time", "sprint:tomorrow", "week_of_2026_11_24", "", "sprint:day_of_2026_13_01"):
        with pytest.raises(RealtimeError):
            check_name(name, NOW)


def test_partitions_are_fixed_by_the_slug_of_the_source_and_the_published_one_has_no_tag() -> None:
    assert partition_of("default", 16) == ""
    names = {partition_of(f"board-{number}", 16) for number in range(500)}
    assert names == {f"p{number:02}" for number in range(16)}
