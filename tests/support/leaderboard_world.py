"""A small world of several leaderboards: as `world`, with definitions, builds, and contents of several partitions.

Owns which leaderboards there are at first and what becomes of them, the letters of builds and partitions, processes
that know of leaderboards what they last looked up, and what must be true of every board. Must never take from the
ledger's standings what they should be: the log says so. Assumes what `world` assumes.

`default` has one beside it that ranks its submissions (`best`, in the published content), or none at first: then its
batches are of the published system's statement until there is one. `race` has submissions of its own, in a content of
its own. `late` comes when its turn is, over a history that is there.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Collection, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, ClassVar, cast

from realtime.boards.board import ALL_TIME, CURRENT_WEEK, Board
from realtime.boards.leaderboard import Leaderboard
from realtime.boards.parsing import parse_definition
from realtime.boards.standings import Profile, Row, Snapshot
from realtime.boards.submissions import Accepted, Outcome, Rejected, Submission
from realtime.broadcast.broadcaster import Broadcaster
from realtime.broadcast.reading import BoardReader
from realtime.broadcast.rollover import Rollover
from realtime.broadcast.subscribers import Subscriber
from realtime.errors import RealtimeError, StoreUnavailable
from realtime.intake.batching import Batching
from realtime.intake.importer import Importer
from realtime.intake.intake import Intake
from realtime.intake.recorder import Recording
from realtime.intake.score_file import FileRow
from realtime.ledger.builds import Build, Builds, Chunk, Lacking, Overflow, Rule
from realtime.ledger.closed_boards import ClosedBoards
from realtime.ledger.definitions import Definitions
from realtime.ledger.leaderboards import Leaderboards
from realtime.ledger.ranked import RankedRows
from realtime.people.accounts import Accounts
from realtime.people.passwords import Passwords
from realtime.repair.building import Building
from realtime.repair.comparison import Comparison
from realtime.repair.drift import Drift
from realtime.repair.partitions import Partitions
from realtime.repair.rebuild import Rebuilder
from realtime.repair.resync import Resync
from realtime.repair.showing import Showing
from realtime.repair.sweeper import Sweeper
from realtime.store.announcements import Announcements
from realtime.store.audit import Audit
from realtime.store.fitness import Content
from realtime.store.partition import Partition
from realtime.store.replies import ReadAfterWrite
from realtime.store.snapshots import SnapshotReader, by_partition
from realtime.wire.messages import Since
from tests.support.building import build_all
from tests.support.closed_weeks import views_of
from tests.support.databases import BEGINNINGS
from tests.support.keys import metadata_key, scores_key, versions_key
from tests.support.leaderboards import PARTITIONS, Line, folded, standings
from tests.support.ranked_following import RankedFollower
from tests.support.world import (
    CHUNK,
    LAST_WEEK,
    MOMENTS,
    THIS_WEEK,
    DelayedFilling,
    DelayedLink,
    DelayedStore,
    Post,
    Process,
    Viewer,
    World,
    at_once,
)

EARLY: dict[str, dict[str, Any]] = {
    "race": {
        "operator": "last",
        "ties": "last",
        "windows": ["all_time", "day"],
        "zone": "Atlantic/Cape_Verde",
        "metadata": True,
    },
    "best": {
        "of": "default",
        "operator": "best",
        "order": "ascending",
        "ties": "first",
        "windows": ["all_time", "day"],
    },
}
"""What there is at first: `best` in half of all lives. The day of Cape Verde ends an hour after that of UTC."""

SEASONS: list[dict[str, Any]] = [
    {
        "id": name,
        "starts": (THIS_WEEK.starts + timedelta(hours=first)).isoformat(),
        "ends": (THIS_WEEK.starts + timedelta(hours=last)).isoformat(),
    }
    for name, first, last in (("old", -27, -3), ("spring", -3, 0), ("summer", 1, 5))
]
"""One that is over, one that ends with the week, and one that begins an hour later."""

CHANGES: list[tuple[str, dict[str, Any]]] = [
    ("late", {"of": "race", "operator": "sum", "ties": "first", "windows": ["all_time", "day"]}),
    ("best", EARLY["best"]),
    ("best", {"of": "default", "operator": "best", "ties": "first", "windows": ["all_time", "day"]}),
    ("best", {"of": "default", "operator": "last", "ties": "last", "windows": ["all_time", "week"]}),
    (
        "race",
        {
            "operator": "count",
            "ties": "first",
            "windows": ["all_time", "day"],
            "zone": "Atlantic/Cape_Verde",
            "metadata": True,
        },
    ),
    ("race", {"operator": "best", "order": "ascending", "windows": ["all_time", "day"]}),
    ("race", EARLY["race"]),
    ("late", {"of": "default", "operator": "last", "windows": ["all_time"]}),
    ("late", {"of": "race", "operator": "best", "ranks": "dense", "windows": ["day"]}),
    ("default", {"windows": ["all_time", "week", "day"]}),
    ("default", {}),
    ("default", {"metadata": True}),
    ("default", {"windows": ["all_time", "week", "day"], "metadata": True}),
    ("late", {"of": "race", "operator": "sum", "windows": ["season"], "seasons": SEASONS}),
    (
        "late",
        {
            "of": "race",
            "operator": "last",
            "ties": "last",
            "windows": ["all_time", "season"],
            "seasons": SEASONS[:2],
        },
    ),
]
"""What leaderboards become, in no order."""

SENT = [THIS_WEEK.starts + after for after in (
    timedelta(hours=-26), timedelta(hours=-2), timedelta(0), timedelta(hours=1)
)]  # fmt: skip
"""Moments of submissions: of the day before last, of the last day, of today, and of today in Cape Verde too."""

FOLLOWED = (
    ALL_TIME.id, CURRENT_WEEK, LAST_WEEK.id, "best:all_time", "best:current_day", "best:previous_day", "race:all_time",
    "race:current_day", "late:all_time", "late:current_day", "late:current_season",
)  # fmt: skip

AHEAD = 9_999_999_999_999_999
"""What digits that run against time are subtracted from."""


# Letters ---------------------------------------------------------------------------------------------------------


class DelayedPartition(Partition):
    """A partition of such a store: what a rebuild asks of it is sent as letters too."""

    def __init__(self, store: PartitionedStore, link: Any) -> None:
        super().__init__(link)
        self._store = store

    async def adopt(self) -> Content:
        if not self.name:
            return await self._store.adopt()
        return cast(Content, await self._store.post.send(f"adopt {self.name}", super().adopt))

    async def apply(
        self, rows: Mapping[Board, Sequence[Row]], profiles: Sequence[Profile] = (), *, epoch: str | None = None
    ) -> int:
        return await self._store.apply(rows, profiles, epoch=epoch)


class PartitionedStore(DelayedStore):
    """The store, the writing calls of all its partitions sent as letters."""

    def __init__(self, url: str, post: Post) -> None:
        super().__init__(url, post)
        self.post = post
        self._published = self._partitions[""] = DelayedPartition(self, self.link)

    def partition(self, name: str) -> Partition:
        if name not in self._partitions:
            self._partitions[name] = DelayedPartition(self, self._link_to(name))
        return self._partitions[name]

    def link_of(self, name: str) -> Any:
        return DelayedLink(self) if name == "" else LinkOfPartition(self.partition(name))

    async def apply(
        self,
        rows: Mapping[Board, Sequence[Row]],
        profiles: Sequence[Profile] = (),
        *,
        epoch: str | None = None,
        read_after_write: ReadAfterWrite | None = None,
    ) -> int:
        (partition,) = {board.leaderboard.partition for board in rows} or {""}
        return await super().apply(rows, profiles, epoch=epoch or self.partition(partition).link.epoch or "none")

    async def switch(
        self, made: Leaderboard, boards: Iterable[Board], gone: Iterable[Board] = (), *, epoch: str | None = None
    ) -> bool:
        call, at = super().switch, epoch or self.partition(made.partition).link.epoch or ""
        shown, emptied = list(boards), list(gone)
        what = f"switch {at} {made.slug} to {made.next_rule}"
        return cast(bool, await self.post.send(what, lambda: call(made, shown, emptied, epoch=at)))

    async def discard(self, made: Leaderboard, boards: Iterable[Board], *, beside: bool = False) -> None:
        call, doomed = super().discard, list(boards)
        what = f"discard {made.slug} {made.next_rule if beside else ''}"
        await self.post.send(what, lambda: call(made, doomed, beside=beside))


class LinkOfPartition:
    """The link to a partition for whoever reads there: to adopt content is a letter, and no version goes back."""

    def __init__(self, partition: Partition) -> None:
        self._partition = partition
        self.adopt = partition.adopt

    def distrust(self, why: str = "foreign") -> None:
        assert why == "superseded", "a version went back"
        self._partition.distrust(why)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._partition.link, name)


class DelayedBuilds(Builds):
    """The steps of a build, each a letter: whoever builds may die between any two of them."""

    def __init__(self, ledger: Any, post: Post) -> None:
        super().__init__(ledger)
        self._post = post

    async def begin(self, build: Build) -> tuple[int, int]:
        call = super().begin
        return cast(tuple[int, int], await self._post.send(f"build {build.slug}", lambda: call(build)))

    async def chunk(self, build: Build, after: int, limit: int) -> Chunk:
        call = super().chunk
        failed: list[Lacking | Overflow] = []

        async def chunk() -> Chunk | None:
            try:
                return await call(build, after, min(limit, CHUNK))
            except (Lacking, Overflow) as error:  # an answer, too
                failed.append(error)
                return None

        made = await self._post.send(f"chunk of {build.slug} after {after}", chunk)
        if made is None:
            raise failed[0]
        return cast(Chunk, made)

    async def switch(self, build: Build, rule: Rule) -> bool:
        call = super().switch
        return cast(bool, await self._post.send(f"show {rule.slug} by {rule.id}", lambda: call(build, rule)))

    async def told(self, rule: int) -> None:
        call = super().told
        await self._post.send(f"told {rule}", lambda: call(rule))


class DelayedPartitions(Partitions):
    """The watch over partitions, whose rebuilds are letters."""

    def __init__(self, post: Post, *args: Any) -> None:
        super().__init__(*args, chunk=CHUNK)
        self._post = post

    def rebuilder(self, partition: str) -> Rebuilder:
        found = self._rebuilders.get(partition)
        if found is None:
            content = self._store.partition(partition)
            found = self._rebuilders[partition] = Rebuilder(
                self._ledger,
                content,
                DelayedFilling(content.link, self._post),
                self._now,
                partition=partition,
                boards=lambda: self.latest_boards_of(partition),
                ranked=self._ranked,
                chunk=CHUNK,
                at_once=1,
            )
        return found


# Processes -------------------------------------------------------------------------------------------------------


class RankedViewer(Viewer):
    """A client's end of a connection, for boards of any order."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.boards = RankedFollower()
        self.still: set[str] = set()
        """Boards that are said to stand still; '' for those of the published content."""

    def _take(self, message: dict[str, Any]) -> None:
        self.boards.take(message)
        if message["type"] in ("snapshot", "diff"):
            held = self.boards.boards[message["board"]]
            cast(LeaderboardWorld, self._world).agree_on(
                message["board"], held.epoch, held.version, held.lines, held.metadata
            )
        if message["type"] == "status":
            still = self.still.discard if message["live"] else self.still.add
            still(message.get("board", ""))


