"""For everybody: axe-core on every page, light and dark, phone and desktop; forced colours; the words that are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import DESKTOP, PHONE, Cast, OpenPage, Server
from tests.browser.looking import expect_live, expect_rows
from tests.browser.test_play import register

axe = pytest.importorskip("axe_playwright_python", reason="axe-core is not installed")
AXE = (Path(axe.__file__).parent / "axe.min.js").read_text()


def violations(page: Page) -> list[str]:
    """What axe-core finds, one line each."""
    page.wait_for_timeout(700)  # colours in the middle of a move are nobody's colours
    page.evaluate(AXE + "; undefined")
    found: list[dict[str, Any]] = page.evaluate("async () => (await axe.run()).violations")
    return [f"{one['id']}: {json.dumps([node['target'] for node in one['nodes'][:3]])}" for one in found]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [PHONE, DESKTOP], ids=["phone", "desktop"])
@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/?board=all_time&me=7",
        "/?board=week_of_2026_11_24",
        "/overlay",
        "/overlay?theme=paper",
        "/overlay/setup",
        "/play",
        "/docs",
        "/docs/protocol.html",
        "/docs/operations.html",
        "/docs/settings",
        "/docs/rights",
        "/docs/measurements",
    ],
)
def test_axe_finds_nothing(
    open_page: OpenPage,
    server: Server,
    cast: Cast,
    path: str,
    viewport: dict[str, int],
    scheme: Literal["light", "dark"],
) -> None:
    page = open_page(path, viewport=viewport, color_scheme=scheme)
    if path.startswith("/overlay?") or path in ("/", "/overlay"):
        expect(page.locator(".row").first).to_be_attached()
    assert violations(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_on_a_busy_page(
    open_page: OpenPage, server: Server, cast: Cast, scheme: Literal["light", "dark"]
) -> None:
    page = open_page(f"/?me={cast.ids[3]}", color_scheme=scheme)
    expect_rows(page, server.board())
    cast.climb(server, 12, 9)
    page.locator("#share summary").click()
    page.locator("#player").fill("Amélie")
    page.locator("#player").press("Enter")
    page.locator("#share summary").click()
    expect(page.locator("#result")).to_be_visible()
    assert violations(page) == []
    player = open_page("/play", color_scheme=scheme)
    register(player, f"Reader {scheme}")
    player.get_by_role("button", name="Add points").click()
    expect(player.locator("#log .counted")).to_have_count(1)
    assert violations(player) == []


def test_a_row_reads_as_one_line(open_page: OpenPage, server: Server, cast: Cast) -> None:
    page = open_page("/")
    expect_rows(page, server.board())
    rank, name, score = server.board()[6]
    row = page.get_by_role("listitem").nth(6)
    assert row.evaluate("row => row.textContent").startswith(f"{rank}{name}{score:,} points")
    climber = cast.climb(server, 30, 20)
    expect(page.locator(f".row[data-user='{climber}'] .change")).to_have_text("up 10")


def test_what_is_followed_is_spoken(open_page: OpenPage, server: Server, cast: Cast) -> None:
    page = open_page("/")
    expect_rows(page, server.board())
    cast.climb(server, 2, 1)
    _, name, score = server.board()[0]
    expect(page.locator("#spoken")).to_have_text(f"{name} leads with {score:,} points")
    assert page.locator("[aria-live], [role=status], [role=alert]").count() == 1


def test_forced_colours_keep_marks_bars_and_oneself(open_page: OpenPage, server: Server, cast: Cast) -> None:
    page = open_page(f"/?me={cast.ids[8]}", forced_colors="active")
    expect_live(page)
    expect_rows(page, server.board())
    outline = page.locator(".row.me").evaluate("row => getComputedStyle(row).outlineStyle")
    assert outline == "solid"
    bar = page.locator(".bar").first.evaluate("bar => getComputedStyle(bar).backgroundColor")
    sheet = page.locator(".row").nth(1).evaluate("row => getComputedStyle(row).backgroundColor")
    assert bar != sheet


def test_everything_can_be_reached_by_the_tab_key_and_shows_it(open_page: OpenPage, cast: Cast) -> None:
    page = open_page(f"/?me={cast.ids[8]}")
    expect_live(page)
    expect(page.locator("#me-bar button")).to_be_visible()
    reached = []
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.textContent.trim() || document.activeElement.id"))
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
        assert outline == "3px", reached
        if "Documentation" in reached:
            break
    for wanted in ("Skip to the list", "This week", "player", "Find", "Share", "Documentation"):
        assert any(wanted in name for name in reached), (wanted, reached)
