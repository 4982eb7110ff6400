"""A small world for the simulation: processes whose calls to a store arrive when, and if, somebody decides.

Owns the letters (calls on their way), the processes made of the real services, the clients that follow them, what time
it is in PostgreSQL, its backup, and what must be true of all. Must never sleep, or read the host's clock: between two
decisions everything has come to rest. Assumes a real PostgreSQL, and two real stores that restart themselves on
`DEBUG CRASH-AND-RECOVER` (Redis 6.2 and later).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, cast

import asyncpg
import redis.asyncio

from realtime.boards.board import ALL_TIME, CURRENT_WEEK, Board, resolve, week_at
from realtime.boards.standings import Position, Profile, Row, Snapshot
from realtime.boards.submissions import Accepted, Outcome, Rejected, Submission
from realtime.broadcast.broadcaster import Broadcaster
from realtime.broadcast.reading import BoardReader
from realtime.broadcast.rollover import Rollover
from realtime.broadcast.subscribers import Subscriber
from realtime.errors import LedgerUnavailable, RealtimeError, StoreUnavailable
from realtime.intake.batching import Batching
from realtime.intake.intake import Intake
from realtime.ledger.closing import view_of
from realtime.ledger.ledger import Ledger
from realtime.people.accounts import Accounts
from realtime.people.passwords import Passwords
from realtime.repair.comparison import Comparison
from realtime.repair.drift import Drift
from realtime.repair.generation import Generations
from realtime.repair.rebuild import Rebuilder
from realtime.repair.resync import Resync
from realtime.repair.sweeper import Sweeper
from realtime.store.announcements import Announcements
from realtime.store.audit import Audit
from realtime.store.filling import Filling
from realtime.store.fitness import Content, run_of
from realtime.store.link import Link
from realtime.store.replies import ReadAfterWrite
from realtime.store.snapshots import SnapshotReader, by_partition
from realtime.store.store import Store
from realtime.wire.frames import Frame
from realtime.wire.messages import Since
from tests.support.closed_weeks import views_of
from tests.support.following import Follower, Message
from tests.support.keys import scores_key, versions_key
from tests.support.recorder import parts
from tests.support.shifting import Shift
from tests.support.stores import as_told

REST = 10.0
"""Seconds the world may take to come to rest: more means that somebody waits for somebody."""

CHUNK = 40
"""Rows a rebuild fills at once: several calls for a world of a hundred."""

# The end of last week lies behind the real clock, and the keys of last week do not expire before next Tuesday.
NOW = datetime.now(UTC)
LAST_WEEK = week_at(NOW - timedelta(days=7))
THIS_WEEK = week_at(NOW)
MOMENTS = [
    THIS_WEEK.starts - timedelta(hours=1),
    THIS_WEEK.starts - timedelta(milliseconds=2),  # a process's clock lags a little: PostgreSQL is in this week
    THIS_WEEK.starts + timedelta(seconds=60),  # three live boards
    THIS_WEEK.starts + timedelta(seconds=121),  # last week is closed
]

ACTIVE = [9, 10, 99, 100, 104]
"""Users things happen to; their ids order otherwise as text. The rest, up to 104, stand still around place 100."""

_op: ContextVar[Op | None] = ContextVar("op", default=None)


# Letters ---------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Op:
    """Something a process does: a batch, a sweep, a rebuild. At rest it waits for letters, or has ended."""

    name: str
    task: asyncio.Task[Any] | None = None
    sent: set[Letter] = field(default_factory=set)
    """Those that it waits for: one, or several where it does things at once."""
    busy: set[asyncio.Task[Any]] = field(default_factory=set)
    """Of such things those that have got an answer, and go on."""

    @property
    def waits(self) -> bool:
        """Whether nothing goes on before a letter is answered."""
        return bool(self.sent) and not self.busy


@dataclass(eq=False)
class Letter:
    """A call to the store on its way."""

    op: Op
    call: str
    execute: Callable[[], Awaitable[Any]]
    reply: asyncio.Future[Any]
    task: asyncio.Task[Any]
    """What waits for the reply."""


class Post:
    """Letters of all processes, in the order they were written."""

    def __init__(self) -> None:
        self.letters: list[Letter] = []
        self.late: list[Letter] = []  # given up by the sender, yet still on their way
        self.ops: set[Op] = set()
        self._moved = asyncio.Event()
        self.failures: list[BaseException] = []

    def start(self, name: str, work: Coroutine[Any, Any, Any]) -> Op:
        """Begins something whose store calls are letters."""
        op = Op(name)

        async def run() -> Any:
            _op.set(op)
            return await work

        op.task = asyncio.get_running_loop().create_task(run())
        self.ops.add(op)
        op.task.add_done_callback(lambda task: self._ended(op, task))
        return op

    def _ended(self, op: Op, task: asyncio.Task[Any]) -> None:
        self.ops.discard(op)
        self.letters = [letter for letter in self.letters if letter.op is not op]
        self._moved.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            if not isinstance(error, (StoreUnavailable, LedgerUnavailable)):
                self.failures.append(error)

    async def send(self, call: str, execute: Callable[[], Awaitable[Any]]) -> Any:
        """Sends a letter and waits for the reply; outside of an op the call is made at once."""
        op = _op.get()
        if op is None:
            return await execute()
        task = asyncio.current_task()
        assert task is not None
        letter = Letter(op, call, execute, asyncio.get_running_loop().create_future(), task)
        self.letters.append(letter)
        op.sent.add(letter)
        self._idle(op, task)
        try:
            return await letter.reply
        finally:
            op.sent.discard(letter)

    def _idle(self, op: Op, task: asyncio.Task[Any]) -> None:
        """A part of an op waits, or has ended."""
        op.busy.discard(task)
        self._moved.set()

    async def deliver(self, letter: Letter, *, answered: bool = True) -> None:
        """The call is made; its reply arrives, or is lost on the way back."""
        self.letters.remove(letter)
        result: Any = None
        problem: BaseException | None = None
        try:
            result = await letter.execute()
        except (StoreUnavailable, LedgerUnavailable) as error:
            problem = error
        if not answered:
            problem = StoreUnavailable("the reply was lost")
        self._answer(letter, result, problem)
        await self.rest()

    async def drop(self, letter: Letter, *, late: bool = False) -> None:
        """The call gets no answer in time; it never arrives, or (`late`) may arrive some time."""
        self.letters.remove(letter)
        if late:
            self.late.append(letter)
        self._answer(letter, None, StoreUnavailable("no answer in time"))
        await self.rest()

    def _answer(self, letter: Letter, result: Any, problem: BaseException | None) -> None:
        op, task = letter.op, letter.task
        op.sent.discard(letter)
        if letter.reply.done():  # whoever waited was killed
            return
        if task is not op.task:
            op.busy.add(task)
            task.add_done_callback(lambda ended: self._idle(op, ended))
        if problem is not None:
            letter.reply.set_exception(problem)
        else:
            letter.reply.set_result(result)

    async def arrive(self, letter: Letter) -> None:
        """A letter that nobody waits for any more arrives after all."""
        self.late.remove(letter)
        try:
            await letter.execute()
        except (StoreUnavailable, LedgerUnavailable):
            pass

    async def finish(self, op: Op) -> None:
        """Delivers what an op writes until it ends."""
        while letters := [letter for letter in self.letters if letter.op is op]:
            await self.deliver(letters[0])

    async def kill(self, ops: Collection[Op]) -> None:
        """Ends ops where they are."""
        tasks = [op.task for op in ops if op.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def clear(self) -> None:
        """Nothing is under way, and nothing went wrong."""
        await self.kill(list(self.ops))
        self.late.clear()
        self.failures.clear()

    async def rest(self) -> None:
        """Waits until every op waits for a letter or has ended."""
        async with asyncio.timeout(REST):
            while any(not op.waits for op in self.ops):
                self._moved.clear()
                await self._moved.wait()
        if self.failures:
            raise self.failures[0]


class DelayedStore(Store):
    """The store, its writing calls sent as letters. What a call carries is fixed when it is sent."""

    def __init__(self, url: str, post: Post) -> None:
        super().__init__(url)
        self._post = post

    def distrust(self, why: str = "foreign") -> None:
        assert why == "superseded", "a version went back"
        super().distrust(why)

    async def adopt(self) -> Content:
        return cast(Content, await self._post.send("adopt", super().adopt))

    def link_of(self, name: str) -> Any:
        return DelayedLink(self) if name == "" else super().link_of(name)

    async def apply(
        self,
        rows: Mapping[Board, Sequence[Row]],
        profiles: Sequence[Profile] = (),
        *,
        epoch: str | None = None,
        read_after_write: ReadAfterWrite | None = None,
    ) -> int:
        expected = epoch or self.epoch or "none"
        call = super().apply
        told = [(board.id, list(of)[:5]) for board, of in rows.items()]
        what = f"apply {expected} {told} {list(profiles)[:5]}"
        return cast(int, await self._post.send(what, lambda: call(rows, profiles, epoch=expected)))

    async def cache_week(self, board: Board, version: int, names_at: Position, value: bytes) -> None:
        call = super().cache_week
        told = f"cache {board.id} {version} of names {names_at.version} of {names_at.epoch}"
        await self._post.send(told, lambda: call(board, version, names_at, value))


class DelayedLink:
    """The link of such a store: whoever has it adopt or distrust content asks the store."""

    def __init__(self, store: DelayedStore) -> None:
        self._store = store
        self.adopt = store.adopt
        self.distrust = store.distrust

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store.link, name)


class DelayedFilling(Filling):
    """The filling of a store, its calls sent as letters likewise."""

    def __init__(self, link: Link, post: Post) -> None:
        super().__init__(link)
        self._post = post

    async def begin(self, run: str, epoch: str) -> bool:
        call = super().begin
        return cast(bool, await self._post.send(f"begin {epoch}", lambda: call(run, epoch)))

    async def clear(self, epoch: str) -> None:
        call = super().clear
        await self._post.send(f"clear {epoch}", lambda: call(epoch))

    async def define(self, epoch: str, rules: Mapping[str, int]) -> None:
        call = super().define
        if rules:
            await self._post.send(f"define {epoch} {dict(rules)}", lambda: call(epoch, rules))

    async def end(self, run: str, epoch: str, announced: Sequence[str]) -> bool:
        call = super().end
        return cast(bool, await self._post.send(f"end {epoch}", lambda: call(run, epoch, announced)))


# Processes -------------------------------------------------------------------------------------------------------


class Viewer:
    """A client's end of a connection: takes every message into a board of its own, as slowly as it is told."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.follower = Follower()
        self.live = True
        self.stalled = False
        self.encoding = 0
        self.transport_kind = "websocket"
        self.descriptor = -1
        self.on_descriptor: Callable[[int], None] | None = None

    def write(self, frame: Frame, sent: int = 0) -> int:
        for part in parts(frame):
            self._take(json.loads(part.payload))
        return 100_000 if self.stalled else 0

    def _take(self, message: Message) -> None:
        self.follower.take(message)
        if message["type"] in ("snapshot", "diff"):
            followed = self.follower.boards[message["board"]]
            self._world.agree(message["board"], followed.epoch, followed.version, followed.lines)
        if message["type"] == "status":
            self.live = message["live"]

    def lead_away(self, within_s: float) -> None:
        """It goes by itself."""

    def close(self, code: int, reason: str = "") -> None:
        raise AssertionError("nobody is that slow here")


