"""Endpoints: which nodes an address names, and that each is reached as the address says."""

from __future__ import annotations

from typing import Any

import pytest
import redis.asyncio as aioredis

from realtime.store.endpoints import Connector, Endpoint, endpoints_of


def place_of(connection: Any) -> tuple[Any, ...]:
    return connection.host, connection.port, connection.db, connection.username, connection.password


@pytest.mark.parametrize("url", ["redis://host", "redis://:x@host:1/2", "rediss://host", "unix:///run/redis.sock"])
def test_one_node_is_redis_pys_to_read(url: str) -> None:
    found = endpoints_of(url)
    assert (found.form, found.nodes, found.url) == ("one", (), url)


def test_a_list_of_nodes_shares_user_password_and_database() -> None:
    found = endpoints_of("redis://anna:p%40ss@h1:6390,[::1]:7,h3/2")
    assert (found.form, found.nodes) == ("nodes", (Endpoint("h1", 6390), Endpoint("::1", 7), Endpoint("h3", 6379)))
    connector = Connector(found.url, timeout=1.0)
    assert place_of(connector.connection(found.nodes[1])) == ("::1", 7, 2, "anna", "p@ss")
    assert str(found.nodes[1]) == "[::1]:7" and str(found.nodes[2]) == "h3:6379"


def test_sentinels_have_a_password_of_their_own() -> None:
    found = endpoints_of("redis+sentinel://:store@s1,s2:5/boards/3?sentinel_password=se%26cret&sentinel_username=bob")
    assert (found.form, found.service) == ("sentinel", "boards")
    assert found.nodes == (Endpoint("s1", 26379), Endpoint("s2", 5))
    primary = Connector(found.url, timeout=1.0).connection(Endpoint("p", 1))
    assert place_of(primary) == ("p", 1, 3, None, "store")
    sentinel = Connector(found.sentinels_url, timeout=1.0).connection(found.nodes[0])
    assert place_of(sentinel) == ("s1", 26379, 0, "bob", "se&cret")


def test_tls_is_of_the_store_and_of_sentinels() -> None:
    found = endpoints_of("rediss+sentinel://s1/boards?ssl_cert_reqs=none&ssl_check_hostname=false")
    for url in (found.url, found.sentinels_url):
        connection: Any = Connector(url, timeout=1.0).connection(Endpoint("p", 1))
        assert isinstance(connection, aioredis.SSLConnection) and connection.host == "p"
        assert connection.ssl_context.cert_reqs.name == "CERT_NONE"
