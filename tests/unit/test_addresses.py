"""Addresses: what is taken reaches the libraries unchanged, what is not is refused, and nothing secret is shown."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from typing import Any
from unittest import mock
from urllib.parse import quote

import pytest
from asyncpg.connect_utils import _parse_connect_dsn_and_args
from hypothesis import example, given
from hypothesis import strategies as st
from redis.asyncio.connection import parse_url

from realtime.addresses import Secret, each_host, ledger_address, store_address

PARSERS: dict[str, Callable[[str], Secret]] = {
    "postgresql": ledger_address,
    "redis": store_address,
    "redis+sentinel": store_address,
    "redis+cluster": store_address,
}


def parsed_by_asyncpg(address: str) -> Any:
    """Places and parameters, as asyncpg would connect."""
    names = (
        "host port user password passfile database ssl service servicefile direct_tls server_settings "
        "target_session_attrs krbsrvname gsslib"
    )
    return _parse_connect_dsn_and_args(dsn=address, **dict.fromkeys(names.split()))


def parsed_by_redis(address: str) -> dict[str, Any]:
    return dict(parse_url(address))


passwords = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=30)


@given(passwords)
@example("a/b#c?d@e:f%g&h=i;j [k]")
@example("pässwörd")
def test_an_encoded_password_arrives_whatever_it_is_and_is_not_shown(password: str) -> None:
    marked = f"hush{password}hush"
    encoded = quote(marked, safe="")
    ledger = ledger_address(f"postgresql://anna:{encoded}@host:5433/db?sslmode=disable")
    places, parameters = parsed_by_asyncpg(ledger.reveal())
    assert (places, parameters.user, parameters.password) == ([("host", 5433)], "anna", marked)
    store = store_address(f"redis://anna:{encoded}@host:6380/3")
    found = parsed_by_redis(store.reveal())
    assert (found["host"], found["port"], found["username"]) == ("host", 6380, "anna")
    assert (found["password"], found["db"]) == (marked, 3)
    for address in (ledger, store):
        shown = f"{address} {address!r} {[address]} {address:}"
        assert "hush" not in shown and "anna:***@host" in shown


@given(st.sampled_from(sorted(PARSERS)), passwords)
@example("postgresql", "12/34")
@example("postgresql", "12#34")
@example("postgresql", "12?34")
@example("postgresql", "12?sslmode=34")
@example("postgresql", "12?34&56=78")
@example("redis", "12/0?db=1")
@example("redis", "12/0#1")
@example("postgresql", "x@y/z@[")
@example("redis", "]")
@example("redis", "[::1")
@example("postgresql", "%zz%f%ff%00")
@example("postgresql", "\u2177\uff0f\uff20")
@example("redis", "\ufeff\u200b\r\n\t")
@example("redis+sentinel", "1,host2:2/0")
@example("redis", "&hush")
@example("redis", "=&hush=&")
def test_a_password_that_was_not_encoded_is_taken_as_it_is_or_refused_and_never_shown(
    scheme: str, password: str
) -> None:
    marked = f"hush{password}hush"
    for text in (
        f"{scheme}://anna:{marked}@host/0",
        f"{scheme}://:{marked}@host/0",
        f"{scheme}://anna:12{marked}@host/0",
        f"{scheme}://anna:12/{marked}@host/0",
        f"{scheme}://anna:12?x={marked}@host/0",
        f"{scheme}://anna%3A{marked}@host/0",
        f"{scheme}://anna%3a{marked}:x@host/0",
        f"{scheme}:///0?user=anna:{marked}",
        f"{scheme}://anna:{marked}@host:99999/0",
        f"{scheme}://anna:{marked}@/0/1",
        f"{scheme}:/anna:{marked}@host",
        f"{scheme}//anna:{marked}@host",
        f"anna:{marked}@host/0",
        f"{marked}://host",
        f"{scheme}://host/0?password={marked}&x=1",
        f"{scheme}://host/0?Password={marked}",
        f"{scheme}://anna:{marked}@host/0?sslmode={marked}",
    ):
        try:
            address = PARSERS[scheme](text)
        except ValueError as error:
            assert "hush" not in "".join(traceback.format_exception(error)).replace(text, ""), text
            assert "hush" not in str(error), text
        else:
            assert "hush" not in f"{address} {address!r}", text
            assert password.strip("@") and "%" not in password.replace("%25", ""), text


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://host", "postgres://anna@host:5433/db", "POSTGRESQL://anna:x@host/db", "postgresql:///db",
        "postgresql://a.example:5432,b.example:5433/db?target_session_attrs=read-write", "postgresql://[::1]:5433/db",
        "postgresql:///db?host=/run/postgresql&user=anna", "postgresql://anna:x@%2Frun%2Fpostgresql/db",
        "postgresql://my_db.local/db?application_name=boards&sslmode=require", "postgresql://a./db?sslmode=allow",
    ],
)  # fmt: skip
def test_what_asyncpg_takes_is_taken_and_means_the_same(text: str) -> None:
    places, ours = parsed_by_asyncpg(ledger_address(text).reveal())
    assert (places, ours._replace(ssl=None)) == (
        parsed_by_asyncpg(text)[0],
        parsed_by_asyncpg(text)[1]._replace(ssl=None),
    )


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("postgresql:///db", ["localhost"]),
        ("postgresql://anna:x@host:5433/db", ["host:5433"]),
        ("postgresql://anna:x@a:5432,b:5433,c/db?sslmode=disable", ["a:5432", "b:5433", "c"]),
        ("postgresql://anna:x@[::1]:5433,%2Frun/db", ["[::1]:5433", "/run"]),
        ("postgresql://anna:x@/db?host=a,b&port=5433", ["a:5433", "b:5433"]),
        ("postgresql://anna:x@/db?host=a,/run&port=5433,5434", ["a:5433", "/run:5434"]),
        ("postgresql://anna:x@/db?host=a:5433,b", ["a:5433", "b"]),
    ],
)
def test_each_host_has_an_address_that_means_it_alone(text: str, names: list[str]) -> None:
    address = ledger_address(text).reveal()
    places, parameters = parsed_by_asyncpg(address)
    found = [(name, parsed_by_asyncpg(one)) for name, one in each_host(address)]
    assert [name for name, _ in found] == names
    assert [place for _, (own, _) in found for place in own] == places
    shared = parameters._replace(ssl=None, sslmode=None)  # a socket needs none
    assert all(own._replace(ssl=None, sslmode=None) == shared for _, (_, own) in found)


@pytest.mark.parametrize(
    "text",
    [
        "redis://host", "redis://:x@host:6380/2", "REDIS://anna:x@host/", "redis://[::1]:6380/0", "redis://host?db=3",
        "rediss://:x@host/0?ssl_cert_reqs=none&ssl_ca_certs=/etc/ca.pem", "unix:///run/redis.sock?db=2&password=x",
        "unix://anna:x@/run/redis.sock",
    ],
)  # fmt: skip
def test_what_redis_takes_is_taken_and_means_the_same(text: str) -> None:
    assert parsed_by_redis(store_address(text).reveal()) == parsed_by_redis(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x", "must begin with postgresql:// or postgres://"),
        ("postgresql:host/db", "must begin with"),
        ("mysql://host/db", "must begin with"),
        ("postgresql://anna:x y@host/db", "write / as %2F"),
        ("postgresql://anna:x%@host/db", "write % as %25"),
        ("postgresql://host:0/db", "port from 1 to 65535"),
        ("postgresql://host:70000/db", "port from 1 to 65535"),
        ("postgresql://host:/db", "host and port"),
        ("postgresql://::1/db", "brackets"),
        ("postgresql://[::x]/db", "host and port"),
        ("postgresql://[::1::]/db", "must name a host"),
        ("postgresql://b..c/db", "must name a host"),
        ("postgresql://bücher.example/db", "xn--"),
        ("postgresql://host/db/more", "must have the form"),
        ("postgresql://host/db?connect_timeout=3", "the option connect_timeout that is not supported; supported are "),
        ("postgresql://host/db?channel_binding=require", "the option channel_binding that is not supported"),
        ("postgresql://host/db?sslmode", "the option sslmode with a value that it cannot have; it needs disable or"),
        ("postgresql://host/db?sslmode=on", "the option sslmode with a value that it cannot have"),
        ("postgresql://host/db?sslmode=allow&sslmode=require", "the option sslmode twice"),
        ("postgresql://host/db?target_session_attrs=standby", "the option target_session_attrs with a value"),
        ("postgresql://host/db?port=x", "the option port with a value"),
        ("postgresql:///db?host=a..b", "must name a host"),
    ],
)
def test_what_a_database_cannot_be_at_is_refused_with_what_to_do(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=r"^(must|has) ") as caught:
        ledger_address(text)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("http://host", "must begin with redis:// or rediss:// or unix:// or redis+sentinel://"),
        ("host:6379", "must begin with"),
        ("redis://", "must name a host"),
        ("redis://:x@/0", "must name a host"),
        ("redis://host/zero", "database's number"),
        ("redis://host/0/1", "database's number"),
        ("redis://x@host/0", "a user without a password"),
        ("redis://host?socket_timeout=3", "the option socket_timeout that is not supported; supported are db, "),
        ("redis://host?decode_responses=True", "the option decode_responses that is not supported"),
        ("redis://host?protocol=3", "the option protocol that is not supported"),
        ("redis://host?ssl_cert_reqs=none", "the option ssl_cert_reqs that is not supported"),
        ("rediss://host?ssl_cert_reqs=maybe", "the option ssl_cert_reqs with a value that it cannot have"),
        ("redis://host?db=x", "the option db with a value"),
        ("redis://host1:1,host2:0/0", "port from 1 to 65535"),
        ("redis://host1,/0", "must name a host"),
        ("redis+sentinel://host1:1,host2:2", "must name the primary as its Sentinels do"),
        ("redis+sentinel://host1:1/my name", "has a space"),
        ("redis+sentinel://host1:1/a%2Fb/0", "must name the primary as its Sentinels do"),
        ("redis+sentinel://host1:1/boards/x", "database's number, as redis+sentinel://"),
        ("redis+sentinel://host1:1/boards?sentinel_username=anna", "sentinel_username without sentinel_password"),
        ("redis://host?sentinel_password=x", "supported are db, password, username"),
        ("redis+sentinel://host/boards?ssl_ca_certs=x", "the option ssl_ca_certs that is not supported"),
        ("redis+cluster://host1:7000,host2:7000/1", "must not name a database"),
        ("redis+cluster://host1:7000?db=0", "the option db that is not supported"),
        ("redis+cluster://host1:7000,:7000", "must name a host"),
        ("unix:/run/redis.sock", "must begin with"),
        ("unix://run/redis.sock", "three strokes"),
        ("unix://", "three strokes"),
    ],
)
def test_what_a_store_cannot_be_at_is_refused_with_what_to_do(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=r"^(must|has) ") as caught:
        store_address(text)
    assert says in str(caught.value)


def test_all_mistakes_of_an_address_are_told_at_once() -> None:
    with pytest.raises(ValueError, match=r"^has the option db") as caught:
        store_address("redis+sentinel://anna@host1:0,b..c,host3:99999//x?db=y&db=1&colour=red&sentinel_username=a%3Ab")
    told = str(caught.value)
    for mistake in (
        "a port from 1 to 65535", "name a host", "as its Sentinels do", "database's number",
        "a user without a password", "the option db with a value", "the option db twice", "an option that is not",
        "a user with a colon",
    ):  # fmt: skip
        assert told.count(mistake) == 1, mistake
    with pytest.raises(ValueError, match=r"sslmode.*it also has the option port"):
        ledger_address("postgresql://host/db?sslmode=on&port=x")


@pytest.mark.parametrize(
    "text",
    [
        "redis://:hush@h1:6379,[::1]:6380,h3/2", "rediss://anna:hush@h1,h2/0?ssl_ca_certs=/etc/ca.pem",
        "redis+sentinel://:hush@h1:26379,h2:26379/my-boards/0?sentinel_password=hush&sentinel_username=anna",
        "RedisS+Sentinel://h1/boards?ssl_cert_reqs=none&password=hush", "redis+cluster://:hush@h1:7000,h2",
        "rediss+cluster://anna:hush@h1:7000/0?ssl_ca_certs=/etc/ca.pem",
    ],
)  # fmt: skip
def test_what_names_several_nodes_is_taken_and_shows_no_password(text: str) -> None:
    address = store_address(text)
    assert address.reveal().lower() == text.lower()
    assert "hush" not in f"{address} {address!r}" and "h1" in str(address)


def test_an_address_that_demands_no_tls_and_no_server_needs_nothing_of_the_shell() -> None:
    shell = {
        "PGSSLMODE": "verify-full", "PGTARGETSESSIONATTRS": "standby", "PGSSLNEGOTIATION": "direct", "PGGSSLIB": "x",
        "PGHOST": "elsewhere", "PGPORT": "1", "PGUSER": "bob", "PGPASSWORD": "x", "PGDATABASE": "other",
        "PGPASSFILE": "/none", "PGSERVICE": "none", "PGSSLROOTCERT": "/none", "PGOPTIONS": "-c x=y",
    }  # fmt: skip
    text = "postgresql://anna:y@127.0.0.1:5433/db?sslmode=disable&target_session_attrs=any"
    plain = parsed_by_asyncpg(ledger_address(text).reveal())
    with mock.patch.dict(os.environ, shell):
        assert parsed_by_asyncpg(ledger_address(text).reveal()) == plain


def test_a_secret_says_whether_there_is_one_and_is_equal_to_its_like() -> None:
    assert not Secret() and str(Secret()) == ""
    assert Secret("hush") == Secret("hush") != Secret("else")
    assert len({Secret("hush"), Secret("hush")}) == 1
    assert f"{Secret('hush')} {Secret('hush')!r}" == "*** <***>"
