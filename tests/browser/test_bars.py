"""What the pages may cost, measured in a real browser: the heavy part by hand (`-m long`), on a quiet machine."""

from __future__ import annotations

import statistics
import threading
import time
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.browser.conftest import Cast, OpenPage, Server
from tests.browser.looking import expect_rows

DIFFS_A_SECOND = 20
ROWS_A_DIFF = 3
WINDOW_S = 5
WINDOWS = 5

# Frames a second and the longest task over a window, as the page itself sees them.
MEASURE = """async seconds => {
    const long = [];
    const observer = new PerformanceObserver(list => long.push(...list.getEntries().map(entry => entry.duration)));
    observer.observe({type: 'longtask'});
    const start = performance.now();
    let frames = 0;
    await new Promise(done => {
        const count = now => {
            frames += 1;
            if (now - start < seconds * 1000) requestAnimationFrame(count); else done();
        };
        requestAnimationFrame(count);
    });
    observer.disconnect();
    return {frames: frames / seconds, longest: Math.max(0, ...long)};
}"""

# A server inside the page, so that an hour passes in a minute: a hundred players, 20 diffs a second of the page's time.
PLAYED_SERVER = """(() => {
    const player = (_, at) => ({user_id: at + 1, username: `Player ${at + 1}`, score: 90_000 - 700 * at});
    const players = Array.from({length: 100}, player);
    let version = 1;
    let seed = 7;
    const roll = n => (seed = (seed * 48271) % 2147483647) % n;
    window.WebSocket = class {
        constructor() { setTimeout(() => this.say({type: 'hello', protocol: 1, now: new Date().toISOString()}), 1); }
        say(message) { this.onmessage?.({data: JSON.stringify(message)}); }
        close() { clearInterval(this.playing); }
        send(text) {
            const {type, board} = JSON.parse(text);
            if (type === 'ping') this.say({type: 'pong'});
            if (type !== 'subscribe') return;
            this.say({type: 'subscribed', board: 'all_time', as: board, resumed: false});
            this.say({type: 'snapshot', board: 'all_time', epoch: 'x', version, entries: players});
            this.playing = setInterval(() => this.play(), 50);
        }
        play() {
            const upsert = [];
            for (const at of [roll(100), roll(100), roll(100)]) {
                const player = players[at];
                player.score += roll(1500);
                upsert.push({user_id: player.user_id, score: player.score});
            }
            window.diffs = (window.diffs ?? 0) + 1;
            const from = version;
            version += 1;
            this.say({type: 'diff', board: 'all_time', epoch: 'x', from, version, upsert, remove: []});
        }
    };
})()"""


class Traffic:
    """Scores for a few players at a steady rate, as long as the block lasts."""

    def __init__(self, server: Server, cast: Cast) -> None:
        self._server = server
        self._cast = cast
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        due = time.monotonic()
        number = 0
        while not self._over.is_set():
            chosen = [self._cast.ids[(number * 7 + at * 31) % 100] for at in range(ROWS_A_DIFF)]
            self._server.score(dict.fromkeys(chosen, 137))
            number += 1
            due += 1 / DIFFS_A_SECOND
            self._over.wait(max(0, due - time.monotonic()))

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


@pytest.mark.long
def test_twenty_diffs_a_second_on_a_slow_machine_stay_smooth(open_page: OpenPage, server: Server, cast: Cast) -> None:
    page = open_page("/")
    expect_rows(page, server.board())
    session = page.context.new_cdp_session(page)
    session.send("Emulation.setCPUThrottlingRate", {"rate": 4})
    with Traffic(server, cast):
        windows: list[dict[str, float]] = [page.evaluate(MEASURE, WINDOW_S) for _ in range(WINDOWS)]
    print(f"\nframes a second and longest task (ms), {WINDOWS} windows of {WINDOW_S} s: {windows}")
    assert statistics.median(window["frames"] for window in windows) >= 50
    assert statistics.median(window["longest"] for window in windows) <= 50


def heap(page: Page, session: Any) -> int:
    """Bytes in use after a collection."""
    for _ in range(3):
        session.send("HeapProfiler.collectGarbage")
    return int(session.send("Runtime.getHeapUsage")["usedSize"])


def heap_growth(open_page: OpenPage, path: str, minutes: int) -> int:
    """How much the heap grows over that many minutes of the page's own time, after two minutes to settle."""

    def before(page: Page) -> None:
        page.clock.install()
        page.add_init_script(PLAYED_SERVER)

    page = open_page(path, before=before)
    session = page.context.new_cdp_session(page)
    page.clock.run_for(120_000)
    start = heap(page, session)
    for _ in range(minutes):
        page.clock.run_for(60_000)
    grown = heap(page, session) - start
    assert page.evaluate("window.diffs") > (minutes + 1) * 60 * DIFFS_A_SECOND * 0.9
    print(f"\n{path}: heap grew by {grown / 1024:.0f} KiB in {minutes} minutes of updates")
    return grown


@pytest.mark.parametrize("path", ["/", "/overlay"])
def test_minutes_of_updates_leave_nothing_behind(open_page: OpenPage, path: str) -> None:
    assert heap_growth(open_page, path, 3) < 1024 * 1024


@pytest.mark.long
@pytest.mark.parametrize("path", ["/", "/overlay"])
def test_an_hour_of_updates_leaves_nothing_behind(open_page: OpenPage, path: str) -> None:
    assert heap_growth(open_page, path, 60) < 2 * 1024 * 1024
