"""Engines: which stores are supported, by what they say of themselves; the fields are those of real ones."""

from __future__ import annotations

import pytest

from realtime.store.engines import SUPPORTED, engine_of, unsupported

REDIS_7 = {"redis_version": "7.0.15", "executable": "/usr/bin/redis-server"}
VALKEY_8 = {"redis_version": "7.2.4", "server_name": "valkey", "valkey_version": "8.1.8"}
DRAGONFLY = {"redis_version": "7.4.0", "dragonfly_version": "df-v1.40.1"}


@pytest.mark.parametrize(
    ("info", "name"),
    [
        (REDIS_7, "Redis 7.0.15"),
        ({"redis_version": "6.2.14"}, "Redis 6.2.14"),
        ({"redis_version": "8.2.3"}, "Redis 8.2.3"),
        (VALKEY_8, "Valkey 8.1.8"),
        (VALKEY_8 | {"valkey_version": "9.1.2"}, "Valkey 9.1.2"),
        (DRAGONFLY, "Dragonfly 1.40.1"),
        (DRAGONFLY | {"dragonfly_version": "df-v1.41.0"}, "Dragonfly 1.41.0"),
    ],
)
def test_a_supported_engine_is_named_and_taken(info: dict[str, str], name: str) -> None:
    assert str(engine_of(info)) == name
    assert unsupported(info) is None


@pytest.mark.parametrize(
    ("info", "says"),
    [
        ({"redis_version": "6.0.16"}, "it is Redis 6.0.16, which"),
        ({"redis_version": "5.0.14"}, "it is Redis 5.0.14, which"),
        ({"redis_version": "9.0.0"}, "it is Redis 9.0.0, which"),
        (VALKEY_8 | {"valkey_version": "7.2.5"}, "it is Valkey 7.2.5, which"),
        (VALKEY_8 | {"valkey_version": "10.0.0"}, "it is Valkey 10.0.0, which"),
        (DRAGONFLY | {"dragonfly_version": "df-v1.39.4"}, "it is Dragonfly 1.39.4, which"),
        (DRAGONFLY | {"dragonfly_version": "df-v2.0.0"}, "it is Dragonfly 2.0.0, which"),
        (DRAGONFLY | {"dragonfly_version": "df-dev"}, "it does not say which version of Dragonfly it is"),
        ({"redis_version": "6.3.4", "executable": "/usr/bin/keydb-server"}, "it is KeyDB 6.3.4, which"),
        ({"redis_version": "7.0.0", "kvrocks_version": "2.12.1"}, "it is Kvrocks 2.12.1, which"),
        ({}, "it does not say which version of Redis it is"),
    ],
)
def test_any_other_is_refused_with_what_to_do(info: dict[str, str], says: str) -> None:
    problem = unsupported(info) or ""
    assert problem.startswith(says)
    assert all(supported.said in problem for supported in SUPPORTED.values())
    assert problem.endswith("Point DRAGONFLY_URL at one of them.")
