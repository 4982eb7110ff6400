"""Failovers of PostgreSQL: its primary is killed, cut off or paused under load, and its standby promoted in its place.

Owns a pair of servers, which are hosts of their own, and a store. The failover manager is the scenario itself: it
promotes once it has waited, and makes nobody step down. So the primary before comes back and believes that it is one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import monotonic

import asyncpg
import httpx

from realtime.ledger import migrations
from tests.chaos.accounts import Outcome, difference
from tests.chaos.deployment import KeptStore
from tests.chaos.scenarios import Scale, Scene, StoreScene, scene
from tests.support.replicated import Pair, Server, apart
from tests.support.waiting import eventually

NOTICED = 0.5
"""Seconds until the failover manager promotes."""


class Replicated:
    """A pair with users in it, and a store: what a scenario needs of `Stores`. `url` is the right primary's own."""

    def __init__(self, folder: Path, pair: Pair, users: int) -> None:
        self.folder, self.pair, self.users = folder, pair, users
        self.database = self
        self.right = pair.a
        asyncio.run(self._prepare())
        self.store = KeptStore(folder)

    @property
    def url(self) -> str:
        return self.right.url

    async def _prepare(self) -> None:
        await migrations.migrate(self.pair.a.url)
        connection = await asyncpg.connect(self.pair.a.url)
        await connection.execute(
            f"INSERT INTO users (username) SELECT 'player ' || g FROM generate_series(1, {self.users}) g"
        )
        await connection.close()

    def begin(self, *, synchronous: bool) -> None:
        """A healthy pair, whatever was before: the server that was right last is the primary, the other one follows."""
        pair = self.pair
        for server in (pair.a, pair.b):
            server.go_on()
            server.plug("outside", "beside")
        if self.right is pair.b:
            pair.turn()
            self.right = pair.a
        elif not pair.a.is_running:
            pair.a.start()
        pair.a.configure(synchronous_standby_names="")
        pair.prepare()
        pair.synchronous(synchronous)

    def promote(self) -> float:
        """The standby takes over; when that was."""
        self.pair.b.promote()
        self.right = self.pair.b
        return monotonic()

    def mend(self) -> None:
        """After a scenario that broke off: `begin` mends the pair."""
        self.store.mend()

    def stop(self) -> None:
        self.store.stop()


Scenario = Callable[[Replicated, Scale], Awaitable[Outcome]]


def recorded(server: Server) -> int:
    return int(server.sql("SELECT count(*) FROM user_score_transactions"))


async def _failover(
    name: str, stores: Replicated, scale: Scale, away: Callable[[], None], back: Callable[[], None]
) -> Outcome:
    """`away` takes the primary away, `back` brings it back believing; with a synchronous standby."""
    pair = stores.pair
    await asyncio.to_thread(stores.begin, synchronous=True)
    async with scene(name, stores, scale, database_url=pair.url) as made:  # type: ignore[arg-type]
        await made.load()
        await asyncio.to_thread(away)
        await asyncio.sleep(NOTICED)
        promoted = await asyncio.to_thread(stores.promote)
        found = await _accepts(made, promoted)
        await asyncio.to_thread(back)
        believed = await asyncio.to_thread(recorded, pair.a)
        await made.load(2 * scale.load)
        await _healed(made, stores, promoted if scale.load < 1 else monotonic())
        assert await asyncio.to_thread(recorded, pair.a) == believed, "the primary before was told something"
        assert pair.a.sql("SELECT pg_is_in_recovery()") == "f", "it still believes"
        made.outcome.notes["found after"] = f"{found:.1f} s"
        made.outcome.rounds = 1
    return made.outcome


async def _accepts(made: Scene, promoted: float) -> float:
    """Seconds from the promotion until a score is recorded."""
    patience = made.scale.healed / 2  # seconds: five on a machine of its own
    await eventually(lambda: any(reply.kind == "accepted" for reply in made.tally.since(promoted)), patience)
    return monotonic() - promoted


async def _healed(made: StoreScene, stores: Replicated, since: float) -> None:
    made.differs = partial(difference, stores.url, made.keys)
    await made.heal(since)
    assert monotonic() - since <= made.scale.healed, f"healed {monotonic() - since:.1f} s after the promotion"


async def ledger_killed(stores: Replicated, scale: Scale) -> Outcome:
    """kill -9 of the primary; once its standby has taken over, it starts again as it was."""
    a = stores.pair.a
    return await _failover("primary killed (-9), standby promoted", stores, scale, a.kill, a.start)


async def ledger_cut_off(stores: Replicated, scale: Scale) -> Outcome:
    """Every cable of the primary is pulled, and plugged in again once its standby has taken over."""
    a, cables = stores.pair.a, ("outside", "beside")
    away, back = (lambda: a.pull(*cables)), (lambda: a.plug(*cables))
    return await _failover("primary cut off, standby promoted", stores, scale, away, back)


