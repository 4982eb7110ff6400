"""Answers: what an application says of one response, as the bytes of HTTP/1.1 (RFC 9112).

Owns how a body is framed, and whether the connection may be kept. Must never write a head that ends early, nor bytes
that a client would take for the next answer. Assumes ASGI's order of messages: a start, then parts, of which the last
is marked. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Final

from realtime.wire.heads import BadRequestError, Request

__all__ = ["Answer", "refusal"]

_STATUS_LINES: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
_FIELDS: Final = re.compile(rb"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+: [^\x00-\x08\n-\x1f\x7f]*\r\n)*+")


class Answer:
    """The answer to `request`; `defaults` are fields of every answer. Raises RuntimeError where what the application
    says is no HTTP; then the connection must end without another byte."""

    __slots__ = (
        "_chunked", "_defaults", "_head", "_is_bare", "_left", "_options", "_request", "complete", "keeps", "started",
    )  # fmt: skip

    def __init__(self, request: Request, defaults: Iterable[tuple[bytes, bytes]]) -> None:
        self._request = request
        self._defaults = defaults
        self._head = b""  # until the first part says how the body is framed
        self._is_bare = request.method == "HEAD"  # no body follows, whatever the head says
        self._left = -1  # bytes that were promised and are to come; negative where no number was given
        self._chunked = False
        self._options: list[bytes] = []  # of Connection
        self.started = False
        self.complete = False
        self.keeps = request.keeps

    def start(self, status: int, fields: Iterable[tuple[bytes, bytes]]) -> None:
        """Takes the head."""
        if self.started or not 200 <= status < 600:
            raise RuntimeError("An answer has one head, with a final status.")
        self.started = True
        lines = []
        for name, value in (*self._defaults, *fields):
            name = name.lower()
            if name == b"content-length":
                self._left = int(value)
            elif name == b"connection":
                self._options += [option.strip() for option in value.lower().split(b",")]
                continue
            elif name == b"transfer-encoding":
                continue  # ours to decide
            lines.append(b"%b: %b\r\n" % (name, value))
        block = b"".join(lines)
        if not _FIELDS.fullmatch(block) or block.count(b"\n") != len(lines):
            raise RuntimeError("A header field of an answer holds what none may hold.")
        self._is_bare = self._is_bare or status in (204, 304)
        self.keeps = self.keeps and b"close" not in self._options
        self._head = (_STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status) + block

    def endless(self) -> bytes:
        """The head alone, of an answer that ends with the connection and is written by somebody else."""
        head, self._head = self._head, b""
        self.keeps = False
        return head + b"connection: close\r\n\r\n"

    def part(self, body: bytes, more: bool) -> list[bytes]:
        """What is to be written for a part of the body, the head with the first."""
        if not self.started or self.complete:
            raise RuntimeError("A part of a body belongs between an answer's head and its end.")
        head, self._head = self._head, b""
        if head:
            head = self._framed(head, body, more)
        self.complete = not more
        if self._is_bare:
            return [head] if head else []
        if self._chunked:
            parts = [head, b"%x\r\n" % len(body), body, b"\r\n"] if body else [head]
            return parts if more else [*parts, b"0\r\n\r\n"]
        if self._left >= 0:
            self._left -= len(body)
            if self._left < 0 or (self._left and not more):
                raise RuntimeError("An answer's body is of another length than its head says.")
        return [head, body] if body else [head]

    def _framed(self, head: bytes, body: bytes, more: bool) -> bytes:
        """The head with what tells a client where the answer ends."""
        if self._left < 0 and not self._is_bare:
            if not more:
                self._left = len(body)
                head += b"content-length: %d\r\n" % len(body)
            elif self._request.version != "1.0":
                self._chunked = True
                head += b"transfer-encoding: chunked\r\n"
            else:
                self.keeps = False  # the end of the connection is the end of the body
        options = [option for option in self._options if option not in (b"close", b"keep-alive")]
        if not self.keeps:
            options.append(b"close")
        if options:
            head += b"connection: %b\r\n" % b", ".join(options)
        return head + b"\r\n"


def refusal(refused: BadRequestError, defaults: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The whole answer to a request that is refused before any application sees it; the connection ends with it."""
    code = "too_large" if refused.status in (413, 431) else "bad_message"
    body = json.dumps({"error": {"code": code, "message": str(refused)}}).encode()
    fields = [(b"content-type", b"application/json"), (b"x-content-type-options", b"nosniff")]
    answer = Answer(Request("GET", b"", "1.1", [], 0, False, False, False), defaults)
    answer.start(refused.status, fields)
    return b"".join(answer.part(body, more=False))
