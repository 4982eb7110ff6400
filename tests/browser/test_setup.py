"""The overlay's setup page: choices in, an address, a size and a preview out."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.browser.conftest import PHONE, OpenPage, Server


def test_choices_become_an_address_a_size_and_a_preview(open_page: OpenPage, server: Server) -> None:
    page = open_page("/overlay/setup", permissions=["clipboard-read", "clipboard-write"])
    expect(page.locator("#address")).to_have_value(f"{server.url}/overlay")
    expect(page.locator("#size")).to_have_text("Set Width 400 and Height 600.")
    page.locator("#board").select_option("all_time")
    page.get_by_role("radio", name="Paper").check()
    page.locator("#top").fill("5")
    page.locator("#scale").fill("150")
    page.locator("#title").fill("Finals & more")
    page.get_by_label("Countdown").uncheck()
    address = f"{server.url}/overlay?board=all_time&theme=paper&top=5&scale=1.5&title=Finals+%26+more&clock=0"
    expect(page.locator("#address")).to_have_value(address)
    expect(page.locator("#size")).to_have_text("Set Width 600 and Height 495.")
    page.locator("#copy").click()
    expect(page.locator("#copy")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == address
    preview = page.frame_locator("#frame")
    expect(preview.locator(".row")).to_have_count(5)
    expect(preview.locator("#title")).to_have_text("Finals & more")


def test_a_strip_proposes_five_players(open_page: OpenPage, server: Server) -> None:
    page = open_page("/overlay/setup")
    page.get_by_role("radio", name="Strip").check()
    expect(page.locator("#address")).to_have_value(f"{server.url}/overlay?shape=strip")
    expect(page.locator("#size")).to_have_text("Set Width 1672 and Height 88.")


def test_the_preview_moves_with_invented_players_and_opens_no_socket(open_page: OpenPage) -> None:
    sockets: list[str] = []
    page = open_page("/overlay/setup", before=lambda page: page.on("websocket", lambda line: sockets.append(line.url)))
    preview = page.frame_locator("#frame")
    expect(preview.locator(".row")).to_have_count(10)
    before = preview.locator("#list").inner_text()
    expect(preview.locator("#list")).not_to_have_text(before, timeout=8_000)
    assert sockets == []


def test_the_setup_page_fits_a_phone(open_page: OpenPage) -> None:
    page = open_page("/overlay/setup", viewport=PHONE)
    expect(page.frame_locator("#frame").locator(".row")).to_have_count(10)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    shown = page.locator("#frame").bounding_box()
    assert shown and shown["x"] >= 0 and shown["x"] + shown["width"] <= 390
