"""A lease whose connection breaks: whoever held it hears one sentence of ours, and nothing of a library's."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest

from realtime.ledger import lease
from tests.support.waiting import PATIENCE


class Connection:
    """A connection that grants every lock, and from then on says only `error`."""

    def __init__(self, error: BaseException) -> None:
        self._error: BaseException | None = None
        self._then = error
        self.is_terminated = False

    def get_server_version(self) -> Any:
        return SimpleNamespace(major=17)

    async def execute(self, query: str, *, timeout: float | None = None) -> None:  # noqa: ASYNC109 - asyncpg's
        if self._error is not None:
            raise self._error

    async def fetchval(self, query: str, lock: int) -> bool:
        self._error = self._then
        return True

    def terminate(self) -> None:
        self.is_terminated = True


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.InternalClientError("got result for unknown protocol state 3"),  # after a stop, seen
        asyncpg.InterfaceError("the connection is closed"),
        asyncpg.IdleInTransactionSessionTimeoutError("terminating connection"),
        asyncpg.InFailedSQLTransactionError("current transaction is aborted"),
        ConnectionResetError(104, "reset"),
        TimeoutError(),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_lease_whose_connection_breaks_is_lost_in_one_line(
    error: BaseException, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    connection, unhandled = Connection(error), list[dict[str, Any]]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))

    async def connect() -> Any:
        return connection

    monkeypatch.setattr(lease, "LEASE_BEAT", 0.0)
    with caplog.at_level(logging.WARNING):
        async with lease.held(connect, 1) as is_held:
            assert is_held
            async with asyncio.timeout(PATIENCE):
                while not caplog.records:  # noqa: ASYNC110 - the next turns
                    await asyncio.sleep(0)
    assert connection.is_terminated
    await asyncio.sleep(0)
    assert not unhandled
    assert [record.message.startswith("a lease is lost: ") for record in caplog.records] == [True]
    assert caplog.records[0].exc_info is None
