"""Answers: where each ends is plain from its head, as h11 reads it."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.wire.answers import Answer
from realtime.wire.heads import Request

DATE = [(b"date", b"Mon, 30 Nov 2026 15:00:00 GMT")]


def request(method: str = "GET", version: str = "1.1", keeps: bool = True) -> Request:
    return Request(method, b"/", version, [], 0, keeps, False, False)


def written(answer: Answer, status: int, fields: list[tuple[bytes, bytes]], parts: list[bytes]) -> bytes:
    answer.start(status, fields)
    pieces = [answer.part(part, more=number < len(parts)) for number, part in enumerate(parts, 1)]
    return b"".join(b"".join(piece) for piece in pieces)


def read(data: bytes, method: str, *, to_the_end: bool) -> tuple[h11.Response, bytes, bool]:
    """The answer as a client has it, and whether another could follow."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
    client.send(h11.EndOfMessage())
    client.receive_data(data)
    if to_the_end:
        client.receive_data(b"")
    head, body = client.next_event(), b""
    assert isinstance(head, h11.Response)
    while isinstance(event := client.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage), event
    assert client.trailing_data[0] == b"", "not a byte more"
    return head, body, client.their_state is h11.DONE


@given(
    st.sampled_from(["GET", "HEAD", "POST"]),
    st.sampled_from([200, 204, 304, 404, 599]),
    st.lists(st.binary(max_size=9), min_size=1, max_size=4),
    st.booleans(),
    st.sampled_from(["1.1", "1.0"]),
    st.booleans(),
)
def test_a_client_reads_what_was_said(
    method: str, status: int, parts: list[bytes], tells_length: bool, version: str, keeps: bool
) -> None:
    answer = Answer(request(method, version, keeps and version == "1.1"), DATE)
    fields = [(b"X-One", b"1")]
    bare = method == "HEAD" or status in (204, 304)
    if tells_length and status != 204:
        fields.append((b"content-length", b"%d" % len(b"".join(parts))))
    data = written(answer, status, fields, parts)
    head, body, goes_on = read(data, method, to_the_end=not answer.keeps)
    assert (head.status_code, dict(head.headers)[b"x-one"]) == (status, b"1")
    assert body == (b"" if bare else b"".join(parts))
    assert goes_on == answer.keeps
    assert answer.complete


@pytest.mark.parametrize(
    "field", [(b"x", b"a\r\nset-cookie: b"), (b"x", b"a\nb"), (b"x", b"\0"), (b"x: y\r\nz", b"z"), (b"", b"")]
)
def test_no_field_of_an_application_ends_a_line(field: tuple[bytes, bytes]) -> None:
    with pytest.raises(RuntimeError, match="field"):
        Answer(request(), DATE).start(200, [field])


def test_a_body_has_the_length_that_its_head_says() -> None:
    for parts in ([b"12345", b"6"], [b"1234"]):
        answer = Answer(request(), DATE)
        with pytest.raises(RuntimeError, match="length"):
            written(answer, 200, [(b"content-length", b"5")], parts)


def test_an_answer_is_given_once() -> None:
    answer = Answer(request(), DATE)
    with pytest.raises(RuntimeError):
        answer.part(b"", more=False)
    written(answer, 200, [], [b"x"])
    with pytest.raises(RuntimeError):
        answer.part(b"", more=False)
    with pytest.raises(RuntimeError):
        answer.start(200, [])
    with pytest.raises(RuntimeError):
        Answer(request(), DATE).start(101, [])


def test_an_application_may_close_and_name_options_of_its_own() -> None:
    answer = Answer(request(), DATE)
    data = written(answer, 426, [(b"Connection", b"Upgrade"), (b"upgrade", b"websocket")], [b""])
    assert b"\r\nconnection: upgrade\r\n" in data and answer.keeps
    answer = Answer(request(), [*DATE, (b"connection", b"close")])
    data = written(answer, 200, [(b"connection", b"keep-alive"), (b"transfer-encoding", b"gzip")], [b"x"])
    assert b"\r\nconnection: close\r\n" in data and b"gzip" not in data and not answer.keeps
