"""Link: leads one process to the content of one partition, and decides which content its commands may meet.

Owns the run and the epoch whose content was adopted last, whether commands are let through, and how far the store's
clock is ahead of the ledger's. Must never send a write twice by itself: the caller knows which commands may be
repeated. Assumes that whoever uses `checked` maps errors with `mapped`.

Every new connection compares the store's run with the run whose content was adopted. A store that restarted, was
replaced or failed over has another run: its connections are refused with StoreChanged until its content is verified or
rebuilt. So no command ever meets content that it was not meant for. Each look opens a connection of its own: it meets
the store to which new connections lead, also where connections in use still lead to a store that was left.

Where `adopt` finds the store away, or answering but of no use, commands are refused at once until a look finds it well:
nobody waits for a time-out twice, and boards that hear of no changes are not shown as if they did.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from realtime.errors import ForeignContent, StoreUnavailable, StoreUnfit
from realtime.store.cluster import unfit_for_cluster
from realtime.store.endpoints import Connection
from realtime.store.fitness import (
    Content,
    is_replica,
    is_scattered,
    may_scatter_tags,
    parse_info,
    run_of,
    unfitness,
)
from realtime.store.keys import FILLING, Keys
from realtime.store.outages import WrongRun, mapped, meaning_of, words_of
from realtime.store.pool import Pool
from realtime.store.primary import OTHER_NODE
from realtime.store.replies import as_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from realtime.store.way import Way

log = logging.getLogger(__name__)


CAUSES: Final = ("away", "unfit", "foreign", "superseded", "expired")
"""Why a store cannot be used. It does not answer; it answers, but refuses us, may drop keys, is a replica or takes no
writes; it holds content that cannot be ours; another store is the one in use; its clock was set ahead, and keys may
have expired with that."""

_DOUBTS: Final = {
    "foreign": (
        "its content cannot be ours",
        "something else writes under this program's keys; boards are about to be rebuilt",
    ),
    "superseded": (
        "another store holds this deployment's boards; see where DRAGONFLY_URL leads",
        "another store holds this deployment's boards: see that DRAGONFLY_URL leads every process to the same one",
    ),
    "expired": (
        "its clock was set ahead, and weeks may have expired with that",
        "the store's clock was set ahead; boards are about to be rebuilt",
    ),
}
"""Why content that is there must not be used: what the log says, and what people are told."""

LEFT: Final = 64
"""Epochs of left content that are remembered."""

PROBES: Final = 10
"""Keys of one tag that are looked at: by chance they lie on one thread of two once in 512 times."""

CLOCK_STEP: Final = 86_400.0
"""Seconds by which a store's clock may jump ahead. With a longer jump keys may have expired that are not due."""


