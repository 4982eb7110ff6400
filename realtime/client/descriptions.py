"""Descriptions: what the server says of a followed board, so that it can be ordered, ranked and shown.

Owns the client's reading of `leaderboard` and `window` in `subscribed`. Must never refuse what it does not know: a kind
of format, of ties or of window from a later server is kept, and such a score written as a whole number. Assumes
messages of wire protocol v1, parsed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from realtime.boards.definitions import Format
from realtime.boards.formats import format_score
from realtime.boards.standings import PUBLISHED_ORDER, Order


@dataclass(frozen=True, slots=True)
class Description:
    """What a board is."""

    slug: str
    """The leaderboard's."""
    title: str
    order: Order
    format: Format
    kind: str
    """Of the window: `all_time`, `day`, `week`, `month`, `year` or `season`."""
    starts: datetime | None
    """The window's first moment, in UTC; None where it has none."""
    ends: datetime | None
    """The first moment that is no longer of the window; None where it does not end."""

    def text(self, score: int) -> str:
        """A score as people read it: `1:02.345`, `12.50`, `1234`."""
        return format_score(self.format, score)


def description_in(message: Mapping[str, Any]) -> Description | None:
    """The description in a `subscribed`; None where there is none, as for `default`, of which nobody asked it."""
    leaderboard = message.get("leaderboard")
    if leaderboard is None:
        return None
    window = message.get("window") or {}
    order = Order(leaderboard["order"] == "ascending", leaderboard["ties"], leaderboard["ranks"])
    starts, ends = (_moment(window.get(name)) for name in ("starts", "ends"))
    written = _format(leaderboard.get("format") or {})
    return Description(
        leaderboard["slug"], leaderboard["title"], order, written, window.get("kind", "all_time"), starts, ends
    )


def order_of(description: Description | None) -> Order:
    """The order of a board that is described so: without a description the published one."""
    return PUBLISHED_ORDER if description is None else description.order


def _format(fields: Mapping[str, Any]) -> Format:
    return Format(fields.get("kind", "integer"), fields.get("places"), fields.get("unit"))


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
