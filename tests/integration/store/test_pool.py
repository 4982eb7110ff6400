"""Connections to the store: one write and its replies, whatever is cut off, forgotten or closed in between."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, suppress

import pytest
import redis.exceptions as failures

from realtime.store.endpoints import Connection
from realtime.store.pool import Pool, Refused, Script, checked, executed, transaction
from tests.support.stores import PrivateStore, way_to

pytestmark = pytest.mark.every_store

ECHO = Script("return {KEYS[1], ARGV[1]}")


@pytest.fixture
async def pool(store_url: str) -> AsyncIterator[Pool]:
    made = Pool(way_to(store_url), limit=2, timeout=2.0)
    yield made
    await made.disconnect()


@pytest.fixture
def silent_url() -> Iterator[str]:
    """A store that lets everybody in, and then neither reads nor says anything."""
    with socket.create_server(("127.0.0.1", 0)) as doors:
        yield f"redis://127.0.0.1:{doors.getsockname()[1]}"


async def connections(pool: Pool) -> int:
    """How many the store counts of this pool, by the name that the first of its tests gave them."""
    return str(await pool.ask("CLIENT", "LIST")).count("name=pooled")


async def named(connection: Connection) -> None:
    await connection.send_command("CLIENT", "SETNAME", "pooled")
    await connection.read_response()


async def test_replies_come_in_order_and_an_error_is_one_of_them(pool: Pool) -> None:
    written, wrong, read = await pool.exchange(("SET", "k", "v"), ("LPUSH", "k", 1), ("GET", "k"))
    assert (written, read) == (b"OK", b"v") and "WRONGTYPE" in str(wrong)
    assert await pool.ask("GET", "k") == b"v", "nothing is left behind on the connection"
    with pytest.raises(failures.ResponseError, match="WRONGTYPE"):
        checked([written, wrong, read])
    await pool.ask("DEL", "k")


async def test_a_transaction_that_is_refused_raises_and_an_error_in_one_is_a_value(pool: Pool) -> None:
    replies = await pool.exchange(*transaction([("SET", "k", "v"), ("LPUSH", "k", 1)]))
    done = executed(replies)
    assert done[0] == b"OK" and isinstance(done[1], failures.ResponseError)
    with pytest.raises(failures.ResponseError):
        executed(await pool.exchange(*transaction([("NOSUCHCOMMAND",), ("GET", "k")])))
    await pool.ask("DEL", "k")


async def test_a_script_the_store_does_not_know_is_introduced_and_what_comes_behind_is_of_after_it(pool: Pool) -> None:
    await pool.ask("SCRIPT", "FLUSH")
    write = Script("return redis.call('INCR', KEYS[1])")
    assert await pool.run(write, ["n"], [], ("GET", "n")) == [1, b"1"]
    assert await pool.run(write, ["n"], [], ("GET", "n")) == [2, b"2"]
    with pytest.raises(failures.ResponseError):
        await pool.run(Script("return redis.call('LPUSH', KEYS[1], 1)"), ["n"], [])
    await pool.ask("DEL", "n")


async def test_a_connection_with_unread_replies_is_never_lent(pool: Pool) -> None:
    for number in range(200):
        cut = asyncio.create_task(pool.exchange(*[("ECHO", f"cut {number}")] * 50))
        for _ in range(number % 12):
            await asyncio.sleep(0)
        cut.cancel()
        (reply,) = await pool.run(ECHO, ["k"], [str(number)])
        assert reply == [b"k", str(number).encode()]
        await asyncio.gather(cut, return_exceptions=True)


async def test_no_more_connections_than_the_limit_however_many_ask(store_url: str) -> None:
    pool = Pool(way_to(store_url), limit=2, timeout=5.0, greet=named)
    try:
        replies = await asyncio.gather(*(pool.ask("ECHO", str(number)) for number in range(300)))
        assert replies == [str(number).encode() for number in range(300)]
        assert await connections(pool) == 2
    finally:
        await pool.disconnect()


async def test_one_at_a_time_leads_to_one_connection(store_url: str) -> None:
    pool = Pool(way_to(store_url), limit=8, timeout=5.0, greet=named)
    try:
        for _ in range(20):
            await pool.ask("PING")
        assert await connections(pool) == 1
    finally:
        await pool.disconnect()


async def test_a_connection_that_the_store_closed_meanwhile_is_replaced(pool: Pool, store_url: str) -> None:
    other = Pool(way_to(store_url), limit=1, timeout=2.0)
    me = await pool.ask("CLIENT", "ID")
    await other.ask("CLIENT", "KILL", "ID", me)
    async with asyncio.timeout(10):
        while not await pool._idle[0].can_read():  # noqa: ASYNC110 - until we hear of it
            await asyncio.sleep(0.002)
    assert await pool.ask("ECHO", "again") == b"again"
    assert await pool.ask("CLIENT", "ID") != me
    await other.disconnect()


async def test_a_connection_that_was_reset_meanwhile_is_replaced() -> None:
    accepted: list[asyncio.StreamWriter] = []

    async def pong(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.append(writer)
        with suppress(ConnectionError):
            while await reader.read(1_000):
                writer.write(b"+PONG\r\n")
        writer.close()

    async with await asyncio.start_server(pong, "127.0.0.1", 0) as server:
        pool = Pool(way_to("redis://127.0.0.1:{1}".format(*server.sockets[0].getsockname())), limit=2, timeout=2.0)
        await asyncio.gather(*(pool.ask("PING") for _ in range(2)))
        transports = [connection._writer.transport for connection in pool._idle]
        for writer in accepted:
            linger = struct.pack("ii", 1, 0)  # for no time at all: whoever closes now resets
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
        async with asyncio.timeout(10):
            while not all(transport.is_closing() for transport in transports):  # noqa: ASYNC110 - until we hear of it
                await asyncio.sleep(0.002)
        assert await pool.ask("PING") == b"PONG"
        await pool.disconnect()
        await asyncio.gather(*(writer.wait_closed() for writer in accepted), return_exceptions=True)


async def test_who_uses_a_connection_that_is_closed_under_them_is_told(pool: Pool) -> None:
    waiting = asyncio.create_task(pool.exchange(("BLPOP", "nothing", 5)))
    async with asyncio.timeout(10):
        while not pool._lent:  # noqa: ASYNC110 - until it has one
            await asyncio.sleep(0.002)
    await asyncio.sleep(0.02)
    await pool.disconnect()
    with pytest.raises((failures.RedisError, OSError)):
        await waiting
    assert await pool.ask("PING") == b"PONG"


async def test_connections_to_a_store_that_takes_nothing_are_all_closed_at_once(silent_url: str) -> None:
    pool = Pool(way_to(silent_url), limit=3, timeout=5.0)
    async with asyncio.timeout(4):
        asked = [asyncio.create_task(pool.exchange(("ECHO", "x" * size))) for size in (1, 30_000_000, 30_000_000)]
        while len(pool._lent) < len(asked):  # noqa: ASYNC110 - until each has one
            await asyncio.sleep(0.002)
        lent = list(pool._lent)
        transports = [connection._writer.transport for connection in lent]
        await asyncio.sleep(0.1)
        await pool.disconnect()
        assert not any(connection.is_connected for connection in lent)
        for transport in transports:
            transport.abort()
        await asyncio.gather(*asked, return_exceptions=True)


async def test_what_a_greeting_raises_its_borrower_meets_and_no_place_is_lost(store_url: str) -> None:
    async def refuse(connection: Connection) -> None:
        raise failures.ConnectionError("not this one")

    pool = Pool(way_to(store_url), limit=1, timeout=2.0, greet=refuse)
    for _ in range(3):
        with pytest.raises(failures.ConnectionError, match="not this one"):
            await pool.ask("PING")


async def test_while_there_is_a_refusal_nothing_is_lent(pool: Pool) -> None:
    pool.refusal = "it is being rebuilt"
    with pytest.raises(Refused, match="it is being rebuilt"):
        await pool.ask("PING")
    with pytest.raises(Refused):
        async with aclosing(pool.listen("*", 1.0)) as messages:
            await anext(messages)
    pool.refusal = None
    assert await pool.ask("PING") == b"PONG"


async def test_silence_ends_an_exchange_and_many_replies_renew_the_patience(private_store: PrivateStore) -> None:
    pool = Pool(way_to(private_store.url), limit=1, timeout=0.3)
    try:
        # Redis answers once for all that it has read at a time, which is 16 KiB.
        busy = ("EVAL", "for i = 1, 400000 do local x = i * i end return 1", 0, "x" * 20_000)
        assert await pool.exchange(*[busy] * 160) == [1] * 160, "longer than a time-out, and never silent for one"
        os.kill(private_store.running.pid, signal.SIGSTOP)
        try:
            with pytest.raises(failures.TimeoutError, match=r"no answer in 0\.3 s"):
                await pool.ask("PING")
        finally:
            os.kill(private_store.running.pid, signal.SIGCONT)
        assert await pool.ask("ECHO", "after") == b"after"
    finally:
        await pool.disconnect()


async def test_who_listens_gets_what_is_said_from_the_first_moment_on(pool: Pool) -> None:
    async with aclosing(pool.listen("said:*", 5.0)) as messages:
        assert await anext(messages) == []
        await pool.ask("PUBLISH", "said:a", "1")
        await pool.ask("PUBLISH", "unsaid", "2")
        await pool.ask("PUBLISH", "said:b", "3")
        assert await anext(messages) == [b"said:*", b"said:a", b"1"]
        assert await anext(messages) == [b"said:*", b"said:b", b"3"]
    assert await pool.ask("ECHO", "still") == b"still"


async def test_a_listener_pings_in_silence_and_hears_on(pool: Pool) -> None:
    async with aclosing(pool.listen("said:*", 0.02)) as messages:
        await anext(messages)
        heard = asyncio.ensure_future(anext(messages))
        await asyncio.sleep(0.2)
        assert not heard.done()
        await pool.ask("PUBLISH", "said:a", "1")
        assert await heard == [b"said:*", b"said:a", b"1"]


async def test_who_would_listen_to_a_store_that_greets_nobody_is_told(silent_url: str) -> None:
    pool = Pool(way_to(silent_url), limit=1, timeout=0.1, greet=named)
    async with asyncio.timeout(5):
        with pytest.raises(TimeoutError):
            async with aclosing(pool.listen("*", 1.0)) as messages:
                await anext(messages)
        assert pool._places._value == 1


async def test_a_listener_whose_connection_is_closed_in_silence_is_told(pool: Pool) -> None:
    async with asyncio.timeout(5), aclosing(pool.listen("said:*", 5.0)) as messages:
        await anext(messages)
        (connection,) = pool._lent

        async def closed_in_the_turn_of_its_timeout(**_: object) -> None:
            del connection.read_response
            await connection.disconnect()

        connection.read_response = closed_in_the_turn_of_its_timeout
        with pytest.raises(TimeoutError):
            await anext(messages)
