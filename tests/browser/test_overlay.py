"""The stream overlay: over any picture, for hours, with nobody there to reload it."""

from __future__ import annotations

import json
import random
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, WebSocketRoute, expect

from tests.browser.conftest import Cast, Host, OpenPage, Program, Server
from tests.browser.looking import expect_rows, pixels, rows

OBS_SIZE = {"width": 400, "height": 600}
OBS_CSS = "body { background-color: rgba(0, 0, 0, 0); margin: 0px auto; overflow: hidden; }"
# How streaming programs put their user's style sheet into a page, from old to new.
INJECTIONS = {
    "link": """css => { const link = document.createElement('link'); link.rel = 'stylesheet';
        link.href = 'data:text/css;charset=utf-8;base64,' + btoa(css); document.head.appendChild(link); }""",
    "markup": """css => { const style = document.createElement('style');
        style.innerHTML = css; document.querySelector('head').appendChild(style); }""",
    "text": """css => { const style = document.createElement('style');
        style.appendChild(document.createTextNode(css)); document.querySelector('head').appendChild(style); }""",
}
DOT = "data:image/svg+xml,<svg/>"
RESTARTS = 5


def alpha_at(png: bytes, x: int, y: int) -> int:
    """The alpha value of one pixel."""
    lines, size = pixels(png)
    assert size == 4, "a picture with alpha"
    return lines[y][x * 4 + 3]


def test_ten_rows_fill_obs_exactly_and_the_rest_is_transparent(open_page: OpenPage, server: Server, cast: Cast) -> None:
    page = open_page("/overlay", viewport=OBS_SIZE)
    expect_rows(page, server.board()[:10])
    page.evaluate(INJECTIONS["text"], OBS_CSS)
    last = page.locator(".row").last.bounding_box()
    assert last and last["y"] + last["height"] == 592, "8 pixels stay free at the bottom"
    assert page.evaluate("document.documentElement.scrollHeight") == 600
    picture = page.screenshot(omit_background=True)
    assert alpha_at(picture, 2, 2) == 0
    assert alpha_at(picture, 200, 76) > 220


@pytest.mark.parametrize("how", INJECTIONS)
def test_the_streamers_own_style_sheet_counts(open_page: OpenPage, server: Server, cast: Cast, how: str) -> None:
    page = open_page("/overlay", viewport=OBS_SIZE)
    expect_rows(page, server.board()[:10])
    page.evaluate(INJECTIONS[how], f".row {{ opacity: .5; border-image: url({DOT}) 1 }} #title {{ color: #123456 }}")
    expect(page.locator(".row").first).to_have_css("opacity", "0.5")
    expect(page.locator("#title")).to_have_css("color", "rgb(18, 52, 86)")


@pytest.mark.parametrize("path", ["/", "/play", "/overlay/setup", "/docs/"])
def test_no_other_page_takes_a_style_sheet_from_outside(chromium: Browser, server: Server, path: str) -> None:
    page = chromium.new_page()
    page.goto(server.url + path)
    for how in ("link", "text"):
        page.evaluate(INJECTIONS[how], "body { opacity: .5 }")
    page.wait_for_timeout(200)
    assert page.evaluate("getComputedStyle(document.body).opacity") == "1"
    page.close()


def test_an_isolated_page_may_frame_it(open_page: OpenPage, server: Server, cast: Cast, host: Host) -> None:
    isolated = {"cross-origin-embedder-policy": "require-corp", "cross-origin-opener-policy": "same-origin"}
    page = open_page(host(f'<iframe src="{server.url}/overlay" width="400" height="600"></iframe>', isolated))
    assert page.evaluate("crossOriginIsolated")
    expect(page.frame_locator("iframe").locator(".row")).to_have_count(10)


def test_setting_the_clock_of_the_computer_leaves_the_countdown_alone(open_page: OpenPage) -> None:
    weeks = PlayedWeeks("week_of_2026_01_05")

    def before(page: Page) -> None:
        page.route_web_socket("**/ws", weeks)
        page.clock.install(time="2026-01-11T20:00:00Z")  # four hours slow

    page = open_page("/overlay", viewport=OBS_SIZE, before=before)
    page.clock.run_for(1_000)
    expect(page.locator("#clock")).to_have_text(re.compile("^00:00:[23]"))
    page.clock.set_system_time("2026-01-12T08:00:00Z")
    page.clock.run_for(2_000)
    expect(page.locator("#clock")).to_have_text(re.compile("^00:00:2"))


