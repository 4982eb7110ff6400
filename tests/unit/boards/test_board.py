"""Boards: every moment in exactly one week, every id one board, every name safe."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from realtime.boards.board import ALL_TIME, live_boards, parse_board, resolve, told_boards, week_at, week_of
from realtime.errors import RealtimeError
from realtime.ledger.closing import view_of
from realtime.store.keys import Keys, expire_at, partition_of_channel

MICROSECOND = timedelta(microseconds=1)
DAY = timedelta(days=1)

# Aware moments in any zone, a day off the ends of the calendar: beyond them there is no UTC.
moments = st.datetimes(
    min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30), timezones=st.timezones() | st.just(UTC)
)
mondays = st.dates(date(1, 1, 1), date(9999, 12, 20)).map(lambda day: day - day.weekday() * DAY)


@given(moments)
@example(datetime(2020, 12, 31, 23, 59, 59, 999999, UTC))  # ISO week 53 of 2020
@example(datetime(2021, 1, 1, tzinfo=UTC))  # still that week
@example(datetime(2026, 11, 22, 23, 59, 59, 999999, UTC))
@example(datetime(2026, 11, 23, tzinfo=UTC))
def test_every_moment_belongs_to_exactly_one_monday(moment: datetime) -> None:
    week = week_at(moment)
    assert week.week is not None and week.ends is not None
    assert week.week.weekday() == 0
    assert week.starts <= moment < week.ends
    assert week.ends - week.starts == timedelta(days=7)
    assert moment.astimezone(UTC).isocalendar()[:2] == week.week.isocalendar()[:2]


@given(mondays)
def test_a_week_holds_its_first_and_last_microsecond_and_not_the_next(monday: date) -> None:
    week = week_of(monday)
    assert week.ends is not None
    assert week_at(week.starts) == week == week_at(week.ends - MICROSECOND)
    following = week_at(week.ends)
    assert following != week
    assert following.starts == week.ends, "no moment lies between two weeks"


@pytest.mark.parametrize(
    ("moment", "monday"),
    [
        (datetime(2020, 12, 31, 12, tzinfo=UTC), date(2020, 12, 28)),  # week 53
        (datetime(2021, 1, 3, 23, 59, tzinfo=UTC), date(2020, 12, 28)),
        (datetime(2021, 1, 4, tzinfo=UTC), date(2021, 1, 4)),
        (datetime(2024, 12, 30, tzinfo=UTC), date(2024, 12, 30)),  # week 1 of 2025
        (datetime(2026, 12, 31, tzinfo=UTC), date(2026, 12, 28)),  # week 53 again
        (datetime(2024, 2, 29, tzinfo=UTC), date(2024, 2, 26)),
        # The same instant elsewhere: Sunday evening in New York is Monday in UTC.
        (datetime(2026, 11, 22, 19, tzinfo=timezone(timedelta(hours=-5))), date(2026, 11, 23)),
        (datetime(2026, 11, 23, 13, 59, tzinfo=timezone(timedelta(hours=14))), date(2026, 11, 16)),
    ],
)
def test_weeks_at_the_edges_of_years_and_zones(moment: datetime, monday: date) -> None:
    assert week_at(moment) == week_of(monday)


@given(mondays)
def test_an_id_names_the_board_it_came_from(monday: date) -> None:
    week = week_of(monday)
    assert re.fullmatch(r"week_of_\d{4}_\d{2}_\d{2}", week.id)
    assert parse_board(week.id) == week
    assert parse_board("all_time") == ALL_TIME


@given(st.text() | st.from_regex(r"week_of_\d{4}_\d{2}_\d{2}", fullmatch=True) | st.none() | st.integers())
@example("week_of_2026_11_23\n")
@example("week_of_2026_11_23; DROP TABLE users")
@example("week_of_२०२६_११_२३")  # digits to \\d, and to int()
@example("current_week")
@example("ALL_TIME")
@example("")
def test_whatever_is_no_board_is_unknown_and_what_is_one_is_a_monday(text: object) -> None:
    try:
        board = parse_board(text)
    except RealtimeError as error:
        assert error.code == "unknown_board"
    else:
        assert board.id == text
        assert board is ALL_TIME or (board.week is not None and board.week.weekday() == 0)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("week_of_2026_11_24", "week_of_2026_11_23"),
        ("week_of_2026_11_29", "week_of_2026_11_23"),
        ("week_of_2021_01_01", "week_of_2020_12_28"),
        ("week_of_0001_01_07", "week_of_0001_01_01"),
        ("week_of_2024_02_30", "calendar"),
        ("week_of_0000_01_01", "calendar"),
        ("nonsense", "current_week"),
    ],
)
def test_a_wrong_id_is_answered_with_what_to_use(text: str, hint: str) -> None:
    with pytest.raises(RealtimeError, match=hint) as caught:
        parse_board(text)
    assert caught.value.code == "unknown_board"


NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


def test_the_alias_stands_for_the_week_of_the_moment() -> None:
    assert resolve("current_week", NOW) == week_of(date(2026, 11, 23))
    end = datetime(2026, 11, 30, tzinfo=UTC)
    assert resolve("current_week", end - MICROSECOND) == week_of(date(2026, 11, 23))
    assert resolve("current_week", end) == week_of(date(2026, 11, 30))


def test_a_week_that_has_not_begun_is_unknown_until_its_first_moment() -> None:
    end = datetime(2026, 11, 30, tzinfo=UTC)
    with pytest.raises(RealtimeError, match="not begun"):
        resolve("week_of_2026_11_30", end - MICROSECOND)
    assert resolve("week_of_2026_11_30", end) == week_of(date(2026, 11, 30))


@given(moments)
def test_a_board_is_either_live_or_closed_or_yet_to_come(moment: datetime) -> None:
    live = live_boards(moment)
    assert len(set(live)) == len(live)
    assert live[:2] == [ALL_TIME, week_at(moment)]
    for weeks in (-2, -1, 0, 1):
        try:
            board = week_at(moment + timedelta(weeks=weeks))
        except OverflowError:
            continue
        states = [board in live, board.is_closed(moment), not board.has_started(moment)]
        assert states.count(True) == 1, (board.id, states)


def test_a_week_closes_a_grace_after_its_end() -> None:
    week = week_of(date(2026, 11, 16))
    assert week.ends is not None
    closes = week.ends + timedelta(seconds=120)
    assert not week.is_closed(closes - MICROSECOND)
    assert week in live_boards(closes - MICROSECOND)
    assert week.is_closed(closes)
    assert week not in live_boards(closes)
    assert not ALL_TIME.is_closed(closes)


def test_the_keys_are_those_people_look_for() -> None:
    week = week_of(date(2026, 11, 23))
    published = Keys()
    names = [
        "leaderboard:user_scores:all_time", "leaderboard:cache_top_100:week_of_2026_11_23",
        "leaderboard:version:week_of_2026_11_23", "leaderboard:versions:week_of_2026_11_23", "leaderboard:users:7",
        "leaderboard:version:users", "leaderboard:epoch", "leaderboard:run", "leaderboard:ledger",
    ]  # fmt: skip

    def named(by: Keys) -> list[str]:
        return [
            by.scores(ALL_TIME), by.cache(week), by.version(week), by.versions(week), by.user(7), by.users_version,
            by.epoch, by.run, by.ledger,
        ]  # fmt: skip

    assert named(published) == names
    assert published.channel_of(week) == "leaderboard:changes:week_of_2026_11_23"
    assert view_of(week) == "leaderboard_week_of_2026_11_23"
    clustered = Keys(clustered=True)
    assert named(clustered) == ["{default}" + name for name in names], "on a cluster a tag stands in front of them"
    assert clustered.channel_of(week) == "{default}leaderboard:changes"
    assert clustered.announcing == "SPUBLISH {default}leaderboard:changes"
    for is_clustered in (False, True):
        of_others = Keys("p07", clustered=is_clustered)
        assert named(of_others) == ["{p07}" + name for name in names]
        assert of_others.announcing == f"{'S' * is_clustered}PUBLISH {{p07}}leaderboard:changes"


def test_a_channel_names_its_partition() -> None:
    for partition in ("", "p07"):
        assert partition_of_channel(Keys(partition, clustered=True).channel) == partition
    for channel in ("leaderboard:changes:all_time", "{p7}leaderboard:changes", "{default}leaderboard:changes:x"):
        assert partition_of_channel(channel) is None


def test_keys_of_a_week_expire_eight_days_after_its_end_and_all_time_never() -> None:
    week = week_of(date(2026, 11, 23))
    assert datetime.fromtimestamp(expire_at(week), UTC) == datetime(2026, 12, 8, tzinfo=UTC)
    assert expire_at(ALL_TIME) == 0
    assert expire_at(week_of(date(9999, 12, 27))) == 0, "the calendar's last week has no end to count from"


def test_the_store_is_told_of_the_week_to_come_whatever_the_hour() -> None:
    sunday = datetime(2026, 11, 29, 23, 59, 59, tzinfo=UTC)
    told = ["all_time", "week_of_2026_11_23", "week_of_2026_11_30"]
    assert [board.id for board in told_boards(sunday)] == told
    assert [board.id for board in told_boards(sunday - timedelta(days=3))] == told
    beginning = ["all_time", "week_of_2026_11_30", "week_of_2026_11_23", "week_of_2026_12_07"]
    assert [board.id for board in told_boards(sunday + timedelta(seconds=1))] == beginning
