"""Several leaderboards, simulated: whatever is delayed, killed, redefined or built meanwhile, boards come to equal the
log.

As `test_interleavings`, in a world of several leaderboards, whose windows end at two moments and whose seasons lie
apart. Further rules record submissions to all of them in one batch, guarded by windows, import histories, ban people
from one, change rules, add leaderboards over a history, take them away and bring them back, build what they need step
by step, and decide when a process learns of any of it. After every settling each board is a plain fold over the log,
in its order, and so is what a viewer made of the messages alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from realtime.boards.submissions import Span, Submission
from realtime.intake.score_file import FileRow
from tests.support.leaderboard_world import CHANGES, SENT, LeaderboardProcess, LeaderboardWorld
from tests.support.simulation import Finish, Simulation, simulate, simulated, user_ids, which
from tests.support.world import THIS_WEEK, Process

BUILDS = 30
"""Steps of building after which nothing may be left to build."""

SLUGS = ["race", "best", "late", "default"]

GUARDS: list[Span | None] = [
    None,
    None,
    Span(None, THIS_WEEK.starts),
    Span(THIS_WEEK.starts, None),
    Span(THIS_WEEK.starts - timedelta(hours=3), THIS_WEEK.starts),
]
"""In which window alone a submission may be recorded."""

METADATA = [None, '{"car":"gt"}', '{"car":"f1"}']

Made = tuple[Any, ...]
"""A leaderboard, a user, a submission id, a score, which moment, metadata, and maybe a guard."""

made = st.lists(
    st.tuples(
        st.sampled_from(["default", "race", "race"]),
        user_ids,
        st.sampled_from("abcd"),
        st.integers(-1, 3),
        st.integers(0, len(SENT) - 1),
        st.sampled_from(METADATA),
        st.sampled_from(GUARDS),
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda one: one[:3],
)


class Leaderboards(Simulation):
    """See the module."""

    world: ClassVar[LeaderboardWorld]
    rounds = 10

    begin = None  # type: ignore[assignment]
    clock_is_set_back = None  # type: ignore[assignment]

    def process(self, of: int) -> LeaderboardProcess:
        return cast(LeaderboardProcess, self.running(of))

    @initialize(with_best=st.booleans())
    def open(self, with_best: bool) -> None:
        """There is a leaderboard beside default that ranks the same submissions, or there is none yet."""
        self.do(self.world.reset())
        self.do(self.world.open(with_best=with_best))
        self.do(self.settled())
        self.do(self.world.back_up())

    @rule(of=which, made=made, at_once=st.booleans())
    def batch(self, of: int, at_once: bool, made: list[Made]) -> None:
        moments = [moment for moment in SENT if moment <= self.world.moment]
        batch = [
            Submission(
                user, name, score, None, moments[at % len(moments)], slug,
                metadata if slug == "race" or name in "ab" else None,
                *within,
            )
            for slug, user, name, score, at, metadata, *within in made
        ]  # fmt: skip
        process = self.process(of)
        self.start(process, "batch", at_once, process.batch(batch))

    @rule(of=which, made=made, at_once=st.booleans())
    def bring_in(self, of: int, at_once: bool, made: list[Made]) -> None:
        """Somebody imports a history, of several leaderboards."""
        moments = [moment for moment in SENT if moment <= self.world.moment]
        rows = [
            FileRow(line, user, name, score, None, moments[at % len(moments)], slug, metadata)
            for line, (slug, user, name, score, at, metadata, *_) in enumerate(made, 2)
        ]
        process = self.process(of)
        self.start(process, "import", at_once, process.bring_in(rows))

    @rule(of=which, user_id=user_ids, banned=st.booleans(), slug=st.sampled_from(SLUGS), at_once=st.booleans())
    def ban_from_one(self, of: int, at_once: bool, user_id: int, banned: bool, slug: str) -> None:
        process = self.process(of)
        act = process.accounts.ban if banned else process.accounts.unban
        work = process.change(act(user_id, actor="test", reason=None, leaderboard=slug))
        self.start(process, f"{'ban' if banned else 'unban'} from {slug}", at_once, work)

    # What leaderboards are -------------------------------------------------------------------------------------------

    @rule(of=which, change=st.sampled_from(CHANGES), built=st.booleans())
    def define(self, of: int, change: tuple[str, dict[str, Any]], built: bool) -> None:
        """Only who builds what it needs knows of it at once, if anybody does."""
        self.do(self.world.define(*change))
        if built:
            self.build(of, at_once=True)

    @rule(of=which, slug=st.sampled_from(["late", "late", "best", "race"]), built=st.booleans())
    def remove(self, of: int, slug: str, built: bool) -> None:
        """What nobody is `of` goes; its log stays, and it may be defined again."""
        self.do(self.world.remove(slug))
        if built:
            self.build(of, at_once=True)

    @rule(of=which, at_once=st.booleans())
    def build(self, of: int, at_once: bool) -> None:
        """A process builds what there is to be built, or goes one step."""
        process = self.process(of)
        if not process.does("build"):
            self.start(process, "build", at_once, process.building.step())

    @rule(of=which)
    def learn(self, of: int) -> None:
        """A process looks whether the catalogue has moved."""
        self.do(self.process(of).directory.look())

    @rule(of=which)
    def keep_windows(self, of: int) -> None:
        """A process makes sure of the windows to come."""
        self.do(self.kept())

    async def kept(self) -> None:
        await self.world.ledger.fetch("windows_kept")

    @rule(of=which, at_once=st.booleans())
    def look_after(self, of: int, at_once: bool) -> None:
        process = self.process(of)
        for partition in process.partitions.in_use[:1]:
            if not process.does(f"watch {partition}"):
                self.start(process, f"watch {partition}", at_once, process.look_after(partition))

    # What must be true -----------------------------------------------------------------------------------------------

    async def before_settling(self, running: Sequence[Process]) -> None:
        await self.kept()
        for process in running:
            await cast(LeaderboardProcess, process).directory.look()
            process.rollover.step(self.world.moment)

    async def looked_after(self, process: Process, finish: Finish) -> None:
        await super().looked_after(process, finish)
        assert isinstance(process, LeaderboardProcess)
        await process.directory.look()
        for partition in process.partitions.in_use:
            await finish(process, f"watch {partition}", process.look_after(partition))
        await process.partitions.compare_rules()

    async def mended(self, process: Process, finish: Finish) -> None:
        assert isinstance(process, LeaderboardProcess)
        for _ in range(BUILDS):
            left: list[bool] = []

            async def step(left: list[bool] = left) -> None:
                left.append(await process.building.step())

            await finish(process, "build", step())
            if left != [True]:
                break
        else:
            raise AssertionError("building does not come to an end")
        await super().mended(process, finish)
        await self.before_settling([one for one in self.world.processes if not one.is_stopped])


@pytest.fixture
def world(dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with simulated(Leaderboards, LeaderboardWorld, dsn, tmp_path, monkeypatch):
        yield


def test_every_board_comes_to_equal_the_log_whatever_happens(world: None) -> None:
    simulate(Leaderboards, 20, 40, derandomize=True)


@pytest.mark.long
def test_every_board_comes_to_equal_the_log_whatever_happens_for_long(world: None) -> None:
    simulate(Leaderboards, 2_000, 60, derandomize=False)


# Lives that somebody thought of --------------------------------------------------------------------------------------


def begun(*, with_best: bool) -> Leaderboards:
    state = Leaderboards()
    state.open(with_best=with_best)
    return state


def change_to(slug: str, **fields: Any) -> tuple[str, dict[str, Any]]:
    return next(change for change in CHANGES if change[0] == slug and fields.items() <= change[1].items())


def test_scores_of_default_by_a_catalogue_that_has_moved_are_recorded_by_the_new_one(world: None) -> None:
    """By the old one they would count on the published boards alone."""
    state = begun(with_best=False)
    state.define(of=1, change=change_to("best", order="ascending"), built=True)
    state.batch(of=0, made=[("default", 9, "a", 3, 1, None)], at_once=True)
    state.teardown()


def test_scores_by_a_catalogue_that_does_not_know_the_standings_reach_the_store(world: None) -> None:
    state = begun(with_best=True)
    state.define(of=1, change=change_to("race", operator="count"), built=True)
    state.batch(of=0, made=[("race", 9, "a", 3, 1, None)], at_once=True)
    state.teardown()


@pytest.mark.parametrize("change", [change_to("race", operator="count"), change_to("best", operator="last")])
@pytest.mark.parametrize("until", ["chunk", "show"])
def test_scores_beside_a_walk_count_once(world: None, change: tuple[str, dict[str, Any]], until: str) -> None:
    """Whether their player has the rows of the standings that are being made, or has not."""
    state = begun(with_best=True)
    slug = "race" if change[0] == "race" else "default"
    state.batch(of=0, made=[(slug, 9, "a", 3, 1, None)], at_once=True)
    state.define(of=0, change=change, built=False)
    state.build(of=0, at_once=False)
    while not state.letters()[0].call.startswith(until):
        state.do(state.world.post.deliver(state.letters()[0]))
    for name in "bc":
        state.batch(of=1, made=[(slug, 9, name, 5, 1, None)], at_once=True)
    state.teardown()


def test_rows_that_come_once_their_rule_is_no_more_are_not_written(world: None) -> None:
    state = begun(with_best=True)
    state.batch(of=0, made=[("race", 9, "a", 3, 1, None)], at_once=False)
    state.define(of=1, change=change_to("race", operator="best"), built=True)
    while state.letters():
        state.do(state.world.post.deliver(state.letters()[0]))
    state.teardown()


@pytest.mark.parametrize("until", ["chunk", "show", "switch", "told"])
def test_default_shows_metadata_from_one_moment_on_whoever_has_heard_of_it(world: None, until: str) -> None:
    """One process records and shows its boards by the published tables, another by the rows that are being made."""
    state = begun(with_best=False)
    state.batch(of=0, made=[("default", 9, "a", 3, 1, METADATA[1], None)], at_once=True)
    for of in (0, 1):
        state.connect(of=of)
    state.define(of=0, change=("default", {"metadata": True}), built=False)
    state.build(of=0, at_once=False)
    while not state.letters()[0].call.startswith(until):
        state.do(state.world.post.deliver(state.letters()[0]))
    state.batch(of=1, made=[("default", 9, "d", 5, 1, None, None)], at_once=True)  # it tells of nothing besides
    state.batch(of=1, made=[("default", 9, "b", 5, 1, METADATA[2], None)], at_once=True)
    state.batch(of=1, made=[("default", 8, "b", 5, 0, METADATA[1], None)], at_once=False)
    state.settle()
    state.batch(of=1, made=[("default", 8, "a", 0, 1, METADATA[2], None)], at_once=True)
    state.define(of=1, change=("default", {}), built=False)
    state.batch(of=1, made=[("default", 9, "c", 1, 1, None, None)], at_once=True)
    state.teardown()


def test_rows_of_the_published_tables_that_come_late_hide_none_of_what_default_shows_then(world: None) -> None:
    """Who tells them has recorded by them, and has not heard that default's boards are made of other rows by now."""
    state = begun(with_best=False)
    for name in "abc":
        state.batch(of=0, made=[("default", 9, name, 3, 1, None, None)], at_once=True)
    state.batch(of=1, made=[("default", 9, "d", 3, 1, None, None)], at_once=False)
    while not state.letters()[0].call.startswith("apply"):
        state.do(state.world.post.deliver(state.letters()[0]))
    (late,) = state.letters()
    state.define(of=0, change=("default", {"metadata": True}), built=True)
    state.do(state.world.post.deliver(late))
    state.batch(of=0, made=[("default", 9, "a", 4, 1, METADATA[1], None)], at_once=True)
    state.batch(of=0, made=[("default", 9, "b2", 4, 1, None, None)], at_once=True)
    board = state.world.directory.current.parse("all_time")
    snapshot = state.do(state.world.fresh(0))[board]
    assert snapshot.scores[9] == 16, "what came late is newer than what came after it"
    state.teardown()


