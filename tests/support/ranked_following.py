"""A client's own boards of any leaderboard: what somebody holds who knows nothing but the messages written to them.

Owns the client's half of the protocol for boards of any order, and its laws, each an assertion: no gap, nothing twice,
a name wherever one is unknown, a snapshot wherever a board was described anew. Must never share code with the server's
half.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

Message = dict[str, Any]

Line = tuple[int, str, int, tuple[int, int] | None]
"""User id, username, score, and when that was reached where ties are by time."""


@dataclass
class Order:
    """How a board is ordered, as it was described."""

    ascending: bool = False
    by_time: bool = False


@dataclass
class Entry:
    """One line as it was told last."""

    username: str
    score: int
    at: tuple[int, int] | None
    metadata: str | None
    """As JSON with sorted keys; None where none is shown."""


@dataclass
class Followed:
    """One board as a client holds it."""

    epoch: str
    version: int
    order: Order
    entries: dict[int, Entry]

    @property
    def lines(self) -> list[Line]:
        """In board order: the better score first, of equal ones the smaller `at`, or the id as text."""
        sign = 1 if self.order.ascending else -1
        if self.order.by_time:
            ids = sorted(self.entries, key=lambda i: (sign * self.entries[i].score, self.entries[i].at))
        else:
            descending = not self.order.ascending
            ids = sorted(self.entries, key=lambda i: (self.entries[i].score, str(i)), reverse=descending)
        return [(i, self.entries[i].username, self.entries[i].score, self.entries[i].at) for i in ids]

    @property
    def metadata(self) -> dict[int, str]:
        """What is shown besides, by user."""
        return {i: entry.metadata for i, entry in self.entries.items() if entry.metadata is not None}


@dataclass
class RankedFollower:
    """Takes messages; `boards` is what they come to."""

    boards: dict[str, Followed] = field(default_factory=dict)
    orders: dict[str, Order] = field(default_factory=dict)
    aliases: dict[str, str | None] = field(default_factory=dict)
    """What each name stands for that was asked for; None while it stands for nothing."""
    awaited: set[str] = field(default_factory=set)
    """Boards of which a snapshot must come before anything else."""

    def take(self, message: Message) -> None:
        """Applies a message. AssertionError where it breaks the protocol."""
        kind = message["type"]
        if kind == "subscribed":
            self._subscribed(message)
        elif kind == "unsubscribed":
            self.boards.pop(message["board"], None)
        elif kind == "rollover":
            assert self.aliases[message["as"]] in (message["from"], None), "left another board than was followed"
            assert message["from"] != message["to"], "moved from a board to itself"
            self.aliases[message["as"]] = message["to"]
        elif kind == "snapshot":
            self._snapshot(message)
        elif kind == "diff":
            self._diff(message)

    def _subscribed(self, message: Message) -> None:
        board = message["board"]
        self.aliases[message["as"]] = board
        if "leaderboard" in message:
            described = message["leaderboard"]
            self.orders[board] = Order(described["order"] == "ascending", described["ties"] != "user_id")
        if not message["resumed"]:
            self.awaited.add(board)
        else:
            assert board in self.boards, "resumed from nothing"
            assert self.boards[board].order == self.orders.get(board, Order()), "resumed in another order"
            self.awaited.discard(board)

    def _snapshot(self, message: Message) -> None:
        board, entries = message["board"], message["entries"]
        self.awaited.discard(board)
        assert len(entries) <= 100
        order = self.orders.get(board, Order())
        held = Followed(message["epoch"], message["version"], order, {e["user_id"]: _entry(e) for e in entries})
        assert len(held.entries) == len(entries), "a user is there twice"
        assert [line[0] for line in held.lines] == [entry["user_id"] for entry in entries], f"{board} is not in order"
        assert all((e.at is not None) == order.by_time for e in held.entries.values()), f"{board} is described wrongly"
        self.boards[board] = held

    def _diff(self, message: Message) -> None:
        board = message["board"]
        assert board not in self.awaited, "a diff where a snapshot is due"
        held = self.boards.get(board)
        assert held is not None, "a diff before any snapshot"
        assert message["epoch"] == held.epoch, "a diff of another epoch"
        assert message["from"] == held.version, f"a gap, or twice: at {held.version}, from {message['from']}"
        assert message["version"] > message["from"], "a diff leads on"
        for user_id in message["remove"]:
            assert user_id in held.entries, "who is removed was there"
            del held.entries[user_id]
        for upsert in message["upsert"]:
            before = held.entries.get(upsert["user_id"])
            if "username" in upsert:
                assert before is None or before.username != upsert["username"], "a name that is known already"
            else:
                assert before is not None, "a newcomer without a name"
                assert before != _entry(upsert | {"username": before.username}), "nothing changed"
            held.entries[upsert["user_id"]] = _entry({"username": before and before.username} | upsert)
        assert len(held.entries) <= 100
        held.version = message["version"]
        shown = [line[0] for line in held.lines]
        changed = [upsert["user_id"] for upsert in message["upsert"]]
        assert changed == [user_id for user_id in shown if user_id in set(changed)], "not in board order"


def _entry(fields: Message) -> Entry:
    at, metadata = fields.get("at"), fields.get("metadata")
    written = None if metadata is None else json.dumps(metadata, sort_keys=True)
    return Entry(fields["username"], fields["score"], None if at is None else (at[0], at[1]), written)
