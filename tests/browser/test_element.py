"""<live-leaderboard> on somebody else's page, on another origin, by one script tag."""

from __future__ import annotations

import subprocess

from playwright.sync_api import Page, expect

from tests.browser.conftest import PATIENCE_MS, Cast, Host, OpenPage, Server
from tests.unit.web.test_javascript import NODE
from tests.unit.web.test_modules import WEB


def names(page: Page, within: str = ".rows") -> list[str]:
    return page.locator(f"live-leaderboard {within} bdi").all_inner_texts()


def expect_names(page: Page, expected: list[str]) -> None:
    page.wait_for_function(
        """expected => JSON.stringify([...document.querySelector('live-leaderboard').shadowRoot
            .querySelectorAll('.rows bdi')].map(node => node.textContent)) === JSON.stringify(expected)""",
        arg=expected,
    )


def tag(server: Server, attributes: str) -> str:
    return (
        f'<script type="module" src="{server.url}/static/js/live-leaderboard.js"></script>'
        f"<live-leaderboard {attributes}></live-leaderboard>"
    )


def test_one_script_tag_shows_a_live_board(open_page: OpenPage, server: Server, cast: Cast, host: Host) -> None:
    page = open_page(host(tag(server, 'board="all_time" top="7"')))
    expect_names(page, [name for _, name, _ in server.board("all_time")[:7]])
    expect(page.locator("live-leaderboard .status")).to_have_text("Live")
    board = server.board("all_time")
    server.score({cast.ids[cast.names.index(board[3][1])]: board[0][2] - board[3][2] + 5})
    expect_names(page, [name for _, name, _ in server.board("all_time")[:7]])


def test_attributes_may_change_and_a_burst_is_one_change(
    open_page: OpenPage, server: Server, cast: Cast, host: Host
) -> None:
    page = open_page(host(tag(server, 'top="3"')))
    expect_names(page, [name for _, name, _ in server.board()[:3]])
    sent: list[str] = []
    page.evaluate("""() => { const send = WebSocket.prototype.send; window.sent = [];
        WebSocket.prototype.send = function (text) { window.sent.push(text); return send.call(this, text); }; }""")
    page.evaluate("""() => { const board = document.querySelector('live-leaderboard');
        board.setAttribute('board', 'all_time'); board.setAttribute('top', '5');
        board.setAttribute('heading', 'Ever'); }""")
    expect_names(page, [name for _, name, _ in server.board("all_time")[:5]])
    expect(page.locator("live-leaderboard .title")).to_have_text("Ever")
    sent = page.evaluate("window.sent.filter(text => text.includes('\"subscribe\"'))")
    assert len(sent) == 1


def test_several_on_one_page_share_a_connection(open_page: OpenPage, server: Server, cast: Cast, host: Host) -> None:
    sockets: list[str] = []
    html = tag(server, 'top="3"') + '<live-leaderboard board="all_time" top="2"></live-leaderboard>'
    page = open_page(host(html), before=lambda page: page.on("websocket", lambda line: sockets.append(line.url)))
    expect(page.locator("live-leaderboard >> nth=1").locator(".row")).to_have_count(2)
    assert len(sockets) == 1
    page.evaluate("for (const board of document.querySelectorAll('live-leaderboard')) board.remove()")


def test_the_element_is_styled_from_outside(open_page: OpenPage, server: Server, cast: Cast, host: Host) -> None:
    rules = "live-leaderboard { --ll-ink: rgb(1, 2, 3) } live-leaderboard::part(score) { color: rgb(4, 5, 6) }"
    page = open_page(host(f"<style>{rules}</style>" + tag(server, 'top="2"')))
    expect(page.locator("live-leaderboard .row")).to_have_count(2)
    expect(page.locator("live-leaderboard section")).to_have_css("color", "rgb(1, 2, 3)")
    expect(page.locator("live-leaderboard .score").first).to_have_css("color", "rgb(4, 5, 6)")


def test_a_followed_player_out_of_sight_is_pinned_below(
    open_page: OpenPage, server: Server, cast: Cast, host: Host
) -> None:
    page = open_page(host(tag(server, f'top="5" user="{cast.ids[80]}"')))
    expect(page.locator("live-leaderboard .pinned bdi")).to_have_text(cast.names[80])
    assert cast.names[80] not in names(page)


def test_markup_in_a_name_is_text(open_page: OpenPage, server: Server, cast: Cast, host: Host) -> None:
    page = open_page(host(tag(server, 'top="100"')))
    expect(page.locator("live-leaderboard .row")).to_have_count(100)
    assert page.locator("live-leaderboard img").count() == 0


def test_narrow_it_leaves_the_gain_out(open_page: OpenPage, server: Server, cast: Cast, host: Host) -> None:
    page = open_page(host(f"<div style='width: 320px'>{tag(server, 'top=3')}</div>"))
    expect(page.locator("live-leaderboard .row")).to_have_count(3)
    _, name, _ = server.board()[1]
    server.score({cast.ids[cast.names.index(name)]: 1})
    expect(page.locator("live-leaderboard .gain")).to_have_text("+1")
    expect(page.locator("live-leaderboard .gain")).to_have_css("display", "none")


