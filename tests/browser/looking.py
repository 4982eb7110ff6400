"""How the pages' tests look at a page."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from playwright.sync_api import Page, expect

ROWS = """rows => rows.map(row => [
    Number(row.querySelector('.rank').textContent.replace(/\\D/g, '')),
    row.querySelector('bdi').textContent,
    Number(row.querySelector('.score').firstChild.data.replace(/[^\\d-]/g, '')),
])"""


def rows(page: Page, within: str = "#list") -> list[tuple[int, str, int]]:
    """(rank, name, score) of the rows as they stand in the document, hidden ones too."""
    return [tuple(row) for row in page.locator(f"{within} .row").evaluate_all(ROWS)]


def expect_rows(
    page: Page, expected: list[tuple[int, str, int]], within: str = "#list", timeout_ms: float | None = None
) -> None:
    """Waits until the rows are these, in this order."""
    page.wait_for_function(
        f"""([within, expected]) => {{
            const rows = [...document.querySelectorAll(`${{within}} .row`)];
            return JSON.stringify(({ROWS})(rows)) === JSON.stringify(expected);
        }}""",
        arg=[within, expected],
        timeout=timeout_ms,
    )


def expect_live(page: Page) -> None:
    """Waits until the page says that it is live."""
    expect(page.locator("#lamp")).to_have_text("Live")


def chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(type, data) of each chunk (PNG specification, 5.3)."""
    at = 8
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        yield png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        at += 12 + length


def pixels(png: bytes) -> tuple[list[bytes], int]:
    """The lines of an 8-bit RGB or RGBA picture, and the bytes of one pixel (PNG specification, 9: filtering)."""
    parts = list(chunks(png))
    width, height, depth, colour = struct.unpack(">IIBB", parts[0][1][:10])
    assert depth == 8
    size = {2: 3, 6: 4}[colour]
    raw = zlib.decompress(b"".join(data for kind, data in parts if kind == b"IDAT"))
    stride = width * size
    lines: list[bytes] = []
    above = bytearray(stride)
    for line in range(height):
        start = line * (stride + 1)
        kind, row = raw[start], bytearray(raw[start + 1 : start + 1 + stride])
        for i in range(stride):
            left, up = (row[i - size] if i >= size else 0), above[i]
            corner = above[i - size] if i >= size else 0
            nearest = min((left, up, corner), key=lambda value: abs(left + up - corner - value))
            row[i] = (row[i] + (0, left, up, (left + up) // 2, nearest)[kind]) & 255
        lines.append(bytes(row))
        above = row
    return lines, size
