"""Pages where boards are private: whoever signed in sees them, an overlay by its token, nobody else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import Host, OpenPage, Server
from tests.browser.looking import expect_rows
from tests.browser.test_element import tag
from tests.browser.test_play import register
from tests.support.processes import free_port

TRUSTED = free_port()
"""Where a page of another origin lies that the server trusts."""

NAMES = [f"Player {number:03}" for number in range(1, 102)]


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory, chromium: Browser) -> Iterator[Server]:
    """A server of private boards with 101 players."""
    made = Server(tmp_path_factory.mktemp("private") / "data", REALTIME_BOARDS="private", REALTIME_ORIGINS=f"http://localhost:{TRUSTED}")
    made.score({user: 5_000 - at for at, user in enumerate(made.make_users(NAMES))})
    yield made
    made.stop()


def test_whoever_is_signed_in_sees_boards_and_their_own_place(open_page: OpenPage, private: Server) -> None:
    page = open_page(private.url)
    expect(page.locator("#empty")).to_contain_text("This board is private. Sign in to see it.")
    page.goto(f"{private.url}/play")
    register(page, "Newcomer")
    page.locator("#points").fill("5")
    page.get_by_role("button", name="Add points").click()
    expect(page.locator("#total-score")).to_have_text("5")
    page.reload()
    expect(page.locator("#total-score")).to_have_text("5")
    page.get_by_role("link", name="See yourself on the board").click()
    expect(page.locator("#count")).to_have_text("102 players")
    expect(page.locator(".me-name")).to_have_text("Newcomer")
    page.locator("#player").fill("player 101")
    page.get_by_role("button", name="Find", exact=True).click()
    expect(page.locator("#result")).to_contain_text("Player 101 is rank 101, outside the top 100.")


def test_where_nobody_may_register_or_look_the_page_offers_neither(
    open_page: OpenPage, tmp_path_factory: pytest.TempPathFactory, chromium: Browser
) -> None:
    folder = tmp_path_factory.mktemp("closed") / "data"
    closed = Server(folder, REALTIME_BOARDS="private", REALTIME_REGISTRATION="closed")
    try:
        page = open_page(f"{closed.url}/play")
        expect(page.get_by_role("button", name="Sign in")).to_be_visible()
        expect(page.locator("#tab-join")).to_be_hidden()
        page.goto(closed.url)
        expect(page.locator("#lamp")).to_have_text("Private")
        expect(page.locator("#podium")).to_be_hidden()
    finally:
        closed.stop()


def test_an_overlay_shows_by_its_token_whom_it_follows_further_down(open_page: OpenPage, private: Server) -> None:
    token = private.token("--scope", "read", "--board", "all_time")
    user = private.make_users(["Far down"])[0]
    private.score({user: 1})
    page = open_page(f"{private.url}/overlay?board=all_time&top=3&user={user}#token={token}")
    expect(page.locator("#list .row").last).to_contain_text("Far down")
    expect_rows(page, [(1, NAMES[0], 5_000), (2, NAMES[1], 4_999), private.board("all_time?limit=1000")[-1]])


def test_the_setup_page_says_that_the_address_needs_a_token(open_page: OpenPage, private: Server) -> None:
    page = open_page(f"{private.url}/overlay/setup")
    expect(page.locator("#private")).to_be_visible()


def test_an_element_elsewhere_shows_a_private_board_by_its_token(
    open_page: OpenPage, private: Server, host: Host
) -> None:
    said: list[str] = []
    html = tag(private, 'top="2"')
    page = open_page(host(html), before=lambda page: page.on("console", lambda message: said.append(message.text)))
    expect(page.locator("live-leaderboard .empty")).to_have_text("This board is private.")
    expect(page.locator("live-leaderboard .status")).to_have_text("Private")
    assert any("give the element a token" in line for line in said)
    token = private.token("--scope", "read")
    with page.expect_console_message(lambda message: "REALTIME_ORIGINS" in message.text):
        page.evaluate("token => { document.querySelector('live-leaderboard').token = token }", token)
    assert not any(token in line for line in said)
    page.goto(host(html, port=TRUSTED))
    page.evaluate("token => { document.querySelector('live-leaderboard').token = token }", token)
    expect(page.locator("live-leaderboard .row")).to_have_count(2)
    expect(page.locator("live-leaderboard .status")).to_have_text("Live")
    page.evaluate("""token => { const board = document.querySelector('live-leaderboard');
        board.token = null; board.getToken = async () => token; board.user = 'Player 101'; }""", token)
    expect(page.locator("live-leaderboard .pinned bdi")).to_have_text("Player 101")
