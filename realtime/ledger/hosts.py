"""Hosts: which of the servers of DATABASE_URL is the primary, and the only way to open a connection to it.

Owns the choice, what each host said last, and the latest standing that anybody has heard of. Must never believe a
server only because it answers: a standby takes no writes, and a primary that was replaced does not know it. Assumes
that somebody asks (`glance`) every second, and ends what leads elsewhere (`on_turn`).

Of the primaries of one cluster the one of the latest timeline is the right one: each promotion begins a timeline. A
server of an earlier one is a primary that was left behind, cut off or paused, and that may go on as if nothing had
happened. It is refused at every new connection, connections that were opened before are ended, and what they were just
saying is lost with them. Of two of one timeline nobody can say which is the right one: both are refused until somebody
has stopped the other. All hosts are asked at once, because one that is cut off says nothing for minutes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import asyncpg

from realtime.addresses import each_host
from realtime.errors import LedgerRefused, LedgerUnavailable, NotPrimary
from realtime.ledger import bounds
from realtime.ledger.judging import Judged, judge
from realtime.ledger.outages import mapped
from realtime.ledger.standing import Standing

log = logging.getLogger(__name__)

PROBE: Final = 1.0
"""Seconds in which a host must say what it is, where all are asked."""

MOMENT: Final = 0.2
"""Seconds for which the others are waited for once one has answered that is fit: who is silent holds nobody up."""

_REASON: Final = "no server of it that can be reached is the primary"
"""For people who need not know what the hosts are called."""

_RIVALS: Final = "is one of two primaries of timeline {}, and nobody can say which is the right one: stop the other"

_FENCE: Final = """DO $$ BEGIN
    IF pg_is_in_recovery() THEN
        RAISE read_only_sql_transaction USING MESSAGE = 'it is a standby';
    ELSIF (SELECT system_identifier FROM pg_control_system()) = {cluster}
          AND ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint < {timeline} THEN
        RAISE read_only_sql_transaction USING MESSAGE = 'it was replaced by a server of timeline {timeline}';
    END IF;
END $$"""


class Host:
    """One server, or what leads to one."""

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        self.trouble: LedgerUnavailable | None = None
        """Why it is not the primary, as of the last time it was asked."""
        self.server_pid = 0
        """The process that the last connection was made to; behind a pooler another one answers."""
        self._url = url
        self._probe: bounds.Connection | None = None
        self._asking: asyncio.Task[Judged | None] | None = None

    async def open(self, **options: Any) -> tuple[bounds.Connection, Judged]:
        """A new connection, and what answers there. Raises LedgerUnfit, and what asyncpg raises."""
        given: Any = {**options, "connection_class": bounds.Connection, "target_session_attrs": "any"}  # we judge
        connection: bounds.Connection = await asyncpg.connect(self._url, **given)
        try:
            judged = await judge(connection)
        except BaseException:
            connection.terminate()
            raise
        connection.host, connection.standing, connection.started = self, judged.standing, judged.started
        self.server_pid = connection.get_server_pid()
        return connection, judged

    async def ask(self) -> Judged | None:
        """What it is now; None where it does not say so in time."""
        asking = self.asking()
        await asyncio.wait([asking])
        return None if asking.cancelled() else asking.result()

    def asking(self) -> asyncio.Task[Judged | None]:
        """The task that asks it, one at a time for all who want to know: there is one connection for that, which is
        kept. Who waits no more leaves it to the others."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
            self._asking.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may wait
        return self._asking

    async def _ask(self) -> Judged | None:
        try:
            with mapped():
                async with asyncio.timeout(PROBE):
                    if self._probe is not None and not self._probe.is_closed():
                        return await judge(self._probe)
                    self._probe, judged = await self.open(timeout=bounds.CONNECT, statement_cache_size=0)
                    return judged
        except LedgerUnavailable as error:
            self.trouble = error
        except BaseException:
            self._hang_up()
            raise
        self._hang_up()
        return None

    def _hang_up(self) -> None:
        if self._probe is not None:
            self._probe.terminate()
            self._probe = None

    def forget(self) -> None:
        """Ends the connection on which it is asked, and the asking."""
        if self._asking is not None:
            self._asking.cancel()
        self._hang_up()


