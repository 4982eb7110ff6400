"""The stream overlay: over any picture, for hours, with nobody there to reload it."""

from __future__ import annotations

import random
import re
import signal
from pathlib import Path

import pytest
from playwright.sync_api import Page, WebSocketRoute, expect

from tests.browser.conftest import Cast, OpenPage, Server
from tests.browser.looking import expect_rows, pixels, rows

OBS_SIZE = {"width": 400, "height": 600}
OBS_CSS = "body { background-color: rgba(0, 0, 0, 0); margin: 0px auto; overflow: hidden; }"
RESTARTS = 5


def alpha_at(png: bytes, x: int, y: int) -> int:
    """The alpha value of one pixel."""
    lines, size = pixels(png)
    assert size == 4, "a picture with alpha"
    return lines[y][x * 4 + 3]


def test_ten_rows_fill_obs_exactly_and_the_rest_is_transparent(open_page: OpenPage, server: Server, cast: Cast) -> None:
    page = open_page("/overlay", viewport=OBS_SIZE)
    expect_rows(page, server.board()[:10])
    page.evaluate(
        """css => { const sheet = new CSSStyleSheet(); sheet.replaceSync(css);
        document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet]; }""",
        OBS_CSS,
    )
    last = page.locator(".row").last.bounding_box()
    assert last and last["y"] + last["height"] == 592, "8 pixels stay free at the bottom"
    assert page.evaluate("document.documentElement.scrollHeight") == 600
    picture = page.screenshot(omit_background=True)
    assert alpha_at(picture, 2, 2) == 0
    assert alpha_at(picture, 200, 76) > 220


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


def restart_rounds(page: Page, server: Server, cast: Cast, rounds: int) -> None:
    """Ends the server that often, gently or by force, somewhere between two scores, and starts it again; after each,
    the overlay must show the board without a reload. In every fifth round nothing tells it that the line is back."""
    chance = random.Random(7)
    page.evaluate("window.stayed = true")
    for number in range(rounds):
        server.score({cast.ids[chance.randrange(12)]: 1 + number})
        page.wait_for_timeout(chance.uniform(0, 150))
        server.stop(chance.choice([signal.SIGTERM, signal.SIGKILL]))
        server.start()
        server.score({cast.ids[chance.randrange(12)]: 2 + number})
        if number % 5 != 4:
            page.evaluate("dispatchEvent(new Event('online'))")
        expect_rows(page, server.board()[:10], timeout_ms=60_000)
    assert page.evaluate("window.stayed")


def test_it_survives_restarts_of_the_server(open_page: OpenPage, server: Server, cast: Cast) -> None:
    page = open_page("/overlay", viewport=OBS_SIZE)
    expect_rows(page, server.board()[:10])
    restart_rounds(page, server, cast, RESTARTS)


@pytest.mark.long
def test_it_survives_two_hundred_restarts(open_page: OpenPage, server: Server, cast: Cast) -> None:
    page = open_page("/overlay", viewport=OBS_SIZE)
    expect_rows(page, server.board()[:10])
    restart_rounds(page, server, cast, 200)


def test_it_knows_nothing_newer_than_obs_does() -> None:
    """OBS 30 carries Chromium 103: what came later must not stand in what the overlay loads."""
    web = Path(__file__).parents[2] / "web"
    newer = re.compile(
        r"@container|:has\(|color-mix|&[\s.:#]|\bdvh\b|@layer|\.toSorted\(|\.toReversed\(|\.with\(|withResolvers"
    )
    style = (web / "css/overlay.css").read_text() + (web / "js/live-leaderboard-style.js").read_text()
    assert not newer.search(style.replace("&&", ""))
    for name in re.findall(r"static/(js/[\w-]+\.js)", (web / "overlay.html").read_text()):
        code = (web / name).read_text()
        assert not re.search(
            r"\.toSorted\(|\.toReversed\(|\.with\(|withResolvers|\.groupBy\(|AbortSignal\.any", code
        ), name
