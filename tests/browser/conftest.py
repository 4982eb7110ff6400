"""A real server and a real Chromium for the pages' tests.

Owns one `realtime up` for this folder's tests, which they may stop and start again, and one browser with a new context
for each page. Must never stand in for the server; only time's passing is played (`route_web_socket`), since no test can
wait for Monday. Must end with this folder's tests: Playwright's loop runs in the main thread, where other tests want to
run theirs. Assumes a Chromium on PATH or Playwright's own; without one, every test here skips.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Dialog,
    Page,
    Playwright,
    Request,
    expect,
    sync_playwright,
)

from tests.support import processes
from tests.support.processes import REALTIME, environment, free_port

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1280, "height": 800}
START_S = 60
PATIENCE_MS = 20_000  # until what a page should show counts as missing: machines are busy

expect.set_options(timeout=PATIENCE_MS)
SCORER = ("--scope", "submit:any", "--scope", "admin")


def chromium_path() -> str | None:
    """Debian's Chromium or another on PATH, else Playwright's own, where one is installed."""
    if path := next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None):
        return path
    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
    return own if Path(own).exists() else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    here = [item for item in items if Path(__file__).parent in item.path.parents]
    for item in here:
        item.add_marker(pytest.mark.browser)
    if not here or chromium_path():
        return
    reason = f"no Chromium for {len(here)} tests: apt-get install chromium, or playwright install chromium"
    here[0].add_marker(pytest.mark.skip(reason=reason))  # one line says it for all
    config.hook.pytest_deselected(items=here[1:])
    items[:] = [item for item in items if item not in here[1:]]


class Program(processes.Program):
    """A server of the tests' own: its address stays the same from start to start."""

    def __init__(self, folder: Path, command: str, **settings: str) -> None:
        self.folder = folder
        port = str(free_port())
        self.url = f"http://127.0.0.1:{port}"
        # No balancer has to look away first.
        env = environment(**{"REALTIME_PORT": port, "REALTIME_DRAIN_S": "0", **settings})
        command_line = (*REALTIME, command, "--data-dir", str(folder))
        super().__init__(*command_line, env=env, log=folder.parent / "server.log")

    def restart(self) -> None:
        self.stop()
        self.start()


class Server(Program):
    """A `realtime up`, with all that the tests do to its boards."""

    def __init__(self, folder: Path, **settings: str) -> None:
        super().__init__(folder, "up", **settings)
        self._http = httpx.Client(base_url=self.url, timeout=20)  # one for all: each of its own costs 30 ms
        self.start()

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int | None:
        code = super().stop(how)
        self._http.close()
        self._http = httpx.Client(base_url=self.url, timeout=20, headers=self._http.headers)
        return code

    def make_users(self, names: list[str]) -> list[int]:
        """Players without a password, straight into the ledger: a password's hash costs 100 ms."""

        async def insert() -> list[int]:
            connection = await asyncpg.connect(self.said["database"])
            try:
                rows = await connection.fetch(
                    "INSERT INTO users (username) SELECT * FROM unnest($1::text[]) RETURNING id", names
                )
            finally:
                await connection.close()
            return [row["id"] for row in rows]

        with ThreadPoolExecutor(1) as thread:  # Playwright's loop runs in this one
            return thread.submit(lambda: asyncio.run(insert())).result()

    def token(self, *of: str) -> str:
        """A token, with these options of `realtime token`."""
        command = [*REALTIME, "token", "--data-dir", str(self.folder), *of]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return done.stdout.strip().splitlines()[-1]

    def rename(self, user: int, name: str) -> None:
        """Lets a player change their own name."""
        token = self.token("--user-id", str(user), "--scope", "submit")
        answer = self._http.patch("/users/me", json={"username": name}, headers={"authorization": f"Bearer {token}"})
        answer.raise_for_status()

    def score(self, points: dict[int, int], *, settle: bool = True, **more: Any) -> None:
        """Adds points to players, by their ids. A score is acknowledged before the board has it: `settle` waits for
        that, so that `board` and `version` tell what the pages are about to hear."""
        if "authorization" not in self._http.headers:
            self._http.headers["authorization"] = f"Bearer {self.token(*SCORER)}"
        rows = [
            {"submission_id": secrets.token_hex(8), "user_id": user, "score_added": added, **more}
            for user, added in points.items()
        ]
        answer = self._http.post("/scores", json=rows)
        outcomes = answer.raise_for_status().json()["results"]
        assert all(outcome["type"] == "accepted" for outcome in outcomes), outcomes[:3]
        if settle and "created_at" not in more:  # a past week is read from PostgreSQL
            self._settle({outcome["user_id"]: outcome["week_score"] for outcome in outcomes})

    def _settle(self, expected: dict[int, int]) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            answer = self._http.get("/boards/current_week?limit=1000")
            if answer.status_code == 200:
                shown = {entry["user_id"]: entry["score"] for entry in answer.json()["entries"]}
                if all(shown.get(user) == score for user, score in expected.items()):
                    return
            time.sleep(0.02)
        raise AssertionError(f"the board does not show {expected}")

    def version(self, board: str = "current_week") -> int:
        """The board's version as HTTP tells."""
        version: int = self._http.get(f"/boards/{board}").raise_for_status().json()["version"]
        return version

    def board(self, board: str = "current_week") -> list[tuple[int, str, int]]:
        """(rank, name, score) of the top 100 as HTTP tells, once the store is filled after a start."""
        deadline = time.monotonic() + START_S
        while (answer := self._http.get(f"/boards/{board}")).status_code == 503 and time.monotonic() < deadline:
            time.sleep(0.1)
        entries = answer.raise_for_status().json()["entries"]
        return [(entry["rank"], entry["username"], entry["score"]) for entry in entries]


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory, chromium: Browser) -> Iterator[Server]:
    """The server, once there is a browser to look at it."""
    made = Server(tmp_path_factory.mktemp("browser") / "data")
    yield made
    made.stop()