def test_an_isolated_page_may_show_it(open_page: OpenPage, server: Server, cast: Cast, host: Host) -> None:
    isolated = {"cross-origin-embedder-policy": "require-corp", "cross-origin-opener-policy": "same-origin"}
    page = open_page(host(tag(server, f'board="all_time" top="5" user="{cast.ids[80]}"'), isolated))
    assert page.evaluate("crossOriginIsolated")
    expect_names(page, [name for _, name, _ in server.board("all_time")[:5]])
    expect(page.locator("live-leaderboard .pinned bdi")).to_have_text(cast.names[80])


def test_properties_reflect_and_a_wrong_value_is_told_once(
    open_page: OpenPage, server: Server, cast: Cast, host: Host
) -> None:
    said: list[str] = []
    page = open_page(
        host(tag(server, 'top="many" theme="blue"')),
        before=lambda page: page.on("console", lambda message: said.append(message.text)),
    )
    expect(page.locator("live-leaderboard .row")).to_have_count(10)
    told = [line for line in said if "live-leaderboard" in line]
    assert told == [
        '<live-leaderboard theme="blue">: must be one of light, dark, auto.',
        '<live-leaderboard top="many">: must be a whole number from 1 to 100.',
    ]
    page.evaluate("""() => Object.assign(document.querySelector('live-leaderboard'),
        { board: 'all_time', top: 4, heading: '', user: 7, theme: 'dark', token: null })""")
    expect_names(page, [name for _, name, _ in server.board("all_time")[:4]])
    attributes = page.evaluate("""() => { const board = document.querySelector('live-leaderboard');
        return Object.fromEntries(board.getAttributeNames().map(name => [name, board.getAttribute(name)])) }""")
    assert attributes == {"board": "all_time", "top": "4", "heading": "", "user": "7", "theme": "dark"}
    expect(page.locator("live-leaderboard header")).to_be_hidden()
    page.evaluate("() => { document.querySelector('live-leaderboard').heading = null }")
    expect(page.locator("live-leaderboard .title")).to_have_text("All time")


def test_a_player_is_followed_by_name_and_is_no_stranger_called_you(
    open_page: OpenPage, server: Server, cast: Cast, host: Host
) -> None:
    page = open_page(host(tag(server, 'board="all_time" top="7" user="amelie roux"')))
    expect(page.locator("live-leaderboard .me bdi")).to_have_text("Amélie Roux")
    expect(page.locator("live-leaderboard .me")).to_have_attribute("aria-current", "true")
    assert page.locator("live-leaderboard .you").count() == 0
    far = server.board("all_time?limit=1000")[110][1]
    page.evaluate("name => { document.querySelector('live-leaderboard').user = name }", far)
    expect(page.locator("live-leaderboard .pinned bdi")).to_have_text(far)


def test_the_page_hears_what_changes(open_page: OpenPage, server: Server, cast: Cast, host: Host) -> None:
    page = open_page(host(tag(server, 'board="all_time" top="3"')))
    expect(page.locator("live-leaderboard .row")).to_have_count(3)
    page.evaluate("""user => { const board = document.querySelector('live-leaderboard'); window.heard = {};
        for (const type of ['change', 'rank', 'state']) {
            board.addEventListener(type, ({ detail }) => { heard[type] = detail; });
        }
        document.addEventListener('change', () => { heard.bubbled = true; });
        board.user = user; }""", cast.ids[90])
    page.wait_for_function("window.heard.change && window.heard.rank")
    heard = page.evaluate("window.heard")
    assert heard["change"]["board"]["entries"][0]["username"] == server.board("all_time")[0][1]
    assert heard["rank"]["user_id"] == cast.ids[90]
    assert "bubbled" not in heard
    page.evaluate("() => { document.querySelector('live-leaderboard').board = 'week_of_2000_01_03' }")
    page.wait_for_function("window.heard.state?.live === false")


def test_what_cannot_be_shown_is_not_live(open_page: OpenPage, server: Server, cast: Cast, host: Host) -> None:
    page = open_page(host(tag(server, 'board="nothing:current_day"')))
    expect(page.locator("live-leaderboard .empty")).to_be_visible()
    expect(page.locator("live-leaderboard .status")).to_have_text("Nothing to show")
    closed = server.board()
    assert closed
    page.evaluate("() => { document.querySelector('live-leaderboard').board = 'previous_week' }")
    expect(page.locator("live-leaderboard .status")).not_to_have_text("Live")


def test_a_server_that_renders_pages_may_import_it(server: Server) -> None:
    module = WEB / "js/live-leaderboard.js"
    script = f"import({str(module)!r}).then((module) => console.log(typeof module.LiveLeaderboard))"
    done = subprocess.run([NODE, "-e", script], capture_output=True, text=True, timeout=PATIENCE_MS / 1000)
    assert (done.returncode, done.stdout, done.stderr.count("rror")) == (0, "function\n", 0), done.stderr
