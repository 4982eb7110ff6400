"""The store: Dragonfly, or anything that speaks its protocol, as one object for whoever writes and reads boards.

Owns which partitions this process has met, and which of them a board belongs to. Must never do anything for a partition
without a leaderboard: it comes into being when the first board of it is named. Assumes that rows are absolute and carry
versions. Every method raises StoreUnavailable and its kin (see `realtime.errors`).

Each partition is a content of its own, with its own epoch, and has its own connections: where one is lost, refused or
being made anew, the others go on. Where each of them leads, the topology says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from realtime import resources
from realtime.boards.board import Board
from realtime.boards.making import in_the_making
from realtime.boards.standings import Position, Standing
from realtime.errors import DefinitionMoved, EpochMoved, LedgerUnavailable, PartlyTold, StoreUnavailable
from realtime.store.cluster import Cluster
from realtime.store.counters import Counters
from realtime.store.fitness import Content
from realtime.store.link import Link
from realtime.store.outages import mapped
from realtime.store.partition import Partition
from realtime.store.pool import Script
from realtime.store.replies import Around, Look, Page, Versions
from realtime.store.topology import topology_of

if TYPE_CHECKING:
    from realtime.boards.leaderboard import Leaderboard
    from realtime.boards.standings import Profile, Row
    from realtime.store.replies import Anew, ReadAfterWrite

Renew = Callable[[], Awaitable[object]]
"""Brings this process's catalogue up to date."""

RENEWALS: Final = 2
"""Times that what a partition is told is read anew: it may have been made anew, and a leaderboard redefined besides."""

CONNECTIONS_OF_OTHERS: Final = 4
"""Connections at most to each partition but the published one; none is opened before it is needed."""


