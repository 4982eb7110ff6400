"""Whether the nodes of an engine say what PostgreSQL says, leaderboard by leaderboard.

Owns the comparison. Must never ask a server, nor follow the engine by the server's own means: each node is asked for
what it has. Assumes that keys are named as people find them with redis-cli, whatever tag is in front of `default`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import asyncpg
import redis
import redis.exceptions

from realtime.boards.leaderboard import partition_of
from realtime.store.fitness import run_of
from tests.support.redis_node import Node
from tests.support.stores import as_told

PARTITIONS: Final = 16

_AWAY = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, redis.exceptions.RedisError, TimeoutError)

_ROWS = """
SELECT 'default', 'all_time', user_id, total_score FROM user_total_scores
UNION ALL
SELECT 'default', to_char(week, '"week_of_"YYYY_MM_DD'), user_id, score FROM user_weekly_scores
WHERE week = date_trunc('week', clock_timestamp() AT TIME ZONE 'UTC')::date
UNION ALL
SELECT l.slug, w.name, s.user_id, s.score
FROM leaderboards l JOIN windows w ON w.leaderboard = l.id AND w.ends > clock_timestamp()
JOIN scores s ON s.source = l.source AND s.rule = l.rule AND s."window" = w.id WHERE l.id <> 1
"""


class Engine(Protocol):
    """A store of several processes."""

    def primaries(self) -> Sequence[Node]: ...


@dataclass
class _Ledger:
    """What PostgreSQL has of the boards that are live."""

    names: Mapping[int, str]
    boards: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    """Scores by partition, board and user; a board of no score is not there."""


async def difference(url: str, engine: Engine) -> str:
    """How the engine differs from PostgreSQL in live boards, '' where it does not; also that one cannot be asked."""
    try:
        ledger = await _read_ledger(url)
        return await asyncio.to_thread(_compare, ledger, engine)
    except _AWAY as error:
        return repr(error)


async def _read_ledger(url: str) -> _Ledger:
    connection = await asyncpg.connect(url, timeout=5)
    try:
        ledger = _Ledger(dict(await connection.fetch("SELECT id, username FROM users")))
        for slug, window, user_id, score in await connection.fetch(_ROWS):
            board = window if slug == "default" else f"{slug}:{window}"
            of_partition = ledger.boards.setdefault(partition_of(slug, PARTITIONS), {})
            of_partition.setdefault(board, {})[str(user_id)] = float(score)
        return ledger
    finally:
        await connection.close()


def _compare(ledger: _Ledger, engine: Engine) -> str:
    with ExitStack() as stack:
        places: dict[str, tuple[redis.Redis, str]] = {}
        for node in engine.primaries():
            client = stack.enter_context(node.client(socket_timeout=5))
            run = run_of(as_told(client.info()))
            for key in client.scan_iter("*leaderboard:epoch", 10_000):
                tag = key.removesuffix("leaderboard:epoch")
                epoch, made_for = client.mget(key, f"{tag}leaderboard:run")
                name = _partition(tag)
                if name not in ledger.boards:
                    continue
                if epoch is None or epoch.startswith("filling:") or made_for != run:
                    return f"partition {name!r} at {node} is not complete: {epoch} of {made_for}, which is {run}"
                places[name] = client, tag
        for name, boards in ledger.boards.items():
            if name not in places:
                return f"partition {name!r} is nowhere"
            client, tag = places[name]
            if wrong := _compare_partition(client, tag, boards, ledger.names):
                return wrong
    return ""


def _partition(tag: str) -> str:
    """The partition whose keys begin like this; '' for `default`'s, tagged or not."""
    name = tag.strip("{}")
    return name if len(name) == 3 and name[0] == "p" and name[1:].isdigit() else ""


def _compare_partition(client: Any, tag: str, boards: dict[str, dict[str, float]], names: Mapping[int, str]) -> str:
    players = sorted({user for scores in boards.values() for user in scores})
    with client.pipeline(transaction=False) as pipe:
        for board in boards:
            pipe.zrange(f"{tag}leaderboard:user_scores:{board}", 0, -1, withscores=True)
        for user in players:
            pipe.hget(f"{tag}leaderboard:users:{user}", "username")
        said = pipe.execute()
    for (board, scores), rows in zip(boards.items(), said, strict=False):
        if (found := dict(rows)) != scores:
            return f"{board}: {len(found.items() ^ scores.items())} rows differ"
    if said[len(boards) :] != [names[int(user)] for user in players]:
        return f"names differ in {tag or 'the published content'}"
    return ""
