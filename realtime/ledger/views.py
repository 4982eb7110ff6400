"""Views: a closed week's board, made once and made anew when the past is amended.

Owns the materialized views. Must never put input into DDL.
"""

from __future__ import annotations

from datetime import date, datetime

from realtime.boards.board import CLOSE_GRACE, week_at


def _first_open(now: datetime) -> date:
    """The first week whose view does not answer for it yet."""
    week = week_at(now - CLOSE_GRACE).week
    assert week is not None
    return week