class Link:
    """One process's connections for one partition. `run` and `epoch` name the content that was adopted last.

    `checked` carries commands: it leads only to the store whose content was adopted, and only while commands may meet
    that content.
    """

    def __init__(self, way: Way, *, timeout: float, connections: int, partition: str = "") -> None:
        self._way = way
        self.keys = Keys(partition, clustered=way.is_cluster)
        self._told_by = (self.keys.run, self.keys.epoch, *(() if partition else (self.keys.ledger,)))
        self.run: str | None = None
        self.epoch: str | None = None
        self.distrusted: str | None = None
        """The epoch of content that must not be used, though it says that it is ours; None while there is none."""
        self._doubt = "foreign"  # why it must not be used: a key of _DOUBTS
        self._left: dict[str, None] = {}  # the last epochs whose content was replaced
        self.ledger: str | None = None
        """What the store remembered of the ledger at the last look; see `generation`."""
        self.ahead: float | None = None
        """Seconds by which the store's clock is ahead of the ledger's; None before it was measured."""
        self.timestamp: Callable[[], float] | None = None
        """Tells the ledger's time in Unix seconds; None where clocks are not compared."""
        self._failed: StoreUnavailable | None = None  # the error that the last look met
        self._looking = asyncio.Lock()  # an earlier look must not overrule one that began later
        self.complaint: str | None = None
        """Why commands are refused, for people; None while they are not."""
        self.refused_for: str | None = None
        """The cause for which commands are refused, one of CAUSES; None while they are not."""
        self.refusals = dict.fromkeys(CAUSES, 0.0)
        """How often commands began to be refused, by cause."""
        self.timeout = timeout  # seconds until the store counts as away
        self.checked = Pool(way, limit=connections, timeout=timeout, greet=self._check_run)
        self._free = Pool(way, limit=2, timeout=timeout, keep=False)

    async def aclose(self) -> None:
        """Closes every connection."""
        await self.checked.disconnect()
        await self._free.disconnect()

    async def _check_run(self, connection: Connection) -> None:
        await connection.send_command("INFO")
        info = parse_info(await connection.read_response())
        if is_replica(info):  # a Dragonfly's tells its primary's run
            raise WrongRun("the node is a replica now")
        run = run_of(info)
        if run != self.run:
            raise WrongRun(f"the store's run is {run[:8]}, its adopted content is of {(self.run or 'none')[:8]}")

    @contextmanager
    def mapped(self) -> Iterator[None]:
        """Maps redis-py's errors to ours, and distrusts the content where one shows that it is foreign."""
        try:
            with mapped():
                yield
        except ForeignContent:
            self.distrust()
            raise

    async def info(self) -> dict[str, str]:
        """The fields that the store tells of itself (INFO)."""
        with self.mapped():
            info = parse_info(await self._free.ask("INFO"))
        self._check_primary(info)
        return info

    def _check_primary(self, info: Mapping[str, str]) -> None:
        """Raises StoreUnavailable where a replica was met, and the way may lead to another node."""
        if is_replica(info) and self._way.has_choice:
            self._way.doubt()
            raise StoreUnavailable(OTHER_NODE)

    async def scatters(self) -> bool:
        """Whether the store is known to keep keys of one hash tag on several threads: then a script stops them all."""
        with self.mapped():
            if not may_scatter_tags(parse_info(await self._free.ask("INFO"))):
                return False
            probes = [f"{self.keys.tag or '{p00}'}leaderboard:probe:{number}" for number in range(PROBES)]
            await self._free.exchange(*(("SET", probe, "", "EX", 10) for probe in probes))
            told = await self._free.exchange(*(("DEBUG", "OBJECT", probe) for probe in probes), ("UNLINK", *probes))
            return bool(is_scattered(told))

    async def stops_whole(self) -> bool:
        """Whether the nodes of a cluster are known to stop together where one of them is lost."""
        if not self.keys.clustered:
            return False
        with self.mapped():
            (told,) = await self._free.exchange(("CONFIG", "GET", "cluster-require-full-coverage"))
            return isinstance(told, list) and told[1:] == [b"yes"]  # who may not ask is told nothing

    async def content(self) -> Content:
        """Reads which store answers now, and which content it says it holds; adopts nothing. Raises StoreUnfit.

        A write that changes nothing (an empty text into the epoch) shows whether the store takes writes.
        """
        with self.mapped():
            told, values, written, time = await self._free.exchange(
                ("INFO",),
                ("MGET", *self._told_by),
                ("SETRANGE", self.keys.epoch, 0, ""),
                ("TIME",),
            )
            for reply in (told, values):
                if isinstance(reply, Exception):
                    raise reply
        info = parse_info(told)
        self._check_primary(info)
        run = run_of(info)
        if problem := unfitness(info) or (unfit_for_cluster(info) if self.keys.clustered else None):
            raise StoreUnfit(problem)
        if isinstance(written, Exception) and "WRONGTYPE" not in str(written):
            raise StoreUnfit(words_of(written), meaning_of(written).reason)
        content = Content(run, *map(as_text, values))
        if not isinstance(time, Exception):
            self._compare_clocks(content, int(time[0]) + int(time[1]) / 1e6)
        return content

    def _compare_clocks(self, content: Content, its_time: float) -> None:
        if self.timestamp is None:
            return
        before, self.ahead = self.ahead, its_time - self.timestamp()
        if before is not None and self.ahead - before > CLOCK_STEP and content.run == self.run:
            self.distrust("expired")

    async def adopt(self) -> Content:
        """Looks which content there is, and lets commands through to it where it was made for the run that holds it.

        Raises StoreUnavailable, StoreUnfit: every command is refused at once until a look succeeds again.
        """
        others_look = self._looking.locked()
        async with self._looking:
            if others_look and self._failed is not None:  # another look found it so while this one waited
                raise self._failed
            return await self._adopt()

    async def _adopt(self) -> Content:
        try:
            content = await self.content()
        except StoreUnavailable as error:
            cause = "unfit" if isinstance(error, StoreUnfit) else "away"
            self._refuse(cause, str(error), f"the store cannot be used: {error.reason}")
            self._failed = error
            raise
        self._failed = None
        self.ledger = content.ledger
        if content.epoch in self._left:
            self.distrusted, self._doubt = content.epoch, "superseded"
        is_superseded = self._doubt == "superseded" and content.epoch == self.distrusted is not None
        self._way.judge(content.run, is_superseded=is_superseded)
        if self.distrusted is None or content.epoch != self.distrusted:
            self.accept()
        else:  # the distrusted content is still there
            self._refuse(self._doubt, *_DOUBTS[self._doubt])
        if content.is_ours:
            await self.turn_to(content.run)
            self.epoch = content.epoch
        else:
            self.epoch = None
        return content

    def distrust(self, why: str = "foreign") -> None:
        """Refuses commands until the adopted content is made anew: boards may be wrong. `why` is one of CAUSES."""
        self.distrusted, self._doubt = self.epoch, why
        self._refuse(why, *_DOUBTS[why])

    def leave(self, epoch: str) -> None:
        """Never takes content of that epoch for current again, wherever it is still found."""
        self._left[epoch] = None
        if len(self._left) > LEFT:
            del self._left[next(iter(self._left))]

    def _refuse(self, cause: str, why: str, complaint: str) -> None:
        if complaint != self.complaint:
            log.error("the store cannot be used: %s", why, extra={"action": "store"})
        if cause != self.refused_for:
            self.refusals[cause] += 1
        self.checked.refusal, self.complaint, self.refused_for = why, complaint, cause

    def accept(self) -> None:
        """Trusts the content that the store holds now, and lets commands through again."""
        if self.checked.refusal is not None:
            log.warning("the store can be used again", extra={"action": "store"})
        self.checked.refusal = self.complaint = self.refused_for = self.distrusted = None

    async def turn_to(self, run: str) -> None:
        """Lets connections to this run through and closes all others, which may lead to a store that was left."""
        if run != self.run:
            self.run = run
            with self.mapped():
                await self.checked.disconnect()

    def refused(self) -> dict[str, float]:
        """1 for the cause for which commands are refused now, 0 for every other."""
        return {cause: float(cause == self.refused_for) for cause in CAUSES}

    @property
    def is_fit(self) -> bool:
        """Whether commands are let through: nothing is known that speaks against the store."""
        return self.complaint is None

    @property
    def is_complete(self) -> bool:
        """Whether the adopted content may be read."""
        return self.checked.refusal is None and self.epoch is not None and not self.epoch.startswith(FILLING)
