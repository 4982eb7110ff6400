"""Heads: what a request says before its body, and what follows from it (RFC 9112).

Owns which heads are read here, how long a body is, whether the connection is kept, and whether a WebSocket is asked
for. Must never guess: a head is read here only where it can mean one thing, and every other is h11's to read. Pure.

An ordinary head is what browsers, proxies and HTTP libraries send: HTTP/1.1, an address that begins with a slash,
visible ASCII, lines that end with CRLF, nothing folded, one Content-Length at most and no Transfer-Encoding. It is read
in a fraction of the time. What h11 says of an ordinary head is the same; a test holds that.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

import h11

__all__ = ["WEBSOCKET", "BadRequestError", "Head", "Request", "ordinary", "understood", "unusual"]

BYTES: Final = 32 * 1024
"""Largest head, and largest trailer section."""

FIELDS: Final = 100
"""Most fields of a head."""

WEBSOCKET: Final = b"websocket"

Fields = list[tuple[bytes, bytes]]

_NAME = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_ORDINARY: Final = re.compile(
    rb"([A-Z]+) (/[!\"$-~]*) HTTP/1\.1\r\n((?:" + _NAME + rb":[\t -~]*\r\n)*+)\r\n",
)
# Of any head: lines end with CRLF, none is folded, none holds a control character but tabs. What servers and proxies
# read differently is refused (RFC 9112, sections 2.2 and 5.2).
_LINES: Final = re.compile(rb"(?:[^\x00- \x7f][^\x00-\x08\n-\x1f\x7f]*+\r\n)++\r\n")
_FIELD: Final = re.compile(rb"([^:]+):([^\r]*)\r\n")

FIELD: Final = re.compile(_NAME + rb":[\t -~\x80-\xff]*+\r\n")
"""The line of one field, in whatever section it stands."""

_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})

# Fields that decide how a request is framed, whom it is for, or what becomes of the connection.
_TELLING: Final = _FRAMING | {b"host", b"connection", b"upgrade", b"expect"}

# RFC 9110, section 4.2: a host, and a port; RFC 3986, section 3.2.2. An address of nowhere has none.
_HOST: Final = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
_ABSOLUTE: Final = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]+)(/[^#]*|\?[^#]*|)")
_NONE: Final = "This is no HTTP request."
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")


class BadRequestError(Exception):
    """The request is refused with `status`, and its connection ends. The text is for people."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Head(NamedTuple):
    """A head as it came. Names of fields are in small letters."""

    method: bytes
    target: bytes
    version: bytes
    fields: Fields


class Request(NamedTuple):
    """A request whose head is understood. `target` is a path with its query, or `*`."""

    method: str
    target: bytes
    version: str
    fields: Fields
    length: int | None
    """Bytes of its body; None where it comes in chunks."""
    keeps: bool
    """Whether the client wants to go on with the connection."""
    waits: bool
    """Whether the client wants to hear that it may go on before it sends the body (100-continue)."""
    to_websocket: bool
    """Whether it asks for a WebSocket in a way that can be answered with 101 (RFC 6455, section 4.2.1)."""


def ordinary(data: bytes) -> Head | None:
    """An ordinary head, which is all of `data`; None for any other."""
    found = _ORDINARY.fullmatch(data)
    if found is None:
        return None
    method, target, block = found.groups()
    _check_count(block.count(b"\n"))
    fields = [(name.lower(), value.strip(b" \t")) for name, value in _FIELD.findall(block)]
    lengths = [value for name, value in fields if name in _FRAMING]
    if lengths and not (len(lengths) == 1 and _LENGTH.fullmatch(lengths[0])):
        return None  # also where there is a Transfer-Encoding, which is no number
    return Head(method, target, b"1.1", fields)


def unusual(data: bytes) -> Head:
    """Any head, as h11 reads it. Raises BadRequestError."""
    if not _LINES.fullmatch(data):
        raise BadRequestError(400, _NONE)
    _check_count(data.count(b"\n") - 2)
    reader = h11.Connection(h11.SERVER)
    reader.receive_data(data)
    try:
        event = reader.next_event()
    except h11.RemoteProtocolError as error:
        words = "Chunks are the one Transfer-Encoding here." if error.error_status_hint == 501 else _NONE
        raise BadRequestError(error.error_status_hint, words) from None
    if not isinstance(event, h11.Request):
        raise BadRequestError(400, _NONE)
    fields = [(bytes(name), bytes(value)) for name, value in event.headers]
    return Head(event.method, event.target, event.http_version, fields)


def _check_count(fields: int) -> None:
    """Before each of them costs anything."""
    if fields > FIELDS:
        raise BadRequestError(431, f"A request may have at most {FIELDS} header fields.")


def understood(head: Head) -> Request:
    """What a head means. Raises BadRequestError where it has no meaning, or two."""
    method, target, version, fields = head
    if method == b"CONNECT":
        raise BadRequestError(501, "This server is no proxy.")
    if version[:1] != b"1":
        raise BadRequestError(505, "This server speaks HTTP/1.1.")
    host = length = None
    connection = upgrade = b""
    chunked = waits = False
    for name, value in fields:
        if name not in _TELLING:
            continue
        if name == b"host":
            if host is not None:
                raise BadRequestError(400, "A request has one Host.")
            host = value
        elif name == b"connection":
            connection += b"," + value
        elif name == b"upgrade":
            upgrade += b"," + value
        elif name == b"expect":
            waits = value.lower() == b"100-continue"
        elif name == b"content-length":
            if length is not None or not _LENGTH.fullmatch(value):
                raise BadRequestError(400, "Content-Length must be one number.")
            length = int(value)
        else:  # chunked: h11 lets no other pass
            chunked = True
    if chunked and (length is not None or version == b"1.0"):
        raise BadRequestError(400, "Transfer-Encoding needs HTTP/1.1, and stands without Content-Length.")
    if host is None and version != b"1.0":
        raise BadRequestError(400, "A request needs a Host.")
    if host is not None and not _HOST.fullmatch(host):
        raise BadRequestError(400, "This Host is none.")
    if not target.startswith(b"/"):
        target, fields = _placed(method, target, fields)
    elif b"#" in target:
        raise BadRequestError(400, "An address is sent without what follows #.")
    options = _listed(connection) if connection else ()
    return Request(
        method.decode("ascii"),
        target,
        version.decode("ascii"),
        fields,
        None if chunked else length or 0,
        version != b"1.0" and b"close" not in options,
        waits and version != b"1.0",
        bool(upgrade)
        and WEBSOCKET in _listed(upgrade)
        and b"upgrade" in options
        and method == b"GET"
        and version != b"1.0"
        and not (chunked or length),
    )


def _listed(text: bytes) -> tuple[bytes, ...]:
    return tuple(item.strip() for item in text.lower().split(b","))


def _placed(method: bytes, target: bytes, fields: Fields) -> tuple[bytes, Fields]:
    """The path of a target in absolute form, and the fields with the host that it names (RFC 9112, section 3.2)."""
    if target == b"*" and method == b"OPTIONS":
        return target, fields
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None or not _HOST.fullmatch(absolute[1]):
        raise BadRequestError(400, "An address begins with a slash.")
    host, path = absolute.groups()
    if not path:
        path = b"*" if method == b"OPTIONS" else b"/"
    elif path.startswith(b"?"):
        path = b"/" + path
    return path, [(b"host", host), *(field for field in fields if field[0] != b"host")]
