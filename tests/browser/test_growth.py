"""Hours of updates leave nothing behind, in a real browser whose time is played; the long form by hand (`-m long`)."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page

from tests.browser.conftest import OpenPage

DIFFS_A_SECOND = 20

# A server inside the page, so that an hour passes in a minute: a hundred players, 20 diffs a second of the page's time.
# They come in fives, as often as the page paints: a timer of the played clock costs more than a diff.
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
            this.playing = setInterval(() => { for (let i = 0; i < 5; i += 1) this.play(); }, 250);
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