class Hosts:
    """The hosts of one address. `on_turn` is called when the primary is another than before, or of a later timeline."""

    def __init__(self, url: str, on_turn: Callable[[], None] = lambda: None) -> None:
        self._hosts = [Host(name, address) for name, address in each_host(url)]
        self._needs_writes = "read-write" in parse_qs(urlsplit(url).query).get("target_session_attrs", ())
        self._on_turn = on_turn
        self._finding = asyncio.Lock()
        self._looking: asyncio.Task[None] | None = None
        self.chosen: Host | None = self._hosts[0] if len(self._hosts) == 1 else None
        """The host of the primary; None where it is to be found."""
        self.newest: Standing | None = None
        """The latest standing of a primary that anybody has heard of."""
        self.term = 0
        """That of the ledger that was heard of last; see `hear`."""
        self._started: datetime | None = None  # when the chosen server was
        self._rival: Judged | None = None  # another primary of its timeline
        self.turns = 0
        """How often the primary was another than before."""

    async def connect(self, *_: Any, **options: Any) -> bounds.Connection:
        """A connection to the primary; `options` are asyncpg's. Its address is this object's.

        Raises NotPrimary, LedgerUnfit, and what asyncpg raises where the primary cannot be reached.
        """
        host = self.chosen or await self._found()
        connection, judged = await host.open(**options)
        try:
            self.admit(host, judged)
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def plain(self) -> bounds.Connection:
        """A connection beside the pools, not pinned; for what is asked in transactions, as a pooler needs it."""
        return await self.connect(timeout=bounds.CONNECT, statement_cache_size=0)

    def admit(self, host: Any, judged: Judged) -> None:
        """Takes a server for the primary, or raises NotPrimary."""
        if (problem := self._problem(judged)) is not None:
            host.trouble = NotPrimary(f"{host.name} {problem}", _REASON)
            self.doubt(host)
            raise host.trouble
        self._turn(host, judged)

    def _problem(self, judged: Judged) -> str | None:
        """Why a server is not the primary; None where it is, as far as anybody has heard."""
        standing = judged.standing
        if standing is None:
            return "is a standby, and takes no writes"
        if self._needs_writes and judged.is_read_only:
            return "takes no writes (default_transaction_read_only), and target_session_attrs asks for them"
        if self.newest is not None and self.newest.replaces(standing):
            return (
                f"was replaced: it is of timeline {standing.timeline}, and one of timeline {self.newest.timeline} was "
                "seen. If it was restored from a backup, say `realtime restored`"
            )
        if self._rival is not None and _are_rivals(judged, self._rival):
            return _RIVALS.format(standing.timeline)
        return None

    def _turn(self, host: Host, judged: Judged) -> None:
        before, standing = (self.chosen, self.newest), judged.standing
        host.trouble, self.chosen, self.newest, self._started = None, host, standing, judged.started
        if before[1] is not None and (before[1] != standing or before[0] not in (None, host)):
            self.turns += 1
            timeline = standing and standing.timeline
            log.warning("PostgreSQL is %s now, timeline %s", host.name, timeline, extra={"action": "failover"})
            self._on_turn()

    def hear(self, standing: Standing, term: int) -> None:
        """Somebody has seen a primary of that standing. Its term moves on with each restore and failover that was
        noticed: so of an earlier timeline it may be the right one, where it is of a later term."""
        if self.newest is None or standing.cluster != self.newest.cluster:
            return
        if standing != self.newest and (standing.replaces(self.newest) or term > self.term):
            self.newest = standing
            self.doubt(self.chosen)
            self._on_turn()
        self.term = max(term, self.term)

    def fence(self) -> str:
        """A statement that fails where whoever answers is not the primary: for transactions that a pooler leads."""
        assert self.newest is not None
        return _FENCE.format(cluster=self.newest.cluster, timeline=self.newest.timeline)

    def doubt(self, host: Any) -> None:
        """That host does not answer as it should: where there are others, they are asked as well."""
        if len(self._hosts) > 1 and self.chosen is host:
            self.chosen = None

    @property
    def timeline(self) -> int:
        """That of the primary; 0 before it was asked."""
        return 0 if self.newest is None else self.newest.timeline

    def is_current(self, connection: Any) -> bool:
        """Whether a connection was opened to the primary that is known now."""
        return connection.standing is self.newest or connection.standing == self.newest

    def glance(self) -> None:
        """Begins to `look`, where nobody is looking yet: a host that says nothing is waited for by nobody else."""
        if len(self._hosts) > 1 and (self._looking is None or self._looking.done()):
            self._looking = asyncio.create_task(self.look())

    async def look(self) -> None:
        """Asks the hosts beside the chosen one whether one of them is the primary by now. Raises nothing."""
        if self.chosen is not None:
            others = [host for host in self._hosts if host is not self.chosen]
            await asyncio.gather(*map(self._look_at, others))

    async def _look_at(self, host: Host) -> None:
        judged = await host.ask()
        if judged is None or judged.standing is None:
            return
        if judged.standing.replaces(self.newest):
            if self._problem(judged) is None:
                self._turn(host, judged)
        elif judged.standing == self.newest and judged.started != self._started:
            self._rival = judged
            self.doubt(self.chosen)  # whoever asks next asks all of them

    async def _found(self) -> Host:
        async with self._finding:
            if self.chosen is not None:
                return self.chosen
            said, self._rival = await self._asked(), None
            fit = [(host, judged) for host, judged in said if self._fits(host, judged)]
            if not fit:
                raise self._nowhere()
            cluster = fit[0][1].cluster if self.newest is None else self.newest.cluster
            of_it = [(host, judged) for host, judged in fit if judged.cluster == cluster]
            for host, _ in [pair for pair in fit if pair not in of_it]:
                host.trouble = NotPrimary(f"{host.name} is of another cluster", _REASON)
                log.error("%s: name only hosts of one", host.trouble, extra={"action": "failover"})
            if not of_it:
                raise self._nowhere()
            host, judged = max(of_it, key=lambda pair: pair[1].timeline or 0)
            if any(_are_rivals(judged, other) for _, other in of_it):
                for one, its in of_it:
                    if its.standing == judged.standing:
                        one.trouble = NotPrimary(f"{one.name} {_RIVALS.format(its.timeline)}", _REASON)
                raise self._nowhere()
            self._turn(host, judged)
            return host

    async def _asked(self) -> list[tuple[Host, Judged]]:
        """Those hosts that answer, in their order, with what they say."""
        asking = {host.asking(): host for host in self._hosts}
        waiting, answers = set(asking), dict[Host, Judged]()
        while waiting:
            is_there = any(map(self._is_known, answers.values()))
            done, waiting = await asyncio.wait(
                waiting, timeout=MOMENT if is_there else None, return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                break
            said = [(asking[task], task.result()) for task in done if not task.cancelled()]
            answers |= {host: judged for host, judged in said if judged is not None}
        return [(host, answers[host]) for host in self._hosts if host in answers]

    def _is_known(self, judged: Judged) -> bool:
        """Whether that is the primary that was known already, or was promoted in its place."""
        return self.newest is not None and judged.cluster == self.newest.cluster and self._problem(judged) is None

    def _fits(self, host: Host, judged: Judged) -> bool:
        problem = self._problem(judged)
        host.trouble = None if problem is None else NotPrimary(f"{host.name} {problem}", _REASON)
        return problem is None

    def _nowhere(self) -> LedgerUnavailable:
        troubles = [host.trouble for host in self._hosts if host.trouble is not None]
        if all(isinstance(trouble, LedgerRefused) for trouble in troubles):
            return troubles[0]
        words = [
            str(trouble).removeprefix(f"{_REASON}: ") if isinstance(trouble, NotPrimary) else f"{host.name}: {trouble}"
            for host in self._hosts
            if (trouble := host.trouble) is not None
        ]
        return NotPrimary("; ".join(words), _REASON)

    def close(self) -> None:
        """Ends the connections on which hosts are asked."""
        if self._looking is not None:
            self._looking.cancel()
        for host in self._hosts:
            host.forget()


def _are_rivals(one: Judged, other: Judged) -> bool:
    """Whether they are two primaries of one timeline. Two names may lead to one server."""
    return one.standing == other.standing and one.started != other.started