def test_everything_in_the_address_is_obeyed(open_page: OpenPage, server: Server, cast: Cast) -> None:
    query = "?board=all_time&top=4&theme=paper&title=Finals&scale=1.5&clock=0"
    page = open_page("/overlay" + query, viewport={"width": 600, "height": 500})
    expect_rows(page, server.board("all_time")[:4])
    expect(page.locator("#title")).to_have_text("Finals")
    expect(page.locator("#clock")).to_be_empty()
    expect(page.locator("html")).to_have_attribute("data-theme", "paper")
    height = page.locator(".row").first.evaluate("row => row.offsetHeight")
    assert height == 75


@pytest.mark.parametrize(
    "query",
    [
        "?top=0&scale=9&theme=pink&shape=round&board=<b>&clock=yes&user=-1",
        "?top=abc&scale=&title=%00&board=../../x&user=1e99",
        "?top=1e1000&motion=2&status=2",
    ],
)
def test_what_is_invalid_falls_to_its_default(open_page: OpenPage, server: Server, cast: Cast, query: str) -> None:
    page = open_page("/overlay" + query, viewport=OBS_SIZE)
    expect_rows(page, server.board()[:10])
    expect(page.locator("html")).to_have_attribute("data-theme", "board")


def test_without_a_title_there_is_no_header(open_page: OpenPage, server: Server, cast: Cast) -> None:
    page = open_page("/overlay?title=&top=3", viewport={"width": 400, "height": 174})
    expect_rows(page, server.board()[:3])
    expect(page.locator("#header")).to_be_hidden()
    last = page.locator(".row").last.bounding_box()
    assert last and last["y"] + last["height"] <= 174


def test_a_strip_stands_in_one_line(open_page: OpenPage, server: Server, cast: Cast) -> None:
    page = open_page("/overlay?shape=strip", viewport={"width": 1280, "height": 88})
    expect_rows(page, server.board()[:5])
    boxes = [row.bounding_box() for row in page.locator(".row").all()]
    assert len({box["y"] for box in boxes if box}) == 1
    assert all(box and box["width"] >= 200 and box["x"] + box["width"] <= 1280 for box in boxes)


def test_one_who_climbs_into_the_rows_is_not_new(open_page: OpenPage, server: Server, cast: Cast) -> None:
    page = open_page("/overlay", viewport=OBS_SIZE)
    expect_rows(page, server.board()[:10])
    climber = cast.climb(server, 25, 5)
    expect(page.locator(f".row[data-user='{climber}'] .change")).to_have_text("up 20")


def test_a_highlighted_player_further_down_takes_the_last_row(open_page: OpenPage, server: Server, cast: Cast) -> None:
    page = open_page(f"/overlay?user={cast.ids[70]}", viewport=OBS_SIZE)
    board = server.board()
    (their,) = [row for row in board if row[1] == cast.names[70]]
    expect_rows(page, [*board[:9], their])
    expect(page.locator(".row").last).to_have_class(re.compile(r"\bme\b"))


def test_a_player_is_highlighted_by_name_and_the_console_says_why_nothing_is_there(
    open_page: OpenPage, server: Server, cast: Cast
) -> None:
    name = server.board("all_time")[49][1]
    page = open_page(f"/overlay?board=all_time&top=3&user={name.lower()}")
    expect(page.locator("#list .row").last).to_contain_text(name)
    said: list[str] = []
    page = open_page(
        "/overlay?board=nothing:current_day",
        before=lambda page: page.on("console", lambda message: said.append(message.text)),
    )
    page.wait_for_function("performance.getEntriesByType('resource').length > 5")
    page.wait_for_timeout(500)
    assert any("nothing:current_day" in line for line in said), said


def test_while_the_line_is_down_the_last_board_stays(open_page: OpenPage, server: Server, cast: Cast) -> None:
    lines: list[WebSocketRoute] = []
    cut = False

    def answer(line: WebSocketRoute) -> None:
        if cut:
            line.close(code=1001)
            return
        lines.append(line)
        line.connect_to_server()

    def before(page: Page) -> None:
        page.route_web_socket("**/ws", answer)
        page.clock.install()

    page = open_page("/overlay?status=1", viewport=OBS_SIZE, before=before)
    expect_rows(page, shown := server.board()[:10])
    cut = True
    lines[-1].close(code=1001)
    page.clock.run_for(10_000)
    assert rows(page) == shown
    expect(page.locator("#clock")).not_to_have_text("Paused")
    page.clock.run_for(12_000)
    expect(page.locator("#clock")).to_have_text("Paused")
    assert rows(page) == shown
    cut = False
    server.score({cast.ids[1]: 11})
    page.clock.resume()  # the network does not know the played time
    page.evaluate("dispatchEvent(new Event('online'))")
    expect_rows(page, server.board()[:10])
    expect(page.locator("#clock")).not_to_have_text("Paused")


