"""Endpoints: the nodes that DRAGONFLY_URL names, and redis-py's connections to any of them.

Owns how the forms of the address are read: one node, a list of nodes, Sentinels that know a primary, a cluster. Must
never show a password, or take a name for an address: a name is resolved anew at every connection. Assumes that
`realtime.addresses` has judged the address.
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

import redis.asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

Connection = aioredis.Connection

PORT: Final = 6379
SENTINEL_PORT: Final = 26379

_URL: Final = re.compile(
    r"(?P<scheme>rediss?)(?:\+(?P<form>sentinel|cluster))?://(?:(?P<who>[^@/?#]*)@)?(?P<places>[^@/?#]*)"
    r"(?:/(?P<path>[^?#]*))?(?:\?(?P<query>.*))?",
    re.IGNORECASE | re.DOTALL,
)
_PLACE: Final = re.compile(r"(?:\[(?P<ipv6>[^\]]*)\]|(?P<name>[^:]*))(?::(?P<port>\d+))?")
_OF_SENTINELS: Final = "sentinel_"
"""How options begin that are of the connections to Sentinels."""


class Endpoint(NamedTuple):
    """Where a node listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Connector:
    """Makes connections, not yet opened, as one address of redis-py says."""

    def __init__(self, url: str, *, timeout: float) -> None:
        self._pool: Any = aioredis.ConnectionPool.from_url(
            url,
            protocol=2,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=None,  # an exchange has one time-out, and each of redis-py's a task or a timer of its own
            socket_connect_timeout=timeout,
            **({} if url.startswith("unix:") else {"socket_keepalive": True}),
            health_check_interval=0,
            driver_info=None,  # no CLIENT SETINFO: two commands a connection that nobody reads
        )

    def connection(self, to: Endpoint | None = None) -> Connection:
        """A new connection to the node, or to where the address leads."""
        if to is None:
            made: Connection = self._pool.make_connection()
        else:
            place = {**self._pool.connection_kwargs, "host": to.host, "port": to.port}
            made = self._pool.connection_class(**place)
        return made


class Endpoints(NamedTuple):
    """What an address says."""

    form: str
    """`one`, `nodes`, `sentinel` or `cluster`."""
    nodes: tuple[Endpoint, ...]
    """Those that the address names: of the form `sentinel` the Sentinels; none of the form `one`."""
    service: str
    """The name by which Sentinels know the primary."""
    url: str
    """Of redis-py's grammar: how to connect to a node of the store."""
    sentinels_url: str
    """How to connect to a Sentinel."""


def endpoints_of(url: str) -> Endpoints:
    """What DRAGONFLY_URL says. Raises ValueError where it is none."""
    found = _URL.fullmatch(url)
    if found is None or not (found["form"] or "," in found["places"]):
        return Endpoints("one", (), "", url, "")
    form = (found["form"] or "nodes").lower()
    port = SENTINEL_PORT if form == "sentinel" else PORT
    nodes = tuple(dict.fromkeys(_endpoint(place, port) for place in found["places"].split(",")))
    service, _, db = (found["path"] or "").partition("/") if form == "sentinel" else ("", "", found["path"] or "")
    options = [option for option in (found["query"] or "").split("&") if option]
    of_sentinels = [option for option in options if option.startswith(_OF_SENTINELS)]
    own = [option for option in options if not option.startswith(_OF_SENTINELS)]
    tls = [option for option in own if option.startswith("ssl_")]
    others = [option.removeprefix(_OF_SENTINELS) for option in of_sentinels]
    place, who = nodes[0], f"{found['who']}@" if found["who"] is not None else ""
    return Endpoints(
        form,
        nodes,
        unquote(service),
        f"{found['scheme'].lower()}://{who}{place}/{db}{_query(own)}",
        f"{found['scheme'].lower()}://{place}/{_query([*others, *tls])}",
    )


def _endpoint(place: str, port: int) -> Endpoint:
    found = _PLACE.fullmatch(place)
    if found is None:
        raise ValueError("must name host and port of every node")
    return Endpoint(found["ipv6"] or found["name"], int(found["port"] or port))


def _query(options: list[str]) -> str:
    return "?" + "&".join(options) if options else ""
