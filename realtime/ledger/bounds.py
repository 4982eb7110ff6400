"""Bounds: what every connection to PostgreSQL is pinned to, and how long each kind of transaction may last.

Owns every setting of a session that anything here relies on, the time-outs of each kind of transaction, and the
options of the socket. Must never leave one of them to what the role, the database or the host says. Assumes that
`versions` says which servers are fit.

A process that is stopped, or whose host is gone, says nothing any more. Then PostgreSQL ends what it began: a statement
that runs by its time-out, a transaction in which nothing happens within `IDLE`, a connection that takes no answer by
TCP. So whatever it holds others wait for some seconds at most, and it finds its connection closed when it goes on.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import asyncpg

from realtime.errors import LedgerUnfit
from realtime.ledger import versions

IDLE: Final = 5.0
"""Seconds in which a transaction must go on: longer than a healthy process is ever held up."""

CONNECT: Final = 5.0
"""Seconds until a connection must stand."""

SILENCE: Final = 10
"""Seconds after which a peer that acknowledges nothing, or takes nothing, is gone."""


class Bounds(NamedTuple):
    """The longest that parts of a transaction may take, in seconds."""

    statement: float
    lock: float
    """A wait for a lock of somebody else's: then the statement fails, and whoever wanted it does something else."""
    transaction: float
    """All of it. Before PostgreSQL 17 our own side keeps it, and where we stand still, `statement` and `IDLE` do."""

    def settings(self, version: int) -> dict[str, str]:
        """By the names that PostgreSQL of this major version has for them."""
        bounds = {"statement_timeout": self.statement, "lock_timeout": self.lock}
        if version >= 17:
            bounds["transaction_timeout"] = self.transaction
        return {name: str(int(seconds * 1000)) for name, seconds in bounds.items()}


SERVING: Final = Bounds(statement=10, lock=2, transaction=30)
"""What somebody waits for."""

INTAKE: Final = Bounds(statement=10, lock=1, transaction=15)
"""A batch of submissions: what a lock is in the way of is set apart after `lock`, and the others go on without it."""

AROUND: Final = Bounds(statement=5, lock=0.1, transaction=10)
"""What is left of a batch that met a lock."""

IMPORT: Final = Bounds(statement=60, lock=2, transaction=90)
"""A batch of an import: nobody waits for it."""

VIEW: Final = Bounds(statement=3_600, lock=2, transaction=3_600)
"""The view of a closed week."""

DEFINING: Final = Bounds(statement=60, lock=5, transaction=90)
"""A change of one leaderboard's definition."""

BUILD: Final = Bounds(statement=600, lock=5, transaction=1_200)
"""A step of a build: some thousand players, or one who sent millions of scores."""

MIGRATION: Final = Bounds(statement=3_600, lock=2, transaction=3_600)

LEASE: Final = Bounds(statement=2, lock=2, transaction=0)
"""A transaction that only holds a lock. It lasts as long as its holder says something within `IDLE`."""

_PINNED: Final = {
    "default_transaction_isolation": "'read committed'",
    "idle_in_transaction_session_timeout": str(int(IDLE * 1000)),
    "timezone": "'UTC'",
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
}
"""JIT costs more than it gives on short statements. One plan for all batch sizes, by index: planning anew costs a small
batch as much as running it, and a plan made while tables were empty must not go on scanning them afterwards. UTC keeps
a forgotten literal from depending on the host. Row versions are right under read committed alone.
"""

_SPREAD: Final = "SELECT set_config('plan_cache_mode', 'auto', {}) WHERE to_regclass('spread.scores') IS NOT NULL"
"""Citus must know for which source a statement is when it plans it."""

_OF_A_SESSION: Final = {
    "idle_session_timeout": "0",
    "client_connection_check_interval": "2000",
    "tcp_keepalives_idle": str(SILENCE),
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": str(SILENCE * 1000),
}
"""What has no meaning in a transaction of a session that a pooler lends: it has settings of its own for this."""


def _version(connection: asyncpg.Connection[Any]) -> int:
    return int(connection.get_server_version().major)


def of_session(connection: asyncpg.Connection[Any], bounds: Bounds) -> str:
    """Statements that pin a session. Not at startup: a pooler in between may refuse what it does not know."""
    settings = {**_PINNED, **_OF_A_SESSION, **bounds.settings(_version(connection))}
    return "; ".join([*(f"SET {name} = {value}" for name, value in settings.items()), _SPREAD.format("false")])


def of_transaction(connection: asyncpg.Connection[Any], bounds: Bounds, *, pooled: bool = False) -> str:
    """Statements that bound the open transaction otherwise than its session; with `pooled`, that pin it altogether.

    Behind a pooler a session is anybody's. Its isolation is set when the transaction begins: see `ISOLATION`.
    """
    settings = {**(_PINNED if pooled else {}), **bounds.settings(_version(connection))}
    set_locally = [f"SET LOCAL {name} = {value}" for name, value in settings.items()]
    return "; ".join([*set_locally, _SPREAD.format("true")] if pooled else set_locally)


ISOLATION: Final = "read_committed"
"""What asyncpg begins a transaction with where no session is pinned."""


if TYPE_CHECKING:
    from datetime import datetime

    from realtime.ledger.standing import Standing

    _Connection = asyncpg.Connection[asyncpg.Record]
else:
    _Connection = asyncpg.Connection


class Connection(_Connection):
    """asyncpg's, whose socket finds out that nobody is there any more, and which knows to which primary it leads.

    Raises LedgerUnfit where who answers must not be used: a server may be updated, or another one take its place, at
    any time.
    """

    host: object = None
    """The one of `hosts` that it was opened to."""
    standing: Standing | None = None
    """Of the server when it was opened; None for a standby."""
    started: datetime | None = None
    """When the server was to which it was opened."""

    def __init__(self, protocol: Any, transport: Any, *args: Any) -> None:
        super().__init__(protocol, transport, *args)
        _watch(transport.get_extra_info("socket"))
        said = protocol.get_settings()  # what a server says to everybody who connects, unasked
        if problem := versions.unfitness(_version(self), getattr(said, "server_encoding", None)):
            self.terminate()
            raise LedgerUnfit(problem)


_OPTIONS: Final = (
    (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
    (socket.IPPROTO_TCP, "TCP_KEEPIDLE", SILENCE),
    (socket.IPPROTO_TCP, "TCP_KEEPINTVL", 5),
    (socket.IPPROTO_TCP, "TCP_KEEPCNT", 3),
    (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", SILENCE * 1000),
)
"""The same as `tcp_*` of the session, for our own side; what a system does not know is left out."""


def _watch(sock: socket.socket) -> None:
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        for level, name, value in _OPTIONS:
            if (option := getattr(socket, name, None)) is not None:
                sock.setsockopt(level, option, value)
