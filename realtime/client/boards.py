"""Followed boards: what a client holds of a board, and who reads it.

Owns the client's half of the wire's boards: a board after each message, and the boards that a reader has not seen yet.
Must never do I/O, nor make a board of anything but a snapshot and the diffs that follow it without a gap. Assumes
messages of wire protocol v1, parsed; fields it does not know are ignored.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from realtime.boards import standings
from realtime.boards.standings import Diff, Snapshot, Upsert

BOARDS_HELD: Final = 64
"""Boards kept for a reader who falls behind; it then misses the oldest, never the newest."""


class Gap(Exception):
    """Between the board held and a diff something is missing: only a snapshot helps."""


class Refused(Exception):
    """The server refused a subscription for good; `code` says why."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


def board_after(board: Snapshot | None, message: Mapping[str, Any]) -> Snapshot:
    """The board after a `snapshot` or `diff`: the same object where nothing is new in it. Raises Gap."""
    if board is not None and message["board"] != board.board:
        return board
    if message["type"] == "snapshot":
        return _snapshot(message)
    if board is None or message["epoch"] != board.epoch:
        raise Gap
    if message["version"] <= board.version:
        return board
    try:
        result = standings.apply(board, _diff(message, board))
    except ValueError:
        raise Gap from None
    if result.scores.keys() != result.names.keys():
        raise Gap  # a newcomer whom nobody named
    return result


def _snapshot(message: Mapping[str, Any]) -> Snapshot:
    entries = message["entries"]
    return Snapshot(
        message["board"],
        message["epoch"],
        message["version"],
        {entry["user_id"]: entry["score"] for entry in entries},
        {entry["user_id"]: entry["username"] for entry in entries},
    )


def _diff(message: Mapping[str, Any], board: Snapshot) -> Diff:
    upsert = [Upsert(line["user_id"], line.get("username"), line["score"]) for line in message["upsert"]]
    remove = [user_id for user_id in message["remove"] if user_id in board.scores]
    return Diff(message["board"], message["epoch"], message["from"], message["version"], upsert, remove)


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
        self.board: Snapshot | None = None
        self.asking = True  # a first state is under way: diffs that do not fit are no reason to ask again
        self.readers: set[Reader] = set()

    def stands_for(self, board_id: str) -> None:
        """Which board the name stands for. Of another than before nothing is known yet."""
        self.id = board_id
        if self.board is not None and self.board.board != board_id:
            self.board = None

    def take(self, message: Mapping[str, Any]) -> bool:
        """Takes a `snapshot` or `diff` of its board, and shows what it comes to; False where a snapshot is needed."""
        try:
            board = board_after(self.board, message)
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
