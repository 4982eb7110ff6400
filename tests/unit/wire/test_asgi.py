"""What an application may say, and what follows, at a connection that only takes notes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from uvicorn.config import Config
from uvicorn.protocols.utils import ClientDisconnected

from realtime.wire.asgi import EXPECTED, AsgiCall, Phase
from realtime.wire.event_queue import Gate
from realtime.wire.frames import BINARY, TEXT, Frame
from realtime.wire.lifecycle import State

ACCEPT = {"type": "websocket.accept"}
SEND = {"type": "websocket.send", "text": "é"}
CLOSE = {"type": "websocket.close"}
START = {"type": "websocket.http.response.start", "status": 418}
BODY = {"type": "websocket.http.response.body", "body": b"short and stout"}
MESSAGES = {message["type"]: message for message in (ACCEPT, SEND, CLOSE, START, BODY)}


class Notes:
    """A connection that does what it is told, and notes it."""

    def __init__(self, application: Any = None) -> None:
        self.config = Config(application or self, ws_max_queue=3)
        self.config.loaded_app = application
        self.state = State.CONNECTING
        self.transport: asyncio.Transport = None  # type: ignore[assignment]
        self.done: list[Any] = []
        self.call = AsgiCall(self, Gate())

    def accept(self, first: Frame | None = None, **options: Any) -> None:
        self.state = State.OPEN
        self.done.append("accept")
        self.call.accepted()

    def turn_away(self, answer: bytes) -> None:
        self.state = State.REFUSED
        self.done.append(answer.split(b" ")[1])

    def write(self, frame: Frame, sent: int = 0) -> int:
        self.done.append(frame.payload)
        return 0

    def read_on(self) -> None:
        self.done.append("read on")

    def close(self, code: int, reason: str = "") -> None:
        self.state = State.CLOSING
        self.done.append(code)

    def hang_up(self) -> None:
        self.done.append("hang up")

    def say(self, *messages: dict[str, Any]) -> list[Any]:
        async def main() -> None:
            for message in messages:
                await self.call.send(message)

        asyncio.run(main())
        return self.done


PHASES: dict[Phase, list[dict[str, Any]]] = {
    Phase.ASKED: [],
    Phase.REFUSING: [START],
    Phase.ACCEPTED: [ACCEPT],
    Phase.OVER: [ACCEPT, CLOSE],
}


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("kind", [*MESSAGES, "websocket.unknown"])
def test_an_application_may_say_only_what_fits_the_phase(phase: Phase, kind: str) -> None:
    notes = Notes()
    notes.say(*PHASES[phase])
    message = MESSAGES.get(kind, {"type": kind})
    if kind in EXPECTED[phase]:
        notes.say(message)
    else:
        with pytest.raises(RuntimeError, match=kind):
            notes.say(message)


def test_what_is_said_is_done() -> None:
    assert Notes().say(ACCEPT, SEND, CLOSE) == ["accept", "é".encode(), 1000]
    assert Notes().say(CLOSE) == [b"403"]
    assert Notes().say(START, BODY | {"more_body": True}) == []
    assert Notes().say(START, BODY | {"more_body": True}, BODY) == [b"418"]


@pytest.mark.parametrize("said", [[], [ACCEPT], [ACCEPT, CLOSE], [START]])
def test_whoever_speaks_to_a_client_that_is_gone_hears_so(said: list[dict[str, Any]]) -> None:
    notes = Notes()
    notes.say(*said)
    notes.state = State.LOST
    with pytest.raises(ClientDisconnected):
        notes.say(SEND)


def test_events_come_in_order_and_the_last_one_lets_reading_go_on() -> None:
    async def main() -> None:
        notes = Notes()
        assert [notes.call.put(TEXT, b"1"), notes.call.put(BINARY, b"2")] == [False, True]
        notes.call.disconnected(1001, "away")
        assert await notes.call.receive() == {"type": "websocket.connect"}
        assert await notes.call.receive() == {"type": "websocket.receive", "text": "1"}
        assert await notes.call.receive() == {"type": "websocket.receive", "bytes": b"2"}
        assert notes.done == []
        assert await notes.call.receive() == {"type": "websocket.disconnect", "code": 1001, "reason": "away"}
        assert notes.done == ["read on"]

    asyncio.run(main())


def test_many_bytes_are_too_much_however_few_the_messages() -> None:
    assert Notes().call.put(TEXT, b"x" * 70_000)


async def accepts(scope: Any, receive: Any, send: Any) -> None:
    await send(ACCEPT)


async def fails(scope: Any, receive: Any, send: Any) -> None:
    await send(ACCEPT)
    raise LookupError


async def says_nothing(scope: Any, receive: Any, send: Any) -> None:
    pass


@pytest.mark.parametrize(
    ("application", "is_detached", "end"),
    [
        (accepts, False, ["accept", 1000]), (accepts, True, ["accept"]),
        (fails, False, ["accept", 1011]), (fails, True, ["accept", 1011]),
        (says_nothing, False, [b"500"]),
    ],
)  # fmt: skip
def test_what_an_application_leaves_open_is_closed(application: Any, is_detached: bool, end: list[Any]) -> None:
    notes = Notes(application)
    notes.call.is_detached = is_detached
    asyncio.run(notes.call.run({}))
    assert notes.done == end
    assert (notes.call is None) == (is_detached and application is accepts), "nobody fetches events any more"
