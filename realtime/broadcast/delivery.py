"""Delivery: writes frames to many subscribers without holding the event loop.

Owns the streams that have deliveries left, and what was written ever. Must never await or encode for one subscriber.
Assumes one event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from realtime.broadcast.streams import Stream

SLICE_SECONDS: Final = 0.002
"""What a slice of a pass takes of the event loop at a time: little, for a submission takes several turns."""

STRETCH: Final = 100
"""Deliveries between two looks at the clock: so much longer a slice may be."""

IDLE_TURN: Final = 0.000_2
"""Seconds: a turn of the loop that is shorter had nothing to do but to come back."""


class Delivery:
    """Passes over streams, cut into slices. `run` must be running."""

    def __init__(self) -> None:
        self._pending: dict[Stream, None] = {}  # streams with subscriptions not yet at the newest state
        self._wake = asyncio.Event()
        self._slice_seconds = 0.0  # what the last slice took
        self.deliveries = 0
        """Frames written, ever."""
        self.delivered_bytes = 0
        """Payload of these, before compression."""
        self.skipped = 0
        """Diffs not written to subscribers that were behind, ever."""
        self.on_pass: Callable[[int, float], None] = lambda deliveries, seconds: None

    def schedule(self, stream: Stream) -> None:
        """Adds a stream whose pass has places left."""
        if stream.remaining:
            self._pending[stream] = None

    def forget(self, stream: Stream) -> None:
        """Drops a stream that nobody follows any more."""
        self._pending.pop(stream, None)

    def write_slice(self) -> None:
        """Writes for as long as a slice takes, round and round the streams that have deliveries left."""
        began = now = time.perf_counter()
        left, written = STRETCH, 0
        while self._pending and now - began < SLICE_SECONDS:
            stream = next(iter(self._pending))
            del self._pending[stream]
            done = stream.deliver(left)
            written += done.written
            self.delivered_bytes += done.payload_bytes
            self.skipped += done.skipped
            self.schedule(stream)
            left -= max(done.visited, 1)
            if left <= 0:
                left, now = STRETCH, time.perf_counter()
        self.deliveries += written
        self._slice_seconds = time.perf_counter() - began
        self.on_pass(written, self._slice_seconds)
        if self._pending:
            self._wake.set()

    async def run(self) -> None:
        """Goes on with passes that were cut into slices. Never ends by itself."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self._yield_loop()
            self.write_slice()

    async def _yield_loop(self) -> None:
        """Gives the loop back while others want it, but not for longer than the last slice took.

        So a broadcast that is more than a core can carry leaves half of it to submissions and reads where they need
        it, and none of it idle where they do not.
        """
        now = time.perf_counter()
        until = now + self._slice_seconds
        while True:
            before = now
            await asyncio.sleep(0)
            now = time.perf_counter()
            if now - before < IDLE_TURN or now >= until:
                return
