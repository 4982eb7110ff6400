"""What the scoreboard costs a browser: how soon it is there, and how smooth it stays.

`python -m tests.benchmarks browser`, with a Chromium as for `tests/browser`. Wall time in a browser is the machine's as
much as the page's, so each table begins with what a fixed piece of work takes in the same browser: compare by that.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from tests.benchmarks.harness import Table, median
from tests.browser.conftest import CHROMIUM_NAMES, DESKTOP, PHONE, QUIET, Cast, Server
from tests.browser.looking import expect_rows

LOADS = 7
DIFFS_A_SECOND = 20
ROWS_A_DIFF = 3
WINDOW_S = 5
WINDOWS = 6
THROTTLE = 4
BAR_SHOWN_MS = 300
BAR_TASK_MS = 50
BAR_FRAMES = 50

# When the socket opened, and when the frame with the hundredth row began.
WATCH_START = """(() => {
    const Plain = WebSocket;
    window.WebSocket = class extends Plain {
        constructor(url) {
            super(url);
            this.addEventListener('open', () => { window.opened = performance.now(); });
        }
    };
    addEventListener('DOMContentLoaded', () => new MutationObserver((_, observer) => {
        if (document.querySelectorAll('.row').length !== 100) return;
        observer.disconnect();
        requestAnimationFrame(() => { setTimeout(() => { window.shown = performance.now(); }); });
    }).observe(document.body, {subtree: true, childList: true}));
})()"""

# Milliseconds that sorting a fixed list takes, the median of nine.
MACHINE = """() => Array.from({length: 9}, () => {
    const list = Array.from({length: 200_000}, (_, at) => (at * 48271) % 2147483647);
    const start = performance.now();
    list.sort((a, b) => a - b);
    return performance.now() - start;
}).sort((a, b) => a - b)[4]"""

# Frames a second over a window, as the page itself sees them.
FRAMES = """async seconds => {
    const start = performance.now();
    let frames = 0;
    await new Promise(done => {
        const count = now => {
            frames += 1;
            if (now - start < seconds * 1000) requestAnimationFrame(count); else done();
        };
        requestAnimationFrame(count);
    });
    return frames / seconds;
}"""


@contextmanager
def traffic(server: Server, cast: Cast) -> Iterator[None]:
    """Scores for a few players at a steady rate, as long as the block lasts."""
    over = threading.Event()

    def run() -> None:
        due = time.monotonic()
        number = 0
        while not over.is_set():
            chosen = [cast.ids[(number * 7 + at * 31) % 100] for at in range(ROWS_A_DIFF)]
            server.score(dict.fromkeys(chosen, 137), settle=False)
            number += 1
            due += 1 / DIFFS_A_SECOND
            over.wait(max(0, due - time.monotonic()))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def opened(browser: Browser, server: Server, viewport: dict[str, int], script: str = "") -> Iterator[Page]:
    """The scoreboard in a context of its own: nothing is cached."""
    context = browser.new_context(viewport=viewport, locale="en-GB")  # type: ignore[arg-type]
    page = context.new_page()
    if script:
        page.add_init_script(script)
    page.goto(server.url + "/")
    yield page
    context.close()


def cold_loads(browser: Browser, server: Server, machine_ms: float) -> Table:
    table = Table("A cold load on this machine", ("measure", "median", "worst", "bar"))
    waits = []
    for _ in range(LOADS):
        with opened(browser, server, DESKTOP, WATCH_START) as page:
            page.wait_for_function("() => window.shown")
            waits.append(page.evaluate("window.shown - window.opened"))
    table.add("fixed work, ms", machine_ms, machine_ms, "")
    table.add("from the socket's open to the painted board, ms", median(waits), max(waits), BAR_SHOWN_MS)
    return table


def tasks(trace: bytes) -> list[float]:
    """Milliseconds of each task on the main thread of the page that did most, from Chromium's trace events."""
    events = json.loads(trace)["traceEvents"]
    names = {(one["pid"], one["tid"]): one["args"]["name"] for one in events if one["name"] == "thread_name"}
    durations: dict[tuple[int, int], list[float]] = {}
    for one in events:
        thread = (one["pid"], one["tid"])
        if one["name"] == "RunTask" and names.get(thread) == "CrRendererMain":
            durations.setdefault(thread, []).append(one.get("dur", 0) / 1000)
    return max(durations.values(), key=sum)


def window(browser: Browser, page: Page) -> tuple[float, list[float]]:
    """Frames a second and the tasks' milliseconds over a window."""
    browser.start_tracing(page=page, categories=["disabled-by-default-devtools.timeline", "__metadata"])
    frames: float = page.evaluate(FRAMES, WINDOW_S)
    return frames, tasks(browser.stop_tracing())


def smoothness(browser: Browser, server: Server, cast: Cast, machine_ms: float) -> Table:
    title = f"100 rows, {DIFFS_A_SECOND} diffs a second, {THROTTLE} times throttled, {WINDOWS} windows of {WINDOW_S} s"
    table = Table(title, ("page", "measure", "median", "worst", "bar"))
    table.add("", "fixed work, not throttled, ms", machine_ms, machine_ms, "")
    for name, viewport in (("desktop", DESKTOP), ("phone", PHONE)):
        with opened(browser, server, viewport) as page:
            expect_rows(page, server.board())
            page.context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": THROTTLE})
            throttled_ms: float = page.evaluate(MACHINE)
            with traffic(server, cast):
                page.evaluate(FRAMES, 1)
                version = server.version()
                windows = [window(browser, page) for _ in range(WINDOWS)]
                versions = server.version() - version
        frames = [one for one, _ in windows]
        longest = [max(durations) for _, durations in windows]
        over = [sum(one > BAR_TASK_MS for one in durations) / WINDOW_S for _, durations in windows]
        table.add(name, "fixed work, throttled, ms", throttled_ms, throttled_ms, "")
        table.add(name, "versions of the board in all", versions, versions, "")
        table.add(name, "frames a second", median(frames), min(frames), f"at least {BAR_FRAMES}")
        table.add(name, "longest task, ms", median(longest), max(longest), f"at most {BAR_TASK_MS}")
        table.add(name, f"tasks over {BAR_TASK_MS} ms a second", median(over), max(over), 0)
    return table


@contextmanager
def stage() -> Iterator[tuple[Browser, Server]]:
    """A browser, and a server for it to look at."""
    path = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(QUIET))
        server = Server(Path(folder) / "data")
        try:
            yield browser, server
        finally:
            server.stop()
            browser.close()


def run() -> list[Table]:
    """The tables of this benchmark."""
    with stage() as (browser, server):
        cast = Cast(server)
        machine_ms: float = browser.new_page().evaluate(MACHINE)
        return [cold_loads(browser, server, machine_ms), smoothness(browser, server, cast, machine_ms)]
