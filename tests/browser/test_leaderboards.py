"""Pages of a deployment with many leaderboards: choosing, windows, formats, and each state without anything to show."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.conftest import DESKTOP, PHONE, Host, OpenPage, Server
from tests.browser.played import EVER, NOW, TODAY, Played, laps
from tests.browser.test_element import tag

TOMORROW = "sprint:day_of_2026_01_08"
NEXT_DAY = {"kind": "day", "starts": "2026-01-07T23:00:00.000Z", "ends": "2026-01-08T23:00:00.000Z"}
YESTERDAY = "sprint:day_of_2026_01_06"
SCORES = "rows => rows.map(row => [row.querySelector('bdi').textContent, row.querySelector('.score').firstChild.data])"


def shown(page: Page, within: str = "#list") -> list[list[str]]:
    """(name, score as it is written) of the rows."""
    found: list[list[str]] = page.locator(f"{within} .row").evaluate_all(SCORES)
    return found


@pytest.fixture
def played() -> Played:
    return Played()


@pytest.mark.parametrize("viewport", [PHONE, DESKTOP, {"width": 320, "height": 640}], ids=["phone", "desktop", "small"])
def test_lowest_first_with_times_and_cars(open_page: OpenPage, played: Played, viewport: dict[str, int]) -> None:
    page = open_page("/?board=sprint:current_day&me=2", viewport=viewport, before=played.before)
    expect(page.locator("#leaderboard option:checked")).to_have_text("Sprint, any %")
    expect(page.locator("#list .row")).to_have_count(4)
    assert shown(page) == [
        ["Driver 1", "1:01.000"],
        ["Driver 2", "1:02.345"],
        ["Driver 3", "1:02.345"],
        ["Driver 4", "2:30.000"],
    ]
    assert page.locator(".rank").all_text_contents() == ["1", "2", "2", "4"]
    assert [page.locator(f".{place} .step").text_content() for place in ("first", "second", "third")] == ["1", "2", "2"]
    expect(page.locator(".me-far")).to_have_text("1.345 s to rank 1")
    expect(page.locator(".row .meta").nth(3)).to_have_text("car gt4")
    expect(page.locator("#clock-label")).to_have_text("7 January ends in")
    expect(page.locator(".first .points span").first).to_have_text("1:01.000")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out sideways"
    bars = page.locator(".row .bar").evaluate_all("bars => bars.map(bar => new DOMMatrix(bar.style.transform).a)")
    assert bars[0] == 1 and bars == sorted(bars, reverse=True) and 0.4 < bars[3] < 0.42, "the slower, the shorter"


@pytest.mark.parametrize("viewport", [PHONE, {"width": 1200, "height": 800}], ids=["phone", "desktop"])
def test_six_windows_all_have_their_tab_in_sight(
    open_page: OpenPage, played: Played, viewport: dict[str, int]
) -> None:
    played.definitions["sprint"]["windows"] = ["all_time", "day", "week", "month", "year", "season"]
    page = open_page("/?board=sprint:current_day", viewport=viewport, before=played.before)
    expect(page.locator("[role=tab]")).to_have_count(7)
    list_box = page.locator("[role=tablist]").bounding_box()
    assert list_box is not None
    for tab in page.locator("[role=tab]").all():
        box = tab.bounding_box()
        assert box is not None and box["height"] >= 44
        assert list_box["x"] - 1 <= box["x"] and box["x"] + box["width"] <= list_box["x"] + list_box["width"] + 1
        assert tab.evaluate("tab => tab.scrollWidth <= tab.clientWidth + 1")


def test_a_better_time_rises_and_says_by_how_much(open_page: OpenPage, played: Played) -> None:
    page = open_page("/?board=sprint:current_day", before=played.before)
    expect(page.locator("#list .row")).to_have_count(4)
    played.moves("sprint:current_day", {"user_id": 4, "score": 61_000, "at": [0, 0], "metadata": {"car": "<b>f1</b>"}})
    expect(page.locator("#list .row").first).to_contain_text("Driver 4")
    expect(page.locator(".row .gain")).to_have_text("-1:29.000")
    expect(page.locator(".row .meta").first).to_have_text("car <b>f1</b>")
    expect(page.locator("#spoken")).to_have_text("Driver 4 leads with 1:01.000")


def test_another_leaderboard_is_chosen_by_keyboard_and_opens_on_what_it_has(
    open_page: OpenPage, played: Played
) -> None:
    played.boards["wins:all_time"] = ("wins:all_time", EVER, [{"user_id": 7, "username": "Kim", "score": 1_234}])
    page = open_page("/", before=played.before)
    expect(page.get_by_role("heading", level=1)).to_have_text("Points")
    chooser = page.get_by_label("Leaderboard", exact=True)
    expect(chooser).to_be_visible()
    chooser.focus()
    chooser.press("ArrowDown")
    expect(page).to_have_url(re.compile("board=sprint%3Acurrent_week$"))
    expect(page.get_by_role("tab")).to_have_text(["Today", "Week", "Season", "All time", "Earlier"])
    page.get_by_role("tab", name="Week").focus()
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_role("tab", name="Today")).to_be_focused()
    expect(page.locator("#list .row")).to_have_count(4)
    expect(page).to_have_title("Today · Sprint, any %")
    chooser.select_option("wins")
    expect(page.locator("#list .row .score")).to_have_text("1,234")
    expect(page.get_by_role("tab")).to_have_text(["All time"])
    page.go_back()
    expect(chooser).to_have_value("sprint")


def test_one_leaderboard_alone_is_no_choice(open_page: OpenPage, played: Played) -> None:
    played.definitions = {"default": played.definitions["default"] | {"title": "Leaderboard"}}
    page = open_page("/", before=played.before)
    expect(page.locator("#lamp")).to_have_text("Live")
    page.wait_for_timeout(200)
    expect(page.locator("#chooser")).to_be_hidden()
    expect(page.get_by_role("heading", level=1)).to_have_text("Leaderboard")
    expect(page.get_by_role("tab")).to_have_text(["This week", "All time", "Earlier"])
    expect(page).to_have_title("This week · Leaderboard")


def test_a_day_ends_and_the_next_begins(open_page: OpenPage, played: Played) -> None:
    page = open_page("/?board=sprint:current_day", before=played.before)
    expect(page.locator("#list .row")).to_have_count(4)
    played.rolls("sprint:current_day", TOMORROW, NEXT_DAY, [])
    expect(page.locator("#clock-label")).to_have_text("7 January is final. 8 January has started.")
    expect(page.locator("#empty")).to_contain_text("The first score takes rank 1.")


def test_what_has_ended_can_be_chosen_the_kind_that_was_shown_first(open_page: OpenPage, played: Played) -> None:
    played.ended["sprint"] = ["sprint:week_of_2025_12_29", YESTERDAY, "sprint:season_winter_25"]
    window = {"kind": "day", "starts": "2026-01-05T23:00:00.000Z", "ends": "2026-01-06T23:00:00.000Z"}
    winter = {"kind": "season", "starts": "2025-11-30T23:00:00.000Z", "ends": "2025-12-31T23:00:00.000Z"}
    played.boards[YESTERDAY] = (YESTERDAY, window, laps(60_000))
    played.boards["sprint:season_winter_25"] = ("sprint:season_winter_25", winter, laps(58_000))
    page = open_page("/?board=sprint:current_day", before=played.before)
    expect(page.locator("#list .row")).to_have_count(4)
    page.get_by_role("tab", name="Earlier").click()
    expect(page).to_have_url(re.compile("board=sprint%3Aday_of_2026_01_06"))
    expect(page.locator("#lamp")).to_have_text("Final")
    expect(page.locator("#week option:checked")).to_have_text("6 January")
    expect(page.locator("#week-days")).to_have_text("Tuesday")
    groups = page.locator("#week optgroup").evaluate_all("all => all.map(group => group.label)")
    assert groups == ["Days 2026", "Weeks 2026", "Seasons"]
    page.locator("#week").select_option("sprint:season_winter_25")
    expect(page.locator("#week-days")).to_have_text(re.compile("^1 . 31 December 2025$"))
    expect(page.locator("#list .row .score")).to_have_text("0:58.000")


def test_a_board_that_ended_long_ago_is_final_as_soon_as_it_says_when(open_page: OpenPage, played: Played) -> None:
    window = {"kind": "day", "starts": "2026-01-05T23:00:00.000Z", "ends": "2026-01-06T23:00:00.000Z"}
    played.boards[YESTERDAY] = (YESTERDAY, window, [])
    page = open_page(f"/?board={YESTERDAY}&me=1", before=played.before)
    expect(page.locator("#empty")).to_contain_text("Nobody scored on this day")
    expect(page.locator("#lamp")).to_have_text("Final")
    expect(page.locator(".me-far")).to_have_text("No score on this day")


@pytest.mark.parametrize(
    ("board", "refusal", "words"),
    [
        ("sprint:current_season", None, "No season is running Season spring 26 begins on 1 March 2026."),
        ("nothing:all_time", ("unknown_board", "There is no leaderboard 'nothing' here."), "There is no leaderboard"),
        ("sprint:day_of_2027_01_01", ("unknown_board", "That day has not begun."), "That day has not begun."),
        ("sprint:current_week", ("unauthorized", "x"), "This board is private. Sign in to see it."),
    ],
)
def test_a_board_without_anything_says_why(
    open_page: OpenPage, played: Played, board: str, refusal: tuple[str, str] | None, words: str
) -> None:
    if refusal:
        played.refused[board] = refusal
    page = open_page(f"/?board={board}", before=played.before)
    expect(page.locator("#empty")).to_have_text(re.compile(re.escape(words).replace("\\ ", r"\s*")))


def test_standings_that_are_being_made_say_how_far_they_are_and_come(open_page: OpenPage, played: Played) -> None:
    played.state["sprint"] = ("building", 0.42)
    played.refused["sprint:current_week"] = ("unavailable", "It is being made.")
    page = open_page("/?board=sprint:current_week", before=played.before)
    expect(page.locator("#empty")).to_contain_text("Every score on record is being counted: 42 %.")
    played.state["sprint"] = ("building", 0.9)
    expect(page.locator("#empty")).to_contain_text("90 %.")
    played.boards["sprint:current_week"] = ("sprint:week_of_2026_01_05", {**NEXT_DAY, "kind": "week"}, laps(60_000))
    played.state["sprint"] = ("live", 1.0)
    expect(page.locator("#list .row .score")).to_have_text("1:00.000")


def test_a_leaderboard_whose_rule_changes_is_shown_anew(open_page: OpenPage, played: Played) -> None:
    page = open_page("/?board=sprint:current_day", before=played.before)
    expect(page.locator("#list .row")).to_have_count(4)
    played.definitions["sprint"] |= {
        "title": "Longest",
        "order": "descending",
        "format": {"kind": "duration", "unit": "s"},
    }
    played.boards["sprint:current_day"] = (TODAY, played.boards["sprint:current_day"][1], laps(150, 61))
    played.show("sprint:current_day")
    expect(page.locator("#list .row")).to_have_count(2)
    assert shown(page) == [["Driver 1", "2:30"], ["Driver 2", "1:01"]]
    expect(page.get_by_role("heading", level=1)).to_have_text("Longest")
    expect(page.locator("#leaderboard option:checked")).to_have_text("Longest")


def test_one_that_is_removed_is_gone(open_page: OpenPage, played: Played) -> None:
    page = open_page("/?board=sprint:current_day", before=played.before)
    expect(page.locator("#list .row")).to_have_count(4)
    del played.boards["sprint:current_day"]
    played.say("unsubscribed", board=TODAY, **{"as": "sprint:current_day"})
    expect(page.locator("#empty")).to_contain_text("There is no such board.")
    expect(page.locator("#list .row")).to_have_count(0)


def test_an_overlay_of_any_window(open_page: OpenPage, played: Played) -> None:
    size = {"width": 400, "height": 600}
    page = open_page("/overlay?board=sprint:current_day", viewport=size, before=played.before)
    expect(page.locator("#title")).to_have_text("Sprint, any % · Today")
    expect(page.locator("#clock")).to_have_text(re.compile(r"^(11:00:00|10:59:\d\d)$"))
    assert shown(page)[1] == ["Driver 2", "1:02.345"]
    expect(page.locator(".meta").first).to_be_hidden()
    played.rolls("sprint:current_day", TOMORROW, NEXT_DAY, laps(60_500))
    expect(page.locator("#list .score")).to_have_text("1:00.500")


def test_an_overlay_keeps_the_last_season_until_the_next_begins(open_page: OpenPage, played: Played) -> None:
    winter = {"kind": "season", "starts": "2025-11-30T23:00:00.000Z", "ends": NOW}
    played.boards["sprint:current_season"] = ("sprint:season_winter_25", winter, laps(58_000))
    page = open_page("/overlay?board=sprint:current_season", before=played.before)
    expect(page.locator("#list .score")).to_have_text("0:58.000")
    played.rolls("sprint:current_season", None, {}, [])
    page.wait_for_timeout(300)
    expect(page.locator("#list .score")).to_have_text("0:58.000")
    spring = {"kind": "season", "starts": NOW, "ends": "2026-05-31T22:00:00.000Z"}
    played.rolls("sprint:current_season", "sprint:season_spring_26", spring, laps(70_000))
    expect(page.locator("#list .score")).to_have_text("1:10.000")


def test_the_setup_page_offers_every_leaderboard_and_window(
    open_page: OpenPage, server: Server, played: Played
) -> None:
    played.ended["sprint"] = [YESTERDAY]
    page = open_page("/overlay/setup", before=played.before)
    board = page.locator("#board")
    expect(board.locator("optgroup")).to_have_count(5)
    board.select_option("sprint:current_day")
    expect(page.locator("#address")).to_have_value(f"{server.url}/overlay?board=sprint%3Acurrent_day")
    expect(page.get_by_label(re.compile("Countdown to the day"))).to_be_visible()
    expect(board.locator(f"option[value='{YESTERDAY}']")).to_have_text("6 January 2026")
    preview = page.frame_locator("#frame")
    expect(preview.locator("#title")).to_have_text(re.compile(r"^(Sprint, any %|Sprint|sprint) · Today$"))
    expect(board.locator("option:checked")).to_have_text("Sprint, any % · Today")
    board.select_option("purse:previous_month")
    expect(board.locator("option:checked")).to_have_text("Purse · Last month")
    expect(board.locator("option[value='sprint:current_day']")).to_have_text("Today")
    expect(page.locator("#address")).to_have_value(f"{server.url}/overlay?board=purse%3Aprevious_month")


def test_the_element_shows_any_board(open_page: OpenPage, server: Server, played: Played, host: Host) -> None:
    page = open_page(host(tag(server, 'board="sprint:current_day" top="3"')), before=played.before)
    expect(page.locator("live-leaderboard .row")).to_have_count(3)
    expect(page.locator("live-leaderboard .title")).to_have_text("Sprint, any % · Today")
    expect(page.locator("live-leaderboard .score").first).to_contain_text("1:01.000")
    expect(page.locator("live-leaderboard .meta").first).to_have_text("car gt1")
    page.evaluate("document.querySelector('live-leaderboard').setAttribute('board', 'sprint:current_season')")
    expect(page.locator("live-leaderboard .empty")).to_have_text("No season is running.")


def signed_in(open_page: OpenPage, played: Played, more: Callable[[Page], None] = lambda page: None) -> Page:
    held = "localStorage.setItem('realtime.session', JSON.stringify({token: 't', user_id: 1, username: 'Ann'}))"

    def before(page: Page) -> None:
        page.add_init_script(held)
        played.before(page)
        page.route("**/boards/**", lambda route: route.fulfill(status=404, json={"error": {"code": "unknown_user"}}))
        more(page)

    return open_page("/play", viewport=PHONE, before=before)


def handed_in(page: Page, played: Played, button: str) -> dict[str, Any]:
    before = len([message for message in played.heard if message["type"] == "submit"])
    page.get_by_role("button", name=button, exact=True).click()
    expect(page.locator("#log li").first).to_be_visible()
    page.wait_for_timeout(100)
    submitted = [message for message in played.heard if message["type"] == "submit"]
    assert len(submitted) == before + 1
    return submitted[-1]


def test_playing_on_any_open_leaderboard(open_page: OpenPage, played: Played) -> None:
    page = signed_in(open_page, played)
    choice = page.get_by_label("Leaderboard", exact=True)
    expect(choice.locator("option")).to_have_text(["Points", "Sprint, any %", "Wins", "Purse"])

    choice.select_option("sprint")
    expect(page.locator("#points-hint")).to_have_text("Minutes and seconds, like 1:02.345.")
    for typed, words in (
        ("soon", "This is no score"),
        ("0.5", "The least that counts is 0:01.000."),
        ("2:00:00", "The most"),
    ):
        page.get_by_label("Time", exact=True).fill(typed)
        page.get_by_role("button", name="Hand in").click()
        assert page.locator("#points").evaluate("input => input.validationMessage").startswith(words)
    page.get_by_label("Time", exact=True).fill("1:01.2")
    sent = handed_in(page, played, "Hand in")
    assert (sent["leaderboard"], sent["score"], "score_added" in sent) == ("sprint", 61_200, False)
    said = {"submission_id": sent["submission_id"], "user_id": 1, "leaderboard": "sprint", "duplicate": False}
    played.say("accepted", **said, scores={"sprint:all_time": 59_120}, improved=False)
    expect(page.locator("#log .state").first).to_have_text("Recorded. Your best stays.")
    expect(page.locator("#total-score")).to_have_text("0:59.120")

    choice.select_option("wins")
    expect(page.locator("#points")).to_be_hidden()
    sent = handed_in(page, played, "Add one")
    assert {"score", "score_added"}.isdisjoint(sent) and sent["leaderboard"] == "wins"

    choice.select_option("purse")
    page.get_by_label("Score", exact=True).fill("12.5")
    sent = handed_in(page, played, "Add")
    assert (sent["leaderboard"], sent["score_added"]) == ("purse", 1_250)
    expect(page.locator("#log .num").first).to_have_text("+12.50")

    choice.select_option("default")
    sent = handed_in(page, played, "Add points")
    assert sent["score_added"] == 100 and "leaderboard" not in sent


def test_a_list_that_comes_after_the_session_has_ended_is_nobody_s(open_page: OpenPage, played: Played) -> None:
    asked: list[Route] = []
    page = signed_in(open_page, played, lambda page: page.route("**/leaderboards", lambda route: asked.append(route)))
    expect(page.locator("#me-name")).to_have_text("Ann")
    page.wait_for_function("() => document.querySelector('#lamp').textContent.trim() === 'Live'")
    played.say("error", code="expired", message="Sign in again.")
    expect(page.locator("#signed-out")).to_be_visible()
    asked[0].fulfill(json={"leaderboards": [played.listed("default"), played.listed("sprint")]})
    page.wait_for_timeout(200)
    expect(page.locator("#signed-out")).to_be_visible()


def test_where_only_the_game_hands_in_the_page_says_so(open_page: OpenPage, played: Played) -> None:
    played.definitions["default"] |= {"submit": "servers"}
    played.definitions = {slug: played.definitions[slug] for slug in ("default", "judged")}
    page = signed_in(open_page, played)
    expect(page.locator("#closed")).to_have_text("Scores are handed in by the game here, not on this page.")
    expect(page.locator("#add")).to_be_hidden()
