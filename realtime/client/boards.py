"""Followed boards: what a client holds of a board, and who reads it.

Owns the client's half of the wire's boards: a board after each message, and the boards that a reader has not seen yet.
Must never do I/O, nor make a board of anything but a snapshot and the diffs that follow it without a gap. Assumes
messages of wire protocol v1, parsed; fields it does not know are ignored.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import orjson

from realtime.boards import standings
from realtime.boards.standings import NOTHING, PUBLISHED_ORDER, Diff, Order, Snapshot, Upsert
from realtime.client.descriptions import Description, order_of

BOARDS_HELD: Final = 64
"""Boards kept for a reader who falls behind; it then misses the oldest, never the newest."""


class Gap(Exception):
    """Between the board held and a diff something is missing: only a snapshot helps."""


class Refused(Exception):
    """The server refused a subscription for good; `code` says why."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


def board_after(board: Snapshot | None, message: Mapping[str, Any], order: Order = PUBLISHED_ORDER) -> Snapshot:
    """The board after a `snapshot` or `diff`: the same object where nothing is new in it. Raises Gap.

    `order` is that of the board which a snapshot begins.
    """
    if board is not None and message["board"] != board.board:
        return board
    if message["type"] == "snapshot":
        return _snapshot(message, order)
    if board is None or message["epoch"] != board.epoch:
        raise Gap
    if message["version"] <= board.version:
        return board
    change = _diff(message, board)
    if change.shows_metadata and board.metadata is None:  # it was empty: nothing said yet that it shows any
        board = replace(board, metadata=NOTHING)
    try:
        result = standings.apply(board, change)
    except (ValueError, KeyError):
        raise Gap from None
    if result.scores.keys() != result.names.keys():
        raise Gap  # a newcomer whom nobody named
    return result


def in_order(board: Snapshot, order: Order) -> Snapshot:
    """What `board` holds, in another order. Raises Gap where it does not hold what decides."""
    if order == board.order:
        return board
    try:
        return replace(board, order=order, scores=standings.in_order(board.scores.items(), order, board.at))
    except KeyError:
        raise Gap from None


def _snapshot(message: Mapping[str, Any], order: Order) -> Snapshot:
    entries = message["entries"]
    shows_metadata = any("metadata" in entry for entry in entries)
    return Snapshot(
        message["board"],
        message["epoch"],
        message["version"],
        {entry["user_id"]: entry["score"] for entry in entries},
        {entry["user_id"]: entry["username"] for entry in entries},
        order,
        {entry["user_id"]: (entry["at"][0], entry["at"][1]) for entry in entries if "at" in entry},
        {entry["user_id"]: _json(entry.get("metadata")) for entry in entries} if shows_metadata else None,
    )


def _json(metadata: Mapping[str, Any] | None) -> str | None:
    return None if metadata is None else orjson.dumps(metadata).decode()


def _diff(message: Mapping[str, Any], board: Snapshot) -> Diff:
    lines = message["upsert"]
    upsert = [
        Upsert(
            line["user_id"],
            line.get("username"),
            line["score"],
            (line["at"][0], line["at"][1]) if "at" in line else None,
            _json(line.get("metadata")),
        )
        for line in lines
    ]
    remove = [user_id for user_id in message["remove"] if user_id in board.scores]
    shows_metadata = any("metadata" in line for line in lines)
    return Diff(message["board"], message["epoch"], message["from"], message["version"], upsert, remove, shows_metadata)


class Reader:
    """One loop over a board."""

    def __init__(self) -> None:
        self._boards: deque[Snapshot] = deque(maxlen=BOARDS_HELD)
        self._refused: Refused | None = None
        self._wake = asyncio.Event()

    def show(self, board: Snapshot) -> None:
        """The board is this now."""
        self._boards.append(board)
        self._wake.set()

    def refuse(self, why: Refused) -> None:
        """There will be no more boards."""
        self._refused = why
        self._wake.set()

    async def next(self) -> Snapshot:
        """The oldest board not read yet. Raises Refused after the last."""
        while not self._boards:
            if self._refused is not None:
                raise self._refused
            self._wake.clear()
            await self._wake.wait()
        return self._boards.popleft()


class FollowedBoard:
    """A board under the name by which it was asked for, with its readers."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.id: str | None = None  # the board that the name stands for, once the server said so
        self.description: Description | None = None
        self.describe = False  # of `default` too, which is not described unasked
        self.was_known = False  # the name has stood for a board: it may again, as that of the next season
        self.board: Snapshot | None = None
        self.stale = False  # it stands still: the server has lost its part of the store
        self.asking = True  # a first state is under way: diffs that do not fit are no reason to ask again
        self.is_due = False  # it will be asked for again, at a moment that was chosen already
        self.readers: set[Reader] = set()

    def stands_for(self, board_id: str | None, description: Description | None = None) -> None:
        """Which board the name stands for, and what that is; None for none. Of another than before nothing is known
        yet."""
        self.stale = self.stale and board_id == self.id
        self.id = board_id
        self.description = description
        self.was_known = True
        if self.board is not None and self.board.board != board_id:
            self.board = None

    def resumed(self) -> bool:
        """The server says that the board goes on from what is held; False where a snapshot is needed all the same."""
        if self.board is None:
            return False  # the name stands for another board now, which happens to be at the same version
        try:
            self.board = in_order(self.board, order_of(self.description))
        except Gap:
            self.board = None
            return False
        self.asking = False
        return True

    def take(self, message: Mapping[str, Any]) -> bool:
        """Takes a `snapshot` or `diff` of its board, and shows what it comes to; False where a snapshot is needed."""
        try:
            board = board_after(self.board, message, order_of(self.description))
        except Gap:
            return self.asking
        self.asking = False
        if board is not self.board:
            self.board = board
            for reader in self.readers:
                reader.show(board)
        return True

    def refuse(self, why: Refused) -> None:
        """Ends every reader's loop."""
        for reader in self.readers:
            reader.refuse(why)