class Store:
    """Writes boards and reads them. `link` leads to the published content."""

    renew: Renew | None = None
    """Brings this process's catalogue up to date: asked where the store has boards by another rule than was named."""

    def __init__(self, url: str, *, timeout: float = 2.0, connections: int = 8) -> None:
        self._timeout = timeout
        self.topology = topology_of(url, timeout=timeout)
        self.link = Link(self.topology.way(""), timeout=timeout, connections=connections)
        self._counters = Counters(
            self.link, self.topology if isinstance(self.topology, Cluster) else None, timeout=timeout
        )
        self._published = Partition(self.link)
        self._partitions = {"": self._published}
        self._remember = Script(resources.script("remember"))

    async def aclose(self) -> None:
        """Closes every connection."""
        for partition in list(self._partitions.values()):
            await partition.link.aclose()
        await self._counters.aclose()
        await self.topology.aclose()

    # Partitions ---------------------------------------------------------------------------------------------------

    def partition(self, name: str) -> Partition:
        """The partition of that name, '' for the published content."""
        found = self._partitions.get(name)
        if found is None:
            found = self._partitions[name] = Partition(self._link_to(name))
        return found

    def link_of(self, name: str) -> Link:
        """The link that leads to a partition."""
        return self.partition(name).link

    @property
    def partitions(self) -> list[str]:
        """The partitions that this process has met, the published one among them."""
        return list(self._partitions)

    def _link_to(self, name: str) -> Link:
        way = self.topology.way(name)
        link = Link(way, timeout=self._timeout, connections=CONNECTIONS_OF_OTHERS, partition=name)
        link.timestamp = self.link.timestamp
        return link

    def _of(self, board: Board) -> Partition:
        return self.partition(board.leaderboard.partition)

    # Which content it is ------------------------------------------------------------------------------------------

    @property
    def is_cluster(self) -> bool:
        """Whether partitions are spread over the nodes of a cluster."""
        return self.link.keys.clustered

    @property
    def ahead(self) -> float | None:
        """Seconds by which the clock of the store is ahead of the ledger's, on a cluster of the node that is off most;
        None where none was compared."""
        found = [partition.link.ahead for partition in self._partitions.values()]
        return max((ahead for ahead in found if ahead is not None), key=abs, default=None)

    @property
    def run(self) -> str | None:
        """The run of the store whose published content was adopted last."""
        return self.link.run

    @property
    def epoch(self) -> str | None:
        """The epoch of the published content that was adopted last."""
        return self.link.epoch

    @property
    def distrusted(self) -> str | None:
        """The epoch of published content that must not be used, though it says that it is ours; None where there is
        none."""
        return self.link.distrusted

    @property
    def is_complete(self) -> bool:
        """Whether the adopted published content may be read."""
        return self.link.is_complete

    def is_complete_in(self, partition: str) -> bool:
        """Whether the adopted content of a partition may be read."""
        return self.partition(partition).is_complete

    @property
    def is_fit(self) -> bool:
        """Whether commands are let through: nothing is known that speaks against the store."""
        return self.link.is_fit

    async def info(self) -> dict[str, str]:
        """See `Link.info`."""
        return await self.link.info()

    async def content(self) -> Content:
        """See `Link.content`."""
        return await self.link.content()

    async def adopt(self) -> Content:
        """See `Link.adopt`; of the published content."""
        return await self.link.adopt()

    def distrust(self, why: str = "foreign") -> None:
        """See `Link.distrust`; of the published content."""
        self.link.distrust(why)

    def leave(self, epoch: str) -> None:
        """See `Link.leave`; of the published content."""
        self.link.leave(epoch)

    @property
    def told(self) -> str | None:
        """See `Partition.told`; of the published content."""
        return self._published.told

    @property
    def ledger_seen(self) -> str | None:
        """What the store remembered of the ledger at the last look."""
        return self.link.ledger

    async def remember_ledger(self, seen: str, cluster: int, timeline: int, term: int) -> None:
        """Makes the store remember how far the ledger has come, also through rebuilds; not where another was promoted
        in the place of the one of this cluster, timeline and term."""
        with mapped():
            await self.link.checked.run(self._remember, [self.link.keys.ledger], [seen, cluster, timeline, term])

    # Writing -------------------------------------------------------------------------------------------------

    async def tell(
        self,
        rows: Mapping[Board, Sequence[Row]],
        profiles: Sequence[Profile] = (),
        *,
        anew: Anew | None = None,
        read_after_write: ReadAfterWrite | None = None,
    ) -> str | None:
        """See `tell_each`; returns the epoch of the published content, as it was before."""
        told = self.told
        each = await self.tell_each(rows, profiles, anew=anew, read_after_write=read_after_write)
        return each.get("", told)

    async def tell_each(
        self,
        rows: Mapping[Board, Sequence[Row]],
        profiles: Sequence[Profile] = (),
        *,
        anew: Anew | None = None,
        read_after_write: ReadAfterWrite | None = None,
    ) -> dict[str, str | None]:
        """Applies what the ledger has committed to whichever contents are current; returns their epochs by partition.

        Where one is other content by now, or a leaderboard was redefined, `anew` reads rows and profiles once more: the
        ledger may have been restored meanwhile, and what was read before that would count as newer. Each partition with
        a board among `rows` is told, whatever becomes of the others, and hears of the users that have rows there; the
        published one also of those who have rows nowhere. Raises StoreUnavailable (EpochMoved or DefinitionMoved
        without an `anew`), and LedgerUnavailable from it; where others were told, PartlyTold. Safe to repeat.
        """
        names = _partitions_of(rows)
        if names <= _PUBLISHED:
            return {"": await self._tell(self._published, rows, profiles, anew, read_after_write)}
        shares = _shares(rows, profiles)
        in_order = sorted(shares)
        tellings = [self._tell_share(name, *shares[name], anew, read_after_write) for name in in_order]
        results = await asyncio.gather(*tellings, return_exceptions=True)
        errors = {n: of for n, of in zip(in_order, results, strict=True) if isinstance(of, BaseException)}
        told = {n: of for n, of in zip(in_order, results, strict=True) if not isinstance(of, BaseException)}
        if not errors:
            return told
        # What nobody expects goes before what happens: a store that is away must not hide it.
        first = min(errors.values(), key=lambda error: isinstance(error, StoreUnavailable | LedgerUnavailable))
        if told and isinstance(first, StoreUnavailable | LedgerUnavailable):
            raise PartlyTold(str(first), told, list(errors)) from first
        raise first

    async def _tell_share(
        self,
        name: str,
        rows: Mapping[Board, Sequence[Row]],
        profiles: Sequence[Profile],
        anew: Anew | None,
        read_after_write: ReadAfterWrite | None,
    ) -> str | None:
        """Tells a partition what is of it; `anew` reads that of all partitions."""
        of_it = None if anew is None else _anew_of(name, anew)
        return await self._tell(self.partition(name), rows, profiles, of_it, read_after_write)

    async def _tell(
        self,
        partition: Partition,
        rows: Mapping[Board, Sequence[Row]],
        profiles: Sequence[Profile],
        anew: Anew | None,
        read_after_write: ReadAfterWrite | None,
    ) -> str | None:
        """Tells one partition what is of it; `anew` reads that once more."""
        for attempt in range(RENEWALS + 1):
            told = partition.told
            try:
                await self.apply(rows, profiles, read_after_write=read_after_write)
                return told
            except EpochMoved:
                await (partition.adopt() if partition.name else self.adopt())
                if anew is None or attempt == RENEWALS:
                    raise
            except DefinitionMoved:
                if anew is None or self.renew is None or attempt == RENEWALS:
                    raise
                await self.renew()
            rows, profiles = await anew()
        raise AssertionError("unreachable")

    async def apply(
        self,
        rows: Mapping[Board, Sequence[Row]],
        profiles: Sequence[Profile] = (),
        *,
        epoch: str | None = None,
        read_after_write: ReadAfterWrite | None = None,
    ) -> int:
        """Applies absolute rows and profiles, each guarded by its version, and announces the boards whose top changed.

        A board without rows is looked at too: it may show a renamed user. `epoch` names content that is being filled;
        without it the adopted content is meant. `read_after_write` is asked before each script call what to read in
        the same exchange, right behind the write. Of a partition without published boards only those users are told
        who have rows in it. Returns how many rows were new to the store. Raises EpochMoved where the content is of
        another epoch, DefinitionMoved where a leaderboard's boards are made by another rule: then that call wrote
        nothing. Safe to repeat.
        """
        names = _partitions_of(rows)
        if names <= _PUBLISHED:
            return await self._published.writing.apply(rows, profiles, epoch=epoch, read_after_write=read_after_write)
        applied = 0
        for name, own in sorted(_shares(rows, profiles).items()):
            writing = self.partition(name).writing
            applied += await writing.apply(*own, epoch=epoch, read_after_write=read_after_write)
        return applied

    async def count(self, amounts: Mapping[str, int], seconds: int) -> list[int | None]:
        """See `Counters.count`."""
        return await self._counters.count(amounts, seconds)

    # A leaderboard that is redefined ------------------------------------------------------------------------------

    async def switch(
        self, made: Leaderboard, boards: Iterable[Board], gone: Iterable[Board] = (), *, epoch: str | None = None
    ) -> bool:
        """Makes the standings that were filled the ones that a leaderboard's boards show, all at one moment.

        `boards` are those that it has from now on, `gone` those that only its old definition had: they are emptied.
        Each gets a new version and is announced. `epoch` is that of the content that was filled; without it the adopted
        content is meant. False where that rule is shown already. Raises EpochMoved where there is other content, or
        content that is being filled.
        """
        partition = self.partition(made.partition)
        at = epoch or partition.link.epoch or ""
        return await partition.writing.switch(made, boards, gone, at)

    async def discard(self, made: Leaderboard, boards: Iterable[Board], *, beside: bool = False) -> None:
        """Drops what the store has of a leaderboard that was removed: its boards, and by which rule they are made; with
        `beside` what was filled for a `next_rule` that is given up. Raises EpochMoved."""
        partition = self.partition(made.partition)
        doomed = [in_the_making(board, made) for board in boards] if beside else boards
        await partition.writing.discard(doomed, None if beside else made.slug)

    async def rules(self, partition: str, slugs: Sequence[str]) -> dict[str, str | None]:
        """By which rule a partition's content has the boards of each leaderboard; None where it has none."""
        return await self.partition(partition).reading.rules(slugs)

    # Reading -------------------------------------------------------------------------------------------------

    async def read(
        self, wanted: Sequence[Board], names_of: Collection[int] = (), *, partition: str | None = None
    ) -> Look:
        """The tops and versions of boards and the names of some users, all of the same moment (one MULTI).

        All boards are of one partition: that of the first, `partition` where there is none.
        """
        name = wanted[0].leaderboard.partition if wanted else partition or ""
        return await self.partition(name).reading.read(wanted, names_of)

    async def page(self, board: Board, offset: int, limit: int) -> Page:
        """`limit` rows of a board from place `offset` (from 0) on, in one script call."""
        return await self._of(board).reading.page(board, offset, limit)

    async def around(self, board: Board, user_id: int, neighbours: int) -> Around:
        """A user's row with `neighbours` rows on each side, in one script call."""
        return await self._of(board).reading.around(board, user_id, neighbours)

    async def standings(self, wanted: Mapping[Board, Sequence[int]]) -> tuple[str | None, dict[Board, list[Standing]]]:
        """Where users stand, board by board, and the epoch that held all the while; see `Reading.standings`.

        All boards are of one partition.
        """
        first = next(iter(wanted), None)
        of = self._published if first is None else self._of(first)
        return await of.reading.standings(wanted)

    async def versions(self, of: Sequence[Board], *, partition: str | None = None) -> Versions:
        """The epoch and change counters, in one MGET: the poll compares them with what was last shown.

        All boards are of one partition: that of the first, `partition` where there is none.
        """
        name = of[0].leaderboard.partition if of else partition or ""
        return await self.partition(name).reading.versions(of)

    # Closed boards -------------------------------------------------------------------------------------------

    async def cached_week(self, board: Board) -> tuple[bytes | None, Position]:
        """See `Reading.cached`."""
        return await self._of(board).reading.cached(board)

    async def cache_week(self, board: Board, version: int, names_at: Position, value: bytes) -> None:
        """See `Reading.cache`."""
        await self._of(board).reading.cache(board, version, names_at, value)

    async def announce(self, board: Board, version: int) -> None:
        """See `Reading.announce`."""
        await self._of(board).reading.announce(board, version)


