"""A leaderboard of lap times on the real server, from its definition to what players and viewers see."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import PHONE, SCORER, START_S, Host, OpenPage, Server
from tests.browser.test_element import tag
from tests.browser.test_leaderboards import shown
from tests.browser.test_play import register

LAPS: dict[str, Any] = {
    "title": "Fastest lap",
    "operator": "best",
    "order": "ascending",
    "windows": ["all_time", "day"],
    "zone": "Europe/Berlin",
    "ties": "first",
    "format": {"kind": "duration", "unit": "ms"},
    "bounds": {"min": 1_000, "max": 3_600_000},
    "metadata": True,
}


class Track:
    """The server, its drivers, and what they do."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.drivers = server.make_users(["Ann", "Bo", "Cy"])
        headers = {"authorization": f"Bearer {server.token(*SCORER)}"}
        self.http = httpx.Client(base_url=server.url, headers=headers, timeout=20)
        self.define(LAPS)
        self.laps = 0

    def define(self, definition: dict[str, Any]) -> None:
        """Defines `laps`, and waits until it is shown so."""
        self.http.put("/leaderboards/laps", json=definition).raise_for_status()
        deadline = time.monotonic() + START_S
        while self.http.get("/leaderboards/laps").json()["state"] != "live":
            assert time.monotonic() < deadline, "the standings were not made"
            time.sleep(0.05)

    def drive(self, *laps: tuple[int, int, str]) -> None:
        """Drivers by their places in `drivers`, with a time and a car each."""
        for at, score, car in laps:
            self.laps += 1
            lap = {"leaderboard": "laps", "submission_id": f"lap-{self.laps}", "user_id": self.drivers[at]}
            row = [lap | {"score": score, "metadata": {"car": car}}]
            answer = self.http.post("/scores", json=row).raise_for_status().json()
            assert answer["results"][0]["type"] == "accepted", answer


@pytest.fixture(scope="module")
def track(tmp_path_factory: pytest.TempPathFactory, chromium: Browser) -> Iterator[Track]:
    server = Server(tmp_path_factory.mktemp("track") / "data")
    made = Track(server)
    made.drive((0, 62_345, "gt"), (1, 61_000, "f1"), (2, 62_345, "kart"), (1, 70_000, "kart"))
    yield made
    made.http.close()
    server.stop()


def see(page: Page, expected: list[list[str]], within: str = "#list") -> None:
    """Waits until these are the rows."""
    expect(page.locator(f"{within} .row")).to_have_count(len(expected))
    for at, (name, score) in enumerate(expected):
        expect(page.locator(f"{within} .row").nth(at)).to_contain_text(name)
        expect(page.locator(f"{within} .row").nth(at).locator(".score")).to_contain_text(score)
    assert shown(page, within) == expected


FIRST = [["Bo", "1:01.000"], ["Ann", "1:02.345"], ["Cy", "1:02.345"]]


def test_the_board_is_chosen_shown_and_moves(open_page: OpenPage, track: Track) -> None:
    page = open_page(track.server.url, viewport=PHONE)
    expect(page.get_by_role("tab")).to_have_text(["This week", "All time", "Earlier"])
    page.get_by_label("Leaderboard", exact=True).select_option("laps")
    expect(page.get_by_role("tab")).to_have_text(["Today", "All time", "Earlier"])
    see(page, FIRST)
    assert page.locator(".rank").all_text_contents() == ["1", "2", "2"]
    assert page.locator(".meta").all_text_contents() == ["car f1", "car gt", "car kart"]
    expect(page.locator("#clock-label")).to_have_text(re.compile("ends in$"))
    track.drive((2, 60_500, "f1"))
    see(page, [["Cy", "1:00.500"], *FIRST[:2]])


def test_overlay_and_element_show_it(open_page: OpenPage, track: Track, host: Host) -> None:
    overlay = open_page(f"{track.server.url}/overlay?board=laps:all_time")
    expect(overlay.locator("#title")).to_have_text("Fastest lap · All time")
    see(overlay, [["Cy", "1:00.500"], *FIRST[:2]])
    page = open_page(host(tag(track.server, f'board="laps:current_day" top="2" user="{track.drivers[0]}"')))
    expect(page.locator("live-leaderboard .title")).to_have_text("Fastest lap · Today")
    expect(page.locator("live-leaderboard .pinned")).to_contain_text("Ann")


def test_a_player_hands_in_a_lap(open_page: OpenPage, track: Track) -> None:
    page = open_page(f"{track.server.url}/play")
    register(page, "Dee")
    page.get_by_label("Leaderboard", exact=True).select_option("laps")
    page.get_by_label("Time", exact=True).fill("1:00.25")
    page.get_by_role("button", name="Hand in").click()
    expect(page.locator("#log .state").first).to_have_text("Counted, rank 1")
    expect(page.locator("#week-score")).to_have_text("1:00.250")
    page.get_by_label("Time", exact=True).fill("1:30")
    page.get_by_role("button", name="Hand in").click()
    expect(page.locator("#log .state").first).to_have_text("Recorded. Your best stays.")
    page.get_by_role("link", name="See yourself on the board").click()
    expect(page.locator(".me-far")).to_have_text("You lead by 0.250 s")


def test_another_rule_shows_the_same_laps_anew(open_page: OpenPage, track: Track) -> None:
    page = open_page(f"{track.server.url}/?board=laps:all_time&me={track.drivers[1]}")
    expect(page.locator(".me-rank")).to_have_text("3")
    track.define(LAPS | {"title": "Slowest lap", "order": "descending"})
    expect(page.locator("#list .row").first).to_contain_text("1:30.000")
    expect(page.get_by_role("heading", level=1)).to_have_text("Slowest lap")
    expect(page.locator(".me-score")).to_have_text("1:10.000")
