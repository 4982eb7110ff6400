"""Scenarios: what is done to a deployment under load, and what must be true meanwhile and afterwards.

Owns the order of events. Must never wait longer than the event takes: what is awaited is always something to be seen.
Each returns an `Outcome`; `Scale` says how long and how often.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic

import httpx
import redis.asyncio

from tests.chaos.accounts import Differs, Outcome, account, difference, healed
from tests.chaos.deployment import Deployment, KeptStore, Stores
from tests.chaos.proxy import Proxy
from tests.support.crowd import Insistent, Reply, Tally, insistent

FOUND_WITHIN = 5.0
"""Seconds after which a PostgreSQL that hangs is known to: from then on refusals come at once."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How long things last."""

    rounds: int
    """Kills of the server."""
    load: float
    """Seconds of load around each event."""
    outage: float
    """Seconds that something is away."""
    hang: float
    """Seconds that something hangs."""
    submissions: int
    """Of four servers together."""
    at_once: float
    """Seconds within which a refusal, or an acceptance without the store, must come back: less than the 2 s of the
    store's time-out, for that is how long those would take who wait for the store."""
    healed: float
    """Seconds after an event within which both stores agree, and again until every viewer shows it."""
    seen: float
    """Seconds after an engine's own failover within which servers know who was promoted."""
    fresh: float
    """Seconds for which a board that nothing is done to may show nothing of what was submitted."""


# The short form runs wherever tests run, beside whatever else runs there; the long one on a machine of its own.
SHORT = Scale(
    rounds=3, load=0.7, outage=1.5, hang=4.0, submissions=4_000, at_once=1.8, healed=30.0, seen=6.0, fresh=3.0
)
LONG = Scale(
    rounds=50, load=2.0, outage=5.0, hang=30.0, submissions=200_000, at_once=1.0, healed=10.0, seen=2.0, fresh=1.5
)

Scenario = Callable[[Stores[KeptStore], Scale], Awaitable[Outcome]]


@dataclass
class Scene:
    """A deployment with a crowd."""

    outcome: Outcome
    deployment: Deployment
    crowd: Insistent
    scale: Scale
    differs: Differs

    @property
    def tally(self) -> Tally:
        return self.crowd.tally

    async def load(self, seconds: float | None = None) -> None:
        """Lets the crowd go on for a while."""
        await asyncio.sleep(self.scale.load if seconds is None else seconds)
        self.crowd.check()

    async def board(self, board: str = "all_time") -> dict[str, object]:
        """A board as HTTP shows it now."""
        async with httpx.AsyncClient(base_url=self.deployment.servers[0].base_url, trust_env=False) as http:
            began = monotonic()
            response = await http.get(f"/boards/{board}", timeout=60)
            body: dict[str, object] = response.json()
            return {**body, "took": monotonic() - began, "status": response.status_code}

    async def heal(self, since: float) -> None:
        """Waits until all is acknowledged and both stores agree, then until every viewer sees it."""
        await self.crowd.finish()
        took = await healed(self.differs, since)
        assert took <= self.scale.healed, f"both stores agreed after {took:.1f} s"
        self.outcome.heals.append(took)
        await self._seen()

    async def _seen(self) -> None:
        """Waits until every viewer shows what the boards are."""
        deadline = monotonic() + self.scale.healed
        while wrong := await self._unseen():
            self.crowd.check()
            statuses = [viewer.statuses for viewer in self.crowd.viewers]
            assert monotonic() < deadline, f"{wrong}; statuses: {statuses}"
            await asyncio.sleep(0.05)

    async def _unseen(self) -> str:
        """What some viewer does not see; '' where all see everything."""
        for name in dict.fromkeys(name for viewer in self.crowd.viewers for name in viewer.boards):
            board = await self.board(name)
            if board.get("stale", True):
                return f"{name} is said to stand still"
            lines = [(entry["user_id"], entry["username"], entry["score"]) for entry in board["entries"]]  # type: ignore[attr-defined]
            for viewer in self.crowd.viewers:
                shown = viewer.follower.boards.get(str(board["board"]))
                if name in viewer.boards and (shown is None or shown.lines != lines):
                    at = f"version {shown.version} of {shown.epoch}" if shown else "nothing"
                    return f"{name}: a viewer has {at}, the board is version {board['version']} of {board['epoch']}"
        return ""


@dataclass
class StoreScene(Scene):
    """A scene whose store is one process, which `keys` shows as redis-cli does."""

    keys: redis.asyncio.Redis


