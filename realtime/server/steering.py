"""Steering: which of the processes behind one port takes a newcomer.

Owns how many clients each process has, in memory that they share, and the program by which the kernel chooses among
their sockets. Must never accept for a process, nor move who is connected: `broadcast.spreading` asks for that. Assumes
that the sockets began to listen in the order of their places, and that none of them is closed before the end.

By itself Linux spreads connections evenly as they come (SO_REUSEPORT), and connections that live for hours stay where
they came: a process that was started again would be empty until the evening. So who has fewer gets more of those who
come, by a classic BPF program that draws a number (setsockopt SO_ATTACH_REUSEPORT_CBPF, socket(7)). Where a system has
no such thing, the kernel's own choice stands.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from mmap import mmap
from time import monotonic
from typing import Final

AWAY: Final = -1
"""The count of a place that takes no newcomers: nobody is in it, or whoever is leaves, hangs, or has not begun."""

SILENT: Final = 5.0
"""Seconds after which a count that was not said again counts as AWAY: its process hangs. A busy one is late by less."""

LEAST_ROOM: Final = 64
"""Newcomers for whom shares are reckoned, at least."""

SEEN_LATE: Final = 8
"""Looks for whose newcomers shares are reckoned, at the pace of late. A busy process counts late: with fewer, whoever
was behind at one look would be far ahead at the next."""

SLOWS: Final = 0.9
"""What of the pace of late is left from look to look where fewer come."""

_ATTACH: Final = 51  # SO_ATTACH_REUSEPORT_CBPF, which Python does not name
_LOAD_RANDOM, _AND, _JUMP_AT_LEAST, _RETURN = 0x20, 0x54, 0x35, 0x06  # linux/filter.h: ld, and, jge, ret
_RANDOM: Final = 0x1_0000_0000 - 0x1000 + 56  # SKF_AD_OFF + SKF_AD_RANDOM
_RANGE: Final = 0x1_0000


class Attendance:
    """How many clients each place has, as its process last said; shared with the processes that are forked later, which
    read the same monotonic clock."""

    def __init__(self, places: int, now: Callable[[], float] = monotonic) -> None:
        self._now = now
        self._counts = memoryview(mmap(-1, 8 * places)).cast("q")
        self._said = memoryview(mmap(-1, 8 * places)).cast("d")  # when each was told
        for place in range(places):
            self._counts[place] = AWAY

    def tell(self, place: int, clients: int) -> None:
        """So many are there now; AWAY."""
        self._counts[place] = clients
        self._said[place] = self._now()

    def counts(self) -> list[int]:
        """By place; AWAY also where nothing was said for long."""
        oldest = self._now() - SILENT
        return [
            count if said >= oldest else AWAY for count, said in zip(self._counts, self._said, strict=True)
        ]


def shares(counts: Sequence[int], room: int) -> list[int]:
    """Which share of those `room` who come next each place takes, by how many it has (AWAY: none).

    As water fills a vessel: the lowest first, all alike where they are level.
    """
    there = [count for count in counts if count != AWAY]
    level = _level(sorted(there), room)
    return [0 if count == AWAY else max(0, level - count) for count in counts]


def _level(ascending: Sequence[int], room: int) -> int:
    """Where the surface is once `room` more were poured over these."""
    below, level = 0, 0
    for number, count in enumerate(ascending, 1):
        below += count
        level = -(-(below + room) // number)
        if number == len(ascending) or level <= ascending[number]:
            break
    return level


def program(of: Sequence[int]) -> list[tuple[int, int, int, int]]:
    """Instructions (code, jump if true, jump if false, operand) that give the number of a place, each as often as its
    share of all says. At least one must have any."""
    whole, reached = sum(of), 0
    *others, last = [place for place, share in enumerate(of) if share]
    made = [(_LOAD_RANDOM, 0, 0, _RANDOM), (_AND, 0, 0, _RANGE - 1)]
    for place in others:
        reached += of[place]
        made += [(_JUMP_AT_LEAST, 1, 0, _RANGE * reached // whole), (_RETURN, 0, 0, place)]
    return [*made, (_RETURN, 0, 0, last)]


class Steering:
    """Chooses among the `listeners` of one port, one a place."""

    def __init__(self, listeners: Sequence[socket.socket], attendance: Attendance) -> None:
        self._listeners = listeners
        self._attendance = attendance
        self._before: list[int] = []
        self._there = 0  # all clients at the last look
        self._came = 0.0  # how many more that was than at the look before; what was more lately counts on for a while

    def look(self) -> None:
        """Lets those who come from now on go where the fewest are. To be called at even intervals."""
        counts = [
            count if count == AWAY else count + waiting(listener)
            for count, listener in zip(self._attendance.counts(), self._listeners, strict=True)
        ]
        there = sum(count for count in counts if count != AWAY)
        self._came, self._there = max(float(there - self._there), SLOWS * self._came), there
        wanted = shares(counts, max(LEAST_ROOM, int(SEEN_LATE * self._came)))
        if wanted != self._before and any(wanted):
            self._before = wanted
            self._attach(program(wanted))

    def _attach(self, instructions: Sequence[tuple[int, int, int, int]]) -> None:
        packed = b"".join(struct.pack("HBBI", *one) for one in instructions)
        kept = ctypes.create_string_buffer(packed)
        pointer = struct.pack("HL", len(instructions), ctypes.addressof(kept))  # struct sock_fprog
        with suppress(OSError):  # a system that cannot: its own choice stands
            self._listeners[0].setsockopt(socket.SOL_SOCKET, _ATTACH, pointer)


def waiting(listener: socket.socket) -> int:
    """How many connections wait to be accepted: what TCP_INFO calls not acknowledged of a socket that listens."""
    with suppress(OSError):
        said: int = struct.unpack_from("I", listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32), 24)[0]
        return said
    return 0


def turn_away(listener: socket.socket) -> None:
    """Ends the connections that wait at a place in which nobody is: who is refused comes again, and goes elsewhere."""
    with suppress(OSError):
        while True:
            listener.accept()[0].close()
