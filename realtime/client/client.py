"""A client: boards that move and scores that arrive, over lines that break.

    async with connect("https://scores.example", token=token) as client:
        outcome = await client.submit(100, reason="win", user_id=7)
        async for board in client.subscribe("all_time"):
            print(board.version, board.entries[:3])

Any leaderboard goes by its slug: `client.submit(score=62345, leaderboard="sprint")`, `subscribe("sprint:current_day")`;
`client.description("sprint:current_day")` says how its scores are written, and until when it runs.

Owns the boards being followed, and the submissions that have no outcome yet. Must never show a board made of anything
but a snapshot and its diffs, or drop a submission whose outcome is not known. Assumes wire protocol v1.

A line that breaks is opened again, for ever, after a random part of up to 30 s. The boards then go on from the version
held, and what was submitted without an answer is sent again under the same id: it counts once.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final

from realtime.boards.definitions import DEFAULT_SLUG
from realtime.boards.standings import Snapshot
from realtime.boards.submissions import Accepted, Outcome, Rejected
from realtime.client.boards import FollowedBoard, Reader, Refused
from realtime.client.connection import Message, ReconnectingConnection, Timing
from realtime.client.descriptions import Description, description_in

__all__ = ["Accepted", "Client", "Description", "Outcome", "Refused", "Rejected", "Snapshot", "Timing", "connect"]

log = logging.getLogger(__name__)

PASSING: Final = frozenset({"overloaded", "unavailable", "too_many"})
"""Refusals that time heals."""

UNANSWERED: Final = 1_000
"""Submissions under way at a time; a further one waits."""

_ALIAS: Final = re.compile(r"([a-z][a-z0-9-]*:)?(current|previous)_")
"""A name that stands for one window after the other."""

_REAL: Final = Timing()


@asynccontextmanager
async def connect(
    url: str, *, token: str | None = None, timing: Timing = _REAL, **options: Any
) -> AsyncIterator[Client]:
    """A client for the block. It connects meanwhile: what is asked of it waits for the line, however long that takes.

    `options` go to `websockets.connect` (ssl, proxy, ...). Raises ValueError for an address that cannot be one.
    """
    client = Client(url, token, timing, options)
    task = asyncio.get_running_loop().create_task(client.run())
    try:
        yield client
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class _Unanswered:
    """A submission without an outcome."""

    def __init__(self, message: Message) -> None:
        self.message = message
        self.outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()


class Client:
    """Follows boards and hands in scores, over connections that may break. `connect` makes one, and ends it."""

    def __init__(self, url: str, token: str | None, timing: Timing, options: dict[str, Any]) -> None:
        self._stale = False  # the server has lost what it shows of `default`
        self._token = token
        self._timing = timing
        self._line = ReconnectingConnection(url, self._hear, timing, options)
        self._ended = False
        self._identified = False  # the server has taken or refused the token: submissions get an answer
        self._followed: dict[str, FollowedBoard] = {}
        self._unanswered: dict[str, _Unanswered] = {}
        self._room = asyncio.Semaphore(UNANSWERED)

    @property
    def stale(self) -> bool:
        """Whether a board that is followed stands still: the server has lost its store, or that board's part of it."""
        return self._stale or any(followed.stale for followed in self._followed.values())

    @property
    def is_connected(self) -> bool:
        """Whether there is a line on which the server has greeted."""
        return self._line.is_open

    async def connected(self) -> None:
        """Returns when there is such a line."""
        await self._line.opened.wait()

    async def run(self) -> None:
        """Keeps the line until cancelled; then whoever still waits is told that nothing more comes."""
        try:
            await self._line.run()
        except Exception:
            log.exception("the client failed", extra={"action": "client"})
        finally:
            self._ended = True
            for entry in self._unanswered.values():
                if not entry.outcome.done():
                    entry.outcome.set_exception(_closed())
            for followed in self._followed.values():
                followed.refuse(_closed())

    # What callers ask ------------------------------------------------------------------------------------------

    async def subscribe(self, name: str, *, describe: bool = False) -> AsyncIterator[Snapshot]:
        """A board as it is, and again after every change. `name` is an id, or an alias such as `current_week` or
        `sprint:current_day`, which moves on by itself; between two seasons nothing comes. `describe`: `default` too is
        described.

        Raises Refused where there is no such board, and when the client is closed. A board is never changed: keep it
        as long as you like. (Wrap in contextlib.aclosing to unsubscribe the moment you leave the loop.)
        """
        name = _named(name)
        reader = Reader()
        followed = self._followed.get(name)
        if followed is None or (describe and not followed.describe):
            followed = self._followed.setdefault(name, FollowedBoard(name))
            followed.describe = describe
            self._ask(followed)
        if followed.board is not None:
            reader.show(followed.board)
        followed.readers.add(reader)
        if self._ended:
            reader.refuse(_closed())
        try:
            while True:
                yield await reader.next()
        finally:
            followed.readers.discard(reader)
            if not followed.readers and self._followed.get(name) is followed:
                del self._followed[name]
                self._line.send({"type": "unsubscribe", "board": name})

    def description(self, name: str) -> Description | None:
        """What the board is that is followed by this name; None until the server has said it, which of `default` it
        does where a subscription asked."""
        followed = self._followed.get(_named(name))
        return None if followed is None else followed.description

    async def submit(
        self,
        score_added: int | None = None,
        *,
        score: int | None = None,
        leaderboard: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        board: str | None = None,
        with_all: bool = False,
        reason: str | None = None,
        user_id: int | None = None,
        submission_id: str | None = None,
    ) -> Outcome:
        """What a submission came to, however often the line breaks until then. Without `user_id`: the token's own.

        `leaderboard` is a slug, `default` where nothing is said. Where scores are summed `score_added` is added, where
        the best or the last counts `score` is it, both in the smallest unit. `metadata`: at most 256 bytes as JSON.
        `board`: it counts only in that window. `with_all`: the outcome has the scores of all leaderboards that rank it.
        Raises Refused when the client is closed before that.
        """
        submission_id = submission_id or secrets.token_hex(16)
        fields = {
            "submission_id": submission_id,
            "leaderboard": leaderboard,
            "score": score,
            "score_added": score_added,
            "metadata": metadata,
            "board": board,
            "with": "all" if with_all else None,
            "reason": reason,
            "user_id": user_id,
        }
        async with self._room:
            while same := self._unanswered.get(submission_id):
                await asyncio.wait([same.outcome])
            if self._ended:
                raise _closed()
            entry = _Unanswered({"type": "submit"} | {k: value for k, value in fields.items() if value is not None})
            self._unanswered[submission_id] = entry
            try:
                self._send(entry)
                return await entry.outcome
            finally:
                del self._unanswered[submission_id]

    def authenticate(self, token: str) -> None:
        """Goes on with another token, now and on every line to come."""
        self._token = token
        self._identify()

    # What the server says --------------------------------------------------------------------------------------

    def _hear(self, message: Message) -> None:
        match message.get("type"):
            case "hello":
                self._greeted()
            case "snapshot" | "diff":
                for followed in self._followed.values():
                    if followed.id == message["board"] and not followed.take(message):
                        self._ask(followed)
            case "accepted" | "rejected":
                self._settle(message)
            case "subscribed":
                self._subscribed(message)
            case "rollover":
                if (moving := self._followed.get(message["as"])) and moving.id != message["to"]:
                    self._moves(moving, message["to"])
            case "authenticated":
                self._identified = True
                self._resend()
            case "status":
                self._status(not message["live"], message.get("board"))
            case "reconnect":
                self._line.leave(message["after_ms"] / 1000)
            case "error":
                self._error(message)

    def _status(self, stale: bool, board: str | None) -> None:
        if board is None:  # those of `default`
            self._stale = stale
        for followed in self._followed.values():
            if followed.id == board:
                followed.stale = stale

    def _greeted(self) -> None:
        self._stale = False
        self._identify()
        for followed in self._followed.values():
            followed.stale = False
            self._ask(followed, followed.board)
        self._resend()

    def _identify(self) -> None:
        self._identified = self._token is None
        if not self._identified:
            self._line.send({"type": "auth", "token": self._token})

    def _error(self, message: Message) -> None:
        code, board = message["code"], message.get("board")
        if board is None:
            self._error_of_token(code)
        for followed in [f for f in self._followed.values() if board in (f.name, f.id)]:
            if code in PASSING:
                self._ask_later(followed, 1)
            elif code == "unknown_board" and followed.was_known and _ALIAS.match(followed.name):
                self._ask_later(followed, 10)  # the next season has not begun
            else:
                followed.refuse(Refused(code, message["message"]))
                del self._followed[followed.name]

    def _error_of_token(self, code: str) -> None:
        if code in PASSING and not self._identified:
            self._line.after(1 + 4 * self._timing.random(), self._identify)
        elif code in ("unauthorized", "forbidden", "expired"):
            log.warning("the server refuses the token: %s", code, extra={"action": "auth"})
            self._identified = True  # as far as that goes: submissions are refused one by one
            self._resend()

    # Boards ----------------------------------------------------------------------------------------------------

    def _ask(self, followed: FollowedBoard, since: Snapshot | None = None) -> None:
        if self._followed.get(followed.name) is not followed:
            return
        followed.asking = True
        message: dict[str, Any] = {"type": "subscribe", "board": followed.name}
        if followed.describe:
            message["describe"] = True
        if since is not None:
            message["since"] = {"epoch": since.epoch, "version": since.version}
            if since.board != followed.name:  # an alias, which may stand for another board by now
                message["since"]["board"] = since.board
        self._line.send(message)

    def _ask_later(self, followed: FollowedBoard, seconds: float) -> None:
        def ask() -> None:
            followed.is_due = False
            self._ask(followed, followed.board)

        if not followed.is_due:
            followed.is_due = True
            self._line.after(seconds * (1 + 9 * self._timing.random()), ask)

    def _moves(self, followed: FollowedBoard, to: str | None) -> None:
        known = followed.description and replace(followed.description, starts=None, ends=None)
        followed.stands_for(to, known)
        followed.asking = to is not None  # its snapshot comes by itself
        if followed.describe and followed.asking:
            self._ask(followed)  # until when it runs is said of `default` only where that is asked

    def _subscribed(self, message: Message) -> None:
        followed = self._followed.get(message["as"])
        if followed is None:
            return
        followed.stands_for(message["board"], description_in(message))
        if message["resumed"] and not followed.resumed():
            self._ask(followed)

    # Submissions -----------------------------------------------------------------------------------------------

    def _send(self, entry: _Unanswered) -> None:
        if self._identified and not entry.outcome.done():
            self._line.send(entry.message)

    def _resend(self) -> None:
        for entry in self._unanswered.values():
            self._send(entry)

    def _settle(self, message: Message) -> None:
        entry = self._unanswered.get(message["submission_id"])
        if entry is None or entry.outcome.done():
            return
        if message["type"] == "accepted":
            entry.outcome.set_result(_accepted(message))
        elif message["code"] in PASSING:
            seconds = (message["retry_after_ms"] or 1_000) / 1000
            self._line.after(seconds * (1 + self._timing.random()), lambda: self._send(entry))
        else:
            entry.outcome.set_result(Rejected(*(message[name] for name in Rejected.__match_args__)))


def _named(name: str) -> str:
    """`default`'s boards go without a slug."""
    return name.removeprefix("default:")


def _closed() -> Refused:
    return Refused("closed", "The client is closed.")


def _accepted(message: Message) -> Accepted:
    return Accepted(
        message["submission_id"],
        message["user_id"],
        message.get("total_score", 0),
        message.get("week_score", 0),
        message["duplicate"],
        message.get("scores"),
        message.get("improved"),
        message.get("leaderboard", DEFAULT_SLUG),
    )
