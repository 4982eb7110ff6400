"""A client's own board: what somebody holds who knows nothing but the messages written to them.

Owns the client's half of the protocol and its laws, each an assertion: no gap, nothing twice, a name wherever one is
unknown, entries in board order. Must never share code with the server's half.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Message = dict[str, Any]


@dataclass
class Followed:
    """One board as a client holds it."""

    epoch: str
    version: int
    scores: dict[int, int]
    names: dict[int, str]
    ascending: bool = False
    """By the description that came with `subscribed`."""
    at: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Of boards where the moment decides between equal scores."""

    @property
    def lines(self) -> list[tuple[int, str, int]]:
        """`(user id, username, score)` in board order: by score, then by `at`, the smaller first, or where there is
        none by the id as text, which runs as the scores do."""
        sign = 1 if self.ascending else -1
        if self.at:
            ids = sorted(self.scores, key=lambda i: (sign * self.scores[i], self.at[i]))
        else:
            ids = sorted(self.scores, key=lambda i: (self.scores[i], str(i)), reverse=not self.ascending)
        return [(i, self.names[i], self.scores[i]) for i in ids]


@dataclass
class Follower:
    """Takes messages; `boards` is what they come to."""

    boards: dict[str, Followed] = field(default_factory=dict)
    snapshots: int = 0
    diffs: int = 0
    ascending: set[str] = field(default_factory=set)
    """Boards whose leaderboard was described as one where smaller scores are better."""

    def take(self, message: Message) -> None:
        """Applies a message. AssertionError where it breaks the protocol."""
        if message["type"] == "subscribed" and "leaderboard" in message:
            is_ascending = message["leaderboard"]["order"] == "ascending"
            (self.ascending.add if is_ascending else self.ascending.discard)(message["board"])
        elif message["type"] == "snapshot":
            self._snapshot(message)
        elif message["type"] == "diff":
            self._diff(message)

    def _snapshot(self, message: Message) -> None:
        self.snapshots += 1
        entries = message["entries"]
        assert len(entries) <= 100
        board = Followed(
            message["epoch"],
            message["version"],
            {entry["user_id"]: entry["score"] for entry in entries},
            {entry["user_id"]: entry["username"] for entry in entries},
            message["board"] in self.ascending,
            {entry["user_id"]: tuple(entry["at"]) for entry in entries if "at" in entry},
        )
        assert len(board.scores) == len(entries), "a user is there twice"
        assert [line[0] for line in board.lines] == [entry["user_id"] for entry in entries], "not in board order"
        self.boards[message["board"]] = board

    def _diff(self, message: Message) -> None:
        self.diffs += 1
        board = self.boards.get(message["board"])
        assert board is not None, "a diff before any snapshot"
        assert message["epoch"] == board.epoch, "a diff of another epoch"
        assert message["from"] == board.version, f"a gap, or twice: at {board.version}, from {message['from']}"
        assert message["version"] > message["from"], "a diff leads on"
        for user_id in message["remove"]:
            assert user_id in board.scores, "who is removed was there"
            del board.scores[user_id], board.names[user_id]
            board.at.pop(user_id, None)
        for upsert in message["upsert"]:
            user_id = upsert["user_id"]
            if "username" in upsert:
                assert board.names.get(user_id) != upsert["username"], "a name that is known already"
                board.names[user_id] = upsert["username"]
            else:
                assert user_id in board.names, "a newcomer without a name"
                is_later = "at" in upsert and board.at.get(user_id) != tuple(upsert["at"])
                is_other = is_later or "metadata" in upsert
                assert board.scores[user_id] != upsert["score"] or is_other, "nothing changed"
            board.scores[user_id] = upsert["score"]
            if "at" in upsert:
                board.at[user_id] = tuple(upsert["at"])
        assert len(board.scores) <= 100
        board.version = message["version"]
        shown = [user_id for user_id, _, _ in board.lines]
        changed = [upsert["user_id"] for upsert in message["upsert"]]
        assert changed == [user_id for user_id in shown if user_id in set(changed)], "not in board order"
