"""What an hour of updates leaves in a page's memory.

`python -m tests.benchmarks browser_heap`, with a Chromium as for `tests/browser`: the page's time is played, so that an
hour and its 72,000 diffs pass in minutes, and the heap is read after a collection. The figure is the heap's own, in
bytes: how fast the machine is has no part in it.
"""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Page

from tests.benchmarks.browser import stage
from tests.benchmarks.harness import Table
from tests.browser.conftest import DESKTOP
from tests.browser.test_growth import DIFFS_A_SECOND, heap_growth

MINUTES = 60
PAGES = ("/", "/overlay")
BAR_KIB = 2048


def run() -> list[Table]:
    """The table of this benchmark."""
    title = f"{MINUTES} minutes of {DIFFS_A_SECOND} diffs a second"
    table = Table(title, ("page", "diffs", "heap grows by, KiB", "bar, KiB"))
    with stage() as (browser, server):

        def open_page(path: str, before: Any) -> Page:
            page = browser.new_context(viewport=DESKTOP, locale="en-GB").new_page()  # type: ignore[arg-type]
            before(page)
            page.goto(server.url + path)
            return page

        for path in PAGES:
            grown = heap_growth(open_page, path, MINUTES)
            table.add(path, MINUTES * 60 * DIFFS_A_SECOND, grown / 1024, BAR_KIB)
            for context in browser.contexts:
                context.close()
    return [table]