class Cast:
    """The players of the session's board: 120 of them, the first with the most points."""

    def __init__(self, server: Server) -> None:
        names = [f"Player {number:03}" for number in range(1, 121)]
        names[3] = "<img src=x onerror=alert(1)>"
        names[4] = "مرحبا بالعالم"
        names[5] = "W" * 64
        names[6] = "Amélie Roux"
        self.names = names
        self.ids = server.make_users(names)
        server.score({user: 50_000 - 400 * at for at, user in enumerate(self.ids)})

    def climb(self, server: Server, start: int, goal: int) -> int:
        """Lets the player at rank `start` of this week pass the one at rank `goal`; answers who it is."""
        board = server.board()
        _, name, score = board[start - 1]
        climber = self.ids[self.names.index(name)]
        server.score({climber: board[goal - 1][2] - score + 1})
        return climber


@pytest.fixture(scope="package")
def cast(server: Server) -> Cast:
    """Players with scores."""
    return Cast(server)


@pytest.fixture(scope="package")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as made:
        yield made


@pytest.fixture(scope="package")
def chromium(playwright: Playwright) -> Iterator[Browser]:
    """The browser of all tests here."""
    on_path = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)  # else Playwright's own
    browser = playwright.chromium.launch(executable_path=on_path, args=list(QUIET))
    yield browser
    browser.close()


OpenPage = Callable[..., Page]


@pytest.fixture
def open_page(chromium: Browser, server: Server) -> Iterator[OpenPage]:
    """Opens an address of the server in a context of its own. What must never happen on any page fails the test:
    an exception, a breach of the policy, a dialog, a request to another host."""
    contexts = []
    wrong: list[str] = []
    ours = ("http://127.0.0.1:", "data:", "http://localhost:", "about:")

    def on_dialog(dialog: Dialog) -> None:
        wrong.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def on_console(message: ConsoleMessage) -> None:
        if "Content Security Policy" in message.text:
            wrong.append(message.text)

    def on_request(request: Request) -> None:
        if not request.url.startswith(ours):
            wrong.append(f"request to {request.url}")

    def opened(path: str, *, before: Callable[[Page], None] | None = None, **context: Any) -> Page:
        made = chromium.new_context(**{"viewport": DESKTOP, "locale": "en-GB", **context})
        contexts.append(made)
        page = made.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: wrong.append(f"exception: {error}"))
        page.on("dialog", on_dialog)
        page.on("console", on_console)
        page.on("request", on_request)
        if before:
            before(page)
        page.goto(server.url + path if path.startswith("/") else path)
        return page

    yield opened
    for made in contexts:
        made.close()
    assert not wrong


Host = Callable[..., str]


@pytest.fixture
def host() -> Iterator[Host]:
    """Serves one page under another origin, on a port of localhost, with a policy of its own; answers its address."""
    servers = []

    def serve(html: str, headers: dict[str, str] | None = None, port: int = 0) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = ("<!doctype html><title>Host</title>" + html).encode()
                self.send_response(200)
                self.send_header("content-type", "text/html; charset=utf-8")
                self.send_header("content-length", str(len(body)))
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        made = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        servers.append(made)
        threading.Thread(target=made.serve_forever, daemon=True).start()
        return f"http://localhost:{made.server_address[1]}/"

    yield serve
    for made in servers:
        made.shutdown()
        made.server_close()
