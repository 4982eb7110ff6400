"""How the pages' tests look at a page."""

from __future__ import annotations

from playwright.sync_api import Page, expect

ROWS = """rows => rows.map(row => [
    Number(row.querySelector('.rank').textContent.replace(/\\D/g, '')),
    row.querySelector('bdi').textContent,
    Number(row.querySelector('.score').firstChild.data.replace(/[^\\d-]/g, '')),
])"""


def rows(page: Page, within: str = "#list") -> list[tuple[int, str, int]]:
    """(rank, name, score) of the rows as they stand in the document, hidden ones too."""
    return [tuple(row) for row in page.locator(f"{within} .row").evaluate_all(ROWS)]


def expect_rows(page: Page, expected: list[tuple[int, str, int]], within: str = "#list") -> None:
    """Waits until the rows are these, in this order."""
    page.wait_for_function(
        f"""([within, expected]) => {{
            const rows = [...document.querySelectorAll(`${{within}} .row`)];
            return JSON.stringify(({ROWS})(rows)) === JSON.stringify(expected);
        }}""",
        arg=[within, expected],
    )


def expect_live(page: Page) -> None:
    """Waits until the page says that it is live."""
    expect(page.locator("#lamp")).to_have_text("Live")
