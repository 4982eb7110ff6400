"""The server's part of many leaderboards, played: they are what a test says, and no day or season has to be waited for.

Owns the answers to `GET /leaderboards` and `GET /boards`, and one socket. Must never be used where the real server can
do the same in a test's time. Assumes the wire as the protocol page has it.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

from playwright.sync_api import Page, Route, WebSocketRoute

NOW = "2026-01-07T12:00:00.000Z"
MS = {"kind": "duration", "unit": "ms"}
DAY = {"kind": "day", "starts": "2026-01-06T23:00:00.000Z", "ends": "2026-01-07T23:00:00.000Z"}
EVER = {"kind": "all_time", "starts": None, "ends": None}
TODAY = "sprint:day_of_2026_01_07"
DEFINITIONS: dict[str, dict[str, Any]] = {
    "default": {"title": "Points", "operator": "sum", "order": "descending", "windows": ["all_time", "week"]},
    "sprint": {
        "title": "Sprint, any %", "operator": "best", "order": "ascending",
        "windows": ["all_time", "day", "week", "season"],
        "zone": "Europe/Berlin", "ties": "first", "ranks": "competition", "format": MS, "submit": "players",
        "bounds": {"min": 1000, "max": 3_600_000}, "metadata": True,
        "seasons": [
            {"id": "winter_25", "starts": "2025-11-30T23:00:00Z", "ends": "2025-12-31T23:00:00Z"},
            {"id": "spring_26", "starts": "2026-02-28T23:00:00Z", "ends": "2026-05-31T22:00:00Z"},
        ],
    },
    "wins": {"title": "Wins", "operator": "count", "order": "descending", "windows": ["all_time"], "submit": "players"},
    "purse": {
        "title": "Purse", "operator": "sum", "order": "descending", "windows": ["month"], "submit": "players",
        "format": {"kind": "decimal", "places": 2},
    },
    "judged": {
        "title": "Judged", "operator": "last", "order": "descending", "windows": ["all_time"], "submit": "servers",
    },
}  # fmt: skip
DESCRIBED = ("title", "order", "ties", "ranks", "format")
USUAL = {"ties": "user_id", "ranks": "competition", "format": {"kind": "integer"}}


def laps(*scores: int) -> list[dict[str, Any]]:
    """Entries in board order, each with a car."""
    return [
        {"user_id": at, "username": f"Driver {at}", "score": score, "at": [at, at], "metadata": {"car": f"gt{at}"}}
        for at, score in enumerate(scores, 1)
    ]


class Played:
    """Set what there is, hand `before` to `open_page`, and say what happens with `say`."""

    def __init__(self) -> None:
        self.definitions = {slug: dict(fields) for slug, fields in DEFINITIONS.items()}
        self.state: dict[str, tuple[str, float]] = {}
        self.boards: dict[str, tuple[str, dict[str, Any], list[dict[str, Any]]]] = {
            "current_week": ("week_of_2026_01_05", {}, []),
            "all_time": ("all_time", {}, []),
            "sprint:current_day": (TODAY, DAY, laps(61_000, 62_345, 62_345, 150_000)),
            "sprint:all_time": ("sprint:all_time", EVER, laps(59_120)),
        }
        self.ended: dict[str, list[str]] = {}  # slug -> boards that have ended, the newest first
        self.heard: list[dict[str, Any]] = []
        self.refused: dict[str, tuple[str, str]] = {}  # board -> code and message
        self.version = 1
        self.line: WebSocketRoute | None = None

    def before(self, page: Page) -> None:
        """Takes the server's place for this page."""
        page.route_web_socket("**/ws", self._open)
        page.route(
            "**/leaderboards",
            lambda route: route.fulfill(json={"leaderboards": list(map(self.listed, self.definitions))}),
        )
        page.route(
            "**/leaderboards/*", lambda route: route.fulfill(json=self.listed(route.request.url.rpartition("/")[2]))
        )
        page.route("**/boards?*", self._list)

    def listed(self, slug: str) -> dict[str, Any]:
        state, progress = self.state.get(slug, ("live", 1.0))
        return {"slug": slug, "definition": self.definitions[slug], "state": state, "progress": progress, "boards": []}

    def say(self, kind: str, **fields: Any) -> None:
        assert self.line is not None
        self.line.send(json.dumps({"type": kind, **fields}))

    def show(self, name: str) -> None:
        """Which board the name stands for, and what it holds."""
        board, window, entries = self.boards[name]
        slug = name.rpartition(":")[0] or "default"
        definition = USUAL | self.definitions[slug]
        said = {"leaderboard": {"slug": slug} | {field: definition[field] for field in DESCRIBED}, "window": window}
        self.say("subscribed", board=board, resumed=False, **{"as": name}, **(said if window else {}))
        self.say("snapshot", board=board, epoch="x", version=self.version, entries=entries)

    def moves(self, name: str, *upsert: dict[str, Any]) -> None:
        """Lines of a board changed."""
        self.version += 1
        versions = {"from": self.version - 1, "version": self.version}
        self.say("diff", board=self.boards[name][0], epoch="x", upsert=list(upsert), remove=[], **versions)

    def rolls(self, name: str, board: str | None, window: dict[str, Any], entries: list[dict[str, Any]]) -> None:
        """The name stands for another board from now on; None: for none."""
        before = self.boards[name][0]
        self.say("rollover", **{"as": name, "from": before, "to": board})
        if board is not None:
            self.boards[name] = (board, window, entries)
            self.show(name)

    def _list(self, route: Route) -> None:
        slug = parse_qs(urlsplit(route.request.url).query).get("leaderboard", ["default"])[0]
        boards = [{"board": board, "alias": None, "closed": True} for board in self.ended.get(slug, [])]
        route.fulfill(json={"boards": boards, "closed_weeks": len(boards), "now": NOW})

    def _open(self, line: WebSocketRoute) -> None:
        self.line = line

        def answer(text: str | bytes) -> None:
            asked = json.loads(text)
            self.heard.append(asked)
            kind, board = asked["type"], asked.get("board")
            if kind == "ping":
                self.say("pong", now=NOW)
            elif kind == "auth":
                self.say("authenticated", user_id=1, expires_at=NOW)
            elif kind == "subscribe" and board in self.boards:
                self.show(board)
            elif kind == "subscribe":
                code, message = self.refused.get(board, ("unknown_board", "There is no such board."))
                self.say("error", code=code, message=message, board=board)

        line.on_message(answer)
        self.say("hello", protocol=1, now=NOW)