def test_hidden_in_obs_it_rests_and_then_shows_where_things_are(
    open_page: OpenPage, server: Server, cast: Cast
) -> None:
    page = open_page("/overlay", viewport=OBS_SIZE)
    expect_rows(page, before := server.board()[:10])
    page.evaluate("dispatchEvent(new CustomEvent('obsSourceVisibleChanged', {detail: {visible: false}}))")
    cast.climb(server, 8, 4)
    page.wait_for_timeout(600)
    assert rows(page) == before
    page.evaluate("dispatchEvent(new CustomEvent('obsSourceVisibleChanged', {detail: {visible: true}}))")
    expect_rows(page, server.board()[:10])
    assert page.evaluate("document.querySelector('#list').getAnimations({subtree: true}).length") == 0


def test_a_token_in_the_fragment_goes_into_a_message(open_page: OpenPage, server: Server, cast: Cast) -> None:
    sent: list[str] = []
    requested: list[str] = []

    def before(page: Page) -> None:
        page.on("websocket", lambda line: line.on("framesent", lambda frame: sent.append(str(frame))))
        page.on("request", lambda request: requested.append(request.url + str(request.headers)))

    page = open_page("/overlay#token=abc.def.ghi", viewport=OBS_SIZE, before=before)
    expect_rows(page, server.board()[:10])
    assert any('"auth"' in frame and "abc.def.ghi" in frame for frame in sent)
    assert not any("abc.def.ghi" in line for line in requested)


class PlayedWeeks:
    """The server's part of a week's end: says on each new line which week `current_week` is by now, and its board."""

    def __init__(self, week: str) -> None:
        self.week = week
        self.entries: list[dict[str, Any]] = []
        self.version = 0
        self.told: dict[str, str] = {}  # what a pong says beside
        self.line: WebSocketRoute | None = None

    def say(self, **message: Any) -> None:
        assert self.line is not None
        self.line.send(json.dumps(message))

    def snapshot(self) -> None:
        self.say(type="snapshot", board=self.week, epoch="x", version=self.version, entries=self.entries)

    def score(self, user: int, name: str, score: int) -> None:
        """The first score of somebody on this week's board."""
        added = [{"user_id": user, "username": name, "score": score}]
        self.entries += added
        self.version += 1
        versions = {"from": self.version - 1, "version": self.version}
        self.say(type="diff", board=self.week, epoch="x", upsert=added, remove=[], **versions)

    def end(self, following: str) -> str:
        """The next week has begun; answers which has ended. Nobody is told yet."""
        ended, self.week = self.week, following
        self.entries, self.version = [], 0
        return ended

    def __call__(self, line: WebSocketRoute) -> None:
        self.line = line

        def answer(message: str | bytes) -> None:
            asked = json.loads(message)
            if asked["type"] == "ping":
                self.say(type="pong", **self.told)
            if asked["type"] == "subscribe":
                self.say(type="subscribed", board=self.week, resumed=False, **{"as": asked["board"]})
                self.snapshot()

        line.on_message(answer)
        self.say(type="hello", protocol=1, now="2026-01-11T23:59:30.000Z")


@pytest.mark.parametrize("theme", ["board", "outline"])
def test_a_strip_shows_a_long_score_to_its_last_digit(open_page: OpenPage, theme: str) -> None:
    weeks = PlayedWeeks("week_of_2026_01_05")
    names = "Somebody with a long name", "Somebody else of whom there is as much to say"
    weeks.entries = [
        {"user_id": at, "username": name, "score": score}
        for at, name, score in [(1, names[0], 2_147_483_647), (2, names[1], 987_654_321)]
    ]
    weeks.entries += [{"user_id": at, "username": "Kim", "score": 1_234 - at} for at in (3, 4, 5)]
    page = open_page(
        f"/overlay?shape=strip&theme={theme}",
        viewport={"width": 1280, "height": 88},
        before=lambda page: page.route_web_socket("**/ws", weeks),
    )
    expect(page.locator(".row")).to_have_count(5)
    for row in page.locator(".row").all():
        cell, score = row.bounding_box(), row.locator(".score").bounding_box()
        assert cell and score
        assert score["x"] + score["width"] <= cell["x"] + cell["width"] <= 1280


