"""The page where a player registers, signs in and scores over the socket."""

from __future__ import annotations

import re
import secrets

import pytest
from playwright.sync_api import Page, Route, WebSocketRoute, expect

from tests.browser.conftest import PHONE, OpenPage, Server

PASSWORD = "correct horse battery"


def register(page: Page, name: str) -> str:
    """Registers a new player; answers the address used."""
    email = f"{secrets.token_hex(6)}@example.com"
    page.locator("#username").fill(name)
    page.locator("#email").fill(email)
    page.locator("#password").fill(PASSWORD)
    page.get_by_role("button", name="Start playing").click()
    expect(page.locator("#me-name")).to_have_text(name)
    expect(page.locator("#lamp")).to_have_text("Live")
    return email


def test_register_score_and_be_counted(open_page: OpenPage, server: Server) -> None:
    page = open_page("/play", viewport=PHONE)
    register(page, "New <i>Player</i>")
    page.locator("#points").fill("250")
    page.locator("#reason").fill("Won a match")
    page.get_by_role("button", name="Add points").click()
    line = page.locator("#log li").first
    expect(line.locator(".state")).to_have_text(re.compile(r"^Counted"))
    expect(line.locator(".why")).to_have_text("Won a match")
    expect(page.locator("#week-score")).to_have_text("250")
    expect(page.locator("#total-score")).to_have_text("250")
    assert any(name == "New <i>Player</i>" and score == 250 for _, name, score in everyone(server))


def everyone(server: Server) -> list[tuple[int, str, int]]:
    """The first thousand of this week."""
    return server.board("current_week?limit=1000")


def test_where_many_sign_in_at_once_it_asks_again_by_itself(open_page: OpenPage, server: Server) -> None:
    asked = []

    def crowded(route: Route) -> None:
        asked.append(route.request.url)
        if len(asked) > 2:
            return route.continue_()
        error = {"code": "overloaded", "message": "Too many people sign in.", "retry_after_ms": 20}
        return route.fulfill(status=503, json={"error": error})

    page = open_page("/play", before=lambda page: page.route("**/sessions", crowded))
    register(page, "Patient")
    assert len(asked) == 3


def test_a_refusal_says_why(open_page: OpenPage, server: Server) -> None:
    page = open_page("/play")
    email = register(page, "Twice")
    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("tab", name="Sign in").click()
    page.locator("#email").fill(email)
    page.locator("#password").fill("not the password")
    page.locator("#enter").click()
    expect(page.locator("#refusal")).to_be_visible()
    page.locator("#password").fill(PASSWORD)
    page.locator("#enter").click()
    expect(page.locator("#me-name")).to_have_text("Twice")


def test_the_session_lasts_over_a_reload_and_the_board_knows_who_i_am(open_page: OpenPage, server: Server) -> None:
    page = open_page("/play")
    register(page, "Stays")
    page.get_by_role("button", name="Add points").click()
    expect(page.locator("#log .state").first).to_have_text(re.compile("^Counted"))
    page.reload()
    expect(page.locator("#me-name")).to_have_text("Stays")
    page.get_by_role("link", name="See yourself on the board").click()
    expect(page.locator(".me-name")).to_have_text("Stays")


def test_a_computer_with_a_wrong_clock_stays_signed_in(open_page: OpenPage, server: Server) -> None:
    page = open_page("/play", before=lambda page: page.clock.install(time="2040-01-01T00:00:00Z"))
    register(page, "Early Bird")
    page.reload()
    expect(page.locator("#me-name")).to_have_text("Early Bird")


@pytest.mark.parametrize("path", ["/?board=all_time", "/play"])
def test_a_session_that_the_server_has_ended_is_over(open_page: OpenPage, server: Server, path: str) -> None:
    page = open_page("/play")
    token = server.token("--user-id", "1", "--scope", "submit", "--lifetime", "1")
    held = {"token": token, "user_id": 1, "username": "A"}
    page.evaluate("held => localStorage.setItem('realtime.session', JSON.stringify(held))", held)
    page.wait_for_timeout(1_500)
    page.goto(server.url + path)
    expect(page.locator("#signed-out" if path == "/play" else "#sign-in")).to_be_visible()
    assert page.evaluate("localStorage.getItem('realtime.session')") is None


def test_points_added_while_the_line_is_down_wait_and_count_once(open_page: OpenPage, server: Server) -> None:
    lines: list[WebSocketRoute] = []
    cut = False

    def answer(line: WebSocketRoute) -> None:
        if cut:
            line.close(code=1001)
            return
        lines.append(line)
        line.connect_to_server()

    page = open_page("/play", before=lambda page: page.route_web_socket("**/ws", answer))
    register(page, "Patient")
    cut = True
    lines[-1].close(code=1001)
    expect(page.locator("#lamp")).not_to_have_text("Live")
    for points in ("10", "20"):
        page.locator("#points").fill(points)
        page.get_by_role("button", name="Add points").click()
    expect(page.locator("#log .state").first).to_have_text("Waiting for the connection")
    cut = False
    page.evaluate("dispatchEvent(new Event('online'))")
    expect(page.locator("#log .counted")).to_have_count(2)
    assert [score for _, name, score in everyone(server) if name == "Patient"] == [30]


def test_no_token_in_any_address(open_page: OpenPage, server: Server) -> None:
    addresses: list[str] = []

    def before(page: Page) -> None:
        page.on("request", lambda request: addresses.append(request.url))
        page.on("websocket", lambda line: addresses.append(line.url))

    page = open_page("/play", before=before)
    register(page, "Careful")
    token = page.evaluate("JSON.parse(localStorage.getItem('realtime.session')).token")
    assert token
    assert not any(token in address or "token=" in address for address in addresses)