@asynccontextmanager
async def scene(
    name: str,
    stores: Stores[KeptStore],
    scale: Scale,
    *,
    servers: int = 1,
    sockets: int = 4,
    https: int = 2,
    **urls: str,
) -> AsyncIterator[StoreScene]:
    """A deployment under load, of its own where it is another than usual; when the block ends, all is accounted for."""
    outcome = Outcome(name)
    seed = secrets.randbits(32)
    tally = Tally(secrets.token_hex(4), stores.users, random.Random(seed))
    own = Deployment(stores, servers=servers, **urls) if urls or servers > 1 else None
    deployment = own or stores.shared
    try:
        if own is not None:
            own.start()
        token = await asyncio.to_thread(lambda: deployment.token)
        await deployment.answer()
        addresses = [server.base_url for server in deployment.servers]
        async with deployment.keys() as keys, insistent(tally, addresses, token, sockets=sockets, https=https) as made:
            differs = partial(difference, deployment.database.url, keys)
            yield StoreScene(outcome, deployment, made, scale, differs, keys)
    except BaseException as error:
        error.add_note(f"{name}, seed {seed}; logs in {stores.folder}")
        await asyncio.to_thread(stores.mend)
        raise
    finally:
        if own is not None:
            await asyncio.to_thread(own.stop)
    await account(outcome, deployment.database.url, tally)


# The server ------------------------------------------------------------------------------------------------------


async def server_killed(stores: Stores[KeptStore], scale: Scale) -> Outcome:
    """kill -9 of the server at random moments under load."""
    total = Outcome("server killed (-9)")
    generator = random.Random(scale.rounds)
    for _ in range(scale.rounds):
        async with scene(total.name, stores, scale) as made:
            (server,) = made.deployment.servers
            await made.load(generator.uniform(0.2, 2 * scale.load))
            server.kill()
            server.begin()
            began = monotonic()
            await made.deployment.answers(server)
            await made.heal(began)
        made.outcome.check()
        total.add(made.outcome)
    return total


async def worker_killed(stores: Stores[KeptStore], scale: Scale) -> Outcome:
    """kill -9 of the worker while changes wait for the store."""
    async with scene("worker killed (-9)", stores, scale) as made:
        await made.load()
        made.deployment.store.pause()
        await made.load(2.5)
        made.deployment.worker.kill()
        made.deployment.store.go_on()
        await made.load()
        made.deployment.worker.begin()
        await made.heal(monotonic())
    made.outcome.rounds = 1
    return made.outcome


# The store -------------------------------------------------------------------------------------------------------


async def store_empty(stores: Stores[KeptStore], scale: Scale) -> Outcome:
    """kill -9 of the store, which comes back with nothing."""
    async with scene("store killed (-9), back empty", stores, scale) as made:
        await made.load()
        began = await _store_away(made, lambda: asyncio.to_thread(stores.store.lose))
        await made.heal(began)
        _status_was_told(made)
    return made.outcome


async def store_older(stores: Stores[KeptStore], scale: Scale) -> Outcome:
    """kill -9 of the store, which comes back with older content."""
    async with scene("store killed (-9), back with an older snapshot", stores, scale) as made:
        saved = stores.folder / "saved"
        await made.load()
        await made.keys.save()
        await asyncio.to_thread(stores.store.keep, saved)
        await made.load()
        began = await _store_away(made, lambda: asyncio.to_thread(stores.store.go_back, saved))
        await made.heal(began)
        _status_was_told(made)
    return made.outcome


async def _store_away(made: Scene, meanwhile: Callable[[], Awaitable[None]]) -> float:
    """Kills the store and starts it again after `meanwhile`; when it was back."""
    store = made.deployment.store
    await asyncio.to_thread(store.kill)
    killed = monotonic()
    await meanwhile()
    await _without_store(made, killed, made.scale.outage)
    await asyncio.to_thread(store.start)
    made.outcome.rounds = 1
    return monotonic()


async def _without_store(made: Scene, since: float, seconds: float) -> None:
    """While the store is away: scores are accepted at once and say so, boards stand and say so."""
    await made.load(seconds)
    board = await made.board()
    assert board["stale"] is True, "a board that stands still is not said to"
    replies = made.tally.since(since)
    accepted = [reply for reply in replies if reply.kind == "accepted"]
    assert accepted, "nothing was accepted while the store was away"
    assert any(not reply.live for reply in accepted), "nobody was told that the store is away"
    slowest = _slowest(replies)
    assert slowest < made.scale.at_once, f"a submission waited {slowest:.2f} s for the store"
    made.outcome.notes |= {"accepted meanwhile": f"{len(accepted):,}", "slowest answer": f"{slowest:.2f} s"}