def test_a_week_ends_and_the_next_begins_with_nobody_there(open_page: OpenPage) -> None:
    weeks = PlayedWeeks("week_of_2026_01_05")
    page = open_page("/overlay", viewport=OBS_SIZE, before=lambda page: page.route_web_socket("**/ws", weeks))
    expect(page.locator("#title")).to_have_text("Week 2")
    page.evaluate("window.stayed = true")
    weeks.score(7, "Last Week's First", 900)
    expect_rows(page, [(1, "Last Week's First", 900)])

    ended = weeks.end("week_of_2026_01_12")
    weeks.say(type="rollover", to=weeks.week, **{"as": "current_week", "from": ended})
    page.wait_for_timeout(400)  # longer than a beat
    assert rows(page) == [(1, "Last Week's First", 900)], "what stands stays until the new board is there"
    weeks.snapshot()
    expect(page.locator("#title")).to_have_text("Week 3")
    expect_rows(page, [])
    weeks.score(8, "New", 5)
    expect_rows(page, [(1, "New", 5)])

    weeks.end("week_of_2026_01_19")  # this one ends while the line is down
    assert weeks.line is not None
    weeks.line.close(code=1001)
    expect(page.locator("#title")).to_have_text("Week 4")
    expect_rows(page, [])
    weeks.score(9, "Newer", 3)
    expect_rows(page, [(1, "Newer", 3)])
    assert page.evaluate("window.stayed")


@pytest.fixture
def front(server: Server) -> Iterator[Program]:
    """A second server before the same stores, quick to end and to start again."""
    made = Program(server.folder, "serve")
    made.start()
    yield made
    made.stop()


def restart_rounds(page: Page, server: Server, front: Program, cast: Cast, rounds: int, seed: int) -> None:
    """Ends the overlay's server that often at a moment of chance, gently or by force, while scores come in, and starts
    it again; after each, the overlay must show the board without a reload. In every fourth round, the server that has
    just come back ends once more while the overlay is finding it; in every fifth nothing tells the overlay that the
    line is back."""
    chance = random.Random(seed)

    def end() -> None:
        server.score({cast.ids[chance.randrange(12)]: chance.randrange(1, 900)}, settle=False)
        page.wait_for_timeout(chance.uniform(0, 200))
        front.stop(chance.choice([signal.SIGTERM, signal.SIGKILL]))

    page.evaluate("window.stayed = true")
    for number in range(1, rounds + 1):
        end()
        if number % 4 == 0:
            front.start()
            page.evaluate("dispatchEvent(new Event('online'))")
            end()
        server.score({cast.ids[chance.randrange(12)]: chance.randrange(1, 900)})
        front.start()
        if number % 5:
            page.evaluate("dispatchEvent(new Event('online'))")
        expect_rows(page, server.board()[:10], timeout_ms=60_000)
    assert page.evaluate("window.stayed")


def test_the_overlay_survives_restarts_of_the_server(
    open_page: OpenPage, server: Server, front: Program, cast: Cast
) -> None:
    page = open_page(front.url + "/overlay", viewport=OBS_SIZE)
    expect_rows(page, server.board()[:10])
    restart_rounds(page, server, front, cast, RESTARTS, seed=7)


@pytest.mark.long
@pytest.mark.parametrize("part", range(8))
def test_the_overlay_survives_two_hundred_restarts(
    open_page: OpenPage, server: Server, front: Program, cast: Cast, part: int
) -> None:
    page = open_page(front.url + "/overlay", viewport=OBS_SIZE)
    expect_rows(page, server.board()[:10])
    restart_rounds(page, server, front, cast, 25, seed=part)


def test_the_overlay_knows_nothing_newer_than_obs_does() -> None:
    """OBS 30 carries Chromium 103: what came later must not stand in what the overlay loads."""
    web = Path(__file__).parents[2] / "web"
    newer = re.compile(
        r"@container|:has\(|color-mix|&[\s.:#]|\bdvh\b|@layer|\.toSorted\(|\.toReversed\(|\.with\(|withResolvers"
    )
    style = (web / "css/overlay.css").read_text() + (web / "js/view/live-leaderboard-style.js").read_text()
    assert not newer.search(style.replace("&&", ""))
    for name in re.findall(r"static/(js/[\w/-]+\.js)", (web / "overlay.html").read_text()):
        code = (web / name).read_text()
        assert not re.search(
            r"\.toSorted\(|\.toReversed\(|\.with\(|withResolvers|\.groupBy\(|AbortSignal\.any", code
        ), name
