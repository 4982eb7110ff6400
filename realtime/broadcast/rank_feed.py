"""Ranks: a user's own standing, live, wherever on a board that is.

Owns who watches whom in this process. Must never read for nobody, read one user on one board twice in a turn, encode a
standing twice, or write one that was written last. Assumes one event loop; `run` and `run_closed` must be running.

A board announces changes of its top 100 alone, so everybody who is watched is read once a second, from the moment of
their first watch on, some hundreds in one round trip. A closed week moves only with its version, and that is asked once
a second for all such weeks together; its own loop, because making a view may take its time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from time import monotonic
from typing import Final, Protocol

from realtime.boards.board import Board
from realtime.boards.catalogue import PUBLISHED, Directory, is_alias
from realtime.boards.standings import Standing
from realtime.broadcast.subscribers import Subscriber
from realtime.broadcast.watches import RankWatch, Turns, Watched, tell, tell_all
from realtime.errors import LedgerUnavailable, RealtimeError, StoreUnavailable
from realtime.wire import messages
from realtime.wire.frames import Frame

log = logging.getLogger(__name__)

PAUSE: Final = 0.01
"""Seconds between two passes: what comes meanwhile is read together."""


class Live(Protocol):
    """What ranks need of the store."""

    async def standings(self, wanted: Mapping[Board, Sequence[int]]) -> dict[Board, list[Standing]]: ...


class Closed(Protocol):
    """What ranks need of the archive."""

    async def versions(self, of: Sequence[Board]) -> dict[Board, int]: ...
    async def standings(self, board: Board, user_ids: Sequence[int]) -> tuple[int, list[Standing]]: ...


class RankFeed:
    """Reads the ranks of watched users, and writes each to its watchers where it changed."""

    def __init__(
        self,
        live: Live,
        closed: Closed,
        now: Callable[[], datetime],
        *,
        most: int,
        monotonic: Callable[[], float] = monotonic,
        directory: Directory | None = None,
    ) -> None:
        self._directory = directory or Directory()
        self._live = live
        self._closed = closed
        self._now = now
        self._monotonic = monotonic
        self._most = most  # watches of one connection
        self._watched: dict[tuple[Board, int], Watched] = {}
        self._watches: dict[Subscriber, list[RankWatch]] = {}  # of connections that watch anybody
        self._live_turns = Turns()
        self._closed_turns = Turns()
        # What names were resolved by last, and until when that holds.
        self._catalogue, self._until = PUBLISHED, datetime.min.replace(tzinfo=UTC)

    @property
    def watched(self) -> int:
        """Users that are watched, counted once for each board."""
        return len(self._watched)

    # Watching ------------------------------------------------------------------------------------------------

    def watch(self, subscriber: Subscriber, alias: str, user_id: int) -> None:
        """Tells the standing of a user on what `alias` (an id, or one like `current_week`) stands for, now and at each
        change.

        Asking again is answered again; where the standing cannot be read, by an error first, once. Raises RealtimeError
        `unknown_board`, `too_many`.
        """
        board = self._directory.resolve(alias, self._now())
        names = sum(len(watch.names) for watch in self._watches.get(subscriber, ()))
        if names >= self._most and self._find(subscriber, alias, user_id) is None:
            raise RealtimeError("too_many", f"At most {self._most} watches a connection.")
        watch = self._begin(subscriber, board, user_id, alias)
        watch.told, watch.told_until, watch.unanswered = None, 0.0, alias
        if watch.watched.standing is not None:
            tell(watch, self._monotonic())

    def _begin(self, subscriber: Subscriber, board: Board, user_id: int, name: str) -> RankWatch:
        watched = self._watched.get((board, user_id))
        if watched is None:
            watched = self._watched[board, user_id] = Watched(board, user_id)
            (self._closed_turns if board.is_closed(self._now()) else self._live_turns).add(watched)
        watches = self._watches.setdefault(subscriber, [])
        watch = next((watch for watch in watches if watch.watched is watched), None)
        if watch is None:
            watch = RankWatch(subscriber, watched)
            watches.append(watch)
            watched.watches.append(watch)
        watch.names.add(name)
        return watch

    def _find(self, subscriber: Subscriber, alias: str, user_id: int) -> RankWatch | None:
        watches = self._watches.get(subscriber, ())
        return next((w for w in watches if w.watched.user_id == user_id and alias in w.names), None)

    def unwatch(self, subscriber: Subscriber, alias: str, user_id: int) -> Board | None:
        """Ends what `alias` began; returns its board, None if there was none."""
        watch = self._find(subscriber, alias, user_id)
        if watch is None:
            return None
        watch.names.discard(alias)
        if not watch.names:
            self._end(watch)
        return watch.watched.board

    def watched_by(self, subscriber: Subscriber) -> list[tuple[str, int]]:
        """What a subscriber watches: names of boards, as asked for, and users."""
        watches = self._watches.get(subscriber, ())
        return [(name, watch.watched.user_id) for watch in watches for name in watch.names]

    def remove(self, subscriber: Subscriber) -> None:
        """The connection is gone."""
        for watch in list(self._watches.get(subscriber, ())):
            self._end(watch)

    def _end(self, watch: RankWatch) -> None:
        watched, watches = watch.watched, self._watches[watch.subscriber]
        watch.names.clear()
        watches.remove(watch)
        if not watches:
            del self._watches[watch.subscriber]
        watched.watches.remove(watch)
        if not watched.watches:
            del self._watched[watched.board, watched.user_id]

    def _follow_aliases(self, now: datetime) -> None:
        """Moves those who watch by a name such as `current_week` on where its window ended."""
        catalogue = self._directory.current
        if catalogue is self._catalogue and now < self._until:
            return
        self._catalogue, self._until = catalogue, catalogue.edge_after(now)
        for watches in list(self._watches.values()):
            for watch in list(watches):
                for name in list(watch.names):
                    self._move(watch, name, now)

    def _move(self, watch: RankWatch, name: str, now: datetime) -> None:
        """Moves one name of a watch to the board that it stands for now."""
        watched = watch.watched
        board = self._board_of(name, watched.board, now)
        if board == watched.board and board.leaderboard is watched.board.leaderboard:
            return
        if board is not None:
            if board == watched.board:
                watched.board = board
                return
            self._begin(watch.subscriber, board, watched.user_id, name)
        elif is_alias(name):
            return  # between two seasons: the next one begins some day
        else:
            watch.subscriber.write(Frame(messages.unwatched(watched.board, watched.user_id)))
        watch.names.discard(name)
        if not watch.names:
            self._end(watch)

    def _board_of(self, name: str, board: Board, now: datetime) -> Board | None:
        if not is_alias(name):
            return self._directory.current.now_called(board)
        try:
            return self._directory.resolve(name, now)
        except RealtimeError:
            return None

    # Reading -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Reads those on live boards, each once a second. Never ends by itself."""
        await self._take_turns(self._live_turns, self.step)

    async def run_closed(self) -> None:
        """The same for closed weeks."""
        await self._take_turns(self._closed_turns, self.step_closed)

    async def _take_turns(self, turns: Turns, step: Callable[[float], Awaitable[None]]) -> None:
        while True:
            due = turns.next_due
            if due is None or due > self._monotonic():
                turns.wake.clear()
                try:
                    async with asyncio.timeout(None if due is None else due - self._monotonic()):
                        await turns.wake.wait()
                except TimeoutError:
                    pass
            await step(self._monotonic())
            await asyncio.sleep(PAUSE)

    async def step(self, at: float) -> None:
        """Reads up to PASS users of live boards whose turn it is at `at` (monotonic seconds); tells what changed."""
        taken: list[Watched] = []
        try:
            now = self._now()
            self._follow_aliases(now)
            taken = self._live_turns.take(at)
            ended = [watched for watched in taken if watched.board.is_closed(now)]
            for watched in ended:
                taken.remove(watched)
                self._closed_turns.add(watched)
            await self._read(taken)
        except (StoreUnavailable, LedgerUnavailable) as error:
            _forget(taken, error)
        finally:
            self._live_turns.put_back(taken, at)
        await tell_all(taken, at)

    async def _read(self, taken: Sequence[Watched]) -> None:
        of_board = _by_board(taken)
        wanted = {board: [watched.user_id for watched in of] for board, of in of_board.items()}
        for board, standings in (await self._live.standings(wanted)).items() if wanted else ():
            for watched, standing in zip(of_board[board], standings, strict=True):
                watched.standing = standing

    async def step_closed(self, at: float) -> None:
        """The same for closed weeks, which are read where their version moved."""
        taken = self._closed_turns.take(at)
        of_board = _by_board(taken)
        try:
            versions = await self._closed.versions(list(of_board))
            for board, of in of_board.items():
                version = versions.get(board)
                await self._read_closed(board, [w for w in of if w.version != version or w.standing is None])
        except (StoreUnavailable, LedgerUnavailable) as error:
            _forget(taken, error)
        finally:
            self._closed_turns.put_back(taken, at)
        await tell_all(taken, at)

    async def _read_closed(self, board: Board, moved: Sequence[Watched]) -> None:
        if not moved:
            return
        try:
            version, standings = await self._closed.standings(board, [watched.user_id for watched in moved])
        except RealtimeError as error:  # a week before the first score
            frame = Frame(messages.error(error, board.id))
            for watch in [watch for watched in moved for watch in watched.watches]:
                watch.subscriber.write(frame)
                self._end(watch)
            return
        for watched, standing in zip(moved, standings, strict=True):
            watched.version, watched.standing = version, standing


def _by_board(taken: Iterable[Watched]) -> dict[Board, list[Watched]]:
    of_board: dict[Board, list[Watched]] = {}
    for watched in taken:
        of_board.setdefault(watched.board, []).append(watched)
    return of_board


def _forget(taken: Iterable[Watched], error: Exception) -> None:
    """They could not be read: nobody is told what may be old."""
    log.debug("cannot read ranks: %s", error)
    for watched in taken:
        watched.standing = None