class Importing(Importer):
    """An import of which the world learns."""

    def __init__(self, world: LeaderboardWorld, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._world = world

    async def _recorded(self, batch: Sequence[Submission]) -> AsyncIterator[Recording]:
        async for recorded in super()._recorded(batch):
            self._world.learn(recorded.outcomes)
            yield recorded


class LeaderboardProcess(Process):
    """One server process, with a catalogue of its own: as it was when the process last looked, or was made to."""

    world: LeaderboardWorld

    def restart(self) -> None:
        ledger, now, post = self.world.ledger, self.world.now, self.world.post
        store = PartitionedStore(self.world.store_urls[self.at], post)
        self.store = store
        self.is_stopped = False
        self.world.stores.append(store)
        self.definitions = Definitions(ledger)
        directory = self.directory = Leaderboards(ledger, self.definitions, partitions=PARTITIONS)
        store.renew = directory.look
        ranked = RankedRows(ledger)
        self.partitions = DelayedPartitions(post, ledger, ranked, store, directory, now)
        self.rebuilder = Rebuilder(
            ledger,
            store,
            DelayedFilling(store.link, post),
            now,
            boards=lambda: self.partitions.latest_boards_of(""),
            ranked=ranked,
            chunk=CHUNK,
            at_once=1,
        )
        self.views = views_of(ledger, store)
        self.resync = Resync(ledger, store, now, boards=self.partitions.boards_to_tell)
        self.sweeper = Sweeper(ledger, self.resync, self.partitions.partitions_of)
        audit = Audit(store)
        comparison = Comparison(ledger, audit, now)
        live = lambda moment: directory.current.live_boards(moment)  # noqa: E731
        self.drift = Drift(comparison, store, audit, self.resync, now, at_once, live)
        builds = DelayedBuilds(ledger, post)
        self.building = Building(ledger, builds, Showing(builds, directory, store, ranked, now))
        self.accounts = Accounts(ledger, self.resync, cast(Passwords, None), directory)
        self.intake = Intake(ledger, store, self.views.amend, now, batching=Batching(), limit=100, directory=directory)
        closed = ClosedBoards(ledger, store)
        reading = BoardReader(SnapshotReader(store), self.views.archive, now, closed_boards=closed)
        announcements = Announcements(store.link, store.link_of)
        self.broadcaster = Broadcaster(reading, announcements, store, now, interval=0.05, directory=directory)
        following = self.broadcaster.following
        directory.on_change.append(following.redefine)
        self.rollover = Rollover(following, self.broadcaster.mark, now, ledger.health.beat, directory)
        self.rollover.step(now())
        self.viewer = None
        self.subscriber = None

    async def begin(self) -> None:
        """Nobody serves before it knows which leaderboards there are."""
        await self.directory.refresh()

    @property
    def holds_a_lease(self) -> bool:
        return super().holds_a_lease or self.does("build") or any("watch" in op.name for op in self.ops)

    async def batch(self, batch: Sequence[Submission]) -> None:
        recording = await self.intake._recorder.record(batch)
        self.world.learn(recording.outcomes)
        await self.world.check_scores(recording.outcomes)
        if recording.outbox:
            await self.intake._tell(recording, 0.0)

    async def bring_in(self, rows: Sequence[FileRow]) -> None:
        """A history is imported."""
        now = self.world.now
        importing = Importing(self.world, self.world.ledger, self.store, self.views, now, lambda bad: None,
                              directory=self.directory)  # fmt: skip
        await importing.run(iter(rows))

    async def change(self, work: Coroutine[Any, Any, None]) -> None:
        """A rename, ban or deletion; a leaderboard that is not there bans nobody."""
        try:
            await super().change(work)
        except RealtimeError as error:
            assert error.code == "unknown_leaderboard"

    def stands_for(self, alias: str) -> Board | None:
        """The board that an alias stands for now; None for none."""
        try:
            return self.directory.resolve(alias, self.world.now())
        except RealtimeError:
            return None

    async def look_after(self, partition: str) -> None:
        """Looks once after one partition, and by which rules it has its boards."""
        await self.partitions.rebuilder(partition).look()

    async def connect(self) -> None:
        """The viewer comes, or comes back with what it holds, and follows what there is to follow just then."""
        await self.store.adopt()
        if not self.store.is_complete:
            return
        for partition in self.partitions.in_use:
            await self.store.partition(partition).adopt()
        if self.subscriber is not None:
            self.broadcaster.following.remove(self.subscriber)
        viewer = self.viewer = cast(RankedViewer, self.viewer or RankedViewer(self.world))
        viewer.stalled = False
        viewer.still.clear()
        subscriber = self.subscriber = Subscriber(
            viewer, buffer_limit=50_000, slow_after=3_600, on_drained=self.broadcaster.following.caught_up
        )
        for alias in FOLLOWED:
            try:
                board = await self.directory.find(alias, self.world.now())
            except RealtimeError:
                continue
            if self.store.partition(board.leaderboard.partition).is_complete:
                await self._follow(subscriber, alias, board)

    async def _follow(self, subscriber: Subscriber, alias: str, board: Board) -> None:
        viewer, following = cast(RankedViewer, self.viewer), self.broadcaster.following
        known = viewer.boards.boards.get(board.id)
        since = Since(known.epoch, known.version, board.id) if known else None
        if following.subscribe_now(subscriber, alias, since):
            return
        begun = asyncio.get_running_loop().create_task(following.subscribe(subscriber, alias, since))
        for _ in range(4):  # what cannot be read now is not waited for: the store may have it by another rule
            await asyncio.sleep(0)
            await self.read()
        if not begun.done():
            begun.cancel()
        await asyncio.wait([begun])
        if not begun.cancelled() and isinstance(error := begun.exception(), Exception):
            assert isinstance(error, RealtimeError), error


# The world -------------------------------------------------------------------------------------------------------

_OWN = (
    "catalogue", "leaderboards", "rules", "windows", "score_transactions", "heads", "scores", "contents",
)  # fmt: skip

_RUNS = """
INSERT INTO score_transactions (source, user_id, submission_id, score, created_at)
SELECT l.id, g, 'before', g % 3, '{moment}' FROM generate_series(1, 8) g JOIN leaderboards l ON l.slug = 'race';
INSERT INTO heads (source, user_id) SELECT source, user_id FROM score_transactions;
"""
"""What there was of `race` before it had standings."""

_TRUTH_OF_RULE = """
SELECT s.user_id, CASE WHEN w.kind = 'week' THEN (w.starts AT TIME ZONE 'UTC')::date END AS week, s.version,
       CASE WHEN NOT t.hidden THEN s.score END AS score, u.username
FROM leaderboards l JOIN scores s ON s.source = 1 AND s.rule = l.rule
JOIN windows w ON w.leaderboard = 1 AND w.id = s."window" AND w.kind IN ('all_time', 'week')
JOIN user_total_scores t USING (user_id) JOIN users u ON u.id = s.user_id
WHERE l.id = 1
"""
"""The rows of default's boards where they are those of its rule."""

_HIDDEN = """
SELECT u.id, l.id AS leaderboard FROM users u CROSS JOIN leaderboards l WHERE u.deleted_at IS NOT NULL
    OR EXISTS (SELECT FROM bans b WHERE b.user_id = u.id AND b.leaderboard IN (0, l.id, l.source))
"""
"""Who is on no board of which leaderboards, by what was done alone."""


@dataclass
class LeaderboardWorld(World):
    """Stores, what time it is, which leaderboards there are, and what is known to be true of each."""

    moments: ClassVar[Sequence[datetime]] = (
        *MOMENTS,
        THIS_WEEK.starts + timedelta(hours=1, seconds=30),  # the day is over in Cape Verde too
        THIS_WEEK.starts + timedelta(hours=1, seconds=121),
    )
    tables: ClassVar[Sequence[str]] = (*World.tables, *_OWN)
    counted: ClassVar[Sequence[str]] = (*World.counted, "leaderboards", "rules", "windows", "score_transactions")

    runs: dict[tuple[str, int, str], Submission] = field(default_factory=dict)
    """What was recorded of others than `default`, by leaderboard, user and submission id."""

    def __post_init__(self) -> None:
        self.kept_runs: dict[tuple[str, int, str], Submission] = {}
        self.directory = Leaderboards(self.ledger, Definitions(self.ledger), partitions=PARTITIONS)
        self._made: set[bool] = set()
        super().__post_init__()

    def make_process(self, name: str) -> Process:
        return LeaderboardProcess(self, name)

    async def populate(self) -> None:
        await self.sql.execute(BEGINNINGS)
        await super().populate()

    async def open(self, *, with_best: bool) -> None:
        """After a reset: leaderboards with their standings, as if they had been there for long."""
        self.runs.clear()
        schema = f"early_{with_best}".lower()
        if with_best not in self._made:
            self._made.add(with_best)
            await self._define("race", EARLY["race"])
            await self.sql.execute(_RUNS.format(moment=SENT[1].isoformat()))
            if with_best:
                await self._define("best", EARLY["best"])
            await build_all(self.ledger)
            await self.sql.execute("UPDATE leaderboards SET next_rule = NULL WHERE next_rule = rule")
            await self.sql.execute("SELECT ensure_next_windows(); UPDATE rules SET todo = 0, done = 0")
            await self._keep(schema)
        else:
            await self._bring_back(schema)
        self.directory = Leaderboards(self.ledger, Definitions(self.ledger), partitions=PARTITIONS)
        for process in self.processes:
            await process.begin()

    async def _define(self, slug: str, fields: Mapping[str, Any]) -> None:
        await Definitions(self.ledger).put(parse_definition(slug, fields), actor="test")

    async def define(self, slug: str, fields: Mapping[str, Any]) -> None:
        """Somebody defines a leaderboard, or changes it; not where another stands in the way of that."""
        try:
            await self._define(slug, fields)
        except RealtimeError as error:
            assert error.code in ("bad_definition", "conflict"), error

    async def remove(self, slug: str) -> None:
        """Somebody takes a leaderboard away."""
        try:
            await Definitions(self.ledger).remove(slug, actor="test")
        except RealtimeError as error:
            assert error.code in ("unknown_leaderboard", "conflict"), error

    async def aclose(self) -> None:
        for with_best in self._made:
            await self.sql.execute(f"DROP SCHEMA early_{with_best} CASCADE")
        await super().aclose()

    async def back_up(self) -> None:
        await super().back_up()
        self.kept_runs = dict(self.runs)

    async def restore(self) -> None:
        await super().restore()
        self.runs = dict(self.kept_runs)

    def learn(self, outcomes: Collection[tuple[Submission, Outcome]]) -> None:
        for submission, outcome in outcomes:
            check_guard(submission, outcome)
        # What was recorded under an id is the same whichever window guarded it.
        outcomes = [(submission._replace(within=None), outcome) for submission, outcome in outcomes]
        super().learn(
            [(submission, outcome) for submission, outcome in outcomes if submission.leaderboard == "default"]
        )
        for submission, outcome in outcomes:
            if submission.leaderboard == "default":
                continue
            key = submission.leaderboard, submission.user_id, submission.submission_id
            known = self.runs.get(key)
            if isinstance(outcome, Accepted):
                assert outcome.duplicate == (known is not None), "recorded twice, or not at all"
                assert known is None or known == submission, "another score under the same id"
                self.runs[key] = submission
            elif isinstance(outcome, Rejected) and outcome.code == "submission_conflict":
                assert known is not None and known != submission

    async def check_scores(self, outcomes: Collection[tuple[Submission, Outcome]]) -> None:
        """Scores that are answered are what the log says just then."""
        told = [(s, o) for s, o in outcomes if isinstance(o, Accepted) and o.scores and s.leaderboard != "default"]
        if not told:
            return
        rows = await self.sql.fetch(
            "SELECT r.*, l.slug FROM rules r JOIN leaderboards l ON l.rule = r.id WHERE l.slug = ANY ($1)",
            list({submission.leaderboard for submission, _ in told}),
        )
        names = {row["id"]: row["name"] for row in await self.sql.fetch("SELECT id, name FROM windows")}
        log = await self.sql.fetch("SELECT user_id, submission_id, id FROM score_transactions")
        ids = {(row[0], row[1]): row[2] for row in log}
        for rule in rows:
            lines = await folded(self.sql, rule)
            truth = {(f"{rule['slug']}:{names[window]}", user): line[0] for (window, user), line in lines.items()}
            for submission, outcome in told:
                if submission.leaderboard == rule["slug"]:
                    assert isinstance(outcome, Accepted) and outcome.scores is not None
                    wrong = {b: s for b, s in outcome.scores.items() if truth.get((b, submission.user_id)) != s}
                    assert not wrong, f"{submission} was answered {wrong}"
                    counting = ids[submission.user_id, submission.submission_id] in {
                        line[1][1] for line in lines.values()
                    }
                    always = rule["operator"] in ("sum", "count")
                    assert outcome.improved == (always or counting), f"{submission} was answered {outcome}"

    # What must be true -------------------------------------------------------------------------------------------

    def agree_on(
        self, board_id: str, epoch: str, version: int, lines: Sequence[Any], metadata: Mapping[int, str]
    ) -> None:
        """Whoever is shown a version of a board is shown the same; also what they are shown besides, if anything."""
        self.agree(board_id, epoch, version, lines)
        if metadata:
            self.agree(f"{board_id}, described", epoch, version, sorted(cast(Any, metadata).items()))

    def live(self) -> list[Board]:
        named = map(self.directory.current.now_called, super().live())
        return [board for board in named if board is not None]

    async def truth(self) -> list[Any]:
        await self.directory.look()
        if self.directory.current.has_published:
            return await super().truth()
        return list(await self.sql.fetch(_TRUTH_OF_RULE))

    async def fresh(self, at: int) -> dict[Board, Snapshot] | None:
        await self.directory.look()
        found: dict[Board, Snapshot] = {}
        live = dict.fromkeys([*self.live(), *self.directory.current.live_boards(self.moment)])
        for partition, boards in by_partition(live).items():
            try:
                content = self.observers[at].partition(partition)
                await content.adopt()
                if content.is_complete:
                    found |= await self.readers[at].read(boards)
            except StoreUnavailable:
                continue
        return found

    async def is_settled(self, at: int) -> bool:
        if not await super().is_settled(at):
            return False
        unfinished = "SELECT count(*) FROM leaderboards WHERE next_rule IS NOT NULL"
        if await self.sql.fetchval(unfinished):
            return False
        await self.directory.look()
        catalogue = self.directory.current
        leaderboards = [
            one for one in catalogue.leaderboards.values() if one.id != 1 or not catalogue.has_published
        ]
        named = {row[0]: row[1] for row in await self.sql.fetch("SELECT partition, epoch FROM contents")}
        for partition in self.directory.current.partitions:
            content = self.observers[at].partition(partition)
            held = await content.adopt()
            if not held.is_complete or (partition and held.epoch != named.get(partition)):
                return False
            rules = {one.slug: one.rule_in_store for one in leaderboards if one.partition == partition}
            if rules and await self.observers[at].rules(partition, list(rules)) != rules:
                return False
        return True

    async def look(self) -> None:
        for store in range(len(self.observers)):
            for board, snapshot in (await self.fresh(store) or {}).items():
                at = snapshot.epoch, board.id
                assert snapshot.version >= self.newest.get(at, 0), f"{at} went back to {snapshot.version}"
                self.newest[at] = snapshot.version
                self.agree_on(board.id, snapshot.epoch, snapshot.version, lines_of(snapshot), metadata_of(snapshot))

    async def compare(self, at: int) -> None:
        await super().compare(at)
        kept = await self.sql.fetch(
            "SELECT l.slug, s.user_id, s.submission_id, s.score FROM score_transactions s"
            " JOIN leaderboards l ON l.id = s.source WHERE s.submission_id <> 'before'"
        )
        recorded = {(row[0], row[1], row[2]): row[3] for row in kept}
        assert recorded == {key: submission.score_added for key, submission in self.runs.items()}
        fresh = await self.fresh(at)
        assert fresh is not None
        hidden = {(row["id"], row["leaderboard"]) for row in await self.sql.fetch(_HIDDEN)}
        of_default = await self.sql.fetch("SELECT user_id, hidden FROM user_total_scores")
        assert {row[0] for row in of_default if row[1]} == {user for user, leaderboard in hidden if leaderboard == 1}
        names = {row[0]: row[1] for row in await self.sql.fetch("SELECT id, username FROM users")}
        catalogue = self.directory.current
        for leaderboard in catalogue.leaderboards.values():
            if leaderboard.rule is None:
                continue
            rule = await self.sql.fetchrow("SELECT * FROM rules WHERE id = $1", leaderboard.rule)
            assert rule is not None
            lines = await folded(self.sql, rule)
            kinds = "SELECT id FROM windows WHERE leaderboard = $1 AND kind = ANY ($2)"
            there = {row[0] for row in await self.sql.fetch(kinds, leaderboard.id, rule["kinds"])}
            kept_lines = {key: line for key, line in (await standings(self.sql, rule)).items() if key[0] in there}
            assert kept_lines == lines, f"standings {rule['id']} of {leaderboard.slug}"
            rows = await self._versions(leaderboard)
            for window in catalogue.windows.get(leaderboard.id, ()):
                board = Board(f"{leaderboard.slug}:{window.name}".removeprefix("default:"), leaderboard, window)
                of_board = {user: line for (key, user), line in lines.items() if key == window.key}
                shown = {u: line for u, line in of_board.items() if (u, leaderboard.id) not in hidden}
                if not board.has_started(self.moment):
                    continue
                top = in_board_order(leaderboard, shown, names)[:100]
                if board.is_closed(self.moment):
                    snapshot = await self.closed(at, board)
                else:
                    assert board in fresh, f"{board.id} cannot be read"
                    snapshot = fresh[board]
                    versions = {user: version for (key, user), version in rows.items() if key == window.key}
                    await self._compare_store(at, board, shown, versions, names)
                assert lines_of(snapshot) == top, board.id
                if leaderboard.definition.metadata:
                    told = {user: _sorted(shown[user][2]) for user, *_ in top if shown[user][2] is not None}
                    assert metadata_of(snapshot) == told, f"{board.id} describes"
                self.agree_on(board.id, snapshot.epoch, snapshot.version, lines_of(snapshot), metadata_of(snapshot))

    async def closed(self, at: int, board: Board) -> Snapshot:
        """What a closed board shows to somebody new, read through one of the stores."""
        board = self.directory.current.now_called(board) or board
        if board.is_published:
            return await super().closed(at, board)
        return (await ClosedBoards(self.ledger, self.observers[at]).snapshot(board))[0]

    async def _versions(self, leaderboard: Leaderboard) -> dict[tuple[int, int], int]:
        rows = await self.sql.fetch(
            'SELECT "window", user_id, version FROM scores WHERE source = $1 AND rule = $2',
            leaderboard.source,
            leaderboard.rule,
        )
        return {(row[0], row[1]): row[2] for row in rows}

    async def _compare_store(
        self, at: int, board: Board, shown: Mapping[int, Line], versions: Mapping[int, int], names: Mapping[int, str]
    ) -> None:
        """What the store keeps of a live board, to the last member."""
        raw: Any = self.raws[at]
        leaderboard = board.leaderboard
        members = await raw.zrange(scores_key(board), 0, -1, desc=not leaderboard.order.ascending, withscores=True)
        kept: dict[int, int] = {}
        for member, score in members:
            user = int(member[32:]) if leaderboard.order.by_time else int(member)
            assert user not in kept, f"{board.id} has user {user} twice"
            kept[user] = int(score)
        assert kept == {user: line[0] for user, line in shown.items()}, board.id
        assert list(kept) == [line[0] for line in in_board_order(leaderboard, shown, names)], f"order of {board.id}"
        if leaderboard.order.by_time:
            against = leaderboard.order.ascending == (leaderboard.order.ties == "last")
            digits = {int(m[32:]): (int(m[:16]), int(m[16:32])) for m, _ in members}
            moments = {u: (AHEAD - a, AHEAD - b) if against else (a, b) for u, (a, b) in digits.items()}
            assert moments == {user: line[1] for user, line in shown.items()}, f"moments of {board.id}"
        records = {int(u): int(v.partition(":")[0]) for u, v in (await raw.hgetall(versions_key(board))).items()}
        assert records == versions, f"versions of {board.id}"
        if leaderboard.definition.metadata:
            described = {int(u): _sorted(m) for u, m in (await raw.hgetall(metadata_key(board))).items()}
            told = {user: _sorted(line[2]) for user, line in shown.items() if line[2] is not None}
            assert described == told, f"metadata of {board.id}"

    async def _compare_viewers(self, at: int, fresh: Mapping[Board, Snapshot]) -> None:
        for process in self.processes:
            viewer, subscriber = cast(RankedViewer, process.viewer), process.subscriber
            if process.is_stopped or viewer is None or subscriber is None:
                continue
            assert isinstance(process, LeaderboardProcess)
            for alias, board in process.broadcaster.following.aliases():
                assert process.stands_for(alias) in (board, None), f"{alias} was left at {board.id}"
            followed = {subscription.stream.board.id for subscription in subscriber.subscriptions}
            left = viewer.still & {"", *followed}
            assert not left, f"{process.name}'s viewer was left with boards that are said to stand still: {left}"
            for subscription in subscriber.subscriptions:
                board = subscription.stream.board
                snapshot = fresh.get(board) or await self.closed(at, board)
                held = viewer.boards.boards[board.id]
                where = f"{process.name}'s viewer of {board.id}"
                assert (held.epoch, held.version) == (snapshot.epoch, snapshot.version), where
                assert held.lines == lines_of(snapshot), where
                assert held.metadata == metadata_of(snapshot), where
                assert board.id not in viewer.boards.awaited, f"{where} waits for a snapshot"


def check_guard(submission: Submission, outcome: Outcome) -> None:
    """What is new is recorded in the window that it names alone, and refused with a word for what is wrong with it."""
    span, moment = submission.within, submission.created_at
    if span is None or moment is None:
        return
    is_over = span.ends is not None and moment >= span.ends
    is_early = span.starts is not None and moment < span.starts
    if isinstance(outcome, Accepted):
        assert outcome.duplicate or not (is_over or is_early), f"{submission} was recorded"
    elif outcome.code in ("window_over", "window_not_begun"):
        assert {"window_over": is_over, "window_not_begun": is_early}[outcome.code], f"{submission} was {outcome.code}"


def lines_of(snapshot: Snapshot) -> list[tuple[int, str, int, tuple[int, int] | None]]:
    """What a snapshot shows, as `ranked_following` has it."""
    return [(user, name, score, snapshot.at.get(user)) for user, name, score in snapshot.entries]


def metadata_of(snapshot: Snapshot) -> dict[int, str]:
    """What it shows besides."""
    return {user: _sorted(text) for user, text in (snapshot.metadata or {}).items() if text is not None}


def in_board_order(
    leaderboard: Leaderboard, shown: Mapping[int, Line], names: Mapping[int, str]
) -> list[tuple[int, str, int, tuple[int, int] | None]]:
    """The lines of a board, the best first, by the definition alone."""
    definition = leaderboard.definition
    sign = 1 if definition.order == "ascending" else -1
    if definition.ties == "user_id":
        users = sorted(shown, key=lambda u: (shown[u][0], str(u)), reverse=sign < 0)
        return [(user, names[user], shown[user][0], None) for user in users]
    turn = 1 if definition.ties == "first" else -1
    moments = {user: (turn * line[1][0], turn * line[1][1]) for user, line in shown.items()}
    users = sorted(shown, key=lambda u: (sign * shown[u][0], moments[u]))
    return [(user, names[user], shown[user][0], moments[user]) for user in users]


def _sorted(text: str | None) -> str:
    assert text is not None
    return json.dumps(json.loads(text), sort_keys=True)
