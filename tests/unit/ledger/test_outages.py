"""What the libraries' errors mean: one reason for log and readiness, in our own words, and nothing that was sent."""

from __future__ import annotations

from ssl import SSLError

import asyncpg
import pytest
import redis.exceptions as store

from realtime.errors import (
    ForeignContent,
    LedgerConflict,
    LedgerRefused,
    LedgerUnavailable,
    StoreUnavailable,
    StoreUnfit,
)
from realtime.ledger import outages
from realtime.store import link


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (asyncpg.InvalidPasswordError('password authentication failed for user "anna"'), LedgerRefused, "password"),
        (asyncpg.InvalidCatalogNameError('database "boards" does not exist'), LedgerRefused, "no database"),
        (asyncpg.InsufficientPrivilegeError("permission denied for table users"), LedgerRefused, "lacks rights"),
        (asyncpg.ClientConfigurationError("sslmode"), LedgerRefused, "an option of DATABASE_URL"),
        (asyncpg.UndefinedTableError('relation "users" does not exist'), LedgerUnavailable, "realtime migrate"),
        (asyncpg.TooManyConnectionsError("sorry, too many clients already"), LedgerUnavailable, "no connection left"),
        (asyncpg.CannotConnectNowError("the database system is starting up"), LedgerUnavailable, "starting"),
        (asyncpg.DiskFullError("could not extend file"), LedgerUnavailable, "no room"),
        (asyncpg.ReadOnlySQLTransactionError("cannot execute INSERT"), LedgerUnavailable, "no writes"),
        (asyncpg.DeadlockDetectedError("deadlock detected"), LedgerConflict, "waited for each other"),
        (SSLError("certificate verify failed"), LedgerUnavailable, "TLS"),
        (TimeoutError(), LedgerUnavailable, "in time"),
        (ConnectionRefusedError(111, "refused"), LedgerUnavailable, "cannot be reached"),
    ],
)
def test_what_is_wrong_with_the_database_is_told_in_words_of_our_own(
    error: Exception, kind: type[LedgerUnavailable], says: str
) -> None:
    with pytest.raises(LedgerUnavailable) as caught, outages.mapped():
        raise error
    assert type(caught.value) is kind
    assert says in caught.value.reason
    assert str(caught.value).startswith(f"{caught.value.reason}: "), "the log has the library's words as well"
    assert not [word for word in ("anna", "boards", "users") if word in caught.value.reason]


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (store.AuthenticationError("invalid username-password pair or user is disabled."), StoreUnfit, "password"),
        (store.AuthenticationError("Authentication required."), StoreUnfit, "password"),
        (store.ResponseError("AUTH <password> called without any password configured"), StoreUnfit, "password"),
        (store.NoPermissionError("this user has no permissions to run the 'info' command"), StoreUnfit, "lacks rights"),
        (store.ClusterCrossSlotError("Keys in request don't hash to the same slot"), StoreUnfit, "cluster mode"),
        (store.ClusterDownError("Hash slot not served"), StoreUnfit, "cluster mode"),
        (store.MovedError("3999 127.0.0.1:6381"), StoreUnfit, "cluster mode"),
        (store.ReadOnlyError("You can't write against a read only replica."), StoreUnfit, "replica"),
        (store.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."), StoreUnfit, "memory"),
        (store.ResponseError("MISCONF Redis is configured to save RDB snapshots"), StoreUnfit, "disk"),
        (store.ResponseError("DB index is out of range"), StoreUnfit, "no database"),
        (store.ResponseError("DENIED Redis is running in protected mode"), StoreUnfit, "protected mode"),
        (store.BusyLoadingError("Redis is loading the dataset in memory"), StoreUnavailable, "loading"),
        (store.ConnectionError("max number of clients reached"), StoreUnavailable, "no connection left"),
        (store.ConnectionError("Error 1 connecting to host: SSL: WRONG_VERSION_NUMBER"), StoreUnavailable, "TLS"),
        (store.InvalidResponse("Protocol Error: b'HTTP/1.1 400'"), StoreUnavailable, "no store"),
        (store.TimeoutError("no answer in 2 s"), StoreUnavailable, "in time"),
        (store.ConnectionError("Error 111 connecting to host"), StoreUnavailable, "cannot be reached"),
        (store.ResponseError("WRONGTYPE Operation against a key"), ForeignContent, "WRONGTYPE"),
    ],
)
def test_what_is_wrong_with_the_store_is_told_in_words_of_our_own(
    error: Exception, kind: type[StoreUnavailable], says: str
) -> None:
    with pytest.raises(StoreUnavailable) as caught, link.mapped():
        raise error
    assert type(caught.value) is kind
    assert says in caught.value.reason


def test_what_a_store_repeats_of_a_command_it_does_not_know_is_not_told() -> None:
    with pytest.raises(StoreUnavailable) as caught, link.mapped():
        raise store.ResponseError("unknown command `AUTH`, with args beginning with: `anna`, `hush`, ")
    assert "hush" not in f"{caught.value} {caught.value.reason}"