def test_a_closed_week_of_default_shows_the_metadata_that_counts(world: None) -> None:
    state = begun(with_best=True)
    state.batch(of=0, made=[("default", 9, "a", 3, 1, METADATA[1], None)], at_once=True)
    for _ in state.world.moments[1:]:
        state.time_passes()
    state.connect(of=0)
    state.settle()
    state.define(of=1, change=("default", {"metadata": True}), built=True)
    state.settle()
    state.batch(of=0, made=[("default", 9, "b", 4, 1, METADATA[2], None)], at_once=True)
    state.teardown()


def test_who_reaches_the_same_score_again_later_stands_elsewhere(world: None) -> None:
    """The last to have reached it stands higher: the moment moves alone, in the store and before a viewer."""
    state = begun(with_best=True)
    made = [("race", 9, "a", 3, 0, None), ("race", 10, "a", 3, 0, None)]
    state.batch(of=0, made=made, at_once=True)
    state.connect(of=0)
    state.batch(of=0, made=[("race", 9, "b", 3, 1, None)], at_once=True)
    state.hear(of=0)
    state.teardown()


def test_a_closed_board_that_is_amended_has_another_version(world: None) -> None:
    state = begun(with_best=True)
    for _ in state.world.moments[1:]:
        state.time_passes()
    state.batch(of=0, made=[("race", 9, "a", 3, 1, None)], at_once=True)
    state.connect(of=0)
    state.settle()
    state.batch(of=0, made=[("race", 9, "b", 4, 1, None), ("default", 9, "b", 4, 1, None)], at_once=True)
    state.teardown()


def test_windows_that_end_one_after_the_other_take_their_followers_along(world: None) -> None:
    """A score on the edge of two counts in the later one; what was followed by an alias is followed on."""
    state = begun(with_best=True)
    state.connect(of=0)
    for moment in state.world.moments[1:]:
        state.time_passes()
        at = len([sent for sent in SENT if sent <= moment]) - 1
        name = f"at-{moment:%H-%M-%S-%f}"
        state.batch(of=0, made=[("race", 9, name, 3, at, None), ("default", 9, name, 3, at, None)], at_once=True)
        state.settle()
    state.teardown()