def _slowest(replies: list[Reply]) -> float:
    return max((reply.took for reply in replies), default=0.0)


def _status_was_told(made: Scene) -> None:
    for viewer in made.crowd.viewers:
        said = [live for _, live in viewer.statuses]
        assert False in said and said[-1] is True, f"a viewer was told {said}"


async def store_hangs(stores: Stores[KeptStore], scale: Scale) -> Outcome:
    """SIGSTOP of the store."""
    async with scene(f"store hangs for {scale.hang:.0f} s (SIGSTOP)", stores, scale) as made:
        await made.load()
        stores.store.pause()
        try:
            await _without_store(made, monotonic(), scale.hang)
        finally:
            stores.store.go_on()
        await made.heal(monotonic())
        _status_was_told(made)
        made.outcome.rounds = 1
    return made.outcome


async def scripts_forgotten(stores: Stores[KeptStore], scale: Scale) -> Outcome:
    """SCRIPT FLUSH again and again: NOSCRIPT."""
    async with scene("scripts forgotten (NOSCRIPT)", stores, scale) as made:
        for _ in range(10):
            await made.load(scale.load / 5)
            await made.keys.script_flush()
            made.outcome.rounds += 1
        await made.heal(monotonic())
        assert not made.tally.refused(), made.tally.refused()
        assert all(reply.live for reply in made.tally.replies), "a forgotten script is no store that is away"
    return made.outcome


async def cut_subscriptions(keys: redis.asyncio.Redis) -> int:
    """Cuts every connection that listens; how many. One by one: not every store can cut all of a kind."""
    listening = [client["id"] for client in await keys.client_list() if "P" in client.get("flags", "")]
    return sum([await keys.client_kill_filter(_id=client) for client in listening])


async def subscription_cut(stores: Stores[KeptStore], scale: Scale) -> Outcome:
    """The pub/sub connection alone is cut, again and again."""
    async with scene("pub/sub connection cut", stores, scale) as made:
        for _ in range(5):
            await made.load(scale.load / 2)
            made.outcome.rounds += await cut_subscriptions(made.keys)
        await made.heal(monotonic())
        assert made.outcome.rounds >= 2, "there was nothing to cut"
    return made.outcome


# PostgreSQL ------------------------------------------------------------------------------------------------------


async def database_killed(stores: Stores[KeptStore], scale: Scale) -> Outcome:
    """kill -9 of PostgreSQL, and back."""
    return await _database_away("PostgreSQL killed (-9)", stores, scale, stores.database.kill)


async def database_stopped(stores: Stores[KeptStore], scale: Scale) -> Outcome:
    """A stop of PostgreSQL, and a start."""
    return await _database_away("PostgreSQL stopped", stores, scale, stores.database.stop)


async def _database_away(name: str, stores: Stores[KeptStore], scale: Scale, end: Callable[[], None]) -> Outcome:
    async with scene(name, stores, scale) as made:
        await made.load()
        await asyncio.to_thread(end)
        gone = monotonic()
        await _without_database(made, gone, scale.outage)
        await asyncio.to_thread(stores.database.start)
        await made.heal(monotonic())
        made.outcome.rounds = 1
    return made.outcome


async def _without_database(made: Scene, since: float, seconds: float) -> None:
    """While PostgreSQL is away: refusals at once, boards as ever."""
    await made.load(seconds)
    board = await made.board()
    assert (board["status"], board["stale"]) == (200, False), board
    replies = made.tally.since(since + 0.1)
    assert replies, "nobody was answered"
    assert {reply.kind for reply in replies} == {"unavailable"}, made.tally.refused()
    slowest = _slowest(replies)
    made.outcome.notes |= {"refused meanwhile": f"{len(replies):,}", "slowest answer": f"{slowest:.2f} s"}
    assert slowest < made.scale.at_once, f"a refusal took {slowest:.2f} s"


# Several at once -------------------------------------------------------------------------------------------------


async def server_and_store_killed(stores: Stores[KeptStore], scale: Scale) -> Outcome:
    """Both at once; the store comes back empty."""
    async with scene("server and store killed (-9) at once", stores, scale) as made:
        (server,) = made.deployment.servers
        await made.load()
        server.kill()
        await asyncio.to_thread(stores.store.kill)
        stores.store.lose()
        await asyncio.to_thread(stores.store.start)
        began = monotonic()
        server.begin()
        await made.deployment.answers(server)
        await made.heal(began)
        made.outcome.rounds = 1
    return made.outcome


