"""What a submission costs: to `default`, to one other leaderboard, with more rows, with ties by time.

Owns the ways in which submissions come, each by 50 sockets with 100 in flight. Must never compare ways with more or
fewer players than another. Assumes that CPU a submission, of server, PostgreSQL and store together, is what a rate is
made of: a machine that does other things as well slows the rate, and the figure hardly.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

import orjson
from redis import Redis

from tests.benchmarks.bars import Line, ratios
from tests.benchmarks.harness import Server, median
from tests.benchmarks.leaderboards_defining import Operator, operator_of
from tests.benchmarks.submissions import framed, new_id, submitting
from tests.benchmarks.usage import Parties, Usage

PLAYERS = 10_000
FEW, MANY = ["all_time"], ["all_time", "day", "week", "month", "year"]
PUBLISHED = ["all_time", "week"]

Frame = Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class Pace:
    """How much is measured."""

    windows: int
    seconds: float
    """Of a window."""


def submission(leaderboard: str | None, user_id: int) -> bytes:
    """A frame that hands a score in; to `default` as clients of before do."""
    fields = {"type": "submit", "submission_id": new_id(), "user_id": user_id, "score_added": random.randint(1, 100)}
    if leaderboard is not None:
        fields["leaderboard"] = leaderboard
    return framed(orjson.dumps(fields))


def anybody(leaderboard: str | None = None) -> Frame:
    """Scores of any player on one leaderboard."""
    return lambda: submission(leaderboard, random.randint(1, PLAYERS))


async def register(operator: Operator, players: int = PLAYERS) -> None:
    """So many users, from 1."""
    await operator.sql.execute(
        f"INSERT INTO users (username) SELECT 'player ' || g FROM generate_series(1, {players}) g"
    )
    await operator.sql.execute("ANALYZE")


async def handed_in(target: Server, token: str, frame: Frame, seconds: float) -> tuple[int, Usage]:
    """How many submissions were acknowledged in so many seconds, and the CPU that took."""
    parties = Parties(target)
    async with submitting(target, token, frame) as acknowledged:
        count, before = acknowledged(), parties.used()
        await asyncio.sleep(seconds)
        used, count = parties.used().since(before), acknowledged() - count
    if not count:
        raise SystemExit(f"nothing was acknowledged of {frame()[8:]!r}")
    return count, used


async def costs(
    target: Server, operator: Operator, token: str, ways: Mapping[str, Frame], pace: Pace
) -> dict[str, list[Usage]]:
    """CPU microseconds a submission by way, by window; the ways alternate. Each is warm before the first."""
    found: dict[str, list[Usage]] = {way: [] for way in ways}
    for window in range(-1, pace.windows):
        for way, frame in ways.items():
            count, used = await handed_in(target, token, frame, pace.seconds)
            if window >= 0:
                found[way].append(used.each(count))
            else:
                await operator.sql.execute("ANALYZE")
            await operator.tidy()
    return found


def together(found: Sequence[Usage]) -> list[float]:
    """All three parties'."""
    return [used.together for used in found]


def middle(found: Sequence[Usage]) -> str:
    """The medians, party by party."""
    return f"{Usage(*(median(column) for column in zip(*found, strict=True)))} us"


async def lines(target: Server, pace: Pace) -> list[Line]:
    """All of it, on a fresh instance."""
    token = target.token("submit:any", user_id=1)
    async with operator_of(target) as operator:
        await register(operator)
        await operator.define(["other"], windows=PUBLISHED)
        await operator.define(["timed"], windows=PUBLISHED, ties="first")
        await operator.define(["few"], windows=FEW)
        await operator.define(["many"], windows=MANY)
        ways = {"default": anybody()} | {slug: anybody(slug) for slug in ("other", "timed", "few", "many")}
        found = await costs(target, operator, token, ways, pace)
        weights = _bytes_a_player(target)
        return [_other(found), _further_rows(found), _ties(found), weights]


def _other(found: Mapping[str, Sequence[Usage]]) -> Line:
    default, other = found["default"], found["other"]
    return Line(
        "one other leaderboard with default's windows: submissions, of default's",
        0.8,
        ratios(together(default), together(other)),
        is_least=True,
        more=f"CPU a submission: default {middle(default)}; other {middle(other)}",
    )


def _further_rows(found: Mapping[str, Sequence[Usage]]) -> Line:
    more = len(MANY) - len(FEW)
    rows = [(many - few) / more for few, many in zip(together(found["few"]), together(found["many"]), strict=True)]
    return Line(
        "each further row that a submission writes, of a submission to default",
        0.35,
        ratios(rows, together(found["default"])),
        more=f"CPU a submission: 1 row {middle(found['few'])}; {len(MANY)} rows {middle(found['many'])}",
    )


def _ties(found: Mapping[str, Sequence[Usage]]) -> Line:
    plain, timed = ([used.store for used in found[way]] for way in ("other", "timed"))
    return Line(
        "ties = first: the store's time, of that without",
        2.2,
        ratios(timed, plain),
        more=f"store a submission: {median(plain):,.1f} and {median(timed):,.1f} us",
    )


def _bytes_a_player(target: Server) -> Line:
    """What the board of all time takes with ties by time, beyond what it takes without."""
    with closing(Redis.from_url(target.dragonfly_url)) as store:
        plain, timed = (_weight(store, f"{slug}:all_time") for slug in ("other", "timed"))
    return Line("ties = first: bytes more a player", 110, [timed - plain], more=f"{plain:,.0f} and {timed:,.0f} bytes")


def _weight(store: Redis, board: str) -> float:
    """Bytes a player of a board: its Sorted Set, and the versions of its rows."""
    (scores,) = store.scan_iter(match=f"*leaderboard:user_scores:{board}", count=10_000)
    versions = scores.replace(b"user_scores", b"versions")
    size = sum(store.execute_command("MEMORY", "USAGE", key, "SAMPLES", 0) for key in (scores, versions))
    return float(size) / int(store.zcard(scores))
