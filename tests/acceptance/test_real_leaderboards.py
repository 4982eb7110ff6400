"""Many leaderboards over the real events: each board in each window is what an independent count over the file says.

Half of the leaderboards are there before the file comes in, half are added over the history that it left.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import asyncpg
import pytest

from realtime.intake import score_file
from realtime.intake.importer import Importer
from realtime.ledger.ledger import Ledger
from realtime.store.store import Store
from tests.support.closed_weeks import views_of
from tests.support.servers import RunningServer, running_server
from tests.support.waiting import eventually

REAL = Path(__file__).parents[3] / "shared" / "data" / "score_events.csv"
BERLIN = ZoneInfo("Europe/Berlin")

DEFINITIONS: dict[str, dict[str, Any]] = {
    "best-day": {"of": "default", "operator": "best", "windows": ["all_time", "day"], "zone": "Europe/Berlin"},
    "count-month": {"of": "default", "operator": "count", "windows": ["month", "all_time"]},
    "latest": {"of": "default", "operator": "last", "windows": ["all_time"], "ties": "first"},
    "low-week": {"of": "default", "operator": "best", "order": "ascending", "windows": ["week"], "ties": "last"},
    "spring": {
        "of": "default",
        "operator": "sum",
        "windows": ["season"],
        "zone": "Europe/Berlin",
        "seasons": [{"id": "s25", "starts": "2025-03-01T00:00:00+01:00", "ends": "2025-04-01T00:00:00+02:00"}],
    },
}
BEFORE = ("best-day", "latest")
AFTER = ("count-month", "low-week", "spring")


class Event(NamedTuple):
    """A line of the file, with the ids that the ledger gave."""

    user_id: int
    score: int
    at: datetime
    id: int


class Place(NamedTuple):
    """A row of a board, as it was counted."""

    user_id: int
    score: int
    at: datetime
    id: int


def monday_of(day: date) -> date:
    return day - timedelta(days=day.isoweekday() - 1)


def named(kind: str, day: date) -> str:
    return {"day": f"day_of_{day:%Y_%m_%d}", "month": f"month_of_{day:%Y_%m}", "week": f"week_of_{day:%Y_%m_%d}"}[kind]


# 743 hours: one of March is missing
SPRING = datetime(2025, 2, 28, 23, tzinfo=UTC), datetime(2025, 3, 31, 22, tzinfo=UTC)

WINDOWS: dict[str, Callable[[Event], list[str]]] = {
    "best-day": lambda event: ["all_time", named("day", event.at.astimezone(BERLIN).date())],
    "count-month": lambda event: ["all_time", named("month", event.at.date())],
    "latest": lambda event: ["all_time"],
    "low-week": lambda event: [named("week", monday_of(event.at.date()))],
    "spring": lambda event: ["season_s25"] if SPRING[0] <= event.at < SPRING[1] else [],
}


def folded(slug: str, events: list[Event]) -> Place:
    """What one player's events in one window come to, by the rule of a leaderboard."""
    in_time = sorted(events, key=lambda event: (event.at, event.id))
    last = in_time[-1]
    match slug:
        case "best-day":
            return Place(*max(in_time, key=lambda event: event.score))  # the earliest of the best
        case "low-week":
            return Place(*min(in_time, key=lambda event: event.score))
        case "count-month":
            return Place(last.user_id, len(events), last.at, last.id)
        case "latest":
            return Place(*last)
    return Place(last.user_id, sum(event.score for event in events), last.at, last.id)


def counted(slug: str, events: list[Event]) -> dict[str, list[Place]]:
    """Every board of a leaderboard, in its order, with nothing but the language's own means."""
    of_window: dict[str, dict[int, list[Event]]] = defaultdict(lambda: defaultdict(list))
    for event in events:
        for name in WINDOWS[slug](event):
            of_window[name][event.user_id].append(event)
    return {
        name: sorted((folded(slug, own) for own in users.values()), key=ORDERS[slug])
        for name, users in of_window.items()
    }


def _descending_by_id(place: Place) -> tuple[int, list[int]]:
    return -place.score, [-ord(digit) for digit in str(place.user_id)] + [1]


ORDERS: dict[str, Callable[[Place], Any]] = {
    "best-day": _descending_by_id,
    "count-month": _descending_by_id,
    "spring": _descending_by_id,
    "latest": lambda place: (-place.score, place.at, place.id),
    "low-week": lambda place: (place.score, -place.at.timestamp(), -place.id),
}


@dataclass
class Real:
    """The server with all of the file in it, and the file's events."""

    server: RunningServer
    events: list[Event]

    async def entries(self, board: str) -> list[dict[str, Any]]:
        """All rows that a board shows over HTTP."""
        found: list[dict[str, Any]] = []
        while True:
            answer = await self.server.http.get(f"/boards/{board}", params={"limit": 1_000, "offset": len(found)})
            assert answer.status_code == 200, (board, answer.text)
            page = answer.json()
            found += page["entries"]
            if len(found) >= page["players"] or not page["entries"]:
                return found


async def defined(server: RunningServer, slugs: tuple[str, ...]) -> None:
    for slug in slugs:
        answer = await server.http.put(
            f"/leaderboards/{slug}", json=DEFINITIONS[slug], headers=server.bearer(None, "admin")
        )
        assert answer.status_code in (200, 201), answer.text


async def all_live(server: RunningServer, slugs: tuple[str, ...]) -> bool:
    states = [(await server.http.get(f"/leaderboards/{slug}")).json() for slug in slugs]
    return all(state["state"] == "live" and state["progress"] == 1 for state in states)


@pytest.fixture
async def real(dsn: str, store_url: str, ledger: Ledger, store: Store, sql: asyncpg.Connection) -> AsyncIterator[Real]:
    if not REAL.exists():
        pytest.skip(f"{REAL.name} is not here")
    async with running_server(dsn, store_url) as server:
        await defined(server, BEFORE)
        await eventually(lambda: all_live(server, BEFORE))
        directory = server.services.leaderboards
        await directory.look()
        views = views_of(ledger, store)
        importer = Importer(
            ledger, store, views, ledger.clock.now, lambda bad: pytest.fail(str(bad)), directory=directory
        )
        with REAL.open("rb") as file:
            await importer.run(score_file.rows(file))
        assert importer.summary.new == 50_351
        await defined(server, AFTER)
        await eventually(lambda: all_live(server, AFTER), patience=120)
        await directory.look()
        users = dict(await sql.fetch("SELECT username, id FROM users"))
        ids = dict(await sql.fetch("SELECT submission_id, id FROM user_score_transactions"))
        with REAL.open(newline="") as lines:
            events = [
                Event(
                    users[row["username"]],
                    int(row["score_added"]),
                    datetime.fromisoformat(row["created_at"]).astimezone(UTC),
                    ids[row["submission_id"]],
                )
                for row in csv.DictReader(lines)
            ]
        yield Real(server, events)


async def test_every_board_of_every_leaderboard_is_as_an_independent_count_says(real: Real) -> None:
    seen = 0
    for slug in DEFINITIONS:
        for name, places in counted(slug, real.events).items():
            entries = await real.entries(f"{slug}:{name}")
            assert [(entry["user_id"], entry["score"]) for entry in entries] == [place[:2] for place in places], name
            scores = [place.score for place in places]
            assert [entry["rank"] for entry in entries] == [scores.index(score) + 1 for score in scores]
            seen += 1
    assert seen > 1_000
