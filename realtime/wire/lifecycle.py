"""The life of a WebSocket connection, from its transport to its end.

Owns the states of a connection and the table of what follows what. Must never act on a transition: the connection does.
Assumes that whoever steps through the table looks every pair up, so that a pair that is missing raises. Pure.

How the table runs:

- A connection becomes a WebSocket once, or never: only CONNECTING leads to OPEN.
- Our close frame goes once: only OPEN leads to CLOSING.
- Who ends a connection may do so again: END changes nothing from ENDING on.
- The transport says once that it is gone, from any state: nothing leads away from LOST.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final


class State(Enum):
    """How far a connection is."""

    CONNECTING = auto()
    """The request has no answer yet."""
    OPEN = auto()
    """The request was accepted: messages go both ways."""
    CLOSING = auto()
    """Our close frame was written; the client's may still come."""
    ENDING = auto()
    """The transport is about to close, after it was a WebSocket's."""
    REFUSED = auto()
    """The transport is about to close, and never was a WebSocket's."""
    LOST = auto()
    """The transport is closed."""


class Event(Enum):
    """What changes the state of a connection."""

    ACCEPT = auto()
    """The application accepts the request."""
    REFUSE = auto()
    """The request gets an answer that makes it no WebSocket."""
    CLOSE = auto()
    """This side writes its close frame."""
    END = auto()
    """The transport is told to close, or to abort."""
    LOSE = auto()
    """The transport says that it is closed."""


TABLE: Final[dict[tuple[State, Event], State]] = {
    (State.CONNECTING, Event.ACCEPT): State.OPEN,
    (State.CONNECTING, Event.REFUSE): State.REFUSED,
    (State.CONNECTING, Event.END): State.REFUSED,
    (State.CONNECTING, Event.LOSE): State.LOST,
    (State.OPEN, Event.CLOSE): State.CLOSING,
    (State.OPEN, Event.END): State.ENDING,
    (State.OPEN, Event.LOSE): State.LOST,
    (State.CLOSING, Event.END): State.ENDING,
    (State.CLOSING, Event.LOSE): State.LOST,
    (State.ENDING, Event.END): State.ENDING,
    (State.ENDING, Event.LOSE): State.LOST,
    (State.REFUSED, Event.END): State.REFUSED,
    (State.REFUSED, Event.LOSE): State.LOST,
    (State.LOST, Event.END): State.LOST,
}
"""State and event give the next state. A pair that is missing cannot happen, and raises."""

CONNECTING, OPEN, CLOSING, ENDING, REFUSED, LOST = State
