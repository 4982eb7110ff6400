"""States: what a board was lately, and what leads from each of these to the newest.

Owns a board's recent snapshots and the frames made of them, each encoded once for all who need it. Must never know who
needs them. Assumes snapshots of one board arrive in order.

A *state* is a number that grows with every snapshot taken, across epochs; versions are the wire's names for them.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

from realtime.boards import standings
from realtime.boards.standings import Snapshot
from realtime.wire import messages, positions
from realtime.wire.frames import TEXT, Frame

HELD: Final = 32
"""Recent snapshots held: how far back `since` and a sliced pass may reach."""

NOTHING_WRITTEN: Final = -1
"""The state of whoever needs a snapshot."""


class Advance(Enum):
    """How a snapshot relates to the one shown before it."""

    FIRST = auto()
    UNCHANGED = auto()
    CHANGED = auto()
    BACKWARDS = auto()
    """Its version went back within the epoch: that of a closed week, whose PostgreSQL was restored from a backup. It is
    shown to all, as a fresh start. Of a live board no such snapshot is ever read."""


class FrameCache:
    """One board's."""

    def __init__(self) -> None:
        self.latest: Snapshot | None = None
        self.newest = 0
        """The state of `latest`."""
        self._held: dict[int, Snapshot] = {}  # the newest HELD, of one epoch
        self._positions: dict[int, bytes] = {}  # of held states, as text
        self._frames: dict[int, Frame] = {}  # state -> what leads from it to the newest

    def __len__(self) -> int:
        return len(self._held)

    def advance(self, snapshot: Snapshot) -> Advance:
        """Takes a snapshot read from the store; a new state where it is another than the one before."""
        latest = self.latest
        result = Advance.CHANGED
        if latest is None:
            result = Advance.FIRST
        elif latest.epoch == snapshot.epoch and snapshot.version == latest.version:
            return Advance.UNCHANGED
        elif latest.epoch == snapshot.epoch and snapshot.version < latest.version:
            result = Advance.BACKWARDS
        if latest is None or latest.epoch != snapshot.epoch or result is Advance.BACKWARDS:
            self._held.clear()
            self._positions.clear()
        self.latest = snapshot
        self.newest += 1
        self._held[self.newest] = snapshot
        if len(self._held) > HELD:
            oldest = next(iter(self._held))
            del self._held[oldest]
            self._positions.pop(oldest, None)
        self._frames.clear()
        return result

    def forget(self) -> None:
        """Holds nothing any more: what comes next does not follow from it."""
        self.latest = None
        self._held.clear()
        self._positions.clear()
        self._frames.clear()

    def at(self, since: messages.Since | None) -> int:
        """The held state that a client says it is at; NOTHING_WRITTEN where there is none."""
        if since is None or self.latest is None or since.epoch != self.latest.epoch:
            return NOTHING_WRITTEN
        if since.version == self.latest.version:
            return self.newest
        for state, snapshot in self._held.items():
            if snapshot.version == since.version:
                return state
        return NOTHING_WRITTEN

    def frame_from(self, state: int) -> Frame:
        """What leads from `state` to the newest, which there must be: a diff, or a snapshot."""
        frame = self._frames.get(state)
        if frame is None:
            assert self.latest is not None
            held = self._held.get(state)
            if held is None:
                frame = self._frames.get(NOTHING_WRITTEN) or self._frame(messages.snapshot(self.latest))
                self._frames[NOTHING_WRITTEN] = frame
            else:
                frame = self._frame(messages.diff(standings.diff(held, self.latest)))
            self._frames[state] = frame
        return frame

    def _frame(self, payload: bytes) -> Frame:
        return Frame(payload, TEXT, self.position_at(self.newest))

    def position_at(self, state: int) -> bytes:
        """The position that a state is, as text; empty where it is no longer held."""
        known = self._positions.get(state)
        if known is None and (held := self._held.get(state)) is not None:
            known = self._positions[state] = positions.written(held.board, held.epoch, held.version)
        return known or b""