_PUBLISHED: Final = frozenset({""})

_Share = tuple["Mapping[Board, Sequence[Row]]", "Sequence[Profile]"]


def _partitions_of(rows: Iterable[Board]) -> set[str]:
    return {board.leaderboard.partition for board in rows}


def _shares(rows: Mapping[Board, Sequence[Row]], profiles: Sequence[Profile]) -> dict[str, _Share]:
    """What of rows and profiles each partition with a board among them is told: the users that have rows in it; the
    published one, which has those who have a score nowhere too, whoever has no rows elsewhere alone."""
    own: dict[str, dict[Board, Sequence[Row]]] = {}
    for board, of_board in rows.items():
        own.setdefault(board.leaderboard.partition, {})[board] = of_board
    if not profiles:
        return {name: (of_it, ()) for name, of_it in own.items()}
    here = {name: {row.user_id for of_board in of_it.values() for row in of_board} for name, of_it in own.items()}
    elsewhere = set().union(*(user_ids for name, user_ids in here.items() if name))
    return {
        name: (
            of_it,
            [p for p in profiles if p.user_id in here[name] or (not name and p.user_id not in elsewhere)],
        )
        for name, of_it in own.items()
    }


def _anew_of(name: str, anew: Anew) -> Anew:
    async def of_it() -> tuple[Mapping[Board, Sequence[Row]], Sequence[Profile]]:
        return _shares(*await anew()).get(name, ({}, ()))

    return of_it
