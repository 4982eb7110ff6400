"""Told: rows of the outbox that the store has heard of, until a statement removes them.

Owns which rows those are, and for which content. Must never lose one to a statement that came to nothing. Assumes that
a row which stays does no harm: the sweeper tells the store what it has already, and removes it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager

from realtime.ledger.recorded import Cleared


class Told:
    """The rows of one process, by partition; those of one partition are of one content."""

    def __init__(self) -> None:
        self._by_partition: dict[str, Cleared] = {}

    def add(self, outbox_ids: Iterable[int], epoch: str | None, partition: str = "") -> None:
        """The content of a partition, of that epoch, has what these rows stand for."""
        known = self._by_partition.get(partition)
        # What was told to other content is left to the sweeper.
        ids = [*known.ids, *outbox_ids] if known is not None and known.epoch == epoch else list(outbox_ids)
        self._by_partition[partition] = Cleared(partition, epoch, ids)

    @property
    def partitions(self) -> frozenset[str]:
        """Those of which there are rows."""
        return frozenset(self._by_partition)

    @contextmanager
    def taken(self, partitions: Collection[str]) -> Iterator[list[Cleared]]:
        """The rows of some partitions, for a statement in this block to remove: they are back where it fails."""
        taken = [self._by_partition.pop(partition) for partition in partitions if partition in self._by_partition]
        try:
            yield taken
        except BaseException:
            for of in taken:
                known = self._by_partition.get(of.partition)
                if known is None or known.epoch == of.epoch:
                    self.add(of.ids, of.epoch, of.partition)
            raise
