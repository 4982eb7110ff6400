"""Batching: when a batch of submissions starts, and how large it is.

Owns the rule alone. Must never hold submissions or read a clock. Assumes that every statement costs one durable
commit, so that few large ones carry more than many small ones, while one alone must not wait.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Batching:
    """`largest` submissions a statement, `lanes` statements at once.

    While nothing is in flight a batch starts at once with whatever waits: no waiting is added when idle. A second
    statement starts beside the first only when it would be well filled; otherwise what arrives meanwhile joins the
    next one, so batches grow with the load by themselves.
    """

    largest: int = 1_000
    lanes: int = 2
    worthwhile: int = 250
    """Waiting submissions from which a further lane is opened."""

    def take(self, waiting: int, in_flight: int) -> int:
        """How many of `waiting` submissions the next statement takes now; 0 to wait for one to end."""
        if waiting == 0 or in_flight >= self.lanes:
            return 0
        if in_flight and waiting < self.worthwhile:
            return 0
        return min(waiting, self.largest)


def halves(count: int) -> tuple[slice, slice]:
    """The two parts of a batch of `count` (at least 2) in which a bad row is looked for."""
    return slice(0, count // 2), slice(count // 2, count)
