"""The scoreboard page in a real browser against the real server: what it shows, and that it goes on showing it."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import Any

import pytest
from playwright.sync_api import Browser, Error, Page, Route, WebSocketRoute, expect

from tests.browser.conftest import DESKTOP, PHONE, Cast, OpenPage, Server
from tests.browser.looking import expect_live, expect_rows, rows
from tests.browser.test_overlay import PlayedWeeks


@pytest.mark.parametrize("viewport", [PHONE, DESKTOP, {"width": 320, "height": 640}], ids=["phone", "desktop", "small"])
def test_the_scoreboard_opens_connects_and_moves(
    open_page: OpenPage, server: Server, cast: Cast, viewport: dict[str, int]
) -> None:
    page = open_page("/", viewport=viewport)
    expect_live(page)
    expect_rows(page, server.board())
    climber = cast.climb(server, 40, 1)
    expect_rows(page, server.board())
    expect(page.locator(f".row[data-user='{climber}'] .change")).to_have_attribute("data-kind", "up")
    first, second, third = server.board()[:3]
    for step, (_, name, _) in {"first": first, "second": second, "third": third}.items():
        expect(page.locator(f".{step} .holder .person:not(.leaving) bdi")).to_have_text(name)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out sideways"


def test_rows_are_moved_and_not_rebuilt(open_page: OpenPage, server: Server, cast: Cast) -> None:
    page = open_page("/")
    expect_rows(page, server.board())
    page.evaluate("for (const row of document.querySelectorAll('.row')) row.mark = row.dataset.user")
    server.score({cast.ids[20]: 3_000, cast.ids[60]: 9_000})
    expect_rows(page, server.board())
    kept = page.locator(".row").evaluate_all("rows => rows.filter(row => row.mark === row.dataset.user).length")
    assert kept >= 99


def test_a_name_with_markup_is_text_and_a_long_one_is_cut(open_page: OpenPage, server: Server, cast: Cast) -> None:
    page = open_page("/", viewport=PHONE)
    expect_rows(page, server.board())
    assert page.locator("img").count() == 0
    assert "<img src=x onerror=alert(1)>" in [name for _, name, _ in rows(page)]
    wide = page.locator(".name").evaluate_all(
        "names => names.filter(name => name.getBoundingClientRect().right > innerWidth).length"
    )
    assert wide == 0


def test_a_new_name_arrives_and_markup_in_it_is_text(open_page: OpenPage, server: Server, cast: Cast) -> None:
    page = open_page("/")
    expect_rows(page, server.board())
    _, before, score = server.board()[1]
    at = cast.names.index(before)
    cast.names[at] = "<b onclick=alert(1)>&amp;</b>"
    server.rename(cast.ids[at], cast.names[at])
    expect(page.locator(f".row[data-user='{cast.ids[at]}'] bdi")).to_have_text(cast.names[at])
    expect(page.locator(".second .holder bdi")).to_have_text(cast.names[at])
    assert rows(page)[1] == (2, cast.names[at], score)
    assert page.locator("#list b, #podium b").count() == 0


def test_the_address_holds_the_view(open_page: OpenPage, server: Server, cast: Cast) -> None:
    page = open_page("/")
    expect_live(page)
    page.get_by_role("tab", name="All time").click()
    expect(page).to_have_url(re.compile(r"\?board=all_time$"))
    expect_rows(page, server.board("all_time"))
    page.go_back()
    expect(page.get_by_role("tab", name="This week")).to_have_attribute("aria-selected", "true")
    again = open_page(f"/?board=all_time&me={cast.ids[10]}")
    expect(again.get_by_role("tab", name="All time")).to_have_attribute("aria-selected", "true")
    expect(again.locator(".me-name")).to_have_text(cast.names[10])
    expect(again.locator(f".row.me[data-user='{cast.ids[10]}'] .you")).to_have_text("You")


def test_a_board_that_is_not_there_says_so(open_page: OpenPage) -> None:
    page = open_page("/?board=week_of_2026_11_24")
    expect(page.locator("#empty")).to_be_visible()
    expect(page.locator("#empty span")).not_to_be_empty()


def test_finding_and_following_by_keyboard_alone(open_page: OpenPage, server: Server, cast: Cast) -> None:
    page = open_page("/")
    expect_rows(page, server.board())
    page.keyboard.press("/")
    expect(page.locator("#player")).to_be_focused()
    page.keyboard.type("amelie")
    page.keyboard.press("Enter")
    rank, name, score = next(row for row in server.board() if row[1] == "Amélie Roux")
    expect(page.locator("#result span")).to_have_text(f"{name} is rank {rank} with {score:,} points.")
    expect(page.locator(".row.found")).to_be_in_viewport()
    page.locator("#result button").focus()
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(rf"me={cast.ids[6]}$"))
    expect(page.locator(".me-name")).to_have_text(name)
    page.keyboard.press("/")
    page.keyboard.type("nobody of that name")
    page.keyboard.press("Enter")
    expect(page.locator("#result span")).to_contain_text("No player called")
    page.keyboard.press("Escape")
    expect(page.locator("#result")).to_be_hidden()
    expect(page.locator("#player")).to_have_value("")


def test_a_player_outside_the_top_hundred_is_found(open_page: OpenPage, server: Server, cast: Cast) -> None:
    page = open_page("/")
    expect_rows(page, server.board())
    page.locator("#player").fill("Player 119")
    page.locator("#player").press("Enter")
    expect(page.locator("#result span")).to_have_text("Player 119 is rank 119, outside the top 100.")


def test_one_who_is_followed_is_shown_wherever_they_are(open_page: OpenPage, server: Server, cast: Cast) -> None:
    page = open_page(f"/?me={cast.ids[115]}")
    board = server.board("current_week?limit=1000")
    at, (rank, name, score) = next((at, row) for at, row in enumerate(board) if row[1] == cast.names[115])
    expect(page.locator(".me-name")).to_have_text(name)
    expect(page.locator(".me-rank")).to_have_text(str(rank))
    expect(page.locator(".me-far")).to_have_text(f"{board[at - 1][2] - score} points to the next rank")
    server.score({cast.ids[115]: 10})
    expect(page.locator(".me-score")).to_have_text(f"{score + 10:,}")
    expect(page.locator("#spoken")).to_contain_text(f"You are rank {rank}")


def test_an_earlier_week_is_final(open_page: OpenPage, server: Server, cast: Cast) -> None:
    server.score({cast.ids[1]: 70, cast.ids[2]: 60}, created_at="2026-01-07T12:00:00Z")
    server.score({cast.ids[3]: 50}, created_at="2025-12-31T12:00:00Z")
    page = open_page(f"/?me={cast.ids[2]}")
    expect_live(page)
    page.get_by_role("tab", name="Earlier").click()
    expect(page).to_have_url(re.compile("board=week_of_2026_01_05"))
    expect_rows(page, [(1, cast.names[1], 70), (2, cast.names[2], 60)])
    expect(page.locator("#lamp")).to_have_text("Final")
    expect(page.locator("#week-days")).to_have_text(re.compile("^5 . 11 January"))
    expect(page.locator(".me-far")).to_have_text("Your final rank in week 2")
    expect(page.locator("#clock")).to_be_hidden()
    page.locator("#week").select_option("week_of_2025_12_29")
    expect_rows(page, [(1, cast.names[3], 50)])
    expect(page.locator(".me-far")).to_have_text("No score in this week")


def test_a_new_server_says_what_to_do_next_and_an_ended_week_who_won(
    open_page: OpenPage, tmp_path_factory: pytest.TempPathFactory, chromium: Browser
) -> None:
    new = Server(tmp_path_factory.mktemp("new") / "data")
    try:
        page = open_page(new.url)
        expect(page.get_by_role("link", name="Add the first score")).to_have_attribute("href", "play")
        page.get_by_text("curl", exact=True).click()
        expect(page.locator(".first-steps pre").first).to_contain_text(f"{new.url}/scores")
        ann, ben, cem = new.make_users(["Ann", "Ben", "Cem"])
        new.score({ann: 5})
        expect(page.locator("#first")).to_be_hidden()
        expect_rows(page, [(1, "Ann", 5)])
        for day in (9, 16):
            new.score({ann: 90, ben: 90, cem: day}, created_at=f"2026-11-{day:02}T12:00:00Z")
        page.goto(f"{new.url}/?board=week_of_2026_11_09")
        expect(page.locator("#won")).to_have_text("Week 46: won by Ben and Ann with 90 points")
        expect(page.locator("#older")).to_be_disabled()
        page.locator("#newer").click()
        expect(page).to_have_url(re.compile(r"board=week_of_2026_11_16$"))
        expect(page.locator("#won")).to_contain_text("Week 47: won by")
        page.get_by_role("tab", name="This week").click()
        expect(page.locator("#won")).to_be_hidden()
    finally:
        new.stop()


def test_a_first_week_that_begins_in_december_stands_under_its_own_year(open_page: OpenPage, server: Server) -> None:
    (ann,) = server.make_users(["Ann"])
    for day in ("2024-01-02", "2024-12-24", "2025-01-07", "2026-01-01"):
        server.score({ann: 1}, created_at=f"{day}T00:00:00Z")
    page = open_page("/?board=week_of_2025_12_29")
    groups = page.locator("#week optgroup")
    expect(groups).not_to_have_count(0)
    years = groups.evaluate_all(
        "all => Object.fromEntries(all.map(year => [year.label, [...year.children].map(week => week.value)]))"
    )
    assert "week_of_2025_12_29" in years["2026"], "week 1 of 2026"
    assert years["2025"] == ["week_of_2025_01_06"]
    assert years["2024"] == ["week_of_2024_12_23", "week_of_2024_01_01"]
    setup = open_page("/overlay/setup")
    expect(setup.locator("#board option", has_text="Week 1, 2026")).to_have_attribute("value", "week_of_2025_12_29")


def test_a_browser_that_translates_leaves_names_and_numbers_alone(
    open_page: OpenPage, server: Server, cast: Cast
) -> None:
    """It puts elements in the place of text nodes, into which rows write what changed."""
    pages = {path: open_page(path) for path in (f"/?me={cast.ids[70]}", "/overlay")}
    pages["element"] = open_page("/docs/")
    source = f"{server.url}/static/js/live-leaderboard.js"
    pages["element"].evaluate(
        "source => import(source).then(() => document.body.prepend(document.createElement('live-leaderboard')))",
        source,
    )
    for path, page in pages.items():
        names = page.locator("bdi")
        expect(names.nth(5)).to_be_attached()
        expect(names.first).not_to_be_empty()
        assert not any(names.evaluate_all("all => all.map(name => name.translate)")), path
        assert not any(page.locator(".score").evaluate_all("all => all.map(score => score.translate)")), path


def test_a_page_that_slept_over_monday_offers_the_week_that_ended(open_page: OpenPage) -> None:
    weeks = PlayedWeeks("week_of_2026_01_05")
    ended, now = ["week_of_2025_12_29"], "2026-01-11T23:59:30.000Z"

    def listed(route: Route) -> None:
        boards = [{"board": board, "alias": None, "closed": True} for board in ended]
        route.fulfill(json={"boards": boards, "closed_weeks": len(boards), "now": now})

    def before(page: Page) -> None:
        page.route_web_socket("**/ws", weeks)
        page.route("**/boards?*", listed)

    page = open_page("/", before=before)
    expect_live(page)
    page.get_by_role("tab", name="Earlier").click()
    expect(page).to_have_url(re.compile("board=week_of_2025_12_29"))
    ended.insert(0, "week_of_2026_01_05")
    now = "2026-01-12T08:00:00.000Z"
    weeks.told = {"now": now}
    page.evaluate("dispatchEvent(new Event('online'))")
    page.get_by_role("tab", name="This week").click()
    expect(page.locator("#clock-label")).to_have_text("Week 2 is closing")
    page.get_by_role("tab", name="Earlier").click()
    expect(page).to_have_url(re.compile("board=week_of_2026_01_05"))


@pytest.mark.parametrize("locale", ["tr-TR", "en-GB", "lt-LT"])
def test_finding_does_not_depend_on_the_viewers_language(open_page: OpenPage, locale: str) -> None:
    weeks = PlayedWeeks("week_of_2026_01_05")
    names = ["İstanbul", "Işıl", "IRIS", "Straße"]  # noqa: RUF001 - the letters are meant
    weeks.entries = [{"user_id": at, "username": name, "score": 100 - at} for at, name in enumerate(names, 1)]
    page = open_page("/", locale=locale, before=lambda page: page.route_web_socket("**/ws", weeks))
    expect(page.locator(".row")).to_have_count(4)
    wanted = {"ISTANBUL": 0, "istanbul": 0, "ışıl": 1, "IŞIL": 1, "iris": 2, "strasse": 3}  # noqa: RUF001
    for typed, at in wanted.items():
        page.locator("#player").fill(typed)
        page.locator("#player").press("Enter")
        expect(page.locator("#result span")).to_contain_text(f"{names[at]} is rank")


def test_the_page_goes_by_the_servers_time_whatever_the_computers_clock_says(open_page: OpenPage) -> None:
    weeks = PlayedWeeks("week_of_2026_01_05")
    weeks.entries = [{"user_id": 7, "username": "Ann", "score": 9}]

    def before(page: Page) -> None:
        page.route_web_socket("**/ws", weeks)
        page.clock.install(time="2030-01-01T00:00:00Z")  # years fast

    page = open_page("/?board=week_of_2026_01_05&me=7", before=before)
    page.clock.run_for(1_000)
    expect(page.locator(".row")).to_have_count(1)
    expect(page.locator("#lamp")).to_have_text("Live")
    page.goto(page.url.partition("?")[0])
    page.clock.run_for(1_000)
    expect(page.locator("#clock-label")).to_have_text("Week 2 ends in")
    left = page.locator(".wells")
    before_setting = left.inner_text()
    page.clock.set_system_time("2020-01-01T00:00:00Z")
    page.clock.run_for(3_000)
    expect(page.locator("#clock-label")).to_have_text("Week 2 ends in")
    assert left.inner_text() != before_setting, "it goes on"
    weeks.told = {"now": "2026-01-12T00:00:10.000Z"}  # this computer slept, and its clock with it
    page.evaluate("dispatchEvent(new Event('online'))")
    page.clock.run_for(2_000)
    expect(page.locator("#clock-label")).to_have_text("Week 2 is closing")


def test_tabs_by_keyboard(open_page: OpenPage, cast: Cast) -> None:
    page = open_page("/")
    expect_live(page)
    page.get_by_role("tab", name="This week").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="All time")).to_be_focused()
    expect(page.get_by_role("tab", name="All time")).to_have_attribute("aria-selected", "true")
    page.keyboard.press("Home")
    expect(page.get_by_role("tab", name="This week")).to_have_attribute("aria-selected", "true")
    inside = page.locator("[role=tab][tabindex='0']").count()
    assert inside == 1, "one stop for the tab key"


def test_sharing_copies_what_it_says(open_page: OpenPage, server: Server, cast: Cast) -> None:
    page = open_page("/?board=all_time", permissions=["clipboard-read", "clipboard-write"])
    expect_live(page)
    copied = {}
    page.locator("#share summary").click()
    for what in ("link", "embed", "overlay"):
        button = page.locator(f"[data-copy={what}]")
        button.click()
        expect(button).to_have_text("Copied")
        copied[what] = page.evaluate("navigator.clipboard.readText()")
    assert copied["link"] == f"{server.url}/?board=all_time"
    assert copied["overlay"] == f"{server.url}/overlay?board=all_time"
    assert f'src="{server.url}/static/js/live-leaderboard.js"' in copied["embed"]


# Counts, frame by frame, the rows on the move and the plates to be seen.
WATCH_MOVES = """() => {
    window.moves = window.plates = 0;
    const moves = row => row.getAnimations().some(one => one.effect.getKeyframes().some(frame => 'transform' in frame));
    const seen = plate => getComputedStyle(plate).visibility === 'visible';
    const look = () => {
        window.moves = Math.max(window.moves, [...document.querySelectorAll('.row')].filter(moves).length);
        window.plates = Math.max(window.plates, [...document.querySelectorAll('.row .plate')].filter(seen).length);
        requestAnimationFrame(look);
    };
    look();
}"""


def test_rank_moves_are_animated_unless_the_viewer_wants_none(open_page: OpenPage, server: Server, cast: Cast) -> None:
    lively = open_page("/")
    calm = open_page("/", reduced_motion="reduce")
    for page in (lively, calm):
        expect_rows(page, server.board())
        page.evaluate(WATCH_MOVES)
    cast.climb(server, 16, 6)
    for page in (lively, calm):
        expect_rows(page, server.board())
    lively.wait_for_function("() => window.moves > 0 && window.plates > 0")
    calm.wait_for_function("() => window.plates > 0")
    assert calm.evaluate("window.moves") == 0


# The version of the board that the page has heard of, whether it shows it or not.
WATCH_VERSION = """(() => {
    window.WebSocket = class extends WebSocket {
        constructor(url) {
            super(url);
            const hear = ({data}) => { window.version = JSON.parse(data).version ?? window.version; };
            this.addEventListener('message', hear);
        }
    };
})()"""


def test_a_hidden_page_paints_once_when_it_is_seen_again(open_page: OpenPage, server: Server, cast: Cast) -> None:
    page = open_page("/", before=lambda page: page.add_init_script(WATCH_VERSION))
    expect_rows(page, server.board())
    page.evaluate("""() => {
        window.paints = 0;
        const list = document.querySelector('#list');
        new MutationObserver(() => { window.paints += 1; }).observe(list, {subtree: true, characterData: true});
        Object.defineProperty(document, 'hidden', {configurable: true, get: () => true});
        document.dispatchEvent(new Event('visibilitychange'));
    }""")
    leader = cast.ids[cast.names.index(server.board()[0][1])]  # whose points move nobody
    for _ in range(5):
        server.score({leader: 1})
    page.wait_for_function("version => window.version === version", arg=server.version())
    assert page.evaluate("window.paints") == 0
    page.evaluate("""() => { Object.defineProperty(document, 'hidden', {configurable: true, get: () => false});
        document.dispatchEvent(new Event('visibilitychange')); }""")
    expect_rows(page, server.board())
    assert page.evaluate("window.paints") == 1


def test_offline_says_since_when_and_online_goes_on_at_once(open_page: OpenPage, server: Server, cast: Cast) -> None:
    lines: list[WebSocketRoute] = []
    cut = False

    def answer(line: WebSocketRoute) -> None:
        if cut:
            line.close(code=1001)
            return
        lines.append(line)
        line.connect_to_server()

    page = open_page("/", before=lambda page: page.route_web_socket("**/ws", answer))
    expect_rows(page, server.board())
    cut = True
    lines[-1].close(code=1001)
    expect(page.locator("#lamp")).to_have_text("Reconnecting")
    expect(page.locator("#note")).to_contain_text("Connection lost. These are the scores from")
    expect(page.locator("#list .row").first).to_be_attached()
    server.score({cast.ids[2]: 7})
    cut = False
    page.evaluate("dispatchEvent(new Event('online'))")
    expect_live(page)
    expect(page.locator("#note")).to_be_hidden()
    expect_rows(page, server.board())


def test_a_lost_diff_is_healed(open_page: OpenPage, server: Server, cast: Cast) -> None:
    lost: list[str] = []

    def lossy(line: WebSocketRoute) -> None:
        upstream = line.connect_to_server()

        def pass_on(message: str | bytes) -> None:
            if '"diff"' in str(message) and not lost:
                lost.append(str(message))
                return
            line.send(message)

        upstream.on_message(pass_on)

    page = open_page("/", before=lambda page: page.route_web_socket("**/ws", lossy))
    expect_rows(page, server.board())
    server.score({cast.ids[2]: 3})
    while not lost:
        page.wait_for_timeout(20)  # lets Playwright hand over what came
    server.score({cast.ids[2]: 3})
    expect_rows(page, server.board())


def test_rollover_empties_the_board_and_says_so_without_a_reload(open_page: OpenPage) -> None:
    lines: list[WebSocketRoute] = []
    old, new = "week_of_2026_01_05", "week_of_2026_01_12"

    def say(line: WebSocketRoute, **message: Any) -> None:
        line.send(json.dumps(message))

    def play(line: WebSocketRoute) -> None:
        lines.append(line)

        def answer(message: str | bytes) -> None:
            if json.loads(message)["type"] != "subscribe":
                return
            say(line, type="subscribed", board=old, resumed=False, **{"as": "current_week"})
            entries = [{"user_id": 7, "username": "Last Week's First", "score": 900}]
            say(line, type="snapshot", board=old, epoch="x", version=4, entries=entries)

        line.on_message(answer)
        say(line, type="hello", protocol=1, now="2026-01-11T23:59:58.000Z")

    page = open_page("/", before=lambda page: page.route_web_socket("**/ws", play))
    expect_rows(page, [(1, "Last Week's First", 900)])
    expect(page.locator("#clock-label")).to_have_text("Week 2 ends in")
    expect(page.locator("#clock")).to_have_class(re.compile("last-hour"))
    expect(page.locator("#clock-label")).to_have_text("Week 2 is closing")
    page.evaluate("window.stayed = true")
    say(lines[-1], type="rollover", to=new, **{"as": "current_week", "from": old})
    say(lines[-1], type="snapshot", board=new, epoch="x", version=0, entries=[])
    expect(page.locator("#empty strong")).to_have_text("Week 3 has just started")
    expect(page.locator("#clock-label")).to_have_text("Week 2 is final. Week 3 has started.")
    expect(page.locator(".first .open")).to_have_text("Open")
    entries = [{"user_id": 8, "username": "New", "score": 1}]
    say(lines[-1], type="diff", board=new, epoch="x", version=1, upsert=entries, remove=[], **{"from": 0})
    expect_rows(page, [(1, "New", 1)])
    assert page.evaluate("window.stayed")


def test_the_count_follows_the_rows_and_asks_only_for_those_below_a_full_board(open_page: OpenPage) -> None:
    lines: list[WebSocketRoute] = []
    asked: list[str] = []
    board = "week_of_2026_01_05"

    def say(line: WebSocketRoute, **message: Any) -> None:
        line.send(json.dumps({"board": board, "epoch": "x", **message}))

    def players(first: int, last: int) -> list[dict[str, Any]]:
        return [{"user_id": at, "username": f"Player {at}", "score": 1000 - at} for at in range(first, last + 1)]

    def play(line: WebSocketRoute) -> None:
        lines.append(line)

        def answer(message: str | bytes) -> None:
            if json.loads(message)["type"] == "subscribe":
                say(line, type="subscribed", resumed=False, **{"as": "current_week"})
                say(line, type="snapshot", version=1, entries=players(1, 10))

        line.on_message(answer)
        line.send(json.dumps({"type": "hello", "protocol": 1, "now": "2026-01-08T12:00:00.000Z"}))

    def count(route: Route) -> None:
        asked.append(route.request.url)
        route.fulfill(json={"board": board, "players": 1234, "entries": []})

    def before(page: Page) -> None:
        page.route_web_socket("**/ws", play)
        page.route("**/boards/current_week?limit=1", count)

    page = open_page("/", before=before)
    expect(page.locator("#count")).to_have_text("10 players")
    say(lines[-1], type="diff", version=2, upsert=players(11, 13), remove=[], **{"from": 1})
    expect(page.locator("#count")).to_have_text("13 players")
    assert asked == []
    say(lines[-1], type="diff", version=3, upsert=players(14, 100), remove=[], **{"from": 2})
    expect(page.locator("#count")).to_have_text("1,234 players")
    say(lines[-1], type="diff", version=4, upsert=[], remove=[100], **{"from": 3})
    expect(page.locator("#count")).to_have_text("99 players")
    assert len(asked) == 1


def test_the_server_restarts_and_the_page_goes_on(open_page: OpenPage, server: Server, cast: Cast) -> None:
    page = open_page("/")
    expect_rows(page, server.board())
    page.evaluate("window.stayed = true")
    server.restart()
    server.score({cast.ids[30]: 500})
    page.wait_for_function("() => document.querySelector('#lamp').textContent.trim() === 'Live'", timeout=40_000)
    expect_rows(page, server.board())
    assert page.evaluate("window.stayed")


def test_numbers_stand_in_the_viewers_locale(open_page: OpenPage, server: Server, cast: Cast) -> None:
    page = open_page("/", locale="de-DE")
    expect_rows(page, server.board())
    assert re.search(r"\d\.\d{3}", page.locator(".row .score").nth(5).inner_text())


BYTES = """() => ['navigation', 'resource'].flatMap(kind => performance.getEntriesByType(kind))
    .filter(entry => !entry.name.includes('/boards'))
    .reduce((sum, entry) => sum + entry.encodedBodySize, 0)"""

# How many rows stand in the document in the very turn in which the first snapshot came.
WATCH_FIRST = """(() => {
    window.WebSocket = class extends WebSocket {
        set onmessage(listen) {
            super.onmessage = listen && (event => {
                listen(event);
                if (event.data.includes('"snapshot"')) window.painted ??= document.querySelectorAll('.row').length;
            });
        }
    };
})()"""


def test_a_cold_load_is_small_and_the_first_snapshot_is_painted_at_once(
    open_page: OpenPage, server: Server, cast: Cast
) -> None:
    documents: list[str] = []

    def before(page: Page) -> None:
        page.add_init_script(WATCH_FIRST)
        page.on("request", lambda request: documents.append(request.url) if request.is_navigation_request() else None)

    page = open_page("/", before=before)
    page.wait_for_function("() => window.painted !== undefined")
    assert page.evaluate("window.painted") == 100
    assert documents == [server.url + "/"]
    size = page.evaluate(BYTES)
    assert 10 * 1024 < size < 48 * 1024, f"{size} bytes: everything, compressed, as it came over the line"


@pytest.mark.parametrize("path", ["/", "/overlay", "/play", "/overlay/setup"])
def test_every_page_works_below_a_path_prefix(open_page: OpenPage, server: Server, cast: Cast, path: str) -> None:
    sockets: list[str] = []
    missing: list[str] = []

    def proxy(route: Route) -> None:
        with suppress(Error):  # a preview that was loaded anew no longer waits for what it asked for
            answer = route.fetch(url=route.request.url.replace("/some/prefix", "", 1))
            if answer.status >= 400:
                missing.append(route.request.url)
            route.fulfill(response=answer)

    def line(socket: WebSocketRoute) -> None:
        sockets.append(socket.url)
        socket.send(json.dumps({"type": "hello", "protocol": 1, "now": "2026-01-11T12:00:00.000Z"}))

    def before(page: Page) -> None:
        page.route(f"{server.url}/some/prefix/**", proxy)
        page.route_web_socket("**/ws", line)
        page.on("request", lambda request: missing.append(request.url) if "/some/prefix/" not in request.url else None)

    page = open_page("/some/prefix" + path, before=before)
    if path in ("/", "/overlay"):
        page.wait_for_function("() => document.readyState === 'complete'")
        page.wait_for_timeout(300)
        assert sockets == [server.url.replace("http", "ws") + "/some/prefix/ws"]
    elif path == "/overlay/setup":
        expect(page.frame_locator("#frame").locator(".row")).to_have_count(10)
        expect(page.locator("#address")).to_have_value(f"{server.url}/some/prefix/overlay")
    else:
        expect(page.locator("#signed-out")).to_be_visible()
    assert missing == []


@pytest.mark.parametrize("width", [360, 1280, 1920])
def test_a_long_score_stays_over_its_own_step(open_page: OpenPage, width: int) -> None:
    weeks = PlayedWeeks("week_of_2026_01_05")
    weeks.entries = [{"user_id": at, "username": "Kim", "score": 2_147_483_647 - at} for at in range(1, 4)]
    page = open_page(
        "/",
        viewport={"width": width, "height": 800},
        before=lambda page: page.route_web_socket("**/ws", weeks),
    )
    expect(page.locator("#podium .points")).to_have_count(3)
    for place in page.locator("#podium .place").all():
        step, points = place.bounding_box(), place.locator(".points").bounding_box()
        assert step and points
        assert step["x"] <= points["x"] and points["x"] + points["width"] <= step["x"] + step["width"]
