"""What scenarios share whose store is an engine of several processes that fail over.

Owns the leaderboards, which are spread over the engine's partitions, and who watches those that nothing is done to.
Must never tell the servers what the engine does. Assumes that a failover is over when the engine says so: from then on
the time runs within which all must be well again.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from time import monotonic
from typing import Any, Final, TypeVar

import httpx

from realtime.boards.parsing import parse_definition
from realtime.ledger.definitions import Definitions
from realtime.ledger.ledger import Ledger
from realtime.store.fitness import run_of
from tests.chaos.accounts import Outcome, account
from tests.chaos.agreement import difference
from tests.chaos.deployment import Deployment, Stores
from tests.chaos.scenarios import Scale, Scene
from tests.support.crowd import FOLLOWED, Reply, Tally, Viewer, insistent
from tests.support.redis_node import Node
from tests.support.stores import as_told
from tests.support.waiting import eventually

USERS: Final = 300

TELLING: Final = 10
"""Scores of a leaderboard of which some must have changed its top: one alone need not."""

T = TypeVar("T")


async def define(url: str, slugs: Sequence[str]) -> None:
    """Leaderboards that add up, as an operator defines them."""
    ledger = Ledger(url, connections=2)
    try:
        await ledger.open()
        for slug in slugs:
            definition = parse_definition(slug, {"operator": "sum", "windows": ["all_time", "week"]})
            await Definitions(ledger).put(definition, actor="chaos")
    finally:
        await ledger.aclose()


async def _shown(deployment: Deployment, boards: Sequence[str]) -> None:
    """Returns once every server shows them."""
    for server in deployment.servers:
        async with httpx.AsyncClient(base_url=server.base_url, trust_env=False) as http:

            async def are_there(http: httpx.AsyncClient = http) -> bool:
                found = [await http.get(f"/boards/{board}") for board in boards]
                return all(one.status_code == 200 and not one.json()["stale"] for one in found)

            await eventually(are_there)


@dataclass
class Failover(Scene):
    """A scene whose store is an engine. `viewers` are by leaderboard."""

    viewers: dict[str, Viewer] = field(default_factory=dict)
    _seeing: asyncio.Task[float] | None = None

    async def done(self, deed: Callable[..., T], *arguments: Any) -> T:
        """Does something to the engine, beside the crowd."""
        return await asyncio.to_thread(deed, *arguments)

    async def promoted(self, replica: Node, began: float) -> float:
        """Waits for the engine's own part of a failover; when that was over (monotonic seconds)."""
        store = self.deployment.store
        await self.done(store.await_promotion, replica)
        over = monotonic()
        self._seeing = asyncio.create_task(self._seen_there(replica, over))
        self.outcome.notes["promoted after"] = f"{over - began:.1f} s"
        return over

    async def _seen_there(self, replica: Node, over: float) -> float:
        """Seconds until some content at the promoted replica was made, or is being made, for the run that it is of."""
        run = run_of(as_told(await self.done(replica.info)))
        await eventually(partial(asyncio.to_thread, _is_for, replica, run[:8]))
        return monotonic() - over

    async def heal(self, since: float) -> None:
        """See `Scene.heal`; also when a promoted replica was seen to be one."""
        await super().heal(since)
        if self._seeing is not None:
            took = await self._seeing
            self.outcome.notes["seen after"] = f"{took:.1f} s"
            assert took <= self.scale.seen, f"who was promoted was seen after {took:.1f} s"

    def was_untouched(self, slugs: Sequence[str], since: float) -> None:
        """Raises where a leaderboard that nothing was done to stood still, or was said to, since then."""
        now = monotonic()
        worst = 0.0
        for slug in slugs:
            viewer = self.viewers[slug]
            statuses = [live for at, live in viewer.statuses if at >= since]
            assert not statuses, f"who follows {slug}, to which nothing happened, was told {statuses}"
            accepted = [reply.at for reply in self._accepted([slug], since)]
            moments = [since, *(at for at in viewer.diffs if since <= at), now]
            for began, ended in pairwise(moments):
                # A machine under load may be slow with everything: what was accepted meanwhile tells.
                between = [at for at in accepted if began < at < ended]
                pause = ended - between[0] if len(between) >= TELLING else 0.0
                worst = max(worst, pause)
                assert pause <= self.scale.fresh, (
                    f"{slug}, to which nothing happened, stood still for {pause:.1f} s, with {len(between)} scores"
                )
        doubted = [reply for reply in self._accepted(slugs, since) if not reply.live]
        assert not doubted, f"{len(doubted)} scores of leaderboards to which nothing happened were said to show later"
        self.outcome.notes["others' longest pause"] = f"{worst:.1f} s"

    def was_told(self, slugs: Sequence[str], since: float) -> None:
        """Raises where followers of what happened to a leaderboard were not told, or not told when it was over."""
        for slug in slugs:
            said = [live for at, live in self.viewers[slug].statuses if at >= since]
            assert False in said and said[-1] is True, f"who follows {slug} was told {said}"
        assert any(not reply.live for reply in self._accepted(slugs, since)), "nobody who submitted was told"

    def _accepted(self, slugs: Sequence[str], since: float) -> list[Reply]:
        return [r for r in self.tally.since(since) if r.kind == "accepted" and r.leaderboard in slugs]

    def were_accepted(self, since: float) -> None:
        """Raises where a submission had to wait for the store, or was refused."""
        replies = self.tally.since(since)
        assert replies and not self.tally.refused(), self.tally.refused()
        slowest = max(reply.took for reply in replies)
        assert slowest < self.scale.at_once, f"a submission waited {slowest:.2f} s for the store"


def _is_for(node: Node, run: str) -> bool:
    """Whether a node has content whose epoch is of that run."""
    with node.client() as client:
        epochs = [str(client.get(key)) for key in client.scan_iter("*leaderboard:epoch", 10_000)]
    return any(epoch.removeprefix("filling:").startswith(run) for epoch in epochs)


@asynccontextmanager
async def failover(
    name: str, stores: Stores[Any], scale: Scale, slugs: Sequence[str] = ("default",), **urls: str
) -> AsyncIterator[Failover]:
    """The deployment under load, one viewer a leaderboard; when the block ends, all is accounted for."""
    outcome = Outcome(name, rounds=1)
    seed = secrets.randbits(32)
    tally = Tally(secrets.token_hex(4), stores.users, random.Random(seed), leaderboards=slugs)
    deployment = Deployment(stores, **urls) if urls else stores.shared
    following = [FOLLOWED if slug == "default" else (f"{slug}:all_time", f"{slug}:current_week") for slug in slugs]
    try:
        if urls:
            deployment.start()
        token = await asyncio.to_thread(lambda: deployment.token)
        await deployment.answer()
        await _shown(deployment, [board for boards in following for board in boards])
        addresses = [server.base_url for server in deployment.servers]
        async with insistent(tally, addresses, token, viewers=following) as crowd:
            differs = partial(difference, deployment.database.url, stores.store)
            made = Failover(
                outcome, deployment, crowd, scale, differs, viewers=dict(zip(slugs, crowd.viewers, strict=True))
            )
            yield made
    except BaseException as error:
        error.add_note(f"{name}, seed {seed}; logs in {stores.folder}")
        await asyncio.to_thread(stores.mend)
        raise
    finally:
        if urls:
            await asyncio.to_thread(deployment.stop)
    await account(outcome, deployment.database.url, tally)