async def both_stores_killed(stores: Stores[KeptStore], scale: Scale) -> Outcome:
    """PostgreSQL and the store at once; the store comes back with what it saved before."""
    async with scene("PostgreSQL and store killed (-9) at once", stores, scale) as made:
        await made.keys.save()
        await made.load()
        await asyncio.to_thread(stores.database.kill)
        await asyncio.to_thread(stores.store.kill)
        await made.load(scale.outage)
        await asyncio.to_thread(stores.store.start)
        await made.load()
        await asyncio.to_thread(stores.database.start)
        await made.heal(monotonic())
        made.outcome.rounds = 1
    return made.outcome


# The wires -------------------------------------------------------------------------------------------------------


async def replies_cut(stores: Stores[KeptStore], scale: Scale) -> Outcome:
    """Connections to both stores cut in the middle of replies."""
    async with Proxy(stores.database.url) as to_database, Proxy(stores.store.url) as to_store:
        urls = {"database_url": to_database.url, "store_url": to_store.url}
        async with scene("connections cut in replies", stores, scale, **urls) as made:
            await made.load()
            generator = random.Random(7)
            for proxy in (to_database, to_store):
                proxy.cut_in_replies(generator)
            await made.load(3 * scale.load)
            for proxy in (to_database, to_store):
                proxy.cut_in_replies(None)
            await made.heal(monotonic())
            made.outcome.rounds = to_database.cuts + to_store.cuts
    return made.outcome


async def store_half_open(stores: Stores[KeptStore], scale: Scale) -> Outcome:
    """The wire to the store swallows everything, then its connections are found dead."""
    async with Proxy(stores.store.url) as to_store:
        async with scene("wire to the store dead, half-open", stores, scale, store_url=to_store.url) as made:
            await made.load()
            to_store.stall()
            await _without_store(made, monotonic(), scale.hang)
            to_store.cut()
            to_store.flow()
            await made.heal(monotonic())
            _status_was_told(made)
            made.outcome.rounds = 1
    return made.outcome


async def database_half_open(stores: Stores[KeptStore], scale: Scale) -> Outcome:
    """The wire to PostgreSQL swallows everything, then its connections are found dead."""
    async with Proxy(stores.database.url) as to_database:
        async with scene("wire to PostgreSQL dead, half-open", stores, scale, database_url=to_database.url) as made:
            await made.load()
            to_database.stall()
            stalled = monotonic()
            await made.load(max(scale.hang, FOUND_WITHIN + 2))
            board = await made.board()
            assert (board["status"], board["stale"]) == (200, False), board
            # Of a list that was on its way, a part may have been recorded before.
            replies = [reply for reply in made.tally.since(stalled) if reply.at - reply.took > stalled]
            others = [(reply.kind, reply.at - stalled) for reply in replies if reply.kind != "unavailable"]
            assert replies and not others, f"answered so many seconds after the wire was dead: {others[:20]}"
            later = [reply for reply in replies if reply.at - reply.took > stalled + FOUND_WITHIN]
            assert later and _slowest(later) < scale.at_once, f"a refusal took {_slowest(later):.2f} s"
            made.outcome.notes |= {
                "refused meanwhile": f"{len(replies):,}",
                "found after": f"{_slowest(replies):.1f} s",
                "slowest answer then": f"{_slowest(later):.2f} s",
            }
            to_database.cut()
            to_database.flow()
            await made.heal(monotonic())
            made.outcome.rounds = 1
    return made.outcome


# Many ------------------------------------------------------------------------------------------------------------


async def four_servers(stores: Stores[KeptStore], scale: Scale) -> Outcome:
    """Four servers, everybody submitting to the same thousand users."""
    name = f"four servers, {stores.users:,} users"
    async with scene(name, stores, scale, servers=4, sockets=16, https=8) as made:
        while len(made.tally.sent) < scale.submissions:
            await made.load(0.2)
        await made.heal(monotonic())
        made.outcome.rounds = 1
        assert not made.tally.refused(), made.tally.refused()
    return made.outcome


ALL: tuple[Scenario, ...] = (
    server_killed,
    store_empty,
    store_older,
    store_hangs,
    database_killed,
    database_stopped,
    worker_killed,
    server_and_store_killed,
    both_stores_killed,
    replies_cut,
    store_half_open,
    database_half_open,
    scripts_forgotten,
    subscription_cut,
    four_servers,
)


def prepare(folder: Path, users: int = 1_000) -> Stores[KeptStore]:
    """Both stores in `folder`, with users. Blocks for some seconds."""
    return Stores(folder, users, KeptStore)
