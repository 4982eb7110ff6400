"""Draws the README's pictures anew: `python -m tests.browser.pictures` from the top of a checkout.

Owns the files below web/docs/pictures. Starts a server of its own in a temporary folder, lets invented players score,
and looks at each page once. Assumes a Chromium, as the tests here do.
"""

from __future__ import annotations

import shutil
import struct
import tempfile
import zlib
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from tests.browser.conftest import CHROMIUM_NAMES, QUIET, Server
from tests.browser.looking import chunks, expect_rows, pixels

PICTURES = Path(__file__).parents[2] / "web/docs/pictures"
NAMES = (
    "Amélie Roux,Bosun,Kestrel,Ivo Haddad,Maren Lind,Tarn,Juno Okafor,Pax,Lumi Sato,Wren,Sable,Rook Varga,"
    "Nils Moreau,Astrid Kaya,Quill,Vesper,Onyx Nowak,Birch,Fjord,Oskar Silva,Ines Prado,Tomas Weiss,Noor,Kaito"
).split(",")


def players(server: Server) -> list[int]:
    """Two dozen players in the order of NAMES, with a curve that looks like a week's."""
    ids = server.make_users(list(NAMES))
    server.score({user: round(42_800 * 0.93**at) + at * 37 for at, user in enumerate(ids)})
    return ids


def shoot(
    browser: Browser, server: Server, ids: list[int], name: str, path: str, width: int, height: int, dark: bool
) -> None:
    """One picture, taken while somebody climbs."""
    context = browser.new_context(
        viewport={"width": width, "height": height}, locale="en-GB", color_scheme="dark" if dark else "light"
    )
    page = context.new_page()
    page.goto(server.url + path)
    shown = page.locator(".row").first
    if path.startswith(("/?", "/overlay?")) or path in ("/", "/overlay"):
        shown.wait_for(state="attached")
        page.wait_for_timeout(600)
        board = server.board()
        climber = ids[NAMES.index(board[11][1])]
        server.score({climber: board[5][2] - board[11][2] + 12, ids[NAMES.index(board[8][1])]: 120})
        expect_rows(page, server.board()[: page.locator(".row").count()])
        page.wait_for_timeout(620)
    else:
        page.get_by_role("radio", name="White").check()
        page.wait_for_timeout(4_000)
    (PICTURES / f"{name}.png").write_bytes(slim(page.screenshot()))
    context.close()


def slim(png: bytes) -> bytes:
    """The same picture without filters: flat colours compress better so, by a quarter."""
    lines, _ = pixels(png)
    made = b"".join(b"\0" + line for line in lines)
    parts = [(b"IHDR", next(chunks(png))[1]), (b"IDAT", zlib.compress(made, 9)), (b"IEND", b"")]
    return png[:8] + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )


def main() -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    path = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(QUIET))
        server = Server(Path(folder) / "data")
        try:
            ids = players(server)
            me = ids[NAMES.index("Fjord")]
            shoot(browser, server, ids, "scoreboard", f"/?me={me}", 1000, 620, dark=False)
            shoot(browser, server, ids, "scoreboard-phone", f"/?me={me}", 390, 780, dark=True)
            shoot(browser, server, ids, "overlay", "/overlay", 400, 600, dark=False)
            shoot(browser, server, ids, "setup", "/overlay/setup", 900, 640, dark=False)
        finally:
            server.stop()
            browser.close()
    for picture in sorted(PICTURES.glob("*.png")):
        print(f"{picture.name}: {picture.stat().st_size / 1024:.0f} KB")


if __name__ == "__main__":
    main()
