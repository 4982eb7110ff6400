"""Conflation: what becomes of a subscriber who does not keep up.

Owns the table of its states. Pure: a state and an event in, a state and an action out.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final


class Pace(Enum):
    """How a subscriber keeps up."""

    FOLLOWING = auto()
    """Gets every diff."""
    BEHIND = auto()
    """Its transport holds more than the limit: gets nothing until it has drained, then one snapshot."""
    LOST = auto()
    """Was behind for too long, or is gone: gets nothing more."""


class Event(Enum):
    """What a subscriber's transport shows."""

    FILLED = auto()
    """A write left more than the limit in the buffer."""
    DRAINED = auto()
    """The buffer is down to the low-water mark."""
    EXPIRED = auto()
    """Behind for longer than is allowed."""
    GONE = auto()
    """The connection is closed."""


class Action(Enum):
    """What is to be done about it."""

    NOTHING = auto()
    SNAPSHOT = auto()
    """Write one fresh snapshot of each board the subscriber follows."""
    CLOSE = auto()
    """Close with `CloseCode.TOO_SLOW`."""


TABLE: Final[dict[tuple[Pace, Event], tuple[Pace, Action]]] = {
    (Pace.FOLLOWING, Event.FILLED): (Pace.BEHIND, Action.NOTHING),
    (Pace.FOLLOWING, Event.DRAINED): (Pace.FOLLOWING, Action.NOTHING),
    (Pace.FOLLOWING, Event.GONE): (Pace.LOST, Action.NOTHING),
    (Pace.BEHIND, Event.FILLED): (Pace.BEHIND, Action.NOTHING),
    (Pace.BEHIND, Event.DRAINED): (Pace.FOLLOWING, Action.SNAPSHOT),
    (Pace.BEHIND, Event.EXPIRED): (Pace.LOST, Action.CLOSE),
    (Pace.BEHIND, Event.GONE): (Pace.LOST, Action.NOTHING),
    (Pace.LOST, Event.FILLED): (Pace.LOST, Action.NOTHING),
    (Pace.LOST, Event.DRAINED): (Pace.LOST, Action.NOTHING),
    (Pace.LOST, Event.GONE): (Pace.LOST, Action.NOTHING),
}
"""Position and event give the next state and what to do. A pair that is missing cannot happen, and raises."""