async def two_primaries(stores: Replicated, scale: Scale) -> Outcome:
    """Servers reach both all the time: the one that is replaced says that it is the primary as well as the other."""
    a = stores.pair.a
    away, back = (lambda: a.pull("beside")), (lambda: a.plug("beside"))
    return await _failover("two primaries, both in reach", stores, scale, away, back)


async def ledger_paused(stores: Replicated, scale: Scale) -> Outcome:
    """SIGSTOP of the primary, which goes on once its standby has taken over."""
    a = stores.pair.a
    return await _failover("primary paused (SIGSTOP), standby promoted", stores, scale, a.pause, a.go_on)


async def ledger_asynchronous(stores: Replicated, scale: Scale) -> Outcome:
    """The primary is killed while its asynchronous standby lacks what was acknowledged last, of this week and of one
    that is closed: all boards follow the ledger back."""
    pair = stores.pair
    await asyncio.to_thread(stores.begin, synchronous=False)
    week = f"week_of_{pair.a.sql(_MONDAY)}"
    async with scene("primary killed, standby lacks some", stores, scale, database_url=pair.url) as made:  # type: ignore[arg-type]
        await _amend(pair.a, "closed-kept", 5)
        await made.load()
        assert await _scores(made, week) == {1: 5}
        await asyncio.to_thread(pair.wait_for_standby)
        acknowledged = set(made.tally.acknowledged)
        pair.a.pull("beside")
        made.tally.forgets = True
        await _amend(pair.a, "closed-lost", 7)
        await made.load()
        await eventually(lambda: _shows(made, week, {1: 12}))
        await asyncio.to_thread(pair.a.kill)
        promoted = await asyncio.to_thread(stores.promote)
        await _accepts(made, promoted)
        await _healed(made, stores, promoted)
        await eventually(lambda: _shows(made, week, {1: 5}))
        await asyncio.to_thread(pair.a.start)
        await made.load()
        await _healed(made, stores, monotonic())
        lost = made.tally.acknowledged - await _found(stores.url, made.tally.prefix)
        assert lost, "nothing was lost: there was nothing to follow back from"
        assert not lost & acknowledged, "the standby had it"
        made.tally.acknowledged -= lost
        made.outcome.notes["acknowledged and lost with the primary"] = f"{len(lost):,}"
        made.outcome.rounds = 1
    return made.outcome


_MONDAY = "SELECT to_char(date_trunc('week', clock_timestamp() AT TIME ZONE 'UTC') - interval '7 days', 'YYYY_MM_DD')"

_AMENDED = """
WITH old AS (
    INSERT INTO user_score_transactions (user_id, submission_id, score_added, created_at)
    VALUES (1, '{0}', {1}, clock_timestamp() - interval '7 days')
    RETURNING date_trunc('week', created_at AT TIME ZONE 'UTC')::date AS week
), total AS (
    INSERT INTO user_total_scores AS t (user_id, total_score) VALUES (1, {1})
    ON CONFLICT (user_id) DO UPDATE SET total_score = coalesce(t.total_score, 0) + {1}, version = t.version + 1
), weekly AS (
    INSERT INTO user_weekly_scores AS w (week, user_id, score) SELECT week, 1, {1} FROM old
    ON CONFLICT (week, user_id) DO UPDATE SET score = w.score + {1}, version = w.version + 1
), pending AS (INSERT INTO outbox (kind, user_ids) VALUES ('scores', '{{1}}'))
UPDATE closed_weeks SET changes = changes + 1 WHERE week = (SELECT week FROM old) AND changes IS NOT NULL
"""


async def _amend(server: Server, submission_id: str, score: int) -> None:
    await asyncio.to_thread(server.sql, _AMENDED.format(submission_id, score))


async def _scores(made: Scene, board: str) -> dict[int, int]:
    async with httpx.AsyncClient(base_url=made.deployment.servers[0].base_url, trust_env=False) as http:
        body = (await http.get(f"/boards/{board}", timeout=30)).json()
        return {entry["user_id"]: entry["score"] for entry in body.get("entries", ())}


async def _shows(made: Scene, board: str, scores: dict[int, int]) -> bool:
    return await _scores(made, board) == scores


async def _found(url: str, prefix: str) -> set[str]:
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch(
            "SELECT submission_id FROM user_score_transactions WHERE submission_id LIKE $1", f"{prefix}-%"
        )
    finally:
        await connection.close()
    return {submission_id for (submission_id,) in rows}


ALL: tuple[Scenario, ...] = (
    ledger_killed,
    ledger_cut_off,
    two_primaries,
    ledger_paused,
    ledger_asynchronous,
)

BRIEF: tuple[Scenario, ...] = (ledger_killed, ledger_cut_off, ledger_asynchronous)
"""Those that the ordinary suite has time for."""


@contextmanager
def prepared(folder: Path, users: int = 200) -> Iterator[Replicated]:
    """A pair and a store in `folder`, with users. Blocks for some seconds."""
    with apart(folder) as pair:
        stores = Replicated(folder, pair, users)
        try:
            yield stores
        finally:
            stores.stop()
