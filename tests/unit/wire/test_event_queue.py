"""The gate and the inbox wake whoever waits, once there is a reason, also after others gave up waiting."""

from __future__ import annotations

import asyncio

from realtime.wire.event_queue import EventQueue, Gate


async def test_a_gate_is_open_at_first_and_lets_all_through_when_it_opens_again() -> None:
    gate = Gate()
    await gate.wait()
    gate.clear()
    waiting = [asyncio.create_task(gate.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    gate.set()
    await asyncio.gather(*waiting)


async def test_who_gave_up_waiting_does_not_take_the_others_wake_up() -> None:
    gate = Gate()
    gate.clear()
    first, second = asyncio.create_task(gate.wait()), asyncio.create_task(gate.wait())
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    gate.set()
    await second
    assert first.cancelled()


async def test_a_gate_closed_again_before_the_waiter_ran_stays_closed() -> None:
    gate = Gate()
    gate.clear()
    waiting = asyncio.create_task(gate.wait())
    await asyncio.sleep(0)
    gate.set()
    gate.clear()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not waiting.done()
    gate.set()
    await waiting


async def test_an_inbox_keeps_the_order_and_knows_what_it_holds() -> None:
    inbox = EventQueue[str]()
    waiting = asyncio.create_task(inbox.get())
    await asyncio.sleep(0)
    inbox.put_nowait("a", 10)
    assert await waiting == "a"
    assert (len(inbox), inbox.size_bytes) == (0, 0)
    inbox.put_nowait("b", 5)
    inbox.put_nowait("c", 7)
    assert (len(inbox), inbox.size_bytes) == (2, 12)
    assert [await inbox.get(), await inbox.get()] == ["b", "c"]
    assert inbox.size_bytes == 0
