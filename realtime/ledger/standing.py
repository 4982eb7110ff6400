"""Standing: which primary a server is, among all that a cluster has ever had.

Owns the order of them. Pure. Assumes that each promotion begins a timeline (PostgreSQL, "Timelines").
"""

from __future__ import annotations

from typing import NamedTuple


class Standing(NamedTuple):
    """Which primary it is. Of two of one cluster the one of the later timeline was promoted in the other's place."""

    cluster: int
    timeline: int

    def replaces(self, other: Standing | None) -> bool:
        """Whether whoever has this standing was promoted in the place of `other`."""
        return other is not None and self.cluster == other.cluster and self.timeline > other.timeline