class Process:
    """One server process with its worker's part and one viewer; `restart` is a kill -9 and a new start."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.ops: set[Op] = set()
        self.at = 0
        """Which of the stores it is led to."""
        self.is_stopped = False
        """It does nothing, and hears nothing, until it goes on."""
        self.restart()

    def restart(self) -> None:
        """Forgets everything a process that ends forgets. What it sent may be on its way even so."""
        ledger, now = self.world.ledger, self.world.now
        store = self.store = DelayedStore(self.world.store_urls[self.at], self.world.post)
        self.is_stopped = False
        self.world.stores.append(store)
        self.views = views_of(ledger, store)
        self.resync = Resync(ledger, store, now)
        filling = DelayedFilling(store.link, self.world.post)
        self.rebuilder = Rebuilder(ledger, store, filling, now, chunk=CHUNK, at_once=1)
        self.sweeper = Sweeper(ledger, self.resync)
        audit = Audit(store)
        self.drift = Drift(Comparison(ledger, audit, now), store, audit, self.resync, now, at_once)
        self.accounts = Accounts(ledger, self.resync, cast(Passwords, None))
        self.intake = Intake(ledger, store, self.views.amend, now, batching=Batching(), limit=100)
        reading = BoardReader(SnapshotReader(store), self.views.archive, now)
        self.broadcaster = Broadcaster(reading, Announcements(store.link), store, now, interval=0.05)
        self.rollover = Rollover(self.broadcaster.following, self.broadcaster.mark, now, ledger.health.beat)
        self.rollover.step(now())
        self.viewer: Viewer | None = None
        self.subscriber: Subscriber | None = None

    async def begin(self) -> None:
        """What a process does before anything else."""

    @property
    def holds_a_lease(self) -> bool:
        """Whether PostgreSQL may keep others from something for it."""
        return self.does("watch") or self.does("rebuild")

    def start(self, name: str, work: Coroutine[Any, Any, Any]) -> Op:
        """Begins something in this process."""
        op = self.world.post.start(f"{self.name} {name}", work)
        self.ops.add(op)
        assert op.task is not None
        op.task.add_done_callback(lambda _: self.ops.discard(op))
        return op

    def does(self, name: str) -> bool:
        """Whether it is at something of this name."""
        return any(op.name == f"{self.name} {name}" for op in self.ops)

    # Things a process does ---------------------------------------------------------------------------------------

    async def batch(self, batch: Sequence[Submission]) -> None:
        """As the intake brings a batch home."""
        recording = await self.intake._recorder.record(batch)
        self.world.learn(recording.outcomes)
        if recording.outbox:
            await self.intake._tell(recording, 0.0)

    async def change(self, work: Coroutine[Any, Any, None]) -> None:
        """A rename, ban or deletion; a user who is gone is none."""
        try:
            await work
        except RealtimeError as error:
            if error.code != "unknown_user":
                raise

    async def read(self) -> None:
        """Reads every board that is marked, as the reading loop does when they fall due."""
        marked, stream = self.broadcaster._dirty.take(float("inf")), self.broadcaster.following.stream
        due = [of.board for board in marked if (of := stream(board))]
        live = [board for board in due if not board.is_closed(self.world.moment)]
        for partition, boards in by_partition(live).items():
            await self.broadcaster._read_boards(partition, boards)
        for board in due:
            if board not in live:
                await self.broadcaster._read_closed_board(board)

    async def connect(self) -> None:
        """The viewer comes, or comes back with what it holds; not while there is nothing to show."""
        await self.store.adopt()
        if not self.store.is_complete:
            return
        held = self.viewer.follower.boards if self.viewer else {}
        if self.subscriber is not None:
            self.broadcaster.following.remove(self.subscriber)
        self.viewer = self.viewer or Viewer(self.world)
        self.viewer.live, self.viewer.stalled = True, False
        subscriber = self.subscriber = Subscriber(
            self.viewer, buffer_limit=50_000, slow_after=3_600, on_drained=self.broadcaster.following.caught_up
        )
        for alias in (ALL_TIME.id, CURRENT_WEEK, LAST_WEEK.id):
            known = held.get(resolve(alias, self.world.now()).id)
            since = Since(known.epoch, known.version) if known else None
            if self.broadcaster.following.subscribe_now(subscriber, alias, since):
                continue
            begun = asyncio.get_running_loop().create_task(
                self.broadcaster.following.subscribe(subscriber, alias, since)
            )
            await asyncio.sleep(0)
            await self.read()
            assert self.broadcaster.live, "complete content cannot be read"
            await begun


async def at_once(seconds: float) -> None:
    """Time passes by decision only."""


# The world -------------------------------------------------------------------------------------------------------

_TABLES = (
    "users", "user_score_transactions", "user_total_scores", "user_weekly_scores", "outbox", "closed_weeks",
    "store_epochs", "audit", "generation", "bans",
)  # fmt: skip

_COUNTED = ("users", "user_score_transactions", "user_total_scores", "outbox", "audit")
"""Those with a sequence for their ids."""

_RESET = """
TRUNCATE {tables} RESTART IDENTITY;
DROP SCHEMA IF EXISTS backup CASCADE;
INSERT INTO generation (mark, place) VALUES ('first', ledger_place());
"""

_PLAYERS = """
INSERT INTO users (username) SELECT 'player-' || g FROM generate_series(1, 104) g;
INSERT INTO user_score_transactions (user_id, submission_id, score_added, created_at)
SELECT g, 'before', 1 + g % 7, '{moment}' FROM generate_series(1, 104) g WHERE NOT g = ANY ('{{{active}}}');
INSERT INTO user_total_scores (user_id, total_score) SELECT user_id, score_added FROM user_score_transactions;
INSERT INTO user_weekly_scores (week, user_id, score)
SELECT '{week}', user_id, score_added FROM user_score_transactions;
"""

_TRUTH = """
SELECT t.user_id, NULL::date AS week, t.version, CASE WHEN NOT t.hidden THEN t.total_score END AS score, u.username
FROM user_total_scores t JOIN users u ON u.id = t.user_id
UNION ALL
SELECT w.user_id, w.week, w.version, CASE WHEN NOT t.hidden THEN w.score END, u.username
FROM user_weekly_scores w JOIN user_total_scores t USING (user_id) JOIN users u ON u.id = w.user_id
"""

_SUMS = """
SELECT count(*) FROM (SELECT user_id, sum(score_added) AS sum FROM user_score_transactions GROUP BY user_id) s
FULL JOIN user_total_scores t USING (user_id) WHERE coalesce(s.sum, 0) <> coalesce(t.total_score, 0)
"""


_TOP = """
SELECT s.user_id, u.username, sum(score_added)::bigint AS score
FROM user_score_transactions s JOIN users u ON u.id = s.user_id JOIN user_total_scores t ON t.user_id = s.user_id
WHERE s.created_at >= $1 AND s.created_at < $2 AND NOT t.hidden
GROUP BY s.user_id, u.username ORDER BY score DESC, s.user_id::text COLLATE "C" DESC LIMIT 100
"""


@dataclass
class World:
    """Both stores, what time it is, and what is known to be true."""

    moments: ClassVar[Sequence[datetime]] = MOMENTS
    """What time it is, one after the other."""
    tables: ClassVar[Sequence[str]] = _TABLES
    """What a backup has."""
    counted: ClassVar[Sequence[str]] = _COUNTED

    ledger: Ledger
    sql: asyncpg.Connection
    shift: Shift
    store_urls: tuple[str, str]
    saved: tuple[Path, Path]
    """The folders where the stores save what they hold."""
    post: Post = field(default_factory=Post)
    moment: datetime = MOMENTS[0]
    recorded: dict[tuple[int, str], Submission] = field(default_factory=dict)
    seen: dict[tuple[str, str, int], list[tuple[int, str, int]]] = field(default_factory=dict)
    newest: dict[tuple[str, str], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.stores: list[Store] = []  # of every process there was
        self.observers = [Store(url) for url in self.store_urls]
        self.readers = [SnapshotReader(observer) for observer in self.observers]
        self.raws = [redis.asyncio.Redis.from_url(url, decode_responses=True) for url in self.store_urls]
        self.backup: dict[tuple[int, str], Submission] = {}  # what was recorded when it was made
        self.had_view = False  # whether there was a view of last week then
        self.was_set_back = False  # PostgreSQL's clock: what came in until that was noticed may have to be found
        self.processes = [self.make_process(name) for name in ("A", "B", "C")]

    def make_process(self, name: str) -> Process:
        """A process of this world."""
        return Process(self, name)

    def now(self) -> datetime:
        """What time it is, for everybody."""
        return self.moment

    async def reset(self) -> None:
        """Everything as at the beginning: a hundred players, and an empty store."""
        await self.post.clear()
        await self.to(MOMENTS[0])
        self.was_set_back = False
        for closed in (self.recorded, self.seen, self.newest):
            closed.clear()
        for board in (LAST_WEEK, THIS_WEEK):
            await self.sql.execute(f"DROP MATERIALIZED VIEW IF EXISTS {view_of(board)}")
        await self.sql.execute(_RESET.format(tables=", ".join(self.tables)))
        await self.populate()
        for folder, raw in zip(self.saved, self.raws, strict=True):
            for dump in folder.iterdir():
                dump.unlink()
            await raw.flushall()
        for store in self.stores:
            await store.aclose()
        self.stores.clear()
        # Epochs are given out anew, so what was known is another world's.
        self.readers = [SnapshotReader(observer) for observer in self.observers]
        for process in self.processes:
            process.at = 0
            process.restart()
            await process.begin()

    async def populate(self) -> None:
        """A hundred players, and what they had last week."""
        active = ",".join(map(str, ACTIVE))
        moment = LAST_WEEK.starts.isoformat()
        await self.sql.execute(_PLAYERS.format(moment=moment, active=active, week=LAST_WEEK.week))

    async def aclose(self) -> None:
        for store in (*self.observers, *self.stores):
            await store.aclose()
        for raw in self.raws:
            await raw.aclose()

    async def to(self, moment: datetime) -> None:
        """It is `moment` now, in PostgreSQL and for everybody."""
        self.was_set_back |= moment < self.moment
        self.moment = moment
        await self.shift.to(moment)

    def learn(self, outcomes: Collection[tuple[Submission, Outcome]]) -> None:
        """Checks what a batch was answered against what was recorded before."""
        for submission, outcome in outcomes:
            known = self.recorded.get((submission.user_id, submission.submission_id))
            if isinstance(outcome, Accepted):
                assert outcome.duplicate == (known is not None), "recorded twice, or not at all"
                assert known is None or known == submission, "another score under the same id"
                self.recorded[submission.user_id, submission.submission_id] = submission
            elif isinstance(outcome, Rejected) and outcome.code == "submission_conflict":
                assert known is not None and known != submission

    async def _keep(self, schema: str) -> None:
        """Copies all tables into a schema of that name."""
        tables = [f"CREATE TABLE {schema}.{table} AS SELECT * FROM public.{table}" for table in self.tables]
        await self.sql.execute(";".join([f"DROP SCHEMA IF EXISTS {schema} CASCADE; CREATE SCHEMA {schema}", *tables]))

    async def _bring_back(self, schema: str, *more: str) -> None:
        """All tables are as they were kept; what was counted goes on from there."""
        rows = [
            f"INSERT INTO public.{table} OVERRIDING SYSTEM VALUE SELECT * FROM {schema}.{table}"
            for table in self.tables
        ]
        ids = [f"SELECT setval('{table}_id_seq', (SELECT coalesce(max(id), 1) FROM {table}))" for table in self.counted]
        await self.sql.execute(";".join(["BEGIN", f"TRUNCATE {', '.join(self.tables)}", *rows, *ids, *more, "COMMIT"]))

    async def back_up(self) -> None:
        """Keeps what PostgreSQL has."""
        await self._keep("backup")
        self.backup = dict(self.recorded)
        view = "SELECT count(*) FROM pg_matviews WHERE matviewname = $1"
        self.had_view = bool(await self.sql.fetchval(view, view_of(LAST_WEEK)))

    async def restore(self) -> None:
        """PostgreSQL is what it was at the backup, and the operator says so."""
        await self.lose_lease()
        kept = "REFRESH MATERIALIZED VIEW" if self.had_view else "DROP MATERIALIZED VIEW IF EXISTS"
        await self._bring_back("backup", f"{kept} {view_of(LAST_WEEK)}")
        await Generations.restored(self.ledger)
        self.recorded = dict(self.backup)

    async def save(self, at: int) -> None:
        """A store saves what it holds."""
        await self.raws[at].save()

    async def flush(self, at: int) -> None:
        """A store holds nothing any more."""
        await self.raws[at].flushall()

    async def crash(self, at: int) -> None:
        """A store dies and comes back with what it had saved last, as another run."""
        raw = self.raws[at]
        before = run_of(as_told(await raw.info()))
        try:
            await raw.execute_command("DEBUG", "CRASH-AND-RECOVER")
        except (redis.exceptions.ConnectionError, OSError):
            pass
        async with asyncio.timeout(REST):
            while True:
                try:
                    if run_of(as_told(await raw.info())) != before:
                        break
                except (redis.exceptions.ConnectionError, OSError):
                    await asyncio.sleep(0.002)  # it is on its way: there is nobody who could tell us
        for store in (*self.observers, *(process.store for process in self.processes)):
            for pool in (store.link.checked, store.link._free):  # or some would notice sooner than others
                await pool.disconnect()

    async def lose_lease(self) -> None:
        """The connection of whoever rebuilds is cut: the process itself does not know yet."""
        await self.sql.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks WHERE locktype = 'advisory' AND granted"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )

    # What must be true -------------------------------------------------------------------------------------------

    def live(self) -> list[Board]:
        """Boards that the store answers for."""
        return [board for board in (ALL_TIME, LAST_WEEK, THIS_WEEK) if not board.is_closed(self.moment)]

    async def fresh(self, at: int) -> dict[Board, Snapshot] | None:
        """What a store shows now to somebody new; None while it may not be read."""
        try:
            await self.observers[at].adopt()
            return await self.readers[at].read(self.live()) if self.observers[at].is_complete else None
        except StoreUnavailable:
            return None

    async def is_settled(self, at: int) -> bool:
        """Whether that store's content is complete and the current one, and nothing waits for it."""
        content = await self.observers[at].adopt()
        named = await self.sql.fetchval("SELECT epoch FROM generation")
        waiting = await self.sql.fetchval("SELECT count(*) FROM outbox")
        return content.is_complete and content.epoch == named and not waiting

    async def look(self) -> None:
        """A version never goes back within an epoch, and always stands for the same standings."""
        for store in range(len(self.observers)):
            for board, snapshot in (await self.fresh(store) or {}).items():
                at = snapshot.epoch, board.id
                assert snapshot.version >= self.newest.get(at, 0), f"{at} went back to {snapshot.version}"
                self.newest[at] = snapshot.version
                self.agree(board.id, snapshot.epoch, snapshot.version, snapshot.entries)

    def agree(self, board_id: str, epoch: str, version: int, entries: Iterable[tuple[int, str, int]]) -> None:
        """Whoever is shown a version of a board is shown the same."""
        shown = [tuple(entry) for entry in entries]
        known = self.seen.setdefault((epoch, board_id, version), cast(Any, shown))
        assert known == shown, f"{board_id} shows two things as version {version} of {epoch}"

    async def truth(self) -> list[Any]:
        """The rows of the boards of default of all time and of the weeks."""
        return list(await self.sql.fetch(_TRUTH))

    async def closed(self, at: int, board: Board) -> Snapshot:
        """What a closed week shows to somebody new, read through one of the stores."""
        return (await views_of(self.ledger, self.observers[at]).archive.snapshot(board))[0]

    async def compare(self, at: int) -> None:
        """Every board of that store is what PostgreSQL says; and every viewer's is the same."""
        fresh, raw = await self.fresh(at), self.raws[at]
        assert fresh is not None, "the store's content did not become complete"
        rows = await self.truth()
        for board in self.live():
            week = None if board.ends is None else board.starts.date()
            of_board = [row for row in rows if row["week"] == week]
            scores = {int(i): int(s) for i, s in await raw.zrange(scores_key(board), 0, -1, withscores=True)}
            versions = {int(i): int(v) for i, v in (await raw.hgetall(versions_key(board))).items()}
            assert scores == {row["user_id"]: row["score"] for row in of_board if row["score"] is not None}, board.id
            assert versions == {row["user_id"]: row["version"] for row in of_board}, board.id
            names = {row["user_id"]: row["username"] for row in of_board}
            wrong = {user: name for user, name in fresh[board].names.items() if names[user] != name}
            assert not wrong, f"{board.id} shows {wrong}"
        if LAST_WEEK not in fresh:
            fresh[LAST_WEEK] = await self.closed(at, LAST_WEEK)
            truth = [tuple(row) for row in await self.sql.fetch(_TOP, LAST_WEEK.starts, LAST_WEEK.ends)]
            assert [tuple(entry) for entry in fresh[LAST_WEEK].entries] == truth, "the closed week"
        assert await self.sql.fetchval(_SUMS) == 0, "totals are not the sums of the transactions"
        kept = await self.sql.fetch("SELECT user_id, submission_id, score_added FROM user_score_transactions")
        ours = {(row[0], row[1]): row[2] for row in kept if row[1] != "before"}
        assert ours == {key: submission.score_added for key, submission in self.recorded.items()}
        await self._compare_viewers(at, fresh)

    async def _compare_viewers(self, at: int, fresh: Mapping[Board, Snapshot]) -> None:
        for process in self.processes:
            if not process.is_stopped:
                self._compare_viewer(process, fresh)

    def _compare_viewer(self, process: Process, fresh: Mapping[Board, Snapshot]) -> None:
        if process.viewer is None or process.subscriber is None:
            return
        assert process.viewer.live, f"{process.name}'s viewer was left with a board that is said to stand still"
        for subscription in process.subscriber.subscriptions:
            board = subscription.stream.board
            followed, snapshot = process.viewer.follower.boards[board.id], fresh[board]
            assert (followed.epoch, followed.version) == (snapshot.epoch, snapshot.version), process.name
            assert followed.lines == [tuple(entry) for entry in snapshot.entries], process.name
